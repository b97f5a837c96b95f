"""What the comparison with Linux has found, each with the smallest packets that show it: first what was wrong, then what is
meant to differ (differences.py)."""

from __future__ import annotations

import pytest

from natgw.datapath import Verdict
from tests.kernel.addresses import EXTERNAL, REMOTES, ROUTER
from tests.kernel.comparing import Comparison, Tally
from tests.kernel.differences import LISTED, Difference, StateDifference
from tests.kernel.kernel_gateway import KernelGateway
from tests.kernel.packets import (
    ACK,
    ECHO,
    ECHO_REPLY,
    FIN,
    ICMP,
    RST,
    SYN,
    TCP,
    TIMESTAMP,
    UDP,
    URG,
    Conversation,
    Envelope,
    Error,
    Segment,
    Step,
)

UDP_FLOW = Conversation(UDP, "172.17.0.2", 5000, ROUTER, 80)
TCP_FLOW = Conversation(TCP, "172.17.0.2", 5000, ROUTER, 80)
BEYOND = next(each for each in REMOTES if each != ROUTER)
PING = Conversation(ICMP, "172.17.0.2", 5000, ROUTER, 0)


@pytest.fixture
def both(kernel: KernelGateway) -> Comparison:
    return Comparison(kernel, Tally())


def test_a_redirect_goes_no_further(both: Comparison) -> None:
    """It was translated and handed to the host, which would have sent past the gateway from then on."""
    both.step(Segment(UDP_FLOW, False))
    both.step(Error(UDP_FLOW, True, 5, 1, "192.0.2.77"))
    assert both.natgw.verdict is Verdict.DROP_ICMP_TYPE
    assert both.tally.dropped["error in"] == 1


def test_a_ping_that_comes_in_fragments_is_not_answered_by_half(both: Comparison) -> None:
    """The first fragment was answered as if it were all, with a checksum that said so."""
    both.step(Segment(PING, True, payload=b"f" * 100, pieces=(0, 1), query=ECHO))
    assert both.history[-1].natgw == []
    assert both.tally.different["fragmented ping"] == 1


def test_a_damaged_ping_is_not_answered(both: Comparison) -> None:
    """It was, with the damaged data under a good checksum."""
    both.step(Segment(PING, True, query=ECHO, checksum="bad"))
    assert both.natgw.verdict is Verdict.DROP_ICMP_BAD


def test_the_external_address_answers_pings_from_inside(both: Comparison) -> None:
    """It did from outside only."""
    both.step(Segment(Conversation(ICMP, "172.17.0.2", 5000, EXTERNAL, 0), False, query=ECHO, payload=b"are you there"))
    assert both.natgw.verdict is Verdict.ECHO_ANSWERED
    assert both.tally.same["answered"] == 1


def test_an_answer_larger_than_the_link_is_cut(both: Comparison) -> None:
    """It was sent whole, and lost."""
    both.step(Segment(PING, True, payload=b"y" * 1460, query=ECHO))
    assert both.tally.same["answered"] == 1


def test_a_reply_to_a_timestamp_request_is_no_reply_to_an_echo(both: Comparison) -> None:
    """Neither gateway takes one query's reply for another's."""
    both.step(Segment(PING, False, query=ECHO))
    both.step(Segment(PING, True, query=14))
    both.step(Segment(PING, True, Envelope(ttl=2), query=ECHO_REPLY))
    assert (both.tally.dropped["icmp in"], both.tally.same["icmp in"]) == (1, 1)


def test_a_host_keeps_a_port_that_it_had_to_be_given(both: Comparison) -> None:
    """Where two hosts have the same port, the second got another towards the one server, but its own towards the next."""
    for host, remote in (("172.17.0.3", ROUTER), ("172.17.0.2", ROUTER), ("172.17.0.2", BEYOND)):
        both.step(Segment(Conversation(UDP, host, 5000, remote, 80), False))
    both.step(Segment(Conversation(UDP, "172.17.0.3", 5000, BEYOND, 80), True))
    assert (both.tally.same["udp out"], both.tally.dropped["udp in"]) == (3, 1)


