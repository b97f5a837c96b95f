"""The HTTP server, spoken to by hand and by a client that others wrote."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from natgw.api.http import LARGEST_BODY_BYTES, Application, HttpError, Request, Response, Server, json_response

WITHIN_S = 10.0


class Site:
    """An application that says what it was asked, and a stream that a test feeds."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.closed.set()
        self.going = asyncio.Event()
        self.asked = asyncio.Event()
        self.server: Server | None = None
        self.app = Application([
            ("GET", "/things", self.echo), ("POST", "/things", self.echo), ("POST", "/things/special", self.empty),
            ("GET", "/things/{name}", self.echo), ("GET", "/things/{name}/parts/{part}", self.echo),
            ("GET", "/slow", self.slow),
            ("GET", "/stream", self.stream), ("GET", "/broken", self.broken)], self.failed, self.close)

    async def echo(self, request: Request) -> Response:
        return json_response({"query": request.query, "body": request.body.decode(), "path": request.path, **request.parts})

    async def empty(self, request: Request) -> Response:
        return Response(204)

    async def slow(self, request: Request) -> Response:
        self.asked.set()
        await self.going.wait()
        return json_response("done")

    async def broken(self, request: Request) -> Response:
        raise RuntimeError("unforeseen")

    async def stream(self, request: Request) -> Response:
        async def pieces() -> AsyncGenerator[bytes, None]:
            self.closed.clear()
            try:
                while (piece := await self.pieces.get()) is not None:
                    yield piece
            finally:
                self.closed.set()

        return Response(body=pieces(), content_type="text/plain")

    def failed(self, request: Request, error: Exception) -> Response:
        return json_response(str(error), error.status if isinstance(error, HttpError) else 500)

    async def close(self) -> None:
        self.pieces.put_nowait(None)


@contextlib.asynccontextmanager
async def open_site(path: Path, goodbye_s: float = WITHIN_S) -> AsyncIterator[Site]:
    site = Site()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        site.server = Server(site.app, listening)
        await site.server.start()
        try:
            yield site
        finally:
            await site.server.stop(goodbye_s)


def client(path: Path) -> aiohttp.ClientSession:
    return aiohttp.ClientSession("http://natgw", connector=aiohttp.UnixConnector(str(path)))


