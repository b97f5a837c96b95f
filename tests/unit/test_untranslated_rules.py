"""What crosses untranslated crosses as by any router: errors about it, sizes, fragments (C4, U10, I3, G1).

Some destinations are chosen to be so, others are since their network is not masqueraded, and stations of one network that speak
by way of the gateway are so too.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6
from scapy.packet import Raw

from natgw.datapath import NatConfig, Verdict
from natgw.wire.vnet import GSO_TCPV4, GSO_UDP_L4
from tests.unit.core_lab import A_IP, B_IP, EXTERNAL, GATEWAY_IP, REMOTE, Lab, from_a, from_b, from_outside, partial
from tests.unit.lab6 import A6, REMOTE6, Lab6, from_a6, from_outside6
from tests.unit.test_fragments import whole

OTHER = "192.0.2.9"
HOW = pytest.mark.parametrize("how", ["destination", "network"])


def lab_for(how: str, *, uplink_mtu: int = 1500) -> Lab:
    """A laboratory in which packets between container a and the remote are not translated."""
    if how == "destination":
        return Lab(nat=NatConfig(untranslated=(IPv4Network("203.0.113.0/24"),)), uplink_mtu=uplink_mtu)
    lab = Lab(uplink_mtu=uplink_mtu)
    lab.bridge.config = replace(lab.bridge.config, masquerade=False)
    return lab


@pytest.mark.requirement("C4", "I3")
@HOW
@pytest.mark.parametrize("src", [REMOTE, OTHER], ids=["of the remote", "of a router on the way"])
def test_an_error_about_what_went_out_comes_in_as_it_is(how: str, src: str) -> None:
    lab = lab_for(how)
    left = bytes(lab.send("a", from_a(UDP(sport=5000, dport=53) / b"x")).packet[IP])
    packet = from_outside(ICMP(type=3, code=4, nexthopmtu=1300) / Raw(left), src=src, dst=A_IP)
    out = lab.send("uplink", packet)
    assert (out.verdict, out.ports) == (Verdict.ROUTED, ["a"])
    assert (out.packet[IP].src, out.packet[IP].dst, out.packet[IP].ttl) == (src, A_IP, 63)
    assert bytes(out.packet[ICMP]) == bytes(packet[ICMP])


@pytest.mark.requirement("C4", "I6")
def test_an_error_about_anything_else_does_not_come_in() -> None:
    lab = lab_for("destination")
    for quoted, dst in ((IP(src=A_IP, dst=OTHER), A_IP), (IP(src=B_IP, dst=REMOTE), A_IP), (IP(src=A_IP, dst=REMOTE), B_IP)):
        packet = from_outside(ICMP(type=3, code=1) / quoted / UDP(sport=5000, dport=53), src=OTHER, dst=dst)
        assert lab.send("uplink", packet).sent == []
    quoted = IP(src=A_IP, dst=REMOTE) / UDP(sport=5000, dport=53)
    assert lab.send("uplink", from_outside(ICMP(type=3, chksum=1) / quoted, src=OTHER, dst=A_IP)).sent == []


@pytest.mark.requirement("C4", "I6")
def test_nothing_that_is_no_whole_error_comes_in_as_one() -> None:
    """Not even what has a quotation where an error has its own."""
    lab = lab_for("destination")
    quoted = Raw(bytes(IP(src=A_IP, dst=REMOTE) / UDP(sport=5000, dport=53)))
    assert lab.send("uplink", from_outside(ICMP(type=3, code=1) / quoted, src=OTHER, dst=A_IP)).ports == ["a"]
    for body in (UDP(sport=1, dport=2) / quoted, ICMP(type=8) / quoted, TCP(sport=1, dport=2, flags="S")):
        assert lab.send("uplink", from_outside(body, src=OTHER, dst=A_IP)).sent == []
    assert lab.send("uplink", from_outside(ICMP(type=3, code=1) / quoted, src=OTHER, dst=A_IP, flags="MF")).sent == []


@pytest.mark.requirement("C4", "I3")
@HOW
def test_an_error_about_what_came_in_goes_out_as_it_is(how: str) -> None:
    lab = lab_for(how)
    came = bytes(lab.send("uplink", from_outside(UDP(sport=53, dport=5000) / b"x", dst=A_IP)).packet[IP])
    packet = from_a(ICMP(type=3, code=3) / Raw(came))
    out = lab.send("a", packet)
    assert (out.verdict, out.ports) == (Verdict.ROUTED, ["uplink"])
    assert (out.packet[IP].src, out.packet[IP].dst, bytes(out.packet[ICMP])) == (A_IP, REMOTE, bytes(packet[ICMP]))
    if how == "destination":
        out = lab.send("a", from_a(ICMP(type=3, code=3) / Raw(came), dst=OTHER))
        assert (out.verdict, out.sent) == (Verdict.DROP_ICMP_NO_FLOW, []), "nothing inside is shown where it is translated"


@pytest.mark.requirement("I3", "G1")
def test_an_error_between_stations_by_way_of_the_gateway() -> None:
    lab = Lab()
    came = bytes(lab.send("a", from_a(UDP(sport=5000, dport=53) / b"x", dst=B_IP)).packet[IP])
    out = lab.send("b", from_b(ICMP(type=3, code=3) / Raw(came), dst=A_IP))
    assert (out.verdict, out.ports, out.packet[IP].src) == (Verdict.ROUTED, ["a"], B_IP)
    lab.bridge.icc = False
    assert lab.send("b", from_b(ICMP(type=3, code=3) / Raw(came), dst=A_IP)).verdict is Verdict.DROP_ICC


@pytest.mark.requirement("C4", "U10")
@HOW
def test_too_big_with_df_is_told_with_the_mtu(how: str) -> None:
    lab = lab_for(how, uplink_mtu=1400)
    assert lab.send("a", from_a(UDP(sport=5000, dport=53) / bytes(1372), flags="DF")).verdict is Verdict.ROUTED
    packet = from_a(UDP(sport=5000, dport=53) / bytes(1373), flags="DF")
    out = lab.send("a", packet)
    assert (out.verdict, out.ports) == (Verdict.ICMP_TOO_BIG, ["a"])
    assert (out.packet[IP].src, out.packet[ICMP].code, out.packet[ICMP].nexthopmtu) == (GATEWAY_IP, 4, 1400)
    assert out.only.quoted == bytes(packet[IP])[: 576 - 28]


@pytest.mark.requirement("C4", "U10", "G2")
@HOW
@pytest.mark.parametrize("is_partial", [True, False])
def test_too_big_without_df_is_fragmented(how: str, is_partial: bool) -> None:
    lab = lab_for(how, uplink_mtu=1400)
    data = bytes(number % 251 for number in range(1450))
    packet = from_a(UDP(sport=5000, dport=53) / data, id=7)
    out = lab.send("a", partial(packet) if is_partial else packet)
    assert (out.verdict, out.ports) == (Verdict.FRAGMENTED, ["uplink"] * 2)
    assert max(each.packet[IP].len for each in out.sent) <= 1400
    put_together = whole([(each.port, each.packet[IP]) for each in out.sent], "uplink")
    assert (put_together.src, put_together.ttl, bytes(put_together[Raw])) == (A_IP, 63, data)


@pytest.mark.requirement("C4", "U10")
@HOW
def test_superframes_are_made_to_fit(how: str) -> None:
    lab = lab_for(how, uplink_mtu=1400)
    tcp = partial(from_a(TCP(sport=5000, dport=80, flags="A") / bytes(9000), flags="DF"), gso_type=GSO_TCPV4, gso_size=1460)
    out = lab.send("a", tcp)
    assert (out.verdict, int.from_bytes(out.only.vnet[4:6], "little")) == (Verdict.ROUTED, 1360)
    udp = partial(from_a(UDP(sport=5000, dport=53) / bytes(2946)), gso_type=GSO_UDP_L4, gso_size=1473)
    assert lab.send("a", udp).ports == ["uplink"] * 4
    fits = partial(from_a(UDP(sport=5000, dport=53) / bytes(4000)), gso_type=GSO_UDP_L4, gso_size=1000)
    assert lab.send("a", fits).only.vnet == fits[:10]


@pytest.mark.requirement("C4", "U11")
@HOW
def test_fragments_pass_one_by_one(how: str) -> None:
    lab = lab_for(how)
    first = from_a(UDP(sport=5000, dport=53) / bytes(56), flags="MF", id=9)
    for packet in (from_a(Raw(bytes(64)), proto=17, frag=8, id=9), first):
        out = lab.send("a", packet)
        assert (out.verdict, out.packet[IP].src, out.packet[IP].frag) == (Verdict.ROUTED, A_IP, packet[IP].frag)


@pytest.mark.requirement("V1", "V3", "C4", "U10")
def test_the_same_of_ipv6() -> None:
    lab = Lab6(uplink_mtu=1400, nat=NatConfig(untranslated=(IPv6Network("2001:db8:113::/48"),)))
    left = lab.send("a", from_a6(UDP(sport=5000, dport=53) / b"x")).packet[IPv6]
    for src in (REMOTE6, "2001:db8:77::1"):
        out = lab.send("uplink", from_outside6(ICMPv6PacketTooBig(mtu=1300) / Raw(bytes(left)), src=src, dst=A6))
        assert (out.verdict, out.ports, out.packet[IPv6].src) == (Verdict.ROUTED, ["a"], src)
    came = lab.send("uplink", from_outside6(UDP(sport=53, dport=5000) / b"y", dst=A6)).packet[IPv6]
    out = lab.send("a", from_a6(ICMPv6DestUnreach(code=4) / Raw(bytes(came))))
    assert (out.verdict, out.ports, out.packet[IPv6].src) == (Verdict.ROUTED, ["uplink"], A6)
    out = lab.send("a", from_a6(UDP(sport=5000, dport=53) / bytes(1353)))
    assert (out.verdict, out.packet[ICMPv6PacketTooBig].mtu) == (Verdict.ICMP_TOO_BIG, 1400)


@pytest.mark.requirement("C4", "G1")
@HOW
def test_at_its_last_hop_it_is_told_by_the_gateway_and_no_error_about_an_error(how: str) -> None:
    lab = lab_for(how)
    out = lab.send("a", from_a(UDP(sport=5000, dport=53), ttl=1))
    assert (out.verdict, out.packet[IP].src, out.packet[ICMP].type) == (Verdict.ICMP_TIME_EXCEEDED, GATEWAY_IP, 11)
    error = ICMP(type=3, code=3) / IP(src=REMOTE, dst=A_IP) / UDP(sport=53, dport=5000)
    assert lab.send("a", from_a(error, ttl=1)).sent == []
    out = lab.send("uplink", from_outside(UDP(sport=53, dport=5000), dst=A_IP, ttl=1))
    assert (out.verdict, out.packet[IP].src, out.packet[IP].dst) == (Verdict.ICMP_TIME_EXCEEDED, EXTERNAL, REMOTE)
    assert not lab.flows()


@pytest.mark.requirement("G5", "C4")
@pytest.mark.parametrize("src", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", A_IP, B_IP, GATEWAY_IP, EXTERNAL])
def test_sources_that_cannot_be_do_not_come_in_untranslated(src: str) -> None:
    lab = lab_for("network")
    assert lab.send("uplink", from_outside(UDP(sport=53, dport=5000), src=OTHER, dst=A_IP)).ports == ["a"]
    out = lab.send("uplink", from_outside(UDP(sport=53, dport=5000), src=src, dst=A_IP))
    assert (out.verdict, out.sent) == (Verdict.DROP_MARTIAN_SOURCE, [])


@pytest.mark.requirement("G5", "C4", "V1")
@pytest.mark.parametrize("src", ["::", "::1", "ff02::1", "fe80::7", "::ffff:198.51.100.1", A6])
def test_sources_of_ipv6_that_cannot_be_do_not_come_in_untranslated(src: str) -> None:
    lab = Lab6(network={"masquerade": False})
    assert lab.send("uplink", from_outside6(UDP(sport=53, dport=5000), dst=A6)).ports == ["a"]
    out = lab.send("uplink", from_outside6(UDP(sport=53, dport=5000), src=src, dst=A6))
    assert (out.verdict, out.sent) == (Verdict.DROP_MARTIAN_SOURCE, [])
