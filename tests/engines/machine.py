"""A machine for an engine: the laboratory's gateway host with a file system view and processes of its own.

Engines write to /run, mount, and leave processes behind. So the gateway host gets a mount namespace in which /run is empty,
and a pid namespace: whatever is still there when the laboratory is closed goes with them, and no two laboratories see
each other, though each serves `natgw` on /run/docker/plugins/natgw.sock and has its daemon at the default places.

`ip netns exec` will not do here, since it remounts /sys and with it hides the cgroups that runc needs: everything is entered
by nsenter.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.namespaces.topology import Lab, Namespace, eventually

COMMAND_TIMEOUT_S = 60.0
CGROUPS = Path("/sys/fs/cgroup")

# /run/netns stays what it is, for `ip netns` and natgw's names; the rest of /run is this machine's own, and so is whatever is
# written to /etc.
_SET_UP = """
set -e
mkdir "$0/netns"
mount --rbind /run/netns "$0/netns"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/netns
mount --rbind "$0/netns" /run/netns
mkdir /run/etc /run/etc-work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc-work overlay /etc
touch "$0/ready"
exec tini -- sleep infinity
"""


class Machine(Lab):
    """A laboratory whose gateway host is a machine of its own, natgw not started."""

    def __init__(self) -> None:
        super().__init__()
        self.socket = Path("/run/natgw/natgw.sock")  # as the machine sees it
        self.cgroup = f"natgw-{self.suffix}"
        self._services: dict[str, subprocess.Popen[bytes]] = {}
        self.init = 0
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc", "--kill-child",
             "sh", "-c", _SET_UP, str(self.folder)], stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            eventually(lambda: (self.folder / "ready").exists())
            self.init = int(Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()[0])
        except BaseException:
            self.close()
            raise

    # -- running things ------------------------------------------------------------------------------------------------

    def command(self, *command: str) -> list[str]:
        return ["nsenter", f"--target={self.init}", "--mount", "--pid", f"--net={self.gateway.path}", *command]

    def run(self, *command: str, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S,
            env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command on the machine; its output is in the error if it fails."""
        done = subprocess.run(self.command(*command), capture_output=True, text=True, timeout=timeout_s, check=False,
                              stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def spawn(self, *command: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command on the machine; it goes with the machine at the latest."""
        return subprocess.Popen(self.command(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}, start_new_session=True)

    @staticmethod
    def end(process: subprocess.Popen[str]) -> str:
        """End a command that was spawned, and give what it printed."""
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate(timeout=10)[0]

    def gone(self, pid: int) -> bool:
        """Whether a process of the machine, by its pid there, has ended."""
        return self.run("test", "-d", f"/proc/{pid}", check=False).returncode != 0

    def natgw(self, *args: str, check: bool = True, socket: Path | None = None,
              within: Namespace | None = None) -> subprocess.CompletedProcess[str]:
        """The natgw command on the machine, at its default socket."""
        return self.run(*self.natgw_command(*args), check=check, env=self.environment())

    @staticmethod
    def natgw_command(*args: str) -> list[str]:
        """Started in /, where nsenter leaves it: a checkout /natgw must not be taken for the package of that name."""
        return [sys.executable, "-P", "-m", "natgw", *args]

    def environment(self) -> dict[str, str]:
        return {"NATGW_SOCKET": str(self.socket)}

    # -- services --------------------------------------------------------------------------------------------------------

    def start(self, name: str, *command: str) -> None:
        """Start a service on the machine; its output goes to NAME.log in the laboratory's folder."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._services[name] = subprocess.Popen(self.command(*command), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                                    start_new_session=True)

    def stop(self, name: str, number: int = signal.SIGTERM, *, within_s: float = 30.0) -> None:
        """End a service by a signal, and wait until it has ended."""
        process = self._services.pop(name)
        os.kill(self._inner(process), number)
        process.wait(timeout=within_s)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _inner(self, process: subprocess.Popen[bytes]) -> int:
        """The pid of a service itself: nsenter forks to enter a pid namespace, and waits."""
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return int(children[0]) if children else process.pid

    # -- what is left ----------------------------------------------------------------------------------------------------

    def processes(self) -> list[str]:
        """The command lines of what runs on the machine, other than its own init."""
        table = self.run("ps", "-e", "-o", "args=").stdout.splitlines()
        return [line for line in table if not line.startswith(("tini ", "sleep infinity", "ps "))]

    def leftovers(self) -> list[str]:
        """What natgw and engines left: interfaces, filters, processes, mounts, files in /run; for when all were ended."""
        found = [link["ifname"] for link in json.loads(self.run("ip", "-j", "link").stdout)
                 if link["ifname"] not in ("lo", "eth0")]
        found += self.run("tc", "filter", "show", "dev", "eth0", "ingress").stdout.splitlines()
        found += [line for line in self.run("tc", "qdisc", "show", "dev", "eth0").stdout.splitlines() if "clsact" in line]
        found += self.run("cat", "/proc/sys/net/ipv4/ip_local_reserved_ports").stdout.split()
        found += self.processes()
        files = self.run("find", "/run", "-path", "/run/netns", "-prune", "-o", "(", "-type", "s", "-o", "-path", "/run/natgw*",
                         ")", "-print").stdout.splitlines()
        found += [path for path in files if not path.startswith("/run/engine-")]
        places = [line.split()[4] for line in self.run("cat", "/proc/self/mountinfo").stdout.splitlines()]
        found += [place for place in places if place.startswith(f"{self.folder}/")
                  and not place.startswith(f"{self.folder}/netns")]
        return found

    def close(self) -> None:
        if self.init:
            subprocess.run(self.command(*self.natgw_command("down")), capture_output=True, check=False, timeout=60,
                           env={**os.environ, **self.environment()})
            os.kill(self.init, signal.SIGKILL)  # and with it all that runs on the machine; its parent then ends too
        else:
            self._holder.kill()
        self._holder.wait(timeout=10)
        for process in self._services.values():
            process.wait(timeout=10)
        self._remove_cgroups()
        super().close()

    def _remove_cgroups(self) -> None:
        """The engine's control groups: they cannot be removed before the last process in them has ended."""
        def removed() -> bool:
            with contextlib.suppress(OSError):
                for path in self.cgroups():
                    path.rmdir()
            return not self.cgroups()

        eventually(removed)

    def cgroups(self) -> list[Path]:
        """Control groups of the machine's engine, the innermost first."""
        tops = [*CGROUPS.glob(f"*/{self.cgroup}"), *CGROUPS.glob(self.cgroup)]
        return [Path(folder) for top in tops for folder, _, _ in os.walk(top, topdown=False)]


def pack(folder: Path) -> bytes:
    """A tar archive of a folder's contents, as `docker import` takes it."""
    return subprocess.run(["tar", "-C", str(folder), "-c", "."], check=True, capture_output=True, timeout=60).stdout


def busybox_rootfs(folder: Path, busybox: str, applets: Sequence[str]) -> None:
    """The smallest image there is: one program and its names."""
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "www"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "bin" / "busybox").write_bytes(Path(busybox).read_bytes())
    (folder / "bin" / "busybox").chmod(0o755)
    for applet in applets:
        (folder / "bin" / applet).symlink_to("busybox")

