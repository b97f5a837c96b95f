"""Flows and mappings: what the translator remembers.

A *mapping* binds an internal address and port to an external one (RFC 4787 section 2). A *flow* is one conversation through
the gateway; it has two *legs*, one for each direction, and a mapping can carry many flows. A leg is found by its key, the
12 bytes source, destination, source port, destination port as they lie in a packet, and holds the 12 bytes they become
with the checksum changes that follow from it. IPv6's addresses make it 36 bytes, in the same tables: the length tells them
apart.

    inside   172.17.0.2:5000 > 203.0.113.9:80   --original-->   198.51.100.2:5000 > 203.0.113.9:80   outside
             203.0.113.9:80 > 172.17.0.2:5000   <---reply----   203.0.113.9:80 > 198.51.100.2:5000

A *realm* is one side's view: the legs of packets that arrive there. Each network has one and the uplink has one, since the
same 12 bytes may mean different flows on different sides. For ICMP queries the identifier stands for both ports.

Expiry is a wheel of one-second slots. A flow lies in the slot of its deadline; traffic only notes the time on its leg, and
when the slot comes up the flow is either idle (and ends) or moves on to the slot of its new deadline. So a packet costs
one assignment, and a second costs as much as flows are due in it, however large the table is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from natgw.tables.neigh import Neighbour
from natgw.wire.ipv4 import ICMP, ICMPV6, TCP, UDP


def leg_key(src: bytes, dst: bytes, sport: int, dport: int) -> bytes:
    """The 12 bytes (36 of IPv6) a packet with these addresses and ports ends its IP header and begins its transport with."""
    return src + dst + (sport << 16 | dport).to_bytes(4, "big")


def source(key: bytes) -> bytes:
    """The source address in a leg's key or rewrite."""
    return key[: len(key) - 4 >> 1]


def destination(key: bytes) -> bytes:
    """The destination address in a leg's key or rewrite."""
    return key[len(key) - 4 >> 1 : -4]


def reversed_key(key: bytes) -> bytes:
    """The key of a packet that would answer one with `key`."""
    return destination(key) + source(key) + key[-2:] + key[-4:-2]


class Realm:
    """The legs of packets that arrive on one side, by protocol; ICMP queries have the identifier as both ports.

    What has no ports has 0 for them: there is one flow between two addresses.
    """

    __slots__ = ("icmp", "others", "tcp", "udp")

    def __init__(self) -> None:
        self.tcp: dict[bytes, Leg] = {}
        self.udp: dict[bytes, Leg] = {}
        self.icmp: dict[bytes, Leg] = {}
        self.others: dict[int, dict[bytes, Leg]] = {}

    def of(self, protocol: int) -> dict[bytes, Leg]:
        """The legs of a protocol."""
        if protocol == TCP:
            return self.tcp
        if protocol == UDP:
            return self.udp
        if protocol in (ICMP, ICMPV6):
            return self.icmp
        return self.others.setdefault(protocol, {})

    def __len__(self) -> int:
        return len(self.tcp) + len(self.udp) + len(self.icmp) + sum(map(len, self.others.values()))


class Mapping:
    """An internal endpoint's external one. Endpoints are an address and 2 bytes of port; `flows` counts the flows that use it.

    `scope` is what the mapping depends on of the remote endpoint: nothing, its address, or all of it. `shared` says that
    other internal endpoints may have the same external one towards other remotes, as Linux has it: then only a flow tells
    whose it is.
    """

    __slots__ = ("external", "flows", "internal", "protocol", "scope", "shared")

    def __init__(self, protocol: int, internal: bytes, external: bytes, scope: bytes = b"", *, shared: bool = False) -> None:
        self.protocol = protocol
        self.internal = internal
        self.external = external
        self.scope = scope
        self.shared = shared
        self.flows = 0


