"""The control plane's pure parts: the grammar of -p, addresses, names, and the ledger."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natgw.control import names
from natgw.control.ipam import AddressPool
from natgw.control.ledger import Ledger, start_time
from natgw.control.portspec import parse_port_spec, parse_port_specs
from natgw.errors import Conflict, NatgwError


@pytest.mark.parametrize(("spec", "wanted"), [
    ("80", [("tcp", None, [], 80)]),
    ("8080:80", [("tcp", None, [8080], 80)]),
    ("127.0.0.1::80", [("tcp", "127.0.0.1", [], 80)]),
    ("[::1]:8080:80", [("tcp", "::1", [8080], 80)]),
    ("8000-8001:9000-9001/udp", [("udp", None, [8000], 9000), ("udp", None, [8001], 9001)]),
    ("8000-8002:80", [("tcp", None, [8000, 8001, 8002], 80)]),
    ("80-81", [("tcp", None, [], 80), ("tcp", None, [], 81)]),
    ("53:53/UDP", [("udp", None, [53], 53)]),
])
def test_port_specs(spec: str, wanted: list[tuple[str, str | None, list[int], int]]) -> None:
    assert [(b.protocol, b.host_ip, list(b.host_ports), b.container_port) for b in parse_port_spec(spec)] == [
        (protocol, None if ip is None else ip_address(ip), ports, port) for protocol, ip, ports, port in wanted]


@pytest.mark.parametrize(("spec", "words"), [
    ("", "no port specified"), ("8080:", "no port specified"), ("x:80", "invalid hostPort: x"),
    ("0", "invalid containerPort: 0"),
    ("65536", "invalid containerPort"), ("80/icmp", "invalid proto: icmp"),
    ("300.1.1.1:80:80", "invalid IP address: 300.1.1.1"),
    ("1-2:3-5", "invalid ranges specified for container and host Ports: 3-5 and 1-2"), ("9-8", "invalid containerPort: 9-8"),
])
def test_bad_port_specs_say_what_is_wrong(spec: str, words: str) -> None:
    with pytest.raises(NatgwError, match=words):
        parse_port_spec(spec)


def test_sctp_is_refused_when_published() -> None:
    assert parse_port_spec("80/sctp")[0].protocol == "sctp"
    with pytest.raises(NatgwError, match="not supported yet"):
        parse_port_specs(["80/sctp"])


@given(st.text(max_size=30))
def test_any_text_is_a_spec_or_an_error(text: str) -> None:
    try:
        assert parse_port_spec(text)
    except NatgwError:
        pass


def test_the_lowest_free_address_is_given_and_a_released_one_again() -> None:
    pool = AddressPool(IPv4Network("172.17.0.0/29"), "bridge (id)")
    pool.reserve(IPv4Address("172.17.0.1"))
    given_out = [pool.allocate() for _ in range(5)]
    assert [str(address) for address in given_out] == [f"172.17.0.{host}" for host in range(2, 7)]
    with pytest.raises(Conflict, match=r"no available IPv4 addresses on this network's address pools: bridge \(id\)"):
        pool.allocate()
    pool.release(given_out[1])
    assert pool.allocate() == given_out[1]
    with pytest.raises(Conflict, match="Address already in use"):
        pool.reserve(given_out[0])
    with pytest.raises(NatgwError, match="contain the IP address"):
        pool.reserve(IPv4Address("172.17.0.7"))


@given(st.lists(st.integers(0, 20), max_size=60))
def test_no_address_is_given_twice(actions: list[int]) -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/27"), "x")
    held: set[IPv4Address] = set()
    for action in actions:
        if action < 12 and len(held) < 30:
            address = pool.allocate()
            assert address not in held
            assert all(address < other for other in pool.subnet.hosts() if other not in held and other != address)
            held.add(address)
        elif held:
            address = sorted(held)[action % len(held)]
            held.remove(address)
            pool.release(address)


def test_names_and_ids() -> None:
    assert len(names.new_id()) == 64
    assert names.mac_for(IPv4Address("172.17.0.2")).hex(":") == "02:42:ac:11:00:02"
    assert len(names.veth_name()) == 11
    assert names.timestamp(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456789Z"
    first = names.generated_name(set(), random.Random(1))
    assert names.generated_name({first}, random.Random(1)) != first
    with pytest.raises(NatgwError, match="Invalid container name"):
        names.check_name("no/slash")


def test_the_ledger_remembers_what_was_not_removed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.outstanding() == []
    first, second = ledger.note("link", name="veth1"), ledger.note("link", name="veth2")
    ledger.forget(first)
    with (tmp_path / "ledger").open("a") as file:
        file.write('{"add": {"kind": "li')  # the power went here
    assert Ledger(tmp_path / "ledger").outstanding() == [second]
    ledger.clear()
    assert ledger.outstanding() == []


def test_a_process_is_known_by_its_start() -> None:
    assert start_time(1) is not None
    assert start_time(2**22 + 1) is None
