"""The test kit with IPv6: gateways in memory, wires, comparisons, strategies (see test_testing.py)."""

from __future__ import annotations

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.packet import Packet, Raw

from natgw.datapath import NatConfig
from natgw.datapath.sides import Uplink
from natgw.testing import (
    GatewayMachine6,
    SimulatedGateway,
    Wire,
    assert_checksums,
    assert_deliveries_equal,
    assert_packets_equal,
    check_machine,
    difference,
    summary,
)
from natgw.testing.model import Disagreement
from natgw.testing.strategies import (
    ICMPV6_ERROR_TYPES,
    Conversation,
    addresses,
    flows,
    fragment_trains,
    hostile_bytes,
    icmp_errors,
    nat_configs,
    segments,
)

FAR, OWN, EXTERNAL, EXTERNAL4 = "2001:db8:113::9", "fd00:1:2:3::2", "2001:db8:51::2", "198.51.100.2"
BOTH = (EXTERNAL4, EXTERNAL)
some = settings(max_examples=60, deadline=None)


def udp(src: str, sport: int, dst: str, dport: int, payload: bytes = b"x") -> IPv6:
    return IPv6(src=src, dst=dst) / UDP(sport=sport, dport=dport) / payload


# ---- the gateway in memory ---------------------------------------------------------------------------------


def test_there_and_back_beside_ipv4() -> None:
    gateway = SimulatedGateway(external=BOTH)
    assert (gateway.containers["c1"], gateway.containers6["c1"]) == ("172.17.0.2", OWN)
    (out,) = gateway.send("c1", udp(OWN, 5000, FAR, 53))
    assert (out.to, out.packet.src, out.packet.sport, out.packet.hlim) == ("outside", EXTERNAL, 5000, 63)
    (back,) = gateway.send("outside", bytes(udp(FAR, 53, EXTERNAL, 5000)))
    assert (back.to, back.packet.dst, back.packet.dport) == ("c1", OWN, 5000)
    (out,) = gateway.send("c1", IP(src="172.17.0.2", dst="203.0.113.9") / UDP(sport=5000, dport=53))
    assert (out.packet.src, out.packet.sport) == (EXTERNAL4, 5000)
    assert gateway.advance(302) == []
    assert gateway.flows() == []


def test_the_uplink_may_have_ipv6_alone() -> None:
    gateway = SimulatedGateway(external=["2001:DB8:51:0::2"])
    assert gateway.external == [EXTERNAL]
    (out,) = gateway.send("c1", udp(OWN, 5000, FAR, 53))
    assert out.packet.src == EXTERNAL
    assert [each.to for each in gateway.send("c1", IP(src="172.17.0.2", dst="203.0.113.9") / UDP())] == ["c1"]


def test_without_an_address_outside_there_is_no_ipv6() -> None:
    gateway = SimulatedGateway()
    assert gateway.containers6 == {}
    assert gateway.send("c1", udp(OWN, 5000, FAR, 53)) == []
    with pytest.raises(ValueError, match="has no IPv6"):
        SimulatedGateway(publish=[("c1", "[::]:8080:80")])


def test_published_ports() -> None:
    """One without an address for both versions, as natgw does it; SCTP for IPv4 alone."""
    gateway = SimulatedGateway(external=BOTH, publish=[
        ("c1", "8080:80"), ("c2", "[::]:5353:53/udp"), ("c2", "0.0.0.0:5354:53/udp"), ("c1", f"[{EXTERNAL}]:7000:70"),
        ("c1", "9000:90/sctp")])
    versions = [(each.host_port, each.container_ip.version) for each in gateway.publications]
    assert versions == [(8080, 4), (8080, 6), (5353, 6), (5354, 4), (7000, 6), (9000, 4)]
    for layer, to, port in ((TCP(sport=1, dport=8080, flags="S"), "c1", 80), (UDP(sport=1, dport=5353), "c2", 53),
                            (TCP(sport=1, dport=7000, flags="S"), "c1", 70)):
        (seen,) = gateway.send("outside", IPv6(src=FAR, dst=EXTERNAL) / layer)
        assert (seen.to, seen.packet.dst, seen.packet.dport) == (to, gateway.containers6[to], port)
    assert gateway.send("outside", IPv6(src=FAR, dst=EXTERNAL) / UDP(sport=1, dport=5354)) == []


