"""The gateway beside the model, through any sequence of packets, errors, fragments, waits and changes of configuration."""

from __future__ import annotations

import pytest

from natgw.testing.machine import GatewayMachine, check_machine


class AnyNat(GatewayMachine):
    """Every configuration there is."""


@pytest.mark.timeout(900)  # minutes on a machine that others use too
def test_the_gateway_keeps_to_the_model() -> None:
    check_machine(AnyNat)
