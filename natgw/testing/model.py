"""What a NAT has to do, in dictionaries, slowly and obviously: the reference that natgw is compared with.

It shares no code with natgw.datapath but the configuration's words. A packet is a `Segment`; the answer to one is where it
arrives and with which endpoints, or that it is dropped. Which external port a new mapping gets is for the gateway to
choose: the model asks for it by `allocated` after the gateway has chosen, and judges the choice.

Everything here walks whole dictionaries. It is meant to be read beside RFC 4787, 5382 and 5508.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from natgw.datapath.behaviour import Dependence, NatBehaviour, NatConfig

Endpoint = tuple[str, int]
WITH_PORTS = ("udp", "tcp", "icmp", "udplite", "sctp")
IDLE = {"udp": ("udp_s", "udp_stream_s"), "icmp": ("icmp_s", "icmp_s"), "udplite": ("udplite_s", "udplite_stream_s"),
        "sctp": ("sctp_init_s", "sctp_established_s"), "gre": ("gre_s", "gre_stream_s")}
"""The timeouts of a conversation that has not been answered, and of one that has; TCP has one for each state."""
OTHER = ("other_s", "other_s")
FIRST_UNPRIVILEGED = 1024
STREAM_AFTER_S = 2.0
TICK_S = 1.0


@dataclass(frozen=True)
class Segment:
    """What of a packet a NAT looks at. `protocol` is "udp", "tcp", "icmp", "udplite", "sctp"; "gre" and numbers have no ports.

    An ICMP query's identifier is the port of the end that is behind the NAT, and the other end's port is 0. Where there are no
    ports, both are 0.
    `event` is what a TCP segment says: "syn", "synack", "ack", "fin", "rst", or "" for flags no TCP sends; for ICMP it is
    "ask" or "answer".
    """

    protocol: str
    src: Endpoint
    dst: Endpoint
    event: str = ""
    ttl: int = 64


@dataclass(frozen=True)
class Arrives:
    """The packet arrives: `to` is "outside" or a container's address."""

    to: str
    src: Endpoint
    dst: Endpoint
    flow: int = -1


@dataclass(frozen=True)
class Dropped:
    """Nothing arrives, but perhaps an ICMP error (type, code) at the sender: gateways may send fewer than they might."""

    why: str
    error: tuple[int, int] | None = None


@dataclass(frozen=True)
class Answered:
    """The gateway itself answers a ping."""


Outcome = Arrives | Dropped | Answered


@dataclass
class ModelMapping:
    protocol: str
    internal: Endpoint
    external: Endpoint
    scope: tuple[object, ...]
    shared: bool


@dataclass
class ModelFlow:
    """One conversation, by its three endpoints: `internal` is seen as `external` by `remote`."""

    number: int
    protocol: str
    internal: Endpoint
    external: Endpoint
    remote: Endpoint
    kind: str
    mapping: ModelMapping | None
    state: str
    timeout_s: float
    created: float
    last_out: float
    last_in: float
    answered: bool = False
    waits_to_stream: bool = False

    @property
    def began_inside(self) -> bool:
        return self.kind == "outbound"


# What a TCP segment does to a conversation, as `state: event of the side that began > next, ...; of the other side > next`.
_TCP = {
    "new": ("syn>syn_sent ack>established", ""),
    "syn_sent": ("syn>syn_sent rst>close", "syn>syn_sent2 synack>syn_recv ack>syn_sent rst>close"),
    "syn_sent2": ("syn>syn_sent2 synack>syn_recv rst>close", "syn>syn_sent2 synack>syn_recv ack>syn_sent2 rst>close"),
    "syn_recv": ("syn>syn_recv synack>syn_recv ack>established fin>fin_wait rst>close",
                 "synack>syn_recv ack>syn_recv fin>fin_wait rst>close"),
    "established": ("syn>established ack>established fin>fin_wait rst>close",
                    "synack>established ack>established fin>fin_wait rst>close"),
    "fin_wait": ("syn>fin_wait ack>close_wait fin>last_ack rst>close", "synack>fin_wait ack>close_wait fin>last_ack rst>close"),
    "close_wait": ("syn>close_wait ack>close_wait fin>last_ack rst>close",
                   "synack>close_wait ack>close_wait fin>last_ack rst>close"),
    "last_ack": ("syn>last_ack ack>time_wait fin>last_ack rst>close", "synack>last_ack ack>time_wait fin>last_ack rst>close"),
    "time_wait": ("syn>syn_sent ack>time_wait fin>time_wait rst>close",
                  "synack>time_wait ack>time_wait fin>time_wait rst>close"),
    "close": ("syn>syn_sent ack>established fin>close rst>close", "synack>close ack>established fin>close rst>close"),
}
TCP_STATES = {state: tuple(dict(rule.split(">") for rule in side.split()) for side in sides) for state, sides in _TCP.items()}


