"""Reading frames: a batch into buffers of its own, from a tap one system call a frame, from a packet socket one for all.

`recvmmsg` (Linux 2.6.33) takes many datagrams in one call, and what Python lacks of it ctypes has. Its headers are written once
and point to the buffers; a call fills those and says how long each frame is. Besides the system calls it saves Python's own
work for each of them, and the exception that says that no more is there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable

BATCH_FRAMES = 64
BATCH_BYTES = 400_000
"""Read before any are decided about, and then written. Of TCP's rate 200 to 600 KB made no difference beyond the noise; with
1 MB, more than a processor's second cache holds, nothing was left of the gain."""
BUFFER_BYTES = 10 + 14 + 8 * 65535 + 64
"""The longest superframe that Linux makes (GSO_MAX_SIZE) with its offload header, and a little, so that a fixed-size unpack
never runs off the end. A page that no frame has reached takes no memory."""

Read = Callable[[int, int], tuple[list[int], bool]]


def fitting(frames: int, size: int) -> int:
    """How many frames make a batch, if they are like these, of `size` bytes together; never more than there are buffers."""
    return min(BATCH_FRAMES, BATCH_BYTES * frames // max(size, 1) + 1)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr: all that natgw uses of it is where the bytes go."""

    _fields_ = (("name", ctypes.c_void_p), ("name_length", ctypes.c_uint), ("vectors", ctypes.c_void_p),
                ("vector_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int))


class _Message(ctypes.Structure):
    """struct mmsghdr: the same, and how many bytes came."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


class Buffers:
    """`frames`: a buffer for each of a batch, which hold what was read last; `first`: the first one, as `os.readv` wants it.

    All ports share them, since each has its turn.
    """

    def __init__(self) -> None:
        self.frames = [bytearray(BUFFER_BYTES) for _ in range(BATCH_FRAMES)]
        self._into = [[frame] for frame in self.frames]
        self.first = self._into[0]
        self._vectors = (_Iovec * BATCH_FRAMES)()
        self._messages = (_Message * BATCH_FRAMES)()
        # Held: as long as it is, Python refuses to resize a buffer, which would move it from where the kernel writes.
        self._starts = [ctypes.c_char.from_buffer(frame) for frame in self.frames]
        size = ctypes.sizeof(_Iovec)
        for number, start in enumerate(self._starts):
            self._vectors[number] = _Iovec(ctypes.addressof(start), BUFFER_BYTES)
            header = self._messages[number].header
            header.vectors, header.vector_count = ctypes.addressof(self._vectors) + number * size, 1
        words = memoryview(self._messages).cast("B").cast("I")
        self._lengths = words[_Message.length.offset // 4 :: ctypes.sizeof(_Message) // 4]
        self._recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg

    def reader(self, kind: str) -> Read:
        """How a batch is read from a link of that kind."""
        return self.read if kind == "tap" else self.receive

    def read(self, fd: int, most: int) -> tuple[list[int], bool]:
        """Up to `most` frames, one after the other: the length of each, and whether no more are there. Raises OSError."""
        read, sizes, room = os.readv, list[int](), BATCH_BYTES
        try:
            for into in self._into if most >= BATCH_FRAMES else self._into[:most]:
                n = read(fd, into)
                sizes.append(n)
                room -= n
                if room < 0:
                    break
        except BlockingIOError:
            return sizes, True
        except OSError:
            if not sizes:
                raise
        return sizes, False

    def receive(self, fd: int, most: int) -> tuple[list[int], bool]:
        """The same for a socket, all at once. Only `most` bounds how many bytes that are."""
        count = self._recvmmsg(fd, self._messages, most, socket.MSG_DONTWAIT, None)
        if count < 0:
            code = ctypes.get_errno()
            if code in (errno.EAGAIN, errno.EINTR):
                return [], True
            raise OSError(code, os.strerror(code))
        return self._lengths[:count].tolist(), count < most
