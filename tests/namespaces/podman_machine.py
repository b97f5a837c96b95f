"""A podman of the test's own: its storage, state and configuration in the laboratory's folder, its network natgw's by CNI.

It works in the gateway host's network namespace, beside natgw. Containers are a busybox and nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

from tests.namespaces.topology import Lab, eventually

BUSYBOX = Path("/bin/busybox")
APPLETS = ("cat", "httpd", "ip", "nc", "nslookup", "ping", "sh", "sleep", "wget")

_CONF = """
[engine]
cgroup_manager = "cgroupfs"
enable_port_reservation = false
events_logger = "none"
lock_type = "file"
runtime = "runc"
static_dir = "{folder}/root/libpod"
tmp_dir = "{folder}/tmp"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{folder}/cni-bin"]
network_config_dir = "{folder}/cni-conf"
default_network = "natgw"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
"""
_STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/root"
runroot = "{folder}/run"
"""


class Podman:
    """`run` and the like print what podman prints; a failure is an AssertionError with it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.folder = lab.folder / "podman"
        self.rootfs = self.folder / "rootfs"
        (self.rootfs / "bin").mkdir(parents=True)
        (self.rootfs / "www").mkdir()
        shutil.copy(BUSYBOX, self.rootfs / "bin" / "busybox")
        for applet in APPLETS:
            (self.rootfs / "bin" / applet).symlink_to("busybox")
        self._conf = self.folder / "containers.conf"
        self._conf.write_text(_CONF.format(folder=self.folder))
        self._storage = self.folder / "storage.conf"
        self._storage.write_text(_STORAGE.format(folder=self.folder))

    @property
    def directories(self) -> list[str]:
        """For `natgw cni install` and `uninstall`."""
        return ["--bin-dir", str(self.folder / "cni-bin"), "--conf-dir", str(self.folder / "cni-conf")]

    def install(self, *options: str) -> None:
        """Tell podman of a network of natgw's."""
        self.lab.natgw("cni", "install", *self.directories, *options)

    @property
    def environment(self) -> dict[str, str]:
        """What makes any `podman` this one, whoever calls it."""
        inherited = {key: value for key, value in os.environ.items() if key != "NATGW_SOCKET"}
        return inherited | {"CONTAINERS_CONF": str(self._conf), "CONTAINERS_STORAGE_CONF": str(self._storage)}

    def __call__(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = ["nsenter", f"--net={self.lab.gateway.path}", "podman", *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, stdin=subprocess.DEVNULL,
                              env=self.environment)
        if check and done.returncode:
            raise AssertionError(f"podman {' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def natgw(self, *args: str) -> subprocess.CompletedProcess[str]:
        """natgw's command where `podman` is this one."""
        environment = self.environment | {"NATGW_SOCKET": str(self.lab.socket)}
        return subprocess.run(["nsenter", f"--net={self.lab.gateway.path}", *self.lab.natgw_command(*args)], text=True,
                              capture_output=True, timeout=90, check=False, stdin=subprocess.DEVNULL, env=environment)

    def run(self, name: str, *options: str, command: str = "sleep 600") -> str:
        """A container in the background; gives its address on eth0."""
        self("run", "-d", "--name", name, *options, "--rootfs", str(self.rootfs), "/bin/sh", "-c", command)
        return self.address(name)

    def serve(self, name: str, port: int, *options: str, text: str = "") -> str:
        """One that serves its name, or another text, over HTTP."""
        page = f"/www/{name}.html"
        command = f"echo {text or name} > {page}; httpd -f -p {port} -h /www"
        address = self.run(name, *options, command=command)
        eventually(lambda: self.exec(name, "wget", "-q", "-O", "-", f"http://127.0.0.1:{port}/{name}.html").returncode == 0)
        return address

    def exec(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        return self("exec", name, *command, check=False)

    def address(self, name: str, ifname: str = "eth0") -> str:
        words = self.exec(name, "ip", "-4", "-o", "address", "show", ifname).stdout.split()
        return words[3].partition("/")[0] if len(words) > 3 else ""

    def names(self) -> list[str]:
        return self("ps", "-a", "--format", "{{.Names}}").stdout.split()

    def close(self) -> None:
        """Its containers go, and the mounts that podman keeps for its storage while there are any: also after a failure."""
        self("rm", "-f", "-a", "-t", "0", check=False)
        for line in Path("/proc/self/mountinfo").read_text().splitlines()[::-1]:
            if (where := line.split()[4]).startswith(f"{self.folder}/"):
                subprocess.run(["umount", where], check=False, capture_output=True, timeout=20)

    def __enter__(self) -> Podman:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def remove(self, *names: str) -> None:
        if names:
            self("rm", "-f", "-t", "0", *names)

    def processes(self) -> list[str]:
        """What still runs of this podman: conmon, and what it has started."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if entry.name.isdigit() and str(self.folder) in command:
                found.append(command)
        return found
