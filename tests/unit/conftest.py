"""Fixtures of the tests that talk to a control API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from natgw.api import SOCKET_VARIABLE
from natgw.api.client import Client
from tests.unit.fake_daemon import FakeDaemon, served


@pytest.fixture
def socket_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the daemon of this test listens, and commands look for it."""
    path = tmp_path / "natgw.sock"
    monkeypatch.setenv(SOCKET_VARIABLE, str(path))
    return path


@pytest.fixture
def daemon(socket_path: Path, tmp_path: Path) -> Iterator[FakeDaemon]:
    """A fake daemon behind a real API."""
    fake = FakeDaemon(tmp_path / "log")
    with served(fake, socket_path):
        yield fake


@pytest.fixture
def client(daemon: FakeDaemon, socket_path: Path) -> Client:
    return Client(str(socket_path))
