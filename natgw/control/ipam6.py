"""IPv6 addresses: the prefix a network gets if none is asked for, and the addresses of the containers on it.

As with IPv4 the gateway has the first address and each container the lowest that is free. The address with all zeros behind
the prefix is every router's (RFC 4291 section 2.6.1) and is never given; there is no broadcast address.

A natgw has one unique local prefix of 48 bits, made by chance, and each of its networks one of the 65536 subnets of it
(RFC 4193 section 3.1): the default network has the first.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address, IPv6Network
from itertools import islice

from natgw.control.pool import Pool, PoolSet
from natgw.errors import Conflict, NatgwError

LONGEST_PREFIX = 126
_NOT_FOR_HOSTS = [IPv6Network(text) for text in ("::/8", "fe80::/10", "ff00::/8")]
"""Unspecified, loopback and IPv4 in disguise; link-local; multicast."""
_SUBNET_BITS = 64


def unique_local_prefix(random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> IPv6Network:
    """A /48 that most likely nobody else has: fd and 40 bits of chance (RFC 4193 section 3.2)."""
    return IPv6Network((b"\xfd" + random_bytes(5) + bytes(10), 48))


def check_subnet6(subnet: IPv6Network) -> IPv6Network:
    """Raises NatgwError for a subnet that no containers can have addresses of."""
    if subnet.prefixlen > LONGEST_PREFIX:
        raise NatgwError(f"subnet {subnet} has no room for a gateway and a container: use a /{LONGEST_PREFIX} or larger")
    if any(subnet.overlaps(special) for special in _NOT_FOR_HOSTS):
        raise NatgwError(f"subnet {subnet} has addresses that no host can have (RFC 4291): use one such as fd00:1:2:3::/64")
    return subnet


class AddressPool6(Pool[IPv6Address, IPv6Network]):
    """The host addresses of an IPv6 subnet. `label` names it in errors."""

    def __init__(self, subnet: IPv6Network, label: str = "", ip_range: IPv6Network | None = None) -> None:
        super().__init__(check_subnet6(subnet), label, ip_range, IPv6Address, int(subnet.network_address) + 1,
                         int(subnet.broadcast_address))


class Pools6(PoolSet[AddressPool6]):
    """Every IPv6 pool of the daemon. `prefix` gives the prefix of those that nobody chose."""

    def __init__(self, prefix: Callable[[], IPv6Network] = unique_local_prefix) -> None:
        super().__init__()
        self._prefix = prefix

    def request(self, subnet: IPv6Network | None = None, ip_range: IPv6Network | None = None, *,
                avoid: Iterable[IPv6Network] = (), default: bool = False) -> AddressPool6:
        """A pool of this subnet, or of the first of the prefix that is free; the very first is for the `default` network.

        `avoid` are the routes of the host. Raises Conflict, in Docker's words, for one that overlaps, NatgwError for one that
        makes no sense.
        """
        routes = list(avoid)
        if subnet is None:
            if ip_range is not None:
                raise NatgwError("no matching subnet for range " + str(ip_range))
            taken = [*(pool.subnet for pool in self._pools.values()), *routes]
            candidates = islice(self._prefix().subnets(new_prefix=_SUBNET_BITS), 0 if default else 1, None)
            subnet = next((each for each in candidates if not any(each.overlaps(other) for other in taken)), None)
            if subnet is None:
                raise Conflict("could not find an available, non-overlapping IPv6 address pool among the defaults to assign to "
                               "the network: choose one with --subnet")
        self._refuse_overlap(check_subnet6(subnet), routes, "--subnet6" if default else "--subnet")
        return self._add(AddressPool6(subnet, ip_range=ip_range))
