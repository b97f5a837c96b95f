"""Flows at rest alone: what a record keeps, when it is reminded of, and what it costs."""

from __future__ import annotations

import tracemalloc
import weakref

import pytest

from natgw.tables.flows import AT_REST, NOTHING_ACKNOWLEDGED, NOWHERE, RESTING, Flow, Leg, Realm
from natgw.tables.neigh import Neighbour
from natgw.tables.resting import RestingFlows
from natgw.wire.ipv4 import TCP, UDP
from tests.unit.flow_lab import Table


def nobodys_mapping(way: int, flow: Flow) -> None:
    """For flows that have none."""


def resting() -> RestingFlows:
    return RestingFlows(nobodys_mapping)


def wake(records: RestingFlows, leg: Leg, protocol: int = UDP) -> Flow:
    """What a packet wakes that arrives by this leg."""
    flow = records.wake(leg.realm, protocol, leg.key)
    assert flow is not None
    return flow


# -- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("T6")
@pytest.mark.parametrize("ours", [(NOTHING_ACKNOWLEDGED, 0, 0), (0, 65535, 0), (0xFFFFFFFF, 1, 14), (1, 512, 7)])
@pytest.mark.parametrize("theirs", [(NOTHING_ACKNOWLEDGED, 29200, 7), (0x80000000, 0, 1)])
def test_both_windows_of_tcp_are_kept(ours: tuple[int, int, int], theirs: tuple[int, int, int]) -> None:
    records, flow = resting(), Table().make(1, protocol=TCP)
    for leg, window in ((flow.original, ours), (flow.reply, theirs)):
        leg.ack, leg.window, leg.window_scale = window
    assert records.rest(flow, 10, NOWHERE, 0)
    woken = wake(records, flow.reply, TCP)
    assert [(leg.ack, leg.window, leg.window_scale) for leg in (woken.original, woken.reply)] == [ours, theirs]


def test_what_differs_between_flows_is_not_mixed_up() -> None:
    table, records = Table(), resting()
    flows = [table.make(number, protocol=protocol) for number, protocol in enumerate([UDP, TCP, UDP, TCP, 47, UDP])]
    for number, flow in enumerate(flows):
        flow.network, flow.state = f"n{number % 3}", (number + 1) % 6
    for _ in range(3):
        for flow in flows:
            assert records.rest(flow, 10, NOWHERE, 0)
        assert len(records) == 6
        for number in (3, 0, 5, 1, 4, 2):
            flow = flows[number]
            woken = wake(records, flow.reply if number % 2 else flow.original, flow.protocol)
            assert (woken.protocol, woken.network, woken.state, woken.original.key) == (
                flow.protocol, flow.network, flow.state, flow.original.key)
            flows[number] = woken
        assert len(records) == 0


def test_a_record_can_be_taken_out_once() -> None:
    records, flow = resting(), Table().make(1)
    assert records.rest(flow, 10, NOWHERE, 0)
    copies = [*records, *records]
    assert {each.slot for each in (flow, *copies)} == {AT_REST} and flow.original.flow is flow.reply.flow is RESTING
    assert [records.forget(each) for each in (*copies, flow)] == [True, False, False] and len(records) == 0


def test_more_packets_than_a_record_has_room_for_keep_a_flow_awake() -> None:
    records, flow = resting(), Table().make(1)
    hops = [weakref.ref(hop) for hop in own_hops(flow)]
    flow.original.packets = 1 << 32
    assert not records.rest(flow, 10, NOWHERE, 0)
    assert flow.slot != AT_REST and len(records) == 0 and records.slots() == []
    assert not records.has(flow.original.realm, UDP, flow.original.key)
    own_hops(flow)
    assert [hop() for hop in hops] == [None, None], "nothing has happened"


# -- what many have in common ----------------------------------------------------------------------------------------


class WeakHop(Neighbour[str]):
    """A neighbour that one can see go."""

    __slots__ = ("__weakref__",)


def own_hops(flow: Flow) -> list[WeakHop]:
    """Give a flow two neighbours that no other has."""
    hops = [WeakHop(b"\1\2\3\4", 0.0), WeakHop(b"\5\6\7\10", 0.0)]
    flow.original.neighbour, flow.reply.neighbour = hops
    return hops


def test_neighbours_are_kept_as_long_as_a_flow_at_rest_leads_there() -> None:
    table, records = Table(), resting()
    for _ in range(3):
        flows = [table.make(number) for number in range(4)]
        hops = own_hops(flows[0])
        for flow in flows[1:3]:
            flow.original.neighbour, flow.reply.neighbour = hops
        seen = [weakref.ref(hop) for hop in hops]
        keys = [flow.original.key for flow in flows]
        for flow in flows:
            assert records.rest(flow, 10, NOWHERE, 0)
        del flows, flow, hops
        for left in (2, 1, 0):
            assert None not in [hop() for hop in seen]
            woken = records.wake(table.inside, UDP, keys[left])
            assert woken is not None and [woken.original.neighbour, woken.reply.neighbour] == [hop() for hop in seen]
            own_hops(woken)
        assert [hop() for hop in seen] == [None, None]
        assert records.wake(table.inside, UDP, keys[3]) is not None


