"""The daemon's life in a process of its own: ready, told to end, and cleaned up whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from natgw.api.client import Client, NotRunning


@contextlib.contextmanager
def stand_in(path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A daemon that says what happens to it; its clean-up ends when its standard input does."""
    command = [sys.executable, "-m", "tests.unit.fake_daemon", str(path), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_a_signal_ends_it(tmp_path: Path, number: signal.Signals) -> None:
    with stand_in(tmp_path / "n.sock") as process:
        assert [said(process), said(process)] == ["start", "ready"]
        process.send_signal(number)
        assert said(process) == "shutdown"
        output, errors = process.communicate(timeout=10)
        assert (output, process.returncode) == ("gone\n", 0)
        assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_more_signals_do_not_break_the_clean_up(tmp_path: Path) -> None:
    with stand_in(tmp_path / "n.sock") as process:
        assert [said(process), said(process)] == ["start", "ready"]
        process.send_signal(signal.SIGINT)
        assert said(process) == "shutdown"
        assert process.stderr is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            process.send_signal(number)
            assert f"{number.name}: already cleaning up" in next(line for line in process.stderr if "cleaning" in line)
        output, errors = process.communicate(timeout=10)
        assert (output, process.returncode) == ("gone\n", 0)
        assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_during_the_clean_up_nobody_is_served_and_nobody_takes_over(tmp_path: Path) -> None:
    path = tmp_path / "n.sock"
    with stand_in(path) as process:
        assert [said(process), said(process)] == ["start", "ready"]
        assert Client(str(path)).get("status")["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert said(process) == "shutdown"
        with pytest.raises(NotRunning):
            Client(str(path)).get("status")
        with stand_in(path) as second:
            output, errors = second.communicate(timeout=10)
            assert (output, errors) == ("", f"natgw is already running on {path} (pid {process.pid})\n")


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with stand_in(tmp_path / "n.sock", "--fail") as process:
        output, errors = process.communicate(timeout=10)
        assert (output, errors) == ("start\nshutdown\ngone\n", "no such interface: eth7\n")
    assert list(tmp_path.iterdir()) == []
