"""What the control plane tells the datapath: plain values, checked when they are made, never changed in place.

All addresses are `ipaddress` objects here, since people and tests write them; the datapath turns them into bytes once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Literal

MAC_BYTES = 6

TransportName = Literal["tcp", "udp"]


class PortKind(Enum):
    """What is at the other end of a bridge port."""

    ENDPOINT = "endpoint"
    HOST = "host"
    UPLINK = "uplink"


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Idle lifetimes of a flow by class, in seconds. The defaults are profile `rfc`.

    RFC 4787 REQ-5 (UDP), RFC 5382 REQ-5 (TCP: established at least 7440 s, transitory at least 240 s), RFC 5508 REQ-1
    (ICMP queries at least 60 s).
    """

    udp_s: float = 300.0
    icmp_s: float = 60.0
    tcp_established_s: float = 7440.0
    tcp_transitory_s: float = 240.0

    def __post_init__(self) -> None:
        for name in ("udp_s", "icmp_s", "tcp_established_s", "tcp_transitory_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"timeout {name} must be more than 0 seconds")


@dataclass(frozen=True, kw_only=True)
class DatapathConfig:
    """The datapath as a whole.

    `port_range` is inclusive; external ports of mappings are taken from it, and only from it. `exclusive` says that natgw
    alone owns the uplink's addresses: it then answers ARP and echo for them, and drops what belongs to nobody instead of
    leaving it to the host. `seed` makes the choice of ports repeatable. `fast_path=False` sends every frame the slow,
    readable way: the property tests compare both.
    """

    port_range: tuple[int, int] = (40000, 65535)
    exclusive: bool = False
    seed: int | None = None
    max_flows: int = 1_000_000
    max_fdb_entries: int = 8192
    max_neighbours: int = 4096
    timeouts: Timeouts = field(default_factory=Timeouts)
    fast_path: bool = True
    coalesce: bool = True

    def __post_init__(self) -> None:
        low, high = self.port_range
        if not 1 <= low <= high <= 65535:
            raise ValueError(f"port range {low}-{high} is not within 1-65535")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """One bridged network with natgw's gateway on it. `mtu` counts bytes of IP packet, as `ip link` does."""

    name: str
    subnet: IPv4Network
    gateway: IPv4Address
    gateway_mac: bytes
    mtu: int = 1500
    masquerade: bool = True

    def __post_init__(self) -> None:
        if self.gateway not in self.subnet:
            raise ValueError(f"gateway {self.gateway} is not in subnet {self.subnet}")
        if len(self.gateway_mac) != MAC_BYTES:
            raise ValueError("a MAC address has 6 bytes")


@dataclass(frozen=True)
class Route:
    """A route out of the uplink: directly connected (`gateway` None) or by way of a next hop."""

    destination: IPv4Network
    gateway: IPv4Address | None = None


@dataclass(frozen=True, kw_only=True)
class UplinkConfig:
    """What natgw knows of its uplink interface; replaced whole whenever the host changes any of it.

    `routes` are in the order of their metrics; the longest prefix wins, the first among equals. `local_addresses` are
    all addresses of the host's namespace: traffic from containers to one of them goes to the host, not out.
    """

    mac: bytes
    addresses: tuple[IPv4Interface, ...]
    routes: tuple[Route, ...]
    mtu: int = 1500
    local_addresses: frozenset[IPv4Address] = frozenset()

    def __post_init__(self) -> None:
        if len(self.mac) != MAC_BYTES:
            raise ValueError("a MAC address has 6 bytes")


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A published port: `host_ip` None means every address of the uplink, as `-p 8080:80` does in Docker."""

    protocol: TransportName
    host_ip: IPv4Address | None
    host_port: int
    container_ip: IPv4Address
    container_port: int

    def __post_init__(self) -> None:
        for port in (self.host_port, self.container_port):
            if not 1 <= port <= 65535:
                raise ValueError(f"port {port} is not within 1-65535")
