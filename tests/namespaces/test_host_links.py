"""Taps, veth pairs and packet sockets, as containers and the uplink get them."""

from __future__ import annotations

import gc
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address, IPv4Interface

import pytest

from natgw.errors import Conflict, NatgwError, NotFound
from natgw.host import links
from natgw.host.links import Link
from tests.conftest import eventually
from tests.namespaces.host_lab import Namespace, namespaces, wire

pytestmark = pytest.mark.requires("ip", "nsenter")

MAC = bytes.fromhex("0242ac110002")
GATEWAY_MAC = bytes.fromhex("0242ac110001")
ADDRESS, GATEWAY = IPv4Interface("172.17.0.2/16"), IPv4Address("172.17.0.1")
VNET_BYTES, GSO_UDP_L4 = 10, 5
UDP_SEGMENT = 103


@pytest.fixture
def lab() -> Iterator[list[Namespace]]:
    """natgw's namespace and a container's."""
    with namespaces(2) as made:
        yield made


def make(lab: list[Namespace], kind: str, *, ifname: str = "eth0", mtu: int = 1400, offload: bool = True) -> Link:
    home, container = lab

    def build() -> Link:
        if kind == "tap":
            return links.create_container_tap(container.path, ifname=ifname, mac=MAC, address=ADDRESS, gateway=GATEWAY,
                                              mtu=mtu, offload=offload)
        return links.create_container_veth(container.path, ifname=ifname, mac=MAC, address=ADDRESS, gateway=GATEWAY, mtu=mtu,
                                           host_name="veth0a1b2c3", offload=offload)

    return home.call(build)


def read_frame(link: Link, ethertype: int) -> bytes:
    """The next frame of a kind, without its offload header's bytes cut off."""
    def look() -> bytes | None:
        while select.select([link.fd], [], [], 0)[0]:
            frame = os.read(link.fd, 70000)
            if frame[VNET_BYTES + 12 : VNET_BYTES + 14] == struct.pack("!H", ethertype):
                return frame
        return None

    frame = eventually(look)
    assert frame is not None
    return frame


def answer_arp(link: Link) -> None:
    """Play the gateway once."""
    request = read_frame(link, 0x0806)[VNET_BYTES:]
    assert request[6:12] == MAC and request[28:32] == ADDRESS.ip.packed and request[38:42] == GATEWAY.packed
    reply = (MAC + GATEWAY_MAC + bytes.fromhex("08060001080006040002") + GATEWAY_MAC + GATEWAY.packed + MAC + ADDRESS.ip.packed)
    os.write(link.fd, bytes(VNET_BYTES) + reply)


@pytest.mark.parametrize("kind", ["tap", "veth"])
def test_container_end_is_configured(lab: list[Namespace], kind: str) -> None:
    home, container = lab
    link = make(lab, kind)
    try:
        device = container.look("addr", "show", "eth0")[0]
        assert device["address"] == MAC.hex(":") and device["mtu"] == 1400 and "UP" in device["flags"]
        address = next(entry for entry in device["addr_info"] if entry["family"] == "inet")
        assert (address["local"], address["prefixlen"], address["broadcast"]) == ("172.17.0.2", 16, "172.17.255.255")
        assert container.look("route", "show", "default")[0]["gateway"] == "172.17.0.1"
        assert "UP" in container.look("link", "show", "lo")[0]["flags"]
        assert (link.kind, link.mtu, link.mac, link.offload) == (kind, 1400, MAC, True)
        assert not os.get_blocking(link.fd) and not os.get_inheritable(link.fd)
    finally:
        home.call(link.close)
    home.call(link.close)
    eventually(lambda: container.names() == ["lo"])
    assert home.names() == ["lo"]


