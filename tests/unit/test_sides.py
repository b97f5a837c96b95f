"""The two kinds of network natgw stands between, each alone: what is its own, who its neighbours are, and what is learned of
stations and ports of a bridge.
"""

from __future__ import annotations

from ipaddress import IPv6Network

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP

from natgw.datapath import Bridge, Extra, Port
from natgw.datapath.port import ROUTE
from natgw.datapath.sides import NoWay
from natgw.tables.fdb import Learned
from natgw.tables.neigh import Neighbour, NeighbourState
from natgw.wire import nd
from natgw.wire.arp import ArpMessage
from natgw.wire.ethernet import ETH, parse_mac
from natgw.wire.nd import NdMessage
from tests.unit.core_lab import A_IP, A_MAC, B_IP, B_MAC, EXTERNAL, GATEWAY_IP, GATEWAY_MAC, REMOTE, ROUTER, ROUTER_MAC
from tests.unit.lab6 import A6, A6_LL, B6, EXTERNAL6, GATEWAY6, GATEWAY6_LL, PREFIX, REMOTE6, ROUTER6
from tests.unit.sides_lab import Outside, Segment, raw

BROADCAST_MAC, ZERO_MAC = "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"
FRAME = bytes(range(60))

# -- what belongs where ------------------------------------------------------------------------------------------------


@pytest.mark.requirement("G6", "V2")
def test_which_addresses_are_the_gateways() -> None:
    both, ipv4 = Segment().bridge, Segment(ipv6=False).bridge
    assert both.owns(raw(GATEWAY_IP)) and both.owns(raw(GATEWAY6)) and both.owns(raw(GATEWAY6_LL))
    assert ipv4.owns(raw(GATEWAY_IP)) and not ipv4.owns(raw(GATEWAY6)) and not ipv4.owns(raw(GATEWAY6_LL))
    assert not any(both.owns(raw(each)) for each in (A_IP, A6, A6_LL, "0.0.0.0"))


def test_which_addresses_can_be_on_a_bridge() -> None:
    both, ipv4 = Segment().bridge, Segment(ipv6=False).bridge
    for bridge in (both, ipv4):
        assert bridge.on_link(raw(A_IP)) and bridge.on_link(raw("172.17.255.254"))
        assert not any(bridge.on_link(raw(each)) for each in ("172.17.255.255", "172.18.0.2", "172.16.0.2", REMOTE))
    assert both.on_link(raw(A6)) and both.on_link(raw(A6_LL)) and not both.on_link(raw("fd00:1:2:4::2"))
    assert not ipv4.on_link(raw(A6)) and not ipv4.on_link(raw(A6_LL))
    assert both.routes_to(raw(A_IP)) and both.routes_to(raw(A6)) and not both.routes_to(raw(A6_LL))
    assert not both.routes_to(raw(REMOTE)) and not both.routes_to(raw(REMOTE6))


def test_which_address_of_the_gateway_a_station_sees() -> None:
    both, ipv4 = Segment().bridge, Segment(ipv6=False).bridge
    for station, seen in ((A_IP, GATEWAY_IP), (A6, GATEWAY6), (A6_LL, GATEWAY6_LL)):
        assert both.source_for(raw(station)) == raw(seen)
    assert ipv4.source_for(raw(A6)) == ipv4.source_for(raw(A_IP)) == raw(GATEWAY_IP)


def test_a_bridge_is_a_router_that_answers_and_has_what_its_network_says() -> None:
    bridge = Segment(mtu=1400, icc=False).bridge
    assert (bridge.name, bridge.mtu, bridge.icc, bridge.mac) == ("net", 1400, False, parse_mac(GATEWAY_MAC))
    assert bridge.is_router and bridge.answers and bridge.dhcp is None
    assert bridge.fragments.lost == 0 and len(bridge.realm) == 0
    assert not Outside().uplink.is_router
    assert (Outside().uplink.answers, Outside(exclusive=False).uplink.answers) == (True, False)


def test_who_advertises_itself() -> None:
    assert Segment(ipv6=False).bridge.advertiser is None and Segment(advertises=False).bridge.advertiser is None
    for internal, lifetime in ((True, 0), (False, 1800)):
        advertiser = Segment(internal=internal, mtu=1400).bridge.advertiser
        assert advertiser is not None
        frame = advertiser.tick(1.0)
        assert frame is not None
        assert frame == nd.build_router_advertisement(parse_mac(GATEWAY_MAC), raw(GATEWAY6_LL), IPv6Network(PREFIX), 1400,
                                                      lifetime)


# -- ARP and neighbour discovery ---------------------------------------------------------------------------------------


