"""Laboratories for the namespace tests: one that tests share, and fresh ones for tests that end or break natgw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import requires
from tests.namespaces.topology import Lab, Namespace


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A laboratory of the test's own, natgw not started."""
    requires("ip", "tc", "ss")
    with Lab() as made:
        yield made


@dataclass
class Pair:
    """A running natgw with two containers on it, by one kind of link."""

    lab: Lab
    link: str
    one: Namespace
    two: Namespace


@pytest.fixture(scope="module", params=["tap", "veth"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Shared by the tests of a module, which leave it as they found it."""
    with Lab() as made:
        made.up("--link", request.param)
        one, two = made.container("one"), made.container("two")
        yield Pair(made, request.param, one, two)
