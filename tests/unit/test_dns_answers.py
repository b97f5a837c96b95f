"""What natgw answers by itself: names of a zone, in messages that a client understands."""

from __future__ import annotations

import random
from ipaddress import IPv4Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natgw.control.dns import resolver
from natgw.host.resolvconf import ResolvConf, Watched, parse
from natgw.wire.dns import Address, Query, Refused, parse_query

NAMES = {"web": ["172.18.0.2"], "db": ["172.18.0.3", "fd00::3"], "all": [f"172.18.1.{n}" for n in range(100)],
         "host.docker.internal": ["172.18.0.1"]}


class FakeZone:
    forwards = True

    def addresses(self, name: str) -> list[Address] | None:
        return [ip_address(text) for text in NAMES[name]] if name in NAMES else None

    def name_of(self, address: Address) -> str | None:
        return next((f"{name}.net" for name, texts in NAMES.items() if str(address) in texts), None)

    def covers(self, address: Address) -> bool:
        return any(address in network for network in (IPv4Network("172.18.0.0/16"), ip_network("fd00::/64")))


class Internal(FakeZone):
    forwards = False


def query(name: str, kind: str = "A", *, by_tcp: bool = False, **more: Any) -> Query:
    return parse_query(dns.message.make_query(name, kind, **more).to_wire(), by_tcp=by_tcp)


def ask(name: str, kind: str = "A", zone: resolver.Zone | None = None, **more: Any) -> dns.message.Message | None:
    wire = resolver.answer(query(name, kind, **more), zone or FakeZone(), random.Random(1))
    return None if wire is None else dns.message.from_wire(wire)


def found(message: dns.message.Message | None) -> set[str]:
    assert message is not None
    return {record.to_text() for rrset in message.answer for record in rrset}


@pytest.mark.parametrize(("name", "kind", "expected"), [
    ("web", "A", {"172.18.0.2"}), ("WEB.", "A", {"172.18.0.2"}), ("db", "AAAA", {"fd00::3"}),
    ("db", "ANY", {"172.18.0.3", "fd00::3"}), ("host.docker.internal", "A", {"172.18.0.1"}),
    ("2.0.18.172.in-addr.arpa", "PTR", {"web.net."}),
    ("3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.IP6.arpa", "PTR", {"db.net."}),
])
def test_what_there_is(name: str, kind: str, expected: set[str]) -> None:
    message = ask(name, kind)
    assert message is not None
    assert found(message) == expected
    assert message.flags & dns.flags.AA and message.flags & dns.flags.RA
    assert {rrset.ttl for rrset in message.answer} == {600}
    assert message.question[0].name.to_text().rstrip(".") == name.rstrip(".")


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT", "HTTPS", "PTR"])
def test_a_name_that_has_nothing_of_the_kind(kind: str) -> None:
    message = ask("web", kind)
    assert message is not None
    assert message.rcode() == dns.rcode.NOERROR and not message.answer


def test_an_address_of_ours_that_nobody_has() -> None:
    message = ask("9.9.18.172.in-addr.arpa", "PTR")
    assert message is not None
    assert message.rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(("name", "kind"), [("example.com", "A"), ("nobody", "A"), ("1.2.0.192.in-addr.arpa", "PTR"),
                                            ("x.in-addr.arpa", "PTR"), (".", "NS")])
def test_what_others_may_know_is_passed_on(name: str, kind: str) -> None:
    assert ask(name, kind) is None


def test_an_internal_network_asks_nobody() -> None:
    message = ask("example.com", zone=Internal())
    assert message is not None
    assert message.rcode() == dns.rcode.SERVFAIL
    assert found(ask("web", zone=Internal())) == {"172.18.0.2"}


def test_a_long_answer_by_udp_is_cut_short_and_by_tcp_is_not() -> None:
    message = ask("all")
    assert message is not None
    assert message.flags & dns.flags.TC and not message.answer
    assert len(found(ask("all", by_tcp=True))) == 100
    assert len(found(ask("all", use_edns=0, payload=4096))) == 100


