"""Rewriting packets by what it promises: a translated packet is the one that its new sender would have made, one hop older.

Both are made by scapy, checksums included, and compared byte by byte.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP
from scapy.packet import Packet

from natgw.datapath.rewrite import (
    can_translate,
    decrement_ttl,
    increment_ttl,
    prepare,
    prepare_flow,
    translate,
    translate_addresses,
)
from natgw.tables.flows import Flow, Leg, Realm, leg_key
from natgw.tables.neigh import Neighbour
from natgw.testing.modelwords import Endpoint
from natgw.testing.packets import dissected, fragments_of, packet_of, transport_of
from natgw.wire.checksum import ones_sum, pseudo_sum
from natgw.wire.ethernet import L3, TYPE_IPV4
from natgw.wire.ip import IpPacket
from natgw.wire.ipv4 import CHECKSUM_OFFSET, PROTOCOL_NUMBERS
from natgw.wire.parse import parse_packet
from natgw.wire.vnet import NEEDS_CSUM
from tests.unit.test_protocols import dccp, udplite

BEFORE: dict[int, tuple[Endpoint, Endpoint]] = {4: (("172.17.0.2", 5000), ("198.51.100.2", 33333)),
                                                6: (("fd00:1:2:3::2", 5000), ("2001:db8:51::2", 33333))}
"""Source and destination of a packet as it comes, by IP version. Of a hairpin all of it changes."""
AFTER: dict[int, tuple[Endpoint, Endpoint]] = {4: (("198.51.100.2", 60001), ("172.17.0.77", 81)),
                                               6: (("2001:db8:51::2", 60001), ("fd00:1:2:3::77", 81))}
NUMBERS = {**PROTOCOL_NUMBERS, "50": 50}
CASES = [(protocol, version) for version in (4, 6)
         for protocol in ("tcp", "udp", "icmp" if version == 4 else "icmpv6", "udplite", "sctp", "gre", "50")] + [("dccp", 4)]
EVERY = pytest.mark.parametrize(("protocol", "version"), CASES)
DATA_VALID = 2
"""Another flag of the offload header, which the packet keeps."""


def aged(packet: bytes, ttl: int) -> bytes:
    """The packet with another TTL."""
    found = IP(packet)
    found.ttl, found.chksum = ttl, None
    return bytes(found)


def made(protocol: str, ends: tuple[Endpoint, Endpoint], *, payload: bytes = b"payload", ttl: int = 64) -> Packet:
    """A packet between two endpoints; of a query the source's port is the identifier."""
    if protocol == "dccp":
        return IP(aged(dccp(*ends[0], *ends[1], payload, 1), ttl))
    packet = packet_of(protocol, *ends, payload, number=7, flags="PA", ttl=ttl, identifier=ends[0][1])
    if protocol in ("gre", "50"):  # what lies where others have ports is none
        data, at = bytes(packet), transport_of(bytes(packet)).at
        return dissected(data[:at] + b"\x30\x01\x88\xbe" + data[at + 4 :])
    return packet


def read(packet: Packet | bytes, *, offload: int = 0) -> IpPacket:
    """The packet as it lies in a frame that has stale bytes behind it."""
    frame = bytes((offload,)) + bytes(L3 - 1) + bytes(packet)
    found = parse_packet(bytearray(frame + b"\xa5" * 64), len(frame))
    assert isinstance(found, IpPacket), found
    return found


def written(packet: IpPacket) -> bytes:
    assert packet.buf[packet.end :] == b"\xa5" * 64
    return bytes(packet.buf[L3 : packet.end])


def key_of(protocol: str, ends: tuple[Endpoint, Endpoint]) -> bytes:
    (src, sport), (dst, dport) = ends
    if protocol in ("gre", "50"):
        sport = dport = 0
    return leg_key(ip_address(src).packed, ip_address(dst).packed, sport, sport if protocol.startswith("icmp") else dport)


