"""Addresses of one network: the lowest free one first, a released one again, as Docker's bridge driver gives them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from natgw.errors import Conflict, NatgwError

_NOT_FOR_HOSTS = [IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")]
"""This network, loopback, multicast and reserved."""


def check_subnet(subnet: IPv4Network) -> IPv4Network:
    """Raises NatgwError for a subnet that no containers can have addresses of."""
    if subnet.prefixlen > 30:
        raise NatgwError(f"subnet {subnet} has no room for a gateway and a container: use a /30 or larger")
    if any(subnet.overlaps(special) for special in _NOT_FOR_HOSTS):
        raise NatgwError(f"subnet {subnet} has addresses that no host can have (RFC 6890): use one such as 10.88.0.0/16")
    return subnet


class AddressPool:
    """The host addresses of `subnet`; the network and broadcast address are never given. `label` names it in errors."""

    def __init__(self, subnet: IPv4Network, label: str) -> None:
        self.subnet = subnet
        self._label = label
        self._first = int(subnet.network_address) + (1 if subnet.prefixlen < 31 else 0)
        self._last = int(subnet.broadcast_address) - (1 if subnet.prefixlen < 31 else 0)
        self._taken: set[int] = set()
        self._lowest = self._first

    def allocate(self) -> IPv4Address:
        """The lowest free address. Raises Conflict when there is none, in Docker's words."""
        for number in range(self._lowest, self._last + 1):
            if number not in self._taken:
                self._taken.add(number)
                self._lowest = number + 1
                return IPv4Address(number)
        raise Conflict(f"no available IPv4 addresses on this network's address pools: {self._label}")

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
        if self._first <= number < self._lowest:
            self._lowest = number
