"""What the model of `natgw.testing` says by itself; tests/property/test_machine.py compares it with the gateway."""

from __future__ import annotations

from dataclasses import replace

import pytest

from natgw.datapath import NatConfig
from natgw.datapath.behaviour import Timeouts
from natgw.testing.model import NatModel, Segment


@pytest.mark.requirement("C2")
def test_a_port_rests_from_the_end_of_the_last_flow_that_used_it() -> None:
    host, external = ("172.17.0.2", 5000), ("198.51.100.2", 5000)
    nat = NatConfig(port_rest_s=10, timeouts=Timeouts(udp_s=300, udp_stream_s=300))
    model = NatModel(nat, {host[0]}, [external[0]], (5000, 5000), lambda protocol, internal, remote: external)
    model.from_inside(Segment("udp", host, ("203.0.113.1", 53), "", 64))
    model.nat = replace(nat, timeouts=Timeouts(udp_s=30, udp_stream_s=30))
    model.from_inside(Segment("udp", host, ("203.0.113.9", 53), "", 64))
    model.advance(305.0, 1.0)
    assert not model.flows
    (port,) = model.resting
    assert port[:4] == ("udp", external, host[0], 310.0)


@pytest.mark.requirement("T4")
@pytest.mark.parametrize(("protocol", "event", "waits"), [("udp", "", True), ("tcp", "syn", False)])
def test_a_syn_that_waits_does_so_for_the_other_half_of_its_connection_alone(protocol: str, event: str, waits: bool) -> None:
    """Not for a datagram between the same two endpoints."""
    host, external, remote = ("172.17.0.2", 5000), ("198.51.100.2", 5000), ("203.0.113.1", 53)
    model = NatModel(NatConfig(), {host[0]}, [external[0]], (5000, 5000), lambda protocol, internal, remote: external)
    model.from_outside(Segment("tcp", remote, external, "syn", 64))
    model.from_inside(Segment(protocol, host, remote, event, 64))
    assert bool(model.held) is waits
