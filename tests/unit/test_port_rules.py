"""Who has an external port, and until when: ports that several share as Linux does it, published ports beside mappings, several
external addresses. What one mapping alone has is in test_behaviour and test_mapping_rules.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet

from natgw.datapath import PRESETS, NatConfig, Verdict
from natgw.datapath.allocation import POLICIES, PortRequest
from natgw.tables.portpool import PortPool
from tests.unit.core_lab import (
    A_IP,
    B_IP,
    EXTERNAL,
    REMOTE,
    ROUTER,
    ROUTER_MAC,
    Lab,
    arp_reply,
    from_a,
    from_b,
    from_outside,
    uplink_config,
)
from tests.unit.test_napt import ports_of

LINUX = PRESETS["linux"]
"""Ports are shared by endpoints that talk to different remote ones; UDP lives for 30 seconds."""
SECOND = "198.51.100.3"
PORT = 50000


def udp(lab: Lab, sport: int, dport: int = 53, *, b: bool = False) -> int:
    """The external port that a datagram of container a, or b, to a port of the remote leaves with."""
    return lab.external_port(lab.send(*(("b", from_b(UDP(sport=sport, dport=dport))) if b else
                                        ("a", from_a(UDP(sport=sport, dport=dport))))))


# -- ports that several share (Linux; against RFC 4787 REQ-1, and only if asked for) -----------------------------------------


@pytest.mark.requirement("U4")
def test_an_endpoint_keeps_the_port_it_shares_and_takes_the_next_if_it_must() -> None:
    """As find_appropriate_src in net/netfilter/nf_nat_core.c has it."""
    lab = Lab(nat=LINUX, port_range=(PORT, PORT + 3))
    assert udp(lab, PORT) == PORT
    assert udp(lab, PORT, b=True) == PORT + 1, "a has its own towards this remote"
    assert udp(lab, PORT, 54, b=True) == PORT + 1, "its own would be free towards that one"
    assert udp(lab, PORT + 2, b=True) == PORT + 2
    assert udp(lab, PORT + 1, b=True) == PORT + 3
    for sport in (PORT + 3, 60000):
        assert lab.send("b", from_b(UDP(sport=sport, dport=53))).verdict is Verdict.DROP_PORTS_EXHAUSTED
    assert udp(lab, 60000, 55, b=True) in range(PORT, PORT + 4)


@pytest.mark.requirement("U4")
def test_the_newest_of_the_ports_that_an_endpoint_shares_is_tried_first() -> None:
    lab = Lab(nat=LINUX, port_range=(PORT, PORT + 9))
    assert udp(lab, PORT, 53) == PORT
    assert udp(lab, PORT, 54, b=True) == PORT
    assert udp(lab, PORT, 53, b=True) == PORT + 1
    assert udp(lab, PORT, 55, b=True) == PORT + 1


@pytest.mark.requirement("C3")
def test_a_port_shared_in_place_of_one_outside_the_range_cannot_be_guessed() -> None:
    given = {udp(Lab(nat=LINUX, seed=seed), 5000) for seed in range(5)}
    assert len(given) == 5 and all(40000 <= port <= 65535 for port in given)


@pytest.mark.requirement("U4")
def test_a_shared_port_is_nobody_elses_until_the_last_has_ended() -> None:
    lab = Lab(nat=LINUX)
    lab.dp.tick(lab.now)
    assert udp(lab, PORT, 53) == udp(lab, PORT, 54) == udp(lab, PORT, 55, b=True) == PORT
    lab.wait(20)
    udp(lab, PORT, 54)
    lab.wait(20)
    assert [flow["original"]["dport"] for flow in lab.flows()] == [54], "a's other one and b's have ended"
    lab.dp.set_nat(NatConfig())
    assert udp(lab, PORT, 56, b=True) != PORT
    lab.wait(302)
    assert not lab.flows()
    assert udp(lab, PORT, 57, b=True) == PORT


@pytest.mark.requirement("U4")
def test_the_same_when_the_one_who_had_it_first_ends_first() -> None:
    lab = Lab(nat=LINUX)
    lab.dp.tick(lab.now)
    assert udp(lab, PORT, 53) == udp(lab, PORT, 55, b=True) == PORT
    lab.wait(20)
    udp(lab, PORT, 55, b=True)
    lab.wait(20)
    lab.dp.set_nat(NatConfig())
    assert udp(lab, PORT, 56) != PORT, "b has it"


@pytest.mark.requirement("C2")
def test_a_port_that_was_shared_does_not_rest() -> None:
    """Nor could it: others talk by it all the time."""
    lab = Lab(nat=replace(LINUX, port_rest_s=120), port_range=(PORT, PORT))
    assert udp(lab, PORT) == PORT
    lab.wait(32)
    assert not lab.flows()
    assert udp(lab, PORT, b=True) == PORT


def test_of_ports_that_are_shared_the_uplink_is_not_told_as_of_protocols_without() -> None:
    lab = Lab(nat=LINUX)
    told: list[object] = []
    lab.dp.napt.owns_protocol = lambda *what: told.append(what)
    udp(lab, PORT)
    lab.wait(40)
    assert (lab.flows(), told) == ([], [])


# -- policies ----------------------------------------------------------------------------------------------------------------


class Stubborn:
    """A policy that knows one port alone, whether it is free or not."""

    def choose(self, request: PortRequest, pool: PortPool) -> int | None:
        return PORT


@pytest.mark.requirement("U4")
def test_what_a_policy_gives_that_is_not_free_is_nobodys_second_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICIES, "stubborn", lambda rng: Stubborn())
    lab = Lab(nat=NatConfig(allocation="stubborn"))
    assert udp(lab, 1) == PORT
    assert lab.send("a", from_a(UDP(sport=2))).verdict is Verdict.DROP_PORTS_EXHAUSTED
    assert [flow["mapping"]["internal"] for flow in lab.flows()] == [f"{A_IP}:1"]


@pytest.mark.requirement("C2")
def test_a_port_that_rests_is_its_last_owners_again() -> None:
    lab = Lab(nat=NatConfig(port_rest_s=120), port_range=(PORT, PORT))
    udp(lab, PORT)
    lab.wait(302)
    assert lab.send("b", from_b(UDP(sport=PORT))).verdict is Verdict.DROP_PORTS_EXHAUSTED
    assert udp(lab, PORT) == PORT


@pytest.mark.requirement("C2")
def test_no_port_rests_unless_that_is_asked_for() -> None:
    lab = Lab(port_range=(PORT, PORT))
    lab.now = 0.25
    assert udp(lab, PORT) == PORT
    lab.dp.remove_neighbour(lab.bridge, IPv4Address(A_IP))
    assert udp(lab, PORT, b=True) == PORT


# -- published ports beside mappings -----------------------------------------------------------------------------------------


@pytest.mark.requirement("U4")
@pytest.mark.parametrize("nat", [NatConfig(), LINUX], ids=["each its own", "shared"])
@pytest.mark.parametrize("pools_first", [False, True])
def test_a_published_port_is_taken_for_its_protocol_alone(nat: NatConfig, pools_first: bool) -> None:
    lab = Lab(nat=nat)
    if pools_first:
        lab.send("b", from_b(UDP(sport=60000)))
        lab.send("b", from_b(TCP(sport=60000, flags="S")))
    lab.publish(PORT, 53, "udp", container=B_IP)
    assert udp(lab, PORT) != PORT
    assert lab.external_port(lab.send("a", from_a(TCP(sport=PORT, flags="S")))) == PORT


@pytest.mark.requirement("U4")
def test_a_port_published_while_a_mapping_has_it_stays_taken_after_the_mapping() -> None:
    lab = Lab()
    assert udp(lab, PORT) == PORT
    publication = lab.publish(PORT, 53, "udp", container=B_IP)
    assert udp(lab, PORT, 54) == PORT, "a mapping that is there serves on"
    lab.wait(302)
    assert udp(lab, PORT) != PORT
    lab.dp.unpublish(publication)
    lab.wait(302)
    assert udp(lab, PORT) == PORT


@pytest.mark.requirement("U4")
def test_a_port_published_when_a_mapping_has_just_ended_is_no_mappings() -> None:
    lab = Lab()
    udp(lab, PORT)
    lab.wait(302)
    assert not lab.flows()
    lab.publish(PORT, 53, "udp", container=B_IP)
    lab.wait(2)
    assert udp(lab, PORT) != PORT


@pytest.mark.requirement("C2", "U4")
def test_a_port_published_while_it_rests_is_not_even_its_last_owners_again() -> None:
    lab = Lab(nat=NatConfig(port_rest_s=120))
    udp(lab, PORT)
    lab.wait(302)
    publication = lab.publish(PORT, 53, "udp", container=B_IP)
    assert udp(lab, PORT) != PORT
    lab.wait(302)
    assert udp(lab, PORT) != PORT, "nor when the rest is over"
    lab.dp.unpublish(publication)
    assert udp(lab, PORT, b=True) == PORT


@pytest.mark.requirement("U4")
@pytest.mark.parametrize("nat", [NatConfig(), LINUX], ids=["its own", "shared"])
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_port_that_was_published_meanwhile_is_still_the_mappings(nat: NatConfig, protocol: str) -> None:
    """Whether it was published for the mapping's protocol or for another."""
    lab = Lab(nat=nat)
    assert udp(lab, PORT) == PORT
    lab.dp.unpublish(lab.publish(PORT, 53, "udp" if protocol == "udp" else "tcp", container=B_IP))
    lab.dp.set_nat(NatConfig())
    assert udp(lab, PORT, b=True) != PORT


