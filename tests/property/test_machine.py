"""The gateway beside the model, through any sequence of packets, errors, fragments, waits and changes of configuration."""

from __future__ import annotations

from natgw.testing.machine import GatewayMachine, check_machine


class AnyNat(GatewayMachine):
    """Every configuration there is."""


def test_the_gateway_keeps_to_the_model() -> None:
    check_machine(AnyNat)
