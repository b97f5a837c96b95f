"""Clauses about TCP and ICMP that one example does not show: hairpins between mappings, SYNs that are held, connections picked
up, queries to several hosts, errors from either side (T1 to T8, I1 to I7, G1, G3). test_behaviour and test_napt have the first
example of each.
"""

from __future__ import annotations

import itertools

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.packet import Packet, Raw

from natgw.datapath import Dependence, Verdict
from natgw.datapath.core import MAX_HELD
from tests.unit.core_lab import A_IP, B_IP, EXTERNAL, REMOTE, ROUTER, from_a, from_b, from_outside
from tests.unit.core_lab import Lab as Gateway
from tests.unit.test_behaviour import ADM, APDM, EIM, FAR, ONE, TWO, Lab, behaving, tcp, udp

FAST = pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "slow"])
SENT = list[tuple[str, Packet]]


def flags_at(sent: SENT) -> list[tuple[str, str]]:
    return [(where, str(packet[TCP].flags)) for where, packet in sent]


# ---- hairpins (T2, T3) -------------------------------------------------------------------------------------


@pytest.mark.requirement("T2", "T8")
@pytest.mark.parametrize("reset", [True, False])
def test_a_connection_between_two_mappings_from_its_first_segment_to_its_last(reset: bool) -> None:
    """ONE reaches TWO by the external endpoint that TWO's other connection gave it; each sees the other's external one."""
    lab = Lab(behaving(EIM, EIM))
    one, two = lab.seen(tcp(ONE, 5000, *FAR[0])), lab.seen(tcp(TWO, 6000, *FAR[0]))
    closing = [(ONE, "R")] if reset else [(ONE, "FA"), (TWO, "A"), (TWO, "FA"), (ONE, "A")]
    for host, flags in ((ONE, "S"), (TWO, "SA"), (ONE, "A"), (ONE, "PA"), (TWO, "PA"), *closing):
        source, target, peer, at = (5000, two, one, TWO) if host == ONE else (6000, one, two, ONE)
        ((where, packet),) = lab.out(tcp(host, source, *target, flags))
        assert (where, packet.src, packet.sport, str(packet[TCP].flags)) == (at, *peer, flags)
        assert (packet.dst, packet.dport) == ((TWO, 6000) if host == ONE else (ONE, 5000))
    hairpins = [flow for flow in lab.dp.flow_records(lab.now) if flow["state"] != "SYN_SENT"]
    assert {str(flow["state"]) for flow in hairpins} == {"CLOSE" if reset else "TIME_WAIT"}


@pytest.mark.requirement("T2", "T3", "T4")
def test_a_simultaneous_open_between_two_mappings_completes() -> None:
    """Neither filter lets the first SYN in; it is held, and dropped without a word when the other crosses it."""
    lab = Lab()
    one, two = lab.seen(tcp(ONE, 5000, *FAR[0])), lab.seen(tcp(TWO, 6000, *FAR[0]))
    assert lab.out(tcp(ONE, 5000, *two)) == []
    assert flags_at(lab.out(tcp(TWO, 6000, *one))) == [(ONE, "S")]
    assert flags_at(lab.out(tcp(ONE, 5000, *two, "SA"))) == [(TWO, "SA")]
    assert flags_at(lab.out(tcp(TWO, 6000, *one, "SA"))) == [(ONE, "SA")]
    assert flags_at(lab.out(tcp(ONE, 5000, *two, "A"))) == [(TWO, "A")]
    assert flags_at(lab.out(tcp(TWO, 6000, *one, "A"))) == [(ONE, "A")]
    assert lab.advance(10) == [], "and nobody is refused later"


@pytest.mark.requirement("T2", "T4")
def test_a_held_syn_from_inside_is_refused_to_the_container_that_sent_it() -> None:
    lab = Lab()
    lab.seen(tcp(ONE, 5000, *FAR[0]))
    two = lab.seen(tcp(TWO, 6000, *FAR[0]))
    assert lab.out(tcp(ONE, 5000, *two)) == []
    assert lab.advance(5.5) == []
    ((where, error),) = lab.advance(2)
    assert (where, error[ICMP].type, error[ICMP].code) == (ONE, 3, 3)
    quoted = IP(bytes(error[ICMP].payload))
    assert (quoted.src, quoted.sport, quoted.dst, quoted.dport) == (ONE, 5000, *two)


# ---- simultaneous open and SYNs that are held (T3, T4) -----------------------------------------------------


