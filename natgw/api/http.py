"""HTTP/1.1 on a unix socket, as much of it as natgw serves: h11 knows the protocol, asyncio moves the bytes.

Each connection is a task that reads a request, has it answered, writes the answer, and begins anew until one has enough.
A request's body and an ordinary answer are held whole. An answer that goes on is an async generator, which is closed when who
asked hangs up. Whatever a handler raises, the application makes an answer of it, so that a request is never left without one.

The requests of one connection are answered in turn. Nothing is read ahead meanwhile, so that who sends faster has to wait.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

import h11

from natgw.api.peer import peer_pid

log = logging.getLogger(__name__)

JSON = "application/json; charset=utf-8"
LARGEST_BODY_BYTES = 1 << 20
READ_BYTES = 65536
NO_CONTENT = 204


class HttpError(Exception):
    """A request that cannot be answered as it stands."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message or HTTPStatus(status).phrase)
        self.status = status


class Peer:
    """Who asks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def gone(self) -> bool:
        """Whether it has hung up."""
        return self._writer.is_closing() or self._reader.at_eof()

    def pid(self) -> int:
        """Its process, 0 for one in another pid namespace. Raises OSError if the connection is closed."""
        # The event loop's own wrapper need not offer getsockopt.
        with socket.socket(fileno=os.dup(self._writer.get_extra_info("socket").fileno())) as copy:
            return peer_pid(copy)


@dataclass(frozen=True)
class Request:
    """`path` is decoded; `parts` are what stands in it for the {names} of its route."""

    method: str
    path: str
    query: Sequence[tuple[str, str]]
    body: bytes
    peer: Peer
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Response:
    """`body` is the whole of it, or piece by piece; it is closed in any case."""

    status: int = 200
    body: bytes | AsyncGenerator[bytes, None] = b""
    content_type: str = JSON


Handler = Callable[[Request], Awaitable[Response]]
Route = tuple[str, str, Handler]
"""Method, path with {names}, and who answers."""


def json_response(value: object, status: int = 200) -> Response:
    return Response(status, json.dumps(value, separators=(",", ":")).encode())


class Application:
    """Routes, and what to say of a request for which there is none or whose handler failed."""

    def __init__(self, routes: Sequence[Route], failed: Callable[[Request, Exception], Response],
                 close: Callable[[], Awaitable[None]]) -> None:
        self.routes = routes
        self._patterns = [(method, path.split("/"), handler) for method, path, handler in routes]
        self._failed = failed
        self.close = close
        """Ends what would keep connections open."""

    async def answer(self, method: str, target: str, body: bytes, peer: Peer) -> Response:
        """Never raises, unless it is cancelled."""
        path, _, query = target.partition("#")[0].partition("?")
        request = Request(method, unquote(path), parse_qsl(query, keep_blank_values=True), body, peer)
        try:
            handler, parts = self._find("GET" if method == "HEAD" else method, path.split("/"))
            return await handler(Request(method, request.path, request.query, body, peer, parts))
        except Exception as error:
            return self._failed(request, error)

    def _find(self, method: str, words: list[str]) -> tuple[Handler, Mapping[str, str]]:
        """Words first, names after: `networks/prune` is no network's name. Raises HttpError."""
        known = False
        for wanted, pattern, handler in self._patterns:
            parts = _match(pattern, words)
            if parts is not None:
                if wanted == method:
                    return handler, parts
                known = True
        raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_FOUND)


def _match(pattern: list[str], words: list[str]) -> Mapping[str, str] | None:
    if len(pattern) != len(words):
        return None
    parts = {}
    for expected, word in zip(pattern, words, strict=True):
        if expected.startswith("{") and word:
            parts[expected[1:-1]] = unquote(word)
        elif expected != unquote(word):
            return None
    return parts


