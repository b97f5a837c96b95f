"""NAT66: IPv6 translated by the same rules as IPv4 (requirement V1), with extension headers, fragments and errors (V3, V4)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Interface, IPv6Network
from typing import Any

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Packet, Raw

from natgw.datapath import (
    PRESETS,
    Dependence,
    Extra,
    NatBehaviour,
    NatConfig,
    Publication,
    UplinkConfig,
    Verdict,
)
from natgw.errors import Conflict
from natgw.wire.ethernet import ETH, L3
from natgw.wire.ipv6 import build_ipv6
from natgw.wire.vnet import GSO_TCPV6, GSO_UDP_L4
from tests.unit.core_lab import A_IP, EXTERNAL, from_a, from_outside
from tests.unit.lab6 import (
    A6,
    A6_LL,
    B6,
    EXTERNAL6,
    GATEWAY6,
    REMOTE6,
    Lab6,
    external_port6,
    from_a6,
    from_b6,
    from_outside6,
    partial6,
    transports6,
    uplink_config6,
)

pytestmark = pytest.mark.requirement("V1")


@pytest.fixture
def lab() -> Lab6:
    return Lab6()


def answered(body: Packet, port: int) -> Packet:
    """The answer to a packet that left with source port or identifier `port`."""
    answer = body.copy()
    if ICMPv6EchoReply in answer:
        answer[ICMPv6EchoReply].id = port
    else:
        answer.dport = port
    return answer


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("number", range(3))
def test_there_and_back(number: int, fast_path: bool) -> None:
    lab = Lab6(fast_path=fast_path)
    name, question, answer = list(transports6(45000))[number]
    out = lab.send("a", from_a6(question))
    assert out.verdict is Verdict.TRANSLATED_OUT, name
    packet = out.packet[IPv6]
    assert (packet.src, packet.dst, packet.hlim) == (EXTERNAL6, REMOTE6, 63)
    assert out.packet.dst == "02:bb:00:00:00:01"
    assert external_port6(out) == 45000
    back = lab.send("uplink", from_outside6(answered(answer, 45000)))
    assert back.verdict is Verdict.TRANSLATED_IN
    assert back.ports == ["a"]
    assert (back.packet[IPv6].src, back.packet[IPv6].dst) == (REMOTE6, A6)
    (flow,) = lab.flows()
    assert flow["protocol"] == name
    assert flow["mapping"] == {"internal": f"[{A6}]:45000", "external": f"[{EXTERNAL6}]:45000"}


def test_two_hosts_with_one_port_or_identifier(lab: Lab6) -> None:
    for _, question, answer in transports6(45000):
        first, second = lab.send("a", from_a6(question)), lab.send("b", from_b6(question))
        ports = external_port6(first), external_port6(second)
        assert len(set(ports)) == 2
        for name, port in zip("ab", ports, strict=True):
            assert lab.send("uplink", from_outside6(answered(answer, port))).ports == [name]


def test_both_versions_have_port_pools_of_their_own(lab: Lab6) -> None:
    body = UDP(sport=45000, dport=53) / b"x"
    assert external_port6(lab.send("a", from_a6(body))) == 45000
    assert lab.external_port(lab.send("b", from_a(body, src="172.17.0.2"))) == 45000


@pytest.mark.parametrize("mapping", list(Dependence))
def test_mapping_depends_on_what_it_is_told_to(mapping: Dependence) -> None:
    behaviour = NatBehaviour(mapping=mapping)
    lab = Lab6(nat=NatConfig(udp=behaviour, allocation="random"))
    remotes = ((REMOTE6, 53), (REMOTE6, 54), ("2001:db8:113::a", 53))
    ports = [external_port6(lab.send("a", from_a6(UDP(sport=45000, dport=port) / b"x", dst=remote)))
             for remote, port in remotes]
    distinct = {Dependence.ENDPOINT_INDEPENDENT: 1, Dependence.ADDRESS_DEPENDENT: 2, Dependence.ADDRESS_AND_PORT_DEPENDENT: 3}
    assert len(set(ports)) == distinct[mapping]


@pytest.mark.parametrize("filtering", list(Dependence))
def test_filtering_depends_on_what_it_is_told_to(filtering: Dependence) -> None:
    lab = Lab6(nat=NatConfig(udp=NatBehaviour(filtering=filtering)))
    lab.send("a", from_a6(UDP(sport=45000, dport=53) / b"x"))
    asked = [lab.send("uplink", from_outside6(UDP(sport=port, dport=45000) / b"y", src=remote)).ports == ["a"]
             for remote, port in ((REMOTE6, 53), (REMOTE6, 54), ("2001:db8:113::a", 53))]
    admitted = {Dependence.ENDPOINT_INDEPENDENT: [True, True, True], Dependence.ADDRESS_DEPENDENT: [True, True, False],
                Dependence.ADDRESS_AND_PORT_DEPENDENT: [True, False, False]}
    assert asked == admitted[filtering]


def test_ports_run_out_and_the_sender_is_told() -> None:
    lab = Lab6(port_range=(45000, 45001))
    for sport in (1, 2):
        assert lab.send("a", from_a6(UDP(sport=sport, dport=53) / b"x")).verdict is Verdict.TRANSLATED_OUT
    out = lab.send("a", from_a6(UDP(sport=3, dport=53) / b"x"))
    assert out.verdict is Verdict.DROP_PORTS_EXHAUSTED
    error = out.packet[ICMPv6DestUnreach]
    assert (error.code, out.packet[IPv6].src) == (1, GATEWAY6)


def test_limits_of_one_host(lab: Lab6) -> None:
    lab = Lab6(nat=NatConfig(ports_per_host=1))
    assert lab.send("a", from_a6(UDP(sport=1, dport=53) / b"x")).verdict is Verdict.TRANSLATED_OUT
    assert lab.send("a", from_a6(UDP(sport=2, dport=53) / b"x")).verdict is Verdict.DROP_HOST_PORTS
    assert lab.send("b", from_b6(UDP(sport=2, dport=53) / b"x")).verdict is Verdict.TRANSLATED_OUT


def test_idle_flows_end_after_the_time_of_their_protocol(lab: Lab6) -> None:
    lab.send("a", from_a6(UDP(sport=45000, dport=53) / b"x"))
    lab.send("a", from_a6(ICMPv6EchoRequest(id=7)))
    lab.wait(59)
    assert len(lab.flows()) == 2
    lab.wait(3)
    assert [flow["protocol"] for flow in lab.flows()] == ["udp"]
    lab.wait(240)
    assert lab.flows() == []


def test_hairpin(lab: Lab6) -> None:
    """A reaches b by b's external endpoint, and b sees a's external one (RFC 4787 REQ-9)."""
    lab.dp.set_nat(PRESETS["full-cone"])
    out = lab.send("b", from_b6(UDP(sport=46000, dport=53) / b"x"))
    assert external_port6(out) == 46000
    hairpin = lab.send("a", from_a6(UDP(sport=45000, dport=46000) / b"hello", dst=EXTERNAL6))
    assert hairpin.verdict is Verdict.TRANSLATED_HAIRPIN
    assert hairpin.ports == ["b"]
    assert (hairpin.packet[IPv6].src, hairpin.packet[IPv6].dst) == (EXTERNAL6, B6)
    assert (hairpin.packet[UDP].sport, hairpin.packet[UDP].dport) == (45000, 46000)
    back = lab.send("b", from_b6(UDP(sport=46000, dport=45000) / b"hi", dst=EXTERNAL6))
    assert back.ports == ["a"]
    assert (back.packet[IPv6].src, back.packet[UDP].sport) == (EXTERNAL6, 46000)


def test_published_port_keeps_the_clients_address(lab: Lab6) -> None:
    lab.publish6(8080, 80)
    into = lab.send("uplink", from_outside6(TCP(sport=5555, dport=8080, flags="S")))
    assert into.ports == ["a"]
    assert (into.packet[IPv6].src, into.packet[IPv6].dst, into.packet[TCP].dport) == (REMOTE6, A6, 80)
    back = lab.send("a", from_a6(TCP(sport=80, dport=5555, flags="SA")))
    assert (back.packet[IPv6].src, back.packet[TCP].sport) == (EXTERNAL6, 8080)
    hairpin = lab.send("b", from_b6(TCP(sport=45000, dport=8080, flags="S"), dst=EXTERNAL6))
    assert (hairpin.verdict, hairpin.ports) == (Verdict.TRANSLATED_HAIRPIN, ["a"])


def test_one_port_is_published_for_each_version_apart(lab: Lab6) -> None:
    six = lab.publish6(8080, 80)
    with pytest.raises(Conflict, match=r"Bind for \[::\]:8080 failed: port is already allocated"):
        lab.publish6(8080, 81)
    four = Publication(protocol="tcp", host_ip=None, host_port=8080, container_ip=IPv4Address(A_IP), container_port=81)
    lab.dp.publish(four)
    assert lab.send("uplink", from_outside(TCP(sport=5, dport=8080, flags="S"))).packet[TCP].dport == 81
    lab.dp.unpublish(six)
    assert lab.send("uplink", from_outside6(TCP(sport=6, dport=8080, flags="S"))).verdict is Verdict.TO_HOST
    assert lab.send("uplink", from_outside(TCP(sport=6, dport=8080, flags="S"))).ports == ["a"]
    with pytest.raises(ValueError, match="not of one IP version"):
        Publication(protocol="tcp", host_ip=IPv6Address("::1"), host_port=1, container_ip=IPv4Address(A_IP), container_port=1)


def test_a_published_port_at_one_address_only() -> None:
    lab = Lab6(more6=("2001:db8:51::3",), exclusive=True)
    lab.publish6(8080, 80, host_ip="2001:db8:51::3")
    syn = TCP(sport=5, dport=8080, flags="S")
    assert lab.send("uplink", from_outside6(syn, dst="2001:db8:51::3")).ports == ["a"]
    assert lab.send("uplink", from_outside6(syn)).verdict is Verdict.HELD


def test_several_external_addresses_are_chosen_by_version() -> None:
    addresses = (IPv4Address(EXTERNAL), IPv6Address("2001:db8:51::3"))
    lab = Lab6(more6=("2001:db8:51::3",), nat=NatConfig(external_addresses=addresses))
    assert lab.send("a", from_a6(UDP(sport=1, dport=53) / b"x")).packet[IPv6].src == "2001:db8:51::3"
    assert lab.send("a", from_a(UDP(sport=1, dport=53) / b"x")).packet["IP"].src == EXTERNAL


def test_the_external_address_is_the_one_most_like_the_destination() -> None:
    """RFC 6724 rule 8: a unique local destination is spoken to from a unique local address."""
    lab = Lab6(more6=("fd99::2",))
    assert lab.send("a", from_a6(UDP(sport=45000, dport=53) / b"x")).packet[IPv6].src == EXTERNAL6
    assert lab.send("a", from_a6(UDP(sport=45001, dport=53) / b"x", dst="fd98::1")).packet[IPv6].src == "fd99::2"


def test_destinations_that_are_not_translated() -> None:
    lab = Lab6(nat=NatConfig(untranslated=(IPv6Network("2001:db8:113::/48"),)))
    out = lab.send("a", from_a6(UDP(sport=1, dport=53) / b"x"))
    assert (out.verdict, out.packet[IPv6].src, out.packet[IPv6].hlim) == (Verdict.ROUTED, A6, 63)
    assert lab.send("uplink", from_outside6(UDP(sport=53, dport=1) / b"y", dst=A6)).ports == ["a"]
    assert lab.send("a", from_a(UDP(sport=1, dport=53) / b"x")).verdict is Verdict.TRANSLATED_OUT


def test_flows_end_with_their_external_address(lab: Lab6) -> None:
    lab.send("a", from_a6(UDP(sport=45000, dport=53) / b"x"))
    lab.send("a", from_a(UDP(sport=45000, dport=53) / b"x"))
    config = uplink_config6()
    without = UplinkConfig(mac=config.mac, routes=config.routes,
                           addresses=tuple(each for each in config.addresses if not isinstance(each, IPv6Interface)))
    lab.dp.update_uplink(without)
    assert [flow["original"]["src"] for flow in lab.flows()] == [A_IP]
    out = lab.send("a", from_a6(UDP(sport=45000, dport=53) / b"x"))
    assert out.verdict is Verdict.ICMP_UNREACHABLE
    assert out.packet[ICMPv6DestUnreach].code == 0


def test_an_endpoint_that_leaves_takes_its_flows_along(lab: Lab6) -> None:
    lab.send("a", from_a6(UDP(sport=45000, dport=53) / b"x"))
    lab.dp.remove_neighbour(lab.bridge, IPv6Address(A6))
    assert lab.flows() == []


# -- what a gateway does to any packet ------------------------------------------------------------------------------


@pytest.mark.parametrize("fast_path", [True, False])
def test_hop_limit_one_is_time_exceeded(fast_path: bool) -> None:
    lab = Lab6(fast_path=fast_path)
    lab.send("a", from_a6(UDP(sport=45000, dport=53) / b"x"))
    out = lab.send("a", from_a6(UDP(sport=45000, dport=53) / b"probe", hlim=1))
    assert out.verdict is Verdict.ICMP_TIME_EXCEEDED
    error = out.packet
    assert (error[IPv6].src, error[IPv6].dst, error[ICMPv6TimeExceeded].code) == (GATEWAY6, A6, 0)
    assert bytes(error[ICMPv6TimeExceeded].payload) == bytes(from_a6(UDP(sport=45000, dport=53) / b"probe", hlim=1)[IPv6])


def test_no_error_answers_an_error_or_a_group(lab: Lab6) -> None:
    error = ICMPv6TimeExceeded() / IPv6(src=REMOTE6, dst=A6) / UDP(sport=1, dport=2)
    assert not lab.send("a", from_a6(error, hlim=1)).sent
    assert not lab.send("a", from_a6(UDP(sport=1, dport=2), dst="ff05::1", hlim=1)).sent


def test_errors_are_rate_limited(lab: Lab6) -> None:
    verdicts = {lab.send("a", from_a6(UDP(sport=1, dport=port), hlim=1)).verdict for port in range(1, 500)}
    assert verdicts == {Verdict.ICMP_TIME_EXCEEDED, Verdict.DROP_RATE_LIMITED}


def test_too_big_for_the_uplink(lab: Lab6) -> None:
    """IPv6 is never fragmented on the way: the sender is told the MTU (RFC 8200 section 5; requirement U10)."""
    lab = Lab6(uplink_mtu=1400)
    out = lab.send("a", from_a6(UDP(sport=45000, dport=53) / bytes(1400)))
    assert out.verdict is Verdict.ICMP_TOO_BIG
    assert out.packet[ICMPv6PacketTooBig].mtu == 1400
    assert out.packet[IPv6].src == GATEWAY6
    assert len(out.packet[IPv6]) == 1280  # as much as an error may be long
    assert lab.send("a", from_a6(UDP(sport=45000, dport=53) / bytes(1352))).verdict is Verdict.TRANSLATED_OUT


def test_a_ping_larger_than_the_link_that_the_answer_goes_by() -> None:
    """It counted as answered, and nothing was sent."""
    lab = Lab6(uplink_mtu=1400, exclusive=True)
    out = lab.send("uplink", from_outside6(ICMPv6EchoRequest(data=bytes(1353))))
    assert (out.verdict, out.sent) == (Verdict.DROP_TOO_BIG, [])
    assert lab.send("uplink", from_outside6(ICMPv6EchoRequest(data=bytes(1352)))).verdict is Verdict.ECHO_ANSWERED


def test_a_tcp_superframe_is_made_to_fit(lab: Lab6) -> None:
    lab = Lab6(uplink_mtu=1400)
    established(lab)
    frame = partial6(from_a6(TCP(sport=45000, dport=80, flags="A") / bytes(5000)), gso_type=GSO_TCPV6, gso_size=1440)
    out = lab.send("a", frame)
    assert out.verdict is Verdict.TRANSLATED_OUT
    assert int.from_bytes(out.only.raw[4:6], "little") == 1400 - 60
    assert lab.dp.extras[Extra.RESIZED_SUPERFRAMES] == 1


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_superframes_with_partial_checksums(kind: str, fast_path: bool) -> None:
    lab = Lab6(fast_path=fast_path)
    established(lab)
    if kind == "tcp":
        frame = partial6(from_a6(TCP(sport=45000, dport=80, flags="A") / bytes(20000)), gso_type=GSO_TCPV6, gso_size=1440)
    else:
        lab.send("a", from_a6(UDP(sport=45001, dport=53) / b"x"))
        frame = partial6(from_a6(UDP(sport=45001, dport=53) / bytes(20000)), gso_type=GSO_UDP_L4, gso_size=1000)
    out = lab.send("a", frame)
    assert out.verdict is Verdict.TRANSLATED_OUT
    assert out.only.raw[:10] == frame[:10]
    assert out.packet[IPv6].src == EXTERNAL6


def established(lab: Lab6) -> None:
    lab.send("a", from_a6(TCP(sport=45000, dport=80, flags="S")))
    lab.send("uplink", from_outside6(TCP(sport=80, dport=45000, flags="SA")))
    lab.send("a", from_a6(TCP(sport=45000, dport=80, flags="A")))


def test_a_udp_checksum_of_zero_is_sent_as_ones(lab: Lab6) -> None:
    """RFC 8200 section 8.1; the payload makes the sum come out as zero."""
    lab.send("a", from_a6(UDP(sport=45000, dport=53) / b"x"))
    empty = UDP(bytes(from_a6(UDP(sport=45000, dport=53) / b"\0\0", src=EXTERNAL6)[UDP]))
    out = lab.send("a", from_a6(UDP(sport=45000, dport=53) / empty.chksum.to_bytes(2, "big")))
    assert out.packet[UDP].chksum == 0xFFFF


@pytest.mark.parametrize("src", ["::", "::1", "fd00:9::1", GATEWAY6, "2001:db8::7", "::ffff:172.17.0.2"])
def test_sources_that_cannot_be(lab: Lab6, src: str) -> None:
    assert lab.send("a", from_a6(UDP(sport=1, dport=2), src=src)).verdict is Verdict.DROP_MARTIAN_SOURCE


@pytest.mark.parametrize("dst", ["::", "::1", "ff0e::1", "::ffff:198.51.100.1", "fe80::1234"])
def test_destinations_that_cannot_be(lab: Lab6, dst: str) -> None:
    assert lab.send("a", from_a6(UDP(sport=1, dport=2), dst=dst)).verdict is Verdict.DROP_MARTIAN_DESTINATION


@pytest.mark.parametrize("src", ["::1", "fe80::7", "ff02::1", A6, EXTERNAL6, "::ffff:198.51.100.1"])
def test_sources_from_outside_that_cannot_be(lab: Lab6, src: str) -> None:
    out = lab.send("uplink", from_outside6(UDP(sport=1, dport=2), src=src))
    assert out.verdict in (Verdict.DROP_MARTIAN_SOURCE, Verdict.DROP_LAND)


def test_a_link_local_source_goes_no_further(lab: Lab6) -> None:
    out = lab.send("a", from_a6(UDP(sport=1, dport=2), src=A6_LL))
    assert out.verdict is Verdict.ICMP_UNREACHABLE
    assert (out.packet[ICMPv6DestUnreach].code, out.packet[IPv6].dst) == (2, A6_LL)


def test_other_protocols_are_translated_by_address(lab: Lab6) -> None:
    for protocol in (2, 47, 50, 51):
        out = lab.send("a", from_a6(Raw(bytes(40)), nh=protocol))
        assert out.verdict is Verdict.TRANSLATED_OUT
        assert (out.packet[IPv6].src, bytes(out.packet[IPv6].payload)) == (EXTERNAL6, bytes(40))
        back = lab.send("uplink", from_outside6(Raw(bytes(40)), nh=protocol))
        assert back.verdict is Verdict.TRANSLATED_IN


def test_the_icmp_of_the_other_version_means_nothing(lab: Lab6) -> None:
    assert lab.send("a", from_a6(Raw(bytes(40)), nh=1)).verdict is Verdict.DROP_PROTOCOL
    assert lab.send("a", from_a(Raw(bytes(40)), proto=58)).verdict is Verdict.DROP_PROTOCOL


def test_only_echo_is_a_query(lab: Lab6) -> None:
    for kind in (130, 131, 139, 140, 200):
        assert lab.send("a", from_a6(Raw(bytes((kind, 0, 0, 0)) + bytes(20)), nh=58)).verdict is Verdict.DROP_ICMP_TYPE


@pytest.mark.requirement("I1")
@pytest.mark.parametrize("fast_path", [True, False])
def test_an_answered_query_lives_as_long_as_another(fast_path: bool) -> None:
    lab = Lab6(fast_path=fast_path)
    lab.send("a", from_a6(ICMPv6EchoRequest(id=7)))
    lab.send("uplink", from_outside6(ICMPv6EchoReply(id=7)))
    assert lab.flows()[0]["timeout_s"] == 60
    lab.wait(62)
    assert not lab.flows()


def test_simultaneous_open_and_held_syns() -> None:
    lab = Lab6(exclusive=True)
    syn = from_outside6(TCP(sport=80, dport=45000, flags="S", seq=1))
    assert lab.send("uplink", syn).verdict is Verdict.HELD
    refused = [each for each in lab.wait(7) if ICMPv6DestUnreach in each.packet]
    assert [(each.port, each.packet[ICMPv6DestUnreach].code, each.packet[IPv6].src) for each in refused] == [
        ("uplink", 4, EXTERNAL6)]
    assert lab.send("uplink", syn).verdict is Verdict.HELD
    assert lab.send("a", from_a6(TCP(sport=45000, dport=80, flags="S"))).verdict is Verdict.TRANSLATED_OUT
    assert not [each for each in lab.wait(7) if ICMPv6DestUnreach in each.packet]


# -- extension headers and fragments ------------------------------------------------------------------------------------


def with_headers(body: Packet, names: tuple[str, ...]) -> Packet:
    made: dict[str, Any] = {
        "hop": IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0\0")]), "dest": IPv6ExtHdrDestOpt(options=[PadN(optdata=b"ab")]),
        "routing": IPv6ExtHdrRouting(addresses=["2001:db8::1"], segleft=0), "atomic": IPv6ExtHdrFragment(id=77)}
    packet: Packet | None = None
    for name in names:
        packet = made[name].copy() if packet is None else packet / made[name].copy()
    return body if packet is None else packet / body


@pytest.mark.requirement("V4")
@pytest.mark.parametrize("names", [("hop",), ("dest",), ("routing",), ("hop", "dest", "routing", "dest"), ("atomic",),
                                   ("hop", "routing", "atomic", "dest")])
def test_extension_headers_pass(lab: Lab6, names: tuple[str, ...]) -> None:
    for name, question, answer in transports6(45000):
        headers = bytes(with_headers(Raw(b""), names))
        out = lab.send("a", from_a6(with_headers(question, names)))
        assert out.verdict is Verdict.TRANSLATED_OUT, name
        assert out.only.raw[L3 + 41 : L3 + 40 + len(headers) - 8] == headers[1:-8]
        back = lab.send("uplink", from_outside6(with_headers(answered(answer, 45000), names)))
        assert back.ports == ["a"], name


@pytest.mark.requirement("V4")
@pytest.mark.parametrize(("chain", "verdict"), [
    (bytes((17, 0, 1, 4)) + bytes(4), None),
    (bytes((17, 1)) + bytes(6), Verdict.DROP_BAD_EXTENSION),
    (bytes((60, 0)) + bytes(6), Verdict.DROP_BAD_EXTENSION),
    (bytes((0, 0)) + bytes(6) + bytes((17, 0)) + bytes(6), Verdict.DROP_BAD_EXTENSION),
    ((bytes((60, 0)) + bytes(6)) * 9 + bytes((17, 0)) + bytes(6), Verdict.DROP_BAD_EXTENSION),
])
def test_chains_that_lead_nowhere(lab: Lab6, chain: bytes, verdict: Verdict | None) -> None:
    """Too long for the packet, without end, a hop-by-hop header in the wrong place, too many."""
    udp = bytes(from_a6(UDP(sport=45000, dport=53))[UDP])
    body = chain + (udp if verdict is None or len(chain) > 60 else b"")
    eth = bytes(from_a6(Raw(b"")))[:14]
    frame = build_ipv6(eth, IPv6Address(A6).packed, IPv6Address(REMOTE6).packed, 60, body)
    expected = Verdict.TRANSLATED_OUT if verdict is None else verdict
    assert lab.send("a", bytes(frame)).verdict is expected


@pytest.mark.requirement("V4")
def test_a_routing_header_with_segments_left_is_dropped(lab: Lab6) -> None:
    """RFC 5095; and no translator could tell what the checksum covers."""
    body = IPv6ExtHdrRouting(addresses=["2001:db8::1"], segleft=1) / UDP(sport=1, dport=2)
    assert lab.send("a", from_a6(body)).verdict is Verdict.DROP_ROUTING_HEADER
    assert lab.send("uplink", from_outside6(body)).verdict is Verdict.DROP_ROUTING_HEADER


def train(source: Any, size: int, step: int, *, ident: int = 99, **udp: int) -> list[Packet]:
    """The fragments of one datagram, the first one first. `source` puts the IP header around."""
    whole = source(UDP(**udp) / (bytes(range(256)) * (size // 256)))
    data = bytes(whole[UDP])
    return [source(IPv6ExtHdrFragment(nh=17, offset=at // 8, m=int(at + step < len(data)), id=ident)
                   / Raw(data[at : at + step])) for at in range(0, len(data), step)]


@pytest.mark.requirement("V4")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_fragments_in_any_order(lab: Lab6, order: tuple[int, ...]) -> None:
    fragments = train(from_a6, 2048, 1024, sport=45000, dport=53)
    assert len(fragments) == 3
    sent = [each for index in order for each in lab.send("a", fragments[index]).sent]
    assert [each.port for each in sent] == ["uplink"] * 3
    pieces = {each.packet[IPv6ExtHdrFragment].offset * 8: bytes(each.packet[IPv6ExtHdrFragment].payload) for each in sent}
    data = b"".join(pieces[at] for at in sorted(pieces))
    assert {each.packet[IPv6].src for each in sent} == {EXTERNAL6}
    assert data == bytes((IPv6(src=EXTERNAL6, dst=REMOTE6) / UDP(sport=45000, dport=53) / data[8:])[UDP])
    back = train(from_outside6, 2048, 1024, sport=53, dport=45000, ident=5)
    ports = [port for index in order for port in lab.send("uplink", back[index]).ports]
    assert ports == ["a"] * 3


@pytest.mark.requirement("V4")
def test_the_protocol_in_a_later_fragment_does_not_matter(lab: Lab6) -> None:
    """RFC 8200 section 4.5: only the first one's next header is used."""
    first, second, *_ = train(from_a6, 2048, 1024, sport=45000, dport=53)
    second[IPv6ExtHdrFragment].nh = 60
    lab.send("a", first)
    assert lab.send("a", second).verdict is Verdict.TRANSLATED_OUT


