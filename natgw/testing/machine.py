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

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test

from natgw.datapath import Dependence, NatConfig
from natgw.tables.flowtable import MAX_AWAKE
from natgw.testing.assertions import assert_checksums, summary
from natgw.testing.gateway import OUTSIDE, Delivery, SimulatedGateway
from natgw.testing.model import QUERIES, Arrives, Endpoint, NatModel, Segment
from natgw.testing.packets import QUOTED, WITHOUT_PORTS, carried, endpoints, error_of, fragments_of, joined, transport_of
from natgw.testing.sidebyside import SideBySide, ends_of, shown
from natgw.testing.strategies import ICMP_ERROR_TYPES, ICMPV6_ERROR_TYPES, TCP_FLAGS, nat_configs

__all__ = ["AT_LEAST", "GatewayMachine", "GatewayMachine6", "carried", "check_machine", "endpoints", "ends_of", "shown"]

AT_LEAST = {"arrived": 500, "came back": 100, "refused": 20, "filtered": 100, "expired": 50, "hairpin": 10, "errors": 20,
            "fragments": 20, "reconfigured": 50, "other protocols": 100}
"""For a few hundred sequences; `check_machine` takes other numbers."""

_protocols = st.sampled_from(("udp", "udp", "udp", "tcp", "tcp", "icmp", "icmp", "udplite", "sctp", "gre", "50"))
_flags = st.sampled_from(("S", "S", "SA", "A", "A", *TCP_FLAGS))
_ttls = st.sampled_from((1, 2, 64, 64, 64, 64, 64, 64))
_payloads = st.binary(max_size=30)
_any = st.integers(0, 999)
_seconds = st.sampled_from((1, 1, 2, 3, 8, 31, 65, 121, 301, 7441))


