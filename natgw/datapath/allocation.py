"""Which external port a new mapping gets: policies, one of which is chosen by name (RFC 4787 section 4.2, RFC 6056).

A policy is any object with this method:

    choose(request: PortRequest, pool: PortPool) -> int | None

It gives a port that is free in the pool, or None if it has none to give. It does not take the port: natgw does, and treats
a port that is not free as None. docs/extending.md writes one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from natgw.tables.portpool import PortPool

FIRST_UNPRIVILEGED = 1024


@dataclass(frozen=True)
class PortRequest:
    """A mapping that is about to be made. Addresses are 4 or 16 bytes; `remote` is what the first packet goes to."""

    protocol: int
    internal_address: bytes
    internal_port: int
    external_address: bytes
    remote_address: bytes
    remote_port: int
    parity: bool = False

    def ranges(self, pool: PortPool) -> list[range]:
        """The pool's ports in the order of preference: like the internal one in class and, if asked for, in parity.

        Ports below 1024 map below 1024 and others above (RFC 4787 REQ-3), unless the pool has none of the kind.
        """
        low, high = pool.low, pool.high
        lower, upper = range(low, min(high, FIRST_UNPRIVILEGED - 1) + 1), range(max(low, FIRST_UNPRIVILEGED), high + 1)
        classes = [lower, upper] if self.internal_port < FIRST_UNPRIVILEGED else [upper]
        found = [ports for ports in classes if ports]
        found = found[:1] or [range(low, high + 1)]
        if not self.parity:
            return found
        first = found[0].start + ((found[0].start ^ self.internal_port) & 1)
        return [range(first, found[0].stop, 2), found[0]]


class PortPolicy(Protocol):
    """See the module's text."""

    def choose(self, request: PortRequest, pool: PortPool) -> int | None: ...


class Random:
    """Any port, each as likely as the other: hard to guess (RFC 6056 section 3.3.1)."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def choose(self, request: PortRequest, pool: PortPool) -> int | None:
        for ports in request.ranges(pool):
            if ports:
                found = pool.next_free(ports, self._rng.randrange(len(ports)))
                if found is not None:
                    return found
        return None


class Preserve(Random):
    """The internal port, if it is free; else any (RFC 4787 section 4.2.1, port preservation)."""

    def choose(self, request: PortRequest, pool: PortPool) -> int | None:
        port = request.internal_port
        return port if port in pool and pool.is_free(port) else super().choose(request, pool)


class Sequential:
    """The next one after the last, round and round: what the simplest NATs do, and what is easiest to predict."""

    def __init__(self, rng: random.Random) -> None:
        self._next: dict[tuple[int, bytes], int] = {}

    def choose(self, request: PortRequest, pool: PortPool) -> int | None:
        key = (request.protocol, request.external_address)
        for ports in request.ranges(pool):
            after = self._next.get(key, ports.start)
            start = max(0, -(-(after - ports.start) // ports.step)) % max(1, len(ports))
            found = pool.next_free(ports, start)
            if found is not None:
                self._next[key] = found + 1
                return found
        return None


POLICIES: dict[str, Callable[[random.Random], PortPolicy]] = {"preserve": Preserve, "random": Random, "sequential": Sequential}
"""By the name that `allocation` has in the configuration. A policy of a user's own is added by `register`."""


def register(name: str, make: Callable[[random.Random], PortPolicy]) -> None:
    """Make a policy known. `make` is given the gateway's source of randomness. Raises ValueError if the name is taken."""
    if name in POLICIES:
        raise ValueError(f"there is a port policy {name!r} already")
    POLICIES[name] = make