@pytest.mark.requirement("V4")
def test_a_first_fragment_has_all_headers(lab: Lab6) -> None:
    """RFC 7112: else nothing tells where it belongs."""
    body = IPv6ExtHdrFragment(nh=17, offset=0, m=1, id=5) / Raw(bytes(4))
    assert lab.send("a", from_a6(body)).verdict is Verdict.DROP_BAD_TRANSPORT


@pytest.mark.requirement("V4")
def test_a_flood_of_fragments_does_not_stop_whole_packets(lab: Lab6) -> None:
    for ident in range(3000):
        lab.send("a", from_a6(IPv6ExtHdrFragment(nh=17, offset=10, m=1, id=ident) / Raw(bytes(64))))
    assert len(lab.bridge.fragments) <= 1024
    assert lab.send("a", from_a6(UDP(sport=1, dport=2) / b"x")).verdict is Verdict.TRANSLATED_OUT


@pytest.mark.parametrize("cut", range(1, 48))
def test_every_shorter_frame_is_dropped(lab: Lab6, cut: int) -> None:
    frame = bytes(10) + bytes(from_a6(UDP(sport=1, dport=2)))
    verdict = lab.send("a", frame[: len(frame) - cut]).verdict
    assert verdict in (Verdict.DROP_BAD_LENGTH, Verdict.DROP_RUNT)


