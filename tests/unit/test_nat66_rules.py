"""NAT66 clause by clause: what U, T, I, G and C ask of IPv4, asked of IPv6 (V1), and what is IPv6's own (V3, V4)."""

from __future__ import annotations

from ipaddress import IPv6Address
from itertools import pairwise
from typing import Any

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    PadN,
)
from scapy.packet import Packet, Raw

from natgw.datapath import PRESETS, TIMEOUT_PROFILES, NatBehaviour, NatConfig, Verdict
from natgw.wire.ethernet import L3, parse_mac
from tests.unit.core_lab import A_MAC, Outcome
from tests.unit.lab6 import (
    A6,
    B6,
    EXTERNAL6,
    REMOTE6,
    Lab6,
    external_port6,
    from_a6,
    from_b6,
    from_outside6,
)
from tests.unit.test_behaviour import ADM, APDM, EIM
from tests.unit.test_nat66 import train

pytestmark = pytest.mark.requirement("V1")
FAST = pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "slow"])
SECOND6, ELSEWHERE6, ROUTER_ON_THE_WAY = "2001:db8:51::3", "2001:db8:113::a", "2001:db8:77::1"
BOTH6 = (IPv6Address(EXTERNAL6), IPv6Address(SECOND6))


def ask(sport: int = 45000, dport: int = 53) -> Packet:
    return UDP(sport=sport, dport=dport) / b"x"


def segment(sport: int, dport: int, flags: str) -> Packet:
    return TCP(sport=sport, dport=dport, flags=flags)


def inner(out: Outcome) -> bytes:
    """What an ICMPv6 error quotes."""
    return out.only.raw[L3 + 48 :]


# ---- mapping, ports, limits --------------------------------------------------------------------------------


@pytest.mark.requirement("U1", "U2", "T1")
@pytest.mark.parametrize("mapping", [EIM, ADM, APDM])
@pytest.mark.parametrize(("filtering", "admitted"), [
    (EIM, [True, True, True]), (ADM, [True, True, False]), (APDM, [True, False, False])])
@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_every_pair_of_mapping_and_filtering(kind: str, mapping: Any, filtering: Any, admitted: list[bool]) -> None:
    both = NatBehaviour(mapping=mapping, filtering=filtering)
    remotes = ((REMOTE6, 53), (REMOTE6, 54), (ELSEWHERE6, 53))
    for (remote, port), flags, expected in zip(remotes, ("SA", "S", "S"), admitted, strict=True):
        lab = Lab6(nat=NatConfig(udp=both, tcp=both), exclusive=True)
        first = ask() if kind == "udp" else segment(45000, 53, "S")
        assert external_port6(lab.send("b", from_b6(first))) == 45000
        external = external_port6(lab.send("a", from_a6(first)))
        assert external != 45000
        arriving = ask(port, external) if kind == "udp" else segment(port, external, flags)
        assert lab.send("uplink", from_outside6(arriving, src=remote)).ports == (["a"] if expected else [])


@pytest.mark.requirement("U3")
def test_a_host_keeps_its_address_for_every_protocol_and_remote() -> None:
    lab = Lab6(more6=(SECOND6,), nat=NatConfig(external_addresses=BOTH6))
    seen: dict[str, set[str]] = {}
    for name, source in (("a", from_a6), ("b", from_b6)):
        seen[name] = {lab.send(name, source(body, dst=dst)).packet[IPv6].src for dst in (REMOTE6, ELSEWHERE6)
                      for body in (ask(), ask(7), segment(45000, 80, "S"), ICMPv6EchoRequest(id=9))}
        assert len(seen[name]) == 1
    assert seen["a"] | seen["b"] == {EXTERNAL6, SECOND6}


@pytest.mark.requirement("U5")
def test_classes_and_parity_of_ports() -> None:
    lab = Lab6(port_range=(1, 65535), nat=NatConfig(allocation="random", parity=True))
    for port in (*range(1, 40), *range(5000, 5040)):
        seen = external_port6(lab.send("a", from_a6(ask(port))))
        assert (seen % 2, seen < 1024) == (port % 2, port < 1024)


