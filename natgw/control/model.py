"""What the control plane keeps: the network, and the containers on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

from natgw.wire.ethernet import mac_text

State = Literal["created", "running", "exited"]


@dataclass
class Network:
    """One bridged network; `options` and `labels` as `docker network create` takes them."""

    id: str
    name: str
    created: str
    subnet: IPv4Network
    gateway: IPv4Address
    gateway_mac: bytes
    mtu: int
    device: str
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


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


@dataclass
class Container:
    """A namespace on the bridge, with a process of ours in it (`run`) or without (`attached`)."""

    id: str
    endpoint_id: str
    name: str
    kind: Literal["run", "attached"]
    created: str
    netns: str
    link: str
    mtu: int
    network: str
    prefixlen: int
    gateway: IPv4Address
    state: State = "created"
    pid: int | None = None
    command: list[str] | None = None
    device: str = ""
    ifname: str = "eth0"
    offload: bool = True
    ip: IPv4Address | None = None
    mac: bytes = b""
    exit_code: int | None = None
    ports: list[PublishedPort] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As the control API gives it; see docs/cli.md."""
        return {
            "id": self.id, "name": self.name, "kind": self.kind, "state": self.state, "pid": self.pid, "command": self.command,
            "netns": self.netns, "link": self.link, "device": self.device, "ifname": self.ifname,
            "ip": None if self.ip is None else str(self.ip), "prefixlen": self.prefixlen,
            "mac": mac_text(self.mac) if self.mac else None, "gateway": str(self.gateway), "mtu": self.mtu,
            "offload": self.offload, "network": self.network, "created": self.created, "exit_code": self.exit_code,
            "ports": [port.record() for port in self.ports],
        }
