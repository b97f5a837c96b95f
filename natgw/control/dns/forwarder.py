"""Questions natgw cannot answer itself, asked of the host's resolvers: decisions only, the sockets are somebody else's.

    ask(query)      -> Reply, if it is in the cache, or nobody can be asked
                    -> Send(attempt, server, udp), and an exchange has begun
    heard(attempt)  -> Reply to all who asked the same meanwhile; Close what is still open
                    -> Send(attempt, server, tcp), if the answer was cut short
                    -> Send to the next server, if this one failed
    due(now)        -> Send to the next server after TRY_S, while the earlier ones may still answer
                    -> Reply SERVFAIL, when the last of TRIES has had its time

The first good answer wins. Each attempt is a socket and an id of its own, so that a forger has to guess a port and an
id (RFC 5452), and what does not match is counted and waited past. A client that asks again while its question is under way
joins the exchange. What a client says of itself (cookies) stays behind; what it wants of the answer (DNSSEC) is passed on.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from natgw.tables.ttlcache import TtlCache
from natgw.wire import dns
from natgw.wire.dns import Query, Response, parse_response

TRIES = 3
TRY_S = 1.5
"""Three tries end after 4.5 s: just before glibc, musl and dig lose patience, so that they are told."""
SLOW_S = 30.0
"""How long a server that did not answer in time is asked after the others."""
MAX_EXCHANGES = 512
MAX_EXCHANGES_OF_ONE = 128
"""Of those, how many one container may cause: the rest is for the others."""
MAX_WAITING = 64
"""Clients of one exchange."""
MAX_KEPT_S = 86400
MAX_CACHED = 4096
MAX_CACHED_BYTES = 4 << 20

Transport = Literal["udp", "tcp"]


@dataclass(frozen=True)
class Send:
    """Ask `server`; what comes, or goes wrong, is told to `heard` and `failed` as `attempt`."""

    attempt: int
    server: str
    transport: Transport
    wire: bytes


@dataclass(frozen=True)
class Close:
    """Nobody waits for this attempt any more."""

    attempt: int


@dataclass(frozen=True)
class Reply:
    """Bytes for `client`, which is whatever `ask` was given."""

    client: object
    wire: bytes


Action = Send | Close | Reply


@dataclass(eq=False)
class _Attempt:
    exchange: _Exchange
    server: str
    transport: Transport
    number: int


@dataclass(eq=False)
class _Exchange:
    query: Query
    asker: Hashable
    servers: list[str]
    next_at: float
    waiting: list[tuple[object, Query]]
    tries: int = 0
    attempts: set[int] = field(default_factory=set)
    worst: Response | None = None
    """A failure, or an answer cut short: better than none, if nothing better comes."""


class Forwarder:
    """`count` gets what happened; `rng` makes the ids."""

    def __init__(self, count: Counter[str], rng: random.Random) -> None:
        self.cache: TtlCache[Response] = TtlCache(MAX_CACHED, MAX_CACHED_BYTES)
        self.servers: list[str] = []
        self._count = count
        self._rng = rng
        self._exchanges: dict[Hashable, _Exchange] = {}
        self._attempts: dict[int, _Attempt] = {}
        self._last_attempt = 0
        self._slow_until: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._exchanges)

    def use(self, servers: list[str]) -> None:
        """Ask these from now on, in this order. What was learned of others is forgotten."""
        if servers != self.servers:
            self.servers = list(servers)
            self.cache.clear()
            self._slow_until.clear()

    def ask(self, query: Query, client: object, asker: Hashable, now: float) -> list[Action]:
        """A question of `client`, which counts against the share of `asker`."""
        kept = self.cache.get(query.key, now)
        if kept is not None:
            response, age_s = kept
            self._count["cached"] += 1
            return [Reply(client, response.for_query(query, int(age_s)))]
        exchange = self._exchanges.get(query.key)
        if exchange is not None:
            if len(exchange.waiting) < MAX_WAITING:
                exchange.waiting.append((client, query))
                return []
            self._count["overloaded"] += 1
            return [Reply(client, dns.refusal(query, dns.SERVFAIL))]
        if not self.servers:
            self._count["failed"] += 1
            return [Reply(client, dns.refusal(query, dns.SERVFAIL))]
        if len(self._exchanges) >= MAX_EXCHANGES or self._share_of(asker) >= MAX_EXCHANGES_OF_ONE:
            self._count["overloaded"] += 1
            return [Reply(client, dns.refusal(query, dns.SERVFAIL))]
        servers = sorted(self.servers, key=lambda server: self._slow_until.get(server, 0.0) > now)
        exchange = self._exchanges[query.key] = _Exchange(query, asker, servers, now, [(client, query)])
        self._count["forwarded"] += 1
        return list(self._try_next(exchange, now))

    def heard(self, attempt: int, wire: bytes, now: float) -> list[Action]:
        """Bytes that came for an attempt."""
        at = self._attempts.get(attempt)
        if at is None:
            return []
        exchange = at.exchange
        response = parse_response(wire, exchange.query, at.number)
        if response is None:
            self._count["mismatched"] += 1
            return []
        if response.truncated and at.transport == "udp":
            self._count["by_tcp"] += 1
            exchange.worst = response
            return [self._end(attempt), self._send(exchange, at.server, "tcp")]
        self._slow_until.pop(at.server, None)
        if response.is_failure:
            if exchange.worst is None or exchange.worst.is_failure:
                exchange.worst = response
            return [self._end(attempt), *self._go_on(exchange, now)]
        keep_s = min(response.keep_s, MAX_KEPT_S)
        self.cache.put(exchange.query.key, response, len(wire), keep_s, now)
        return list(self._finish(exchange, response))

    def failed(self, attempt: int, now: float) -> list[Action]:
        """A server refused, or closed the connection."""
        at = self._attempts.get(attempt)
        if at is None:
            return []
        return [self._end(attempt), *self._go_on(at.exchange, now)]

    def due(self, now: float) -> list[Action]:
        """What has to be done because time has passed."""
        actions: list[Action] = []
        for exchange in [each for each in self._exchanges.values() if each.next_at <= now]:
            for attempt in exchange.attempts:
                self._slow_until[self._attempts[attempt].server] = now + SLOW_S
            if exchange.tries < TRIES:
                actions += self._try_next(exchange, now)
            else:
                actions += self._finish(exchange, exchange.worst)
        return actions

    def next_deadline(self) -> float | None:
        """When `due` has something to do."""
        return min((exchange.next_at for exchange in self._exchanges.values()), default=None)

    def _share_of(self, asker: Hashable) -> int:
        return sum(exchange.asker == asker for exchange in self._exchanges.values())

    def _try_next(self, exchange: _Exchange, now: float) -> Iterator[Action]:
        server = exchange.servers[exchange.tries % len(exchange.servers)]
        if exchange.tries:
            self._count["retried"] += 1
        exchange.tries += 1
        exchange.next_at = now + TRY_S
        yield self._send(exchange, server, "udp")

    def _go_on(self, exchange: _Exchange, now: float) -> Iterator[Action]:
        """One attempt has ended in vain: the next server at once, or, if none is left, wait for what is under way."""
        if exchange.tries < min(TRIES, len(exchange.servers)):
            yield from self._try_next(exchange, now)
        elif not exchange.attempts:
            yield from self._finish(exchange, exchange.worst)

    def _send(self, exchange: _Exchange, server: str, transport: Transport) -> Send:
        self._last_attempt += 1
        attempt, number = self._last_attempt, self._rng.randrange(0x10000)
        self._attempts[attempt] = _Attempt(exchange, server, transport, number)
        exchange.attempts.add(attempt)
        return Send(attempt, server, transport, exchange.query.passed_on(number))

    def _end(self, attempt: int) -> Close:
        self._attempts.pop(attempt).exchange.attempts.discard(attempt)
        return Close(attempt)

    def _finish(self, exchange: _Exchange, response: Response | None) -> Iterator[Action]:
        for attempt in list(exchange.attempts):
            yield self._end(attempt)
        self._exchanges.pop(exchange.query.key, None)
        if response is None or response.is_failure:
            self._count["failed"] += 1
        for client, query in exchange.waiting:
            yield Reply(client, dns.refusal(query, dns.SERVFAIL) if response is None else response.for_query(query))
