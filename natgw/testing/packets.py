"""Packets of both versions as the test kit makes and reads them.

An address is text, and says by itself which version it is of. Scapy has a class of its own for each ICMPv6 message and for each
extension header; what is asked of any packet is therefore read from its bytes.
"""

from __future__ import annotations

import struct
from socket import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP
from typing import NamedTuple

from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.packet import Packet, Raw

from natgw.testing.modelwords import QUERIES, Endpoint
from natgw.wire.checksum import checksum, pseudo_sum
from natgw.wire.transport import GRE, SCTP, UDPLITE, finish_sctp_checksum

NUMBERS = {"udplite": UDPLITE, "sctp": SCTP, "gre": GRE, "50": 50}
"""The protocols that scapy's own layers are not needed for."""
WITHOUT_PORTS = ("gre", "50")
EVENTS = {"S": "syn", "SA": "synack", "A": "ack", "PA": "ack", "FA": "fin", "R": "rst", "RA": "rst"}
"""What TCP flags say to the model."""
ECHO_TYPES = {4: (8, 0), 6: (128, 129)}
"""Of an echo request and of its reply."""
QUOTED = {4: 28, 6: 48}
"""Where in an ICMP error the quoted packet begins, and as many bytes of a packet as an error quotes at the least."""

_ERRORS6 = {1: ICMPv6DestUnreach, 2: ICMPv6PacketTooBig, 3: ICMPv6TimeExceeded, 4: ICMPv6ParamProblem}
_IPV6_BYTES = 40
_EXTENSIONS = (0, 43, 60)
"""Hop-by-hop options, routing, destination options: each tells its length."""
_FRAGMENT = 44


class Transport(NamedTuple):
    """The transport header of a packet: its protocol, its offset in the packet, and which part of a datagram is there.

    `fragment` is the offset of that part, and `more` says whether others follow.
    """

    protocol: int
    at: int
    fragment: int
    more: bool


# -- reading ---------------------------------------------------------------------------------------------------------------


def version_of(packet: bytes | str) -> int:
    """Of a packet's bytes, or of an address as text; what is neither version counts as 4."""
    if isinstance(packet, str):
        return 6 if ":" in packet else 4
    return 6 if packet[:1] and packet[0] >> 4 == 6 else 4


def dissected(packet: Packet | bytes) -> Packet:
    """The packet as scapy dissects it."""
    if not isinstance(packet, bytes):
        return packet
    return IPv6(packet) if version_of(packet) == 6 else IP(packet)


def header_of(packet: Packet) -> Packet | None:
    """The outermost IP header, of either version."""
    layer = packet
    while layer and not isinstance(layer, IP | IPv6):
        layer = layer.payload
    return layer or None


def hops_of(packet: Packet) -> int:
    """The TTL, or the hop limit."""
    return int(packet.hlim if isinstance(packet, IPv6) else packet.ttl)


def addresses_of(data: bytes) -> tuple[bytes, bytes]:
    """Source and destination, raw."""
    return (data[8:24], data[24:40]) if version_of(data) == 6 else (data[12:16], data[16:20])


def transport_of(data: bytes) -> Transport:
    """Where the transport header of a well-formed packet is, behind all extension headers."""
    if version_of(data) == 4:
        field = int.from_bytes(data[6:8], "big")
        return Transport(data[9], (data[0] & 15) * 4, (field & 0x1FFF) * 8, bool(field & 0x2000))
    protocol, at, offset, more = data[6], _IPV6_BYTES, 0, False
    while protocol in (*_EXTENSIONS, _FRAGMENT) and not offset and at + 8 <= len(data):
        if protocol == _FRAGMENT:
            field, size = int.from_bytes(data[at + 2 : at + 4], "big"), 8
            offset, more = field & 0xFFF8, bool(field & 1)
        else:
            size = 8 + data[at + 1] * 8
        protocol, at = data[at], at + size
    return Transport(protocol, at, offset, more)


def icmp_of(packet: Packet | bytes) -> tuple[int, int] | None:
    """Type and code of an ICMP or ICMPv6 message; None for any other packet."""
    data = bytes(packet)
    protocol, at, offset, _ = transport_of(data)
    is_icmp = protocol == (IPPROTO_ICMPV6 if version_of(data) == 6 else IPPROTO_ICMP)
    return (data[at], data[at + 1]) if is_icmp and not offset and len(data) >= at + 2 else None


def endpoints(packet: Packet) -> tuple[Endpoint, Endpoint]:
    """Source and destination of a packet; an ICMP query has its identifier as both ports."""
    data = bytes(packet)
    protocol, at, _, _ = transport_of(data)
    if icmp_of(data) is not None:
        ports = [int.from_bytes(data[at + 4 : at + 6], "big")] * 2
    elif protocol in (IPPROTO_TCP, IPPROTO_UDP, UDPLITE, SCTP):
        ports = [int.from_bytes(data[at + each : at + each + 2], "big") for each in (0, 2)]
    else:
        ports = [0, 0]
    return (packet.src, ports[0]), (packet.dst, ports[1])