@FAST
@pytest.mark.requirement("U6", "I1", "T5")
@pytest.mark.parametrize(("body", "seconds"), [
    (ask(), 300), (ICMPv6EchoRequest(id=45000), 60), (segment(45000, 80, "S"), 240), (segment(45000, 80, "A"), 7440)],
    ids=["udp", "icmpv6", "transitory", "established"])
def test_a_flow_lives_for_its_idle_time_and_each_packet_prolongs_it(body: Packet, seconds: int, fast_path: bool) -> None:
    lab = Lab6(fast_path=fast_path)
    lab.dp.tick(lab.now)
    lab.send("a", from_a6(body))
    lab.wait(seconds - 1)
    assert lab.send("a", from_a6(body)).verdict in (Verdict.TRANSLATED_OUT, Verdict.QUEUED)
    lab.wait(seconds - 0.5)
    assert lab.flows()
    lab.wait(2)
    assert not lab.flows()


@pytest.mark.requirement("U6")
@pytest.mark.parametrize("refresh_inbound", [True, False])
def test_what_comes_in_keeps_a_mapping_alive_if_it_is_to(refresh_inbound: bool) -> None:
    lab = Lab6(nat=NatConfig(refresh_inbound=refresh_inbound))
    lab.send("a", from_a6(ask()))
    for _ in range(4):
        lab.wait(100)
        lab.send("uplink", from_outside6(ask(53, 45000)))
    assert bool(lab.flows()) == refresh_inbound


@pytest.mark.requirement("C1")
def test_a_limit_of_new_flows() -> None:
    lab = Lab6(nat=NatConfig(flows_per_host_per_s=2))
    verdicts = [lab.send("a", from_a6(ask(port))).verdict for port in (1, 2, 3)]
    assert verdicts == [Verdict.TRANSLATED_OUT] * 2 + [Verdict.DROP_HOST_RATE]
    assert lab.send("b", from_b6(ask(1))).verdict is Verdict.TRANSLATED_OUT


@pytest.mark.requirement("C2")
def test_a_freed_port_rests_for_others() -> None:
    lab = Lab6(nat=NatConfig(port_rest_s=120), port_range=(45000, 45000))
    assert lab.send("a", from_a6(ask())).verdict is Verdict.TRANSLATED_OUT
    lab.wait(302)
    assert lab.send("b", from_b6(ask())).verdict is Verdict.DROP_PORTS_EXHAUSTED
    lab.wait(121)
    assert lab.send("b", from_b6(ask())).verdict is not Verdict.DROP_PORTS_EXHAUSTED


# ---- TCP ---------------------------------------------------------------------------------------------------


@FAST
@pytest.mark.requirement("T8", "T5")
@pytest.mark.parametrize("profile", ["rfc", "linux"])
@pytest.mark.parametrize("closer", ["host", "remote"])
def test_a_connection_from_its_first_segment_to_its_last(closer: str, profile: str, fast_path: bool) -> None:
    lab = Lab6(fast_path=fast_path, nat=NatConfig(timeouts=TIMEOUT_PROFILES[profile]))
    times = TIMEOUT_PROFILES[profile]
    other = {"host": "remote", "remote": "host"}[closer]
    for sender, flags, state, seconds in (
            ("host", "S", "SYN_SENT", times.tcp_syn_sent_s), ("remote", "SA", "SYN_RECV", times.tcp_syn_recv_s),
            ("host", "A", "ESTABLISHED", times.tcp_established_s), ("remote", "PA", "ESTABLISHED", times.tcp_established_s),
            (closer, "FA", "FIN_WAIT", times.tcp_fin_wait_s), (other, "A", "CLOSE_WAIT", times.tcp_close_wait_s),
            (other, "FA", "LAST_ACK", times.tcp_last_ack_s), (closer, "A", "TIME_WAIT", times.tcp_time_wait_s)):
        out = (lab.send("a", from_a6(segment(45000, 80, flags))) if sender == "host"
               else lab.send("uplink", from_outside6(segment(80, 45000, flags))))
        assert out.ports == (["uplink"] if sender == "host" else ["a"])
        (flow,) = lab.flows()
        assert (flow["state"], flow["timeout_s"]) == (state, seconds)