# -- errors ---------------------------------------------------------------------------------------------------------------


def quoted(out: Any) -> Packet:
    """What left natgw, as a router on the way would quote it."""
    return out.packet[IPv6]


@pytest.mark.requirement("V3")
@pytest.mark.parametrize("error", [ICMPv6DestUnreach(code=4), ICMPv6PacketTooBig(mtu=1300), ICMPv6TimeExceeded(code=0)])
def test_errors_about_what_went_out(lab: Lab6, error: Packet) -> None:
    for name, question, _ in transports6(45000):
        lab.send("b", from_b6(question))  # so that a's port has to change
        sent = from_a6(question)
        out = lab.send("a", sent)
        assert external_port6(out) != 45000
        back = lab.send("uplink", from_outside6(error.copy() / quoted(out), src="2001:db8:77::1"))
        assert back.verdict is Verdict.TRANSLATED_ERROR, name
        assert back.ports == ["a"]
        assert (back.packet[IPv6].src, back.packet[IPv6].dst) == ("2001:db8:77::1", A6)
        assert back.packet[IPv6].hlim == 63, "one hop older"
        inner = bytes(back.only.raw[L3 + 48 :])
        expected = bytearray(bytes(sent[IPv6]))
        expected[7] = 63  # as it left
        assert inner == bytes(expected), name
        lab.dp.napt.flows.expire(10**9)


