"""Neighbours: which MAC address, behind which port, an IPv4 address of a segment has (RFC 826, RFC 1122 section 2.3.2).

       resolve()            reply                       reachable_s, flows use it        no reply to 3 probes
    ---------> INCOMPLETE ---------> REACHABLE ----------------------------> PROBE ---------------> FAILED
                  | 3 requests, 1 s apart, no reply   ^       reply            |                      |
                  +---------------> FAILED            +-----------------------+      the next packet: INCOMPLETE

A neighbour is also the hop that flows point to: `transmit` and the ready-made Ethernet `header` are what the fast path
needs to send, and `transmit` is None while sending is not possible. When a station moves or a link goes, the neighbour
changes and every flow behind it has changed, without anybody walking the flow table.

Frames wait for a resolution in a short queue; only their newest are kept (RFC 1122 section 2.3.2.2 asks for at least one).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Generic, TypeVar

REACHABLE_S = 60.0
"""RFC 1122 section 2.3.2.1 suggests a minute before a cached address is checked by a unicast probe."""
UNUSED_S = 600.0
RETRY_S = 1.0
MAX_TRIES = 3
MAX_QUEUED_BYTES = 212_992
"""What may wait for one neighbour, as in Linux (unres_qlen_bytes of arp(7))."""
QUEUED_FRAME_BYTES = 256
"""What a frame counts besides its own bytes, so that small ones are not too many."""

P = TypeVar("P")
Transmit = Callable[[memoryview], None]


class NeighbourState(Enum):
    INCOMPLETE = "INCOMPLETE"
    REACHABLE = "REACHABLE"
    PROBE = "PROBE"
    FAILED = "FAILED"


class Waiting:
    """Frames for a neighbour that is still looked for, the oldest first. There is always room for one, however long."""

    __slots__ = ("_bytes", "_frames")

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: bytes) -> int:
        """Let a frame wait; gives how many older ones gave way to it."""
        dropped = 0
        size = len(frame) + QUEUED_FRAME_BYTES
        while self._frames and self._bytes + size > MAX_QUEUED_BYTES:
            self._bytes -= len(self._frames.popleft()) + QUEUED_FRAME_BYTES
            dropped += 1
        self._frames.append(frame)
        self._bytes += size
        return dropped

    def take(self) -> list[bytes]:
        """All of them, in order; none waits any more."""
        frames = list(self._frames)
        self._frames.clear()
        self._bytes = 0
        return frames


class Neighbour(Generic[P]):
    """One address. `header` is the 14-byte Ethernet header for frames to it, `macs` its first 12 bytes.

    `flows` counts the flow legs that use it. `is_loopback` marks the way from a gateway to itself.
    """

    __slots__ = ("coalesces", "confirmed", "due", "flows", "header", "ip", "is_loopback", "mac", "macs", "mtu", "pinned",
                 "port", "queue", "state", "transmit", "tries")

    def __init__(self, ip: bytes, now: float) -> None:
        self.ip = ip
        self.mac: bytes | None = None
        self.port: P | None = None
        self.header = self.macs = b""
        self.transmit: Transmit | None = None
        self.mtu = 0
        self.coalesces = False
        self.state = NeighbourState.INCOMPLETE
        self.confirmed = now
        self.due = now
        self.tries = 0
        self.flows = 0
        self.pinned = False
        self.is_loopback = False
        self.queue = Waiting()


class NeighbourTable(Generic[P]):
    """The neighbours of one segment.

    `request(neighbour, to_mac)` must send an ARP request (broadcast when `to_mac` is None). `failed(neighbour, frames)` is
    told of frames that waited in vain.
    """

    def __init__(self, max_entries: int, request: Callable[[Neighbour[P], bytes | None], None],
                 failed: Callable[[Neighbour[P], list[bytes]], None]) -> None:
        self.max_entries = max_entries
        self.refused = 0
        self._request = request
        self._failed = failed
        self._entries: dict[bytes, Neighbour[P]] = {}
        self._timers: list[tuple[float, bytes]] = []

    def get(self, ip: bytes) -> Neighbour[P] | None:
        return self._entries.get(ip)

    def entries(self) -> list[Neighbour[P]]:
        return list(self._entries.values())

    def resolve(self, ip: bytes, now: float) -> Neighbour[P] | None:
        """The neighbour for `ip`, asked for on the segment if it is not known. None: the table is full."""
        entry = self._entries.get(ip)
        if entry is None:
            entry = self._add(ip, now)
            if entry is None:
                return None
        elif entry.state is not NeighbourState.FAILED:
            return entry
        entry.state = NeighbourState.INCOMPLETE
        entry.tries = 0
        self._ask(entry, now)
        return entry

    def confirm(self, ip: bytes, mac: bytes, port: P, now: float, *, create: bool) -> Neighbour[P] | None:
        """Note that `ip` is at `mac` behind `port`. Only with `create` does an address nobody asked for get an entry.

        A pinned neighbour (an endpoint natgw itself gave the address to) takes no claim from another port.
        """
        entry = self._entries.get(ip)
        if entry is None:
            entry = self._add(ip, now) if create else None
            if entry is None:
                return None
        elif entry.pinned and entry.port is not port:
            return None
        entry.mac = mac
        entry.port = port
        entry.state = NeighbourState.REACHABLE
        entry.confirmed = now
        entry.tries = 0
        if entry.due <= now:
            # Otherwise the timer that is pending looks at `confirmed`: a storm of ARP must not fill the timer heap.
            self._schedule(entry, now + REACHABLE_S)
        return entry

    def remove(self, ip: bytes) -> Neighbour[P] | None:
        entry = self._entries.pop(ip, None)
        if entry is not None:
            self._retire(entry)
        return entry

    def forget_port(self, port: P) -> None:
        """A port has gone: what was behind it must be found again."""
        for entry in [entry for entry in self._entries.values() if entry.port is port]:
            del self._entries[entry.ip]
            self._retire(entry)

    def clear(self) -> None:
        for entry in self._entries.values():
            self._retire(entry)
        self._entries.clear()
        self._timers.clear()

    def tick(self, now: float) -> None:
        """Ask again, probe, give up and forget, as far as it is due."""
        while self._timers and self._timers[0][0] <= now:
            due, ip = heapq.heappop(self._timers)
            entry = self._entries.get(ip)
            if entry is not None and entry.due == due:
                self._timeout(entry, now)

    def next_deadline(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    def _timeout(self, entry: Neighbour[P], now: float) -> None:
        if entry.state is NeighbourState.REACHABLE:
            self._timeout_reachable(entry, now)
        elif entry.state is NeighbourState.FAILED:
            if not entry.flows and not entry.pinned:
                del self._entries[entry.ip]
                self._retire(entry)
        elif entry.tries < MAX_TRIES:
            self._ask(entry, now)
        else:
            self._give_up(entry, now)

    def _timeout_reachable(self, entry: Neighbour[P], now: float) -> None:
        age = now - entry.confirmed
        if age < REACHABLE_S:
            self._schedule(entry, entry.confirmed + REACHABLE_S)
        elif entry.flows:
            entry.state = NeighbourState.PROBE
            entry.tries = 0
            self._ask(entry, now)
        elif entry.pinned or age < UNUSED_S:
            self._schedule(entry, now + REACHABLE_S)
        else:
            del self._entries[entry.ip]
            self._retire(entry)

    def _give_up(self, entry: Neighbour[P], now: float) -> None:
        entry.state = NeighbourState.FAILED
        entry.transmit = None
        entry.mac = None
        frames = entry.queue.take()
        self._schedule(entry, now + REACHABLE_S)
        self._failed(entry, frames)

    def _ask(self, entry: Neighbour[P], now: float) -> None:
        entry.tries += 1
        self._schedule(entry, now + RETRY_S)
        self._request(entry, entry.mac if entry.state is NeighbourState.PROBE else None)

    def _add(self, ip: bytes, now: float) -> Neighbour[P] | None:
        if len(self._entries) >= self.max_entries:
            self.refused += 1
            return None
        entry = self._entries[ip] = Neighbour(ip, now)
        return entry

    def _schedule(self, entry: Neighbour[P], due: float) -> None:
        if entry.due != due:
            entry.due = due
            heapq.heappush(self._timers, (due, entry.ip))

    def _retire(self, entry: Neighbour[P]) -> None:
        """An entry leaves the table: legs that still point to it must not send by it any more."""
        entry.transmit = None
        entry.state = NeighbourState.FAILED
        entry.queue.take()
