"""Processes of `natgw run`: started inside a namespace, watched by pidfd, ended with SIGTERM and then SIGKILL."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from natgw.errors import NatgwError
from natgw.host.netns import run_inside

KILL_AFTER_S = 10.0
_DEAD_WITHIN_S = 5.0


def spawn(netns: str, command: list[str], log_path: Path, env: Mapping[str, str],
          workdir: str | None) -> subprocess.Popen[bytes]:
    """Start a command in a namespace, in a session of its own, its output going to the log. Blocking.

    The child inherits the namespace of the thread that forks it, so nothing has to run between fork and exec. Raises
    NatgwError in Docker's words if it cannot be executed.
    """
    with log_path.open("ab") as log:
        try:
            return run_inside(netns, subprocess.Popen, command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                              start_new_session=True, cwd=workdir, env={**os.environ, **env})
        except FileNotFoundError as error:
            if workdir is not None and error.filename == workdir:
                raise NatgwError(f"working directory {workdir} does not exist") from None
            raise NatgwError(f'exec: "{command[0]}": executable file not found in $PATH') from None
        except PermissionError:
            raise NatgwError(f'exec: "{command[0]}": permission denied') from None
        except OSError as error:
            raise NatgwError(f'exec: "{command[0]}": {error.strerror}') from None


class Watch:
    """Calls `on_exit` on the loop when a process, ours or not, has ended. Raises NatgwError if there is none."""

    def __init__(self, pid: int, on_exit: Callable[[], None]) -> None:
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise NatgwError(f"no process {pid}") from None
        self._loop = asyncio.get_running_loop()
        self._on_exit = on_exit
        self.ended = asyncio.Event()
        self._loop.add_reader(self._fd, self._exited)

    def _exited(self) -> None:
        self.close()
        self.ended.set()
        self._on_exit()

    def send(self, number: int) -> None:
        """Signal the process and its group; one that is gone is no error."""
        if self._fd < 0:
            return
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


async def end(watch: Watch, pid: int, timeout_s: float) -> None:
    """SIGTERM, and SIGKILL to the whole session's group if the process is still there after `timeout_s`."""
    watch.send(signal.SIGTERM)
    try:
        await asyncio.wait_for(watch.ended.wait(), timeout_s)
    except TimeoutError:
        watch.send(signal.SIGKILL)
        try:
            await asyncio.wait_for(watch.ended.wait(), _DEAD_WITHIN_S)
        except TimeoutError:
            raise NatgwError(f"process {pid} does not end, not even by SIGKILL") from None


def kill_group(pid: int) -> None:
    """What a container's first process left running in its session goes with it."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
