"""What the generated tests saw, told at the end of every run: how many sequences of how many steps, and how long it took.

Under `HYPOTHESIS_PROFILE=nightly` (tests/conftest.py) there are thousands, other ones each time; what they find becomes a
test of its own (test_found.py).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import pytest

NIGHTLY_LIMIT_S = 4 * 3600

generated = pytest.mark.timeout(NIGHTLY_LIMIT_S if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 300)
"""Marks a test that tries many sequences."""


@dataclass
class Figures:
    """Of one property: sequences tried, steps in them, and when the first and the last was through."""

    sequences: int = 0
    steps: int = 0
    first: float = 0.0
    last: float = 0.0


_seen: dict[str, Figures] = {}


def note(property_: str, steps: int, sequences: int = 1, began: float | None = None) -> None:
    """Count a sequence, or some that `began` (time.monotonic) together, of so many steps."""
    now = time.monotonic()
    figures = _seen.setdefault(property_, Figures(first=now if began is None else began))
    figures.sequences += sequences
    figures.steps += steps
    figures.last = now


def report() -> list[str]:
    """A line for each property that was tried."""
    return [f"{name}: {each.sequences} sequences, {each.steps} steps, {each.last - each.first:.0f} s"
            for name, each in _seen.items()]
