"""Limits on an endpoint's bandwidth: shapers at its bridge port, for those endpoints that have a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from natgw.datapath import Datapath, Port, Verdict
from natgw.datapath.port import Transmit
from natgw.host.shaper import Rate, Shaper, as_receiver


def limited_transmit(rate: Rate | None, transmit: Transmit, port: Callable[[], Port | None],
                     undo: AsyncExitStack) -> Transmit:
    """What is sent to a container, no faster than it may receive. `port` gives the port when there is one."""
    if rate is None:
        return transmit

    def dropped() -> None:
        at = port()
        if at is not None:
            at.tx[2] += 1

    shaper = Shaper(rate, transmit, dropped, asyncio.get_running_loop().call_later)
    undo.callback(shaper.close)
    return shaper.send


def limit_receive(rate: Rate | None, port: Port, datapath: Datapath, undo: AsyncExitStack) -> None:
    """What a container sends, no faster than it may send."""
    if rate is None:
        return

    def dropped() -> None:
        datapath.verdicts[Verdict.DROP_BANDWIDTH] += 1

    def shaper(forward: Transmit) -> Shaper:
        return Shaper(rate, forward, dropped, asyncio.get_running_loop().call_later, flush=datapath.flush)

    port.receive, made = as_receiver(shaper, port.receive)
    undo.callback(made.close)
