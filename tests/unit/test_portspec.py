"""The grammar of -p: what Docker accepts, natgw accepts, and refuses in the same words."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natgw.control.portspec import PortBinding, parse_port_spec, parse_port_specs
from natgw.errors import NatgwError

Wanted = tuple[str, str | None, list[int], int]

ports = st.integers(1, 65535)
protocols = st.sampled_from(["tcp", "udp", "sctp"])
addresses = st.one_of(st.none(), st.ip_addresses())


@pytest.mark.parametrize(("spec", "wanted"), [
    ("80", [("tcp", None, [], 80)]),
    ("80/", [("tcp", None, [], 80)]),
    ("80/sctp", [("sctp", None, [], 80)]),
    (":80", [("tcp", None, [], 80)]),
    ("::80", [("tcp", None, [], 80)]),
    ("0:80", [("tcp", None, [], 80)]),
    ("8080:80", [("tcp", None, [8080], 80)]),
    (":8080:80", [("tcp", None, [8080], 80)]),
    ("53:53/UDP", [("udp", None, [53], 53)]),
    ("127.0.0.1::80", [("tcp", "127.0.0.1", [], 80)]),
    ("127.0.0.1:8080:80", [("tcp", "127.0.0.1", [8080], 80)]),
    ("0.0.0.0:8080:80", [("tcp", "0.0.0.0", [8080], 80)]),
    ("[::1]:8080:80", [("tcp", "::1", [8080], 80)]),
    ("[::1]::80", [("tcp", "::1", [], 80)]),
    ("::1:8080:80", [("tcp", "::1", [8080], 80)]),
    ("[2001:db8::1]:8080:80/udp", [("udp", "2001:db8::1", [8080], 80)]),
    ("[::ffff:192.0.2.1]:8080:80", [("tcp", "192.0.2.1", [8080], 80)]),
    ("8000-8001:9000-9001/udp", [("udp", None, [8000], 9000), ("udp", None, [8001], 9001)]),
    ("8000-8002:80", [("tcp", None, [8000, 8001, 8002], 80)]),
    ("127.0.0.1:8000-8001:80", [("tcp", "127.0.0.1", [8000, 8001], 80)]),
    ("80-81", [("tcp", None, [], 80), ("tcp", None, [], 81)]),
    ("80-80", [("tcp", None, [], 80)]),
    ("65535:65535", [("tcp", None, [65535], 65535)]),
])
def test_accepted(spec: str, wanted: list[Wanted]) -> None:
    assert [(b.protocol, b.host_ip, list(b.host_ports), b.container_port) for b in parse_port_spec(spec)] == [
        (protocol, None if ip is None else ip_address(ip), ports, port) for protocol, ip, ports, port in wanted]


@pytest.mark.parametrize(("spec", "words"), [
    ("", "no port specified: <empty>"),
    ("8080:", "no port specified: 8080:<empty>"),
    ("8080:/udp", "no port specified: 8080:/udp<empty>"),
    ("80/icmp", "invalid proto: icmp"),
    ("80/tcp/udp", "invalid proto: tcp/udp"),
    ("8080/udp:80", "invalid hostPort: 8080/udp"),
    ("x:80", "invalid hostPort: x"),
    ("65536:80", "invalid hostPort: 65536"),
    ("0-1:80", "invalid hostPort: 0-1"),
    ("8080:x", "invalid containerPort: x"),
    ("0", "invalid containerPort: 0"),
    ("65536", "invalid containerPort: 65536"),
    ("-1", "invalid containerPort: -1"),
    ("80-", "invalid containerPort: 80-"),
    ("1-2-3", "invalid containerPort: 1-2-3"),
    ("+80", r"invalid containerPort: \+80"),
    ("8 0", "invalid containerPort: 8 0"),
    ("８０", "invalid containerPort: ８０"),
    ("9" * 5000, "invalid containerPort: 9"),
    ("9-8", "invalid containerPort: 9-8"),
    ("9-8:80", "invalid hostPort: 9-8"),
    ("300.1.1.1:80:80", "invalid IP address: 300.1.1.1"),
    ("localhost:80:80", "invalid IP address: localhost"),
    ("[::1:80:80", r"invalid IP address: \[::1"),
    ("[fe80::1%eth0]:80:80", "invalid IP address"),
    ("1-2:3-5", "invalid ranges specified for container and host Ports: 3-5 and 1-2"),
    ("8080:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8080"),
])
def test_refused_in_dockers_words(spec: str, words: str) -> None:
    with pytest.raises(NatgwError, match=words):
        parse_port_spec(spec)


def test_what_is_wrong_is_looked_for_in_dockers_order() -> None:
    """The container port's absence before its protocol, that before the address, that before the numbers."""
    for spec, words in (("1.1:x:/icmp", "no port"), ("1.1:x:y/icmp", "invalid proto"), ("1.1:x:y", "invalid IP address"),
                        ("x:y", "invalid containerPort"), ("x:80", "invalid hostPort")):
        with pytest.raises(NatgwError, match=words):
            parse_port_spec(spec)


def test_several_specs_are_one_list() -> None:
    assert parse_port_specs([]) == []
    assert [b.container_port for b in parse_port_specs(["80-81", "53/udp"])] == [80, 81, 53]


@pytest.mark.parametrize("address", ["[::1]", "127.0.0.1", "[::]"])
def test_sctp_is_not_published_where_only_a_relay_would_serve(address: str) -> None:
    with pytest.raises(NatgwError, match="port 99/sctp: SCTP is published on IPv4 addresses of the uplink only, not on"):
        parse_port_specs(["80", f"{address}:9999:99/sctp"])


def test_sctp_is_published() -> None:
    assert [(each.protocol, each.container_port) for each in parse_port_specs(["9999:99/sctp"])] == [("sctp", 99)]


@given(st.text(max_size=30) | st.text("0123456789:-[]./tcpud", max_size=30))
def test_any_text_is_a_spec_or_an_error(text: str) -> None:
    try:
        bindings = parse_port_spec(text)
    except NatgwError:
        return
    assert bindings
    for binding in bindings:
        assert 1 <= binding.container_port <= 65535
        assert all(1 <= port <= 65535 for port in binding.host_ports)


@given(addresses, ports, ports, st.integers(1, 50), protocols, st.booleans())
def test_what_is_written_is_what_is_read(address: IPv4Address | IPv6Address | None, host: int, container: int, count: int,
                                         protocol: str, same: bool) -> None:
    count = min(count, 65536 - max(host, container))
    containers = container + (count - 1 if same else 0)
    prefix = "" if address is None else f"[{address}]:" if address.version == 6 else f"{address}:"
    spec = f"{prefix}{host}-{host + count - 1}:{container}-{containers}/{protocol}"
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    wanted = [PortBinding(protocol, address, range(host, host + count), container)] if not same or count == 1 else [
        PortBinding(protocol, address, range(host + n, host + n + 1), container + n) for n in range(count)]
    assert parse_port_spec(spec) == wanted