@pytest.mark.parametrize(("kind", "offload", "frames"), [("tap", True, 1), ("veth", True, 1), ("tap", False, 3)])
def test_superframes(lab: list[Namespace], kind: str, offload: bool, frames: int) -> None:
    """Three segments sent at once come as one frame with a header that says so; without offload as three plain ones."""
    home, container = lab
    link = make(lab, kind, offload=offload)
    try:
        assert link.offload is offload
        with container.socket(socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
            sender.sendto(bytes(3000), (str(GATEWAY), 9))
            answer_arp(link)
            for _ in range(frames):
                frame = read_frame(link, 0x0800)
                gso_type, gso_size = frame[1], int.from_bytes(frame[4:6], "little")
                assert (gso_type, gso_size) == ((GSO_UDP_L4, 1000) if offload else (0, 0))
                assert len(frame) == VNET_BYTES + 14 + 28 + 3000 // frames
                assert frame[VNET_BYTES : VNET_BYTES + 12] == GATEWAY_MAC + MAC
    finally:
        home.call(link.close)


@pytest.mark.parametrize("kind", ["tap", "veth"])
def test_frames_reach_the_container(lab: list[Namespace], kind: str) -> None:
    home, container = lab
    link = make(lab, kind)
    try:
        with container.socket(socket.SOCK_DGRAM, ("0.0.0.0", 7000)) as receiver:
            payload = b"to the container"
            header = struct.pack("!HHHH", 5000, 7000, 8 + len(payload), 0)  # checksum 0: none
            length = 20 + len(header) + len(payload)
            ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, 17, 0, GATEWAY.packed, ADDRESS.ip.packed)
            total = sum(struct.unpack("!10H", ip))
            checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
            ip = ip[:10] + struct.pack("!H", checksum) + ip[12:]
            os.write(link.fd, bytes(VNET_BYTES) + MAC + GATEWAY_MAC + b"\x08\x00" + ip + header + payload)
            assert receiver.recvfrom(100) == (payload, (str(GATEWAY), 5000))
    finally:
        home.call(link.close)


@pytest.mark.parametrize("kind", ["tap", "veth"])
def test_name_taken_in_the_container(lab: list[Namespace], kind: str) -> None:
    home, container = lab
    container.ip("link", "add", "eth0", "type", "veth", "peer", "name", "other")
    with pytest.raises(Conflict, match="has an interface eth0 already"):
        make(lab, kind)
    assert home.names() == ["lo"] and container.names() == ["eth0", "lo", "other"]
    link = make(lab, kind, ifname="eth1")
    home.call(link.close)


@pytest.mark.parametrize("kind", ["tap", "veth"])
def test_half_made_is_undone(lab: list[Namespace], kind: str) -> None:
    home, container = lab
    with pytest.raises(NatgwError, match="cannot configure interface"):
        make(lab, kind, mtu=1_000_000)
    assert home.names() == ["lo"]
    eventually(lambda: container.names() == ["lo"])


@pytest.mark.parametrize("kind", ["tap", "veth"])
def test_no_such_namespace(lab: list[Namespace], kind: str) -> None:
    home = lab[0]

    def build() -> Link:
        if kind == "tap":
            return links.create_container_tap("/no/such", mac=MAC, address=ADDRESS, gateway=None, mtu=1500)
        return links.create_container_veth("/no/such", mac=MAC, address=ADDRESS, gateway=None, mtu=1500,
                                           host_name="veth0a1b2c3")

    with pytest.raises(NotFound, match="no namespace at /no/such"):
        home.call(build)
    assert home.names() == ["lo"]


def test_veth_host_name_taken(lab: list[Namespace]) -> None:
    home, container = lab
    home.ip("link", "add", "veth0a1b2c3", "type", "veth", "peer", "name", "other")
    with pytest.raises(Conflict, match="veth0a1b2c3 exists already"):
        make(lab, "veth")
    assert container.names() == ["lo"] and home.names() == ["lo", "other", "veth0a1b2c3"]


