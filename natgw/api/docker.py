"""The plugin socket: Docker's remote driver protocol, POST with JSON on /run/docker/plugins/NAME.sock.

dockerd finds a driver by its socket's name when a network first asks for `-d NAME` (moby, plugin discovery), and is not told
when it goes: it tries again for 15 seconds, in which natgw may be restarted. Failures are {"Err": ...}, of the IPAM driver
{"Error": ...}, with status 200: with another, dockerd would show the user its own wording around natgw's.

dockerd waits for an answer without end, holding locks. So each request is answered within ANSWER_S, come what may; the work
itself is not broken off, and what comes later for the same endpoint or network waits for it.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from natgw.api.http import Application, Handler, HttpError, Request, Response, Server
from natgw.api.peer import peer_pid
from natgw.control.daemon import Daemon
from natgw.control.docker.addresses import Addresses
from natgw.control.docker.messages import decode
from natgw.control.docker.naming import Naming, api_socket
from natgw.control.docker.network import NetworkDriver
from natgw.errors import Conflict, NatgwError

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"
PLUGINS = Path("/run/docker/plugins")
ANSWER_S = 20.0
GOODBYE_S = 2.0

Record = dict[str, Any]
Method = Callable[[Record], Awaitable[Record]]


def make_plugin_app(network: NetworkDriver, addresses: Addresses, *, answer_s: float = ANSWER_S) -> Application:
    """The application that answers dockerd."""
    plugin = _Plugin(answer_s)
    routes = [("POST", f"/{name}", plugin.answer(name, method)) for name, method in methods(network, addresses).items()]
    return Application(routes, _failure, plugin.finish)


def methods(network: NetworkDriver, addresses: Addresses) -> dict[str, Method]:
    """What can be asked, by name (libnetwork/docs/remote.md, ipam.md)."""
    return {
        "Plugin.Activate": _activate,
        "NetworkDriver.GetCapabilities": network.capabilities,
        "NetworkDriver.CreateNetwork": network.create_network,
        "NetworkDriver.DeleteNetwork": network.delete_network,
        "NetworkDriver.CreateEndpoint": network.create_endpoint,
        "NetworkDriver.DeleteEndpoint": network.delete_endpoint,
        "NetworkDriver.EndpointOperInfo": network.endpoint_info,
        "NetworkDriver.Join": network.join,
        "NetworkDriver.Leave": network.leave,
        "NetworkDriver.ProgramExternalConnectivity": network.publish,
        "NetworkDriver.RevokeExternalConnectivity": network.unpublish,
        "NetworkDriver.DiscoverNew": network.nothing,
        "NetworkDriver.DiscoverDelete": network.nothing,
        "IpamDriver.GetCapabilities": addresses.capabilities,
        "IpamDriver.GetDefaultAddressSpaces": addresses.spaces,
        "IpamDriver.RequestPool": addresses.request_pool,
        "IpamDriver.ReleasePool": addresses.release_pool,
        "IpamDriver.RequestAddress": addresses.request_address,
        "IpamDriver.ReleaseAddress": addresses.release_address,
    }


async def _activate(request: Record) -> Record:
    return {"Implements": ["NetworkDriver", "IpamDriver"]}


class _Plugin:
    """Requests under way: in order for each endpoint, and answered in time."""

    def __init__(self, answer_s: float) -> None:
        self._answer_s = answer_s
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._working: set[asyncio.Task[Record]] = set()

    def answer(self, name: str, method: Method) -> Handler:
        failure = "Error" if name.startswith("IpamDriver.") else "Err"

        async def handler(request: Request) -> Response:
            try:
                return _response(await self._work(name, method, decode(request.body)))
            except NatgwError as error:
                log.info("docker: %s: %s", name, error)
                return _response({failure: str(error)})
            except Exception as error:
                log.exception("docker: %s failed", name)
                return _response({failure: f"internal error: {type(error).__name__}: {error}"})

        return handler

    async def _work(self, name: str, method: Method, request: Record) -> Record:
        task = asyncio.get_running_loop().create_task(self._in_order(method, request))
        self._working.add(task)
        task.add_done_callback(self._done)
        try:
            async with asyncio.timeout(self._answer_s):
                return await asyncio.shield(task)
        except TimeoutError:
            raise NatgwError(f"natgw is still busy with {name} after {self._answer_s:g} seconds: its log may say why") from None

    async def _in_order(self, method: Method, request: Record) -> Record:
        key = str(request.get("EndpointID") or request.get("NetworkID") or "")
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            return await method(request)

    def _done(self, task: asyncio.Task[Record]) -> None:
        self._working.discard(task)
        if not task.cancelled():
            task.exception()  # the handler has told of it, or nobody waits any more

    async def finish(self) -> None:
        """Let what is under way come to its end."""
        if self._working:
            await asyncio.wait(self._working, timeout=GOODBYE_S)


def _failure(request: Request, error: Exception) -> Response:
    """dockerd takes a 404 for "this driver does not have that", which newer versions ask for things that need not be there."""
    if isinstance(error, HttpError):
        return _response({"Err": f"natgw has no {request.path}"}, 404)
    log.error("docker: %s failed", request.path, exc_info=error)
    return _response({"Err": f"internal error: {type(error).__name__}: {error}"})


def _response(value: Record, status: int = 200) -> Response:
    return Response(status, json.dumps(value).encode(), CONTENT_TYPE)


class DockerService:
    """natgw as a driver of Docker's, for as long as the daemon lives (natgw.control.daemon.Service)."""

    def __init__(self, daemon: Daemon, name: str) -> None:
        self._daemon = daemon
        self._socket = PluginSocket(name, self._make_app)
        self._naming: Naming | None = None
        self._entry: Record | None = None

    async def start(self) -> None:
        """Raises NatgwError."""
        daemon = self._daemon
        self._naming = Naming(daemon.networks, daemon.endpoints, daemon.store, api_socket())
        self._addresses = Addresses(daemon.pools, daemon.pools6)
        self._network = NetworkDriver(daemon.networks, daemon.endpoints, self._addresses, self._naming.look)
        await self._network.forget_stale()
        self._entry = daemon.ledger.note("socket", path=str(self._socket.path))
        await self._socket.start()
        self._naming.look_everywhere()

    async def stop(self) -> None:
        if self._naming is not None:
            await self._naming.stop()
        await self._socket.stop()
        if self._entry is not None:
            self._daemon.ledger.forget(self._entry)
            self._entry = None

    def _make_app(self) -> Application:
        return make_plugin_app(self._network, self._addresses)


