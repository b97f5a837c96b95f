"""Neighbour discovery and router advertisements: on the bridge, where natgw is the router, and on the uplink (V2)."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from natgw.datapath import NetworkConfig, PortKind, Verdict
from natgw.wire import nd
from natgw.wire.ethernet import parse_mac
from natgw.wire.ip import group_mac, link_local_of, solicited_node
from natgw.wire.ipv6 import build_ipv6
from tests.unit.core_lab import A_MAC, B_MAC, GATEWAY_MAC, ROUTER_MAC, UPLINK_MAC, Lab, Sent
from tests.unit.lab6 import (
    A6,
    A6_LL,
    B6,
    EXTERNAL6,
    GATEWAY6,
    GATEWAY6_LL,
    PREFIX,
    ROUTER6,
    UPLINK6_LL,
    Lab6,
    advertisement,
    from_a6,
    from_outside6,
    solicitation,
)

pytestmark = pytest.mark.requirement("V2")

NEWCOMER, NEWCOMER_MAC = "fd00:1:2:3::77", "02:00:00:00:00:77"


@pytest.fixture
def lab() -> Lab6:
    return Lab6()


def advertised(sent: list[Sent]) -> list[Sent]:
    return [each for each in sent if ICMPv6ND_RA in each.packet]


def solicit_router(*, src: str = A6_LL, mac: str = A_MAC) -> Packet:
    frame = Ether(src=mac, dst="33:33:00:00:00:02") / IPv6(src=src, dst="ff02::2", hlim=255) / ICMPv6ND_RS()
    return frame if src == "::" else frame / ICMPv6NDOptSrcLLAddr(lladdr=mac)


# -- addresses ----------------------------------------------------------------------------------------------------------


def test_addresses_that_follow_from_others() -> None:
    """The example of RFC 4291 appendix A, and those of sections 2.7.1 and RFC 2464 section 7."""
    assert link_local_of(bytes.fromhex("3456789ABCDE")) == IPv6Address("fe80::3656:78ff:fe9a:bcde").packed
    target = IPv6Address("4037::01:800:200e:8c6c").packed
    assert solicited_node(target) == IPv6Address("ff02::1:ff0e:8c6c").packed
    assert group_mac(solicited_node(target)).hex(":") == "33:33:ff:0e:8c:6c"


# -- neighbours ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [GATEWAY6, GATEWAY6_LL])
def test_the_gateway_answers_for_its_addresses(lab: Lab6, target: str) -> None:
    out = lab.send("a", solicitation(target))
    assert out.verdict is Verdict.FLOODED
    assert sorted(out.ports) == ["a", "b"]  # the host, which has the address too, is not asked
    answer = next(each.packet for each in out.sent if each.port == "a")
    message = answer[ICMPv6ND_NA]
    assert (answer.dst, answer[IPv6].src, answer[IPv6].dst, answer[IPv6].hlim) == (A_MAC, target, A6, 255)
    assert (message.tgt, message.R, message.S, message.O) == (target, 1, 1, 1)
    assert message[ICMPv6NDOptDstLLAddr].lladdr == GATEWAY_MAC


def test_a_unicast_probe_of_the_gateway_is_answered(lab: Lab6) -> None:
    probe = Ether(src=A_MAC, dst=GATEWAY_MAC) / IPv6(src=A6, dst=GATEWAY6, hlim=255) / ICMPv6ND_NS(tgt=GATEWAY6)
    out = lab.send("a", probe)
    assert (out.verdict, out.ports, out.packet[IPv6].dst) == (Verdict.ABSORBED, ["a"], A6)


def test_other_solicitations_are_the_stations_own(lab: Lab6) -> None:
    out = lab.send("a", solicitation(B6))
    assert (out.verdict, sorted(out.ports)) == (Verdict.FLOODED, ["b", "host"])
    assert all(ICMPv6ND_NS in each.packet for each in out.sent)


def test_duplicate_address_detection_is_not_disturbed(lab: Lab6) -> None:
    out = lab.send("a", solicitation(NEWCOMER, src="::"))
    assert (out.verdict, sorted(out.ports)) == (Verdict.FLOODED, ["b", "host"])
    assert lab.bridge.neighbours.get(IPv6Address(NEWCOMER).packed) is None


def test_the_gateway_defends_its_address(lab: Lab6) -> None:
    """RFC 4862 section 5.4.3, answered to all as RFC 4861 section 7.2.4 wants it."""
    out = lab.send("a", solicitation(GATEWAY6, src="::"))
    answer = next(each.packet for each in out.sent if ICMPv6ND_NA in each.packet)
    assert (answer.dst, answer[IPv6].dst, answer[ICMPv6ND_NA].S) == ("33:33:00:00:00:01", "ff02::1", 0)


def test_a_neighbour_nobody_told_of_is_asked_for(lab: Lab6) -> None:
    """The reply to a flow of a station that natgw knows no address of: asked for by multicast, and sent when found."""
    lab.add_port("c")
    body = UDP(sport=45000, dport=53) / b"x"
    out = lab.send("c", Ether(src=NEWCOMER_MAC, dst=GATEWAY_MAC) / IPv6(src=NEWCOMER, dst="2001:db8:113::9") / body)
    assert out.verdict is Verdict.TRANSLATED_OUT
    asked = [each for each in out.sent if ICMPv6ND_NS in each.packet]
    assert sorted(each.port for each in asked) == ["a", "b", "c"]
    packet = asked[0].packet
    assert (packet.dst, packet[IPv6].src, packet[IPv6].dst) == ("33:33:ff:00:00:77", GATEWAY6, "ff02::1:ff00:77")
    assert packet[ICMPv6NDOptSrcLLAddr].lladdr == GATEWAY_MAC
    back = lab.send("uplink", from_outside6(UDP(sport=53, dport=45000) / b"y"))
    assert back.verdict is Verdict.QUEUED
    found = lab.send("c", advertisement(NEWCOMER, NEWCOMER_MAC, to=GATEWAY6, to_mac=GATEWAY_MAC))
    assert found.verdict is Verdict.ABSORBED
    assert {each.port for each in found.sent} == {"c", "host"}  # it may be the host that asked
    assert next(each for each in found.sent if each.port == "c").packet[UDP].dport == 45000


def test_a_neighbour_is_probed_before_it_is_given_up(lab: Lab6) -> None:
    lab.send("a", from_a6(UDP(sport=45000, dport=53) / b"x"))
    probes = [each for each in lab.wait(65) if each.port == "a" and ICMPv6ND_NS in each.packet]
    assert {each.packet.dst for each in probes} == {A_MAC}
    assert {each.packet[IPv6].dst for each in probes} == {A6}


def test_an_endpoints_address_is_not_claimed_from_another_port(lab: Lab6) -> None:
    lab.send("b", advertisement(A6, B_MAC, to=GATEWAY6, to_mac=GATEWAY_MAC))
    lab.send("b", solicitation(GATEWAY6, src=A6, mac=B_MAC))
    lab.send("a", from_a6(UDP(sport=45000, dport=53) / b"x"))
    assert lab.send("uplink", from_outside6(UDP(sport=53, dport=45000) / b"y")).ports == ["a"]


def test_an_advertisement_that_does_not_override(lab: Lab6) -> None:
    """RFC 4861 section 7.2.5: without the flag another link-layer address changes nothing."""
    lab.add_port("c")
    lab.send("c", solicitation(GATEWAY6, src=NEWCOMER, mac=NEWCOMER_MAC))
    other = "02:00:00:00:00:78"
    lab.send("c", advertisement(NEWCOMER, other, to=GATEWAY6, to_mac=GATEWAY_MAC, O=0))
    entry = lab.bridge.neighbours.get(IPv6Address(NEWCOMER).packed)
    assert entry is not None and entry.mac == parse_mac(NEWCOMER_MAC)
    lab.send("c", advertisement(NEWCOMER, other, to=GATEWAY6, to_mac=GATEWAY_MAC))
    assert entry.mac == parse_mac(other)


def _bad(lab: Lab6) -> dict[str, Packet]:
    good = solicitation(GATEWAY6)
    checksum, code = good.copy(), good.copy()
    checksum[ICMPv6ND_NS].cksum = 1
    code[ICMPv6ND_NS].code = 1
    option = solicitation(GATEWAY6)
    option[ICMPv6NDOptSrcLLAddr].len = 0
    group = solicitation(GATEWAY6)
    group[ICMPv6NDOptSrcLLAddr].lladdr = "01:00:5e:00:00:01"
    probe = solicitation(GATEWAY6, src="::")
    to_all = probe.copy()
    to_all[IPv6].dst = "ff02::1"
    solicited = advertisement(A6, A_MAC, to="ff02::1", to_mac="33:33:00:00:00:01")
    return {"hop limit": solicitation(GATEWAY6, hlim=254), "checksum": checksum, "code": code, "option without length": option,
            "group address": group, "probe with option": probe / ICMPv6NDOptSrcLLAddr(lladdr=A_MAC),
            "probe to all": to_all, "target": solicitation("ff02::1"), "solicited, to all": solicited,
            "cut short": Ether(bytes(good)[:14]) / IPv6(src=A6, dst="ff02::1", hlim=255, nh=58) / Raw(b"\x87\0\0\0")}


@pytest.mark.parametrize("what", list(_bad(Lab6())))
def test_what_is_not_valid_is_dropped(what: str) -> None:
    """RFC 4861 sections 6.1 and 7.1."""
    lab = Lab6(verify=False)
    out = lab.send("a", _bad(lab)[what])
    assert (out.verdict, out.sent) == (Verdict.DROP_BAD_ND, [])


@given(st.sampled_from(sorted(nd.TYPES)), st.binary(max_size=64), st.integers(0, 80))
def test_any_bytes_are_read_or_refused(kind: int, rest: bytes, n: int) -> None:
    frame = build_ipv6(bytes(14), IPv6Address(A6).packed, IPv6Address(GATEWAY6).packed, 58, bytes((kind, 0, 0, 0)) + rest,
                       hop_limit=255)
    buf = frame + bytes(64)
    length = min(n + 50, len(frame))
    if nd.is_nd(buf, length):
        nd.parse_nd(buf, length)


# -- routers ------------------------------------------------------------------------------------------------------------


def test_routers_advertise_themselves_from_time_to_time(lab: Lab6) -> None:
    """RFC 4861 section 6.2.4: some soon after the start, then at intervals between 200 s and 600 s."""
    times = []
    for _ in range(3000):
        sent = advertised(lab.wait(1))
        if sent:
            assert sorted(each.port for each in sent) == ["a", "b"]
            times.append(lab.now)
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps[:2] == [16, 16]
    assert all(200 <= gap <= 601 for gap in gaps[2:])
    assert len(set(gaps[2:])) > 1


def test_what_an_advertisement_says(lab: Lab6) -> None:
    packet = advertised(lab.wait(1))[0].packet
    assert (packet.src, packet.dst) == (GATEWAY_MAC, "33:33:00:00:00:01")
    assert (packet[IPv6].src, packet[IPv6].dst, packet[IPv6].hlim) == (GATEWAY6_LL, "ff02::1", 255)
    message = packet[ICMPv6ND_RA]
    assert (message.routerlifetime, message.M, message.O, message.chlim) == (1800, 0, 0, 64)
    assert packet[ICMPv6NDOptMTU].mtu == 1500
    assert packet[ICMPv6NDOptSrcLLAddr].lladdr == GATEWAY_MAC
    prefix = packet[ICMPv6NDOptPrefixInfo]
    assert (f"{prefix.prefix}/{prefix.prefixlen}", prefix.L, prefix.A) == (PREFIX, 1, 1)
    assert (prefix.validlifetime, prefix.preferredlifetime) == (2592000, 604800)


def test_who_asks_is_answered_alone(lab: Lab6) -> None:
    out = lab.send("a", solicit_router())
    (answer,) = advertised(out.sent)
    assert (answer.port, answer.packet.dst, answer.packet[IPv6].dst) == ("a", A_MAC, A6_LL)
    assert {each.port for each in out.sent} == {"a", "b", "host"}  # the question itself is flooded


def test_who_has_no_address_yet_is_answered_to_all_though_not_too_often(lab: Lab6) -> None:
    first = advertised(lab.send("a", solicit_router(src="::")).sent)
    assert [each.packet[IPv6].dst for each in first] == ["ff02::1"]
    assert not advertised(lab.send("a", solicit_router(src="::")).sent)
    later = [lab.now for _ in range(4) if advertised(lab.wait(1))]
    assert later == [4.0]


def test_the_router_of_an_internal_network_is_nobodys_default_router() -> None:
    for asked in (False, True):
        lab = Lab6(network={"internal": True})
        (sent, *_) = advertised(lab.send("a", solicit_router()).sent if asked else lab.wait(1))
        assert sent.packet[ICMPv6ND_RA].routerlifetime == 0 and sent.packet[ICMPv6NDOptPrefixInfo].prefix == "fd00:1:2:3::"


def test_a_network_that_does_not_advertise() -> None:
    """Nobody hears of the router, not even who asks; and it is there all the same."""
    lab = Lab6(network={"advertises": False})
    assert not advertised(lab.send("a", solicit_router()).sent) and not advertised(lab.wait(700))
    assert lab.send("a", from_a6(ICMPv6EchoRequest(id=7, seq=3), dst=GATEWAY6)).verdict is Verdict.ECHO_ANSWERED


def test_a_prefix_that_is_not_64_bits_long_makes_no_addresses() -> None:
    frame = nd.build_router_advertisement(parse_mac(GATEWAY_MAC), link_local_of(parse_mac(GATEWAY_MAC)),
                                          IPv6Network("fd00::/80"), 1280, 0)
    packet = Ether(bytes(frame[10:]))
    assert (packet[ICMPv6NDOptPrefixInfo].A, packet[ICMPv6NDOptPrefixInfo].L, packet[ICMPv6ND_RA].routerlifetime) == (0, 1, 0)


@pytest.mark.parametrize("dst", [GATEWAY6, GATEWAY6_LL])
def test_the_gateway_answers_echo(lab: Lab6, dst: str) -> None:
    src = A6 if dst == GATEWAY6 else A6_LL
    out = lab.send("a", from_a6(ICMPv6EchoRequest(id=7, seq=3, data=b"ping"), dst=dst, src=src))
    assert (out.verdict, out.ports) == (Verdict.ECHO_ANSWERED, ["a"])
    reply = out.packet[ICMPv6EchoReply]
    assert (reply.id, reply.seq, reply.data, out.packet[IPv6].src) == (7, 3, b"ping", dst)


def test_the_rest_for_the_gateway_is_the_hosts(lab: Lab6) -> None:
    out = lab.send("a", from_a6(UDP(sport=1, dport=2), dst=GATEWAY6))
    assert (out.verdict, out.ports) == (Verdict.TO_HOST, ["host"])


def test_from_container_to_container_by_way_of_the_gateway(lab: Lab6) -> None:
    out = lab.send("a", from_a6(UDP(sport=1, dport=2), dst=B6))
    assert (out.verdict, out.ports, out.packet[IPv6].hlim) == (Verdict.ROUTED, ["b"], 63)


# -- without IPv6 -------------------------------------------------------------------------------------------------------


def test_without_a_prefix_ipv6_is_bridged_and_otherwise_left_alone() -> None:
    lab = Lab()
    for frame in (solicitation(GATEWAY6), solicit_router(), solicitation(GATEWAY6, hlim=1)):
        out = lab.send("a", frame)
        assert (out.verdict, sorted(out.ports)) == (Verdict.FLOODED, ["b", "host"])
    assert lab.send("a", from_a6(UDP(sport=1, dport=2))).verdict is Verdict.DROP_ETHERTYPE
    assert lab.send("uplink", from_outside6(UDP(sport=1, dport=2))).verdict is Verdict.TO_HOST
    assert not advertised(lab.wait(30))


def test_a_network_needs_prefix_and_gateway() -> None:
    known = Lab().bridge.config
    with pytest.raises(ValueError, match="needs a gateway"):
        NetworkConfig(name="x", subnet=known.subnet, gateway=known.gateway, gateway_mac=known.gateway_mac,
                      subnet6=IPv6Network(PREFIX))
    with pytest.raises(ValueError, match="is not in subnet"):
        NetworkConfig(name="x", subnet=known.subnet, gateway=known.gateway, gateway_mac=known.gateway_mac,
                      subnet6=IPv6Network(PREFIX), gateway6=IPv6Address("fd00::1"))


# -- the uplink ---------------------------------------------------------------------------------------------------------


def test_the_next_hop_is_asked_for_from_an_address_on_its_link() -> None:
    lab = Lab6(resolved=False)
    out = lab.send("a", from_a6(UDP(sport=45000, dport=53) / b"x"))
    assert out.verdict is Verdict.QUEUED
    asked = next(each for each in out.sent if ICMPv6ND_NS in each.packet).packet
    assert (asked[IPv6].src, asked[ICMPv6ND_NS].tgt, asked.src) == (UPLINK6_LL, ROUTER6, UPLINK_MAC)
    found = lab.send("uplink", advertisement(ROUTER6, ROUTER_MAC, to=UPLINK6_LL))
    assert found.verdict is Verdict.ABSORBED
    assert found.only.packet[UDP].sport == 45000
    direct = lab.send("a", from_a6(UDP(sport=45001, dport=53) / b"x", dst="2001:db8:51::77"))
    asked = next(each for each in direct.sent if ICMPv6ND_NS in each.packet).packet
    assert (asked[IPv6].src, asked[ICMPv6ND_NS].tgt) == (EXTERNAL6, "2001:db8:51::77")


def _ask_uplink(target: str) -> Packet:
    return solicitation(target, src=ROUTER6, mac=ROUTER_MAC)


def test_on_a_shared_uplink_the_host_answers(lab: Lab6) -> None:
    assert lab.send("uplink", _ask_uplink(EXTERNAL6)).sent == []


@pytest.mark.parametrize("target", [EXTERNAL6, UPLINK6_LL])
def test_on_an_uplink_of_its_own_natgw_answers(target: str) -> None:
    lab = Lab6(exclusive=True)
    out = lab.send("uplink", _ask_uplink(target))
    assert (out.verdict, out.ports) == (Verdict.ABSORBED, ["uplink"])
    message = out.packet[ICMPv6ND_NA]
    assert (message.tgt, message.R, message[ICMPv6NDOptDstLLAddr].lladdr) == (target, 0, UPLINK_MAC)
    assert lab.send("uplink", _ask_uplink("2001:db8:51::99")).sent == []
    ping = lab.send("uplink", from_outside6(ICMPv6EchoRequest(id=1, data=b"x")))
    assert (ping.verdict, ping.packet[IPv6].src) == (Verdict.ECHO_ANSWERED, EXTERNAL6)


def test_the_host_port_is_not_told_of_routers() -> None:
    lab = Lab6()
    lab.add_port("c", PortKind.ENDPOINT)
    assert {each.port for each in advertised(lab.wait(1))} == {"a", "b", "c"}
    assert not advertised(lab.send("host", solicit_router(mac=GATEWAY_MAC)).sent)
