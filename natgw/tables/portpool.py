"""Free transport ports of one external address and protocol.

Who gets which port is a policy's choice (natgw.datapath.allocation); the pool knows what is free, and finds the next free
port from a given one at the speed of a search in a byte string, however full it is. A port that was released may rest: for
a while only the host that had it may have it again (RFC 6888 REQ-8), so that what is still on its way does not reach
somebody else.
"""

from __future__ import annotations

from heapq import heappop, heappush

_FREE, _TAKEN, _RESTING = 0, 1, 2


class PortPool:
    """Ports `low` to `high` inclusive; `free` is how many of them nobody has, those that rest left out."""

    __slots__ = ("_owner", "_resting", "_state", "free", "high", "low")

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.high = high
        self.free = high - low + 1
        self._state = bytearray(65536)
        self._owner: dict[int, tuple[bytes, float]] = {}
        self._resting: list[tuple[float, int]] = []  # a heap: how long ports rest may have been changed meanwhile

    def __contains__(self, port: int) -> bool:
        """Whether a port lies in the pool's range, free or taken."""
        return self.low <= port <= self.high

    def is_taken(self, port: int) -> bool:
        return self._state[port] == _TAKEN

    def is_free(self, port: int) -> bool:
        return self._state[port] == _FREE

    def next_free(self, ports: range, start: int) -> int | None:
        """The first free port of `ports` from its index `start` on, round the end; None if all are taken."""
        state = self._state[ports.start : ports.stop : ports.step]
        found = state.find(_FREE, start)
        if found < 0:
            found = state.find(_FREE, 0, start)
        return None if found < 0 else ports[found]

    def take(self, port: int) -> bool:
        """Take exactly this port, in range or not; False if it is not free."""
        if self._state[port] != _FREE:
            return False
        self._state[port] = _TAKEN
        if port in self:
            self.free -= 1
        return True

    def take_back(self, port: int, owner: bytes) -> bool:
        """Take a port that rests, for the host that had it last; False if it does not rest for that host."""
        if self._state[port] != _RESTING or self._owner[port][0] != owner:
            return False
        self._state[port] = _TAKEN
        del self._owner[port]
        return True

    def claim(self, port: int) -> None:
        """Take a port, in range or not, that nobody has, though it may rest: whom it rests for does not get it again."""
        if self._state[port] == _RESTING:
            del self._owner[port]
            self._set_free(port)
        self.take(port)

    def release(self, port: int, *, owner: bytes = b"", rest_until: float = 0.0) -> None:
        """Give a port back, at once or when `rest_until` (seconds of the clock that `wake` is given) has come."""
        if self._state[port] != _TAKEN:
            return
        if rest_until and port in self:
            self._state[port] = _RESTING
            self._owner[port] = (owner, rest_until)
            heappush(self._resting, (rest_until, port))
            return
        self._set_free(port)

    def wake(self, now: float) -> None:
        """End the rest of those ports whose time is over."""
        while self._resting and self._resting[0][0] <= now:
            until, port = heappop(self._resting)
            # One that was taken meanwhile, and perhaps rests once more, has another entry for that.
            if self._state[port] == _RESTING and self._owner[port][1] == until:
                del self._owner[port]
                self._set_free(port)

    def _set_free(self, port: int) -> None:
        self._state[port] = _FREE
        if port in self:
            self.free += 1

