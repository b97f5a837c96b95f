"""What the comparison with Linux has found, each with the smallest packets that show it."""

from __future__ import annotations

import pytest

from natgw.datapath import Verdict
from tests.kernel.addresses import EXTERNAL, ROUTER
from tests.kernel.comparing import Comparison, Tally
from tests.kernel.kernel_gateway import KernelGateway
from tests.kernel.packets import ECHO, ECHO_REPLY, ICMP, UDP, Conversation, Envelope, Error, Segment

UDP_FLOW = Conversation(UDP, "172.17.0.2", 5000, ROUTER, 80)
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
