"""A port policy of one's own, driven through whatever may happen beside the model of what a NAT has to do.

    pytest docs/examples/test_own_policy.py
"""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis.stateful import invariant

from natgw.datapath.allocation import PortRequest, register
from natgw.tables.portpool import PortPool
from natgw.testing import AT_LEAST, GatewayMachine, check_machine
from natgw.testing.machine import ends_of
from natgw.testing.strategies import nat_configs

BLOCK = 4


class Blocks:
    """Each host has a block of ports that follows from its address, so that no log is needed to tell whose a port was.

    RFC 7422 has the idea. A host whose block is full gets no port, though others may be free.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def choose(self, request: PortRequest, pool: PortPool) -> int | None:
        block = block_of(request.internal_address, range(pool.low, pool.high + 1))
        return pool.next_free(block, self._rng.randrange(len(block)))


def block_of(address: bytes, ports: range) -> range:
    """The block of an internal address."""
    start = address[3] % (len(ports) // BLOCK) * BLOCK
    return ports[start : start + BLOCK]


register("blocks", Blocks)


class BlocksMachine(GatewayMachine):
    """Any NAT with this policy. Linux's overloading and resting ports choose by themselves, and ICMP has no ports."""

    configurations = nat_configs(allocations=["blocks"]).filter(
        lambda nat: not (nat.udp.overload or nat.tcp.overload or nat.port_rest_s))
    external = ("198.51.100.2",)
    port_range = (5000, 5000 + 4 * BLOCK - 1)
    own_policy = True

    @invariant()
    def every_host_keeps_to_its_block(self) -> None:
        """What the policy promises, beside all that the machine checks of any NAT."""
        low, high = self.port_range
        for record in self.fast.flows() if hasattr(self, "model") else ():
            protocol, internal, (_, port), _ = ends_of(record)
            if protocol not in ("icmp", "gre", "50") and record["mapping"] is not None:
                address = bytes(map(int, internal[0].split(".")))
                assert port in block_of(address, range(low, high + 1)), f"{internal} has {port}"
                self.reached["in its block"] += 1


def test_blocks_keep_what_a_nat_has_to_keep() -> None:
    check_machine(BlocksMachine, at_least={name: number // 5 for name, number in AT_LEAST.items()} | {"in its block": 200},
                  settings=settings(derandomize=True, deadline=None, max_examples=60, stateful_step_count=40))
