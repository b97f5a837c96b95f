"""What a start waits for: which libraries are imported by whom. By name: a time depends on the machine (tools/bench has it)."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from natgw.startup import importing
from tests.unit.fake_daemon import FakeDaemon

HEAVY = {"aiohttp", "asyncio", "click", "crc32c", "dns", "h11", "http.client", "prometheus_client", "pyroute2", "pytun_pmd3",
         "rich", "scapy", "sqlite3", "uvloop", "hypothesis", "pytest"}

RUN = """
import sys
sys.argv = ["natgw", *sys.argv[1:]]
from natgw.cli import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


def heavy(program: str, *arguments: str) -> set[str]:
    """The heavy libraries that a program has imported, which prints the names of all modules on standard error."""
    ended = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return HEAVY & set(ended.stderr.split())


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("up", "--help"), ("ps", "--help"), ("flows", "--help")])
def test_what_help_imports(arguments: tuple[str, ...]) -> None:
    assert heavy(RUN, *arguments) == {"click"}


@pytest.mark.parametrize("arguments", [("ps",), ("flows",), ("status",), ("attach", "lab"), ("detach", "lab")])
def test_what_a_command_imports(daemon: FakeDaemon, socket_path: Path, arguments: tuple[str, ...]) -> None:
    daemon.add("lab")
    assert heavy(RUN, "--socket", str(socket_path), *arguments) == {"click", "http.client"}


def test_a_command_imports_no_others_module() -> None:
    program = RUN + "    print('|', *[name for name in sys.modules if name.startswith('natgw.cli.')], file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", program, "ps", "--help"], capture_output=True, text=True, check=True)
    assert set(ended.stderr.split("|")[1].split()) == {f"natgw.cli.{name}" for name in (
        "main", "group", "containers", "options", "output")}


def test_what_the_daemon_imports() -> None:
    """Not what only some daemons need: dnspython, SCTP's checksum, the text for Prometheus, Docker's driver."""
    found = heavy("import sys, natgw.cli.lifecycle, natgw.api.serve; print(*sys.modules, file=sys.stderr)")
    assert found == {"asyncio", "click", "h11", "pyroute2", "pytun_pmd3", "sqlite3", "uvloop"}


def test_imports_are_not_looked_through_for_cycles() -> None:
    frozen = gc.get_freeze_count()
    try:
        with pytest.raises(ImportError), importing():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() and gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