def test_veth_host_end_is_silent(lab: list[Namespace]) -> None:
    """The host's stack has no address there, of either family, and does not answer ARP for those it has elsewhere."""
    home, container = lab
    home.ip("addr", "add", "172.17.0.1/16", "dev", "lo")
    link = make(lab, "veth")
    try:
        assert home.look("addr", "show", "veth0a1b2c3")[0]["addr_info"] == []
        with container.call(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as ear:
            ear.settimeout(5)
            with container.socket(socket.SOCK_DGRAM) as sender:
                sender.sendto(b"x", (str(GATEWAY), 9))
                answer_arp(link)
                read_frame(link, 0x0800)
            replies = []
            while select.select([ear], [], [], 0)[0]:
                frame, origin = ear.recvfrom(2000)
                if origin[2] != socket.PACKET_OUTGOING and frame[20:22] == b"\0\2":
                    replies.append(frame[6:12])
            assert replies == [GATEWAY_MAC]
    finally:
        home.call(link.close)


def test_host_tap(lab: list[Namespace]) -> None:
    home = lab[0]
    link = home.call(links.create_host_tap, "natgw0", GATEWAY_MAC, IPv4Interface("172.17.0.1/16"), 1500)
    try:
        device = home.look("addr", "show", "natgw0")[0]
        assert device["address"] == GATEWAY_MAC.hex(":") and "UP" in device["flags"]
        assert [(entry["local"], entry["prefixlen"]) for entry in device["addr_info"]] == [("172.17.0.1", 16)]
        with pytest.raises(Conflict, match="natgw0 exists already"):
            home.call(links.create_host_tap, "natgw0", GATEWAY_MAC, IPv4Interface("172.17.0.1/16"), 1500)
    finally:
        home.call(link.close)
    assert home.names() == ["lo"]


def test_host_tap_does_not_take_over_what_is_there(lab: list[Namespace]) -> None:
    home = lab[0]
    home.ip("link", "add", "natgw0", "type", "veth", "peer", "name", "other")
    home.ip("tuntap", "add", "natgw1", "mode", "tap")
    for name in ("natgw0", "natgw1"):
        with pytest.raises(Conflict, match=f"{name} exists already"):
            home.call(links.create_host_tap, name, GATEWAY_MAC, IPv4Interface("172.17.0.1/16"), 1500)
    assert home.names() == ["lo", "natgw0", "natgw1", "other"]


def test_a_refused_tap_closes_its_descriptor_once(lab: list[Namespace]) -> None:
    home = lab[0]
    home.ip("tuntap", "add", "natgw0", "mode", "tap")

    def refused_then_reused() -> int:
        with pytest.raises(Conflict):
            links.open_tap("natgw0", offload=True)
        return os.open("/dev/null", os.O_RDONLY)  # most likely under the number that the tap had

    descriptors = [home.call(refused_then_reused) for _ in range(5)]
    gc.collect()
    for descriptor in descriptors:
        os.close(descriptor)


def test_uplink_hears_what_arrives_and_not_what_leaves(lab: list[Namespace]) -> None:
    home, outside = lab
    wire(home, "up0", "198.51.100.2/24", outside, "up0", "198.51.100.1/24")
    with closing(home.call(links.open_uplink, "up0")) as link:
        assert (link.kind, link.name, link.mtu) == ("packet", "up0", 1500)
        with home.socket(socket.SOCK_DGRAM, ("198.51.100.2", 7000)) as ours, outside.socket(socket.SOCK_DGRAM) as theirs:
            ours.sendto(b"leaves", ("198.51.100.1", 9))
            theirs.sendto(b"arrives", ("198.51.100.2", 7000))
            assert ours.recv(100) == b"arrives"
            frames = []
            while select.select([link.fd], [], [], 0)[0]:
                frames.append(os.read(link.fd, 70000))
    assert any(b"arrives" in frame for frame in frames)
    assert not any(b"leaves" in frame[:VNET_BYTES + 14 + 28 + 6] for frame in frames)
    assert home.names() == ["lo", "up0"]


def test_uplink_that_is_not_there(lab: list[Namespace]) -> None:
    with pytest.raises(NotFound, match="no interface up9"):
        lab[0].call(links.open_uplink, "up9")


@pytest.mark.requires("setpriv")
def test_without_root() -> None:
    script = ("from natgw.errors import NatgwError\nfrom natgw.host import links\n"
              "try:\n    links.open_tap('natgw-test', offload=True)\nexcept NatgwError as error:\n    print(error)\n")
    done = subprocess.run(["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script],
                          capture_output=True, text=True, timeout=30)
    assert "needs root" in done.stdout, done.stderr


@pytest.mark.parametrize(("release", "known"), [
    ("6.1.0-25-amd64", False), ("5.15.0", False), ("6.2.0", True), ("6.18.44-x", True), ("7.0", True), ("strange", False)])
def test_which_kernels_know_udp_superframes(release: str, known: bool) -> None:
    assert links.kernel_knows_udp_superframes(release) is known


def test_a_tap_of_an_older_kernel_takes_tcp_superframes_only(lab: list[Namespace], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "UDP_OFFLOADS", 1 << 20)  # a bit that no kernel knows, as an older one does not know these
    link = make(lab, "tap")
    try:
        assert (link.offload, link.udp_offload) == (True, False)
    finally:
        link.close()
