"""Flows at rest: what is left of a flow that has not been used for a while, packed into some bytes.

A flow that packets go by is three objects with a field for everything the fast path asks for, more than a kilobyte. Most
flows of a large table are not asked for anything: they wait for their time to be over. So when there are more than a bounded
number of flows awake, those longest unused are packed into one record each, and are made whole again by the first packet:

    record   how it goes | state | slot | created | timeout | lasts | packets | bytes | windows | key | rewrite
              number of a `_Way`                              of both legs, original first         of the original

What the reply leg looks like follows from the original's key and rewrite, and all that many flows have in common (protocol,
network, neighbours, where to find the mapping) is one `_Way`, counted. A flow that does not fit this (a reply that is not
the mirror image, a mapping that cannot be found again) stays awake.

Records, keys and the tables of them hold bytes only, so that Python's collector does not look at them: a flow at rest costs
no time at all. The tables are many small ones, because a dict that grows is copied in one go: one of a million entries stops
the world for tens of milliseconds, one of some thousands for a tenth of one.

A flow at rest expires by a wheel of reminders. A reminder is a key in the list of a second; the record says which second
counts, so that a reminder that became void is just passed over. A flow that wakes up keeps its reminder, lest one that
wakes and rests all the time leave a trail of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from natgw.tables.flows import AT_REST, NOTHING_ACKNOWLEDGED, NOWHERE, RESTING, Flow, Leg, Mapping, Realm, reversed_key
from natgw.tables.neigh import Neighbour

_RECORD = struct.Struct("=IBI dd dd II QQ IHB IHB")
_NO_ACK = 0x80
"""Beside the window scale: nothing has been acknowledged."""
_MAX_SIDES = 1 << 16
_TABLES = 256
"""A million flows have two million keys, so 8,000 in each table."""

FindMapping = Callable[[int, Flow], Mapping | None]
"""The mapping of a flow by the number of a way to find it; 0 is "none"."""


class _Way(NamedTuple):
    """What many flows have in common."""

    protocol: int
    kind: str
    network: str
    realm: Realm
    reply_realm: Realm
    neighbour: Neighbour[Any]
    reply_neighbour: Neighbour[Any]
    mapping: int


class RestingFlows:
    """The records of flows at rest. `find_mapping(way, flow)` must give what `rest` was told of the same way."""

    def __init__(self, find_mapping: FindMapping) -> None:
        self._find_mapping = find_mapping
        self._tables: list[dict[bytes, bytes]] = [{} for _ in range(_TABLES)]
        self._reminders: dict[int, list[bytes]] = {}
        self._sides: dict[tuple[Realm, int], bytes] = {}
        self._ways: list[_Way | None] = []
        self._users: list[int] = []
        self._number_of: dict[_Way, int] = {}
        self._unused: list[int] = []
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def slots(self) -> list[int]:
        """The seconds that have reminders."""
        return list(self._reminders)

    def has(self, realm: Realm, protocol: int, key: bytes) -> bool:
        """Whether a flow at rest has a leg with this key."""
        return self._record(realm, protocol, key) is not None

    def rest(self, flow: Flow, slot: int, after: int, mapping: int) -> bool:
        """Pack a flow, which is in no table but this from now on, to be reminded of at second `slot`.

        Reminders up to second `after` have come to nothing. `mapping` is the way to find its mapping. False if the flow
        cannot be packed: then nothing has happened.
        """
        original, reply = flow.original, flow.reply
        if (reply.key != reversed_key(original.rewrite) or reply.rewrite != reversed_key(original.key)
                or len(self._sides) + 2 > _MAX_SIDES):
            return False
        if not after < flow.reminder <= slot:
            flow.reminder = NOWHERE
        number = self._use(_Way(flow.protocol, flow.kind, flow.network, original.realm, reply.realm, original.neighbour,
                                reply.neighbour, mapping))
        try:
            head = _RECORD.pack(number, flow.state, slot if flow.reminder == NOWHERE else flow.reminder, flow.created,
                                flow.timeout_s, original.last, reply.last, original.packets, reply.packets, original.bytes,
                                reply.bytes, *_window(original), *_window(reply))
        except struct.error:  # more packets than a record has room for: four thousand million
            self._release(number)
            return False
        record = head + original.key + original.rewrite
        name = self._name(original.realm, flow.protocol, original.key)
        other = self._name(reply.realm, flow.protocol, reply.key)
        self._table(name)[name] = self._table(other)[other] = record
        if flow.reminder == NOWHERE:
            self._reminders.setdefault(slot, []).append(name)
        self.count += 1
        flow.slot = AT_REST
        original.flow = reply.flow = RESTING
        return True

    def wake(self, realm: Realm, protocol: int, key: bytes) -> Flow | None:
        """The flow at rest that has a leg with this key, taken out and whole again but for what its legs compute."""
        record = self._record(realm, protocol, key)
        if record is None:
            return None
        flow = self._whole(record)
        self.forget(flow)
        return flow

    def forget(self, flow: Flow) -> bool:
        """Take the record of a flow out, as `wake` and iteration gave it; False if there is none any more."""
        original, reply = flow.original, flow.reply
        name = self._name(original.realm, flow.protocol, original.key)
        record = self._table(name).pop(name, None)
        if record is None:
            return False
        other = self._name(reply.realm, flow.protocol, reply.key)
        del self._table(other)[other]
        self.count -= 1
        self._release(_RECORD.unpack_from(record)[0])
        return True

    def due(self, slot: int, at_most: int) -> tuple[list[Flow], bool]:
        """The flows that second `slot` reminds of, and whether there may be more: at most so many reminders at a time.

        The flows are copies, whose records stay until they are forgotten or put off.
        """
        names = list(dict.fromkeys(self._reminders.pop(slot, ())))  # two flows that followed each other may have the same
        later = names[at_most:]
        if later:
            self._reminders[slot] = later
            del names[at_most:]
        records = [record for name in names if (record := self._table(name).get(name)) is not None]
        return [self._whole(record) for record in records if _RECORD.unpack_from(record)[2] == slot], bool(later)

    def put_off(self, flow: Flow, slot: int) -> None:
        """Be reminded of a flow that rests on at another second."""
        original, reply = flow.original, flow.reply
        name = self._name(original.realm, flow.protocol, original.key)
        other = self._name(reply.realm, flow.protocol, reply.key)
        table = self._table(name)
        record = bytearray(table[name])
        struct.pack_into("=I", record, 5, slot)
        table[name] = self._table(other)[other] = bytes(record)
        self._reminders.setdefault(slot, []).append(name)

    def __iter__(self) -> Iterator[Flow]:
        """A copy of every flow at rest, to look at or to remove, in the order of the reminders."""
        for slot in list(self._reminders):
            for name in dict.fromkeys(self._reminders.get(slot, ())):
                record = self._table(name).get(name)
                if record is not None and _RECORD.unpack_from(record)[2] == slot:
                    yield self._whole(record)

    # -- records -------------------------------------------------------------------------------------------------------

    def _whole(self, record: bytes) -> Flow:
        (number, state, slot, created, timeout_s, last, reply_last, packets, reply_packets, size, reply_size,
         *windows) = _RECORD.unpack_from(record)
        way = self._ways[number]
        assert way is not None
        middle = (_RECORD.size + len(record)) // 2
        key, rewrite = record[_RECORD.size : middle], record[middle:]
        original = Leg(key, rewrite, way.realm, way.neighbour)
        reply = Leg(reversed_key(rewrite), reversed_key(key), way.reply_realm, way.reply_neighbour)
        original.last, original.packets, original.bytes = last, packets, size
        reply.last, reply.packets, reply.bytes = reply_last, reply_packets, reply_size
        _set_window(original, *windows[:3])
        _set_window(reply, *windows[3:])
        flow = Flow(way.protocol, original, reply, None, way.network, way.kind)
        flow.state, flow.created, flow.timeout_s, flow.slot, flow.reminder = state, created, timeout_s, AT_REST, slot
        flow.mapping = self._find_mapping(way.mapping, flow)
        return flow

    def _record(self, realm: Realm, protocol: int, key: bytes) -> bytes | None:
        if (realm, protocol) not in self._sides:
            return None
        name = self._name(realm, protocol, key)
        return self._table(name).get(name)

    def _name(self, realm: Realm, protocol: int, key: bytes) -> bytes:
        side = self._sides.get((realm, protocol))
        if side is None:
            side = self._sides[realm, protocol] = len(self._sides).to_bytes(2, "big")
        return side + key

    def _table(self, name: bytes) -> dict[bytes, bytes]:
        # Bits that the dict itself does not look at first: it would find only one place in 256 to begin at.
        return self._tables[hash(name) >> 40 & (_TABLES - 1)]

    def _use(self, way: _Way) -> int:
        number = self._number_of.get(way)
        if number is None:
            if self._unused:
                number = self._unused.pop()
                self._ways[number], self._users[number] = way, 0
            else:
                number = len(self._ways)
                self._ways.append(way)
                self._users.append(0)
            self._number_of[way] = number
        self._users[number] += 1
        return number

    def _release(self, number: int) -> None:
        self._users[number] -= 1
        if not self._users[number]:
            way = self._ways[number]
            assert way is not None
            del self._number_of[way]
            self._ways[number] = None
            self._unused.append(number)


def _window(leg: Leg) -> tuple[int, int, int]:
    if leg.ack == NOTHING_ACKNOWLEDGED:
        return 0, leg.window, leg.window_scale | _NO_ACK
    return leg.ack, leg.window, leg.window_scale


def _set_window(leg: Leg, ack: int, window: int, scale: int) -> None:
    leg.ack = NOTHING_ACKNOWLEDGED if scale & _NO_ACK else ack
    leg.window, leg.window_scale = window, scale & ~_NO_ACK
