"""Addresses: which subnet a network gets, and which address a container on it, as Docker's IPAM driver chooses them.

A subnet is one that was asked for, or the first of Docker's defaults that neither another network nor a route of the host
overlaps. In it, the lowest free address is the next to be given, a released one again; the gateway's and the auxiliary
addresses are never given.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from natgw.control.pool import Pool, PoolSet
from natgw.errors import Conflict, NatgwError

_NOT_FOR_HOSTS = [IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")]
"""This network, loopback, multicast and reserved."""

DEFAULT_POOLS = (*IPv4Network("172.16.0.0/12").subnets(new_prefix=16),
                 *IPv4Network("192.168.0.0/16").subnets(new_prefix=20))[1:]
"""172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in /20s (libnetwork, ipamutils)."""


def check_subnet(subnet: IPv4Network) -> IPv4Network:
    """Raises NatgwError for a subnet that no containers can have addresses of."""
    if subnet.prefixlen > 30:
        raise NatgwError(f"subnet {subnet} has no room for a gateway and a container: use a /30 or larger")
    if any(subnet.overlaps(special) for special in _NOT_FOR_HOSTS):
        raise NatgwError(f"subnet {subnet} has addresses that no host can have (RFC 6890): use one such as 10.88.0.0/16")
    return subnet


class AddressPool(Pool[IPv4Address, IPv4Network]):
    """The host addresses of `subnet`; the network and broadcast address are never given. `label` names it in errors."""

    def __init__(self, subnet: IPv4Network, label: str = "", ip_range: IPv4Network | None = None) -> None:
        edge = 1 if subnet.prefixlen < 31 else 0
        super().__init__(subnet, label, ip_range, IPv4Address, int(subnet.network_address) + edge,
                         int(subnet.broadcast_address) - edge)


class Pools(PoolSet[AddressPool]):
    """Every IPv4 pool of the daemon."""

    def request(self, subnet: IPv4Network | None = None, ip_range: IPv4Network | None = None, *,
                avoid: Iterable[IPv4Network] = ()) -> AddressPool:
        """A pool of this subnet, or of the first default that is free; `avoid` are the routes of the host.

        Raises Conflict, in Docker's words, for one that overlaps, NatgwError for one that makes no sense.
        """
        routes = list(avoid)
        if subnet is None:
            if ip_range is not None:
                raise NatgwError("no matching subnet for range " + str(ip_range))
            taken = [*(pool.subnet for pool in self._pools.values()), *routes]
            subnet = next((pool for pool in DEFAULT_POOLS if not any(pool.overlaps(other) for other in taken)), None)
            if subnet is None:
                raise Conflict("could not find an available, non-overlapping IPv4 address pool among the defaults to assign to "
                               "the network: choose one with --subnet")
        self._refuse_overlap(check_subnet(subnet), routes, "--subnet")
        return self._add(AddressPool(subnet, ip_range=ip_range))