class Server:
    """Serves an application on a socket that listens, from `start` to `stop`."""

    def __init__(self, app: Application, listening: socket.socket) -> None:
        self._app = app
        self._listening = listening
        self._connections: dict[asyncio.Task[None], _Connection] = {}

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._connected, sock=self._listening)

    async def stop(self, within_s: float) -> None:
        """Take no more requests, and let answers that are under way come to their end."""
        self._server.close()
        for task, connection in list(self._connections.items()):
            connection.ending = True
            if not connection.busy:
                task.cancel()
        await self._app.close()
        tasks = list(self._connections)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self._app, reader, writer)
        task = asyncio.get_running_loop().create_task(connection.serve())
        self._connections[task] = connection
        task.add_done_callback(lambda task: self._connections.pop(task, None))


class _Connection:
    """One client's; `busy` from a whole request to the end of its answer."""

    def __init__(self, app: Application, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.busy = False
        self.ending = False
        self._app = app
        self._reader = reader
        self._writer = writer
        self._peer = Peer(reader, writer)
        self._http = h11.Connection(h11.SERVER)

    async def serve(self) -> None:
        try:
            while await self._exchange() and not self.ending:
                self._http.start_next_cycle()
        except ConnectionError:
            pass  # who asked has hung up
        except Exception:
            log.exception("an answer broke off")
        finally:
            self._writer.close()

    async def _exchange(self) -> bool:
        """A request and its answer; whether there may be another."""
        try:
            request = await self._next_event()
            if not isinstance(request, h11.Request):
                return False
            body = await self._body()
        except (h11.RemoteProtocolError, HttpError) as error:
            await self._refuse(error)
            return False
        self.busy = True
        method = request.method.decode()
        response = await self._app.answer(method, request.target.decode(), body, self._peer)
        await self._send(response, whole=method != "HEAD")
        self.busy = False
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _body(self) -> bytes:
        """Raises HttpError for one that is too large."""
        body = bytearray()
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
            if len(body) > LARGEST_BODY_BYTES:
                raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return bytes(body)

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=HTTPStatus.CONTINUE, headers=[]))
            self._http.receive_data(await self._reader.read(READ_BYTES))
        return event

    async def _refuse(self, error: h11.RemoteProtocolError | HttpError) -> None:
        """What cannot be read as a request, or no further."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            status = error.status if isinstance(error, HttpError) else error.error_status_hint
            body = json.dumps({"message": str(error)}).encode()
            headers = [*_head(JSON), ("Content-Length", str(len(body))), ("Connection", "close")]
            await self._write(h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage())

    async def _send(self, response: Response, *, whole: bool) -> None:
        body = response.body
        if not isinstance(body, bytes):
            try:
                await self._write(h11.Response(status_code=response.status, headers=_head(response.content_type)))
                if whole:
                    await self._send_pieces(body)
                await self._write(h11.EndOfMessage())
            finally:
                await body.aclose()
            return
        headers = _head(response.content_type if body else None)
        if response.status != NO_CONTENT:
            headers.append(("Content-Length", str(len(body))))
        await self._write(h11.Response(status_code=response.status, headers=headers),
                          *([h11.Data(data=body)] if body and whole else []), h11.EndOfMessage())

    async def _send_pieces(self, pieces: AsyncGenerator[bytes, None]) -> None:
        """Until there are no more. Raises ConnectionError when nobody listens any more."""
        async def write() -> None:
            async for piece in pieces:
                await self._write(h11.Data(data=piece))

        writing = asyncio.ensure_future(write())
        listening = asyncio.ensure_future(self._reader.read(READ_BYTES))
        try:
            await asyncio.wait((writing, listening), return_when=asyncio.FIRST_COMPLETED)
            if listening.done() and not writing.done():
                if not (ahead := listening.result()):
                    raise ConnectionResetError
                self._http.receive_data(ahead)
            await writing
        finally:
            for task in (writing, listening):
                task.cancel()
            await asyncio.gather(writing, listening, return_exceptions=True)

    async def _write(self, *events: h11.Event) -> None:
        self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
        await self._writer.drain()


def _head(content_type: str | None) -> list[tuple[str, str]]:
    # RFC 9110 6.6.1: who has a clock says when it answered.
    date = ("Date", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()))
    return [date] if content_type is None else [date, ("Content-Type", content_type)]
