"""A command in a container's network namespace, on this terminal.

`become` turns this process into the command (`natgw exec`). `run` starts it beside us and waits (`natgw run`), so that the
container can be removed afterwards. Either way the command has the terminal, the environment and the directory it would
have without natgw, and the container's /etc/resolv.conf. Its exit code becomes ours: 126 if it cannot be executed, 127 if
it does not exist, 128 + N if signal N ended it, as docker and the shells have it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import NoReturn

from natgw.errors import NatgwError
from natgw.host.mounts import use_resolv_conf
from natgw.host.netns import run_inside

NOT_EXECUTABLE, NOT_FOUND = 126, 127
BY_SIGNAL = 128
FROM_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)
PASSED_ON = (*FROM_KEYBOARD, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class CannotExecute(NatgwError):
    """The command itself is at fault; `exit_code` says how."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def become(netns: str, command: list[str], resolv_conf: str | None = None) -> NoReturn:
    """Replace this process by the command, inside the namespace. Raises CannotExecute, NatgwError.

    The exec is made by a thread that is in the namespace: it takes the place of the whole process (execve(2)).
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python ignores, and exec would hand on

    def execute() -> None:
        use_resolv_conf(resolv_conf)
        os.execvp(command[0], command)

    try:
        run_inside(netns, execute)
    except OSError as error:
        raise _cannot_execute(command[0], error) from None
    raise AssertionError("exec has returned")


def run(netns: str, command: list[str], *, env: Mapping[str, str], workdir: str, resolv_conf: str | None = None,
        on_start: Callable[[int], object]) -> int:
    """Run the command in the namespace and return its exit code; `on_start` is given its pid.

    Ctrl-C reaches the command directly, since it shares our terminal; signals sent to us alone are passed on to it.
    Raises CannotExecute, NatgwError, and what `on_start` raises: the command is killed then.
    """
    if not os.path.isdir(workdir):
        raise CannotExecute(f"working directory {workdir} does not exist", NOT_FOUND)
    child = _Child()

    def start() -> subprocess.Popen[bytes]:
        use_resolv_conf(resolv_conf)
        child.starting = True
        return subprocess.Popen(command, env=env, cwd=workdir)

    with _signals_left_to(child):
        try:
            process = run_inside(netns, start)
        except OSError as error:
            raise _cannot_execute(command[0], error) from None
        child.started(process)
        try:
            on_start(process.pid)
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    return code if code >= 0 else BY_SIGNAL - code


class _Child:
    """The command's process, and what came for it before it was known here: it may have begun, and been sent it too."""

    def __init__(self) -> None:
        self.starting = False
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def started(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        for number in self._early:
            self.signal(number)

    def signal(self, number: int) -> None:
        """Let the command have a signal, unless the terminal has sent it to both. Raises KeyboardInterrupt before its start."""
        if self._process is not None:
            if number not in FROM_KEYBOARD or not _has_the_terminal():
                self._process.send_signal(number)
        elif self.starting:
            self._early.append(number)
        else:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _signals_left_to(child: _Child) -> Iterator[None]:
    """While the command runs, signals are for it. Handlers, unlike SIG_IGN, do not outlive its exec."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        child.signal(number)

    before = {number: signal.getsignal(number) for number in PASSED_ON}
    for number in PASSED_ON:
        if before[number] != signal.SIG_IGN:  # ignored since before us (nohup), so by the command too
            signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _has_the_terminal() -> bool:
    """Whether what is typed goes to our process group, in which the command is too."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _cannot_execute(program: str, error: OSError) -> CannotExecute:
    """Docker's words, and the shells' exit codes."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        if "/" in program:
            return CannotExecute(f'exec: "{program}": stat {program}: no such file or directory', NOT_FOUND)
        return CannotExecute(f'exec: "{program}": executable file not found in $PATH', NOT_FOUND)
    if os.path.isdir(program):
        return CannotExecute(f'exec: "{program}": is a directory', NOT_EXECUTABLE)
    return CannotExecute(f'exec: "{program}": {(error.strerror or str(error)).lower()}', NOT_EXECUTABLE)
