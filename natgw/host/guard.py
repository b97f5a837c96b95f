"""The guard: keeps natgw's ports from the host's own stack, so that both can live on one address.

A packet socket sees a frame before tc's ingress hook does. So a classifier there can drop what is natgw's after natgw has got
it: the host never answers a translated flow with a RST or a port unreachable.

natgw's are packets to an uplink address, of a protocol with ports, whose port lies in natgw's range or is published there. Of a
protocol without ports, all are natgw's while a container speaks it with somebody outside: else the host would answer that it
does not know the protocol. In exclusive mode natgw owns everything: all IPv4 and ARP is dropped.

The filter has its own priority and name, so that it neither disturbs filters of the user's nor is mistaken for one; the
clsact qdisc is removed in the end only if the guard had to add it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Any

from natgw.errors import Conflict, NatgwError
from natgw.host import interfaces
from natgw.host.bpf import MAP_LOOKUP_ELEM, R0, R1, R2, R6, R7, R8, R10, Assembler, B, BpfHash, H, W, load_classifier
from natgw.host.netlink import NetlinkError, netlink

FILTER_NAME = "natgw-guard"
PRIORITY = 49145
ETH_P_ALL = 3
CLSACT = 0xFFFF0000
"""Parent of clsact; its hooks are the minor numbers FFF2 and FFF3 of FFFF (linux/pkt_sched.h)."""
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3

_ACT_OK, _ACT_SHOT = 0, 2
_ETH_IPV4, _ETH_ARP = 0x0800, 0x0806
_ICMP = 1
_WITH_PORTS = (6, 17, 33, 132, 136)
"""TCP, UDP, DCCP, SCTP, UDP-Lite."""
_MAX_ENTRIES = 65536

_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


def assemble(map_fd: int, port_range: tuple[int, int], *, exclusive: bool) -> bytes:
    """The classifier. The map's keys are (address, protocol << 16 | port), 8 bytes in host order.

    0 stands for the range of ports, and a protocol with port 0 for all of a protocol without ports.
    """
    asm = Assembler()
    asm.copy(R6, R1)  # load_packet wants the context in R6
    asm.load_packet(H, 12)
    if exclusive:
        asm.jump(R0, "==", _ETH_IPV4, "drop")
        asm.jump(R0, "==", _ETH_ARP, "drop")
        asm.label("pass")
        asm.end(_ACT_OK)
        asm.label("drop")
        asm.end(_ACT_SHOT)
        return asm.program()
    asm.jump(R0, "!=", _ETH_IPV4, "pass")
    asm.load_packet(B, 23)
    asm.copy(R8, R0)
    asm.jump(R8, "==", _ICMP, "pass")
    for protocol in _WITH_PORTS:
        asm.jump(R8, "==", protocol, "ports")
    asm.load_packet(W, 30)
    asm.store(W, -8, R0)
    asm.shift_left(R8, 16)
    asm.store(W, -4, R8)
    _lookup(asm, map_fd, "drop")
    asm.jump(R0, "==", 0, "pass")
    asm.label("ports")
    asm.load_packet(H, 20)
    asm.mask(R0, 0x1FFF)  # a later fragment has no ports; the host cannot use it without the first
    asm.jump(R0, "!=", 0, "pass")
    asm.load_packet(W, 30)
    asm.store(W, -8, R0)
    asm.load_packet(B, 14)
    asm.mask(R0, 0x0F)
    asm.shift_left(R0, 2)
    asm.copy(R7, R0)
    asm.load_packet_at(H, R7, 16)  # 14 of Ethernet, the IP header, 2 of source port
    asm.copy(R7, R0)
    asm.shift_left(R8, 16)
    asm.add_register(R8, R7)
    asm.store(W, -4, R8)
    _lookup(asm, map_fd, "drop")
    low, high = port_range
    asm.jump(R7, "<", low, "pass")
    asm.jump(R7, ">", high, "pass")
    asm.set(R0, 0)
    asm.store(W, -4, R0)
    _lookup(asm, map_fd, "drop")
    asm.label("pass")
    asm.end(_ACT_OK)
    asm.label("drop")
    asm.end(_ACT_SHOT)
    return asm.program()


def _lookup(asm: Assembler, map_fd: int, found: str) -> None:
    asm.map(R1, map_fd)
    asm.copy(R2, R10)
    asm.add(R2, -8)
    asm.call(MAP_LOOKUP_ELEM)
    asm.jump(R0, "!=", 0, found)


class Guard:
    """The filter on one interface. Entries can be changed while it is attached."""

    def __init__(self, ifname: str, *, port_range: tuple[int, int], exclusive: bool = False) -> None:
        self.ifname = ifname
        self._port_range = port_range
        self._exclusive = exclusive
        self._map: BpfHash | None = None
        self._addresses: frozenset[IPv4Address] = frozenset()
        self._published: set[tuple[IPv4Address, str, int]] = set()
        self._made_qdisc = False
        self._attached = False

    def attach(self, addresses: Iterable[IPv4Address]) -> None:
        """Begin to guard the interface's `addresses`. Raises NatgwError, and leaves nothing behind then.

        Conflict if there is a guard already: of another natgw, or one left behind (see `remove_leftover`).
        """
        self._map = BpfHash(8, 1, _MAX_ENTRIES)
        try:
            # Filled first: from its first frame on, the filter knows everything.
            self._addresses = frozenset()
            self.set_addresses(addresses)
            for entry in self._published:
                self._map.set(_key(*entry), b"\1")
            program = load_classifier(assemble(self._map.fd, self._port_range, exclusive=self._exclusive), "natgw_guard")
            try:
                self._install(program)
            finally:
                os.close(program)
        except BaseException:
            self.detach()
            raise

    def _install(self, program: int) -> None:
        try:
            with netlink() as ipr:
                index = interfaces.index_of(ipr, self.ifname)
                self._made_qdisc = _add_clsact(ipr, index)
                ipr.tc("add-filter", "bpf", index, fd=program, name=FILTER_NAME, parent=INGRESS, prio=PRIORITY,
                       handle=1, protocol=ETH_P_ALL, direct_action=True, classid=1)
                self._attached = True
        except NetlinkError as error:
            if self._made_qdisc:
                _remove(self.ifname, filter_too=False)
            if error.code == errno.EEXIST:
                raise Conflict(f"another natgw has {self.ifname} as its uplink already: choose another with --uplink") from None
            raise NatgwError(f"cannot put the guard on {self.ifname}: {os.strerror(error.code)}") from None

    def set_addresses(self, addresses: Iterable[IPv4Address]) -> None:
        """Guard natgw's port range on these addresses, and no others."""
        wanted = frozenset(addresses)
        if self._map is not None:
            for address in self._addresses - wanted:
                self._map.delete(_key(address))
            for address in wanted - self._addresses:
                self._map.set(_key(address), b"\1")
        self._addresses = wanted

    def add(self, address: IPv4Address, protocol: str, port: int) -> None:
        """Guard one published port more."""
        self._published.add((address, protocol, port))
        if self._map is not None:
            self._map.set(_key(address, protocol, port), b"\1")

    def remove(self, address: IPv4Address, protocol: str, port: int) -> None:
        self._published.discard((address, protocol, port))
        if self._map is not None:
            self._map.delete(_key(address, protocol, port))

    def own_protocol(self, address: IPv4Address, protocol: int, owns: bool) -> None:
        """Guard all packets of a protocol without ports, by its number, or no longer."""
        if self._map is not None:
            if owns:
                self._map.set(_key(address, number=protocol), b"\1")
            else:
                self._map.delete(_key(address, number=protocol))

    def detach(self) -> None:
        """Take the filter away, and the qdisc if it was the guard's. An interface that is gone took them along."""
        if self._attached:
            _remove(self.ifname, qdisc=self._made_qdisc)
            self._attached = False
        if self._map is not None:
            self._map.close()
            self._map = None
        self._addresses = frozenset()


