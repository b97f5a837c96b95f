"""The uplink alone: its addresses, who its neighbours are, which way leads out, and what happens when the interface changes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Interface

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS
from scapy.layers.l2 import ARP

from natgw.datapath import Extra, Route
from natgw.datapath.port import ROUTE
from natgw.datapath.sides import LOOPBACK_MTU, NoWay
from natgw.tables.neigh import Neighbour
from natgw.wire import nd
from natgw.wire.arp import ArpMessage
from natgw.wire.ethernet import parse_mac
from natgw.wire.nd import NdMessage
from tests.unit.core_lab import EXTERNAL, REMOTE, ROUTER, ROUTER_MAC, UPLINK_MAC, uplink_config
from tests.unit.lab6 import EXTERNAL6, REMOTE6, ROUTER6, UPLINK6_LL, uplink_config6
from tests.unit.sides_lab import Outside, raw

SECOND, SECOND6 = "198.51.100.3", "2001:db8:52::2"
NEIGHBOUR, NEIGHBOUR6 = "198.51.100.77", "2001:db8:51::77"

def test_which_addresses_are_the_uplinks() -> None:
    uplink = Outside().uplink
    assert all(uplink.owns(raw(each)) for each in (EXTERNAL, EXTERNAL6, UPLINK6_LL))
    assert not any(uplink.owns(raw(each)) for each in (ROUTER, ROUTER6, "0.0.0.0"))
    assert uplink.addresses == [raw(EXTERNAL), raw(EXTERNAL6)], "those to translate to"
    assert uplink.leads_out(raw(REMOTE)) and uplink.leads_out(raw(REMOTE6))
    assert not Outside(uplink_config()).uplink.leads_out(raw(REMOTE6))
    only_link_local = replace(uplink_config(), addresses=(*uplink_config().addresses, IPv6Interface(f"{UPLINK6_LL}/64")))
    assert not Outside(only_link_local).uplink.leads_out(raw(REMOTE6))


def test_who_can_be_a_neighbour_outside() -> None:
    uplink = Outside().uplink
    assert uplink.on_link(raw(ROUTER)) and uplink.on_link(raw(ROUTER6)) and uplink.on_link(raw(REMOTE))
    assert not any(uplink.on_link(raw(each)) for each in (EXTERNAL, EXTERNAL6, UPLINK6_LL, "ff02::1"))


def test_nothing_is_learned_of_who_has_no_address_yet_but_it_is_answered() -> None:
    """Probes of RFC 5227 and of RFC 4862 section 5.4.2, for addresses that are natgw's."""
    outside, mac = Outside(), parse_mac(ROUTER_MAC)
    outside.uplink.hear_arp(ArpMessage(1, mac, bytes(4), bytes(6), raw(EXTERNAL)), outside.out, 5.0)
    probe = NdMessage(nd.NEIGHBOUR_SOLICITATION, bytes(16), raw("ff02::1:ff00:2"), raw(EXTERNAL6), mac, False, False)
    outside.uplink.hear_nd(probe, mac, outside.out, 5.0)
    arp, advertisement = outside.taken()
    assert arp[1][ARP].psrc == EXTERNAL and advertisement[1][ICMPv6ND_NA].tgt == EXTERNAL6
    assert advertisement[1][ICMPv6ND_NA].R == 0
    assert outside.uplink.neighbours.entries() == []


def test_what_waited_outside_in_vain_is_told_of_and_questions_are_counted() -> None:
    outside = Outside()
    for address in (ROUTER, ROUTER6):
        neighbour = outside.uplink.neighbours.resolve(raw(address), 1.0)
        assert neighbour is not None
        neighbour.queue.add(bytes(60))
    for now in (2.0, 3.0, 4.0):
        outside.uplink.neighbours.tick(now)
    assert outside.unresolved == [(outside.uplink, raw(address), [bytes(60)]) for address in (ROUTER, ROUTER6)]
    assert [outside.extras[each] for each in (Extra.ARP_REQUESTS, Extra.ND_SOLICITATIONS)] == [3, 3]


def test_the_address_that_a_neighbour_outside_sees_is_of_its_network_else_the_first() -> None:
    first = uplink_config6(more=(SECOND6,))
    config = replace(first, addresses=(*uplink_config(more=("192.0.2.5",)).addresses, *first.addresses[1:]))
    uplink = Outside(config).uplink
    for address, own in ((ROUTER, EXTERNAL), ("192.0.2.9", "192.0.2.5"), (REMOTE, EXTERNAL), (NEIGHBOUR6, EXTERNAL6),
                         ("2001:db8:52::9", SECOND6), (ROUTER6, UPLINK6_LL), (REMOTE6, EXTERNAL6)):
        assert uplink.source_for(raw(address)) == raw(own), address
    assert Outside(uplink_config()).uplink.source_for(raw(ROUTER6)) == bytes(16)
    lonely = replace(uplink_config(), addresses=(IPv6Interface(f"{UPLINK6_LL}/64"),))
    assert Outside(lonely).uplink.source_for(raw(REMOTE6)) == raw(UPLINK6_LL), "better than none"
    assert Outside(lonely).uplink.source_for(raw(REMOTE)) == bytes(4)


def test_networks_of_both_versions_are_not_taken_for_each_other() -> None:
    """As numbers, ::/0 has every IPv4 address in it."""
    config = replace(uplink_config(), addresses=(IPv6Interface("2001:db8::1/0"), *uplink_config().addresses))
    assert Outside(config).uplink.source_for(raw(REMOTE)) == raw(EXTERNAL)


