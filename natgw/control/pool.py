"""What address pools of both IP versions have in common: numbers, of which the lowest free one is the next to be given.

A released one is given again as soon as it is the lowest. Addresses that nobody chose come from `ip_range`, which is all of
the subnet unless it is said; any other of the subnet's can be had by asking for it.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Generic, TypeVar

from natgw.errors import Conflict, NatgwError, NotFound

Address = TypeVar("Address", bound=IPv4Address | IPv6Address)
Subnet = TypeVar("Subnet", bound=IPv4Network | IPv6Network)
AnyPool = TypeVar("AnyPool", bound="Pool[IPv4Address, IPv4Network] | Pool[IPv6Address, IPv6Network]")

OVERLAP = "Pool overlaps with other one on this address space"


class Pool(Generic[Address, Subnet]):
    """The addresses of `subnet` from number `first` to `last`, the ones that hosts can have. `label` names it in errors."""

    def __init__(self, subnet: Subnet, label: str, ip_range: Subnet | None, make: Callable[[int], Address], first: int,
                 last: int) -> None:
        given_from = ip_range or subnet
        low, high = int(given_from.network_address), int(given_from.broadcast_address)
        if not int(subnet.network_address) <= low <= high <= int(subnet.broadcast_address):
            raise NatgwError(f"invalid ip-range: {ip_range} is not within the subnet {subnet}")
        self.subnet = subnet
        self.ip_range = ip_range
        self.label = label
        self._make = make
        self._first, self._last = first, last
        self._lowest_given, self._last_given = max(first, low), min(last, high)
        self._taken: set[int] = set()
        self._lowest = self._lowest_given

    @property
    def id(self) -> str:
        """What Docker's IPAM protocol calls it by."""
        return f"natgw/{self.subnet}" + (f"/{self.ip_range}" if self.ip_range is not None else "")

    @property
    def first(self) -> Address:
        """The first address a host can have: the gateway's, if nobody says otherwise."""
        return self._make(self._first)

    def is_host(self, address: Address) -> bool:
        """Whether a host of the subnet can have this address."""
        return self._first <= int(address) <= self._last

    def allocate(self) -> Address:
        """The lowest free address. Raises Conflict when there is none, in Docker's words."""
        number = self._lowest
        while number in self._taken:
            number += 1
        if number > self._last_given:
            raise Conflict(f"no available IPv{self.subnet.version} addresses on this network's address pools: {self.label}")
        self._taken.add(number)
        self._lowest = number + 1
        return self._make(number)

    def reserve(self, address: Address) -> Address:
        """Exactly this address. Raises Conflict if it is taken, NatgwError if the network has no such host."""
        number = int(address)
        if not self._first <= number <= self._last:
            raise NatgwError(f"no configured subnet or ip-range contain the IP address {address} (the subnet is {self.subnet})")
        if number in self._taken:
            raise Conflict("Address already in use")
        self._taken.add(number)
        return address

    def release(self, address: Address) -> None:
        """Give an address back; it is the next to be given if it is the lowest."""
        number = int(address)
        self._taken.discard(number)
        if self._lowest_given <= number < self._lowest:
            self._lowest = number

    def is_taken(self, address: Address) -> bool:
        return int(address) in self._taken


class PoolSet(Generic[AnyPool]):
    """Every pool of one IP version: no two overlap."""

    def __init__(self) -> None:
        self._pools: dict[str, AnyPool] = {}

    def release(self, pool_id: str) -> None:
        """Raises NotFound."""
        del self._pools[self.find(pool_id).id]

    def find(self, pool_id: str) -> AnyPool:
        """Raises NotFound."""
        pool = self.get(pool_id)
        if pool is None:
            raise NotFound(f"invalid pool id: {pool_id}")
        return pool

    def get(self, pool_id: str) -> AnyPool | None:
        return self._pools.get(pool_id)

    def of_subnet(self, subnet: IPv4Network | IPv6Network) -> AnyPool | None:
        return next((pool for pool in self._pools.values() if pool.subnet == subnet), None)

    def _add(self, pool: AnyPool) -> AnyPool:
        self._pools[pool.id] = pool
        return pool

    def _refuse_overlap(self, subnet: IPv4Network | IPv6Network, routes: list[IPv4Network] | list[IPv6Network],
                        hint: str) -> None:
        """Raises Conflict, in Docker's words, for a subnet that another pool or a route of the host overlaps."""
        for whose, others in (("that of another network", [pool.subnet for pool in self._pools.values()]),
                              ("the host's route to", routes)):
            for other in others:
                if subnet.overlaps(other):
                    raise Conflict(f"{OVERLAP}: {subnet} meets {whose} {other}; choose another with {hint}")
