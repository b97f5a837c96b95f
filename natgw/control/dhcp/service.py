"""DHCP servers on the networks that want one: all with `natgw up --dhcp`, or each by its option natgw.dhcp."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Hashable
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from natgw.control.dhcp.keeping import LeaseStore, drop_expired
from natgw.control.dhcp.server import DhcpServer, DhcpSettings
from natgw.control.endpoints import Endpoints
from natgw.control.events import Event
from natgw.control.ipam import AddressPool
from natgw.control.model import Network
from natgw.control.netoptions import meaning_of
from natgw.datapath.dhcp import DhcpHook
from natgw.errors import NatgwError
from natgw.tables.leases import Lease
from natgw.wire.ethernet import mac_text

if TYPE_CHECKING:
    from natgw.control.daemon import Daemon

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often leases are looked through for those that are over."""
COUNTERS = ("discover", "request", "decline", "release", "inform", "sent_offer", "sent_ack", "sent_nak", "ignored", "exhausted")


class DhcpService:
    """Started when all networks and endpoints are there."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.count: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._servers: dict[str, tuple[DhcpServer, LeaseStore]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._unlisten: Callable[[], None] | None = None

    async def start(self) -> None:
        daemon = self._daemon
        drop_expired(daemon.store)
        self._loop = asyncio.get_running_loop()
        for network in daemon.networks.all():
            self._serve(network)
        self._unlisten = daemon.events.listen(self._on_event)
        self._looking = self._loop.create_task(self._look())

    async def stop(self) -> None:
        """Leases of stations that are none of natgw's endpoints are kept. Twice is once."""
        if self._unlisten is not None:
            self._unlisten()
        if self._looking is not None:
            self._looking.cancel()
        for server, kept in self._servers.values():
            server.close()
            if not self._daemon.store.is_frozen:
                kept.drop_all(dynamic_too=False)
        self._servers.clear()

    def serves(self, network: Network) -> bool:
        """Whether stations of a network can get their addresses so."""
        return network.id in self._servers

    def records(self) -> list[dict[str, Any]]:
        """The leases there are."""
        now = self._loop.time()
        return [{"network": self._daemon.networks.find(id_).name, "ip": str(IPv4Address(lease.ip)), "mac": mac_text(lease.mac),
                 "expires_s": round(lease.until - now, 1), "reserved": not lease.dynamic}
                for id_, (server, _) in self._servers.items() for lease in server.leases if lease.bound]

    def _on_event(self, event: Event) -> None:
        if event.action == "create":
            self._serve(event.network)
        elif event.action == "destroy":
            server = self._servers.pop(event.network.id, None)
            if server is not None:
                server[1].drop_all(dynamic_too=True)
        elif event.action == "disconnect" and event.endpoint is not None and self.serves(event.network):
            self._servers[event.network.id][0].forget(event.endpoint.mac)

    def _serve(self, network: Network) -> None:
        options = self._daemon.options
        meaning = meaning_of(network.options)
        wanted = options.dhcp if meaning.dhcp is None else meaning.dhcp
        if network.driver != "bridge" or not wanted:
            return
        networks = self._daemon.networks
        settings = DhcpSettings(
            subnet=network.subnet, server=network.gateway, router=None if network.internal else network.gateway,
            dns=(network.gateway,), mtu=network.mtu, lease_s=meaning.dhcp_lease_s or options.dhcp_lease)
        kept = LeaseStore(self._daemon.store, network.name)
        addresses = _Addresses(self._daemon.endpoints, network, networks.pool(network))

        def changed(lease: Lease, holds: bool) -> None:
            log.info("dhcp on %s: %s %s %s", network.name, mac_text(lease.mac), "has" if holds else "gives back",
                     IPv4Address(lease.ip))
            if holds:
                kept.save(lease, self._loop.time())
            else:
                kept.drop(lease)

        server = DhcpServer(settings, addresses, self.count, changed)
        for lease in kept.load(self._loop.time()):
            if (not lease.dynamic and addresses.reserved(lease.mac) is None) or not server.restore(lease, self._loop.time()):
                kept.drop(lease)
        networks.bridge(network).dhcp = DhcpHook(server.receive, self._loop.time())
        self._servers[network.id] = (server, kept)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for server, _ in self._servers.values():
                server.expire(self._loop.time())


class _Addresses:
    """The addresses of a network, for its DHCP server."""

    def __init__(self, endpoints: Endpoints, network: Network, pool: AddressPool) -> None:
        self._endpoints = endpoints
        self._network = network
        self._pool = pool

    def reserved(self, mac: bytes) -> tuple[IPv4Address, Hashable] | None:
        return next(((endpoint.ip, endpoint.port) for endpoint in self._endpoints.of(self._network)
                     if endpoint.mac == mac and endpoint.port is not None), None)

    def take(self, wanted: IPv4Address | None) -> IPv4Address | None:
        try:
            return self._pool.allocate() if wanted is None else self._pool.reserve(wanted)
        except NatgwError:
            return None

    def give_back(self, address: IPv4Address) -> None:
        self._pool.release(address)
