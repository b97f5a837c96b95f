"""DNS by UDP and TCP (RFC 1035 section 4.2, RFC 7766): sockets that questions come to, and sockets to ask others by.

A socket belongs to the network namespace it was made in, whoever uses it later. So one made inside a container, by a thread
that goes there and comes back (`netns.run_inside`), is served from the daemon's own loop. It keeps the namespace alive:
whoever opened it must notice when nobody else is there any more.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

from natgw.errors import Conflict, NatgwError, NotFound

PORT = 53
BURST_DATAGRAMS = 32
"""Taken in one turn of the loop; frames of the datapath wait meanwhile."""
LARGEST_QUERY_BYTES = 4096
MAX_CONNECTIONS = 32
"""TCP clients of one server; RFC 7766 section 6.2.2 lets a server limit them."""
IDLE_S = 10.0
_LENGTH = struct.Struct("!H")

Reply = Callable[[bytes], None]
OnQuery = Callable[[bytes, str, bool, Reply], None]
"""Gets the bytes, the address they are from, whether they came by TCP, and what to call with the answer."""

Sockets = tuple[socket.socket, socket.socket]


def bind(address: str) -> Sockets:
    """A UDP socket and a listening TCP socket at an address of the calling thread's namespace.

    Raises Conflict if somebody else has the port, NotFound if the namespace has no such address, NatgwError for the rest.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    udp, tcp = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_STREAM)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for handle in (udp, tcp):
            # Beside whoever of root's has the port of all addresses and shares it: natgw itself, for a published port 53.
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            handle.setblocking(False)
            handle.bind((address, PORT))
        tcp.listen(MAX_CONNECTIONS)
    except OSError as error:
        udp.close()
        tcp.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"port {PORT} of {address} is in use") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise NotFound(f"there is no address {address} here") from None
        raise NatgwError(f"cannot listen on port {PORT} of {address}: {error.strerror}") from None
    return udp, tcp


class Server:
    """Serves a pair of sockets on the running loop until it is closed."""

    def __init__(self, sockets: Sockets, on_query: OnQuery) -> None:
        self._udp, self._tcp = sockets
        self._on_query = on_query
        self._loop = asyncio.get_running_loop()
        self._connections: set[asyncio.Task[None]] = set()
        self._loop.add_reader(self._udp.fileno(), self._readable)
        self._acceptable(True)

    def close(self) -> None:
        """End it, connections and all, and close the sockets. Twice is once."""
        if self._udp.fileno() < 0:
            return
        self._loop.remove_reader(self._udp.fileno())
        self._acceptable(False)
        self._udp.close()
        self._tcp.close()
        for task in self._connections:
            task.cancel()

    def _readable(self) -> None:
        for _ in range(BURST_DATAGRAMS):
            try:
                data, source = self._udp.recvfrom(LARGEST_QUERY_BYTES)
            except OSError:
                return
            self._on_query(data, source[0], False, self._answerer(source))

    def _answerer(self, source: Any) -> Reply:
        def reply(wire: bytes) -> None:
            try:
                self._udp.sendto(wire, source)
            except OSError:
                pass  # the client is gone, or we are: a datagram lost

        return reply

    def _acceptable(self, wanted: bool) -> None:
        """Take connections, or let them queue in the kernel while there are enough."""
        if wanted:
            self._loop.add_reader(self._tcp.fileno(), self._accept)
        else:
            self._loop.remove_reader(self._tcp.fileno())

    def _accept(self) -> None:
        try:
            connection, source = self._tcp.accept()
        except OSError:
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._converse(connection, source[0]))
        self._connections.add(task)
        if len(self._connections) >= MAX_CONNECTIONS:
            self._acceptable(False)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        if self._tcp.fileno() >= 0:
            self._acceptable(True)

    async def _converse(self, connection: socket.socket, source: str) -> None:
        """One client: any number of questions, answered as the answers come in (RFC 7766 section 6.2.1.1)."""
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
        except (OSError, asyncio.CancelledError):
            connection.close()
            return

        def reply(wire: bytes) -> None:
            if not writer.is_closing():
                writer.write(_LENGTH.pack(len(wire)) + wire)

        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    wire = await _read(reader)
                self._on_query(wire, source, True, reply)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):  # TimeoutError is an OSError
            pass
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return await reader.readexactly(length)


class Asking:
    """One question to one resolver: a socket of its own, connected, so that the kernel takes answers from nobody else.

    `heard` gets whatever comes, `failed` is called when nothing can come any more: one or the other, any number of times, until
    it is closed.
    """

    def __init__(self, server: str, transport: str, wire: bytes, heard: Callable[[bytes], None],
                 failed: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._heard = heard
        self._failed = failed
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        if transport == "udp":
            self._ask_by_udp(server, wire)
        else:
            self._task = self._loop.create_task(self._ask_by_tcp(server, wire))

    def close(self) -> None:
        """Twice is once."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._heard, self._failed = _ignore, _ignore

    def _ask_by_udp(self, server: str, wire: bytes) -> None:
        try:
            handle = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
        except OSError:
            self._loop.call_soon(self._fail)
            return
        self._socket = handle
        handle.setblocking(False)
        try:
            handle.connect(_address(server))
            handle.send(wire)
        except OSError:
            self._loop.call_soon(self._fail)
            return
        self._loop.add_reader(handle.fileno(), self._readable)

    def _readable(self) -> None:
        while self._socket is not None:
            try:
                data = self._socket.recv(65535)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error: nobody serves there
                self._fail()
                return
            self._heard(data)

    async def _ask_by_tcp(self, server: str, wire: bytes) -> None:
        writer = None
        try:
            async with asyncio.timeout(IDLE_S):
                host, port, *_ = _address(server)
                reader, writer = await asyncio.open_connection(str(host), cast(int, port))
                writer.write(_LENGTH.pack(len(wire)) + wire)
                self._heard(await _read(reader))
        except (OSError, asyncio.IncompleteReadError):
            self._fail()
        finally:
            if writer is not None:
                writer.close()

    def _fail(self) -> None:
        self._failed()


def _address(server: str) -> tuple[object, ...]:
    """A resolver as the kernel wants it; `fe80::1%eth0` names an interface (RFC 4007 section 11)."""
    if ":" not in server:
        return server, PORT
    host, _, scope = server.partition("%")
    try:
        index = socket.if_nametoindex(scope) if scope else 0
    except OSError:
        index = 0
    return host, PORT, 0, index


def _ignore(*_: object) -> None:
    """What is closed tells nobody."""