def test_addresses_of_a_shared_alias_change_places() -> None:
    rng = random.Random(3)
    firsts = set()
    for _ in range(30):
        wire = resolver.answer(query("all", by_tcp=True), FakeZone(), rng)
        assert wire is not None
        firsts.add(next(iter(dns.message.from_wire(wire).answer[0])).to_text())
    assert len(firsts) > 10


def bare(**changes: Any) -> bytes:
    return dns.message.make_query("web", "A", **changes).to_wire()


@pytest.mark.parametrize(("wire", "rcode"), [
    (b"", None), (b"\0" * 11, None), (bare()[:2] + b"\x81\x80" + bare()[4:], None),
    (bare()[:2] + b"\x28\0" + bare()[4:], dns.rcode.NOTIMP), (bare()[:-3], dns.rcode.FORMERR),
    (bare()[:4] + b"\0\2" + bare()[6:], dns.rcode.FORMERR), (bare()[:4] + b"\0\0" + bare()[6:12], dns.rcode.FORMERR),
    (bare()[:12] + b"\xc0\x0c\0\1\0\1", dns.rcode.FORMERR),
    (bare(rdclass="CH"), dns.rcode.REFUSED), (dns.message.make_query("web", "AXFR").to_wire(), dns.rcode.REFUSED),
    (bare(use_edns=1), dns.rcode.BADVERS),
])
def test_what_is_no_question(wire: bytes, rcode: int | None) -> None:
    with pytest.raises(Refused) as refused:
        parse_query(wire, by_tcp=False)
    reply = refused.value.reply
    if rcode is None:
        assert reply is None
    else:
        assert reply is not None
        message = dns.message.from_wire(reply)
        assert message.rcode() == rcode
        assert message.id == int.from_bytes(wire[:2], "big")


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: bare()[:12] + tail))
def test_any_bytes_are_a_question_or_refused(wire: bytes) -> None:
    try:
        asked = parse_query(wire, by_tcp=False)
    except Refused as refused:
        reply, limit = refused.reply, 512
    else:
        reply, limit = resolver.answer(asked, FakeZone(), random.Random(1)), asked.limit
    assert reply is None or 12 <= len(reply) <= limit


def test_a_question_is_passed_on_as_it_was_but_for_cookies() -> None:
    cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
    subnet = dns.edns.ECSOption("192.0.2.0", 24)
    asked = query("ExAmple.com", "MX", use_edns=0, ednsflags=dns.flags.DO, payload=4096, options=[cookie, subnet])
    message = dns.message.from_wire(asked.passed_on(77))
    assert message.id == 77
    assert message.question[0].name.to_text() == "ExAmple.com."
    assert message.ednsflags & dns.flags.DO
    assert list(message.options) == [subnet]
    assert asked.key != query("example.com", "MX").key
    assert query("EXAMPLE.com").key == query("example.COM.").key


def test_resolv_conf() -> None:
    conf = parse("# no\nnameserver 192.0.2.1 # first\nnameserver nonsense\nnameserver fe80::1%eth0\nsearch a b\n"
                 "options ndots:2\ndomain c\noptions rotate\nnameserver 192.0.2.3\nnameserver 192.0.2.4\nnameserver\n;x\n")
    assert conf == ResolvConf(("192.0.2.1", "fe80::1%eth0", "192.0.2.3"), ("c",), ("ndots:2", "rotate"))
    assert parse(conf.text()) == conf
    assert not conf.asks_loopback
    assert parse("").asks_loopback and parse("nameserver 127.0.0.53").asks_loopback and parse("nameserver ::1").asks_loopback


def test_a_changed_resolv_conf_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    watched = Watched(path)
    assert watched.conf == ResolvConf()
    path.write_text("nameserver 192.0.2.1\n")
    assert watched.refresh() and watched.conf.servers == ("192.0.2.1",)
    assert not watched.refresh()
    path.unlink()
    assert watched.refresh()
    assert not watched.conf.servers
