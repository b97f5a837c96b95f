"""How a daemon was asked to be."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING

from natgw.errors import NatgwError

if TYPE_CHECKING:
    from natgw.datapath.behaviour import NatConfig

DEFAULT_SOCKET = Path("/run/natgw/natgw.sock")
DEFAULT_SUBNET = IPv4Network("172.17.0.0/16")
DEFAULT_PORT_RANGE = (40000, 65535)
DEFAULT_STATE_DIR = Path("/run/natgw/natgw.d")
NO_UPLINK = "none"
DOCKER_DRIVER = "natgw"
"""What Docker calls natgw, unless it is told otherwise."""
LINK_KINDS = ("tap", "veth")
MTU_RANGE = (68, 65521)
"""RFC 791 asks for 68; a tap takes no more than 65535 less its header (drivers/net/tun.c)."""
SHORTEST_LEASE_S, DEFAULT_LEASE_S, LONGEST_LEASE_S = 20, 3600, 7 * 86400


def parse_port_range(text: str) -> tuple[int, int]:
    """`40000-65535`, both included. Raises ValueError."""
    low, _, high = text.partition("-")
    if not (low.isdecimal() and high.isdecimal() and 1 <= int(low) <= int(high) <= 65535):
        raise ValueError(f"{text!r} is not LO-HI within 1-65535")
    return int(low), int(high)


def parse_driver_name(text: str) -> str:
    """The name of a driver: Docker finds it by a file of that name. Raises ValueError."""
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}", text):
        raise ValueError(f"{text!r} cannot be the name of a network driver")
    if text in ("bridge", "host", "null", "none", "macvlan", "ipvlan", "overlay"):
        raise ValueError(f"Docker has a driver {text} of its own")
    return text


def check_link(kind: str) -> str:
    if kind not in LINK_KINDS:
        raise NatgwError(f"link {kind!r} is neither tap nor veth")
    return kind


def check_mtu(mtu: int) -> int:
    low, high = MTU_RANGE
    if not low <= mtu <= high:
        raise NatgwError(f"an MTU of {mtu} is not within {low}-{high}")
    return mtu


def check_lease(seconds: int) -> int:
    """A week at the longest: who was given an address for longer is never heard of again."""
    if not SHORTEST_LEASE_S <= seconds <= LONGEST_LEASE_S:
        raise NatgwError(f"a lease of {seconds} s is not within {SHORTEST_LEASE_S}-{LONGEST_LEASE_S}")
    return seconds


def _default_nat() -> NatConfig:
    from natgw.datapath.behaviour import NatConfig  # with the whole datapath, which no command but `natgw up` needs

    return NatConfig()


@dataclass(frozen=True, kw_only=True)
class DaemonOptions:
    """`uplink` None means the interface of the default route, "none" an isolated network. `gateway` None: the first address.

    With `big_tcp`, veth pairs have superframes of TCP of more than 64 KiB, and the uplink takes them if it can.
    `docker` is the name of the driver that Docker knows natgw by; None: it is not served. With `ipv6` the default network has
    IPv6 addresses too, of `subnet6` or of a prefix made by chance.
    `dns` are the resolvers to ask, instead of the host's. `dhcp`: a DHCP server on every network that does not say
    otherwise, with leases of `dhcp_lease` seconds.
    """

    socket: Path = DEFAULT_SOCKET
    state_dir: Path = DEFAULT_STATE_DIR
    uplink: str | None = None
    subnet: IPv4Network = DEFAULT_SUBNET
    gateway: IPv4Address | None = None
    mtu: int = 1500
    port_range: tuple[int, int] = DEFAULT_PORT_RANGE
    exclusive_uplink: bool = False
    link: str = "tap"
    big_tcp: bool = True
    dns: tuple[str, ...] = ()
    dhcp: bool = False
    dhcp_lease: int = DEFAULT_LEASE_S
    nat: NatConfig = field(default_factory=_default_nat)
    docker: str | None = None
    ipv6: bool = False
    subnet6: IPv6Network | None = None
