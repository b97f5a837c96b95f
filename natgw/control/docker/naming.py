"""The names that go with Docker's ids: libnetwork tells a driver neither the network's name nor the container's.

After a request that changed a network, and never while one is being answered, Docker's API is asked what the network is called,
and who is on it (GET /networks/ID). What is not known yet is asked again a few times; what stays unknown, because there is no
API to be reached from here, is called by its short id. Nothing depends on it but what people read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from natgw.control.docker import engine
from natgw.control.endpoints import Endpoints
from natgw.control.model import Network
from natgw.control.networks import Networks
from natgw.control.store import Store

log = logging.getLogger(__name__)

DEFAULT_HOST = "unix:///var/run/docker.sock"
WAITS_S = (0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0)
"""Before each look: a container is on its network in Docker's eyes a while after its driver has put it there."""
ANSWER_S = 5.0

Record = dict[str, Any]


def api_socket(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Docker's socket, as DOCKER_HOST names it; None if it is not on this machine."""
    host = environ.get("DOCKER_HOST") or DEFAULT_HOST
    return Path(host.removeprefix("unix://")) if host.startswith("unix://") else None


class Naming:
    """Looks networks up in the background, one after the other."""

    def __init__(self, networks: Networks, endpoints: Endpoints, store: Store, socket: Path | None) -> None:
        self._networks = networks
        self._endpoints = endpoints
        self._store = store
        self._socket = socket
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def look(self, network_id: str) -> None:
        """Ask for the names of a network and of who is on it, soon. A look that is under way begins anew."""
        if self._socket is None:
            return
        before = self._tasks.pop(network_id, None)
        if before is not None:
            before.cancel()
        task = asyncio.get_running_loop().create_task(self._look(network_id))
        self._tasks[network_id] = task
        task.add_done_callback(lambda task: self._done(network_id, task))

    def look_everywhere(self) -> None:
        for network in self._networks.all():
            if network.owner == "docker":
                self.look(network.id)

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, network_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(network_id) is task:
            del self._tasks[network_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("docker: no names for network %s: %s", network_id[:12], error)

    async def _look(self, network_id: str) -> None:
        for wait in WAITS_S:
            await asyncio.sleep(wait)
            network = next((network for network in self._networks.all() if network.id == network_id), None)
            if network is None:
                return
            found = await self._ask(f"/networks/{network_id}")
            if found is not None and self._take(network, found):
                return

    async def _ask(self, path: str) -> Record | None:
        """What Docker says; None if it does not answer, or does not know."""
        assert self._socket is not None
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(ANSWER_S):
                answer = await engine.get(self._socket, path)
                return answer if isinstance(answer, dict) else None
        return None

    def _take(self, network: Network, found: Record) -> bool:
        """Call everything by its name; whether nobody on the network is without one now."""
        self._rename(network, str(found.get("Name") or network.name))
        labels = found.get("Labels")
        if isinstance(labels, dict):
            network.labels = {str(key): str(value) for key, value in labels.items()}
        network.attachable = bool(found.get("Attachable"))
        self._store.save_network(network)
        containers = found.get("Containers") or {}
        named = {entry["EndpointID"]: (container, entry["Name"]) for container, entry in containers.items()}
        complete = True
        for endpoint in self._endpoints.of(network):
            if endpoint.id in named:
                endpoint.container_id, endpoint.name = named[endpoint.id]
                if endpoint.port is not None:
                    endpoint.port.name = endpoint.name
                self._store.name_endpoint(endpoint)
            elif endpoint.owner == "docker" and not endpoint.container_id:
                complete = False
        return complete

    def _rename(self, network: Network, name: str) -> None:
        """A name that a network of natgw's has already stays that one's."""
        if name != network.name and not any(other.name == name for other in self._networks.all()):
            self._networks.rename(network, name)
