"""Path MTU (requirement U10), between real stacks: an outside whose link, or whose way on, takes less than the containers send.

    container (1500, or 1280) -- natgw -- 1400 -- outside -- 1200 -- far
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from natgw.host.netns import run_inside
from tests.namespaces.test_e2e_segmentation import (
    BURSTS,
    DF_CLEAR,
    DF_SET,
    checksum_errors,
    download,
    published,
    send_bursts,
)
from tests.namespaces.topology import GATEWAY, OUTSIDE, Lab, Namespace, eventually, ip

UPLINK_MTU, FAR_MTU, SMALL_MTU, HEADERS = 1400, 1200, 1280, 28
IP_MTU_DISCOVER, IP_MTU = 10, 14
FAR, FAR_ROUTER = "203.0.113.9", "203.0.113.1"
TIMEOUT_S = 10.0


@dataclass
class Path_:
    """A running natgw whose uplink has a smaller MTU than its containers, and a host behind a link with a smaller one still."""

    lab: Lab
    plenty: Namespace
    small: Namespace
    far: Namespace


@pytest.fixture(scope="module", params=["tap", "veth"])
def path(request: pytest.FixtureRequest) -> Iterator[Path_]:
    with Lab() as lab:
        for namespace in (lab.gateway, lab.outside):
            ip("-n", namespace.name, "link", "set", "eth0", "mtu", str(UPLINK_MTU))
        far = lab.namespace("far")
        ip("-n", far.name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1", "netns", lab.outside.name)
        for namespace, ifname, address in ((lab.outside, "eth1", FAR_ROUTER), (far, "eth0", FAR)):
            ip("-n", namespace.name, "addr", "add", f"{address}/24", "dev", ifname)
            ip("-n", namespace.name, "link", "set", ifname, "mtu", str(FAR_MTU), "up")
        ip("-n", far.name, "route", "add", "default", "via", FAR_ROUTER)
        lab.outside.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        lab.up("--link", request.param)
        yield Path_(lab, lab.container("plenty"), lab.container("small", "--mtu", str(SMALL_MTU)), far)


@pytest.fixture(autouse=True)
def forgotten(path: Path_) -> None:
    """What an earlier test has taught them of the way."""
    for namespace in (path.plenty, path.small, path.lab.outside, path.far):
        namespace.run("ip", "route", "flush", "cache")


def udp(namespace: Namespace, discover: int) -> socket.socket:
    made = run_inside(namespace.path, socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(TIMEOUT_S)
    made.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, discover)
    return made


def learned(sender: socket.socket, mtu: int) -> bool:
    """Whether the sender's kernel knows the path's MTU; the error that told it is taken out of the way."""
    sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return sender.getsockopt(socket.IPPROTO_IP, IP_MTU) == mtu


def check_df(sender: socket.socket, receiver: socket.socket, mtu: int, too_large: int = 1472) -> None:
    """A connected sender with DF: what is too large does not arrive, the kernel learns the MTU, and what just fits arrives."""
    sender.send(bytes(too_large))
    eventually(lambda: learned(sender, mtu))
    with pytest.raises(OSError, match="Message too long"):
        sender.send(bytes(mtu - HEADERS + 1))
    sender.send(b"x" * (mtu - HEADERS))
    assert receiver.recv(2000) == b"x" * (mtu - HEADERS), "the first that arrives is the first that fits"


@pytest.mark.requirement("U10")
@pytest.mark.parametrize(("to", "mtu"), [("outside", UPLINK_MTU), ("far", FAR_MTU)])
def test_outward_with_df_the_sender_learns_the_mtu(path: Path_, to: str, mtu: int) -> None:
    """Of natgw's own uplink by natgw; of a link behind it by the router there, whose error is translated back."""
    namespace, address = (path.lab.outside, OUTSIDE) if to == "outside" else (path.far, FAR)
    before = path.lab.counters()
    with udp(namespace, DF_SET) as receiver, udp(path.plenty, DF_SET) as sender:
        receiver.bind((address, 0))
        sender.connect(receiver.getsockname())
        if to == "far":
            sender.send(b"hello")  # natgw's own MTU is not the one that counts
            assert receiver.recv(100) == b"hello"
        check_df(sender, receiver, mtu, too_large=1472 if to == "outside" else UPLINK_MTU - HEADERS)
    after = path.lab.counters()
    counter = "icmp_too_big" if to == "outside" else "translated_error"
    assert after[counter] == before[counter] + 1


