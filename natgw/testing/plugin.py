"""Fixtures for pytest, there wherever natgw is installed. What they need is imported when one of them is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from natgw.testing.gateway import SimulatedGateway
    from natgw.testing.namespace import NamespaceGateway


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "natgw_up(*options): options of `natgw up` for the fixture natgw_namespace, such as "
                            "'--nat-type', 'symmetric'")


@pytest.fixture
def natgw_gateway() -> Callable[..., SimulatedGateway]:
    """Makes gateways in memory: natgw_gateway(nat=..., containers=2, ...), see SimulatedGateway."""
    from natgw.testing.gateway import SimulatedGateway

    return SimulatedGateway


@pytest.fixture
def natgw_namespace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NamespaceGateway]:
    """A real natgw, in a network namespace made for the test, with a namespace outside. Needs root; skips without.

    The marker `natgw_up` has options for it: @pytest.mark.natgw_up("--nat-type", "symmetric").
    """
    from natgw.testing.namespace import NamespaceGateway, why_not

    reason = why_not()
    if reason:
        pytest.skip(reason)
    marker = request.node.get_closest_marker("natgw_up")
    with NamespaceGateway(tmp_path, () if marker is None else marker.args) as gateway:
        yield gateway