@pytest.mark.requirement("G6")
def test_who_asks_for_the_gateway_is_answered_and_known() -> None:
    segment = Segment()
    segment.arp(A_IP)
    ((port, answer),) = segment.taken()
    assert (port, answer.src, answer.dst, answer[ARP].op) == ("a", GATEWAY_MAC, A_MAC, 2)
    assert (answer[ARP].hwsrc, answer[ARP].psrc, answer[ARP].hwdst, answer[ARP].pdst) == (GATEWAY_MAC, GATEWAY_IP, A_MAC, A_IP)
    assert segment.known(A_IP) == (A_MAC, "a")
    entry = segment.bridge.neighbours.get(raw(A_IP))
    assert entry is not None and (entry.state, entry.confirmed) == (NeighbourState.REACHABLE, 5.0)


def test_an_answer_to_the_gateway_is_not_answered() -> None:
    segment = Segment()
    segment.arp(A_IP, operation=2)
    assert segment.taken() == [] and segment.known(A_IP) == (A_MAC, "a")


def test_who_asks_for_somebody_else_makes_no_entry_but_renews_one() -> None:
    segment = Segment()
    segment.arp(A_IP, target=B_IP)
    assert segment.taken() == [] and segment.known(A_IP) is None
    segment.arp(A_IP)
    segment.arp(A_IP, target=B_IP, mac=B_MAC, port=segment.b)
    assert segment.known(A_IP) == (B_MAC, "b")


@pytest.mark.parametrize("sender", ["0.0.0.0", GATEWAY_IP, REMOTE, "172.17.255.255"])
def test_nothing_is_learned_of_a_sender_that_cannot_be_but_the_question_is_answered(sender: str) -> None:
    segment = Segment()
    segment.arp(sender)
    assert [port for port, _ in segment.taken()] == ["a"]
    assert segment.bridge.neighbours.entries() == []


def test_who_leaves_answering_to_the_host_learns_all_the_same() -> None:
    outside = Outside(exclusive=False)
    message = ArpMessage(1, parse_mac(ROUTER_MAC), raw(ROUTER), bytes(6), raw(EXTERNAL))
    outside.uplink.hear_arp(message, outside.out, 5.0)
    solicited = NdMessage(nd.NEIGHBOUR_SOLICITATION, raw(ROUTER6), raw(EXTERNAL6), raw(EXTERNAL6), parse_mac(ROUTER_MAC),
                          override=False, solicited=False)
    outside.uplink.hear_nd(solicited, parse_mac(ROUTER_MAC), outside.out, 5.0)
    assert outside.sent == []
    assert {entry.ip: entry.mac for entry in outside.uplink.neighbours.entries()} == dict.fromkeys(
        (raw(ROUTER), raw(ROUTER6)), parse_mac(ROUTER_MAC))


def test_what_is_claimed_from_another_port_is_answered_and_not_believed() -> None:
    segment = Segment()
    segment.arp(A_IP)
    entry = segment.bridge.neighbours.get(raw(A_IP))
    assert entry is not None
    entry.pinned = True
    segment.taken()
    segment.arp(A_IP, mac=B_MAC, port=segment.b)
    assert [port for port, _ in segment.taken()] == ["b"] and segment.known(A_IP) == (A_MAC, "a")
    segment.discovery(nd.NEIGHBOUR_SOLICITATION, A6, GATEWAY6)
    entry = segment.bridge.neighbours.get(raw(A6))
    assert entry is not None
    entry.pinned = True
    segment.taken()
    segment.discovery(nd.NEIGHBOUR_SOLICITATION, A6, GATEWAY6, mac=B_MAC, port=segment.b)
    assert [port for port, _ in segment.taken()] == ["b"] and segment.known(A6) == (A_MAC, "a")


@pytest.mark.requirement("V2")
@pytest.mark.parametrize("mac", [A_MAC, None], ids=["by its option", "by its frame"])
def test_who_solicits_the_gateway_is_answered_and_known_by_its_option_alone(mac: str | None) -> None:
    segment = Segment()
    segment.discovery(nd.NEIGHBOUR_SOLICITATION, A6, GATEWAY6, mac=mac, from_mac=B_MAC)
    ((port, answer),) = segment.taken()
    assert (port, answer.src, answer.dst) == ("a", GATEWAY_MAC, mac or B_MAC)
    assert (answer[IPv6].src, answer[IPv6].dst, answer[ICMPv6ND_NA].tgt, answer[ICMPv6ND_NA].R) == (GATEWAY6, A6, GATEWAY6, 1)
    assert answer[ICMPv6NDOptDstLLAddr].lladdr == GATEWAY_MAC
    assert [(entry.ip, entry.mac) for entry in segment.bridge.neighbours.entries()] == (
        [] if mac is None else [(raw(A6), parse_mac(A_MAC))])


