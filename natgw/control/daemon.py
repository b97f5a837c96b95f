"""The daemon: one network, its containers, its way out. Methods are what the control API calls; values are JSON-able.

Blocking work (netlink, namespaces) runs in threads; everything that touches the datapath runs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import subprocess
import time
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

from natgw import __version__
from natgw.control import containers, names
from natgw.control.containers import Watch
from natgw.control.endpoints import Endpoints
from natgw.control.inspect import default_bridge_options, network_record
from natgw.control.ipam import AddressPool
from natgw.control.ledger import Entry, Ledger, remove_leftovers, start_time
from natgw.control.model import Container, Network
from natgw.control.options import DaemonOptions
from natgw.control.portspec import parse_port_specs
from natgw.control.publishing import Published, Publisher
from natgw.control.uplink import UplinkManager
from natgw.datapath import Datapath, DatapathConfig, NetworkConfig, PortKind
from natgw.errors import Conflict, NatgwError, NotFound
from natgw.host import interfaces, links, netns
from natgw.host.links import Link
from natgw.host.pump import Pump
from natgw.wire.ethernet import is_group, parse_mac

log = logging.getLogger(__name__)

HOST_DEVICE = "natgw0"
DEFAULT_NETWORK = "bridge"
LINK_KINDS = ("tap", "veth")
STOP_ALL_AFTER_S = 5.0

Record = dict[str, Any]


class _Run:
    """The process side of a container of `natgw run`."""

    def __init__(self, watch: Watch, process: subprocess.Popen[bytes] | None, entry: Entry | None) -> None:
        self.watch = watch
        self.process = process
        self.entry = entry


class Daemon:
    """`start` makes everything or nothing; `shutdown` removes it; between them the other methods serve."""

    def __init__(self, options: DaemonOptions) -> None:
        if options.link not in LINK_KINDS:
            raise NatgwError(f"link {options.link!r} is neither tap nor veth")
        try:
            config = DatapathConfig(port_range=options.port_range, exclusive=options.exclusive_uplink)
        except ValueError as error:
            raise NatgwError(str(error)) from None
        self.options = options
        self.datapath = Datapath(config)
        self._started = time.monotonic()
        self._stopped = asyncio.Event()
        self._stopping = False
        self._containers: dict[str, Container] = {}
        self._runs: dict[str, _Run] = {}
        self._namespaces: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._rng = random.Random()
        self._ledger = Ledger(options.state_dir / "ledger.jsonl")
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
        self._ledger.clear()
        try:
            await self._make()
        except BaseException:
            await self.shutdown()
            raise

    async def _make(self) -> None:
        options = self.options
        network = self.network = self._new_network()
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
                                      transmit=pump.transmitter(link))
        pump.add(port, link, lambda port, error: log.warning("%s is gone: %s", port.name, error.strerror))
        self._uplink = UplinkManager(options, self.datapath, pump, self._ledger)
        await self._uplink.start()
        pool = AddressPool(network.subnet, f"{network.name} ({network.id})")
        pool.reserve(network.gateway)
        self._publisher = Publisher(self.datapath, self._uplink)
        self._endpoints = Endpoints(network, self._bridge, self.datapath, pump, self._publisher, pool, self._ledger,
                                    self._vanished)
        pump.start()

    def _new_network(self) -> Network:
        options = self.options
        subnet = options.subnet
        if subnet.prefixlen > 30:
            raise NatgwError(f"subnet {subnet} has no room for a gateway and a container: use a /30 or larger")
        gateway = options.gateway or next(subnet.hosts())
        if gateway not in subnet or gateway in (subnet.network_address, subnet.broadcast_address):
            raise NatgwError(f"gateway {gateway} is not a host address of {subnet}")
        if not 68 <= options.mtu <= 65535:
            raise NatgwError(f"an MTU of {options.mtu} is not within 68-65535")
        return Network(
            id=names.new_id(), name=DEFAULT_NETWORK, created=names.timestamp(time.time_ns()), subnet=subnet, gateway=gateway,
            gateway_mac=names.mac_for(gateway), mtu=options.mtu, device=HOST_DEVICE,
            options=default_bridge_options(HOST_DEVICE, options.mtu, masquerade=True))

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
            await asyncio.gather(*(self._remove(container, STOP_ALL_AFTER_S) for container in list(self._containers.values())),
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

    # -- containers ------------------------------------------------------------------------------------------------------

    async def attach(self, request: Record) -> Record:
        """Put a namespace that exists on the bridge."""
        path = netns.resolve_target(request["target"])
        if netns.namespace_id(path) == netns.namespace_id("/proc/self/ns/net"):
            raise NatgwError("that is natgw's own namespace: attach another one")
        container = self._new_container(request, "attached", path)
        container.ifname = request.get("ifname") or "eth0"
        container.state = "running"
        await self._connect(container, request)
        return container.record()

    async def detach(self, name: str) -> None:
        container = self._find(name)
        if container.kind != "attached":
            raise NatgwError(f"container {name} was started by `natgw run`: use `natgw stop {name}`")
        await self._remove(container, 0)

    async def run(self, request: Record) -> Record:
        """Make a namespace on the bridge; with `detach`, start the command in it too."""
        container = self._new_container(request, "run", "")
        container.command = list(request["command"])
        try:
            namespace = self._namespaces[container.name] = await asyncio.to_thread(netns.create)
            container.netns = netns.path_of(namespace)
            await self._connect(container, request)
            if request.get("detach"):
                await self._spawn(container, request)
        except BaseException:
            await self._endpoints.disconnect(container)
            self._close_namespace(container)
            self._containers.pop(container.name, None)
            raise
        return container.record()

    async def _spawn(self, container: Container, request: Record) -> None:
        command = container.command or []
        process = await asyncio.to_thread(containers.spawn, container.netns, command, self._log_path(container.name),
                                          request.get("env") or {}, request.get("workdir"))
        entry = self._ledger.note("process", pid=process.pid, start=start_time(process.pid))
        container.pid, container.state = process.pid, "running"
        watch = Watch(process.pid, lambda: self._exited(container))
        self._runs[container.name] = _Run(watch, process, entry)

    async def started(self, name: str, pid: int) -> Record:
        """A foreground container's process is running; when it ends, the container goes."""
        container = self._find(name)
        if container.kind != "run" or container.pid is not None:
            raise Conflict(f"container {name} does not wait for a process")
        watch = Watch(pid, lambda: self._exited(container))
        container.pid, container.state = pid, "running"
        self._runs[name] = _Run(watch, None, None)
        return container.record()

    async def stop(self, name: str, timeout_s: float) -> None:
        """End a container's process and remove the container."""
        container = self._find(name)
        if container.kind == "attached":
            raise NatgwError(f"container {name} was attached, natgw did not start it: use `natgw detach {name}`")
        await self._remove(container, timeout_s)

    def _exited(self, container: Container) -> None:
        run = self._runs.get(container.name)
        if self._stopping or run is None:
            return
        if run.process is not None:
            self._background(self._settle(container, run))
        else:
            self._background(self._remove(container, 0))

    async def _settle(self, container: Container, run: _Run) -> None:
        """A detached container's process has ended: its network goes, its log stays until it is stopped."""
        assert run.process is not None
        code = run.process.wait()
        containers.kill_group(run.process.pid)
        container.exit_code = code if code >= 0 else 128 - code
        container.state, container.pid = "exited", None
        if run.entry is not None:
            self._ledger.forget(run.entry)
        await self._endpoints.disconnect(container)

    async def _remove(self, container: Container, timeout_s: float) -> None:
        """Take a container away with all it has. Safe to be called twice at a time."""
        if self._containers.get(container.name) is not container:
            return
        run = self._runs.pop(container.name, None)
        if run is not None and container.pid is not None:
            await containers.end(run.watch, container.pid, timeout_s)
            if run.process is not None:
                run.process.wait()
                containers.kill_group(run.process.pid)
            if run.entry is not None:
                self._ledger.forget(run.entry)
        if run is not None:
            run.watch.close()
        await self._endpoints.disconnect(container)
        if container.kind == "run":
            self._close_namespace(container)
            self._log_path(container.name).unlink(missing_ok=True)
        self._containers.pop(container.name, None)

    def _close_namespace(self, container: Container) -> None:
        """Let go of a namespace natgw made; the kernel ends it with the last process inside."""
        namespace = self._namespaces.pop(container.name, None)
        if namespace is not None:
            os.close(namespace)

    def _vanished(self, name: str) -> None:
        """A namespace has disappeared with the container's link in it."""
        container = self._containers.get(name)
        if container is not None and not self._stopping:
            self._background(self._remove(container, containers.KILL_AFTER_S))

    async def _connect(self, container: Container, request: Record) -> None:
        try:
            bindings = parse_port_specs(list(request.get("publish") or []))
            ip = _parse_ip(request.get("ip"))
            mac = _parse_mac(request.get("mac"))
            await self._endpoints.connect(container, ip=ip, mac=mac, bindings=bindings)
        except BaseException:
            self._containers.pop(container.name, None)
            raise

    def _new_container(self, request: Record, kind: Any, path: str) -> Container:
        """Reserve a name. Raises Conflict if it is taken."""
        name = request.get("name")
        name = names.generated_name(set(self._containers), self._rng) if name is None else names.check_name(name)
        if name in self._containers:
            raise Conflict(f"endpoint with name {name} already exists in network {self.network.name}")
        link = request.get("link") or self.options.link
        if link not in LINK_KINDS:
            raise NatgwError(f"link {link!r} is neither tap nor veth")
        mtu = request.get("mtu") or self.network.mtu
        if not 68 <= mtu <= 65535:
            raise NatgwError(f"an MTU of {mtu} is not within 68-65535")
        if self._stopping:
            raise Conflict("natgw is going down")
        container = self._containers[name] = Container(
            id=names.new_id(), endpoint_id=names.new_id(), name=name, kind=kind, created=names.timestamp(time.time_ns()),
            netns=path, link=link, mtu=mtu, network=self.network.name, prefixlen=self.network.subnet.prefixlen,
            gateway=self.network.gateway)
        return container

    def _find(self, name: str) -> Container:
        """A container by name, id, or the beginning of an id that only one has."""
        container = self._containers.get(name)
        if container is not None:
            return container
        found = [one for one in self._containers.values() if len(name) >= 4 and one.id.startswith(name)]
        if len(found) != 1:
            raise NotFound(f"No such container: {name} (`natgw ps -a` shows those there are)")
        return found[0]

    # -- published ports ---------------------------------------------------------------------------------------------------

    async def publish(self, name: str, specs: list[str]) -> Record:
        """Publish ports of a container that runs."""
        container = self._find(name)
        if not self._endpoints.is_connected(container):
            raise Conflict(f"container {name} is not running")
        await self._endpoints.publish(container, parse_port_specs(specs))
        return {"ports": [port.record() for port in container.ports]}

    async def unpublish(self, name: str, specs: list[str]) -> Record:
        """Take published ports back: each spec names a container port, and the host's if there are several."""
        container = self._find(name)
        chosen: list[Published] = []
        for binding in parse_port_specs(specs):
            matching = [
                item for item in self._endpoints.published(container)
                if item.protocol == binding.protocol and item.container_port == binding.container_port
                and (not binding.host_ports or item.host_port in binding.host_ports)
                and (binding.host_ip is None or item.host_ip == binding.host_ip)
            ]
            if not matching:
                raise NotFound(f"container {name} has no published port {binding.container_port}/{binding.protocol} like that "
                               f"(`natgw port {name}` shows those it has)")
            chosen += [item for item in matching if item not in chosen]
        await self._endpoints.unpublish(container, chosen)
        return {"ports": [port.record() for port in container.ports]}

    # -- what there is -------------------------------------------------------------------------------------------------------

    async def status(self) -> Record:
        return {
            "version": __version__, "pid": os.getpid(), "uptime_s": round(time.monotonic() - self._started, 1),
            "socket": str(self.options.socket), "uplink": None if self._uplink is None else self._uplink.record(),
            "network": self.network.name, "subnet": str(self.network.subnet), "gateway": str(self.network.gateway),
            "containers": len(self._containers), "flows": len(self.datapath.napt.flows),
        }

    async def list_containers(self) -> list[Record]:
        return [container.record() for container in self._containers.values()]

    async def container(self, name: str) -> Record:
        return self._find(name).record()

    async def ports(self) -> list[Record]:
        return [{"container": container.name, **port.record()} for container in self._containers.values()
                for port in container.ports]

    async def networks(self) -> list[Record]:
        return [network_record(self.network, self._containers.values())]

    async def inspect_network(self, name: str) -> Record:
        if name != self.network.name and not (len(name) >= 4 and self.network.id.startswith(name)):
            raise NotFound(f"network {name} not found")
        return network_record(self.network, self._containers.values())

    async def flows(self) -> list[Record]:
        return self.datapath.flow_records(time.monotonic())

    async def fdb(self) -> list[Record]:
        return self.datapath.fdb_records(time.monotonic())

    async def neigh(self) -> list[Record]:
        return self.datapath.neighbour_records(time.monotonic())

    async def stats(self) -> Record:
        return {"counters": self.datapath.counters(), "ports": self.datapath.port_records()}

    async def logs(self, name: str) -> Path:
        """Where a container's output is."""
        container = self._find(name)
        if container.kind != "run" or not self._log_path(container.name).exists():
            raise NotFound(f"container {name} has no log: natgw keeps one for containers of `natgw run -d`")
        return self._log_path(container.name)

    # -- small ---------------------------------------------------------------------------------------------------------------

    def _folder(self, name: str) -> Path:
        return self.options.state_dir / name

    def _log_path(self, name: str) -> Path:
        return self._folder("logs") / f"{name}.log"

    def _background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _parse_ip(text: str | None) -> IPv4Address | None:
    if text is None:
        return None
    try:
        return IPv4Address(text)
    except ValueError:
        raise NatgwError(f"invalid IPv4 address: {text}") from None


def _parse_mac(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        mac = parse_mac(text)
    except ValueError as error:
        raise NatgwError(str(error)) from None
    if is_group(mac) or not any(mac):
        raise NatgwError(f"{text} cannot be the address of one station")
    return mac
