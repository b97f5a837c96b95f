"""Clauses of the requirements about mappings that one example does not show: for each protocol, under collision, when ports
run out, when time passes (U1 to U10, C1 to C3). test_behaviour has the first example of each.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.packet import Packet, Raw

from natgw.datapath import TIMEOUT_PROFILES, Datapath, DatapathConfig, Dependence, NatBehaviour, NatConfig, Verdict
from natgw.datapath.allocation import POLICIES, Random
from natgw.datapath.napt import timeout_of
from natgw.datapath.tcp_state import TcpState
from natgw.wire.ethernet import parse_mac
from natgw.wire.ipv4 import ICMP as ICMP_NUMBER
from natgw.wire.ipv4 import TCP as TCP_NUMBER
from natgw.wire.ipv4 import UDP as UDP_NUMBER
from tests.unit.core_lab import A_IP, A_MAC, B_IP, REMOTE, from_a, from_b, from_outside
from tests.unit.core_lab import Lab as Gateway
from tests.unit.test_behaviour import ADM, APDM, EIM, EXTERNAL, FAR, ONE, SECOND, THREE, TWO, Lab, behaving, tcp, udp
from tests.unit.test_fragments import pieces, whole

EACH = pytest.mark.parametrize("make", [udp, tcp], ids=["udp", "tcp"])
DEPENDENCES = [EIM, ADM, APDM]
BOTH = (IPv4Address(EXTERNAL), IPv4Address(SECOND))


def ping(src: str, identifier: int, dst: str = FAR[0][0]) -> Packet:
    return IP(src=src, dst=dst) / ICMP(id=identifier)


# ---- mapping and filtering (U1, U2, U8, T1) ----------------------------------------------------------------


@pytest.mark.requirement("U1", "U2", "T1")
@pytest.mark.parametrize("strict_udp", [True, False])
def test_udp_and_tcp_behave_each_as_it_was_told(strict_udp: bool) -> None:
    strict, cone = NatBehaviour(mapping=APDM), NatBehaviour(filtering=EIM)
    lab = Lab(NatConfig(udp=strict, tcp=cone) if strict_udp else NatConfig(udp=cone, tcp=strict))
    for make, is_strict in ((udp, strict_udp), (tcp, not strict_udp)):
        seen = [lab.seen(make(ONE, 5000, *far)) for far in FAR]
        assert len(set(seen)) == (3 if is_strict else 1)
        assert bool(lab.into(make("203.0.113.77", 9, *seen[0]))) == (not is_strict)


@pytest.mark.requirement("U1", "U8", "T1")
@EACH
@pytest.mark.parametrize(("mapping", "distinct"), [(EIM, 1), (ADM, 2), (APDM, 3)])
@pytest.mark.parametrize("allocation", ["preserve", "random", "sequential"])
def test_mapping_is_the_same_when_the_port_is_somebody_elses(make: Callable[..., Packet], mapping: Dependence, distinct: int,
                                                             allocation: str) -> None:
    lab = Lab(behaving(mapping, allocation=allocation))
    others = {lab.seen(make(TWO, 5000, *far)) for far in FAR}
    seen = [lab.seen(make(ONE, 5000, *far)) for far in FAR]
    assert len(set(seen)) == distinct
    assert (seen[0] == seen[1]) == (mapping is not APDM)
    assert not others & set(seen)
    assert seen == [lab.seen(make(ONE, 5000, *far)) for far in FAR]


@pytest.mark.requirement("U2", "U8")
@EACH
@pytest.mark.parametrize("mapping", DEPENDENCES)
@pytest.mark.parametrize(("filtering", "admitted"), [
    (EIM, [True, True, True]), (ADM, [True, True, False]), (APDM, [True, False, False])])
def test_filtering_is_the_same_when_the_port_is_somebody_elses(make: Callable[..., Packet], mapping: Dependence,
                                                               filtering: Dependence, admitted: list[bool]) -> None:
    flags = ("SA", "S", "S") if make is tcp else (b"x", b"x", b"x")
    for far, more, expected in zip(FAR, flags, admitted, strict=True):
        lab = Lab(behaving(mapping, filtering))
        lab.seen(make(TWO, 5000, *FAR[0]))
        external = lab.seen(make(ONE, 5000, *FAR[0]))
        assert external != (EXTERNAL, 5000)
        assert [where for where, _ in lab.into(make(*far, *external, more))] == ([ONE] if expected else [])


@pytest.mark.requirement("U2")
@EACH
def test_a_filter_opens_for_the_mapping_that_was_used_and_no_other(make: Callable[..., Packet]) -> None:
    """RFC 4787 section 5: what one endpoint of a host has spoken to says nothing of another endpoint."""
    lab = Lab(behaving(EIM, ADM))
    first, second = lab.seen(make(ONE, 5000, *FAR[0])), lab.seen(make(ONE, 5001, *FAR[2]))
    assert lab.into(make(FAR[0][0], 99, *first))
    assert not lab.into(make(FAR[0][0], 99, *second))


# ---- addresses and ports (U3, U4, U5) ----------------------------------------------------------------------


@pytest.mark.requirement("U3")
def test_a_host_keeps_its_address_for_every_protocol_remote_and_port() -> None:
    lab = Lab(NatConfig(external_addresses=BOTH))
    addresses = {}
    for host in (ONE, TWO, THREE):
        sent = [packet for port in (5000, 5001, 53) for far in FAR
                for packet in (udp(host, port, *far), tcp(host, port, *far), ping(host, port, far[0]))]
        addresses[host] = {out.src for packet in sent for _, out in lab.out(packet)}
        assert len(addresses[host]) == 1
    assert set.union(*addresses.values()) == {EXTERNAL, SECOND}


@pytest.mark.requirement("U3", "U8")
@pytest.mark.parametrize("paired", [True, False])
def test_a_paired_host_gets_no_other_address_when_its_ports_are_out(paired: bool) -> None:
    lab = Lab(NatConfig(external_addresses=BOTH, paired=paired), port_range=(30000, 30001))
    given = [lab.seen(udp(ONE, port, *FAR[0])) for port in ((1, 2) if paired else (1, 2, 3, 4))]
    assert {address for address, _ in given} == ({given[0][0]} if paired else {EXTERNAL, SECOND})
    assert len(set(given)) == len(given)
    ((where, error),) = lab.out(udp(ONE, 5, *FAR[0]))
    assert (where, error[ICMP].type, error[ICMP].code) == (ONE, 3, 13)


@pytest.mark.requirement("U4")
def test_one_port_number_serves_each_protocol_and_each_address_apart() -> None:
    lab = Lab(NatConfig(external_addresses=BOTH, paired=False), port_range=(30000, 30000))
    seen = [("udp", *lab.seen(udp(host, 5000, *FAR[0]))) for host in (ONE, TWO)]
    seen += [("tcp", *lab.seen(tcp(host, 5000, *FAR[0]))) for host in (ONE, TWO)]
    assert sorted(seen) == [(name, address, 30000) for name in ("tcp", "udp") for address in (EXTERNAL, SECOND)]


@pytest.mark.requirement("U5")
@EACH
@pytest.mark.parametrize("allocation", ["preserve", "random", "sequential"])
def test_each_policy_keeps_to_the_class_of_the_port(make: Callable[..., Packet], allocation: str) -> None:
    lab = Lab(NatConfig(allocation=allocation), port_range=(1000, 2000))
    for port in (1, 53, 1000, 1023, 1024, 1999, 5000, 65535):
        for host in (ONE, TWO, THREE):  # at most one of them keeps it
            assert (lab.seen(make(host, port, *FAR[0]))[1] < 1024) == (port < 1024)


@pytest.mark.requirement("U5", "U8")
@pytest.mark.parametrize(("ports", "upper"), [((1, 2, 3), False), ((5001, 5002, 5003), True)])
def test_when_one_class_is_out_the_other_is_not_drawn_from(ports: tuple[int, ...], upper: bool) -> None:
    lab = Lab(port_range=(1022, 1025))
    given = {lab.seen(udp(ONE, port, *FAR[0]))[1] for port in ports[:2]}
    assert given == ({1024, 1025} if upper else {1022, 1023})
    lab.out(udp(ONE, ports[2], *FAR[0]))
    assert lab.count("drop_ports_exhausted") == 1


@pytest.mark.requirement("U5")
@pytest.mark.parametrize("allocation", ["preserve", "random", "sequential"])
def test_parity_gives_way_when_none_of_it_is_left(allocation: str) -> None:
    lab = Lab(NatConfig(allocation=allocation, parity=True), port_range=(30000, 30005))
    even = {lab.seen(udp(ONE, port, *FAR[0]))[1] for port in (2, 4, 6)}
    assert even == {30000, 30002, 30004}
    assert {lab.seen(udp(ONE, port, *FAR[0]))[1] for port in (8, 9, 10)} == {30001, 30003, 30005}


@pytest.mark.requirement("U5")
def test_parity_is_kept_below_1024_too_and_only_if_asked_for() -> None:
    lab = Lab(NatConfig(allocation="random", parity=True), port_range=(1, 65535))
    for port in range(1, 100):
        seen = lab.seen(udp(ONE, port, *FAR[0]))[1]
        assert (seen % 2, seen < 1024) == (port % 2, True)
    lab = Lab(NatConfig(allocation="random"))
    assert len({lab.seen(udp(ONE, port, *FAR[0]))[1] % 2 for port in range(5000, 5040, 2)}) == 2


# ---- time (U6, and the requirements' table of Linux's timeouts) --------------------------------------------

LINUX_TCP_S = {"SYN_SENT": 120, "SYN_SENT2": 120, "SYN_RECV": 60, "ESTABLISHED": 432000, "FIN_WAIT": 120, "CLOSE_WAIT": 60,
               "LAST_ACK": 30, "TIME_WAIT": 120, "CLOSE": 10}


@pytest.mark.requirement("T5", "U6", "I1")
def test_the_profiles() -> None:
    rfc, linux = TIMEOUT_PROFILES["rfc"], TIMEOUT_PROFILES["linux"]
    assert NatConfig().timeouts == rfc
    states = [state for state in TcpState if state is not TcpState.NEW]
    assert {state.name: timeout_of(linux, TCP_NUMBER, state) for state in states} == LINUX_TCP_S
    for state in states:
        assert timeout_of(rfc, TCP_NUMBER, state) >= (7440 if state is TcpState.ESTABLISHED else 240), state
    for protocol, rfc_s, linux_s in ((UDP_NUMBER, 300, 30), (ICMP_NUMBER, 60, 30)):
        assert [timeout_of(each, protocol, TcpState.NEW) for each in (rfc, linux)] == [rfc_s, linux_s]
    assert (rfc.udp_stream_s, linux.udp_stream_s) == (300, 120)


@pytest.mark.requirement("U6", "U1")
def test_a_mapping_lives_as_long_as_something_uses_it() -> None:
    """RFC 4787 REQ-6: refreshed for all its sessions. Its first flow is long gone, and the port is the same."""
    lab = Lab(NatConfig(allocation="random"))
    external = lab.seen(udp(ONE, 5000, *FAR[0]))
    for _ in range(6):
        assert lab.seen(udp(ONE, 5000, *FAR[2])) == external
        lab.advance(100)
    assert len(lab.dp.flow_records(lab.now)) == 1
    assert lab.seen(udp(ONE, 5000, *FAR[1])) == external
    lab.advance(302)
    assert lab.dp.flow_records(lab.now) == []
    assert lab.seen(udp(ONE, 5000, *FAR[1])) != external


@pytest.mark.requirement("U6")
def test_what_the_filter_turns_away_refreshes_nothing() -> None:
    lab = Lab()
    external = lab.seen(udp(ONE, 5000, *FAR[0]))
    for _ in range(3):
        lab.advance(100)
        assert lab.into(udp(*FAR[2], *external)) == []
    lab.advance(2)
    assert lab.dp.flow_records(lab.now) == []


# ---- ICMP errors (U9) --------------------------------------------------------------------------------------


@pytest.mark.requirement("U9")
@EACH
@pytest.mark.parametrize(("kind", "code"), [(3, code) for code in range(16)] + [(4, 0), (11, 0), (11, 1), (12, 0)])
def test_no_error_from_outside_ends_a_mapping(make: Callable[..., Packet], kind: int, code: int) -> None:
    """RFC 4787 REQ-10, RFC 5382 REQ-10: "any sort of ICMP message", also those that a host itself would give up after."""
    lab = Lab()
    ((_, out),) = lab.out(make(ONE, 5000, *FAR[0]))
    before = lab.dp.flow_records(lab.now)
    ((where, error),) = lab.into(IP(src=FAR[0][0], dst=EXTERNAL) / ICMP(type=kind, code=code) / Raw(bytes(out)))
    assert (where, error[ICMP].type, error[ICMP].code) == (ONE, kind, code)
    assert lab.dp.flow_records(lab.now) == before
    assert lab.into(make(*FAR[0], EXTERNAL, 5000, "SA" if make is tcp else b"x"))


@pytest.mark.requirement("U9")
def test_no_error_from_inside_ends_a_mapping() -> None:
    lab = Lab(behaving(EIM, EIM))
    external = lab.seen(udp(ONE, 5000, *FAR[0]))
    ((_, arrived),) = lab.into(udp(*FAR[2], *external))
    before = lab.dp.flow_records(lab.now)
    ((where, _),) = lab.out(IP(src=ONE, dst=FAR[2][0]) / ICMP(type=3, code=3) / Raw(bytes(arrived)))
    assert (where, lab.dp.flow_records(lab.now)) == ("outside", before)
    assert lab.into(udp(*FAR[2], *external))
    assert lab.seen(udp(ONE, 5000, *FAR[1])) == external


# ---- sizes (U10) -------------------------------------------------------------------------------------------


def narrow() -> Gateway:
    """Container a is behind a link with an MTU of 1000, and has a flow to the remote's port 53."""
    lab = Gateway()
    lab.dp.remove_port(lab.ports["a"])
    lab.add_port("a", mtu=1000)
    lab.dp.add_neighbour(lab.bridge, IPv4Address(A_IP), parse_mac(A_MAC), lab.ports["a"], lab.now)
    lab.send("a", from_a(UDP(sport=45000, dport=53) / b"x"))
    return lab


