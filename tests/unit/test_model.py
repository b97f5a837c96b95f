"""What the model of `natgw.testing` says by itself; tests/property/test_machine.py compares it with the gateway."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from natgw.datapath import NatConfig
from natgw.datapath.behaviour import Timeouts
from natgw.testing.model import Answered, Arrives, Disagreement, Dropped, NatModel, Segment


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


# ---- IPv6 --------------------------------------------------------------------------------------------------

HOST6, FAR6, OUTER6, PRIVATE6 = ("fd00:1:2:3::2", 5000), ("2001:db8:113::1", 53), "2001:db8:51::2", "fd00:51::2"


def model6(nat: NatConfig | None = None, given: tuple[str, int] | None = (OUTER6, 5000)) -> NatModel:
    """A model whose gateway gives everybody the same external endpoint, or none."""
    return NatModel(nat or NatConfig(), {HOST6[0]}, [OUTER6, PRIVATE6], (5000, 5000), lambda protocol, internal, remote: given,
                    published={("tcp", 8080): (HOST6[0], 80)})


@pytest.mark.requirement("V1")
def test_there_and_back_with_ipv6() -> None:
    model = model6()
    assert model.from_inside(Segment("udp", HOST6, FAR6)) == Arrives("outside", (OUTER6, 5000), FAR6, 1)
    assert model.from_outside(Segment("udp", FAR6, (OUTER6, 5000))) == Arrives(HOST6[0], FAR6, HOST6, 1)
    assert model.from_outside(Segment("udp", ("2001:db8:113::2", 53), (OUTER6, 5000))) == Dropped("filtered")
    model.advance(301.0, 1.0)
    assert not model.flows


@pytest.mark.requirement("V1", "I1")
def test_an_echo_of_icmpv6_is_mapped_as_one_of_icmp_is() -> None:
    model = model6()
    assert isinstance(model.from_inside(Segment("icmpv6", HOST6, (FAR6[0], 0), "ask")), Arrives)
    assert isinstance(model.from_outside(Segment("icmpv6", (FAR6[0], 0), (OUTER6, 5000), "answer")), Arrives)
    assert model.from_outside(Segment("icmpv6", (FAR6[0], 0), (OUTER6, 5000), "ask")) == Answered()
    assert model.from_inside(Segment("icmpv6", HOST6, ("2001:db8:113::2", 0), "answer")) == Dropped("no query")
    model.advance(61.0, 1.0)
    assert not model.flows


@pytest.mark.requirement("V1", "G1", "I8")
def test_a_sender_is_told_in_icmpv6s_words() -> None:
    assert model6().from_inside(Segment("udp", HOST6, FAR6, ttl=1)) == Dropped("ttl", (3, 0))
    full = model6(NatConfig(ports_per_host=1))
    full.from_inside(Segment("udp", HOST6, FAR6))
    assert full.from_inside(Segment("udp", (HOST6[0], 5001), FAR6)) == Dropped("no port", (1, 1))


@pytest.mark.requirement("V1")
@pytest.mark.parametrize(("remote", "own"), [(FAR6[0], OUTER6), ("fd00:113::9", PRIVATE6), (PRIVATE6, PRIVATE6)])
def test_of_several_addresses_the_one_most_like_the_destination_is_used(remote: str, own: str) -> None:
    other = {OUTER6: PRIVATE6, PRIVATE6: OUTER6}[own]
    model6(given=(own, 5000)).from_inside(Segment("udp", HOST6, (remote, 53)))
    with pytest.raises(Disagreement, match=other):
        model6(given=(other, 5000)).from_inside(Segment("udp", HOST6, (remote, 53)))


@pytest.mark.requirement("V1", "T7")
@pytest.mark.parametrize(("remote", "own"), [(FAR6[0], OUTER6), ("fd00:113::9", PRIVATE6)])
def test_a_published_connection_is_picked_up_at_that_address(remote: str, own: str) -> None:
    went = model6().from_inside(Segment("tcp", (HOST6[0], 80), (remote, 53), "ack"))
    assert went == Arrives("outside", (own, 8080), (remote, 53), 1)


@pytest.mark.requirement("V1", "U3")
def test_a_host_is_paired_with_one_of_the_configured_addresses() -> None:
    nat = NatConfig(external_addresses=(IPv6Address(OUTER6), IPv6Address(PRIVATE6)))
    model6(nat).from_inside(Segment("udp", HOST6, ("fd00:113::9", 53)))
    with pytest.raises(Disagreement, match="not one of"):
        model6(nat, (PRIVATE6, 5000)).from_inside(Segment("udp", HOST6, ("fd00:113::9", 53)))
