"""Turns of a frame's way that only mutations of the code showed to be untested (docs/mutants.md)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import ARP
from scapy.packet import Raw

from natgw.datapath import NatConfig, NetworkConfig, Verdict
from natgw.wire.ethernet import parse_mac
from tests.unit.core_lab import (
    A_IP,
    B_IP,
    B_MAC,
    EXTERNAL,
    GATEWAY_IP,
    GATEWAY_MAC,
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
from tests.unit.lab6 import A6_LL, REMOTE6, Lab6, from_a6

SECOND = "198.51.100.3"


@pytest.mark.parametrize(("exclusive", "verdict", "ports"), [(True, Verdict.FRAGMENT_WAITS, []),
                                                            (False, Verdict.TO_HOST, ["host"])])
@pytest.mark.requirement("U11")
def test_a_later_fragment_to_the_external_address_is_the_hosts_unless_natgw_has_it_alone(
        exclusive: bool, verdict: Verdict, ports: list[str]) -> None:
    out = Lab(exclusive=exclusive).send("a", from_a(Raw(bytes(64)), dst=EXTERNAL, proto=17, frag=8, id=9))
    assert (out.verdict, out.ports) == (verdict, ports)


@pytest.mark.requirement("U11", "U7")
@pytest.mark.parametrize("exclusive", [True, False])
def test_a_later_fragment_to_the_external_address_goes_where_its_first_went(exclusive: bool) -> None:
    lab = Lab(exclusive=exclusive)
    lab.publish(8080, 80, "udp", container=B_IP)
    parts = (from_a(UDP(sport=5000, dport=8080, len=128) / bytes(56), dst=EXTERNAL, flags="MF", id=9),
             from_a(Raw(bytes(64)), dst=EXTERNAL, proto=17, frag=8, id=9))
    for part in parts:
        out = lab.send("a", part)
        assert (out.ports, out.packet[IP].src, out.packet[IP].dst) == (["b"], EXTERNAL, B_IP)
    other = from_a(Raw(bytes(64)), dst=EXTERNAL, proto=17, frag=8, id=10)
    assert lab.send("a", other).verdict is (Verdict.FRAGMENT_WAITS if exclusive else Verdict.TO_HOST)


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


# -- what begins inside ----------------------------------------------------------------------------------------------


def test_a_station_of_the_network_that_nobody_told_of_is_asked_for() -> None:
    """By way of the gateway, for a sender with a narrower netmask."""
    lab = Lab()
    lab.add_port("c")
    out = lab.send("a", from_a(UDP(sport=5000, dport=53) / b"data", dst="172.17.0.4"))
    assert (out.verdict, sorted(out.ports)) == (Verdict.QUEUED, ["a", "b", "c"])
    found = lab.send("c", arp_reply("172.17.0.4", "02:42:ac:11:00:04", to_ip=GATEWAY_IP, to_mac=GATEWAY_MAC))
    (arrived,) = [each for each in found.sent if each.port == "c"]
    assert (arrived.packet.dst, arrived.packet[IP].ttl) == ("02:42:ac:11:00:04", 63)


@pytest.mark.parametrize("masquerade", [True, False])
def test_nothing_goes_out_where_no_neighbour_can_be_added(masquerade: bool) -> None:
    """The tables hold what they are told to: here the two containers, and the router with one more."""
    lab = Lab(max_neighbours=2)
    lab.bridge.config = replace(lab.bridge.config, masquerade=masquerade)
    for number, dst in enumerate(("198.51.100.7", "198.51.100.8")):
        out = lab.send("a", from_a(UDP(sport=5000, dport=53), dst=dst))
        assert out.verdict is (Verdict.DROP_NEIGHBOURS_FULL if number else Verdict.QUEUED)
    out = lab.send("a", from_a(UDP(sport=5000, dport=53), dst="172.17.0.4"))
    assert (out.verdict, out.sent) == (Verdict.DROP_NEIGHBOURS_FULL, [])
    out = lab.send("a", from_a(UDP(sport=5000, dport=53), src="172.17.0.4"))
    assert out.verdict is (Verdict.DROP_NEIGHBOURS_FULL if masquerade else Verdict.ROUTED)
    assert len(lab.flows()) == masquerade


@pytest.mark.requirement("U7")
def test_without_hairpins_published_ports_are_reached_from_inside_all_the_same() -> None:
    lab = Lab(nat=NatConfig(hairpin=False))
    lab.publish(8080, 80, "udp", container=B_IP)
    lab.publish(45001, 80, "udp", container=B_IP)
    for sport, port in ((5000, 8080), (5001, 45001)):
        out = lab.send("a", from_a(UDP(sport=sport, dport=port), dst=EXTERNAL))
        assert (out.verdict, out.ports, out.packet[UDP].dport) == (Verdict.TRANSLATED_HAIRPIN, ["b"], 80)
    for body, verdict in ((UDP(sport=5002, dport=45000), Verdict.DROP_HAIRPIN), (UDP(sport=5000, dport=8081), Verdict.TO_HOST),
                          (TCP(sport=5000, dport=45001), Verdict.DROP_HAIRPIN), (TCP(sport=5000, dport=8080), Verdict.TO_HOST)):
        assert lab.send("a", from_a(body, dst=EXTERNAL)).verdict is verdict


@pytest.mark.parametrize("exclusive", [True, False])
def test_at_the_external_address_what_has_no_ports_is_the_hosts(exclusive: bool) -> None:
    """From inside, as from outside: natgw cannot tell whose it is. Other ICMP queries nobody answers for the host."""
    lab = Lab(exclusive=exclusive)
    for protocol in (47, 58):
        assert lab.send("a", from_a(Raw(bytes(40)), dst=EXTERNAL, proto=protocol)).verdict is Verdict.TO_HOST
    out = lab.send("a", from_a(ICMP(type=13), dst=EXTERNAL))
    assert out.verdict is (Verdict.DROP_NO_MAPPING if exclusive else Verdict.TO_HOST)


def test_an_address_of_the_host_alone_is_never_natgws() -> None:
    """Even where natgw has the uplink's own for itself, and in the range of its ports."""
    lab = Lab(exclusive=True)
    lab.dp.update_uplink(uplink_config(local=("192.0.2.50",)))
    for body in (UDP(sport=5000, dport=45000), TCP(sport=5000, dport=45000, flags="S"), ICMP(id=3)):
        out = lab.send("a", from_a(body, dst="192.0.2.50"))
        assert (out.verdict, out.ports) == (Verdict.TO_HOST, ["host"])


