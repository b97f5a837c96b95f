"""Turns of a frame's way on the bridge that only mutations of the code showed to be untested (docs/mutants.md)."""

from __future__ import annotations

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6ND_RS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from natgw.datapath import PortKind, Verdict
from natgw.datapath.dhcp import DhcpHook
from natgw.wire.ethernet import parse_mac
from natgw.wire.vnet import GSO_TCPV4, GSO_TCPV6, VNET
from tests.unit.core_lab import (
    A_IP,
    A_MAC,
    B_IP,
    B_MAC,
    BROADCAST_MAC,
    GATEWAY_IP,
    GATEWAY_MAC,
    Lab,
    from_a,
    from_outside,
    partial,
)
from tests.unit.lab6 import (
    A6,
    A6_LL,
    B6,
    GATEWAY6,
    REMOTE6,
    Lab6,
    advertisement,
    from_a6,
    from_outside6,
    partial6,
    solicitation,
)
from tests.unit.test_bridge import frame

ECN_ALONE = VNET.pack(0, 0x80, 0, 100, 0, 0)
"""An offload header that says of what it segments only that it has ECN: of nothing."""


def by_fast_path(lab: Lab) -> int:
    return lab.dp.counters()["fast_path"]


# -- what the walk teaches the fast path ---------------------------------------------------------------------------------


def test_what_the_walk_decided_once_the_fast_path_decides_then() -> None:
    """Between stations, to the gateway, and from outside."""
    lab = Lab()
    lab.send("b", frame(B_MAC, A_MAC))
    for number, (port, packet) in enumerate((("a", frame(A_MAC, B_MAC)), ("a", from_a(UDP(sport=45000, dport=53))),
                                             ("uplink", from_outside(UDP(sport=53, dport=45000))))):
        lab.send(port, packet)
        assert by_fast_path(lab) == number
        assert lab.send(port, packet).ports
        assert by_fast_path(lab) == number + 1


def test_of_a_port_with_a_larger_link_nothing_is_remembered() -> None:
    """Each frame has to be measured then; the other way round none has."""
    lab = Lab()
    lab.add_port("small", mtu=1499)
    c_mac = "02:42:ac:11:00:04"
    lab.send("small", frame(c_mac, BROADCAST_MAC))
    lab.send("a", frame(A_MAC, BROADCAST_MAC))
    for _ in range(3):
        assert lab.send("a", frame(A_MAC, c_mac)).ports == ["small"]
    assert by_fast_path(lab) == 0
    for _ in range(3):
        assert lab.send("small", frame(c_mac, A_MAC)).ports == ["a"]
    assert by_fast_path(lab) == 2


# -- links of different size -----------------------------------------------------------------------------------------


@pytest.mark.requirement("B4")
def test_what_floods_goes_by_the_links_that_take_it() -> None:
    """All of a superframe's packets do, or are made to: it floods as it is."""
    lab = Lab()
    lab.add_port("small", mtu=1000)

    def flooded_to(size: int, gso_type: int = 0) -> list[str]:
        packet = Ether(src=A_MAC, dst=BROADCAST_MAC) / IP(src=A_IP, dst="172.17.255.255") / UDP() / bytes(size - 28)
        out = lab.send("a", packet, vnet=VNET.pack(0, gso_type, 0, 0, 0, 0))
        assert out.verdict is Verdict.FLOODED and all(bytes(each.packet) == bytes(packet) for each in out.sent)
        return out.ports

    assert flooded_to(1000) == ["host", "b", "small"]
    assert flooded_to(1001) == ["host", "b"]
    assert flooded_to(1501) == []
    assert flooded_to(1501, gso_type=5) == ["host", "b", "small"]


