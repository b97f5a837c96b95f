"""Free transport ports of one external address and protocol.

A port asked for is given if it is free (RFC 4787 section 4.2.1, port preservation); otherwise the next of a shuffled queue,
so that mappings are hard to guess (RFC 6056) and a released port rests as long as possible. Taking and releasing cost the
same however full the pool is: the queue may still name ports that were taken by preservation, and skips them when it gets
to them.
"""

from __future__ import annotations

import random
from collections import deque

_TAKEN = 1
_QUEUED = 2


class PortPool:
    """Ports `low` to `high` inclusive; `rng` decides the order in which they are given out."""

    __slots__ = ("_queue", "_rng", "_state", "free", "high", "low")

    def __init__(self, low: int, high: int, rng: random.Random) -> None:
        self.low = low
        self.high = high
        self.free = high - low + 1
        self._rng = rng
        self._state = bytearray(65536)
        self._queue: deque[int] | None = None

    def __contains__(self, port: int) -> bool:
        """Whether a port lies in the pool's range, free or taken."""
        return self.low <= port <= self.high

    def is_taken(self, port: int) -> bool:
        return bool(self._state[port] & _TAKEN)

    def take(self, preferred: int) -> int | None:
        """`preferred` if it is in range and free, else another free port, else None: the pool is exhausted."""
        if preferred in self and not self._state[preferred] & _TAKEN:
            self._mark(preferred)
            return preferred
        if not self.free:
            return None
        queue = self._shuffled()
        while True:
            port = queue.popleft()
            self._state[port] &= ~_QUEUED
            if not self._state[port] & _TAKEN:
                self._mark(port)
                return port

    def reserve(self, port: int) -> bool:
        """Take exactly this port, in range or not; False if it is taken already."""
        if self._state[port] & _TAKEN:
            return False
        self._mark(port)
        return True

    def release(self, port: int) -> None:
        """Give a port back."""
        self._state[port] &= ~_TAKEN
        if port not in self:
            return
        self.free += 1
        if self._queue is not None and not self._state[port] & _QUEUED:
            self._state[port] |= _QUEUED
            self._queue.append(port)

    def _mark(self, port: int) -> None:
        self._state[port] |= _TAKEN
        if port in self:
            self.free -= 1

    def _shuffled(self) -> deque[int]:
        """The queue, made when it is first needed: most flows keep their port and never look at it."""
        if self._queue is None:
            ports = [port for port in range(self.low, self.high + 1) if not self._state[port] & _TAKEN]
            self._rng.shuffle(ports)
            for port in ports:
                self._state[port] |= _QUEUED
            self._queue = deque(ports)
        return self._queue