@pytest.mark.requirement("I6")
def test_a_later_fragment_of_an_error_has_no_flow_of_its_own() -> None:
    lab = Lab()
    first = from_a(ICMP(type=3, code=1) / IP(src=REMOTE, dst=A_IP) / UDP(), flags="MF", id=9)
    later = from_a(Raw(bytes(64)), proto=1, frag=8, id=9)
    assert lab.send("a", first).verdict is Verdict.DROP_PROTOCOL
    assert lab.send("a", later).verdict is Verdict.FRAGMENT_WAITS
    assert lab.send("a", from_a(Raw(bytes(64)), proto=58)).verdict is Verdict.DROP_PROTOCOL
    whole = from_a(ICMP(type=3, code=1) / IP(src=REMOTE, dst=A_IP) / UDP())
    assert lab.send("a", whole).verdict is Verdict.DROP_ICMP_NO_FLOW


@pytest.mark.requirement("I8")
@pytest.mark.parametrize("nat", [NatConfig(), NatConfig(ports_per_host=1), NatConfig(flows_per_host_per_s=1)])
def test_who_gets_no_more_flows_is_told_and_counted(nat: NatConfig) -> None:
    lab = Lab(nat=nat, port_range=(50000, 50000))
    assert lab.send("a", from_a(UDP(sport=5000, dport=53))).verdict is Verdict.TRANSLATED_OUT
    out = lab.send("a", from_a(UDP(sport=5001, dport=53)))
    assert out.verdict in (Verdict.DROP_PORTS_EXHAUSTED, Verdict.DROP_HOST_PORTS, Verdict.DROP_HOST_RATE)
    assert (out.ports, out.packet[ICMP].type, out.packet[ICMP].code) == (["a"], 3, 13)
    assert len(lab.flows()) == 1


@pytest.mark.requirement("C4")
def test_untranslated_too_the_sender_is_told_that_there_is_no_route() -> None:
    """By the gateway of its network; and nobody is told of an error."""
    lab = Lab()
    lab.bridge.config = replace(lab.bridge.config, masquerade=False)
    lab.dp.update_uplink(replace(uplink_config(), routes=()))
    out = lab.send("a", from_a(UDP(sport=5000, dport=53), ttl=1))
    assert (out.verdict, out.ports, out.packet[IP].src) == (Verdict.ICMP_UNREACHABLE, ["a"], GATEWAY_IP)
    assert (out.packet[ICMP].type, out.packet[ICMP].code) == (3, 0)
    out = lab.send("a", from_a(ICMP(type=3, code=1) / IP(src=REMOTE, dst=A_IP) / UDP()))
    assert (out.verdict, out.sent) == (Verdict.DROP_NO_ROUTE, [])


@pytest.mark.parametrize("fast_path", [True, False])
def test_an_address_that_became_the_uplinks_is_the_hosts_for_who_spoke_with_it_before(fast_path: bool) -> None:
    """Whoever had it has it no more: what is sent to it is the host's, as it is for those who begin now."""
    lab = Lab(fast_path=fast_path)
    packet = from_a(UDP(sport=5000, dport=53), dst=SECOND)
    lab.send("a", packet)
    assert [each.packet[UDP].dport for each in lab.send("uplink", arp_reply(SECOND, "02:cc:00:00:00:01")).sent] == [53]
    lab.dp.update_uplink(uplink_config(more=(SECOND,)))
    for source in (packet, from_b(UDP(sport=5000, dport=53), dst=SECOND)):
        out = lab.send("a" if source is packet else "b", source)
        assert (out.verdict, out.ports) == (Verdict.TO_HOST, ["host"])


