"""A daemon without a network: it answers like the real one, remembers what it was asked, and fails on demand.

`python -m tests.unit.fake_daemon SOCKET [--fail]` serves it as `natgw up` serves the real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from natgw.api.http import Server
from natgw.api.routes import make_app
from natgw.control import natconfig
from natgw.control.events import Events, Subscription
from natgw.control.options import DaemonOptions
from natgw.datapath import NatConfig
from natgw.errors import Conflict, NatgwError, NotFound
from tests.unit.fake_cni import FakeCni

Record = dict[str, Any]
CREATED = "2020-02-02T10:20:30.123456789Z"


def container(name: str = "web", number: int = 2, **changes: Any) -> Record:
    """As GET /v1/containers/NAME gives it."""
    return {
        "id": f"{number:x}" * 64, "name": name, "kind": "run", "state": "running", "pid": 4242, "command": ["sleep", "inf"],
        "netns": "/proc/self/ns/net", "link": "tap", "device": f"tap{number}", "ifname": "eth0", "ip": f"172.17.0.{number}",
        "prefixlen": 16, "mac": f"02:42:ac:11:00:0{number}", "gateway": "172.17.0.1", "mtu": 1500, "offload": True,
        "network": "bridge", "networks": {"bridge": {
            "ip": f"172.17.0.{number}", "aliases": [], "network_id": "7b" * 32}}, "created": CREATED, "exit_code": None,
        "ports": [{"protocol": "tcp", "host_ip": host, "host_port": 8080, "container_port": 80} for host in ("0.0.0.0", "::")],
    } | changes


def flow(protocol: str = "tcp", src: str = "172.17.0.2", sport: int = 5000, size: int = 600) -> Record:
    return {
        "protocol": protocol, "state": "ESTABLISHED", "timeout_s": 7437, "assured": True,
        "network": "bridge", "kind": "outbound",
        "original": {"src": src, "sport": sport, "dst": "192.0.2.9", "dport": 80, "packets": 5, "bytes": size},
        "reply": {"src": "192.0.2.9", "sport": 80, "dst": "192.0.2.2", "dport": 45000, "packets": 4, "bytes": 1500},
        "mapping": {"internal": f"{src}:{sport}", "external": "192.0.2.2:45000"},
    }


NETWORK = {"Name": "bridge", "Id": "7b" * 32, "Created": CREATED, "Scope": "local", "Driver": "bridge", "Labels": {}}


class FakeDaemon:
    """`calls` lists what was asked; `broken` makes every method fail as only a bug can."""

    def __init__(self, logs: Path | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.containers: dict[str, Record] = {}
        self.flow_records = [flow(), flow("udp", "172.17.0.3", 53, 90_000), flow("tcp", "172.17.0.3", 4000, 7000)]
        self.nat_config = NatConfig()
        self.log_path = logs
        self.cni = FakeCni()
        self.broken = False
        self.events = Events()
        self.changed = threading.Condition()

    # -- for the tests -------------------------------------------------------------------------------------------------

    def add(self, name: str = "web", number: int = 2, **changes: Any) -> Record:
        self.containers[name] = container(name, number, **changes)
        return self.containers[name]

    def _note(self, *call: Any) -> None:
        if self.broken:
            raise ZeroDivisionError("a bug\nin two lines")
        with self.changed:
            self.calls.append(call)
            self.changed.notify_all()

    def wait_for(self, method: str, within_s: float = 10) -> tuple[Any, ...]:
        """The arguments of the first call of this method, made already or soon."""
        def made() -> list[tuple[Any, ...]]:
            return [call for call in self.calls if call[0] == method]

        with self.changed:
            assert self.changed.wait_for(made, within_s), f"{method} was not called; called: {self.calls}"
            return made()[0][1:]

    def _find(self, name: str) -> Record:
        for one in self.containers.values():
            if name in (one["name"], one["id"]):
                return one
        raise NotFound(f"No such container: {name}")

    # -- what natgw.api.backend.Served asks for ------------------------------------------------------------------------------

    async def start(self) -> None:
        self._note("start")

    async def shutdown(self) -> None:
        self._note("shutdown")

    async def status(self) -> Record:
        self._note("status")
        uplink = {"interface": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1500, "up": True, "addresses": ["192.0.2.2/24"],
                  "exclusive": False, "port_range": [40000, 65535]}
        return {"version": "9.8.7", "pid": os.getpid(), "uptime_s": 300.0, "socket": "/run/natgw/natgw.sock", "uplink": uplink,
                "network": "bridge", "subnet": "172.17.0.0/16", "gateway": "172.17.0.1",
                "containers": len(self.containers), "flows": len(self.flow_records)}

    async def list_containers(self) -> list[Record]:
        return list(self.containers.values())

    async def container(self, name: str) -> Record:
        return self._find(name)

    async def run(self, request: Record) -> Record:
        self._note("run", request)
        if request["name"] in self.containers:
            raise Conflict(f"endpoint with name {request['name']} already exists in network bridge")
        if request["command"] == ["nosuch"]:
            raise NatgwError('exec: "nosuch": executable file not found in $PATH')
        state = "running" if request["detach"] else "created"
        return self.add(request["name"] or "quiet_turing", 2 + len(self.containers), state=state, command=request["command"])

    async def started(self, name: str, pid: int) -> Record:
        self._note("started", name, pid)
        found = self._find(name)
        found.update(state="running", pid=pid)
        return found

    async def stop(self, name: str, timeout_s: float) -> None:
        self._note("stop", name, timeout_s)
        del self.containers[self._find(name)["name"]]

    async def attach(self, request: Record) -> Record:
        self._note("attach", request)
        return self.add(request["name"], kind="attached", command=None, pid=None)

    async def detach(self, name: str) -> None:
        self._note("detach", name)
        del self.containers[self._find(name)["name"]]

    async def publish(self, name: str, specs: list[str]) -> Record:
        self._note("publish", name, specs)
        if "80" in specs:
            raise Conflict("Bind for 0.0.0.0:80 failed: port is already allocated")
        return {"ports": self._find(name)["ports"]}

    async def unpublish(self, name: str, specs: list[str]) -> Record:
        self._note("unpublish", name, specs)
        return {"ports": []}

    async def ports(self) -> list[Record]:
        return [{"container": one["name"], **port} for one in self.containers.values() for port in one["ports"]]

    async def list_networks(self) -> list[Record]:
        return [NETWORK]

    async def inspect_network(self, name: str) -> Record:
        if name != "bridge":
            raise NotFound(f"network {name} not found")
        return NETWORK

    async def create_network(self, request: Record) -> Record:
        self._note("create_network", request)
        return NETWORK | {"Name": request["name"]}

    async def remove_network(self, name: str) -> None:
        self._note("remove_network", name)
        if name == "bridge":
            raise NatgwError("bridge is a pre-defined network and cannot be removed")

    async def prune_networks(self) -> list[str]:
        self._note("prune_networks")
        return ["lab"]

    async def connect(self, network: str, name: str, request: Record) -> Record:
        self._note("connect", network, name, request)
        return self._find(name)

    async def disconnect(self, network: str, name: str) -> Record:
        self._note("disconnect", network, name)
        return self._find(name)

    def watch(self) -> Subscription:
        self._note("watch")
        return self.events.subscribe()

    async def keep(self) -> None:
        self._note("keep")

    async def nat(self) -> Record:
        return natconfig.record(self.nat_config)

    async def set_nat(self, changes: Record) -> Record:
        self._note("set_nat", changes)
        self.nat_config = natconfig.changed(self.nat_config, changes)
        return natconfig.record(self.nat_config)

    async def flows(self) -> list[Record]:
        return list(self.flow_records)

    async def fdb(self) -> list[Record]:
        return [{"mac": "02:42:ac:11:00:02", "port": "web", "network": "bridge", "static": False, "age_s": 1.5},
                {"mac": "02:42:ac:11:00:01", "port": "natgw0", "network": "bridge", "static": True, "age_s": None}]

    async def neigh(self) -> list[Record]:
        return [{"ip": "192.0.2.1", "mac": None, "state": "incomplete", "port": None, "network": "uplink", "age_s": 0.2},
                {"ip": "172.17.0.2", "mac": "02:42:ac:11:00:02", "state": "reachable", "port": "web", "network": "bridge",
                 "age_s": 12.0}]

    async def stats(self) -> Record:
        counters = {"bridged": 7, "translated_out": 1234, "flooded": 0, "drop_ttl": 3, "drop_runt": 0, "fast_path": 1200}
        port = {"name": "web", "kind": "endpoint", "mtu": 1500, "rx_frames": 10, "rx_bytes": 12_345, "tx_frames": 8,
                "tx_bytes": 999, "tx_drops": 1, "segmented": 2}
        return {"counters": counters, "ports": [port]}

    async def logs(self, name: str) -> Path:
        self._find(name)
        if self.log_path is None:
            raise NotFound(f"container {name} has no log")
        return self.log_path


@contextlib.contextmanager
def served(daemon: FakeDaemon, path: Path) -> Iterator[None]:
    """The API of the daemon on a unix socket, in a thread with an event loop of its own."""
    serving = threading.Event()
    stop: list[Callable[[], object]] = []

    async def live() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        stop.append(lambda: loop.call_soon_threadsafe(over.set))
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            server = Server(make_app(daemon, lambda: daemon.calls.append(("end",))), listening)
            await server.start()
            try:
                serving.set()
                await over.wait()
            finally:
                await server.stop(0.1)

    thread = threading.Thread(target=asyncio.run, args=(live(),), name="api")
    thread.start()
    assert serving.wait(10)
    try:
        yield
    finally:
        stop[0]()
        thread.join()


class StandIn(FakeDaemon):
    """Served by a process of its own: tells what happens to it on standard output."""

    def __init__(self, options: DaemonOptions, *, fails: bool) -> None:
        super().__init__()
        self.fails = fails

    async def start(self) -> None:
        print("start", flush=True)
        if self.fails:
            raise NatgwError("no such interface: eth7")

    async def shutdown(self) -> None:
        print("shutdown", flush=True)
        await asyncio.to_thread(sys.stdin.read)  # the clean-up takes until the test says so
        print("gone", flush=True)


if __name__ == "__main__":
    from natgw.api.serve import serve

    path = Path(sys.argv[1])
    try:
        serve(DaemonOptions(socket=path), lambda status: print("ready", flush=True),
              make_daemon=lambda options: StandIn(options, fails="--fail" in sys.argv))
    except NatgwError as error:
        sys.exit(str(error))
