"""Flows at rest: packed, found, expired and removed as if they were awake, in little memory and unseen by the collector."""

from __future__ import annotations

import gc
import time
import weakref

from natgw.tables.flows import Flow, Mapping, leg_key
from natgw.tables.flowtable import EXPIRE_AT_ONCE, FlowTable
from natgw.wire.ipv4 import TCP, UDP
from tests.unit.flow_lab import EXTERNAL, INTERNAL, REMOTE, Table


def test_a_flow_that_woke_up_is_what_it_was() -> None:
    table = Table()
    mapping = Mapping(UDP, INTERNAL + b"\0\0", EXTERNAL + b"\0\0")
    table.flows.add_mapping(mapping)
    first = table.add(1, 0.0, mapping=mapping)
    first.state = 1
    first.original.packets, first.original.bytes, first.reply.packets, first.reply.last = 7, 700, 3, 1.5
    for number in range(2, 8):
        table.add(number, 10.0 + number)
    key = first.reply.key
    assert key not in table.outside.udp and table.flows.has(table.outside, UDP, key)
    assert len(table.flows) == 7 and table.flows.awake < 7 and table.hop.flows == 14
    found = table.flows.find(table.outside, UDP, key)
    assert found is not None and found is found.flow.reply and table.outside.udp[key] is found
    flow = found.flow
    assert table.woken == [flow] and flow is not first
    for field in ("protocol", "kind", "network", "mapping", "state", "created", "timeout_s"):
        assert getattr(flow, field) == getattr(first, field), field
    for leg, was in ((flow.original, first.original), (flow.reply, first.reply)):
        for field in ("key", "rewrite", "realm", "neighbour", "packets", "bytes", "last"):
            assert getattr(leg, field) == getattr(was, field), field
    assert table.flows.current(first.reply, UDP) is found, "whoever kept the old leg gets the new one"
    table.flows.remove(flow)
    assert table.flows.find(table.outside, UDP, key) is None and table.flows.current(found, UDP) is None


def test_what_is_used_stays_awake() -> None:
    table = Table()
    busy = table.add(1, 0.0)
    for number in range(2, 40):
        now = 2.0 * number
        busy.original.last = now
        table.add(number, now, timeout_s=1000.0)
    assert table.inside.udp[busy.original.key] is busy.original and table.flows.awake <= 4


def test_flows_at_rest_end_in_time_and_give_back_what_they_had() -> None:
    table = Table()
    mapping = Mapping(UDP, INTERNAL + b"\0\0", EXTERNAL + b"\0\0")
    table.flows.add_mapping(mapping)
    table.flows.expire(0.0)
    for number in range(10):
        table.add(number, number * 2.0, timeout_s=30.0, mapping=mapping)
    # One wakes up, is used, and rests again: its reminder comes too early then, and is put off.
    woken = table.flows.find(table.inside, UDP, leg_key(INTERNAL, REMOTE, 0, 0))
    assert woken is not None
    woken.last = 20.0
    for number in range(10, 14):
        table.add(number, 30.0, timeout_s=1000.0)
    for second in range(20, 49):
        table.flows.expire(float(second))
        for flow in table.ended:
            assert max(flow.original.last, flow.reply.last) + 30.0 <= second
    assert [flow.original.key[-1] for flow in table.ended] == list(range(1, 9)), "number 0 was used at 20 seconds"
    for second in range(49, 53):
        table.flows.expire(float(second))
    assert sorted(flow.original.key[-1] for flow in table.ended) == list(range(10))
    assert (mapping.flows, table.hop.flows, len(table.flows)) == (0, 8, 4)


def test_each_is_listed_once_and_can_be_removed_while_it_rests() -> None:
    table = Table()
    for number in range(50):
        table.add(number, number * 2.0, timeout_s=7440.0)
    assert sorted(flow.original.key for flow in table.flows) == [leg_key(INTERNAL, REMOTE, 0, number) for number in range(50)]
    for flow in table.flows:
        table.flows.remove(flow)
        table.flows.remove(flow)
    assert (len(table.flows), len(table.ended), table.hop.flows, list(table.flows)) == (0, 50, 0, [])
    assert not table.flows.has(table.outside, UDP, leg_key(REMOTE, EXTERNAL, 7, 0))
    assert table.flows.find(table.outside, TCP, leg_key(REMOTE, EXTERNAL, 7, 0)) is None


def test_what_is_no_mirror_image_stays_awake() -> None:
    table = Table()
    odd = table.make(1, None)
    odd.reply.rewrite = bytes(36)
    odd.timeout_s = 1000.0
    table.flows.add(odd, 0.0)
    for number in range(2, 20):
        table.add(number, number * 5.0, timeout_s=1000.0)
    assert table.inside.udp[odd.original.key] is odd.original


def test_very_many_that_are_due_at_once_end_in_portions() -> None:
    table = Table()
    table.flows.expire(0.0)
    for number in range(1000):
        table.add(number, 1.0 + number / 1000, timeout_s=30.0)
    for _ in range(100):
        assert table.flows.expire(40.0) <= EXPIRE_AT_ONCE
        if not table.flows.behind:
            break
    assert len(table.flows) == 0 and len(table.ended) == 1000


def test_expiry_looks_at_no_flow_but_those_that_are_due() -> None:
    looked_at = 0

    class Watched(FlowTable):
        def last(self, flow: Flow) -> float:
            nonlocal looked_at
            looked_at += 1
            return super().last(flow)

    table = Table(100, Watched)
    table.flows.expire(0.0)
    for number in range(5000):
        table.add(number, number / 1000, timeout_s=7440.0 if number % 50 else 30.0)
    assert table.flows.awake < 5000
    looked_at = 0
    for second in range(6, 100):
        table.flows.expire(float(second))
    assert (len(table.ended), looked_at) == (100, 100)


def test_flows_leave_no_cycles() -> None:
    class Weak(Flow):
        __slots__ = ("__weakref__",)

    gc.collect()
    gc.disable()
    try:
        table = Table()
        seen = []
        for number in range(8):
            made = table.make(number, None)
            flow = Weak(UDP, made.original, made.reply, None, "n", "outbound")
            flow.timeout_s = 30.0
            table.flows.add(flow, number * 5.0)
            seen.append(weakref.ref(flow))
            del made, flow
        rested = sum(ref() is None for ref in seen)
        assert rested >= 5, "those at rest are gone as objects"
        for each in list(table.flows):
            table.flows.remove(each)
        table.ended.clear()
        del each
        assert all(ref() is None for ref in seen)
    finally:
        gc.enable()


def test_a_hundred_thousand_flows_are_small_and_the_collector_does_not_see_them() -> None:
    table = Table(max_awake=1000)
    number = 0

    def fill(count: int) -> None:
        nonlocal number
        for _ in range(count):
            table.add(number, number / 1000, timeout_s=7440.0)
            number += 1

    fill(5000)
    gc.collect()
    before = len(gc.get_objects())
    fill(95_000)
    gc.collect()
    assert len(gc.get_objects()) - before < 1000
    began = time.process_time()
    gc.collect()
    assert time.process_time() - began < 0.5, "seconds of processor time for a whole collection"
