"""What somebody else said and how long it holds: a bounded cache of answers that expire."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class TtlCache(Generic[Value]):
    """At most `max_entries` values of `max_bytes` in all; the one that was not used for longest goes first."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, tuple[float, float, int, Value]] = OrderedDict()
        self.bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, now: float) -> tuple[Value, float] | None:
        """A value that still holds, and its age in seconds."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        since, until, _, value = entry
        if now >= until:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return value, now - since

    def put(self, key: Hashable, value: Value, size_bytes: int, keep_s: float, now: float) -> None:
        """Keep a value for `keep_s` seconds. One that is too big for the whole cache, or holds for no time, is not kept."""
        self._remove(key)
        if keep_s <= 0 or size_bytes > self._max_bytes:
            return
        self._entries[key] = (now, now + keep_s, size_bytes, value)
        self.bytes += size_bytes
        while len(self._entries) > self._max_entries or self.bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))
            self.evicted += 1

    def clear(self) -> None:
        self._entries.clear()
        self.bytes = 0

    def _remove(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry[2]