@pytest.mark.requirement("V3")
def test_an_error_from_the_remote_itself_is_translated_from_inside_too(lab: Lab6) -> None:
    lab.publish6(8080, 80, "udp")
    into = lab.send("uplink", from_outside6(UDP(sport=5555, dport=8080) / b"x"))
    error = from_a6(ICMPv6DestUnreach(code=4) / into.packet[IPv6])
    out = lab.send("a", error)
    assert out.verdict is Verdict.TRANSLATED_ERROR
    assert (out.packet[IPv6].src, out.packet[IPv6].dst) == (EXTERNAL6, REMOTE6)
    inner = IPv6(bytes(out.only.raw[L3 + 48 :]))
    assert (inner.dst, inner[UDP].dport) == (EXTERNAL6, 8080)


@pytest.mark.requirement("V3")
def test_extension_headers_in_the_quotation_are_skipped(lab: Lab6) -> None:
    out = lab.send("a", from_a6(with_headers(UDP(sport=45000, dport=53) / b"x", ("hop", "dest"))))
    back = lab.send("uplink", from_outside6(ICMPv6TimeExceeded() / quoted(out)))
    assert (back.verdict, back.ports) == (Verdict.TRANSLATED_ERROR, ["a"])


@pytest.mark.requirement("V3")
def test_an_error_with_a_bad_checksum_or_without_flow_is_dropped() -> None:
    lab = Lab6(verify=False, exclusive=True)
    out = lab.send("a", from_a6(UDP(sport=45000, dport=53) / b"x"))
    bad = from_outside6(ICMPv6TimeExceeded(cksum=1) / quoted(out))
    assert lab.send("uplink", bad).verdict is Verdict.DROP_ICMP_BAD
    stranger = IPv6(src=EXTERNAL6, dst=REMOTE6) / UDP(sport=1, dport=53)
    assert lab.send("uplink", from_outside6(ICMPv6TimeExceeded() / stranger)).verdict is Verdict.DROP_ICMP_NO_FLOW
    short = from_outside6(ICMPv6TimeExceeded() / Raw(bytes(quoted(out))[:47]))
    assert lab.send("uplink", short).verdict is Verdict.DROP_ICMP_BAD