@pytest.mark.requirement("T3")
@pytest.mark.parametrize("order", list(itertools.permutations(("in SA", "out SA"))))
def test_a_simultaneous_open_that_was_held_completes_in_either_order(order: tuple[str, ...]) -> None:
    lab = Lab()
    far = (*FAR[0], EXTERNAL, 5000)
    assert lab.into(tcp(*far)) == []
    assert lab.seen(tcp(ONE, 5000, *FAR[0])) == (EXTERNAL, 5000)
    assert flags_at(lab.into(tcp(*far))) == [(ONE, "S")], "the remote sends its SYN again"
    for step in order:
        assert lab.into(tcp(*far, "SA")) if step == "in SA" else lab.out(tcp(ONE, 5000, *FAR[0], "SA"))
    assert lab.out(tcp(ONE, 5000, *FAR[0], "A"))
    assert lab.into(tcp(*far, "A"))
    (flow,) = lab.dp.flow_records(lab.now)
    assert (flow["state"], flow["timeout_s"]) == ("ESTABLISHED", 7440)


@pytest.mark.requirement("T4")
@pytest.mark.parametrize("mapped", [True, False])
def test_an_unsolicited_syn_is_refused_once_after_six_seconds_and_not_before(mapped: bool) -> None:
    lab = Lab()
    if mapped:
        lab.seen(tcp(ONE, 5000, *FAR[0]))
    syn = tcp(*FAR[2], EXTERNAL, 5000)
    assert lab.into(syn) == []
    assert lab.advance(3) == []
    assert lab.into(syn) == [], "sent again, as hosts do"
    assert lab.advance(2.99) == []
    ((where, error),) = lab.advance(1.5)
    assert lab.advance(10) == []
    assert (where, error.src, error.dst, error[ICMP].type, error[ICMP].code) == ("outside", EXTERNAL, FAR[2][0], 3, 3)
    quoted = IP(bytes(error[ICMP].payload))
    assert bytes(quoted)[:20] == bytes(IP(bytes(syn)))[:20] and quoted.dport == 5000, "as its sender knows it"


@pytest.mark.requirement("T4")
def test_only_the_syn_that_matches_is_taken_back() -> None:
    """By addresses and ports of both ends: a SYN to another remote, port or from another host leaves it waiting."""
    lab = Lab()
    assert lab.into(tcp(*FAR[0], EXTERNAL, 5000)) == []
    for packet in (tcp(ONE, 5000, *FAR[1]), tcp(ONE, 5000, *FAR[2]), tcp(ONE, 5001, *FAR[0]), udp(ONE, 5000, *FAR[0])):
        assert lab.out(packet)
    ((where, error),) = lab.advance(8)
    assert (where, error[ICMP].type, error[ICMP].code) == ("outside", 3, 3)


@pytest.mark.requirement("T4", "U8")
def test_syns_that_are_held_are_bounded_and_make_no_flow() -> None:
    lab = Lab()
    for number in range(MAX_HELD + 10):
        lab.into(tcp(f"203.0.{number >> 8}.{number & 255}", 1, EXTERNAL, 5000))
    assert len(lab.dp.held) == MAX_HELD
    assert lab.dp.flow_records(lab.now) == []
    assert lab.seen(tcp(ONE, 5000, *FAR[0])) == (EXTERNAL, 5000)


@pytest.mark.requirement("T4")
@pytest.mark.parametrize("flags", ["SA", "A", "FA", "R", "RA", "PA"])
def test_nothing_but_a_syn_is_held(flags: str) -> None:
    lab = Lab()
    lab.seen(tcp(ONE, 5000, *FAR[0]))
    for port in (5000, 5001):
        assert lab.into(tcp(*FAR[2], EXTERNAL, port, flags)) == []
    assert (lab.count("held"), lab.advance(10)) == (0, [])


# ---- time and pick-up (T5, T7) -----------------------------------------------------------------------------


@FAST
@pytest.mark.requirement("T5")
def test_data_either_way_keeps_a_connection_and_silence_ends_it(fast_path: bool) -> None:
    lab = Gateway(fast_path=fast_path)
    out, back = from_a(TCP(sport=45000, dport=80, flags="A")), from_outside(TCP(sport=80, dport=45000, flags="A"))
    assert lab.send("a", out).verdict is Verdict.TRANSLATED_OUT
    for packet, port in ((back, "uplink"), (back, "uplink"), (out, "a")):
        lab.wait(7400)
        assert lab.send(port, packet).ports
        assert lab.flows()[0]["timeout_s"] == 7440
    lab.wait(7439)
    assert lab.flows()
    lab.wait(3)
    assert not lab.flows()


@pytest.mark.requirement("T7", "U2")
@pytest.mark.parametrize("filtering", [EIM, ADM, APDM])
def test_nothing_is_picked_up_from_what_comes_in(filtering: Dependence) -> None:
    lab = Lab(behaving(EIM, filtering))
    lab.seen(tcp(ONE, 5000, *FAR[0]))
    for far in (FAR[1], FAR[2]):
        for flags in ("A", "PA", "SA", "FA"):
            assert lab.into(tcp(*far, EXTERNAL, 5000, flags)) == []
    assert len(lab.dp.flow_records(lab.now)) == 1


