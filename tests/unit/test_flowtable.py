"""The table of flows alone: who is found by what, who stays awake, and who ends when."""

from __future__ import annotations

import pytest

from natgw.tables.flows import Flow
from natgw.tables.flowtable import EXPIRE_AT_ONCE, REST_AFTER_S, FlowTable
from natgw.tables.neigh import Neighbour
from natgw.wire.ipv4 import TCP, UDP
from tests.unit.flow_lab import EXTERNAL, INTERNAL, REMOTE, Table

# -- legs and flows --------------------------------------------------------------------------------------------------


def test_a_key_is_there_as_long_as_its_flow_awake_or_not() -> None:
    table = Table()
    flow = table.add(1, 0.0, timeout_s=1000.0)
    legs = [(leg.realm, leg.key) for leg in (flow.original, flow.reply)]

    def there(protocol: int) -> list[bool]:
        return [table.flows.has(realm, protocol, key) for realm, key in legs]

    assert there(UDP) == [True, True] and there(TCP) == [False, False]
    for number in (2, 3):
        table.add(number, number * 10.0, timeout_s=1000.0)
    assert (table.is_awake(flow), table.flows.awake, len(table.flows)) == (False, 2, 3), "it is the only one that rests"
    assert there(UDP) == [True, True] and there(TCP) == [False, False]
    table.flows.remove(table.wake(flow))
    assert there(UDP) == [False, False]


def test_each_leg_is_found_by_its_own_key_where_both_arrive_on_one_side() -> None:
    table = Table()
    table.outside = table.inside
    flow = table.add(1, 0.0, timeout_s=1000.0)
    table.crowd(10.0)
    found = table.flows.find(table.inside, UDP, flow.reply.key)
    assert found is not None and found.key == flow.reply.key and found is found.flow.reply
    table.crowd(20.0, first=100)
    found = table.flows.find(table.inside, UDP, flow.original.key)
    assert found is not None and found.key == flow.original.key and found is found.flow.original


def test_the_same_bytes_are_another_leg_on_the_other_side() -> None:
    table = Table()
    flow = table.between("outbound", INTERNAL + b"\1\1", REMOTE + b"\1\2", INTERNAL + b"\1\2", None)
    flow.reply.key = flow.original.key
    flow.original.rewrite = flow.original.key[4:8] + flow.original.key[:4] + flow.original.key[10:] + flow.original.key[8:10]
    table.enter(flow, 0.0, 1000.0)
    table.crowd(10.0)
    assert not table.is_awake(flow)
    found = table.flows.find(table.outside, UDP, flow.original.key)
    assert found is not None and found is found.flow.reply and found.realm is table.outside


def test_a_flow_says_that_it_has_ended() -> None:
    table = Table()
    flow = table.add(1, 0.0)
    leg = flow.original
    assert (flow.ended, table.flows.current(leg, UDP)) == (False, leg)
    table.flows.remove(flow)
    assert (flow.ended, table.flows.current(leg, UDP)) == (True, None)


def test_whoever_has_kept_a_flow_that_rests_now_can_remove_it() -> None:
    table = Table()
    flow = table.add(1, 0.0, timeout_s=1000.0)
    table.crowd(10.0)
    assert not table.is_awake(flow)
    copies = [next(each for each in table.flows if each.original.key == flow.original.key) for _ in range(2)]
    for each in (flow, *copies):
        table.flows.remove(each)
    assert table.ended == [flow] and len(table.flows) == 8
    assert table.hop.flows == 16


def test_hops_count_the_legs_that_lead_there() -> None:
    table = Table()
    flows = [table.add(number, 0.0) for number in range(3)]
    other: Neighbour[str] = Neighbour(INTERNAL, 0.0)
    for left, flow in zip((5, 4, 3), flows, strict=True):
        table.flows.set_neighbour(flow.reply, other)
        assert (table.hop.flows, other.flows) == (left, 6 - left)
    for flow in flows:
        table.flows.remove(flow)
    assert (table.hop.flows, other.flows) == (0, 0)


@pytest.mark.requirement("U6")
@pytest.mark.parametrize(("protocol", "kind", "refreshes"), [
    (UDP, "outbound", False), (UDP, "inbound", False), (UDP, "outbound", True), (TCP, "outbound", False)])
