"""The relay behind `localhost:PORT`, on both event loops, on the loopback of a namespace of its own."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any, cast

import pytest
import uvloop

from natgw.errors import Conflict, NatgwError
from natgw.host import relay as relay_module
from natgw.host.relay import HostAddress, Relay
from tests.conftest import eventually
from tests.namespaces.host_lab import Namespace, namespaces

pytestmark = pytest.mark.requires("ip", "nsenter")

Runner = Callable[[Coroutine[Any, Any, None]], None]
LOOPBACK, ANY4, ANY6 = IPv4Address("127.0.0.1"), IPv4Address("0.0.0.0"), IPv6Address("::")
CONTAINER = IPv4Address("127.0.0.2")


@pytest.fixture
def lab() -> Iterator[Namespace]:
    with namespaces(1) as (home,):
        yield home


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Runner:
    run: Runner = request.param
    return run


def within(seconds: float, story: Callable[[], Coroutine[Any, Any, None]]) -> Coroutine[Any, Any, None]:
    """The story as a coroutine that fails if it hangs, or leaves an error to the loop's own handler."""
    async def main() -> None:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with asyncio.timeout(seconds):
            await story()
        await asyncio.sleep(0)
        assert not complaints

    return main()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers only once the client has ended its side: shows that a half-close crosses."""
    data = await reader.read(-1)
    writer.write(data)
    writer.close()


async def served(protocol: str, host_ip: HostAddress, container_port: int) -> Relay:
    relay = Relay(protocol, host_ip, 0, CONTAINER, container_port)
    relay.bind()
    await relay.start()
    return relay


@pytest.mark.parametrize(("host_ip", "client_ip"), [(LOOPBACK, "127.0.0.1"), (ANY4, "127.0.0.1"), (ANY6, "::1")])
def test_tcp_with_half_close(lab: Namespace, runner: Runner, host_ip: HostAddress, client_ip: str) -> None:
    async def story() -> None:
        server = await asyncio.start_server(echo, str(CONTAINER), 0)
        relay = await served("tcp", host_ip, server.sockets[0].getsockname()[1])
        data = os.urandom(3_000_000)
        reader, writer = await asyncio.open_connection(client_ip, relay.host_port)
        writer.write(data)
        writer.write_eof()
        assert await reader.read(-1) == data
        writer.close()
        await relay.close()
        await relay.close()
        server.close()

    lab.call(runner, within(20, story))


def test_a_slow_receiver_slows_the_sender(lab: Namespace, runner: Runner) -> None:
    """What is under way is bounded: the sender cannot put a hundred megabytes into the relay's memory."""
    async def story() -> None:
        reading = asyncio.Event()
        total = 0

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal total
            await reading.wait()
            while data := await reader.read(1 << 20):
                total += len(data)
            writer.close()

        server = await asyncio.start_server(slow, str(CONTAINER), 0, limit=1 << 16)
        relay = await served("tcp", LOOPBACK, server.sockets[0].getsockname()[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.host_port)
        sent, piece = 0, bytes(1 << 20)
        with pytest.raises(TimeoutError):
            while sent < 100 << 20:
                writer.write(piece)
                sent += len(piece)
                await asyncio.wait_for(writer.drain(), 1)
        reading.set()
        writer.write_eof()
        assert await reader.read(-1) == b""
        assert total == sent
        writer.close()
        await relay.close()
        server.close()

    lab.call(runner, within(30, story))


def test_nobody_listens_in_the_container(lab: Namespace, runner: Runner) -> None:
    async def story() -> None:
        relay = await served("tcp", LOOPBACK, 9)
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.host_port)
        try:
            assert await reader.read(-1) == b""
        except ConnectionResetError:
            pass
        writer.close()
        await relay.close()

    lab.call(runner, within(10, story))


