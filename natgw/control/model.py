"""What the control plane keeps: networks, the endpoints on them, and natgw's own containers.

A *network* is a bridge with addresses, or one of Docker's two without (host, none). An *endpoint* is one interface on one
network: a container of natgw's has any number of them, eth0, eth1 and so on; engines have theirs without a container here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any, Literal

from natgw.control import names
from natgw.errors import NatgwError
from natgw.wire.ethernet import mac_text

if TYPE_CHECKING:
    from natgw.datapath import Port

Driver = Literal["bridge", "host", "null"]
Owner = Literal["natgw", "docker", "cni"]
State = Literal["created", "running", "exited"]

DEFAULT_NETWORK = "bridge"
SHORT_ID = 12
ANY4 = IPv4Address(0)


@dataclass(frozen=True, kw_only=True)
class IpamConfig:
    """IPv4 addresses of a network, as `IPAM.Config` of Docker has them."""

    subnet: IPv4Network
    gateway: IPv4Address
    ip_range: IPv4Network | None = None
    aux: Mapping[str, IPv4Address] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Ipam6Config:
    """The same for IPv6."""

    subnet: IPv6Network
    gateway: IPv6Address
    ip_range: IPv6Network | None = None
    aux: Mapping[str, IPv6Address] = field(default_factory=dict)


@dataclass(eq=False, kw_only=True)
class Network:
    """One network; `options` and `labels` as `docker network create` takes them.

    `owner` is who made it and may remove it. One that is not `persistent` is made by `natgw up` each time. `device` is the
    host's own port on its bridge, empty for one without. `masquerade`, `icc` and `host_binding` are what the options say.
    """

    id: str
    name: str
    created: str
    driver: Driver = "bridge"
    scope: str = "local"
    owner: Owner = "natgw"
    persistent: bool = True
    predefined: bool = False
    ipam: IpamConfig | None = None
    ipam6: Ipam6Config | None = None
    gateway_mac: bytes = b""
    mtu: int = 1500
    device: str = ""
    internal: bool = False
    attachable: bool = False
    ipv6: bool = False
    masquerade: bool = True
    icc: bool = True
    host_binding: IPv4Address = ANY4
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def is_default(self) -> bool:
        """Docker's default bridge, on which containers have no names for each other."""
        return self.predefined and self.name == DEFAULT_NETWORK

    @property
    def addresses(self) -> IpamConfig:
        """Its IPv4 addresses. Raises NatgwError for host and none."""
        if self.ipam is None:
            raise NatgwError(f"network {self.name} has no addresses of its own")
        return self.ipam

    @property
    def subnet(self) -> IPv4Network:
        return self.addresses.subnet

    @property
    def gateway(self) -> IPv4Address:
        return self.addresses.gateway


@dataclass(frozen=True)
class PublishedPort:
    """One line of `natgw port`: what Docker calls a port binding."""

    protocol: str
    host_ip: str
    host_port: int
    container_port: int

    def record(self) -> dict[str, Any]:
        return {"protocol": self.protocol, "host_ip": self.host_ip, "host_port": self.host_port,
                "container_port": self.container_port}


