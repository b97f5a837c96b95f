"""A conversation by netlink: one request, and all that answers it. The messages are pyroute2's, the conversation is natgw's.

pyroute2's own (`IPRoute`) brings an event loop, statistics, a mock of the kernel and every message there is along: to import it
took a fifth of natgw's start, and to open and ask it once 4 ms, where the kernel answers within microseconds
([decision 32](../../docs/decisions/0032-netlink-conversation.md)).

A request gets its answers, and an acknowledgement after them (NLMSG_ERROR with the code 0) or an error in their place. A dump,
a request for all there is of a kind, ends with NLMSG_DONE. If something changed meanwhile the kernel marks the answers, since
they may lack some or have some twice: then natgw asks again.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from typing import Any

from natgw.host.pyroute import NetlinkError

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR = 0x01, 0x04, 0x10
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_DUMP = 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3

_HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence number, port (linux/netlink.h)."""
_CODE = struct.Struct("=i")
_RECEIVE_BYTES = 1 << 17
"""More than the kernel puts into one datagram of answers."""
_DUMP_TRIES = 10


class NetlinkSocket:
    """A socket of NETLINK_ROUTE in the network namespace of the thread that makes it; `handle` is for tests. It blocks."""

    def __init__(self, handle: socket.socket | None = None) -> None:
        self._socket = handle or socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC,
                                               socket.NETLINK_ROUTE)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def ask(self, message: Any, kind: int, flags: int = 0) -> list[Any]:
        """Send a message as a request of this kind; gives its answers, messages of the same class. Raises NetlinkError.

        A dump that never comes out whole raises NetlinkError as well, with EINTR.
        """
        for _ in range(_DUMP_TRIES):
            self._send(message, kind, flags)
            answers, whole = self._answers()
            if whole:
                return [_decoded(type(message), answer) for answer in answers]
        raise NetlinkError(errno.EINTR)

    def _send(self, message: Any, kind: int, flags: int) -> None:
        self._sequence += 1
        message["header"] = {"type": kind, "flags": NLM_F_REQUEST | NLM_F_ACK | flags, "pid": 0,
                             "sequence_number": self._sequence}
        message.reset()
        message.encode()
        self._socket.send(message.data)

    def _answers(self) -> tuple[list[bytes], bool]:
        """What answers the last request, and whether that is all of it. Raises NetlinkError."""
        answers, whole = [], True
        while True:
            for kind, flags, message in self._messages():
                whole = whole and not flags & NLM_F_DUMP_INTR
                if kind not in (NLMSG_ERROR, NLMSG_DONE):
                    answers.append(message)
                    continue
                (code,) = _CODE.unpack_from(message, _HEADER.size)
                if code:
                    raise NetlinkError(-code)
                return answers, whole

    def _messages(self) -> Iterator[tuple[int, int, bytes]]:
        """Type, flags and all of each message in the next datagram that belongs to the last request."""
        received = self._socket.recv(_RECEIVE_BYTES)
        at = 0
        while at < len(received):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(received, at)
            if sequence == self._sequence:
                yield kind, flags, received[at : at + length]
            at += length + 3 & ~3


def _decoded(layout: type, data: bytes) -> Any:
    message = layout(data)
    message.decode()
    return message
