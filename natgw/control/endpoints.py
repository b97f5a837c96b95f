"""Endpoints: an address on a network, its published ports, and the link that leads to it; made and taken away.

An endpoint lives in two steps, since engines take them at different times: `create` gives it address, MAC and ports, and then
it gets a link. `plug` makes the link inside a namespace that is there (run, attach, CNI). `prepare` makes it here, for an
engine that moves it where it wants it (Docker).

Addresses and host ports are reserved before the slow work with the kernel begins, so that requests side by side cannot
take the same. Each step puts its own undoing on a stack: it is unwound if a later step fails, and kept for the day the
endpoint goes if none does.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from natgw.control import names
from natgw.control.events import Events
from natgw.control.ledger import Entry, Ledger
from natgw.control.limits import limit_receive, limited_transmit
from natgw.control.model import SHORT_ID, Endpoint, Network, PublishedPort
from natgw.control.networks import Networks, Segment
from natgw.control.options import check_link, check_mtu
from natgw.control.portspec import PortBinding
from natgw.control.publishing import Published, Publisher
from natgw.control.requests import EndpointRequest
from natgw.control.store import Store
from natgw.datapath import Datapath, Port, PortKind
from natgw.errors import Conflict, NatgwError, NotFound
from natgw.host import links, taps
from natgw.host.links import Link
from natgw.host.pump import Pump

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Held:
    """What stands behind an endpoint; `undo` and `unplug` take it away."""

    endpoint: Endpoint
    request: EndpointRequest
    published: list[Published]
    undo: AsyncExitStack
    unplug: AsyncExitStack


class Endpoints:
    """All endpoints of the daemon. `on_lost` is told of one whose link has disappeared by itself.

    `big_tcp` lets the uplink take what a link gives that has superframes of more than 64 KiB; None: no link shall have such.
    """

    def __init__(self, networks: Networks, datapath: Datapath, pump: Pump, publisher: Publisher, ledger: Ledger, store: Store,
                 events: Events, default_link: str, big_tcp: Callable[[], Awaitable[None]] | None,
                 on_lost: Callable[[Endpoint], None]) -> None:
        self._networks = networks
        self._datapath = datapath
        self._pump = pump
        self._publisher = publisher
        self._ledger = ledger
        self._store = store
        self._events = events
        self._default_link = default_link
        self._big_tcp = big_tcp
        self._on_lost = on_lost
        self._held: dict[str, _Held] = {}
        self._ending = False

    # -- life ----------------------------------------------------------------------------------------------------------

    async def create(self, network: Network, request: EndpointRequest) -> Endpoint:
        """Take address and MAC, and publish ports. Raises NatgwError, with nothing left behind."""
        segment = self._networks.segment(network)
        id_ = request.id or names.new_id()
        if id_ in self._held:
            raise Conflict(f"endpoint {id_} already exists in network {network.name}")
        link = check_link(request.link or self._default_link)
        async with AsyncExitStack() as undo:
            address = _take_address(segment, request, undo)
            address6 = _take_address6(segment, request, undo)
            station = _take_station(segment, request.mac, address)
            undo.callback(segment.stations.discard, station)
            endpoint = Endpoint(
                id=id_, network=network, name=request.name or id_[:SHORT_ID], ip=address, mac=station, owner=request.owner,
                mtu=check_mtu(request.mtu) if request.mtu is not None else network.mtu,
                container_id=request.container_id, ip6=address6, ifname=names.check_ifname(request.ifname), link=link,
                offload=request.offload, aliases=list(request.aliases))
            segment.endpoints[id_] = endpoint  # a network with an endpoint that is coming is in use
            undo.callback(segment.endpoints.pop, id_, None)
            published = await self._publish(endpoint, request.bindings)
            held = _Held(endpoint, request, published, AsyncExitStack(), AsyncExitStack())
            undo.push_async_callback(self._unpublish_all, held)
            held.undo = undo.pop_all()
        endpoint.ports = _lines(published)
        self._held[id_] = held
        if endpoint.owner != "natgw":
            self._keep(held)
        return endpoint

    async def plug(self, endpoint: Endpoint, namespace: str) -> None:
        """Make the link inside the namespace at this path. Raises NatgwError; the endpoint is as it was then."""
        held = self._hold(endpoint)
        if endpoint.device:
            raise Conflict(f"endpoint {endpoint.name} has its link already")
        async with AsyncExitStack() as undo:
            link = await self._open_link(endpoint, namespace, undo, held.request)
            self._plug(endpoint, link, undo)
            endpoint.device, endpoint.netns, endpoint.offload = link.name, namespace, link.offload
            held.unplug = undo.pop_all()
        self._keep(held)
        self._events.emit("connect", endpoint.network, endpoint)

    async def prepare(self, endpoint: Endpoint, namespace: str | None) -> str:
        """Make a persistent tap here, on the bridge already, for an engine to move; gives its name.

        `namespace` is the path of the namespace it will be moved to, for `reopen`. Raises as `plug` does.
        """
        held = self._hold(endpoint)
        if endpoint.device:
            raise Conflict(f"endpoint {endpoint.name} has its link already")
        link = await asyncio.to_thread(taps.create_persistent, endpoint.mac, endpoint.mtu, offload=endpoint.offload)
        await self._plug_tap(held, link, namespace)
        return endpoint.device

    async def reopen(self, endpoint: Endpoint, namespace: str) -> None:
        """Take up the persistent tap that a former natgw left in the namespace. Raises NotFound if it is gone."""
        held = self._hold(endpoint)
        link = await asyncio.to_thread(taps.reopen, namespace, endpoint.mac, endpoint.mtu, offload=endpoint.offload)
        await self._plug_tap(held, link, namespace)

    async def _plug_tap(self, held: _Held, link: Link, namespace: str | None) -> None:
        endpoint = held.endpoint
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._close_persistent, link)
            self._plug(endpoint, link, undo)
            endpoint.device, endpoint.netns = link.name, namespace
            held.unplug = undo.pop_all()
        self._keep(held)
        self._events.emit("connect", endpoint.network, endpoint)

    async def _close_persistent(self, link: Link) -> None:
        """The device goes with its descriptor, unless the daemon ends: then it waits in its namespace for the next one."""
        if not self._ending:
            await asyncio.to_thread(taps.let_go, link)
        await asyncio.to_thread(link.close)

    async def restore(self) -> None:
        """Take up Docker's endpoints that the store has, each as it was, as far as its interface is still there."""
        for stored in self._store.endpoints():
            row = stored.row
            if row["owner"] == "docker":
                try:
                    endpoint = await self.create(self._networks.find(row["network"]), stored.as_request)
                    await self._revive(endpoint, row["netns"])
                except NatgwError as error:
                    log.warning("endpoint %s on %s does not come back: %s", row["name"], row["network"], error)
                    self._store.drop_endpoint(row["id"])

    async def _revive(self, endpoint: Endpoint, namespace: str | None) -> None:
        """One without a link stays without; so does one whose link is gone, until its engine says what is to become of it."""
        if namespace is None:
            return
        try:
            await self.reopen(endpoint, namespace)
        except NatgwError as error:
            log.info("endpoint %s: %s", endpoint.name, error)

    async def unplug(self, endpoint: Endpoint) -> None:
        """Take the link away. Twice is once."""
        held = self._held.get(endpoint.id)
        if held is not None and endpoint.device:
            self._events.emit("disconnect", endpoint.network, endpoint)
            endpoint.device, endpoint.netns, endpoint.port = "", None, None
            unplug, held.unplug = held.unplug, AsyncExitStack()
            self._keep(held)
            await unplug.aclose()

    async def delete(self, endpoint: Endpoint) -> None:
        """Take link, ports, MAC and address away. Twice is once."""
        held = self._held.get(endpoint.id)
        if held is None:
            return
        try:
            await self.unplug(endpoint)
        finally:
            if self._held.pop(endpoint.id, None) is not None:
                self._store.drop_endpoint(endpoint.id)
                await held.undo.aclose()

    async def stop(self) -> None:
        """Take away what is left when the daemon ends; the store keeps what it has of them, and persistent taps stay."""
        self._ending = True
        for held in list(self._held.values()):
            del self._held[held.endpoint.id]
            await held.unplug.aclose()
            await held.undo.aclose()

    # -- published ports -------------------------------------------------------------------------------------------------

    async def publish(self, endpoint: Endpoint, bindings: list[PortBinding]) -> None:
        """Publish more ports: all of them, or Conflict and none."""
        held = self._hold(endpoint)
        held.published += await self._publish(endpoint, bindings)
        self._published_changed(held)

    async def unpublish(self, endpoint: Endpoint, items: list[Published]) -> None:
        """Take some of them back."""
        held = self._hold(endpoint)
        for item in items:
            held.published.remove(item)
        self._published_changed(held)
        await self._publisher.unpublish(items)

    def published(self, endpoint: Endpoint) -> list[Published]:
        """What is published of an endpoint."""
        held = self._held.get(endpoint.id)
        return [] if held is None else held.published

    def _published_changed(self, held: _Held) -> None:
        held.endpoint.ports = _lines(held.published)
        if held.endpoint.device:
            self._keep(held)

    async def _publish(self, endpoint: Endpoint, bindings: Iterable[PortBinding]) -> list[Published]:
        """An internal network publishes nothing, as Docker's does not."""
        network = endpoint.network
        wanted = [] if network.internal else [binding.at_host(network.host_binding) for binding in bindings]
        return await self._publisher.publish(wanted, endpoint.ip, _reachable6(endpoint))

    async def _unpublish_all(self, held: _Held) -> None:
        held.endpoint.ports = []
        await self._publisher.unpublish(held.published)

    def hand_over(self, old: Endpoint, new: Endpoint) -> None:
        """What is published of one endpoint leads to another from now on, host ports and all."""
        source, target = self._hold(old), self._hold(new)
        items, source.published = source.published, []
        self._publisher.retarget(items, new.ip, _reachable6(new))
        target.published += items
        for held in (source, target):
            self._published_changed(held)

    # -- finding -----------------------------------------------------------------------------------------------------------

    def find(self, id_: str) -> Endpoint:
        """Raises NotFound."""
        if id_ not in self._held:
            raise NotFound(f"endpoint {id_} not found")
        return self._held[id_].endpoint

    def of(self, network: Network) -> list[Endpoint]:
        """Those on a network, in the order they came."""
        return [held.endpoint for held in self._held.values() if held.endpoint.network is network]

    def all(self) -> list[Endpoint]:
        return [held.endpoint for held in self._held.values()]

    def at(self, network: Network, ip: IPv4Address | IPv6Address) -> Endpoint | None:
        """The endpoint with an address."""
        return next((endpoint for endpoint in self.of(network) if ip in (endpoint.ip, endpoint.ip6)), None)

    def named(self, network: Network, name: str) -> list[Endpoint]:
        """Those that DNS knows by a name, which may be an alias that several share."""
        wanted = name.lower()
        return [endpoint for endpoint in self.of(network) if wanted in (each.lower() for each in endpoint.names)]

    # -- small ---------------------------------------------------------------------------------------------------------------

    def _hold(self, endpoint: Endpoint) -> _Held:
        if endpoint.id not in self._held:
            raise NotFound(f"endpoint {endpoint.name} not found")
        return self._held[endpoint.id]

    def _keep(self, held: _Held) -> None:
        if held.request.keep and not self._ending:
            self._store.save_endpoint(held.endpoint, [item.binding for item in held.published],
                                      holds_address=held.request.holds_address)

    async def _open_link(self, endpoint: Endpoint, namespace: str, undo: AsyncExitStack,
                         request: EndpointRequest) -> Link:
        network = endpoint.network
        interface = None if request.dhcp else IPv4Interface(f"{endpoint.ip}/{network.subnet.prefixlen}")
        way_out = network.gateway if request.gateway and not request.dhcp and not network.internal else None
        ipv6 = _ipv6_settings(endpoint, leads_out=request.gateway and not network.internal)
        if endpoint.link == "tap":
            link = await asyncio.to_thread(links.create_container_tap, namespace, ifname=endpoint.ifname, mac=endpoint.mac,
                                           address=interface, gateway=way_out, mtu=endpoint.mtu, offload=endpoint.offload,
                                           ipv6=ipv6)
            if endpoint.owner == "natgw":
                undo.push_async_callback(asyncio.to_thread, link.close)
            else:
                undo.push_async_callback(self._close_persistent, link)
                await asyncio.to_thread(taps.make_persistent, link)
            return link
        veth = names.veth_name()
        entry = self._ledger.note("link", name=veth)
        try:
            link = await asyncio.to_thread(links.create_container_veth, namespace, ifname=endpoint.ifname, mac=endpoint.mac,
                                           address=interface, gateway=way_out, mtu=endpoint.mtu, host_name=veth,
                                           offload=endpoint.offload, big_tcp=self._big_tcp is not None, ipv6=ipv6)
        except BaseException:
            self._ledger.forget(entry)
            raise
        undo.push_async_callback(self._close_noted, link, entry)
        if link.big_tcp and self._big_tcp is not None:
            await self._big_tcp()
        return link

    async def _close_noted(self, link: Link, entry: Entry) -> None:
        await asyncio.to_thread(link.close)
        self._ledger.forget(entry)

    def _plug(self, endpoint: Endpoint, link: Link, undo: AsyncExitStack) -> None:
        """Make the link a port of the bridge, with its station known there."""
        def lost(port: Port, error: OSError) -> None:
            log.info("%s: its link is gone (%s)", endpoint.name, error.strerror)
            self._on_lost(endpoint)

        bridge = self._networks.bridge(endpoint.network)
        request = self._held[endpoint.id].request
        transmit = limited_transmit(request.ingress, self._pump.transmitter(link), lambda: endpoint.port, undo)
        port = self._datapath.add_port(bridge, endpoint.name, PortKind.ENDPOINT, mtu=link.mtu, transmit=transmit,
                                       coalesces=link.udp_offload)
        limit_receive(request.egress, port, self._datapath, undo)
        undo.callback(self._datapath.remove_port, port)
        self._datapath.add_neighbour(bridge, endpoint.ip, endpoint.mac, port, time.monotonic())
        undo.callback(self._datapath.remove_neighbour, bridge, endpoint.ip)
        if bridge.gateway6 is not None and endpoint.ip6 is not None:
            self._datapath.add_neighbour(bridge, endpoint.ip6, endpoint.mac, port, time.monotonic())
            undo.callback(self._datapath.remove_neighbour, bridge, endpoint.ip6)
        self._pump.add(port, link, lost)
        undo.callback(self._pump.remove, port)
        endpoint.port = port


