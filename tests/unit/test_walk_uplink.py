"""Turns of a frame's way in from outside that only mutations of the code showed to be untested (docs/mutants.md)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6ND_RA, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from natgw.datapath import NatBehaviour, NatConfig, Route, UplinkConfig, Verdict
from natgw.datapath.behaviour import Dependence
from natgw.wire.ethernet import parse_mac
from tests.unit.core_lab import (
    B_IP,
    BROADCAST_MAC,
    EXTERNAL,
    GATEWAY_IP,
    GATEWAY_MAC,
    REMOTE,
    ROUTER,
    ROUTER_MAC,
    UPLINK_MAC,
    Lab,
    arp_reply,
    from_a,
    from_outside,
    uplink_config,
)
from tests.unit.lab6 import EXTERNAL6, REMOTE6, ROUTER6, UPLINK6_LL, Lab6, advertisement, from_outside6, solicitation

OTHER_MAC = "02:99:00:00:00:01"
OPEN = NatConfig(udp=NatBehaviour(filtering=Dependence.ENDPOINT_INDEPENDENT))


# -- the outer link -----------------------------------------------------------------------------------------------------


def test_arp_is_heard_that_is_for_natgw_or_for_all() -> None:
    lab = Lab(exclusive=True)
    asked = ARP(hwsrc=ROUTER_MAC, psrc=ROUTER, pdst=EXTERNAL)
    for dst in (UPLINK_MAC, BROADCAST_MAC):
        out = lab.send("uplink", Ether(src=ROUTER_MAC, dst=dst) / asked)
        assert (out.verdict, out.ports, out.packet[ARP].psrc) == (Verdict.ABSORBED, ["uplink"], EXTERNAL)
    out = lab.send("uplink", Ether(src=ROUTER_MAC, dst=OTHER_MAC) / asked)
    assert (out.verdict, out.sent) == (Verdict.DROP_NOT_FOR_US, [])
    out = lab.send("uplink", Ether(src=ROUTER_MAC, dst=UPLINK_MAC, type=0x0806) / Raw(bytes(28)))
    assert (out.verdict, out.sent) == (Verdict.DROP_BAD_ARP, [])


@pytest.mark.requirement("V2")
def test_neighbour_discovery_is_heard_that_is_for_natgw_or_for_all() -> None:
    lab = Lab6(exclusive=True)
    asked = solicitation(EXTERNAL6, src=ROUTER6, mac=ROUTER_MAC)
    for dst in (UPLINK_MAC, asked.dst):
        asked.dst = dst
        out = lab.send("uplink", asked)
        assert (out.verdict, out.ports) == (Verdict.ABSORBED, ["uplink"])
        assert (out.packet.dst, out.packet[IPv6].src) == (ROUTER_MAC, EXTERNAL6)
    asked.dst = OTHER_MAC
    out = lab.send("uplink", asked)
    assert (out.verdict, out.sent) == (Verdict.DROP_NOT_FOR_US, [])
    out = lab.send("uplink", solicitation(EXTERNAL6, src=ROUTER6, mac=ROUTER_MAC, hlim=254))
    assert (out.verdict, out.sent) == (Verdict.DROP_BAD_ND, [])


@pytest.mark.requirement("V2")
def test_an_advertisement_without_the_option_is_from_where_its_frame_says() -> None:
    lab = Lab6(resolved=False)
    assert lab.dp.uplink is not None
    lab.dp.uplink.neighbours.resolve(IPv6Address(ROUTER6).packed, lab.now)
    whole = advertisement(ROUTER6, ROUTER_MAC, to=UPLINK6_LL)
    bare = Ether(src=ROUTER_MAC, dst=UPLINK_MAC) / IPv6(src=ROUTER6, dst=UPLINK6_LL, hlim=255) / whole[IPv6].payload.copy()
    bare[IPv6].payload.remove_payload()
    assert lab.send("uplink", bare).verdict is Verdict.ABSORBED
    entry = lab.dp.uplink.neighbours.get(IPv6Address(ROUTER6).packed)
    assert entry is not None and entry.mac == parse_mac(ROUTER_MAC) and entry.port is lab.ports["uplink"]


@pytest.mark.requirement("V2")
def test_routers_outside_are_the_hosts_to_find() -> None:
    lab = Lab6()
    router = Ether(src=ROUTER_MAC, dst="33:33:00:00:00:01") / IPv6(src=ROUTER6, dst="ff02::1", hlim=255) / ICMPv6ND_RA()
    out = lab.send("uplink", router)
    assert (out.verdict, out.sent) == (Verdict.ABSORBED, [])


@pytest.mark.parametrize("exclusive", [True, False])
def test_what_is_no_ip_is_the_hosts_unless_natgw_has_the_link_alone(exclusive: bool) -> None:
    lab = Lab(exclusive=exclusive)
    unknown = Verdict.DROP_ETHERTYPE if exclusive else Verdict.TO_HOST
    for kind in (0x88CC, 0x86DD):  # without an address of IPv6, that is nothing to natgw either
        out = lab.send("uplink", Ether(src=ROUTER_MAC, dst=UPLINK_MAC, type=kind) / Raw(bytes(60)))
        assert (out.verdict, out.sent) == (unknown, [])
    assert lab.send("uplink", Ether(src=ROUTER_MAC, dst=OTHER_MAC, type=0x88CC) / Raw(bytes(60))).verdict is (
        Verdict.DROP_NOT_FOR_US)


@pytest.mark.parametrize("exclusive", [True, False])
def test_an_address_of_the_host_that_is_not_natgws_is_the_hosts(exclusive: bool) -> None:
    lab = Lab(exclusive=exclusive)
    lab.dp.update_uplink(uplink_config(local=("192.0.2.50",)))
    out = lab.send("uplink", from_outside(UDP(sport=5, dport=45000), dst="192.0.2.50"))
    assert (out.verdict, out.sent) == (Verdict.DROP_NOT_FOR_US if exclusive else Verdict.TO_HOST, [])
    out = lab.send("uplink", from_outside(UDP(sport=5, dport=45000), dst="192.0.2.51"))
    assert (out.verdict, out.sent) == (Verdict.DROP_NOT_FOR_US, [])


@pytest.mark.requirement("G5", "V1")
@pytest.mark.parametrize("exclusive", [True, False])
def test_between_link_local_addresses_neighbours_speak_with_the_host(exclusive: bool) -> None:
    lab = Lab6(exclusive=exclusive)
    theirs = Verdict.DROP_NOT_FOR_US if exclusive else Verdict.TO_HOST
    for body in (UDP(sport=5, dport=45000), TCP(sport=5, dport=22, flags="S")):
        out = lab.send("uplink", from_outside6(body, src=ROUTER6, dst=UPLINK6_LL))
        assert (out.verdict, out.sent) == (theirs, [])
    out = lab.send("uplink", from_outside6(UDP(sport=5, dport=45000), src=ROUTER6))
    assert (out.verdict, out.sent) == (Verdict.DROP_MARTIAN_SOURCE, [])


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_frame_without_anything_in_it_is_a_frame(exclusive: bool) -> None:
    out = Lab(exclusive=exclusive).send("uplink", Ether(src=ROUTER_MAC, dst=UPLINK_MAC, type=0x88CC))
    assert (out.verdict, out.sent) == (Verdict.DROP_ETHERTYPE if exclusive else Verdict.TO_HOST, [])


# -- what belongs to whom --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["outside", "inside"])
def test_of_a_shared_address_natgw_has_the_ports_of_its_range_and_no_other(side: str) -> None:
    for port, natgws in ((29999, False), (30000, True), (30099, True), (30100, False)):
        lab = Lab(port_range=(30000, 30099))
        body = UDP(sport=30050, dport=port)
        out = lab.send("uplink", from_outside(body)) if side == "outside" else lab.send("a", from_a(body, dst=EXTERNAL))
        assert out.verdict is (Verdict.DROP_NO_MAPPING if natgws else Verdict.TO_HOST), port
        assert out.ports == (["host"] if side == "inside" and not natgws else [])


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_mapping_says_filtered_and_nobody_says_no_mapping(exclusive: bool) -> None:
    lab = Lab(exclusive=exclusive)
    port = lab.external_port(lab.send("a", from_a(UDP(sport=45000, dport=53))))
    assert lab.send("uplink", from_outside(UDP(sport=54, dport=port))).verdict is Verdict.DROP_FILTERED
    assert lab.send("uplink", from_outside(UDP(sport=54, dport=port + 1))).verdict is Verdict.DROP_NO_MAPPING


@pytest.mark.requirement("I6")
@pytest.mark.parametrize("exclusive", [True, False])
def test_an_error_about_no_flow_and_icmp_of_the_other_version(exclusive: bool) -> None:
    lab = Lab6(exclusive=exclusive)
    nobodys = ICMP(type=3, code=1) / IP(src=EXTERNAL, dst=REMOTE) / UDP(sport=45000, dport=53)
    assert lab.send("uplink", from_outside(nobodys)).verdict is (Verdict.DROP_ICMP_NO_FLOW if exclusive else Verdict.TO_HOST)
    bad = from_outside(ICMP(type=3, code=1, chksum=1) / IP(src=EXTERNAL, dst=REMOTE) / UDP(sport=45000, dport=53))
    assert lab.send("uplink", bad).verdict is Verdict.DROP_ICMP_BAD
    nobodys6 = ICMPv6DestUnreach() / IPv6(src=EXTERNAL6, dst=REMOTE6) / UDP(sport=45000, dport=53)
    assert lab.send("uplink", from_outside6(nobodys6)).verdict is (
        Verdict.DROP_ICMP_NO_FLOW if exclusive else Verdict.TO_HOST)
    foreign = Verdict.DROP_PROTOCOL if exclusive else Verdict.TO_HOST
    assert lab.send("uplink", from_outside(Raw(bytes(40)), proto=58)).verdict is foreign
    assert lab.send("uplink", from_outside6(Raw(bytes(40)), nh=1)).verdict is foreign


# -- flows that begin outside ----------------------------------------------------------------------------------------


def inward(how: str, **config: Any) -> tuple[Lab, Packet]:
    """A laboratory, and a packet from outside that begins a flow: to a published port, or to a mapping that is open."""
    lab = Lab(nat=OPEN, **config)
    if how == "published":
        lab.publish(45000, 80, "udp")
    else:
        assert lab.external_port(lab.send("a", from_a(UDP(sport=45000, dport=53), dst="203.0.113.77"))) == 45000
    return lab, from_outside(UDP(sport=5000, dport=45000) / b"x")


HOW = pytest.mark.parametrize("how", ["published", "mapped"])


@pytest.mark.requirement("U2")
@HOW
def test_what_comes_in_arrives_and_is_answered(how: str) -> None:
    lab, packet = inward(how)
    before = len(lab.flows())
    out = lab.send("uplink", packet)
    assert (out.verdict, out.ports, len(lab.flows())) == (Verdict.TRANSLATED_IN, ["a"], before + 1)
    back = lab.send("a", from_a(UDP(sport=80 if how == "published" else 45000, dport=5000)))
    assert (back.verdict, back.packet[IP].src, back.packet[UDP].sport) == (Verdict.TRANSLATED_OUT, EXTERNAL, 45000)


@pytest.mark.requirement("G1")
@HOW
def test_nothing_begins_with_a_packet_at_its_last_hop(how: str) -> None:
    lab, packet = inward(how)
    before = len(lab.flows())
    packet[IP].ttl = 1
    out = lab.send("uplink", packet)
    assert (out.verdict, out.ports, out.packet[IP].src) == (Verdict.ICMP_TIME_EXCEEDED, ["uplink"], EXTERNAL)
    assert (out.packet[ICMP].type, len(lab.flows())) == (11, before)
    packet[IP].ttl = 2
    assert lab.send("uplink", packet).packet[IP].ttl == 1


@HOW
def test_nothing_begins_without_a_way_back(how: str) -> None:
    lab, packet = inward(how)
    before = len(lab.flows())
    lab.dp.update_uplink(UplinkConfig(mac=parse_mac(UPLINK_MAC), addresses=(IPv4Interface(f"{EXTERNAL}/24"),),
                                      routes=(Route(IPv4Network("198.51.100.0/24")),)))
    out = lab.send("uplink", packet)
    assert (out.verdict, out.sent, len(lab.flows())) == (Verdict.DROP_NO_ROUTE, [], before)


@HOW
def test_nothing_begins_where_the_network_is_gone_or_internal(how: str) -> None:
    for gone in (True, False):
        lab, packet = inward(how)
        if gone:
            lab.dp.bridges.remove(lab.bridge)
        else:
            lab.bridge.config = replace(lab.bridge.config, internal=True)
        out = lab.send("uplink", packet)
        assert (out.verdict, out.sent) == (Verdict.DROP_NO_MAPPING, [])


@HOW
def test_nothing_begins_where_no_neighbour_can_be_added(how: str) -> None:
    """The tables hold what they are told to: here the router and the two containers."""
    lab, packet = inward(how, max_neighbours=2)
    before = len(lab.flows())
    lab.dp.remove_neighbour(lab.bridge, IPv4Address(B_IP))
    assert lab.send("uplink", packet).ports == ["a"]
    lab, packet = inward(how, max_neighbours=2)
    packet[IP].src = "198.51.100.7"  # the router's network has room for one more, and then for nobody
    assert lab.send("uplink", packet).verdict is Verdict.TRANSLATED_IN
    packet[IP].src = "198.51.100.8"
    out = lab.send("uplink", packet)
    assert (out.verdict, out.sent, len(lab.flows())) == (Verdict.DROP_NEIGHBOURS_FULL, [], before + 1)


def test_nothing_begins_to_a_container_that_cannot_be_asked_for() -> None:
    lab = Lab(max_neighbours=2)
    lab.publish(8080, 80, "udp", container="172.17.0.4")
    out = lab.send("uplink", from_outside(UDP(sport=5000, dport=8080)))
    assert (out.verdict, out.sent, lab.flows()) == (Verdict.DROP_NEIGHBOURS_FULL, [], [])


def test_a_container_nobody_told_of_is_asked_for() -> None:
    lab = Lab()
    lab.add_port("c")
    lab.publish(8080, 80, "udp", container="172.17.0.4")
    out = lab.send("uplink", from_outside(UDP(sport=5000, dport=8080)))
    assert (out.verdict, sorted(out.ports)) == (Verdict.QUEUED, ["a", "b", "c"])
    found = lab.send("c", arp_reply("172.17.0.4", "02:42:ac:11:00:04", to_ip=GATEWAY_IP, to_mac=GATEWAY_MAC))
    (arrived,) = [each for each in found.sent if each.port == "c"]
    assert (arrived.packet[IP].dst, arrived.packet[UDP].dport) == ("172.17.0.4", 80)


@pytest.mark.requirement("C4")
def test_a_container_nobody_told_of_is_asked_for_untranslated_too() -> None:
    lab = Lab(max_neighbours=3)
    lab.add_port("c")
    lab.bridge.config = replace(lab.bridge.config, masquerade=False)
    for number, dst in enumerate(("172.17.0.4", "172.17.0.5")):
        out = lab.send("uplink", from_outside(UDP(sport=53, dport=5000), dst=dst))
        assert out.verdict is (Verdict.DROP_NEIGHBOURS_FULL if number else Verdict.QUEUED)
        assert sorted(out.ports) == ([] if number else ["a", "b", "c"])
    found = lab.send("c", arp_reply("172.17.0.4", "02:42:ac:11:00:04", to_ip=GATEWAY_IP, to_mac=GATEWAY_MAC))
    (arrived,) = [each for each in found.sent if each.port == "c"]
    assert (arrived.packet[IP].src, arrived.packet[IP].dst, arrived.packet[IP].ttl) == (REMOTE, "172.17.0.4", 63)


def test_the_next_connection_to_a_published_port_takes_the_fast_path() -> None:
    lab = Lab()
    lab.publish(8080, 80)
    for sport, fast in ((5000, 0), (5001, 1)):
        assert lab.send("uplink", from_outside(TCP(sport=sport, dport=8080, flags="S"))).ports == ["a"]
        assert lab.dp.counters()["fast_path"] == fast


# -- SYNs that wait (RFC 5382 REQ-4) ---------------------------------------------------------------------------------


@pytest.mark.requirement("T4")
def test_a_gateway_may_be_told_to_hold_no_syn() -> None:
    lab = Lab(nat=NatConfig(hold_syn_s=0))
    out = lab.send("uplink", from_outside(TCP(sport=5000, dport=45000, flags="S")))
    assert (out.verdict, lab.wait(10)) == (Verdict.DROP_NO_MAPPING, [])


@pytest.mark.requirement("T4", "V1")
def test_syns_that_waited_in_vain_are_refused_each_and_counted() -> None:
    lab = Lab6(exclusive=True)
    for sport in (5000, 5001):
        assert lab.send("uplink", from_outside(TCP(sport=sport, dport=45000, flags="S"))).verdict is Verdict.HELD
    syn6 = from_outside6(TCP(sport=5000, dport=45000, flags="S"))
    assert lab.send("uplink", syn6).verdict is Verdict.HELD
    lab.send("uplink", from_outside(UDP(sport=5000, dport=45000)))
    errors = [each for each in lab.wait(7) if each.port == "uplink" and b"\x86\xdd" not in each.raw[22:24]]
    assert [(each.packet[ICMP].type, each.packet[ICMP].code) for each in errors if ICMP in each.packet] == [(3, 3)] * 2
    assert lab.dp.counters()["syn_refused"] == 3
    assert lab.wait(10) == [] or lab.dp.counters()["syn_refused"] == 3
