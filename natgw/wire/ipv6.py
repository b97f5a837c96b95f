"""IPv6 packets in frames: validated before anybody trusts a field (RFC 8200).

     0             4        6      7       8         24          40
    +-------------+--------+------+-------+---------+-----------+---------------------
    |ver class flw|pay len |next  |hop lim| src     | dst       | extension headers ...
    +-------------+--------+------+-------+---------+-----------+---------------------

Without extension headers source, destination, source port and destination port are 36 bytes in a row at offset 8, as they
are 12 in IPv4. There is no header checksum: the addresses are covered by the transport's, ICMPv6 included (RFC 4443
section 2.3).

Extension headers are walked, within bounds, and pass unread but for the fragment header. A routing header that still has
segments left makes the destination an intermediate one, which nobody who translates addresses can honour; RFC 5095
forbids the one kind of it that strangers would send.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from natgw.wire.checksum import checksum, fold, ones_sum, pseudo_sum
from natgw.wire.ethernet import ETH, L3, TYPE_IPV6
from natgw.wire.ip import IpPacket
from natgw.wire.ipv4 import ICMP, ICMPV6, Malformed, read_transport

IPV6_BYTES = 40
MINIMUM_MTU = 1280
"""RFC 8200 section 5: what every IPv6 link must carry in one piece."""
ADDRESSES = L3 + 8
"""Offset of the source address in a buffer; the destination follows it."""

HOP_BY_HOP = 0
ROUTING = 43
FRAGMENT = 44
NO_NEXT_HEADER = 59
DESTINATION_OPTIONS = 60
_OPTION_HEADERS = frozenset((HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS))
MAX_EXTENSION_HEADERS = 8

ICMPV6_UNREACHABLE = 1
ICMPV6_TOO_BIG = 2
ICMPV6_TIME_EXCEEDED = 3
ICMPV6_PARAMETER_PROBLEM = 4
ICMPV6_ECHO = 128
ICMPV6_ECHO_REPLY = 129
ICMPV6_FIRST_INFORMATIONAL = 128
"""Types below are errors (RFC 4443 section 2.1)."""

_HEADER = struct.Struct("!IHBB16s16s")
_FRAGMENT = struct.Struct("!BxH4s")
_MORE_FRAGMENTS = 0x0001
_FRAGMENT_OFFSET = 0xFFF8


class Ipv6Packet(IpPacket):
    """An IPv6 packet whose lengths hold and whose extension headers lead to a transport header."""

    __slots__ = ("ident",)
    version = 6
    ethertype = TYPE_IPV6.to_bytes(2, "big")
    icmp = ICMPV6
    foreign_icmp = ICMP
    echo_types = (ICMPV6_ECHO, ICMPV6_ECHO_REPLY)

    ident: bytes
    """The identification of its fragment header; empty if there is none."""

    @property
    def fragment_key(self) -> bytes:
        """Addresses and identification (RFC 8200 section 4.5). Of the protocol only the first fragment's word counts."""
        return self.src + self.dst + self.ident

    @property
    def is_icmp_error(self) -> bool:
        return (self.protocol == ICMPV6 and self.fragment_offset == 0
                and self.icmp_type < ICMPV6_FIRST_INFORMATIONAL)


class Chain(NamedTuple):
    """Where a chain of extension headers leads. `fragment_offset` in bytes; `ident` is empty without a fragment header."""

    protocol: int
    l4: int
    fragment_offset: int
    more_fragments: bool
    ident: bytes
    segments_left: bool