def _take_address(segment: Segment, request: EndpointRequest, undo: AsyncExitStack) -> IPv4Address:
    if request.ip is not None and request.holds_address and segment.pool.is_taken(request.ip):
        return request.ip
    address = segment.pool.allocate() if request.ip is None else segment.pool.reserve(request.ip)
    undo.callback(segment.pool.release, address)
    return address


def _take_address6(segment: Segment, request: EndpointRequest, undo: AsyncExitStack) -> IPv6Address | None:
    """An IPv6 address beside the other, on a network that has them."""
    pool = segment.pool6
    if pool is None:
        if request.ip6 is not None:
            raise NatgwError(f"network {segment.network.name} has no IPv6 addresses: {request.ip6} is none of its")
        return None
    if request.ip6 is not None and request.holds_address and pool.is_taken(request.ip6):
        return request.ip6
    address = pool.allocate() if request.ip6 is None else pool.reserve(request.ip6)
    undo.callback(pool.release, address)
    return address


def _ipv6_settings(endpoint: Endpoint, *, leads_out: bool) -> links.Ipv6Settings | None:
    ipam6 = endpoint.network.ipam6
    if ipam6 is None or endpoint.ip6 is None:
        return None
    return links.Ipv6Settings(IPv6Interface(f"{endpoint.ip6}/{ipam6.subnet.prefixlen}"), ipam6.gateway if leads_out else None)


def _reachable6(endpoint: Endpoint) -> IPv6Address | None:
    """The IPv6 address that published ports lead to, where natgw speaks IPv6."""
    return None if endpoint.network.ipam6 is None else endpoint.ip6


def _take_station(segment: Segment, wanted: bytes | None, address: IPv4Address) -> bytes:
    """A MAC address that no other station here has: two on one bridge would take each other's frames."""
    mac = wanted or names.mac_for(address)
    while mac in segment.stations:
        if wanted is not None:
            raise Conflict(f"MAC address {mac.hex(':')} is already in use in network {segment.network.name}")
        mac = b"\x02\x42" + secrets.token_bytes(4)
    segment.stations.add(mac)
    return mac


def _lines(published: list[Published]) -> list[PublishedPort]:
    return [line for item in published for line in item.lines]

