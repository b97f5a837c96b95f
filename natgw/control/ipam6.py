"""IPv6 addresses: the prefix a network gets if none is asked for, and the addresses of the containers on it.

As with IPv4 the gateway has the first address and each container the lowest that is free. The address with all zeros behind
the prefix is every router's (RFC 4291 section 2.6.1) and is never given; there is no broadcast address.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network

from natgw.errors import Conflict, NatgwError

LONGEST_PREFIX = 126
_NOT_FOR_HOSTS = [IPv6Network(text) for text in ("::/8", "fe80::/10", "ff00::/8")]
"""Unspecified, loopback and IPv4 in disguise; link-local; multicast."""


def unique_local_prefix(random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> IPv6Network:
    """A /64 that most likely nobody else has: fd, 40 bits of chance, subnet 0 (RFC 4193 section 3.2)."""
    return IPv6Network((b"\xfd" + random_bytes(5) + bytes(10), 64))


def check_subnet6(subnet: IPv6Network) -> IPv6Network:
    """Raises NatgwError for a subnet that no containers can have addresses of."""
    if subnet.prefixlen > LONGEST_PREFIX:
        raise NatgwError(f"subnet {subnet} has no room for a gateway and a container: use a /{LONGEST_PREFIX} or larger")
    if any(subnet.overlaps(special) for special in _NOT_FOR_HOSTS):
        raise NatgwError(f"subnet {subnet} has addresses that no host can have (RFC 4291): use one such as fd00:1:2:3::/64")
    return subnet


class AddressPool6:
    """The host addresses of an IPv6 subnet. `label` names it in errors."""

    def __init__(self, subnet: IPv6Network, label: str) -> None:
        self.subnet = check_subnet6(subnet)
        self._label = label
        self._first = int(subnet.network_address) + 1
        self._last = int(subnet.broadcast_address)
        self._lowest = self._first
        self._taken: set[int] = set()

    @property
    def gateway(self) -> IPv6Address:
        return IPv6Address(self._first)

    def allocate(self) -> IPv6Address:
        """The lowest free address. Raises Conflict when there is none, in Docker's words."""
        number = self._lowest
        while number in self._taken:
            number += 1
        if number > self._last:
            raise Conflict(f"no available IPv6 addresses on this network's address pools: {self._label}")
        self._taken.add(number)
        self._lowest = number + 1
        return IPv6Address(number)

    def reserve(self, address: IPv6Address) -> IPv6Address:
        """Exactly this address. Raises Conflict if it is taken, NatgwError if the network has no such host."""
        number = int(address)
        if not self._first <= number <= self._last:
            raise NatgwError(f"no configured subnet contains the IP address {address} (the subnet is {self.subnet})")
        if number in self._taken:
            raise Conflict("Address already in use")
        self._taken.add(number)
        return address

    def release(self, address: IPv6Address) -> None:
        """Give an address back; it is the next to be given if it is the lowest."""
        number = int(address)
        self._taken.discard(number)
        if self._first <= number < self._lowest:
            self._lowest = number
