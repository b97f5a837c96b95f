"""Where the demonstration happens: an outside host and a gateway, each a network namespace, and a wire between them.

    outside 198.51.100.1 --- veth --- 198.51.100.2 gateway, where natgw runs --- containers

Everything carries the stage's random name, so that all of it can be found again and removed, whatever happened.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

OUTSIDE_ADDRESS = "198.51.100.1"  # from TEST-NET-2 (RFC 5737): nobody's, in no real network
GATEWAY_ADDRESS = "198.51.100.2"
PREFIX = "natgw-demo-"
RUN = Path("/run")
NETNS = RUN / "netns"
MARK = "NATGW_DEMO"


class DemoError(Exception):
    """Something did not go as the demonstration promises; the message is for the person watching."""


class Stage:
    """The namespaces, the directory and the daemon's socket that belong to the name `natgw-demo-XXXX`."""

    def __init__(self, name: str, console: Console) -> None:
        self.name = name
        self.console = console
        self.outside = f"{name}-outside"
        self.gateway = f"{name}-gateway"
        self.directory = RUN / name
        self.socket = self.directory / "natgw.sock"
        # Whatever is started here inherits the mark, natgw and its containers too, and is known by it afterwards.
        self.mark = f"{MARK}={name}"
        self.environment = {**os.environ, "NATGW_SOCKET": str(self.socket), MARK: name}
        if not console.is_terminal:
            self.environment.setdefault("COLUMNS", str(console.width))

    @classmethod
    def new(cls, console: Console) -> Stage:
        return cls(PREFIX + secrets.token_hex(2), console)

    @classmethod
    def left_over(cls, console: Console) -> list[Stage]:
        """Stages that `--keep`, or a demonstration killed outright, has left on this machine."""
        places = [*RUN.glob(PREFIX + "*"), *NETNS.glob(PREFIX + "*")]
        return [cls(name, console) for name in sorted({"-".join(place.name.split("-")[:3]) for place in places})]

    # ---- running things -------------------------------------------------------------------------------------

    def run(self, *command: str | Path, at: str | None = None) -> None:
        """Show a command and run it with its output on the terminal, in the namespace `at` or else in ours."""
        words = [str(word) for word in command]
        self.show(" ".join(words), at)
        done = subprocess.run(inside(at, words), env=self.environment, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise DemoError(f"`{' '.join(words)}` ended with exit code {done.returncode}")

    def show(self, command: str, at: str | None = None) -> None:
        place = f"{at.removeprefix(self.name + '-')} " if at else ""
        self.console.print(Text.assemble((f"{place}$ ", "bold green"), (command, "bold")), soft_wrap=True)
        self.console.file.flush()

    def output(self, *command: str | Path, at: str | None = None) -> str:
        """The standard output of a command that is not shown."""
        words = [str(word) for word in command]
        done = subprocess.run(
            inside(at, words), env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            raise DemoError(done.stderr.strip() or f"`{' '.join(words)}` ended with exit code {done.returncode}")
        return done.stdout

    def succeeds(self, *command: str | Path, at: str | None = None) -> bool:
        try:
            self.output(*command, at=at)
        except DemoError:
            return False
        return True

    def background(self, *command: str | Path, at: str) -> None:
        """Start a server in a namespace of ours; it is found again by its namespace when that is removed."""
        subprocess.Popen(
            inside(at, [str(word) for word in command]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    # ---- making and removing --------------------------------------------------------------------------------

    def build(self) -> None:
        self.directory.mkdir(mode=0o700)
        for name in (self.outside, self.gateway):
            self.run("ip", "netns", "add", name)
        self.run(
            *("ip", "link", "add", "eth0", "netns", self.gateway),
            *("type", "veth", "peer", "name", "eth0", "netns", self.outside),
        )
        for name, address in ((self.outside, OUTSIDE_ADDRESS), (self.gateway, GATEWAY_ADDRESS)):
            self.run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            self.run("ip", "-n", name, "link", "set", "eth0", "up")
            self.run("ip", "-n", name, "link", "set", "lo", "up")
        self.run("ip", "-n", self.gateway, "route", "add", "default", "via", OUTSIDE_ADDRESS)

    def remove(self) -> None:
        """Remove everything of this stage that exists; what is already gone is no error."""
        if self.socket.exists():
            self.show("natgw down")
            subprocess.run(
                [natgw(), "down"], env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
            )
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.processes():
                with_missing_ok(os.kill, pid, number)
            if wait_until(lambda: not self.processes(), within_s=5):
                break
        for name in (self.outside, self.gateway):
            if (NETNS / name).exists():
                subprocess.run(["ip", "netns", "del", name], check=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def leftovers(self) -> list[str]:
        """What of this stage is still there, in words; nothing after `remove()`."""
        return [
            *(f"process {pid}" for pid in self.processes()),
            *(str(path) for path in [*RUN.glob(self.name + "*"), *NETNS.glob(self.name + "*")]),
        ]

    def processes(self) -> list[int]:
        """Processes that carry our mark, or are in one of our namespaces."""
        ours = [os.stat(path).st_ino for path in (NETNS / self.outside, NETNS / self.gateway) if path.exists()]
        return [
            pid for pid, namespace, environment in all_processes() if namespace in ours or self.mark in environment
        ]


def all_processes() -> Iterator[tuple[int, int, list[str]]]:
    """(pid, inode of its network namespace, environment when it started) of every process there is."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environment = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
                yield int(entry.name), os.stat(entry / "ns/net").st_ino, environment
            except OSError:
                continue  # ended meanwhile


def inside(namespace: str | None, words: Sequence[str]) -> list[str]:
    # Not `ip netns exec`: its private mounts would hide from everybody else the namespaces that natgw mounts.
    return [*(["nsenter", f"--net={NETNS / namespace}"] if namespace else []), *words]


def natgw() -> str:
    """The command as installed beside the Python that runs us."""
    return str(Path(sys.executable).with_name("natgw"))


def with_missing_ok(call: Callable[..., object], *arguments: object) -> None:
    try:
        call(*arguments)
    except ProcessLookupError:
        pass


def wait_until(condition: Callable[[], bool], *, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
