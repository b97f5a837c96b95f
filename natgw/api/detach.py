"""Leaving the terminal: the daemon runs on by itself, and whoever started it learns whether it is ready.

Two forks and a new session, so that neither a closing terminal nor a waiting parent has a hold on it. A pipe goes along:
the daemon writes its pid at once, then READY or why it could not start. The fork comes before the daemon's
modules are imported and before there is a thread or an event loop.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from natgw.errors import NatgwError

READY = "ready"
START_TIMEOUT_S = 30.0
STANDARD_DESCRIPTORS = (0, 1, 2)


class Reporter:
    """The daemon's end of the pipe; what is said first counts."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    def ready(self) -> None:
        self._say(READY)

    def failed(self, reason: str) -> None:
        self._say(reason)

    def _say(self, outcome: str) -> None:
        if self._pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # nobody waits any more
                os.write(self._pipe, (" ".join(outcome.split()) + "\n").encode())
            os.close(self._pipe)
            self._pipe = None


def detach(daemon: Callable[[Reporter], None]) -> None:
    """Run `daemon` in a process of its own and return when it has reported.

    Raises NatgwError with the daemon's reason if it could not start, or did not within 30 seconds.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    # A Ctrl-C waits until the daemon's pid is known: earlier, there would be nobody to pass it on to.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(reading)
        _become_daemon(daemon, writing)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        pid = 0
        try:
            os.waitpid(child, 0)
            lines = _lines(pipe.fileno(), START_TIMEOUT_S)
            pid = int(next(lines, "0"))
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            outcome = next(lines, "it ended before it was ready")
        except BaseException:
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if outcome != READY:
        raise NatgwError(outcome)


def take_over_log(path: Path) -> None:
    """Standard output and error go to the end of the log file from now on, and standard input is empty."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)


def _become_daemon(daemon: Callable[[Reporter], None], pipe: int) -> NoReturn:
    reporter, status = Reporter(pipe), 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        os.closerange(STANDARD_DESCRIPTORS[-1] + 1, pipe)
        os.closerange(pipe + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in STANDARD_DESCRIPTORS:
            os.dup2(nothing, descriptor)
        os.close(nothing)
        os.write(pipe, f"{os.getpid()}\n".encode())
        daemon(reporter)
        status = 0
    except NatgwError as error:
        reporter.failed(str(error))
        print(error, file=sys.stderr)
    except BaseException as error:
        reporter.failed(f"{type(error).__name__}: {error}")
        traceback.print_exc()
    finally:
        # No way back into the command that forked: its own clean-up is not ours.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(status)


def _lines(pipe: int, within_s: float) -> Iterator[str]:
    """Lines from the pipe until it is closed. Raises NatgwError if it stays silent for too long."""
    deadline = time.monotonic() + within_s
    pending = b""
    while True:
        readable, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise NatgwError(f"natgw was not ready within {within_s:g} seconds, and was told to end")
        piece = os.read(pipe, 4096)
        if not piece:
            return
        pending += piece
        while b"\n" in pending:
            line, pending = pending.split(b"\n", 1)
            yield line.decode()