class Disagreement(AssertionError):
    """The gateway chose what it may not choose."""


@dataclass
class NatModel:
    """One gateway: `inside` are the containers' addresses, `external` the gateway's own.

    `published` is (protocol, port outside) to the endpoint inside. `allocated(protocol, internal, remote)` tells the
    external endpoint that the gateway has just given to an internal one towards a remote one, or None.
    """

    nat: NatConfig
    inside: set[str]
    external: list[str]
    port_range: tuple[int, int]
    allocated: Callable[[str, Endpoint, Endpoint], Endpoint | None]
    published: Mapping[tuple[str, int], Endpoint] = field(default_factory=dict)
    now: float = 0.0
    own_policy: bool = False
    """Whether the port policy is a user's own, which may leave ports unused for reasons of its own."""
    flows: dict[int, ModelFlow] = field(default_factory=dict)
    held: dict[tuple[Endpoint, Endpoint], float] = field(default_factory=dict)
    resting: list[tuple[str, Endpoint, str, float, float]] = field(default_factory=list)
    """Protocol, external endpoint, the host that had it, and from when and until when it may still rest."""
    slack_s: float = TICK_S
    _numbers: int = 0

    # -- time --------------------------------------------------------------------------------------------------------------

    def advance(self, now: float, tick_s: float) -> None:
        """The clock was turned, with ticks at least every `tick_s`. It may not stand where something is just ending."""
        self.now = now
        # In the order in which they ended: a mapping's port rests from the end of its last flow on.
        for number, flow in sorted(self.flows.items(), key=lambda item: self.deadline(item[1])):
            if self.deadline(flow) <= now:
                del self.flows[number]
                self._rest(flow, tick_s)
        self.held = {key: until for key, until in self.held.items() if until > now}

    def deadline(self, flow: ModelFlow) -> float:
        """When a flow ends if nothing else comes (RFC 4787 REQ-5 and REQ-6)."""
        last = max(flow.last_in, flow.last_out)
        if flow.protocol == "udp" and not self.nat.refresh_inbound:
            last = flow.last_out
        return last + flow.timeout_s

    def is_ending(self) -> bool:
        """Whether a flow is idle for its time, but by less than the second that a gateway may take to see it."""
        return any(self.deadline(flow) <= self.now < self.deadline(flow) + 2 * TICK_S for flow in self.flows.values())

    def _rest(self, flow: ModelFlow, tick_s: float) -> None:
        mapping = flow.mapping
        if mapping is None or mapping.shared or self._uses(mapping) or not self.nat.port_rest_s:
            return
        ended = self.deadline(flow)
        self.resting.append((flow.protocol, mapping.external, mapping.internal[0], ended + self.nat.port_rest_s,
                             ended + self.nat.port_rest_s + tick_s + 2 * TICK_S))

    def _uses(self, mapping: ModelMapping) -> list[ModelFlow]:
        return [flow for flow in self.flows.values() if flow.mapping is mapping]

    # -- lookups -----------------------------------------------------------------------------------------------------------

    def mappings(self) -> list[ModelMapping]:
        """Those that live: a mapping lives as long as a flow that uses it."""
        found: list[ModelMapping] = []
        for flow in self.flows.values():
            if flow.mapping is not None and flow.mapping not in found:
                found.append(flow.mapping)
        return found

    def _flow(self, protocol: str, **endpoints: Endpoint) -> ModelFlow | None:
        for flow in self.flows.values():
            if flow.protocol == protocol and all(getattr(flow, name) == value for name, value in endpoints.items()):
                return flow
        return None

    def _behaviour(self, protocol: str) -> NatBehaviour:
        if protocol not in WITH_PORTS:  # one flow between two addresses, whoever it is that begins
            strict = Dependence.ADDRESS_AND_PORT_DEPENDENT
            return NatBehaviour(mapping=strict, filtering=strict, overload=True)
        return {"udp": self.nat.udp, "udplite": self.nat.udp, "tcp": self.nat.tcp, "sctp": self.nat.tcp}.get(
            protocol, NatBehaviour())

    # -- from inside -------------------------------------------------------------------------------------------------------

    def from_inside(self, packet: Segment) -> Outcome:
        """A packet of a container to the gateway, to anywhere but the containers' own network."""
        if packet.dst[0] in self.external:
            if packet.protocol not in WITH_PORTS:
                return Dropped("the host's own")
            if packet.protocol == "icmp":
                return Answered() if packet.event == "ask" else Dropped("no query")
            if not self.nat.hairpin and (packet.protocol, packet.dst[1]) not in self.published:
                return Dropped("no hairpin")
        went = self._outward(packet)
        if isinstance(went, Arrives) and went.dst[0] in self.external:
            # Out and in again, by RFC 4787 REQ-9: what comes in is judged like anything from outside.
            return self.from_outside(replace(packet, src=went.src, dst=went.dst, ttl=packet.ttl))
        return went

    def _outward(self, packet: Segment) -> Outcome:
        flow = self._flow(packet.protocol, internal=packet.src, remote=packet.dst)
        if packet.protocol == "icmp" and flow is not None and packet.event != "ask":
            flow = None
        if flow is None:
            begun = self._begin_outward(packet)
            if isinstance(begun, Dropped):
                return begun
            flow = begun
        if packet.ttl <= 1:
            return Dropped("ttl", (11, 0))
        if not self._passes(flow, packet, outward=True):
            return Dropped("tcp state")
        return Arrives("outside", flow.external, flow.remote, flow.number)

    def _begin_outward(self, packet: Segment) -> ModelFlow | Dropped:
        if packet.protocol == "icmp" and packet.event != "ask":
            return Dropped("no query")
        if packet.ttl <= 1:
            return Dropped("ttl", (11, 0))
        if packet.protocol == "tcp":
            for (protocol, port), target in self.published.items():
                if protocol == "tcp" and target == packet.src and packet.event not in ("syn", "synack"):
                    return self._resume_published(packet, port)
            if packet.event not in TCP_STATES["new"][0] or (packet.event == "ack" and not self.nat.pick_up):
                return Dropped("tcp state")
        mapping = self._mapping_for(packet)
        if mapping is None:
            return Dropped("no port", (3, 13))
        if packet.protocol == "tcp":
            self.held.pop((packet.dst, mapping.external), None)
        return self._begin(packet.protocol, packet.src, mapping.external, packet.dst, "outbound", mapping)

    def _resume_published(self, packet: Segment, port: int) -> ModelFlow | Dropped:
        if packet.event != "ack":
            return Dropped("tcp state")
        external = (self.external[0], port)
        if self._flow("tcp", external=external, remote=packet.dst):
            return Dropped("taken")
        flow = self._begin("tcp", packet.src, external, packet.dst, "published", None)
        flow.state = "established"
        flow.timeout_s = self.nat.timeouts.tcp_established_s
        return flow

    def _mapping_for(self, packet: Segment) -> ModelMapping | None:
        behaviour = self._behaviour(packet.protocol)
        scope: tuple[object, ...] = {
            Dependence.ENDPOINT_INDEPENDENT: (), Dependence.ADDRESS_DEPENDENT: packet.dst[:1],
            Dependence.ADDRESS_AND_PORT_DEPENDENT: packet.dst}[behaviour.mapping]
        live = self.mappings()
        for mapping in live:
            if (mapping.protocol, mapping.internal, mapping.scope) == (packet.protocol, packet.src, scope):
                return mapping
        host_has = sum(mapping.internal[0] == packet.src[0] for mapping in live)
        if self.nat.ports_per_host and host_has >= self.nat.ports_per_host:
            return None
        external = self.allocated(packet.protocol, packet.src, packet.dst)
        self._judge(packet, behaviour, external)
        if external is None:
            return None
        self.resting = [entry for entry in self.resting if entry[:2] != (packet.protocol, external)]
        return ModelMapping(packet.protocol, packet.src, external, scope, behaviour.overload)

    # -- allocation --------------------------------------------------------------------------------------------------------

    def _judge(self, packet: Segment, behaviour: NatBehaviour, external: Endpoint | None) -> None:
        """Raises Disagreement if the gateway gave what it may not give, or nothing although it could."""
        addresses = self._addresses_for(packet)
        if external is not None:
            if external[0] not in addresses:
                raise Disagreement(f"{packet.src} was given address {external[0]}, not one of {addresses}")
            if external[1] not in self._ports_for(packet):
                raise Disagreement(f"{packet.src} was given port {external[1]}, which is outside of what it may have")
            if not self._may_take(packet, behaviour, external, surely=False):
                raise Disagreement(f"{packet.src} was given {external}, which somebody else has")
        elif not self.own_policy:
            free = [(address, port) for address in addresses for port in self._ports_for(packet)
                    if self._may_take(packet, behaviour, (address, port), surely=True)]
            if free:
                raise Disagreement(f"{packet.src} was given nothing, though {free[0]} is free")

    def _addresses_for(self, packet: Segment) -> list[str]:
        chosen = [str(address) for address in self.nat.external_addresses if str(address) in self.external]
        if not chosen:
            return [packet.dst[0] if packet.dst[0] in self.external else self.external[0]]
        if self.nat.paired:
            return [chosen[int.from_bytes(bytes(map(int, packet.src[0].split("."))), "big") % len(chosen)]]
        return chosen

    def _ports_for(self, packet: Segment) -> range:
        """RFC 4787 REQ-3: below 1024 stays below, and others above, where the range has such ports."""
        if packet.protocol not in WITH_PORTS:
            return range(1)
        low, high = (0, 65535) if packet.protocol == "icmp" else self.port_range
        if self.own_policy or self._behaviour(packet.protocol).overload:
            return range(low, high + 1)
        if self.nat.port_rest_s and low <= packet.src[1] <= high:
            return range(low, high + 1)  # its own port, if it rests, is given back whatever its class
        lower, upper = range(low, min(high, FIRST_UNPRIVILEGED - 1) + 1), range(max(low, FIRST_UNPRIVILEGED), high + 1)
        first = lower or upper if packet.src[1] < FIRST_UNPRIVILEGED else upper or lower
        if self.nat.allocation == "preserve" and packet.src[1] in range(low, high + 1):
            return first if packet.src[1] in first else range(low, high + 1)
        return first

    def _may_take(self, packet: Segment, behaviour: NatBehaviour, external: Endpoint, *, surely: bool) -> bool:
        if (packet.protocol, external[1]) in self.published:
            return False
        for mapping in self.mappings():
            if (mapping.protocol, mapping.external) == (packet.protocol, external):
                # Overloaded, a port serves several as long as they talk to different remote endpoints.
                if not (behaviour.overload and mapping.shared) or self._flow(
                        packet.protocol, external=external, remote=packet.dst) is not None:
                    return False
        for protocol, endpoint, host, earliest, latest in self.resting:
            if (protocol, endpoint) == (packet.protocol, external):
                if surely and self.now < latest:
                    return False
                if self.now < earliest and (host, external[1]) != packet.src:
                    return False
        return True

    # -- from outside ------------------------------------------------------------------------------------------------------

    def from_outside(self, packet: Segment) -> Outcome:
        """A packet to one of the gateway's addresses."""
        flow = self._flow(packet.protocol, external=packet.dst, remote=packet.src)
        if packet.protocol == "icmp":
            if flow is None or packet.event != "answer":
                return Answered() if packet.event == "ask" else Dropped("no flow")
        if flow is None:
            if packet.protocol not in WITH_PORTS:
                return Dropped("no flow")
            begun = self._begin_inward(packet)
            if not isinstance(begun, ModelFlow):
                return begun
            flow = begun
        if packet.ttl <= 1:
            return Dropped("ttl", (11, 0))
        if not self._passes(flow, packet, outward=False):
            return Dropped("tcp state")
        return Arrives(flow.internal[0], flow.remote, flow.internal, flow.number)

    def _begin_inward(self, packet: Segment) -> ModelFlow | Outcome:
        target = self.published.get((packet.protocol, packet.dst[1]))
        mapping = None if target is not None else self._admitting(packet)
        if mapping is not None:
            target = mapping.internal
        if target is None:
            if packet.event == "syn" and self.nat.hold_syn_s:
                self.held.setdefault((packet.src, packet.dst), self.now + self.nat.hold_syn_s)
            return Dropped("filtered")
        if packet.ttl <= 1:
            return Dropped("ttl", (11, 0))
        if packet.protocol == "tcp" and (packet.event not in TCP_STATES["new"][0]
                                         or (packet.event == "ack" and not self.nat.pick_up)):
            return Dropped("tcp state")
        if self._flow(packet.protocol, internal=target, remote=packet.src) is not None:
            # Towards this remote the endpoint is already known by another external one.
            if mapping is None or packet.protocol == "tcp":
                return Dropped("taken")
            return Arrives(target[0], packet.src, target)
        kind = "published" if mapping is None else "inbound"
        return self._begin(packet.protocol, target, packet.dst, packet.src, kind, mapping)

    def _admitting(self, packet: Segment) -> ModelMapping | None:
        """The mapping that lets a packet in that belongs to no flow (RFC 4787 section 5)."""
        if packet.protocol == "tcp" and packet.event != "syn":
            return None
        filtering = self._behaviour(packet.protocol).filtering
        for mapping in self.mappings():
            if (mapping.protocol, mapping.external) != (packet.protocol, packet.dst) or mapping.shared:
                continue
            met = [flow.remote[0] for flow in self.flows.values() if flow.began_inside
                   and (flow.protocol, flow.external) == (packet.protocol, packet.dst)]
            if filtering is Dependence.ENDPOINT_INDEPENDENT or (
                    filtering is Dependence.ADDRESS_DEPENDENT and packet.src[0] in met):
                return mapping
        return None

    # -- flows -------------------------------------------------------------------------------------------------------------

    def _begin(self, protocol: str, internal: Endpoint, external: Endpoint, remote: Endpoint, kind: str,
               mapping: ModelMapping | None) -> ModelFlow:
        timeouts = self.nat.timeouts
        idle = 0.0 if protocol == "tcp" else getattr(timeouts, IDLE.get(protocol, OTHER)[0])
        self._numbers += 1
        flow = ModelFlow(self._numbers, protocol, internal, external, remote, kind, mapping, "new", idle, self.now, self.now,
                         self.now, waits_to_stream=protocol == "udp" and timeouts.udp_s != timeouts.udp_stream_s)
        self.flows[flow.number] = flow
        return flow

    def _passes(self, flow: ModelFlow, packet: Segment, *, outward: bool) -> bool:
        """Note a packet on its flow; False if its TCP cannot say that now."""
        original = outward == flow.began_inside
        if flow.protocol == "tcp":
            state = TCP_STATES[flow.state][0 if original else 1].get(packet.event)
            if state is None:
                return False
            if state != flow.state:
                flow.state = state
                flow.timeout_s = getattr(self.nat.timeouts, f"tcp_{'syn_sent' if state == 'syn_sent2' else state}_s")
        elif flow.waits_to_stream and flow.answered and self.now - flow.created >= STREAM_AFTER_S:
            flow.waits_to_stream = False
            flow.timeout_s = self.nat.timeouts.udp_stream_s
        elif flow.protocol not in ("udp", "icmp") and not flow.answered and not original:
            flow.timeout_s = getattr(self.nat.timeouts, IDLE.get(flow.protocol, OTHER)[1])
        flow.answered = flow.answered or not original
        if outward:
            flow.last_out = self.now
        else:
            flow.last_in = self.now
        return True

    # -- errors ------------------------------------------------------------------------------------------------------------

    def error_from_outside(self, protocol: str, external: Endpoint, remote: Endpoint) -> Endpoint | None:
        """Who sent what was seen outside from `external` to `remote`, and so gets an error about it (RFC 5508 REQ-3)."""
        flow = self._flow(protocol, external=external, remote=remote)
        return None if flow is None else flow.internal
