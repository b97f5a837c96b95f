"""Links that take no superframes, and links with a smaller MTU: what arrives is whole, correct, and no larger than it may be.

The sender of UDP bursts hands the kernel superframes (UDP_SEGMENT); the receiver takes in each datagram, and answers
a burst with its hash. So nothing is sent before what came before it has arrived, and nothing is lost for want of a buffer.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass
from pathlib import Path

import pytest

from natgw.host.netns import run_inside
from tests.namespaces.topology import GATEWAY, OUTSIDE, Lab, Namespace, eventually, web_server

PLENTY, BARE, SMALL = "172.17.0.2", "172.17.0.3", "172.17.0.4"
MEGABYTES_20 = 20_000_000
BURSTS, DATAGRAMS = 30, 40
ETHERNET_BYTES = 14
ETH_P_ALL, SO_ATTACH_FILTER, SOL_PACKET, PACKET_IGNORE_OUTGOING = 3, 26, 263, 23

_RECEIVER = """
import hashlib, socket, sys
count, size = int(sys.argv[2]), int(sys.argv[3])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
    receiver.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
    receiver.bind(("", int(sys.argv[1])))
    while True:
        burst = hashlib.sha256()
        for _ in range(count):
            datagram, sender = receiver.recvfrom(65536)
            burst.update(len(datagram).to_bytes(4, "big") + datagram)
        receiver.sendto(burst.digest(), sender)
