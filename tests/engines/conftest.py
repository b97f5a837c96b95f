"""Machines with a real dockerd: one that tests share, and fresh ones for tests that restart things."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import requires
from tests.engines.docker_lab import DockerLab

PROGRAMS = ("dockerd", "containerd", "runc", "docker", "tini", "busybox", "ip", "tc", "nsenter", "curl", "iptables")


def make_docker(*args: str) -> DockerLab:
    lab = DockerLab()
    try:
        lab.up()
        lab.start_docker(*args)
        lab.make_images()
    except BaseException:
        lab.close()
        raise
    return lab


@pytest.fixture(scope="module")
def shared() -> Iterator[DockerLab]:
    requires(*PROGRAMS)
    lab = make_docker()
    try:
        lab.docker("network", "create", "-d", "natgw", "natgw")
        yield lab
    finally:
        lab.close()


@pytest.fixture
def docker(shared: DockerLab) -> Iterator[DockerLab]:
    """The shared machine, with the network natgw and no container."""
    yield shared
    shared.remove_containers()


@pytest.fixture
def own() -> Iterator[DockerLab]:
    """A machine of the test's own."""
    requires(*PROGRAMS)
    lab = make_docker()
    try:
        yield lab
    finally:
        lab.close()
