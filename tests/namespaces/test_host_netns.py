"""Naming, making and visiting namespaces."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from pathlib import Path

import pytest

from natgw.errors import NatgwError, NotFound
from natgw.host import netns
from tests.namespaces.host_lab import namespaces

pytestmark = pytest.mark.requires("ip", "nsenter")


def here() -> tuple[int, int]:
    return netns.namespace_id("/proc/thread-self/ns/net")


def test_target_by_name_path_and_pid() -> None:
    name = f"natgw-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        path = netns.resolve_target(name)
        assert Path(path).name == name
        assert netns.resolve_target(path) == path
        assert netns.namespace_id(path) != here()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    assert netns.namespace_id(netns.resolve_target(str(os.getpid()))) == here()


@pytest.mark.parametrize("target", ["no-such-namespace", "/no/such/path", "4194305", "", "."])
def test_unknown_target_says_what_to_give(target: str) -> None:
    with pytest.raises(NotFound) as error:
        netns.resolve_target(target)
    assert target in str(error.value)


@pytest.mark.parametrize("kind", ["file", "directory", "fifo", "namespace of another kind"])
def test_what_is_no_network_namespace_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "file":
        path.touch()
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path = Path("/proc/self/ns/pid")
    with pytest.raises(NatgwError, match=f"{path} is not a network namespace"):
        netns.run_inside(str(path), here)


def test_visit_sees_the_namespace_and_the_caller_stays() -> None:
    before = here()
    with namespaces(1) as (inside,):
        assert inside.call(here) == netns.namespace_id(inside.path) != before
        assert inside.names() == ["lo"]
        assert here() == before


def test_visit_gives_results_and_raises_what_was_raised() -> None:
    def fail() -> None:
        raise LookupError("from inside")

    with namespaces(1) as (inside,):
        assert inside.call(max, 1, 2) == 2
        with pytest.raises(LookupError, match="from inside"):
            inside.call(fail)


def test_visit_to_what_is_not_a_namespace() -> None:
    with pytest.raises(NotFound, match="no namespace at /no/such"):
        netns.run_inside("/no/such", os.getpid)


def test_a_socket_made_inside_stays_inside() -> None:
    with namespaces(1) as (inside,), inside.socket(socket.SOCK_DGRAM, ("127.0.0.1", 0)) as handle:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
            outside.bind(handle.getsockname())  # the same address and port: another namespace
