"""Namespaces for one subject: an outside host, a gateway host and two containers, always the same topology."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

OUTSIDE, GATEWAY = "198.51.100.1", "198.51.100.2"
CONTAINERS = ("172.17.0.2", "172.17.0.3")
COMMAND_TIMEOUT_S = 120.0


class Stage:
    """`outside` and `gateway` on one wire; `one` and `two` are empty namespaces for the subject to connect.

    What is sent to 203.0.113.0/24 ends in the outside, unanswered. `folder` is for files and goes with the stage.
    """

    def __init__(self) -> None:
        suffix = secrets.token_hex(3)
        self.outside, self.gateway, self.one, self.two = (f"b-{label}-{suffix}" for label in ("out", "gw", "one", "two"))
        self._processes: list[subprocess.Popen[str]] = []
        self._made: list[str] = []
        self.folder = Path(tempfile.mkdtemp(prefix="natgw-bench-"))
        try:
            for name in (self.outside, self.gateway, self.one, self.two):
                ip("netns", "add", name)
                self._made.append(name)
                ip("-n", name, "link", "set", "lo", "up")
            ip("-n", self.gateway, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", self.outside)
            for name, address in ((self.outside, OUTSIDE), (self.gateway, GATEWAY)):
                ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
                ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", self.gateway, "route", "add", "default", "via", OUTSIDE)
            ip("-n", self.outside, "route", "add", "blackhole", "203.0.113.0/24")
            self.run(self.outside, "sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=2048 65535")
        except BaseException:
            self.close()
            raise

    def run(self, namespace: str, *command: str, env: dict[str, str] | None = None) -> str:
        """What a command prints that runs in a namespace. Raises RuntimeError with its words if it fails.

        It prints into a file: whoever reads a pipe is woken by each line, and then takes the processor from what is measured.
        """
        with (self.folder / "printed").open("w+") as printed:
            done = subprocess.run(["ip", "netns", "exec", namespace, *command], stdout=printed, stderr=subprocess.PIPE,
                                  text=True, check=False, timeout=COMMAND_TIMEOUT_S, stdin=subprocess.DEVNULL,
                                  env={**os.environ, **(env or {})})
            printed.seek(0)
            output = printed.read()
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or output.strip()}")
        return output

    def serve(self, namespace: str, port: int, *command: str) -> None:
        """Start a server in a namespace; back when it listens. It ends with the stage."""
        self.spawn(namespace, *command)
        wait_for(lambda: f":{port} " in self.run(namespace, "ss", "-tln"), f"port {port} in {namespace}")

    def spawn(self, namespace: str, *command: str) -> None:
        """Start a program in a namespace. It ends with the stage."""
        self._processes.append(subprocess.Popen(
            ["ip", "netns", "exec", namespace, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            stdin=subprocess.PIPE, text=True, start_new_session=True))  # vde_switch ends with its standard input

    def close(self) -> None:
        """Remove everything, whatever state it is in."""
        with undisturbed():
            self._close()

    def _close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        self._made.clear()
        self._processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until something is done: half a clean-up would leave the other half behind."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait_for(condition: Callable[[], bool], what: str, within_s: float = 15.0) -> None:
    """Poll until it is so. Raises RuntimeError naming what was waited for."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {within_s:g} s for {what}")
        time.sleep(0.02)


def ip(*args: str) -> None:
    done = subprocess.run(["ip", *args], capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(args)}: {done.stderr.strip()}")
