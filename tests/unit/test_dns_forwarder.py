"""Passing questions on: which resolver is asked when, and what is believed. No sockets, and time is an argument."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, TypeVar

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from natgw.control.dns.forwarder import (
    MAX_EXCHANGES,
    MAX_EXCHANGES_OF_ONE,
    MAX_WAITING,
    SLOW_S,
    TRY_S,
    Action,
    Close,
    Forwarder,
    Reply,
    Send,
)
from natgw.wire.dns import Query, parse_query

Kind = TypeVar("Kind", Send, Close, Reply)

ONE, TWO = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def count() -> Counter[str]:
    return Counter()


@pytest.fixture
def forwarder(count: Counter[str]) -> Forwarder:
    made = Forwarder(count, random.Random(5))
    made.use([ONE, TWO])
    return made


def question(name: str = "example.com", kind: str = "A", number: int = 1, *, by_tcp: bool = False, edns: int = -1) -> Query:
    message = dns.message.make_query(name, kind, id=number, use_edns=edns, payload=1232)
    return parse_query(message.to_wire(), by_tcp=by_tcp)


def answer(sent: Send, *records: str, rcode: int = 0, ttl: int = 60, truncated: bool = False, soa: bool = False,
           name: str | None = None) -> bytes:
    """A resolver's answer to what was sent; `records` as "TYPE DATA"."""
    message = dns.message.make_response(dns.message.from_wire(sent.wire), recursion_available=True)
    message.set_rcode(dns.rcode.Rcode(rcode))
    owner = message.question[0].name
    for record in records:
        kind, _, data = record.partition(" ")
        message.answer.append(dns.rrset.from_text(owner, ttl, "IN", kind, data))
    if soa:
        message.authority.append(dns.rrset.from_text("com.", 900, "IN", "SOA", "a. b. 1 2 3 4 30"))
    if truncated:
        message.flags |= dns.flags.TC
    if name is not None:
        message.question[0].name = dns.name.from_text(name)
    return message.to_wire(max_size=65535)


def only(kind: type[Kind], actions: list[Action]) -> list[Kind]:
    return [action for action in actions if isinstance(action, kind)]


def the_send(actions: list[Action]) -> Send:
    (sent,) = only(Send, actions)
    return sent


def replies(actions: list[Action]) -> dict[object, dns.message.Message]:
    return {reply.client: dns.message.from_wire(reply.wire) for reply in only(Reply, actions)}


def addresses(message: dns.message.Message) -> list[str]:
    return [record.to_text() for rrset in message.answer for record in rrset]


def test_the_first_server_is_asked_and_its_answer_passed_back(forwarder: Forwarder) -> None:
    sent = the_send(forwarder.ask(question(number=7), "client", "web", 0.0))
    assert (sent.server, sent.transport) == (ONE, "udp")
    actions = forwarder.heard(sent.attempt, answer(sent, "A 192.0.2.80"), 0.1)
    (message,) = replies(actions).values()
    assert message.id == 7 and addresses(message) == ["192.0.2.80"]
    assert only(Close, actions) == [Close(sent.attempt)]
    assert len(forwarder) == 0 and forwarder.next_deadline() is None


def test_the_next_server_is_asked_while_the_first_may_still_answer(forwarder: Forwarder) -> None:
    first = the_send(forwarder.ask(question(), "client", "web", 0.0))
    assert forwarder.next_deadline() == TRY_S
    assert forwarder.due(TRY_S / 2) == []
    second = the_send(forwarder.due(TRY_S))
    assert second.server == TWO
    actions = forwarder.heard(first.attempt, answer(first, "A 192.0.2.80"), 1.6)
    assert addresses(replies(actions)["client"]) == ["192.0.2.80"]
    assert {close.attempt for close in only(Close, actions)} == {first.attempt, second.attempt}


def test_nobody_answers(forwarder: Forwarder, count: Counter[str]) -> None:
    sent = [the_send(forwarder.ask(question(), "client", "web", 0.0))]
    sent.append(the_send(forwarder.due(TRY_S)))
    sent.append(the_send(forwarder.due(2 * TRY_S)))
    assert [each.server for each in sent] == [ONE, TWO, ONE]
    assert len({each.wire[:2] for each in sent}) == 3
    actions = forwarder.due(3 * TRY_S)
    assert replies(actions)["client"].rcode() == dns.rcode.SERVFAIL
    assert len(only(Close, actions)) == 3
    assert count == {"forwarded": 1, "retried": 2, "failed": 1}