@pytest.mark.requirement("G1", "I3", "V1")
def test_of_what_is_said_of_an_error_nobody_is_told_and_it_is_counted_for_what_it_is() -> None:
    """From an address that is valid on its link alone, and where there is no uplink."""
    lab = Lab6()
    error6 = ICMPv6DestUnreach() / IPv6(src=REMOTE6, dst=A6_LL) / UDP(sport=53, dport=5000)
    out = lab.send("a", from_a6(error6, src=A6_LL))
    assert (out.verdict, out.sent) == (Verdict.DROP_MARTIAN_SOURCE, [])
    lab.dp.clear_uplink()
    out = lab.send("a", from_a(ICMP(type=3, code=1) / IP(src=REMOTE, dst=A_IP) / UDP()))
    assert (out.verdict, out.sent) == (Verdict.DROP_NO_UPLINK, [])


@pytest.mark.requirement("I3")
def test_an_error_finds_its_way_again_where_that_is_not_known_any_more() -> None:
    """The uplink changed, and the next hop is asked for; a container's port went, and it is asked for behind the others."""
    lab = Lab()
    lab.send("a", from_a(UDP(sport=45000, dport=53)))
    lab.dp.update_uplink(uplink_config(mtu=1400))
    error = ICMP(type=3, code=3) / IP(src=REMOTE, dst=A_IP) / UDP(sport=53, dport=45000)
    out = lab.send("a", from_a(error))
    assert (out.verdict, out.packet[ARP].pdst) == (Verdict.QUEUED, ROUTER)
    (sent,) = lab.send("uplink", arp_reply(ROUTER, ROUTER_MAC)).sent
    assert (sent.packet[IP].src, sent.packet[ICMP].type) == (EXTERNAL, 3)
    lab.dp.remove_port(lab.ports["a"])
    error = ICMP(type=3, code=3) / IP(src=EXTERNAL, dst=REMOTE) / UDP(sport=45000, dport=53)
    out = lab.send("uplink", from_outside(error))
    assert (out.verdict, [(each.port, each.packet[ARP].pdst) for each in out.sent]) == (Verdict.QUEUED, [("b", A_IP)])


def test_a_flow_to_an_address_that_became_the_uplinks_ends_and_others_go_on() -> None:
    lab = Lab()
    for dst in (SECOND, REMOTE):
        lab.send("a", from_a(UDP(sport=5000, dport=53), dst=dst))
    lab.dp.update_uplink(uplink_config(more=(SECOND,)))
    assert [flow["original"]["dst"] for flow in lab.flows()] == [REMOTE]


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("answered", [True, False])
def test_an_address_that_came_to_the_host_is_the_hosts_for_who_spoke_with_it_before(fast_path: bool, answered: bool) -> None:
    """At another interface than the uplink, as with each network that somebody else makes on this host."""
    lab = Lab(fast_path=fast_path)
    port = lab.external_port(lab.send("a", from_a(UDP(sport=5000, dport=53))))
    if answered:
        assert lab.send("uplink", from_outside(UDP(sport=53, dport=port))).ports == ["a"]
    lab.send("a", from_a(UDP(sport=5000, dport=54)))
    lab.dp.update_uplink(uplink_config(local=(REMOTE,)))
    out = lab.send("a", from_a(UDP(sport=5000, dport=53)))
    assert (out.verdict, out.ports, lab.flows()) == (Verdict.TO_HOST, ["host"], [])


def test_an_address_that_came_to_the_host_has_no_connection_from_outside_any_more() -> None:
    lab = Lab()
    lab.publish(8080, 80)
    assert lab.send("uplink", from_outside(TCP(sport=5000, dport=8080, flags="S"))).ports == ["a"]
    lab.dp.update_uplink(uplink_config(local=(REMOTE,)))
    assert lab.flows() == []
    assert lab.send("a", from_a(TCP(sport=80, dport=5000, flags="SA"))).verdict is Verdict.TO_HOST


def test_the_host_gets_another_address_and_other_flows_go_on() -> None:
    lab = Lab()
    packet = from_a(UDP(sport=5000, dport=53))
    port = lab.external_port(lab.send("a", packet))
    lab.dp.update_uplink(uplink_config(local=("192.0.2.77",)))
    assert lab.external_port(lab.send("a", packet)) == port
    assert lab.dp.counters()["flows_created"] == len(lab.flows()) == 1


@pytest.mark.parametrize("fast_path", [True, False])
def test_an_address_that_came_to_be_a_networks_is_not_looked_for_outside_any_more(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)
    packet = from_a(UDP(sport=5000, dport=53), dst="172.18.0.9")
    assert lab.send("a", packet).verdict is Verdict.TRANSLATED_OUT
    lab.dp.add_network(NetworkConfig(name="other", subnet=IPv4Network("172.18.0.0/16"), gateway=IPv4Address("172.18.0.1"),
                                     gateway_mac=parse_mac("02:42:ac:12:00:01")))
    out = lab.send("a", packet)
    assert (out.verdict, out.ports) == (Verdict.DROP_ISOLATED, [])
