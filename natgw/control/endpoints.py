"""Endpoints: a namespace's link to the bridge, made and taken away.

Addresses and host ports are reserved before the slow work with the kernel begins, so that requests side by side cannot
take the same. Each step puts its own undoing on a stack: it is unwound if a later step fails, and kept for the day the
container leaves if none does.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from natgw.control import names
from natgw.control.ipam import AddressPool
from natgw.control.ledger import Entry, Ledger
from natgw.control.model import Container, Network, PublishedPort
from natgw.control.portspec import PortBinding
from natgw.control.publishing import Published, Publisher
from natgw.datapath import Bridge, Datapath, Port, PortKind
from natgw.errors import Conflict
from natgw.host import links
from natgw.host.links import Link
from natgw.host.pump import Pump

log = logging.getLogger(__name__)


@dataclass
class Endpoint:
    """What stands behind a container's address; `undo` takes all of it away."""

    ip: IPv4Address
    published: list[Published]
    undo: AsyncExitStack


class Endpoints:
    """All endpoints of one network. `on_lost` is told of a container whose link has disappeared by itself."""

    def __init__(self, network: Network, bridge: Bridge, datapath: Datapath, pump: Pump, publisher: Publisher,
                 ledger: Ledger, on_lost: Callable[[Container], None]) -> None:
        self._network = network
        self._bridge = bridge
        self._datapath = datapath
        self._pump = pump
        self._publisher = publisher
        self._ledger = ledger
        self._on_lost = on_lost
        self._pool = AddressPool(network.subnet, f"{network.name} ({network.id})")
        self._pool.reserve(network.gateway)
        self._stations = {network.gateway_mac}
        self._endpoints: dict[str, Endpoint] = {}

    async def connect(self, container: Container, *, ip: IPv4Address | None, mac: bytes | None,
                      bindings: list[PortBinding]) -> None:
        """Give a container its link, address and published ports. Raises NatgwError, with nothing left behind."""
        async with AsyncExitStack() as undo:
            address = self._pool.allocate() if ip is None else self._pool.reserve(ip)
            undo.callback(self._pool.release, address)
            station = self._take_station(mac, address)
            undo.callback(self._stations.discard, station)
            published = await self._publisher.publish(bindings, address)
            undo.push_async_callback(self._publisher.unpublish, published)
            link = await self._open_link(container, address, station, undo)
            self._plug(container, link, address, station, undo)
            container.ip, container.mac, container.device = address, station, link.name
            container.offload = link.offload
            container.ports = _lines(published)
            self._endpoints[container.id] = Endpoint(address, published, undo.pop_all())

    async def disconnect(self, container: Container) -> None:
        """Take link, address and published ports away. A container that has none keeps having none."""
        endpoint = self._endpoints.pop(container.id, None)
        if endpoint is not None:
            container.ip, container.ports = None, []
            await endpoint.undo.aclose()

    async def publish(self, container: Container, bindings: list[PortBinding]) -> None:
        """Publish more ports of a container that is connected."""
        endpoint = self._endpoints[container.id]
        endpoint.published += await self._publisher.publish(bindings, endpoint.ip)
        container.ports = _lines(endpoint.published)

    async def unpublish(self, container: Container, items: list[Published]) -> None:
        """Take some of them back."""
        published = self._endpoints[container.id].published
        for item in items:
            published.remove(item)
        container.ports = _lines(published)
        await self._publisher.unpublish(items)

    def published(self, container: Container) -> list[Published]:
        """The published ports of a container."""
        endpoint = self._endpoints.get(container.id)
        return [] if endpoint is None else endpoint.published

    def is_connected(self, container: Container) -> bool:
        return container.id in self._endpoints

    def _take_station(self, wanted: bytes | None, address: IPv4Address) -> bytes:
        """A MAC address that no other station here has: two on one bridge would take each other's frames."""
        mac = wanted or names.mac_for(address)
        while mac in self._stations:
            if wanted is not None:
                raise Conflict(f"MAC address {mac.hex(':')} is already in use in network {self._network.name}")
            mac = b"\x02\x42" + secrets.token_bytes(4)
        self._stations.add(mac)
        return mac

    async def _open_link(self, container: Container, address: IPv4Address, mac: bytes, undo: AsyncExitStack) -> Link:
        interface = IPv4Interface(f"{address}/{self._network.subnet.prefixlen}")
        gateway = self._network.gateway
        if container.link == "tap":
            link = await asyncio.to_thread(links.create_container_tap, container.netns, ifname=container.ifname, mac=mac,
                                           address=interface, gateway=gateway, mtu=container.mtu,
                                           offload=container.offload)
            undo.push_async_callback(asyncio.to_thread, link.close)
            return link
        veth = names.veth_name()
        entry = self._ledger.note("link", name=veth)
        try:
            link = await asyncio.to_thread(links.create_container_veth, container.netns, ifname=container.ifname, mac=mac,
                                           address=interface, gateway=gateway, mtu=container.mtu, host_name=veth,
                                           offload=container.offload)
        except BaseException:
            self._ledger.forget(entry)
            raise
        undo.push_async_callback(self._close_noted, link, entry)
        return link

    async def _close_noted(self, link: Link, entry: Entry) -> None:
        await asyncio.to_thread(link.close)
        self._ledger.forget(entry)

    def _plug(self, container: Container, link: Link, address: IPv4Address, mac: bytes, undo: AsyncExitStack) -> None:
        """Make the link a port of the bridge, with its station known there."""
        def lost(port: Port, error: OSError) -> None:
            log.info("%s: its link is gone (%s)", container.name, error.strerror)
            self._on_lost(container)

        port = self._datapath.add_port(self._bridge, container.name, PortKind.ENDPOINT, mtu=link.mtu,
                                       transmit=self._pump.transmitter(link), coalesces=link.udp_offload)
        undo.callback(self._datapath.remove_port, port)
        self._datapath.add_neighbour(self._bridge, address, mac, port, time.monotonic())
        undo.callback(self._datapath.remove_neighbour, self._bridge, address)
        self._pump.add(port, link, lost)
        undo.callback(self._pump.remove, port)


def _lines(published: list[Published]) -> list[PublishedPort]:
    return [line for item in published for line in item.lines]
