"""Links: what frames come from and go to. Each is one descriptor that gives frames with a 10-byte virtio_net_hdr in front.

- a tap: made here, moved into the container's namespace and named eth0 there. What the container sends is read from the
  descriptor, superframes and all.
- a veth pair: eth0 is one end; the other stays here and is read and written through a packet socket.
- the uplink: a packet socket on an interface that is already there.

Whatever is made is removed again if a later step fails; `close` removes it in the end.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import Any

from pytun_pmd3 import TunTapDevice
from pytun_pmd3.linux import IFF_NO_PI, IFF_TAP, IFF_TUN_EXCL, IFF_VNET_HDR, PytunError

from natgw.errors import Conflict, NatgwError, NotFound
from natgw.host import interfaces
from natgw.host.netlink import NetlinkError, netlink
from natgw.host.netns import run_inside

TUNSETOFFLOAD = 0x400454D0
OFFLOADS = 0x01 | 0x02 | 0x04
"""TUN_F_CSUM, TSO4, TSO6."""
UDP_OFFLOADS = 0x20 | 0x40
"""TUN_F_USO4, USO6: since Linux 6.2."""
TAP_QUEUE_FRAMES = 5000
"""A tap's queue toward natgw. The default of 1000 is less than one scheduling pause of small datagrams at full rate."""

SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_QDISC_BYPASS = 20
PACKET_IGNORE_OUTGOING = 23
_IFA_F_NODAD = 0x02
"""Use an address without asking first whether somebody has it (linux/if_addr.h)."""
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32
ETH_P_ALL = 3
SOCKET_BUFFER_BYTES = 8 << 20
BIG_TCP_BYTES = 400_000
"""How long a superframe of TCP by IPv4 may be on a veth pair (docs/decisions/0034-big-tcp.md)."""


class Link:
    """An open link. `name` is the device on natgw's side (for a tap, which has one end only, the name natgw gave it).

    `offload`: it gives and takes superframes and checksums to be completed; `udp_offload`: superframes of UDP too;
    `big_tcp`: it takes superframes of TCP that are longer than an IPv4 header can say.
    """

    def __init__(self, name: str, kind: str, fd: int, mtu: int, mac: bytes, *, offload: bool, udp_offload: bool, handle: Any,
                 big_tcp: bool, delete: str | None = None) -> None:
        self.name = name
        self.kind = kind
        self.fd = fd
        self.mtu = mtu
        self.mac = mac
        self.offload = offload
        self.udp_offload = udp_offload
        self.big_tcp = big_tcp
        self._handle = handle
        self._delete = delete

    def close(self) -> None:
        """Close the descriptor and remove the device behind it, if natgw made it. Twice is once."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None
        if self._delete is not None:
            interfaces.delete_link(self._delete)
            self._delete = None


def open_tap(name: str, *, offload: bool) -> tuple[Any, bool]:
    """A new tap with the offload header, non-blocking; and whether it takes superframes of UDP. Raises NatgwError.

    A kernel before 6.2 knows none of UDP: natgw makes none then, and cuts those that come by another link.
    """
    try:
        device = _new_device(name)
    except FileNotFoundError:
        raise NatgwError("there is no /dev/net/tun: load the tun module (`modprobe tun`)") from None
    except PermissionError:
        raise NatgwError("cannot open /dev/net/tun: natgw needs root") from None
    except PytunError as error:
        if error.errno == errno.EBUSY or name in _interface_names():
            raise Conflict(f"interface {name} exists already") from None
        raise NatgwError(f"cannot make tap {name}: {error.strerror} (natgw needs root)") from None
    udp_offload = set_offload(device.fileno(), offload=offload)
    os.set_blocking(device.fileno(), False)
    return device, udp_offload


def set_offload(tap: int, *, offload: bool) -> bool:
    """Say what the descriptor's other end takes of superframes; gives whether that is those of UDP too. Raises OSError."""
    if not offload:
        fcntl.ioctl(tap, TUNSETOFFLOAD, 0)
        return False
    try:
        fcntl.ioctl(tap, TUNSETOFFLOAD, OFFLOADS | UDP_OFFLOADS)
    except OSError:
        fcntl.ioctl(tap, TUNSETOFFLOAD, OFFLOADS)
        return False
    return True


