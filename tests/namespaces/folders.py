"""A laboratory's folder, and what tests left that were killed before they could remove theirs.

A folder's name has the pid of the tests that made it, and the suffix of their namespaces. Once that process has gone, the next
laboratory takes away what there is of both: a natgw that was left running, mounts, namespaces, files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

PREFIX = "natgw-test-"
NAMESPACES = Path("/run/netns")


def make_folder(suffix: str) -> Path:
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid, _, theirs = left.name.removeprefix(PREFIX).partition("-")
        if pid.isdecimal() and theirs and not Path(f"/proc/{pid}").exists():
            _remove(left, theirs)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-{suffix}-"))


def _remove(folder: Path, rest: str) -> None:
    for socket in list(folder.glob("*/*.sock")):
        subprocess.run([sys.executable, "-m", "natgw", "--socket", str(socket), "down"], check=False, capture_output=True,
                       timeout=60)
    for namespace in NAMESPACES.glob(f"t-*-{rest.partition('-')[0]}"):
        pids = subprocess.run(["ip", "netns", "pids", namespace.name], check=False, capture_output=True, text=True, timeout=20)
        for pid in pids.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", namespace.name], check=False, capture_output=True, timeout=20)
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in reversed([place for place in mounted if place.startswith(f"{folder}/")]):
        subprocess.run(["umount", "-l", place], check=False, capture_output=True, timeout=20)
    shutil.rmtree(folder, ignore_errors=True)