@pytest.mark.requirement("T3", "T4")
def test_a_simultaneous_open_that_was_held_completes() -> None:
    lab = Lab6(exclusive=True)
    assert lab.send("uplink", from_outside6(segment(80, 45000, "S"))).verdict is Verdict.HELD
    for port, packet in (("a", from_a6(segment(45000, 80, "S"))), ("uplink", from_outside6(segment(80, 45000, "S"))),
                         ("a", from_a6(segment(45000, 80, "SA"))), ("uplink", from_outside6(segment(80, 45000, "SA"))),
                         ("a", from_a6(segment(45000, 80, "A"))), ("uplink", from_outside6(segment(80, 45000, "A")))):
        assert lab.send(port, packet).ports == [{"a": "uplink", "uplink": "a"}[port]]
    assert lab.flows()[0]["state"] == "ESTABLISHED"
    assert not [each for each in lab.wait(8) if ICMPv6DestUnreach in each.packet]


@pytest.mark.requirement("T4")
def test_a_held_syn_is_refused_after_six_seconds_in_its_senders_words() -> None:
    lab = Lab6(exclusive=True)
    syn = from_outside6(segment(80, 45000, "S"))
    lab.send("uplink", syn)
    lab.send("a", from_a6(ask(45000, 80)))
    assert not [each for each in lab.wait(5.9) if ICMPv6DestUnreach in each.packet]
    (told,) = (each for each in lab.wait(2) if ICMPv6DestUnreach in each.packet)
    assert (told.packet[IPv6].src, told.packet[IPv6].dst, told.packet[ICMPv6DestUnreach].code) == (EXTERNAL6, REMOTE6, 4)
    assert told.raw[L3 + 48 :] == bytes(syn[IPv6])


@pytest.mark.requirement("T6")
@pytest.mark.parametrize("side", ["a", "uplink"])
def test_a_reset_is_forwarded_and_the_flow_lives_four_minutes_more(side: str) -> None:
    lab = Lab6()
    lab.send("a", from_a6(segment(45000, 80, "S")))
    lab.send("uplink", from_outside6(segment(80, 45000, "SA")))
    lab.send("a", from_a6(segment(45000, 80, "A")))
    reset = from_a6(segment(45000, 80, "R")) if side == "a" else from_outside6(segment(80, 45000, "RA"))
    assert lab.send(side, reset).ports == [{"a": "uplink", "uplink": "a"}[side]]
    assert (lab.flows()[0]["state"], lab.flows()[0]["timeout_s"]) == ("CLOSE", 240)


@pytest.mark.requirement("T7")
@pytest.mark.parametrize("pick_up", [True, False])
def test_a_connection_under_way_is_picked_up_from_inside_alone(pick_up: bool) -> None:
    lab = Lab6(exclusive=True, nat=NatConfig(pick_up=pick_up))
    assert lab.send("uplink", from_outside6(segment(80, 45000, "A"))).sent == []
    assert lab.send("a", from_a6(segment(45000, 80, "PA"))).ports == (["uplink"] if pick_up else [])
    assert lab.send("uplink", from_outside6(segment(80, 45000, "A"))).ports == (["a"] if pick_up else [])


@FAST
@pytest.mark.requirement("T8")
@pytest.mark.parametrize("flags", ["", "SF", "SR", "FR", "SFA", "F", "P", "U"])
def test_flags_that_cannot_be_are_dropped_in_both_directions(flags: str, fast_path: bool) -> None:
    lab = Lab6(fast_path=fast_path)
    for established in (False, True):
        assert lab.send("a", from_a6(segment(45000, 80, flags))).verdict is Verdict.DROP_TCP_STATE
        if established:
            assert lab.send("uplink", from_outside6(segment(80, 45000, flags))).verdict is Verdict.DROP_TCP_STATE
            assert lab.flows()[0]["state"] == "SYN_RECV"
        else:
            lab.send("a", from_a6(segment(45000, 80, "S")))
            lab.send("uplink", from_outside6(segment(80, 45000, "SA")))


