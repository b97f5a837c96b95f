"""The datapath as one object: what the host feeds frames to and the control plane configures.

It does no I/O but by the ports' `transmit`, has no clock but the `now` it is given, and logs nothing: a unit test can hold
all of it. Everything is called from one thread.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from natgw.datapath import bridging, records, walk
from natgw.datapath.behaviour import NatConfig
from natgw.datapath.config import DatapathConfig, NetworkConfig, PortKind, Publication, UplinkConfig
from natgw.datapath.fastpath import build_receiver
from natgw.datapath.forward import send_by
from natgw.datapath.icmp_errors import translate_error
from natgw.datapath.napt import Napt
from natgw.datapath.outgoing import Outgoing
from natgw.datapath.port import Port, Receive, Transmit
from natgw.datapath.refusal import Refusal
from natgw.datapath.sides import Bridge, Side, Uplink
from natgw.datapath.verdict import Extra, Verdict
from natgw.errors import Conflict
from natgw.tables.flows import Leg, leg_key
from natgw.tables.held import Held
from natgw.tables.neigh import Neighbour
from natgw.tables.ratelimit import ErrorLimiter
from natgw.wire.ethernet import ETH_BYTES
from natgw.wire.ip import IpPacket
from natgw.wire.parse import parse_packet

MAX_HELD = 1024
"""Unsolicited SYNs that wait at a time."""
BEHIND_S = 0.005
"""How soon `tick` wants to be called again when more flows are due than end in one go."""
TICK_S = 1.0
"""How often `tick` wants to be called: expiry and ageing are this exact."""


class Datapath:
    """Bridges, at most one uplink, and the translator between them."""

    def __init__(self, config: DatapathConfig | None = None) -> None:
        self.config = config or DatapathConfig()
        self.verdicts = [0] * len(Verdict)
        self.extras = [0] * len(Extra)
        self.napt = Napt(self.config, self.extras)
        self.bridges: list[Bridge] = []
        self.uplink: Uplink | None = None
        self.outgoing = Outgoing(self._merged)
        self._limiter = ErrorLimiter(0.0)
        self._echo_limiter = ErrorLimiter(0.0, rate=20000, burst=2000, host_rate=5000, host_burst=1000)
        self._now = 0.0
        self._looped: Verdict | None = None
        self.held = Held(MAX_HELD)
        self._fragments_lost = 0
        """On sides that are no more."""

    # -- frames --------------------------------------------------------------------------------------------------------

    def receive(self, port: Port, buf: bytearray, n: int, now: float) -> None:
        """Take a frame of `n` bytes, offload header included, at the head of `buf`, which is changed. `now` in seconds.

        `buf` must be at least 64 bytes long however short the frame is. It is the datapath's until `send` or `flush` is called:
        with that the frames to be sent go to `transmit` of their ports.
        """
        port.receive(buf, n, now)

    def send(self) -> None:
        """Send the frames that are ready; datagrams may still be put together."""
        self.outgoing.send()

    def flush(self) -> None:
        """Send all there is; to be called when no more frames are there to be read."""
        self.outgoing.flush()

    def _merged(self, leg: Leg, more: int) -> None:
        """Count the datagrams that were merged into one of their leg."""
        self.verdicts[leg.fast or Verdict.TRANSLATED_OUT] += more
        self.extras[Extra.FAST_PATH] += more
        self.extras[Extra.COALESCED] += more + 1

    def slow(self, port: Port, buf: bytearray, n: int, now: float) -> None:
        """The readable walk, for what the fast path does not know. What came before it leaves before it."""
        self.flush()
        self._now = now
        self._looped = None
        if port.bridge is not None:
            verdict = walk.from_bridge(self, port, port.bridge, buf, n, now)
        elif self.uplink is not None and self.uplink.port is port:
            verdict = walk.from_uplink(self, self.uplink, buf, n, now)
        else:
            verdict = Verdict.DROP_NO_UPLINK
        self.verdicts[self._looped_or(verdict)] += 1

    def _looped_or(self, verdict: Verdict) -> Verdict:
        """What became of a frame: if it came in once more, what became of it then."""
        return verdict if self._looped is None else self._looped

    def _loop_back(self, frame: memoryview) -> None:
        """What the walk sends to one of the uplink's own addresses."""
        buf = bytearray(frame)
        packet = parse_packet(buf, len(buf))
        if self.uplink is not None and isinstance(packet, IpPacket):
            self._looped = walk.loop_back(self, self.uplink, packet, self._now)

    def tick(self, now: float) -> float:
        """Do what time asks for: expiry, ageing, ARP retries. Gives when to come back, in seconds of the same clock."""
        self._now = now
        self.napt.expire(now)
        if self.uplink is not None and self.uplink.addresses:
            walk.refuse_held(self, self.uplink, now)
        if self.napt.flows.behind:
            next_tick = now + BEHIND_S
        else:
            next_tick = now + TICK_S
        for side in self.sides():
            side.neighbours.tick(now)
            side.fragments.expire(now)
            deadline = side.neighbours.next_deadline()
            if deadline is not None:
                next_tick = min(next_tick, deadline)
        self._forget_plans()
        for bridge in self.bridges:
            bridge.fdb.expire(now)
            bridge.clear_shortcuts()
            if bridge.advertiser is not None:
                advertisement = bridge.advertiser.tick(now)
                if advertisement is not None:
                    bridging.advertise(bridge, advertisement)
                next_tick = min(next_tick, bridge.advertiser.next_deadline() or next_tick)
        return max(next_tick, now + 0.01)

    def _forget_plans(self) -> None:
        """Something may be otherwise now than when the walk looked: let it look again."""
        if self.uplink is not None:
            self.uplink.port.plans.clear()

    # -- configuration ---------------------------------------------------------------------------------------------------

    def add_network(self, config: NetworkConfig) -> Bridge:
        """A new bridge. Raises Conflict if its name or subnet is taken."""
        for bridge in self.bridges:
            if bridge.name == config.name:
                raise Conflict(f"network with name {config.name} already exists")
            if bridge.config.subnet.overlaps(config.subnet) or (
                    bridge.config.subnet6 is not None and config.subnet6 is not None
                    and bridge.config.subnet6.overlaps(config.subnet6)):
                raise Conflict("Pool overlaps with other one on this address space")
        bridge = Bridge(config, self.config.max_fdb_entries, self.config.max_neighbours, self.extras, self._unresolved)
        self.flush()
        self.bridges.append(bridge)
        self.napt.end_flows_to(bridge.routes_to)
        self._forget_plans()
        return bridge

    def remove_network(self, bridge: Bridge) -> None:
        for port in list(bridge.ports):
            self.remove_port(port)
        for flow in self.napt.flows:
            if flow.network == bridge.name:
                self.napt.flows.remove(flow)
        self._fragments_lost += bridge.fragments.lost
        self.bridges.remove(bridge)
        self._forget_plans()

    def add_port(self, bridge: Bridge, name: str, kind: PortKind, *, mtu: int = 1500, transmit: Transmit,
                 coalesces: bool = True) -> Port:
        """A port of a bridge. `coalesces` says that the link behind `transmit` takes UDP superframes."""
        port = Port(name, kind, mtu, transmit, bridge, coalesces=coalesces)
        bridge.add(port, is_host=kind is PortKind.HOST)
        port.receive = self._receiver(port, bridge)
        return port

    def remove_port(self, port: Port) -> None:
        """Take a port away; its stations are forgotten, its flows wait until they are found again or expire."""
        self.flush()
        if port.bridge is not None and port in port.bridge.ports:
            port.bridge.remove(port)
        port.receive = self._discard

    def set_uplink(self, name: str, transmit: Transmit, config: UplinkConfig, *, coalesces: bool = True) -> Port:
        """Connect the outside. Raises Conflict if there is an uplink already."""
        if self.uplink is not None:
            raise Conflict(f"the uplink is {self.uplink.port.name} already")
        port = Port(name, PortKind.UPLINK, config.mtu, transmit, None, coalesces=coalesces)
        self.uplink = Uplink(port, config, self.config.max_neighbours, self.extras, self._unresolved,
                             exclusive=self.config.exclusive)
        for loopback in self.uplink.loopbacks.values():
            loopback.transmit = self._loop_back
        port.receive = self._receiver(port, self.uplink)
        return port

    def set_nat(self, nat: NatConfig) -> None:
        """Behave otherwise from now on; flows that exist go on as they are. Raises ValueError."""
        self.flush()
        self.napt.configure(nat)
        self._forget_plans()

    def update_uplink(self, config: UplinkConfig) -> None:
        """The interface changed: address, route, MTU, MAC. Flows of addresses that are gone end, and those to addresses that
        came to the host; the others go on.
        """
        if self.uplink is not None:
            self.flush()
            self._forget_plans()
            before = self.uplink.local
            if not self.uplink.apply_local(config):
                self.uplink.apply(config)
                self.napt.end_flows_outside(self.uplink.addresses)
            if came := self.uplink.local - before:
                self.napt.end_flows_to(came.__contains__)

    def clear_uplink(self) -> None:
        """Disconnect the outside; flows through it end."""
        if self.uplink is not None:
            self.flush()
            self.napt.end_flows_outside(())
            self.uplink.neighbours.clear()
            self._fragments_lost += self.uplink.fragments.lost
            self._forget_plans()
            self.uplink.port.receive = self._discard
            self.uplink = None

    def add_neighbour(self, bridge: Bridge, ip: IPv4Address | IPv6Address, mac: bytes, port: Port, now: float = 0.0) -> None:
        """An endpoint that was given `ip` and `mac`: known without asking, and not to be claimed from another port."""
        neighbour = bridge.neighbours.confirm(ip.packed, mac, port, now or self._now, create=True)
        if neighbour is not None:
            neighbour.pinned = True
            bridge.bind(neighbour)

    def remove_neighbour(self, bridge: Bridge, ip: IPv4Address | IPv6Address) -> None:
        """An endpoint left: its flows end with it, and its address is free for another."""
        self.flush()
        self._forget_plans()
        bridge.neighbours.remove(ip.packed)
        self.napt.end_flows_of(bridge.realm, ip.packed)

    def publish(self, publication: Publication) -> None:
        """Make a container's port reachable. Raises Conflict, in Docker's words, if the host port is taken."""
        self.napt.publish(publication)
        self._forget_plans()

    def unpublish(self, publication: Publication) -> None:
        """End that; flows by it end too. Raises NotFound."""
        self.flush()
        self.napt.unpublish(publication)
        self._forget_plans()

    # -- what the walk asks ------------------------------------------------------------------------------------------------

    def sides(self) -> list[Side]:
        return [*self.bridges, *(() if self.uplink is None else (self.uplink,))]

    def bridge_of(self, ip: bytes) -> Bridge | None:
        """The network an address belongs to."""
        for bridge in self.bridges:
            if bridge.routes_to(ip):
                return bridge
        return None

    def is_local(self, ip: bytes) -> bool:
        """Whether an address is one of the host's own."""
        return self.uplink is not None and ip in self.uplink.local

    def errors_allowed(self, host: bytes, now: float, *, echo: bool = False) -> bool:
        """Whether one more ICMP message of our own may go to `host`."""
        return (self._echo_limiter if echo else self._limiter).allow(host, now)

    def _unresolved(self, side: Side, neighbour: Neighbour[Port], frames: list[bytes]) -> None:
        """Nobody has the address frames were waiting for: tell one sender for all (RFC 1812 section 5.2.7.1).

        The frames are translated already. The error is made where it arose, on `side`, and translated back like any other.
        """
        self.extras[Extra.QUEUE_DROPPED] += len(frames)
        for frame in frames[-1:]:
            packet = parse_packet(bytearray(frame), len(frame))
            if not isinstance(packet, IpPacket) or packet.is_icmp_error:
                continue
            network = self._network_of_sender(side, packet)
            source = side.source_for(neighbour.ip) if network is None else network.source_for(packet.dst)
            original = frame[len(frame) - packet.total_length :]
            error = Refusal.NO_HOST.build(bytes(ETH_BYTES), source, packet, original)
            parsed = parse_packet(error, len(error))
            if isinstance(parsed, IpPacket) and self.errors_allowed(packet.src, self._now):
                if translate_error(self, side.realm, parsed, self._now) is Verdict.DROP_ICMP_NO_FLOW:
                    self._tell(parsed)

    def _network_of_sender(self, side: Side, packet: IpPacket) -> Bridge | None:
        """The network that a packet comes from which leaves by `side`, translated or not. None: it comes from outside."""
        answer = self.napt.flows.find(side.realm, packet.protocol, leg_key(packet.dst, packet.src, packet.dport, packet.sport))
        if answer is None:
            return self.bridge_of(packet.src)
        return next((bridge for bridge in self.bridges if bridge.name == answer.flow.network and bridge is not side), None)

    def _tell(self, error: IpPacket) -> None:
        """Send an error of our own to a container whose packet was not translated."""
        bridge = self.bridge_of(error.dst)
        neighbour = None if bridge is None else bridge.neighbours.get(error.dst)
        if neighbour is not None and neighbour.transmit is not None:
            send_by(self, neighbour, error, Verdict.ICMP_UNREACHABLE)

    def _receiver(self, port: Port, side: Side) -> Receive:
        if self.config.fast_path:
            return build_receiver(self, port, side.realm)
        return lambda buf, n, now: self.slow(port, buf, n, now)

    def _discard(self, buf: bytearray, n: int, now: float) -> None:
        """For a port that is gone: its last frames may still be on their way here."""
        self.verdicts[Verdict.DROP_NO_UPLINK] += 1

    # -- what people ask -----------------------------------------------------------------------------------------------------

    def flow_records(self, now: float) -> list[dict[str, object]]:
        return records.flow_records(self, now)

    def fdb_records(self, now: float) -> list[dict[str, object]]:
        return records.fdb_records(self, now)

    def neighbour_records(self, now: float) -> list[dict[str, object]]:
        return records.neighbour_records(self, now)

    def port_records(self) -> list[dict[str, object]]:
        return [port.record() for port in self.ports()]

    def counters(self) -> dict[str, int]:
        """Every counter by its name; each frame is in exactly one of those named in `Verdict`."""
        named = {verdict.label: self.verdicts[verdict] for verdict in Verdict}
        self.extras[Extra.FRAGMENTS_LOST] = self._fragments_lost + sum(side.fragments.lost for side in self.sides())
        return named | {extra.label: self.extras[extra] for extra in Extra}

    def ports(self) -> list[Port]:
        found = [port for bridge in self.bridges for port in bridge.ports]
        return found if self.uplink is None else [*found, self.uplink.port]
