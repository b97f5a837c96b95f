"""IPv4 packets in frames: validated before anybody trusts a field (RFC 791, RFC 1812 section 5.2.2).

     0       1     2      4      6      8     9      10      12     16     20
    +-------+-----+------+------+------+-----+------+-------+------+------+---------
    |ver ihl| tos | len  | id   | frag | ttl | proto| chksum| src  | dst  | options
    +-------+-----+------+------+------+-----+------+-------+------+------+---------

and what natgw must know of the transport header behind it. Ports of TCP and UDP lie right behind the addresses when
there are no options: source, destination, source port and destination port are 12 bytes in a row at offset 12.

A superframe of TCP may be longer than its header can say, and then says 0 (`big_tcp_bytes`).
"""

from __future__ import annotations

import struct
from enum import Enum

from natgw.wire.checksum import checksum
from natgw.wire.ethernet import ETH, L3, TYPE_IPV4
from natgw.wire.ip import IpPacket
from natgw.wire.transport import CHECKSUM_OFFSETS, NAMES, WITH_PORTS, has_sound_header
from natgw.wire.vnet import GSO_ECN, GSO_TCPV4

ICMP = 1
TCP = 6
UDP = 17
ICMPV6 = 58

PROTOCOL_NAMES = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPV6: "icmpv6", **NAMES}
PROTOCOL_NUMBERS = {name: number for number, name in PROTOCOL_NAMES.items()}

IPV4_BYTES = 20
LONGEST = 65535
"""Bytes of an IP packet, as its header can say them."""
MORE_FRAGMENTS = 0x2000
DONT_FRAGMENT = 0x4000
FRAGMENT_OFFSET = 0x1FFF

_HEADER = struct.Struct("!BBHHHBBH4s4s")
_PORTS = struct.Struct("!HH")
_ICMP = struct.Struct("!BBHHH")

_MINIMUM_L4 = {TCP: 20, UDP: 8, **WITH_PORTS}
_MINIMUM_ICMP = 8
CHECKSUM_OFFSET = {ICMP: 2, TCP: 16, UDP: 6, ICMPV6: 2, **CHECKSUM_OFFSETS}
"""Where an Internet checksum lies in a transport's header."""

ICMP_ECHO_REPLY = 0
ICMP_UNREACHABLE = 3
ICMP_SOURCE_QUENCH = 4
ICMP_REDIRECT = 5
ICMP_ECHO = 8
ICMP_TIME_EXCEEDED = 11
ICMP_PARAMETER_PROBLEM = 12
ICMP_TIMESTAMP = 13
ICMP_TIMESTAMP_REPLY = 14

ICMP_ERRORS = frozenset((ICMP_UNREACHABLE, ICMP_SOURCE_QUENCH, ICMP_REDIRECT, ICMP_TIME_EXCEEDED, ICMP_PARAMETER_PROBLEM))
ICMP_QUERIES = frozenset((ICMP_ECHO, ICMP_TIMESTAMP))
ICMP_REPLIES = frozenset((ICMP_ECHO_REPLY, ICMP_TIMESTAMP_REPLY))


class Malformed(Enum):
    """Why bytes are not an IPv4 packet that a router may forward."""

    RUNT = "shorter than its own headers"
    BAD_VERSION = "version is not 4"
    BAD_IHL = "header length under 20 bytes or beyond the packet"
    BAD_LENGTH = "total length beyond the frame or under the header"
    BAD_CHECKSUM = "IP header checksum does not verify"
    BAD_TRANSPORT = "transport header cut short or with a length that cannot be"
    BAD_EXTENSION = "IPv6 extension headers that are too many or lead beyond the packet"
    ROUTING_HEADER = "IPv6 routing header with segments left"


class Ipv4Packet(IpPacket):
    """An IPv4 packet whose lengths and checksum hold."""

    __slots__ = ()
    version = 4
    ethertype = TYPE_IPV4.to_bytes(2, "big")
    icmp = ICMP
    foreign_icmp = ICMPV6
    echo_types = (ICMP_ECHO, ICMP_ECHO_REPLY)

    @property
    def fragment_key(self) -> bytes:
        """Addresses, identification, protocol (RFC 791 section 2.3)."""
        return self.src + self.dst + bytes(self.buf[L3 + 4 : L3 + 6]) + bytes((self.protocol,))

    @property
    def is_icmp_error(self) -> bool:
        return self.protocol == ICMP and self.fragment_offset == 0 and self.icmp_type in ICMP_ERRORS