@pytest.mark.requirement("T2")
def test_a_connection_by_way_of_a_hairpin() -> None:
    lab = Lab6(nat=PRESETS["full-cone"])
    lab.send("a", from_a6(segment(45000, 80, "S")))
    lab.send("b", from_b6(segment(46000, 80, "S")))
    for port, flags in (("a", "S"), ("b", "SA"), ("a", "A"), ("b", "PA"), ("a", "FA"), ("b", "R")):
        source, own, peer = (from_a6, 45000, 46000) if port == "a" else (from_b6, 46000, 45000)
        out = lab.send(port, source(segment(own, peer, flags), dst=EXTERNAL6))
        assert (out.verdict, out.ports) == (Verdict.TRANSLATED_HAIRPIN, ["b" if port == "a" else "a"])
        packet = out.packet
        assert (packet[IPv6].src, packet[IPv6].dst, packet[TCP].sport, packet[TCP].dport, packet[IPv6].hlim) == (
            EXTERNAL6, B6 if port == "a" else A6, own, peer, 63)


# ---- queries and errors ------------------------------------------------------------------------------------


@FAST
@pytest.mark.requirement("I1", "I2")
def test_an_identifier_is_mapped_as_a_port_is(fast_path: bool) -> None:
    lab = Lab6(fast_path=fast_path, exclusive=True)
    remotes = (REMOTE6, ELSEWHERE6)
    kept = {external_port6(lab.send("a", from_a6(ICMPv6EchoRequest(id=7), dst=dst))) for dst in remotes}
    (changed,) = {external_port6(lab.send("b", from_b6(ICMPv6EchoRequest(id=7), dst=dst))) for dst in remotes}
    assert kept == {7} and changed != 7
    for src in remotes:
        out = lab.send("uplink", from_outside6(ICMPv6EchoReply(id=changed), src=src))
        assert (out.ports, out.packet[ICMPv6EchoReply].id) == (["b"], 7)
    assert lab.send("uplink", from_outside6(ICMPv6EchoReply(id=changed), src=ROUTER_ON_THE_WAY)).sent == []


ERRORS = [ICMPv6DestUnreach(code=code) for code in range(7)] + [
    ICMPv6PacketTooBig(mtu=1300), ICMPv6TimeExceeded(code=0), ICMPv6TimeExceeded(code=1),
    ICMPv6ParamProblem(code=1, ptr=40), ICMPv6ParamProblem(code=2, ptr=48)]


@pytest.mark.requirement("V3", "I3", "U9")
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{error.type}-{error.code}")
@pytest.mark.parametrize("kind", ["udp", "tcp", "icmpv6"])
def test_an_error_keeps_its_type_its_code_and_what_it_says_and_ends_nothing(kind: str, error: Packet) -> None:
    lab = Lab6()
    body = {"udp": ask(), "tcp": segment(45000, 80, "S"), "icmpv6": ICMPv6EchoRequest(id=45000)}[kind]
    lab.send("b", from_b6(body))
    sent = from_a6(body)
    left = lab.send("a", sent).packet[IPv6]
    before = lab.flows()
    arriving = from_outside6(error.copy() / Raw(bytes(left)), src=ROUTER_ON_THE_WAY)
    out = lab.send("uplink", arriving)
    assert (out.verdict, out.ports) == (Verdict.TRANSLATED_ERROR, ["a"])
    message, came = out.only.raw[L3 + 40 :], bytes(arriving[IPv6])[40:]
    assert (message[:2], message[4:8]) == (came[:2], came[4:8]), "type and code, and MTU or pointer"
    expected = bytearray(bytes(sent[IPv6]))
    expected[7] = 63
    assert inner(out) == bytes(expected), "in its sender's words, but for the hop"
    assert lab.flows() == before


@pytest.mark.requirement("V3", "I5")
def test_the_quoted_transport_checksum_is_not_judged() -> None:
    lab = Lab6()
    left = lab.send("a", from_a6(ask())).packet[IPv6]
    left[UDP].chksum ^= 0x0101
    out = lab.send("uplink", from_outside6(ICMPv6TimeExceeded() / Raw(bytes(left))))
    assert (out.verdict, out.ports) == (Verdict.TRANSLATED_ERROR, ["a"])