def remove_leftover(ifname: str, *, qdisc: bool = True) -> None:
    """Remove the guard of a natgw that could not do so itself. An interface or a guard that is gone is no error.

    `qdisc`: that natgw may have added the clsact qdisc. It is removed too, unless somebody's filter hangs on it.
    """
    _remove(ifname, qdisc=qdisc)


def _key(address: IPv4Address, protocol: str | None = None, port: int = 0, *, number: int = 0) -> bytes:
    number = number if protocol is None else _PROTOCOLS[protocol]
    order = "little" if memoryview(b"\1\0").cast("H")[0] == 1 else "big"
    return int(address).to_bytes(4, order) + (number << 16 | port).to_bytes(4, order)  # type: ignore[arg-type]


def _add_clsact(ipr: Any, index: int) -> bool:
    """Add the qdisc the filter hangs on; False if the interface has one already."""
    try:
        ipr.tc("add", "clsact", index)
    except NetlinkError as error:
        if error.code == errno.EEXIST:
            return False
        raise
    return True


def _remove(ifname: str, *, qdisc: bool = True, filter_too: bool = True) -> None:
    with netlink() as ipr:
        found = ipr.link_lookup(ifname=ifname)
        if not found:
            return
        index = found[0]
        if filter_too:
            try:
                ipr.tc("del-filter", "bpf", index, parent=INGRESS, prio=PRIORITY, handle=1, protocol=ETH_P_ALL)
            except NetlinkError:
                pass  # it is gone already
        try:
            if qdisc and not _filters(ipr, index):
                ipr.tc("del", "clsact", index)
        except NetlinkError:
            pass


def _filters(ipr: Any, index: int) -> list[Any]:
    """What hangs on the clsact qdisc now: removing that would remove them, too."""
    return [*ipr.get_filters(index=index, parent=INGRESS), *ipr.get_filters(index=index, parent=EGRESS)]