def test_the_address_to_translate_to() -> None:
    local6 = "fd12:3456::2"
    uplink = Outside(uplink_config6(more=(SECOND6, local6))).uplink
    assert uplink.external_for(raw(REMOTE), raw(ROUTER)) == raw(EXTERNAL)
    for destination, own in (("2001:db8:52::77", SECOND6), ("2001:db8:51::77", EXTERNAL6), ("fd12:9999::1", local6)):
        assert uplink.external_for(raw(destination), raw(ROUTER6)) == raw(own)
    two = Outside(uplink_config(more=("192.0.2.5",))).uplink
    assert two.external_for(raw(REMOTE), raw("192.0.2.1")) == raw("192.0.2.5"), "of IPv4 the next hop decides"
    lonely = replace(uplink_config(), addresses=(IPv6Interface(f"{UPLINK6_LL}/64"),))
    assert Outside(lonely).uplink.external_for(raw(REMOTE6), raw(ROUTER6)) == raw(UPLINK6_LL)


@pytest.mark.parametrize(("target", "hop"), [
    (REMOTE, ROUTER), (NEIGHBOUR, NEIGHBOUR), (REMOTE6, ROUTER6), (NEIGHBOUR6, NEIGHBOUR6)])
def test_the_way_out_is_by_the_next_hop(target: str, hop: str) -> None:
    outside = Outside()
    found = outside.uplink.way_to(raw(target), 7.0)
    assert isinstance(found, Neighbour)
    assert (found.ip, found.mtu, found.due, found.transmit) == (raw(hop), 1400, 8.0, None)
    ((port, asked),) = outside.taken()
    assert port == "uplink" and (asked[ICMPv6ND_NS].tgt if ":" in hop else asked[ARP].pdst) == hop
    assert outside.uplink.way_to(raw(target), 7.0) is found and outside.sent == []


def test_there_is_no_way_without_a_route() -> None:
    uplink = Outside(replace(uplink_config(), routes=(Route(IPv4Network("198.51.100.0/24")),))).uplink
    assert uplink.way_to(raw(REMOTE), 1.0) is NoWay.NO_ROUTE and uplink.way_to(raw(REMOTE6), 1.0) is NoWay.NO_ROUTE
    assert isinstance(uplink.way_to(raw(NEIGHBOUR), 1.0), Neighbour)
    assert uplink.neighbours.get(raw(REMOTE)) is None


@pytest.mark.requirement("U7")
def test_the_way_to_an_own_address_is_back() -> None:
    outside = Outside()
    mac = parse_mac(UPLINK_MAC)
    for address, ethertype in ((EXTERNAL, "0800"), (EXTERNAL6, "86dd"), (UPLINK6_LL, "86dd")):
        found = outside.uplink.way_to(raw(address), 1.0)
        assert isinstance(found, Neighbour)
        assert (found.is_loopback, found.mtu, found.macs) == (True, LOOPBACK_MTU, mac + mac)
        assert found.header == mac + mac + bytes.fromhex(ethertype)
    assert outside.sent == [] and outside.uplink.neighbours.entries() == []
    outside.uplink.apply(uplink_config(mac=ROUTER_MAC))
    again = outside.uplink.way_to(raw(EXTERNAL), 1.0)
    assert isinstance(again, Neighbour)
    assert (again.macs, again.header, again.ip) == (parse_mac(ROUTER_MAC) * 2, parse_mac(ROUTER_MAC) * 2 + b"\x08\0", bytes(4))


def test_an_interface_that_changed_is_taken_over_whole() -> None:
    outside = Outside()
    outside.uplink.way_to(raw(REMOTE), 1.0)
    outside.out.shortcuts[b"macs"] = ROUTE
    config = uplink_config(address=SECOND, mtu=1300, mac=ROUTER_MAC, local=("10.0.0.1",))
    outside.uplink.apply(config)
    assert (outside.uplink.config, outside.uplink.mac, outside.out.mtu) == (config, parse_mac(ROUTER_MAC), 1300)
    assert outside.out.shortcuts == {} and outside.uplink.neighbours.entries() == []
    assert outside.uplink.addresses == [raw(SECOND)]
    assert outside.uplink.owns(raw(SECOND)) and not outside.uplink.owns(raw(EXTERNAL))
    assert outside.uplink.local == {raw(SECOND), raw("10.0.0.1")}
    assert outside.uplink.source_for(raw(ROUTER)) == raw(SECOND) and outside.uplink.way_to(raw(REMOTE6), 1.0) is NoWay.NO_ROUTE
    assert outside.uplink.ports_for(Neighbour(raw(ROUTER), 1.0), None) == [outside.out]


def test_other_addresses_of_the_host_disturb_nobody() -> None:
    outside = Outside()
    found = outside.uplink.way_to(raw(REMOTE), 1.0)
    config = replace(outside.uplink.config, local_addresses=frozenset({IPv4Address("10.0.0.1")}))
    assert outside.uplink.apply_local(config)
    assert outside.uplink.config is config
    assert outside.uplink.local == {raw(each) for each in (EXTERNAL, EXTERNAL6, UPLINK6_LL, "10.0.0.1")}
    assert outside.uplink.way_to(raw(REMOTE), 1.0) is found
    before = outside.uplink.local
    assert not outside.uplink.apply_local(replace(config, mtu=1300, local_addresses=frozenset()))
    assert outside.uplink.config is config and outside.uplink.local == before
