"""A few empty namespaces for the tests of natgw.host, gone with the test because only its descriptors hold them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface
from typing import Any, ParamSpec, TypeVar

from natgw.host import netns
from natgw.host.netlink import netlink

Params = ParamSpec("Params")
Result = TypeVar("Result")


class Namespace:
    """One namespace; its loopback is up."""

    def __init__(self) -> None:
        self.fd = netns.create()
        self.path = netns.path_of(self.fd)
        self.run("ip", "link", "set", "lo", "up")

    def call(self, function: Callable[Params, Result], *args: Params.args, **kwargs: Params.kwargs) -> Result:
        return netns.run_inside(self.path, function, *args, **kwargs)

    def run(self, *command: str) -> str:
        """A program inside; its output. Fails the test if it fails."""
        done = subprocess.run(["nsenter", f"--net={self.path}", "--", *command], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def ip(self, *words: str) -> None:
        self.run("ip", *words)

    def look(self, *words: str) -> Any:
        """What `ip -j` says."""
        return json.loads(self.run("ip", "-j", *words) or "[]")

    def names(self) -> list[str]:
        return sorted(name for _, name in self.call(socket.if_nameindex))

    def socket(self, kind: int, bind: tuple[str, int] | None = None) -> socket.socket:
        """A socket that lives in this namespace; 5 s at most for anything it is asked."""
        handle = self.call(socket.socket, socket.AF_INET, kind)
        handle.settimeout(5)
        if bind is not None:
            handle.bind(bind)
        return handle


@contextmanager
def namespaces(count: int) -> Iterator[list[Namespace]]:
    made: list[Namespace] = []
    try:
        for _ in range(count):
            made.append(Namespace())
        yield made
    finally:
        for namespace in made:
            os.close(namespace.fd)


def wire(one: Namespace, name: str, address: str, other: Namespace, other_name: str, other_address: str) -> None:
    """A veth pair between two namespaces, addressed and up."""
    def make() -> None:
        with netlink() as ipr:
            ipr.link("add", ifname=name, kind="veth", peer={"ifname": other_name, "net_ns_fd": other.fd})

    one.call(make)
    for namespace, ifname, text in ((one, name, address), (other, other_name, other_address)):
        namespace.ip("addr", "add", str(IPv4Interface(text)), "dev", ifname)
        namespace.ip("link", "set", ifname, "up")
