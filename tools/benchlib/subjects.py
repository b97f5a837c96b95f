"""What forwards the traffic. Each subject connects the containers of its stage, in its own way, as far as it goes."""

from __future__ import annotations

import functools
import json
import os
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from tools.benchlib.figures import PUBLISHED, WEB_PORT
from tools.benchlib.stage import CONTAINERS, Stage, ip, undisturbed, wait_for

ALL = frozenset(("outside", "between", "published"))
NO_BRIDGE = frozenset(("outside", "published"))


class Subject(ABC):
    """`set_up` once; then figures are taken of it in turn with the others; `tear_down` in the end, also after a failure.

    `offers` says which figures make sense of it.
    """

    name: str
    offers: frozenset[str] = ALL

    def __init__(self) -> None:
        self.stage = Stage()

    @abstractmethod
    def set_up(self) -> None:
        """Connect the first container with the outside, by translation, and with the second; publish its web server."""

    def tear_down(self) -> None:
        self.stage.close()


class Kernel(Subject):
    """docker0 as Docker makes it: a Linux bridge, veth pairs, iptables masquerade and DNAT."""

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
        stage.run(gateway, "iptables", "-t", "nat", "-A", "PREROUTING", "!", "-i", "docker0", "-p", "tcp", "--dport",
                  str(PUBLISHED), "-j", "DNAT", "--to-destination", f"{CONTAINERS[0]}:{WEB_PORT}")


class Slirp4netns(Subject):
    """A user-space TCP/IP stack in C, one container each; the port by its API."""

    name = "slirp4netns"
    offers = NO_BRIDGE

    def set_up(self) -> None:
        stage = self.stage
        stage.run(stage.gateway, "sysctl", "-q", "-w", "net.ipv4.ping_group_range=0 2147483647")
        api = stage.folder / "api.sock"
        stage.spawn(stage.gateway, "slirp4netns", "--configure", "--mtu=65520", "--netns-type=path", f"--api-socket={api}",
                    f"/run/netns/{stage.one}", "tap0")
        wait_for(lambda: api.exists() and "10.0.2.100" in stage.run(stage.one, "ip", "addr"), "slirp4netns")
        request = {"execute": "add_hostfwd", "arguments": {"proto": "tcp", "host_addr": "0.0.0.0", "host_port": PUBLISHED,
                                                           "guest_addr": "10.0.2.100", "guest_port": WEB_PORT}}
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(api))
            connection.sendall(json.dumps(request).encode())
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(4096)
        if b"error" in answer:
            raise RuntimeError(f"slirp4netns: {answer.decode()}")


class Pasta(Subject):
    """passt's sockets-to-tap translation in C; the container has the gateway's own address."""

    name = "pasta"
    offers = NO_BRIDGE

    def set_up(self) -> None:
        stage = self.stage
        stage.run(stage.gateway, "sysctl", "-q", "-w", "net.ipv4.ping_group_range=0 2147483647")
        stage.spawn(stage.gateway, "pasta", "--foreground", "--config-net", "--no-map-gw", "--runas", "0:0", "--netns-only",
                    "-t", f"{PUBLISHED}:{WEB_PORT}", "-u", "none", "-T", "none", "-U", "none", "--netns",
                    f"/run/netns/{stage.one}")
        wait_for(lambda: "198.51.100.2" in stage.run(stage.one, "ip", "addr"), "pasta")


class Vde(Subject):
    """vde2's switch in C, for the figure between containers."""

    name = "vde2 switch"
    offers = frozenset(("between",))

    def set_up(self) -> None:
        stage = self.stage
        control = stage.folder / "switch"
        stage.spawn(stage.gateway, "vde_switch", "--sock", str(control), "--mode", "600")
        wait_for(lambda: (control / "ctl").exists(), "vde_switch")
        for container, address in zip((stage.one, stage.two), CONTAINERS, strict=True):
            stage.spawn(container, "vde_plug2tap", "--sock", str(control), "eth0")
            wait_for(functools.partial(_has_link, stage, container), "vde_plug2tap")
            ip("-n", container, "addr", "add", f"{address}/16", "dev", "eth0")
            ip("-n", container, "link", "set", "eth0", "up")


def _has_link(stage: Stage, container: str) -> bool:
    return "eth0" in stage.run(container, "ip", "link")


class Natgw(Subject):
    """natgw with one kind of link."""

    def __init__(self, link: str) -> None:
        super().__init__()
        self.name = f"natgw {link}"
        self._link = link
        self.socket = self.stage.folder / "run" / "n.sock"

    def natgw(self, *args: str) -> str:
        return self.stage.run(self.stage.gateway, sys.executable, "-m", "natgw", *args, env={"NATGW_SOCKET": str(self.socket)})

    def status(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.natgw("status", "--json"))
        return found

    def resident_bytes(self) -> int:
        """Memory of the daemon."""
        pages = int(Path(f"/proc/{self.status()['pid']}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def set_up(self) -> None:
        self.natgw("up", "--detach", "--link", self._link)
        self.natgw("attach", self.stage.one, "--name", "one", "-p", f"{PUBLISHED}:{WEB_PORT}")
        self.natgw("attach", self.stage.two, "--name", "two")

    def tear_down(self) -> None:
        with undisturbed():
            try:
                if self.socket.exists():
                    self.natgw("down")
            finally:
                super().tear_down()


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "kernel": Kernel, "tap": lambda: Natgw("tap"), "veth": lambda: Natgw("veth"), "slirp4netns": Slirp4netns, "pasta": Pasta,
    "vde": Vde}
"""How to make each; the kernel is what the others are compared with."""