@pytest.mark.requirement("V3")
def test_errors_cross_a_hairpin(lab: Lab6) -> None:
    lab.dp.set_nat(PRESETS["full-cone"])
    lab.send("b", from_b6(UDP(sport=46000, dport=53) / b"x"))
    hairpin = lab.send("a", from_a6(UDP(sport=45000, dport=46000) / b"hello", dst=EXTERNAL6))
    error = lab.send("b", from_b6(ICMPv6DestUnreach(code=4) / hairpin.packet[IPv6], dst=EXTERNAL6))
    assert error.ports == ["a"]
    assert error.packet[IPv6].src == EXTERNAL6
    inner = IPv6(bytes(error.only.raw[L3 + 48 :]))
    assert (inner.src, inner.dst, inner[UDP].dport) == (A6, EXTERNAL6, 46000)


@pytest.mark.requirement("V3")
def test_an_error_does_not_end_a_flow(lab: Lab6) -> None:
    out = lab.send("a", from_a6(UDP(sport=45000, dport=53) / b"x"))
    lab.send("uplink", from_outside6(ICMPv6DestUnreach(code=0) / quoted(out)))
    assert lab.send("uplink", from_outside6(UDP(sport=53, dport=45000) / b"y")).ports == ["a"]


def test_nobody_at_the_next_hop(lab: Lab6) -> None:
    lab = Lab6(resolved=False)
    out = lab.send("a", from_a6(UDP(sport=45000, dport=53) / b"x"))
    assert out.verdict is Verdict.QUEUED
    told = [each for each in lab.wait(5) if each.port == "a" and ICMPv6DestUnreach in each.packet]
    assert [each.packet[ICMPv6DestUnreach].code for each in told] == [3]
    assert IPv6(bytes(told[0].raw[L3 + 48 :])).src == A6


def test_frames_of_ipv6_keep_their_ethernet_type(lab: Lab6) -> None:
    out = lab.send("a", from_a6(UDP(sport=45000, dport=53) / b"x"))
    assert out.only.raw[ETH + 12 : L3] == b"\x86\xdd"
