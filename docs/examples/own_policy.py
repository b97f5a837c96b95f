"""A port policy of one's own: the first free multiple of 100, so that a port in a firewall's log is known for natgw's.

    natgw up --port-policy docs/examples/own_policy.py:Multiples
"""

from __future__ import annotations

import random

from natgw.datapath.allocation import PortRequest, Random
from natgw.tables.portpool import PortPool


class Multiples(Random):
    """A multiple of 100 while there is one; after that any port, as the policy `random` chooses it."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.step = 100

    def choose(self, request: PortRequest, pool: PortPool) -> int | None:
        first = -(-pool.low // self.step) * self.step
        port = pool.next_free(range(first, pool.high + 1, self.step), 0)
        return super().choose(request, pool) if port is None else port
