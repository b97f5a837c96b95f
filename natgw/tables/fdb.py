"""The forwarding database of a learning bridge: which station is behind which port (IEEE 802.1D section 7.8, 7.9).

Entries age out 300 s after the station was last heard. A station heard at another port has moved, and moves at once. The
table is bounded; when it is full, new stations are not learned (their frames flood, which is correct if slow), so that a
flood of made-up addresses can never push out a station that is really there. Static entries neither age nor move.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import Generic, TypeVar

AGEING_S = 300.0
"""The default ageing time of IEEE 802.1D table 7-5, which Linux uses too."""

P = TypeVar("P")


class Learned(Enum):
    """What hearing a station did to the table."""

    KNOWN = "known"
    NEW = "new"
    MOVED = "moved"
    REFUSED_STATIC = "refused: the address is static at another port"
    REFUSED_FULL = "refused: the table is full"


class FdbEntry(Generic[P]):
    __slots__ = ("last_seen", "mac", "port", "static")

    def __init__(self, mac: bytes, port: P, last_seen: float, static: bool) -> None:
        self.mac = mac
        self.port = port
        self.last_seen = last_seen
        self.static = static


class Fdb(Generic[P]):
    """`max_entries` bounds the learned entries; static ones come on top."""

    def __init__(self, max_entries: int, ageing_s: float = AGEING_S) -> None:
        self.max_entries = max_entries
        self.ageing_s = ageing_s
        self._static: dict[bytes, FdbEntry[P]] = {}
        # Least recently heard first, so that ageing looks only at what is due.
        self._learned: OrderedDict[bytes, FdbEntry[P]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._static) + len(self._learned)

    def add_static(self, mac: bytes, port: P) -> None:
        self._learned.pop(mac, None)
        self._static[mac] = FdbEntry(mac, port, 0.0, True)

    def learn(self, mac: bytes, port: P, now: float) -> Learned:
        """Note that the station `mac` (unicast) was heard at `port`."""
        entry = self._learned.get(mac)
        if entry is not None:
            entry.last_seen = now
            self._learned.move_to_end(mac)
            if entry.port is port:
                return Learned.KNOWN
            entry.port = port
            return Learned.MOVED
        static = self._static.get(mac)
        if static is not None:
            return Learned.KNOWN if static.port is port else Learned.REFUSED_STATIC
        if len(self._learned) >= self.max_entries:
            return Learned.REFUSED_FULL
        self._learned[mac] = FdbEntry(mac, port, now, False)
        return Learned.NEW

    def lookup(self, mac: bytes, now: float) -> P | None:
        """The port a station is behind, or None if it is unknown or was not heard for the ageing time."""
        entry = self._learned.get(mac) or self._static.get(mac)
        if entry is None or (not entry.static and now - entry.last_seen >= self.ageing_s):
            return None
        return entry.port

    def expire(self, now: float) -> int:
        """Forget stations not heard for the ageing time; gives how many."""
        gone = 0
        while self._learned:
            mac, entry = next(iter(self._learned.items()))
            if now - entry.last_seen < self.ageing_s:
                break
            del self._learned[mac]
            gone += 1
        return gone

    def forget_port(self, port: P) -> None:
        """Drop every entry of a port that is going away."""
        for table in (self._learned, self._static):
            for mac in [mac for mac, entry in table.items() if entry.port is port]:
                del table[mac]

    def entries(self) -> list[FdbEntry[P]]:
        return [*self._static.values(), *self._learned.values()]
