"""The life of containers: from the request to the last trace, whatever ends them.

A container goes when it is stopped or detached, when its namespace or its link disappears, or when its process ends. A
detached container's process (`run -d`) leaves the container behind as "exited", with neither address nor namespace,
so that `logs` still has something to show.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

from natgw.control import processes
from natgw.control.connecting import Connections
from natgw.control.dns.files import path_of as resolv_conf_path
from natgw.control.ledger import Ledger
from natgw.control.model import DEFAULT_NETWORK, Container, Endpoint, Network
from natgw.control.networks import Networks
from natgw.control.portspec import parse_port_specs
from natgw.control.processes import Watch
from natgw.control.roster import Member, Record, Roster, Run
from natgw.control.store import Store, StoredEndpoint
from natgw.errors import Conflict, NatgwError, NotFound
from natgw.host import inside, netns

log = logging.getLogger(__name__)

LOST_STOP_S = 10.0
"""Between SIGTERM and SIGKILL for a process whose container has lost its link."""

HOST, NONE = "host", "none"
OWN_NAMESPACE = "/proc/self/ns/net"
NOBODYS = (0, 0)
"""No namespace has this device and inode."""

Background = Callable[[Coroutine[Any, Any, None]], object]


class Containers:
    """`background` is handed what has to be done when something happens that nobody asked for."""

    def __init__(self, roster: Roster, networks: Networks, connections: Connections, ledger: Ledger, store: Store, logs: Path,
                 background: Background) -> None:
        self._roster = roster
        self._networks = networks
        self._connections = connections
        self._ledger = ledger
        self._store = store
        self._logs = logs
        self._background = background

    # -- coming ----------------------------------------------------------------------------------------------------------

    async def attach(self, request: Record) -> Record:
        """Put a namespace that exists on a network. Raises NatgwError, with nothing left behind."""
        path = netns.resolve_target(request["target"])
        if netns.namespace_id(path) == netns.namespace_id(OWN_NAMESPACE):
            raise NatgwError("that is natgw's own namespace: attach another one")
        network = self._networks.find(request.get("network") or DEFAULT_NETWORK)
        if network.driver != "bridge":
            raise NatgwError(f"network {network.name} has no bridge to attach a namespace to")
        member = self._admit(request, "attached", network.name)
        member.container.netns = path
        async with member.lock:
            try:
                await self._connections.join(member, network, request)
                self._store.save_container(member.container)
            except BaseException:
                await self._clear(member)
                raise
            member.container.state = "running"
            return member.container.record()

    async def run(self, request: Record) -> Record:
        """Make a namespace on a network; with `detach`, start the command in it too. Raises as `attach` does."""
        mode, network = self._mode(request)
        member = self._admit(request, "run", mode)
        container = member.container
        container.command = list(request["command"])
        async with member.lock:
            try:
                await self._move_in(member)
                if network is not None:
                    await self._connections.join(member, network, request)
                if request.get("detach"):
                    await self._spawn(member, request)
            except BaseException:
                await self._clear(member)
                raise
            return container.record()

    def _admit(self, request: Record, kind: Literal["run", "attached"], mode: str) -> Member:
        bindings = parse_port_specs(list(request.get("publish") or []))
        member = self._roster.admit(request, kind, mode)
        member.bindings = bindings
        member.container.resolv_conf = self._resolv_conf(member.container)
        return member

    def _mode(self, request: Record) -> tuple[str, Network | None]:
        """What `--network` means: the mode, and the network if there is one to join. Raises NatgwError in Docker's words."""
        wanted = request.get("network") or DEFAULT_NETWORK
        kind, colon, name = wanted.partition(":")
        if kind == "container" and colon:
            if request.get("publish"):
                raise NatgwError("conflicting options: port publishing and the container type network mode")
            other = self._roster.find(name).container
            if other.network_mode == HOST:
                return HOST, None
            if other.state == "exited":
                raise Conflict(f"cannot join network of a non running container: {other.id}")
            return f"container:{other.id}", None
        network = self._networks.find(wanted)
        return network.name, network if network.driver == "bridge" else None

    async def _move_in(self, member: Member) -> None:
        """The namespace that a container's process will be in: one of its own, unless its mode says otherwise."""
        container = member.container
        kind, _, other = container.network_mode.partition(":")
        if container.network_mode == HOST:
            container.netns = f"/proc/{os.getpid()}/ns/net"
        elif kind == "container":
            container.netns = self._roster.find(other).container.netns
        else:
            member.namespace = await asyncio.to_thread(netns.create)
            container.netns = netns.path_of(member.namespace)
            await asyncio.to_thread(inside.loopback_up, container.netns)

    async def restore(self) -> None:
        """Attach again what the store says was attached when natgw was killed, as far as it is still there."""
        endpoints = self._store.endpoints()
        for row in self._store.containers():
            own = [stored for stored in endpoints if stored.row["container_id"] == row["id"]]
            try:
                await self._restore(row, own)
            except NatgwError as error:
                log.warning("%s does not come back: %s", row["name"], error)
                self._store.drop_container(row["id"])
                for stored in own:
                    self._store.drop_endpoint(stored.row["id"])

    async def _restore(self, row: Record, endpoints: list[StoredEndpoint]) -> None:
        if netns.namespace_id(row["netns"]) != (row["netns_device"], row["netns_inode"]):
            raise NotFound(f"there is another namespace at {row['netns']} now")
        member = self._roster.admit({**row, "offload": bool(row["offload"])}, "attached", row["network_mode"])
        container = member.container
        container.netns = row["netns"]
        container.resolv_conf = self._resolv_conf(container)
        member.bindings = [binding for stored in endpoints for binding in stored.bindings]
        async with member.lock:
            try:
                for stored in endpoints:
                    await self._connections.join(member, self._networks.find(stored.row["network"]), stored.request)
            except BaseException:
                await self._clear(member)
                raise
            container.state = "running"

    async def started(self, name: str, pid: int) -> Record:
        """`natgw run` has started a container's process: when it ends, the container goes. Raises NatgwError."""
        member = self._roster.find(name)
        async with member.lock:
            if member not in self._roster:
                raise NotFound(f"No such container: {name}")
            if member.container.kind != "run" or member.run is not None or member.container.state != "created":
                raise Conflict(f"container {name} does not wait for a process")
            self._watch(member, pid, None)
            return member.container.record()

    async def _spawn(self, member: Member, request: Record) -> None:
        container = member.container
        process = await asyncio.to_thread(processes.spawn, container.netns, container.command or [],
                                          self.log_path(container), request.get("env") or {}, request.get("workdir"),
                                          container.resolv_conf)
        self._watch(member, process.pid, process)

    def _watch(self, member: Member, pid: int, process: Any) -> None:
        watch = Watch(pid, lambda: self._exited(member))
        # What runs in a namespace that natgw made belongs to the container; in any other, only this process does.
        namespace = NOBODYS if member.namespace is None else netns.namespace_id(member.container.netns)
        entry = self._ledger.note("process", pid=pid, start=processes.start_time(pid), netns=list(namespace))
        member.run = Run(watch, process, entry)
        member.container.pid, member.container.state = pid, "running"

    # -- going -----------------------------------------------------------------------------------------------------------

    async def detach(self, name: str) -> None:
        """Take a namespace off the bridge, and leave it to its owner."""
        member = self._roster.find(name)
        if member.container.kind != "attached":
            raise NatgwError(f"container {name} was started by `natgw run`: use `natgw stop {name}`")
        await self.remove(member)

    async def stop(self, name: str, timeout_s: float) -> None:
        """End a container's process and remove the container."""
        member = self._roster.find(name)
        if member.container.kind == "attached":
            raise NatgwError(f"container {name} was attached, natgw did not start it: use `natgw detach {name}`")
        await self.remove(member, timeout_s)

    async def remove(self, member: Member, timeout_s: float = 0) -> None:
        """Take a container away with all it has, waiting `timeout_s` seconds between SIGTERM and SIGKILL.

        The wait is outside the lock: a second stop with less patience need not wait for the first.
        """
        async with member.lock:
            run = member.run
        try:
            if run is not None:
                await processes.end(run.watch, run.entry["pid"], timeout_s)
        finally:
            async with member.lock:
                await self._clear(member)

    def lost(self, endpoint: Endpoint) -> None:
        """A container's link has disappeared, with its namespace or by somebody's hand: with the last, the container goes."""
        for member in self._roster:
            if endpoint in member.container.endpoints:
                last = len(member.container.endpoints) == 1
                self._background(self.remove(member, LOST_STOP_S) if last else self._leave(member, endpoint))

    async def _leave(self, member: Member, endpoint: Endpoint) -> None:
        async with member.lock:
            if len(member.container.endpoints) > 1:
                await self._connections.leave(member, endpoint)
                return
        await self.remove(member, LOST_STOP_S)

    def _exited(self, member: Member) -> None:
        run = member.run
        if run is not None:
            self._background(self.remove(member) if run.process is None else self._settle(member))

    async def _settle(self, member: Member) -> None:
        """A detached container's process has ended: its network goes, its log stays until it is stopped."""
        async with member.lock:
            if member in self._roster:
                container = member.container
                container.exit_code = await self._reap(member)
                container.state, container.pid = "exited", None
                await self._empty(member)

    async def _clear(self, member: Member) -> None:
        """Take everything away, and the name last. Twice is once."""
        if member not in self._roster:
            return
        try:
            await self._empty(member)
            await self._reap(member)
        finally:
            if member.container.kind == "run":
                self.log_path(member.container).unlink(missing_ok=True)
            else:
                self._store.drop_container(member.container.id)
            self._roster.dismiss(member)

    async def _empty(self, member: Member) -> None:
        """Network and namespace of a container go; with the namespace, whatever still runs in it."""
        try:
            await self._connections.leave_all(member)
        finally:
            namespace, member.namespace = member.namespace, None
            if namespace is not None:
                await asyncio.to_thread(processes.kill_all, netns.namespace_id(netns.path_of(namespace)))
                os.close(namespace)

    async def _reap(self, member: Member) -> int | None:
        """The end of a container's process; gives its exit code, 128 + N for signal N, if it was our child."""
        run, member.run = member.run, None
        if run is None:
            return None
        run.watch.close()
        self._ledger.forget(run.entry)
        if run.process is None or not run.watch.ended.is_set():
            return None  # not ours to wait for, or beyond killing
        code = await asyncio.to_thread(run.process.wait)
        return code if code >= 0 else 128 - code

    # -- networks, and published ports -------------------------------------------------------------------------------------

    async def connect(self, network_name: str, name: str, request: Record) -> Record:
        """Give a container another interface, on another network. Raises NatgwError in Docker's words."""
        member, network = self._roster.find(name), self._networks.find(network_name)
        async with member.lock:
            container = self._running(member, name)
            _check_connectable(container, network)
            await self._connections.join(member, network, request)
            return container.record()

    async def disconnect(self, network_name: str, name: str) -> Record:
        """Take the interface on a network away from a container."""
        member, network = self._roster.find(name), self._networks.find(network_name)
        async with member.lock:
            if network.driver == "host":
                raise NatgwError("container cannot be disconnected from host network or connected to host network")
            endpoint = member.container.endpoint_on(network)
            if endpoint is None:
                raise NatgwError(f"container {member.container.id} is not connected to network {network.name}")
            await self._connections.leave(member, endpoint)
            return member.container.record()

    async def publish(self, name: str, specs: list[str]) -> Record:
        """Publish ports of a container that runs: all of them, or Conflict and none."""
        member, bindings = self._roster.find(name), parse_port_specs(specs)
        async with member.lock:
            self._running(member, name)
            await self._connections.publish(member, bindings)
            return {"ports": [port.record() for port in member.container.ports]}

    async def unpublish(self, name: str, specs: list[str]) -> Record:
        """Take published ports back: each spec names a container port, and the host's if there are several."""
        member, bindings = self._roster.find(name), parse_port_specs(specs)
        async with member.lock:
            await self._connections.unpublish(member, bindings)
            return {"ports": [port.record() for port in member.container.ports]}

    def _running(self, member: Member, name: str) -> Container:
        if member not in self._roster or member.container.state == "exited":
            raise Conflict(f"container {name} is not running")
        return member.container

    def _resolv_conf(self, container: Container) -> str | None:
        """What its programs are to find as /etc/resolv.conf: its own or another's; None: the host's."""
        if container.network_mode in (HOST, NONE):
            return None
        kind, _, other = container.network_mode.partition(":")
        return str(resolv_conf_path(self._logs.parent, other if kind == "container" else container.id))

    def log_path(self, container: Container) -> Path:
        """Where the output of a detached container goes."""
        return self._logs / f"{container.name}.log"


def _check_connectable(container: Container, network: Network) -> None:
    """Docker's rules of what goes with what (daemon/container_operations.go)."""
    if container.network_mode == HOST or container.network_mode.startswith("container:"):
        raise NatgwError("container sharing network namespace with another container or host cannot be connected to any other "
                         "network")
    if network.driver == "host":
        raise NatgwError("container cannot be disconnected from host network or connected to host network")
    if network.driver == "null" or container.network_mode == "none":
        raise NatgwError("container cannot be connected to multiple networks with one of the networks in private (none) mode")