async def exchange(path: Path, sent: str | bytes) -> bytes:
    """Everything that comes back until the server hangs up."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(sent if isinstance(sent, bytes) else sent.replace("\n", "\r\n").encode())
    answer = await asyncio.wait_for(reader.read(), WITHIN_S)
    writer.close()
    return answer


@pytest.mark.parametrize(("target", "expected"), [
    ("/things", {"query": [], "path": "/things"}),
    ("/things?a=1&b=&a=x%20y", {"query": [["a", "1"], ["b", ""], ["a", "x y"]], "path": "/things"}),
    ("/things/web%2Fone", {"name": "web/one", "path": "/things/web/one"}),
    ("/things/special", {"name": "special"}),
    ("/things/caf%C3%A9/parts/7", {"name": "caf\u00e9", "part": "7"}),
])
async def test_routes(tmp_path: Path, target: str, expected: dict[str, Any]) -> None:
    async with open_site(tmp_path / "s"):
        answer = await exchange(tmp_path / "s", f"GET {target} HTTP/1.1\nHost: x\nConnection: close\n\n")
    found = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert answer.startswith(b"HTTP/1.1 200 ") and expected.items() <= found.items()


@pytest.mark.parametrize(("method", "target", "status"), [
    ("GET", "/nothing", 404), ("GET", "/things/", 404), ("GET", "/things/x/parts/", 404), ("PUT", "/things", 405),
    ("POST", "/things/web", 405), ("POST", "/things/special", 204), ("GET", "/broken", 500)])
async def test_what_there_is_no_route_for(tmp_path: Path, method: str, target: str, status: int) -> None:
    async with open_site(tmp_path / "s"), client(tmp_path / "s") as session, session.request(method, target) as answer:
        assert answer.status == status
        assert ("Content-Length" in answer.headers) is (status != 204)


async def test_one_connection_many_requests(tmp_path: Path) -> None:
    async with open_site(tmp_path / "s"):
        asked = "".join(f"GET /things/{number} HTTP/1.1\nHost: x\n{'Connection: close' if number == 4 else 'A: b'}\n\n"
                        for number in range(5))
        answer = await exchange(tmp_path / "s", asked)
    assert [json.loads(each.partition(b"\r\n\r\n")[2])["name"] for each in answer.split(b"HTTP/1.1 200")[1:]] == [*"01234"]


async def test_bodies(tmp_path: Path) -> None:
    async def in_pieces() -> AsyncIterator[bytes]:
        for piece in (b"one ", b"two"):
            yield piece

    async with open_site(tmp_path / "s"), client(tmp_path / "s") as session:
        for body in (in_pieces(), b"one two"):
            async with session.post("/things", data=body, expect100=True) as answer:
                assert (await answer.json())["body"] == "one two"
        async with session.post("/things", data=b"x" * LARGEST_BODY_BYTES) as answer:
            assert answer.status == 200
        async with session.head("/things") as answer:
            assert (answer.status, await answer.read()) == (200, b"") and int(answer.headers["Content-Length"]) > 0


async def test_a_body_that_is_too_large(tmp_path: Path) -> None:
    async with open_site(tmp_path / "s"):
        size = LARGEST_BODY_BYTES + 1
        head = b"POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
        answer = await exchange(tmp_path / "s", head + bytes(size))
    assert answer.startswith(b"HTTP/1.1 413 ") and b"Request Entity Too Large" in answer


@pytest.mark.parametrize("sent", [
    "nonsense\n\n", "GET / HTTP/1.1\n\n", "GET / HTTP/1.1\nHost: x\nContent-Length: many\n\n",
    "POST /things HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\nzz\n", "GET / HTTP/1.1\nHost: x\nA: " + "y" * 70_000])
async def test_what_is_no_request(tmp_path: Path, sent: str) -> None:
    async with open_site(tmp_path / "s"):
        answer = await exchange(tmp_path / "s", sent)
        assert answer.startswith(b"HTTP/1.1 4") and "message" in json.loads(answer.partition(b"\r\n\r\n")[2])
        async with client(tmp_path / "s") as session, session.get("/things") as sane:
            assert sane.status == 200


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_stream_and_its_end(tmp_path: Path, version: str) -> None:
    async with open_site(tmp_path / "s") as site:
        for piece in (b"one\n", b"", b"two\n", None):
            site.pieces.put_nowait(piece)
        answer = await exchange(tmp_path / "s", f"GET /stream HTTP/{version}\nHost: x\nConnection: close\n\n")
        await asyncio.wait_for(site.closed.wait(), WITHIN_S)
    ending = b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n" if version == "1.1" else b"one\ntwo\n"
    assert answer.endswith(b"\r\n\r\n" + ending)


async def test_a_stream_that_nobody_listens_to_any_more_is_closed(tmp_path: Path) -> None:
    async with open_site(tmp_path / "s") as site:
        async with client(tmp_path / "s") as session, session.get("/stream") as answer:
            site.pieces.put_nowait(b"one")
            assert await answer.content.readexactly(3) == b"one" and not site.closed.is_set()
        await asyncio.wait_for(site.closed.wait(), WITHIN_S)
        async with client(tmp_path / "s") as session, session.head("/stream") as answer:
            assert answer.status == 200
        await asyncio.wait_for(site.closed.wait(), WITHIN_S)


async def test_the_end_of_the_server(tmp_path: Path) -> None:
    """Streams end as the application has it, an answer that is under way is given, and a connection that waits is closed."""
    async with client(tmp_path / "s") as session:
        async with open_site(tmp_path / "s") as site:
            async with session.get("/things") as idle:
                await idle.read()
            stream = await session.get("/stream")
            slow = asyncio.ensure_future(session.get("/slow"))
            await asyncio.wait_for(site.asked.wait(), WITHIN_S)
            asyncio.get_running_loop().call_soon(site.going.set)
        assert await stream.read() == b""
        assert await (await slow).json() == "done"
        with pytest.raises(aiohttp.ClientError):
            await session.get("/things")


async def test_an_answer_that_takes_too_long_is_broken_off(tmp_path: Path) -> None:
    async with client(tmp_path / "s") as session:
        async with open_site(tmp_path / "s", goodbye_s=0.01) as site:
            slow = asyncio.ensure_future(session.get("/slow"))
            await asyncio.wait_for(site.asked.wait(), WITHIN_S)
        with pytest.raises(aiohttp.ClientError):
            await slow
