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
    from natgw.testing.assertions import assert_checksums, assert_deliveries_equal, assert_packets_equal, summary
    from natgw.testing.gateway import OUTSIDE, Delivery, SimulatedGateway, Wire

__all__ = [
    "OUTSIDE",
    "Delivery",
    "SimulatedGateway",
    "Wire",
    "assert_checksums",
    "assert_deliveries_equal",
    "assert_packets_equal",
    "summary",
]

_IN_GATEWAY = {"OUTSIDE", "Delivery", "SimulatedGateway", "Wire"}


def __getattr__(name: str) -> object:
    """Import what is asked for, then: pytest loads the plugin from here wherever natgw is installed, scapy or no scapy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("natgw.testing.gateway" if name in _IN_GATEWAY else "natgw.testing.assertions"), name)
