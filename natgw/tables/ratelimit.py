"""Token buckets, for the ICMP errors a gateway makes (RFC 1812 section 4.3.2.8)."""

from __future__ import annotations


class TokenBucket:
    """Up to `burst` at once, `rate` per second in the long run."""

    __slots__ = ("_burst", "_rate", "_tokens", "_updated")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._updated = now

    def take(self, now: float) -> bool:
        """Whether one more may go at `now`; if so it is counted."""
        elapsed = max(0.0, now - self._updated)
        self._tokens = min(self._burst, self._tokens + elapsed * self._rate)
        self._updated = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class ErrorLimiter:
    """One bucket for all ICMP errors and one for each host they go to, so that one noisy host cannot use up the rest.

    The defaults are near Linux's (icmp_msgs_per_sec 1000 with a burst of 50; a burst for each host that lets a traceroute
    with its three probes a hop through).
    """

    _MAX_HOSTS = 1024

    def __init__(self, now: float, rate: float = 1000, burst: float = 50, host_rate: float = 10,
                 host_burst: float = 10) -> None:
        self._all = TokenBucket(rate, burst, now)
        self._host_rate = host_rate
        self._host_burst = host_burst
        self._hosts: dict[bytes, TokenBucket] = {}

    def allow(self, host: bytes, now: float) -> bool:
        bucket = self._hosts.get(host)
        if bucket is None:
            if len(self._hosts) >= self._MAX_HOSTS:
                # The oldest goes: at worst a host gets its burst anew.
                del self._hosts[next(iter(self._hosts))]
            bucket = self._hosts[host] = TokenBucket(self._host_rate, self._host_burst, now)
        return bucket.take(now) and self._all.take(now)
