"""Python's collector of reference cycles, kept from stopping the frames.

A whole collection looks at every object there is, and nothing else runs meanwhile. Flows leave no cycles, and those at rest
are out of its sight (natgw.tables.resting); what makes cycles is the control plane, now and then. So what is there when the
daemon is ready is left out for good (`gc.freeze`), young objects are looked at often and a few at a time, as ever, and old
ones only by a timer, not whenever their number has grown.
"""

from __future__ import annotations

import asyncio
import gc

YOUNG_OBJECTS = 2000
"""New objects after which the youngest are looked at: a tenth of a millisecond."""
YOUNG_ROUNDS = 5
_NEVER = 1 << 30
EVERY_S = 600.0
"""How often all objects that came to be since the start are looked at; with the most flows that can be awake, some tens of
milliseconds."""


class Collector:
    """Begins when it is made; `close` leaves the collector as it was."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._before = gc.get_threshold()
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS, YOUNG_ROUNDS, _NEVER)
        self._timer = loop.call_later(EVERY_S, self._collect)

    def close(self) -> None:
        self._timer.cancel()
        gc.set_threshold(*self._before)
        gc.unfreeze()

    def _collect(self) -> None:
        gc.collect()
        self._timer = self._loop.call_later(EVERY_S, self._collect)