def test_a_silent_server_is_asked_last_for_a_while(forwarder: Forwarder) -> None:
    forwarder.ask(question(), "client", "web", 0.0)
    second = the_send(forwarder.due(TRY_S))
    forwarder.heard(second.attempt, answer(second, "A 192.0.2.80"), 2.0)
    assert the_send(forwarder.ask(question("other"), "client", "web", 3.0)).server == TWO
    assert the_send(forwarder.ask(question("third"), "client", "web", TRY_S + SLOW_S + 1)).server == ONE


@pytest.mark.parametrize("how", ["SERVFAIL", "REFUSED", "unreachable"])
def test_a_server_that_fails_hands_over_at_once(forwarder: Forwarder, how: str) -> None:
    first = the_send(forwarder.ask(question(), "client", "web", 0.0))
    second = the_send(forwarder.failed(first.attempt, 0.1) if how == "unreachable"
                      else forwarder.heard(first.attempt, answer(first, rcode=dns.rcode.from_text(how)), 0.1))
    assert second.server == TWO
    actions = forwarder.failed(second.attempt, 0.2)
    assert replies(actions)["client"].rcode() == (dns.rcode.SERVFAIL if how == "unreachable" else dns.rcode.from_text(how))


@pytest.mark.parametrize("forgery", ["id", "question", "no response", "noise"])
def test_what_is_no_answer_is_waited_past(forwarder: Forwarder, count: Counter[str], forgery: str) -> None:
    sent = the_send(forwarder.ask(question(), "client", "web", 0.0))
    good = answer(sent, "A 192.0.2.80")
    forged = {"id": bytes((good[0] ^ 1,)) + good[1:], "question": answer(sent, "A 192.0.2.66", name="evil.com"),
              "no response": sent.wire, "noise": b"\0" * 5}[forgery]
    assert forwarder.heard(sent.attempt, forged, 0.1) == []
    assert count["mismatched"] == 1
    assert addresses(replies(forwarder.heard(sent.attempt, good, 0.2))["client"]) == ["192.0.2.80"]


def test_an_answer_cut_short_is_asked_for_by_tcp(forwarder: Forwarder) -> None:
    sent = the_send(forwarder.ask(question(edns=0), "client", "web", 0.0))
    again = the_send(forwarder.heard(sent.attempt, answer(sent, truncated=True), 0.1))
    assert (again.server, again.transport) == (ONE, "tcp")
    many = [f"A 198.51.100.{n}" for n in range(120)]
    actions = forwarder.heard(again.attempt, answer(again, *many), 0.2)
    by_udp = replies(actions)["client"]
    assert by_udp.flags & dns.flags.TC and not by_udp.answer
    kept = forwarder.ask(question(by_tcp=True, edns=0), "tcp client", "web", 0.3)
    assert len(addresses(replies(kept)["tcp client"])) == 120


def test_a_server_without_tcp_leaves_what_was_cut_short(forwarder: Forwarder) -> None:
    forwarder.use([ONE])
    sent = the_send(forwarder.ask(question(), "client", "web", 0.0))
    again = the_send(forwarder.heard(sent.attempt, answer(sent, "A 192.0.2.80", truncated=True), 0.1))
    message = replies(forwarder.failed(again.attempt, 0.2))["client"]
    assert message.flags & dns.flags.TC and message.rcode() == dns.rcode.NOERROR


def test_answers_are_kept_as_long_as_they_hold(forwarder: Forwarder, count: Counter[str]) -> None:
    sent = the_send(forwarder.ask(question("Example.com", number=1), "client", "web", 0.0))
    forwarder.heard(sent.attempt, answer(sent, "A 192.0.2.80", ttl=60), 1.0)
    kept = replies(forwarder.ask(question("exAMPLE.com", number=2), "other", "db", 21.5))["other"]
    assert kept.id == 2 and kept.answer[0].ttl == 40
    assert kept.question[0].name.to_text() == "exAMPLE.com."
    assert count["cached"] == 1
    assert only(Send, forwarder.ask(question(number=3), "client", "web", 61.0))
    assert only(Send, forwarder.ask(question(number=4, kind="AAAA"), "client", "web", 21.5))


