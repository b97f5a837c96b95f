"""The translator's decisions: which flow a packet belongs to, and which new flows may come to be (RFC 3022, 4787, 5382, 5508).

Mappings are endpoint-independent: an internal address and port keep one external address and port whatever they talk to.
Filtering is by flow: from outside, only what answers a packet from inside comes in, or what asks for a published port.

Here nothing is sent and nothing is rewritten; `walk` does that with the leg it gets.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from natgw.datapath import tcp_state
from natgw.datapath.config import DatapathConfig, Publication, Timeouts
from natgw.datapath.port import Port
from natgw.datapath.rewrite import prepare
from natgw.datapath.sides import Bridge, Uplink
from natgw.datapath.tcp_state import Direction, TcpState
from natgw.datapath.verdict import Extra, Verdict
from natgw.errors import Conflict, NotFound
from natgw.tables.flows import Flow, FlowTable, Leg, Mapping, Realm, leg_key
from natgw.tables.neigh import Neighbour
from natgw.tables.portpool import PortPool
from natgw.wire.ipv4 import ICMP, ICMP_QUERIES, PROTOCOL_NUMBERS, TCP, UDP, Ipv4Packet

TRANSLATED = frozenset((ICMP, TCP, UDP))

Endpoint = tuple[int, bytes, int]
"""Protocol, address, port."""


class Napt:
    """Flows, mappings, published ports and external port pools of one gateway."""

    def __init__(self, config: DatapathConfig, extras: list[int]) -> None:
        self.config = config
        self.extras = extras
        self.flows = FlowTable(config.max_flows, self._ended)
        self._rng = random.Random(config.seed)
        self._pools: dict[tuple[int, bytes], PortPool] = {}
        # By host address and port; the address is None for "every address of the uplink".
        self._published: dict[tuple[int, bytes | None, int], Publication] = {}
        self._published_from: dict[Endpoint, Publication] = {}

    # -- lookups ---------------------------------------------------------------------------------------------------

    def leg_of(self, realm: Realm, packet: Ipv4Packet) -> Leg | None:
        """The leg of a flow that exists, for a whole packet of a translated protocol that is no ICMP error."""
        leg = realm.of(packet.protocol).get(leg_key(packet.src, packet.dst, packet.sport, packet.dport))
        # An ICMP identifier says nothing of who asks and who answers, so the type must fit the direction.
        if leg is not None and packet.protocol == ICMP:
            asks = packet.icmp_type in ICMP_QUERIES
            if asks != (leg is leg.flow.original):
                return None
        return leg

    def publication_at(self, protocol: int, address: bytes, port: int) -> Publication | None:
        """The published port at an address of the host, if there is one."""
        return self._published.get((protocol, address, port)) or self._published.get((protocol, None, port))

    # -- what a packet does to its flow ------------------------------------------------------------------------------

    def advance(self, leg: Leg, packet: Ipv4Packet, now: float) -> bool:
        """Note a packet on its flow; False if TCP's state machine does not believe it."""
        flow = leg.flow
        if flow.protocol == TCP:
            event = tcp_state.event_of(packet.tcp_flags)
            direction = Direction.ORIGINAL if leg is flow.original else Direction.REPLY
            state = None if event is None else tcp_state.next_state(TcpState(flow.state), direction, event)
            if state is None:
                return False
            if state != flow.state:
                self._enter(flow, state, now)
        leg.last = now
        leg.packets += 1
        leg.bytes += packet.total_length
        return True

    def _enter(self, flow: Flow, state: TcpState, now: float) -> None:
        flow.state = state
        self.flows.set_timeout(flow, timeout_of(self.config.timeouts, TCP, state), now)
        fast = state in tcp_state.FAST_STATES
        for leg in (flow.original, flow.reply):
            leg.fast = verdict_of(leg) if fast else 0

    # -- new flows ---------------------------------------------------------------------------------------------------

    def outbound(self, packet: Ipv4Packet, bridge: Bridge, uplink: Uplink, hop: Neighbour[Port], inside: Neighbour[Port],
                 now: float) -> Leg | Verdict:
        """A flow that begins inside and leaves by `hop`; packets back go to `inside`."""
        published = self._published_from.get((packet.protocol, packet.src, packet.sport))
        if published is not None and packet.protocol == TCP and not packet.tcp_flags & tcp_state.SYN:
            return self._resume_published(packet, published, bridge, uplink, hop, inside, now)
        state = self._first_state(packet)
        if isinstance(state, Verdict):
            return state
        mapping = self._mapping(packet.protocol, packet.src, packet.sport, uplink.source_for(hop.ip))
        if isinstance(mapping, Verdict):
            return mapping
        address, port = mapping.external[:4], int.from_bytes(mapping.external[4:], "big")
        far_port = port if packet.protocol == ICMP else packet.dport
        original = Leg(leg_key(packet.src, packet.dst, packet.sport, packet.dport),
                       leg_key(address, packet.dst, port, far_port), bridge.realm, hop)
        reply = Leg(leg_key(packet.dst, address, far_port, port),
                    leg_key(packet.dst, packet.src, packet.dport, packet.sport), uplink.realm, inside)
        return self._add(Flow(packet.protocol, original, reply, mapping, bridge.name, "outbound"), state, now)

    def inbound(self, packet: Ipv4Packet, publication: Publication, bridge: Bridge, uplink: Uplink, inside: Neighbour[Port],
                hop: Neighbour[Port], now: float) -> Leg | Verdict:
        """A flow from outside to a published port; `inside` is the container's neighbour, `hop` the way back."""
        state = self._first_state(packet)
        if isinstance(state, Verdict):
            return state
        target = publication.container_ip.packed
        original = Leg(leg_key(packet.src, packet.dst, packet.sport, packet.dport),
                       leg_key(packet.src, target, packet.sport, publication.container_port), uplink.realm, inside)
        reply = Leg(leg_key(target, packet.src, publication.container_port, packet.sport),
                    leg_key(packet.dst, packet.src, packet.dport, packet.sport), bridge.realm, hop)
        return self._add(Flow(packet.protocol, original, reply, None, bridge.name, "published"), state, now)

    def hairpin(self, packet: Ipv4Packet, publication: Publication, bridge: Bridge, inside: Neighbour[Port],
                back: Neighbour[Port], now: float) -> Leg | Verdict:
        """A flow from a container to a published port of the host: the peer sees an external source (RFC 4787 REQ-9)."""
        state = self._first_state(packet)
        if isinstance(state, Verdict):
            return state
        mapping = self._mapping(packet.protocol, packet.src, packet.sport, packet.dst)
        if isinstance(mapping, Verdict):
            return mapping
        address, port = mapping.external[:4], int.from_bytes(mapping.external[4:], "big")
        target = publication.container_ip.packed
        original = Leg(leg_key(packet.src, packet.dst, packet.sport, packet.dport),
                       leg_key(address, target, port, publication.container_port), bridge.realm, inside)
        reply = Leg(leg_key(target, address, publication.container_port, port),
                    leg_key(packet.dst, packet.src, packet.dport, packet.sport), bridge.realm, back)
        return self._add(Flow(packet.protocol, original, reply, mapping, bridge.name, "hairpin"), state, now)

    def _resume_published(self, packet: Ipv4Packet, publication: Publication, bridge: Bridge, uplink: Uplink,
                          hop: Neighbour[Port], inside: Neighbour[Port], now: float) -> Leg | Verdict:
        """A server's segment of a connection older than the gateway: its external port is the published one, not a new one."""
        if tcp_state.event_of(packet.tcp_flags) is not tcp_state.Event.ACK:
            return Verdict.DROP_TCP_STATE
        address = uplink.source_for(hop.ip) if publication.host_ip is None else publication.host_ip.packed
        original = Leg(leg_key(packet.dst, address, packet.dport, publication.host_port),
                       leg_key(packet.dst, packet.src, packet.dport, packet.sport), uplink.realm, inside)
        reply = Leg(leg_key(packet.src, packet.dst, packet.sport, packet.dport),
                    leg_key(address, packet.dst, publication.host_port, packet.dport), bridge.realm, hop)
        added = self._add(Flow(TCP, original, reply, None, bridge.name, "published"), TcpState.ESTABLISHED, now)
        return reply if isinstance(added, Leg) else added

    def _first_state(self, packet: Ipv4Packet) -> TcpState | Verdict:
        """The state a new flow would begin in, or why its first packet begins nothing."""
        if self.flows.full:
            return Verdict.DROP_FLOWS_FULL
        if packet.protocol != TCP:
            return TcpState.NEW
        event = tcp_state.event_of(packet.tcp_flags)
        state = None if event is None else tcp_state.next_state(TcpState.NEW, Direction.ORIGINAL, event)
        return Verdict.DROP_TCP_STATE if state is None else state

    def _mapping(self, protocol: int, address: bytes, port: int, external: bytes) -> Mapping | Verdict:
        """The mapping an internal endpoint has, or a new one at the address `external`."""
        internal = address + port.to_bytes(2, "big")
        mapping = self.flows.mapping_for(protocol, internal)
        if mapping is not None:
            return mapping
        taken = self._pool(protocol, external).take(port)
        if taken is None:
            return Verdict.DROP_PORTS_EXHAUSTED
        mapping = Mapping(protocol, internal, external + taken.to_bytes(2, "big"))
        self.flows.add_mapping(mapping)
        return mapping

    def _add(self, flow: Flow, state: TcpState, now: float) -> Leg | Verdict:
        """Enter a new flow and give its original leg. If its keys are taken, nothing is left of it."""
        protocol = flow.protocol
        for leg in (flow.original, flow.reply):
            if leg.key in leg.realm.of(protocol):
                self._release_unused(flow.mapping)
                return Verdict.DROP_FLOW_COLLISION
        for leg in (flow.original, flow.reply):
            prepare(leg, protocol)
            leg.fast = verdict_of(leg) if protocol != TCP or state in tcp_state.FAST_STATES else 0
        flow.state = state
        flow.timeout_s = timeout_of(self.config.timeouts, protocol, state)
        self.flows.add(flow, now)
        self.extras[Extra.FLOWS_CREATED] += 1
        return flow.original

    # -- ends --------------------------------------------------------------------------------------------------------

    def _ended(self, flow: Flow) -> None:
        self.extras[Extra.FLOWS_ENDED] += 1
        self._release_unused(flow.mapping)

    def _release_unused(self, mapping: Mapping | None) -> None:
        if mapping is not None and mapping.flows == 0:
            self.flows.drop_mapping(mapping)
            external = mapping.external
            self._pool(mapping.protocol, external[:4]).release(int.from_bytes(external[4:], "big"))

    def end_flows_of(self, realm: Realm, address: bytes) -> None:
        """An internal address is gone: so are its flows, whichever side began them."""
        for flow in self.flows:
            legs = (flow.original, flow.reply)
            if any((leg.realm is realm and leg.key[:4] == address) or leg.rewrite[4:8] == address for leg in legs):
                self.flows.remove(flow)

    def end_flows_outside(self, keep: Iterable[bytes]) -> None:
        """The uplink's addresses changed: flows that used another one than those in `keep` can never be answered again."""
        kept = frozenset(keep)
        for flow in self.flows:
            leg = flow.original
            external = flow.mapping.external[:4] if flow.mapping is not None else leg.key[4:8]
            if external not in kept:
                self.flows.remove(flow)

    # -- published ports -----------------------------------------------------------------------------------------------

    def publish(self, publication: Publication) -> None:
        """Make a port reachable. Raises Conflict if natgw has published it already (in Docker's words)."""
        protocol = PROTOCOL_NUMBERS[publication.protocol]
        address = None if publication.host_ip is None else publication.host_ip.packed
        port = publication.host_port
        clash = [key for key in self._published
                 if key[0] == protocol and key[2] == port and (address is None or key[1] in (None, address))]
        if clash:
            raise Conflict(f"Bind for {publication.host_ip or '0.0.0.0'}:{port} failed: port is already allocated")
        self._published[protocol, address, port] = publication
        self._published_from[protocol, publication.container_ip.packed, publication.container_port] = publication
        for (pool_protocol, pool_address), pool in self._pools.items():
            if pool_protocol == protocol and address in (None, pool_address):
                pool.reserve(port)

    def unpublish(self, publication: Publication) -> None:
        """Take a published port back; its flows end. Raises NotFound."""
        protocol = PROTOCOL_NUMBERS[publication.protocol]
        address = None if publication.host_ip is None else publication.host_ip.packed
        port = publication.host_port
        if self._published.pop((protocol, address, port), None) is None:
            raise NotFound(f"port {port}/{publication.protocol} is not published")
        self._published_from.pop((protocol, publication.container_ip.packed, publication.container_port), None)
        target = publication.container_ip.packed + publication.container_port.to_bytes(2, "big")
        for flow in self.flows:
            if flow.kind != "outbound" and flow.protocol == protocol and _target(flow) == target:
                self.flows.remove(flow)
        for (pool_protocol, pool_address), pool in self._pools.items():
            if pool_protocol == protocol and address in (None, pool_address) and pool.is_taken(port) \
                    and self.flows.mapping_at(protocol, pool_address + port.to_bytes(2, "big")) is None:
                pool.release(port)

    def _pool(self, protocol: int, address: bytes) -> PortPool:
        pool = self._pools.get((protocol, address))
        if pool is None:
            low, high = (0, 65535) if protocol == ICMP else self.config.port_range
            pool = self._pools[protocol, address] = PortPool(low, high, self._rng)
            for (published_protocol, published_address, port) in self._published:
                if published_protocol == protocol and published_address in (None, address):
                    pool.reserve(port)
        return pool


def _target(flow: Flow) -> bytes:
    """The container endpoint that a published or hairpin flow goes to, 6 bytes."""
    rewrite = flow.original.rewrite
    return rewrite[4:8] + rewrite[10:12]


def verdict_of(leg: Leg) -> Verdict:
    """What forwarding by this leg counts as."""
    if leg.flow.kind == "hairpin":
        return Verdict.TRANSLATED_HAIRPIN
    begins_inside = leg.flow.kind == "outbound"
    return Verdict.TRANSLATED_OUT if begins_inside == (leg is leg.flow.original) else Verdict.TRANSLATED_IN


def timeout_of(timeouts: Timeouts, protocol: int, state: TcpState) -> float:
    """The idle time of a flow, in seconds."""
    if protocol == UDP:
        return timeouts.udp_s
    if protocol == ICMP:
        return timeouts.icmp_s
    established = state in (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT)
    return timeouts.tcp_established_s if established else timeouts.tcp_transitory_s