class Leg:
    """One direction of a flow: what to find it by, and what to do to its packets.

    `key_sum` is what the addresses add to the sum of an IP header, less the Ethernet type that the fast path reads along
    with its first word. `ip_delta` is the change of the IP header checksum for addresses and TTL together; `l4_delta`
    that of a complete transport checksum, for addresses and ports; `addr_delta` that of a partial one, for addresses only.
    `fast` is the verdict to count when the fast path translates by this leg, and 0 while only the slow path may (TCP that
    is not established).
    """

    __slots__ = ("addr_delta", "bytes", "fast", "flow", "ip_delta", "key", "key_sum", "l4_delta", "last", "neighbour",
                 "packets", "realm", "rewrite")

    flow: Flow

    def __init__(self, key: bytes, rewrite: bytes, realm: Realm, neighbour: Neighbour[Any]) -> None:
        self.key = key
        self.rewrite = rewrite
        self.realm = realm
        self.neighbour = neighbour
        self.key_sum = self.ip_delta = self.l4_delta = self.addr_delta = 0
        self.fast = 0
        self.last = 0.0
        self.packets = 0
        self.bytes = 0


class Flow:
    """A conversation. `original` is the leg of the side that began it; `timeout_s` the idle time it is given.

    `kind` is "outbound" if it began inside, "published" if it came in by a published port, "inbound" by a mapping.
    """

    __slots__ = ("created", "ended", "kind", "mapping", "network", "original", "protocol", "reply", "slot", "state",
                 "timeout_s")

    def __init__(self, protocol: int, original: Leg, reply: Leg, mapping: Mapping | None, network: str, kind: str) -> None:
        self.protocol = protocol
        self.original = original
        self.reply = reply
        self.ended = False
        self.mapping = mapping
        self.network = network
        self.kind = kind
        self.state = 0
        self.created = 0.0
        self.timeout_s = 0.0
        self.slot = -1
        original.flow = self
        reply.flow = self

    @property
    def inner(self) -> Leg:
        """The leg of packets from inside."""
        return self.original if self.kind == "outbound" else self.reply

    def other(self, leg: Leg) -> Leg:
        """The leg of the other direction."""
        return self.reply if leg is self.original else self.original


