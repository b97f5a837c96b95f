"""What does not get from one container to another, by whom it is dropped, and what still gets through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from natgw.datapath import Bridge, Datapath, DatapathConfig, NetworkConfig, Port, PortKind, Route, UplinkConfig, Verdict
from natgw.wire.vnet import NO_OFFLOAD, VNET_BYTES

OUTSIDE, ROUTER_MAC, UPLINK_MAC = "203.0.113.9", "02:bb:00:00:00:01", "02:aa:00:00:00:01"


class Town:
    """Two networks with two containers on each, one uplink. `sent` has what came out of each port."""

    def __init__(self, *, fast_path: bool = True, **first: bool) -> None:
        self.dp = Datapath(DatapathConfig(seed=1, fast_path=fast_path))
        self.sent: list[tuple[str, bytes]] = []
        self.ports: dict[str, Port] = {}
        self.macs: dict[str, bytes] = {}
        for number, options in ((17, first), (18, {})):
            self._network(number, options)
        config = UplinkConfig(mac=bytes.fromhex(UPLINK_MAC.replace(":", "")), addresses=(IPv4Interface("198.51.100.2/24"),),
                              routes=(Route(IPv4Network("0.0.0.0/0"), IPv4Address("198.51.100.1")),),
                              local_addresses=frozenset({IPv4Address("172.17.0.1"), IPv4Address("172.18.0.1")}))
        self.ports["uplink"] = self.dp.set_uplink("uplink", self._collect("uplink"), config)
        self.send("uplink", Ether(src=ROUTER_MAC, dst=UPLINK_MAC) / ARP(
            op=2, psrc="198.51.100.1", hwsrc=ROUTER_MAC, pdst="198.51.100.2", hwdst=UPLINK_MAC))
        for name in self.macs:  # each is heard once, so that its port is known
            self.ping(name, f"172.{name.split('.')[0]}.0.1")

    def _network(self, number: int, options: dict[str, Any]) -> Bridge:
        mac = bytes([2, 0x42, 172, number, 0, 1])
        bridge = self.dp.add_network(NetworkConfig(name=f"n{number}", subnet=IPv4Network(f"172.{number}.0.0/16"),
                                                   gateway=IPv4Address(f"172.{number}.0.1"), gateway_mac=mac, **options))
        for host in (2, 3):
            name = f"{number}.{host}"
            port = self.ports[name] = self.dp.add_port(bridge, name, PortKind.ENDPOINT, transmit=self._collect(name))
            self.macs[name] = bytes([2, 0x42, 172, number, 0, host])
            self.dp.add_neighbour(bridge, IPv4Address(f"172.{number}.0.{host}"), self.macs[name], port)
        name = f"host{number}"
        self.ports[name] = self.dp.add_port(bridge, name, PortKind.HOST, transmit=self._collect(name))
        return bridge

    def _collect(self, name: str) -> Callable[[memoryview], None]:
        return lambda frame: self.sent.append((name, bytes(frame)))

    def send(self, port: str, frame: Packet) -> tuple[Verdict, list[str]]:
        """The verdict on a frame, and the ports by which something went out."""
        self.sent.clear()
        before = list(self.dp.verdicts)
        raw = NO_OFFLOAD + bytes(frame)
        buf = bytearray(raw + bytes(200))
        self.dp.receive(self.ports[port], buf, len(raw), 1.0)
        self.dp.flush()
        (verdict,) = [Verdict(index) for index, count in enumerate(self.dp.verdicts) if count > before[index]]
        return verdict, [name for name, _ in self.sent]

    def ping(self, source: str, target: str, *, to: str = "") -> tuple[Verdict, list[str]]:
        """From a container to an address, by its gateway unless `to` names a neighbour."""
        number = int(source.split(".")[0])
        mac = self.macs[to] if to else bytes([2, 0x42, 172, number, 0, 1])
        return self.send(source, Ether(src=self.macs[source].hex(":"), dst=mac.hex(":"))
                         / IP(src=f"172.{number}.0.{source.split('.')[1]}", dst=target) / ICMP(id=7, seq=1) / Raw(b"x" * 20))


def test_networks_do_not_reach_each_other() -> None:
    town = Town()
    for target in ("172.18.0.2", "172.18.0.1", "172.18.0.99"):
        assert town.ping("17.2", target) == (Verdict.DROP_ISOLATED, [])
    assert town.ping("17.2", OUTSIDE) == (Verdict.TRANSLATED_OUT, ["uplink"])
    assert town.ping("17.2", "172.17.0.3", to="17.3") == (Verdict.BRIDGED, ["17.3"])


def test_nor_by_an_error_about_a_packet_that_never_was() -> None:
    town = Town()
    error = ICMP(type=3, code=3) / IP(src="172.18.0.2", dst="172.17.0.2") / UDP(sport=1, dport=2)
    frame = Ether(src=town.macs["17.2"].hex(":"), dst="02:42:ac:11:00:01") / IP(src="172.17.0.2", dst="172.18.0.2") / error
    assert town.send("17.2", frame) == (Verdict.DROP_ISOLATED, [])


def test_an_internal_network_leads_to_the_gateways_address_alone() -> None:
    town = Town(internal=True)
    for target in (OUTSIDE, "198.51.100.2", "198.51.100.1"):
        assert town.ping("17.2", target) == (Verdict.DROP_INTERNAL, [])
    assert town.ping("17.2", "172.18.0.2") == (Verdict.DROP_ISOLATED, [])
    assert town.ping("17.2", "172.17.0.1")[0] is Verdict.ECHO_ANSWERED
    assert town.ping("17.2", "172.17.0.3", to="17.3") == (Verdict.BRIDGED, ["17.3"])
    assert town.ping("18.2", OUTSIDE) == (Verdict.TRANSLATED_OUT, ["uplink"])


@pytest.mark.parametrize("fast_path", [True, False])
def test_without_icc_only_arp_passes_between_containers(fast_path: bool) -> None:
    town = Town(icc=False, fast_path=fast_path)
    ask = Ether(src=town.macs["17.2"].hex(":"), dst="ff:ff:ff:ff:ff:ff") / ARP(
        hwsrc=town.macs["17.2"].hex(":"), psrc="172.17.0.2", pdst="172.17.0.3")
    assert town.send("17.2", ask) == (Verdict.FLOODED, ["17.3", "host17"])
    answer = Ether(src=town.macs["17.3"].hex(":"), dst=town.macs["17.2"].hex(":")) / ARP(
        op=2, hwsrc=town.macs["17.3"].hex(":"), psrc="172.17.0.3", hwdst=town.macs["17.2"].hex(":"), pdst="172.17.0.2")
    for _ in range(2):  # what the fast path would have remembered by then
        assert town.send("17.3", answer) == (Verdict.BRIDGED, ["17.2"])
        assert town.ping("17.2", "172.17.0.3", to="17.3") == (Verdict.DROP_ICC, [])
    assert town.ping("17.2", "172.17.0.3") == (Verdict.DROP_ICC, [])  # nor by way of the gateway
    group = Ether(src=town.macs["17.2"].hex(":"), dst="01:00:5e:00:00:fb") / IP(src="172.17.0.2", dst="224.0.0.251") / UDP()
    assert town.send("17.2", group) == (Verdict.FLOODED, ["host17"])
    assert town.ping("17.2", OUTSIDE) == (Verdict.TRANSLATED_OUT, ["uplink"])
    assert town.ping("18.2", "172.18.0.3", to="18.3") == (Verdict.BRIDGED, ["18.3"])


def test_without_masquerade_addresses_stay_as_they_are() -> None:
    town = Town(masquerade=False)
    assert town.ping("17.2", OUTSIDE) == (Verdict.ROUTED, ["uplink"])
    out = Ether(town.sent[0][1][VNET_BYTES:])
    assert (out[IP].src, out[IP].dst, out[IP].ttl) == ("172.17.0.2", OUTSIDE, 63)
    back = Ether(src=ROUTER_MAC, dst=UPLINK_MAC) / IP(src=OUTSIDE, dst="172.17.0.2") / ICMP(type=0, id=7, seq=1)
    assert town.send("uplink", back) == (Verdict.ROUTED, ["17.2"])
    to_other = Ether(src=ROUTER_MAC, dst=UPLINK_MAC) / IP(src=OUTSIDE, dst="172.18.0.2") / ICMP(type=0, id=7, seq=1)
    assert town.send("uplink", to_other)[1] == []


def test_from_outside_to_a_network_without_masquerade() -> None:
    """The gateway's address is the host's own affair; and nobody out there is a container."""
    town = Town(masquerade=False)

    def from_outside(source: str, target: str) -> tuple[Verdict, list[str]]:
        return town.send("uplink", Ether(src=ROUTER_MAC, dst=UPLINK_MAC) / IP(src=source, dst=target) / ICMP(id=7, seq=1))

    assert from_outside(OUTSIDE, "172.17.0.3") == (Verdict.ROUTED, ["17.3"])
    assert from_outside(OUTSIDE, "172.17.0.1") == (Verdict.TO_HOST, [])
    for source in ("172.17.0.2", "172.18.0.2", "198.51.100.2"):
        assert from_outside(source, "172.17.0.3") == (Verdict.DROP_MARTIAN_SOURCE, [])


def test_a_network_that_comes_does_not_disturb_the_uplink() -> None:
    """The host has one more address then, and nobody out there has to be asked for anew."""
    town = Town()
    assert town.dp.uplink is not None
    before = town.dp.uplink.config
    more = replace(before, local_addresses=before.local_addresses | {IPv4Address("172.19.0.1")})
    town.dp.update_uplink(more)
    assert town.ping("17.2", OUTSIDE) == (Verdict.TRANSLATED_OUT, ["uplink"]) and town.dp.is_local(b"\xac\x13\0\1")
    town.dp.update_uplink(replace(more, mtu=1400))
    assert town.ping("17.2", OUTSIDE)[0] is Verdict.QUEUED
