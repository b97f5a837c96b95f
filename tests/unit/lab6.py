"""The laboratory of core_lab.py with IPv6 beside IPv4: addresses for all, a router that answers neighbour discovery, and
packets of IPv6. Checksums of all that is sent are computed anew by scapy.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any

from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    in6_pseudoheader,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from natgw.datapath import Datapath, DatapathConfig, NetworkConfig, Port, PortKind, Publication, Route, UplinkConfig
from natgw.datapath.config import TransportName
from natgw.wire.checksum import ones_sum
from natgw.wire.ethernet import ETH, L3, parse_mac
from natgw.wire.ipv6 import Ipv6Packet, parse_ipv6
from natgw.wire.vnet import NEEDS_CSUM, VNET, VNET_BYTES
from tests.unit.core_lab import (
    A_IP,
    A_MAC,
    B_IP,
    B_MAC,
    EXTERNAL,
    GATEWAY_IP,
    GATEWAY_MAC,
    ROUTER,
    ROUTER_MAC,
    STALE,
    UPLINK_MAC,
    Lab,
    Outcome,
    arp_reply,
    uplink_config,
)

PREFIX = "fd00:1:2:3::/64"
GATEWAY6, GATEWAY6_LL = "fd00:1:2:3::1", "fe80::42:acff:fe11:1"
A6, B6 = "fd00:1:2:3::2", "fd00:1:2:3::3"
A6_LL = "fe80::42:acff:fe11:2"
EXTERNAL6, ROUTER6 = "2001:db8:51::2", "fe80::bb:ff:fe00:1"
UPLINK6_LL = "fe80::aa:ff:fe00:1"
REMOTE6 = "2001:db8:113::9"
CHECKSUM_OFFSETS = {6: 16, 17: 6, 58: 2}


class Lab6(Lab):
    """A gateway for both versions. The router's IPv6 address is link-local, as routers' mostly are."""

    def __init__(self, *, resolved: bool = True, uplink_mtu: int = 1500, verify: bool = True, ipv6_uplink: bool = True,
                 more6: tuple[str, ...] = (), network: dict[str, bool] | None = None, **config: Any) -> None:
        self.now = 1.0
        self.verify = verify
        self.collected = []
        self.buf = bytearray(70000)
        self.dp = Datapath(DatapathConfig(**({"seed": 7} | config)))
        self.bridge = self.dp.add_network(NetworkConfig(
            name="bridge", subnet=IPv4Network("172.17.0.0/16"), gateway=IPv4Address(GATEWAY_IP),
            gateway_mac=parse_mac(GATEWAY_MAC), subnet6=IPv6Network(PREFIX), gateway6=IPv6Address(GATEWAY6),
            **(network or {})))
        self.ports: dict[str, Port] = {}
        self.add_port("host", PortKind.HOST)
        for name, ip, ip6, mac in (("a", A_IP, A6, A_MAC), ("b", B_IP, B6, B_MAC)):
            self.add_port(name)
            for address in (IPv4Address(ip), IPv6Address(ip6)):
                self.dp.add_neighbour(self.bridge, address, parse_mac(mac), self.ports[name], self.now)
        config6 = uplink_config6(mtu=uplink_mtu, more=more6) if ipv6_uplink else uplink_config(mtu=uplink_mtu)
        self.ports["uplink"] = self.dp.set_uplink("uplink", self._collector("uplink"), config6)
        self.stations = {"a": (A_IP, A_MAC), "b": (B_IP, B_MAC)}
        if resolved:
            self.stations["uplink"] = (ROUTER, ROUTER_MAC)
            self.send("uplink", arp_reply(ROUTER, ROUTER_MAC))
            if ipv6_uplink:
                assert self.dp.uplink is not None
                self.dp.uplink.neighbours.resolve(IPv6Address(ROUTER6).packed, self.now)
                self.send("uplink", advertisement(ROUTER6, ROUTER_MAC))

    def _collector(self, name: str) -> Any:
        collect = super()._collector(name)

        def transmit(frame: memoryview) -> None:
            if self.verify:
                assert_checksums6(bytes(frame))
            collect(frame)

        return transmit

    def publish6(self, host_port: int, container_port: int, protocol: TransportName = "tcp", *,
                 host_ip: str | None = None) -> Publication:
        publication = Publication(protocol=protocol, host_ip=None if host_ip is None else IPv6Address(host_ip),
                                  host_port=host_port, container_ip=IPv6Address(A6), container_port=container_port)
        self.dp.publish(publication)
        return publication


def uplink_config6(*, mtu: int = 1500, more: tuple[str, ...] = (), local: tuple[str, ...] = ()) -> UplinkConfig:
    ipv4 = uplink_config(mtu=mtu)
    own = tuple(IPv6Interface(f"{each}/64") for each in (EXTERNAL6, *more, UPLINK6_LL))
    return UplinkConfig(
        mac=ipv4.mac, mtu=mtu, addresses=(*ipv4.addresses, *own),
        routes=(*ipv4.routes, Route(IPv6Network("2001:db8:51::/64")), Route(IPv6Network("fe80::/64")),
                Route(IPv6Network("::/0"), IPv6Address(ROUTER6))),
        local_addresses=frozenset((IPv4Address(EXTERNAL), *map(IPv6Address, local))))


def advertisement(ip: str, mac: str, *, to: str = EXTERNAL6, to_mac: str = UPLINK_MAC, **flags: Any) -> Packet:
    """A neighbour's answer to natgw."""
    return (Ether(src=mac, dst=to_mac) / IPv6(src=ip, dst=to, hlim=255)
            / ICMPv6ND_NA(**({"tgt": ip, "S": 1, "O": 1, "R": 0} | flags)) / ICMPv6NDOptDstLLAddr(lladdr=mac))


