"""Netlink conversations: with the kernel that is there, whatever this process may do, and with one end of a socket pair."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from natgw.host.netlink import LOOPBACK_INDEX, LinkMessage, Netlink, netlink
from natgw.host.nlsocket import NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkSocket
from natgw.host.pyroute import NetlinkError

NEWLINK, GETLINK = 16, 18


def message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """nlmsghdr and what follows it."""
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 0) + payload


def link(index: int, sequence: int, flags: int = 0) -> bytes:
    return message(NEWLINK, flags, sequence, struct.pack("=BxHiII", 0, 1, index, 0, 0))


def end(kind: int, sequence: int, code: int = 0, flags: int = 0) -> bytes:
    return message(kind, flags, sequence, struct.pack("=i", code))


@pytest.fixture
def pair() -> Iterator[tuple[NetlinkSocket, socket.socket]]:
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, kernels:
        kernels.settimeout(5)
        yield NetlinkSocket(ours), kernels


def ask(conversation: NetlinkSocket) -> list[int]:
    """The indexes in the answer to a dump."""
    return [answer["index"] for answer in conversation.ask(LinkMessage(), GETLINK, NLM_F_DUMP)]


def test_a_dump_ends_with_done(pair: tuple[NetlinkSocket, socket.socket]) -> None:
    conversation, kernel = pair
    kernel.send(link(1, 1) + link(2, 1))
    kernel.send(link(3, 1))
    kernel.send(end(NLMSG_DONE, 1))
    assert ask(conversation) == [1, 2, 3]
    length, kind, flags, sequence, port = struct.unpack_from("=IHHII", kernel.recv(4096))
    assert (length, kind, flags, sequence, port) == (32, GETLINK, 0x01 | 0x04 | 0x300, 1, 0)


def test_answers_to_another_request_are_passed_over(pair: tuple[NetlinkSocket, socket.socket]) -> None:
    conversation, kernel = pair
    kernel.send(link(1, 9) + end(NLMSG_DONE, 9) + link(2, 1) + end(NLMSG_DONE, 1))
    assert ask(conversation) == [2]


@pytest.mark.parametrize("first", [link(1, 1, NLM_F_DUMP_INTR) + end(NLMSG_DONE, 1),
                                   link(1, 1) + end(NLMSG_DONE, 1, flags=NLM_F_DUMP_INTR)])
def test_a_dump_that_was_interrupted_is_asked_for_again(pair: tuple[NetlinkSocket, socket.socket], first: bytes) -> None:
    conversation, kernel = pair
    kernel.send(first)
    kernel.send(link(1, 2) + link(2, 2) + end(NLMSG_DONE, 2))
    assert ask(conversation) == [1, 2]


def test_a_dump_that_never_comes_out_whole(pair: tuple[NetlinkSocket, socket.socket]) -> None:
    conversation, kernel = pair
    for sequence in range(1, 11):  # as many as a socket of this kind takes
        kernel.send(end(NLMSG_DONE, sequence, flags=NLM_F_DUMP_INTR))
    with pytest.raises(NetlinkError) as caught:
        ask(conversation)
    assert caught.value.code == errno.EINTR


def test_an_error_in_place_of_the_answer(pair: tuple[NetlinkSocket, socket.socket]) -> None:
    conversation, kernel = pair
    kernel.send(end(NLMSG_ERROR, 1, -errno.EPERM))
    with pytest.raises(NetlinkError) as caught:
        ask(conversation)
    assert caught.value.code == errno.EPERM


def test_the_kernel_s_own_answers() -> None:
    with netlink() as conversation:
        loopback = conversation.link(LOOPBACK_INDEX)
        assert loopback.get_attr("IFLA_IFNAME") == "lo" and loopback.get_attr("IFLA_ADDRESS") == bytes(6)
        assert (LOOPBACK_INDEX, "lo") in [(each["index"], each.get_attr("IFLA_IFNAME")) for each in conversation.links()]
        assert {each["index"] for each in conversation.links()} == {index for index, _ in socket.if_nameindex()}
        with pytest.raises(NetlinkError) as caught:
            conversation.link(0x7FFFFFF0)
        assert caught.value.code == errno.ENODEV


def test_it_takes_a_descriptor_and_gives_it_back() -> None:
    conversation = Netlink()
    conversation.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        conversation.links()
