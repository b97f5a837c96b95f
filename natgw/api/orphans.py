"""Foreground containers whose `natgw run` has died.

`natgw run` has a container made, starts the process itself, and has the container removed when that ends. Should it be
killed itself, nobody would do so, and the process would run on without a terminal. So the process behind the request, known
from the credentials of its connection, is watched here: when it ends, the container goes, if it is still there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from natgw.api.backend import Backend
from natgw.api.http import Peer
from natgw.errors import NatgwError

STOP_TIMEOUT_S = 5.0


class Orphans:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._watched: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def adopt(self, container_id: str, peer: Peer) -> None:
        """Remove the container when the process at the other end of the connection has ended."""
        try:
            ended = os.pidfd_open(peer.pid())
        except OSError:  # it has ended already, or is in a pid namespace that we cannot see
            if peer.gone:
                self._remove_soon(container_id)
            return
        self._watched.add(ended)
        asyncio.get_running_loop().add_reader(ended, self._on_end, ended, container_id)

    def close(self) -> None:
        """Watch nobody any more."""
        for ended in list(self._watched):
            self._forget(ended)

    def _on_end(self, ended: int, container_id: str) -> None:
        self._forget(ended)
        self._remove_soon(container_id)

    def _forget(self, ended: int) -> None:
        self._watched.discard(ended)
        asyncio.get_running_loop().remove_reader(ended)
        os.close(ended)

    def _remove_soon(self, container_id: str) -> None:
        task = asyncio.get_running_loop().create_task(self._remove(container_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _remove(self, container_id: str) -> None:
        with contextlib.suppress(NatgwError):  # gone already, as it should be
            await self._backend.stop(container_id, STOP_TIMEOUT_S)
