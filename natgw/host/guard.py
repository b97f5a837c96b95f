"""The guard: keeps natgw's ports from the host's own stack, so that both can live on one address.

A packet socket sees a frame before tc's ingress hook does. So a classifier there can drop what is natgw's after natgw has got
it: the host never answers a translated flow with a RST or a port unreachable.

natgw's are packets to an uplink address, of a protocol with ports, whose port lies in natgw's range or is published there. Of a
protocol without ports, all are natgw's while a container speaks it with somebody outside: else the host would answer that it
does not know the protocol. In exclusive mode natgw owns everything: all IPv4 and ARP is dropped.

So it is with IPv6 if natgw speaks it. Neighbour discovery stays the host's on a shared address; on one of natgw's own, only
router advertisements pass, from which the host has the addresses and routes that natgw reads.

The filter has its own priority and name, so that it neither disturbs filters of the user's nor is mistaken for one; the
clsact qdisc is removed in the end only if the guard had to add it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from natgw.errors import Conflict, NatgwError, NotFound
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
_ETH_IPV4, _ETH_ARP, _ETH_IPV6 = 0x0800, 0x0806, 0x86DD
_ICMP, _ICMPV6 = 1, 58
_ROUTER_ADVERTISEMENT = 134
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION_OPTIONS = 0, 43, 44, 60
_EXTENSION_HEADERS = 4
"""As many are looked behind: a program without loops has an end."""
_KEY_BYTES, _KEY6_BYTES = 8, 20
_WITH_PORTS = (6, 17, 33, 132, 136)
"""TCP, UDP, DCCP, SCTP, UDP-Lite."""
_MAX_ENTRIES = 65536

Address = IPv4Address | IPv6Address
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


def assemble(map_fd: int, port_range: tuple[int, int], *, exclusive: bool, map6_fd: int | None = None) -> bytes:
    """The classifier. The map's keys are (address, protocol << 16 | port), 8 bytes in host order.

    With `map6_fd` it guards IPv6 too, by keys with 16 bytes of address.
    0 stands for the range of ports, and a protocol with port 0 for all of a protocol without ports.
    """
    asm = Assembler()
    asm.copy(R6, R1)  # load_packet wants the context in R6
    asm.load_packet(H, 12)
    if exclusive:
        asm.jump(R0, "==", _ETH_IPV4, "drop")
        asm.jump(R0, "==", _ETH_ARP, "drop")
        if map6_fd is not None:
            asm.jump(R0, "!=", _ETH_IPV6, "pass")
            asm.load_packet(B, 20)
            asm.jump(R0, "!=", _ICMPV6, "drop")
            asm.load_packet(B, 54)
            asm.jump(R0, "!=", _ROUTER_ADVERTISEMENT, "drop")
        asm.label("pass")
        asm.end(_ACT_OK)
        asm.label("drop")
        asm.end(_ACT_SHOT)
        return asm.program()
    if map6_fd is not None:
        asm.jump(R0, "==", _ETH_IPV6, "ipv6")
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
    if map6_fd is not None:
        _assemble_ipv6(asm, map6_fd, port_range)
    return asm.program()


def _assemble_ipv6(asm: Assembler, map_fd: int, port_range: tuple[int, int]) -> None:
    """The same for IPv6: R7 is where the next header is, R8 what it is."""
    asm.label("ipv6")
    for word in range(4):
        asm.load_packet(W, 38 + 4 * word)
        asm.store(W, -20 + 4 * word, R0)
    asm.load_packet(B, 20)
    asm.copy(R8, R0)
    asm.set(R7, 54)
    for number in range(_EXTENSION_HEADERS):
        here = str(number)
        for protocol in _WITH_PORTS:
            asm.jump(R8, "==", protocol, "ports6")
        asm.jump(R8, "==", _FRAGMENT, "fragment" + here)
        for protocol in (_HOP_BY_HOP, _ROUTING, _DESTINATION_OPTIONS):
            asm.jump(R8, "==", protocol, "options" + here)
        asm.jump(R8, ">=", 0, "pass6")
        asm.label("fragment" + here)
        asm.load_packet_at(H, R7, 2)
        asm.mask(R0, 0xFFF8)
        asm.jump(R0, "!=", 0, "pass6")
        asm.load_packet_at(B, R7, 0)
        asm.copy(R8, R0)
        asm.add(R7, 8)
        asm.jump(R7, ">=", 0, "next" + here)
        asm.label("options" + here)
        asm.load_packet_at(B, R7, 0)
        asm.copy(R8, R0)
        asm.load_packet_at(B, R7, 1)
        asm.shift_left(R0, 3)
        asm.add_register(R7, R0)
        asm.add(R7, 8)
        asm.label("next" + here)
    for protocol in _WITH_PORTS:
        asm.jump(R8, "==", protocol, "ports6")
    asm.label("pass6")
    asm.end(_ACT_OK)
    asm.label("ports6")
    asm.load_packet_at(H, R7, 2)
    asm.copy(R7, R0)
    asm.shift_left(R8, 16)
    asm.add_register(R8, R7)
    asm.store(W, -4, R8)
    _lookup(asm, map_fd, "drop6", _KEY6_BYTES)
    low, high = port_range
    asm.jump(R7, "<", low, "pass6")
    asm.jump(R7, ">", high, "pass6")
    asm.set(R0, 0)
    asm.store(W, -4, R0)
    _lookup(asm, map_fd, "drop6", _KEY6_BYTES)
    asm.end(_ACT_OK)
    asm.label("drop6")
    asm.end(_ACT_SHOT)


def _lookup(asm: Assembler, map_fd: int, found: str, key_bytes: int = _KEY_BYTES) -> None:
    asm.map(R1, map_fd)
    asm.copy(R2, R10)
    asm.add(R2, -key_bytes)
    asm.call(MAP_LOOKUP_ELEM)
    asm.jump(R0, "!=", 0, found)


class Guard:
    """The filter on one interface. Entries can be changed while it is attached."""

    def __init__(self, ifname: str, *, port_range: tuple[int, int], exclusive: bool = False,
                 ipv6: bool = False) -> None:
        self._ipv6 = ipv6
        self._map6: BpfHash | None = None
        self.ifname = ifname
        self._port_range = port_range
        self._exclusive = exclusive
        self._map: BpfHash | None = None
        self._addresses: frozenset[Address] = frozenset()
        self._published: set[tuple[Address, str, int]] = set()
        self._made_qdisc = False
        self._attached = False

    def attach(self, addresses: Iterable[Address]) -> None:
        """Begin to guard the interface's `addresses`. Raises NatgwError, and leaves nothing behind then.

        Conflict if there is a guard already: of another natgw, or one left behind (see `remove_leftover`).
        """
        self._map = BpfHash(_KEY_BYTES, 1, _MAX_ENTRIES)
        try:
            self._map6 = BpfHash(_KEY6_BYTES, 1, _MAX_ENTRIES) if self._ipv6 else None
            # Filled first: from its first frame on, the filter knows everything.
            self._addresses = frozenset()
            self.set_addresses(addresses)
            for entry in self._published:
                self._set(_key(*entry))
            with self._program() as program:
                self._install(program)
        except BaseException:
            self.detach()
            raise

    def speak_ipv6(self) -> None:
        """Guard IPv6 too, from now on. What is guarded stays so meanwhile: one program takes the other's place at once.

        Raises NatgwError.
        """
        self._ipv6 = True
        if not self._attached or self._map6 is not None:
            return
        self._map6 = BpfHash(_KEY6_BYTES, 1, _MAX_ENTRIES)
        try:
            with self._program() as program, netlink() as ipr:
                ipr.tc("replace-filter", "bpf", interfaces.index_of(self.ifname), **_filter(program))
        except NetlinkError as error:
            self._map6.close()
            self._map6, self._ipv6 = None, False
            raise NatgwError(f"cannot put the guard for IPv6 on {self.ifname}: {os.strerror(error.code)}") from None

    @contextmanager
    def _program(self) -> Iterator[int]:
        """The classifier, loaded for as long as it takes to hang it up."""
        assert self._map is not None
        map6 = None if self._map6 is None else self._map6.fd
        program = load_classifier(assemble(self._map.fd, self._port_range, exclusive=self._exclusive, map6_fd=map6),
                                  "natgw_guard")
        try:
            yield program
        finally:
            os.close(program)

    def _install(self, program: int) -> None:
        try:
            with netlink() as ipr:
                index = interfaces.index_of(self.ifname)
                self._made_qdisc = _add_clsact(ipr, index)
                ipr.tc("add-filter", "bpf", index, **_filter(program))
                self._attached = True
        except NetlinkError as error:
            if self._made_qdisc:
                _remove(self.ifname, filter_too=False)
            if error.code == errno.EEXIST:
                raise Conflict(f"another natgw has {self.ifname} as its uplink already: choose another with --uplink") from None
            raise NatgwError(f"cannot put the guard on {self.ifname}: {os.strerror(error.code)}") from None

    def set_addresses(self, addresses: Iterable[Address]) -> None:
        """Guard natgw's port range on these addresses, and no others."""
        wanted = frozenset(addresses)
        for address in self._addresses - wanted:
            self._delete(_key(address))
        for address in wanted - self._addresses:
            self._set(_key(address))
        self._addresses = wanted

    def add(self, address: Address, protocol: str, port: int) -> None:
        """Guard one published port more."""
        self._published.add((address, protocol, port))
        self._set(_key(address, protocol, port))

    def remove(self, address: Address, protocol: str, port: int) -> None:
        self._published.discard((address, protocol, port))
        self._delete(_key(address, protocol, port))

    def own_protocol(self, address: Address, protocol: int, owns: bool) -> None:
        """Guard all packets of a protocol without ports, by its number, or no longer."""
        if owns:
            self._set(_key(address, number=protocol))
        else:
            self._delete(_key(address, number=protocol))

    def _set(self, key: bytes) -> None:
        table = self._map if len(key) == _KEY_BYTES else self._map6
        if table is not None:
            table.set(key, b"\1")

    def _delete(self, key: bytes) -> None:
        table = self._map if len(key) == _KEY_BYTES else self._map6
        if table is not None:
            table.delete(key)

    def detach(self) -> None:
        """Take the filter away, and the qdisc if it was the guard's. An interface that is gone took them along."""
        if self._attached:
            _remove(self.ifname, qdisc=self._made_qdisc)
            self._attached = False
        if self._map is not None:
            self._map.close()
            self._map = None
        if self._map6 is not None:
            self._map6.close()
            self._map6 = None
        self._addresses = frozenset()


def remove_leftover(ifname: str, *, qdisc: bool = True) -> None:
    """Remove the guard of a natgw that could not do so itself. An interface or a guard that is gone is no error.

    `qdisc`: that natgw may have added the clsact qdisc. It is removed too, unless somebody's filter hangs on it.
    """
    _remove(ifname, qdisc=qdisc)


def _filter(program: int) -> dict[str, Any]:
    return {"fd": program, "name": FILTER_NAME, "parent": INGRESS, "prio": PRIORITY, "handle": 1, "protocol": ETH_P_ALL,
            "direct_action": True, "classid": 1}


def _key(address: Address, protocol: str | None = None, port: int = 0, *, number: int = 0) -> bytes:
    number = number if protocol is None else _PROTOCOLS[protocol]
    order = "little" if memoryview(b"\1\0").cast("H")[0] == 1 else "big"
    key = address.packed + (number << 16 | port).to_bytes(4, "big")
    return b"".join(key[at : at + 4] if order == "big" else key[at : at + 4][::-1] for at in range(0, len(key), 4))


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
    try:
        index = interfaces.index_of(ifname)
    except NotFound:
        return
    with netlink() as ipr:
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
