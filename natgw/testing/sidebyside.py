"""A gateway, the same without its fast path, and the model, side by side: what the state machine (`machine`) does with them.

What it sends goes to all three. What arrives is compared, and afterwards each knows of the same flows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from hypothesis.stateful import RuleBasedStateMachine
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from natgw.testing.assertions import assert_checksums, assert_deliveries_equal, summary
from natgw.testing.gateway import OUTSIDE, Delivery, SimulatedGateway
from natgw.testing.model import QUERIES, TOLD, Answered, Arrives, Dropped, Endpoint, NatModel, Outcome, Segment
from natgw.testing.packets import (
    ECHO_TYPES,
    EVENTS,
    NUMBERS,
    QUOTED,
    WITHOUT_PORTS,
    carried,
    dissected,
    endpoints,
    hops_of,
    icmp_of,
    packet_of,
    payload_of,
    transport_of,
    version_of,
)


class SideBySide(RuleBasedStateMachine):
    """The two gateways, the model, and what has been seen. A subclass has the rules, and makes all of it in its first step."""

    external: ClassVar[Sequence[str]]
    internal_ports: ClassVar[Sequence[int]]
    remotes: ClassVar[Sequence[Endpoint]]
    router: ClassVar[str]
    reached: ClassVar[Counter[str]] = Counter()
    """How often something was in fact tested."""

    fast: SimulatedGateway
    slow: SimulatedGateway
    model: NatModel
    names: dict[str, str]
    """The containers' names, by their addresses."""
    crossed: list[tuple[str, bytes, Delivery, Segment]]
    """Who sent a packet that arrived, the packet as it was sent and as it arrived, and as the model was told of it."""
    sent: int
    _looked: tuple[object, list[dict[str, Any]]] | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.reached = Counter()

    # -- sending -----------------------------------------------------------------------------------------------------------

    def _outward(self, src: Endpoint, dst: Endpoint, protocol: str, flags: str, ttl: int, payload: bytes,
                 asks: bool = True) -> None:
        packet = self._packet(src, dst, protocol, flags, ttl, payload, asks)
        segment = Segment(protocol, src, dst, _event(protocol, flags, asks), ttl)
        name = self.names[src[0]]
        found = self._exchange(name, bytes(packet))
        outcome = self.model.from_inside(segment)
        self._check(outcome, found, name, packet)
        if isinstance(outcome, Arrives):
            self.crossed.append((name, bytes(packet), found[0], segment))
            self.reached["hairpin"] += dst[0] in self.external
        elif isinstance(outcome, Dropped) and outcome.why == "no port":
            self.reached["refused"] += 1

    def _inward(self, src: Endpoint, dst: Endpoint, protocol: str, flags: str, ttl: int, payload: bytes, asks: bool) -> None:
        packet = self._packet(src, dst, protocol, flags, ttl, payload, asks)
        if protocol in QUERIES:
            src = (src[0], 0)
        if protocol in WITHOUT_PORTS:
            src, dst = (src[0], 0), (dst[0], 0)
        segment = Segment(protocol, src, dst, _event(protocol, flags, asks), ttl)
        found = self._exchange(OUTSIDE, bytes(packet))
        outcome = self.model.from_outside(segment)
        self._check(outcome, found, OUTSIDE, packet)
        if isinstance(outcome, Arrives):
            self.crossed.append((OUTSIDE, bytes(packet), found[0], segment))
            self.reached["came back"] += 1
        elif isinstance(outcome, Dropped) and outcome.why == "filtered":
            self.reached["filtered"] += 1

    def _exchange(self, sender: str, data: bytes) -> list[Delivery]:
        """What arrives because of a packet, which is the same by the fast path and the slow one, with good checksums."""
        found = self.fast.send(sender, data)
        assert_deliveries_equal(found, self.slow.send(sender, data))
        assert self.fast.datapath.verdicts == self.slow.datapath.verdicts, "the fast path counts otherwise than the slow one"
        for each in found:
            assert_checksums(each.data)
        return found

    def _flow_records(self) -> list[dict[str, Any]]:
        """The gateway's flows, asked for once until a frame comes, the clock is turned or the configuration is another one."""
        state = self.fast.now, sum(self.fast.datapath.verdicts), self.fast.nat
        if self._looked is None or self._looked[0] != state:
            self._looked = state, self.fast.flows()
        return self._looked[1]

    # -- comparing ---------------------------------------------------------------------------------------------------------

    def _check(self, outcome: Outcome, found: list[Delivery], sender: str, packet: Packet) -> None:
        said = f"{sender}: {summary(packet)}; the model says {outcome}, the gateway sent {found}"
        if isinstance(outcome, Arrives):
            assert len(found) == 1, said
            arrived = found[0].packet
            to = OUTSIDE if outcome.to == OUTSIDE else self.names[outcome.to]
            assert (found[0].to, *endpoints(arrived)) == (to, *shown(outcome, arrived)), said
            assert carried(found[0].data) == carried(packet), said
            assert hops_of(arrived) == hops_of(packet) - 1, said
            if isinstance(packet, IPv6):
                assert (arrived.fl, arrived.tc) == (packet.fl, packet.tc), said
            self.reached["arrived"] += 1
            self.reached["other protocols"] += transport_of(found[0].data).protocol in NUMBERS.values()
            return
        assert len(found) <= 1, said
        if not found:
            return
        assert found[0].to == sender, said
        kind = icmp_of(found[0].data)
        if isinstance(outcome, Answered):
            reply = ECHO_TYPES[version_of(found[0].data)][1]
            assert (kind, payload_of(found[0].data)) == ((reply, 0), payload_of(packet)), said
        else:
            assert kind == outcome.error is not None, said

    def _check_error(self, found: Delivery, message: Packet, sender: str, original: bytes) -> None:
        """Whoever sent the packet gets the error, and in it the packet that he sent, but for its TTL (reversibility).

        It comes from where he sent the packet, or from a router, which stays what it is.
        """
        said = f"{summary(message)} about {summary(original)} became {found}"
        source = self.router if message.src == self.router else dissected(original).dst
        assert (found.to, icmp_of(found.data), found.packet.src) == (sender, icmp_of(message), source), said
        assert hops_of(found.packet) == hops_of(message) - 1, said
        version = version_of(original)
        quoted, sent = bytearray(found.data[QUOTED[version] :]), bytearray(original)
        for data in (quoted, sent):
            if version == 6:
                data[7] = 0
            else:
                data[8], data[10:12] = 0, b"\0\0"
        assert quoted == sent, f"{summary(bytes(quoted))} is quoted of {summary(original)}"
        self.reached["errors"] += 1

    def _turn(self, seconds: float, tick_s: float, held: Mapping[tuple[Endpoint, Endpoint], float]) -> None:
        found = self.fast.advance(seconds, tick_s=tick_s)
        assert_deliveries_equal(found, self.slow.advance(seconds, tick_s=tick_s))
        self.model.now = self.fast.now
        for each in found:
            assert_checksums(each.data)
            version = version_of(each.data)
            assert icmp_of(each.data) == TOLD["nobody"][version]
            if each.to == OUTSIDE:
                src, dst = endpoints(dissected(each.data[QUOTED[version] :]))
                assert held[src, dst] <= self.fast.now, f"{each} is told too early"

    def _way_back(self, arrived: Delivery, segment: Segment) -> tuple[bool, bool]:
        """Whether a flow leads back from where a packet arrived, so that an error about it does; and whether to its sender."""
        src, dst = endpoints(arrived.packet)
        if arrived.to == OUTSIDE:
            if segment.protocol in QUERIES:
                dst = (dst[0], 0)
            flow = self._flow(segment.protocol, external=src, remote=dst)
            if flow is None or (segment.protocol in QUERIES and segment.event != "ask"):
                return False, False
            return True, flow.internal == segment.src
        if segment.protocol in QUERIES:
            src = (src[0], 0)
        flow = self._flow(segment.protocol, internal=dst, remote=src)
        if flow is None or src[0] not in self.external:
            return flow is not None, flow is not None and flow.external == segment.dst
        # What hairpinned went by two flows: the error goes back by both.
        first = self._flow(segment.protocol, external=src, remote=flow.external)
        return first is not None, first is not None and (first.internal, flow.external) == (segment.src, segment.dst)

    def _flow(self, protocol: str, **ends: Endpoint) -> Any:
        return next((flow for flow in self.model.flows.values() if flow.protocol == protocol
                     and all(getattr(flow, name) == end for name, end in ends.items())), None)

    # -- choosing ----------------------------------------------------------------------------------------------------------

    @property
    def _version(self) -> int:
        return version_of(self.external[0])

    def _named(self, protocol: str) -> str:
        """What is meant by ICMP: of IPv6 it is another protocol."""
        return "icmpv6" if (protocol, self._version) == ("icmp", 6) else protocol

    def _known(self, number: int) -> Any:
        flows = list(self.model.flows.values())
        return flows[number % len(flows)]

    def _inside(self, host: int, port: int, protocol: str = "udp") -> Endpoint:
        if protocol in WITHOUT_PORTS:
            return list(self.names)[host % len(self.names)], 0
        return list(self.names)[host % len(self.names)], self.internal_ports[port % len(self.internal_ports)]

    def _far(self, remote: int, protocol: str) -> Endpoint:
        own = [mapping.external for mapping in self.model.mappings() if mapping.protocol == protocol][:2]
        ends = [*self.remotes, *own, (self.external[0], 8080)]
        address, port = ends[remote % len(ends)]
        return address, 0 if protocol in (*QUERIES, *WITHOUT_PORTS) else port

    def _packet(self, src: Endpoint, dst: Endpoint, protocol: str, flags: str, ttl: int, payload: bytes,
                asks: bool = True) -> Packet:
        self.sent += 1
        return packet_of(protocol, src, dst, payload, number=self.sent, flags=flags, ttl=ttl, asks=asks,
                         identifier=src[1] if src[0] in self.names else dst[1])

    def _allocated(self, protocol: str, internal: Endpoint, remote: Endpoint) -> Endpoint | None:
        for record in self._flow_records():
            if ends_of(record)[:2] == (protocol, internal) and ends_of(record)[3] == remote and record["mapping"] is not None:
                external: Endpoint = ends_of(record)[2]
                return external
        return None


