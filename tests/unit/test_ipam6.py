"""IPv6 prefixes and addresses: unique local ones by chance, the lowest free address first."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest

from natgw.control.ipam6 import AddressPool6, Pools6, check_subnet6, unique_local_prefix
from natgw.errors import Conflict, NatgwError

pytestmark = pytest.mark.requirement("V2")


def test_a_prefix_of_rfc_4193() -> None:
    assert unique_local_prefix(lambda count: bytes(range(1, count + 1))) == IPv6Network("fd01:203:405::/48")
    assert unique_local_prefix() != unique_local_prefix()
    assert unique_local_prefix().subnet_of(IPv6Network("fd00::/8"))


def test_the_lowest_free_address_first_and_a_released_one_again() -> None:
    pool = AddressPool6(IPv6Network("fd00::/64"), "bridge (id)")
    assert str(pool.reserve(pool.first)) == "fd00::1"
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
        with pytest.raises(NatgwError, match=f"no configured subnet or ip-range contain the IP address {outside} "):
            pool.reserve(IPv6Address(outside))


@pytest.mark.parametrize("text", ["::/64", "fe80::/64", "ff02::/64", "fd00::/127", "::1/128"])
def test_a_subnet_without_addresses_for_hosts_is_refused(text: str) -> None:
    with pytest.raises(NatgwError, match=f"subnet {text} has "):
        check_subnet6(IPv6Network(text))


def test_each_network_gets_a_subnet_of_one_prefix() -> None:
    made: list[IPv6Network] = []

    def prefix() -> IPv6Network:
        made.append(unique_local_prefix(lambda count: bytes(count)))
        return made[-1]

    pools = Pools6(prefix)
    chosen = pools.request(IPv6Network("fd00:0:0:2::/64"))
    assert not made  # nobody has wanted one yet
    routes = [IPv6Network("fd00:0:0:3::/64"), IPv6Network("2001:db8::/32")]
    given = [pools.request(avoid=routes), pools.request(avoid=routes), pools.request(default=True)]
    assert [str(pool.subnet) for pool in given] == ["fd00:0:0:1::/64", "fd00:0:0:4::/64", "fd00::/64"]
    pools.release(given[0].id)
    assert pools.request().subnet == given[0].subnet and pools.of_subnet(chosen.subnet) is chosen
    for overlapping, whose in (("fd00::/48", "another network"), ("2001:db8:1::/64", "the host's route")):
        with pytest.raises(Conflict, match=f"^Pool overlaps with other one on this address space: .* {whose}"):
            pools.request(IPv6Network(overlapping), avoid=routes)


def test_addresses_come_from_the_range_and_others_by_asking() -> None:
    pool = AddressPool6(IPv6Network("fd00::/64"), "x", IPv6Network("fd00::1:0/126"))
    assert [str(pool.allocate()) for _ in range(4)] == [f"fd00::1:{number}" for number in range(4)]
    with pytest.raises(Conflict, match="no available IPv6 addresses"):
        pool.allocate()
    assert str(pool.reserve(IPv6Address("fd00::2"))) == "fd00::2" and pool.id == "natgw/fd00::/64/fd00::1:0/126"
    assert pool.is_host(IPv6Address("fd00:0:0:0:ffff:ffff:ffff:ffff")) and not pool.is_host(IPv6Address("fd00::"))
    with pytest.raises(NatgwError, match="invalid ip-range"):
        AddressPool6(IPv6Network("fd00::/64"), "x", IPv6Network("fd01::/64"))
