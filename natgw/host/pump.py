"""The pump: reads frames from links, feeds the datapath, writes what it decides; the only place where both meet.

All link descriptors are in one epoll set of our own, and the event loop watches that set. So one wake-up of the loop serves
every link that has something, asks again while there is more, and goes back to the loop after a bounded amount of work; and an
error on one descriptor is ours to judge (a link that is down for a moment is not a link that is gone).

Each port is read until it is empty or has had its share of the wake-up, then the datapath is flushed: nothing it holds back
outlives the batch it came in.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Protocol

from natgw.datapath import Datapath, Port
from natgw.wire.segment import CannotSegment, segments

FRAMES_PER_TURN = 64
"""Frames read from one port before the next one has its turn."""
ROUNDS_PER_WAKEUP = 8
"""Rounds over the ready ports before the event loop has its turn (API, timers)."""
BUFFER_BYTES = 10 + 14 + 65535 + 64
"""The largest frame with its offload header, and a little, so that a fixed-size unpack never runs off the end."""

_GONE = frozenset((errno.EBADFD, errno.EBADF, errno.ENODEV, errno.ENXIO))


class PumpedLink(Protocol):
    """What the pump needs of a link: see natgw.host.links."""

    name: str
    kind: str
    fd: int
    offload: bool


OnLost = Callable[[Port, OSError], None]


class _Entry:
    __slots__ = ("fd", "link", "on_lost", "port")

    def __init__(self, port: Port, link: PumpedLink, on_lost: OnLost) -> None:
        self.fd = link.fd
        self.port = port
        self.link = link
        self.on_lost = on_lost


class Pump:
    """Moves frames between links and a datapath on the running event loop. `clock` gives seconds, monotonic."""

    def __init__(self, loop: asyncio.AbstractEventLoop, datapath: Datapath,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._datapath = datapath
        self._clock = clock
        self._epoll = select.epoll()
        self._entries: dict[int, _Entry] = {}
        self._counters: dict[int, list[int]] = {}
        self._buffer = bytearray(BUFFER_BYTES)
        self._tick_handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to serve; ports may be added before and after."""
        self._loop.add_reader(self._epoll.fileno(), self._wake)
        self._tick()

    def close(self) -> None:
        """Stop serving. Links stay open; they are their owner's to close."""
        if self._tick_handle is not None:
            self._tick_handle.cancel()
            self._tick_handle = None
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
        self._entries.clear()

    def add(self, port: Port, link: PumpedLink, on_lost: OnLost) -> None:
        """Serve a link whose frames come in at `port`. `on_lost` is called once if the link goes away by itself."""
        self._entries[link.fd] = _Entry(port, link, on_lost)
        port.tx = self._counters.pop(link.fd, port.tx)
        self._epoll.register(link.fd, select.EPOLLIN)

    def remove(self, port: Port) -> None:
        """Stop serving a port's link, before it is closed. A port that is not served is none."""
        for entry in list(self._entries.values()):
            if entry.port is port:
                self._forget(entry)

    def transmitter(self, link: PumpedLink) -> Callable[[memoryview], None]:
        """The function that writes frames to a link; what cannot be written is dropped and counted, as on any wire."""
        counters = self._counters[link.fd] = [0, 0, 0, 0]
        if link.offload:
            return _plain_writer(link.fd, counters)
        return _segmenting_writer(link.fd, counters)

    # -- wake-ups ------------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        now = self._clock()
        poll = self._epoll.poll
        for _ in range(ROUNDS_PER_WAKEUP):
            ready = poll(0)
            if not ready:
                return
            for fd, _events in ready:
                entry = self._entries.get(fd)
                if entry is not None:
                    self._serve(entry, now)
            if self._epoll.closed:
                return

    def _serve(self, entry: _Entry, now: float) -> None:
        port, fd, buffer = entry.port, entry.fd, self._buffer
        receive, read, into = port.receive, os.readv, [self._buffer]
        frames = size = 0
        try:
            for _ in range(FRAMES_PER_TURN):
                n = read(fd, into)
                receive(buffer, n, now)
                frames += 1
                size += n
        except BlockingIOError:
            pass
        except OSError as error:
            self._failed(entry, error)
        self._datapath.flush()
        port.rx_frames += frames
        port.rx_bytes += size

    def _failed(self, entry: _Entry, error: OSError) -> None:
        """A read failed: a packet socket says so once when its interface goes down, and works again when it is up."""
        if error.errno == errno.ENETDOWN and _interface_exists(entry.link.name):
            return
        if error.errno in _GONE or error.errno == errno.ENETDOWN:
            self._forget(entry)
            self._loop.call_soon(entry.on_lost, entry.port, error)

    def _forget(self, entry: _Entry) -> None:
        if self._entries.pop(entry.fd, None) is not None and not self._epoll.closed:
            try:
                self._epoll.unregister(entry.fd)
            except OSError:
                pass  # the descriptor is closed already, and with that out of the set

    def _tick(self) -> None:
        now = self._clock()
        due = self._datapath.tick(now)
        self._tick_handle = self._loop.call_later(max(0.0, due - now), self._tick)


def _plain_writer(fd: int, counters: list[int]) -> Callable[[memoryview], None]:
    write = os.write

    def transmit(frame: memoryview) -> None:
        try:
            counters[1] += write(fd, frame)
            counters[0] += 1
        except OSError:
            counters[2] += 1

    return transmit


def _segmenting_writer(fd: int, counters: list[int]) -> Callable[[memoryview], None]:
    """For a link that takes no offload: every superframe is cut, and every checksum completed, in software."""
    plain = _plain_writer(fd, counters)

    def transmit(frame: memoryview) -> None:
        if not frame[0] and not frame[1]:
            plain(frame)
            return
        counters[3] += 1
        try:
            for piece in segments(frame):
                plain(memoryview(piece))
        except CannotSegment:
            counters[2] += 1

    return transmit


def _interface_exists(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True
