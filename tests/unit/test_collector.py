"""How Python's collector is kept from stopping the frames."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref

from natgw.host.collector import Collector
from tests.unit.flow_lab import Table


class _Knot:
    def __init__(self) -> None:
        self.self = self


def test_the_longest_pause_with_many_flows_is_short() -> None:
    """The pauses the collector makes while flows come and go, by its own callbacks."""
    pauses: list[float] = []
    began = 0.0

    def watch(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.process_time()
        else:
            pauses.append(time.process_time() - began)

    loop = asyncio.new_event_loop()
    collector = Collector(loop)
    gc.callbacks.append(watch)
    try:
        table = Table(max_awake=10_000)
        for number in range(60_000):
            table.add(number, number / 5000, timeout_s=7440.0)
        assert pauses and len(table.flows) == 60_000
        # Of the process' own time, whatever else the machine does: a collection of all these flows as objects takes 50 ms.
        assert max(pauses) < 0.02, max(pauses)
    finally:
        gc.callbacks.remove(watch)
        collector.close()
        loop.close()


def test_cycles_are_still_found_and_everything_is_put_back() -> None:
    before = gc.get_threshold()
    loop = asyncio.new_event_loop()
    collector = Collector(loop)
    try:
        knot = weakref.ref(_Knot())
        collector._collect()
        assert knot() is None and gc.get_threshold() != before
    finally:
        collector.close()
        loop.close()
    assert gc.get_threshold() == before