class GatewayMachine(SideBySide):
    """Few hosts, few ports, so that everything gets in everybody's way."""

    configurations: ClassVar[st.SearchStrategy[NatConfig]] = nat_configs(external=("198.51.100.2", "198.51.100.3"))
    containers: ClassVar[int] = 3
    internal_ports: ClassVar[Sequence[int]] = (80, 5000, 5001, 5002, 53)
    remotes: ClassVar[Sequence[Endpoint]] = (("203.0.113.1", 53), ("203.0.113.1", 54), ("203.0.113.2", 53), ("192.0.2.9", 5000))
    external: ClassVar[Sequence[str]] = ("198.51.100.2", "198.51.100.3")
    """The gateway's addresses: all of one IP version, which is the one that is tested."""
    router: ClassVar[str] = "192.0.2.77"
    """Somebody on the way to all remotes."""
    port_range: ClassVar[tuple[int, int]] = (5000, 5003)
    publish: ClassVar[Sequence[tuple[str, str]]] = (("c1", "8080:80"), ("c2", "5003:53/udp"))
    max_awake_flows: ClassVar[int] = MAX_AWAKE
    """With few of them flows go to rest and wake up again all the time."""
    own_policy: ClassVar[bool] = False
    """Whether the port policy is one of your own, which may refuse although a port is free."""

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        nat = data.draw(self.configurations, label="nat")
        self.fast, self.slow = (
            SimulatedGateway(nat, containers=self.containers, publish=self.publish, external=self.external, seed=1,
                             fast_path=fast, port_range=self.port_range,
                             max_awake_flows=self.max_awake_flows) for fast in (True, False))
        containers = self.fast.containers6 if self._version == 6 else self.fast.containers
        self.names = {address: name for name, address in containers.items()}
        published: dict[tuple[str, int], Endpoint] = {
            (each.protocol, each.host_port): (str(each.container_ip), each.container_port)
            for each in self.fast.publications if each.container_ip.version == self._version}
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
        protocol = self._named(protocol)
        src = self._inside(host, port, protocol)
        self._outward(src, self._far(remote, protocol), protocol, flags, ttl, payload)

    @rule(host=_any, remote=_any, protocol=_protocols)
    def burst(self, host: int, remote: int, protocol: str) -> None:
        """A container sends from all of its ports at once: there are more of them than of ports outside."""
        protocol = self._named(protocol)
        for port in range(len(self.internal_ports)):
            self._outward(self._inside(host, port, protocol), self._far(remote, protocol), protocol, "S", 64, b"")

    @precondition(lambda self: self.model.flows)
    @rule(flow=_any, flags=_flags, payload=_payloads, ttl=_ttls)
    def out_again(self, flow: int, flags: str, payload: bytes, ttl: int) -> None:
        """A container sends on a flow that there is."""
        known = self._known(flow)
        self._outward(known.internal, known.remote, known.protocol, flags, ttl, payload, asks=known.began_inside)

    @rule(remote=_any, where=_any, protocol=_protocols, flags=_flags, ttl=_ttls, payload=_payloads)
    def inward(self, remote: int, where: int, protocol: str, flags: str, ttl: int, payload: bytes) -> None:
        """Somebody outside sends to a port that may be a mapping's, published or nobody's."""
        protocol = self._named(protocol)
        ends = [(self.external[0], port) for port in (self.port_range[0], 8080, 5003, 4000)]
        ends += [mapping.external for mapping in self.model.mappings() for _ in range(3)]
        src, dst = self.remotes[remote % len(self.remotes)], ends[where % len(ends)]
        self._inward(src, dst, protocol, flags, ttl, payload, asks=True)

    @precondition(lambda self: self.model.flows)
    @rule(flow=_any, flags=_flags, payload=_payloads, ttl=_ttls)
    def answer(self, flow: int, flags: str, payload: bytes, ttl: int) -> None:
        """The remote end of a flow sends."""
        known = self._known(flow)
        if known.remote[0] not in self.external:
            self._inward(known.remote, known.external, known.protocol, flags, ttl, payload, asks=False)

    @precondition(lambda self: self.model.flows)
    @rule(flow=_any, remote=_any, flags=_flags, payload=_payloads, ttl=_ttls)
    def stranger(self, flow: int, remote: int, flags: str, payload: bytes, ttl: int) -> None:
        """Somebody outside, who may be another than its remote end, sends where the answers of a flow go."""
        known = self._known(flow)
        self._inward(self.remotes[remote % len(self.remotes)], known.external, known.protocol, flags, ttl, payload, asks=False)

    @rule(host=_any, port=_any, remote=_any)
    def crossing(self, host: int, port: int, remote: int) -> None:
        """A SYN comes to where a container's will be seen to come from, if it is, and then that one goes to where the first
        came from (RFC 5382 REQ-4)."""
        own, far = self._inside(host, port), self.remotes[remote % len(self.remotes)]
        seen = [each.external for each in self.model.mappings() if (each.protocol, each.internal) == ("tcp", own)]
        external = seen[0] if seen else (self.external[0], own[1])
        self._inward(far, external, "tcp", "S", 64, b"", asks=False)
        waited = (far, external) in self.model.held
        self._outward(own, far, "tcp", "S", 64, b"")
        self.reached["crossed SYNs"] += waited and (far, external) not in self.model.held

    @precondition(lambda self: self.crossed)
    @rule(which=_any, kind=_any, router=st.booleans(), whole=st.booleans())
    def icmp_error(self, which: int, kind: int, router: bool, whole: bool) -> None:
        """An ICMP error about a packet that crossed, from where it went or from a router on its way."""
        sender, original, arrived, segment = self.crossed[which % len(self.crossed)]
        kinds = ICMPV6_ERROR_TYPES if self._version == 6 else ICMP_ERROR_TYPES
        error = kinds[kind % len(kinds)]
        quoted = arrived.data if whole else arrived.data[: QUOTED[self._version]]
        if sender == OUTSIDE and arrived.to == OUTSIDE:
            return
        source = self.router if router and arrived.to == OUTSIDE else arrived.packet.dst
        message = error_of(source, arrived.packet.src, error, quoted)
        before = sorted(self._flow_records(), key=ends_of)
        found = self._exchange(arrived.to, bytes(message))
        assert sorted(self._flow_records(), key=ends_of) == before, "an ICMP error changed a flow (RFC 4787 REQ-10)"
        live, theirs = self._way_back(arrived, segment)
        if live and not theirs:
            return  # The flow has ended, and what it had outside is somebody else's by now, who gets the error.
        assert len(found) == (1 if live else 0), f"{summary(message)} about {summary(arrived.data)}: {found}, flow live: {live}"
        if live:
            self._check_error(found[0], message, sender, original[: len(quoted)])

    @rule(host=_any, port=_any, remote=_any, payload=st.binary(min_size=40, max_size=90),
          order=st.randoms(use_true_random=False))
    def fragmented(self, host: int, port: int, remote: int, payload: bytes, order: Any) -> None:
        """A datagram leaves in fragments, in any order: what arrives, put together, is what one datagram would have been."""
        src, dst = self._inside(host, port), self._far(remote, "udp")
        whole = self._packet(src, dst, "udp", "", 64, payload)
        pieces = fragments_of(whole, 24, self.sent)
        order.shuffle(pieces)
        found = [each for piece in pieces for each in self._exchange(self.names[src[0]], bytes(piece))]
        outcome = self.model.from_inside(Segment("udp", src, dst))
        if not isinstance(outcome, Arrives):
            self._check(outcome, found, self.names[src[0]], whole)
            return
        found.sort(key=lambda each: transport_of(each.data).fragment)
        offsets = [transport_of(each.data).fragment for each in found]
        assert offsets == sorted(transport_of(bytes(piece)).fragment for piece in pieces)
        together = Delivery(found[0].to, bytes(joined([each.packet for each in found])))
        assert_checksums(together.data)
        self._check(outcome, [together], self.names[src[0]], whole)
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
        records = self._flow_records()
        found = sorted((*ends_of(record), record["timeout_s"]) for record in records)
        assert found == expected, f"flows, with the seconds left: {found}; the model has {expected}"
        slow = self.slow.flows()
        assert records == slow, f"fast path: {records}; slow path: {slow}"

    @invariant()
    def no_two_share_an_external_endpoint(self) -> None:
        """Exclusivity, unless overload asked for the contrary (requirement U4)."""
        if not hasattr(self, "model") or self.overloads:
            return
        owner: dict[tuple[str, str], str] = {}
        for record in self._flow_records():
            if record["mapping"] is not None and record["protocol"] not in WITHOUT_PORTS:
                external, internal = record["mapping"]["external"], record["mapping"]["internal"]
                assert owner.setdefault((record["protocol"], external), internal) == internal, f"{external} is of two"

    @invariant()
    def one_endpoint_has_one_mapping(self) -> None:
        """Stability of endpoint-independent mapping (RFC 4787 REQ-1)."""
        if not hasattr(self, "model"):
            return
        seen: dict[tuple[str, str], str] = {}
        for record in self._flow_records():
            if record["mapping"] is not None and record["protocol"] in self.stable:
                external, internal = record["mapping"]["external"], record["mapping"]["internal"]
                assert seen.setdefault((record["protocol"], internal), external) == external, f"{internal} has two mappings"

    @staticmethod
    def _overloads(nat: NatConfig) -> bool:
        return nat.udp.overload or nat.tcp.overload

    @staticmethod
    def _stable(nat: NatConfig) -> set[str]:
        """The protocols whose mappings are endpoint-independent."""
        return {*QUERIES} | {name for name, behaviour in (("udp", nat.udp), ("tcp", nat.tcp))
                             if behaviour.mapping is Dependence.ENDPOINT_INDEPENDENT}


class GatewayMachine6(GatewayMachine):
    """The same with IPv6. One address outside is a private one, as one remote host's is, which goes with it unless the
    configuration has another."""

    configurations = nat_configs(external=("2001:db8:51::2", "fd00:51::2"))
    remotes = (("2001:db8:113::1", 53), ("2001:db8:113::1", 54), ("2001:db8:113::2", 53), ("fd00:113::9", 5000))
    external = ("2001:db8:51::2", "fd00:51::2")
    router = "2001:db8:77::1"


def check_machine(machine: type[GatewayMachine], *, at_least: Mapping[str, int] = AT_LEAST,
                  settings: settings | None = None) -> None:
    """Run a machine, and fail as well if too few cases reached what is to be tested."""
    machine.reached.clear()
    run_state_machine_as_test(machine, settings=settings)
    short = {name: machine.reached[name] for name, wanted in at_least.items() if machine.reached[name] < wanted}
    assert not short, f"too few cases to say anything: {short} of at least {dict(at_least)}"
