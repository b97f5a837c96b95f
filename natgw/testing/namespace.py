"""A real natgw in network namespaces made for it: a gateway host, a host outside, and containers."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from pyroute2 import IPRoute, NetNS, netns

from natgw.cli.lifecycle import CAP_NET_ADMIN, CAP_SYS_ADMIN

OUTSIDE, GATEWAY = "198.51.100.1", "198.51.100.2"
_TIMEOUT_S = 60


def why_not() -> str:
    """Why a real gateway cannot be made here; empty if it can."""
    if shutil.which("ip") is None:
        return "natgw_namespace needs the program ip (iproute2)"
    status = Path("/proc/self/status").read_text()
    effective = int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)
    if not all(effective >> power & 1 for power in (CAP_NET_ADMIN, CAP_SYS_ADMIN)):
        return "natgw_namespace needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN)"
    return ""


class NamespaceGateway:
    """`gateway` and `outside` are names of namespaces on one wire; natgw runs in the first. All goes when it is left.

    `up` are options of `natgw up`. The gateway has 198.51.100.2 there, and the outside, its next hop, 198.51.100.1.
    """

    def __init__(self, folder: Path, up: Sequence[str] = ()) -> None:
        self._up = list(up)
        suffix = secrets.token_hex(3)
        self.gateway, self.outside = f"natgw-gw-{suffix}", f"natgw-out-{suffix}"
        self._socket = folder / "natgw.sock"
        self._made: list[str] = []

    def __enter__(self) -> NamespaceGateway:
        try:
            for name in (self.gateway, self.outside):
                self._create(name)
            with NetNS(self.gateway) as ours:
                ours.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": self.outside})
            for name, address in ((self.gateway, GATEWAY), (self.outside, OUTSIDE)):
                with NetNS(name) as inside:
                    self._address(inside, address)
            with NetNS(self.gateway) as ours:
                ours.route("add", dst="default", gateway=OUTSIDE)
            self.natgw("up", "--detach", *self._up)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _create(self, name: str) -> None:
        netns.create(name)
        self._made.append(name)
        with NetNS(name) as inside:
            inside.link("set", index=1, state="up")

    @staticmethod
    def _address(inside: IPRoute, address: str) -> None:
        (index,) = inside.link_lookup(ifname="eth0")
        inside.addr("add", index=index, address=address, prefixlen=24)
        inside.link("set", index=index, state="up")

    def run(self, namespace: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in a namespace. Raises AssertionError with its output if it fails, unless `check` is false."""
        environment = {**os.environ, "NATGW_SOCKET": str(self._socket)}
        done = subprocess.run(["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=_TIMEOUT_S, env=environment)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} in {namespace}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def natgw(self, *args: str, check: bool = True) -> str:
        """The natgw command, in the gateway's namespace; gives what it printed."""
        return self.run(self.gateway, sys.executable, "-m", "natgw", *args, check=check).stdout

    def container(self, name: str, *args: str) -> str:
        """A namespace attached as container `name`; gives the namespace's name. `args` go to `natgw attach`."""
        namespace = f"{self.gateway}-{name}"
        self._create(namespace)
        self.natgw("attach", namespace, "--name", name, *args)
        return namespace

    def close(self) -> None:
        if self._socket.exists():
            self.natgw("down", check=False)
        while self._made:
            netns.remove(self._made.pop())