def parse_ipv4(buf: bytearray, n: int) -> Ipv4Packet | Malformed:
    """The packet in a frame of `n` bytes, or what is wrong with it.

    Bytes of `buf` from `n` on are stale and never looked at. Ethernet padding behind the packet is cut off: `end` follows
    the IP total length.
    """
    if n < L3 + IPV4_BYTES:
        return Malformed.RUNT
    version_ihl, _, total, _, fragment, ttl, protocol, _, src, dst = _HEADER.unpack_from(buf, L3)
    if version_ihl >> 4 != 4:
        return Malformed.BAD_VERSION
    header = (version_ihl & 0x0F) * 4
    if header < IPV4_BYTES or n < L3 + header:
        return Malformed.BAD_IHL
    if not total and protocol == TCP:
        total = big_tcp_bytes(n, buf[1])
    if total < header or n < L3 + total:
        return Malformed.BAD_LENGTH
    if int.from_bytes(buf[L3 : L3 + header], "big") % 0xFFFF:
        return Malformed.BAD_CHECKSUM
    packet = Ipv4Packet()
    packet.buf = buf
    packet.src = src
    packet.dst = dst
    packet.ttl = ttl
    packet.protocol = protocol
    packet.total_length = total
    packet.fragment_offset = (fragment & FRAGMENT_OFFSET) * 8
    packet.more_fragments = bool(fragment & MORE_FRAGMENTS)
    packet.df = bool(fragment & DONT_FRAGMENT)
    packet.l4 = L3 + header
    packet.end = L3 + total
    packet.sport = packet.dport = packet.icmp_type = packet.icmp_code = 0
    if packet.fragment_offset == 0 and not read_transport(packet):
        return Malformed.BAD_TRANSPORT
    return packet


def big_tcp_bytes(n: int, gso_type: int) -> int:
    """The length of the IP packet in a frame of `n` bytes whose header says 0, if it is a TCP superframe that is longer than
    the field can say; else 0. Linux calls it BIG TCP (6.3 and later, `iph_totlen` in include/linux/ip.h); it leaves no machine.
    """
    return n - L3 if n > L3 + LONGEST and gso_type & ~GSO_ECN == GSO_TCPV4 else 0


def read_transport(packet: IpPacket) -> bool:
    """Fill in ports or ICMP fields; False when the transport header is cut short or lies about its length."""
    buf, l4, protocol = packet.buf, packet.l4, packet.protocol
    available = packet.end - l4
    if available < (_MINIMUM_ICMP if packet.is_icmp else _MINIMUM_L4.get(protocol, 0)):
        return False
    if protocol == TCP:
        packet.sport, packet.dport = _PORTS.unpack_from(buf, l4)
        header = buf[l4 + 12] >> 4 << 2
        return 20 <= header <= available
    if protocol == UDP:
        packet.sport, packet.dport, length = struct.unpack_from("!HHH", buf, l4)
        return length >= 8 and (length <= available or packet.more_fragments)
    if packet.is_icmp:
        packet.icmp_type, packet.icmp_code, _, identifier, _ = _ICMP.unpack_from(buf, l4)
        queries = ICMP_QUERIES | ICMP_REPLIES if packet.version == 4 else packet.echo_types
        if packet.icmp_type in queries:
            packet.sport = packet.dport = identifier
    if protocol in WITH_PORTS:
        packet.sport, packet.dport = _PORTS.unpack_from(buf, l4)
        return has_sound_header(protocol, buf[l4 : l4 + WITH_PORTS[protocol]], available,
                                is_first_fragment=packet.more_fragments, partial=packet.checksum_is_partial)
    return True


def has_ports(protocol: int) -> bool:
    """Whether a protocol has ports, or an identifier that does for them; any other is translated by address alone."""
    return protocol in _MINIMUM_L4 or protocol in (ICMP, ICMPV6)


def build_ipv4(eth: bytes, src: bytes, dst: bytes, protocol: int, payload: bytes, *, ttl: int = 64, tos: int = 0,
               ident: int = 0, flags: int = 0) -> bytearray:
    """A frame (no offload) with one IPv4 packet; `eth` is the whole 14-byte Ethernet header."""
    header = bytearray(_HEADER.pack(0x45, tos, IPV4_BYTES + len(payload), ident, flags, ttl, protocol, 0, src, dst))
    header[10:12] = checksum(header).to_bytes(2, "big")
    return bytearray(bytes(ETH) + eth + header + payload)
