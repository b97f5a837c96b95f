"""Longest-prefix match over the routes of the uplink.

A host has a handful of routes, so a list sorted by prefix length is searched and the answers are kept; whatever changes
replaces the whole table.
"""

from __future__ import annotations

from collections.abc import Iterable

_MAX_CACHED = 4096


class RouteTable:
    """Routes as (network, mask, next hop), addresses as integers; a next hop of None is a connected network."""

    def __init__(self, routes: Iterable[tuple[int, int, bytes | None]]) -> None:
        # Stable: among equal prefixes the first given (the lowest metric) stays first.
        self._routes = sorted(routes, key=lambda route: route[1], reverse=True)
        self._cache: dict[bytes, bytes | None] = {}

    def next_hop(self, destination: bytes) -> bytes | None:
        """The address to resolve for `destination`: a gateway, the destination itself, or None without a route."""
        try:
            return self._cache[destination]
        except KeyError:
            pass
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        hop = self._cache[destination] = self._search(destination)
        return hop

    def _search(self, destination: bytes) -> bytes | None:
        address = int.from_bytes(destination, "big")
        for network, mask, gateway in self._routes:
            if address & mask == network:
                return gateway or destination
        return None
