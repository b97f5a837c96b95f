"""A machine with a real dockerd on it and natgw as its network driver; images are made here, no registry is asked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conftest import SEARCH_PATH
from tests.engines.machine import Machine, busybox_rootfs, pack
from tests.namespaces.topology import eventually

# Not whichever docker comes first: dockerd's own, from the same package.
DOCKER = "/usr/bin/docker"
SMALL, HOSTS = "small", "hosts"
"""Images: busybox alone, and one that is given the programs of this machine as volumes."""
APPLETS = ("cat", "echo", "httpd", "ip", "ls", "nc", "nslookup", "ping", "sh", "sleep", "true", "wget")

_CONTAINERD = """
version = 2
root = "{0}/containerd"
state = "/run/engine-containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "/run/engine-containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{0}/opt"
"""


class DockerLab(Machine):
    """`up` starts natgw, `start_docker` containerd and dockerd; images are there then."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = "natgw"
        (self.folder / "containerd.toml").write_text(_CONTAINERD.format(self.folder))

    # -- life ------------------------------------------------------------------------------------------------------------

    def up(self, *args: str) -> int:
        return super().up("--docker" if self.driver == "natgw" else f"--docker={self.driver}", *args)

    def start_docker(self, *args: str) -> None:
        """Start containerd, if it is not running, and dockerd; dockerd answers when this returns."""
        if "containerd" not in self._services:
            self.start("containerd", "containerd", "--config", str(self.folder / "containerd.toml"))
            eventually(lambda: self.run("test", "-S", "/run/engine-containerd.sock", check=False).returncode == 0)
        self.start(
            "dockerd", "dockerd", "--containerd", "/run/engine-containerd.sock", "--data-root", str(self.folder / "docker"),
            "--bridge=none", "--iptables=false", "--ip6tables=false", "--cgroup-parent", self.cgroup, *args)
        eventually(lambda: self.docker("version", check=False).returncode == 0, within_s=30.0, every_s=0.1)

    def make_images(self) -> None:
        busybox = shutil.which("busybox", path=SEARCH_PATH)
        assert busybox is not None
        rootfs = self.folder / "small"
        busybox_rootfs(rootfs, busybox, APPLETS)
        self._import(rootfs, SMALL)
        hosts = self.folder / "hosts"
        for name in ("usr", "proc", "sys", "dev", "tmp", "etc", "srv"):
            (hosts / name).mkdir(parents=True)
        for name in ("bin", "lib", "lib64", "sbin"):
            (hosts / name).symlink_to(f"usr/{name}")
        (hosts / "etc" / "passwd").write_text("root:x:0:0:root:/tmp:/bin/sh\n")
        self._import(hosts, HOSTS)

    def _import(self, rootfs: Path, name: str) -> None:
        subprocess.run(self.command(DOCKER, "import", "-", name), input=pack(rootfs), check=True, capture_output=True,
                       timeout=60)

    def kill_natgw(self) -> None:
        """End natgw without a chance to clean up."""
        pid = self.json("status")["pid"]
        self.run("kill", "-9", str(pid))
        eventually(lambda: self.gone(pid))

    def power_off(self) -> None:
        """End every process but the machine's own at once, and take away what would not be there after a reboot."""
        # All but init, its child, and this shell.
        others = "ps -e -o pid=,args= | awk -v shell=$$ '$1 != shell && !/sleep infinity/ {print $1}'"
        self.run("sh", "-c", f"kill -9 $({others}) || true")
        for name in ("dockerd", "containerd"):
            self._services.pop(name).wait(timeout=10)
        eventually(lambda: self.processes() == [])
        mounts = self.run("awk", '$5 ~ "^/run/docker/|^/run/engine-|overlay2" {print $5}', "/proc/self/mountinfo")
        for place in mounts.stdout.split()[::-1]:
            self.run("umount", "-l", place)
        self.run("find", "/run", "-mindepth", "1", "-maxdepth", "1", "!", "-name", "netns", "!", "-name", "etc*",
                 "-exec", "rm", "-rf", "{}", "+")
        for link in json.loads(self.run("ip", "-j", "link").stdout):
            if link["ifname"] not in ("lo", "eth0"):
                self.run("ip", "link", "del", link["ifname"])

    def stop_docker(self, number: int = signal.SIGTERM) -> None:
        self.stop("dockerd", number)

    def close(self) -> None:
        if self.init and "dockerd" in self._services:
            self.remove_containers()
        super().close()

    def remove_containers(self) -> None:
        """Every container, and every network but `natgw`."""
        if containers := self.docker("ps", "-aq", check=False).stdout.split():
            self.docker("rm", "-f", *containers, check=False)
        networks = self.docker("network", "ls", "--filter", f"driver={self.driver}", "--format", "{{.Name}}",
                               check=False).stdout.split()
        for name in networks:
            if name != "natgw":
                self.docker("network", "rm", name, check=False)

    # -- using it --------------------------------------------------------------------------------------------------------

    def docker(self, *args: str, check: bool = True, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        return self.run(DOCKER, *args, check=check, timeout_s=timeout_s)

    def refused(self, *args: str) -> str:
        """What docker says as it refuses."""
        done = self.docker(*args, check=False)
        assert done.returncode != 0, f"docker {' '.join(args)} succeeded: {done.stdout}"
        return done.stderr

    def start_container(self, name: str, *args: str, image: str = SMALL, command: Sequence[str] = ("sleep", "1000")) -> str:
        """`docker run -d`; gives the container's id. Nothing in it minds SIGTERM, so it is stopped by SIGKILL."""
        return self.docker("run", "-d", "--name", name, "--stop-signal", "KILL", *args, image, *command).stdout.strip()

    def inside(self, name: str, *command: str, check: bool = True) -> str:
        """What a command in a container prints."""
        return self.docker("exec", name, *command, check=check).stdout

    def inspect(self, kind: str, name: str) -> Any:
        (found,) = json.loads(self.docker(kind, "inspect", name).stdout)
        return found

    def address(self, name: str, network: str) -> str:
        found: str = self.inspect("container", name)["NetworkSettings"]["Networks"][network]["IPAddress"]
        return found


def volumes() -> list[str]:
    """Options that give a container of HOSTS the programs and the Python of this machine, to be read."""
    places = dict.fromkeys(str(Path(place)) for place in ("/usr", sys.prefix, sys.base_prefix))
    return [word for place in places if place == "/usr" or not place.startswith("/usr/")
            for word in ("-v", f"{place}:{place}:ro")]


def web_page(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "index.html").write_text(text)
    os.chmod(folder, 0o755)
    return folder
