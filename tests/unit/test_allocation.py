"""Which port each policy gives, and in which order it looks (requirements U5 and C3)."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from natgw.datapath import allocation
from natgw.datapath.allocation import POLICIES, PortPolicy, PortRequest, Preserve, Random, Sequential, register
from natgw.tables.portpool import PortPool

REQUEST = PortRequest(17, b"\xac\x11\0\x02", 5000, b"\xc6\x33\x64\x02", b"\xcb\x00\x71\x09", 53)
ALL = POLICIES.values()


def policy(make: type[Random | Preserve | Sequential]) -> PortPolicy:
    return make(random.Random(1))


def given(chooser: PortPolicy, pool: PortPool, count: int, request: PortRequest = REQUEST) -> list[int]:
    """The ports that a policy gives one after the other, each taken at once."""
    ports = []
    for _ in range(count):
        port = chooser.choose(request, pool)
        assert port is not None and pool.take(port)
        ports.append(port)
    return ports


@pytest.mark.requirement("U5")
@pytest.mark.parametrize(("low", "high", "privileged", "others"), [
    pytest.param(1, 65535, (1, 1023), (1024, 65535), id="both classes"),
    pytest.param(1000, 1100, (1000, 1023), (1024, 1100), id="some of each"),
    pytest.param(600, 1024, (600, 1023), (1024, 1024), id="one above"),
    pytest.param(1023, 2000, (1023, 1023), (1024, 2000), id="one below"),
    pytest.param(600, 700, (600, 700), (600, 700), id="none above"),
    pytest.param(600, 1023, (600, 1023), (600, 1023), id="none above, all below"),
    pytest.param(1024, 2000, (1024, 2000), (1024, 2000), id="none below"),
    pytest.param(40000, 40001, (40000, 40001), (40000, 40001), id="far above")])
def test_a_port_is_looked_for_in_the_class_of_the_internal_one(low: int, high: int, privileged: tuple[int, int],
                                                               others: tuple[int, int]) -> None:
    pool = PortPool(low, high)
    for internal, (first, last) in ((1, privileged), (1023, privileged), (1024, others), (65535, others)):
        assert replace(REQUEST, internal_port=internal).ranges(pool) == [range(first, last + 1)]


@pytest.mark.requirement("U5")
@pytest.mark.parametrize("low", [40000, 40001])
def test_parity_is_a_preference_and_comes_first(low: int) -> None:
    for internal in (5000, 5001):
        alike, all_of_them = replace(REQUEST, internal_port=internal, parity=True).ranges(PortPool(low, 40010))
        assert list(alike) == [port for port in range(low, 40011) if port % 2 == internal % 2]
        assert list(all_of_them) == list(range(low, 40011))


@pytest.mark.requirement("U5")
@pytest.mark.parametrize("make", ALL)
def test_when_the_ports_of_one_parity_are_taken_the_others_are_given(make: type[Random | Preserve | Sequential]) -> None:
    asked = replace(REQUEST, parity=True)
    pool = PortPool(40000, 40009)
    ports = given(policy(make), pool, 10, asked)
    assert sorted(ports[:5]) == [40000, 40002, 40004, 40006, 40008]
    assert sorted(ports[5:]) == [40001, 40003, 40005, 40007, 40009]
    assert policy(make).choose(asked, pool) is None


@pytest.mark.requirement("U5")
@pytest.mark.parametrize("make", ALL)
def test_a_pool_of_one_port_may_have_none_of_the_parity(make: type[Random | Preserve | Sequential]) -> None:
    assert given(policy(make), PortPool(40001, 40001), 1, replace(REQUEST, parity=True)) == [40001]


@pytest.mark.requirement("U5")
def test_the_internal_port_is_kept_while_it_is_free_and_in_the_pool() -> None:
    pool = PortPool(4000, 6000)
    assert given(policy(Preserve), pool, 1) == [5000]
    assert policy(Preserve).choose(REQUEST, pool) not in (5000, None)
    assert policy(Preserve).choose(REQUEST, PortPool(40000, 40000)) == 40000


@pytest.mark.requirement("C3")
@pytest.mark.parametrize("parity", [False, True])
def test_a_random_port_may_be_any_of_them_the_first_and_the_last_too(parity: bool) -> None:
    chooser, pool = policy(Random), PortPool(40000, 40005)
    asked = replace(REQUEST, parity=parity)
    assert {chooser.choose(asked, pool) for _ in range(200)} == set(range(40000, 40006, 2 if parity else 1))


def test_sequential_ports_go_on_after_the_last_one_round_and_round() -> None:
    chooser, pool = policy(Sequential), PortPool(40000, 40003)
    assert given(chooser, pool, 3) == [40000, 40001, 40002]
    pool.release(40000)
    pool.release(40001)
    assert given(chooser, pool, 3) == [40003, 40000, 40001], "what was freed meanwhile has to wait"
    assert chooser.choose(REQUEST, pool) is None
    pool.release(40002)
    assert given(chooser, pool, 1) == [40002]


def test_sequential_ports_are_counted_for_each_external_address_and_protocol() -> None:
    chooser, other = policy(Sequential), replace(REQUEST, external_address=b"\xc6\x33\x64\x03")
    for request in (REQUEST, other, replace(REQUEST, protocol=6)):
        assert given(chooser, PortPool(40000, 40009), 2, request) == [40000, 40001]
    assert chooser.choose(replace(REQUEST, internal_address=b"\xac\x11\0\x03", remote_port=80), PortPool(40000, 40009)) == 40002


def test_sequential_ports_of_one_parity_follow_each_other_by_two() -> None:
    chooser, pool = policy(Sequential), PortPool(40000, 40009)
    even, odd = (replace(REQUEST, internal_port=internal, parity=True) for internal in (5000, 5001))
    assert given(chooser, pool, 2, even) == [40000, 40002]
    assert given(chooser, pool, 2, odd) == [40003, 40005]
    assert given(chooser, pool, 3, even) == [40006, 40008, 40004]


def test_sequential_ports_change_class_and_come_back() -> None:
    chooser, pool = policy(Sequential), PortPool(1020, 1030)
    assert given(chooser, pool, 2) == [1024, 1025]
    assert given(chooser, pool, 3, replace(REQUEST, internal_port=53)) == [1022, 1023, 1020]
    assert given(chooser, pool, 2) == [1026, 1027]


def test_a_policy_is_found_by_its_name_which_nobody_takes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "POLICIES", dict(POLICIES))
    register("mine", Sequential)
    assert allocation.POLICIES["mine"] is Sequential
    with pytest.raises(ValueError, match=r"^there is a port policy 'mine' already$"):
        register("mine", Random)
    assert allocation.POLICIES["mine"] is Sequential
