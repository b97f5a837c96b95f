"""The gateway as a router (RFC 791, 1812): TTL, checksums, options, what is dropped and why, and what it answers itself."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from natgw.datapath import Datapath, NetworkConfig, PortKind, UplinkConfig, Verdict
from natgw.errors import Conflict
from natgw.tables.neigh import MAX_QUEUED_BYTES, QUEUED_FRAME_BYTES
from natgw.wire.ethernet import L3, parse_mac
from natgw.wire.vnet import GSO_TCPV4, GSO_UDP, GSO_UDP_L4, NEEDS_CSUM, VNET
from tests.unit.core_lab import (
    A_IP,
    A_MAC,
    B_IP,
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
    partial,
    transports,
    uplink_config,
)

DATA = bytes(range(256))


def spoiled(packet: Packet, **fields: object) -> Packet:
    """The packet with IP fields that scapy would not choose."""
    copy = packet.copy()
    for name, value in fields.items():
        setattr(copy[IP], name, value)
    return copy


# -- G1: the TTL -----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("G1")
@pytest.mark.parametrize("fast_path", [True, False])
def test_each_packet_is_one_hop_older(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)
    for _ in range(2):
        out = lab.send("a", from_a(UDP(sport=45000, dport=53) / DATA, ttl=64))
        assert out.packet[IP].ttl == 63
        assert lab.send("uplink", from_outside(UDP(sport=53, dport=45000) / DATA, ttl=2)).packet[IP].ttl == 1


@pytest.mark.requirement("G1")
@pytest.mark.parametrize("known", [False, True], ids=["new flow", "known flow"])
@pytest.mark.parametrize("ttl", [0, 1])
def test_a_packet_at_its_last_hop_is_answered_by_the_gateway(ttl: int, known: bool) -> None:
    lab = Lab()
    if known:
        lab.send("a", from_a(UDP(sport=33434, dport=33434)))
    expired = from_a(UDP(sport=33434, dport=33434) / DATA, ttl=ttl, id=99)
    out = lab.send("a", expired)
    assert out.verdict is Verdict.ICMP_TIME_EXCEEDED and out.ports == ["a"]
    error = out.packet
    assert (error[Ether].src, error[Ether].dst) == (GATEWAY_MAC, A_MAC)
    assert (error[IP].src, error[IP].dst, error[ICMP].type, error[ICMP].code) == (GATEWAY_IP, A_IP, 11, 0)
    assert out.only.quoted == bytes(expired[IP])[: 576 - 28]
    assert len(lab.flows()) == known


@pytest.mark.requirement("G1")
def test_traceroute_sees_the_gateway_from_outside_at_its_external_address() -> None:
    lab = Lab()
    lab.publish(8080, 80)
    for _ in range(2):
        out = lab.send("uplink", from_outside(TCP(sport=5000, dport=8080, flags="S"), ttl=1))
        assert out.verdict is Verdict.ICMP_TIME_EXCEEDED and out.ports == ["uplink"]
        assert (out.packet[IP].src, out.packet[IP].dst, out.packet[ICMP].type) == (EXTERNAL, REMOTE, 11)
        assert out.packet[Ether].dst == ROUTER_MAC


@pytest.mark.requirement("G1")
def test_no_error_is_made_about_an_error_a_later_fragment_or_a_group() -> None:
    lab = Lab()
    lab.send("a", from_a(UDP(sport=45000, dport=53)))
    quoted = IP(src=REMOTE, dst=A_IP) / UDP(sport=53, dport=45000)
    for packet in (from_a(ICMP(type=3, code=3) / quoted, ttl=1),
                   Ether(src=A_MAC, dst=BROADCAST_MAC) / IP(src=A_IP, dst=REMOTE, ttl=1) / UDP()):
        assert "uplink" not in lab.send("a", packet).ports
        assert not [each for each in lab.send("a", packet).sent if each.port == "a"]
    out = lab.send("a", from_a(Raw(DATA), dst=B_IP, proto=17, frag=100, ttl=1))
    assert (out.verdict, out.sent) == (Verdict.DROP_TTL, [])
    first = from_a(UDP(len=3000) / DATA, dst=B_IP, flags="MF", ttl=1)
    assert lab.send("a", first).verdict is Verdict.ICMP_TIME_EXCEEDED, "a first fragment may be answered"


@pytest.mark.requirement("G1", "G4")
def test_between_stations_of_a_bridge_the_gateway_routes_without_translation() -> None:
    lab = Lab()
    out = lab.send("a", from_a(UDP(sport=5, dport=6) / DATA, dst=B_IP, ttl=9))
    assert out.verdict is Verdict.ROUTED and out.ports == ["b"]
    assert out.packet == Ether(src=GATEWAY_MAC, dst=B_MAC) / out.packet[IP]
    assert (out.packet[IP].src, out.packet[IP].dst, out.packet[IP].ttl, out.packet[UDP].sport) == (A_IP, B_IP, 8, 5)
    assert lab.send("a", from_a(UDP(), dst=B_IP, ttl=1)).verdict is Verdict.ICMP_TIME_EXCEEDED


# -- G2, G3: checksums -----------------------------------------------------------------------------------------------


@pytest.mark.requirement("G2")
@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 1399])
def test_all_checksums_verify_after_a_rewrite(size: int, fast_path: bool) -> None:
    """`Lab` compares each frame with what scapy computes anew; here are frames of each kind for it to look at."""
    lab = Lab(fast_path=fast_path)
    data = (DATA * 6)[:size]
    for sport in (40000, 1, 0xFFFF):
        for tos, ident in ((0, 0), (0xFF, 0xFFFF)):
            for body in (UDP(sport=sport, dport=53) / data, TCP(sport=sport, dport=80, flags="A") / data,
                         ICMP(id=sport) / data):
                out = lab.send("a", from_a(body, tos=tos, id=ident))
                assert out.verdict is Verdict.TRANSLATED_OUT
                port = lab.external_port(out)
                reply = body.copy()
                if ICMP in reply:
                    reply[ICMP].type, reply[ICMP].id = 0, port
                else:
                    reply.sport, reply.dport = reply.dport, port
                back = lab.send("uplink", from_outside(reply, tos=tos, id=ident))
                assert back.verdict is Verdict.TRANSLATED_IN
                assert bytes(back.packet[IP].payload.payload)[:size] == data


@pytest.mark.requirement("G2")
@pytest.mark.parametrize("fast_path", [True, False])
def test_partial_checksums_follow_the_addresses_alone(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path, coalesce=False)
    for _ in range(2):
        for packet in (from_a(TCP(sport=5000, dport=80, flags="A") / DATA), from_a(UDP(sport=5000, dport=53) / DATA)):
            sent = lab.send("a", partial(packet)).only
            assert sent.vnet == partial(packet)[:10]
        superframe = partial(from_a(TCP(sport=5000, dport=80, flags="A") / bytes(30000)), gso_type=GSO_TCPV4, gso_size=1448)
        assert lab.send("a", superframe).only.vnet == superframe[:10]


@pytest.mark.requirement("G3")
@pytest.mark.parametrize("fast_path", [True, False])
def test_a_udp_checksum_of_zero_stays_zero(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)
    for _ in range(2):
        assert lab.send("a", from_a(UDP(sport=45000, dport=53, chksum=0) / DATA)).packet[UDP].chksum == 0
        assert lab.send("uplink", from_outside(UDP(sport=53, dport=45000, chksum=0) / DATA)).packet[UDP].chksum == 0


@pytest.mark.requirement("G3")
@pytest.mark.parametrize("fast_path", [True, False])
def test_a_udp_checksum_that_becomes_zero_is_sent_as_ffff(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)
    for _ in range(2):
        # The payload is chosen so that the translated datagram sums up to FFFF.
        plain = IP(src=EXTERNAL, dst=REMOTE) / UDP(sport=45000, dport=53) / b"\0\0"
        filler = IP(bytes(plain))[UDP].chksum.to_bytes(2, "big")
        out = lab.send("a", from_a(UDP(sport=45000, dport=53) / filler))
        assert out.packet[UDP].sport == 45000
        assert out.packet[UDP].chksum == 0xFFFF


# -- G4: options -----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("G4")
def test_ip_options_pass_in_both_directions() -> None:
    lab = Lab()
    for _ in range(2):
        for name, question, answer in transports(45000):
            out = lab.send("a", from_a(question, options=[IPOption_Router_Alert()]))
            assert out.verdict is Verdict.TRANSLATED_OUT, name
            assert out.packet[IP].src == EXTERNAL and out.packet[IP].options[0].option == 20
            if ICMP in answer:
                answer[ICMP].id = lab.external_port(out)
            else:
                answer.dport = lab.external_port(out)
            back = lab.send("uplink", from_outside(answer, options=[IPOption_Router_Alert()]))
            assert back.verdict is Verdict.TRANSLATED_IN and back.ports == ["a"], name
            assert back.packet[IP].dst == A_IP and back.packet[IP].options[0].option == 20


# -- G5: what is dropped, each with its own counter ------------------------------------------------------------------

PLAIN = from_a(UDP(sport=5, dport=6) / b"data")
OUTSIDE = from_outside(UDP(sport=5, dport=45000) / b"data")


@pytest.mark.requirement("G5")
@pytest.mark.parametrize(("packet", "verdict"), [
    pytest.param(spoiled(PLAIN, version=5), Verdict.DROP_BAD_VERSION, id="version"),
    pytest.param(spoiled(PLAIN, ihl=3), Verdict.DROP_BAD_IHL, id="header length"),
    pytest.param(spoiled(PLAIN, ihl=15), Verdict.DROP_BAD_IHL, id="header beyond the packet"),
    pytest.param(spoiled(PLAIN, len=1000), Verdict.DROP_BAD_LENGTH, id="total length"),
    pytest.param(spoiled(PLAIN, chksum=0x5555), Verdict.DROP_BAD_CHECKSUM, id="checksum"),
    pytest.param(from_a(UDP(len=4)), Verdict.DROP_BAD_TRANSPORT, id="UDP length"),
    pytest.param(from_a(TCP(dataofs=3)), Verdict.DROP_BAD_TRANSPORT, id="TCP header length"),
    pytest.param(Ether(src=A_MAC, dst=GATEWAY_MAC, type=0x0800) / Raw(b"\x45" * 19), Verdict.DROP_RUNT, id="runt"),
    pytest.param(Ether(src=A_MAC, dst=GATEWAY_MAC) / IPv6(dst="2001:db8::1"), Verdict.DROP_ETHERTYPE, id="IPv6"),
    pytest.param(Ether(src=A_MAC, dst=GATEWAY_MAC, type=0x0600) / Raw(bytes(40)), Verdict.DROP_ETHERTYPE, id="XNS"),
    pytest.param(from_a(UDP(), src="172.17.0.9", dst="172.17.0.9"), Verdict.DROP_LAND, id="land"),
    pytest.param(from_a(UDP(), src="10.9.9.9"), Verdict.DROP_MARTIAN_SOURCE, id="source of elsewhere"),
    pytest.param(from_a(UDP(), src=GATEWAY_IP), Verdict.DROP_MARTIAN_SOURCE, id="source is the gateway"),
    pytest.param(from_a(UDP(), src="172.17.255.255"), Verdict.DROP_MARTIAN_SOURCE, id="source is the broadcast"),
    pytest.param(from_a(UDP(), src="0.0.0.0"), Verdict.DROP_MARTIAN_SOURCE, id="source is nobody"),
    pytest.param(from_a(UDP(), dst="0.1.2.3"), Verdict.DROP_MARTIAN_DESTINATION, id="to this network"),
    pytest.param(from_a(UDP(), dst="127.0.0.1"), Verdict.DROP_MARTIAN_DESTINATION, id="to loopback"),
    pytest.param(from_a(UDP(), dst="224.0.0.1"), Verdict.DROP_MARTIAN_DESTINATION, id="to a group"),
    pytest.param(from_a(UDP(), dst="255.255.255.255"), Verdict.DROP_MARTIAN_DESTINATION, id="to everybody"),
    pytest.param(from_a(UDP(), dst="172.17.255.255"), Verdict.DROP_MARTIAN_DESTINATION, id="to the broadcast"),
    pytest.param(from_a(Raw(b"gre"), proto=47, dst="255.255.255.254"), Verdict.DROP_MARTIAN_DESTINATION, id="protocol"),
    pytest.param(from_a(ICMP(type=17)), Verdict.DROP_ICMP_TYPE, id="ICMP type"),
    pytest.param(from_a(ICMP(type=0)), Verdict.DROP_ICMP_TYPE, id="echo reply to nobody"),
    pytest.param(from_a(TCP(flags="SF")), Verdict.DROP_TCP_STATE, id="SYN+FIN"),
    pytest.param(from_a(TCP(flags="R")), Verdict.DROP_TCP_STATE, id="RST of nothing"),
])
def test_what_a_container_may_not_send_is_dropped_and_counted(packet: Packet, verdict: Verdict) -> None:
    lab = Lab(verify=False)
    for _ in range(2):  # once more, now that the fast path knows the way to the gateway
        out = lab.send("a", packet)
        assert (out.verdict, out.sent) == (verdict, [])
    assert verdict.is_drop and lab.dp.counters()[verdict.label] == 2
    assert not lab.flows()


@pytest.mark.requirement("G5")
@pytest.mark.parametrize(("packet", "verdict"), [
    pytest.param(spoiled(OUTSIDE, version=5), Verdict.DROP_BAD_VERSION, id="version"),
    pytest.param(spoiled(OUTSIDE, ihl=3), Verdict.DROP_BAD_IHL, id="header length"),
    pytest.param(spoiled(OUTSIDE, len=1000), Verdict.DROP_BAD_LENGTH, id="total length"),
    pytest.param(spoiled(OUTSIDE, chksum=0x5555), Verdict.DROP_BAD_CHECKSUM, id="checksum"),
    pytest.param(from_outside(UDP(len=4)), Verdict.DROP_BAD_TRANSPORT, id="UDP length"),
    pytest.param(Ether(src=ROUTER_MAC, dst=UPLINK_MAC, type=0x0800), Verdict.DROP_RUNT, id="runt"),
    pytest.param(from_outside(UDP(), src=EXTERNAL), Verdict.DROP_LAND, id="land"),
    pytest.param(from_outside(UDP(), src="198.51.100.77"), Verdict.DROP_MARTIAN_SOURCE, id="source is the host's own"),
    pytest.param(from_outside(UDP(), src=A_IP), Verdict.DROP_MARTIAN_SOURCE, id="source is a container"),
    pytest.param(from_outside(UDP(), src="127.0.0.1"), Verdict.DROP_MARTIAN_SOURCE, id="source is loopback"),
    pytest.param(from_outside(UDP(), src="0.0.0.0"), Verdict.DROP_MARTIAN_SOURCE, id="source is nobody"),
    pytest.param(from_outside(UDP(), src="224.0.0.1"), Verdict.DROP_MARTIAN_SOURCE, id="source is a group"),
    pytest.param(from_outside(UDP(), src="255.255.255.255"), Verdict.DROP_MARTIAN_SOURCE, id="source is everybody"),
    pytest.param(from_outside(UDP(), dst=A_IP), Verdict.DROP_NOT_FOR_US, id="to a container"),
    pytest.param(from_outside(UDP(), dst="198.51.100.9"), Verdict.DROP_NOT_FOR_US, id="to a stranger"),
    pytest.param(from_outside(UDP(dport=45000)), Verdict.DROP_NO_MAPPING, id="to a port nobody has"),
    pytest.param(Ether(src=ROUTER_MAC, dst=BROADCAST_MAC, type=0x0806) / Raw(b"\0"), Verdict.DROP_BAD_ARP, id="ARP"),
    pytest.param(Ether(src=ROUTER_MAC, dst="02:99:00:00:00:01") / IP() / UDP(), Verdict.DROP_NOT_FOR_US, id="other MAC"),
])
def test_what_may_not_come_in_is_dropped_and_counted(packet: Packet, verdict: Verdict) -> None:
    lab = Lab(verify=False)
    lab.dp.update_uplink(uplink_config(local=("198.51.100.77",)))
    for _ in range(2):
        out = lab.send("uplink", packet)
        assert (out.verdict, out.sent) == (verdict, [])
    assert lab.dp.counters()[verdict.label] == 2


@pytest.mark.requirement("G5")
@pytest.mark.parametrize("size", range(14))
def test_a_runt_from_outside_is_counted_as_one(size: int) -> None:
    assert Lab().send("uplink", bytes(10) + bytes(OUTSIDE)[:size]).verdict is Verdict.DROP_RUNT


def test_every_verdict_is_a_counter_of_its_own() -> None:
    counters = Lab().dp.counters()
    assert {verdict.label for verdict in Verdict} <= counters.keys()
    assert counters["absorbed"] == 1 and sum(counters[verdict.label] for verdict in Verdict) == 1


# -- G6: what the gateway answers ------------------------------------------------------------------------------------


@pytest.mark.requirement("G6")
def test_the_gateway_answers_pings() -> None:
    lab = Lab()
    out = lab.send("a", from_a(ICMP(id=7, seq=9) / DATA, dst=GATEWAY_IP))
    assert out.verdict is Verdict.ECHO_ANSWERED and out.ports == ["a"]
    assert (out.packet[Ether].src, out.packet[Ether].dst) == (GATEWAY_MAC, A_MAC)
    assert (out.packet[IP].src, out.packet[IP].dst) == (GATEWAY_IP, A_IP)
    assert (out.packet[ICMP].type, out.packet[ICMP].id, out.packet[ICMP].seq) == (0, 7, 9)
    assert bytes(out.packet[ICMP].payload) == DATA


@pytest.mark.requirement("G6")
def test_everything_else_for_the_gateway_is_the_hosts() -> None:
    lab = Lab()
    for body in (TCP(dport=22, flags="S"), UDP(dport=53) / b"x", ICMP(type=13), ICMP(type=0)):
        out = lab.send("a", from_a(body, dst=GATEWAY_IP))
        assert out.verdict is Verdict.TO_HOST and out.ports == ["host"]
        assert bytes(out.packet) == bytes(from_a(body, dst=GATEWAY_IP)), "as it was, TTL and all"


@pytest.mark.requirement("G6")
def test_errors_are_limited_for_each_host() -> None:
    lab = Lab()
    verdicts = [lab.send("a", from_a(UDP(), ttl=1)).verdict for _ in range(30)]
    assert set(verdicts) == {Verdict.ICMP_TIME_EXCEEDED, Verdict.DROP_RATE_LIMITED}
    assert verdicts.count(Verdict.ICMP_TIME_EXCEEDED) == 10
    assert set(verdicts[:10]) == {Verdict.ICMP_TIME_EXCEEDED}, "the first ones are answered"
    other = Ether(src=B_MAC, dst=GATEWAY_MAC) / IP(src=B_IP, dst=REMOTE, ttl=1) / UDP()
    assert lab.send("b", other).verdict is Verdict.ICMP_TIME_EXCEEDED
    lab.wait(1)
    assert lab.send("a", from_a(UDP(), ttl=1)).verdict is Verdict.ICMP_TIME_EXCEEDED
    assert lab.send("a", from_a(ICMP(), dst=GATEWAY_IP)).verdict is Verdict.ECHO_ANSWERED, "pings have a limit of their own"


@pytest.mark.requirement("G6")
def test_a_flood_of_pings_is_limited_too() -> None:
    lab = Lab()
    verdicts = [lab.send("a", from_a(ICMP(), dst=GATEWAY_IP)).verdict for _ in range(1100)]
    assert verdicts == [Verdict.ECHO_ANSWERED] * 1000 + [Verdict.DROP_RATE_LIMITED] * 100


@pytest.mark.requirement("G6")
def test_an_address_of_natgws_own_is_answered_for_and_a_shared_one_is_left_to_the_host() -> None:
    asked = Ether(src=ROUTER_MAC, dst=BROADCAST_MAC) / ARP(hwsrc=ROUTER_MAC, psrc=ROUTER, pdst=EXTERNAL)
    ping = from_outside(ICMP(id=5) / DATA)
    own, shared = Lab(exclusive=True), Lab()
    out = own.send("uplink", asked)
    assert out.verdict is Verdict.ABSORBED
    assert bytes(out.packet) == bytes(arp_reply(EXTERNAL, UPLINK_MAC, to_ip=ROUTER, to_mac=ROUTER_MAC))
    out = own.send("uplink", ping)
    assert out.verdict is Verdict.ECHO_ANSWERED and (out.packet[IP].src, out.packet[IP].dst) == (EXTERNAL, REMOTE)
    for frame, verdict in ((asked, Verdict.ABSORBED), (ping, Verdict.TO_HOST)):
        out = shared.send("uplink", frame)
        assert (out.verdict, out.sent) == (verdict, [])


def test_outside_the_port_range_the_shared_address_is_the_hosts() -> None:
    for body, shared, own in (
            (TCP(dport=22, flags="A"), Verdict.TO_HOST, Verdict.DROP_NO_MAPPING),
            (UDP(dport=39999), Verdict.TO_HOST, Verdict.DROP_NO_MAPPING),
            (UDP(dport=40000), Verdict.DROP_NO_MAPPING, Verdict.DROP_NO_MAPPING),
            (ICMP(type=13), Verdict.TO_HOST, Verdict.DROP_NO_MAPPING)):
        assert Lab().send("uplink", from_outside(body)).verdict is shared
        assert Lab(exclusive=True).send("uplink", from_outside(body)).verdict is own
    for exclusive, verdicts in ((False, (Verdict.TO_HOST, Verdict.TO_HOST)),
                                (True, (Verdict.DROP_PROTOCOL, Verdict.DROP_ETHERTYPE))):
        lab = Lab(exclusive=exclusive)
        assert lab.send("uplink", from_outside(Raw(b"gre"), proto=47)).verdict is verdicts[0]
        assert lab.send("uplink", Ether(src=ROUTER_MAC, dst=UPLINK_MAC) / IPv6()).verdict is verdicts[1]


# -- the way out -----------------------------------------------------------------------------------------------------


def test_frames_wait_for_the_next_hop_and_leave_in_order() -> None:
    lab = Lab(resolved=False)
    out = lab.send("a", from_a(UDP(sport=45000, dport=53) / b"0"))
    assert out.verdict is Verdict.QUEUED and out.ports == ["uplink"]
    assert bytes(out.packet) == bytes(Ether(src=UPLINK_MAC, dst=BROADCAST_MAC) / ARP(
        hwsrc=UPLINK_MAC, psrc=EXTERNAL, hwdst="00:00:00:00:00:00", pdst=ROUTER))
    for number in range(1, 4):
        assert lab.send("a", from_a(UDP(sport=45000, dport=53) / str(number))).sent == []
    out = lab.send("uplink", arp_reply(ROUTER, ROUTER_MAC))
    assert out.verdict is Verdict.ABSORBED
    assert [bytes(each.packet[UDP].payload) for each in out.sent] == [b"0", b"1", b"2", b"3"]
    assert {each.packet[Ether].dst for each in out.sent} == {ROUTER_MAC}
    assert lab.send("a", from_a(UDP(sport=45000, dport=53))).verdict is Verdict.TRANSLATED_OUT


def test_only_the_newest_frames_wait() -> None:
    lab = Lab(resolved=False)
    room = MAX_QUEUED_BYTES // (L3 + 28 + 1400 + QUEUED_FRAME_BYTES)
    for number in range(room + 4):
        lab.send("a", from_a(UDP(sport=45000, dport=53) / (bytes((number,)) * 1400)))
    assert lab.dp.counters()["queue_dropped"] == 4
    out = lab.send("uplink", arp_reply(ROUTER, ROUTER_MAC))
    assert [bytes(each.packet[UDP].payload)[0] for each in out.sent] == list(range(4, room + 4))


def test_a_next_hop_that_is_not_there_is_told() -> None:
    lab = Lab(resolved=False)
    packet = from_a(UDP(sport=45000, dport=53) / DATA, id=3)
    lab.send("a", packet)
    sent = lab.wait(5)
    assert [each.port for each in sent] == ["uplink", "uplink", "a"]
    error = sent[-1].packet
    assert (error[IP].src, error[IP].dst, error[ICMP].type, error[ICMP].code) == (GATEWAY_IP, A_IP, 3, 1)
    quoted = IP(sent[-1].quoted)
    assert (quoted.src, quoted.dst, quoted.payload.sport, quoted.id) == (A_IP, REMOTE, 45000, 3)
    assert lab.dp.counters()["queue_dropped"] == 1
    assert lab.send("a", packet).verdict is Verdict.QUEUED, "the next packet asks again"


def test_a_neighbour_on_the_uplinks_own_network_is_reached_directly() -> None:
    lab = Lab()
    out = lab.send("a", from_a(UDP(sport=45000, dport=53), dst="198.51.100.7"))
    assert out.verdict is Verdict.QUEUED and out.packet[ARP].pdst == "198.51.100.7"
    out = lab.send("uplink", arp_reply("198.51.100.7", "02:cc:00:00:00:01"))
    assert out.packet[Ether].dst == "02:cc:00:00:00:01"


@pytest.mark.requirement("G6")
def test_without_a_route_the_sender_is_told() -> None:
    lab = Lab()
    lab.dp.update_uplink(UplinkConfig(mac=parse_mac(UPLINK_MAC), addresses=(IPv4Interface(f"{EXTERNAL}/24"),), routes=()))
    out = lab.send("a", from_a(UDP(sport=5, dport=6) / DATA))
    assert out.verdict is Verdict.ICMP_UNREACHABLE and out.ports == ["a"]
    assert (out.packet[IP].src, out.packet[ICMP].type, out.packet[ICMP].code) == (GATEWAY_IP, 3, 0)
    assert not lab.flows()


@pytest.mark.parametrize("how", ["never there", "cleared", "no address"])
def test_without_an_uplink_the_sender_is_told_and_containers_talk(how: str) -> None:
    lab = Lab()
    if how == "no address":
        lab.dp.update_uplink(UplinkConfig(mac=parse_mac(UPLINK_MAC), addresses=(), routes=()))
    else:
        lab.dp.clear_uplink()
        lab.dp.clear_uplink()
    out = lab.send("a", from_a(UDP(sport=5, dport=6)))
    assert out.verdict is Verdict.ICMP_UNREACHABLE and out.packet[ICMP].code == 0
    assert lab.send("a", from_a(UDP(), dst=B_IP)).verdict is Verdict.ROUTED
    assert lab.send("a", from_a(ICMP(), dst=GATEWAY_IP)).verdict is Verdict.ECHO_ANSWERED
    expected = Verdict.DROP_NOT_FOR_US if how == "no address" else Verdict.DROP_NO_UPLINK
    assert lab.send("uplink", OUTSIDE).verdict is expected


def test_there_is_one_uplink() -> None:
    lab = Lab()
    with pytest.raises(Conflict, match="the uplink is uplink already"):
        lab.dp.set_uplink("eth1", lambda frame: None, uplink_config())


def test_an_address_of_the_host_is_reached_by_way_of_natgw0() -> None:
    lab = Lab()
    lab.dp.update_uplink(uplink_config(local=("192.0.2.50",)))
    for dst in ("192.0.2.50", EXTERNAL):
        out = lab.send("a", from_a(TCP(dport=22, flags="S"), dst=dst))
        assert out.verdict is Verdict.TO_HOST and out.ports == ["host"]


# -- U10: links of different size ------------------------------------------------------------------------------------


@pytest.mark.requirement("U10")
@pytest.mark.parametrize("known", [False, True], ids=["new flow", "known flow"])
def test_a_packet_that_must_not_be_fragmented_is_refused_with_the_mtu(known: bool) -> None:
    lab = Lab(uplink_mtu=1400)
    if known:
        lab.send("a", from_a(UDP(sport=45000, dport=53)))
    assert lab.send("a", from_a(UDP(sport=45000, dport=53) / bytes(1372), flags="DF")).verdict is Verdict.TRANSLATED_OUT
    packet = from_a(UDP(sport=45000, dport=53) / bytes(1373), flags="DF")
    out = lab.send("a", packet)
    assert out.verdict is Verdict.ICMP_TOO_BIG and out.ports == ["a"]
    assert (out.packet[IP].src, out.packet[ICMP].type, out.packet[ICMP].code) == (GATEWAY_IP, 3, 4)
    assert out.packet[ICMP].nexthopmtu == 1400
    assert out.only.quoted == bytes(packet[IP])[: 576 - 28], "as the sender knows it"


@pytest.mark.requirement("U10")
@pytest.mark.parametrize("whole", [False, True], ids=["partial checksum", "complete checksum"])
def test_a_packet_that_may_be_fragmented_is(whole: bool) -> None:
    lab = Lab(uplink_mtu=1400)
    packet = from_a(UDP(sport=45000, dport=53) / bytes(i % 251 for i in range(1473)), id=4711)
    out = lab.send("a", bytes(10) + bytes(packet) if whole else partial(packet))
    assert out.verdict is Verdict.FRAGMENTED and out.ports == ["uplink"] * 2
    expected = Ether(src=UPLINK_MAC, dst=ROUTER_MAC) / IP(src=EXTERNAL, dst=REMOTE, id=4711, ttl=63) / UDP(
        sport=45000, dport=53) / bytes(i % 251 for i in range(1473))
    assert [bytes(each.packet) for each in out.sent] == [bytes(piece) for piece in fragment(expected, fragsize=1376)]


@pytest.mark.requirement("U10")
def test_the_first_packet_is_judged_before_the_router_is_found() -> None:
    """One with DF would else be lost on the uplink, and its sender not told."""
    lab = Lab(uplink_mtu=1400, resolved=False)
    out = lab.send("a", from_a(UDP(sport=45000, dport=53) / bytes(1373), flags="DF"))
    assert out.verdict is Verdict.ICMP_TOO_BIG and out.ports == ["uplink", "a"], "an ARP request, and the error"
    assert out.sent[1].packet[ICMP].nexthopmtu == 1400
    assert lab.send("a", from_a(UDP(sport=45000, dport=53) / bytes(1473))).verdict is Verdict.QUEUED
    found = [each for each in lab.send("uplink", arp_reply(ROUTER, ROUTER_MAC)).sent if each.port == "uplink"]
    assert [len(bytes(each.packet[IP])) for each in found] == [1396, 125]
    assert all(each.packet.dst == ROUTER_MAC for each in found)


@pytest.mark.requirement("U10")
@pytest.mark.parametrize("fast_path", [True, False])
def test_a_tcp_superframe_is_made_to_fit_the_uplink(fast_path: bool) -> None:
    lab = Lab(uplink_mtu=1400, fast_path=fast_path)
    superframe = partial(from_a(TCP(sport=45000, dport=80, flags="A") / bytes(9000), flags="DF"), gso_type=GSO_TCPV4,
                         gso_size=1460)
    for _ in range(2):
        out = lab.send("a", superframe)
        assert out.verdict is Verdict.TRANSLATED_OUT
        assert int.from_bytes(out.only.vnet[4:6], "little") == 1360
    small = partial(from_a(TCP(sport=45000, dport=80, flags="A") / bytes(9000), flags="DF"), gso_type=GSO_TCPV4, gso_size=1000)
    assert int.from_bytes(lab.send("a", small).only.vnet[4:6], "little") == 1000


@pytest.mark.requirement("U10")
def test_datagrams_of_a_superframe_too_big_for_the_uplink() -> None:
    lab = Lab(uplink_mtu=1400)
    data = bytes(i % 251 for i in range(2946))
    out = lab.send("a", partial(from_a(UDP(sport=45000, dport=53) / data, flags="DF"), gso_type=GSO_UDP_L4, gso_size=1473))
    assert out.verdict is Verdict.ICMP_TOO_BIG
    out = lab.send("a", partial(from_a(UDP(sport=45000, dport=53) / data), gso_type=GSO_UDP_L4, gso_size=1473))
    assert out.verdict is Verdict.FRAGMENTED and out.ports == ["uplink"] * 4
    assert b"".join(bytes(each.packet[IP].payload)[0 if each.packet[IP].frag else 8 :] for each in out.sent) == data
    assert lab.dp.counters()["split_superframes"] == 1


@pytest.mark.parametrize("vnet", [
    pytest.param(VNET.pack(NEEDS_CSUM, 0, 0, 0, 14, 0), id="checksum in the IP header"),
    pytest.param(VNET.pack(NEEDS_CSUM, 0, 0, 0, 0xFFFF, 0), id="checksum behind the frame"),
    pytest.param(VNET.pack(NEEDS_CSUM, GSO_UDP, 0, 16, 34, 6), id="UFO"),
    pytest.param(VNET.pack(NEEDS_CSUM, GSO_TCPV4, 0, 0, 34, 6), id="segments of no bytes")])
def test_an_offload_header_that_lies_costs_nothing_but_its_frame(vnet: bytes) -> None:
    lab = Lab(uplink_mtu=1400, verify=False)
    frame = partial(from_a(UDP(sport=45000, dport=53) / bytes(1473)))
    out = lab.send("a", vnet + frame[10:])
    assert (out.verdict, out.sent) == (Verdict.DROP_BAD_OFFLOAD, [])


# -- several networks ------------------------------------------------------------------------------------------------


def test_networks_reach_the_outside_each_by_its_gateway() -> None:
    lab = Lab()
    other = lab.dp.add_network(NetworkConfig(name="other", subnet=IPv4Network("172.18.0.0/16"),
                                             gateway=IPv4Address("172.18.0.1"), gateway_mac=parse_mac("02:42:ac:12:00:01")))
    lab.add_port("x", bridge=other)
    lab.dp.add_neighbour(other, IPv4Address("172.18.0.2"), parse_mac("02:42:ac:12:00:02"), lab.ports["x"], lab.now)
    link = Ether(src="02:42:ac:12:00:02", dst="02:42:ac:12:00:01")
    packet = link / IP(src="172.18.0.2", dst=REMOTE) / UDP(sport=45000, dport=5)
    assert lab.external_port(lab.send("x", packet)) == 45000
    assert lab.external_port(lab.send("a", from_a(UDP(sport=45000, dport=5)))) != 45000
    assert lab.send("uplink", from_outside(UDP(sport=5, dport=45000))).ports == ["x"]
    assert sorted(str(flow["network"]) for flow in lab.flows()) == ["bridge", "other"]
    lab.dp.remove_network(other)
    assert [flow["network"] for flow in lab.flows()] == ["bridge"]
    assert lab.send("uplink", from_outside(UDP(sport=5, dport=45000))).verdict is Verdict.DROP_NO_MAPPING


@pytest.mark.parametrize("body", [UDP(sport=45000, dport=5), TCP(sport=45000, dport=5), ICMP(id=7)], ids=["udp", "tcp", "icmp"])
def test_who_asks_for_nobody_outside_hears_so_from_the_gateway_of_its_own_network(body: Packet) -> None:
    lab = Lab()
    other = lab.dp.add_network(NetworkConfig(name="other", subnet=IPv4Network("172.18.0.0/16"),
                                             gateway=IPv4Address("172.18.0.1"), gateway_mac=parse_mac("02:42:ac:12:00:01")))
    lab.add_port("x", bridge=other)
    lab.dp.add_neighbour(other, IPv4Address("172.18.0.2"), parse_mac("02:42:ac:12:00:02"), lab.ports["x"], lab.now)
    lab.send("x", Ether(src="02:42:ac:12:00:02", dst="02:42:ac:12:00:01") / IP(src="172.18.0.2", dst="198.51.100.77") / body)
    (error,) = [sent for sent in lab.wait(10) if sent.port == "x"]
    assert (error.packet[IP].src, error.packet[IP].dst) == ("172.18.0.1", "172.18.0.2")
    assert (error.packet[ICMP].type, error.packet[ICMP].code) == (3, 1)


def test_a_datapath_without_anything_counts_and_drops() -> None:
    dp = Datapath()
    bridge = dp.add_network(NetworkConfig(name="n", subnet=IPv4Network("10.0.0.0/24"), gateway=IPv4Address("10.0.0.1"),
                                          gateway_mac=parse_mac(GATEWAY_MAC)))
    port = dp.add_port(bridge, "p", PortKind.ENDPOINT, transmit=lambda frame: None)
    frame = bytes(10) + bytes(Ether(src=A_MAC, dst=GATEWAY_MAC) / IP(src="10.0.0.2", dst=REMOTE) / UDP())
    dp.receive(port, bytearray(frame + bytes(64)), len(frame), 1.0)
    assert dp.counters()["icmp_unreachable"] == 1
    records: list[dict[str, Any]] = dp.port_records()
    assert [record["name"] for record in records] == ["p"]
    assert dp.tick(2.0) == pytest.approx(3.0)