class PluginSocket:
    """The socket at which dockerd finds the driver `name`, from `start` to `stop`."""

    def __init__(self, name: str, make_app: Callable[[], Application], folder: Path = PLUGINS) -> None:
        self.path = folder / f"{name}.sock"
        self._name = name
        self._make_app = make_app
        self._server: Server | None = None
        self._bound: tuple[int, int] | None = None
        self._made: list[Path] = []

    async def start(self) -> None:
        """Raises Conflict if another daemon serves the name, NatgwError if the socket cannot be made."""
        try:
            listening = self._listen()
        except OSError as error:
            self._remove()
            raise NatgwError(f"cannot make the plugin socket {self.path}: {error.strerror}") from None
        except BaseException:
            self._remove()
            raise
        self._server = Server(self._make_app(), listening)
        await self._server.start()
        log.info("docker finds the network driver %s at %s", self._name, self.path)

    async def stop(self) -> None:
        """Twice is once."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(GOODBYE_S)
        self._remove()

    def _listen(self) -> socket.socket:
        for parent in reversed([parent for parent in (self.path.parent, *self.path.parent.parents) if not parent.exists()]):
            parent.mkdir(mode=0o755, exist_ok=True)
            self._made.append(parent)
        self._remove_stale()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listening.bind(str(self.path))
        except BaseException:
            listening.close()
            raise
        finally:
            os.umask(before)
        status = os.stat(self.path)
        self._bound = status.st_dev, status.st_ino
        listening.listen()
        listening.setblocking(False)
        return listening

    def _remove_stale(self) -> None:
        """A socket that a natgw left which was killed."""
        if not self.path.exists():
            return
        if not stat.S_ISSOCK(os.lstat(self.path).st_mode):
            raise NatgwError(f"{self.path} is not a socket: remove it, or choose another name with --docker=NAME")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            refused = probe.connect_ex(str(self.path))
            if refused != errno.ECONNREFUSED:
                pid = f" (pid {peer_pid(probe)})" if refused == 0 else ""
                raise Conflict(f"another program{pid} serves Docker's plugin {self._name} at {self.path}: choose another name "
                               "with --docker=NAME")
        self.path.unlink(missing_ok=True)

    def _remove(self) -> None:
        """The socket, if it is still ours, and the directories that were made for it."""
        if self._bound is not None:
            with suppress(FileNotFoundError):
                status = os.stat(self.path)
                if (status.st_dev, status.st_ino) == self._bound:
                    self.path.unlink()
            self._bound = None
        while self._made:
            with suppress(OSError):  # somebody else's files are in it, or it is gone already
                self._made.pop().rmdir()