def flow_of(protocol: str, version: int) -> Flow:
    """The flow whose original leg makes AFTER of BEFORE."""
    key, rewrite = (key_of(protocol, ends[version]) for ends in (BEFORE, AFTER))
    back_key, back = (key_of(protocol, ends[version][::-1]) for ends in (AFTER, BEFORE))
    if protocol.startswith("icmp"):
        back_key, back = back_key[:-4] + rewrite[-4:], back[:-4] + key[-4:]
    hop: Neighbour[object] = Neighbour(b"", 0.0)
    return Flow(NUMBERS[protocol], Leg(key, rewrite, Realm(), hop), Leg(back_key, back, Realm(), hop), None, "net", "outbound")


def leg_of(protocol: str, version: int) -> Leg:
    flow = flow_of(protocol, version)
    prepare_flow(flow)
    return flow.original


def sums(leg: Leg) -> tuple[int, ...]:
    return leg.key_sum, leg.ip_delta, leg.l4_delta, leg.addr_delta


# -- what is computed once ---------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.requirement("G2")
def test_the_sums_of_a_flow_are_those_of_its_two_legs(protocol: str, version: int) -> None:
    together, apart = flow_of(protocol, version), flow_of(protocol, version)
    prepare_flow(together)
    for leg in (apart.original, apart.reply):
        prepare(leg, apart.protocol)
    assert (sums(together.original), sums(together.reply)) == (sums(apart.original), sums(apart.reply))
    assert together.original.l4_delta != together.reply.l4_delta or protocol in ("gre", "50")


@pytest.mark.requirement("G2")
def test_the_addresses_of_a_leg_verify_a_header_with_what_else_is_in_it() -> None:
    """As the fast path does it: with the Ethernet type, which it reads along, and all words of a header but the addresses."""
    flow = flow_of("udp", 4)
    prepare_flow(flow)
    for leg, ends in ((flow.original, BEFORE[4]), (flow.reply, AFTER[4][::-1])):
        header = bytes(made("udp", ends))[:20]
        assert (TYPE_IPV4 + ones_sum(header[:12]) + leg.key_sum) % 0xFFFF == 0


# -- translating -------------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("back", [False, True], ids=["there", "back"])
@pytest.mark.requirement("G1", "G2")
def test_a_translated_packet_is_that_of_its_new_sender_one_hop_older(protocol: str, version: int, back: bool) -> None:
    flow = flow_of(protocol, version)
    prepare_flow(flow)
    before, after = BEFORE[version], AFTER[version]
    if back and protocol.startswith("icmp"):  # the same identifier in an answer
        before, after = ((after[1][0], after[0][1]), after[0]), ((before[1][0], before[0][1]), before[0])
    elif back:
        before, after = after[::-1], before[::-1]
    packet = read(made(protocol, before))
    translate(packet, flow.reply if back else flow.original)
    assert written(packet) == bytes(made(protocol, after, ttl=63))


@pytest.mark.parametrize(("protocol", "version"), [("tcp", 4), ("udp", 4), ("tcp", 6), ("udp", 6)])
@pytest.mark.requirement("G2")
def test_a_partial_checksum_is_that_of_the_new_pseudo_header(protocol: str, version: int) -> None:
    def unfinished(ends: tuple[Endpoint, Endpoint], ttl: int) -> bytes:
        data = bytearray(bytes(made(protocol, ends, ttl=ttl)))
        at = transport_of(bytes(data)).at
        field = at + CHECKSUM_OFFSET[NUMBERS[protocol]]
        addresses = data[12:20] if version == 4 else data[8:40]
        data[field : field + 2] = pseudo_sum(addresses, NUMBERS[protocol], len(data) - at).to_bytes(2, "big")
        return bytes(data)

    packet = read(unfinished(BEFORE[version], 64), offload=NEEDS_CSUM | DATA_VALID)
    translate(packet, leg_of(protocol, version))
    assert written(packet) == unfinished(AFTER[version], 63)
    assert packet.buf[0] == NEEDS_CSUM | DATA_VALID


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.requirement("G2")
def test_a_checksum_of_sctp_that_was_left_to_the_card_is_finished_here(version: int) -> None:
    data = bytearray(bytes(made("sctp", BEFORE[version])))
    at = transport_of(bytes(data)).at
    data[at + 8 : at + 12] = b"\xde\xad\xbe\xef"
    packet = read(bytes(data), offload=NEEDS_CSUM | DATA_VALID)
    translate(packet, leg_of("sctp", version))
    assert written(packet) == bytes(made("sctp", AFTER[version], ttl=63))
    assert packet.buf[0] == DATA_VALID