def kernel_knows_udp_superframes(release: str | None = None) -> bool:
    """Whether packet sockets do: VIRTIO_NET_HDR_GSO_UDP_L4 came with Linux 6.2, and only the release tells."""
    return _release(release) >= (6, 2)


def kernel_knows_big_tcp(release: str | None = None) -> bool:
    """Whether it takes a superframe of TCP by IPv4 that is longer than 65,535 bytes: since Linux 6.3."""
    return _release(release) >= (6, 3)


def _release(release: str | None) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release if release is None else release)
    return (0, 0) if found is None else (int(found[1]), int(found[2]))


def _new_device(name: str) -> Any:
    """pytun's device. When its constructor fails it closes the descriptor, and its destructor would close it once more,
    when the number may already be another file's: so the number is taken from it. Raises what the constructor raises.
    """
    device = TunTapDevice.__new__(TunTapDevice)
    try:
        device.__init__(name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL)
    except PytunError:
        device._fd = -1
        raise
    return device


@dataclass(frozen=True)
class Ipv6Settings:
    """A container's IPv6 address, and its way out if it has one here."""

    address: IPv6Interface
    gateway: IPv6Address | None


def create_host_tap(name: str, mac: bytes, address: IPv4Interface, mtu: int, *, offload: bool = True,
                    address6: IPv6Interface | None = None) -> Link:
    """The host's own port: a tap in this namespace, addressed and up. Raises Conflict if the name is taken.

    Without `address6` the host does not speak IPv6 there.
    """
    device, udp_offload = open_tap(name, offload=offload)
    try:
        with _configuring(name), netlink() as ipr:
            if address6 is None:
                _quiet_ipv6(name)
            else:
                _router_ipv6(name)
            index = interfaces.index_of(name)
            ipr.link("set", index=index, address=mac.hex(":"), mtu=mtu, txqlen=TAP_QUEUE_FRAMES)
            ipr.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen,
                     broadcast=str(address.network.broadcast_address))
            ipr.link("set", index=index, state="up")
            if address6 is not None:
                _add_address6(ipr, index, address6)
    except BaseException:
        device.close()
        raise
    return Link(name, "tap", device.fileno(), mtu, mac, offload=offload, udp_offload=udp_offload, handle=device,
                big_tcp=kernel_knows_big_tcp())


def create_container_tap(netns: str, *, ifname: str = "eth0", mac: bytes, address: IPv4Interface | None,
                         gateway: IPv4Address | None, mtu: int, offload: bool = True,
                         ipv6: Ipv6Settings | None = None) -> Link:
    """A tap whose device is `ifname` in the namespace at `netns`. Raises Conflict if there is one of that name."""
    temporary = f"ngt{secrets.token_hex(5)}"
    _check_free(netns, ifname)
    device, udp_offload = open_tap(temporary, offload=offload)
    try:
        _move(temporary, netns)
        run_inside(netns, configure_inside, temporary, ifname, mac, address, gateway, mtu, ipv6)
    except BaseException:
        device.close()
        raise
    return Link(temporary, "tap", device.fileno(), mtu, mac, offload=offload, udp_offload=udp_offload, handle=device,
                big_tcp=kernel_knows_big_tcp())