def _event(protocol: str, flags: str, asks: bool) -> str:
    """What a packet says to the model."""
    if protocol in QUERIES:
        return "ask" if asks else "answer"
    return EVENTS.get(flags, "") if protocol == "tcp" else ""


def ends_of(record: Mapping[str, Any]) -> tuple[str, Endpoint, Endpoint, Endpoint]:
    """Protocol, internal, external and remote endpoint of a flow's record. An ICMP query's remote endpoint has port 0."""
    original, reply = record["original"], record["reply"]
    src, dst = (original["src"], original["sport"]), (original["dst"], original["dport"])
    if record["kind"] == "outbound":
        internal, external, remote = src, (reply["dst"], reply["dport"]), dst
    else:
        internal, external, remote = (reply["src"], reply["sport"]), dst, src
    if record["protocol"] in QUERIES:
        remote = (remote[0], 0)
    return record["protocol"], internal, external, remote


def shown(outcome: Arrives, packet: Packet) -> tuple[Endpoint, Endpoint]:
    """The endpoints a packet has to arrive with: of an ICMP query's, the identifier is of the one that has a port."""
    if icmp_of(packet) is None:
        return outcome.src, outcome.dst
    identifier = outcome.src[1] or outcome.dst[1]
    return (outcome.src[0], identifier), (outcome.dst[0], identifier)
