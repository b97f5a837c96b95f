"""The ledger remembers what was made and not removed, whatever became of its last line."""

from __future__ import annotations

import socket
from pathlib import Path

from natgw.control.ledger import Ledger, remove_leftovers
from natgw.control.processes import start_time


def test_the_ledger_remembers_what_was_not_removed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.outstanding() == []
    first, second = ledger.note("link", name="veth1"), ledger.note("link", name="veth2")
    ledger.forget(first)
    with (tmp_path / "ledger").open("a") as file:
        file.write('{"add": {"kind": "li')  # the power went here
    assert Ledger(tmp_path / "ledger").outstanding() == [second]
    ledger.clear()
    assert ledger.outstanding() == []


def test_a_process_is_known_by_its_start() -> None:
    assert start_time(1) is not None
    assert start_time(2**22 + 1) is None


def test_a_socket_that_nobody_listens_on_is_removed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left, socket.socket(socket.AF_UNIX) as served:
        left.bind(str(tmp_path / "left.sock"))
        served.bind(str(tmp_path / "served.sock"))
        served.listen()
        ledger = Ledger(tmp_path / "ledger")
        ledger.begin()
        for name in ("left", "served", "gone"):
            ledger.note("socket", path=str(tmp_path / f"{name}.sock"))
        assert remove_leftovers(ledger.outstanding()) == [f"removed socket {tmp_path}/left.sock"]
        assert not (tmp_path / "left.sock").exists()
        assert (tmp_path / "served.sock").exists()