@pytest.mark.requirement("V3", "I5", "I6")
def test_errors_from_inside_are_judged_alike() -> None:
    lab = Lab6(verify=False)
    lab.publish6(8080, 80, "udp")
    received = lab.send("uplink", from_outside6(ask(5555, 8080))).packet[IPv6]
    stranger = IPv6(src=REMOTE6, dst=B6) / ask(5555, 80)
    for body, verdict in ((ICMPv6DestUnreach(code=4, cksum=1) / Raw(bytes(received)), Verdict.DROP_ICMP_BAD),
                          (ICMPv6DestUnreach(code=4) / Raw(bytes(received)[:47]), Verdict.DROP_ICMP_BAD),
                          (ICMPv6DestUnreach(code=4) / Raw(b"\x45" + bytes(received)[1:]), Verdict.DROP_ICMP_BAD),
                          (ICMPv6DestUnreach(code=4) / stranger, Verdict.DROP_ICMP_NO_FLOW),
                          (ICMPv6DestUnreach(code=4) / Raw(bytes(received)), Verdict.TRANSLATED_ERROR)):
        out = lab.send("a", from_a6(body))
        assert (out.verdict, bool(out.sent)) == (verdict, verdict is Verdict.TRANSLATED_ERROR)


@pytest.mark.requirement("V3", "V4", "I3", "I4")
def test_an_error_behind_extension_headers_of_its_own_about_a_first_fragment() -> None:
    lab = Lab6()
    first, *_ = train(from_a6, 2048, 1024, sport=45000, dport=53)
    left = lab.send("a", first).packet[IPv6]
    own = IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0\0")]) / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"ab")])
    out = lab.send("uplink", from_outside6(own / ICMPv6TimeExceeded(code=1) / Raw(bytes(left))))
    assert (out.verdict, out.ports) == (Verdict.TRANSLATED_ERROR, ["a"])
    quoted = IPv6(out.only.raw[L3 + 40 + 16 + 8 :])
    assert (quoted.src, quoted.dst) == (A6, REMOTE6)
    later = IPv6(src=EXTERNAL6, dst=REMOTE6) / IPv6ExtHdrFragment(nh=17, offset=128, m=0, id=99) / Raw(bytes(64))
    assert lab.send("uplink", from_outside6(ICMPv6TimeExceeded(code=1) / later)).sent == []


@pytest.mark.requirement("V3", "I7")
@pytest.mark.parametrize("error", [ICMPv6DestUnreach(code=4), ICMPv6PacketTooBig(mtu=1280), ICMPv6TimeExceeded(code=0)])
def test_every_error_about_a_hairpinned_segment_crosses_both_ways(error: Packet) -> None:
    lab = Lab6(nat=PRESETS["full-cone"])
    lab.send("a", from_a6(segment(45000, 80, "S")))
    lab.send("b", from_b6(segment(46000, 80, "S")))
    for port, source, at, answers, own, peer, flags in (("a", from_a6, "b", from_b6, 45000, 46000, "S"),
                                                        ("b", from_b6, "a", from_a6, 46000, 45000, "SA")):
        sent = source(segment(own, peer, flags), dst=EXTERNAL6)
        arrived = lab.send(port, sent).packet[IPv6]
        out = lab.send(at, answers(error.copy() / Raw(bytes(arrived)), dst=EXTERNAL6))
        assert (out.ports, out.packet[IPv6].src) == ([port], EXTERNAL6)
        quoted = IPv6(inner(out))
        assert (quoted.src, quoted.dst, quoted[TCP].sport, quoted[TCP].dport) == (sent[IPv6].src, EXTERNAL6, own, peer)


# ---- the gateway as a router -------------------------------------------------------------------------------


@pytest.mark.requirement("G1", "V4")
@pytest.mark.parametrize("hlim", [0, 1])
def test_no_error_is_made_about_a_later_fragment_or_an_error_at_its_last_hop(hlim: int) -> None:
    lab = Lab6()
    first, later, _ = train(from_a6, 2048, 1024, sport=45000, dport=53)
    first[IPv6].hlim = later[IPv6].hlim = hlim
    assert lab.send("a", first).verdict is Verdict.ICMP_TIME_EXCEEDED
    out = lab.send("a", later)
    assert (out.verdict, out.sent) == (Verdict.DROP_TTL, [])
    left = lab.send("a", from_a6(ask())).packet[IPv6]
    out = lab.send("uplink", from_outside6(ICMPv6TimeExceeded() / Raw(bytes(left)), hlim=hlim))
    assert (out.verdict, out.sent) == (Verdict.DROP_TTL, [])