def solicitation(target: str, *, src: str = A6, mac: str = A_MAC, hlim: int = 255) -> Packet:
    """A container asks for `target`, of all who might have it."""
    group = f"ff02::1:ff{IPv6Address(target).packed[13]:02x}:{IPv6Address(target).packed[14:].hex()}"
    frame = Ether(src=mac, dst="33:33:ff:" + IPv6Address(target).packed[13:].hex(":")) / IPv6(src=src, dst=group, hlim=hlim)
    frame /= ICMPv6ND_NS(tgt=target)
    return frame if src == "::" else frame / ICMPv6NDOptSrcLLAddr(lladdr=mac)


def from_a6(body: Packet, *, dst: str = REMOTE6, to_mac: str = GATEWAY_MAC, **ip: Any) -> Packet:
    """A packet of container a, by way of the gateway unless `to_mac` says otherwise."""
    return Ether(src=A_MAC, dst=to_mac) / IPv6(**({"src": A6, "dst": dst} | ip)) / body


def from_b6(body: Packet, *, dst: str = REMOTE6, **ip: Any) -> Packet:
    return Ether(src=B_MAC, dst=GATEWAY_MAC) / IPv6(**({"src": B6, "dst": dst} | ip)) / body


def from_outside6(body: Packet, *, src: str = REMOTE6, dst: str = EXTERNAL6, **ip: Any) -> Packet:
    """A packet that the router hands to the uplink."""
    return Ether(src=ROUTER_MAC, dst=UPLINK_MAC) / IPv6(**({"src": src, "dst": dst} | ip)) / body


def external_port6(out: Outcome) -> int:
    """The source port (or identifier) that a packet left with."""
    packet = out.packet
    for layer in (ICMPv6EchoRequest, ICMPv6EchoReply):
        if layer in packet:
            return int(packet[layer].id)
    return int(packet[TCP].sport if TCP in packet else packet[UDP].sport)


def partial6(packet: Packet, *, gso_type: int = 0, gso_size: int = 0) -> bytes:
    """The frame as the kernel hands it over when the transport checksum is left to the network card."""
    frame = bytearray(bytes(VNET_BYTES) + bytes(packet))
    protocol = frame[L3 + 6]
    l4, offset = L3 + 40, CHECKSUM_OFFSETS[protocol]
    frame[l4 + offset : l4 + offset + 2] = pseudo(protocol, packet[IPv6], len(frame) - l4)
    VNET.pack_into(frame, 0, NEEDS_CSUM, gso_type, 54 + (20 if protocol == 6 else 8) if gso_type else 0, gso_size, 54, offset)
    return bytes(frame)


def pseudo(protocol: int, header: IPv6, length: int) -> bytes:
    return ones_sum(bytes(in6_pseudoheader(protocol, header, length))).to_bytes(2, "big")


def assert_checksums6(raw: bytes) -> None:
    """The transport checksum of an IPv6 frame is what scapy computes from nothing; fragments have none to compute."""
    if raw[ETH + 12 : L3] != b"\x86\xdd":
        return
    packet = parse_ipv6(bytearray(raw + STALE), len(raw))
    if not isinstance(packet, Ipv6Packet) or packet.is_fragment or packet.protocol not in CHECKSUM_OFFSETS:
        return
    header = Ether(raw[ETH:])[IPv6]
    message = bytearray(raw[packet.l4 : packet.end])
    offset = CHECKSUM_OFFSETS[packet.protocol]
    carried = bytes(message[offset : offset + 2])
    message[offset : offset + 2] = b"\0\0"
    plain = IPv6(src=header.src, dst=header.dst)
    sums = bytes(in6_pseudoheader(packet.protocol, plain, len(message)))
    if raw[0] & NEEDS_CSUM:
        assert carried == ones_sum(sums).to_bytes(2, "big"), f"partial checksum of {header!r}"
        return
    if packet.protocol == 17 and carried == b"\0\0":
        return
    expected = ones_sum(sums + bytes(message)) ^ 0xFFFF
    if packet.protocol == 17:
        expected = expected or 0xFFFF
    assert carried == expected.to_bytes(2, "big"), f"checksum of {header!r}"


def transports6(port: int, *, dport: int = 80) -> Iterator[tuple[str, Packet, Packet]]:
    """(name, a first packet, the answer to it as the remote sees the ports) for each translated protocol."""
    yield "udp", UDP(sport=port, dport=dport) / b"question", UDP(sport=dport) / b"answer"
    yield "tcp", TCP(sport=port, dport=dport, flags="S"), TCP(sport=dport, flags="SA")
    yield "icmpv6", ICMPv6EchoRequest(id=port, seq=1, data=b"question"), ICMPv6EchoReply(seq=1, data=b"answer")
