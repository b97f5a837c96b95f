"""The client of the control API, synchronous and from the standard library alone, so that a command starts at once.

Every failure is a NatgwError whose text is fit for the person at the keyboard: the daemon's own message, or what to do
when it cannot be reached.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from natgw.api.peer import peer_pid
from natgw.errors import Conflict, NatgwError, NotFound

if TYPE_CHECKING:
    from http.client import HTTPResponse

REPLY_TIMEOUT_S = 30.0
CHUNK_BYTES = 65536
HTTP_OK = range(200, 300)

_ERRORS: dict[int, type[NatgwError]] = {404: NotFound, 409: Conflict}


class NotRunning(NatgwError):
    """Nothing listens on the socket."""

    status = 503

    def __init__(self, path: str) -> None:
        super().__init__(f"natgw is not running on {path}: start it with `natgw up`")


class Client:
    """Requests to the daemon that listens on `path`; each opens a connection of its own."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, *parts: str, **query: object) -> Any:
        """GET /v1/PARTS; `None` in the query is left out. Returns what the JSON of the answer says."""
        return self._json("GET", parts, query=query)

    def post(self, *parts: str, body: object = None, timeout_s: float = REPLY_TIMEOUT_S) -> Any:
        """POST /v1/PARTS with a JSON body; `timeout_s` bounds the wait for the answer."""
        return self._json("POST", parts, body=body, timeout_s=timeout_s)

    def patch(self, *parts: str, body: object) -> Any:
        """PATCH /v1/PARTS with a JSON body."""
        return self._json("PATCH", parts, body=body)

    def delete(self, *parts: str, body: object = None) -> Any:
        """DELETE /v1/PARTS, with a JSON body if there is one."""
        return self._json("DELETE", parts, body=body)

    def stream(self, *parts: str, pairs: Sequence[tuple[str, str]] = (), **query: object) -> Iterator[bytes]:
        """GET /v1/PARTS, piece by piece as it comes, without a limit in time. `pairs` are for keys that come several times."""
        with self._answer("GET", parts, query or pairs, None, None) as answer:
            while piece := answer.read1(CHUNK_BYTES):
                yield piece

    def shut_down(self, within_s: float, *, keep: bool = False) -> bool:
        """Ask the daemon to end, and wait until its process is gone; False if that took longer than `within_s`.

        `keep`: what is attached will come back with the next daemon.
        """
        from natgw.api.connection import Connection, translated

        deadline = time.monotonic() + within_s
        with translated(self.path), contextlib.closing(Connection(self.path, REPLY_TIMEOUT_S)) as probe:
            probe.connect()
            ended = _process_end(peer_pid(probe.sock))
        try:
            self.post("shutdown", body={"keep": True} if keep else None)
            if ended is None:
                return self._closed(deadline)
            readable, _, _ = select.select([ended], [], [], max(0.0, deadline - time.monotonic()))
            return bool(readable)
        finally:
            if ended is not None:
                os.close(ended)

    def _closed(self, deadline: float) -> bool:
        """The same for a daemon whose process cannot be seen: until nothing listens any more."""
        from natgw.api.connection import Connection

        while time.monotonic() < deadline:
            with contextlib.closing(Connection(self.path, REPLY_TIMEOUT_S)) as probe:
                try:
                    probe.connect()
                except (ConnectionError, FileNotFoundError):
                    return True
            time.sleep(0.02)
        return False

    def _json(self, method: str, parts: tuple[str, ...], *, query: dict[str, object] | None = None,
              body: object = None, timeout_s: float = REPLY_TIMEOUT_S) -> Any:
        with self._answer(method, parts, query or {}, body, timeout_s) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    @contextlib.contextmanager
    def _answer(self, method: str, parts: tuple[str, ...], query: dict[str, object] | Sequence[tuple[str, str]], body: object,
                timeout_s: float | None) -> Iterator[HTTPResponse]:
        from natgw.api.connection import Connection, translated

        if not all(parts):
            raise NotFound("a name is missing: '' is none")
        target = "/".join(["/v1", *(quote(part, safe="", errors="surrogateescape") for part in parts)])
        asked = [(key, value) for key, value in (query.items() if isinstance(query, dict) else query) if value is not None]
        if asked:
            target += "?" + urlencode(asked)
        content = None if body is None else json.dumps(body)
        headers = {"Connection": "close"} | ({} if content is None else {"Content-Type": "application/json"})
        with translated(self.path), contextlib.closing(Connection(self.path, timeout_s)) as connection:
            connection.request(method, target, content, headers)
            answer = connection.getresponse()
            if answer.status not in HTTP_OK:
                raise _error(answer.status, answer.read())
            yield answer


def _error(status: int, content: bytes) -> NatgwError:
    try:
        message = str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the daemon answered with HTTP status {status}"
    error = _ERRORS.get(status, NatgwError)(message)
    error.status = status
    return error


def _process_end(pid: int) -> int | None:
    """A descriptor that becomes readable when the process has ended; None if this process cannot see it."""
    try:
        return os.pidfd_open(pid) if pid else None
    except OSError:
        return None