@dataclass(eq=False, kw_only=True)
class Endpoint:
    """One interface on one network. `name` is the container's, or the short id where nobody told it.

    `device` is natgw's end of the link, `netns` the path of the namespace the other end is in: both are empty until there
    is a link. `port` is its place on the bridge meanwhile. `ports` are those published now.
    """

    id: str
    network: Network
    name: str
    ip: IPv4Address
    mac: bytes
    mtu: int
    owner: Owner = "natgw"
    container_id: str = ""
    ip6: IPv6Address | None = None
    ifname: str = "eth0"
    link: str = "tap"
    offload: bool = True
    aliases: list[str] = field(default_factory=list)
    ports: list[PublishedPort] = field(default_factory=list)
    device: str = ""
    netns: str | None = None
    port: Port | None = None
    created: str = field(default_factory=lambda: names.timestamp(time.time_ns()))

    @property
    def names(self) -> list[str]:
        """All that DNS knows it by: its name, its aliases, the short id of its container."""
        return [*dict.fromkeys([self.name, *self.aliases, *([self.container_id[:SHORT_ID]] if self.container_id else [])])]

    def record(self) -> dict[str, Any]:
        """As a container's record has it; see docs/cli.md."""
        return {
            "network_id": self.network.id, "endpoint_id": self.id, "ifname": self.ifname, "ip": str(self.ip),
            "prefixlen": self.network.subnet.prefixlen, "gateway": None if self.network.internal else str(self.network.gateway),
            "mac": mac_text(self.mac), **self._record6(), "mtu": self.mtu, "link": self.link,
            "device": self.device, "offload": self.offload, "aliases": list(self.aliases),
        }

    def _record6(self) -> dict[str, Any]:
        ipam6 = self.network.ipam6
        if self.ip6 is None or ipam6 is None:
            return {"ip6": None, "prefixlen6": None, "gateway6": None}
        return {"ip6": str(self.ip6), "prefixlen6": ipam6.subnet.prefixlen,
                "gateway6": None if self.network.internal else str(ipam6.gateway)}


@dataclass(eq=False, kw_only=True)
class Container:
    """A namespace with a process of ours in it (`run`) or without (`attached`).

    `network_mode` is the network it was made on, or `host`, `none`, `container:ID`. `ifname`, `link`, `mtu` and `offload` are
    what was asked for its interfaces; None leaves the MTU to the network. `resolv_conf` is what its processes have as
    /etc/resolv.conf, if it is not the host's.
    """

    id: str
    name: str
    kind: Literal["run", "attached", "docker", "cni"]
    created: str
    netns: str = ""
    link: str = "tap"
    mtu: int | None = None
    ifname: str = "eth0"
    offload: bool = True
    network_mode: str = DEFAULT_NETWORK
    state: State = "created"
    pid: int | None = None
    command: list[str] | None = None
    exit_code: int | None = None
    resolv_conf: str | None = None
    endpoints: list[Endpoint] = field(default_factory=list)

    @property
    def ports(self) -> list[PublishedPort]:
        return [port for endpoint in self.endpoints for port in endpoint.ports]

    @property
    def way_out(self) -> Endpoint | None:
        """The endpoint that has the default route of IPv4 and the published ports.

        As libnetwork chooses it (sandbox.go, epHeap): internal networks never, and of the others the first by name.
        """
        return min(self._outward(), key=lambda endpoint: endpoint.network.name, default=None)

    @property
    def way_out6(self) -> Endpoint | None:
        """The endpoint that has the default route of IPv6: the same one if its network has IPv6, else the first that has."""
        speaking = [endpoint for endpoint in self._outward() if endpoint.ip6 is not None]
        return min(speaking, key=lambda endpoint: endpoint.network.name, default=None)

    def _outward(self) -> list[Endpoint]:
        return [endpoint for endpoint in self.endpoints if not endpoint.network.internal]

    def endpoint_on(self, network: Network) -> Endpoint | None:
        return next((endpoint for endpoint in self.endpoints if endpoint.network is network), None)

    def record(self) -> dict[str, Any]:
        """As the control API gives it; see docs/cli.md."""
        first = self.endpoints[0] if self.endpoints else None
        network = None if first is None else first.network
        return {
            "id": self.id, "name": self.name, "kind": self.kind, "state": self.state, "pid": self.pid, "command": self.command,
            "netns": self.netns, "link": self.link, "device": "" if first is None else first.device, "ifname": self.ifname,
            "ip": None if first is None else str(first.ip), "prefixlen": None if network is None else network.subnet.prefixlen,
            "mac": None if first is None else mac_text(first.mac),
            "gateway": None if network is None else str(network.gateway), "mtu": self.mtu if first is None else first.mtu,
            "offload": self.offload if first is None else first.offload, "network": self.network_mode,
            "networks": {endpoint.network.name: endpoint.record() for endpoint in self.endpoints},
            "created": self.created, "exit_code": self.exit_code, "resolv_conf": self.resolv_conf,
            "ports": [port.record() for port in self.ports],
        }