def test_packets_from_outside_keep_a_flow_of_udp_only_if_they_may(protocol: int, kind: str, refreshes: bool) -> None:
    table = Table()
    table.flows.inbound_refreshes = refreshes
    flow = table.between(kind, INTERNAL + b"\1\1", EXTERNAL + b"\1\2", REMOTE + b"\1\3", None)
    flow.protocol = protocol
    table.enter(flow, 0.0)
    flow.other(flow.inner).last = 20.0
    assert table.flows.last(flow) == (0.0 if protocol == UDP and not refreshes else 20.0)
    flow.inner.last = 10.0
    assert table.flows.last(flow) == (10.0 if protocol == UDP and not refreshes else 20.0)
    flow.inner.last = 25.0
    assert table.flows.last(flow) == 25.0


# -- who stays awake -------------------------------------------------------------------------------------------------


def test_as_many_stay_awake_as_may_and_no_fewer() -> None:
    table = Table(max_awake=4)
    awake = []
    for number in range(10):
        table.add(number, number * 10.0, timeout_s=1000.0)
        awake.append(table.flows.awake)
    assert awake == [1, 2, 3, 4, 4, 4, 4, 4, 4, 4] and len(table.flows) == 10


def test_a_flow_used_since_it_was_queued_has_a_second_chance() -> None:
    table = Table()
    used, unused = table.add(1, 0.0, timeout_s=1000.0), table.add(2, 1.0, timeout_s=1000.0)
    used.reply.last = 5.0
    newest = table.add(3, 10.0, timeout_s=1000.0)
    assert [table.is_awake(flow) for flow in (used, unused, newest)] == [True, False, True]
    table.add(4, 20.0, timeout_s=1000.0)
    assert [table.is_awake(flow) for flow in (used, unused, newest)] == [True, False, False], "it is the last of the queue now"


def test_a_flow_used_in_the_last_second_stays_awake_however_many_there_are() -> None:
    table = Table()
    flows = [table.add(number, 100.0 + number / 4, timeout_s=1000.0) for number in range(4)]
    assert table.flows.awake == 4
    table.add(4, 100.0 + REST_AFTER_S, timeout_s=1000.0)
    assert [table.is_awake(flow) for flow in flows] == [False, True, True, True], "a second after it was used, one may rest"


def test_after_a_burst_the_number_awake_comes_down_again() -> None:
    table = Table()
    table.crowd(100.0, count=100)
    assert table.flows.awake == 100
    for number in range(100):
        table.add(number, 102.0 + number, timeout_s=1000.0)
    assert table.flows.awake == 2


def test_what_wakes_up_makes_others_rest_by_the_time_it_is_then() -> None:
    table = Table()
    flows = [table.add(number, number / 4, timeout_s=1000.0) for number in range(4)]
    table.flows.expire(1.25)
    table.add(4, 1.25, timeout_s=1000.0)
    assert [table.is_awake(flow) for flow in flows] == [False, False, True, True]
    table.flows.expire(60.0)
    woken = table.wake(flows[0])
    assert table.is_awake(woken) and table.flows.awake == 2


# -- who ends when ---------------------------------------------------------------------------------------------------


def test_a_flow_that_was_idle_for_exactly_its_time_ends() -> None:
    table = Table()
    table.flows.expire(0.0)
    flow = table.add(1, 0.0)
    flow.original.last = 1.0
    for second in range(1, 31):
        table.flows.expire(float(second))
    assert not table.ended
    assert table.flows.expire(31.0) == 1 and table.ended == [flow]


def test_a_deadline_nearer_by_a_second_counts() -> None:
    table = Table()
    table.flows.expire(0.0)
    flow = table.add(1, 0.0)
    table.flows.set_timeout(flow, 29.0, 0.0)
    assert [table.flows.expire(float(second)) for second in range(28, 31)] == [0, 0, 1]


def test_a_deadline_that_is_not_nearer_moves_nothing() -> None:
    table = Table(max_awake=8)
    first, second = table.add(1, 0.0), table.add(2, 0.0)
    slot = first.slot
    for timeout_s in (30.0, 30.9, 31.0, 31.9, 7440.0):
        table.flows.set_timeout(first, timeout_s, 0.0)
        assert first.slot == slot and list(table.flows) == [first, second]


