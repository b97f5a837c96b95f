"""ICMPv6 messages that a gateway makes itself (RFC 4443). The layout is ICMP's; the checksum covers the addresses too.

     0    1    2        4                8
    +----+----+--------+----------------+------------------------------
    |type|code|checksum| rest of header | for an error: as much of the packet as fits
    +----+----+--------+----------------+------------------------------
"""

from __future__ import annotations

import struct

from natgw.wire.ethernet import L3
from natgw.wire.ip import IpPacket
from natgw.wire.ipv4 import ICMPV6
from natgw.wire.ipv6 import ICMPV6_ECHO_REPLY, IPV6_BYTES, MINIMUM_MTU, build_ipv6, transport_checksum

NO_ROUTE = 0
PROHIBITED = 1
BEYOND_SCOPE = 2
ADDRESS_UNREACHABLE = 3
PORT_UNREACHABLE = 4

_U32 = struct.Struct("!I")


def build_message(eth: bytes, src: bytes, dst: bytes, type_: int, code: int, rest: bytes, *, hop_limit: int = 64,
                  traffic_class: int = 0) -> bytearray:
    """A frame with one ICMPv6 message; `rest` is everything behind its checksum."""
    message = bytearray(bytes((type_, code, 0, 0)) + rest)
    message[2:4] = transport_checksum(src, dst, ICMPV6, message).to_bytes(2, "big")
    return build_ipv6(eth, src, dst, ICMPV6, bytes(message), hop_limit=hop_limit, traffic_class=traffic_class)


def build_error(eth: bytes, source: bytes, packet: IpPacket, original: bytes, type_: int, code: int, mtu: int = 0) -> bytearray:
    """A frame with an ICMPv6 error from address `source` to the sender of `packet`.

    `original` is the packet as the sender knows it, from its IP header on; as much of it is quoted as keeps the error
    within the minimum MTU (RFC 4443 section 2.4 c). `mtu` is for "packet too big".
    """
    quoted = original[: MINIMUM_MTU - IPV6_BYTES - 8]
    return build_message(eth, source, packet.src, type_, code, _U32.pack(mtu) + quoted)


def build_echo_reply(eth: bytes, packet: IpPacket) -> bytearray:
    """The frame that answers an echo request, with its identifier, sequence number and data (RFC 4443 section 4.2)."""
    rest = bytes(packet.buf[packet.l4 + 4 : packet.end])
    traffic_class = (packet.buf[L3] & 0x0F) << 4 | packet.buf[L3 + 1] >> 4
    return build_message(eth, packet.dst, packet.src, ICMPV6_ECHO_REPLY, 0, rest, traffic_class=traffic_class)
