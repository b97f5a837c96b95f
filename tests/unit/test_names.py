"""Names and ids in Docker's form."""

from __future__ import annotations

import random
import re
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natgw.control import names
from natgw.errors import NatgwError


def test_ids_and_device_names() -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", names.new_id())
    assert names.new_id() != names.new_id()
    assert re.fullmatch(r"veth[0-9a-f]{7}", names.veth_name())


@given(st.ip_addresses(v=4))
def test_a_mac_is_made_of_its_address(address: IPv4Address) -> None:
    mac = names.mac_for(address)
    assert mac[:2] == b"\x02\x42" and IPv4Address(mac[2:]) == address


def test_the_mac_of_the_first_container() -> None:
    assert names.mac_for(IPv4Address("172.17.0.2")).hex(":") == "02:42:ac:11:00:02"


@given(st.integers(0, 2**31 * 10**9))
def test_timestamps_keep_every_nanosecond(nanoseconds: int) -> None:
    text = names.timestamp(nanoseconds)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", text)
    assert int(text[-10:-1]) == nanoseconds % 10**9


def test_a_timestamp() -> None:
    assert names.timestamp(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456789Z"


def test_generated_names_are_names_and_not_taken() -> None:
    taken: set[str] = set()
    rng = random.Random(1)
    for _ in range(500):  # more than there are pairs of words
        name = names.generated_name(taken, rng)
        assert name not in taken
        assert names.check_name(name) == name
        taken.add(name)


@pytest.mark.parametrize("name", ["a", "web", "web_1", "Web-1.example", "0"])
def test_names_that_are_taken_as_they_are(name: str) -> None:
    assert names.check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "_a", "..", "no/slash", "no space", "ünicode", "line\n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(NatgwError, match=r"(?s)Invalid container name \(.*\), only \[a-zA-Z0-9\]\[a-zA-Z0-9_.-\] are allowed"):
        names.check_name(name)


def test_a_name_has_an_end() -> None:
    assert names.check_name("a" * 128)
    with pytest.raises(NatgwError, match="longer than 128"):
        names.check_name("a" * 129)


@pytest.mark.parametrize("name", ["eth0", "a", "wlp3s0.100", "x" * 15])
def test_interface_names(name: str) -> None:
    assert names.check_ifname(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a:1", "x" * 16, "a\0", "ä" * 8])
def test_what_is_no_interface_name(name: str) -> None:
    with pytest.raises(NatgwError, match="invalid interface name"):
        names.check_ifname(name)