@pytest.mark.requirement("T7", "T5")
def test_what_was_picked_up_goes_on_as_any_connection() -> None:
    lab = Lab()
    assert lab.out(tcp(ONE, 5000, *FAR[0], "PA"))
    assert lab.dp.flow_records(lab.now)[0]["timeout_s"] == 7440
    for host, flags, state in ((0, "PA", "ESTABLISHED"), (0, "FA", "FIN_WAIT"), (1, "A", "CLOSE_WAIT"), (1, "FA", "LAST_ACK"),
                               (0, "A", "TIME_WAIT")):
        assert lab.out(tcp(ONE, 5000, *FAR[0], flags)) if host else lab.into(tcp(*FAR[0], EXTERNAL, 5000, flags))
        assert lab.dp.flow_records(lab.now)[0]["state"] == state


# ---- ICMP queries (I1, I2) ---------------------------------------------------------------------------------


@FAST
@pytest.mark.requirement("I1")
def test_an_identifier_is_mapped_as_a_port_is(fast_path: bool) -> None:
    """RFC 5508 REQ-1: to every remote the same, and no other's; kept if it is free. Only who was asked may answer."""
    lab = Gateway(fast_path=fast_path, exclusive=True)
    remotes = (REMOTE, "192.0.2.1", "192.0.2.2")
    kept = {lab.external_port(lab.send("a", from_a(ICMP(id=7), dst=dst))) for dst in remotes}
    changed = {lab.external_port(lab.send("b", from_b(ICMP(id=7), dst=dst))) for dst in remotes}
    assert (kept, len(changed), changed & kept) == ({7}, 1, set())
    (identifier,) = changed
    for src in remotes:
        out = lab.send("uplink", from_outside(ICMP(type=0, id=identifier), src=src))
        assert (out.ports, out.packet[IP].dst, out.packet[ICMP].id) == (["b"], B_IP, 7)
    out = lab.send("uplink", from_outside(ICMP(type=0, id=identifier), src="192.0.2.3"))
    assert (out.verdict, out.sent) == (Verdict.DROP_NO_MAPPING, [])
    assert lab.external_port(lab.send("a", from_a(UDP(sport=45000, dport=7)))) == 45000, "identifiers take no port away"


@pytest.mark.requirement("I1")
def test_the_time_of_a_query_begins_anew_with_each_packet_either_way() -> None:
    lab = Gateway()
    for body, side in ((from_a(ICMP(id=7)), "a"), (from_outside(ICMP(type=0, id=7)), "uplink"), (from_a(ICMP(id=7)), "a")):
        assert lab.send(side, body).ports
        lab.wait(59)
        assert lab.flows()
    lab.wait(3)
    assert not lab.flows()


@pytest.mark.requirement("I1")
@pytest.mark.parametrize("kind", [13, 15, 17])
def test_other_queries_are_not_translated_and_counted(kind: int) -> None:
    lab = Gateway()
    out = lab.send("a", from_a(ICMP(type=kind, id=7)))
    assert (out.verdict, out.sent, lab.flows()) == (Verdict.DROP_ICMP_TYPE, [], [])


# ---- ICMP errors (I3 to I7, G1, G3) ------------------------------------------------------------------------


@pytest.mark.requirement("I3", "I4")
def test_options_of_the_error_itself_pass_and_those_of_the_quotation_as_many_as_there_may_be() -> None:
    lab = Gateway()
    packet = from_a(UDP(sport=5000, dport=53) / b"x", options=[IPOption_Router_Alert()] * 10)
    sent = bytes(lab.send("a", packet).packet[IP])
    assert sent[0] == 0x4F
    out = lab.send("uplink", from_outside(ICMP(type=11) / Raw(sent), src=ROUTER, options=[IPOption_Router_Alert()]))
    assert (out.verdict, out.ports) == (Verdict.TRANSLATED_ERROR, ["a"])
    assert (out.packet[IP].ihl, out.packet[ICMP].type) == (6, 11)
    packet[IP].ttl = 63
    quoted = IP(bytes(out.packet)[14 + 24 + 8 :])
    assert (quoted.src, quoted.ihl, quoted.sport) == (A_IP, 15, 5000)


@pytest.mark.requirement("I3", "G3")
def test_a_quoted_udp_checksum_of_zero_stays_zero() -> None:
    lab = Gateway()
    sent = lab.send("a", from_a(UDP(sport=5000, dport=53, chksum=0) / b"x")).packet[IP]
    out = lab.send("uplink", from_outside(ICMP(type=3, code=3) / Raw(bytes(sent))))
    quoted = IP(out.only.quoted)
    assert (quoted.src, quoted.sport, quoted[UDP].chksum) == (A_IP, 5000, 0)