@pytest.mark.requirement("U10")
@pytest.mark.parametrize("published", [False, True])
def test_inward_too_big_with_df_is_told_to_the_remote_from_the_external_address(published: bool) -> None:
    lab = narrow()
    if published:
        lab.publish(8080, 53, "udp")
    packet = from_outside(UDP(sport=53, dport=8080 if published else 45000) / bytes(973), flags="DF")
    out = lab.send("uplink", packet)
    assert (out.verdict, out.ports) == (Verdict.ICMP_TOO_BIG, ["uplink"])
    assert (out.packet[IP].src, out.packet[IP].dst) == (EXTERNAL, REMOTE)
    assert (out.packet[ICMP].type, out.packet[ICMP].code, out.packet[ICMP].nexthopmtu) == (3, 4, 1000)
    assert out.only.quoted == bytes(packet[IP])[: 576 - 28], "as the remote knows it: nothing inside is shown"


@pytest.mark.requirement("U10")
def test_inward_too_big_without_df_is_fragmented() -> None:
    lab = narrow()
    data = bytes(number % 251 for number in range(2500))
    out = lab.send("uplink", from_outside(UDP(sport=53, dport=45000) / data, id=9))
    assert (out.verdict, out.ports) == (Verdict.FRAGMENTED, ["a"] * 3)
    assert max(each.packet[IP].len for each in out.sent) <= 1000
    packet = whole([(each.port, each.packet[IP]) for each in out.sent], "a")
    assert (packet.dst, packet.dport, bytes(packet[Raw])) == (A_IP, 45000, data)