@pytest.mark.parametrize(("protocol", "version", "value"), [
    ("tcp", 4, 0), ("icmp", 4, 0), ("tcp", 6, 0), ("udp", 4, 0xFFFF), ("udp", 6, 0xFFFF), ("udplite", 4, 0xFFFF),
    ("dccp", 4, 0xFFFF), ("icmpv6", 6, 0xFFFF)])
@pytest.mark.requirement("G2", "G3")
def test_a_checksum_that_becomes_zero(protocol: str, version: int, value: int) -> None:
    """Zero where it is a value as any other; its other form where it would say that there is none, or may (RFC 768)."""
    def sent(ends: tuple[Endpoint, Endpoint], payload: bytes, ttl: int = 64) -> bytes:
        covered: dict[str, Callable[..., bytes]] = {"udplite": udplite, "dccp": dccp}
        if protocol not in covered:
            return bytes(made(protocol, ends, payload=payload, ttl=ttl))
        return aged(covered[protocol](*ends[0], *ends[1], payload, 0), ttl)

    plain = sent(AFTER[version], b"\0\0")
    field = transport_of(plain).at + CHECKSUM_OFFSET[NUMBERS[protocol]]
    zeroing = plain[field : field + 2]  # a word that is added to what was summed, so that nothing is left to be its complement
    packet = read(sent(BEFORE[version], zeroing))
    translate(packet, leg_of(protocol, version))
    expected = bytearray(sent(AFTER[version], zeroing, 63))
    assert int.from_bytes(expected[field : field + 2], "big") in (0, 0xFFFF)
    expected[field : field + 2] = value.to_bytes(2, "big")
    assert written(packet) == expected


@pytest.mark.requirement("G3")
def test_a_udp_checksum_of_zero_stays_zero() -> None:
    data = bytearray(bytes(made("udp", BEFORE[4])))
    data[26:28] = b"\0\0"
    packet = read(bytes(data))
    translate(packet, leg_of("udp", 4))
    expected = bytearray(bytes(made("udp", AFTER[4], ttl=63)))
    expected[26:28] = b"\0\0"
    assert written(packet) == expected


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.requirement("U11", "V4")
def test_of_a_later_fragment_the_header_alone_changes(version: int) -> None:
    before, after = (fragments_of(made("udp", ends[version], payload=bytes(range(100)), ttl=ttl), 64, 7)[1]
                     for ends, ttl in ((BEFORE, 64), (AFTER, 63)))
    packet = read(before)
    translate_addresses(packet, leg_of("udp", version))
    assert written(packet) == bytes(after)


@pytest.mark.parametrize(("protocol", "first_fragment", "keeps_ports", "can"), [
    ("sctp", True, False, False), ("sctp", True, True, True), ("sctp", False, False, True), ("udp", True, False, True)])
@pytest.mark.requirement("U11")
def test_only_sctp_needs_all_of_a_packet_to_change_its_ports(protocol: str, first_fragment: bool, keeps_ports: bool,
                                                           can: bool) -> None:
    leg = leg_of(protocol, 4)
    if keeps_ports:
        leg.rewrite = leg.rewrite[:-4] + leg.key[-4:]
    whole = made(protocol, BEFORE[4], payload=bytes(80))
    assert can_translate(read(fragments_of(whole, 40, 7)[0] if first_fragment else whole), leg) is can


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.requirement("G1", "G2")
def test_a_hop_more_and_a_hop_back(version: int) -> None:
    packet = read(made("udp", BEFORE[version], ttl=64))
    decrement_ttl(packet)
    assert written(packet) == bytes(made("udp", BEFORE[version], ttl=63))
    packet = read(written(packet))
    increment_ttl(packet)
    assert written(packet) == bytes(made("udp", BEFORE[version], ttl=64))
    assert packet.ttl == 64
