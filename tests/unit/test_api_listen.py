"""One daemon to a socket: the lock, the socket, and what a dead predecessor left."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from natgw.api.listen import LONGEST_PATH_BYTES, Claim
from natgw.errors import Conflict, NatgwError


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    """A program that is not natgw, and listens where natgw wants to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as theirs:
        theirs.bind(str(tmp_path / "natgw.sock"))
        theirs.listen()
        yield theirs


def test_everything_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "run" / "natgw" / "natgw.sock"
    before = os.umask(0)
    try:
        with Claim(path) as claim, claim.listen():
            assert permissions(path) == 0o600
            made = [path.parents[1], path.parent, claim.state]
            assert [permissions(directory) for directory in made] == [0o700, 0o700, 0o700]
        assert os.umask(0) == 0
    finally:
        os.umask(before)


def test_nothing_is_left(tmp_path: Path) -> None:
    with Claim(tmp_path / "run" / "natgw" / "natgw.sock") as claim, claim.listen():
        claim.log.write_text("all was well\n")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_was_there_stays_as_it_was(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    directory.mkdir(mode=0o755)
    (directory / "theirs").touch()
    with Claim(directory / "natgw.sock") as claim, claim.listen():
        assert permissions(directory) == 0o755
    assert [path.name for path in directory.iterdir()] == ["theirs"]


def test_the_log_is_kept_after_what_nobody_foresaw(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Claim(tmp_path / "natgw.sock") as claim:
        claim.log.write_text("a bug\n")
        raise ZeroDivisionError
    assert [path.name for path in claim.state.iterdir()] == ["natgw.log"]
    with Claim(tmp_path / "natgw.sock"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_log_is_not_kept_after_an_error_that_was_told(tmp_path: Path) -> None:
    with pytest.raises(Conflict), Claim(tmp_path / "natgw.sock") as claim:
        claim.log.write_text("address taken\n")
        raise Conflict("address taken")
    assert list(tmp_path.iterdir()) == []


def test_a_live_daemon_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "natgw.sock"
    with Claim(path) as claim, claim.listen():
        with pytest.raises(Conflict, match=rf"^natgw is already running on {path} \(pid {os.getpid()}\)$"):
            Claim(path)
        assert path.is_socket()
        assert (claim.state / "lock").exists()


def test_a_daemon_that_does_not_listen_yet_is_not_replaced_either(tmp_path: Path) -> None:
    with Claim(tmp_path / "natgw.sock"), pytest.raises(Conflict):
        Claim(tmp_path / "natgw.sock")


def test_a_socket_of_a_daemon_that_was_killed_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run" / "natgw" / "natgw.sock"
    program = ("import os, signal, sys; from natgw.api.listen import Claim; claim = Claim(sys.argv[1]); claim.listen(); "
               "os.kill(os.getpid(), signal.SIGKILL)")
    assert subprocess.run([sys.executable, "-c", program, path]).returncode == -9
    assert path.is_socket()
    with Claim(path) as claim, claim.listen(), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    assert list(tmp_path.iterdir()) == []  # with the directories that the other made


def test_directories_are_inherited_from_one_that_was_killed_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "run" / "natgw.sock"
    program = ("import os, signal, sys; from natgw.api.listen import Claim; Claim(sys.argv[1]); "
               "os.kill(os.getpid(), signal.SIGKILL)")
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", program, path]).returncode == -9
    with Claim(path), pytest.raises(Conflict, match=rf"\(pid {os.getpid()}\)$"):
        Claim(path)
    assert list(tmp_path.iterdir()) == []


def test_somebody_elses_live_socket_is_left_alone(tmp_path: Path, listening: socket.socket) -> None:
    with pytest.raises(Conflict, match=rf"natgw is already running on .* \(pid {os.getpid()}\)"):
        Claim(tmp_path / "natgw.sock")
    assert [path.name for path in tmp_path.iterdir()] == ["natgw.sock"]


def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "natgw.sock"
    path.write_text("precious")
    with pytest.raises(NatgwError, match=r"exists and is not a socket: remove it or choose another --socket"):
        Claim(path)
    assert path.read_text() == "precious"
    assert [one.name for one in tmp_path.iterdir()] == ["natgw.sock"]


def test_a_state_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "natgw.d").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NatgwError, match="is not a directory of ours"):
        Claim(tmp_path / "natgw.sock")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_parent_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NatgwError, match="Not a directory"):
        Claim(tmp_path / "file" / "natgw.sock")


def test_a_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(NatgwError, match=f"is longer than {LONGEST_PATH_BYTES} bytes"):
        Claim(tmp_path / ("x" * LONGEST_PATH_BYTES))
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_removed_while_it_is_made_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Path.mkdir(exist_ok=True)` fails with "File exists" if the directory goes between its two looks."""
    real, failures = Path.mkdir, [FileExistsError(17, "File exists"), FileNotFoundError(2, "No such file or directory")]

    def mkdir(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        if failures and path.name == "natgw.d":
            raise failures.pop()
        real(path, mode, parents, exist_ok)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with Claim(tmp_path / "natgw.sock") as claim:
        assert claim.state.is_dir()
    assert not failures


def test_of_many_at_once_one_wins_each_time(tmp_path: Path) -> None:
    path, held, most = tmp_path / "natgw.sock", threading.Lock(), []
    winners = 0

    def try_often() -> None:
        nonlocal winners
        for _ in range(50):
            try:
                claim = Claim(path)
            except Conflict:
                continue
            alone = held.acquire(blocking=False)
            most.append(alone)
            with claim.listen():
                winners += 1
            held.release()
            claim.release()

    threads = [threading.Thread(target=try_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert winners > 0
    assert all(most)
    assert list(tmp_path.iterdir()) == []
