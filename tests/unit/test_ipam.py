"""Addresses: the lowest free one first, a released one again, none twice."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from natgw.control.ipam import AddressPool, check_subnet
from natgw.errors import Conflict, NatgwError

SUBNET = IPv4Network("10.0.0.0/28")
HOSTS = list(SUBNET.hosts())


def test_addresses_come_in_order_and_a_released_one_again() -> None:
    pool = AddressPool(IPv4Network("172.17.0.0/16"), "bridge (id)")
    pool.reserve(IPv4Address("172.17.0.1"))
    given = [pool.allocate() for _ in range(4)]
    assert [str(address) for address in given] == ["172.17.0.2", "172.17.0.3", "172.17.0.4", "172.17.0.5"]
    pool.release(given[2])
    pool.release(given[0])
    assert [str(pool.allocate()) for _ in range(3)] == ["172.17.0.2", "172.17.0.4", "172.17.0.6"]


@pytest.mark.parametrize("text", ["0.0.0.0/0", "0.1.0.0/16", "127.0.0.0/8", "127.5.0.0/16", "224.0.0.0/8", "255.255.255.0/24",
                                  "192.0.0.0/2", "10.0.0.0/31", "10.0.0.1/32"])
def test_a_subnet_without_addresses_for_hosts_is_refused(text: str) -> None:
    with pytest.raises(NatgwError, match=f"subnet {text} has "):
        check_subnet(IPv4Network(text))


@pytest.mark.parametrize("text", ["172.17.0.0/16", "10.0.0.0/8", "10.0.0.0/30", "100.64.0.0/10", "169.254.0.0/16"])
def test_a_subnet_for_hosts(text: str) -> None:
    assert check_subnet(IPv4Network(text)) == IPv4Network(text)


def test_a_reserved_address_is_passed_over() -> None:
    pool = AddressPool(SUBNET, "x")
    pool.reserve(IPv4Address("10.0.0.2"))
    assert [str(pool.allocate()) for _ in range(2)] == ["10.0.0.1", "10.0.0.3"]


def test_refusals_are_in_dockers_words() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/30"), "bridge (0123abcd)")
    pool.reserve(IPv4Address("10.0.0.1"))
    with pytest.raises(Conflict, match=r"^Address already in use$"):
        pool.reserve(IPv4Address("10.0.0.1"))
    pool.allocate()
    with pytest.raises(Conflict, match=r"^no available IPv4 addresses on this network's address pools: bridge \(0123abcd\)$"):
        pool.allocate()
    for outside in ("10.0.0.0", "10.0.0.3", "10.0.1.1", "192.0.2.1"):
        with pytest.raises(NatgwError, match=f"no configured subnet or ip-range contain the IP address {outside}"):
            pool.reserve(IPv4Address(outside))


def test_both_addresses_of_a_31_are_hosts() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/31"), "x")
    assert [str(pool.allocate()) for _ in range(2)] == ["10.0.0.0", "10.0.0.1"]


def test_releasing_what_was_not_taken_changes_nothing() -> None:
    pool = AddressPool(SUBNET, "x")
    pool.release(IPv4Address("10.0.0.5"))
    pool.release(IPv4Address("192.0.2.1"))
    assert pool.allocate() == HOSTS[0]


class Pools(RuleBasedStateMachine):
    """The pool beside a plain set."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = AddressPool(SUBNET, "x")
        self.held: set[IPv4Address] = set()

    @precondition(lambda self: len(self.held) < len(HOSTS))
    @rule()
    def allocate(self) -> None:
        lowest = next(address for address in HOSTS if address not in self.held)
        assert self.pool.allocate() == lowest
        self.held.add(lowest)

    @precondition(lambda self: len(self.held) == len(HOSTS))
    @rule()
    def allocate_from_none(self) -> None:
        with pytest.raises(Conflict):
            self.pool.allocate()

    @rule(address=st.sampled_from(HOSTS))
    def reserve(self, address: IPv4Address) -> None:
        if address in self.held:
            with pytest.raises(Conflict):
                self.pool.reserve(address)
        else:
            assert self.pool.reserve(address) == address
            self.held.add(address)

    @rule(address=st.sampled_from(HOSTS))
    def release(self, address: IPv4Address) -> None:
        self.pool.release(address)
        self.held.discard(address)

    @invariant()
    def never_more_than_there_are(self) -> None:
        assert len(self.held) <= len(HOSTS)


TestPools = Pools.TestCase
