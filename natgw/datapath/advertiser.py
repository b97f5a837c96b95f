"""When a bridge advertises itself as IPv6 router, and what it says (RFC 4861 section 6.2).

A host that has just come asks for a router, and is answered at once, itself alone if it has an address yet; otherwise all
are told, though not more often than every three seconds. Besides, all are told from time to time: soon after the start, and
then whenever between a third of the interval and the whole of it has passed. The delay that RFC 4861 asks for before an
answer keeps several routers from answering together; here there is one.

From an internal network nothing leads out: its router is nobody's default router, which a lifetime of 0 says (section 4.2).

The prefix is the network's, on link, and hosts may make themselves addresses of it. natgw's containers need not: they get
the lowest free address, like an IPv4 one, and a route, and do not listen to advertisements.
"""

from __future__ import annotations

import random
from ipaddress import IPv6Network

from natgw.wire.ip import ALL_NODES, UNSPECIFIED6, link_local_of
from natgw.wire.nd import NdMessage, build_router_advertisement

MAX_INTERVAL_S = 600.0
MIN_INTERVAL_S = 200.0
INITIAL_INTERVAL_S = 16.0
INITIAL_COUNT = 3
MIN_DELAY_S = 3.0
"""Between two advertisements to all (MIN_DELAY_BETWEEN_RAS)."""
ROUTER_LIFETIME_S = 1800
"""Three intervals (AdvDefaultLifetime)."""


class Advertiser:
    """The advertisements of one bridge; the jitter between them follows from its MAC address, so that it can be repeated."""

    def __init__(self, mac: bytes, prefix: IPv6Network, mtu: int, *, leads_out: bool = True) -> None:
        self._lifetime_s = ROUTER_LIFETIME_S if leads_out else 0
        self._mac = mac
        self._prefix = prefix
        self._mtu = mtu
        self._source = link_local_of(mac)
        self._rng = random.Random(mac)
        self._sent = 0
        self._last: float | None = None
        self._due: float | None = None

    def tick(self, now: float) -> bytearray | None:
        """The advertisement to all, if one is due."""
        if self._due is not None and now < self._due:
            return None
        self._sent += 1
        self._last = now
        interval = self._rng.uniform(MIN_INTERVAL_S, MAX_INTERVAL_S)
        self._due = now + (min(interval, INITIAL_INTERVAL_S) if self._sent < INITIAL_COUNT else interval)
        return self._build(ALL_NODES, None)

    def answer(self, asked: NdMessage, from_mac: bytes, now: float) -> bytearray | None:
        """What to answer a solicitation with: an advertisement to the asker, or the one to all, now or when it is due."""
        if asked.src != UNSPECIFIED6:
            return self._build(asked.src, asked.mac or from_mac)
        if self._last is None or now - self._last >= MIN_DELAY_S:
            self._due = now
            return self.tick(now)
        self._due = self._last + MIN_DELAY_S
        return None

    def next_deadline(self) -> float | None:
        return self._due

    def _build(self, to: bytes, to_mac: bytes | None) -> bytearray:
        return build_router_advertisement(self._mac, self._source, self._prefix, self._mtu, self._lifetime_s,
                                          to=to, to_mac=to_mac)
