"""Protocols beside TCP, UDP and ICMP between real stacks: UDP-Lite by the kernel's own sockets, the others by raw ones.

The gateway's host shares its address with natgw and knows none of these protocols: what it would say to them (ICMP 3/2 and 3/3)
must not be heard outside.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from natgw.host.netns import run_inside
from tests.namespaces.conftest import Pair
from tests.namespaces.topology import GATEWAY, OUTSIDE, Namespace
from tests.unit.test_protocols import dccp, sctp, verifies

DCCP, GRE, SCTP, UDPLITE, UNKNOWN = 33, 47, 132, 136, 253
UDPLITE_SEND_CSCOV, UDPLITE_RECV_CSCOV = 10, 11
TIMEOUT_S = 10.0
Open = Callable[..., socket.socket]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Sockets inside namespaces, closed together."""
    with ExitStack() as stack:
        def open_(namespace: Namespace, kind: int, protocol: int) -> socket.socket:
            made = run_inside(namespace.path, socket.socket, socket.AF_INET, kind, protocol)
            made.settimeout(TIMEOUT_S)
            return stack.enter_context(made)

        yield open_


@contextmanager
def nothing_but_echo_is_heard(opened: Open, outside: Namespace) -> Iterator[None]:
    """The first ICMP message that comes out of the gateway's host meanwhile is the answer to the ping at the end."""
    icmp = opened(outside, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    yield
    body = struct.pack("!HH", 7, 1)
    checksum = 0xFFFF ^ (0x0800 + 7 + 1)
    icmp.sendto(b"\x08\x00" + checksum.to_bytes(2, "big") + body, (GATEWAY, 0))
    assert icmp.recv(200)[20:21] == b"\0", "something else than an echo reply"


def payload(packet: bytes) -> bytes:
    return packet[(packet[0] & 15) * 4 :]


@pytest.mark.parametrize("protocol", [GRE, UNKNOWN])
def test_by_address(pair: Pair, opened: Open, protocol: int) -> None:
    outside = pair.lab.outside
    inner, far = opened(pair.one, socket.SOCK_RAW, protocol), opened(outside, socket.SOCK_RAW, protocol)
    with nothing_but_echo_is_heard(opened, outside):
        for word in (b"\0\0\x88\xbeone", b"\0\0\x88\xbetwo"):
            inner.sendto(word, (OUTSIDE, 0))
            packet, (source, _) = far.recvfrom(200)
            assert (payload(packet), source) == (word, GATEWAY)
            far.sendto(word[::-1], (GATEWAY, 0))
            packet, (source, _) = inner.recvfrom(200)
            assert (payload(packet), source) == (word[::-1], OUTSIDE)
    refused = opened(pair.two, socket.SOCK_RAW, protocol)
    told = opened(pair.two, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    refused.sendto(b"mine too", (OUTSIDE, 0))
    assert payload(told.recv(200))[:2] == b"\x03\x0d"
    (flow,) = pair.lab.json("flows", "--protocol", "gre" if protocol == GRE else str(protocol))
    assert (flow["original"]["src"], flow["reply"]["dst"], flow["state"]) == ("172.17.0.2", GATEWAY, "REPLIED")


def test_udplite_by_the_kernels_own_sockets(pair: Pair, opened: Open) -> None:
    outside = pair.lab.outside
    inner, far = (opened(each, socket.SOCK_DGRAM, UDPLITE) for each in (pair.one, outside))
    far.bind((OUTSIDE, 0))
    for sock in (inner, far):
        sock.setsockopt(UDPLITE, UDPLITE_SEND_CSCOV, 12)
        sock.setsockopt(UDPLITE, UDPLITE_RECV_CSCOV, 10)
    with nothing_but_echo_is_heard(opened, outside):
        for word in (b"one", b"twenty-one"):
            inner.sendto(word, far.getsockname())
            heard, source = far.recvfrom(200)
            assert (heard, source[0]) == (word, GATEWAY)
            far.sendto(heard.upper(), source)
            assert inner.recvfrom(200) == (word.upper(), far.getsockname())
    (flow,) = pair.lab.json("flows", "--protocol", "udplite")
    assert flow["mapping"]["external"] == f"{source[0]}:{source[1]}"


def test_a_udplite_port_that_is_closed_is_told_to_its_sender(pair: Pair, opened: Open) -> None:
    inner = opened(pair.two, socket.SOCK_DGRAM, UDPLITE)
    inner.connect((OUTSIDE, 9))
    inner.send(b"anybody?")
    with pytest.raises(ConnectionRefusedError):
        inner.recv(100)


def test_sctp_published_and_answered(pair: Pair, opened: Open) -> None:
    """Between raw sockets, since these kernels do not speak it; scapy makes the packets."""
    outside = pair.lab.outside
    pair.lab.natgw("publish", "one", "9999:99/sctp")
    try:
        (line,) = pair.lab.natgw("port", "one").stdout.splitlines()
        assert line == "99/sctp -> 0.0.0.0:9999"
        server, far = opened(pair.one, socket.SOCK_RAW, SCTP), opened(outside, socket.SOCK_RAW, SCTP)
        with nothing_but_echo_is_heard(opened, outside):
            far.sendto(sctp(OUTSIDE, 4000, GATEWAY, 9999)[20:], (GATEWAY, 0))
            packet = server.recv(200)
            assert struct.unpack_from("!HH", payload(packet)) == (4000, 99)
            assert verifies(packet)
            server.sendto(sctp("172.17.0.2", 99, OUTSIDE, 4000)[20:], (OUTSIDE, 0))
            packet = far.recv(200)
            assert struct.unpack_from("!HH", payload(packet)) == (9999, 4000)
            assert verifies(packet)
        taken = pair.lab.natgw("publish", "two", "9999:99/sctp", check=False)
        assert taken.stderr == "natgw: Bind for 0.0.0.0:9999 failed: port is already allocated\n"
        pair.lab.natgw("publish", "two", "99/sctp")
        assert pair.lab.natgw("port", "two").stdout.startswith("99/sctp -> 0.0.0.0:")
        pair.lab.natgw("unpublish", "two", "99/sctp")
    finally:
        pair.lab.natgw("unpublish", "one", "9999:99/sctp")
    assert pair.lab.natgw("port", "one").stdout == ""


def test_dccp_there_and_back(pair: Pair, opened: Open) -> None:
    """Between raw sockets as well. Two containers have the same port."""
    outside = pair.lab.outside
    far = opened(outside, socket.SOCK_RAW, DCCP)
    seen = []
    with nothing_but_echo_is_heard(opened, outside):
        for container, address in ((pair.one, "172.17.0.2"), (pair.two, "172.17.0.3")):
            inner = opened(container, socket.SOCK_RAW, DCCP)
            inner.sendto(dccp(address, 30_000, OUTSIDE, 5001)[20:], (OUTSIDE, 0))
            packet, (source, _) = far.recvfrom(200)
            port, service = struct.unpack_from("!HH", payload(packet))
            assert (source, service) == (GATEWAY, 5001)
            assert verifies(packet)
            far.sendto(dccp(OUTSIDE, 5001, GATEWAY, port, b"answer", kind=4)[20:], (GATEWAY, 0))
            packet = inner.recv(200)
            assert struct.unpack_from("!HH", payload(packet)) == (5001, 30_000)
            assert verifies(packet)
            assert packet.endswith(b"answer")
            seen.append(port)
    assert len(set(seen)) == 2
    flows = pair.lab.json("flows", "--protocol", "dccp")
    assert sorted(int(flow["mapping"]["external"].rpartition(":")[2]) for flow in flows) == sorted(seen)
