"""The client: every way of not getting an answer, in one line."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from natgw.api import client as client_module
from natgw.api import connection as connection_module
from natgw.api import socket_path as chosen_socket
from natgw.api import state_directory
from natgw.api.client import Client, NotRunning
from natgw.api.peer import peer_pid
from natgw.errors import Conflict, NatgwError, NotFound
from tests.unit.fake_daemon import FakeDaemon


@contextlib.contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """A server that says this to the first connection, whatever it is asked, and hangs up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def test_default_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NATGW_SOCKET", raising=False)
    assert chosen_socket() == "/run/natgw/natgw.sock"
    monkeypatch.setenv("NATGW_SOCKET", "/run/other.sock")
    assert chosen_socket() == "/run/other.sock"


@pytest.mark.parametrize(("path", "state"), [("/run/natgw/natgw.sock", "/run/natgw/natgw.d"), ("/tmp/gw", "/tmp/gw.d"),
                                             ("/tmp/gw.one", "/tmp/gw.one.d")])
def test_state_directory_is_beside_the_socket(path: str, state: str) -> None:
    assert state_directory(path) == Path(state)


@pytest.mark.parametrize("stale", [False, True])
def test_nobody_there(socket_path: Path, stale: bool) -> None:
    if stale:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(socket_path))
    with pytest.raises(NotRunning, match=f"^natgw is not running on {socket_path}: start it with `natgw up`$"):
        Client(str(socket_path)).get("status")


def test_permission_denied(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(connection_module.Connection, "connect", refuse)
    with pytest.raises(NatgwError, match=f"^permission denied on {socket_path}: natgw's commands need root, try sudo$"):
        Client(str(socket_path)).get("status")


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"])
def test_hanging_up_half_way(socket_path: Path, answer: bytes) -> None:
    with answering(socket_path, answer), pytest.raises(NatgwError, match="closed the connection without an answer"):
        Client(str(socket_path)).get("status")


def test_a_silent_daemon(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(socket_path))
        silent.listen()
        with pytest.raises(NatgwError, match=f"^natgw on {socket_path} does not answer$"):
            Client(str(socket_path)).post("shutdown", timeout_s=0.05)


def test_an_error_that_is_not_natgws(socket_path: Path) -> None:
    with (answering(socket_path, b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno"),
          pytest.raises(NatgwError, match=r"^the daemon answered with HTTP status 502$")):
        Client(str(socket_path)).get("status")


@pytest.mark.parametrize(("path", "status", "kind"), [
    (("containers", "nobody"), 404, NotFound),
    (("no", "such", "path"), 404, NotFound),
])
def test_statuses_become_errors_of_their_kind(client: Client, path: tuple[str, ...], status: int,
                                              kind: type[NatgwError]) -> None:
    with pytest.raises(kind) as caught:
        client.get(*path)
    assert caught.value.status == status


def test_conflict(client: Client, daemon: FakeDaemon) -> None:
    daemon.add("web")
    with pytest.raises(Conflict, match="port is already allocated"):
        client.post("containers", "web", "ports", body={"publish": ["80"]})


def test_names_are_quoted(client: Client) -> None:
    with pytest.raises(NotFound, match=r"^No such container: \.\./a b\?c#d%e$"):
        client.get("containers", "../a b?c#d%e")


def test_shut_down_waits_for_the_process(tmp_path: Path) -> None:
    """The process goes on for as long as its clean-up takes, and only then is it down."""
    path = tmp_path / "natgw.sock"
    command = [sys.executable, "-m", "tests.unit.fake_daemon", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert [process.stdout.readline().strip() for _ in range(2)] == ["start", "ready"]
        assert not Client(str(path)).shut_down(0.1)
        down: list[bool] = []
        assert process.stdout.readline() == "shutdown\n"
        process.stdin.close()
        down.append(process.wait(10) == 0)
        assert down == [True]
    assert not path.exists()


def test_shut_down_without_a_view_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another pid namespace there is no pidfd to wait for: the socket tells as well."""
    path = tmp_path / "natgw.sock"
    monkeypatch.setattr(client_module, "peer_pid", lambda connected: 0)
    command = [sys.executable, "-m", "tests.unit.fake_daemon", str(path)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline().strip() for _ in range(2)] == ["start", "ready"]
        assert Client(str(path)).shut_down(10)
        assert process.wait(10) == 0


def test_peer_pid() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_pid(ours) == os.getpid()