def test_containers_reach_each_other_and_the_gateway() -> None:
    gateway = SimulatedGateway(external=BOTH)
    (seen,) = gateway.send("c1", udp(OWN, 1, gateway.containers6["c2"], 2))
    assert (seen.to, seen.packet.src, seen.packet.hlim) == ("c2", OWN, 64)
    for own in ("fd00:1:2:3::1", EXTERNAL):
        (seen,) = gateway.send("c1", IPv6(src=OWN, dst=own) / ICMPv6EchoRequest(id=7, data=b"ping"))
        assert (seen.to, seen.packet[ICMPv6EchoReply].data) == ("c1", b"ping")
    (seen,) = gateway.send("c1", udp(OWN, 1, "ff02::42", 2))
    assert seen.to == "c2"
    (seen,) = gateway.send("c1", udp("fe80::42:acff:fe11:2", 1, "fe80::42:acff:fe11:3", 2))
    assert (seen.to, seen.packet.hlim) == ("c2", 64)


def test_neighbour_discovery_is_answered_and_shown_to_nobody() -> None:
    """Nor are the advertisements that the gateway sends meanwhile."""
    gateway = SimulatedGateway(external=BOTH)
    for _ in range(3):
        assert gateway.advance(700) == []
        assert len(gateway.send("c1", udp(OWN, 5000, FAR, 53))) == 1
        assert len(gateway.send("outside", udp(FAR, 53, EXTERNAL, 5000))) == 1
    assert gateway.counters["nd_solicitations"] > 0
    assert gateway.counters["router_advertisements"] > 0
    assert gateway.send("c1", IPv6(src=OWN, dst="ff02::1:ff00:3", hlim=255) / ICMPv6ND_NS(tgt="fd00:1:2:3::3")) == []


def test_what_waits_is_sent_by_the_clock() -> None:
    gateway = SimulatedGateway(external=BOTH)
    syn = IPv6(src=FAR, dst=EXTERNAL) / TCP(sport=1, dport=5000, flags="S")
    assert gateway.send("outside", syn) == []
    ((to, error),) = ((each.to, each.packet) for each in gateway.advance(7))
    assert (to, error[ICMPv6DestUnreach].code, error.dst) == ("outside", 4, FAR)


def test_nonsense_is_taken_and_counted() -> None:
    gateway = SimulatedGateway(external=BOTH)
    assert gateway.send("outside", b"\x60") == gateway.send("c1", b"\x60" + bytes(30)) == []
    assert gateway.counters["drop_runt"] == 2


def test_wire_joins_gateways_and_hosts_of_both_versions() -> None:
    wire = Wire({"a": SimulatedGateway(external=BOTH),
                 "b": SimulatedGateway(external=["198.51.100.3", "2001:db8:51::3"], publish=[("c1", "8080:80/udp")])},
                {"server": "2001:DB8:113::9", "old server": "203.0.113.9"})
    assert (wire.address("a/c1"), wire.address("a/c1", 6)) == ("172.17.0.2", OWN)
    (seen,) = wire.send("a/c2", udp(wire.address("a/c2", 6), 5000, "2001:db8:51::3", 8080))
    assert (seen.to, seen.packet.src, seen.packet.dst, seen.packet.hlim) == ("b/c1", EXTERNAL, OWN, 62)
    (seen,) = wire.send("a/c1", udp(OWN, 1, FAR, 1))
    assert seen.to == "server"
    assert [each.to for each in wire.send("server", udp(FAR, 1, EXTERNAL, seen.packet.sport))] == ["a/c1"]
    assert [each.to for each in wire.send("a/c1", IP(src="172.17.0.2", dst="203.0.113.9") / UDP())] == ["old server"]
    assert wire.send("server", udp(FAR, 1, "2001:db8::1", 1)) == []


