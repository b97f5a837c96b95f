"""One kernel gateway for all tests here; each comparison begins with an empty table of flows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import requires
from tests.kernel.kernel_gateway import KernelGateway


@pytest.fixture(scope="session")
def kernel() -> Iterator[KernelGateway]:
    requires("ip", "iptables-restore", "nsenter")
    with KernelGateway() as made:
        yield made
