"""What a NAT has to do, in dictionaries, slowly and obviously: the reference that natgw is compared with.

It shares no code with natgw.datapath but the configuration's words. A packet is a `Segment`; the answer to one is where it
arrives and with which endpoints, or that it is dropped. Which external port a new mapping gets is for the gateway to
choose: the model asks for it by `allocated` after the gateway has chosen, and judges the choice.

Everything here walks whole dictionaries. It is meant to be read beside RFC 4787, 5382 and 5508. NAT66 has the same rules, of
other addresses and in ICMPv6's words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from natgw.datapath.behaviour import Dependence
from natgw.testing.modelstate import TICK_S, ModelState
from natgw.testing.modelwords import (
    FIRST_UNPRIVILEGED,
    IDLE,
    OTHER,
    QUERIES,
    STREAM_AFTER_S,
    TCP_STATES,
    TOLD,
    WITH_PORTS,
    Answered,
    Arrives,
    Disagreement,
    Dropped,
    Endpoint,
    ModelFlow,
    ModelMapping,
    Outcome,
    Segment,
)

__all__ = ["FIRST_UNPRIVILEGED", "IDLE", "OTHER", "QUERIES", "STREAM_AFTER_S", "TCP_STATES", "TICK_S", "TOLD", "WITH_PORTS",
           "Answered", "Arrives", "Disagreement", "Dropped", "Endpoint", "ModelFlow", "ModelMapping", "NatModel", "Outcome",
           "Segment"]


@dataclass
class NatModel(ModelState):
    """One gateway and one IP version: `inside` are the containers' addresses, `external` the gateway's own.

    `published` is (protocol, port outside) to the endpoint inside. `allocated(protocol, internal, remote)` tells the
    external endpoint that the gateway has just given to an internal one towards a remote one, or None.
    """

    # -- from inside -------------------------------------------------------------------------------------------------------

    def from_inside(self, packet: Segment) -> Outcome:
        """A packet of a container to the gateway, to anywhere but the containers' own network."""
        if packet.dst[0] in self.external:
            if packet.protocol not in WITH_PORTS:
                return Dropped("the host's own")
            if packet.protocol in QUERIES:
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
        if packet.protocol in QUERIES and flow is not None and packet.event != "ask":
            flow = None
        if flow is None:
            begun = self._begin_outward(packet)
            if isinstance(begun, Dropped):
                return begun
            flow = begun
        if packet.ttl <= 1:
            return Dropped.telling("ttl", packet)
        if not self._passes(flow, packet, outward=True):
            return Dropped("tcp state")
        return Arrives("outside", flow.external, flow.remote, flow.number)

    def _begin_outward(self, packet: Segment) -> ModelFlow | Dropped:
        if packet.protocol in QUERIES and packet.event != "ask":
            return Dropped("no query")
        if packet.ttl <= 1:
            return Dropped.telling("ttl", packet)
        if packet.protocol == "tcp":
            for (protocol, port), target in self.published.items():
                if protocol == "tcp" and target == packet.src and packet.event not in ("syn", "synack"):
                    return self._resume_published(packet, port)
            if packet.event not in TCP_STATES["new"][0] or (packet.event == "ack" and not self.nat.pick_up):
                return Dropped("tcp state")
        mapping = self._mapping_for(packet)
        if mapping is None:
            return Dropped.telling("no port", packet)
        if packet.protocol == "tcp":
            self.held.pop((packet.dst, mapping.external), None)
        return self._begin(packet.protocol, packet.src, mapping.external, packet.dst, "outbound", mapping)

    def _resume_published(self, packet: Segment, port: int) -> ModelFlow | Dropped:
        if packet.event != "ack" or not self.nat.pick_up:
            return Dropped("tcp state")
        external = (self._usual_address(packet.dst[0]), port)
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

    # -- from outside ------------------------------------------------------------------------------------------------------

    def from_outside(self, packet: Segment) -> Outcome:
        """A packet to one of the gateway's addresses."""
        flow = self._flow(packet.protocol, external=packet.dst, remote=packet.src)
        if packet.protocol in QUERIES:
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
            return Dropped.telling("ttl", packet)
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
            return Dropped.telling("ttl", packet)
        if packet.protocol == "tcp" and (packet.event not in TCP_STATES["new"][0]
                                         or (packet.event == "ack" and not self.nat.pick_up)):
            return Dropped("tcp state")
        if self._flow(packet.protocol, internal=target, remote=packet.src) is not None:
            # Towards this remote the endpoint is already known by another external one.
            if mapping is None or packet.protocol in ("tcp", "sctp"):
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
        elif flow.protocol not in ("udp", *QUERIES) and not flow.answered and not original:
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
