"""A limit on what passes through a port: a token bucket with a short queue behind it, as the kernel's tbf is one.

The bucket holds bytes and may go into debt by one frame, so that a superframe larger than the bucket passes and the rate in
the long run is still exact. What the bucket does not let through waits in the queue, in order; what finds the queue full is
dropped, which is how senders learn of the limit.

A port without a limit has none of this in its way: a shaper takes the place of the port's own `transmit` or `receive`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from natgw.datapath.port import Receive, Transmit
from natgw.wire.segment import LONGEST_FRAME_BYTES, CannotSegment, superframes
from natgw.wire.vnet import VNET_BYTES

QUEUE_S = 0.05
"""How long a frame may wait; tbf users commonly set 25 to 50 ms."""
QUEUE_BYTES = 131072
"""What may wait at any rate: two superframes, so that one need not be dropped because it follows another."""
DEFAULT_BURST_S = 0.1
DEFAULT_BURST_BYTES = 65536

Later = Callable[[float, Callable[[], None]], asyncio.TimerHandle]


@dataclass(frozen=True)
class Rate:
    """A limit in bits per second, and what may pass at once, in bits; None: what passes in 100 ms, 64 KiB at least."""

    bits_per_s: int
    burst_bits: int | None = None

    @property
    def bytes_per_s(self) -> float:
        return self.bits_per_s / 8

    @property
    def burst_bytes(self) -> float:
        if self.burst_bits is not None:
            return self.burst_bits / 8
        return max(self.bytes_per_s * DEFAULT_BURST_S, DEFAULT_BURST_BYTES)


class Shaper:
    """Passes frames on to `forward`, no faster than `rate`. `dropped` is called for each that is lost.

    `flush` is called when frames were passed on that had waited. `later` and `clock` are the event loop's and monotonic.
    """

    def __init__(self, rate: Rate, forward: Transmit, dropped: Callable[[], None], later: Later, *,
                 flush: Callable[[], object] = lambda: None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = rate.bytes_per_s
        self._burst = rate.burst_bytes
        self._tokens = rate.burst_bytes
        self._room = max(QUEUE_BYTES, rate.bytes_per_s * QUEUE_S)
        self._forward = forward
        self._dropped = dropped
        self._later = later
        self._flush = flush
        self._clock = clock
        self._updated = clock()
        self._queue: deque[bytes] = deque()
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    def send(self, frame: memoryview) -> None:
        """Take a frame, which lies in a buffer that is used again. A superframe beyond 64 KiB is taken by parts."""
        if len(frame) > LONGEST_FRAME_BYTES:
            try:
                for part in superframes(frame):
                    self._take(part)
            except CannotSegment:
                self._dropped()
        else:
            self._take(frame)

    def _take(self, frame: memoryview) -> None:
        if not self._queue and self._refill() > 0:
            self._tokens -= bytes_on_wire(frame)
            self._forward(frame)
        elif self._waiting + len(frame) > self._room:
            self._dropped()
        else:
            self._queue.append(bytes(frame))
            self._waiting += len(frame)
            if self._timer is None:
                self._timer = self._later(self._until_due(), self._release)

    def close(self) -> None:
        """Drop what waits. Twice is once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for _ in self._queue:
            self._dropped()
        self._queue.clear()
        self._waiting = 0

    def _release(self) -> None:
        self._timer = None
        self._refill()
        while self._queue and self._tokens > 0:
            frame = self._queue.popleft()
            self._waiting -= len(frame)
            self._tokens -= bytes_on_wire(frame)
            self._forward(memoryview(frame))
        if self._queue:
            self._timer = self._later(self._until_due(), self._release)
        self._flush()

    def _refill(self) -> float:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._per_s)
        self._updated = now
        return self._tokens

    def _until_due(self) -> float:
        """Until the bucket has a byte again; not less than a millisecond, which is as fine as timers are."""
        return max(0.001, (1 - self._tokens) / self._per_s)


def bytes_on_wire(frame: bytes | memoryview) -> int:
    """The length of a frame, or of all the frames that a superframe will become, each with its headers."""
    size = len(frame) - VNET_BYTES
    if frame[1]:
        headers, segment = frame[2] | frame[3] << 8, frame[4] | frame[5] << 8
        if segment and headers:
            size += (max(0, size - headers - 1) // segment) * headers
    return size


def as_receiver(shaper_of: Callable[[Transmit], Shaper], receive: Receive,
                clock: Callable[[], float] = time.monotonic) -> tuple[Receive, Shaper]:
    """`receive` behind a shaper, made by `shaper_of` for what passes frames on.

    A frame is changed where it lies and read a little beyond its end: each that passes gets a buffer of its own.
    """
    def forward(frame: memoryview) -> None:
        receive(bytearray(frame) + bytearray(64), len(frame), clock())

    shaper = shaper_of(forward)
    return lambda buf, n, now: shaper.send(memoryview(buf)[:n]), shaper
