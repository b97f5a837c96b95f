"""Addresses: which subnet a network gets, and which address a container on it, as Docker's IPAM driver chooses them.

A subnet is one that was asked for, or the first of Docker's defaults that neither another network nor a route of the host
overlaps. In it, the lowest free address is the next to be given, a released one again; the gateway's and the auxiliary
addresses are never given.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from natgw.errors import Conflict, NatgwError, NotFound

_NOT_FOR_HOSTS = [IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")]
"""This network, loopback, multicast and reserved."""

DEFAULT_POOLS = (*IPv4Network("172.16.0.0/12").subnets(new_prefix=16),
                 *IPv4Network("192.168.0.0/16").subnets(new_prefix=20))[1:]
"""172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in /20s (libnetwork, ipamutils)."""

OVERLAP = "Pool overlaps with other one on this address space"


def check_subnet(subnet: IPv4Network) -> IPv4Network:
    """Raises NatgwError for a subnet that no containers can have addresses of."""
    if subnet.prefixlen > 30:
        raise NatgwError(f"subnet {subnet} has no room for a gateway and a container: use a /30 or larger")
    if any(subnet.overlaps(special) for special in _NOT_FOR_HOSTS):
        raise NatgwError(f"subnet {subnet} has addresses that no host can have (RFC 6890): use one such as 10.88.0.0/16")
    return subnet


class AddressPool:
    """The host addresses of `subnet`; the network and broadcast address are never given. `label` names it in errors.

    Addresses that nobody chose come from `ip_range`, which is all of the subnet unless it is said.
    """

    def __init__(self, subnet: IPv4Network, label: str = "", ip_range: IPv4Network | None = None) -> None:
        if ip_range is not None and not ip_range.subnet_of(subnet):
            raise NatgwError(f"invalid ip-range: {ip_range} is not within the subnet {subnet}")
        self.subnet = subnet
        self.ip_range = ip_range
        self.label = label
        self._first = int(subnet.network_address) + (1 if subnet.prefixlen < 31 else 0)
        self._last = int(subnet.broadcast_address) - (1 if subnet.prefixlen < 31 else 0)
        given_from = ip_range or subnet
        self._lowest_given = max(self._first, int(given_from.network_address))
        self._last_given = min(self._last, int(given_from.broadcast_address))
        self._taken: set[int] = set()
        self._lowest = self._lowest_given

    @property
    def id(self) -> str:
        """What Docker's IPAM protocol calls it by."""
        return f"natgw/{self.subnet}" + (f"/{self.ip_range}" if self.ip_range is not None else "")

    def allocate(self) -> IPv4Address:
        """The lowest free address. Raises Conflict when there is none, in Docker's words."""
        for number in range(self._lowest, self._last_given + 1):
            if number not in self._taken:
                self._taken.add(number)
                self._lowest = number + 1
                return IPv4Address(number)
        raise Conflict(f"no available IPv4 addresses on this network's address pools: {self.label}")

    def reserve(self, address: IPv4Address) -> IPv4Address:
        """Exactly this address. Raises Conflict if it is taken, NatgwError if the network has no such host."""
        number = int(address)
        if not self._first <= number <= self._last:
            raise NatgwError(f"no configured subnet or ip-range contain the IP address {address} (the subnet is {self.subnet})")
        if number in self._taken:
            raise Conflict("Address already in use")
        self._taken.add(number)
        return address

    def release(self, address: IPv4Address) -> None:
        """Give an address back; it is the next to be given if it is the lowest."""
        number = int(address)
        self._taken.discard(number)
        if self._lowest_given <= number < self._lowest:
            self._lowest = number

    def is_taken(self, address: IPv4Address) -> bool:
        return int(address) in self._taken


class Pools:
    """Every pool of the daemon: no two overlap."""

    def __init__(self) -> None:
        self._pools: dict[str, AddressPool] = {}

    def request(self, subnet: IPv4Network | None = None, ip_range: IPv4Network | None = None, *,
                avoid: Iterable[IPv4Network] = ()) -> AddressPool:
        """A pool of this subnet, or of the first default that is free; `avoid` are the routes of the host.

        Raises Conflict, in Docker's words, for one that overlaps, NatgwError for one that makes no sense.
        """
        own = [pool.subnet for pool in self._pools.values()]
        taken = [*own, *avoid]
        if subnet is None:
            if ip_range is not None:
                raise NatgwError("no matching subnet for range " + str(ip_range))
            subnet = next((pool for pool in DEFAULT_POOLS if not any(pool.overlaps(other) for other in taken)), None)
            if subnet is None:
                raise Conflict("could not find an available, non-overlapping IPv4 address pool among the defaults to assign to "
                               "the network: choose one with --subnet")
        for other in taken:
            if check_subnet(subnet).overlaps(other):
                whose = "that of another network" if other in own else "the host's route to"
                raise Conflict(f"{OVERLAP}: {subnet} meets {whose} {other}; choose another with --subnet")
        pool = AddressPool(check_subnet(subnet), ip_range=ip_range)
        self._pools[pool.id] = pool
        return pool

    def release(self, pool_id: str) -> None:
        """Raises NotFound."""
        del self._pools[self.find(pool_id).id]

    def find(self, pool_id: str) -> AddressPool:
        """Raises NotFound."""
        try:
            return self._pools[pool_id]
        except KeyError:
            raise NotFound(f"invalid pool id: {pool_id}") from None

    def of_subnet(self, subnet: IPv4Network) -> AddressPool | None:
        return next((pool for pool in self._pools.values() if pool.subnet == subnet), None)
