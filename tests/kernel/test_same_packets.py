"""natgw, set to behave as Linux does, sends what Linux's own nf_nat sends, packet by packet and byte for byte.

The differences that are meant are listed in differences.py, and each is shown in test_found.py.
"""

from __future__ import annotations

from hypothesis import given, settings

from tests.conftest import PROFILE
from tests.generated import generated, note
from tests.kernel.comparing import Comparison, Tally, follow
from tests.kernel.differences import LISTED
from tests.kernel.kernel_gateway import KernelGateway
from tests.kernel.packets import Step
from tests.kernel.strategies import conversing
from tests.requirements import DOCUMENT, ROW

SEQUENCES = 10_000 if PROFILE == "nightly" else 500

PASSED_BY_BOTH = ("tcp out", "tcp in", "udp out", "udp in", "icmp out", "icmp in", "error out", "error in", "answered")
STATES = ("SYN_SENT", "SYN_SENT2", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE",
          "UNREPLIED", "REPLIED", "None")


@generated
def test_the_same_packets_and_states(kernel: KernelGateway) -> None:
    tally = Tally()

    @settings(max_examples=SEQUENCES)
    @given(conversing())
    def compare(steps: list[Step]) -> None:
        follow(Comparison(kernel, tally), steps)
        note("the same packets as Linux", len(steps))

    compare()
    print(tally)
    # Or the property compares nothing.
    few = {name: tally.same[name] for name in PASSED_BY_BOTH if tally.same[name] < SEQUENCES // 50}
    few |= {name: tally.states[name] for name in STATES if tally.states[name] < SEQUENCES // 50}
    assert not few, f"too few of these were seen: {few}"
    assert sum(tally.same.values()) > 3 * SEQUENCES
    assert tally.stalled < SEQUENCES // 10


def test_each_difference_follows_a_requirement() -> None:
    listed = {row[0] for row in ROW.findall(DOCUMENT.read_text())}
    assert {each.requirement for each in LISTED} <= listed
    assert len({each.name for each in LISTED}) == len(LISTED)
