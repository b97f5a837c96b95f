"""The pump between real descriptors: datagram socket pairs stand for links, each datagram is a frame."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import pytest

from natgw.datapath import Datapath, DatapathConfig, NetworkConfig, Port, PortKind
from natgw.host.pump import FRAMES_PER_TURN, Pump
from natgw.host.reading import BATCH_FRAMES, Buffers
from natgw.wire.ethernet import parse_mac

MACS = {"a": "02:42:ac:11:00:02", "b": "02:42:ac:11:00:03"}
LOCAL_EXPERIMENTAL = b"\x88\xb5"


@dataclass
class PipeLink:
    """A link as the pump sees it; `far` is the container's end."""

    name: str
    near: socket.socket
    far: socket.socket
    kind: str
    offload: bool = True
    udp_offload: bool = True
    big_tcp: bool = True

    def __post_init__(self) -> None:
        self.fd = self.near.fileno()


class Bench:
    """A bridge with two ports on a pump, of links of a kind. `got` is what the far end of `b` received."""

    def __init__(self, kind: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.datapath = Datapath(DatapathConfig(seed=1))
        bridge = self.datapath.add_network(NetworkConfig(
            name="bridge", subnet=IPv4Network("172.17.0.0/16"), gateway=IPv4Address("172.17.0.1"),
            gateway_mac=parse_mac("02:42:ac:11:00:01")))
        self.pump = Pump(self.loop, self.datapath)
        self.links: dict[str, PipeLink] = {}
        self.ports: dict[str, Port] = {}
        self.lost: list[tuple[str, OSError]] = []
        for name in MACS:
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for end in (near, far):
                end.setblocking(False)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
            link = self.links[name] = PipeLink(name, near, far, kind)
            port = self.ports[name] = self.datapath.add_port(bridge, name, PortKind.ENDPOINT,
                                                             transmit=self.pump.transmitter(link))
            self.pump.add(port, link, lambda port, error: self.lost.append((port.name, error)))
        self.got: list[bytes] = []
        self.loop.add_reader(self.links["b"].far.fileno(), self._hear)
        self.pump.start()
        self.say(b"hello", "b", "a")  # from now on the bridge knows where b is
        self.until(lambda: self.ports["b"].rx_frames == 1)

    def say(self, text: bytes, source: str, destination: str) -> None:
        self.links[source].far.send(frame(text, source, destination))

    def _hear(self) -> None:
        try:
            while True:
                self.got.append(self.links["b"].far.recv(70000))
        except BlockingIOError:
            pass

    def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop run until it is so. Raises TimeoutError."""
        deadline = self.loop.time() + 10
        while not condition():
            if self.loop.time() > deadline:
                raise TimeoutError(f"{len(self.got)} frames came")
            self.loop.call_later(0.001, self.loop.stop)
            self.loop.run_forever()

    def run(self, frames: int) -> list[bytes]:
        """What the far end of `b` has got when there are so many. Raises TimeoutError if they do not come."""
        self.until(lambda: len(self.got) >= frames)
        return self.got

    def close(self) -> None:
        self.pump.close()
        for link in self.links.values():
            self.loop.remove_reader(link.far.fileno())
            link.near.close()
            link.far.close()
        self.loop.close()


def frame(payload: bytes, source: str = "a", destination: str = "b") -> bytes:
    return bytes(10) + parse_mac(MACS[destination]) + parse_mac(MACS[source]) + LOCAL_EXPERIMENTAL + payload


@pytest.fixture(params=["tap", "veth"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Of taps, which are read frame by frame, and of veth pairs, of which a batch is read at once."""
    made = Bench(request.param)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("count", [1, 2, BATCH_FRAMES - 1, BATCH_FRAMES, BATCH_FRAMES + 1, FRAMES_PER_TURN + 3])
def test_frames_arrive_once_in_order_and_whole(bench: Bench, count: int) -> None:
    sent = [frame(number.to_bytes(2, "big") * (25 + number % 40)) for number in range(count)]
    for each in sent:
        bench.links["a"].far.send(each)
    assert bench.run(count) == sent
    assert bench.ports["a"].rx_frames == count and bench.ports["a"].rx_bytes == sum(map(len, sent))
    assert bench.ports["b"].tx[:3] == [count, sum(map(len, sent)), 0]


def test_frames_of_more_bytes_than_a_batch_arrive_in_order_and_whole(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a smaller bound than a busy uplink has, since a socket pair does not hold as much."""
    monkeypatch.setattr("natgw.host.reading.BATCH_BYTES", 4_000)
    sent = [frame(bytes((number,)) * 1_400) for number in range(20)]
    for each in sent:
        bench.links["a"].far.send(each)
    assert bench.run(len(sent)) == sent


def test_of_a_socket_with_long_frames_fewer_are_asked_for_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    receive = Buffers.receive

    def recording(buffers: Buffers, fd: int, most: int) -> tuple[list[int], bool]:
        asked.append(most)
        return receive(buffers, fd, most)

    monkeypatch.setattr("natgw.host.reading.BATCH_BYTES", 4_000)
    monkeypatch.setattr(Buffers, "receive", recording)
    bench = Bench("veth")
    try:
        for count in (20, 40):
            for _ in range(20):
                bench.links["a"].far.send(frame(bytes(1_400)))
            bench.run(count)
            if count == 20:
                assert asked[0] == BATCH_FRAMES
                asked.clear()
    finally:
        bench.close()
    assert asked and max(asked) == 3


def test_one_frame_after_the_other_arrives_as_well(bench: Bench) -> None:
    sent = []
    for number in range(20):
        sent.append(frame(bytes((number,)) * 50))
        bench.links["a"].far.send(sent[-1])
        assert bench.run(number + 1) == sent


def test_frames_that_cannot_be_written_are_counted_and_later_ones_are_written(bench: Bench) -> None:
    bench.say(b"a is here", "a", "b")
    bench.run(1)
    bench.links["b"].near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)  # as little as there may be
    for _ in range(8):
        bench.links["a"].far.send(frame(bytes(1_400)))
    bench.until(lambda: bench.ports["a"].rx_frames == 9)
    written, _, drops, _ = bench.ports["b"].tx
    assert 0 < drops < 8 and written == 9 - drops
    bench.run(written)
    bench.say(b"later", "a", "b")
    assert bench.run(written + 1)[-1] == frame(b"later")


def test_a_link_that_is_gone_is_told_once_and_the_others_go_on(bench: Bench) -> None:
    bench.say(b"a is here", "a", "b")
    bench.run(1)
    near = bench.links["a"].near
    with socket.socket(fileno=os.dup(near.fileno())), open(os.devnull, "wb") as unreadable:
        os.dup2(unreadable.fileno(), near.fileno())  # what was a link fails to be read from now on
        bench.say(b"unheard", "a", "b")
        bench.say(b"nobody hears this either", "a", "b")
        bench.until(lambda: bool(bench.lost))
    assert [(name, error.errno) for name, error in bench.lost] == [("a", errno.EBADF)]
    bench.say(b"b is still served", "b", "a")
    bench.until(lambda: bench.ports["b"].rx_frames == 2)
    assert bench.got == [frame(b"a is here")]


def test_a_port_that_was_removed_is_served_no_more(bench: Bench) -> None:
    bench.pump.remove(bench.ports["a"])
    bench.say(b"unheard", "a", "b")
    bench.say(b"heard", "b", "a")
    bench.until(lambda: bench.ports["b"].rx_frames == 2)
    assert bench.got == [] and bench.ports["a"].rx_frames == 0