@pytest.mark.requirement("I5", "I6")
def test_errors_from_inside_are_judged_alike() -> None:
    lab = Gateway(verify=False)
    lab.publish(8080, 80, "udp")
    received = lab.send("uplink", from_outside(UDP(sport=5000, dport=8080) / b"x")).packet[IP]
    bad_ip, bad_udp = received.copy(), received.copy()
    bad_ip.chksum ^= 0x0101
    bad_udp[UDP].chksum ^= 0x0101
    for body, verdict in ((ICMP(type=3, code=3, chksum=1) / Raw(bytes(received)), Verdict.DROP_ICMP_BAD),
                          (ICMP(type=3, code=3) / Raw(bytes(bad_ip)), Verdict.DROP_ICMP_BAD),
                          (ICMP(type=3, code=3) / Raw(bytes(received)[:27]), Verdict.DROP_ICMP_BAD),
                          (ICMP(type=3, code=3) / (IP(src=REMOTE, dst=B_IP) / UDP(sport=5000, dport=80)),
                           Verdict.DROP_ICMP_NO_FLOW),
                          (ICMP(type=3, code=3) / Raw(bytes(bad_udp)), Verdict.TRANSLATED_ERROR)):
        out = lab.send("a", from_a(body))
        assert (out.verdict, bool(out.sent)) == (verdict, verdict is Verdict.TRANSLATED_ERROR)


@pytest.mark.requirement("I7")
@pytest.mark.parametrize(("kind", "code"), [(3, 1), (3, 3), (3, 4), (11, 0), (11, 1)])
def test_every_error_about_a_hairpinned_segment_crosses_both_ways(kind: int, code: int) -> None:
    lab = Lab(behaving(EIM, EIM))
    one, two = lab.seen(tcp(ONE, 5000, *FAR[0])), lab.seen(tcp(TWO, 6000, *FAR[0]))
    for host, port, target, at, own in ((ONE, 5000, two, TWO, one), (TWO, 6000, one, ONE, two)):
        ((_, arrived),) = lab.out(tcp(host, port, *target, "S" if host == ONE else "SA"))
        ((where, error),) = lab.out(IP(src=at, dst=arrived.src) / ICMP(type=kind, code=code) / Raw(bytes(arrived)))
        assert (where, error.src, error[ICMP].type, error[ICMP].code) == (host, target[0], kind, code)
        quoted = IP(bytes(error[ICMP].payload))
        assert (quoted.src, quoted.sport, quoted.dst, quoted.dport) == (host, port, *target)
        assert own[0] == EXTERNAL


@pytest.mark.requirement("G1", "I3")
@pytest.mark.parametrize("ttl", [0, 1])
def test_no_error_is_made_about_an_error_at_its_last_hop_from_either_side(ttl: int) -> None:
    lab = Gateway()
    lab.publish(8080, 80, "udp")
    received = lab.send("uplink", from_outside(UDP(sport=5000, dport=8080) / b"x")).packet[IP]
    for port, packet in (("a", from_a(ICMP(type=3, code=3) / Raw(bytes(received)), ttl=ttl)),
                         ("uplink", from_outside(ICMP(type=11) / IP(src=EXTERNAL, dst=REMOTE) / UDP(sport=8080, dport=5000),
                                                 ttl=ttl))):
        out = lab.send(port, packet)
        assert (out.verdict, out.sent) == (Verdict.DROP_TTL, [])


@FAST
@pytest.mark.requirement("G3")
def test_a_udp_checksum_that_becomes_zero_inward_is_sent_as_ffff(fast_path: bool) -> None:
    lab = Gateway(fast_path=fast_path)
    lab.send("a", from_a(UDP(sport=45000, dport=53)))
    plain = IP(src=REMOTE, dst=A_IP) / UDP(sport=53, dport=45000) / b"\0\0"
    filler = IP(bytes(plain))[UDP].chksum.to_bytes(2, "big")
    for _ in range(2):
        out = lab.send("uplink", from_outside(UDP(sport=53, dport=45000) / filler))
        assert (out.packet[UDP].dport, out.packet[UDP].chksum) == (45000, 0xFFFF)


@pytest.mark.requirement("G3", "U11")
def test_a_udp_checksum_of_zero_stays_zero_in_a_first_fragment() -> None:
    lab = Gateway()
    first = from_a(UDP(sport=45000, dport=53, chksum=0, len=3000) / bytes(1000), flags="MF", id=5)
    assert lab.send("a", first).packet[UDP].chksum == 0
