"""The daemon: networks, the containers on them, the way out. Methods are what the control API calls; values are JSON-able.

Blocking work (netlink, namespaces) runs in threads; everything that touches the datapath runs on the loop. What else serves
networks, an engine's driver or a name server, is a `Service`: started when all networks are there, stopped before they go.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import time
from collections.abc import Coroutine
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any, Protocol

from natgw import __version__
from natgw.control import natconfig
from natgw.control.cni import Attachments
from natgw.control.connecting import Connections
from natgw.control.containers import Containers
from natgw.control.dhcp.service import DhcpService
from natgw.control.dns.service import DnsService
from natgw.control.endpoints import Endpoints
from natgw.control.events import Events, Subscription
from natgw.control.foreign import engine_containers
from natgw.control.inspect import network_record
from natgw.control.ipam import Pools, check_subnet
from natgw.control.ipam6 import Pools6, unique_local_prefix
from natgw.control.ledger import Ledger, remove_leftovers
from natgw.control.model import DEFAULT_NETWORK, Container, Endpoint, Network
from natgw.control.netrequest import parse_request
from natgw.control.networks import Networks
from natgw.control.options import DaemonOptions, check_link, check_mtu
from natgw.control.publishing import Publisher
from natgw.control.roster import Record, Roster
from natgw.control.store import UNIQUE_LOCAL_PREFIX, Store
from natgw.control.uplink import UplinkManager
from natgw.datapath import Datapath, DatapathConfig
from natgw.errors import Conflict, NatgwError, NotFound
from natgw.host.collector import Collector
from natgw.host.pump import Pump
from natgw.wire.ipv6 import MINIMUM_MTU

log = logging.getLogger(__name__)

STOP_ALL_AFTER_S = 5.0


class Service(Protocol):
    """Something that lives on the daemon's networks. `stop` may be called twice, and if `start` failed."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class Daemon:
    """`start` makes everything or nothing; `shutdown` removes it; between them the other methods serve."""

    def __init__(self, options: DaemonOptions) -> None:
        check_link(options.link)
        check_mtu(options.mtu)
        if options.ipv6 and options.mtu < MINIMUM_MTU:
            raise NatgwError(f"an MTU of {options.mtu} is too small for IPv6, which needs {MINIMUM_MTU} (RFC 8200)")
        try:
            config = DatapathConfig(port_range=options.port_range, exclusive=options.exclusive_uplink, nat=options.nat)
        except ValueError as error:
            raise NatgwError(str(error)) from None
        self.options = options
        self.datapath = Datapath(config)
        self._gateway = options.gateway or next(check_subnet(options.subnet).hosts())
        if self._gateway not in options.subnet or self._gateway in (options.subnet.network_address,
                                                                    options.subnet.broadcast_address):
            raise NatgwError(f"gateway {self._gateway} is not a host address of {options.subnet}")
        self.events = Events()
        self.pools, self.pools6 = Pools(), Pools6(self._unique_local_prefix)
        self._roster = Roster(options.link, random.Random())
        self._ledger = Ledger(options.state_dir / "ledger.jsonl")
        self._started = time.monotonic()
        self._stopped = asyncio.Event()
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._dns, self._dhcp = DnsService(self), DhcpService(self)
        self._services: list[Service] = [self._dns, self._dhcp]
        self._pump: Pump | None = None
        self._collector: Collector | None = None
        self._uplink: UplinkManager | None = None

    @property
    def ledger(self) -> Ledger:
        """Where a service writes down what a killed daemon would leave behind."""
        return self._ledger

    def add_service(self, service: Service) -> None:
        """Let a service live as long as the daemon: to be called before `start`, which then calls the service's."""
        self._services.append(service)

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Clean up after a predecessor that was killed, then make bridge, host port and uplink. Raises NatgwError."""
        for folder in (self.options.state_dir, self._folder("logs")):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for line in await asyncio.to_thread(remove_leftovers, self._ledger.outstanding()):
            log.info("left by a natgw that was killed: %s", line)
        self._ledger.begin()
        try:
            await self._make()
            for service in self._services:
                await service.start()
            self._collector = Collector(asyncio.get_running_loop())
        except BaseException:
            await self.shutdown()
            raise

    async def _make(self) -> None:
        options = self.options
        loop = asyncio.get_running_loop()
        self.store = Store(options.state_dir)
        pump = self._pump = Pump(loop, self.datapath)
        self._uplink = UplinkManager(options, self.datapath, pump, self._ledger)
        self.networks = Networks(self.datapath, pump, self.store, self.events, self.pools, self.pools6,
                                 self._uplink.speak_ipv6)
        self.endpoints = Endpoints(self.networks, self.datapath, pump, Publisher(self.datapath, self._uplink), self._ledger,
                                   self.store, self.events, options.link,
                                   self._uplink.take_big_tcp if options.big_tcp else None, self._lost)
        self._roster.foreign = lambda: engine_containers(self.endpoints.all())
        self._containers = Containers(self._roster, self.networks, Connections(self.networks, self.endpoints), self._ledger,
                                      self.store, self._folder("logs"), self._background)
        await self.networks.start(options.subnet, self._gateway, options.mtu, ipv6=options.ipv6, subnet6=options.subnet6)
        await self._uplink.start()
        pump.start()
        await self.endpoints.restore()
        await self._containers.restore()
        self.cni = Attachments(self.networks, self.endpoints, self.store, self._dns.at_gateway)
        await self.cni.start()

    async def shutdown(self) -> None:
        """End the containers and remove every interface, filter, sysctl and file that natgw made. Twice is once.

        Networks that were created stay in the store, for the next `start`.
        """
        if self._stopping:
            await self._stopped.wait()
            return
        self._stopping = True
        try:
            self._roster.close()
            for service in reversed(self._services):
                await _quietly(service.stop())
            self.events.close()
            await asyncio.gather(*(self._containers.remove(member, STOP_ALL_AFTER_S) for member in self._roster),
                                 return_exceptions=True)
            for task in self._tasks:
                task.cancel()
            if self._uplink is not None:
                await self._uplink.stop()
                await self.endpoints.stop()
                await self.networks.stop()
                self.store.close()
            if self._collector is not None:
                self._collector.close()
            if self._pump is not None:
                self._pump.close()
            self._ledger.clear()
            shutil.rmtree(self._folder("logs"), ignore_errors=True)
        finally:
            self._stopped.set()

    async def wait_stopped(self) -> None:
        await self._stopped.wait()

    # -- containers, and their published ports ---------------------------------------------------------------------------

    async def attach(self, request: Record) -> Record:
        """Put a namespace that exists on the bridge."""
        self._check_dhcp(request)
        return await self._containers.attach(request)

    async def detach(self, name: str) -> None:
        """Take a namespace off the bridge."""
        await self._containers.detach(name)

    async def run(self, request: Record) -> Record:
        """Make a namespace on the bridge; with `detach`, start the command in it too."""
        self._check_dhcp(request)
        return await self._containers.run(request)

    async def started(self, name: str, pid: int) -> Record:
        """A foreground container's process is running; when it ends, the container goes."""
        return await self._containers.started(name, pid)

    async def stop(self, name: str, timeout_s: float) -> None:
        """End a container's process and remove the container."""
        await self._containers.stop(name, timeout_s)

    async def create_network(self, request: Record) -> Record:
        """Make a network."""
        return network_record(await self.networks.create(parse_request(request)), [])

    async def remove_network(self, name: str) -> None:
        """Take a network away that nobody is on."""
        network = self.networks.find(name)
        if network.owner != "natgw":
            raise Conflict(f"network {network.name} was made by {network.owner}, which alone can remove it")
        await self.networks.remove(network)

    async def prune_networks(self) -> list[str]:
        """Take all networks away that nobody is on; gives their names."""
        return [network.name for network in await self.networks.prune()]

    def watch(self) -> Subscription:
        """What happens to networks from now on."""
        return self.events.subscribe()

    async def keep(self) -> None:
        """The daemon will end for a restart: what is attached comes back with the next one."""
        self.store.freeze()

    async def connect(self, network: str, name: str, request: Record) -> Record:
        """Give a container an interface on another network."""
        return await self._containers.connect(network, name, request)

    async def disconnect(self, network: str, name: str) -> Record:
        """Take a container's interface on a network away."""
        return await self._containers.disconnect(network, name)

    async def publish(self, name: str, specs: list[str]) -> Record:
        """Publish ports of a container that runs."""
        return await self._containers.publish(name, specs)

    async def unpublish(self, name: str, specs: list[str]) -> Record:
        """Take published ports back."""
        return await self._containers.unpublish(name, specs)

    async def logs(self, name: str) -> Path:
        """Where a container's output is."""
        container = self._roster.find(name).container
        path = self._containers.log_path(container)
        if container.kind != "run" or not path.exists():
            raise NotFound(f"container {name} has no log: natgw keeps one for containers of `natgw run -d`")
        return path

    # -- how it translates -----------------------------------------------------------------------------------------------

    async def nat(self) -> Record:
        """How the translator behaves."""
        return natconfig.record(self.datapath.napt.nat)

    async def set_nat(self, changes: Record) -> Record:
        """Behave otherwise from now on; flows that exist go on. Gives how it behaves then. Raises NatgwError."""
        self.datapath.set_nat(natconfig.changed(self.datapath.napt.nat, changes))
        return await self.nat()

    # -- what there is -------------------------------------------------------------------------------------------------------

    async def status(self) -> Record:
        network = self.networks.default
        return {
            "version": __version__, "pid": os.getpid(), "uptime_s": round(time.monotonic() - self._started, 1),
            "socket": str(self.options.socket), "uplink": None if self._uplink is None else self._uplink.record(),
            "network": network.name, "subnet": str(network.subnet), "gateway": str(network.gateway),
            "subnet6": None if network.ipam6 is None else str(network.ipam6.subnet),
            "gateway6": None if network.ipam6 is None else str(network.ipam6.gateway),
            "networks": len(self.networks.all()), "containers": len(self._roster), "flows": len(self.datapath.napt.flows),
        }

    async def list_containers(self) -> list[Record]:
        """natgw's own, then those of engines."""
        return [container.record() for container in self._all_containers()]

    def _all_containers(self) -> list[Container]:
        return [*(member.container for member in self._roster), *self._roster.foreign()]

    async def container(self, name: str) -> Record:
        return self._roster.find_any(name).record()

    async def ports(self) -> list[Record]:
        return [{"container": container.name, **port.record()} for container in self._all_containers()
                for port in container.ports]

    async def list_networks(self) -> list[Record]:
        return [self._network_record(network) for network in self.networks.all()]

    async def inspect_network(self, name: str) -> Record:
        return self._network_record(self.networks.find(name))

    def _network_record(self, network: Network) -> Record:
        return network_record(network, self.endpoints.of(network), self._roster.without_link(network))

    async def flows(self) -> list[Record]:
        return self.datapath.flow_records(time.monotonic())

    async def fdb(self) -> list[Record]:
        return self.datapath.fdb_records(time.monotonic())

    async def neigh(self) -> list[Record]:
        return self.datapath.neighbour_records(time.monotonic())

    async def stats(self) -> Record:
        served = {f"{name}_{what}": number for name, count in (("dns", self._dns.count), ("dhcp", self._dhcp.count))
                  for what, number in count.items()}
        return {"counters": self.datapath.counters() | served, "ports": self.datapath.port_records()}

    # -- small ---------------------------------------------------------------------------------------------------------------

    def _check_dhcp(self, request: Record) -> None:
        """Whether somebody is there to give an address to an interface that is left without. Raises NatgwError."""
        if request.get("dhcp"):
            network = self.networks.find(request.get("network") or DEFAULT_NETWORK)
            if not self._dhcp.serves(network):
                raise NatgwError(f"network {network.name} has no DHCP server: start natgw with `natgw up --dhcp`, or create a "
                                 "network with the option natgw.dhcp=true")

    def _unique_local_prefix(self) -> IPv6Network:
        """That of all networks that have no other: made when it is needed first, and kept with them."""
        kept = self.store.setting(UNIQUE_LOCAL_PREFIX)
        prefix = unique_local_prefix() if kept is None else IPv6Network(kept)
        if kept is None:
            self.store.save_setting(UNIQUE_LOCAL_PREFIX, str(prefix))
        return prefix

    def _folder(self, name: str) -> Path:
        return self.options.state_dir / name

    def _lost(self, endpoint: Endpoint) -> None:
        if self._stopping:
            return
        if endpoint.owner == "natgw":
            self._containers.lost(endpoint)
        else:
            self._background(self.endpoints.unplug(endpoint))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        if self._stopping:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    """What fails on the way out must not keep the rest from being removed."""
    try:
        await work
    except Exception:
        log.exception("a service did not stop as it should")