# ---- comparing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layer", "line"), [
    (TCP(sport=1, dport=2, flags="SA") / b"ab", "2001:db8::1.1 > 2001:db8::2.2: tcp SA, hlim 64, 2 bytes"),
    (UDP(sport=1, dport=2) / b"abc", "2001:db8::1.1 > 2001:db8::2.2: udp, hlim 64, 3 bytes"),
    (IPv6ExtHdrDestOpt() / UDP(sport=1, dport=2) / b"abc", "2001:db8::1.1 > 2001:db8::2.2: udp, hlim 64, 3 bytes"),
    (ICMPv6EchoRequest(id=7, data=b"a"), "2001:db8::1 > 2001:db8::2: icmp6 128/0 id 7, hlim 64, 1 bytes"),
    (ICMPv6TimeExceeded() / Raw(b"abcd"), "2001:db8::1 > 2001:db8::2: icmp6 3/0, hlim 64, 4 bytes"),
    (IPv6ExtHdrFragment(nh=17, offset=2, m=0) / Raw(b"abc"),
     "2001:db8::1 > 2001:db8::2: proto 17 fragment at 16, hlim 64, 0 bytes"),
])
def test_summary(layer: Packet, line: str) -> None:
    assert summary(bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / layer)) == line


def test_summary_of_another_protocol_and_of_what_is_cut_short() -> None:
    assert summary(IPv6(src="::1", dst="::2", nh=50) / Raw(b"abc")) == "::1 > ::2: proto 50, hlim 64, 0 bytes"
    assert summary(bytes(IPv6(src="::1", dst="::2") / TCP())[:50]) == "::1 > ::2: proto 6, hlim 64, 0 bytes"


def test_differences() -> None:
    one, two = udp("::1", 1, "::2", 2), udp("::1", 1, "::2", 3)
    assert_packets_equal(one, bytes(one))
    assert "dport" in difference(one, two)
    with pytest.raises(AssertionError, match=r"- ::1\.1 > ::2\.2: udp, hlim 64, 1 bytes\n\+ ::1\.1 > ::2\.3"):
        assert_packets_equal(one, two)
    later = one.copy()
    later.hlim = 3
    assert_packets_equal(one, later, ignoring=["hlim"])
    with pytest.raises(AssertionError, match="hlim 3"):
        assert_packets_equal(one, later)
    with pytest.raises(AssertionError, match="ttl 64"):
        assert_packets_equal(one, IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=1, dport=2) / b"x", ignoring=["src"])
    assert_deliveries_equal([], [])


@pytest.mark.parametrize("layer", [UDP(sport=1, dport=2), TCP(sport=1, dport=2), ICMPv6EchoRequest(), ICMPv6PacketTooBig(),
                                   IPv6ExtHdrDestOpt() / UDP(sport=1, dport=2)])
@pytest.mark.parametrize("at", [23, -1])
def test_checksums_that_are_wrong_are_found(layer: Packet, at: int) -> None:
    """Also when it is an address that is another one: each checksum covers them."""
    good = bytearray(bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / layer / Raw(b"abcd")))
    assert_checksums(bytes(good))
    good[at] ^= 1
    with pytest.raises(AssertionError, match=r"(UDP|TCP|ICMPv6) checksum is 0x"):
        assert_checksums(bytes(good))


def test_checksums_that_cannot_be_judged_are_not() -> None:
    """Of a fragment, of UDP without one, of a protocol that has none."""
    whole = bytes(udp("::1", 1, "::2", 2, bytes(40)))
    for packet in (IPv6(src="::1", dst="::2") / IPv6ExtHdrFragment(nh=17, m=1) / Raw(whole[40:64]),
                   IPv6(src="::1", dst="::2") / IPv6ExtHdrFragment(nh=17, offset=3) / Raw(whole[64:]),
                   IPv6(src="::1", dst="::2") / UDP(sport=1, dport=2, chksum=0) / b"x",
                   IPv6(src="::1", dst="::2", nh=50) / Raw(b"abc")):
        assert_checksums(packet)


# ---- strategies --------------------------------------------------------------------------------------------


@some
@given(st.data())
def test_addresses_are_of_their_network(data: st.DataObject) -> None:
    assert data.draw(addresses("2001:db8::/126")) in ("2001:db8::1", "2001:db8::2")
    assert data.draw(addresses("2001:db8::7/128")) == "2001:db8::7"
    assert data.draw(addresses("fd00:1:2:3::/64")).startswith("fd00:1:2:3:")


@some
@given(packet=segments(version=6))
def test_segments_are_sound(packet: IPv6) -> None:
    assert_checksums(packet)
    sender = "c1" if packet.src == OWN else "outside"
    gateway = SimulatedGateway(external=BOTH)
    gateway.send(sender, packet)
    malformed = ("drop_runt", "drop_bad_version", "drop_bad_length", "drop_bad_transport", "drop_bad_extension")
    assert not any(gateway.counters[name] for name in malformed)


