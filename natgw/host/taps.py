"""Persistent taps: made here, moved and renamed by an engine, and taken up again after natgw itself was restarted.

TUNSETPERSIST keeps the device when its descriptor is closed: in the container only the carrier drops, address and routes stay.
A new natgw visits the namespace, attaches to the device by the name it has there (TUNSETIFF finds names in the namespace of the
caller), and comes back with the descriptor. The container's MAC address tells which device it is. All calls block.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import struct
from typing import Any

from natgw.errors import NatgwError, NotFound
from natgw.host import interfaces, links
from natgw.host.links import Link
from natgw.host.netlink import netlink
from natgw.host.netns import run_inside

TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_IFREQ = struct.Struct("16sH22x")


class PersistentTap:
    """The descriptor of a tap that stays when it is closed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def create_persistent(mac: bytes, mtu: int, *, offload: bool = True) -> Link:
    """A persistent tap in this namespace, with MAC and MTU, down, for somebody to move. Raises NatgwError."""
    name = f"ngt{secrets.token_hex(5)}"
    link = _open(name, mac, mtu, offload=offload)
    try:
        with netlink() as ipr:
            ipr.link("set", index=interfaces.index_of(name), address=mac.hex(":"), mtu=mtu,
                     txqlen=links.TAP_QUEUE_FRAMES)
        fcntl.ioctl(link.fd, TUNSETPERSIST, 1)
    except BaseException:
        link.close()
        raise
    return link


def reopen(namespace: str, mac: bytes, mtu: int, *, offload: bool = True) -> Link:
    """Attach to the tap with this MAC address in the namespace. Raises NotFound if it is not there."""
    def visit() -> Link:
        return _open(_named(mac), mac, mtu, offload=offload)

    return run_inside(namespace, visit)


def make_persistent(link: Link) -> None:
    """Let a tap that was made by other ways stay when it is closed."""
    fcntl.ioctl(link.fd, TUNSETPERSIST, 1)


def let_go(link: Link) -> None:
    """Let a persistent tap end with its descriptor, wherever it is. One that went with its namespace has ended already."""
    try:
        fcntl.ioctl(link.fd, TUNSETPERSIST, 0)
    except OSError as error:
        if error.errno != errno.EBADFD:
            raise


def _named(mac: bytes) -> str:
    with netlink() as ipr:
        for link in ipr.get_links():
            if link.get_attr("IFLA_ADDRESS") == mac.hex(":"):
                return str(link.get_attr("IFLA_IFNAME"))
    raise NotFound(f"no interface with the MAC address {mac.hex(':')} there any more")


def _open(name: str, mac: bytes, mtu: int, *, offload: bool) -> Link:
    handle: Any = PersistentTap(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
    try:
        fcntl.ioctl(handle.fileno(), TUNSETIFF, _IFREQ.pack(name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        udp_offload = links.set_offload(handle.fileno(), offload=offload)
    except OSError as error:
        handle.close()
        busy = ": another process has it" if error.errno == errno.EBUSY else ""
        raise NatgwError(f"cannot open tap {name}: {error.strerror}{busy}") from None
    return Link(name, "tap", handle.fileno(), mtu, mac, offload=offload, udp_offload=udp_offload, handle=handle,
                big_tcp=links.kernel_knows_big_tcp())
