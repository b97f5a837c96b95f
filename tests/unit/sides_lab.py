"""A bridge alone and an uplink alone, without a datapath: ports that collect what is sent, and what sides count and say."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from scapy.layers.l2 import Ether

from natgw.datapath import Bridge, Extra, NetworkConfig, Port, PortKind, UplinkConfig
from natgw.datapath.sides import Uplink
from natgw.tables.neigh import Neighbour
from natgw.wire.arp import ArpMessage
from natgw.wire.ethernet import ETH, parse_mac
from natgw.wire.nd import NdMessage
from tests.unit.core_lab import A_MAC, GATEWAY_IP, GATEWAY_MAC
from tests.unit.lab6 import GATEWAY6, PREFIX, uplink_config6


def raw(address: str) -> bytes:
    return ip_address(address).packed


class Links:
    """Ports that collect what is sent by them, and what sides count and say."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.extras = [0] * len(Extra)
        self.unresolved: list[tuple[object, bytes, list[bytes]]] = []

    def port(self, name: str, kind: PortKind = PortKind.ENDPOINT, *, mtu: int = 1500, coalesces: bool = True) -> Port:
        return Port(name, kind, mtu, lambda frame: self.sent.append((name, bytes(frame))), None, coalesces=coalesces)

    def fail(self, side: object, neighbour: Neighbour[Port], frames: list[bytes]) -> None:
        self.unresolved.append((side, neighbour.ip, frames))

    def taken(self) -> list[tuple[str, Any]]:
        """What was sent since the last time, by port, as scapy reads it."""
        found = [(name, Ether(data[ETH:])) for name, data in self.sent]
        self.sent.clear()
        return found


class Segment(Links):
    """A bridge with the host and containers a and b on it."""

    def __init__(self, *, max_fdb: int = 8, max_neighbours: int = 8, ipv6: bool = True, **options: Any) -> None:
        super().__init__()
        both: dict[str, Any] = {"subnet6": IPv6Network(PREFIX), "gateway6": IPv6Address(GATEWAY6)} if ipv6 else {}
        config = NetworkConfig(name="net", subnet=IPv4Network("172.17.0.0/16"), gateway=IPv4Address(GATEWAY_IP),
                               gateway_mac=parse_mac(GATEWAY_MAC), **both, **options)
        self.bridge = Bridge(config, max_fdb, max_neighbours, self.extras, self.fail)
        self.host, self.a, self.b = self.port("host", PortKind.HOST), self.port("a"), self.port("b")
        for port in (self.host, self.a, self.b):
            self.bridge.add(port, is_host=port is self.host)

    def arp(self, sender: str, *, target: str = GATEWAY_IP, mac: str = A_MAC, port: Port | None = None,
            operation: int = 1) -> None:
        """Let the bridge hear a request, or with `operation` 2 a reply, at container a's port or another."""
        message = ArpMessage(operation, parse_mac(mac), raw(sender), bytes(6), raw(target))
        self.bridge.hear_arp(message, port or self.a, 5.0)

    def discovery(self, kind: int, src: str, target: str, *, mac: str | None = A_MAC, from_mac: str = A_MAC,
                  port: Port | None = None, override: bool = True) -> None:
        """Let the bridge hear a solicitation or an advertisement, which tells `mac` by its option."""
        message = NdMessage(kind, raw(src), raw(GATEWAY6), raw(target), None if mac is None else parse_mac(mac), override, True)
        self.bridge.hear_nd(message, parse_mac(from_mac), port or self.a, 5.0)

    def known(self, address: str) -> tuple[str, str] | None:
        """MAC address and port that the bridge has for an address."""
        entry = self.bridge.neighbours.get(raw(address))
        return None if entry is None or entry.mac is None or entry.port is None else (entry.mac.hex(":"), entry.port.name)


class Outside(Links):
    """An uplink alone."""

    def __init__(self, config: UplinkConfig | None = None, *, max_neighbours: int = 8, exclusive: bool = True) -> None:
        super().__init__()
        self.out = self.port("uplink", PortKind.UPLINK, mtu=1)
        self.uplink = Uplink(self.out, config or uplink_config6(mtu=1400), max_neighbours, self.extras, self.fail,
                             exclusive=exclusive)
