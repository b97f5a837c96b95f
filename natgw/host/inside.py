"""Looking at a container's namespace and changing its routes, from outside it. All calls block."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from ipaddress import IPv4Address, IPv6Address

from natgw.errors import NatgwError
from natgw.host import interfaces
from natgw.host.netlink import LOOPBACK_INDEX, NetlinkError, netlink
from natgw.host.netns import run_inside

_AF_INET, _AF_INET6 = 2, 10


def free_ifname(namespace: str, stem: str) -> str:
    """The first of eth0, eth1, ... (for the stem `eth`) that the namespace does not have. Raises NatgwError."""
    taken = {name for _, name in run_inside(namespace, socket.if_nameindex)}
    return next(name for number in itertools.count() if (name := f"{stem}{number}") not in taken)


def loopback_up(namespace: str) -> None:
    """Raises NatgwError."""
    def up() -> None:
        with netlink() as conversation:
            conversation.set_link(LOOPBACK_INDEX, up=True)

    run_inside(namespace, up)


def set_default_route(namespace: str, ifname: str, gateway: IPv4Address | IPv6Address, *,
                      instead_of: IPv4Address | IPv6Address | None) -> None:
    """Lead out by `gateway` on `ifname`, and no longer by `instead_of`, of the same IP version; any other way out that the
    namespace has stays. Raises NatgwError.
    """
    run_inside(namespace, _set_default_route, ifname, gateway, instead_of)


def _set_default_route(ifname: str, gateway: IPv4Address | IPv6Address, instead_of: IPv4Address | IPv6Address | None) -> None:
    family = _AF_INET if gateway.version == 4 else _AF_INET6
    try:
        with netlink() as conversation:
            index = interfaces.index_of(ifname)
            if instead_of is not None:
                for route in conversation.routes(family):
                    if route["dst_len"] == 0 and route.get_attr("RTA_GATEWAY") == str(instead_of):
                        conversation.delete_default_route(instead_of, route.get_attr("RTA_OIF"))
            conversation.add_default_route(gateway, index)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise NatgwError(f"cannot set the default route of {ifname}: {os.strerror(error.code)}") from None