def create_container_veth(netns: str, *, ifname: str = "eth0", mac: bytes, address: IPv4Interface | None,
                          gateway: IPv4Address | None, mtu: int, host_name: str, offload: bool = True, big_tcp: bool = False,
                          ipv6: Ipv6Settings | None = None) -> Link:
    """A veth pair: `ifname` in the namespace, `host_name` here, read and written through a packet socket.

    With `big_tcp` both ends take superframes of `BIG_TCP_BYTES`, if the kernel knows such.
    """
    big_tcp = big_tcp and offload and kernel_knows_big_tcp()
    _check_free(netns, ifname)
    with _namespace(netns) as fd, netlink() as ipr:
        try:
            ipr.link("add", ifname=host_name, kind="veth", peer={"ifname": ifname, "net_ns_fd": fd})
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                raise Conflict(f"interface {host_name} exists already") from None
            raise NatgwError(f"cannot make veth pair {host_name}: {os.strerror(error.code)} (natgw needs root)") from None
    try:
        _keep_host_out(host_name)
        with _configuring(host_name), netlink() as ipr:
            index = interfaces.index_of(host_name)
            ipr.link("set", index=index, mtu=mtu, state="up")
            if big_tcp:
                ipr.link("set", index=index, gso_ipv4_max_size=BIG_TCP_BYTES)
        run_inside(netns, configure_inside, ifname, ifname, mac, address, gateway, mtu, ipv6, big_tcp=big_tcp)
        handle = open_packet_socket(host_name)
    except BaseException:
        interfaces.delete_link(host_name)
        raise
    return Link(host_name, "veth", handle.fileno(), mtu, mac, offload=offload,
                udp_offload=offload and kernel_knows_udp_superframes(), handle=handle, big_tcp=big_tcp, delete=host_name)


def open_uplink(ifname: str, known: interfaces.UplinkState | None = None) -> Link:
    """A packet socket on an interface that is there, `known` being what was read of it just now. Raises NotFound."""
    state = known or interfaces.read_uplink(ifname)
    handle = open_packet_socket(ifname)
    return Link(ifname, "packet", handle.fileno(), state.mtu, state.mac, offload=True,
                udp_offload=kernel_knows_udp_superframes(), handle=handle, big_tcp=takes_big_tcp(state))


def takes_big_tcp(uplink: interfaces.UplinkState) -> bool:
    """Whether an uplink is set to take all the superframes that veth pairs give."""
    return uplink.superframe_bytes >= BIG_TCP_BYTES


def could_take_big_tcp(uplink: interfaces.UplinkState) -> bool:
    """Whether it can be set to, and is not."""
    return uplink.superframe_bytes < BIG_TCP_BYTES <= uplink.superframe_limit_bytes and kernel_knows_big_tcp()


def open_packet_socket(ifname: str) -> socket.socket:
    """All frames that arrive at an interface, none that leave by it, each with its offload header.

    Bound last: an unbound socket with a protocol would hear every interface. Raises NotFound, or NatgwError without root.
    """
    try:
        handle = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        raise NatgwError("cannot open a packet socket: natgw needs root") from None
    try:
        handle.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        handle.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        handle.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        for force, plain in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                handle.setsockopt(socket.SOL_SOCKET, force, SOCKET_BUFFER_BYTES)
            except PermissionError:
                handle.setsockopt(socket.SOL_SOCKET, plain, SOCKET_BUFFER_BYTES)
        handle.setblocking(False)
        handle.bind((ifname, ETH_P_ALL))
    except OSError as error:
        handle.close()
        if error.errno in (errno.ENODEV, errno.ENXIO):
            raise NotFound(f"no interface {ifname} here") from None
        raise NatgwError(f"cannot listen on {ifname}: {error.strerror}") from None
    return handle


def configure_inside(temporary: str, ifname: str, mac: bytes, address: IPv4Interface | None, gateway: IPv4Address | None,
                     mtu: int, ipv6: Ipv6Settings | None = None, *, big_tcp: bool = False) -> None:
    """In the container's namespace: name, MAC, MTU, addresses, up, the loopback too, and the way out.

    Without an IPv4 address the interface is left for a DHCP client to configure. Without IPv6 it speaks none, as Docker has it:
    else its kernel would solicit routers and report its groups there in vain, in frames each of which goes to everybody.
    """
    with _configuring(ifname), netlink() as ipr:
        index = interfaces.index_of(temporary)
        ipr.link("set", index=index, ifname=ifname, address=mac.hex(":"), mtu=mtu, txqlen=TAP_QUEUE_FRAMES)
        if big_tcp:
            ipr.link("set", index=index, gso_ipv4_max_size=BIG_TCP_BYTES)
        if ipv6 is None:
            _quiet_ipv6(ifname)
        if address is not None:
            ipr.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen,
                     broadcast=str(address.network.broadcast_address))
        ipr.link("set", index=1, state="up")
        ipr.link("set", index=index, state="up")
        if gateway is not None:
            try:
                ipr.route("add", dst="0.0.0.0/0", gateway=str(gateway), oif=index)
            except NetlinkError as error:
                if error.code != errno.EEXIST:  # a namespace with a way out of its own keeps it
                    raise
        if ipv6 is not None:
            _configure_ipv6(ipr, index, ifname, ipv6)