@pytest.mark.requirement("G1")
def test_traceroute_sees_the_gateway_from_outside_at_its_external_address() -> None:
    lab = Lab6()
    lab.publish6(8080, 80)
    for _ in range(2):
        out = lab.send("uplink", from_outside6(segment(5000, 8080, "S"), hlim=1))
        assert (out.verdict, out.ports) == (Verdict.ICMP_TIME_EXCEEDED, ["uplink"])
        assert (out.packet[IPv6].src, out.packet[IPv6].dst) == (EXTERNAL6, REMOTE6)


@pytest.mark.requirement("G5")
@pytest.mark.parametrize("side", ["a", "uplink"])
def test_what_is_no_packet_or_from_its_own_destination_is_dropped(side: str) -> None:
    lab = Lab6(verify=False)
    source, own = (from_a6, A6) if side == "a" else (from_outside6, EXTERNAL6)
    wrong = bytearray(bytes(10) + bytes(source(ask())))
    wrong[L3] = 0x40
    assert lab.send(side, bytes(wrong)).verdict is Verdict.DROP_BAD_VERSION
    assert lab.send(side, source(ask(), src=own, dst=own)).verdict is Verdict.DROP_LAND
    long = source(ask())
    long[IPv6].plen = 1000
    assert lab.send(side, long).verdict is Verdict.DROP_BAD_LENGTH
    assert lab.send(side, source(UDP(sport=1, dport=2, len=4))).verdict is Verdict.DROP_BAD_TRANSPORT
    assert lab.send(side, source(TCP(sport=1, dport=2, dataofs=3))).verdict is Verdict.DROP_BAD_TRANSPORT
    assert not lab.flows()


@pytest.mark.requirement("U10")
@pytest.mark.parametrize("how", ["answer", "published", "hairpin"])
def test_inward_too_big_is_told_to_the_sender_in_its_words(how: str) -> None:
    lab = Lab6()
    lab.dp.remove_port(lab.ports["a"])
    lab.add_port("a", mtu=1300)
    lab.dp.add_neighbour(lab.bridge, IPv6Address(A6), parse_mac(A_MAC), lab.ports["a"], lab.now)
    lab.publish6(8080, 53, "udp")
    lab.send("a", from_a6(ask()))
    body = UDP(sport=53, dport=45000 if how == "answer" else 8080) / bytes(1300 - 48 + 1)
    packet = from_b6(body, dst=EXTERNAL6) if how == "hairpin" else from_outside6(body)
    out = lab.send("b" if how == "hairpin" else "uplink", packet)
    assert (out.verdict, out.ports) == (Verdict.ICMP_TOO_BIG, ["b" if how == "hairpin" else "uplink"])
    assert (out.packet[ICMPv6PacketTooBig].mtu, out.packet[IPv6].src, out.packet[IPv6].dst) == (
        1300, EXTERNAL6, B6 if how == "hairpin" else REMOTE6)
    expected = bytearray(bytes(packet[IPv6])[: 1280 - 48])
    if how == "hairpin":
        expected[7] = inner(out)[7]
    assert inner(out) == bytes(expected)


# ---- fragments ---------------------------------------------------------------------------------------------


@pytest.mark.requirement("V4", "U2")
def test_fragments_are_filtered_with_their_first() -> None:
    lab = Lab6(exclusive=True)
    lab.send("a", from_a6(ask()))
    for order in ((0, 1, 2), (2, 1, 0)):
        parts = train(from_outside6, 2048, 1024, sport=54, dport=45000, ident=sum(order) + order[0])
        assert [each for index in order for each in lab.send("uplink", parts[index]).sent] == []
    lab.wait(31)
    assert lab.dp.counters()["fragments_lost"] >= 2


