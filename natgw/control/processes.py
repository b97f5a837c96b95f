"""Processes of `natgw run`: started inside a namespace, watched by pidfd, ended with SIGTERM and then SIGKILL.

The namespace stands for the container: natgw made it, so whatever runs in it belongs to the container, also what left its
first process's session. With the first process, all the rest ends, as with the pid namespace of a real container.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from natgw.errors import NatgwError, NotFound
from natgw.host.mounts import use_resolv_conf
from natgw.host.netns import namespace_id, run_inside

_DEAD_WITHIN_S = 5.0
_KILL_ROUNDS = 16

NamespaceId = tuple[int, int]
"""Device and inode."""


def spawn(netns: str, command: list[str], log_path: Path, env: Mapping[str, str],
          workdir: str | None, resolv_conf: str | None = None) -> subprocess.Popen[bytes]:
    """Start a command in a namespace, in a session of its own, its output going to the log. Blocking.

    The child inherits the namespaces of the thread that forks it, so nothing has to run between fork and exec. Raises
    NatgwError in Docker's words if it cannot be executed.
    """
    with log_path.open("ab") as log:
        def start() -> subprocess.Popen[bytes]:
            use_resolv_conf(resolv_conf)
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                    cwd=workdir, env={**os.environ, **env})

        try:
            return run_inside(netns, start)
        except OSError as error:
            raise NatgwError(_why_not(command[0], workdir, error)) from None
        except ValueError as error:  # a NUL byte in a word, or in the environment
            raise NatgwError(f'exec: "{command[0]}": {error}') from None


def _why_not(program: str, workdir: str | None, error: OSError) -> str:
    if workdir is not None and error.filename == workdir:
        return f"cannot run in working directory {workdir}: {(error.strerror or '').lower()}"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        if "/" in program:
            return f'exec: "{program}": stat {program}: no such file or directory'
        return f'exec: "{program}": executable file not found in $PATH'
    return f'exec: "{program}": {(error.strerror or str(error)).lower()}'


class Watch:
    """Calls `on_exit` on the loop when a process, ours or not, has ended. Raises NatgwError if there is none."""

    def __init__(self, pid: int, on_exit: Callable[[], None]) -> None:
        try:
            self._fd = os.pidfd_open(pid)
        except OSError:
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
        """Signal the process; one that is gone is no error."""
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
    """SIGTERM, and SIGKILL if the process is still there after `timeout_s`. Raises NatgwError if not even that ends it."""
    watch.send(signal.SIGTERM)
    try:
        await asyncio.wait_for(watch.ended.wait(), timeout_s)
    except TimeoutError:
        watch.send(signal.SIGKILL)
        try:
            await asyncio.wait_for(watch.ended.wait(), _DEAD_WITHIN_S)
        except TimeoutError:
            raise NatgwError(f"process {pid} does not end, not even by SIGKILL") from None


def kill_all(namespace: NamespaceId) -> int:
    """Kill whatever runs in a namespace; gives how many processes that were. Blocking, until they are dead.

    Again until there are none: a process may fork while the list is read. Only for a namespace that natgw made.
    """
    killed = 0
    for _ in range(_KILL_ROUNDS):
        doomed = [fd for pid in processes_in(namespace) if (fd := _open_in(pid, namespace)) is not None]
        if not doomed:
            break
        for fd in doomed:
            try:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for fd in doomed:
            _wait_dead(fd)
            os.close(fd)
        killed += len(doomed)
    return killed


def processes_in(namespace: NamespaceId) -> Iterator[int]:
    """The processes whose network namespace this is, this one left out."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _namespace_of(int(entry.name)) == namespace:
            yield int(entry.name)


def start_time(pid: int) -> int | None:
    """When a process began, in clock ticks since boot (proc(5), field 22 of stat); None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The command name may hold anything, parentheses too: count from the last one.
    return int(stat.rpartition(")")[2].split()[19])


def kill_left_behind(pid: int, start: int | None, namespace: NamespaceId) -> bool:
    """End a container of a natgw that was killed; False if its process is gone. Blocking.

    A pid or a namespace's number may be somebody else's since: only while the process is the one that was noted do its
    namespace and what runs there belong to the container.
    """
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if start is None or start_time(pid) != start:
            return False
        if _namespace_of(pid) == namespace:
            kill_all(namespace)
        else:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            _wait_dead(fd)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)
    return True


def _open_in(pid: int, namespace: NamespaceId) -> int | None:
    """A pidfd of a process, if it still is in the namespace: from now on the pid cannot mean another."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    if _namespace_of(pid) == namespace:
        return fd
    os.close(fd)
    return None


def _wait_dead(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll(_DEAD_WITHIN_S * 1000)


def _namespace_of(pid: int) -> NamespaceId | None:
    """None for a process that has ended, or is ending: it has left its namespaces then."""
    try:
        return namespace_id(f"/proc/{pid}/ns/net")
    except NotFound:
        return None
