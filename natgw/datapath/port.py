"""A bridge port or the uplink, as the datapath knows it: a name, a way to send, and what it has counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from natgw.datapath.config import PortKind

if TYPE_CHECKING:
    from natgw.datapath.plans import Plan
    from natgw.datapath.sides import Bridge

Transmit = Callable[[memoryview], None]
Receive = Callable[[bytearray, int, float], None]

MAX_SHORTCUTS = 256


class Port:
    """`transmit` takes a frame with its offload header; it must copy or write it at once, the buffer is used again.

    `shortcuts` remembers, for a pair of MAC addresses as they lie in a frame (destination, source), where the slow path
    found such frames to go: another port, or ROUTE for the gateway. Whatever could change the answer clears it, and so
    does every tick, so that the fdb hears of the stations that still talk. `plans` (`natgw.datapath.plans`) does the same
    for connections that begin here.
    """

    __slots__ = ("bridge", "coalesces", "kind", "mtu", "name", "plans", "receive", "rx_bytes", "rx_frames", "shortcuts",
                 "transmit", "tx")

    receive: Receive

    def __init__(self, name: str, kind: PortKind, mtu: int, transmit: Transmit, bridge: Bridge | None, *,
                 coalesces: bool = True) -> None:
        self.name = name
        self.kind = kind
        self.mtu = mtu
        self.transmit = transmit
        self.bridge = bridge
        self.coalesces = coalesces
        self.shortcuts: dict[bytes, Port] = {}
        self.plans: dict[bytes, Plan] = {}
        self.rx_frames = self.rx_bytes = 0
        # Frames, bytes, drops, superframes cut in software: counted by the writer behind `transmit`, which shares the list.
        self.tx = [0, 0, 0, 0]

    def remember(self, macs: bytes, target: Port) -> None:
        """Let the fast path send frames with these MAC addresses to `target` until something changes."""
        if len(self.shortcuts) >= MAX_SHORTCUTS:
            self.shortcuts.clear()
        self.shortcuts[macs] = target

    def record(self) -> dict[str, object]:
        """The counters, as `natgw stats --json` prints them."""
        frames, size, drops, segmented = self.tx
        return {"name": self.name, "kind": self.kind.value, "mtu": self.mtu, "rx_frames": self.rx_frames,
                "rx_bytes": self.rx_bytes, "tx_frames": frames, "tx_bytes": size, "tx_drops": drops,
                "segmented": segmented}


def _nowhere(frame: memoryview) -> None:
    raise AssertionError("ROUTE is a mark, not a port to send to")


ROUTE = Port("route", PortKind.HOST, 0, _nowhere, None)
"""In `shortcuts`: these frames are for the gateway."""
