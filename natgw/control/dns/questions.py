"""A question, from the socket it came to until somebody answers: natgw itself, or one of the host's resolvers.

What both do is decided by `resolver` and `forwarder`, which know neither sockets nor the clock; here is who gives them both.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Hashable

from natgw.control.dns import resolver
from natgw.control.dns.forwarder import Action, Close, Forwarder, Send
from natgw.control.dns.resolver import Zone
from natgw.host import dns
from natgw.wire.dns import Refused, parse_query


class Questions:
    """All that are open; `close` leaves them unanswered."""

    def __init__(self, count: Counter[str], rng: random.Random, loop: asyncio.AbstractEventLoop) -> None:
        self.count = count
        self._rng = rng
        self._loop = loop
        self._forwarder = Forwarder(count, rng)
        self._asking: dict[int, dns.Asking] = {}
        self._timer: asyncio.TimerHandle | None = None

    def use(self, resolvers: list[str]) -> None:
        """Pass on to these what natgw cannot answer."""
        self._forwarder.use(resolvers)

    def answer(self, zone: Zone, asker: Hashable, wire: bytes, by_tcp: bool, reply: dns.Reply) -> None:
        """Have a question answered by `reply`, now or later, with the names of the zone."""
        try:
            query = parse_query(wire, by_tcp=by_tcp)
        except Refused as refused:
            self.count["malformed"] += 1
            if refused.reply is not None:
                reply(refused.reply)
            return
        own = resolver.answer(query, zone, self._rng)
        if own is not None:
            self.count["answered"] += 1
            reply(own)
        else:
            self._perform(self._forwarder.ask(query, reply, asker, self._loop.time()))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for asking in self._asking.values():
            asking.close()
        self._asking.clear()

    def _perform(self, actions: list[Action]) -> None:
        """Do what the forwarder wants done."""
        for action in actions:
            if isinstance(action, Send):
                self._ask(action)
            elif isinstance(action, Close):
                asking = self._asking.pop(action.attempt, None)
                if asking is not None:
                    asking.close()
            elif callable(action.client):
                action.client(action.wire)
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._forwarder.next_deadline()
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._due)

    def _ask(self, send: Send) -> None:
        attempt = send.attempt
        self._asking[attempt] = dns.Asking(
            send.server, send.transport, send.wire,
            lambda wire: self._perform(self._forwarder.heard(attempt, wire, self._loop.time())),
            lambda: self._perform(self._forwarder.failed(attempt, self._loop.time())))

    def _due(self) -> None:
        self._timer = None
        self._perform(self._forwarder.due(self._loop.time()))
