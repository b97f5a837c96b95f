"""A Hypothesis state machine that drives a gateway and the model side by side: subclass it to test a configuration or a policy.

    class MyMachine(GatewayMachine):
        configurations = nat_configs(allocations=["mine"])
        own_policy = True

    def test_mine() -> None:
        check_machine(MyMachine)

Two gateways run in fact, one without natgw's fast path; what they send must be the same byte by byte. What arrives must be what
the model says. After each step the gateway's flows are those of the model, with the same time left, and hold by themselves what
RFC 4787 asks of any NAT. `reached` counts how often something was in fact tested; `check_machine` wants enough of each.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.packet import Packet, Raw

from natgw.datapath import Dependence, NatConfig
from natgw.tables.flowtable import MAX_AWAKE
from natgw.testing.assertions import assert_checksums, assert_deliveries_equal, payload_of, summary
from natgw.testing.gateway import OUTSIDE, Delivery, SimulatedGateway
from natgw.testing.model import Answered, Arrives, Dropped, Endpoint, NatModel, Outcome, Segment
from natgw.testing.strategies import ICMP_ERROR_TYPES, TCP_FLAGS, nat_configs
from natgw.wire.checksum import checksum, pseudo_sum
from natgw.wire.transport import GRE, SCTP, UDPLITE, finish_sctp_checksum

AT_LEAST = {"arrived": 500, "came back": 100, "refused": 20, "filtered": 100, "expired": 50, "hairpin": 10, "errors": 20,
            "fragments": 20, "reconfigured": 50, "other protocols": 100}
"""For a few hundred sequences; `check_machine` takes other numbers."""

_EVENTS = {"S": "syn", "SA": "synack", "A": "ack", "PA": "ack", "FA": "fin", "R": "rst", "RA": "rst"}
_protocols = st.sampled_from(("udp", "udp", "udp", "tcp", "tcp", "icmp", "icmp", "udplite", "sctp", "gre", "50"))
_WITHOUT_PORTS = ("gre", "50")
_NUMBERS = {"udplite": UDPLITE, "sctp": SCTP, "gre": GRE, "50": 50}
_flags = st.sampled_from(("S", "S", "SA", "A", "A", *TCP_FLAGS))
_ttls = st.sampled_from((1, 2, 64, 64, 64, 64, 64, 64))
_payloads = st.binary(max_size=30)
_any = st.integers(0, 999)
_seconds = st.sampled_from((1, 1, 2, 3, 8, 31, 65, 121, 301, 7441))


class GatewayMachine(RuleBasedStateMachine):
    """Few hosts, few ports, so that everything gets in everybody's way."""

    configurations: ClassVar[st.SearchStrategy[NatConfig]] = nat_configs(external=("198.51.100.2", "198.51.100.3"))
    containers: ClassVar[int] = 3
    internal_ports: ClassVar[Sequence[int]] = (80, 5000, 5001, 5002, 53)
    remotes: ClassVar[Sequence[Endpoint]] = (("203.0.113.1", 53), ("203.0.113.1", 54), ("203.0.113.2", 53), ("192.0.2.9", 5000))
    external: ClassVar[Sequence[str]] = ("198.51.100.2", "198.51.100.3")
    port_range: ClassVar[tuple[int, int]] = (5000, 5003)
    publish: ClassVar[Sequence[tuple[str, str]]] = (("c1", "8080:80"), ("c2", "5003:53/udp"))
    max_awake_flows: ClassVar[int] = MAX_AWAKE
    """With few of them flows go to rest and wake up again all the time."""
    own_policy: ClassVar[bool] = False
    """Whether the port policy is one of your own, which may refuse although a port is free."""
    reached: ClassVar[Counter[str]] = Counter()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.reached = Counter()

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        nat = data.draw(self.configurations, label="nat")
        self.fast, self.slow = (
            SimulatedGateway(nat, containers=self.containers, publish=self.publish, external=self.external, seed=1,
                             fast_path=fast, port_range=self.port_range,
                             max_awake_flows=self.max_awake_flows) for fast in (True, False))
        self.names = {address: name for name, address in self.fast.containers.items()}
        published: dict[tuple[str, int], Endpoint] = {
            (each.protocol, each.host_port): (str(each.container_ip), each.container_port) for each in self.fast.publications}
        self.model = NatModel(nat, set(self.names), list(self.external), self.port_range, self._allocated,
                              published=published, own_policy=self.own_policy)
        self.overloads = self._overloads(nat)
        self.stable = self._stable(nat)
        self.crossed: list[tuple[str, bytes, Delivery, Segment]] = []
        self.sent = 0

    # -- rules -----------------------------------------------------------------------------------------------------------

    @rule(host=_any, port=_any, remote=_any, protocol=_protocols, flags=_flags, ttl=_ttls, payload=_payloads)
    def out(self, host: int, port: int, remote: int, protocol: str, flags: str, ttl: int, payload: bytes) -> None:
        """A container sends to the outside, or to an endpoint of the gateway's own."""
        src = self._inside(host, port, protocol)
        self._outward(src, self._far(remote, protocol), protocol, flags, ttl, payload)

    @rule(host=_any, remote=_any, protocol=_protocols)
    def burst(self, host: int, remote: int, protocol: str) -> None:
        """A container sends from all of its ports at once: there are more of them than of ports outside."""
        for port in range(len(self.internal_ports)):
            self._outward(self._inside(host, port, protocol), self._far(remote, protocol), protocol, "S", 64, b"")

    @precondition(lambda self: self.model.flows)
    @rule(flow=_any, flags=_flags, payload=_payloads, ttl=_ttls)
    def out_again(self, flow: int, flags: str, payload: bytes, ttl: int) -> None:
        """A container sends on a flow that there is."""
        known = self._known(flow)
        self._outward(known.internal, known.remote, known.protocol, flags, ttl, payload, kind=8 if known.began_inside else 0)

    @rule(remote=_any, where=_any, protocol=_protocols, flags=_flags, ttl=_ttls, payload=_payloads)
    def inward(self, remote: int, where: int, protocol: str, flags: str, ttl: int, payload: bytes) -> None:
        """Somebody outside sends to a port that may be a mapping's, published or nobody's."""
        ends = [(self.external[0], port) for port in (self.port_range[0], 8080, 5003, 4000)]
        ends += [mapping.external for mapping in self.model.mappings() for _ in range(3)]
        self._inward(self.remotes[remote % len(self.remotes)], ends[where % len(ends)], protocol, flags, ttl, payload, kind=8)

    @precondition(lambda self: self.model.flows)
    @rule(flow=_any, flags=_flags, payload=_payloads, ttl=_ttls)
    def answer(self, flow: int, flags: str, payload: bytes, ttl: int) -> None:
        """The remote end of a flow sends."""
        known = self._known(flow)
        if known.remote[0] not in self.external:
            self._inward(known.remote, known.external, known.protocol, flags, ttl, payload, kind=0)

    @precondition(lambda self: self.model.flows)
    @rule(flow=_any, remote=_any, flags=_flags, payload=_payloads, ttl=_ttls)
    def stranger(self, flow: int, remote: int, flags: str, payload: bytes, ttl: int) -> None:
        """Somebody outside, who may be another than its remote end, sends where the answers of a flow go."""
        known = self._known(flow)
        self._inward(self.remotes[remote % len(self.remotes)], known.external, known.protocol, flags, ttl, payload, kind=0)

    @precondition(lambda self: self.crossed)
    @rule(which=_any, error=st.sampled_from(ICMP_ERROR_TYPES), router=st.booleans(), whole=st.booleans())
    def icmp_error(self, which: int, error: tuple[int, int], router: bool, whole: bool) -> None:
        """An ICMP error about a packet that crossed, from where it went or from a router on its way."""
        sender, original, arrived, segment = self.crossed[which % len(self.crossed)]
        quoted = arrived.data if whole else arrived.data[:28]
        if sender == OUTSIDE and arrived.to == OUTSIDE:
            return
        source = "192.0.2.77" if router and arrived.to == OUTSIDE else arrived.packet.dst
        message = IP(src=source, dst=arrived.packet.src) / ICMP(type=error[0], code=error[1]) / Raw(quoted)
        before = sorted(self.fast.flows(), key=ends_of)
        found = self._exchange(arrived.to, bytes(message))
        assert sorted(self.fast.flows(), key=ends_of) == before, "an ICMP error changed a flow (RFC 4787 REQ-10)"
        live, theirs = self._way_back(arrived, segment)
        if live and not theirs:
            return  # The flow has ended, and what it had outside is somebody else's by now, who gets the error.
        assert len(found) == (1 if live else 0), f"{summary(message)} about {summary(arrived.data)}: {found}, flow live: {live}"
        if live:
            self._check_error(found[0], sender, original, error, whole, len(quoted))

    @rule(host=_any, port=_any, remote=_any, payload=st.binary(min_size=40, max_size=90),
          order=st.randoms(use_true_random=False))
    def fragmented(self, host: int, port: int, remote: int, payload: bytes, order: Any) -> None:
        """A datagram leaves in fragments, in any order: what arrives, put together, is what one datagram would have been."""
        src, dst = self._inside(host, port), self._far(remote, "udp")
        whole = self._packet(src, dst, "udp", "", 64, payload)
        pieces = fragment(whole, fragsize=24)
        order.shuffle(pieces)
        found = [each for piece in pieces for each in self._exchange(self.names[src[0]], bytes(piece))]
        outcome = self.model.from_inside(Segment("udp", src, dst))
        if not isinstance(outcome, Arrives):
            self._check(outcome, found, self.names[src[0]], whole)
            return
        found.sort(key=lambda each: each.packet.frag)
        assert [each.packet.frag for each in found] == sorted(piece.frag for piece in pieces)
        together = found[0].packet.copy()
        together.flags, together.len, together.chksum = 0, None, None
        together = IP(bytes(together)[:20] + b"".join(bytes(each.packet.payload) for each in found))
        del together.len, together.chksum
        self._check(outcome, [Delivery(found[0].to, bytes(together))], self.names[src[0]], whole)
        self.reached["fragments"] += 1

    @rule(seconds=_seconds)
    def advance_clock(self, seconds: float) -> None:
        """Time passes; it never stops in the second in which a flow may have ended or not."""
        before = len(self.model.flows)
        held = dict(self.model.held)
        tick_s = max(1.0, seconds / 30)
        self._turn(seconds, tick_s, held)
        while self.model.is_ending():
            self._turn(1.0, tick_s, held)
        self.model.advance(self.fast.now, tick_s)
        self.reached["expired"] += before - len(self.model.flows)

    @rule(data=st.data())
    def set_nat(self, data: st.DataObject) -> None:
        """The configuration changes. What refreshes a flow does not: it would end flows in hindsight."""
        nat = replace(data.draw(self.configurations, label="nat"), refresh_inbound=self.model.nat.refresh_inbound)
        self.fast.set_nat(nat)
        self.slow.set_nat(nat)
        self.model.nat = nat
        self.overloads = self.overloads or self._overloads(nat)
        self.stable &= self._stable(nat)
        self.reached["reconfigured"] += 1

    # -- invariants --------------------------------------------------------------------------------------------------------

    @invariant()
    def flows_are_those_of_the_model(self) -> None:
        """Containment: nothing begins, ends early or stays that should not (the time left is compared in whole seconds)."""
        if not hasattr(self, "model"):
            return
        expected = sorted((flow.protocol, flow.internal, flow.external, flow.remote,
                           max(0, round(self.model.deadline(flow) - self.model.now))) for flow in self.model.flows.values())
        found = sorted((*ends_of(record), record["timeout_s"]) for record in self.fast.flows())
        assert found == expected, f"flows, with the seconds left: {found}; the model has {expected}"
        assert self.fast.flows() == self.slow.flows(), f"fast path: {self.fast.flows()}; slow path: {self.slow.flows()}"

    @invariant()
    def no_two_share_an_external_endpoint(self) -> None:
        """Exclusivity, unless overload asked for the contrary (requirement U4)."""
        if not hasattr(self, "model") or self.overloads:
            return
        owner: dict[tuple[str, str], str] = {}
        for record in self.fast.flows():
            if record["mapping"] is not None and record["protocol"] not in _WITHOUT_PORTS:
                external, internal = record["mapping"]["external"], record["mapping"]["internal"]
                assert owner.setdefault((record["protocol"], external), internal) == internal, f"{external} is of two"

    @invariant()
    def one_endpoint_has_one_mapping(self) -> None:
        """Stability of endpoint-independent mapping (RFC 4787 REQ-1)."""
        if not hasattr(self, "model"):
            return
        seen: dict[tuple[str, str], str] = {}
        for record in self.fast.flows():
            if record["mapping"] is not None and record["protocol"] in self.stable:
                external, internal = record["mapping"]["external"], record["mapping"]["internal"]
                assert seen.setdefault((record["protocol"], internal), external) == external, f"{internal} has two mappings"

    # -- how ---------------------------------------------------------------------------------------------------------------

    def _outward(self, src: Endpoint, dst: Endpoint, protocol: str, flags: str, ttl: int, payload: bytes,
                 kind: int = 8) -> None:
        packet = self._packet(src, dst, protocol, flags, ttl, payload, kind=kind)
        event = "ask" if kind == 8 else "answer"
        segment = Segment(protocol, src, dst, {"tcp": _EVENTS.get(flags, ""), "icmp": event}.get(protocol, ""), ttl)
        name = self.names[src[0]]
        found = self._exchange(name, bytes(packet))
        outcome = self.model.from_inside(segment)
        self._check(outcome, found, name, packet)
        if isinstance(outcome, Arrives):
            self.crossed.append((name, bytes(packet), found[0], segment))
            self.reached["hairpin"] += dst[0] in self.external
        elif isinstance(outcome, Dropped) and outcome.why == "no port":
            self.reached["refused"] += 1

    def _inward(self, src: Endpoint, dst: Endpoint, protocol: str, flags: str, ttl: int, payload: bytes, kind: int) -> None:
        packet = self._packet(src, dst, protocol, flags, ttl, payload, kind=kind)
        event = "ask" if kind == 8 else "answer"
        if protocol == "icmp":
            src = (src[0], 0)
        if protocol in _WITHOUT_PORTS:
            src, dst = (src[0], 0), (dst[0], 0)
        segment = Segment(protocol, src, dst, {"tcp": _EVENTS.get(flags, ""), "icmp": event}.get(protocol, ""), ttl)
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

    def _check(self, outcome: Outcome, found: list[Delivery], sender: str, packet: Packet) -> None:
        said = f"{sender}: {summary(packet)}; the model says {outcome}, the gateway sent {found}"
        if isinstance(outcome, Arrives):
            assert len(found) == 1, said
            arrived = found[0].packet
            to = OUTSIDE if outcome.to == OUTSIDE else self.names[outcome.to]
            assert (found[0].to, *endpoints(arrived)) == (to, *shown(outcome, arrived)), said
            assert carried(found[0].data) == carried(packet), said
            assert arrived.ttl == packet.ttl - 1, said
            self.reached["arrived"] += 1
            self.reached["other protocols"] += arrived.proto in _NUMBERS.values()
            return
        assert len(found) <= 1, said
        if not found:
            return
        error = found[0].packet
        assert found[0].to == sender, said
        assert ICMP in error, said
        if isinstance(outcome, Answered):
            assert (error[ICMP].type, payload_of(error)) == (0, payload_of(packet)), said
        else:
            assert (error[ICMP].type, error[ICMP].code) == outcome.error, said

    def _check_error(self, found: Delivery, sender: str, original: bytes, error: tuple[int, int], whole: bool,
                     length: int) -> None:
        """Whoever sent the packet gets the error, and in it the packet that he sent, but for its TTL (reversibility)."""
        assert found.to == sender
        message = found.packet[ICMP]
        assert (message.type, message.code) == error
        quoted, sent = bytearray(found.data[28:]), bytearray(original[:length])
        for data in (quoted, sent):
            data[8], data[10:12] = 0, b"\0\0"
        assert quoted == sent, f"{summary(bytes(quoted))} is quoted of {summary(original)}"
        self.reached["errors"] += 1

    def _turn(self, seconds: float, tick_s: float, held: Mapping[tuple[Endpoint, Endpoint], float]) -> None:
        found = self.fast.advance(seconds, tick_s=tick_s)
        assert_deliveries_equal(found, self.slow.advance(seconds, tick_s=tick_s))
        self.model.now = self.fast.now
        for each in found:
            assert_checksums(each.data)
            message = each.packet[ICMP]
            assert (message.type, message.code) == (3, 3)
            if each.to == OUTSIDE:
                src, dst = endpoints(IP(each.data[28:]))
                assert held[src, dst] <= self.fast.now, f"{each} is told too early"

    def _way_back(self, arrived: Delivery, segment: Segment) -> tuple[bool, bool]:
        """Whether a flow leads back from where a packet arrived, so that an error about it does; and whether to its sender."""
        src, dst = endpoints(arrived.packet)
        if arrived.to == OUTSIDE:
            if segment.protocol == "icmp":
                dst = (dst[0], 0)
            flow = self._flow(segment.protocol, external=src, remote=dst)
            if flow is None or (segment.protocol == "icmp" and segment.event != "ask"):
                return False, False
            return True, flow.internal == segment.src
        if segment.protocol == "icmp":
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

    def _known(self, number: int) -> Any:
        flows = list(self.model.flows.values())
        return flows[number % len(flows)]

    def _inside(self, host: int, port: int, protocol: str = "udp") -> Endpoint:
        if protocol in _WITHOUT_PORTS:
            return list(self.names)[host % len(self.names)], 0
        return list(self.names)[host % len(self.names)], self.internal_ports[port % len(self.internal_ports)]

    def _far(self, remote: int, protocol: str) -> Endpoint:
        own = [mapping.external for mapping in self.model.mappings() if mapping.protocol == protocol][:2]
        ends = [*self.remotes, *own, (self.external[0], 8080)]
        address, port = ends[remote % len(ends)]
        return address, 0 if protocol in ("icmp", *_WITHOUT_PORTS) else port

    def _packet(self, src: Endpoint, dst: Endpoint, protocol: str, flags: str, ttl: int, payload: bytes,
                kind: int = 8) -> Packet:
        self.sent += 1
        ip = IP(src=src[0], dst=dst[0], ttl=ttl, id=self.sent)
        if protocol == "icmp":
            layer = ICMP(type=kind, id=src[1] if src[0] in self.names else dst[1], seq=self.sent)
        elif protocol in _NUMBERS:
            return IP(bytes(_other(ip, protocol, src[1], dst[1], payload)))
        elif protocol == "tcp":
            layer = TCP(sport=src[1], dport=dst[1], flags=flags, seq=self.sent)
        else:
            layer = UDP(sport=src[1], dport=dst[1])
        return IP(bytes(ip / layer / Raw(payload)))

    def _allocated(self, protocol: str, internal: Endpoint, remote: Endpoint) -> Endpoint | None:
        for record in self.fast.flows():
            if ends_of(record)[:2] == (protocol, internal) and ends_of(record)[3] == remote and record["mapping"] is not None:
                external: Endpoint = ends_of(record)[2]
                return external
        return None

    @staticmethod
    def _overloads(nat: NatConfig) -> bool:
        return nat.udp.overload or nat.tcp.overload

    @staticmethod
    def _stable(nat: NatConfig) -> set[str]:
        """The protocols whose mappings are endpoint-independent."""
        return {"icmp"} | {name for name, behaviour in (("udp", nat.udp), ("tcp", nat.tcp))
                           if behaviour.mapping is Dependence.ENDPOINT_INDEPENDENT}


