"""What a pool of ports says at its edges: ranges, ports outside it, rest. test_napt compares it with plain sets."""

from __future__ import annotations

import pytest

from natgw.tables.portpool import PortPool

A, B = b"\x0a\0\0\1", b"\x0a\0\0\2"


def full(low: int, high: int) -> PortPool:
    pool = PortPool(low, high)
    assert all(pool.take(port) for port in range(low, high + 1))
    return pool


@pytest.mark.requirement("U4")
def test_every_port_of_the_range_is_somebodys_once() -> None:
    pool = PortPool(100, 103)
    assert [port in pool for port in (99, 100, 103, 104)] == [False, True, True, False]
    assert pool.free == 4
    for left, port in enumerate((103, 102, 101, 100)):
        assert pool.is_free(port) and not pool.is_taken(port)
        assert pool.take(port) and not pool.take(port)
        assert pool.is_taken(port) and not pool.is_free(port)
        assert pool.free == 3 - left
    pool.release(101)
    pool.release(101)
    assert (pool.free, pool.is_free(101), pool.take(101)) == (1, True, True), "at once, and once"


@pytest.mark.requirement("U4")
def test_a_port_outside_the_range_is_taken_and_given_back_uncounted() -> None:
    """One that is published, or the host's own."""
    pool = PortPool(100, 103)
    for port in (1, 65535):
        assert pool.take(port) and not pool.take(port)
        pool.release(port, owner=A, rest_until=60.0)
        assert pool.is_free(port), "it does not rest"
    assert pool.free == 4


@pytest.mark.requirement("U8")
@pytest.mark.parametrize("step", [1, 2])
def test_the_next_free_port_is_looked_for_round_the_end_and_may_be_none(step: int) -> None:
    pool, ports = full(100, 105), range(100, 106, step)
    for start in range(len(ports)):
        assert pool.next_free(ports, start) is None
        for free in ports:
            pool.release(free)
            assert pool.next_free(ports, start) == free
            pool.take(free)
    pool.release(100)
    pool.release(104)
    assert [pool.next_free(ports, start) for start in range(len(ports))] == [100, *[104] * (4 // step), *[100] * (step == 1)]


@pytest.mark.requirement("C2")
def test_a_port_that_rests_is_its_last_hosts_alone_until_its_time_is_over() -> None:
    pool = full(100, 101)
    pool.release(100, owner=A, rest_until=60.0)
    pool.wake(59.9)
    assert (pool.free, pool.is_free(100), pool.is_taken(100), pool.take(100)) == (0, False, False, False)
    assert pool.next_free(range(100, 102), 0) is None
    assert not pool.take_back(100, B) and not pool.take_back(101, A)
    pool.release(100)
    assert not pool.is_free(100), "what nobody has cannot be given back"
    pool.wake(60.0)
    assert (pool.free, pool.take_back(100, A), pool.take(100)) == (1, False, True)


@pytest.mark.requirement("C2")
def test_a_port_that_was_taken_back_and_rests_again_rests_for_its_new_time() -> None:
    pool = full(100, 100)
    pool.release(100, owner=A, rest_until=10.0)
    assert pool.take_back(100, A) and pool.is_taken(100)
    pool.wake(11.0)
    assert pool.is_taken(100) and pool.free == 0
    pool.release(100, owner=B, rest_until=30.0)
    pool.wake(29.0)
    assert not pool.is_free(100) and not pool.take_back(100, A)
    pool.wake(30.0)
    assert (pool.is_free(100), pool.free) == (True, 1)


@pytest.mark.requirement("C2")
def test_old_and_new_times_of_one_port_come_up_together() -> None:
    pool = full(100, 102)
    for port, until in ((100, 10.0), (101, 20.0), (102, 30.0)):
        pool.release(port, owner=A, rest_until=until)
    assert pool.take_back(100, A)
    pool.release(100, owner=A, rest_until=40.0)
    pool.wake(30.0)
    assert ([pool.is_free(port) for port in (100, 101, 102)], pool.free) == ([False, True, True], 2)
    pool.wake(40.0)
    assert pool.free == 3


@pytest.mark.requirement("C2", "U4")
def test_a_port_that_is_claimed_is_taken_whether_it_was_free_rested_or_lies_outside() -> None:
    pool = full(100, 101)
    pool.release(100, owner=A, rest_until=60.0)
    pool.release(101)
    for port in (100, 101, 99):
        pool.claim(port)
        assert pool.is_taken(port) and not pool.take_back(port, A)
    assert pool.free == 0
    pool.wake(60.0)
    assert pool.is_taken(100) and pool.free == 0, "its rest is nobody's any more"
    pool.release(100)
    assert pool.is_free(100) and pool.free == 1


@pytest.mark.requirement("U4")
def test_claiming_what_somebody_has_changes_nothing() -> None:
    pool = full(100, 100)
    pool.claim(100)
    assert pool.is_taken(100) and pool.free == 0