@pytest.mark.requirement("V2")
def test_an_advertisement_is_learned_of_who_was_asked_for_and_never_answered() -> None:
    segment = Segment()
    segment.discovery(nd.NEIGHBOUR_ADVERTISEMENT, A6_LL, A6)
    segment.discovery(nd.NEIGHBOUR_ADVERTISEMENT, A6_LL, A6, override=False)
    assert segment.bridge.neighbours.entries() == [], "nobody asked"
    for address in (A6, B6):
        segment.bridge.neighbours.resolve(raw(address), 1.0)
    segment.taken()
    segment.discovery(nd.NEIGHBOUR_ADVERTISEMENT, A6_LL, A6, override=False)
    segment.discovery(nd.NEIGHBOUR_ADVERTISEMENT, B6, B6, mac=None, from_mac=B_MAC, port=segment.b, override=False)
    assert (segment.known(A6), segment.known(B6)) == ((A_MAC, "a"), (B_MAC, "b"))
    segment.discovery(nd.NEIGHBOUR_ADVERTISEMENT, GATEWAY6, GATEWAY6, mac=B_MAC)
    assert segment.sent == [] and segment.known(GATEWAY6) is None


@pytest.mark.requirement("V2")
def test_another_address_is_taken_from_who_may_say_so() -> None:
    """RFC 4861 section 7.2.5: an advertisement without the override flag says so of nobody who is known otherwise."""
    segment = Segment()
    segment.discovery(nd.NEIGHBOUR_SOLICITATION, A6, GATEWAY6)
    segment.discovery(nd.NEIGHBOUR_ADVERTISEMENT, A6, A6, mac=B_MAC, port=segment.b, override=False)
    assert segment.known(A6) == (A_MAC, "a")
    segment.discovery(nd.NEIGHBOUR_ADVERTISEMENT, A6, A6, port=segment.b, override=False)
    assert segment.known(A6) == (A_MAC, "b"), "the same address, elsewhere"
    segment.discovery(nd.NEIGHBOUR_SOLICITATION, A6, B6, mac=B_MAC, override=False)
    assert segment.known(A6) == (B_MAC, "a"), "a solicitation needs no flag"
    segment.discovery(nd.NEIGHBOUR_ADVERTISEMENT, A6, A6, port=segment.b)
    assert segment.known(A6) == (A_MAC, "b")


@pytest.mark.requirement("V2")
@pytest.mark.parametrize("src", ["::", GATEWAY6, GATEWAY6_LL, REMOTE6])
def test_nothing_is_learned_of_a_solicitor_that_cannot_be_but_it_is_answered(src: str) -> None:
    segment = Segment()
    segment.discovery(nd.NEIGHBOUR_SOLICITATION, src, GATEWAY6)
    assert [port for port, _ in segment.taken()] == ["a"]
    assert segment.bridge.neighbours.entries() == []


@pytest.mark.requirement("V2")
def test_who_solicits_somebody_else_makes_no_entry() -> None:
    segment = Segment()
    segment.discovery(nd.NEIGHBOUR_SOLICITATION, A6, B6)
    assert segment.sent == [] and segment.bridge.neighbours.entries() == []


# -- asking ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("address", "asked_from"), [(A_IP, GATEWAY_IP), (A6, GATEWAY6), (A6_LL, GATEWAY6_LL)])
def test_a_neighbour_is_asked_for_on_all_ports_but_the_hosts(address: str, asked_from: str) -> None:
    segment = Segment()
    segment.bridge.neighbours.resolve(raw(address), 1.0)
    asked = segment.taken()
    assert [port for port, _ in asked] == ["a", "b"]
    counters = (Extra.ND_SOLICITATIONS, Extra.ARP_REQUESTS) if ":" in address else (Extra.ARP_REQUESTS, Extra.ND_SOLICITATIONS)
    assert [segment.extras[counter] for counter in counters] == [2, 0]
    for _, packet in asked:
        assert packet.src == GATEWAY_MAC
        if ":" in address:
            assert packet.dst == "33:33:ff:" + raw(address)[13:].hex(":")
            assert (packet[IPv6].src, packet[ICMPv6ND_NS].tgt) == (asked_from, address)
            assert packet[ICMPv6NDOptSrcLLAddr].lladdr == GATEWAY_MAC
        else:
            assert (packet.dst, packet[ARP].op, packet[ARP].hwsrc) == (BROADCAST_MAC, 1, GATEWAY_MAC)
            assert (packet[ARP].psrc, packet[ARP].pdst, packet[ARP].hwdst) == (asked_from, address, ZERO_MAC)