class FlowTable:
    """All flows and mappings. `on_end` is told of each flow that ends, after it is out of the table."""

    def __init__(self, max_flows: int, on_end: Callable[[Flow], None]) -> None:
        self.max_flows = max_flows
        self._on_end = on_end
        self._count = 0
        self._by_internal: dict[tuple[int, bytes], Mapping] = {}
        self._by_external: dict[tuple[int, bytes], Mapping] = {}
        self._mappings_of: Counter[bytes] = Counter()
        self._contacts: Counter[tuple[int, bytes]] | None = None
        self.inbound_refreshes = True
        # A slot is a dict used as an ordered set: flows leave it at once when they end or move, and expire in a fixed order.
        self._wheel: dict[int, dict[Flow, None]] = {}
        self._next_slot: int | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def full(self) -> bool:
        return self._count >= self.max_flows

    def last(self, flow: Flow) -> float:
        """When a flow last carried a packet that keeps it alive."""
        if self.inbound_refreshes or flow.protocol != UDP:
            return max(flow.original.last, flow.reply.last)
        return flow.inner.last

    def mapping_for(self, protocol: int, internal: bytes, scope: bytes) -> Mapping | None:
        """The mapping of an internal endpoint towards the remotes of a scope."""
        return self._by_internal.get((protocol, internal + scope))

    def mapping_at(self, protocol: int, external: bytes) -> Mapping | None:
        """Whose an external endpoint is; None for one that is free, or that several share."""
        return self._by_external.get((protocol, external))

    def mappings_of(self, address: bytes) -> int:
        """How many mappings an internal address has."""
        return self._mappings_of[address]

    def add_mapping(self, mapping: Mapping) -> None:
        self._by_internal[mapping.protocol, mapping.internal + mapping.scope] = mapping
        self._mappings_of[mapping.internal[:-2]] += 1
        if not mapping.shared:
            self._by_external[mapping.protocol, mapping.external] = mapping

    def drop_mapping(self, mapping: Mapping) -> None:
        if self._by_internal.pop((mapping.protocol, mapping.internal + mapping.scope), None) is None:
            return
        address = mapping.internal[:-2]
        self._mappings_of[address] -= 1
        if not self._mappings_of[address]:
            del self._mappings_of[address]
        if not mapping.shared:
            del self._by_external[mapping.protocol, mapping.external]

    def track_contacts(self, wanted: bool) -> None:
        """Whether to remember which remote addresses each mapping was used towards: only address-dependent filtering asks."""
        if not wanted:
            self._contacts = None
        elif self._contacts is None:
            self._contacts = Counter(contact for flow in self if (contact := _contact(flow)) is not None)

    def has_contacted(self, mapping: Mapping, address: bytes) -> bool:
        """Whether a flow that began inside uses the mapping towards a remote address. Needs `track_contacts`."""
        return self._contacts is not None and (mapping.protocol, mapping.external + address) in self._contacts

    def add(self, flow: Flow, now: float) -> None:
        """Enter a flow whose two keys are free, with its timeout set."""
        for leg in (flow.original, flow.reply):
            leg.realm.of(flow.protocol)[leg.key] = leg
            leg.neighbour.flows += 1
        flow.original.last = flow.reply.last = flow.created = now
        contact = None if self._contacts is None else _contact(flow)
        if self._contacts is not None and contact is not None:
            self._contacts[contact] += 1
        if flow.mapping is not None:
            flow.mapping.flows += 1
        self._count += 1
        self._place(flow, now + flow.timeout_s)

    def remove(self, flow: Flow) -> None:
        """Take a flow out, at once. A flow that is out already stays so."""
        if flow.slot < 0:
            return
        self._unplace(flow)
        flow.ended = True
        for leg in (flow.original, flow.reply):
            legs = leg.realm.of(flow.protocol)
            if legs.get(leg.key) is leg:
                del legs[leg.key]
            leg.neighbour.flows -= 1
        self._count -= 1
        contact = None if self._contacts is None else _contact(flow)
        if self._contacts is not None and contact is not None:
            self._contacts[contact] -= 1
            if not self._contacts[contact]:
                del self._contacts[contact]
        if flow.mapping is not None:
            flow.mapping.flows -= 1
        self._on_end(flow)

    def set_neighbour(self, leg: Leg, neighbour: Neighbour[Any]) -> None:
        """Point a leg to another hop."""
        leg.neighbour.flows -= 1
        neighbour.flows += 1
        leg.neighbour = neighbour

    def set_timeout(self, flow: Flow, timeout_s: float, now: float) -> None:
        """Give a flow another idle time. A nearer deadline takes effect at once, a later one when its slot comes up."""
        flow.timeout_s = timeout_s
        deadline = now + timeout_s
        if int(deadline) + 1 < flow.slot:
            self._unplace(flow)
            self._place(flow, deadline)

    def expire(self, now: float) -> int:
        """End the flows that were idle for their time; gives how many. Deadlines are met within a second, never early."""
        ended = 0
        # At first, and after a long pause (a laptop that slept), only slots that exist are visited.
        if self._next_slot is None or now - self._next_slot > len(self._wheel):
            due = sorted(slot for slot in self._wheel if slot <= now)
        else:
            due = list(range(self._next_slot, int(now) + 1))
        self._next_slot = int(now) + 1
        for slot in due:
            for flow in list(self._wheel.get(slot, ())):
                deadline = self.last(flow) + flow.timeout_s
                if deadline <= now:
                    self.remove(flow)
                    ended += 1
                else:
                    self._unplace(flow)
                    self._place(flow, deadline)
        return ended

    def __iter__(self) -> Iterator[Flow]:
        """Every flow once, as the wheel has them."""
        for flows in list(self._wheel.values()):
            yield from list(flows)

    def _place(self, flow: Flow, deadline: float) -> None:
        # The slot after the deadline, so that nothing ends early; never one that has already been visited.
        slot = int(deadline) + 1
        if self._next_slot is not None and slot < self._next_slot:
            slot = self._next_slot
        flow.slot = slot
        self._wheel.setdefault(slot, {})[flow] = None

    def _unplace(self, flow: Flow) -> None:
        flows = self._wheel[flow.slot]
        del flows[flow]
        if not flows:
            del self._wheel[flow.slot]
        flow.slot = -1


def _contact(flow: Flow) -> tuple[int, bytes] | None:
    """Protocol, external endpoint and remote address of a flow that began inside."""
    if flow.kind != "outbound" or flow.mapping is None:
        return None
    return flow.protocol, flow.mapping.external + destination(flow.original.key)
