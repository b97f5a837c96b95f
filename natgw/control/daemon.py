"""The daemon: one network, its containers, its way out. Methods are what the control API calls; values are JSON-able.

Blocking work (netlink, namespaces) runs in threads; everything that touches the datapath runs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import time
from collections.abc import Coroutine
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from natgw import __version__
from natgw.control import names, natconfig
from natgw.control.containers import Containers
from natgw.control.endpoints import Endpoints
from natgw.control.inspect import default_bridge_options, network_record
from natgw.control.ipam import check_subnet
from natgw.control.ledger import Ledger, remove_leftovers
from natgw.control.model import Container, Network
from natgw.control.options import DaemonOptions
from natgw.control.publishing import Publisher
from natgw.control.roster import SHORTEST_ID, Record, Roster, check_link, check_mtu
from natgw.control.uplink import UplinkManager
from natgw.datapath import Datapath, DatapathConfig, NetworkConfig, PortKind
from natgw.errors import Conflict, NatgwError, NotFound
from natgw.host import interfaces, links
from natgw.host.links import Link
from natgw.host.pump import Pump

log = logging.getLogger(__name__)

HOST_DEVICE = "natgw0"
DEFAULT_NETWORK = "bridge"
STOP_ALL_AFTER_S = 5.0


class Daemon:
    """`start` makes everything or nothing; `shutdown` removes it; between them the other methods serve."""

    def __init__(self, options: DaemonOptions) -> None:
        check_link(options.link)
        check_mtu(options.mtu)
        try:
            config = DatapathConfig(port_range=options.port_range, exclusive=options.exclusive_uplink, nat=options.nat)
        except ValueError as error:
            raise NatgwError(str(error)) from None
        self.options = options
        self.datapath = Datapath(config)
        self.network = self._new_network()
        self._roster = Roster(self.network, options.link, random.Random())
        self._ledger = Ledger(options.state_dir / "ledger.jsonl")
        self._started = time.monotonic()
        self._stopped = asyncio.Event()
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._host_link: Link | None = None
        self._pump: Pump | None = None
        self._uplink: UplinkManager | None = None

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
        except BaseException:
            await self.shutdown()
            raise

    async def _make(self) -> None:
        network = self.network
        await self._check_alone()
        await self._check_overlap()
        loop = asyncio.get_running_loop()
        pump = self._pump = Pump(loop, self.datapath)
        self._bridge = self.datapath.add_network(NetworkConfig(
            name=network.name, subnet=network.subnet, gateway=network.gateway, gateway_mac=network.gateway_mac,
            mtu=network.mtu))
        address = IPv4Interface(f"{network.gateway}/{network.subnet.prefixlen}")
        link = self._host_link = await asyncio.to_thread(
            links.create_host_tap, HOST_DEVICE, network.gateway_mac, address, network.mtu)
        port = self.datapath.add_port(self._bridge, HOST_DEVICE, PortKind.HOST, mtu=network.mtu,
                                      transmit=pump.transmitter(link), coalesces=link.udp_offload)
        pump.add(port, link, lambda port, error: log.warning("%s is gone: %s", port.name, error.strerror))
        self._uplink = UplinkManager(self.options, self.datapath, pump, self._ledger)
        await self._uplink.start()
        endpoints = Endpoints(network, self._bridge, self.datapath, pump, Publisher(self.datapath, self._uplink), self._ledger,
                              self._lost)
        self._containers = Containers(self._roster, endpoints, self._ledger, self._folder("logs"), self._background)
        pump.start()

    def _new_network(self) -> Network:
        options = self.options
        subnet = check_subnet(options.subnet)
        gateway = options.gateway or next(subnet.hosts())
        if gateway not in subnet or gateway in (subnet.network_address, subnet.broadcast_address):
            raise NatgwError(f"gateway {gateway} is not a host address of {subnet}")
        return Network(
            id=names.new_id(), name=DEFAULT_NETWORK, created=names.timestamp(time.time_ns()), subnet=subnet, gateway=gateway,
            gateway_mac=names.mac_for(gateway), mtu=options.mtu, device=HOST_DEVICE,
            options=default_bridge_options(HOST_DEVICE, options.mtu, masquerade=True))

    async def _check_alone(self) -> None:
        if await asyncio.to_thread(interfaces.exists, HOST_DEVICE):
            raise Conflict(f"interface {HOST_DEVICE} exists already: another natgw serves this network namespace; "
                           "start this one in a namespace of its own, or end the other with `natgw down`")

    async def _check_overlap(self) -> None:
        for route in await asyncio.to_thread(interfaces.host_routes):
            if route.overlaps(self.network.subnet):
                raise Conflict(f"Pool overlaps with other one on this address space: {self.network.subnet} meets the host's "
                               f"route to {route}; choose another with --subnet")

    async def shutdown(self) -> None:
        """End the containers and remove every interface, filter, sysctl and file that natgw made. Twice is once."""
        if self._stopping:
            await self._stopped.wait()
            return
        self._stopping = True
        try:
            self._roster.close()
            await asyncio.gather(*(self._containers.remove(member, STOP_ALL_AFTER_S) for member in self._roster),
                                 return_exceptions=True)
            for task in self._tasks:
                task.cancel()
            if self._uplink is not None:
                await self._uplink.stop()
            if self._pump is not None:
                self._pump.close()
            if self._host_link is not None:
                await asyncio.to_thread(self._host_link.close)
            self._ledger.clear()
            shutil.rmtree(self._folder("logs"), ignore_errors=True)
        finally:
            self._stopped.set()

    async def wait_stopped(self) -> None:
        await self._stopped.wait()

    # -- containers, and their published ports ---------------------------------------------------------------------------

    async def attach(self, request: Record) -> Record:
        """Put a namespace that exists on the bridge."""
        return await self._containers.attach(request)

    async def detach(self, name: str) -> None:
        """Take a namespace off the bridge."""
        await self._containers.detach(name)

    async def run(self, request: Record) -> Record:
        """Make a namespace on the bridge; with `detach`, start the command in it too."""
        return await self._containers.run(request)

    async def started(self, name: str, pid: int) -> Record:
        """A foreground container's process is running; when it ends, the container goes."""
        return await self._containers.started(name, pid)

    async def stop(self, name: str, timeout_s: float) -> None:
        """End a container's process and remove the container."""
        await self._containers.stop(name, timeout_s)

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
        return {
            "version": __version__, "pid": os.getpid(), "uptime_s": round(time.monotonic() - self._started, 1),
            "socket": str(self.options.socket), "uplink": None if self._uplink is None else self._uplink.record(),
            "network": self.network.name, "subnet": str(self.network.subnet), "gateway": str(self.network.gateway),
            "containers": len(self._roster), "flows": len(self.datapath.napt.flows),
        }

    async def list_containers(self) -> list[Record]:
        return [member.container.record() for member in self._roster]

    async def container(self, name: str) -> Record:
        return self._roster.find(name).container.record()

    async def ports(self) -> list[Record]:
        return [{"container": member.container.name, **port.record()} for member in self._roster
                for port in member.container.ports]

    async def networks(self) -> list[Record]:
        return [network_record(self.network, [member.container for member in self._roster])]

    async def inspect_network(self, name: str) -> Record:
        if name != self.network.name and not (len(name) >= SHORTEST_ID and self.network.id.startswith(name)):
            raise NotFound(f"network {name} not found")
        return network_record(self.network, [member.container for member in self._roster])

    async def flows(self) -> list[Record]:
        return self.datapath.flow_records(time.monotonic())

    async def fdb(self) -> list[Record]:
        return self.datapath.fdb_records(time.monotonic())

    async def neigh(self) -> list[Record]:
        return self.datapath.neighbour_records(time.monotonic())

    async def stats(self) -> Record:
        return {"counters": self.datapath.counters(), "ports": self.datapath.port_records()}

    # -- small ---------------------------------------------------------------------------------------------------------------

    def _folder(self, name: str) -> Path:
        return self.options.state_dir / name

    def _lost(self, container: Container) -> None:
        if not self._stopping:
            self._containers.lost(container)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        if self._stopping:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
