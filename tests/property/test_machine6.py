"""The gateway beside the model with IPv6, as test_machine.py does it with IPv4."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant

from natgw.testing.machine import AT_LEAST, GatewayMachine6, check_machine
from tests.conftest import examples
from tests.generated import note


class AnyNat6(GatewayMachine6):
    """Every configuration there is."""

    def teardown(self) -> None:
        if hasattr(self, "model"):
            note("the gateway beside the model, IPv6", sum(self.fast.datapath.verdicts))
        super().teardown()

    @invariant()
    def the_private_address_is_used(self) -> None:
        """By choice of the route alone, where none is configured."""
        if hasattr(self, "model") and not self.model.nat.external_addresses:
            self.reached["private address"] += any(
                mapping.external[0] == self.external[1] for mapping in self.model.mappings())


class RestlessNat6(GatewayMachine6):
    """The same, with so few flows awake that all others rest, and wake up for every packet."""

    max_awake_flows = 2

    def teardown(self) -> None:
        if hasattr(self, "model"):
            note("the gateway with flows at rest beside the model, IPv6", sum(self.fast.datapath.verdicts))
        super().teardown()

    @invariant()
    def flows_rest(self) -> None:
        if hasattr(self, "model"):
            table = self.fast.datapath.napt.flows
            self.reached["at rest"] += len(table) > table.awake


@pytest.mark.requirement("V1", "V3", "V4")
@pytest.mark.timeout(900)  # minutes on a machine that others use too
@pytest.mark.parametrize(("machine", "tries", "more"), [
    (AnyNat6, 250, {"private address": 300}), (RestlessNat6, 250, {"at rest": 500})])
def test_the_gateway_keeps_to_the_model(machine: type[GatewayMachine6], tries: int, more: dict[str, int]) -> None:
    check_machine(machine, at_least=AT_LEAST | more, settings=settings(max_examples=examples(tries)))
