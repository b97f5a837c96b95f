"""What an asker can see: the names and addresses of some networks (`resolver.Zone`), looked up when they are asked for.

A container is found by its name, its aliases, the short id, and each of them with the network's name behind a dot, as Docker
has it. Only endpoints with a link count: a name leads to something that can be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from natgw.control.dns import HOST_NAME
from natgw.control.endpoints import Endpoints
from natgw.control.model import Endpoint, Network

if TYPE_CHECKING:
    from natgw.wire.dns import Address


class NetworksZone:
    """`networks` gives the networks that are seen, each time anew: a container may join another."""

    def __init__(self, endpoints: Endpoints, networks: Callable[[], Iterable[Network]]) -> None:
        self._endpoints = endpoints
        self._networks = networks

    @property
    def forwards(self) -> bool:
        """From internal networks alone nothing leads outside, names neither."""
        return any(not network.internal for network in self._networks())

    def addresses(self, name: str) -> list[Address] | None:
        if name == HOST_NAME:
            return next((gateways(network) for network in self._networks()), None)
        found: list[Address] = []
        for network in self._networks():
            short = name.removesuffix(f".{network.name.lower()}")
            for endpoint in self._named(network, name) or self._named(network, short):
                found += _addresses(endpoint)
        return list(dict.fromkeys(found)) or None

    def name_of(self, address: Address) -> str | None:
        for network in self._networks():
            if address in gateways(network):
                return HOST_NAME
            for endpoint in self._endpoints.of(network):
                if endpoint.device and address in _addresses(endpoint):
                    return f"{endpoint.name}.{network.name}"
        return None

    def covers(self, address: Address) -> bool:
        return any(address in subnet for network in self._networks()
                   for subnet in (network.addresses.subnet, *(() if network.ipam6 is None else (network.ipam6.subnet,))))

    def _named(self, network: Network, name: str) -> list[Endpoint]:
        return [endpoint for endpoint in self._endpoints.named(network, name) if endpoint.device]


def gateways(network: Network) -> list[Address]:
    """natgw's own addresses on a network."""
    found: list[Address] = [network.gateway]
    return found if network.ipam6 is None else [*found, network.ipam6.gateway]


def _addresses(endpoint: Endpoint) -> list[Address]:
    return [endpoint.ip] if endpoint.ip6 is None else [endpoint.ip, endpoint.ip6]