@pytest.mark.requirement("U10", "U11")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_fragments_too_big_for_the_next_link_are_fragmented_again(order: tuple[int, ...]) -> None:
    lab = Gateway(uplink_mtu=600)
    data = bytes(number % 251 for number in range(3000))
    parts = pieces(from_a(UDP(sport=45000, dport=53) / data), 1400)
    sent = [each for index in order for each in lab.send("a", parts[index]).sent]
    assert len(sent) == 9 - 2 and max(each.packet[IP].len for each in sent) <= 600
    packet = whole([(each.port, each.packet[IP]) for each in sent], "uplink")
    assert (packet.src, packet.sport, bytes(packet[Raw])) == (EXTERNAL, 45000, data)


@pytest.mark.requirement("U10", "U7")
def test_too_big_for_the_peer_of_a_hairpin_is_told_to_the_sender_in_its_words() -> None:
    lab = narrow()
    lab.publish(8080, 53, "udp")
    packet = from_b(UDP(sport=46000, dport=8080) / bytes(973), dst=EXTERNAL, flags="DF")
    out = lab.send("b", packet)
    assert (out.verdict, out.ports) == (Verdict.ICMP_TOO_BIG, ["b"])
    assert (out.packet[IP].src, out.packet[IP].dst) == (EXTERNAL, B_IP)
    assert (out.packet[ICMP].type, out.packet[ICMP].code, out.packet[ICMP].nexthopmtu) == (3, 4, 1000)
    quoted = IP(out.only.quoted)
    assert (quoted.src, quoted[UDP].sport, quoted.dst, quoted[UDP].dport) == (B_IP, 46000, EXTERNAL, 8080)


