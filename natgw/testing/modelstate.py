"""What the model remembers, for how long, and which external endpoint a mapping may have (see `model`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from natgw.datapath.behaviour import Dependence, NatBehaviour, NatConfig
from natgw.testing.modelwords import (
    FIRST_UNPRIVILEGED,
    QUERIES,
    WITH_PORTS,
    Disagreement,
    Endpoint,
    ModelFlow,
    ModelMapping,
    Segment,
)

TICK_S = 1.0


@dataclass
class ModelState:
    """The state of a `NatModel`, which says what its fields are."""

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
            return [packet.dst[0] if packet.dst[0] in self.external else self._usual_address(packet.dst[0])]
        if self.nat.paired:
            return [chosen[int(ip_address(packet.src[0])) % len(chosen)]]
        return chosen

    def _usual_address(self, destination: str) -> str:
        """Where none is configured: the first one, or of IPv6 the one whose leading bits are the destination's for longest
        (RFC 6724 section 5, rule 8), so that those of a private network are met with a private one.
        """
        if ":" not in destination:
            return self.external[0]
        bits = f"{int(ip_address(destination)):0128b}"
        alike = [next((at for at, bit in enumerate(f"{int(ip_address(own)):0128b}") if bit != bits[at]), 128)
                 for own in self.external]
        return self.external[alike.index(max(alike))]

    def _ports_for(self, packet: Segment) -> range:
        """RFC 4787 REQ-3: below 1024 stays below, and others above, where the range has such ports."""
        if packet.protocol not in WITH_PORTS:
            return range(1)
        low, high = (0, 65535) if packet.protocol in QUERIES else self.port_range
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