@pytest.mark.parametrize(("reply", "keep_s"), [
    ({"rcode": 3, "soa": True}, 30), ({"soa": True}, 30), ({"rcode": 3}, 0), ({}, 0), ({"rcode": 2}, 0)])
def test_how_long_a_negative_answer_holds(forwarder: Forwarder, reply: dict[str, Any], keep_s: int) -> None:
    """RFC 2308 section 5: as long as its SOA record says; without one not at all."""
    forwarder.use([ONE])
    sent = the_send(forwarder.ask(question(), "client", "web", 0.0))
    forwarder.heard(sent.attempt, answer(sent, **reply), 0.0)
    assert bool(only(Reply, forwarder.ask(question(), "client", "web", keep_s - 0.5))) == (keep_s > 0)
    assert only(Send, forwarder.ask(question("later"), "client", "web", keep_s + 0.5))


def test_the_same_question_is_asked_once(forwarder: Forwarder) -> None:
    sent = the_send(forwarder.ask(question(number=1), "first", "web", 0.0))
    assert forwarder.ask(question(number=2), "second", "db", 0.1) == []
    found = replies(forwarder.heard(sent.attempt, answer(sent, "A 192.0.2.80"), 0.2))
    assert {client: message.id for client, message in found.items()} == {"first": 1, "second": 2}


def test_one_container_cannot_take_every_place(forwarder: Forwarder, count: Counter[str]) -> None:
    for number in range(MAX_EXCHANGES_OF_ONE):
        the_send(forwarder.ask(question(f"n{number}"), "client", "web", 0.0))
    assert replies(forwarder.ask(question("more"), "client", "web", 0.0))["client"].rcode() == dns.rcode.SERVFAIL
    for number in range(MAX_EXCHANGES_OF_ONE, MAX_EXCHANGES):
        the_send(forwarder.ask(question(f"n{number}"), "client", f"other {number}", 0.0))
    assert replies(forwarder.ask(question("more"), "client", "last", 0.0))["client"].rcode() == dns.rcode.SERVFAIL
    for number in range(MAX_WAITING - 1):
        assert forwarder.ask(question("n1"), number, "web", 0.0) == []
    assert only(Reply, forwarder.ask(question("n1"), "one too many", "web", 0.0))
    assert count["overloaded"] == 3


def test_without_a_server_there_is_no_answer(forwarder: Forwarder) -> None:
    forwarder.use([])
    assert replies(forwarder.ask(question(), "client", "web", 0.0))["client"].rcode() == dns.rcode.SERVFAIL


def test_other_servers_other_answers(forwarder: Forwarder) -> None:
    sent = the_send(forwarder.ask(question(), "client", "web", 0.0))
    forwarder.heard(sent.attempt, answer(sent, "A 192.0.2.80"), 0.1)
    forwarder.use([TWO])
    assert the_send(forwarder.ask(question(), "client", "web", 0.2)).server == TWO


def test_late_and_unknown_attempts_change_nothing(forwarder: Forwarder) -> None:
    sent = the_send(forwarder.ask(question(), "client", "web", 0.0))
    good = answer(sent, "A 192.0.2.80")
    forwarder.heard(sent.attempt, good, 0.1)
    assert forwarder.heard(sent.attempt, good, 0.2) == [] == forwarder.failed(sent.attempt, 0.2)


def test_the_cache_is_bounded() -> None:
    from natgw.tables.ttlcache import TtlCache

    cache: TtlCache[str] = TtlCache(2, 100)
    for key in ("a", "b", "a", "c"):
        cache.put(key, key, 10, 5.0, 0.0)
    assert cache.get("b", 1.0) is None and cache.get("a", 1.0) == ("a", 1.0)
    cache.put("big", "big", 95, 5.0, 1.0)
    assert len(cache) == 1 and cache.bytes == 95 and cache.evicted == 3
    cache.put("huge", "huge", 101, 5.0, 1.0)
    assert cache.get("huge", 1.0) is None and cache.get("big", 6.0) is None and cache.bytes == 0