def payload_of(packet: Packet | bytes) -> bytes:
    """What the packet carries behind its transport header; nothing if that is none scapy reads."""
    packet = dissected(packet)
    header = header_of(packet)
    if header is None:
        return b""
    if isinstance(header, IP):
        return bytes(header.payload.payload)
    data = bytes(header)
    protocol, at, offset, _ = transport_of(data)
    sizes = {IPPROTO_UDP: 8, IPPROTO_ICMPV6: 8}
    if protocol == IPPROTO_TCP and len(data) > at + 12:
        sizes[IPPROTO_TCP] = data[at + 12] >> 4 << 2
    end = _IPV6_BYTES + int.from_bytes(data[4:6], "big")
    return b"" if offset or protocol not in sizes else data[at + sizes[protocol] : end]


def carried(packet: Packet | bytes) -> bytes:
    """What a packet carries behind its transport header, or behind the IP header where that has all there is."""
    data = bytes(packet)
    protocol, at, _, _ = transport_of(data)
    sizes = {UDPLITE: 8, SCTP: 12}
    return data[at + sizes.get(protocol, 0) :] if protocol in NUMBERS.values() else payload_of(data)


# -- making ----------------------------------------------------------------------------------------------------------------


def packet_of(protocol: str, src: Endpoint, dst: Endpoint, payload: bytes, *, number: int, flags: str = "", ttl: int = 64,
              asks: bool = True, identifier: int = 0) -> Packet:
    """The `number`th packet of all, which its header says. An ICMP query has an identifier for ports, and asks or answers."""
    version = version_of(src[0])
    ip = (IPv6(src=src[0], dst=dst[0], hlim=ttl, fl=number & 0xFFFFF) if version == 6 else
          IP(src=src[0], dst=dst[0], ttl=ttl, id=number & 0xFFFF))
    if protocol in QUERIES:
        layer = echo_of(version, asks=asks, identifier=identifier, number=number, payload=payload)
    elif protocol in NUMBERS:
        layer = _other(ip, protocol, src[1], dst[1], payload)
    elif protocol == "tcp":
        layer = TCP(sport=src[1], dport=dst[1], flags=flags, seq=number) / Raw(payload)
    else:
        layer = UDP(sport=src[1], dport=dst[1]) / Raw(payload)
    return dissected(bytes(ip / layer))


def echo_of(version: int, *, asks: bool, identifier: int, number: int, payload: bytes) -> Packet:
    """An echo request, or the reply to one, without the IP header."""
    if version == 4:
        return ICMP(type=ECHO_TYPES[4][0 if asks else 1], id=identifier, seq=number & 0xFFFF) / Raw(payload)
    return (ICMPv6EchoRequest if asks else ICMPv6EchoReply)(id=identifier, seq=number & 0xFFFF, data=payload)


def _other(ip: Packet, protocol: str, sport: int, dport: int, payload: bytes) -> Packet:
    """What follows the header of a protocol that scapy's own layers are not needed for, with 8 bytes at least, so that errors
    quote it. The header is told the protocol."""
    number = NUMBERS[protocol]
    if isinstance(ip, IPv6):
        ip.nh = number
    else:
        ip.proto = number
    if protocol == "udplite":
        header = struct.pack("!HHHH", sport, dport, 8, 0)
        pseudo = pseudo_sum(b"".join(addresses_of(bytes(ip))), UDPLITE, len(header + payload))
        value = checksum(pseudo.to_bytes(2, "big"), header) or 0xFFFF
        return Raw(header[:6] + value.to_bytes(2, "big") + payload)
    if protocol == "sctp":
        message = bytearray(struct.pack("!HHII", sport, dport, 7, 0) + payload)
        finish_sctp_checksum(message, 0, len(message))
        return Raw(bytes(message))
    return Raw(bytes(8) + payload)


def error_of(src: str, dst: str, kind: tuple[int, int], quoted: bytes) -> Packet:
    """An ICMP error, type and code, of the addresses' version. "Packet too big" says 1280."""
    type_, code = kind
    if version_of(src) == 4:
        return IP(src=src, dst=dst) / ICMP(type=type_, code=code) / Raw(quoted)
    return IPv6(src=src, dst=dst) / _ERRORS6[type_](code=code) / Raw(quoted)


def fragments_of(whole: Packet, size: int, number: int) -> list[Packet]:
    """A packet in fragments of `size` bytes, a multiple of 8, behind their headers; IPv6 has `number` as identification."""
    if not isinstance(whole, IPv6):
        return list(fragment(whole, fragsize=size))
    data = bytes(whole)
    return [IPv6(src=whole.src, dst=whole.dst, hlim=whole.hlim, tc=whole.tc, fl=whole.fl)
            / IPv6ExtHdrFragment(nh=whole.nh, offset=at - _IPV6_BYTES >> 3, m=int(at + size < len(data)), id=number)
            / Raw(data[at : at + size]) for at in range(_IPV6_BYTES, len(data), size)]


def joined(fragments: list[Packet]) -> Packet:
    """The packet that fragments are, all of them there and in order."""
    first = fragments[0]
    if isinstance(first, IPv6):
        header = IPv6(src=first.src, dst=first.dst, hlim=first.hlim, tc=first.tc, fl=first.fl, nh=first[IPv6ExtHdrFragment].nh)
    else:
        header = first.copy()
        header.remove_payload()
        header.flags, header.len, header.chksum = 0, None, None
    return dissected(bytes(header / Raw(b"".join(bytes(each)[transport_of(bytes(each)).at :] for each in fragments))))
