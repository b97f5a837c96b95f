"""ICMP messages that a gateway makes itself (RFC 792; RFC 1812 section 4.3).

     0    1    2        4                8
    +----+----+--------+----------------+------------------------------
    |type|code|checksum| rest of header | for an error: IP header + data
    +----+----+--------+----------------+------------------------------
"""

from __future__ import annotations

import struct

from natgw.wire.checksum import checksum
from natgw.wire.ethernet import L3
from natgw.wire.ip import IpPacket
from natgw.wire.ipv4 import DONT_FRAGMENT, ICMP, ICMP_ECHO_REPLY, build_ipv4

UNREACHABLE_NET = 0
UNREACHABLE_HOST = 1
UNREACHABLE_PORT = 3
UNREACHABLE_TOO_BIG = 4
UNREACHABLE_FILTERED = 13

MAX_ERROR_IP_BYTES = 576
"""RFC 1812 section 4.3.2.3: as much of the packet as fits in an ICMP datagram of at most 576 bytes."""
_TOS_INTERNETWORK_CONTROL = 0xC0
"""RFC 1812 section 4.3.2.5: errors carry precedence 6, as Linux sends them."""


def build_error(
    eth: bytes, source: bytes, packet: IpPacket, original: bytes, type_: int, code: int, mtu: int = 0
) -> bytearray:
    """A frame with an ICMP error from address `source` to the sender of `packet`.

    `original` is the packet as the sender knows it, from its IP header on. `mtu` fills the next-hop MTU field of RFC 1191.
    """
    quoted = original[: MAX_ERROR_IP_BYTES - 28]
    body = struct.pack("!BBHHH", type_, code, 0, 0, mtu) + quoted
    message = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    return build_ipv4(eth, source, packet.src, ICMP, message, tos=_TOS_INTERNETWORK_CONTROL)


def build_echo_reply(eth: bytes, packet: IpPacket) -> bytearray:
    """The frame that answers an echo request, with its identifier, sequence number and data (RFC 792)."""
    request = packet.buf[packet.l4 : packet.end]
    body = bytes((ICMP_ECHO_REPLY, 0, 0, 0)) + request[4:]
    message = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    tos, ident = packet.buf[L3 + 1], int.from_bytes(packet.buf[L3 + 4 : L3 + 6], "big")
    flags = DONT_FRAGMENT if packet.df else 0
    return build_ipv4(eth, packet.dst, packet.src, ICMP, bytes(message), tos=tos, ident=ident, flags=flags)
