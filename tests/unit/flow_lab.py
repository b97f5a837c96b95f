"""A flow table between two sides, for the tests of flows awake and at rest."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from natgw.tables.flows import Flow, Leg, Mapping, Realm, leg_key, reversed_key
from natgw.tables.flowtable import FlowTable
from natgw.tables.neigh import Neighbour
from natgw.wire.ipv4 import UDP

INTERNAL, REMOTE, EXTERNAL = bytes((10, 0, 0, 2)), bytes((203, 0, 113, 9)), bytes((198, 51, 100, 2))


def endpoint(address: str, port: int) -> bytes:
    """An endpoint as mappings have it: the address and 2 bytes of port."""
    return ip_address(address).packed + port.to_bytes(2, "big")


def leg_between(source: bytes, destination: bytes) -> bytes:
    """The key, or rewrite, of packets from one endpoint to another."""
    return source[:-2] + destination[:-2] + source[-2:] + destination[-2:]


class Table:
    """A table that keeps two flows awake, and what it told."""

    def __init__(self, max_awake: int = 2, kind: type[FlowTable] = FlowTable) -> None:
        self.ended: list[Flow] = []
        self.woken: list[Flow] = []
        self.flows = kind(10_000_000, self.ended.append, self.woken.append, max_awake)
        self.inside, self.outside = Realm(), Realm()
        self.hop: Neighbour[Any] = Neighbour(REMOTE, 0.0)

    def add(self, number: int, now: float, timeout_s: float = 30.0, mapping: Mapping | None = None) -> Flow:
        """Enter a flow that began inside."""
        return self.enter(self.make(number, mapping), now, timeout_s)

    def make(self, number: int, mapping: Mapping | None = None, protocol: int = UDP) -> Flow:
        """A flow that began inside, with a number of 32 bits as its ports; it is not entered."""
        key = leg_key(INTERNAL, REMOTE, number >> 16, number & 0xFFFF)
        rewrite = leg_key(EXTERNAL, REMOTE, number >> 16, number & 0xFFFF)
        return Flow(protocol, Leg(key, rewrite, self.inside, self.hop),
                    Leg(reversed_key(rewrite), reversed_key(key), self.outside, self.hop), mapping, "n", "outbound")

    def between(self, kind: str, internal: bytes, external: bytes, remote: bytes, mapping: Mapping | None) -> Flow:
        """A flow of UDP of these endpoints, outbound or one that came in; it is not entered."""
        out, back = leg_between(internal, remote), leg_between(remote, external)
        inner = Leg(out, reversed_key(back), self.inside, self.hop)
        outer = Leg(back, reversed_key(out), self.outside, self.hop)
        return Flow(UDP, *((inner, outer) if kind == "outbound" else (outer, inner)), mapping, "n", kind)

    def enter(self, flow: Flow, now: float, timeout_s: float = 30.0) -> Flow:
        """Enter a flow that was made."""
        flow.timeout_s = timeout_s
        self.flows.add(flow, now)
        return flow

    def is_awake(self, flow: Flow) -> bool:
        """Whether this very object is what packets find."""
        leg = flow.original
        return leg.realm.of(flow.protocol).get(leg.key) is leg

    def crowd(self, now: float, count: int = 8, first: int = 0xFFFF0000) -> None:
        """Enter flows that live long, so that those unused for a second go to rest."""
        for number in range(first, first + count):
            self.add(number, now, timeout_s=100_000.0)

    def wake(self, flow: Flow) -> Flow:
        """What became of a flow that rests, asked for by a packet."""
        leg = self.flows.find(flow.original.realm, flow.protocol, flow.original.key)
        assert leg is not None and leg.flow is not flow
        return leg.flow
