"""Looking at a container's namespace and changing its routes, from outside it. All calls block."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from natgw.errors import NatgwError
from natgw.host import interfaces
from natgw.host.netlink import NetlinkError, netlink
from natgw.host.netns import run_inside

_AF_INET, _AF_INET6 = 2, 10
_MAIN_TABLE = 254


def free_ifname(namespace: str, stem: str) -> str:
    """The first of eth0, eth1, ... (for the stem `eth`) that the namespace does not have. Raises NatgwError."""
    taken = {name for _, name in run_inside(namespace, socket.if_nameindex)}
    return next(name for number in itertools.count() if (name := f"{stem}{number}") not in taken)


def loopback_up(namespace: str) -> None:
    """Raises NatgwError."""
    def up() -> None:
        with netlink() as ipr:
            ipr.link("set", index=1, state="up")

    run_inside(namespace, up)


def set_default_route(namespace: str, ifname: str, gateway: IPv4Address | IPv6Address, *,
                      instead_of: IPv4Address | IPv6Address | None) -> None:
    """Lead out by `gateway` on `ifname`, and no longer by `instead_of`, of the same IP version; any other way out that the
    namespace has stays. Raises NatgwError.
    """
    run_inside(namespace, _set_default_route, ifname, gateway, None if instead_of is None else str(instead_of))


def _set_default_route(ifname: str, gateway: IPv4Address | IPv6Address, instead_of: str | None) -> None:
    family = _AF_INET if gateway.version == 4 else _AF_INET6
    try:
        with netlink() as ipr:
            index = interfaces.index_of(ifname)
            for route in ipr.get_routes(family=family, table=_MAIN_TABLE):
                if route["dst_len"] == 0 and instead_of is not None and route.get_attr("RTA_GATEWAY") == instead_of:
                    ipr.route("del", **_default(family, instead_of, route.get_attr("RTA_OIF")))
            ipr.route("add", **_default(family, str(gateway), index))
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise NatgwError(f"cannot set the default route of {ifname}: {os.strerror(error.code)}") from None


def _default(family: int, gateway: str, index: int) -> dict[str, Any]:
    return {"family": family, "dst": "0.0.0.0/0" if family == _AF_INET else "::/0", "gateway": gateway, "oif": index}
