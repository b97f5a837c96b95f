"""Going into the background: the parent learns what became of the daemon, and the daemon is on its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually

PROLOGUE = """
import json, os, signal, sys, time
from pathlib import Path
from natgw.api.detach import detach, take_over_log
from natgw.errors import NatgwError
folder = Path(sys.argv[1])
"""
EPILOGUE = """
try:
    detach(daemon)
except NatgwError as error:
    sys.exit(str(error))
print("ready")
"""


def run(folder: Path, daemon: str) -> tuple[int, str, str]:
    """What a command prints that detaches this daemon, until nobody has its output open any more.

    The command is given a descriptor, as careless programs do; its number is sys.argv[2].
    """
    with open(os.devnull) as stray:
        done = subprocess.run([sys.executable, "-c", PROLOGUE + daemon + EPILOGUE, str(folder), str(stray.fileno())],
                              capture_output=True, text=True, timeout=30, pass_fds=[stray.fileno()])
    return done.returncode, done.stdout, done.stderr


def test_ready(tmp_path: Path) -> None:
    code = """
def daemon(reporter):
    numbers = [int(number) for number in os.listdir("/proc/self/fd")]
    found = {"pid": os.getpid(), "session": os.getsid(0), "cwd": os.getcwd(), "inherited": int(sys.argv[2]) in numbers,
             "open": [os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)]}
    (folder / "found").write_text(json.dumps(found))
    reporter.ready()
    signal.sigwait([signal.SIGUSR1])
    (folder / "ended").touch()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
"""
    assert run(tmp_path, code) == (0, "ready\n", "")
    found: dict[str, Any] = json.loads((tmp_path / "found").read_text())
    assert found["cwd"] == "/"
    assert found["session"] != os.getsid(0)
    assert found["session"] != found["pid"]  # no leader of its session, so no terminal can become its own
    assert found["open"] == ["/dev/null"] * 3
    assert not found["inherited"]
    os.kill(found["pid"], signal.SIGUSR1)
    eventually((tmp_path / "ended").exists)


@pytest.mark.parametrize(("body", "message"), [
    ('raise NatgwError("no such interface:\\n eth7")', "no such interface: eth7"),
    ('raise ZeroDivisionError("a bug")', "ZeroDivisionError: a bug"),
    ("sys.exit(3)", "SystemExit: 3"),
    ("os.kill(os.getpid(), signal.SIGKILL)", "it ended before it was ready"),
    ("pass", "it ended before it was ready"),
])
def test_not_ready(tmp_path: Path, body: str, message: str) -> None:
    assert run(tmp_path, f"def daemon(reporter):\n    {body}\n") == (1, "", message + "\n")


def test_what_comes_after_ready_is_in_the_log(tmp_path: Path) -> None:
    code = """
def daemon(reporter):
    take_over_log(folder / "log")
    print("hello")
    sys.stdout.flush()
    reporter.ready()
    raise ZeroDivisionError("much later")
"""
    assert run(tmp_path, code) == (0, "ready\n", "")
    log = tmp_path / "log"
    eventually(lambda: "ZeroDivisionError: much later" in log.read_text())
    assert log.read_text().startswith("hello\nTraceback")
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_daemon_that_takes_too_long_is_told_to_end(tmp_path: Path) -> None:
    code = """
import natgw.api.detach
natgw.api.detach.START_TIMEOUT_S = 0.2
def daemon(reporter):
    (folder / "pid").write_text(str(os.getpid()))
    signal.sigwait([signal.SIGTERM])
    (folder / "told").touch()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
"""
    assert run(tmp_path, code) == (1, "", "natgw was not ready within 0.2 seconds, and was told to end\n")
    eventually((tmp_path / "told").exists)


def test_ctrl_c_while_waiting_ends_the_daemon_too(tmp_path: Path) -> None:
    code = """
def daemon(reporter):
    (folder / "pid").write_text(str(os.getpid()))
    signal.sigwait([signal.SIGTERM])
    (folder / "told").touch()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
"""
    command = [sys.executable, "-c", PROLOGUE + code + EPILOGUE, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        eventually((tmp_path / "pid").exists)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    eventually((tmp_path / "told").exists)