"""

_SENDER = """
import hashlib, random, socket, sys
address, port, bursts, count, size, discover = sys.argv[1], *map(int, sys.argv[2:])
rng = random.Random(11)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.settimeout(5)
    sender.setsockopt(socket.IPPROTO_IP, 10, discover)  # IP_MTU_DISCOVER
    sender.setsockopt(socket.IPPROTO_UDP, 103, size)  # UDP_SEGMENT
    sender.connect((address, port))
    for number in range(bursts):
        # The last datagram is shorter, as the last one of a superframe may be.
        datagrams = [rng.randbytes(size) for _ in range(count - 1)] + [rng.randbytes(size // 3)]
        wanted = hashlib.sha256()
        for datagram in datagrams:
            wanted.update(len(datagram).to_bytes(4, "big") + datagram)
        sender.send(b"".join(datagrams))
        got = sender.recv(100)
        if got != wanted.digest():
            sys.exit(f"burst {number} has arrived as something else")
"""
DF_CLEAR, DF_SET = 0, 2
"""IP_PMTUDISC_DONT, IP_PMTUDISC_DO."""


@dataclass
class Pair:
    """Two containers by one kind of link: one with offload, one without."""

    lab: Lab
    link: str
    plenty: Namespace
    bare: Namespace

    def segmented(self, container: str) -> int:
        """Frames that natgw has worked on in software for a container's port."""
        (port,) = (port for port in self.lab.json("stats")["ports"] if port["name"] == container)
        count: int = port["segmented"]
        return count


@pytest.fixture(scope="module", params=["tap", "veth"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Shared by the tests of a module, which leave it as they found it."""
    with Lab() as made:
        made.up("--link", request.param)
        yield Pair(made, request.param, made.container("plenty"), made.container("bare", "--no-offload"))


@pytest.fixture(params=[True, False], ids=["offload", "no-offload"])
def small(pair: Pair, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A container with an MTU of 1280, with and without offload; without, it gets no frame larger than that."""
    pair.lab.outside.run("ip", "route", "flush", "cache")  # what an earlier one has taught it of the way there
    namespace = pair.lab.container("small", "--mtu", "1280", "--ip", SMALL, *([] if request.param else ["--no-offload"]))
    if request.param:
        yield namespace
    else:
        with frames_fit(namespace, 1280):
            yield namespace
    pair.lab.natgw("detach", "small")
    namespace.close()


def checksum_errors(namespace: Namespace) -> dict[str, int]:
    """What the kernel inside has found wrong: IP headers, and the checksums of TCP and UDP."""
    lines = [line.split() for line in namespace.run("cat", "/proc/net/snmp").stdout.splitlines()]
    found = {heads[0] + name: int(value) for heads, values in zip(lines[::2], lines[1::2], strict=True)
             for name, value in zip(heads[1:], values[1:], strict=True)}
    return {name: found[name] for name in ("Ip:InHdrErrors", "Tcp:InCsumErrors", "Udp:InCsumErrors", "Icmp:InCsumErrors")}


@contextmanager
def frames_fit(namespace: Namespace, mtu: int) -> Iterator[None]:
    """No frame that eth0 takes in meanwhile is larger than its MTU allows: a packet socket with a filter hears only those."""
    # ld len; jgt #LARGEST, 0, 1; ret #65535; ret #0
    program = struct.pack("HBBI" * 4, 0x80, 0, 0, 0, 0x25, 0, 1, mtu + ETHERNET_BYTES, 0x06, 0, 0, 65535, 0x06, 0, 0, 0)
    held = create_string_buffer(program)
    with run_inside(namespace.path, socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0) as ear:
        ear.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 4, addressof(held)))
        ear.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        ear.setblocking(False)
        ear.bind(("eth0", ETH_P_ALL))
        yield
        with pytest.raises(BlockingIOError):
            pytest.fail(f"a frame of {len(ear.recv(65536))} bytes came in")


@contextmanager
def nothing_wrong(lab: Lab, *namespaces: Namespace) -> Iterator[None]:
    """Neither natgw nor the kernels at the ends find a wrong checksum or length meanwhile, and natgw loses no frame by it."""
    bad = ("drop_bad_checksum", "drop_bad_length", "drop_bad_transport", "drop_bad_offload")
    before = [lab.counters()[name] for name in bad], [checksum_errors(namespace) for namespace in namespaces]
    yield
    assert ([lab.counters()[name] for name in bad], [checksum_errors(namespace) for namespace in namespaces]) == before


def download(near: Namespace, far: Namespace, url_host: str, folder: Path) -> None:
    """TCP from `far` to `near`, with equal hashes."""
    data = random.Random(7).randbytes(MEGABYTES_20)
    (folder / "big").write_bytes(data)
    server = web_server(far, 8000, folder)
    try:
        near.run("curl", "-sS", "--max-time", "30", "-o", str(folder / "copy"), f"http://{url_host}:8000/big")
    finally:
        far.end(server)
    assert hashlib.sha256((folder / "copy").read_bytes()).digest() == hashlib.sha256(data).digest()


def send_bursts(near: Namespace, far: Namespace, address: str, *, count: int = DATAGRAMS, size: int = 1400,
                bursts: int = BURSTS, df: int = DF_SET) -> None:
    """UDP superframes of `count` datagrams of `size` bytes from `near` to `far`, each burst answered by its hash."""
    receiver = far.spawn(sys.executable, "-c", _RECEIVER, "7000", str(count), str(size))
    eventually(lambda: far.listening(7000, "udp"))
    try:
        near.run(sys.executable, "-c", _SENDER, address, "7000", *map(str, (bursts, count, size, df)))
    finally:
        far.end(receiver)


@contextmanager
def published(lab: Lab, container: str, spec: str) -> Iterator[None]:
    lab.natgw("publish", container, spec)
    try:
        yield
    finally:
        lab.natgw("unpublish", container, spec)


# ---- without offload -------------------------------------------------------------------------------------------------


def test_inspect_says_which_is_which(pair: Pair) -> None:
    plenty, bare = (pair.lab.json("inspect", name)[0] for name in ("plenty", "bare"))
    assert (plenty["offload"], bare["offload"]) == (True, False)
    assert plenty["link"] == bare["link"] == pair.link


@pytest.mark.requires("curl")
@pytest.mark.parametrize("far", ["outside", "container"])
def test_tcp_to_one_without_offload(pair: Pair, far: str, tmp_path: Path) -> None:
    """It gets segments that fit, each with its checksum; the one with offload gets superframes as ever."""
    namespace, address = (pair.lab.outside, OUTSIDE) if far == "outside" else (pair.plenty, PLENTY)
    before, unaided = pair.segmented("bare"), pair.segmented("plenty")
    with nothing_wrong(pair.lab, pair.bare, namespace), frames_fit(pair.bare, 1500):
        download(pair.bare, namespace, address, tmp_path)
    assert pair.segmented("bare") > before
    assert pair.segmented("plenty") == unaided


@pytest.mark.requires("curl")
@pytest.mark.parametrize("far", ["outside", "container"])
def test_tcp_from_one_without_offload(pair: Pair, far: str, tmp_path: Path) -> None:
    near, address = (pair.lab.outside, GATEWAY) if far == "outside" else (pair.plenty, BARE)
    before = pair.segmented("bare")
    with nothing_wrong(pair.lab, pair.bare, near):
        if far == "outside":
            with published(pair.lab, "bare", "8000:8000"):
                download(near, pair.bare, address, tmp_path)
        else:
            download(near, pair.bare, address, tmp_path)
    assert pair.segmented("bare") > before, "its requests and acknowledgements come with checksums to be completed"


def test_udp_superframes_to_one_without_offload(pair: Pair) -> None:
    before = pair.segmented("bare")
    with nothing_wrong(pair.lab, pair.bare, pair.plenty), frames_fit(pair.bare, 1500):
        send_bursts(pair.plenty, pair.bare, BARE)
    assert pair.segmented("bare") >= before + BURSTS


def test_udp_superframes_from_one_without_offload(pair: Pair) -> None:
    before = pair.segmented("bare")
    with nothing_wrong(pair.lab, pair.bare, pair.plenty):
        send_bursts(pair.bare, pair.plenty, PLENTY)
    assert pair.segmented("bare") >= before + BURSTS, "the answers have checksums to be completed"


@pytest.mark.parametrize("direction", ["in", "out"])
def test_udp_superframes_and_the_outside(pair: Pair, direction: str) -> None:
    before = pair.segmented("bare")
    outside = pair.lab.outside
    with nothing_wrong(pair.lab, pair.bare, outside):
        if direction == "in":
            with published(pair.lab, "bare", "7000:7000/udp"):
                send_bursts(outside, pair.bare, GATEWAY)
        else:
            send_bursts(pair.bare, outside, OUTSIDE)
    assert pair.segmented("bare") >= before + BURSTS


@pytest.mark.requires("iperf3")
@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["from", "to"])
@pytest.mark.parametrize("far", ["outside", "container"])
def test_iperf3_udp(pair: Pair, far: str, direction: list[str]) -> None:
    server, address = (pair.lab.outside, OUTSIDE) if far == "outside" else (pair.plenty, PLENTY)
    process = server.spawn("iperf3", "-s", "-1", "--forceflush")
    eventually(lambda: server.listening(5201))
    before = pair.segmented("bare")
    with nothing_wrong(pair.lab, pair.bare, server):
        result = json.loads(pair.bare.run("iperf3", "-c", address, "-t", "1", "-J", "-u", "-b", "20M", "-l", "1400",
                                          *direction).stdout)
        server.end(process)
    assert result["end"]["sum"]["lost_percent"] < 5
    assert result["end"]["sum"]["bits_per_second"] > 15e6
    assert pair.segmented("bare") > before


# ---- with a smaller MTU ----------------------------------------------------------------------------------------------


@pytest.mark.requires("curl")
@pytest.mark.parametrize("far", ["outside", "container"])
def test_tcp_to_a_smaller_mtu(pair: Pair, small: Namespace, far: str, tmp_path: Path) -> None:
    namespace, address = (pair.lab.outside, OUTSIDE) if far == "outside" else (pair.plenty, PLENTY)
    with nothing_wrong(pair.lab, small, namespace):
        download(small, namespace, address, tmp_path)


@pytest.mark.requires("curl")
def test_tcp_of_a_sender_that_was_told_of_a_larger_mtu(pair: Pair, small: Namespace, tmp_path: Path) -> None:
    """As by a host that offers the MSS of another interface: superframes are cut smaller, a single segment that is too
    large is refused, with the MTU that there is (RFC 1191)."""
    small.run("ip", "route", "change", "default", "via", "172.17.0.1", "dev", "eth0", "advmss", "1460")
    before = pair.lab.counters()
    with nothing_wrong(pair.lab, small, pair.lab.outside):
        download(small, pair.lab.outside, OUTSIDE, tmp_path)
    after = pair.lab.counters()
    assert after["resized_superframes"] > before["resized_superframes"] or after["icmp_too_big"] > before["icmp_too_big"]


def test_udp_superframes_to_a_smaller_mtu(pair: Pair, small: Namespace) -> None:
    """Datagrams that fit are passed on, however large the superframe they come in."""
    with nothing_wrong(pair.lab, small, pair.plenty, pair.lab.outside):
        send_bursts(pair.plenty, small, SMALL, size=1200)
        with published(pair.lab, "small", "7000:7000/udp"):
            send_bursts(pair.lab.outside, small, GATEWAY, size=1200)


@pytest.mark.requirement("U10")
def test_udp_superframes_of_datagrams_too_large_are_fragmented_one_by_one(pair: Pair, small: Namespace) -> None:
    before = pair.lab.counters()
    with (nothing_wrong(pair.lab, small, pair.lab.outside), frames_fit(small, 1280),
          published(pair.lab, "small", "7000:7000/udp")):
        send_bursts(pair.lab.outside, small, GATEWAY, df=DF_CLEAR)
    after = pair.lab.counters()
    assert after["split_superframes"] == before["split_superframes"] + BURSTS
    assert after["fragmented"] == before["fragmented"] + BURSTS
