"""What `natgw run` does with signals, without a namespace."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from natgw.cli import process
from tests.conftest import eventually


def test_a_signal_that_comes_as_the_command_starts_is_for_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It has begun already, but is not known here yet."""
    ready = tmp_path / "ready"

    def late(netns: str, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        started = start()
        eventually(ready.exists)
        os.kill(os.getpid(), signal.SIGTERM)
        return started

    monkeypatch.setattr(process, "run_inside", late)
    command = ["bash", "-c", f"trap 'exit 6' TERM; touch {ready}; for i in 1 2 3 4 5 6 7 8; do sleep 0.1; done"]
    assert process.run("lab", command, env=os.environ, workdir=str(tmp_path), on_start=lambda pid: None) == 6


def test_a_signal_before_the_start_ends_us(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def never(netns: str, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        os.kill(os.getpid(), signal.SIGTERM)
        return start()

    monkeypatch.setattr(process, "run_inside", never)
    with pytest.raises(KeyboardInterrupt):
        process.run("lab", ["false"], env=os.environ, workdir=str(tmp_path), on_start=lambda pid: None)
