"""natgw's flow states and idle times under preset `linux` are those conntrack shows for the same packets."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import eventually
from tests.kernel.addresses import ROUTER
from tests.kernel.comparing import Comparison, Tally
from tests.kernel.kernel_gateway import KernelGateway
from tests.kernel.packets import ACK, ECHO, ECHO_REPLY, FIN, ICMP, PSH, RST, SYN, TCP, UDP, Conversation, Segment

pytestmark = pytest.mark.requirement("T5", "U6", "I1")
OUT, IN = False, True
OPENED = ((OUT, SYN), (IN, SYN | ACK), (OUT, ACK))
CLOSED = ((OUT, FIN | ACK), (IN, ACK), (IN, FIN | ACK), (OUT, ACK))


@pytest.fixture
def both(kernel: KernelGateway) -> Comparison:
    return Comparison(kernel, Tally())


def state_of(both: Comparison) -> tuple[str, float]:
    """State and idle time of the one flow there is, which must be the same at both. Linux's clock is the machine's; conntrack
    counts down in whole seconds."""
    (entry,) = both.kernel.entries()
    (flow,) = both.natgw.datapath.flow_records(both.natgw.now)
    left: Any = flow["timeout_s"]
    assert entry.state == flow["state"]
    assert left - 1 - both.elapsed_s <= entry.timeout_s <= left
    return entry.state, left


@pytest.mark.parametrize(("segments", "state", "timeout_s"), [
    pytest.param(((OUT, SYN),), "SYN_SENT", 120, id="SYN"),
    pytest.param(((OUT, SYN), (OUT, SYN)), "SYN_SENT", 120, id="SYN twice"),
    pytest.param(((OUT, SYN), (IN, SYN)), "SYN_SENT2", 120, id="simultaneous open"),
    pytest.param(((OUT, SYN), (IN, SYN), (IN, SYN | ACK)), "SYN_RECV", 60, id="simultaneous open answered"),
    pytest.param(OPENED[:2], "SYN_RECV", 60, id="SYN+ACK"),
    pytest.param(OPENED, "ESTABLISHED", 432000, id="handshake"),
    pytest.param((*OPENED, (OUT, PSH | ACK), (IN, ACK)), "ESTABLISHED", 432000, id="data"),
    pytest.param((*OPENED, *CLOSED[:1]), "FIN_WAIT", 120, id="FIN"),
    pytest.param((*OPENED, *CLOSED[:2]), "CLOSE_WAIT", 60, id="FIN acknowledged"),
    pytest.param((*OPENED, *CLOSED[:3]), "LAST_ACK", 30, id="both FIN"),
    pytest.param((*OPENED, *CLOSED), "TIME_WAIT", 120, id="both FIN acknowledged"),
    pytest.param((*OPENED, *((not inward, flags) for inward, flags in CLOSED)), "TIME_WAIT", 120, id="closed from outside"),
    pytest.param((*OPENED, (OUT, FIN | ACK), (IN, FIN | ACK)), "LAST_ACK", 30, id="simultaneous close"),
    pytest.param((*OPENED, *CLOSED, (OUT, SYN)), "SYN_SENT", 120, id="opened again"),
    pytest.param((*OPENED, (OUT, RST)), "CLOSE", 10, id="RST"),
    pytest.param((*OPENED, (IN, RST | ACK)), "CLOSE", 10, id="RST from outside"),
])
def test_tcp(both: Comparison, segments: tuple[tuple[bool, int], ...], state: str, timeout_s: float) -> None:
    conversation = Conversation(TCP, "172.17.0.2", 5000, ROUTER, 80)
    for inward, flags in segments:
        both.step(Segment(conversation, inward, flags=flags))
    assert sum(both.tally.same.values()) == len(segments)
    assert state_of(both) == (state, timeout_s)


def test_udp_becomes_a_stream(both: Comparison) -> None:
    conversation = Conversation(UDP, "172.17.0.2", 5000, ROUTER, 80)
    both.step(Segment(conversation, OUT))
    assert state_of(both) == ("UNREPLIED", 30)
    both.step(Segment(conversation, IN))
    assert state_of(both) == ("REPLIED", 30)
    both.natgw.now += 2.0

    def streams() -> bool:
        """Linux's own clock has to get there: two seconds after the first packet."""
        both.step(Segment(conversation, OUT))
        return both.kernel.entries()[0].timeout_s > 30

    eventually(streams, every_s=0.1)
    assert state_of(both) == ("REPLIED", 120)


def test_icmp(both: Comparison) -> None:
    conversation = Conversation(ICMP, "172.17.0.2", 5000, ROUTER, 0)
    both.step(Segment(conversation, OUT, query=ECHO))
    assert state_of(both) == ("UNREPLIED", 30)
    both.step(Segment(conversation, IN, query=ECHO_REPLY))
    assert state_of(both) == ("REPLIED", 30)


def test_an_unsolicited_packet_leaves_nothing(both: Comparison) -> None:
    for protocol, port in ((TCP, 80), (UDP, 80)):
        both.step(Segment(Conversation(protocol, "172.17.0.2", 5000, ROUTER, port), IN, flags=SYN if protocol == TCP else 0))
    assert both.kernel.entries() == []
    assert both.natgw.datapath.flow_records(both.natgw.now) == []
    assert sum(both.tally.dropped.values()) == 2
