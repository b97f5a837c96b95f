"""The token bucket at a limited port, on a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from natgw.host.shaper import QUEUE_BYTES, Rate, Shaper, as_receiver, bytes_on_wire
from natgw.wire.vnet import NO_OFFLOAD, VNET, VNET_BYTES


class Time:
    """A clock with timers, which `run` lets go off in their order."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        entry = (self.now + delay, callback)
        self.timers.append(entry)

        class Handle:
            def cancel(handle: Any) -> None:
                self.timers.remove(entry)

        return cast(asyncio.TimerHandle, Handle())

    def run(self, until: float) -> None:
        while self.timers and (due := min(self.timers, key=lambda timer: timer[0]))[0] <= until:
            self.timers.remove(due)
            self.now = due[0]
            due[1]()
        self.now = until


class Limited:
    """A shaper, and what became of what was sent through it."""

    def __init__(self, rate: Rate) -> None:
        self.time = Time()
        self.passed: list[tuple[float, bytes]] = []
        self.dropped = self.flushed = 0
        self.shaper = self.make(rate, lambda frame: self.passed.append((self.time.now, bytes(frame))))

    def make(self, rate: Rate, forward: Callable[[memoryview], None]) -> Shaper:
        def dropped() -> None:
            self.dropped += 1

        def flush() -> None:
            self.flushed += 1

        return Shaper(rate, forward, dropped, self.time.later, flush=flush, clock=lambda: self.time.now)


def frame(size: int, mark: int = 0) -> memoryview:
    """`size` bytes on the wire."""
    return memoryview(NO_OFFLOAD + bytes([mark]) * size)


def test_the_burst_passes_at_once_and_the_rest_at_the_rate() -> None:
    """8 kbit/s are 1000 bytes a second."""
    limited = Limited(Rate(8000, 16_000))
    for mark in range(10):
        limited.shaper.send(frame(1000, mark))
    assert [moment for moment, _ in limited.passed] == [0, 0]
    limited.time.run(20)
    assert [body[-1] for _, body in limited.passed] == list(range(10))
    assert [round(moment) for moment, _ in limited.passed] == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert (limited.dropped, limited.time.timers) == (0, [])
    assert limited.flushed


@pytest.mark.parametrize("size", [60, 1500, 60_000])
def test_the_rate_is_exact_in_the_long_run(size: int) -> None:
    """Whatever the frames' size, larger than the bucket or not; what does not fit the queue is dropped and counted."""
    limited = Limited(Rate(8_000_000, 80_000))
    offered = 0
    for step in range(1000):
        limited.time.run(step / 100)
        for _ in range(max(1, 20_000 // size)):
            limited.shaper.send(frame(size))
            offered += 1
    passed = len(limited.passed) * size
    assert passed == pytest.approx(10_000_000 + 10_000, rel=0.02)
    limited.time.run(20)
    assert len(limited.passed) + limited.dropped == offered
    assert limited.dropped


def test_a_full_queue_drops_and_close_drops_the_rest() -> None:
    limited = Limited(Rate(8000, 8000))
    limited.shaper.send(frame(1000))
    held = QUEUE_BYTES // (1000 + VNET_BYTES)
    for _ in range(held + 5):
        limited.shaper.send(frame(1000))
    assert limited.dropped == 5
    limited.shaper.close()
    limited.shaper.close()
    assert (limited.dropped, limited.time.timers) == (held + 5, [])


def test_below_the_rate_nothing_waits() -> None:
    limited = Limited(Rate(8_000_000))
    for step in range(100):
        limited.time.run(step / 100)
        limited.shaper.send(frame(9000))
        assert len(limited.passed) == step + 1


def test_a_superframe_counts_as_the_frames_it_becomes() -> None:
    """Three segments of 1000, 1000 and 500 bytes, each with 54 bytes of headers."""
    header = VNET.pack(1, 1, 54, 1000, 34, 16)
    assert bytes_on_wire(memoryview(header + bytes(54 + 2500))) == 2500 + 3 * 54
    assert bytes_on_wire(memoryview(header + bytes(54 + 2000))) == 2000 + 2 * 54
    assert bytes_on_wire(frame(1514)) == 1514


def test_a_receiver_behind_it_gets_its_frames_whole_and_later() -> None:
    limited = Limited(Rate(8000, 8000))
    got: list[tuple[bytes, float]] = []

    def receive(buf: bytearray, n: int, now: float) -> None:
        assert len(buf) >= max(64, n)
        got.append((bytes(buf[:n]), now))
        buf[:n] = bytes(n)  # as the datapath does: a frame is changed where it lies

    shaped, _ = as_receiver(lambda forward: limited.make(Rate(8000, 8000), forward), receive, lambda: limited.time.now)
    buffer = bytearray(2000)
    for mark in (1, 2):
        buffer[:1010] = frame(1000, mark)
        shaped(buffer, 1010, 0.0)
    buffer[:1010] = bytes(1010)
    limited.time.run(5)
    assert [body[-1] for body, _ in got] == [1, 2]
    assert got[1][1] > got[0][1]