@pytest.mark.parametrize("version", [4, 6])
def test_a_superframe_between_stations_is_made_to_fit_or_dropped(version: int) -> None:
    lab = Lab6()
    lab.dp.remove_port(lab.ports["b"])
    headers = 40 if version == 4 else 60

    def superframe(size: int) -> bytes:
        if version == 4:
            return partial(from_a(TCP(flags="A") / bytes(3000), dst=B_IP, to_mac=B_MAC), gso_type=GSO_TCPV4, gso_size=size)
        return partial6(from_a6(TCP(flags="A") / bytes(3000), dst=B6, to_mac=B_MAC), gso_type=GSO_TCPV6, gso_size=size)

    def sizes(mtu: int, size: int) -> list[int]:
        """The size of segments that come out at b, by a link with this MTU."""
        lab.add_port("b", PortKind.ENDPOINT, mtu=mtu)
        lab.send("b", frame(B_MAC, A_MAC))
        out = lab.send("a", superframe(size))
        assert out.verdict is (Verdict.BRIDGED if out.sent else Verdict.DROP_TOO_BIG)
        lab.dp.remove_port(lab.ports["b"])
        return [int.from_bytes(each.vnet[4:6], "little") for each in out.sent]

    before = lab.dp.counters()["resized_superframes"]
    assert sizes(1000, 1000 - headers) == [1000 - headers]
    assert lab.dp.counters()["resized_superframes"] == before
    assert sizes(1000, 1001 - headers) == [1000 - headers]
    assert sizes(headers + 1, 1000) == [1]
    assert lab.dp.counters()["resized_superframes"] == before + 2
    assert sizes(headers, 1000) == []
    assert lab.dp.counters()["resized_superframes"] == before + 2


def test_an_offload_header_without_a_kind_makes_no_frame_fit() -> None:
    lab = Lab()
    lab.dp.remove_port(lab.ports["b"])
    lab.add_port("b", PortKind.ENDPOINT, mtu=1000)
    lab.send("b", frame(B_MAC, A_MAC))
    packet = from_a(TCP(flags="A") / bytes(961), dst=B_IP, to_mac=B_MAC)
    for vnet in (bytes(10), ECN_ALONE):
        out = lab.send("a", packet, vnet=vnet)
        assert (out.verdict, out.sent) == (Verdict.DROP_TOO_BIG, [])


# -- ARP ----------------------------------------------------------------------------------------------------------------


def test_an_arp_request_to_the_gateways_mac_is_natgws_alone() -> None:
    """A station that knows the gateway asks it whether it is still there."""
    for host in (True, False):
        lab = Lab()
        if not host:
            lab.dp.remove_port(lab.ports["host"])
        asked = Ether(src=A_MAC, dst=GATEWAY_MAC) / ARP(hwsrc=A_MAC, psrc=A_IP, pdst=GATEWAY_IP)
        out = lab.send("a", asked)
        assert (out.verdict, out.ports, out.packet[ARP].op, out.packet[ARP].hwsrc) == (Verdict.ABSORBED, ["a"], 2, GATEWAY_MAC)
        reply = Ether(src=A_MAC, dst=GATEWAY_MAC) / ARP(op=2, hwsrc=A_MAC, psrc=A_IP, hwdst=GATEWAY_MAC, pdst=GATEWAY_IP)
        out = lab.send("a", reply)
        assert (out.verdict, [bytes(each.packet) for each in out.sent]) == (Verdict.ABSORBED, [bytes(reply)] if host else [])


def test_a_station_that_asks_for_the_gateway_is_known_from_then_on() -> None:
    for dst in (BROADCAST_MAC, GATEWAY_MAC):
        lab = Lab()
        lab.add_port("c")
        c_ip, c_mac = "172.17.0.4", "02:42:ac:11:00:04"
        lab.send("c", Ether(src=c_mac, dst=dst) / ARP(hwsrc=c_mac, psrc=c_ip, pdst=GATEWAY_IP))
        (entry,) = [each for each in lab.dp.neighbour_records(lab.now) if each["ip"] == c_ip]
        assert (entry["mac"], entry["port"]) == (c_mac, "c")


