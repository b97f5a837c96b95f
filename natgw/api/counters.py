"""Which of the datapath's counters say what became of a frame, and which count other things."""

from __future__ import annotations

from collections.abc import Mapping

from natgw.datapath.verdict import Verdict

VERDICTS = [verdict.label for verdict in Verdict if not verdict.is_drop]
DROPS = [verdict.label for verdict in Verdict if verdict.is_drop]


def groups(counters: Mapping[str, int]) -> dict[str, list[str]]:
    """The counters' names as `natgw stats` groups them: each frame is in exactly one of `verdicts` and `drops`."""
    classed = {*VERDICTS, *DROPS}
    return {
        "verdicts": [name for name in VERDICTS if name in counters],
        "drops": [name for name in DROPS if name in counters],
        "events": [name for name in counters if name not in classed],
    }
