"""Hypothesis strategies for what crosses a NAT, and for how it behaves.

Packets are scapy's; frames and hostile bytes are bytes. Where a version can be chosen it is 4 or 6; what is made about a packet
is of the packet's version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from natgw.datapath import PRESETS, TIMEOUT_PROFILES, Dependence, NatBehaviour, NatConfig, Timeouts
from natgw.testing.packets import dissected, echo_of, error_of, fragments_of, transport_of, version_of

ICMP_ERROR_TYPES = ((3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (11, 0), (12, 0))
ICMPV6_ERROR_TYPES = ((1, 0), (1, 1), (1, 3), (1, 4), (2, 0), (3, 0), (3, 1), (4, 0), (4, 1))
TCP_FLAGS = ("S", "SA", "A", "PA", "FA", "R", "RA", "SF", "", "FPU")


def addresses(network: str = "203.0.113.0/24") -> st.SearchStrategy[str]:
    """Addresses of hosts in a network of either version."""
    found = ip_network(network, strict=False)
    first, last = int(found[0]), int(found[-1])
    usable = st.integers(first + 1, last - 1) if last - first > 1 else st.integers(first, last)
    return usable.map(lambda number: str(type(found[0])(number)))


def _inside(version: int) -> st.SearchStrategy[str]:
    """Addresses as the simulated gateway gives them to containers."""
    return addresses("fd00:1:2:3::/125" if version == 6 else "172.17.0.0/29")


def _outside(version: int) -> st.SearchStrategy[str]:
    return addresses("2001:db8:113::/64") if version == 6 else addresses()


def ports(low: int = 1, high: int = 65535) -> st.SearchStrategy[int]:
    """Ports, with the borders of their classes more often than chance has them."""
    edges = [port for port in (1, 1023, 1024, 65535) if low <= port <= high]
    anywhere = st.integers(low, high)
    return st.one_of(anywhere, st.sampled_from(edges)) if edges else anywhere


@st.composite
def segments(draw: st.DrawFn, src: st.SearchStrategy[str] | None = None, dst: st.SearchStrategy[str] | None = None,
             protocols: Sequence[str] = ("udp", "tcp", "icmp"), max_payload: int = 40, version: int = 4) -> Packet:
    """Whole, well-formed IP packets: UDP (of IPv4 at times without a checksum), TCP with any flags, echo of ICMP or ICMPv6.

    Addresses that are given must be of `version`.
    """
    one, two = draw(_inside(version) if src is None else src), draw(_outside(version) if dst is None else dst)
    number, hops = draw(st.integers(0, 65535)), draw(st.sampled_from((1, 2, 64, 255)))
    ip = IPv6(src=one, dst=two, fl=number, hlim=hops) if version == 6 else IP(src=one, dst=two, id=number, ttl=hops)
    payload = draw(st.binary(max_size=max_payload))
    kind = draw(st.sampled_from(list(protocols)))
    if kind == "icmp":
        asks, identifier = draw(st.booleans()), draw(st.integers(0, 65535))
        return ip / echo_of(version, asks=asks, identifier=identifier, number=0, payload=payload)
    sport, dport = draw(ports()), draw(ports())
    if kind == "udp":
        checksum = {"chksum": 0} if version == 4 and draw(st.booleans()) else {}
        return ip / UDP(sport=sport, dport=dport, **checksum) / Raw(payload)
    return ip / TCP(sport=sport, dport=dport, flags=draw(st.sampled_from(TCP_FLAGS)),
                    seq=draw(st.integers(0, 2**32 - 1))) / Raw(payload)


@dataclass(frozen=True)
class Conversation:
    """Two endpoints and what they say: for each packet, whether the first endpoint sends it, and the packet."""

    packets: list[tuple[bool, Packet]]


@st.composite
def flows(draw: st.DrawFn, max_data: int = 5, version: int = 4) -> Conversation:
    """A conversation as its two ends would have it without a NAT: UDP both ways, or TCP from handshake to close."""
    one, two = draw(_inside(version)), draw(_outside(version))
    sport, dport = draw(ports()), draw(ports())
    data = draw(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=40)), max_size=max_data))
    header = IPv6 if version == 6 else IP

    def packet(outward: bool, layer: type[Packet], **fields: object) -> tuple[bool, Packet]:
        ends = ({"src": one, "dst": two}, {"sport": sport, "dport": dport}) if outward else (
            {"src": two, "dst": one}, {"sport": dport, "dport": sport})
        return outward, header(**ends[0]) / layer(**ends[1], **fields)

    if draw(st.booleans()):
        begin = (True, packet(True, UDP)[1] / Raw(b"first"))
        return Conversation([begin, *((outward, packet(outward, UDP)[1] / Raw(said)) for outward, said in data)])
    said = [(outward, packet(outward, TCP, flags="PA")[1] / Raw(text)) for outward, text in data]
    shake = [packet(True, TCP, flags="S"), packet(False, TCP, flags="SA"), packet(True, TCP, flags="A")]
    close = [packet(True, TCP, flags="FA"), packet(False, TCP, flags="FA"), packet(True, TCP, flags="A")]
    return Conversation([*shake, *said, *close])


@st.composite
def fragment_trains(draw: st.DrawFn, packets: st.SearchStrategy[Packet] | None = None) -> list[Packet]:
    """The fragments of one packet, at least two, in any order. A packet of IPv6 must have no extension headers."""
    drawn = draw(segments(protocols=("udp", "icmp")) if packets is None else packets)
    whole = _without_lengths(dissected(bytes(drawn)))
    whole = dissected(bytes(whole / Raw(draw(st.binary(min_size=24, max_size=80)))))
    size, number = draw(st.sampled_from((8, 16, 24))), draw(st.integers(0, 2**32 - 1))
    return list(draw(st.permutations(fragments_of(whole, size, number))))


def _without_lengths(packet: Packet) -> Packet:
    """The packet with what scapy fills in left open: lengths and checksums."""
    for layer in (packet, packet.payload):
        for name in ("len", "plen", "chksum", "cksum"):
            if name in layer.fields:
                delattr(layer, name)
    return packet


@st.composite
def icmp_errors(draw: st.DrawFn, about: Packet | bytes, src: str | None = None) -> Packet:
    """An ICMP or ICMPv6 error about a packet as it arrived, to its sender: from where it went to, or from a router on the way.

    It quotes all of the packet or only the IP header and 8 bytes (RFC 792).
    """
    data = bytes(about)
    quoted = dissected(data)
    kind = draw(st.sampled_from(ICMPV6_ERROR_TYPES if version_of(data) == 6 else ICMP_ERROR_TYPES))
    length = transport_of(data).at + 8 if draw(st.booleans()) else len(data)
    return error_of(src or quoted.dst, quoted.src, kind, data[:length])


@st.composite
def hostile_bytes(draw: st.DrawFn, packets: st.SearchStrategy[Packet] | None = None) -> bytes:
    """Bytes where an IP packet should be: noise, or a packet with bits turned, cut short, or with lengths that lie."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=80))
    data = bytearray(bytes(draw(segments() if packets is None else packets)))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    elif draw(st.booleans()):
        at = 4 if version_of(bytes(data)) == 6 else 2
        data[at : at + 2] = draw(st.integers(0, 65535)).to_bytes(2, "big")
    return bytes(data)


