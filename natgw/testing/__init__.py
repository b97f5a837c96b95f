"""Testing what stands behind a NAT, and the NAT itself, without root: `pip install natgw[testing]`; docs/testing.md teaches it.

    gateway      a whole gateway in memory, and a wire to join several
    model        what a NAT has to do, written slowly and obviously, to compare with
    machine      a Hypothesis state machine that drives both side by side
    strategies   Hypothesis strategies: packets, flows, fragments, errors, bytes of ill will, configurations
    assertions   comparing packets, with a difference that reads like tcpdump's output
    plugin       fixtures for pytest

Nothing else in natgw imports this package, so nothing else needs scapy, Hypothesis or pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from natgw.testing.assertions import (
        assert_checksums,
        assert_deliveries_equal,
        assert_packets_equal,
        difference,
        summary,
    )
    from natgw.testing.gateway import OUTSIDE, Delivery, SimulatedGateway, Wire
    from natgw.testing.machine import AT_LEAST, GatewayMachine, GatewayMachine6, check_machine
    from natgw.testing.model import NatModel, Segment

__all__ = [
    "AT_LEAST",
    "OUTSIDE",
    "Delivery",
    "GatewayMachine",
    "GatewayMachine6",
    "NatModel",
    "Segment",
    "SimulatedGateway",
    "Wire",
    "assert_checksums",
    "assert_deliveries_equal",
    "assert_packets_equal",
    "check_machine",
    "difference",
    "summary",
]

_MODULES = {
    "assertions": ("assert_checksums", "assert_deliveries_equal", "assert_packets_equal", "difference", "summary"),
    "gateway": ("OUTSIDE", "Delivery", "SimulatedGateway", "Wire"),
    "machine": ("AT_LEAST", "GatewayMachine", "GatewayMachine6", "check_machine"),
    "model": ("NatModel", "Segment"),
}
_MODULE_OF = {name: f"natgw.testing.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import what is asked for, then: pytest loads the plugin from here wherever natgw is installed, scapy or no scapy."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
