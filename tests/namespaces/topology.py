"""A laboratory of namespaces: an outside host, a gateway host where natgw runs, and plain namespaces as containers.

Everything has a random suffix and lives in the laboratory's own namespaces; `close` removes it all, and says what natgw had
left behind.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.namespaces.folders import make_folder

T = TypeVar("T")

OUTSIDE, GATEWAY = "198.51.100.1", "198.51.100.2"
COMMAND_TIMEOUT_S = 60.0


def eventually(condition: Callable[[], T], *, within_s: float = 10.0, every_s: float = 0.02) -> T:
    """The first true value of `condition()`. Raises TimeoutError after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"did not happen within {within_s} s: {value!r}")
        time.sleep(every_s)
    return value


class Namespace:
    """A network namespace made by name, with its loopback up."""

    def __init__(self, label: str, suffix: str) -> None:
        self.name = f"t-{label}-{suffix}"
        ip("netns", "add", self.name)
        ip("-n", self.name, "link", "set", "lo", "up")
        self._processes: list[subprocess.Popen[str]] = []

    @property
    def path(self) -> str:
        return f"/run/netns/{self.name}"

    def command(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command: str, timeout_s: float = COMMAND_TIMEOUT_S, check: bool = True,
            env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command inside; its output is in the error if it fails."""
        done = subprocess.run(self.command(*command), capture_output=True, text=True, timeout=timeout_s, check=False,
                              stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} in {self.name}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def spawn(self, *command: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.Popen[str]:
        """Start a program inside, ended with the namespace."""
        process = subprocess.Popen(self.command(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}, cwd=cwd,
                                   start_new_session=True)
        self._processes.append(process)
        return process

    def end(self, process: subprocess.Popen[str]) -> str:
        """End a program, and give what it printed."""
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=10)
        if process in self._processes:
            self._processes.remove(process)
        return output

    def listening(self, port: int, protocol: str = "tcp") -> bool:
        flag = "-tln" if protocol == "tcp" else "-uln"
        return f":{port} " in self.run("ss", flag).stdout

    def links(self) -> set[str]:
        return {link["ifname"] for link in json.loads(self.run("ip", "-j", "link").stdout)}

    def address(self, ifname: str = "eth0") -> tuple[str, str]:
        """(address/length, MAC) of an interface."""
        (link,) = json.loads(self.run("ip", "-j", "addr", "show", "dev", ifname).stdout)
        (inet,) = (info for info in link["addr_info"] if info["family"] == "inet")
        return f"{inet['local']}/{inet['prefixlen']}", link["address"]

    def close(self) -> None:
        for process in list(self._processes):
            self.end(process)
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)


class Lab:
    """An outside host and a gateway host on one wire, and natgw in the gateway host's namespace."""

    def __init__(self) -> None:
        self.suffix = secrets.token_hex(3)
        self.folder = make_folder(self.suffix)
        self.socket = self.folder / "run" / "n.sock"
        self._namespaces: list[Namespace] = []
        self.daemons: list[Path] = []
        self.outside = self.namespace("out")
        self.gateway = self.namespace("gw")
        ip("-n", self.gateway.name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", self.outside.name)
        for namespace, address in ((self.outside, OUTSIDE), (self.gateway, GATEWAY)):
            ip("-n", namespace.name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", namespace.name, "link", "set", "eth0", "up")
        ip("-n", self.gateway.name, "route", "add", "default", "via", OUTSIDE)

    def namespace(self, label: str) -> Namespace:
        made = Namespace(label, self.suffix)
        self._namespaces.append(made)
        return made

    def natgw(self, *args: str, check: bool = True, socket: Path | None = None,
              within: Namespace | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command line in the gateway host's namespace."""
        return (within or self.gateway).run(*self.natgw_command(*args), check=check,
                                            env={"NATGW_SOCKET": str(socket or self.socket)})

    @staticmethod
    def natgw_command(*args: str) -> list[str]:
        return [sys.executable, "-m", "natgw", *args]

    def json(self, *args: str) -> Any:
        return json.loads(self.natgw(*args, "--json").stdout)

    def up(self, *args: str) -> int:
        """Start natgw detached; gives its pid."""
        self.natgw("up", "--detach", *args)
        pid: int = self.json("status")["pid"]
        return pid

    def counters(self) -> dict[str, int]:
        counted: dict[str, int] = self.json("stats")["counters"]
        return counted

    def container(self, label: str, *args: str) -> Namespace:
        """A plain namespace attached as container `label`."""
        namespace = self.namespace(label)
        self.natgw("attach", namespace.name, "--name", label, *args)
        return namespace

    def leftovers(self) -> list[str]:
        """What natgw left in the gateway host's namespace, if it is down."""
        found = [name for name in self.gateway.links() if name not in ("lo", "eth0")]
        found += self.gateway.run("tc", "filter", "show", "dev", "eth0", "ingress").stdout.splitlines()
        qdiscs = self.gateway.run("tc", "qdisc", "show", "dev", "eth0").stdout.splitlines()
        found += [line for line in qdiscs if "clsact" in line]
        found += self.gateway.run("cat", "/proc/sys/net/ipv4/ip_local_reserved_ports").stdout.split()
        found += [str(path) for path in self.socket.parent.rglob("*")] if self.socket.parent.exists() else []
        return found

    def close(self) -> None:
        if self.socket.exists():
            self.natgw("down", check=False)
        for namespace in self._namespaces:
            namespace.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True, timeout=20)


_WEB_SERVER = """
import functools, http.server, socketserver, sys
server = http.server.ThreadingHTTPServer
server.server_bind = socketserver.TCPServer.server_bind  # http.server's asks DNS for its own name, and here nobody answers
server.request_queue_size = 1024  # the default of 5 drops connections when many come at once
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[2])
server(("", int(sys.argv[1])), handler).serve_forever()
"""


def web_server(namespace: Namespace, port: int, folder: Path) -> subprocess.Popen[str]:
    """Python's web server in a namespace, listening when this returns."""
    process = namespace.spawn(sys.executable, "-u", "-c", _WEB_SERVER, str(port), str(folder))
    eventually(lambda: namespace.listening(port))
    return process