@pytest.mark.parametrize("address", [A_IP, A6])
def test_one_that_was_known_is_asked_alone_first(address: str) -> None:
    segment = Segment()
    entry = segment.bridge.neighbours.confirm(raw(address), parse_mac(A_MAC), segment.a, 1.0, create=True)
    assert entry is not None
    entry.flows = 1
    segment.bridge.neighbours.tick(62.0)
    ((port, packet),) = segment.taken()
    assert (port, packet.dst) == ("a", A_MAC)
    counted = [segment.extras[each] for each in (Extra.ARP_REQUESTS, Extra.ND_SOLICITATIONS)]
    assert counted == ([0, 1] if ":" in address else [1, 0])


def test_one_that_is_nowhere_any_more_is_asked_for_everywhere() -> None:
    segment = Segment()
    entry = segment.bridge.neighbours.confirm(raw(A_IP), parse_mac(A_MAC), segment.a, 1.0, create=True)
    assert entry is not None
    assert segment.bridge.ports_for(entry, parse_mac(A_MAC)) == [segment.a]
    assert segment.bridge.ports_for(entry, None) == [segment.a, segment.b]
    entry.port = None
    assert segment.bridge.ports_for(entry, parse_mac(A_MAC)) == [segment.a, segment.b]


def test_what_waited_for_a_neighbour_leaves_when_it_is_found() -> None:
    segment = Segment()
    small = segment.port("small", mtu=900, coalesces=False)
    for address, ethertype in ((A_IP, "0800"), (A6, "86dd")):
        neighbour = segment.bridge.neighbours.resolve(raw(address), 1.0)
        assert neighbour is not None
        neighbour.queue.add(FRAME)
        neighbour.queue.add(FRAME + b"more")
        segment.sent.clear()
        if address == A_IP:
            segment.arp(address, target=B_IP, port=small)
        else:
            segment.discovery(nd.NEIGHBOUR_SOLICITATION, address, B6, port=small)
        macs = parse_mac(A_MAC) + parse_mac(GATEWAY_MAC)
        header = macs + bytes.fromhex(ethertype)
        assert segment.sent == [("small", FRAME[:ETH] + header + FRAME[ETH + 14 :] + more) for more in (b"", b"more")]
        assert (neighbour.macs, neighbour.header, neighbour.mtu, neighbour.coalesces) == (macs, header, 900, False)
        assert len(neighbour.queue) == 0
        segment.bridge.bind(neighbour)
        assert len(segment.sent) == 2, "each is sent once"


def test_what_waited_in_vain_is_told_of() -> None:
    segment = Segment()
    neighbour = segment.bridge.neighbours.resolve(raw(A_IP), 1.0)
    assert neighbour is not None
    neighbour.queue.add(FRAME)
    for now in (2.0, 3.0, 4.0):
        segment.bridge.neighbours.tick(now)
    assert segment.unresolved == [(segment.bridge, raw(A_IP), [FRAME])]


@pytest.mark.parametrize(("mac", "port"), [(None, True), (A_MAC, False)])
def test_a_neighbour_that_is_not_found_is_not_sent_to(mac: str | None, port: bool) -> None:
    segment = Segment()
    neighbour: Neighbour[Port] = Neighbour(raw(A_IP), 1.0)
    neighbour.mac = None if mac is None else parse_mac(mac)
    neighbour.port = segment.a if port else None
    neighbour.queue.add(FRAME)
    segment.bridge.bind(neighbour)
    assert neighbour.transmit is None and len(neighbour.queue) == 1 and segment.sent == []


def test_no_more_neighbours_than_there_may_be() -> None:
    segment = Segment(max_neighbours=1)
    segment.arp(A_IP)
    segment.arp(B_IP, mac=B_MAC, port=segment.b)
    segment.discovery(nd.NEIGHBOUR_SOLICITATION, A6, GATEWAY6)
    assert [entry.ip for entry in segment.bridge.neighbours.entries()] == [raw(A_IP)]
    outside = Outside(max_neighbours=1)
    assert isinstance(outside.uplink.way_to(raw(REMOTE), 1.0), Neighbour)
    assert outside.uplink.way_to(raw(REMOTE6), 1.0) is NoWay.TABLE_FULL


# -- stations and ports of a bridge ------------------------------------------------------------------------------------


