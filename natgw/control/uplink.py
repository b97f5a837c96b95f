"""The way out: which interface it is, sharing its address with the host, and following what the host does to it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from natgw.control.ledger import Entry, Ledger
from natgw.control.options import NO_UPLINK, DaemonOptions
from natgw.datapath import Datapath, Port, Publication, UplinkConfig
from natgw.errors import NatgwError
from natgw.host import interfaces, links, sysctl
from natgw.host.guard import Guard
from natgw.host.interfaces import UplinkState
from natgw.host.pump import Pump
from natgw.host.uplink import UplinkWatcher
from natgw.wire.ethernet import mac_text

log = logging.getLogger(__name__)


class UplinkManager:
    """At most one uplink; without one the network is isolated."""

    def __init__(self, options: DaemonOptions, datapath: Datapath, pump: Pump, ledger: Ledger) -> None:
        self._options = options
        self._ipv6 = options.ipv6
        self._datapath = datapath
        self._pump = pump
        self._ledger = ledger
        self._state: UplinkState | None = None
        self._link: links.Link | None = None
        self._port: Port | None = None
        self._guard: Guard | None = None
        self._watcher: UplinkWatcher | None = None
        self._entries: list[Entry] = []
        self._reserved_before: str | None = None
        self._publications: list[Publication] = []
        self._wants_big_tcp = False
        self._set_before: Entry | None = None
        """What is to be set again in the end."""
        self._reopening: set[asyncio.Task[None]] = set()
        datapath.napt.owns_protocol = self.own_protocol

    async def start(self) -> None:
        """Open the uplink the options ask for. Raises NatgwError saying what to do if there is none."""
        ifname = self._options.uplink
        if ifname == NO_UPLINK:
            return
        if ifname is None:
            ifname = await asyncio.to_thread(interfaces.default_route_interface)
            if ifname is None:
                raise NatgwError("there is no default route to take as uplink: name an interface with --uplink IF, or "
                                 "use --uplink none for an isolated network")
        state = await asyncio.to_thread(interfaces.read_uplink, ifname, ipv6=self._ipv6)
        self._watcher = UplinkWatcher(ifname, self._changed, state, ipv6=self._ipv6)
        await self._watcher.start()
        if not self._options.exclusive_uplink:
            before = sysctl.read_reserved()
            self._entries.append(self._ledger.note("reserved-ports", before=before))
            self._reserved_before = sysctl.reserve_ports(*self._options.port_range)
        await self._open(state)

    async def speak_ipv6(self) -> None:
        """Translate IPv6 too, from now on: a network has come that has it. Flows go on. Raises NatgwError."""
        if self._ipv6:
            return
        if self._guard is not None:
            await asyncio.to_thread(self._guard.speak_ipv6)
        self._ipv6 = True
        if self._watcher is not None:
            self._watcher.follow_ipv6()
        current = self._state
        if current is not None:
            self._apply(await asyncio.to_thread(interfaces.read_uplink, current.ifname, ipv6=True))

    async def take_big_tcp(self) -> None:
        """Let the uplink take the superframes that veth pairs give, if its driver can. While natgw runs, the host's own
        connections have them by this interface too."""
        self._wants_big_tcp = True
        state, link = self._state, self._link
        if state is None or link is None or self._set_before is not None or not links.could_take_big_tcp(state):
            return
        self._set_before = self._ledger.note("superframes", ifname=state.ifname, before=state.superframe_bytes)
        if await asyncio.to_thread(interfaces.set_superframe_bytes, state.ifname, links.BIG_TCP_BYTES):
            link.big_tcp = True
            if self._state is not None:  # which may be a newer one
                self._state = replace(self._state, superframe_bytes=links.BIG_TCP_BYTES)

    async def stop(self) -> None:
        """Take away all of it. Twice is once."""
        if self._watcher is not None:
            await self._watcher.stop()
            self._watcher = None
        for task in self._reopening:
            task.cancel()
        await asyncio.gather(*self._reopening, return_exceptions=True)
        await self._close()
        if self._reserved_before is not None:
            sysctl.write_reserved(self._reserved_before)
            self._reserved_before = None
        for entry in self._entries:
            self._ledger.forget(entry)
        self._entries.clear()

    def record(self) -> dict[str, object] | None:
        """The uplink as `natgw status` shows it."""
        state = self._state
        if state is None:
            return None
        return {"interface": state.ifname, "mac": mac_text(state.mac), "mtu": state.mtu, "up": state.up,
                "superframe_bytes": state.superframe_bytes,
                "addresses": [str(address) for address in state.addresses], "exclusive": self._options.exclusive_uplink,
                "port_range": list(self._options.port_range)}

    def add_publication(self, publication: Publication) -> None:
        """Keep a published port from the host's stack, on every address it is for."""
        self._publications.append(publication)
        for address in self._addresses_of(publication):
            if self._guard is not None:
                self._guard.add(address, publication.protocol, publication.host_port)

    def own_protocol(self, address: bytes, protocol: int, owns: bool) -> None:
        """Keep a protocol without ports from the host's stack as long as containers speak it."""
        if self._guard is not None:
            self._guard.own_protocol(ip_address(address), protocol, owns)

    def drop_publication(self, publication: Publication) -> None:
        if publication in self._publications:
            self._publications.remove(publication)
            for address in self._addresses_of(publication):
                if self._guard is not None:
                    self._guard.remove(address, publication.protocol, publication.host_port)

    def _addresses_of(self, publication: Publication) -> list[IPv4Address | IPv6Address]:
        own = [] if self._state is None else [interface.ip for interface in self._state.addresses]
        return [address for address in own if publication.host_ip in (None, address)
                and address.version == publication.container_ip.version]

    async def _open(self, state: UplinkState) -> None:
        guard = Guard(state.ifname, port_range=self._options.port_range, exclusive=self._options.exclusive_uplink,
                      ipv6=self._ipv6)
        entry = self._ledger.note("guard", ifname=state.ifname, qdisc=True)
        self._entries.append(entry)
        self._guard = guard
        await asyncio.to_thread(guard.attach, [interface.ip for interface in state.addresses])
        link = await asyncio.to_thread(links.open_uplink, state.ifname, state)
        self._link = link
        self._state = state
        self._port = self._datapath.set_uplink(state.ifname, self._pump.transmitter(link), _config(state),
                                              coalesces=link.udp_offload)
        self._pump.add(self._port, link, self._lost)
        for publication in self._publications:
            for address in self._addresses_of(publication):
                guard.add(address, publication.protocol, publication.host_port)
        if self._wants_big_tcp:
            await self.take_big_tcp()

    async def _close(self) -> None:
        if self._port is not None:
            self._pump.remove(self._port)
            self._datapath.clear_uplink()
            self._port = None
        if self._link is not None:
            await asyncio.to_thread(self._link.close)
            self._link = None
        if self._guard is not None:
            await asyncio.to_thread(self._guard.detach)
            self._guard = None
        if self._set_before is not None:
            await asyncio.to_thread(interfaces.set_superframe_bytes, self._set_before["ifname"], self._set_before["before"])
            self._ledger.forget(self._set_before)
            self._set_before = None
        self._state = None

    def _lost(self, port: Port, error: OSError) -> None:
        log.warning("uplink %s is gone: %s; waiting for it to come back", port.name, error.strerror)

    def _changed(self, state: UplinkState | None) -> None:
        """The host changed something on the interface, took it away, or brought it back."""
        task = asyncio.get_running_loop().create_task(self._follow(state))
        self._reopening.add(task)
        task.add_done_callback(self._reopening.discard)

    async def _follow(self, state: UplinkState | None) -> None:
        current = self._state
        try:
            if state is None:
                await self._close()
            elif current is None or current.ifindex != state.ifindex:
                await self._close()
                await self._open(state)
                log.info("uplink %s is there again", state.ifname)
            else:
                self._apply(state)
        except NatgwError as error:
            log.warning("uplink: %s", error)

    def _apply(self, state: UplinkState) -> None:
        log.info("uplink %s changed: addresses %s, mtu %d, %s", state.ifname, ", ".join(map(str, state.addresses)) or "none",
                 state.mtu, "up" if state.up else "down")
        before = {(a, p.protocol, p.host_port) for p in self._publications for a in self._addresses_of(p)}
        self._state = state
        after = {(a, p.protocol, p.host_port) for p in self._publications for a in self._addresses_of(p)}
        if self._guard is not None:
            self._guard.set_addresses(interface.ip for interface in state.addresses)
            for entry in before - after:
                self._guard.remove(*entry)
            for entry in after - before:
                self._guard.add(*entry)
        if self._link is not None:
            self._link.big_tcp = links.takes_big_tcp(state)
        self._datapath.update_uplink(_config(state))


def _config(state: UplinkState) -> UplinkConfig:
    return UplinkConfig(mac=state.mac, addresses=state.addresses, routes=state.routes, mtu=state.mtu,
                        local_addresses=state.local_addresses)
