"""Clauses about the bridge and the gateway that one example does not show (B2 to B6, G5, G6)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert, IPOption_RR
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from natgw.datapath import Verdict
from natgw.wire.checksum import checksum
from natgw.wire.ethernet import L3, parse_mac
from tests.unit.core_lab import (
    A_MAC,
    B_MAC,
    BROADCAST_MAC,
    EXTERNAL,
    GATEWAY_IP,
    GATEWAY_MAC,
    REMOTE,
    ROUTER,
    ROUTER_MAC,
    UPLINK_MAC,
    Lab,
    arp_reply,
    from_a,
    from_outside,
    uplink_config,
)
from tests.unit.test_bridge import frame, heard

SECOND = "198.51.100.3"


@pytest.mark.requirement("B5")
@pytest.mark.parametrize("port", ["host", "a"])
def test_none_of_the_sixteen_is_forwarded_from_any_port_and_their_sender_is_learned(port: str) -> None:
    lab = Lab()
    station = "02:42:ac:11:00:77"
    for last in range(16):
        out = lab.send(port, frame(station, f"01:80:c2:00:00:{last:02x}"))
        assert (out.verdict, out.sent) == (Verdict.DROP_LINK_RESERVED, [])
    assert heard(lab) == {station: port}
    assert lab.send(port, frame(station, "01:80:c2:00:00:10")).verdict is Verdict.FLOODED


@pytest.mark.requirement("B2", "B3")
def test_a_station_that_moves_begins_its_time_anew_and_is_gone_from_its_old_port() -> None:
    lab = Lab()
    lab.add_port("c")
    lab.send("b", frame(B_MAC, BROADCAST_MAC))
    lab.wait(200)
    lab.send("c", frame(B_MAC, BROADCAST_MAC))
    lab.dp.remove_port(lab.ports["b"])
    lab.wait(299)
    assert lab.send("a", frame(A_MAC, B_MAC)).ports == ["c"]
    lab.wait(2)
    assert lab.send("a", frame(A_MAC, B_MAC)).verdict is Verdict.FLOODED


@pytest.mark.requirement("B6")
def test_a_static_entry_survives_a_flood_and_time_and_who_claims_it_is_refused() -> None:
    lab = Lab(max_fdb_entries=8)
    static = "02:42:ac:11:00:55"
    lab.bridge.fdb.add_static(parse_mac(static), lab.ports["b"])
    for number in range(100):
        lab.send("a", frame(f"02:00:00:00:00:{number:02x}", BROADCAST_MAC))
    assert lab.send("a", frame(static, BROADCAST_MAC)).verdict is Verdict.DROP_SOURCE_IS_GATEWAY
    lab.wait(400)
    assert lab.send("a", frame(A_MAC, static)).ports == ["b"]
    assert lab.send("a", from_a(UDP(sport=5, dport=6))).verdict is Verdict.TRANSLATED_OUT


@pytest.mark.requirement("B4")
def test_an_unknown_unicast_goes_to_every_port_but_its_own_and_never_to_the_uplink() -> None:
    lab = Lab()
    lab.add_port("c")
    for port in ("host", "a", "b", "c"):
        out = lab.send(port, frame("02:42:ac:11:00:66", "02:42:ac:11:00:99"))
        assert (out.verdict, sorted(out.ports)) == (Verdict.FLOODED, sorted({"host", "a", "b", "c"} - {port}))


@pytest.mark.requirement("G6")
def test_every_address_of_natgws_own_is_answered_for_and_no_other() -> None:
    lab = Lab(exclusive=True)
    lab.dp.update_uplink(uplink_config(more=(SECOND,)))
    lab.send("uplink", arp_reply(ROUTER, ROUTER_MAC))
    for address, answers in ((EXTERNAL, True), (SECOND, True), ("198.51.100.4", False)):
        asked = Ether(src=ROUTER_MAC, dst=BROADCAST_MAC) / ARP(hwsrc=ROUTER_MAC, psrc=ROUTER, pdst=address)
        out = lab.send("uplink", asked)
        assert [(each.packet[ARP].op, each.packet[ARP].hwsrc, each.packet[ARP].psrc) for each in out.sent] == (
            [(2, UPLINK_MAC, address)] if answers else [])
        out = lab.send("uplink", from_outside(ICMP(id=5) / b"data", dst=address))
        assert (out.verdict is Verdict.ECHO_ANSWERED) == answers
    asked = Ether(src=A_MAC, dst=BROADCAST_MAC) / ARP(hwsrc=A_MAC, psrc="172.17.0.2", pdst=EXTERNAL)
    assert not [each for each in lab.send("a", asked).sent if each.port == "a"], "inside, only the gateway's is"


@pytest.mark.requirement("G6")
def test_a_damaged_ping_is_not_answered() -> None:
    lab = Lab(verify=False)
    out = lab.send("a", from_a(ICMP(id=5, chksum=1) / b"data", dst=GATEWAY_IP))
    assert (out.verdict, out.sent) == (Verdict.DROP_ICMP_BAD, [])


@pytest.mark.requirement("G6", "T4", "U10")
@pytest.mark.parametrize("kind", ["too big", "time exceeded", "held SYN"])
def test_errors_of_every_kind_are_limited_towards_the_outside_too(kind: str) -> None:
    lab = Lab(exclusive=True)
    lab.publish(8080, 80, "udp")
    errors = 0
    for number in range(40):
        body = TCP(sport=1000 + number, dport=45000, flags="S") if kind == "held SYN" else UDP(sport=5, dport=8080)
        packet = from_outside(body / Raw(bytes(1600 if kind == "too big" else 0)), flags="DF",
                              ttl=1 if kind == "time exceeded" else 64)
        errors += sum(ICMP in each.packet for each in lab.send("uplink", packet).sent)
    if kind == "held SYN":
        errors = sum(ICMP in each.packet for each in lab.wait(6.5))
    assert errors == 10


@pytest.mark.requirement("G5")
def test_what_is_dropped_is_dropped_too_when_its_flow_is_known() -> None:
    """The fast path meets these frames first."""
    for fast_path in (True, False):
        lab = Lab(verify=False, fast_path=fast_path)
        for _ in range(3):
            lab.send("a", from_a(UDP(sport=45000, dport=53) / b"x"))
            lab.send("uplink", from_outside(UDP(sport=53, dport=45000) / b"x"))
        for field, value, verdict in (("version", 5, Verdict.DROP_BAD_VERSION), ("ihl", 4, Verdict.DROP_BAD_IHL),
                                      ("len", 1000, Verdict.DROP_BAD_LENGTH), ("chksum", 0x5555, Verdict.DROP_BAD_CHECKSUM)):
            for port, packet in (("a", from_a(UDP(sport=45000, dport=53) / b"x")),
                                 ("uplink", from_outside(UDP(sport=53, dport=45000) / b"x"))):
                setattr(packet[IP], field, value)
                out = lab.send(port, packet)
                assert (out.verdict, out.sent) == (verdict, []), (fast_path, port, field)
        short = from_a(UDP(sport=45000, dport=53, len=4) / b"x")
        assert lab.send("a", short).verdict is Verdict.DROP_BAD_TRANSPORT
        land = Ether(src=A_MAC, dst=GATEWAY_MAC) / IP(src=REMOTE, dst=REMOTE) / UDP()
        assert lab.send("a", land).verdict is Verdict.DROP_LAND


@pytest.mark.requirement("G4", "U10")
def test_of_the_options_each_fragment_has_those_that_are_to_be_copied() -> None:
    """RFC 791 section 3.1, the copied flag. What is not to be copied becomes no operation, as Linux has it."""
    lab = Lab(uplink_mtu=600)
    alert, route = IPOption_Router_Alert(), IPOption_RR(routers=["0.0.0.0"])
    out = lab.send("a", from_a(UDP(sport=45000, dport=53) / bytes(1400), options=[route, alert]))
    assert out.verdict is Verdict.FRAGMENTED and len(out.sent) == 3
    first, *later = (each.raw[L3:][20:32] for each in out.sent)
    assert first == bytes(route) + bytes(alert) + b"\0"
    assert later == [b"\1" * 7 + bytes(alert) + b"\0"] * 2


@pytest.mark.requirement("G4")
@pytest.mark.parametrize("options", [b"\x07\x00\x00\x00", b"\x07\x09\x04\x00", b"\x00\x07\x03\x04", b"\x01\x01\x01\x07"])
def test_options_that_cannot_be_read_stay_as_they_are_in_each_fragment(options: bytes) -> None:
    lab = Lab(uplink_mtu=600, verify=False)
    raw = bytearray(bytes(10) + bytes(from_a(UDP(sport=45000, dport=53) / bytes(1400), options=[IPOption_Router_Alert()])))
    raw[L3 + 10 : L3 + 12], raw[L3 + 20 : L3 + 24] = b"\0\0", options
    raw[L3 + 10 : L3 + 12] = checksum(raw[L3 : L3 + 24]).to_bytes(2, "big")
    out = lab.send("a", bytes(raw))
    assert out.verdict is Verdict.FRAGMENTED
    assert {each.raw[L3:][20:24] for each in out.sent} == {options}
