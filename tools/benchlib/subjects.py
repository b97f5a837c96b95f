"""What forwards the traffic. Each subject connects the two containers of its stage to the outside, in its own way."""

from __future__ import annotations

import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from tools.benchlib.stage import CONTAINERS, Stage, ip


class Subject(ABC):
    """`set_up` once; then figures are taken of it in turn with the others; `tear_down` in the end, also after a failure."""

    name: str

    def __init__(self) -> None:
        self.stage = Stage()

    @abstractmethod
    def set_up(self) -> None:
        """Connect the containers as 172.17.0.2 and .3, with the outside reachable by NAPT."""

    def tear_down(self) -> None:
        self.stage.close()


class Kernel(Subject):
    """docker0 as Docker makes it: a Linux bridge, veth pairs, iptables masquerade."""

    name = "kernel"

    def set_up(self) -> None:
        stage, gateway = self.stage, self.stage.gateway
        ip("-n", gateway, "link", "add", "docker0", "type", "bridge")
        ip("-n", gateway, "addr", "add", "172.17.0.1/16", "dev", "docker0")
        ip("-n", gateway, "link", "set", "docker0", "up")
        for number, (container, address) in enumerate(zip((stage.one, stage.two), CONTAINERS, strict=True)):
            host_end = f"veth{number}"
            ip("-n", gateway, "link", "add", host_end, "type", "veth", "peer", "name", "eth0", "netns", container)
            ip("-n", gateway, "link", "set", host_end, "master", "docker0", "up")
            ip("-n", container, "addr", "add", f"{address}/16", "dev", "eth0")
            ip("-n", container, "link", "set", "eth0", "up")
            ip("-n", container, "route", "add", "default", "via", "172.17.0.1")
        stage.run(gateway, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        stage.run(gateway, "iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "172.17.0.0/16", "!", "-o", "docker0",
                  "-j", "MASQUERADE")


class Natgw(Subject):
    """natgw with one kind of link."""

    def __init__(self, link: str) -> None:
        super().__init__()
        self.name = f"natgw {link}"
        self._link = link
        self._folder = Path(tempfile.mkdtemp(prefix="natgw-bench-"))

    def natgw(self, *args: str) -> str:
        return self.stage.run(self.stage.gateway, sys.executable, "-m", "natgw", *args,
                              env={"NATGW_SOCKET": str(self._folder / "run" / "n.sock")})

    def set_up(self) -> None:
        self.natgw("up", "--detach", "--link", self._link)
        for name, namespace in (("one", self.stage.one), ("two", self.stage.two)):
            self.natgw("attach", namespace, "--name", name)

    def tear_down(self) -> None:
        try:
            if (self._folder / "run" / "n.sock").exists():
                self.natgw("down")
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
            super().tear_down()


SUBJECTS: dict[str, Callable[[], Subject]] = {"kernel": Kernel, "tap": lambda: Natgw("tap"), "veth": lambda: Natgw("veth")}
"""How to make each; the kernel is what the others are compared with."""