def test_a_reset_on_one_side_ends_the_other(lab: Namespace, runner: Runner) -> None:
    async def story() -> None:
        ended = asyncio.Event()

        async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while await reader.read(100):
                    writer.write(b"hello")
            except ConnectionResetError:
                pass
            ended.set()
            writer.close()

        server = await asyncio.start_server(wait, str(CONTAINER), 0)
        relay = await served("tcp", LOOPBACK, server.sockets[0].getsockname()[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.host_port)
        writer.write(b"hello")
        assert await reader.read(5) == b"hello"
        writer.transport.abort()
        await ended.wait()
        await relay.close()
        server.close()

    lab.call(runner, within(10, story))


def test_close_ends_what_is_under_way_and_frees_the_port(lab: Namespace, runner: Runner) -> None:
    async def story() -> None:
        server = await asyncio.start_server(echo, str(CONTAINER), 0)
        relay = await served("tcp", LOOPBACK, server.sockets[0].getsockname()[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.host_port)
        writer.write(b"hello")
        await writer.drain()
        await relay.close()
        try:
            assert await reader.read(-1) == b""
        except ConnectionResetError:
            pass
        writer.close()
        again = Relay("tcp", LOOPBACK, relay.host_port, CONTAINER, 9)
        assert again.bind() == relay.host_port
        again.release()
        server.close()

    lab.call(runner, within(10, story))


class UdpEcho(asyncio.DatagramProtocol):
    """Answers each datagram with itself and the port that it came from."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self.transport.sendto(data + b" %d" % addr[1], addr)


def ask(address: HostAddress, port: int, *questions: bytes) -> list[bytes]:
    """What one client is told; blocking."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((str(address), port))
        answers = []
        for question in questions:
            client.send(question)
            answers.append(client.recv(2000))
        return answers


@pytest.mark.parametrize(("host_ip", "client_ip"), [(ANY4, LOOPBACK), (ANY6, IPv6Address("::1"))])
def test_udp_clients_each_get_their_own_answers(lab: Namespace, runner: Runner, host_ip: HostAddress,
                                                client_ip: HostAddress) -> None:
    async def story() -> None:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(UdpEcho, (str(CONTAINER), 0))
        relay = await served("udp", host_ip, transport.get_extra_info("sockname")[1])
        one = await asyncio.to_thread(ask, client_ip, relay.host_port, b"a", b"b")
        two = await asyncio.to_thread(ask, client_ip, relay.host_port, b"a")
        assert one[0][:2] == b"a " and one[1][:2] == b"b " and one[0][2:] == one[1][2:]
        assert two[0][:2] == b"a " and two[0][2:] != one[0][2:]
        await relay.close()
        await relay.close()
        again = Relay("udp", host_ip, relay.host_port, CONTAINER, 9)
        assert again.bind() == relay.host_port
        again.release()
        transport.close()

    lab.call(runner, within(20, story))


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_udp_clients_are_bounded_and_forgotten(lab: Namespace, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(UdpEcho, (str(CONTAINER), 0))
        relay = await served("udp", LOOPBACK, transport.get_extra_info("sockname")[1])
        await asyncio.to_thread(ask, LOOPBACK, relay.host_port, b"warm up")
        before = open_descriptors()
        for _ in range(20):
            await asyncio.to_thread(ask, LOOPBACK, relay.host_port, b"a")
        assert open_descriptors() <= before + 3
        await asyncio.to_thread(eventually, lambda: open_descriptors() < before)
        await relay.close()
        transport.close()

    monkeypatch.setattr(relay_module, "MAX_UDP_CLIENTS", 4)
    monkeypatch.setattr(relay_module, "UDP_IDLE_S", 0.3)
    lab.call(runner, within(20, story))


def test_udp_with_no_way_to_the_container(lab: Namespace, runner: Runner) -> None:
    """As lost as on a wire; the relay goes on."""
    async def story() -> None:
        relay = Relay("udp", LOOPBACK, 0, IPv4Address("192.0.2.1"), 9)
        relay.bind()
        await relay.start()
        closed = await served("udp", LOOPBACK, 9)
        for port in (relay.host_port, closed.host_port):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for _ in range(3):
                    client.sendto(b"x", ("127.0.0.1", port))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(UdpEcho, (str(CONTAINER), 0))
        working = await served("udp", LOOPBACK, transport.get_extra_info("sockname")[1])
        assert await asyncio.to_thread(ask, LOOPBACK, working.host_port, b"a")
        await working.close()
        await relay.close()
        await closed.close()
        transport.close()

    lab.call(runner, within(10, story))


@pytest.mark.parametrize(("protocol", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)])
@pytest.mark.parametrize("taken_at", ["0.0.0.0", "127.0.0.1"])
def test_a_port_in_use_is_refused_in_dockers_words(lab: Namespace, protocol: str, kind: int, taken_at: str) -> None:
    with lab.socket(kind, (taken_at, 8080)) as other:
        if kind == socket.SOCK_STREAM:
            other.listen()
        relay = Relay(protocol, ANY4, 8080, CONTAINER, 80)
        with pytest.raises(Conflict) as error:
            lab.call(relay.bind)
        assert str(error.value) == f"failed to bind host port for 0.0.0.0:8080/{protocol}: address already in use"
    relay = Relay(protocol, ANY4, 8080, CONTAINER, 80)
    assert lab.call(relay.bind) == 8080
    relay.release()


def test_bound_is_reserved_before_it_is_served(lab: Namespace) -> None:
    first, second = Relay("tcp", ANY4, 8080, CONTAINER, 80), Relay("tcp", LOOPBACK, 8080, CONTAINER, 80)
    lab.call(first.bind)
    with pytest.raises(Conflict):
        lab.call(second.bind)
    six = Relay("tcp", ANY6, 8080, CONTAINER, 80)
    assert lab.call(six.bind) == 8080
    first.release()
    six.release()


def test_address_that_the_host_does_not_have(lab: Namespace) -> None:
    with pytest.raises(NatgwError) as error:
        lab.call(Relay("tcp", IPv4Address("192.0.2.9"), 8080, CONTAINER, 80).bind)
    assert str(error.value) == "failed to bind host port for 192.0.2.9:8080/tcp: cannot assign requested address"
    with pytest.raises(NatgwError, match=r"for \[2001:db8::9\]:8080/udp: cannot assign requested address"):
        lab.call(Relay("udp", IPv6Address("2001:db8::9"), 8080, CONTAINER, 80).bind)
