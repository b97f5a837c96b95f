"""What IPv4 and IPv6 packets have in common, and what an address says of itself, whichever family it is of.

Addresses are raw bytes, 4 or 16 of them: their length tells the family, so that tables can hold both and nobody has to say
which is meant. `natgw.wire.ipv4` and `natgw.wire.ipv6` read the headers; whoever decides something takes an `IpPacket`.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar

from natgw.wire.vnet import GSO_NONE, NEEDS_CSUM

IPV4_ADDRESS_BYTES, IPV6_ADDRESS_BYTES = 4, 16

UNSPECIFIED6 = bytes(16)
ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
ALL_ROUTERS = bytes.fromhex("ff020000000000000000000000000002")
_LOOPBACK6 = bytes(15) + b"\1"
_MAPPED = bytes(10) + b"\xff\xff"
"""::ffff:0:0/96, IPv4 written as IPv6: never on a wire (RFC 6890)."""


class IpPacket:
    """A packet whose lengths hold, in the buffer it came in.

    `l4` and `end` are offsets in the buffer, `total_length` counts from the IP header on; addresses are raw bytes; `ttl` is
    IPv6's hop limit too. `sport` and `dport` are the ports of TCP and UDP, and both the identifier of an ICMP query. They
    are 0 in a later fragment and for protocols natgw does not know. `protocol` is what the transport header is, behind all
    extension headers. `df` says that nobody on the way may fragment it, which is so for all of IPv6.
    """

    __slots__ = ("buf", "df", "dport", "dst", "end", "fragment_offset", "icmp_code", "icmp_type", "l4", "more_fragments",
                 "protocol", "sport", "src", "total_length", "ttl")

    version: ClassVar[int]
    ethertype: ClassVar[bytes]
    icmp: ClassVar[int]
    """The number of the protocol that carries errors and echo for this version."""
    foreign_icmp: ClassVar[int]
    """The number of the one that does so for the other version, and means nothing here."""
    echo_types: ClassVar[tuple[int, int]]
    """Request and reply."""

    buf: bytearray
    src: bytes
    dst: bytes
    ttl: int
    protocol: int
    total_length: int
    fragment_offset: int
    more_fragments: bool
    df: bool
    l4: int
    end: int
    sport: int
    dport: int
    icmp_type: int
    icmp_code: int

    @property
    def is_fragment(self) -> bool:
        return self.more_fragments or self.fragment_offset > 0

    @property
    def fragment_key(self) -> bytes:
        """What all fragments of one packet have in common. To be asked for before the packet is rewritten."""
        raise NotImplementedError

    @property
    def is_superframe(self) -> bool:
        """Whether the frame stands for several packets (GSO)."""
        return self.buf[1] != GSO_NONE

    @property
    def checksum_is_partial(self) -> bool:
        """Whether the transport checksum still has to be completed by whoever puts the packet on a wire."""
        return bool(self.buf[0] & NEEDS_CSUM)

    @property
    def gso_bytes(self) -> int:
        """Payload bytes of each packet in a superframe."""
        return self.buf[4] | self.buf[5] << 8

    @property
    def is_icmp(self) -> bool:
        return self.protocol == self.icmp

    @property
    def is_foreign_icmp(self) -> bool:
        return self.protocol == self.foreign_icmp

    @property
    def is_icmp_error(self) -> bool:
        raise NotImplementedError

    @property
    def is_echo_request(self) -> bool:
        return self.protocol == self.icmp and self.fragment_offset == 0 and self.icmp_type == self.echo_types[0]

    @property
    def is_echo_reply(self) -> bool:
        return self.protocol == self.icmp and self.fragment_offset == 0 and self.icmp_type == self.echo_types[1]

    @property
    def tcp_flags(self) -> int:
        return self.buf[self.l4 + 13]


def is_multicast(ip: bytes) -> bool:
    """Whether an address means several hosts; of IPv4 all from 224.0.0.0 on, which no host can have (RFC 1112, RFC 4291)."""
    return ip[0] >= 224 if len(ip) == IPV4_ADDRESS_BYTES else ip[0] == 0xFF


def is_link_local(ip: bytes) -> bool:
    """fe80::/10. What has such an address must not leave its link (RFC 4291 section 2.5.6)."""
    return len(ip) == IPV6_ADDRESS_BYTES and ip[0] == 0xFE and ip[1] & 0xC0 == 0x80


def is_martian(ip: bytes) -> bool:
    """Whether an address cannot be that of a host elsewhere: "this" network, loopback, groups (RFC 1812 section 5.3.7,
    RFC 4291 section 2.5)."""
    if len(ip) == IPV4_ADDRESS_BYTES:
        return ip[0] in (0, 127) or ip[0] >= 224
    return ip[0] == 0xFF or ip in (UNSPECIFIED6, _LOOPBACK6) or ip[:12] == _MAPPED or is_link_local(ip)


def solicited_node(ip: bytes) -> bytes:
    """The group in which a host with an IPv6 address is asked for (RFC 4291 section 2.7.1)."""
    return bytes.fromhex("ff0200000000000000000001ff") + ip[13:]


def group_mac(ip: bytes) -> bytes:
    """The Ethernet address of an IPv6 group (RFC 2464 section 7)."""
    return b"\x33\x33" + ip[12:]


def link_local_of(mac: bytes) -> bytes:
    """The link-local address that follows from a MAC address (RFC 4291 appendix A)."""
    return b"\xfe\x80" + bytes(6) + bytes((mac[0] ^ 0x02,)) + mac[1:3] + b"\xff\xfe" + mac[3:]


def ip_text(ip: bytes) -> str:
    return str(IPv4Address(ip) if len(ip) == IPV4_ADDRESS_BYTES else IPv6Address(ip))


def endpoint_text(endpoint: bytes) -> str:
    """`192.0.2.1:80` or `[2001:db8::1]:80` for an address and a port of 2 bytes."""
    address, port = ip_text(endpoint[:-2]), int.from_bytes(endpoint[-2:], "big")
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
