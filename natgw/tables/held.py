"""Packets that wait for something that makes them unwelcome or welcome: unsolicited SYNs (RFC 5382 REQ-4).

A SYN from outside that belongs to nothing may be half of a simultaneous open whose other half is on its way from inside. So
it is held for some seconds: if the other half comes, it is dropped without a word; if not, its sender is told.
"""

from __future__ import annotations

from collections import OrderedDict


class Held:
    """At most `limit` frames by their key, the oldest let go first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._frames)

    def hold(self, key: bytes, frame: bytes, until: float) -> None:
        """Hold a frame; one that is sent again changes nothing about when its sender is told."""
        if key in self._frames:
            return
        if len(self._frames) >= self._limit:
            self._frames.popitem(last=False)
        self._frames[key] = (until, frame)

    def forget(self, key: bytes) -> None:
        """The other half has come."""
        self._frames.pop(key, None)

    def due(self, now: float) -> list[bytes]:
        """The frames whose time is over, taken out."""
        found = []
        while self._frames:
            key, (until, frame) = next(iter(self._frames.items()))
            if until > now:
                break
            found.append(frame)
            del self._frames[key]
        return found