def test_arp_too_big_for_a_link_does_not_cross_between_containers_that_are_kept_apart() -> None:
    lab = Lab()
    lab.bridge.icc = False
    lab.send("b", frame(B_MAC, BROADCAST_MAC))
    reply = Ether(src=A_MAC, dst=B_MAC) / ARP(op=2, hwsrc=A_MAC, psrc=A_IP, hwdst=B_MAC, pdst=B_IP)
    assert lab.send("a", reply / Raw(bytes(1472))).ports == ["b"]
    out = lab.send("a", reply / Raw(bytes(1473)))
    assert (out.verdict, out.sent) == (Verdict.DROP_ICC, [])


# -- what is said to all ------------------------------------------------------------------------------------------------


@pytest.mark.requirement("V2")
def test_a_router_is_asked_and_answers_where_the_frame_came_from() -> None:
    """Without the option that tells its MAC address, a host is answered at the one its frame is from."""
    lab = Lab6()
    before = lab.dp.counters()["router_advertisements"]
    bare = Ether(src=A_MAC, dst="33:33:00:00:00:02") / IPv6(src=A6_LL, dst="ff02::2", hlim=255) / ICMPv6ND_RS()
    out = lab.send("a", bare)
    (answer,) = [each for each in out.sent if ICMPv6ND_RA in each.packet]
    assert (answer.port, answer.packet.dst, answer.packet[IPv6].dst) == ("a", A_MAC, A6_LL)
    assert lab.dp.counters()["router_advertisements"] == before + 1
    bare.dst = GATEWAY_MAC
    out = lab.send("a", bare)
    assert (out.verdict, [each.port for each in out.sent]) == (Verdict.ABSORBED, ["a"])
    assert lab.dp.counters()["router_advertisements"] == before + 2


@pytest.mark.requirement("V2")
def test_each_advertisement_to_all_counts_once_and_none_is_for_the_host() -> None:
    lab = Lab6()
    for _ in range(40):
        sent = [each for each in lab.wait(1) if ICMPv6ND_RA in each.packet]
        assert sorted(each.port for each in sent) in ([], ["a", "b"])
    assert lab.dp.counters()["router_advertisements"] == 3


@pytest.mark.requirement("V2")
def test_neighbour_discovery_with_the_gateway_is_natgws_and_what_the_host_may_have_asked_for_the_hosts() -> None:
    for host in (True, False):
        lab = Lab6()
        if not host:
            lab.dp.remove_port(lab.ports["host"])
        asked = Ether(src=A_MAC, dst=GATEWAY_MAC) / IPv6(src=A6, dst=GATEWAY6, hlim=255) / ICMPv6ND_NS(tgt=GATEWAY6)
        assert lab.send("a", asked).ports == ["a"]
        told = advertisement(A6, A_MAC, to=GATEWAY6, to_mac=GATEWAY_MAC)
        out = lab.send("a", told)
        assert (out.verdict, [bytes(each.packet) for each in out.sent]) == (Verdict.ABSORBED, [bytes(told)] if host else [])
        told[IPv6].hlim = 254
        out = lab.send("a", told)
        assert (out.verdict, out.sent) == (Verdict.DROP_BAD_ND, [])


@pytest.mark.requirement("V2")
def test_an_advertisement_without_the_option_is_from_where_its_frame_says() -> None:
    """To the gateway and to all."""
    for dst, to_mac in ((GATEWAY6, GATEWAY_MAC), ("ff02::1", "33:33:00:00:00:01")):
        lab = Lab6()
        lab.add_port("c")
        address, mac = "fd00:1:2:3::77", "02:00:00:00:00:77"
        lab.send("c", Ether(src=mac, dst=GATEWAY_MAC) / IPv6(src=address, dst=REMOTE6) / UDP(sport=45000, dport=53))
        assert lab.send("uplink", from_outside6(UDP(sport=53, dport=45000))).verdict is Verdict.QUEUED
        told = advertisement(address, mac, to=dst, to_mac=to_mac, S=0)
        told[IPv6].remove_payload()
        told /= ICMPv6ND_NA(tgt=address, S=0, O=1)
        (arrived,) = [each for each in lab.send("c", told).sent if UDP in each.packet]
        assert (arrived.port, arrived.packet.dst) == ("c", mac)