# ---- fragments of several packets at once (U11) ------------------------------------------------------------


@pytest.mark.requirement("U11", "U2")
def test_fragments_of_different_packets_are_not_mixed() -> None:
    """One identification, by two hosts, to two remotes, and of two protocols, all at once and the last fragments first."""
    lab = Lab()
    packets = [udp(ONE, 5000, *FAR[0], b"1" * 3000), udp(TWO, 5000, *FAR[0], b"2" * 3000), udp(ONE, 5000, *FAR[2], b"3" * 3000),
               IP(src=ONE, dst=FAR[0][0]) / ICMP(id=9) / Raw(b"4" * 3000)]
    parts = [pieces(packet) for packet in packets]
    for train in parts:
        for part in reversed(train[1:]):
            assert lab.out(part) == []
    for number, train in enumerate(parts, 1):
        packet = whole(lab.out(train[0]), "outside")
        assert bytes(packet[Raw]) == str(number).encode() * 3000


# ---- limits and ports that rest (C1 to C3) -----------------------------------------------------------------


@pytest.mark.requirement("C1")
def test_a_limit_counts_ports_of_every_protocol_and_what_ends_counts_no_more() -> None:
    lab = Lab(NatConfig(ports_per_host=3))
    assert [bool(lab.out(packet)[0][0] == "outside") for packet in (
        udp(ONE, 1, *FAR[0]), tcp(ONE, 1, *FAR[0]), ping(ONE, 1), udp(ONE, 2, *FAR[0]), tcp(ONE, 2, *FAR[0]), ping(ONE, 2))
    ] == [True] * 3 + [False] * 3
    assert lab.count("drop_host_ports") == 3
    assert lab.seen(udp(ONE, 1, *FAR[2])), "a port it has may be used on"
    lab.advance(61)
    assert lab.seen(udp(ONE, 2, *FAR[0])), "the ping's is over"