@pytest.mark.requirement("V1")
@some
@given(conversation=flows(version=6), nat=nat_configs(external=[EXTERNAL]))
def test_a_flow_crosses_both_ways(conversation: Conversation, nat: NatConfig) -> None:
    gateway = SimulatedGateway(nat, containers=6, external=BOTH)
    names = {address: name for name, address in gateway.containers6.items()}
    assume(conversation.packets[0][1].src in names)
    where = EXTERNAL, 0
    for outward, packet in conversation.packets:
        if outward:
            (seen,) = gateway.send(names[packet.src], packet)
            where = seen.packet.src, seen.packet.sport
            assert (seen.to, seen.packet.dst, seen.packet.dport) == ("outside", packet.dst, packet.dport)
        else:
            (seen,) = gateway.send("outside", rewritten(packet, where))
            assert (seen.packet.dst, seen.packet.dport) == (packet.dst, packet.dport)
        assert_checksums(seen.data)


def rewritten(packet: IPv6, to: tuple[str, int]) -> IPv6:
    """The same, to where its receiver is seen outside."""
    packet = IPv6(bytes(packet))
    packet.dst, packet.payload.dport = to
    del packet.payload.chksum
    return packet


@pytest.mark.requirement("V4", "U11")
@some
@given(train=fragment_trains(segments(src=st.just(OWN), protocols=("udp",), version=6).filter(lambda packet: packet.hlim > 1)))
def test_a_train_crosses_and_put_together_it_is_one_packet(train: list[IPv6]) -> None:
    assert len(train) >= 2
    gateway = SimulatedGateway(external=BOTH)
    seen = [each.packet for piece in train for each in gateway.send("c1", piece)]
    pieces = {each[IPv6ExtHdrFragment].offset * 8: bytes(each[IPv6ExtHdrFragment].payload) for each in seen}
    assert len(pieces) == len(train)
    whole = b"".join(pieces[at] for at in sorted(pieces))
    header = seen[0]
    assert_checksums(IPv6(src=header.src, dst=header.dst, nh=header[IPv6ExtHdrFragment].nh) / Raw(whole))


@pytest.mark.requirement("V3")
@some
@given(st.data())
def test_an_error_reaches_who_sent_what_it_is_about(data: st.DataObject) -> None:
    gateway = SimulatedGateway(external=BOTH)
    (out,) = gateway.send("c1", udp(OWN, 5000, FAR, 53))
    error = data.draw(icmp_errors(out.data, src=data.draw(st.sampled_from((None, "2001:db8:77::1")))))
    assert_checksums(error)
    (seen,) = gateway.send("outside", error)
    assert (seen.to, seen.data[40:42] in {bytes(kind) for kind in ICMPV6_ERROR_TYPES}) == ("c1", True)
    quoted = IPv6(seen.data[48:])
    assert (quoted.src, quoted.dst, seen.data[48 + 40 : 48 + 42]) == (OWN, FAR, (5000).to_bytes(2, "big"))


@some
@given(nat=nat_configs(external=BOTH), data=hostile_bytes(segments(version=6)), sender=st.sampled_from(("outside", "c1")))
def test_nothing_breaks_the_gateway(nat: NatConfig, data: bytes, sender: str) -> None:
    gateway = SimulatedGateway(nat, external=BOTH)
    for delivery in gateway.send(sender, data):
        if delivery.to == sender:
            assert_checksums(delivery.data)  # the gateway's own answer
    assert len(gateway.send("c1", udp(OWN, 5000, FAR, 53))) == 1


# ---- the state machine -------------------------------------------------------------------------------------


class Machine6(GatewayMachine6):
    """As it is, but not to be shared: it counts."""


QUICK = settings(derandomize=True, database=None, deadline=None, max_examples=40, phases=[Phase.generate])


def test_a_gateway_that_errs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes its first address wherever it goes to."""
    monkeypatch.setattr(Uplink, "external_for", lambda self, destination, hop: self.addresses[0])
    with pytest.raises(Disagreement, match="not one of"):
        check_machine(Machine6, at_least={}, settings=QUICK)


def test_a_machine_that_says_nothing_fails() -> None:
    with pytest.raises(AssertionError, match=r"too few cases.*'nothing like this': 0"):
        check_machine(Machine6, at_least={"arrived": 1, "nothing like this": 1}, settings=settings(QUICK, max_examples=3))
