"""Fixtures for pytest, there wherever natgw is installed. What they need is imported when one of them is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from natgw.testing.gateway import SimulatedGateway
    from natgw.testing.namespace import NamespaceGateway


@pytest.fixture
def natgw_gateway() -> Callable[..., SimulatedGateway]:
    """Makes gateways in memory: natgw_gateway(nat=..., containers=2, ...), see SimulatedGateway."""
    from natgw.testing.gateway import SimulatedGateway

    return SimulatedGateway


@pytest.fixture
def natgw_namespace(tmp_path: Path) -> Iterator[NamespaceGateway]:
    """A real natgw, in a network namespace made for the test, with a namespace outside. Needs root; skips without."""
    from natgw.testing.namespace import NamespaceGateway, why_not

    reason = why_not()
    if reason:
        pytest.skip(reason)
    with NamespaceGateway(tmp_path) as gateway:
        yield gateway