def test_what_a_container_sends_from_a_published_port_by_itself_begins_a_flow_like_any() -> None:
    lab = Lab()
    lab.publish(5353, 53, "udp")
    lab.publish(8080, 53)
    out = lab.send("a", from_a(UDP(sport=53, dport=9)))
    assert out.verdict is Verdict.TRANSLATED_OUT and lab.flows()[0]["kind"] == "outbound"
    assert lab.send("a", from_a(TCP(sport=53, dport=9, flags="S"))).verdict is Verdict.TRANSLATED_OUT
    assert lab.flows()[1]["kind"] == "outbound"


@pytest.mark.requirement("T7")
def test_an_old_connection_comes_by_a_port_that_its_server_is_published_at_now() -> None:
    """By the last of several; by none once none is left, and then as a client's."""
    lab = Lab()
    first, second = lab.publish(8080, 80), lab.publish(8081, 80)
    lab.publish(9090, 90)
    for dport, (external, gone) in enumerate(((8081, second), (8080, first)), 5000):
        assert ports_of(lab.send("a", from_a(TCP(sport=80, dport=dport, flags="A")))) == (EXTERNAL, external, REMOTE, dport)
        lab.dp.unpublish(gone)
        assert not lab.flows()
    out = lab.send("a", from_a(TCP(sport=80, dport=5002, flags="A")))
    assert out.verdict is Verdict.TRANSLATED_OUT and out.packet[TCP].sport not in (80, 8080, 8081, 9090)
    assert lab.flows()[0]["kind"] == "outbound"


