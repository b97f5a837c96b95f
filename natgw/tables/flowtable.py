"""All flows and mappings: who is found by what, who is idle for too long, and who may rest.

Expiry is a wheel of one-second slots. A flow lies in the slot of its deadline; traffic only notes the time on its leg, and
when the slot comes up the flow is either idle (and ends) or moves on to the slot of its new deadline. So a packet costs
one assignment, and a second costs as much as flows are due in it, however large the table is. When very many are due at
once, they end in portions, and frames go on between them.

At most some ten thousand flows are *awake*, as objects with everything at hand; of more, those longest unused *rest* as a
record of bytes each (`natgw.tables.resting`) until a packet asks for them. It is the second-chance way of paging: flows
stand in a queue; the first in it that has not been used since it was put there goes to rest, one that has goes to the end.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from natgw.tables.flows import AT_REST, ENDED, NOWHERE, Flow, Leg, Mapping, Realm, destination
from natgw.tables.neigh import Neighbour
from natgw.tables.resting import RestingFlows
from natgw.wire.ipv4 import UDP

MAX_AWAKE = 32768
"""Flows awake, more or less: 40 MB, and what Python's collector has to look at (natgw.host.collector)."""
REST_AFTER_S = 1.0
"""A flow used in the last second stays awake, however many there are: whoever has its leg in hand may go on with it."""
_CANDIDATES = 4
"""How many flows are looked at for each that wakes up or begins, when there are too many."""
EXPIRE_AT_ONCE = 250
"""Flows that end, or are put off, in one go: about a millisecond."""


def _stays(flow: Flow) -> None:
    """For a table whose flows need nothing when they wake up."""


