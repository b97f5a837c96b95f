"""natgw, set to behave as Linux does, sends what Linux's own nf_nat sends, packet by packet and byte for byte.

The differences that are meant are listed in differences.py. `HYPOTHESIS_PROFILE=nightly` tries many more sequences, other ones
each time; without it they are always the same ones.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings

from tests.kernel.comparing import Comparison, Tally
from tests.kernel.differences import DIFFERENCES, STATE_DIFFERENCES, Difference, StateDifference
from tests.kernel.kernel_gateway import KernelGateway
from tests.kernel.packets import Step
from tests.kernel.strategies import sequences
from tests.requirements import DOCUMENT, ROW

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
SEQUENCES = 10_000 if NIGHTLY else 1500

PASSED_BY_BOTH = ("tcp out", "tcp in", "udp out", "udp in", "icmp out", "icmp in", "error out", "error in", "answered")
STATES = ("SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "CLOSE", "UNREPLIED", "REPLIED", "None")
LISTED: tuple[Difference | StateDifference, ...] = (*DIFFERENCES, *STATE_DIFFERENCES)


def test_the_same_packets_and_states(kernel: KernelGateway) -> None:
    tally = Tally()

    @settings(max_examples=SEQUENCES, derandomize=not NIGHTLY, deadline=None, database=None, print_blob=True,
              suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(sequences())
    def compare(steps: list[Step]) -> None:
        comparison = Comparison(kernel, tally)
        for step in steps:
            comparison.step(step)
        comparison.compare_states()

    compare()
    print(tally)
    # Or the property compares nothing.
    few = {name: tally.same[name] for name in PASSED_BY_BOTH if tally.same[name] < SEQUENCES // 20}
    few |= {name: tally.states[name] for name in STATES if tally.states[name] < SEQUENCES // 500}
    assert not few, f"too few of these were seen: {few}"
    assert sum(tally.same.values()) > 3 * SEQUENCES
    # An entry that explains nothing any more is to be taken from the list.
    unused = {each.name for each in LISTED} - set(tally.different)
    assert not unused, f"no packet showed these differences: {unused}"


def test_each_difference_follows_a_requirement() -> None:
    listed = {row[0] for row in ROW.findall(DOCUMENT.read_text())}
    assert {each.requirement for each in LISTED} <= listed
    assert len({each.name for each in LISTED}) == len(LISTED)