# -- several external addresses ----------------------------------------------------------------------------------------------


def two_addresses(nat: NatConfig) -> Lab:
    lab = Lab(nat=nat)
    lab.dp.update_uplink(uplink_config(more=(SECOND,)))
    lab.send("uplink", arp_reply(ROUTER, ROUTER_MAC))
    return lab


@pytest.mark.requirement("U3")
@pytest.mark.parametrize("paired", [True, False])
def test_an_external_address_that_is_not_the_uplinks_is_not_used(paired: bool) -> None:
    lab = Lab(nat=NatConfig(external_addresses=(IPv4Address("198.51.100.77"),), paired=paired))
    assert ports_of(lab.send("a", from_a(UDP(sport=PORT, dport=53)))) == (EXTERNAL, PORT, REMOTE, 53)
    lab.dp.update_uplink(uplink_config(more=("198.51.100.77",)))
    lab.send("uplink", arp_reply(ROUTER, ROUTER_MAC))
    assert ports_of(lab.send("a", from_a(UDP(sport=PORT + 1, dport=53))))[0] == "198.51.100.77"


@pytest.mark.requirement("U7")
def test_who_is_reached_at_the_second_address_sees_that_as_the_source() -> None:
    lab = two_addresses(NatConfig())
    lab.publish(8080, 80, "udp", host_ip=SECOND)
    out = lab.send("b", from_b(UDP(sport=PORT, dport=8080), dst=SECOND))
    assert out.verdict is Verdict.TRANSLATED_HAIRPIN and ports_of(out) == (SECOND, PORT, A_IP, 80)
    assert ports_of(lab.send("a", from_a(UDP(sport=80, dport=PORT), dst=SECOND))) == (SECOND, 8080, B_IP, PORT)


def answer(dst: str) -> Packet:
    return from_outside(TCP(sport=5000, dport=8080, flags="A"), dst=dst)


@pytest.mark.requirement("T7")
def test_an_old_connection_keeps_the_address_that_its_server_is_published_at() -> None:
    lab = two_addresses(NatConfig())
    lab.publish(8080, 80, host_ip=SECOND)
    out = lab.send("a", from_a(TCP(sport=80, dport=5000, flags="A")))
    assert (out.packet[IP].src, out.packet[TCP].sport) == (SECOND, 8080)
    assert lab.send("uplink", answer(SECOND)).ports == ["a"]
    assert lab.send("uplink", answer(EXTERNAL)).verdict is Verdict.TO_HOST
    assert lab.send("a", from_a(TCP(sport=80, dport=5000, flags="A"))).packet[IP].src == SECOND
    (flow,) = lab.flows()
    assert (flow["protocol"], flow["original"]["packets"], flow["reply"]["packets"]) == ("tcp", 1, 2)