def ends_of(record: Mapping[str, Any]) -> tuple[str, Endpoint, Endpoint, Endpoint]:
    """Protocol, internal, external and remote endpoint of a flow's record. An ICMP query's remote endpoint has port 0."""
    original, reply = record["original"], record["reply"]
    src, dst = (original["src"], original["sport"]), (original["dst"], original["dport"])
    if record["kind"] == "outbound":
        internal, external, remote = src, (reply["dst"], reply["dport"]), dst
    else:
        internal, external, remote = (reply["src"], reply["sport"]), dst, src
    if record["protocol"] == "icmp":
        remote = (remote[0], 0)
    return record["protocol"], internal, external, remote


def endpoints(packet: Packet) -> tuple[Endpoint, Endpoint]:
    """Source and destination of a packet; an ICMP query has its identifier as both ports."""
    layer = packet[IP].payload
    if layer.name in ("ICMP", "ICMP in ICMP"):
        return (packet.src, layer.id), (packet.dst, layer.id)
    if packet.proto in _NUMBERS.values():
        body = bytes(layer)
        ports = [int.from_bytes(body[at : at + 2], "big") if packet.proto in (UDPLITE, SCTP) else 0 for at in (0, 2)]
        return (packet.src, ports[0]), (packet.dst, ports[1])
    return (packet.src, layer.sport), (packet.dst, layer.dport)


