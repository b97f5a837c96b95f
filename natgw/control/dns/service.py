"""The name servers of a daemon: at each network's gateway address, and at 127.0.0.11 inside each container that needs it.

A socket inside a container is made when the container joins a user-defined network, and closed when it leaves the last one, or
when its namespace is nobody's any more: the socket itself would keep that alive. Containers of Docker's have Docker's own
resolver at that address, which knows their names.

At a gateway's address only stations of that network are served: names are theirs alone, and nobody else shall have
natgw ask questions for him. It is also where an engine that speaks CNI sends its containers: it writes their resolv.conf, and
a socket of ours inside would be in the way of one of theirs that listens on port 53 of all addresses, as a cluster's DNS does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from ipaddress import ip_address
from typing import TYPE_CHECKING

from natgw.control.dns.files import IN_CONTAINER, ResolvFiles
from natgw.control.dns.zones import NetworksZone, gateways
from natgw.control.events import Event
from natgw.control.model import Endpoint, Network
from natgw.control.processes import processes_in
from natgw.errors import Conflict, NatgwError, NotFound
from natgw.host import dns, netns
from natgw.host.resolvconf import ResolvConf, Watched

if TYPE_CHECKING:
    from natgw.control.daemon import Daemon
    from natgw.control.dns.questions import Questions

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often natgw looks whether the host's resolvers have changed, and whether namespaces are still somebody's."""
COUNTERS = ("answered", "forwarded", "cached", "failed", "retried", "by_tcp", "mismatched", "overloaded", "malformed",
            "foreign")


@dataclass(eq=False)
class _Inside:
    """The server in one namespace; `path` leads to it as long as it is somebody's."""

    path: str
    endpoints: list[Endpoint]
    server: dns.Server | None = None


