"""Fragments through the translator, in every order and in floods (requirement U11)."""

from __future__ import annotations

import itertools

import pytest
from scapy.layers.inet import ICMP, IP, defragment, fragment
from scapy.packet import Packet, Raw

from natgw.tables.flows import Flow, Leg, Realm
from natgw.tables.fragments import LIFETIME_S, MAX_PACKETS, MAX_WAITING_BYTES, MAX_WAITING_EACH, FragmentTable
from natgw.tables.neigh import Neighbour
from natgw.wire.ipv4 import UDP
from tests.unit.test_behaviour import EXTERNAL, FAR, ONE, TWO, Lab, udp

PAYLOAD = bytes(range(256)) * 12


def pieces(packet: Packet, size: int = 1000) -> list[Packet]:
    packet.id = 77
    return list(fragment(packet, fragsize=size))


def whole(sent: list[tuple[str, Packet]], where: str) -> Packet:
    """The packet that fragments make, with its checksums verified by scapy's recomputation."""
    assert {place for place, _ in sent} == {where}
    (packet,) = defragment(sorted((IP(bytes(one)) for _, one in sent), key=lambda one: int(one.frag)))
    packet = IP(bytes(packet))
    checksums = packet.chksum, packet.payload.chksum
    again = packet.copy()
    del again.chksum
    del again.payload.chksum
    again = IP(bytes(again))
    assert (again.chksum, again.payload.chksum) == checksums
    assert isinstance(packet, Packet)
    return packet


@pytest.mark.requirement("U11", "G2")
@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_fragments_cross_in_any_order_both_ways(order: tuple[int, ...]) -> None:
    lab = Lab()
    parts = pieces(udp(ONE, 5000, *FAR[0], PAYLOAD))
    assert len(parts) == 4
    sent = [emission for index in order for emission in lab.out(parts[index])]
    packet = whole(sent, "outside")
    assert (packet.src, packet.sport, packet.dport, packet.ttl) == (EXTERNAL, 5000, FAR[0][1], 63)
    assert bytes(packet[Raw]) == PAYLOAD
    parts = pieces(udp(*FAR[0], EXTERNAL, 5000, PAYLOAD))
    packet = whole([emission for index in order for emission in lab.into(parts[index])], ONE)
    assert (packet.dst, packet.dport, bytes(packet[Raw])) == (ONE, 5000, PAYLOAD)


@pytest.mark.requirement("U11")
def test_a_big_echo_crosses() -> None:
    lab = Lab()
    sent = [e for part in pieces(IP(src=ONE, dst=FAR[0][0]) / ICMP(id=9) / PAYLOAD) for e in lab.out(part)]
    packet = whole(sent, "outside")
    assert (packet.src, bytes(packet[Raw])) == (EXTERNAL, PAYLOAD)


@pytest.mark.requirement("U11", "U2")
def test_fragments_are_filtered_with_their_first() -> None:
    lab = Lab()
    lab.seen(udp(ONE, 5000, *FAR[0]))
    assert [e for part in pieces(udp(*FAR[1], EXTERNAL, 5000, PAYLOAD)) for e in lab.into(part)] == []
    assert lab.count("drop_filtered") == 1
    assert lab.count("fragment_waits") == 3
    lab.advance(LIFETIME_S + 1)
    assert lab.count("fragments_lost") == 3


@pytest.mark.requirement("U11", "U7")
def test_fragments_hairpin() -> None:
    lab = Lab()
    one, two = lab.seen(udp(ONE, 5000, *FAR[0])), lab.seen(udp(TWO, 6000, *FAR[0]))
    lab.out(udp(ONE, 5000, *two))
    packet = whole([e for part in pieces(udp(TWO, 6000, *one, PAYLOAD)) for e in lab.out(part)], ONE)
    assert (packet.src, packet.sport, bytes(packet[Raw])) == (*two, PAYLOAD)


@pytest.mark.requirement("G1")
def test_no_error_is_made_about_a_later_fragment() -> None:
    lab = Lab()
    first, later, *_ = pieces(udp(ONE, 5000, *FAR[0], PAYLOAD))
    first.ttl = later.ttl = 1
    assert [where for where, _ in lab.out(first)] == [ONE]
    assert lab.out(later) == []
    assert lab.count("drop_ttl") == 1


@pytest.mark.requirement("U11", "U8")
def test_a_flood_of_fragments_does_not_stop_whole_packets() -> None:
    lab = Lab()
    for number in range(3000):
        lab.into(IP(src=FAR[0][0], dst=EXTERNAL, id=number & 0xFFFF, frag=100, flags="MF", proto=17) / Raw(bytes(1000)))
    assert lab.seen(udp(ONE, 5000, *FAR[0])) == (EXTERNAL, 5000)
    assert lab.into(udp(*FAR[0], EXTERNAL, 5000))


def a_leg() -> Leg:
    original, reply = (Leg(bytes(12), bytes(12), Realm(), Neighbour(bytes(4), 0.0)) for _ in range(2))
    return Flow(UDP, original, reply, None, "bridge", "outbound").original


def test_the_table_is_bounded() -> None:
    table = FragmentTable()
    for number in range(MAX_PACKETS + 10):
        assert table.wait(number.to_bytes(4, "big"), bytes(10), 0.0)
    assert len(table) == MAX_PACKETS
    assert table.lost == 10
    table = FragmentTable()
    for _ in range(MAX_WAITING_EACH):
        assert table.wait(b"k", bytes(10), 0.0)
    assert not table.wait(b"k", bytes(10), 0.0)
    table = FragmentTable()
    for number in range(100):
        table.wait(bytes([number]), bytes(MAX_WAITING_BYTES // 50), 0.0)
    assert len(table) <= 50


def test_a_leader_is_forgotten_in_time() -> None:
    table, leg = FragmentTable(), a_leg()
    assert table.wait(b"k", b"frame", 0.0)
    assert table.lead(b"k", leg, 1.0) == [b"frame"]
    assert table.leader(b"k", 2.0) is leg
    assert table.leader(b"k", LIFETIME_S) is None
    table.wait(b"k", b"another", LIFETIME_S + 1)
    assert table.leader(b"k", LIFETIME_S + 1) is None
    table.expire(3 * LIFETIME_S)
    assert (len(table), table.lost) == (0, 1)