def _other(ip: Packet, protocol: str, sport: int, dport: int, payload: bytes) -> Packet:
    """A packet of a protocol that scapy's own layers are not needed for; with 8 bytes at least, so that errors quote it."""
    ip.proto = _NUMBERS[protocol]
    if protocol == "udplite":
        header = struct.pack("!HHHH", sport, dport, 8, 0)
        pseudo = pseudo_sum(bytes(ip)[12:20], UDPLITE, len(header + payload))
        value = checksum(pseudo.to_bytes(2, "big"), header) or 0xFFFF
        return ip / Raw(header[:6] + value.to_bytes(2, "big") + payload)
    if protocol == "sctp":
        message = bytearray(struct.pack("!HHII", sport, dport, 7, 0) + payload)
        finish_sctp_checksum(message, 0, len(message))
        return ip / Raw(bytes(message))
    return ip / Raw(bytes(8) + payload)


def carried(packet: Packet | bytes) -> bytes:
    """What a packet carries behind its transport header, or behind the IP header where that has all there is."""
    data = bytes(packet)
    header = (data[0] & 15) * 4
    sizes = {UDPLITE: 8, SCTP: 12}
    return data[header + sizes.get(data[9], 0) :] if data[9] in _NUMBERS.values() else payload_of(data)


def shown(outcome: Arrives, packet: Packet) -> tuple[Endpoint, Endpoint]:
    """The endpoints a packet has to arrive with: of an ICMP query's, the identifier is of the one that has a port."""
    if ICMP not in packet:
        return outcome.src, outcome.dst
    identifier = outcome.src[1] or outcome.dst[1]
    return (outcome.src[0], identifier), (outcome.dst[0], identifier)


def check_machine(machine: type[GatewayMachine], *, at_least: Mapping[str, int] = AT_LEAST,
                  settings: settings | None = None) -> None:
    """Run a machine, and fail as well if too few cases reached what is to be tested."""
    machine.reached.clear()
    run_state_machine_as_test(machine, settings=settings)
    short = {name: machine.reached[name] for name, wanted in at_least.items() if machine.reached[name] < wanted}
    assert not short, f"too few cases to say anything: {short} of at least {dict(at_least)}"
