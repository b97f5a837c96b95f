"""Turns of a frame's way that only mutations of the code showed to be untested (docs/mutants.md)."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.packet import Raw

from natgw.datapath import NatConfig, Verdict
from tests.unit.core_lab import A_IP, B_IP, B_MAC, EXTERNAL, GATEWAY_IP, REMOTE, Lab, from_a, from_b, from_outside

SECOND = "198.51.100.3"


@pytest.mark.parametrize(("exclusive", "verdict", "ports"), [(True, Verdict.FRAGMENT_WAITS, []),
                                                            (False, Verdict.TO_HOST, ["host"])])
@pytest.mark.requirement("U11")
def test_a_later_fragment_to_the_external_address_is_the_hosts_unless_natgw_has_it_alone(
        exclusive: bool, verdict: Verdict, ports: list[str]) -> None:
    out = Lab(exclusive=exclusive).send("a", from_a(Raw(bytes(64)), dst=EXTERNAL, proto=17, frag=8, id=9))
    assert (out.verdict, out.ports) == (verdict, ports)


@pytest.mark.requirement("G6")
def test_a_ping_from_inside_to_the_external_address_is_answered_by_whom_the_address_is() -> None:
    shared = Lab().send("a", from_a(ICMP(id=3) / b"data", dst=EXTERNAL))
    assert (shared.verdict, shared.ports) == (Verdict.TO_HOST, ["host"])
    alone = Lab(exclusive=True)
    answered = alone.send("a", from_a(ICMP(id=3) / b"data", dst=EXTERNAL))
    assert (answered.verdict, answered.ports) == (Verdict.ECHO_ANSWERED, ["a"])
    assert (answered.packet[IP].src, answered.packet[ICMP].type, answered.packet[ICMP].id) == (EXTERNAL, 0, 3)
    first = alone.send("a", from_a(ICMP(id=3) / bytes(64), dst=EXTERNAL, flags="MF", id=9))
    assert (first.verdict, first.sent) == (Verdict.DROP_FRAGMENT, [])


@pytest.mark.requirement("G1", "G2")
def test_what_is_routed_back_to_the_bridge_counts_a_hop() -> None:
    """By way of the gateway, untranslated: the sender has a narrower netmask. The laboratory verifies the checksums."""
    lab = Lab()
    for ttl in (64, 2):
        out = lab.send("a", from_a(UDP(sport=5000, dport=53) / b"data", dst=B_IP, ttl=ttl))
        assert (out.verdict, out.ports, out.packet.dst) == (Verdict.ROUTED, ["b"], B_MAC)
        assert (out.packet[IP].src, out.packet[IP].dst, out.packet[IP].ttl) == (A_IP, B_IP, ttl - 1)
    out = lab.send("a", from_a(UDP(sport=5000, dport=53), dst=B_IP, ttl=1))
    assert (out.verdict, out.ports) == (Verdict.ICMP_TIME_EXCEEDED, ["a"])
    assert (out.packet[IP].src, out.packet[ICMP].type, out.packet[ICMP].code) == (GATEWAY_IP, 11, 0)


@pytest.mark.requirement("I3", "G1")
def test_an_error_counts_a_hop_as_well() -> None:
    lab = Lab()
    lab.send("a", from_a(UDP(sport=45000, dport=53)))
    error = ICMP(type=3, code=1) / IP(src=EXTERNAL, dst=REMOTE) / UDP(sport=45000, dport=53)
    for ttl in (64, 2):
        out = lab.send("uplink", from_outside(error, ttl=ttl))
        assert (out.verdict, out.packet[IP].ttl) == (Verdict.TRANSLATED_ERROR, ttl - 1)
    assert lab.send("uplink", from_outside(error, ttl=1)).sent == []


@pytest.mark.requirement("I3")
def test_an_error_may_quote_a_first_fragment_and_no_later_one() -> None:
    lab = Lab()
    lab.send("a", from_a(UDP(sport=45000, dport=53)))
    first = IP(src=EXTERNAL, dst=REMOTE, flags="MF") / UDP(sport=45000, dport=53)
    assert lab.send("uplink", from_outside(ICMP(type=3, code=1) / first)).verdict is Verdict.TRANSLATED_ERROR
    for offset in (1, 8, 0x1000):
        later = IP(src=EXTERNAL, dst=REMOTE, frag=offset, proto=17) / Raw(bytes(UDP(sport=45000, dport=53)))
        assert lab.send("uplink", from_outside(ICMP(type=3, code=1) / later)).sent == []


@pytest.mark.requirement("U3")
def test_flows_by_an_address_that_went_end_and_others_stay() -> None:
    lab = Lab()
    lab.send("a", from_a(UDP(sport=45000, dport=53)))
    lab.publish(8080, 80, "udp")
    lab.send("uplink", from_outside(UDP(sport=5000, dport=8080)))
    lab.dp.napt.end_flows_outside([IPv4Address(EXTERNAL).packed, IPv4Address(SECOND).packed])
    assert sorted(str(flow["kind"]) for flow in lab.flows()) == ["outbound", "published"]
    lab.dp.napt.end_flows_outside([IPv4Address(SECOND).packed])
    assert lab.flows() == []


@pytest.mark.requirement("U5")
def test_the_sequential_policy_goes_on_where_it_was() -> None:
    """A port that has become free in between is not the next one; each protocol has its own sequence."""
    lab = Lab(nat=NatConfig(allocation="sequential"), port_range=(50000, 50009))
    ports = [lab.external_port(lab.send("a", from_a(UDP(sport=each, dport=53)))) for each in (2000, 2001, 2002)]
    assert ports == [50000, 50001, 50002]
    lab.wait(302)
    assert lab.flows() == []
    lab.send("a", from_a(UDP(sport=9, dport=9), dst=GATEWAY_IP))
    assert lab.external_port(lab.send("b", from_b(UDP(sport=2003, dport=53)))) == 50003
