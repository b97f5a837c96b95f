"""Interfaces, by netlink: read, configured, removed.

The calls block, and pyroute2 runs an event loop of its own inside them: from a coroutine they go through a thread
(`asyncio.to_thread`), never straight from the daemon's loop. The same goes for whatever in this package uses them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from natgw.datapath.config import Route
from natgw.errors import NotFound

_MAIN_TABLE = 254
_UNICAST = 1
_IFF_UP = 1
_IFF_RUNNING = 0x40
_AF_INET = 2


@dataclass(frozen=True, kw_only=True)
class UplinkState:
    """An interface as natgw needs it; equal states mean that nothing changed."""

    ifname: str
    ifindex: int
    mac: bytes
    mtu: int
    up: bool
    addresses: tuple[IPv4Interface, ...]
    routes: tuple[Route, ...]
    local_addresses: frozenset[IPv4Address]


@contextmanager
def netlink() -> Iterator[Any]:
    """A netlink socket in the namespace of the calling thread."""
    with IPRoute() as ipr:
        yield ipr


def index_of(ipr: Any, ifname: str) -> int:
    """The index of an interface. Raises NotFound."""
    found = ipr.link_lookup(ifname=ifname)
    if not found:
        raise NotFound(f"no interface {ifname} here: `ip link` shows those there are")
    return int(found[0])


def default_route_interface() -> str | None:
    """The interface of the IPv4 default route with the lowest metric, if there is one."""
    with netlink() as ipr:
        defaults = [route for route in ipr.get_routes(family=_AF_INET, table=_MAIN_TABLE) if route["dst_len"] == 0]
        defaults = [route for route in defaults if route.get_attr("RTA_OIF")]
        if not defaults:
            return None
        best = min(defaults, key=lambda route: route.get_attr("RTA_PRIORITY") or 0)
        return str(ipr.get_links(best.get_attr("RTA_OIF"))[0].get_attr("IFLA_IFNAME"))


def read_uplink(ifname: str) -> UplinkState:
    """What an interface is like now. Raises NotFound."""
    with netlink() as ipr:
        index = index_of(ipr, ifname)
        link = ipr.get_links(index)[0]
        addresses: list[IPv4Interface] = []
        local: set[IPv4Address] = set()
        for message in ipr.get_addr(family=_AF_INET):
            own = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            local.add(IPv4Address(own))
            if message["index"] == index:
                addresses.append(IPv4Interface(f"{own}/{message['prefixlen']}"))
        routes = sorted(
            (route for route in ipr.get_routes(family=_AF_INET, table=_MAIN_TABLE)
             if route["type"] == _UNICAST and route.get_attr("RTA_OIF") == index),
            key=lambda route: route.get_attr("RTA_PRIORITY") or 0)
        return UplinkState(
            ifname=ifname, ifindex=index, mac=bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", "")),
            mtu=int(link.get_attr("IFLA_MTU")), up=bool(link["flags"] & _IFF_UP and link["flags"] & _IFF_RUNNING),
            addresses=tuple(addresses), routes=tuple(map(_route, routes)), local_addresses=frozenset(local))


def _route(message: Any) -> Route:
    destination = message.get_attr("RTA_DST") or "0.0.0.0"
    gateway = message.get_attr("RTA_GATEWAY")
    return Route(IPv4Network(f"{destination}/{message['dst_len']}"), None if gateway is None else IPv4Address(gateway))


def host_routes() -> list[IPv4Network]:
    """Destinations the namespace has routes to, the default route left out: a new network must not overlap them."""
    with netlink() as ipr:
        return [
            IPv4Network(f"{route.get_attr('RTA_DST')}/{route['dst_len']}")
            for route in ipr.get_routes(family=_AF_INET, table=_MAIN_TABLE)
            if route["dst_len"] and route["type"] == _UNICAST
        ]


def delete_link(ifname: str) -> bool:
    """Remove an interface; False if there is none of that name."""
    with netlink() as ipr:
        found = ipr.link_lookup(ifname=ifname)
        if not found:
            return False
        try:
            ipr.link("del", index=found[0])
        except NetlinkError:
            return False
        return True
