"""Interfaces, by netlink: read, configured, removed.

The calls block, and pyroute2 runs an event loop of its own inside them: from a coroutine they go through a thread
(`asyncio.to_thread`), never straight from the daemon's loop. The same goes for whatever in this package uses them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_address
from typing import Any

from natgw.datapath.config import Route
from natgw.errors import NatgwError, NotFound
from natgw.host.netlink import NetlinkError, netlink

_MAIN_TABLE = 254
_UNICAST = 1
_IFF_UP = 1
_IFF_RUNNING = 0x40
_AF_INET, _AF_INET6 = 2, 10
_NOT_USABLE = 0x40 | 0x08
"""IFA_F_TENTATIVE and IFA_F_DADFAILED (linux/if_addr.h)."""
_PASSING = 0x01 | 0x20
"""IFA_F_TEMPORARY and IFA_F_DEPRECATED: addresses that do not stay."""
_ARPHRD_ETHER = 1
LEGACY_SUPERFRAME_BYTES = 65536
"""Below this are all superframes, unless a device is set to take longer ones (GSO_LEGACY_MAX_SIZE in Linux)."""


@dataclass(frozen=True, kw_only=True)
class UplinkState:
    """An interface as natgw needs it; equal states mean that nothing changed."""

    ifname: str
    ifindex: int
    mac: bytes
    mtu: int
    up: bool
    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    routes: tuple[Route, ...]
    local_addresses: frozenset[IPv4Address | IPv6Address]
    superframe_bytes: int = LEGACY_SUPERFRAME_BYTES
    """The longest superframe of TCP by IPv4 that it is set to take."""
    superframe_limit_bytes: int = LEGACY_SUPERFRAME_BYTES
    """The longest that its driver can."""


def index_of(ifname: str) -> int:
    """The index of an interface in the namespace of the calling thread. Raises NotFound.

    By an ioctl of some microseconds: netlink's answer has everything about the interface, and takes a millisecond to read.
    """
    try:
        return socket.if_nametoindex(ifname)
    except OSError:
        raise NotFound(f"no interface {ifname} here: `ip link` shows those there are") from None


def exists(ifname: str) -> bool:
    """Whether there is an interface of that name."""
    try:
        return bool(index_of(ifname))
    except NotFound:
        return False


def default_route_interface() -> str | None:
    """The interface of the IPv4 default route with the lowest metric, if there is one."""
    with netlink() as ipr:
        defaults = [route for route in ipr.get_routes(family=_AF_INET, table=_MAIN_TABLE) if route["dst_len"] == 0]
        for route in sorted(defaults, key=_metric):
            for index, _ in _next_hops(route):
                return str(ipr.get_links(index)[0].get_attr("IFLA_IFNAME"))
        return None


def read_uplink(ifname: str, *, ipv6: bool = False) -> UplinkState:
    """What an interface is like now; with `ipv6`, of both IP versions.

    Raises NotFound, or NatgwError if it is not an Ethernet interface.
    """
    try:
        with netlink() as ipr:
            return _read_uplink(ipr, ifname, ipv6)
    except NetlinkError as error:  # it went away between two questions
        raise NotFound(f"cannot read interface {ifname}: {os.strerror(error.code)}") from None


def _read_uplink(ipr: Any, ifname: str, ipv6: bool) -> UplinkState:
    index = index_of(ifname)
    link = ipr.get_links(index)[0]
    if link["ifi_type"] != _ARPHRD_ETHER:
        raise NatgwError(f"{ifname} is not an Ethernet interface: it cannot be natgw's uplink")
    addresses: list[IPv4Interface | IPv6Interface] = []
    local: set[IPv4Address | IPv6Address] = set()
    for message in ipr.get_addr(family=_AF_INET):
        own = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        local.add(IPv4Address(own))
        if message["index"] == index:
            addresses.append(IPv4Interface(f"{own}/{message['prefixlen']}"))
    if ipv6:
        own6 = [message for message in ipr.get_addr(family=_AF_INET6) if not _flags(message) & _NOT_USABLE]
        for message in sorted(own6, key=lambda message: bool(_flags(message) & _PASSING)):
            own = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            address = IPv6Interface(f"{own}/{message['prefixlen']}")
            if not address.ip.is_link_local:  # which says nothing without its link
                local.add(address.ip)
            if message["index"] == index:
                addresses.append(address)
    routes: list[Route] = []
    for family in (_AF_INET, _AF_INET6) if ipv6 else (_AF_INET,):
        for route in sorted(ipr.get_routes(family=family, table=_MAIN_TABLE), key=_metric):
            if route["type"] == _UNICAST:
                destination = _destination(route)
                routes.extend(Route(destination, gateway) for out, gateway in _next_hops(route) if out == index)
    return UplinkState(
        ifname=ifname, ifindex=index, mac=bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", "")),
        mtu=int(link.get_attr("IFLA_MTU")), up=bool(link["flags"] & _IFF_UP and link["flags"] & _IFF_RUNNING),
        addresses=tuple(addresses), routes=tuple(routes), local_addresses=frozenset(local),
        superframe_bytes=int(link.get_attr("IFLA_GSO_IPV4_MAX_SIZE") or LEGACY_SUPERFRAME_BYTES),
        superframe_limit_bytes=int(link.get_attr("IFLA_TSO_MAX_SIZE") or LEGACY_SUPERFRAME_BYTES))


def _flags(address: Any) -> int:
    return int(address.get_attr("IFA_FLAGS") or address["flags"])


def _metric(route: Any) -> int:
    return int(route.get_attr("RTA_PRIORITY") or 0)


def _destination(route: Any) -> IPv4Network | IPv6Network:
    if route["family"] == _AF_INET6:
        return IPv6Network(f"{route.get_attr('RTA_DST') or '::'}/{route['dst_len']}")
    return IPv4Network(f"{route.get_attr('RTA_DST') or '0.0.0.0'}/{route['dst_len']}")


def _next_hops(route: Any) -> Iterator[tuple[int, IPv4Address | IPv6Address | None]]:
    """Interface and gateway of each way a route has: one, or several for a multipath route."""
    if route.get_attr("RTA_OIF"):
        hops = [(route.get_attr("RTA_OIF"), route)]
    else:
        hops = [(hop["oif"], hop) for hop in route.get_attr("RTA_MULTIPATH") or ()]
    for index, hop in hops:
        gateway = hop.get_attr("RTA_GATEWAY")
        yield int(index), None if gateway is None else ip_address(gateway)


def host_routes6() -> list[IPv6Network]:
    """The same for IPv6; what leads to link-local addresses leads nowhere else."""
    with netlink() as ipr:
        found = [_destination(route) for route in ipr.get_routes(family=_AF_INET6, table=_MAIN_TABLE)
                 if route["dst_len"] and route["type"] == _UNICAST]
        return [network for network in found if isinstance(network, IPv6Network) and not network.is_link_local]


def host_routes() -> list[IPv4Network]:
    """Destinations the namespace has routes to, the default route left out: a new network must not overlap them."""
    with netlink() as ipr:
        found = [_destination(route) for route in ipr.get_routes(family=_AF_INET, table=_MAIN_TABLE)
                 if route["dst_len"] and route["type"] == _UNICAST]
        return [network for network in found if isinstance(network, IPv4Network)]


def set_superframe_bytes(ifname: str, size: int) -> bool:
    """Set the longest superframe of TCP by IPv4 that an interface takes; False if it is gone, or its driver refuses."""
    try:
        index = index_of(ifname)
        with netlink() as ipr:
            ipr.link("set", index=index, gso_ipv4_max_size=size)
    except (NotFound, NetlinkError):
        return False
    return True


def delete_link(ifname: str) -> bool:
    """Remove an interface; False if there is none of that name."""
    try:
        index = index_of(ifname)
        with netlink() as ipr:
            ipr.link("del", index=index)
    except (NotFound, NetlinkError):
        return False
    return True