def test_an_answer_that_two_conversations_may_mean_is_the_same_at_both_gateways(both: Comparison) -> None:
    """Two hosts ping two remotes with one identifier: Linux lets both keep it, natgw gives the second another one (I2)."""
    first, second = Conversation(ICMP, "172.17.0.3", 45000, ROUTER, 0), Conversation(ICMP, "172.17.0.2", 45000, BEYOND, 0)
    for ping in (first, second):
        both.step(Segment(ping, False, query=ECHO))
        both.step(Segment(ping, True, query=ECHO_REPLY))
    both.step(Segment(Conversation(ICMP, "172.17.0.3", 45000, BEYOND, 0), True, query=ECHO_REPLY))
    assert (both.tally.same["icmp out"], both.tally.same["icmp in"]) == (2, 3)


def tcp(*segments: str) -> list[Step]:
    """Segments as `>S`, `<SA`: which way, and the flags that are set."""
    flags = {"S": SYN, "A": ACK, "F": FIN, "R": RST, "U": URG}
    return [Segment(TCP_FLOW, each[0] == "<", flags=sum(flags[letter] for letter in each[1:])) for each in segments]


OPENED = tcp(">S", "<SA", ">A")
CLOSED = [*OPENED, *tcp(">FA", "<A", "<FA", ">A")]
DIFFERENT: dict[str, list[Step]] = {
    "refused packets count": [*OPENED, Segment(TCP_FLOW, False, Envelope(ttl=1), flags=FIN | ACK)],
    "refused or dropped": [*OPENED, Segment(TCP_FLOW, True, Envelope(ttl=1), flags=SYN | FIN)],
    "options written": [Segment(UDP_FLOW, False, Envelope(options=b"\x07\x07\x04\0\0\0\0\0"))],
    "options refused": [Segment(UDP_FLOW, False, Envelope(options=b"\x94\x28\0\0"))],
    "source route": [Segment(UDP_FLOW, False, Envelope(options=b"\x83\x07\x04\xcb\0\x71\x09\0"))],
    "own words": [Segment(UDP_FLOW, False, Envelope(ttl=1, tos=0xB8))],
    "reset refused": [*OPENED, Segment(TCP_FLOW, True, flags=RST, seq=-1)],
    "urgent": [*OPENED, *tcp(">RU")],
    "other queries": [Segment(PING, False, query=TIMESTAMP)],
    "hairpin": [Segment(Conversation(UDP, "172.17.0.2", 5000, EXTERNAL, 5000), False)],
    "bad quotation": [Segment(UDP_FLOW, False), Error(UDP_FLOW, True, 3, 3, spoilt="quoted ip")],
    "fragmented ping": [Segment(PING, True, payload=b"f" * 100, pieces=(0, 1), query=ECHO)],
    "forgotten": tcp(">S", ">R"),
    "reset in the window": [*OPENED, Segment(TCP_FLOW, True, flags=RST, seq=1)],
    "reset outside the window": [*OPENED, *tcp(">FA"), Segment(TCP_FLOW, True, flags=RST, seq=-1)],
    "ended from outside": [*CLOSED, *tcp("<S")],
    "not closed": [*OPENED, *tcp("<R", ">A")],
    "begun anew": tcp(">S", ">S", "<S", "<R", ">S"),
    "taken over": [*OPENED, *tcp(">S", "<SA")],
    "challenged": [*OPENED, *tcp(">FA", "<A", "<FA", ">S", "<A")],
    "opened from both sides": tcp(">S", "<S", ">SA", "<A"),
}


@pytest.mark.parametrize("difference", LISTED, ids=lambda each: each.name)
def test_what_is_meant_to_differ_does(both: Comparison, difference: Difference | StateDifference) -> None:
    """An entry that explains nothing any more is to be taken from the list."""
    *before, last = DIFFERENT[difference.name]
    for step in before:
        both.step(step)
    assert not both.tally.different
    both.step(last)
    assert both.tally.different[difference.name] == 1
