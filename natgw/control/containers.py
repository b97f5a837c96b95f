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
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from natgw.control import processes
from natgw.control.endpoints import Endpoints
from natgw.control.ledger import Ledger
from natgw.control.model import Container
from natgw.control.portspec import parse_port_specs
from natgw.control.processes import Watch
from natgw.control.publishing import Published
from natgw.control.roster import Member, Record, Roster, Run
from natgw.errors import Conflict, NatgwError, NotFound
from natgw.host import netns
from natgw.wire.ethernet import is_group, parse_mac

log = logging.getLogger(__name__)

LOST_STOP_S = 10.0
"""Between SIGTERM and SIGKILL for a process whose container has lost its link."""

Background = Callable[[Coroutine[Any, Any, None]], object]


class Containers:
    """`background` is handed what has to be done when something happens that nobody asked for."""

    def __init__(self, roster: Roster, endpoints: Endpoints, ledger: Ledger, logs: Path, background: Background) -> None:
        self._roster = roster
        self._endpoints = endpoints
        self._ledger = ledger
        self._logs = logs
        self._background = background

    # -- coming ----------------------------------------------------------------------------------------------------------

    async def attach(self, request: Record) -> Record:
        """Put a namespace that exists on the bridge. Raises NatgwError, with nothing left behind."""
        path = netns.resolve_target(request["target"])
        if netns.namespace_id(path) == netns.namespace_id("/proc/self/ns/net"):
            raise NatgwError("that is natgw's own namespace: attach another one")
        member = self._roster.admit(request, "attached")
        member.container.netns = path
        async with member.lock:
            try:
                await self._connect(member.container, request)
            except BaseException:
                self._roster.dismiss(member)
                raise
            member.container.state = "running"
            return member.container.record()

    async def run(self, request: Record) -> Record:
        """Make a namespace on the bridge; with `detach`, start the command in it too. Raises as `attach` does."""
        member = self._roster.admit(request, "run")
        container = member.container
        container.command = list(request["command"])
        async with member.lock:
            try:
                member.namespace = await asyncio.to_thread(netns.create)
                container.netns = netns.path_of(member.namespace)
                await self._connect(container, request)
                if request.get("detach"):
                    await self._spawn(member, request)
            except BaseException:
                await self._clear(member)
                raise
            return container.record()

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

    async def _connect(self, container: Container, request: Record) -> None:
        bindings = parse_port_specs(list(request.get("publish") or []))
        await self._endpoints.connect(container, ip=_parse_ip(request.get("ip")), mac=_parse_mac(request.get("mac")),
                                      bindings=bindings)

    async def _spawn(self, member: Member, request: Record) -> None:
        container = member.container
        process = await asyncio.to_thread(processes.spawn, container.netns, container.command or [],
                                          self.log_path(container), request.get("env") or {}, request.get("workdir"))
        self._watch(member, process.pid, process)

    def _watch(self, member: Member, pid: int, process: Any) -> None:
        watch = Watch(pid, lambda: self._exited(member))
        entry = self._ledger.note("process", pid=pid, start=processes.start_time(pid),
                                  netns=list(netns.namespace_id(member.container.netns)))
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

    def lost(self, container: Container) -> None:
        """A container's link has disappeared, with its namespace or by somebody's hand."""
        for member in self._roster:
            if member.container is container:
                self._background(self.remove(member, LOST_STOP_S))

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
            self._roster.dismiss(member)

    async def _empty(self, member: Member) -> None:
        """Network and namespace of a container go; with the namespace, whatever still runs in it."""
        try:
            await self._endpoints.disconnect(member.container)
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

    # -- published ports -------------------------------------------------------------------------------------------------

    async def publish(self, name: str, specs: list[str]) -> Record:
        """Publish ports of a container that runs: all of them, or Conflict and none."""
        member, bindings = self._roster.find(name), parse_port_specs(specs)
        async with member.lock:
            if not self._endpoints.is_connected(member.container):
                raise Conflict(f"container {name} is not running")
            await self._endpoints.publish(member.container, bindings)
            return {"ports": [port.record() for port in member.container.ports]}

    async def unpublish(self, name: str, specs: list[str]) -> Record:
        """Take published ports back: each spec names a container port, and the host's if there are several."""
        member, bindings = self._roster.find(name), parse_port_specs(specs)
        async with member.lock:
            chosen: list[Published] = []
            for binding in bindings:
                matching = [item for item in self._endpoints.published(member.container) if item.matches(binding)]
                if not matching:
                    raise NotFound(f"container {name} has no published port {binding.container_port}/{binding.protocol} "
                                   f"like that (`natgw port {name}` shows those it has)")
                chosen += [item for item in matching if item not in chosen]
            if chosen:
                await self._endpoints.unpublish(member.container, chosen)
            return {"ports": [port.record() for port in member.container.ports]}

    def log_path(self, container: Container) -> Path:
        """Where the output of a detached container goes."""
        return self._logs / f"{container.name}.log"


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