class FlowTable:
    """`on_end` is told of each flow that ends, after it is out of the table; `on_wake` of each that wakes up, before a packet
    goes by it: what a leg computes from its key and rewrite is not kept at rest."""

    def __init__(self, max_flows: int, on_end: Callable[[Flow], None], on_wake: Callable[[Flow], None] = _stays,
                 max_awake: int = MAX_AWAKE) -> None:
        self.max_flows = max_flows
        self.max_awake = max_awake
        self._on_end = on_end
        self._on_wake = on_wake
        self._by_internal: dict[bytes, Mapping] = {}
        self._by_external: dict[bytes, Mapping] = {}
        self._mappings_of: Counter[bytes] = Counter()
        self._contacts: Counter[tuple[int, bytes]] | None = None
        self.inbound_refreshes = True
        self._resting = RestingFlows(self._find_mapping)
        # Flows by when they were last known to be used, the oldest first.
        self._awake: OrderedDict[Flow, float] = OrderedDict()
        self._now = 0.0
        # A slot is a dict used as an ordered set: flows leave it at once when they end or move, and expire in a fixed order.
        self._wheel: dict[int, dict[Flow, None]] = {}
        self._next_slot: int | None = None
        self.behind = False
        """Whether more flows are due than `expire` has ended."""

    def __len__(self) -> int:
        return len(self._awake) + self._resting.count

    @property
    def awake(self) -> int:
        """How many flows are awake."""
        return len(self._awake)

    @property
    def full(self) -> bool:
        return len(self._awake) + self._resting.count >= self.max_flows

    # -- flows ---------------------------------------------------------------------------------------------------------

    def find(self, realm: Realm, protocol: int, key: bytes) -> Leg | None:
        """The leg with this key. Its flow wakes up if it rests. Raises KeyError for a protocol that has no legs."""
        leg = realm.of(protocol).get(key)
        if leg is not None or not self._resting.count:
            return leg
        flow = self._resting.wake(realm, protocol, key)
        if flow is None:
            return None
        self._on_wake(flow)
        self._enter(flow, self.last(flow))
        self._place(flow, self.last(flow) + flow.timeout_s)
        return flow.original if realm is flow.original.realm and key == flow.original.key else flow.reply

    def has(self, realm: Realm, protocol: int, key: bytes) -> bool:
        """Whether there is a leg with this key, awake or not."""
        return key in realm.of(protocol) or (self._resting.count > 0 and self._resting.has(realm, protocol, key))

    def current(self, leg: Leg, protocol: int) -> Leg | None:
        """A leg that was kept for a while, or what has become of it: None if its flow has ended."""
        flow = leg.flow
        if flow.ended:
            return None
        return leg if flow.slot != AT_REST else self.find(leg.realm, protocol, leg.key)

    def last(self, flow: Flow) -> float:
        """When a flow last carried a packet that keeps it alive."""
        if self.inbound_refreshes or flow.protocol != UDP:
            return max(flow.original.last, flow.reply.last)
        return flow.inner.last

    def add(self, flow: Flow, now: float) -> None:
        """Enter a flow whose two keys are free, with its timeout set."""
        self._now = now
        original, reply = flow.original, flow.reply
        original.last = reply.last = flow.created = now
        original.neighbour.flows += 1
        reply.neighbour.flows += 1
        self._enter(flow, now)
        if self._contacts is not None:
            contact = _contact(flow)
            if contact is not None:
                self._contacts[contact] += 1
        if flow.mapping is not None:
            flow.mapping.flows += 1
        self._place(flow, now + flow.timeout_s)

    def remove(self, flow: Flow) -> None:
        """Take a flow out, at once. A flow that is out already stays so."""
        if flow.slot == AT_REST:
            if not self._resting.forget(flow):
                return
            flow.slot = NOWHERE
        elif flow.slot == NOWHERE:
            return
        else:
            self._unplace(flow)
            self._leave(flow)
        flow.ended = True
        for leg in (flow.original, flow.reply):
            leg.neighbour.flows -= 1
        if self._contacts is not None:
            contact = _contact(flow)
            if contact is not None:
                self._contacts[contact] -= 1
                if not self._contacts[contact]:
                    del self._contacts[contact]
        if flow.mapping is not None:
            flow.mapping.flows -= 1
        self._on_end(flow)
        flow.original.flow = flow.reply.flow = ENDED

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

    def __iter__(self) -> Iterator[Flow]:
        """Every flow once, as the wheels have them; those at rest as copies, to look at or to remove."""
        for flows in list(self._wheel.values()):
            yield from list(flows)
        yield from self._resting

    def flows_awake(self) -> list[Flow]:
        """Those that the fast path knows: `max_awake` at most, however many there are at rest."""
        return list(self._awake)

    def _enter(self, flow: Flow, last: float) -> None:
        original, reply, protocol = flow.original, flow.reply, flow.protocol
        original.realm.of(protocol)[original.key] = original
        reply.realm.of(protocol)[reply.key] = reply
        self._awake[flow] = last
        if len(self._awake) > self.max_awake:
            self._make_room()

    def _leave(self, flow: Flow) -> None:
        del self._awake[flow]
        for leg in (flow.original, flow.reply):
            legs = leg.realm.of(flow.protocol)
            if legs.get(leg.key) is leg:
                del legs[leg.key]

    def _make_room(self) -> None:
        """Let the flow longest unused rest, if it is among the first ones of the queue."""
        for _ in range(_CANDIDATES):
            flow, used = self._awake.popitem(last=False)
            last = self.last(flow)
            if last > used or self._now - last < REST_AFTER_S or flow.slot < 0 or not self._rest(flow, last):
                self._awake[flow] = last
            elif len(self._awake) <= self.max_awake:
                return

    def _rest(self, flow: Flow, last: float) -> bool:
        way = self._way_to_mapping(flow)
        after = NOWHERE if self._next_slot is None else self._next_slot
        slot = flow.slot
        if way is None or not self._resting.rest(flow, self._slot_of(last + flow.timeout_s), after, way):
            return False
        flow.slot = slot
        self._unplace(flow)
        flow.slot = AT_REST
        for leg in (flow.original, flow.reply):
            del leg.realm.of(flow.protocol)[leg.key]
        return True

    # -- expiry --------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> int:
        """End flows that were idle for their time; gives how many. Deadlines are met within a second, never early.

        After EXPIRE_AT_ONCE of them it is `behind`, and wants to be called again soon.
        """
        self._now = now
        ended, left = 0, EXPIRE_AT_ONCE
        for slot in self._due_slots(now):
            self._next_slot = slot
            for flow in list(self._wheel.get(slot, ())):
                if not left:
                    self.behind = True
                    return ended
                left -= 1
                ended += self._judge(flow, now)
            more = True
            while more:
                if not left:
                    self.behind = True
                    return ended
                flows, more = self._resting.due(slot, left)
                left -= len(flows)
                for flow in flows:
                    ended += self._judge(flow, now)
        self.behind = False
        self._next_slot = int(now) + 1
        return ended

    def _due_slots(self, now: float) -> list[int]:
        # At first, and after a long pause (a laptop that slept), only slots that exist are visited.
        known = len(self._wheel) + len(self._resting.slots())
        if self._next_slot is None or now - self._next_slot > known:
            return sorted(slot for slot in {*self._wheel, *self._resting.slots()} if slot <= now)
        return list(range(self._next_slot, int(now) + 1))

    def _judge(self, flow: Flow, now: float) -> bool:
        """End a flow whose slot has come up if its time is over, else move it on."""
        deadline = self.last(flow) + flow.timeout_s
        if deadline <= now:
            self.remove(flow)
            return True
        if flow.slot == AT_REST:
            self._resting.put_off(flow, self._slot_of(deadline))
        else:
            self._unplace(flow)
            self._place(flow, deadline)
        return False

    def _slot_of(self, deadline: float) -> int:
        # The slot after the deadline, so that nothing ends early; never one that has already been visited.
        slot = int(deadline) + 1
        return slot if self._next_slot is None else max(slot, self._next_slot)

    def _place(self, flow: Flow, deadline: float) -> None:
        flow.slot = slot = self._slot_of(deadline)
        flows = self._wheel.get(slot)
        if flows is None:
            flows = self._wheel[slot] = {}
        flows[flow] = None

    def _unplace(self, flow: Flow) -> None:
        flows = self._wheel[flow.slot]
        del flows[flow]
        if not flows:
            del self._wheel[flow.slot]
        flow.slot = NOWHERE

    # -- mappings ------------------------------------------------------------------------------------------------------

    def mapping_for(self, protocol: int, internal: bytes, scope: bytes) -> Mapping | None:
        """The mapping of an internal endpoint towards the remotes of a scope."""
        return self._by_internal.get(_name(protocol, internal + scope))

    def mapping_at(self, protocol: int, external: bytes) -> Mapping | None:
        """Whose an external endpoint is; None for one that is free, or that several share."""
        return self._by_external.get(_name(protocol, external))

    def mappings_of(self, address: bytes) -> int:
        """How many mappings an internal address has."""
        return self._mappings_of[address]

    def add_mapping(self, mapping: Mapping) -> None:
        self._by_internal[_name(mapping.protocol, mapping.internal + mapping.scope)] = mapping
        self._mappings_of[mapping.internal[:-2]] += 1
        if not mapping.shared:
            self._by_external[_name(mapping.protocol, mapping.external)] = mapping

    def drop_mapping(self, mapping: Mapping) -> None:
        if self._by_internal.pop(_name(mapping.protocol, mapping.internal + mapping.scope), None) is None:
            return
        address = mapping.internal[:-2]
        self._mappings_of[address] -= 1
        if not self._mappings_of[address]:
            del self._mappings_of[address]
        if not mapping.shared:
            del self._by_external[_name(mapping.protocol, mapping.external)]

    def _way_to_mapping(self, flow: Flow) -> int | None:
        """Which of the ways leads to a flow's mapping; None: none does."""
        if flow.mapping is None:
            return 0
        for way in range(1, 5):
            if self._find_mapping(way, flow) is flow.mapping:
                return way
        return None

    def _find_mapping(self, way: int, flow: Flow) -> Mapping | None:
        if way == 0:
            return None
        key, rewrite, outbound = flow.original.key, flow.original.rewrite, flow.kind == "outbound"
        middle = len(key) - 4 >> 1
        if way == 1:
            external = rewrite[:middle] + rewrite[-4:-2] if outbound else key[middle:-4] + key[-2:]
            return self.mapping_at(flow.protocol, external)
        internal = key[:middle] + key[-4:-2] if outbound else rewrite[middle:-4] + rewrite[-2:]
        remote = key[middle:-4] + key[-2:] if outbound else key[:middle] + key[-4:-2]
        scopes = (b"", remote[:-2], remote)
        return self.mapping_for(flow.protocol, internal, scopes[way - 2])

    def track_contacts(self, wanted: bool) -> None:
        """Whether to remember which remote addresses each mapping was used towards: only address-dependent filtering asks."""
        if not wanted:
            self._contacts = None
        elif self._contacts is None:
            self._contacts = Counter(contact for flow in self if (contact := _contact(flow)) is not None)

    def has_contacted(self, mapping: Mapping, address: bytes) -> bool:
        """Whether a flow that began inside uses the mapping towards a remote address. Needs `track_contacts`."""
        return self._contacts is not None and (mapping.protocol, mapping.external + address) in self._contacts


def _name(protocol: int, endpoint: bytes) -> bytes:
    return bytes((protocol,)) + endpoint


def _contact(flow: Flow) -> tuple[int, bytes] | None:
    """Protocol, external endpoint and remote address of a flow that began inside."""
    if flow.kind != "outbound" or flow.mapping is None:
        return None
    return flow.protocol, flow.mapping.external + destination(flow.original.key)