class DnsService:
    """Started when all networks are there."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._rng = random.SystemRandom()
        self.count: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._resolvers: list[str] = []
        self._questions: Questions | None = None
        self._files = ResolvFiles(daemon.options.state_dir)
        self._watched = Watched()
        self._at_gateway: dict[str, dict[str, dns.Server]] = {}
        self._inside: dict[tuple[int, int], _Inside] = {}
        self._loading: asyncio.Future[object] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._unlisten: Callable[[], None] | None = None

    async def start(self) -> None:
        daemon = self._daemon
        self._loop = asyncio.get_running_loop()
        self._files.clear()
        self._unlisten = daemon.events.listen(self._on_event)
        for network in daemon.networks.all():
            self._serve_network(network)
        self._use_hosts()
        for endpoint in daemon.endpoints.all():
            if endpoint.device:
                self._joined(endpoint)
        self._looking = self._loop.create_task(self._look())

    async def stop(self) -> None:
        """Close all sockets and remove all files. Twice is once."""
        if self._unlisten is not None:
            self._unlisten()
        if self._looking is not None:
            self._looking.cancel()
        if self._questions is not None:
            self._questions.close()
        for server in [*(each for servers in self._at_gateway.values() for each in servers.values()),
                       *(inside.server for inside in self._inside.values() if inside.server is not None)]:
            server.close()
        self._at_gateway.clear()
        self._inside.clear()
        self._files.clear()

    # -- places ----------------------------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        if event.action == "create":
            self._serve_network(event.network)
            self._use_hosts()
        elif event.action == "destroy":
            for server in self._at_gateway.pop(event.network.id, {}).values():
                server.close()
        elif event.endpoint is not None and event.action == "connect":
            self._joined(event.endpoint)
        elif event.endpoint is not None:
            self._left(event.endpoint)

    def _serve_network(self, network: Network) -> None:
        """At the gateway's addresses, if nobody else does."""
        if network.driver != "bridge":
            return
        zone = NetworksZone(self._daemon.endpoints, lambda: [network])
        servers = self._at_gateway[network.id] = {}
        for gateway in gateways(network):
            try:
                sockets = dns.bind(str(gateway))
            except Conflict as error:
                log.warning("no names of network %s at its gateway: %s, by a resolver that listens on all addresses of this "
                            "host", network.name, error)
            except NatgwError as error:
                log.warning("no names of network %s at its gateway: %s", network.name, error)
            else:
                def serve(wire: bytes, source: str, by_tcp: bool, reply: dns.Reply) -> None:
                    if zone.covers(ip_address(source.partition("%")[0])):
                        self._asked().answer(zone, (network.id, source), wire, by_tcp, reply)
                    else:
                        self.count["foreign"] += 1

                servers[str(gateway)] = dns.Server(sockets, serve)

    def at_gateway(self, network: Network) -> list[str]:
        """The addresses at which a network's names are served."""
        return list(self._at_gateway.get(network.id, ()))

    def _load(self) -> None:
        """dnspython takes a tenth of a second to import: not at the start, when nobody asks yet, nor at the first question,
        when frames would wait, but beside them, when there is somebody who may ask."""
        if self._loading is None:
            self._loading = self._loop.run_in_executor(None, import_module, f"{__package__}.questions")

    def _asked(self) -> Questions:
        if self._questions is None:
            from natgw.control.dns.questions import Questions

            self._questions = Questions(self.count, self._rng, self._loop)
            self._questions.use(self._resolvers)
        return self._questions

    def _joined(self, endpoint: Endpoint) -> None:
        self._load()
        self._files.joined(endpoint, self._host_conf())
        if endpoint.network.is_default or endpoint.owner != "natgw" or endpoint.netns is None:
            return
        try:
            key = netns.namespace_id(endpoint.netns)
            inside = self._inside.get(key)
            if inside is None:
                inside = self._inside[key] = self._serve_inside(key, endpoint.netns)
            inside.endpoints.append(endpoint)
        except NatgwError as error:
            log.warning("no names for %s: %s", endpoint.name, error)

    def _serve_inside(self, key: tuple[int, int], path: str) -> _Inside:
        """A server in a namespace. Raises NatgwError. A visit of a fraction of a millisecond: worth no other thread's loop."""
        inside = _Inside(path, [])
        zone = NetworksZone(self._daemon.endpoints, lambda: [endpoint.network for endpoint in inside.endpoints])
        inside.server = dns.Server(netns.run_inside(path, dns.bind, IN_CONTAINER),
                                   lambda wire, source, by_tcp, reply: self._asked().answer(zone, key, wire, by_tcp, reply))
        return inside

    def _left(self, endpoint: Endpoint) -> None:
        self._files.left(endpoint, self._host_conf())
        for key, inside in list(self._inside.items()):
            if endpoint in inside.endpoints:
                inside.endpoints.remove(endpoint)
                if not inside.endpoints:
                    del self._inside[key]
                    if inside.server is not None:
                        inside.server.close()

    # -- the host, and namespaces that end ---------------------------------------------------------------------------------

    def _host_conf(self) -> ResolvConf:
        """What the host asks, or what natgw was told to ask."""
        told = self._daemon.options.dns
        return self._watched.conf if not told else ResolvConf(told, self._watched.conf.search, self._watched.conf.options)

    def _use_hosts(self) -> None:
        """Ask them, but for natgw itself, which would ask itself again and again."""
        own = {str(address) for network in self._daemon.networks.all() if network.driver == "bridge"
               for address in gateways(network)}
        self._resolvers = [server for server in self._host_conf().servers if server not in own]
        if self._questions is not None:
            self._questions.use(self._resolvers)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if self._watched.refresh():
                log.info("the host's resolvers are now %s", ", ".join(self._watched.conf.servers) or "none")
                self._use_hosts()
                self._files.host_changed(self._host_conf())
            for key, inside in list(self._inside.items()):
                if inside.server is not None and not self._is_somebodys(key, inside):
                    log.info("the namespace of %s is nobody's any more", inside.endpoints[0].name)
                    inside.server.close()
                    inside.server = None

    def _is_somebodys(self, key: tuple[int, int], inside: _Inside) -> bool:
        """Whether somebody but natgw's sockets keeps a namespace: its path, or a process in it, which is a path as well."""
        try:
            if netns.namespace_id(inside.path) == key:
                return True
        except NotFound:
            pass
        pid = next((pid for pid in processes_in(key) if pid != os.getpid()), None)
        if pid is not None:
            inside.path = f"/proc/{pid}/ns/net"
        return pid is not None
