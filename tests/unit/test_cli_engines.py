"""`natgw attach docker:NAME`: what the engine's command says, and what the user is told then."""

from __future__ import annotations

from pathlib import Path

import pytest

from natgw.cli.engines import namespace_of, split_target
from natgw.errors import NatgwError


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command `docker` that a test writes."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "docker"


def says(engine: Path, script: str) -> None:
    engine.write_text(f"#!/bin/sh\n{script}\n")
    engine.chmod(0o755)


def test_targets() -> None:
    assert split_target("docker:web") == ("docker", "web")
    assert split_target("podman:a1b2") == ("podman", "a1b2")
    for other in ("lab", "4711", "/proc/1/ns/net", "cri:web"):
        assert split_target(other) is None


def test_a_container_that_runs(engine: Path) -> None:
    says(engine, '[ "$*" = "container inspect --format {{.State.Pid}} -- web" ] && echo 4711')
    assert namespace_of("docker", "web") == "/proc/4711/ns/net"


@pytest.mark.parametrize(("script", "told"), [
    ("echo 0", "container web is not running"),
    ("echo; echo 'Error: No such container: web' >&2; exit 1", "no container web in docker"),
    ("echo 'Cannot connect to the Docker daemon at unix:///x' >&2; exit 1", "Cannot connect to the Docker daemon"),
    ("exit 3", "exit code 3"),
])
def test_what_does_not_work(engine: Path, script: str, told: str) -> None:
    says(engine, script)
    with pytest.raises(NatgwError, match=told):
        namespace_of("docker", "web")


def test_no_such_engine_and_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NatgwError, match="no command podman here"):
        namespace_of("podman", "web")
    with pytest.raises(NatgwError, match="which container"):
        namespace_of("docker", "")