def frames(src_mac: str, dst_mac: str, packets: st.SearchStrategy[Packet] | None = None) -> st.SearchStrategy[bytes]:
    """Ethernet frames with IP packets in them."""
    return (segments() if packets is None else packets).map(lambda packet: bytes(Ether(src=src_mac, dst=dst_mac) / packet))


@st.composite
def behaviours(draw: st.DrawFn) -> NatBehaviour:
    """Any mapping with any filtering, and overload where it may be."""
    mapping, filtering = draw(st.sampled_from(Dependence)), draw(st.sampled_from(Dependence))
    strict = mapping is filtering is Dependence.ADDRESS_AND_PORT_DEPENDENT
    return NatBehaviour(mapping=mapping, filtering=filtering, overload=strict and draw(st.booleans()))


def timeouts() -> st.SearchStrategy[Timeouts]:
    """The profiles, and one of odd numbers in which everything ends soon."""
    soon = Timeouts(udp_s=3.5, udp_stream_s=7, icmp_s=2, tcp_syn_sent_s=4, tcp_syn_recv_s=5, tcp_established_s=20.5,
                    tcp_fin_wait_s=6, tcp_close_wait_s=7, tcp_last_ack_s=3, tcp_time_wait_s=4, tcp_close_s=2)
    return st.sampled_from((*TIMEOUT_PROFILES.values(), soon))


@st.composite
def nat_configs(draw: st.DrawFn, allocations: Sequence[str] = ("preserve", "random", "sequential"),
                external: Sequence[str] = ()) -> NatConfig:
    """Presets, and any combination of choices; `external` are addresses to translate to, of which any may be chosen.

    Without a rate limit, which is a matter of time and not of packets.
    """
    if draw(st.integers(0, 3)) == 0:
        preset = draw(st.sampled_from(sorted(PRESETS)))
        return replace(PRESETS[preset], allocation=draw(st.sampled_from(list(allocations))))
    chosen = draw(st.lists(st.sampled_from(list(external)), unique=True)) if external else []
    return NatConfig(
        external_addresses=tuple(map(ip_address, chosen)), paired=draw(st.booleans()), udp=draw(behaviours()),
        tcp=draw(behaviours()), timeouts=draw(timeouts()),
        allocation=draw(st.sampled_from(list(allocations))), parity=draw(st.booleans()), hairpin=draw(st.integers(0, 3)) > 0,
        refresh_inbound=draw(st.integers(0, 3)) > 0, pick_up=draw(st.booleans()), hold_syn_s=draw(st.sampled_from((0.0, 6.0))),
        port_rest_s=draw(st.sampled_from((0.0, 0.0, 10.0))), ports_per_host=draw(st.sampled_from((0, 0, 3))))
