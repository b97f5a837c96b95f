"""The translator's decisions: which flow a packet belongs to, and which new flows may come to be (RFC 3022, 4787, 5382, 5508).

What a mapping depends on, who may use it from outside and which port it gets is chosen: see `behaviour` and `allocation`.
From outside comes in what belongs to a flow, what asks for a published port, and what the filtering lets to a mapping.

Here nothing is sent and nothing is rewritten; `walk` does that with the leg it gets.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable

from natgw.datapath import tcp_state, tcp_window
from natgw.datapath.allocation import POLICIES, PortPolicy, PortRequest
from natgw.datapath.behaviour import Dependence, NatBehaviour, NatConfig, Timeouts
from natgw.datapath.config import DatapathConfig, Publication
from natgw.datapath.port import Port
from natgw.datapath.rewrite import prepare, prepare_flow
from natgw.datapath.sides import Bridge, Uplink
from natgw.datapath.tcp_state import Direction, TcpState
from natgw.datapath.verdict import Extra, Verdict
from natgw.errors import Conflict, NotFound
from natgw.tables.flows import Flow, Leg, Mapping, Realm, destination, leg_key, source
from natgw.tables.flowtable import FlowTable
from natgw.tables.neigh import Neighbour
from natgw.tables.portpool import PortPool
from natgw.tables.ratelimit import ErrorLimiter
from natgw.wire.ip import IpPacket, endpoint_text
from natgw.wire.ipv4 import ICMP, ICMPV6, PROTOCOL_NUMBERS, TCP, UDP, has_ports
from natgw.wire.transport import DCCP, GRE, SCTP, UDPLITE

STREAM_AFTER_S = 2.0
"""UDP that still goes both ways after this long is a stream (net/netfilter/nf_conntrack_proto_udp.c)."""
_OVERLOAD_TRIES = 128
_NO_LIMIT = 1e12
_OUT, _IN = Verdict.TRANSLATED_OUT.value, Verdict.TRANSLATED_IN.value
_QUERY = NatBehaviour()
"""ICMP queries: RFC 5508 REQ-1 to REQ-3."""
_BY_ADDRESS = NatBehaviour(mapping=Dependence.ADDRESS_AND_PORT_DEPENDENT, overload=True)
"""What has no ports: containers share the external address as long as they talk to different remote ones."""
OwnsProtocol = Callable[[bytes, int, bool], None]
"""Told, with an external address and a protocol without ports, when the first flow of that kind begins and the last ended."""

Endpoint = tuple[int, bytes, int]
"""Protocol, address, port."""


def any_address(like: bytes) -> bytes:
    """The unspecified address of the same version, which stands for every address of the uplink."""
    return bytes(len(like))


class Napt:
    """Flows, mappings, published ports and external port pools of one gateway."""

    def __init__(self, config: DatapathConfig, extras: list[int]) -> None:
        self.config = config
        self.extras = extras
        self.flows = FlowTable(config.max_flows, self._ended, _woken, config.max_awake_flows)
        # What the Mersenne Twister drew tells what it will draw; who asks for no repetition gets the system's (requirement C3).
        self._rng = random.SystemRandom() if config.seed is None else random.Random(config.seed)
        self._now = 0.0
        self._pools: dict[tuple[int, bytes], PortPool] = {}
        self._overloaded: Counter[tuple[int, bytes]] = Counter()
        """How many mappings share an external endpoint: its port is taken until the last of them ends."""
        self._sharing: dict[tuple[int, bytes], dict[Mapping, None]] = {}
        """The mappings an internal endpoint has with overloaded ports, the newest last."""
        # By host address and port; the address is `any_address` for "every address of the uplink".
        self._published: dict[Endpoint, Publication] = {}
        self._published_from: dict[Endpoint, Publication] = {}
        self.owns_protocol: OwnsProtocol = lambda address, protocol, owns: None
        self.configure(config.nat)

    def configure(self, nat: NatConfig) -> None:
        """Behave like this from now on: flows and mappings that exist stay as they are. Raises ValueError."""
        if nat.allocation not in POLICIES:
            raise ValueError(f"there is no port policy {nat.allocation!r}; there are {', '.join(POLICIES)}")
        self.nat = nat
        self._tcp_timeouts = [timeout_of(nat.timeouts, TCP, state) if state else 0.0 for state in TcpState]
        self._policy: PortPolicy = POLICIES[nat.allocation](self._rng)
        self._behaviours = {TCP: nat.tcp, UDP: nat.udp, ICMP: _QUERY, ICMPV6: _QUERY, UDPLITE: nat.udp, SCTP: nat.tcp,
                            DCCP: nat.tcp}
        self._untranslated = [(net.max_prefixlen // 8, int(net.network_address), int(net.netmask)) for net in nat.untranslated]
        self._external = [address.packed for address in nat.external_addresses]
        rate = nat.flows_per_host_per_s
        self._new_flows = ErrorLimiter(self._now, rate=_NO_LIMIT, burst=_NO_LIMIT, host_rate=rate, host_burst=max(1.0, rate))
        self.flows.inbound_refreshes = nat.refresh_inbound
        self.flows.track_contacts(any(each.filtering is Dependence.ADDRESS_DEPENDENT for each in self._behaviours.values()))

    # -- lookups ---------------------------------------------------------------------------------------------------

    def leg_of(self, realm: Realm, packet: IpPacket) -> Leg | None:
        """The leg of a flow that exists, for a whole packet of a translated protocol that is no ICMP error."""
        leg = self.flows.find(realm, packet.protocol, leg_key(packet.src, packet.dst, packet.sport, packet.dport))
        # An ICMP identifier says nothing of who asks and who answers, so the type must fit the direction.
        if leg is not None and packet.is_icmp:
            fits = packet.is_echo_request if leg is leg.flow.original else packet.is_echo_reply
            return leg if fits else None
        return leg

    def publication_at(self, protocol: int, address: bytes, port: int) -> Publication | None:
        """The published port at an address of the host, if there is one."""
        published = self._published
        return published.get((protocol, address, port)) or published.get((protocol, any_address(address), port))

    def is_untranslated(self, address: bytes) -> bool:
        """Whether a destination is reached as it is (requirement C4)."""
        number = int.from_bytes(address, "big")
        return any(number & mask == network and length == len(address) for length, network, mask in self._untranslated)

    def _behaviour(self, protocol: int) -> NatBehaviour:
        return self._behaviours.get(protocol, _BY_ADDRESS)

    def admits(self, mapping: Mapping, packet: IpPacket) -> bool:
        """Whether the filtering lets a packet that belongs to no flow in, to a mapping (RFC 4787 section 5)."""
        if packet.protocol == TCP and tcp_state.event_of(packet.tcp_flags) is not tcp_state.Event.SYN:
            return False
        filtering = self._behaviour(packet.protocol).filtering
        if filtering is Dependence.ADDRESS_DEPENDENT:
            return self.flows.has_contacted(mapping, packet.src)
        # What depends on the port too is a flow, and would have been found.
        return filtering is Dependence.ENDPOINT_INDEPENDENT

    # -- what a packet does to its flow ------------------------------------------------------------------------------

    def advance(self, leg: Leg, packet: IpPacket, now: float) -> bool:
        """Note a packet on its flow; False if TCP's state machine does not believe it."""
        flow = leg.flow
        if flow.protocol == TCP:
            state = leg.moves[packet.tcp_flags & tcp_state.DECIDING_FLAGS]
            if state == tcp_state.NOT_BELIEVED:
                return False
            if state == tcp_state.RESET:
                state = TcpState.CLOSE if tcp_window.admits_reset(leg, packet) else tcp_state.UNCHANGED
            else:
                tcp_window.note(leg, packet, becomes=state)
            if state != tcp_state.UNCHANGED:
                self.enter(flow, state, now)
        elif flow.protocol == UDP and not flow.state and flow.reply.packets and now - flow.created >= STREAM_AFTER_S:
            self._become_stream(flow, now)
        elif not flow.state and leg is flow.reply and flow.protocol not in (UDP, ICMP, ICMPV6):
            self._become_stream(flow, now)
        leg.last = now
        leg.packets += 1
        leg.bytes += packet.total_length
        return True

    def enter(self, flow: Flow, state: int, now: float) -> None:
        """Let a TCP flow be in another state from now on. In the same again, after a repeated SYN, it keeps its idle time."""
        if state == flow.state:
            return
        flow.state = state
        flow.original.moves, flow.reply.moves = tcp_state.MOVES[state]
        self.flows.set_timeout(flow, self._tcp_timeouts[state], now)

    def judge_again(self, flow: Flow) -> None:
        """A flow goes another way now: its fast path ends where it loops back."""
        _set_fast(flow, flow.protocol != UDP or flow.state == UDP_STREAM)

    def _become_stream(self, flow: Flow, now: float) -> None:
        flow.state = UDP_STREAM
        self.flows.set_timeout(flow, _of_stream(self.nat.timeouts, flow.protocol), now)
        _set_fast(flow, True)

    # -- new flows ---------------------------------------------------------------------------------------------------

    def outbound(self, packet: IpPacket, bridge: Bridge, uplink: Uplink, hop: Neighbour[Port], inside: Neighbour[Port],
                 now: float) -> Leg | Verdict:
        """A flow that begins inside and leaves by `hop`; packets back go to `inside`."""
        published = self._published_from.get((packet.protocol, packet.src, packet.sport))
        if published is not None and packet.protocol == TCP and not packet.tcp_flags & tcp_state.SYN:
            return self._resume_published(packet, published, bridge, uplink, hop, inside, now)
        state = self._first_state(packet, now)
        if isinstance(state, Verdict):
            return state
        if self.nat.flows_per_host_per_s and not self._new_flows.allow(packet.src, now):
            return Verdict.DROP_HOST_RATE
        mapping = self._mapping(packet, uplink, hop)
        if isinstance(mapping, Verdict):
            return mapping
        address, port = mapping.external[:-2], int.from_bytes(mapping.external[-2:], "big")
        far_port = port if packet.is_icmp else packet.dport
        original = Leg(leg_key(packet.src, packet.dst, packet.sport, packet.dport),
                       leg_key(address, packet.dst, port, far_port), bridge.realm, hop)
        reply = Leg(leg_key(packet.dst, address, far_port, port),
                    leg_key(packet.dst, packet.src, packet.dport, packet.sport), uplink.realm, inside)
        return self._add(Flow(packet.protocol, original, reply, mapping, bridge.name, "outbound"), state, now)

    def inbound(self, packet: IpPacket, publication: Publication, bridge: Bridge, uplink: Uplink, inside: Neighbour[Port],
                hop: Neighbour[Port], now: float) -> Leg | Verdict:
        """A flow from outside to a published port; `inside` is the container's neighbour, `hop` the way back."""
        state = self._first_state(packet, now)
        if isinstance(state, Verdict):
            return state
        target = publication.container_ip.packed
        original = Leg(leg_key(packet.src, packet.dst, packet.sport, packet.dport),
                       leg_key(packet.src, target, packet.sport, publication.container_port), uplink.realm, inside)
        reply = Leg(leg_key(target, packet.src, publication.container_port, packet.sport),
                    leg_key(packet.dst, packet.src, packet.dport, packet.sport), bridge.realm, hop)
        return self._add(Flow(packet.protocol, original, reply, None, bridge.name, "published"), state, now)

    def mapped(self, packet: IpPacket, mapping: Mapping, bridge: Bridge, uplink: Uplink, inside: Neighbour[Port],
               hop: Neighbour[Port], now: float) -> Leg | Verdict:
        """A flow from outside to a mapping whose filtering admits it."""
        state = self._first_state(packet, now)
        if isinstance(state, Verdict):
            return state
        internal, port = mapping.internal[:-2], int.from_bytes(mapping.internal[-2:], "big")
        original = Leg(leg_key(packet.src, packet.dst, packet.sport, packet.dport),
                       leg_key(packet.src, internal, packet.sport, port), uplink.realm, inside)
        reply = Leg(leg_key(internal, packet.src, port, packet.sport),
                    leg_key(packet.dst, packet.src, packet.dport, packet.sport), bridge.realm, hop)
        flow = Flow(packet.protocol, original, reply, mapping, bridge.name, "inbound")
        if packet.protocol in (UDP, UDPLITE) and self.flows.has(bridge.realm, packet.protocol, reply.key):
            # The other way is taken: towards this remote the endpoint has another mapping. So this one only leads in.
            prepare(original, packet.protocol)
            return original
        return self._add(flow, state, now)

    def _resume_published(self, packet: IpPacket, publication: Publication, bridge: Bridge, uplink: Uplink,
                          hop: Neighbour[Port], inside: Neighbour[Port], now: float) -> Leg | Verdict:
        """A server's segment of a connection older than the gateway: its external port is the published one, not a new one."""
        state = self._first_state(packet, now)
        if isinstance(state, Verdict):
            return state
        address = uplink.external_for(packet.dst, hop.ip) if publication.host_ip is None else publication.host_ip.packed
        original = Leg(leg_key(packet.dst, address, packet.dport, publication.host_port),
                       leg_key(packet.dst, packet.src, packet.dport, packet.sport), uplink.realm, inside)
        reply = Leg(leg_key(packet.src, packet.dst, packet.sport, packet.dport),
                    leg_key(address, packet.dst, publication.host_port, packet.dport), bridge.realm, hop)
        added = self._add(Flow(TCP, original, reply, None, bridge.name, "published"), state, now)
        return reply if isinstance(added, Leg) else added

    def _first_state(self, packet: IpPacket, now: float) -> TcpState | Verdict:
        """The state a new flow would begin in, or why its first packet begins nothing."""
        self._now = now
        if self.flows.full:
            return Verdict.DROP_FLOWS_FULL
        if packet.protocol != TCP:
            return TcpState.NEW
        event = tcp_state.event_of(packet.tcp_flags)
        state = None if event is None else tcp_state.next_state(TcpState.NEW, Direction.ORIGINAL, event)
        if state is None or (event is tcp_state.Event.ACK and not self.nat.pick_up):
            return Verdict.DROP_TCP_STATE
        return state

    def _mapping(self, packet: IpPacket, uplink: Uplink, hop: Neighbour[Port]) -> Mapping | Verdict:
        """The mapping an internal endpoint has towards the packet's destination, or a new one."""
        protocol, internal = packet.protocol, packet.src + packet.sport.to_bytes(2, "big")
        behaviour = self._behaviour(protocol)
        remote = packet.dst + packet.dport.to_bytes(2, "big")
        scope = behaviour.mapping.scope(remote)
        mapping = self.flows.mapping_for(protocol, internal, scope)
        if mapping is not None:
            return mapping
        if self.nat.ports_per_host and self.flows.mappings_of(packet.src) >= self.nat.ports_per_host:
            return Verdict.DROP_HOST_PORTS
        for address in self._external_for(packet, uplink, hop):
            pool = self._pool(protocol, address)
            pool.wake(self._now)
            request = PortRequest(protocol, packet.src, packet.sport, address, packet.dst, packet.dport, self.nat.parity)
            port = (self._overload(request, pool, uplink) if behaviour.overload else self._take(request, pool))
            if port is not None:
                mapping = Mapping(protocol, internal, address + port.to_bytes(2, "big"), scope, shared=behaviour.overload)
                self.flows.add_mapping(mapping)
                if mapping.shared:
                    self._overloaded[protocol, mapping.external] += 1
                    if self._overloaded[protocol, mapping.external] == 1 and not has_ports(protocol):
                        self.owns_protocol(address, protocol, True)
                    self._sharing.setdefault((protocol, internal), {})[mapping] = None
                return mapping
        return Verdict.DROP_PORTS_EXHAUSTED if has_ports(protocol) else Verdict.DROP_ADDRESS_TAKEN

    def _external_for(self, packet: IpPacket, uplink: Uplink, hop: Neighbour[Port]) -> list[bytes]:
        """The addresses to try. One if the host is paired with it, however long its ports last."""
        usable = [address for address in self._external if uplink.owns(address) and len(address) == len(packet.src)]
        if not usable:
            return [packet.dst if hop.is_loopback else uplink.external_for(packet.dst, hop.ip)]
        if self.nat.paired:
            return [usable[int.from_bytes(packet.src, "big") % len(usable)]]
        self._rng.shuffle(usable)
        return usable

    def _take(self, request: PortRequest, pool: PortPool) -> int | None:
        """The port the policy chooses, taken."""
        if self.nat.port_rest_s and pool.take_back(request.internal_port, request.internal_address):
            return request.internal_port
        port = self._policy.choose(request, pool)
        return port if port is not None and pool.take(port) else None

    def _overload(self, request: PortRequest, pool: PortPool, uplink: Uplink) -> int | None:
        """A port that no other flow to the same remote has, taken: the one that the internal endpoint has towards another
        remote (the newest, as find_appropriate_src in net/netfilter/nf_nat_core.c has it), its own, or the next ones."""
        span = pool.high - pool.low + 1
        start = request.internal_port if request.internal_port in pool else pool.low + self._rng.randrange(span)
        had = self._shared_port(request)
        tried = (pool.low + (start - pool.low + step) % span for step in range(min(span, _OVERLOAD_TRIES)))
        for port in tried if had is None else (had, *tried):
            key = leg_key(request.remote_address, request.external_address, request.remote_port, port)
            external = request.external_address + port.to_bytes(2, "big")
            taken = self.flows.has(uplink.realm, request.protocol, key)
            if not taken and ((request.protocol, external) in self._overloaded or pool.take(port)):
                return port
        return None

    def _shared_port(self, request: PortRequest) -> int | None:
        """The overloaded port that an internal endpoint has at an external address, if it has one."""
        internal = request.internal_address + request.internal_port.to_bytes(2, "big")
        for mapping in reversed(self._sharing.get((request.protocol, internal), {})):
            if mapping.external[:-2] == request.external_address:
                return int.from_bytes(mapping.external[-2:], "big")
        return None

    def _add(self, flow: Flow, state: TcpState, now: float) -> Leg | Verdict:
        """Enter a new flow and give its original leg. If its keys are taken, nothing is left of it."""
        protocol = flow.protocol
        for leg in (flow.original, flow.reply):
            if self.flows.has(leg.realm, protocol, leg.key):
                self._release_unused(flow.mapping)
                return Verdict.DROP_FLOW_COLLISION
        prepare_flow(flow)
        return self.begin(flow, state, now)

    def begin(self, flow: Flow, state: TcpState, now: float) -> Leg:
        """Enter a new flow whose keys are free and whose legs are prepared, and give its original leg."""
        self._now = now
        protocol, waits = flow.protocol, False
        flow.state = state
        if protocol == TCP:
            flow.timeout_s = self._tcp_timeouts[state]
            flow.original.moves, flow.reply.moves = tcp_state.MOVES[state]
        else:
            timeouts = self.nat.timeouts
            flow.timeout_s = timeout_of(timeouts, protocol, state)
            if protocol == UDP:
                # Where a UDP stream lives longer, the slow path has to see it become one. One that may go the fast way at once
                # stays what it is, whatever stream timeout is configured later.
                waits = timeouts.udp_stream_s != timeouts.udp_s
                flow.state = state if waits else UDP_STREAM
        _set_fast(flow, not waits)
        self.flows.add(flow, now)
        self.extras[Extra.FLOWS_CREATED] += 1
        return flow.original

    # -- ends --------------------------------------------------------------------------------------------------------

    def _ended(self, flow: Flow) -> None:
        self.extras[Extra.FLOWS_ENDED] += 1
        self._release_unused(flow.mapping)

    def _release_unused(self, mapping: Mapping | None) -> None:
        if mapping is None or mapping.flows:
            return
        self.flows.drop_mapping(mapping)
        address, port = mapping.external[:-2], int.from_bytes(mapping.external[-2:], "big")
        if mapping.shared:
            sharing = self._sharing[mapping.protocol, mapping.internal]
            del sharing[mapping]
            if not sharing:
                del self._sharing[mapping.protocol, mapping.internal]
            self._overloaded[mapping.protocol, mapping.external] -= 1
            if self._overloaded[mapping.protocol, mapping.external]:
                return
            del self._overloaded[mapping.protocol, mapping.external]
            if not has_ports(mapping.protocol):
                self.owns_protocol(address, mapping.protocol, False)
        # A port that was published while a mapping had it stays taken.
        if self.publication_at(mapping.protocol, address, port) is None:
            rest_until = self._now + self.nat.port_rest_s if self.nat.port_rest_s and not mapping.shared else 0.0
            self._pool(mapping.protocol, address).release(port, owner=mapping.internal[:-2], rest_until=rest_until)

    def expire(self, now: float) -> None:
        """End what has been idle for its time."""
        self._now = now
        self.flows.expire(now)

    def end_flows_of(self, realm: Realm, address: bytes) -> None:
        """An internal address is gone: so are its flows, whichever side began them."""
        for flow in self.flows:
            leg = flow.inner
            if leg.realm is realm and source(leg.key) == address:
                self.flows.remove(flow)

    def end_flows_outside(self, keep: Iterable[bytes]) -> None:
        """The uplink's addresses changed: flows that used another one than those in `keep` can never be answered again."""
        kept = frozenset(keep)
        for flow in self.flows:
            leg = flow.original
            external = flow.mapping.external[:-2] if flow.mapping is not None else destination(leg.key)
            if external not in kept:
                self.flows.remove(flow)

    def end_flows_to(self, here: Callable[[bytes], bool]) -> None:
        """Some addresses are not outside any more, but `here`: flows that go there end, and the walk judges their packets anew.

        Those at rest may stay, since nothing goes by them but what the walk has sent to the outside.
        """
        for flow in self.flows.flows_awake():
            if here(destination(flow.original.key)) or here(destination(flow.reply.key)):
                self.flows.remove(flow)

    # -- published ports -----------------------------------------------------------------------------------------------

    def publish(self, publication: Publication) -> None:
        """Make a port reachable. Raises Conflict if natgw has published it already (in Docker's words)."""
        protocol, address, port = _host_side(publication)
        wildcard = any_address(address)
        clash = [key for key in self._published if key[0] == protocol and key[2] == port and len(key[1]) == len(address)
                 and (address == wildcard or key[1] in (wildcard, address))]
        if clash:
            raise Conflict(f"Bind for {endpoint_text(address + port.to_bytes(2, 'big'))} failed: port is already allocated")
        self._published[protocol, address, port] = publication
        self._published_from[protocol, publication.container_ip.packed, publication.container_port] = publication
        for (pool_protocol, pool_address), pool in self._pools.items():
            if pool_protocol == protocol and address in (any_address(pool_address), pool_address):
                pool.claim(port)

    def unpublish(self, publication: Publication) -> None:
        """Take a published port back; its flows end. Raises NotFound."""
        protocol, address, port = _host_side(publication)
        if self._published.pop((protocol, address, port), None) is None:
            raise NotFound(f"port {port}/{publication.protocol} is not published")
        inside = (protocol, publication.container_ip.packed, publication.container_port)
        self._published_from.pop(inside, None)
        for other in self._published.values():
            if (PROTOCOL_NUMBERS[other.protocol], other.container_ip.packed, other.container_port) == inside:
                self._published_from[inside] = other
        for flow in self.flows:
            if flow.kind == "published" and flow.protocol == protocol:
                host_address, host_port = destination(flow.original.key), int.from_bytes(flow.original.key[-2:], "big")
                if host_port == port and address in (any_address(host_address), host_address):
                    self.flows.remove(flow)
        for (pool_protocol, pool_address), pool in self._pools.items():
            if pool_protocol == protocol and address in (any_address(pool_address), pool_address) and pool.is_taken(port) \
                    and self.flows.mapping_at(protocol, pool_address + port.to_bytes(2, "big")) is None \
                    and (protocol, pool_address + port.to_bytes(2, "big")) not in self._overloaded:
                pool.release(port)

    def _port_bounds(self, protocol: int) -> tuple[int, int]:
        """The external ports, or identifiers, that a protocol's mappings may have; what has neither has one mapping's room."""
        if protocol in (ICMP, ICMPV6):
            return 0, 65535
        return self.config.port_range if has_ports(protocol) else (0, 0)

    def _pool(self, protocol: int, address: bytes) -> PortPool:
        pool = self._pools.get((protocol, address))
        if pool is None:
            low, high = self._port_bounds(protocol)
            pool = self._pools[protocol, address] = PortPool(low, high)
            for (published_protocol, published_address, port) in self._published:
                if published_protocol == protocol and published_address in (any_address(address), address):
                    pool.take(port)
        return pool