@pytest.mark.requirement("B2")
def test_a_station_that_moves_takes_its_addresses_along() -> None:
    segment = Segment()
    bridge = segment.bridge
    for address, mac, port in ((A_IP, A_MAC, segment.a), (A6, A_MAC, segment.a), (B_IP, B_MAC, segment.a)):
        neighbour = bridge.neighbours.confirm(raw(address), parse_mac(mac), port, 1.0, create=True)
        assert neighbour is not None
        bridge.bind(neighbour)
    assert bridge.learn(parse_mac(A_MAC), segment.a, 1.0) is Learned.NEW
    for port in (segment.host, segment.a, segment.b):
        port.shortcuts[b"macs"] = segment.a
    assert bridge.learn(parse_mac(A_MAC), segment.a, 2.0) is Learned.KNOWN
    assert all(port.shortcuts for port in bridge.ports)
    segment.b.mtu = 1300
    assert bridge.learn(parse_mac(A_MAC), segment.b, 3.0) is Learned.MOVED
    assert not any(port.shortcuts for port in bridge.ports)
    assert [segment.known(each) for each in (A_IP, A6, B_IP)] == [(A_MAC, "b"), (A_MAC, "b"), (B_MAC, "a")]
    for address, mtu in ((A_IP, 1300), (A6, 1300), (B_IP, 1500)):
        entry = bridge.neighbours.get(raw(address))
        assert entry is not None and entry.transmit is not None and entry.mtu == mtu
        entry.transmit(memoryview(FRAME))
    assert [name for name, _ in segment.sent] == ["b", "b", "a"]
    assert bridge.fdb.lookup(parse_mac(A_MAC), 302.9) is segment.b and bridge.fdb.lookup(parse_mac(A_MAC), 303.0) is None


@pytest.mark.requirement("B6")
def test_stations_that_are_too_many_are_counted() -> None:
    segment = Segment(max_fdb=1)
    macs = [bytes((2, 0, 0, 0, 0, number)) for number in range(3)]
    learned = [segment.bridge.learn(mac, segment.a, 1.0) for mac in macs]
    assert learned == [Learned.NEW, Learned.REFUSED_FULL, Learned.REFUSED_FULL]
    assert segment.extras[Extra.FDB_FULL] == sum(segment.extras) == 2
    assert segment.bridge.learn(parse_mac(GATEWAY_MAC), segment.a, 1.0) is Learned.REFUSED_STATIC
    assert segment.extras[Extra.FDB_FULL] == 2


@pytest.mark.parametrize("icc", [True, False])
def test_without_icc_containers_are_kept_apart_and_nobody_else(icc: bool) -> None:
    segment = Segment(icc=icc)
    assert segment.bridge.keeps_apart(segment.a, segment.b) is not icc
    assert not any(segment.bridge.keeps_apart(*pair) for pair in ((segment.a, segment.host), (segment.host, segment.a)))


@pytest.mark.requirement("B6")
def test_the_gateways_station_is_the_host_as_long_as_there_is_one() -> None:
    segment = Segment()
    bridge, mac = segment.bridge, parse_mac(GATEWAY_MAC)

    def found(bridge: Bridge) -> tuple[Port | None, Port | None]:
        return bridge.host_port, bridge.fdb.lookup(mac, 1000.0)

    assert found(bridge) == (segment.host, segment.host)
    bridge.remove(segment.a)
    assert found(bridge) == (segment.host, segment.host)
    bridge.remove(segment.host)
    assert found(bridge) == (None, ROUTE) and bridge.ports == [segment.b]
    bridge.add(segment.host, is_host=True)
    assert found(bridge) == (segment.host, segment.host)
    assert found(Bridge(bridge.config, 8, 8, segment.extras, segment.fail)) == (None, ROUTE)


def test_a_port_that_comes_or_goes_is_seen_by_all() -> None:
    segment = Segment()
    bridge = segment.bridge
    for address, port in ((A_IP, segment.a), (B_IP, segment.b)):
        bridge.neighbours.confirm(raw(address), parse_mac(A_MAC), port, 1.0, create=True)
    bridge.learn(parse_mac(A_MAC), segment.a, 1.0)
    segment.b.shortcuts[b"macs"] = segment.a
    bridge.remove(segment.a)
    assert segment.b.shortcuts == {} and bridge.ports == [segment.host, segment.b]
    assert [entry.ip for entry in bridge.neighbours.entries()] == [raw(B_IP)]
    assert bridge.fdb.lookup(parse_mac(A_MAC), 1.0) is None
    segment.b.shortcuts[b"macs"] = segment.host
    bridge.add(segment.a, is_host=False)
    assert segment.b.shortcuts == {} and bridge.ports == [segment.host, segment.b, segment.a]
    assert bridge.host_port is segment.host