@pytest.mark.requirement("C1")
def test_a_limit_of_new_flows_is_each_hosts_own_and_touches_no_flow_that_exists() -> None:
    lab = Lab(NatConfig(flows_per_host_per_s=2))
    external = [lab.seen(udp(ONE, port, *FAR[0])) for port in (1, 2)]
    ((where, error),) = lab.out(udp(ONE, 3, *FAR[0]))
    assert (where, error[ICMP].type, error[ICMP].code) == (ONE, 3, 13)
    assert external == [lab.seen(udp(ONE, port, *FAR[0])) for port in (1, 2)]
    assert lab.into(udp(*FAR[0], *external[0]))
    assert lab.seen(udp(TWO, 3, *FAR[0]))
    lab.advance(0.5)
    assert lab.seen(udp(ONE, 3, *FAR[0])), "two a second is one in half a second"
    lab.out(udp(ONE, 4, *FAR[0]))
    assert lab.count("drop_host_rate") == 2


@pytest.mark.requirement("C2")
@EACH
@pytest.mark.parametrize("allocation", ["preserve", "random", "sequential"])
def test_no_policy_gives_a_port_that_rests(make: Callable[..., Packet], allocation: str) -> None:
    lab = Lab(NatConfig(allocation=allocation, port_rest_s=120), port_range=(30000, 30001))
    freed = lab.seen(make(ONE, 5000, *FAR[0]))
    lab.advance(302)
    others = [lab.seen(make(TWO, 5000, *FAR[0]))]
    assert others[0] != freed
    ((where, error),) = lab.out(make(THREE, 5000, *FAR[0]))
    assert (where, error[ICMP].code) == (THREE, 13)
    lab.advance(121)
    assert lab.seen(make(THREE, 5000, *FAR[0])) == freed


def randomness(monkeypatch: pytest.MonkeyPatch, seed: int | None) -> random.Random:
    """What a gateway gives its port policy to draw from."""
    given: list[random.Random] = []

    def make(rng: random.Random) -> Random:
        given.append(rng)
        return Random(rng)

    monkeypatch.setitem(POLICIES, "spy", make)
    Datapath(DatapathConfig(nat=NatConfig(allocation="spy"), seed=seed))
    return given[-1]


@pytest.mark.requirement("C3")
def test_ports_drawn_so_far_do_not_tell_the_next() -> None:
    """Not seeded, and from the system: the Mersenne Twister tells its state to who has seen enough of its numbers."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert isinstance(randomness(monkeypatch, None), random.SystemRandom)
        assert randomness(monkeypatch, 7).random() == randomness(monkeypatch, 7).random(), "a test's gateway repeats itself"
