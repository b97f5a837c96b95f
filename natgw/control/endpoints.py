"""Endpoints: a namespace's link to the bridge, made and taken away.

Names, addresses and host ports are reserved before the slow work with the kernel begins, so that requests side by side
cannot take the same; whatever fails gives everything back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from natgw.control import names
from natgw.control.ipam import AddressPool
from natgw.control.ledger import Entry, Ledger
from natgw.control.model import Container, Network
from natgw.control.portspec import PortBinding
from natgw.control.publishing import Published, Publisher
from natgw.datapath import Bridge, Datapath, Port, PortKind
from natgw.host import links
from natgw.host.links import Link
from natgw.host.pump import Pump

log = logging.getLogger(__name__)


@dataclass
class Endpoint:
    """What stands behind a container's address."""

    container: Container
    ip: IPv4Address
    link: Link
    port: Port
    published: list[Published]
    entry: Entry | None


class Endpoints:
    """All endpoints of one network. `on_lost` is told the name of a container whose namespace has disappeared."""

    def __init__(self, network: Network, bridge: Bridge, datapath: Datapath, pump: Pump, publisher: Publisher,
                 pool: AddressPool, ledger: Ledger, on_lost: Callable[[str], None]) -> None:
        self._network = network
        self._bridge = bridge
        self._datapath = datapath
        self._pump = pump
        self._publisher = publisher
        self._pool = pool
        self._ledger = ledger
        self._on_lost = on_lost
        self._endpoints: dict[str, Endpoint] = {}

    async def connect(self, container: Container, *, ip: IPv4Address | None, mac: bytes | None,
                      bindings: list[PortBinding]) -> None:
        """Give a container its link, address and published ports. Raises NatgwError, with nothing left behind."""
        address = self._pool.allocate() if ip is None else self._pool.reserve(ip)
        published: list[Published] = []
        link: Link | None = None
        entry: Entry | None = None
        try:
            published = await self._publisher.publish(bindings, address)
            station = mac or names.mac_for(address)
            veth = names.veth_name() if container.link == "veth" else None
            if veth is not None:
                entry = self._ledger.note("link", name=veth)
            link = await asyncio.to_thread(self._make_link, container, address, station, veth)
            port = self._plug(container.name, link)
            self._datapath.add_neighbour(self._bridge, address, station, port, asyncio.get_running_loop().time())
        except BaseException:
            if link is not None:
                await asyncio.to_thread(link.close)
            if entry is not None:
                self._ledger.forget(entry)
            await self._publisher.unpublish(published)
            self._pool.release(address)
            raise
        container.ip, container.mac, container.device = address, station, link.name
        container.ports = [line for item in published for line in item.lines]
        self._endpoints[container.name] = Endpoint(container, address, link, port, published, entry)

    async def disconnect(self, container: Container) -> None:
        """Take link, address and published ports away. A container that has none keeps having none."""
        endpoint = self._endpoints.pop(container.name, None)
        if endpoint is None:
            return
        await self._publisher.unpublish(endpoint.published)
        self._pump.remove(endpoint.port)
        self._datapath.remove_neighbour(self._bridge, endpoint.ip)
        self._datapath.remove_port(endpoint.port)
        await asyncio.to_thread(endpoint.link.close)
        if endpoint.entry is not None:
            self._ledger.forget(endpoint.entry)
        self._pool.release(endpoint.ip)
        container.ip = None
        container.ports = []

    async def publish(self, container: Container, bindings: list[PortBinding]) -> None:
        """Publish more ports of a container that is connected."""
        endpoint = self._endpoints[container.name]
        endpoint.published += await self._publisher.publish(bindings, endpoint.ip)
        container.ports = [line for item in endpoint.published for line in item.lines]

    async def unpublish(self, container: Container, items: list[Published]) -> None:
        endpoint = self._endpoints[container.name]
        for item in items:
            endpoint.published.remove(item)
        await self._publisher.unpublish(items)
        container.ports = [line for item in endpoint.published for line in item.lines]

    def published(self, container: Container) -> list[Published]:
        """The published ports of a container."""
        endpoint = self._endpoints.get(container.name)
        return [] if endpoint is None else endpoint.published

    def is_connected(self, container: Container) -> bool:
        return container.name in self._endpoints

    def _make_link(self, container: Container, address: IPv4Address, mac: bytes, veth: str | None) -> Link:
        interface = IPv4Interface(f"{address}/{self._network.subnet.prefixlen}")
        if veth is None:
            return links.create_container_tap(container.netns, ifname=container.ifname, mac=mac, address=interface,
                                              gateway=self._network.gateway, mtu=container.mtu)
        return links.create_container_veth(container.netns, ifname=container.ifname, mac=mac, address=interface,
                                           gateway=self._network.gateway, mtu=container.mtu, host_name=veth)

    def _plug(self, name: str, link: Link) -> Port:
        port = self._datapath.add_port(self._bridge, name, PortKind.ENDPOINT, mtu=link.mtu,
                                       transmit=self._pump.transmitter(link), coalesces=link.offload)
        self._pump.add(port, link, self._lost)
        return port

    def _lost(self, port: Port, error: OSError) -> None:
        log.info("%s: its link is gone (%s)", port.name, error.strerror)
        self._on_lost(port.name)
