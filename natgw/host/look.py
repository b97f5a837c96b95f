"""What an interface inside a container's namespace is like now. Blocks."""

from __future__ import annotations

from dataclasses import dataclass

from natgw.errors import NotFound
from natgw.host.interfaces import index_of
from natgw.host.netlink import netlink
from natgw.host.netns import run_inside

_IFF_UP = 1
_AF_INET, _AF_INET6 = 2, 10
_MAIN_TABLE = 254


@dataclass(frozen=True)
class Interface:
    """`addresses` as "10.0.0.2/16", `routes` by this interface as (destination, next hop) with a next hop alone."""

    mac: str
    mtu: int
    up: bool
    addresses: tuple[str, ...]
    routes: tuple[tuple[str, str], ...]


def interface(namespace: str, ifname: str) -> Interface | None:
    """The interface, None if there is none of that name. Raises NotFound if there is no namespace at this path."""
    return run_inside(namespace, _interface, ifname)


def _interface(ifname: str) -> Interface | None:
    try:
        index = index_of(ifname)
    except NotFound:
        return None
    with netlink() as ipr:
        link = ipr.get_links(index)[0]
        addresses = tuple(f"{message.get_attr('IFA_LOCAL') or message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
                          for message in ipr.get_addr(index=index))
        routes = []
        for family, everywhere in ((_AF_INET, "0.0.0.0"), (_AF_INET6, "::")):
            for route in ipr.get_routes(family=family, table=_MAIN_TABLE):
                if route.get_attr("RTA_OIF") == index and route.get_attr("RTA_GATEWAY"):
                    destination = route.get_attr("RTA_DST") or everywhere
                    routes.append((f"{destination}/{route['dst_len']}", str(route.get_attr("RTA_GATEWAY"))))
        return Interface(mac=link.get_attr("IFLA_ADDRESS"), mtu=int(link.get_attr("IFLA_MTU")),
                         up=bool(link["flags"] & _IFF_UP), addresses=addresses, routes=tuple(routes))
