"""Networks: made, found, taken away.

Each bridged network is a *segment*: a bridge of the datapath, a pool of addresses, and a tap that is the host's own port on it,
with the gateway's address. `bridge`, `host` and `none` are there from the start and stay. What others than `natgw up` made
is kept in the store, and comes back with the next `up`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from natgw.control import names
from natgw.control.events import Events
from natgw.control.ipam import AddressPool, Pools
from natgw.control.ipam6 import AddressPool6, Pools6
from natgw.control.model import DEFAULT_NETWORK, SHORT_ID, Driver, Endpoint, Ipam6Config, IpamConfig, Network
from natgw.control.netoptions import default_bridge_options, meaning_of
from natgw.control.requests import NetworkRequest
from natgw.control.store import Store
from natgw.datapath import Bridge, Datapath, NetworkConfig, Port, PortKind
from natgw.errors import Conflict, NatgwError, NotFound
from natgw.host import interfaces, links
from natgw.host.links import Link
from natgw.host.pump import Pump
from natgw.wire.ipv6 import MINIMUM_MTU

log = logging.getLogger(__name__)

HOST_DEVICE = "natgw0"
PREDEFINED: tuple[tuple[str, Driver], ...] = (("host", "host"), ("none", "null"))
SHORTEST_ID = 4
DEVICE_PREFIX = "br-"


@dataclass(eq=False)
class Segment:
    """What there is of a bridged network; `undo` takes it away."""

    network: Network
    bridge: Bridge
    pool: AddressPool
    pool6: AddressPool6 | None
    undo: AsyncExitStack
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    stations: set[bytes] = field(default_factory=set)


class Networks:
    """All networks of the daemon. A name is taken from the moment it is asked for.

    `speak_ipv6` is awaited before the first network with IPv6 is made: whatever else there is has to know of it then.
    """

    def __init__(self, datapath: Datapath, pump: Pump, store: Store, events: Events, pools: Pools, pools6: Pools6,
                 speak_ipv6: Callable[[], Awaitable[None]]) -> None:
        self._datapath = datapath
        self._pump = pump
        self._store = store
        self._events = events
        self._pools = pools
        self._pools6 = pools6
        self._speak_ipv6 = speak_ipv6
        self._networks: dict[str, Network] = {}
        self._segments: dict[str, Segment] = {}
        self._coming: set[str] = set()
        self._busy = asyncio.Lock()

    # -- coming ----------------------------------------------------------------------------------------------------------

    async def start(self, subnet: IPv4Network, gateway: IPv4Address | None, mtu: int, *, ipv6: bool = False,
                    subnet6: IPv6Network | None = None) -> None:
        """Make the predefined networks, then those of the store. Raises NatgwError for the former; logs the latter."""
        if await asyncio.to_thread(interfaces.exists, HOST_DEVICE):
            raise Conflict(f"interface {HOST_DEVICE} exists already: another natgw serves this network namespace; "
                           "start this one in a namespace of its own, or end the other with `natgw down`")
        options = default_bridge_options(HOST_DEVICE, mtu, masquerade=True)
        await self._create(NetworkRequest(name=DEFAULT_NETWORK, subnet=subnet, gateway=gateway, options=options,
                                          ipv6=ipv6, subnet6=subnet6, persistent=False), predefined=True)
        for name, driver in PREDEFINED:
            network = Network(id=names.new_id(), name=name, created=names.timestamp(time.time_ns()), driver=driver,
                              persistent=False, predefined=True)
            self._networks[network.id] = network
        for request in self._store.networks():
            try:
                await self._create(request)
            except NatgwError as error:
                log.warning("network %s does not come back: %s", request.name, error)

    async def create(self, request: NetworkRequest) -> Network:
        """Make a network. Raises NatgwError in Docker's words, with nothing left behind."""
        if request.name in (DEFAULT_NETWORK, *(name for name, _ in PREDEFINED)):
            raise Conflict(f'operation is not permitted on predefined {request.name} network')
        network = await self._create(request)
        if network.persistent:
            self._store.save_network(network)
        self._events.emit("create", network)
        return network

    async def _create(self, request: NetworkRequest, *, predefined: bool = False) -> Network:
        name = names.check_network_name(request.name)
        if request.driver != "bridge":
            raise NatgwError(f'could not find plugin {request.driver} in v1 plugin registry: natgw has the driver "bridge"'
                             if request.driver not in ("host", "null") else
                             f'only one instance of "{request.driver}" network is allowed')
        if name in self._coming or any(network.name == name for network in self._networks.values()):
            raise Conflict(f"network with name {name} already exists")
        if request.id is not None and request.id in self._networks:
            raise Conflict(f"network {request.id} already exists")
        self._coming.add(name)
        try:
            async with self._busy, AsyncExitStack() as undo:
                network, pool = await self._plan(request, undo, predefined=predefined)
                pool6 = await self._plan6(network, request, undo)
                bridge = await self._make(network, undo)
                segment = Segment(network, bridge, pool, pool6, undo.pop_all(), stations={network.gateway_mac})
        finally:
            self._coming.discard(name)
        self._segments[network.id] = segment
        self._networks[network.id] = network
        return network

    async def _plan(self, request: NetworkRequest, undo: AsyncExitStack, *, predefined: bool) -> tuple[Network, AddressPool]:
        """The network as it will be, its addresses taken."""
        meaning = meaning_of(request.options)
        id_ = request.id or names.new_id()
        pool = request.pool
        if pool is None:
            routes = await asyncio.to_thread(interfaces.host_routes)
            pool = self._pools.request(request.subnet, request.ip_range, avoid=routes)
            undo.callback(self._pools.release, pool.id)
        pool.label = f"{request.name} ({id_})"
        gateway = request.gateway or pool.first
        if not pool.is_host(gateway):
            raise NatgwError(f"gateway {gateway} is not a host address of {pool.subnet}")
        for address in (gateway, *request.aux.values()):
            if not (request.pool is not None and pool.is_taken(address)):  # whose requester may have taken them with it
                pool.reserve(address)
        network = Network(
            id=id_, name=request.name, created=request.created or names.timestamp(time.time_ns()), owner=request.owner,
            persistent=request.persistent, predefined=predefined,
            ipam=IpamConfig(subnet=pool.subnet, gateway=gateway, ip_range=pool.ip_range, aux=dict(request.aux)),
            gateway_mac=names.mac_for(gateway), mtu=meaning.mtu or 1500,
            device=meaning.device or DEVICE_PREFIX + id_[: SHORT_ID], internal=request.internal,
            attachable=request.attachable, ipv6=request.ipv6, masquerade=meaning.masquerade, icc=meaning.icc,
            host_binding=meaning.host_binding, options=dict(request.options), labels=dict(request.labels))
        return network, pool

    async def _plan6(self, network: Network, request: NetworkRequest, undo: AsyncExitStack) -> AddressPool6 | None:
        """The same for IPv6, if the network is to have it."""
        if not request.ipv6:
            return None
        if network.mtu < MINIMUM_MTU:
            raise NatgwError(f"an MTU of {network.mtu} is too small for IPv6, which needs {MINIMUM_MTU} (RFC 8200)")
        await self._speak_ipv6()
        pool = request.pool6
        if pool is None:
            routes = await asyncio.to_thread(interfaces.host_routes6)
            pool = self._pools6.request(request.subnet6, request.ip_range6, avoid=routes, default=network.predefined)
            undo.callback(self._pools6.release, pool.id)
        pool.label = f"{network.name} ({network.id})"
        gateway = request.gateway6 or pool.first
        if not pool.is_host(gateway):
            raise NatgwError(f"gateway {gateway} is not a host address of {pool.subnet}")
        for address in (gateway, *request.aux6.values()):
            if not (request.pool6 is not None and pool.is_taken(address)):
                pool.reserve(address)
        network.ipam6 = Ipam6Config(subnet=pool.subnet, gateway=gateway, ip_range=pool.ip_range, aux=dict(request.aux6))
        return pool

    async def _make(self, network: Network, undo: AsyncExitStack) -> Bridge:
        """Bridge and host port."""
        if await asyncio.to_thread(interfaces.exists, network.device):
            raise Conflict(f"interface {network.device} exists already")
        bridge = self._datapath.add_network(NetworkConfig(
            name=network.name, subnet=network.subnet, gateway=network.gateway, gateway_mac=network.gateway_mac,
            mtu=network.mtu, masquerade=network.masquerade, internal=network.internal, icc=network.icc,
            subnet6=None if network.ipam6 is None else network.ipam6.subnet,
            gateway6=None if network.ipam6 is None else network.ipam6.gateway,
            advertises=network.owner != "docker"))  # whose containers listen to it, and have all they need without
        undo.callback(self._datapath.remove_network, bridge)
        address = IPv4Interface(f"{network.gateway}/{network.subnet.prefixlen}")
        address6 = None if network.ipam6 is None else IPv6Interface(
            f"{network.ipam6.gateway}/{network.ipam6.subnet.prefixlen}")
        link = await asyncio.to_thread(links.create_host_tap, network.device, network.gateway_mac, address, network.mtu,
                                       address6=address6)
        undo.push_async_callback(asyncio.to_thread, link.close)
        self._plug(network, bridge, link, undo)
        return bridge

    def _plug(self, network: Network, bridge: Bridge, link: Link, undo: AsyncExitStack) -> None:
        def lost(port: Port, error: OSError) -> None:
            log.warning("%s is gone: %s", port.name, error.strerror)

        port = self._datapath.add_port(bridge, network.device, PortKind.HOST, mtu=network.mtu,
                                       transmit=self._pump.transmitter(link), coalesces=link.udp_offload)
        self._pump.add(port, link, lost)
        undo.callback(self._pump.remove, port)

    # -- going -----------------------------------------------------------------------------------------------------------

    async def remove(self, network: Network) -> None:
        """Raises Conflict for one that is in use, NatgwError for one that is predefined."""
        if network.predefined:
            raise NatgwError(f"{network.name} is a pre-defined network and cannot be removed")
        async with self._busy:
            segment = self._segments.get(network.id)
            if segment is None:
                raise NotFound(f"network {network.name} not found")
            if segment.endpoints:
                raise Conflict(f"network {network.name} has active endpoints")
            del self._segments[network.id], self._networks[network.id]
            self._store.drop_network(network.id)
            await segment.undo.aclose()
        self._events.emit("destroy", network)

    def rename(self, network: Network, name: str) -> None:
        """Call a network otherwise; that nobody else is called so is the caller's to see to."""
        network.name = self.bridge(network).name = name
        self._store.rename_network(network)

    async def prune(self, wanted: Callable[[Network], bool] = lambda network: True) -> list[Network]:
        """Remove natgw's own networks that nobody is on; gives them."""
        unused = [segment.network for segment in self._segments.values() if not segment.endpoints
                  and not segment.network.predefined and segment.network.owner == "natgw" and wanted(segment.network)]
        for network in unused:
            await self.remove(network)
        return unused

    async def stop(self) -> None:
        """Take away what there is of all of them; the store keeps what it has."""
        for segment in reversed(list(self._segments.values())):
            await segment.undo.aclose()
        self._segments.clear()
        self._networks.clear()

    # -- finding -----------------------------------------------------------------------------------------------------------

    def all(self) -> list[Network]:
        """All, in the order they came."""
        return list(self._networks.values())

    def find(self, name: str) -> Network:
        """A network by name, id, or the beginning of an id that only one has. Raises NotFound in Docker's words."""
        for network in self._networks.values():
            if name in (network.name, network.id):
                return network
        found = [network for network in self._networks.values() if len(name) >= SHORTEST_ID and network.id.startswith(name)]
        if len(found) != 1:
            raise NotFound(f"network {name} not found")
        return found[0]

    @property
    def default(self) -> Network:
        return self.find(DEFAULT_NETWORK)

    def segment(self, network: Network) -> Segment:
        """Raises NotFound for a network that is gone, NatgwError for one without a bridge."""
        if network.driver != "bridge":
            raise NatgwError(f"network {network.name} has no bridge")
        try:
            return self._segments[network.id]
        except KeyError:
            raise NotFound(f"network {network.name} not found") from None

    def segments(self) -> list[Segment]:
        return [*self._segments.values()]

    def bridge(self, network: Network) -> Bridge:
        """Raises as `segment` does."""
        return self.segment(network).bridge

    def pool(self, network: Network) -> AddressPool:
        """Raises as `segment` does."""
        return self.segment(network).pool