def test_there_is_room_for_so_many_sides_and_not_for_more() -> None:
    records = resting()
    for _ in range(128):
        last = Table().make(1)
        for last.protocol in range(256):
            assert records.rest(last, 10, NOWHERE, 0)
    further = Table().make(1)
    assert not records.rest(further, 10, NOWHERE, 0)
    assert further.slot == NOWHERE and len(records) == 1 << 15
    assert wake(records, last.reply, 255).original.key == last.original.key
    assert not records.has(Realm(), UDP, further.original.key)


def test_no_flow_that_goes_to_rest_has_to_wait_for_a_large_table_to_grow() -> None:
    table, records = Table(), resting()
    flows = [table.make(number) for number in range(3000)]
    most = 0
    tracemalloc.start()
    try:
        for number, flow in enumerate(flows):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            assert records.rest(flow, number // 100, NOWHERE, 0)
            most = max(most, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    assert most < 50_000, "bytes; one table of 6,000 entries would be copied into some 300,000"


# -- reminders -------------------------------------------------------------------------------------------------------


def due(records: RestingFlows, slot: int) -> list[bytes]:
    """The keys of the flows that a second reminds of."""
    flows, more = records.due(slot, 100)
    assert not more
    return [flow.original.key for flow in flows]


def test_one_that_wakes_and_rests_all_the_time_leaves_no_trail() -> None:
    records, flow = resting(), Table().make(1)
    for slot in (10, 10, 11, 12, 25):
        assert records.rest(flow, slot, 9, 0)
        assert records.slots() == [10], "a reminder that comes too early serves"
        flow = wake(records, flow.original)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(2000):
            records.rest(flow, 10, 9, 0)
            flow = wake(records, flow.original)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4000, "bytes; a reminder each time would be four times as many"


@pytest.mark.parametrize(("after", "reminder"), [(9, 10), (10, 20), (11, 20)])
def test_a_reminder_serves_again_unless_it_has_come_to_nothing(after: int, reminder: int) -> None:
    records, flow = resting(), Table().make(1)
    assert records.rest(flow, 10, NOWHERE, 0)
    flow = wake(records, flow.original)
    if after >= 10:
        assert due(records, 10) == [], "it is awake"
    assert records.rest(flow, 20, after, 0)
    assert records.slots() == [reminder] and due(records, reminder) == [flow.original.key]


def test_a_reminder_that_is_too_late_does_not_serve() -> None:
    records, flow = resting(), Table().make(1)
    assert records.rest(flow, 20, NOWHERE, 0)
    flow = wake(records, flow.original)
    assert records.rest(flow, 10, NOWHERE, 0)
    assert due(records, 10) == [flow.original.key]
    records.put_off(flow, 15)
    assert due(records, 20) == [] and due(records, 15) == [flow.original.key]


@pytest.mark.parametrize("by", ["original", "reply"])
def test_who_was_put_off_is_reminded_of_then_whichever_leg_it_wakes_by(by: str) -> None:
    records, flow = resting(), Table().make(1)
    assert records.rest(flow, 10, NOWHERE, 0)
    assert due(records, 10) == [flow.original.key]
    records.put_off(flow, 20)
    flow = wake(records, getattr(flow, by))
    assert records.rest(flow, 30, 10, 0)
    assert records.slots() == [20], "no second reminder"
    assert due(records, 20) == [flow.original.key]


def test_seconds_of_the_years_after_2038_are_seconds() -> None:
    records, flow = resting(), Table().make(1)
    assert records.rest(flow, (1 << 31) + 10, 1 << 31, 0)
    assert due(records, (1 << 31) + 10) == [flow.original.key]
    records.put_off(flow, (1 << 31) + 20)
    assert due(records, (1 << 31) + 10) == [] and due(records, (1 << 31) + 20) == [flow.original.key]


def test_so_many_reminders_at_a_time() -> None:
    table, records = Table(), resting()
    flows = [table.make(number) for number in range(7)]
    for flow in flows:
        assert records.rest(flow, 10, NOWHERE, 0)
    listed: list[bytes] = []
    for more in (True, True, False):
        some, said = records.due(10, 3)
        assert said is more and len(some) == (3 if more else 1)
        listed += [flow.original.key for flow in some]
    assert listed == [flow.original.key for flow in flows]
    assert records.due(10, 3) == ([], False)


def test_flows_can_be_listed_while_seconds_pass() -> None:
    table, records = Table(), resting()
    for number in range(4):
        assert records.rest(table.make(number), 10 + number, NOWHERE, 0)
    listing = iter(records)
    assert next(listing).original.key == table.make(0).original.key
    assert due(records, 11) == [table.make(1).original.key]
    assert [flow.original.key for flow in listing] == [table.make(number).original.key for number in (2, 3)]