@pytest.mark.requirement("U10")
@pytest.mark.parametrize("sender_is", ["outside", "far"])
def test_inward_with_df_the_sender_learns_the_mtu(path: Path_, sender_is: str) -> None:
    """To a published port of a container with a smaller MTU. What comes from outside is told by the external address."""
    namespace, mtu = (path.lab.outside, SMALL_MTU) if sender_is == "outside" else (path.far, FAR_MTU)
    with (published(path.lab, "small", "7100:7100/udp"), udp(path.small, DF_SET) as receiver,
          udp(namespace, DF_SET) as sender):
        receiver.bind(("0.0.0.0", 7100))
        sender.connect((GATEWAY, 7100))
        if sender_is == "outside":
            check_df(sender, receiver, mtu, too_large=UPLINK_MTU - HEADERS)
        else:
            sender.send(b"x" * (mtu - HEADERS))  # its own link is the narrowest: natgw has nothing to say
            assert receiver.recv(2000) == b"x" * (mtu - HEADERS)


@pytest.mark.requirement("U10")
@pytest.mark.parametrize("size", [1472, 1373, 4000])
def test_without_df_both_ways(path: Path_, size: int) -> None:
    """A datagram that does not fit is cut, wherever that is, and put together by its receiver."""
    message = bytes(range(256)) * 16
    with udp(path.far, DF_CLEAR) as receiver, udp(path.plenty, DF_CLEAR) as sender:
        receiver.bind((FAR, 0))
        sender.sendto(message[:size], receiver.getsockname())
        arrived, source = receiver.recvfrom(8000)
        assert arrived == message[:size]
        receiver.sendto(arrived[::-1], source)
        assert sender.recv(8000) == message[:size][::-1]
    with published(path.lab, "small", "7100:7100/udp"), udp(path.small, DF_CLEAR) as server, \
            udp(path.lab.outside, DF_CLEAR) as client:
        server.bind(("0.0.0.0", 7100))
        client.sendto(message[:size], (GATEWAY, 7100))
        arrived, source = server.recvfrom(8000)
        assert arrived == message[:size]
        server.sendto(arrived[::-1], source)
        assert client.recvfrom(8000) == (message[:size][::-1], (GATEWAY, 7100))


@pytest.mark.requirement("U10")
def test_superframes_of_datagrams_too_large_leave_in_fragments(path: Path_) -> None:
    before = path.lab.counters()
    errors = checksum_errors(path.lab.outside)
    send_bursts(path.plenty, path.lab.outside, OUTSIDE, size=1400, df=DF_CLEAR)
    after = path.lab.counters()
    assert after["split_superframes"] == before["split_superframes"] + BURSTS
    assert checksum_errors(path.lab.outside) == errors


@pytest.mark.requirement("U10")
def test_superframes_of_datagrams_that_fit_are_left_whole(path: Path_) -> None:
    before = path.lab.counters()
    send_bursts(path.plenty, path.lab.outside, OUTSIDE, size=UPLINK_MTU - HEADERS)
    assert path.lab.counters()["split_superframes"] == before["split_superframes"]


@pytest.mark.requires("curl")
@pytest.mark.requirement("U10")
@pytest.mark.parametrize("to", ["outside", "far"])
@pytest.mark.parametrize("told", ["the truth", "a larger MSS"])
def test_tcp_from_inside(path: Path_, to: str, told: str, tmp_path: Path) -> None:
    """20 MB to a client outside that offers its own link's MSS, or a larger one: then natgw makes superframes' segments fit."""
    namespace, gateway, device, local = ((path.lab.outside, [], "eth0", OUTSIDE) if to == "outside"
                                         else (path.far, ["via", FAR_ROUTER], "eth0", FAR))
    wanted = "198.51.100.0/24" if to == "outside" else "default"
    advmss = ["advmss", "1460"] if told != "the truth" else []
    namespace.run("ip", "route", "replace", wanted, *gateway, "dev", device, "src", local, *advmss)
    before, errors = path.lab.counters(), checksum_errors(namespace)
    with published(path.lab, "plenty", "8000:8000"):
        download(namespace, path.plenty, GATEWAY, tmp_path)
    after = path.lab.counters()
    assert checksum_errors(namespace) == errors
    if advmss and to == "outside":
        assert after["resized_superframes"] + after["icmp_too_big"] > before["resized_superframes"] + before["icmp_too_big"]
    if advmss and to == "far":
        assert after["translated_error"] > before["translated_error"], "the router's word reaches the sender"
    namespace.run("ip", "route", "replace", wanted, *gateway, "dev", device, "src", local)


@pytest.mark.requires("curl")
def test_tcp_to_inside_fits_the_smaller_container(path: Path_, tmp_path: Path) -> None:
    errors = checksum_errors(path.small)
    download(path.small, path.far, FAR, tmp_path)
    assert checksum_errors(path.small) == errors