def _host_side(publication: Publication) -> Endpoint:
    """Where a published port is reached: at one address, or at every one of its container's version."""
    at = publication.host_ip
    address = any_address(publication.container_ip.packed) if at is None else at.packed
    return PROTOCOL_NUMBERS[publication.protocol], address, publication.host_port


def _woken(flow: Flow) -> None:
    """Make a flow that rested what it was."""
    prepare_flow(flow)
    if flow.protocol == TCP:
        flow.original.moves, flow.reply.moves = tcp_state.MOVES[flow.state]
    _set_fast(flow, flow.protocol != UDP or flow.state == UDP_STREAM)


def _set_fast(flow: Flow, fast: bool) -> None:
    """Let the fast path translate a flow, or not. What loops back never is: it takes both its ways in one go."""
    original, reply = flow.original, flow.reply
    if not fast or original.neighbour.is_loopback or reply.neighbour.is_loopback:
        original.fast = reply.fast = 0
    elif flow.kind == "outbound":
        original.fast, reply.fast = _OUT, _IN
    else:
        original.fast, reply.fast = _IN, _OUT


def verdict_of(leg: Leg) -> Verdict:
    """What forwarding by this leg counts as."""
    begins_inside = leg.flow.kind == "outbound"
    return Verdict.TRANSLATED_OUT if begins_inside == (leg is leg.flow.original) else Verdict.TRANSLATED_IN