@pytest.mark.parametrize("body", [UDP(sport=68, dport=67), ICMP()], ids=["a DHCP request", "a ping"])
def test_the_hosts_own_broadcasts_flood_whatever_they_ask_for(body: Packet) -> None:
    """Its DHCP client is not natgw's affair."""
    lab = Lab()
    lab.bridge.dhcp = DhcpHook(lambda message, port, now: None, lab.now)
    asked = Ether(src=GATEWAY_MAC, dst=BROADCAST_MAC) / IP(src=GATEWAY_IP, dst="255.255.255.255") / body
    out = lab.send("host", asked)
    assert (out.verdict, out.ports) == (Verdict.FLOODED, ["a", "b"])


def test_only_to_the_gateways_address_a_request_is_for_its_dhcp_server() -> None:
    lab = Lab()
    asked: list[str] = []
    lab.bridge.dhcp = DhcpHook(lambda message, port, now: asked.append(port.name), lab.now)
    bootp = BOOTP(op=1, chaddr=parse_mac(A_MAC), ciaddr=A_IP) / DHCP(options=[("message-type", "request"), "end"])
    body = UDP(sport=68, dport=67) / bootp
    assert lab.send("a", from_a(body, dst=GATEWAY_IP)).verdict is Verdict.DHCP
    assert lab.send("a", from_a(body)).verdict is Verdict.TRANSLATED_OUT
    assert lab.send("a", from_a(UDP(sport=68, dport=68) / bootp, dst=GATEWAY_IP)).verdict is Verdict.TO_HOST
    assert asked == ["a"]


@pytest.mark.requirement("B4", "V2")
def test_what_is_to_a_group_and_no_neighbour_discovery_floods() -> None:
    """mDNS; a router's advertisement, which is the stations' to judge; and what only looks like neighbour discovery."""
    asked = solicitation(GATEWAY6)
    mdns = Ether(src=A_MAC, dst="33:33:00:00:00:fb") / IPv6(src=A6_LL, dst="ff02::fb") / UDP(sport=5353, dport=5353)
    router = Ether(src=A_MAC, dst="33:33:00:00:00:01") / IPv6(src=A6_LL, dst="ff02::1", hlim=255) / ICMPv6ND_RA()
    other = Ether(src=A_MAC, dst=asked.dst, type=0x88B5) / Raw(bytes(asked[IPv6]))
    for lab in (Lab(), Lab6(), Lab6(network={"advertises": False})):
        for packet in (mdns, router, other):
            out = lab.send("a", packet)
            assert (out.verdict, out.ports) == (Verdict.FLOODED, ["host", "b"])
            assert {bytes(each.packet) for each in out.sent} == {bytes(packet)}


def test_what_is_neither_arp_nor_ip_is_nothing_to_the_gateway() -> None:
    packet = Ether(src=A_MAC, dst=GATEWAY_MAC, type=0x88B5) / Raw(bytes(60))
    for lab in (Lab(), Lab6()):
        out = lab.send("a", packet)
        assert (out.verdict, out.sent) == (Verdict.DROP_ETHERTYPE, [])


def test_an_offload_header_that_lies_makes_no_frame_fit() -> None:
    """What it says of TCP is not so of a datagram, nor of ARP."""
    lab = Lab()
    lab.dp.remove_port(lab.ports["b"])
    lab.add_port("b", PortKind.ENDPOINT, mtu=1000)
    lab.send("b", frame(B_MAC, A_MAC))
    lies = VNET.pack(0, GSO_TCPV4, 54, 100, 0, 0)
    for packet in (from_a(UDP() / bytes(1200), dst=B_IP, to_mac=B_MAC),
                   Ether(src=A_MAC, dst=B_MAC) / ARP(op=2, hwsrc=A_MAC, psrc=A_IP) / Raw(bytes(1200))):
        out = lab.send("a", packet, vnet=lies)
        assert (out.verdict, out.sent) == (Verdict.DROP_TOO_BIG, [])