def test_nobody_looks_at_a_flow_before_its_time_because_it_woke_up_or_has_longer() -> None:
    looked_at = 0

    class Watched(FlowTable):
        def last(self, flow: Flow) -> float:
            nonlocal looked_at
            looked_at += 1
            return super().last(flow)

    table = Table(kind=Watched)
    table.flows.expire(0.0)
    longer = table.add(1, 0.0, timeout_s=100.0)
    woken = table.add(2, 0.0, timeout_s=100.0)
    table.add(3, 10.0, timeout_s=1000.0)
    table.flows.set_timeout(table.wake(longer), 500.0, 10.0)
    table.add(4, 20.0, timeout_s=1000.0)
    table.wake(woken)
    looked_at = 0
    for second in range(21, 101):
        table.flows.expire(float(second))
    assert looked_at == 0
    table.flows.expire(101.0)
    assert len(table.ended) == 1


def test_what_is_due_at_once_ends_in_portions_awake_or_at_rest() -> None:
    awake, resting = Table(max_awake=1000), Table()
    assert awake.flows.behind is False
    for number in range(300):
        awake.add(number, 1.0)
    for number in range(600):
        resting.add(number, 2.0 * number, timeout_s=2000.0 + number // 300 - 2.0 * number)
    assert resting.flows.awake == 2
    assert EXPIRE_AT_ONCE == 250
    for table, portions in ((awake, (250, 50)), (resting, (250, 250, 100))):
        table.flows.expire(20.0)
        for portion in portions:
            assert table.flows.expire(3000.0) == portion
            assert table.flows.behind is (len(table.flows) > 0)
        assert len(table.ended) == sum(portions)


@pytest.mark.parametrize("rests_again", [31, 40], ids=["then", "later"])
def test_a_flow_that_was_awake_when_it_was_to_be_reminded_of_ends_all_the_same(rests_again: int) -> None:
    table = Table()
    table.flows.expire(0.0)
    flow = table.add(1, 0.0)
    table.crowd(5.0)
    assert not table.is_awake(flow)
    woken = table.wake(flow)
    woken.original.last = 20.0
    for second in range(5, rests_again + 1):
        table.flows.expire(float(second))
    assert table.is_awake(woken)
    table.crowd(float(rests_again), first=100)
    assert not table.is_awake(woken)
    for second in range(rests_again + 1, 52):
        assert table.flows.expire(float(second)) == (second == 51)
    (ended,) = table.ended
    assert ended.original.key == flow.original.key


def test_so_does_one_that_goes_to_rest_while_the_table_is_behind() -> None:
    table = Table()
    table.flows.expire(0.0)
    flow = table.add(1, 0.0)
    for number in range(300):
        table.add(1000 + number, 10.0, timeout_s=60.0)
    woken = table.wake(flow)
    for second in range(11, 71):
        woken.original.last = min(float(second), 60.0)
        table.flows.expire(float(second))
    table.flows.expire(71.0)
    assert table.flows.behind and table.is_awake(woken)
    table.crowd(71.0, count=30)
    assert not table.is_awake(woken)
    for second in range(71, 92):
        table.flows.expire(float(second))
    assert woken.original.key in {ended.original.key for ended in table.ended} and len(table.ended) == 301


def test_a_flow_that_only_packets_from_outside_kept_ends_soon_once_they_do_not_count() -> None:
    table = Table()
    table.flows.expire(0.0)
    flow = table.add(1, 0.0)
    for second in range(1, 101):
        flow.reply.last = float(second)
        table.flows.expire(float(second))
    table.flows.inbound_refreshes = False
    table.crowd(101.0)
    assert not table.is_awake(flow)
    assert [table.flows.expire(float(second)) for second in range(101, 103)] == [1, 0]


def test_how_far_from_zero_the_clock_is_costs_nothing() -> None:
    table = Table()
    began = 1e15
    table.flows.expire(began)
    table.add(1, began)
    assert [table.flows.expire(began + second) for second in (1, 2, 30, 31)] == [0, 0, 0, 1]
    table.add(1, began + 31)
    assert table.flows.expire(2 * began) == 1