UDP_STREAM = 1
"""The state of a UDP flow that has become a stream, or need not become one since it would live no longer; 0 before. Other
protocols but TCP and ICMP queries have it from the first answer on."""


def timeout_of(timeouts: Timeouts, protocol: int, state: TcpState) -> float:
    """The idle time of a flow, in seconds."""
    if protocol == UDP:
        return timeouts.udp_s
    if protocol in (ICMP, ICMPV6):
        return timeouts.icmp_s
    if protocol == TCP:
        return float(getattr(timeouts, _TCP_TIMEOUTS[state]))
    return float(getattr(timeouts, _OTHER_TIMEOUTS.get(protocol, _UNKNOWN)[0]))


def _of_stream(timeouts: Timeouts, protocol: int) -> float:
    """The idle time of a flow that is no TCP and has been answered, in seconds."""
    return float(getattr(timeouts, _OTHER_TIMEOUTS.get(protocol, _UNKNOWN)[1]))


_OTHER_TIMEOUTS = {UDP: ("udp_s", "udp_stream_s"), UDPLITE: ("udplite_s", "udplite_stream_s"), GRE: ("gre_s", "gre_stream_s"),
                   SCTP: ("sctp_init_s", "sctp_established_s")}
"""Before the first answer, and after it."""
_UNKNOWN = ("other_s", "other_s")


_TCP_TIMEOUTS = {
    TcpState.SYN_SENT: "tcp_syn_sent_s", TcpState.SYN_SENT2: "tcp_syn_sent_s", TcpState.SYN_RECV: "tcp_syn_recv_s",
    TcpState.ESTABLISHED: "tcp_established_s", TcpState.FIN_WAIT: "tcp_fin_wait_s", TcpState.CLOSE_WAIT: "tcp_close_wait_s",
    TcpState.LAST_ACK: "tcp_last_ack_s", TcpState.TIME_WAIT: "tcp_time_wait_s", TcpState.CLOSE: "tcp_close_s",
}
