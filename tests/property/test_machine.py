"""The gateway beside the model, through any sequence of packets, errors, fragments, waits and changes of configuration."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant

from natgw.testing.machine import AT_LEAST, GatewayMachine, check_machine
from tests.conftest import examples
from tests.generated import note


class AnyNat(GatewayMachine):
    """Every configuration there is."""

    def teardown(self) -> None:
        if hasattr(self, "model"):
            note("the gateway beside the model", sum(self.fast.datapath.verdicts))
        super().teardown()


class RestlessNat(GatewayMachine):
    """The same, with so few flows awake that all others rest, and wake up for every packet."""

    max_awake_flows = 2

    def teardown(self) -> None:
        if hasattr(self, "model"):
            note("the gateway with flows at rest beside the model", sum(self.fast.datapath.verdicts))
        super().teardown()

    @invariant()
    def flows_rest(self) -> None:
        if hasattr(self, "model"):
            table = self.fast.datapath.napt.flows
            self.reached["at rest"] += len(table) > table.awake


@pytest.mark.timeout(900)  # minutes on a machine that others use too
@pytest.mark.parametrize(("machine", "tries", "more"), [(AnyNat, 250, {}), (RestlessNat, 250, {"at rest": 500})])
def test_the_gateway_keeps_to_the_model(machine: type[GatewayMachine], tries: int, more: dict[str, int]) -> None:
    check_machine(machine, at_least=AT_LEAST | more, settings=settings(max_examples=examples(tries)))