def walk_chain(buf: bytes | bytearray, start: int, end: int) -> Chain | None:
    """Follow the extension headers of the packet whose IPv6 header is at `start`; None if they lead nowhere before `end`.

    Behind the fragment header of a later fragment there is no header to follow.
    """
    protocol, at = buf[start + 6], start + IPV6_BYTES
    offset, more, ident, segments_left = 0, False, b"", False
    for number in range(MAX_EXTENSION_HEADERS + 1):
        if protocol == FRAGMENT:
            if ident or at + 8 > end:
                return None
            protocol, field, ident = _FRAGMENT.unpack_from(buf, at)
            offset, more = field & _FRAGMENT_OFFSET, bool(field & _MORE_FRAGMENTS)
            at += 8
            if offset:
                break
            continue
        if protocol not in _OPTION_HEADERS:
            break
        if number == MAX_EXTENSION_HEADERS or at + 8 > end or (protocol == HOP_BY_HOP and number):
            return None
        if protocol == ROUTING and buf[at + 3]:
            segments_left = True
        protocol, at = buf[at], at + 8 + buf[at + 1] * 8
        if at > end:
            return None
    return Chain(protocol, at, offset, more, ident, segments_left)


def parse_ipv6(buf: bytearray, n: int) -> Ipv6Packet | Malformed:
    """The packet in a frame of `n` bytes, or what is wrong with it.

    Bytes of `buf` from `n` on are stale and never looked at. A first fragment must hold the whole chain of headers (RFC
    7112). A jumbogram (RFC 2675) has a payload length of 0 and is refused as one without payload would be.
    """
    if n < L3 + IPV6_BYTES:
        return Malformed.RUNT
    first, payload, _, hop_limit, src, dst = _HEADER.unpack_from(buf, L3)
    if first >> 28 != 6:
        return Malformed.BAD_VERSION
    end = L3 + IPV6_BYTES + payload
    if n < end:
        return Malformed.BAD_LENGTH
    chain = walk_chain(buf, L3, end)
    if chain is None:
        return Malformed.BAD_EXTENSION
    if chain.segments_left:
        return Malformed.ROUTING_HEADER
    packet = Ipv6Packet()
    packet.buf = buf
    packet.src = src
    packet.dst = dst
    packet.ttl = hop_limit
    packet.protocol = chain.protocol
    packet.total_length = IPV6_BYTES + payload
    packet.fragment_offset = chain.fragment_offset
    packet.more_fragments = chain.more_fragments
    packet.ident = chain.ident
    packet.df = True
    packet.l4 = chain.l4
    packet.end = end
    packet.sport = packet.dport = packet.icmp_type = packet.icmp_code = 0
    if packet.fragment_offset == 0 and not read_transport(packet):
        return Malformed.BAD_TRANSPORT
    return packet


def transport_checksum(src: bytes, dst: bytes, protocol: int, message: bytes | bytearray | memoryview) -> int:
    """The value for the checksum field of `message`, which must be zero in it (RFC 8200 section 8.1)."""
    return fold(pseudo_sum(src + dst, protocol, len(message)) + ones_sum(message)) ^ 0xFFFF


def transport_verifies(packet: IpPacket) -> bool:
    """Whether the checksum of an ICMP message is right: with the addresses in ICMPv6, without them in ICMP."""
    message = memoryview(packet.buf)[packet.l4 : packet.end]
    if packet.version == 4:
        return ones_sum(message) == 0xFFFF
    return fold(pseudo_sum(packet.src + packet.dst, packet.protocol, len(message)) + ones_sum(message)) == 0xFFFF


def build_ipv6(eth: bytes, src: bytes, dst: bytes, protocol: int, payload: bytes, *, hop_limit: int = 64,
               traffic_class: int = 0) -> bytearray:
    """A frame (no offload) with one IPv6 packet; `eth` is the whole 14-byte Ethernet header."""
    header = _HEADER.pack(6 << 28 | traffic_class << 20, len(payload), protocol, hop_limit, src, dst)
    return bytearray(bytes(ETH) + eth + header + payload)


def icmp_checksum(message: bytes | bytearray, packet: IpPacket, src: bytes, dst: bytes) -> int:
    """The checksum of an ICMP message of `packet`'s version between two addresses; its own field must be zero."""
    return checksum(message) if packet.version == 4 else transport_checksum(src, dst, ICMPV6, message)
