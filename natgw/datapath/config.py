"""What the control plane tells the datapath: plain values, checked when they are made, never changed in place.

All addresses are `ipaddress` objects here, since people and tests write them; the datapath turns them into bytes once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Literal

from natgw.datapath.behaviour import NatConfig
from natgw.tables.flowtable import MAX_AWAKE

MAC_BYTES = 6

TransportName = Literal["tcp", "udp", "sctp"]


class PortKind(Enum):
    """What is at the other end of a bridge port."""

    ENDPOINT = "endpoint"
    HOST = "host"
    UPLINK = "uplink"


@dataclass(frozen=True, kw_only=True)
class DatapathConfig:
    """The datapath as a whole.

    `port_range` is inclusive; external ports of mappings are taken from it, and only from it. `exclusive` says that natgw
    alone owns the uplink's addresses: it then answers ARP and echo for them, and drops what belongs to nobody instead of
    leaving it to the host. `nat` is how the translator behaves to begin with; `Datapath.set_nat` changes it. `seed` makes
    the choice of ports repeatable. Of `max_flows`, about `max_awake_flows` are held ready, the others at rest until a packet
    comes. `fast_path=False` sends every frame the slow, readable way: the property tests compare
    both.
    """

    port_range: tuple[int, int] = (40000, 65535)
    exclusive: bool = False
    seed: int | None = None
    max_flows: int = 1_000_000
    max_awake_flows: int = MAX_AWAKE
    max_fdb_entries: int = 8192
    max_neighbours: int = 4096
    nat: NatConfig = field(default_factory=NatConfig)
    fast_path: bool = True
    coalesce: bool = True

    def __post_init__(self) -> None:
        low, high = self.port_range
        if not 1 <= low <= high <= 65535:
            raise ValueError(f"port range {low}-{high} is not within 1-65535")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """One bridged network with natgw's gateway on it. `mtu` counts bytes of IP packet, as `ip link` does.

    Without `masquerade` its containers reach the outside as they are. An `internal` one leads nowhere but to the gateway's
    address. Without `icc` its containers do not reach each other. Without `subnet6` IPv6 is bridged, and natgw has no part
    in it. `advertises`: whether natgw says there that it is an IPv6 router, for hosts that configure themselves.
    """

    name: str
    subnet: IPv4Network
    gateway: IPv4Address
    gateway_mac: bytes
    mtu: int = 1500
    masquerade: bool = True
    internal: bool = False
    icc: bool = True
    subnet6: IPv6Network | None = None
    gateway6: IPv6Address | None = None
    advertises: bool = True

    def __post_init__(self) -> None:
        if self.gateway not in self.subnet:
            raise ValueError(f"gateway {self.gateway} is not in subnet {self.subnet}")
        if len(self.gateway_mac) != MAC_BYTES:
            raise ValueError("a MAC address has 6 bytes")
        if (self.subnet6 is None) is not (self.gateway6 is None):
            raise ValueError("an IPv6 subnet needs a gateway, and a gateway a subnet")
        if self.subnet6 is not None and self.gateway6 not in self.subnet6:
            raise ValueError(f"gateway {self.gateway6} is not in subnet {self.subnet6}")


@dataclass(frozen=True)
class Route:
    """A route out of the uplink: directly connected (`gateway` None) or by way of a next hop."""

    destination: IPv4Network | IPv6Network
    gateway: IPv4Address | IPv6Address | None = None


@dataclass(frozen=True, kw_only=True)
class UplinkConfig:
    """What natgw knows of its uplink interface; replaced whole whenever the host changes any of it.

    `routes` are in the order of their metrics; the longest prefix wins, the first among equals. `local_addresses` are
    all addresses of the host's namespace: traffic from containers to one of them goes to the host, not out. Both versions
    lie side by side; of IPv6, the link-local addresses speak with neighbours and are translated to by nobody.
    """

    mac: bytes
    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    routes: tuple[Route, ...]
    mtu: int = 1500
    local_addresses: frozenset[IPv4Address | IPv6Address] = frozenset()

    def __post_init__(self) -> None:
        if len(self.mac) != MAC_BYTES:
            raise ValueError("a MAC address has 6 bytes")


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A published port: `host_ip` None means every address of the uplink of the container's IP version."""

    protocol: TransportName
    host_ip: IPv4Address | IPv6Address | None
    host_port: int
    container_ip: IPv4Address | IPv6Address
    container_port: int

    def __post_init__(self) -> None:
        for port in (self.host_port, self.container_port):
            if not 1 <= port <= 65535:
                raise ValueError(f"port {port} is not within 1-65535")
        if self.host_ip is not None and self.host_ip.version != self.container_ip.version:
            raise ValueError(f"{self.host_ip} and {self.container_ip} are not of one IP version")