def _configure_ipv6(ipr: Any, index: int, ifname: str, ipv6: Ipv6Settings) -> None:
    """What natgw decides: the address, usable at once since nobody else is given it, and the route. So the interface need not
    listen to router advertisements, by which it would make itself more of both."""
    _set(f"ipv6/conf/{ifname}/accept_ra", "0")
    _set(f"ipv6/conf/{ifname}/disable_ipv6", "0")
    _add_address6(ipr, index, ipv6.address)
    if ipv6.gateway is not None:
        try:
            ipr.route("add", family=socket.AF_INET6, dst="::/0", gateway=str(ipv6.gateway), oif=index)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise


def _add_address6(ipr: Any, index: int, address: IPv6Interface) -> None:
    ipr.addr("add", index=index, family=socket.AF_INET6, address=str(address.ip), prefixlen=address.network.prefixlen,
             flags=_IFA_F_NODAD)


def _check_free(netns: str, ifname: str) -> None:
    if ifname in run_inside(netns, _interface_names):
        raise Conflict(f"the namespace has an interface {ifname} already: detach it, or choose another name with --ifname")


def _interface_names() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def _move(ifname: str, netns: str) -> None:
    with _configuring(ifname), _namespace(netns) as fd, netlink() as ipr:
        ipr.link("set", index=interfaces.index_of(ifname), net_ns_fd=fd)


@contextmanager
def _namespace(path: str) -> Iterator[int]:
    """A descriptor of a namespace for as long as it takes: held any longer, it would keep a dead one alive."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFound(f"no namespace at {path}: {error.strerror}") from None
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _configuring(ifname: str) -> Iterator[None]:
    """The kernel's refusals, said with the interface's name."""
    try:
        yield
    except NetlinkError as error:
        raise NatgwError(f"cannot configure interface {ifname}: {os.strerror(error.code)}") from None


def _quiet_ipv6(ifname: str) -> None:
    """Keep the kernel from speaking IPv6 on a device of ours: what it sends by itself goes to all containers."""
    _set(f"ipv6/conf/{ifname}/disable_ipv6", "1")


def _router_ipv6(ifname: str) -> None:
    """Let the host speak IPv6 on natgw0 as the router that natgw is there: it asks nobody for addresses or routes."""
    if not Path("/proc/sys/net/ipv6").exists():
        raise NatgwError("this kernel has no IPv6: leave out --ipv6")
    for name, value in (("accept_ra", "0"), ("autoconf", "0"), ("accept_dad", "0"), ("dad_transmits", "0"),
                        ("router_solicitations", "0"), ("disable_ipv6", "0")):
        _set(f"ipv6/conf/{ifname}/{name}", value)


def _keep_host_out(ifname: str) -> None:
    """Keep the host's stack off the host's end of a veth pair, which is natgw's alone.

    Else it answers ARP there for every address it has on any interface, the gateway's on natgw0 too, with a MAC of its own
    (arp_ignore in the kernel's ip-sysctl documentation; 8 is "never").
    """
    _quiet_ipv6(ifname)
    _set(f"ipv4/conf/{ifname}/arp_ignore", "8")


def _set(name: str, value: str) -> None:
    setting = Path("/proc/sys/net") / name
    if setting.exists():
        setting.write_text(value)
