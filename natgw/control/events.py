"""What happens to networks, told to whoever listens: `natgw events`, and parts of the daemon that follow networks.

A listener is called on the event loop while the change is being made, and must not fail or wait. A subscription is a bounded
queue for a slow reader: if it is full, the reader has lost events, and its stream ends rather than lie.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from natgw.control.model import Endpoint, Network

Action = Literal["create", "connect", "disconnect", "destroy"]

MAX_WAITING = 1024
"""Events that wait for a reader, at most."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event as Docker tells it: `id` is the network's; `attributes` are its name, its driver and the container's id.

    `endpoint` is there for connect and disconnect; neither it nor `network` is in the record.
    """

    action: Action
    network: Network
    endpoint: Endpoint | None = None
    type: str = "network"
    time_ns: int = field(default_factory=time.time_ns)

    @property
    def id(self) -> str:
        return self.network.id

    @property
    def attributes(self) -> dict[str, str]:
        container = {} if self.endpoint is None else {"container": self.endpoint.container_id or self.endpoint.id}
        return {**container, "name": self.network.name, "type": self.network.driver}

    def record(self) -> dict[str, Any]:
        """As `docker events --format json` prints it."""
        return {"Type": self.type, "Action": self.action, "Actor": {"ID": self.id, "Attributes": self.attributes},
                "scope": self.network.scope, "time": self.time_ns // 1_000_000_000, "timeNano": self.time_ns}


class Subscription:
    """An asynchronous iterator of events from its making to `close`."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(MAX_WAITING + 1)
        self._end = end
        self._ended = False

    def put(self, event: Event) -> None:
        if self._queue.qsize() >= MAX_WAITING:
            self.close()
        elif not self._ended:
            self._queue.put_nowait(event)

    def close(self) -> None:
        """End the iteration after what is there already. Twice is once."""
        if not self._ended:
            self._ended = True
            self._end()
            self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self._queue.get()) is not None:
            yield event


class Events:
    """The hub."""

    def __init__(self) -> None:
        self._listeners: dict[object, Callable[[Event], None]] = {}
        self._subscriptions: set[Subscription] = set()

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with each event from now on; gives the function that ends it."""
        key = object()
        self._listeners[key] = listener

        def end() -> None:
            self._listeners.pop(key, None)

        return end

    def subscribe(self) -> Subscription:
        """A queue of the events from now on."""
        made = Subscription(lambda: self._subscriptions.discard(made))
        self._subscriptions.add(made)
        return made

    def emit(self, action: Action, network: Network, endpoint: Endpoint | None = None) -> None:
        """Tell everybody."""
        event = Event(action=action, network=network, endpoint=endpoint)
        for listener in list(self._listeners.values()):
            listener(event)
        for subscription in list(self._subscriptions):
            subscription.put(event)

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in list(self._subscriptions):
            subscription.close()
