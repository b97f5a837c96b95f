"""A published port on the host itself: a listening socket that reserves it, and a relay to the container behind it.

What comes from outside never gets here: the datapath translates it, and the guard keeps it from the host's stack. This is for
the host's own processes, whose connections to `localhost:PORT` or to the host's address never cross the uplink, and for
IPv6, which the datapath does not translate. Docker has docker-proxy for the same reason.

Binding and serving are two steps, so that all ports of a request can be had before any is served.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address
from typing import cast

from natgw.errors import Conflict, NatgwError

CHUNK_BYTES = 65536
CONNECT_TIMEOUT_S = 10.0
UDP_IDLE_S = 90.0
MAX_UDP_CLIENTS = 1024
BURST_DATAGRAMS = 64
DNS_PORT = 53

HostAddress = IPv4Address | IPv6Address


class Relay:
    """One protocol, host address and port. Raises Conflict from `bind` in Docker's words if it is taken."""

    def __init__(self, protocol: str, host_ip: HostAddress, host_port: int, container_ip: HostAddress,
                 container_port: int) -> None:
        self.protocol = protocol
        self.host_ip = host_ip
        self.host_port = host_port
        self.target = (str(container_ip), container_port)
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._udp: _UdpRelay | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def bind(self) -> int:
        """Take the port; gives its number (a host port of 0 lets the kernel choose)."""
        family = socket.AF_INET if self.host_ip.version == 4 else socket.AF_INET6
        kind = socket.SOCK_STREAM if self.protocol == "tcp" else socket.SOCK_DGRAM
        try:
            handle = socket.socket(family, kind)
        except OSError as error:
            raise NatgwError(f"{self._name()}: {error.strerror}") from None
        try:
            if kind == socket.SOCK_STREAM:
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if self.host_port == DNS_PORT:
                # natgw's own name servers have it at the gateways' addresses, and go on having it (natgw.host.dns).
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            handle.setblocking(False)
            handle.bind((str(self.host_ip), self.host_port))
            if kind == socket.SOCK_STREAM:
                # Only listening makes a TCP port one's own where addresses are reused.
                handle.listen(512)
        except OSError as error:
            handle.close()
            if error.errno == errno.EADDRINUSE:
                raise Conflict(f"{self._name()}: address already in use") from None
            if error.errno == errno.EADDRNOTAVAIL:
                raise NatgwError(f"{self._name()}: cannot assign requested address") from None
            raise NatgwError(f"{self._name()}: {os.strerror(error.errno or 0)}") from None
        self._socket = handle
        self.host_port = handle.getsockname()[1]
        return self.host_port

    async def start(self) -> None:
        """Serve what was bound, on the running loop."""
        assert self._socket is not None
        if self.protocol == "tcp":
            self._server = await asyncio.start_server(self._accept, sock=self._socket, limit=CHUNK_BYTES)
        else:
            _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _UdpRelay(self.target), sock=self._socket)
            self._udp = protocol
            protocol.sweep()

    def retarget(self, container_ip: HostAddress) -> None:
        """Lead what comes from now on to another address; what is under way goes on as it is."""
        self.target = (str(container_ip), self.target[1])
        if self._udp is not None:
            self._udp.retarget(self.target)

    async def close(self) -> None:
        """Stop serving, end what is under way, give the port back. Twice is once."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._udp is not None:
            await self._udp.close()
            self._udp = None
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        self.release()

    def release(self) -> None:
        """Give back a port that was bound but not served."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _name(self) -> str:
        address = f"[{self.host_ip}]" if self.host_ip.version == 6 else str(self.host_ip)
        return f"failed to bind host port for {address}:{self.host_port}/{self.protocol}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._connections.add(task)
        try:
            await self._splice(reader, writer)
        except (OSError, asyncio.CancelledError):  # TimeoutError is an OSError
            writer.transport.abort()  # either side may go at any time; the other learns it by a reset
        finally:
            self._connections.discard(task)
            writer.close()

    async def _splice(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            far_reader, far_writer = await asyncio.open_connection(*self.target, limit=CHUNK_BYTES)
        ways = [asyncio.ensure_future(_copy(reader, far_writer)), asyncio.ensure_future(_copy(far_reader, writer))]
        try:
            await asyncio.gather(*ways)
        except BaseException:
            far_writer.transport.abort()
            raise
        finally:
            for way in ways:
                way.cancel()
            far_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, until it ends; the end is passed on (a half-close), and a slow receiver slows the sender."""
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


class _UdpRelay(asyncio.DatagramProtocol):
    """One socket towards the container for each client, so that answers find their way back."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._transport: asyncio.DatagramTransport | None = None
        self._lost = asyncio.Event()
        self._clients: OrderedDict[object, _UdpClient] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._lost.set()

    def datagram_received(self, data: bytes, address: tuple[object, ...]) -> None:
        client = self._clients.get(address)
        if client is None:
            if len(self._clients) >= MAX_UDP_CLIENTS:
                self._clients.popitem(last=False)[1].close()
            try:
                client = _UdpClient(self, address, self._target)
            except OSError:
                return  # no way to the container, or out of descriptors: as good as lost on the wire
            self._clients[address] = client
        self._clients.move_to_end(address)
        client.send(data)

    def retarget(self, target: tuple[str, int]) -> None:
        self._target = target
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def reply(self, data: bytes, address: tuple[object, ...]) -> None:
        if self._transport is not None:
            self._transport.sendto(data, address)

    def sweep(self) -> None:
        """Forget clients that were silent for long, the longest first."""
        loop = asyncio.get_running_loop()
        while self._clients:
            address, client = next(iter(self._clients.items()))
            if loop.time() - client.last < UDP_IDLE_S:
                break
            del self._clients[address]
            client.close()
        self._timer = loop.call_later(UDP_IDLE_S / 3, self.sweep)

    async def close(self) -> None:
        """Returns when the port is free: event loops close a socket a turn after they are asked to."""
        if self._timer is not None:
            self._timer.cancel()
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        if self._transport is not None:
            self._transport.close()
            await self._lost.wait()


class _UdpClient:
    def __init__(self, relay: _UdpRelay, address: tuple[object, ...], target: tuple[str, int]) -> None:
        self._relay = relay
        self._address = address
        self._loop = asyncio.get_running_loop()
        self.last = self._loop.time()
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.connect(target)
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def send(self, data: bytes) -> None:
        self.last = self._loop.time()
        try:
            self._socket.send(data)
        except OSError:
            pass  # as on any wire: a datagram that cannot go is lost

    def _readable(self) -> None:
        try:
            for _ in range(BURST_DATAGRAMS):
                self._relay.reply(self._socket.recv(65536), self._address)
                self.last = self._loop.time()
        except OSError:
            return

    def close(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