@pytest.mark.requirement("V4", "U7")
def test_fragments_hairpin() -> None:
    lab = Lab6(nat=PRESETS["full-cone"], exclusive=True)
    lab.send("b", from_b6(ask(46000)))
    parts = train(lambda body: from_a6(body, dst=EXTERNAL6), 2048, 1024, sport=45000, dport=46000)
    sent = [each for part in (parts[2], parts[0], parts[1]) for each in lab.send("a", part).sent]
    assert [each.port for each in sent] == ["b"] * 3
    assert {(each.packet[IPv6].src, each.packet[IPv6].dst, each.packet[IPv6].hlim) for each in sent} == {(EXTERNAL6, B6, 63)}
    pieces = {each.packet[IPv6ExtHdrFragment].offset: bytes(each.packet[IPv6ExtHdrFragment].payload) for each in sent}
    data = b"".join(pieces[at] for at in sorted(pieces))
    assert data == bytes((IPv6(src=EXTERNAL6, dst=B6) / UDP(sport=45000, dport=46000) / data[8:])[UDP])


@pytest.mark.requirement("V4")
def test_fragments_of_different_packets_are_not_mixed() -> None:
    """One identification, by two hosts and to two remotes."""
    lab = Lab6()
    trains = [train(lambda body: from_a6(body, dst=REMOTE6), 2048, 1024, sport=45000, dport=53),
              train(lambda body: from_b6(body, dst=REMOTE6), 2048, 1024, sport=46000, dport=53),
              train(lambda body: from_a6(body, dst=ELSEWHERE6), 2048, 1024, sport=45000, dport=53)]
    ports = ("a", "b", "a")
    for port, parts in zip(ports, trains, strict=True):
        for part in parts[1:]:
            assert lab.send(port, part).verdict is Verdict.FRAGMENT_WAITS
    for number, (port, parts) in enumerate(zip(ports, trains, strict=True)):
        sent = lab.send(port, parts[0]).sent
        assert len(sent) == 3
        assert {each.packet[IPv6].dst for each in sent} == {ELSEWHERE6 if number == 2 else REMOTE6}


@pytest.mark.requirement("V4", "U8")
def test_a_flood_of_fragments_from_outside_is_bounded_and_stops_no_whole_packet() -> None:
    lab = Lab6(exclusive=True)
    lab.send("a", from_a6(ask()))
    for ident in range(2000):
        lab.send("uplink", from_outside6(IPv6ExtHdrFragment(nh=17, offset=10, m=1, id=ident) / Raw(bytes(64))))
    assert lab.dp.uplink is not None and len(lab.dp.uplink.fragments) <= 1024
    assert lab.send("uplink", from_outside6(ask(53, 45000))).ports == ["a"]


@pytest.mark.requirement("V4", "U10")
def test_a_first_fragment_too_big_is_told_and_the_later_ones_go_with_it() -> None:
    """No router fragments IPv6. Only the first has an error sent about it (docs/nat-behaviour.md)."""
    lab = Lab6(uplink_mtu=1280)
    parts = train(from_a6, 4096, 1400, sport=45000, dport=53)
    assert lab.send("a", parts[0]).verdict is Verdict.ICMP_TOO_BIG
    assert "uplink" not in lab.send("a", parts[1]).ports


@pytest.mark.requirement("V4", "T8")
@FAST
def test_states_follow_segments_behind_extension_headers(fast_path: bool) -> None:
    lab = Lab6(fast_path=fast_path)
    headers = IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0\0")])
    for port, packet, state in (
            ("a", from_a6(headers / segment(45000, 80, "S")), "SYN_SENT"),
            ("uplink", from_outside6(headers / segment(80, 45000, "SA")), "SYN_RECV"),
            ("a", from_a6(headers / segment(45000, 80, "A")), "ESTABLISHED"),
            ("uplink", from_outside6(headers / segment(80, 45000, "FA")), "FIN_WAIT")):
        assert lab.send(port, packet).ports == [{"a": "uplink", "uplink": "a"}[port]]
        assert lab.flows()[0]["state"] == state


@pytest.mark.requirement("C3")
def test_random_ports_follow_no_pattern() -> None:
    lab = Lab6(nat=NatConfig(allocation="random"), port_range=(1024, 65535))
    ports = [external_port6(lab.send("a", from_a6(ask(6000 + number)))) for number in range(100)]
    assert len({later - earlier for earlier, later in pairwise(ports)}) > 95
    assert max(ports) - min(ports) > 50000
