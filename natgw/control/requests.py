"""What is asked for: a network, an endpoint. Values are parsed and not yet judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from natgw.control.ipam import AddressPool
from natgw.control.ipam6 import AddressPool6
from natgw.control.model import Owner
from natgw.control.portspec import PortBinding
from natgw.host.shaper import Rate


@dataclass(frozen=True, kw_only=True)
class NetworkRequest:
    """A network as it is asked for; `subnet6` and what follows it count with `ipv6` only.

    `pool` and `pool6`: those that were requested before, and that their requester will release.
    """

    name: str
    id: str | None = None
    driver: str = "bridge"
    owner: Owner = "natgw"
    persistent: bool = True
    created: str | None = None
    subnet: IPv4Network | None = None
    ip_range: IPv4Network | None = None
    gateway: IPv4Address | None = None
    aux: Mapping[str, IPv4Address] = field(default_factory=dict)
    ipv6: bool = False
    subnet6: IPv6Network | None = None
    ip_range6: IPv6Network | None = None
    gateway6: IPv6Address | None = None
    aux6: Mapping[str, IPv6Address] = field(default_factory=dict)
    internal: bool = False
    attachable: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    pool: AddressPool | None = None
    pool6: AddressPool6 | None = None


@dataclass(frozen=True, kw_only=True)
class EndpointRequest:
    """An endpoint as it is asked for; what is None is chosen.

    `holds_address`: whoever asks has taken the addresses already, and releases them. `gateway`: whether it gets the default
    route, should its network lead anywhere. `ingress` and `egress` limit what comes to it and what it
    sends. `keep`: whether it comes back after a restart. `dhcp`: its interface is
    left without an address, for a DHCP client inside to get it.
    """

    name: str = ""
    id: str | None = None
    container_id: str = ""
    owner: Owner = "natgw"
    ip: IPv4Address | None = None
    mac: bytes | None = None
    ip6: IPv6Address | None = None
    holds_address: bool = False
    aliases: tuple[str, ...] = ()
    bindings: tuple[PortBinding, ...] = ()
    link: str | None = None
    ifname: str = "eth0"
    mtu: int | None = None
    offload: bool = True
    gateway: bool = True
    ingress: Rate | None = None
    egress: Rate | None = None
    keep: bool = True
    dhcp: bool = False
