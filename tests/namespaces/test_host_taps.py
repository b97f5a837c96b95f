"""Persistent taps: one that was moved and renamed is found again by a new owner, with its address, and works on."""

from __future__ import annotations

import os

import pytest

from natgw.errors import NatgwError, NotFound
from natgw.host import taps
from tests.conftest import eventually, requires
from tests.namespaces.host_lab import namespaces

MAC = bytes.fromhex("0242ac120002")


def test_a_tap_that_was_moved_is_reopened() -> None:
    requires("ip", "nsenter")
    with namespaces(2) as (gateway, container):
        link = gateway.call(taps.create_persistent, MAC, 1400)
        gateway.ip("link", "set", link.name, "netns", container.path)
        container.ip("link", "set", link.name, "name", "eth7")
        container.ip("addr", "add", "10.1.0.2/24", "dev", "eth7")
        container.ip("link", "set", "eth7", "up")
        with pytest.raises(NatgwError, match="another process has it"):
            taps.reopen(container.path, MAC, 1400)
        link.close()
        (left,) = container.look("addr", "show", "dev", "eth7")
        assert left["mtu"] == 1400 and left["address"] == "02:42:ac:12:00:02" and "10.1.0.2" in str(left["addr_info"])
        again = taps.reopen(container.path, MAC, 1400)
        assert again.name == "eth7"
        container.run("sh", "-c", "ping -c 1 -W 1 10.1.0.3 || true")
        assert eventually(lambda: _frame(again.fd))[22:24] == b"\x08\x06"
        taps.let_go(again)
        again.close()
        assert container.names() == ["lo"]
        with pytest.raises(NotFound, match="no interface with the MAC address 02:42:ac:12:00:02"):
            taps.reopen(container.path, MAC, 1400)


def test_one_that_went_with_its_namespace_is_let_go_of_all_the_same() -> None:
    requires("ip")
    with namespaces(2) as (gateway, container):
        link = gateway.call(taps.create_persistent, MAC, 1400)
        gateway.ip("link", "set", link.name, "netns", container.path)
        container.ip("link", "del", link.name)  # what the kernel does to a tap when its namespace ends
        taps.let_go(link)
        link.close()


def _frame(fd: int) -> bytes:
    """The next frame that is ARP, behind its 10 bytes of offload header."""
    try:
        while True:
            frame = os.read(fd, 2000)
            if frame[22:24] == b"\x08\x06":
                return frame
    except BlockingIOError:
        return b""
