"""The pump: reads frames from links, feeds the datapath, writes what it decides; the only place where both meet.

All link descriptors are in one epoll set of our own, and the event loop watches that set. So one wake-up of the loop serves
every link that has something, asks again while there is more, and goes back to the loop after a bounded amount of work; and an
error on one descriptor is ours to judge (a link that is down for a moment is not a link that is gone).

A port's turn goes by batches: a few frames are read, then all of them decided about, then written (see
`natgw.datapath.outgoing`). It ends when the port is empty or has had its share, and then the datapath is flushed: nothing it
holds back outlives the turn it came in. A port that had one frame the last time is asked for one: finding out that it is empty
costs a system call and an exception, and the next question to all ports, which is asked anyway, tells it too. Where there are
several it is worth it, for the batch is the larger.
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
from natgw.host.reading import BATCH_FRAMES, Buffers, fitting
from natgw.wire.segment import LONGEST_FRAME_BYTES, CannotSegment, segments, superframes
from natgw.wire.vnet import GSO_ECN, GSO_UDP_L4, NEEDS_CSUM

FRAMES_PER_TURN = 256
"""Frames read from one port, at most, before the next one has its turn. The more there are, the more datagrams of one flow can
be merged when many flows take turns: 32 of them got 0.87 of the kernel's rate, and 0.59 with 64 frames in a turn."""
FEWEST_FRAMES = 64
"""Where several ports have frames at a time they share those of a turn, but each may read so many."""
BYTES_PER_TURN = 1 << 20
"""The same bound for superframes, which are more work each: 64 of 16 KiB, the average on a busy TCP connection. With 4 MiB
TCP up had 0.57 of the kernel's rate, and has 0.66."""
SLICE_S = 0.002
"""How long frames are served before the event loop has its turn (API, timers)."""
LINGER_S = 50e-6
"""How long after the last frame the pump asks again before it sleeps.

An answer is often some microseconds away: the other end has just been handed a frame. Going to sleep and being woken costs
more than that, and where the processor halts in between, several times more. Asking costs only time that nobody else wants,
since every time round it is offered to the other processes (sched_yield).
"""
_GONE = frozenset((errno.EBADFD, errno.EBADF, errno.ENODEV, errno.ENXIO))


class PumpedLink(Protocol):
    """What the pump needs of a link: see natgw.host.links."""

    name: str
    kind: str
    fd: int
    offload: bool
    udp_offload: bool
    big_tcp: bool


OnLost = Callable[[Port, OSError], None]


class _Entry:
    __slots__ = ("busy", "fd", "fit", "link", "on_lost", "port", "read", "served")

    def __init__(self, port: Port, link: PumpedLink, on_lost: OnLost, buffers: Buffers) -> None:
        self.fd = link.fd
        self.port = port
        self.link = link
        self.on_lost = on_lost
        self.busy = False
        """It had several frames the last time."""
        self.served = 0
        """The last round in which it had any."""
        self.read = buffers.reader(link.kind)
        self.fit = BATCH_FRAMES
        """How many frames such as the last ones make a batch."""


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
        self._buffers = Buffers()
        self._flush = datapath.flush
        self._round = 0
        """Counts the questions to all ports."""
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
        self._entries[link.fd] = _Entry(port, link, on_lost, self._buffers)
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
        if not link.offload:
            return _segmenting_writer(link.fd, counters, _needs_work)
        if not link.udp_offload:
            return _segmenting_writer(link.fd, counters, _is_udp_superframe)
        return _cutting_writer(link, counters)

    # -- wake-ups ------------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        clock, poll, entries = self._clock, self._epoll.poll, self._entries
        now = clock()
        enough, linger = now + SLICE_S, now + LINGER_S
        while now < enough:
            ready = poll(0)
            self._round = this = self._round + 1
            if ready:
                for fd, _events in ready:
                    entry = entries.get(fd)
                    if entry is None:
                        continue
                    if entry.busy or entry.served == this - 1:
                        self._serve(entry, now, max(FEWEST_FRAMES, FRAMES_PER_TURN // len(ready)))
                    else:
                        self._serve_one(entry, now)
                    entry.served = this
                if self._epoll.closed:
                    return
                now = clock()
                linger = now + LINGER_S
            else:
                os.sched_yield()
                now = clock()
                if now > linger:
                    return

    def _serve_one(self, entry: _Entry, now: float) -> None:
        """Move a frame of a port that will hardly have a second one."""
        try:
            n = os.readv(entry.fd, self._buffers.first)
        except BlockingIOError:
            return
        except OSError as error:
            self._failed(entry, error)
            return
        port = entry.port
        port.receive(self._buffers.frames[0], n, now)
        self._flush()
        port.rx_frames += 1
        port.rx_bytes += n

    def _serve(self, entry: _Entry, now: float, turn: int) -> None:
        """Move up to `turn` frames of a port, a batch at a time."""
        port, buffers = entry.port, self._buffers.frames
        frames = size = 0
        while True:
            try:
                sizes, empty = entry.read(entry.fd, min(entry.fit, turn - frames))
            except OSError as error:
                self._failed(entry, error)
                break
            receive = port.receive
            read = size
            for buffer, n in zip(buffers, sizes, strict=False):
                receive(buffer, n, now)
                size += n
            frames += len(sizes)
            if sizes:
                entry.fit = fitting(len(sizes), size - read)
            if empty or frames >= turn or size >= BYTES_PER_TURN:
                break
            self._datapath.send()
        self._flush()
        entry.busy = frames > 1
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


def _cutting_writer(link: PumpedLink, counters: list[int]) -> Callable[[memoryview], None]:
    """For a link with offload: a superframe that is longer than it takes becomes several, which count as one that was cut."""
    write, fd = os.write, link.fd
    plain = _plain_writer(fd, counters)

    def transmit(frame: memoryview) -> None:
        if len(frame) > LONGEST_FRAME_BYTES and not link.big_tcp:
            counters[3] += 1
            try:
                for piece in superframes(frame):
                    plain(piece)
            except CannotSegment:
                counters[2] += 1
            return
        try:
            counters[1] += write(fd, frame)
            counters[0] += 1
        except OSError:
            counters[2] += 1

    return transmit


def _needs_work(frame: memoryview) -> bool:
    """Whether anything is left for offload to do. A checksum that the kernel has found valid already is complete."""
    return bool(frame[0] & NEEDS_CSUM or frame[1])


def _is_udp_superframe(frame: memoryview) -> bool:
    return frame[1] & ~GSO_ECN == GSO_UDP_L4


def _segmenting_writer(fd: int, counters: list[int], needs_work: Callable[[memoryview], bool]) -> Callable[[memoryview], None]:
    """For a link that takes not all offload: what `needs_work` is cut, and its checksums completed, in software.

    Both count as one frame that was worked on.
    """
    plain = _plain_writer(fd, counters)

    def transmit(frame: memoryview) -> None:
        if not needs_work(frame):
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
