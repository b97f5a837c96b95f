"""IPv6 prefixes and addresses: unique local ones by chance, the lowest free address first."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest

from natgw.control.ipam6 import AddressPool6, check_subnet6, unique_local_prefix
from natgw.errors import Conflict, NatgwError

pytestmark = pytest.mark.requirement("V2")


def test_a_prefix_of_rfc_4193() -> None:
    assert unique_local_prefix(lambda count: bytes(range(1, count + 1))) == IPv6Network("fd01:203:405::/64")
    assert unique_local_prefix() != unique_local_prefix()
    assert unique_local_prefix().subnet_of(IPv6Network("fd00::/8"))


def test_the_lowest_free_address_first_and_a_released_one_again() -> None:
    pool = AddressPool6(IPv6Network("fd00::/64"), "bridge (id)")
    assert str(pool.reserve(pool.gateway)) == "fd00::1"
    given = [pool.allocate() for _ in range(3)]
    assert [str(address) for address in given] == ["fd00::2", "fd00::3", "fd00::4"]
    pool.release(given[1])
    pool.reserve(IPv6Address("fd00::5"))
    assert [str(pool.allocate()) for _ in range(2)] == ["fd00::3", "fd00::6"]


def test_refusals_are_in_dockers_words() -> None:
    pool = AddressPool6(IPv6Network("fd00::/126"), "bridge (0123)")
    assert [str(pool.allocate()) for _ in range(3)] == ["fd00::1", "fd00::2", "fd00::3"]
    with pytest.raises(Conflict, match=r"no available IPv6 addresses on this network's address pools: bridge \(0123\)"):
        pool.allocate()
    with pytest.raises(Conflict, match="Address already in use"):
        pool.reserve(IPv6Address("fd00::1"))
    for outside in ("fd00::", "fd00::4", "2001:db8::1"):
        with pytest.raises(NatgwError, match=f"no configured subnet contains the IP address {outside} "):
            pool.reserve(IPv6Address(outside))


@pytest.mark.parametrize("text", ["::/64", "fe80::/64", "ff02::/64", "fd00::/127", "::1/128"])
def test_a_subnet_without_addresses_for_hosts_is_refused(text: str) -> None:
    with pytest.raises(NatgwError, match=f"subnet {text} has "):
        check_subnet6(IPv6Network(text))
