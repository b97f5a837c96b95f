"""Containers whose foreground command died before it could say which process is theirs.

`natgw run` has a container made, then starts the process itself and reports its pid, which the daemon watches from then
on. In between, only the process that asked is known, from the credentials of its connection: if that ends first, the
container is removed here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from natgw.api.backend import Backend
from natgw.api.client import peer_pid
from natgw.errors import NatgwError


class Orphans:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._watched: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def adopt(self, container_id: str, transport: asyncio.BaseTransport | None) -> None:
        """Remove the container when the process behind `transport` ends, unless `release` is called before."""
        try:
            ended = os.pidfd_open(_pid_behind(transport))
        except OSError:  # it has ended already, or is in a pid namespace that we cannot see
            if transport is None or transport.is_closing():
                self._remove_soon(container_id)
            return
        self._watched[container_id] = ended
        asyncio.get_running_loop().add_reader(ended, self._on_end, container_id)

    def release(self, container_id: str) -> None:
        ended = self._watched.pop(container_id, None)
        if ended is not None:
            asyncio.get_running_loop().remove_reader(ended)
            os.close(ended)

    def close(self) -> None:
        for container_id in list(self._watched):
            self.release(container_id)

    def _on_end(self, container_id: str) -> None:
        self.release(container_id)
        self._remove_soon(container_id)

    def _remove_soon(self, container_id: str) -> None:
        task = asyncio.get_running_loop().create_task(self._remove(container_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _remove(self, container_id: str) -> None:
        with contextlib.suppress(NatgwError):  # gone already
            container = await self._backend.container(container_id)
            if container["state"] == "created":
                await self._backend.stop(container_id, 0)


def _pid_behind(transport: asyncio.BaseTransport | None) -> int:
    """Raises OSError if the connection is closed."""
    connection = None if transport is None else transport.get_extra_info("socket")
    if connection is None:
        raise OSError("not connected")
    # The event loop's own wrapper need not offer getsockopt.
    with socket.socket(fileno=os.dup(connection.fileno())) as copy:
        return peer_pid(copy)
