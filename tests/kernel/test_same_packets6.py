"""NAT66 set to behave as Linux does sends what ip6tables' masquerade sends, packet by packet and byte for byte (V1, V3, V4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import examples, requires
from tests.generated import generated, note
from tests.kernel.addresses6 import HOSTS6, REMOTES6
from tests.kernel.comparing import Tally, follow
from tests.kernel.comparing6 import DIFFERENCES6, Comparison6
from tests.kernel.kernel_gateway6 import KernelGateway6
from tests.kernel.packets import ACK, FIN, PSH, RST, SYN, TCP, UDP, URG, Conversation, Envelope, Error, Segment, Step
from tests.kernel.packets6 import ECHO6, ECHO_REPLY6, ICMPV6, PAD
from tests.requirements import DOCUMENT, ROW

pytestmark = pytest.mark.requirement("V1", "V3", "V4")
SEQUENCES = examples(300)
PASSED_BY_BOTH = ("tcp out", "tcp in", "udp out", "udp in", "icmp out", "icmp in", "error out", "error in", "answered")

_FLAGS = (SYN, SYN | ACK, ACK, PSH | ACK, FIN | ACK, RST, RST | ACK)
_ODD_FLAGS = (0, FIN, SYN | FIN, SYN | RST, FIN | PSH | URG, SYN | ACK | FIN, 0x40 | SYN, ACK | URG)
conversations = st.builds(Conversation, st.sampled_from((TCP, TCP, UDP)), st.sampled_from(tuple(HOSTS6)),
                          st.sampled_from((5000, 5000, 45000)), st.sampled_from(REMOTES6), st.sampled_from((80, 5000)))
conversations |= st.builds(Conversation, st.just(ICMPV6), st.sampled_from(tuple(HOSTS6)), st.sampled_from((5000, 45000)),
                           st.sampled_from(REMOTES6), st.just(0))
envelopes = st.just(Envelope()) | st.builds(
    Envelope, ttl=st.sampled_from((64, 64, 3, 2, 1, 0)), tos=st.sampled_from((0, 0, 0xB8, 3)),
    ident=st.sampled_from((0, 1, 0xFFFFF)), options=st.sampled_from((b"", b"", b"\x3c" + PAD, b"\x00" + PAD)))
_payloads = st.just(b"") | st.binary(max_size=9) | st.sampled_from((bytes(1300), b"\xff" * 1340, b"x" * 1400, b"y" * 1440))
_STORY = ((False, SYN), (True, SYN | ACK), (False, ACK), (False, FIN | ACK), (True, ACK), (True, FIN | ACK), (False, ACK))


def _segment(draw: st.DrawFn, conversation: Conversation) -> Step:
    inward = draw(st.booleans())
    tcp = conversation.protocol == TCP
    kinds = ("good", "good", "good", "bad")
    return Segment(conversation, inward, draw(envelopes), draw(_payloads),
                   draw(st.sampled_from(_FLAGS * 3 + _ODD_FLAGS)) if tcp else 0,
                   query=draw(st.sampled_from((ECHO_REPLY6 if inward else ECHO6,) * 3 + (ECHO6, ECHO_REPLY6))),
                   checksum=draw(st.sampled_from(kinds)))


def _error(draw: st.DrawFn, conversation: Conversation) -> Step:
    inward = draw(st.booleans())
    type_, code = draw(st.sampled_from(((1, 0), (1, 1), (1, 3), (1, 4), (2, 0), (3, 0), (3, 1), (4, 1))))
    return Error(conversation, inward, type_, code, draw(st.sampled_from((None, "2001:db8:99::77" if inward else None))),
                 draw(st.sampled_from((48, 48, 60, 88, 200, 44))), draw(st.sampled_from((b"", b"", b"\x3c" + PAD))),
                 draw(st.sampled_from(("", "", "", "icmp", "quoted transport"))), draw(envelopes))


@st.composite
def conversing(draw: st.DrawFn) -> list[Step]:
    """Up to some thirty steps of one to four conversations."""
    talking = draw(st.lists(conversations, min_size=1, max_size=4, unique=True))
    steps: list[Step] = []
    for conversation in talking:
        if draw(st.booleans()):
            if conversation.protocol == TCP:
                story = _STORY[: draw(st.integers(1, 7))]
                steps += [Segment(conversation, inward, flags=flags) for inward, flags in story]
            else:
                steps += [Segment(conversation, False, payload=b"question", query=ECHO6),
                          Segment(conversation, True, payload=b"answer", query=ECHO_REPLY6)]
    for _ in range(draw(st.integers(1, 20))):
        conversation = draw(st.sampled_from(talking))
        steps.append(draw(st.sampled_from((_segment, _segment, _segment, _error)))(draw, conversation))
    return steps


@pytest.fixture(scope="module")
def kernel6() -> Iterator[KernelGateway6]:
    requires("ip", "ip6tables-restore", "nsenter")
    with KernelGateway6() as made:
        yield made


@generated
def test_the_same_packets(kernel6: KernelGateway6) -> None:
    tally = Tally()

    @settings(max_examples=SEQUENCES)
    @given(conversing())
    def compare(steps: list[Step]) -> None:
        follow(Comparison6(kernel6, tally), steps)
        note("the same packets of IPv6 as Linux", len(steps))

    compare()
    print(tally)
    few = {name: tally.same[name] for name in PASSED_BY_BOTH if tally.same[name] < SEQUENCES // 20}
    assert not few, f"too few of these were seen: {few}"
    assert sum(tally.same.values()) > 2 * SEQUENCES
    assert tally.stalled < SEQUENCES // 10


UDP_FLOW, TCP_FLOW, PING = (Conversation(protocol, "fd00:1:2:3::2", 5000, REMOTES6[0], port)
                            for protocol, port in ((UDP, 80), (TCP, 80), (ICMPV6, 0)))
PING_TOO = replace(PING, host="fd00:1:2:3::3")
OPENED = [Segment(TCP_FLOW, inward, flags=flags) for inward, flags in _STORY[:3]]
CLOSING = [Segment(TCP_FLOW, inward, flags=flags) for inward, flags in (
    (False, FIN | ACK), (True, ACK), (True, FIN | ACK), (False, ACK))]
DIFFERENT: list[tuple[str, list[Step]]] = [
    ("reset", [*OPENED, Segment(TCP_FLOW, False, flags=RST)]),
    ("reset refused", [*OPENED, Segment(TCP_FLOW, True, flags=RST, seq=-1)]),
    ("urgent", [*OPENED, Segment(TCP_FLOW, False, flags=RST | URG)]),
    ("refused packets count", [*OPENED, Segment(TCP_FLOW, False, Envelope(ttl=1), flags=FIN | ACK)]),
    ("refused or dropped", [*OPENED, Segment(TCP_FLOW, True, Envelope(ttl=1), flags=SYN | FIN)]),
    ("refused or dropped", [Segment(TCP_FLOW, False, payload=b"x" * 1400)]),
    ("ended from outside", [*OPENED, *CLOSING, Segment(TCP_FLOW, True, flags=SYN)]),
    ("answer too large", [Segment(PING, True, payload=b"y" * 1440, query=ECHO6)]),
    ("answer too large", [Segment(PING, False, query=ECHO6), Segment(PING_TOO, False, query=ECHO6),
                          Segment(PING_TOO, True, payload=b"y" * 1440, query=ECHO6)]),
]


@pytest.mark.parametrize(("name", "steps"), DIFFERENT, ids=[name for name, _ in DIFFERENT])
def test_what_is_meant_to_differ_does(kernel6: KernelGateway6, name: str, steps: list[Step]) -> None:
    comparison = Comparison6(kernel6, Tally())
    *before, last = steps
    for step in before:
        comparison.step(step)
    assert not comparison.tally.different
    comparison.step(last)
    assert comparison.tally.different[name] == 1


def test_each_difference_follows_a_requirement_and_has_an_example() -> None:
    assert {each.name for each in DIFFERENCES6} == {name for name, _ in DIFFERENT}
    assert {each.requirement for each in DIFFERENCES6} <= {row[0] for row in ROW.findall(DOCUMENT.read_text())}
