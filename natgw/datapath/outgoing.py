"""What waits to be written: frames that are ready, and runs of datagrams that are still growing.

A frame is decided about at once, but not written at once. The pump reads a few frames, has all of them decided about, and
only then are they written ("vector packet processing"): reading, deciding and writing each go through much code of their own,
which the others would push out of the processor's caches. In turn with one frame after the other it gave TCP 1.07 to 1.10 of
the rate and connections by HTTP 1.26 (docs/decisions/0031-in-batches.md).

So a frame's buffer belongs to the datapath until it is sent, by `send` or `flush`.

A flow's frames leave in the order in which they came. Those that are ready do anyway; a run leaves when a frame comes that
does not continue it, after all that was ready before. And what takes the slow path, which writes at once, comes after all.
"""

from __future__ import annotations

from collections.abc import Callable

from natgw.datapath.coalesce import Run
from natgw.datapath.port import Transmit
from natgw.tables.flows import Leg

MAX_RUNS = 64
"""Flows that may have a run at a time, each with a buffer of 64 KiB."""


class Outgoing:
    """`frames` to be written, each with the way to do it; `runs` by the key of their datagrams, as they came in.

    `counted(leg, more)` is told how many datagrams were merged into one of that leg.
    """

    def __init__(self, counted: Callable[[Leg, int], None]) -> None:
        self.frames: list[tuple[Transmit, memoryview]] = []
        self.runs: dict[bytes, Run] = {}
        self._spare: list[Run] = []
        self._counted = counted

    def begin(self, key: bytes, buf: bytearray, end: int, leg: Leg) -> Run:
        """A run that begins with a translated frame. The caller sets the fields to match."""
        if len(self.runs) >= MAX_RUNS:
            self.flush()
        run = self.runs[key] = self._spare.pop() if self._spare else Run()
        run.start(buf, end, leg)
        return run

    def close(self, key: bytes) -> None:
        """Write the run of these datagrams, and what was ready before."""
        self.send()
        run = self.runs.pop(key)
        self._spare.append(run)
        more = run.flush()
        if more:
            self._counted(run.leg, more)

    def send(self) -> None:
        """Write the frames that are ready. Their buffers are free then; runs go on."""
        frames = self.frames
        if frames:
            for transmit, frame in frames:
                transmit(frame)
            frames.clear()

    def flush(self) -> None:
        """Write all there is, the runs in the order in which they began."""
        self.send()
        if self.runs:
            for key in list(self.runs):
                self.close(key)
