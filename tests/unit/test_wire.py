"""Bytes and their meaning: checksums, ARP, IPv4, superframes and fragments, against scapy and the RFCs' own numbers."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert, fragment, in4_pseudoheader
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw
from scapy.utils import checksum as scapy_checksum

from natgw.wire import arp, icmp, segment
from natgw.wire.checksum import adjust, adjust_partial, checksum, combine, delta, fold, ones_sum, pseudo_sum
from natgw.wire.ethernet import (
    BROADCAST,
    ETH,
    L3,
    ZERO_MAC,
    is_group,
    is_link_reserved,
    mac_text,
    parse_mac,
)
from natgw.wire.ipv4 import DONT_FRAGMENT, Ipv4Packet, Malformed, build_ipv4, parse_ipv4
from natgw.wire.vnet import (
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP,
    GSO_UDP_L4,
    NEEDS_CSUM,
    NO_OFFLOAD,
    VNET,
    VNET_BYTES,
)
from tests.conftest import examples

MAC_A, MAC_B = "02:42:ac:11:00:02", "02:42:ac:11:00:03"
IP_A, IP_B = "172.17.0.2", "203.0.113.9"
LINK = Ether(src=MAC_A, dst=MAC_B)
STALE = b"\xa5" * 64


def framed(packet: Packet, vnet: bytes = NO_OFFLOAD) -> bytearray:
    return bytearray(vnet + bytes(packet))


def parsed(packet: Packet, *, n: int | None = None) -> Ipv4Packet | Malformed:
    """What `parse_ipv4` says of a packet in a buffer that ends in stale bytes."""
    frame = framed(packet)
    return parse_ipv4(bytearray(frame + STALE), len(frame) if n is None else n)


def sound(packet: Packet) -> Ipv4Packet:
    result = parsed(packet)
    assert isinstance(result, Ipv4Packet)
    return result


# -- checksums -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("G2")
def test_the_vector_of_rfc_1624() -> None:
    old, new, rest = b"\x55\x55", b"\x32\x85", b"\xcd\x7a"
    assert checksum(rest, old) == 0xDD2F
    assert adjust(0xDD2F, delta(old, new)) == 0x0000
    assert checksum(rest, new) == 0x0000


def words_summed(data: bytes) -> int:
    """RFC 1071 as it is written: word by word, carries added back in."""
    total = 0
    for (word,) in struct.iter_unpack("!H", data + bytes(len(data) % 2)):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(st.binary(max_size=200))
@example(b"")
@example(b"\0\0\0")
@example(b"\xff\xff")
@example(b"\xff\xff\xff\xff")
@example(b"\x00\x01\xff\xfe")
def test_the_sum_is_that_of_the_words(data: bytes) -> None:
    assert ones_sum(data) == words_summed(data)
    assert checksum(data) == scapy_checksum(data)


@given(st.binary(min_size=2, max_size=40).filter(lambda part: len(part) % 2 == 0), st.binary(max_size=41))
def test_a_checksum_covers_its_parts_as_one(front: bytes, back: bytes) -> None:
    assert checksum(front, back) == checksum(front + back)


even = st.integers(1, 8).flatmap(lambda words: st.tuples(*(st.binary(min_size=2 * words, max_size=2 * words),) * 2))


@pytest.mark.requirement("G2")
@given(even, st.binary(max_size=20))
@example((b"\xff\xff", b"\0\0"), b"")
@example((b"\0\0", b"\xff\xff"), b"\xff\xff")
def test_adjusting_gives_what_computing_anew_gives(change: tuple[bytes, bytes], rest: bytes) -> None:
    old, new = change
    before, after = b"\x45\x00" + old + rest, b"\x45\x00" + new + rest
    assert adjust(checksum(before), delta(old, new)) == checksum(after)
    partial = adjust_partial(ones_sum(before), delta(old, new))
    assert partial % 0xFFFF == ones_sum(after) % 0xFFFF


@given(even, even, st.binary(max_size=20))
def test_combined_changes_do_the_work_of_both(first: tuple[bytes, bytes], second: tuple[bytes, bytes], rest: bytes) -> None:
    before = b"\x45\x00" + first[0] + second[0] + rest
    after = b"\x45\x00" + first[1] + second[1] + rest
    assert adjust(checksum(before), combine((delta(*first), delta(*second)))) == checksum(after)


@given(st.integers(0, 2**40))
def test_folding_keeps_the_value_modulo_65535(value: int) -> None:
    assert fold(value) <= 0xFFFF
    assert fold(value) % 0xFFFF == value % 0xFFFF
    assert (fold(value) == 0) == (value == 0)


@given(st.integers(0, 65535), st.sampled_from((1, 6, 17)))
def test_the_pseudo_header_is_scapys(length: int, protocol: int) -> None:
    packet = IP(src=IP_A, dst=IP_B)
    addresses = bytes(packet)[12:20]
    assert pseudo_sum(addresses, protocol, length) == ones_sum(in4_pseudoheader(protocol, packet, length))


def test_a_pseudo_header_of_a_jumbogram_counts_both_words_of_the_length() -> None:
    assert pseudo_sum(bytes(32), 6, 0x0001_0002) == 6 + 1 + 2


# -- Ethernet and ARP ------------------------------------------------------------------------------------------------


def test_addresses_of_groups() -> None:
    assert is_group(BROADCAST) and is_group(parse_mac("01:00:5e:00:00:01"))
    assert not is_group(parse_mac(MAC_A)) and not is_group(ZERO_MAC)


@pytest.mark.requirement("B5")
@pytest.mark.parametrize(("mac", "reserved"), [
    ("01:80:c2:00:00:00", True), ("01:80:c2:00:00:0f", True), ("01:80:c2:00:00:10", False), ("01:80:c2:00:01:00", False),
    ("00:80:c2:00:00:00", False)])
def test_the_sixteen_addresses_that_stay_on_their_link(mac: str, reserved: bool) -> None:
    assert is_link_reserved(parse_mac(mac)) is reserved


@given(st.binary(min_size=6, max_size=6))
def test_mac_addresses_survive_writing_and_reading(mac: bytes) -> None:
    assert parse_mac(mac_text(mac)) == mac
    assert parse_mac(mac_text(mac).replace(":", "-").upper()) == mac


@pytest.mark.parametrize("text", ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "02:42:ac:11:00:zz", "024:2:ac:11:00:02",
                                  "02:42:ac:11:00:", "0242ac110002"])
def test_what_is_no_mac_address_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a MAC address such as"):
        parse_mac(text)


def arp_frame(**fields: object) -> bytearray:
    values: dict[str, object] = {"op": 1, "hwsrc": MAC_A, "psrc": IP_A, "pdst": "172.17.0.1"}
    return framed(Ether(src=MAC_A, dst="ff:ff:ff:ff:ff:ff") / ARP(**(values | fields)))


@pytest.mark.requirement("G6")
def test_an_arp_request_is_read_and_answered() -> None:
    frame = arp_frame()
    message = arp.parse_arp(frame, len(frame))
    assert message == arp.ArpMessage(1, parse_mac(MAC_A), bytes((172, 17, 0, 2)), ZERO_MAC, bytes((172, 17, 0, 1)))
    assert not message.is_probe
    reply = arp.build_reply(message, parse_mac(MAC_B))
    assert reply[:VNET_BYTES] == NO_OFFLOAD
    assert reply[ETH:] == bytes(Ether(src=MAC_B, dst=MAC_A) / ARP(
        op=2, hwsrc=MAC_B, psrc="172.17.0.1", hwdst=MAC_A, pdst=IP_A))


def test_an_arp_request_is_built_as_scapy_builds_it() -> None:
    asked = arp.build_request(parse_mac(MAC_A), bytes((172, 17, 0, 2)), bytes((172, 17, 0, 1)))
    assert asked == arp_frame(hwdst="00:00:00:00:00:00")
    probe = arp.build_request(parse_mac(MAC_A), bytes((172, 17, 0, 2)), bytes((172, 17, 0, 1)), parse_mac(MAC_B))
    assert probe[ETH : ETH + 6] == parse_mac(MAC_B)
    assert probe[ETH + 6 :] == asked[ETH + 6 :]


def test_a_probe_is_known_by_its_empty_sender() -> None:
    frame = arp_frame(psrc="0.0.0.0")
    message = arp.parse_arp(frame, len(frame))
    assert message is not None and message.is_probe


@pytest.mark.parametrize(("offset", "value"), [
    pytest.param(0, b"\0\x06", id="hardware type"), pytest.param(2, b"\x86\xdd", id="protocol type"),
    pytest.param(4, b"\x08", id="hardware length"), pytest.param(5, b"\x10", id="protocol length"),
    pytest.param(6, b"\0\0", id="operation 0"), pytest.param(6, b"\0\x03", id="operation 3"),
    pytest.param(8, b"\x01\0\x5e\0\0\x01", id="multicast sender"), pytest.param(8, b"\xff" * 6, id="broadcast sender")])
def test_other_arp_is_refused(offset: int, value: bytes) -> None:
    frame = arp_frame()
    frame[L3 + offset : L3 + offset + len(value)] = value
    assert arp.parse_arp(frame, len(frame)) is None


def test_arp_is_refused_when_it_is_short_even_if_stale_bytes_would_complete_it() -> None:
    frame = arp_frame()
    assert len(frame) == L3 + arp.ARP_BYTES
    assert arp.parse_arp(frame, len(frame) - 1) is None
    assert arp.parse_arp(frame + bytes(18), len(frame) + 18) is not None


# -- the offload header ----------------------------------------------------------------------------------------------


def test_the_offload_header_is_little_endian_in_virtios_order() -> None:
    header = VNET.pack(NEEDS_CSUM, GSO_TCPV4 | GSO_ECN, 54, 1448, 34, 16)
    assert header == bytes.fromhex("01 81 3600 a805 2200 1000")
    assert VNET.size == VNET_BYTES == len(NO_OFFLOAD) == 10


def test_a_packet_reads_its_offload_header() -> None:
    frame = framed(LINK / IP(src=IP_A, dst=IP_B) / TCP() / bytes(3000), VNET.pack(NEEDS_CSUM, GSO_TCPV4, 54, 1448, 34, 16))
    packet = parse_ipv4(frame, len(frame))
    assert isinstance(packet, Ipv4Packet)
    assert packet.is_superframe and packet.checksum_is_partial and packet.gso_bytes == 1448
    plain = sound(LINK / IP(src=IP_A, dst=IP_B) / TCP())
    assert not plain.is_superframe and not plain.checksum_is_partial and plain.gso_bytes == 0


# -- IPv4 ------------------------------------------------------------------------------------------------------------


def test_a_sound_packet_is_read() -> None:
    packet = sound(LINK / IP(src=IP_A, dst=IP_B, ttl=7, flags="DF") / TCP(sport=5000, dport=80, flags="SA") / b"hello")
    assert (packet.src, packet.dst) == (bytes((172, 17, 0, 2)), bytes((203, 0, 113, 9)))
    assert (packet.sport, packet.dport, packet.protocol, packet.ttl) == (5000, 80, 6, 7)
    assert (packet.l4, packet.end, packet.total_length) == (L3 + 20, L3 + 45, 45)
    assert packet.df and not packet.is_fragment and packet.tcp_flags == 0x12


def test_padding_behind_a_packet_is_not_part_of_it() -> None:
    padded = framed(LINK / IP(src=IP_A, dst=IP_B) / UDP(sport=1, dport=2) / b"x") + bytes(17)
    packet = parse_ipv4(padded, len(padded))
    assert isinstance(packet, Ipv4Packet)
    assert packet.end == len(padded) - 17


@pytest.mark.requirement("G4")
def test_options_move_the_transport_header() -> None:
    packet = sound(LINK / IP(src=IP_A, dst=IP_B, options=[IPOption_Router_Alert()]) / UDP(sport=5, dport=6))
    assert (packet.l4, packet.sport, packet.dport) == (L3 + 24, 5, 6)


@pytest.mark.parametrize("type_", [0, 8, 13, 14])
def test_the_identifier_of_an_icmp_query_stands_for_both_ports(type_: int) -> None:
    packet = sound(LINK / IP(src=IP_A, dst=IP_B) / ICMP(type=type_, id=0x1234, seq=9))
    assert (packet.sport, packet.dport, packet.icmp_type, packet.is_icmp_error) == (0x1234, 0x1234, type_, False)


@pytest.mark.parametrize("type_", [3, 4, 5, 11, 12])
def test_icmp_errors_have_no_ports(type_: int) -> None:
    packet = sound(LINK / IP(src=IP_A, dst=IP_B) / ICMP(type=type_, code=1) / bytes(28))
    assert (packet.sport, packet.dport, packet.icmp_code, packet.is_icmp_error) == (0, 0, 1, True)


def test_a_later_fragment_has_no_transport_header_to_read() -> None:
    packet = sound(LINK / IP(src=IP_A, dst=IP_B, proto=6, frag=185, flags="MF") / b"abc")
    assert (packet.fragment_offset, packet.more_fragments, packet.is_fragment, packet.sport) == (1480, True, True, 0)
    last = sound(LINK / IP(src=IP_A, dst=IP_B, proto=1, frag=185) / b"abc")
    assert last.is_fragment and not last.more_fragments and not last.is_icmp_error


def test_the_first_fragment_of_a_datagram_claims_more_than_it_has() -> None:
    assert isinstance(parsed(LINK / IP(src=IP_A, dst=IP_B, flags="MF") / UDP(len=3000) / bytes(8)), Ipv4Packet)
    assert parsed(LINK / IP(src=IP_A, dst=IP_B) / UDP(len=3000) / bytes(8)) is Malformed.BAD_TRANSPORT


def test_a_protocol_without_ports_is_none_the_less_a_packet() -> None:
    packet = sound(LINK / IP(src=IP_A, dst=IP_B, proto=47) / b"gre")
    assert (packet.protocol, packet.sport, packet.dport) == (47, 0, 0)


_UDP = IP(src=IP_A, dst=IP_B) / UDP(sport=1, dport=2) / b"data"
_TCP = IP(src=IP_A, dst=IP_B) / TCP(sport=1, dport=2) / b"data"


def changed(packet: Packet, **fields: object) -> Packet:
    """The packet with header fields that scapy would not choose; its IP checksum holds."""
    copy = packet.copy()
    for name, value in fields.items():
        setattr(copy[IP], name, value)
    return LINK / copy


@pytest.mark.requirement("G5")
@pytest.mark.parametrize(("packet", "verdict"), [
    (changed(_UDP, version=6), Malformed.BAD_VERSION),
    (changed(_UDP, version=0), Malformed.BAD_VERSION),
    (changed(_UDP, ihl=4), Malformed.BAD_IHL),
    (changed(_UDP, ihl=0), Malformed.BAD_IHL),
    (changed(_UDP, ihl=15), Malformed.BAD_IHL),
    (changed(_UDP, len=33), Malformed.BAD_LENGTH),
    (changed(_UDP, len=19), Malformed.BAD_LENGTH),
    (changed(_UDP, len=0), Malformed.BAD_LENGTH),
    (changed(_UDP, len=65535), Malformed.BAD_LENGTH),
    (changed(_UDP, chksum=0x1234), Malformed.BAD_CHECKSUM),
    (changed(_UDP, len=27), Malformed.BAD_TRANSPORT),
    (changed(_UDP, len=31), Malformed.BAD_TRANSPORT),
    (changed(_TCP, len=39), Malformed.BAD_TRANSPORT),
    (LINK / IP(src=IP_A, dst=IP_B) / UDP(len=7) / b"data", Malformed.BAD_TRANSPORT),
    (LINK / IP(src=IP_A, dst=IP_B) / UDP(len=0) / b"data", Malformed.BAD_TRANSPORT),
    (LINK / IP(src=IP_A, dst=IP_B) / TCP(dataofs=4) / b"data", Malformed.BAD_TRANSPORT),
    (LINK / IP(src=IP_A, dst=IP_B) / TCP(dataofs=7) / b"data", Malformed.BAD_TRANSPORT),
    (LINK / IP(src=IP_A, dst=IP_B, proto=1) / bytes(7), Malformed.BAD_TRANSPORT),
], ids=lambda value: value.name if isinstance(value, Malformed) else "")
def test_what_is_wrong_with_a_packet_is_named(packet: Packet, verdict: Malformed) -> None:
    assert parsed(packet) is verdict


@pytest.mark.requirement("G5")
@pytest.mark.parametrize("header_bytes", range(20))
def test_a_runt_is_one_whatever_the_stale_bytes_say(header_bytes: int) -> None:
    assert parsed(LINK / _UDP, n=L3 + header_bytes) is Malformed.RUNT


@given(st.data())
def test_every_cut_of_a_packet_is_refused(data: st.DataObject) -> None:
    packet = LINK / IP(src=IP_A, dst=IP_B, options=[IPOption_Router_Alert()]) / data.draw(st.sampled_from(
        (UDP() / b"data", TCP(options=[("MSS", 1460)]) / b"data", ICMP() / b"data")))
    assert isinstance(parsed(packet, n=data.draw(st.integers(0, len(framed(packet)) - 1))), Malformed)


def test_a_packet_is_built_as_scapy_builds_it() -> None:
    frame = build_ipv4(bytes(LINK)[:12] + b"\x08\x00", bytes((172, 17, 0, 2)), bytes((203, 0, 113, 9)), 17, b"payload!", ttl=9,
                       tos=0xC0, ident=77, flags=DONT_FRAGMENT)
    assert frame == framed(LINK / IP(src=IP_A, dst=IP_B, proto=17, ttl=9, tos=0xC0, id=77, flags="DF") / Raw(b"payload!"))


# -- ICMP of our own -------------------------------------------------------------------------------------------------


@pytest.mark.requirement("G1")
def test_an_error_quotes_as_much_as_576_bytes_hold() -> None:
    packet = LINK / IP(src=IP_A, dst=IP_B) / UDP(sport=1, dport=2) / (bytes(range(256)) * 4)
    original = bytes(packet)[14:]
    frame = icmp.build_error(bytes(14), bytes((172, 17, 0, 1)), sound(packet), original, 3, 4, mtu=1400)
    assert len(frame) == L3 + icmp.MAX_ERROR_IP_BYTES
    made = IP(bytes(frame[L3:]))
    assert (made.src, made.dst, made.tos, made[ICMP].type, made[ICMP].code, made[ICMP].nexthopmtu) == (
        "172.17.0.1", IP_A, 0xC0, 3, 4, 1400)
    assert bytes(frame[L3 + 28 :]) == original[: 576 - 28]
    assert scapy_checksum(bytes(frame[L3 + 20 :])) == 0 and scapy_checksum(bytes(frame[L3 : L3 + 20])) == 0


@pytest.mark.requirement("G6")
def test_an_echo_reply_is_the_request_turned_round() -> None:
    request = sound(LINK / IP(src=IP_A, dst="172.17.0.1", id=5, tos=4, flags="DF") / ICMP(id=7, seq=3) / b"ping data")
    frame = icmp.build_echo_reply(bytes(LINK)[:12] + b"\x08\x00", request)
    assert frame == framed(LINK / IP(src="172.17.0.1", dst=IP_A, id=5, tos=4, flags="DF") / ICMP(type=0, id=7, seq=3)
                           / b"ping data")


# -- superframes -----------------------------------------------------------------------------------------------------

payload_bytes = st.integers(1, 9000).map(lambda size: bytes(i * 31 % 251 for i in range(size)))


def chunks(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def cut(frame: bytes | bytearray) -> list[bytes]:
    return [bytes(piece) for piece in segment.segments(frame)]


@pytest.mark.requirement("G2")
@given(payload_bytes, st.integers(1, 2000), st.integers(0, 2**32 - 1), st.integers(0, 65535), st.integers(0, 255),
       st.sampled_from(([], [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))])))
@example(bytes(4000), 1448, 2**32 - 1000, 65535, 0xFF, [])
@settings(max_examples=examples(200))
def test_a_tcp_superframe_is_cut_as_scapy_would_have_built_it(
        data: bytes, size: int, sequence: int, ident: int, flags: int, options: list[tuple[str, object]]) -> None:
    size = max(size, len(data) // 50 + 1)

    def segment_of(part: bytes, number: int, flags: int) -> Packet:
        return LINK / IP(src=IP_A, dst=IP_B, id=(ident + number) & 0xFFFF, flags="DF") / TCP(
            sport=5000, dport=80, seq=(sequence + number * size) & 0xFFFFFFFF, ack=17, flags=flags, options=options) / part

    parts = chunks(data, size)
    expected = []
    for number, part in enumerate(parts):
        part_flags = flags
        if number:
            part_flags &= ~0x80
        if number < len(parts) - 1:
            part_flags &= ~0x09
        expected.append(bytes(framed(segment_of(part, number, part_flags))))
    vnet = VNET.pack(NEEDS_CSUM, GSO_TCPV4 | (GSO_ECN if flags & 0x80 else 0), 0, size, 34, 16)
    assert cut(framed(segment_of(data, 0, flags), vnet)) == expected


@pytest.mark.requirement("G2")
@given(payload_bytes, st.integers(1, 2000), st.integers(0, 65535))
@settings(max_examples=examples(200))
def test_a_udp_superframe_is_cut_into_the_datagrams_it_was_made_of(data: bytes, size: int, ident: int) -> None:
    size = max(size, len(data) // 50 + 1)

    def datagram(part: bytes, number: int) -> Packet:
        return LINK / IP(src=IP_A, dst=IP_B, id=(ident + number) & 0xFFFF) / UDP(sport=5000, dport=53) / part

    vnet = VNET.pack(NEEDS_CSUM, GSO_UDP_L4, 42, size, 34, 6)
    assert cut(framed(datagram(data, 0), vnet)) == [
        bytes(framed(datagram(part, number))) for number, part in enumerate(chunks(data, size))]


@pytest.mark.parametrize(("kind", "make"), [
    (GSO_TCPV6, lambda part, offset: TCP(sport=5000, dport=80, seq=offset, flags="A") / part),
    (GSO_UDP_L4, lambda part, offset: UDP(sport=5000, dport=80) / part)], ids=["tcp", "udp"])
def test_superframes_of_ipv6_are_cut_as_well(kind: int, make: object) -> None:
    assert callable(make)
    link = LINK / IPv6(src="2001:db8::1", dst="2001:db8::2")
    data = bytes(i % 256 for i in range(3000))
    expected = [bytes(framed(link / make(part, number * 1400))) for number, part in enumerate(chunks(data, 1400))]
    assert cut(framed(link / make(data, 0), VNET.pack(NEEDS_CSUM, kind, 0, 1400, 54, 16))) == expected


def partial(packet: Packet, offset: int) -> bytearray:
    """The frame as the kernel hands it over: the sum of the pseudo-header where the checksum belongs."""
    frame = framed(packet, VNET.pack(NEEDS_CSUM, 0, 0, 0, 34, offset))
    protocol, length = frame[L3 + 9], len(frame) - L3 - 20
    field = L3 + 20 + offset
    frame[field : field + 2] = ones_sum(in4_pseudoheader(protocol, packet[IP], length)).to_bytes(2, "big")
    return frame


@pytest.mark.requirement("G2")
@given(st.binary(max_size=60))
def test_a_partial_checksum_is_completed(data: bytes) -> None:
    for transport, offset in ((TCP(sport=5, dport=6, flags="A"), 16), (UDP(sport=5, dport=6), 6)):
        packet = LINK / IP(src=IP_A, dst=IP_B) / transport / data
        assert cut(partial(packet, offset)) == [bytes(framed(packet))]


@pytest.mark.requirement("G3")
def test_a_udp_checksum_that_computes_to_zero_is_sent_as_ffff() -> None:
    zeroing = bytes(framed(LINK / IP(src=IP_A, dst=IP_B) / UDP(sport=5, dport=6) / b"\0\0"))[-4:-2]
    # With its own checksum as payload a datagram sums up to FFFF, of which the complement is 0.
    packet = LINK / IP(src=IP_A, dst=IP_B) / UDP(sport=5, dport=6) / zeroing
    (completed,) = cut(partial(packet, 6))
    assert completed[L3 + 26 : L3 + 28] == b"\xff\xff"
    (single,) = cut(framed(packet, VNET.pack(NEEDS_CSUM, GSO_UDP_L4, 42, 100, 34, 6)))
    assert single == completed


def test_a_frame_without_offload_comes_back_as_a_copy() -> None:
    frame = framed(LINK / _UDP)
    (copy,) = segment.segments(frame)
    assert copy == frame and copy is not frame


TCP_SUPER = bytes(framed(LINK / IP(src=IP_A, dst=IP_B) / TCP(flags="A") / bytes(100), VNET.pack(1, GSO_TCPV4, 54, 40, 34, 16)))
UDP_SUPER = bytes(framed(LINK / IP(src=IP_A, dst=IP_B) / UDP() / bytes(100), VNET.pack(1, GSO_UDP_L4, 42, 40, 34, 6)))


def with_bytes(frame: bytes, offset: int, new: bytes) -> bytes:
    return frame[:offset] + new + frame[offset + len(new) :]


@pytest.mark.parametrize("frame", [
    pytest.param(with_bytes(TCP_SUPER, 4, b"\0\0"), id="segments of no bytes"),
    pytest.param(with_bytes(TCP_SUPER, 1, bytes((GSO_UDP,))), id="UFO"),
    pytest.param(with_bytes(TCP_SUPER, 1, b"\x02"), id="unknown type"),
    pytest.param(with_bytes(TCP_SUPER, 1, bytes((GSO_UDP_L4,))), id="TCP said to be UDP"),
    pytest.param(with_bytes(UDP_SUPER, 1, bytes((GSO_TCPV4,))), id="UDP said to be TCP"),
    pytest.param(with_bytes(TCP_SUPER, ETH + 12, b"\x08\x06"), id="ARP"),
    pytest.param(with_bytes(TCP_SUPER, L3, b"\x40"), id="no IP header"),
    pytest.param(with_bytes(TCP_SUPER, L3, b"\x65"), id="version 6 under the type of version 4"),
    pytest.param(with_bytes(TCP_SUPER, L3 + 32, b"\x00"), id="no TCP header"),
    pytest.param(with_bytes(TCP_SUPER, L3 + 32, b"\x40"), id="short TCP header"),
    pytest.param(TCP_SUPER[: L3 + 40], id="no payload"),
    pytest.param(TCP_SUPER[: L3 + 39], id="short of a TCP header"),
    pytest.param(UDP_SUPER[: L3 + 19], id="short of an IP header"),
    pytest.param(TCP_SUPER[:VNET_BYTES], id="nothing"),
    pytest.param(bytes(VNET.pack(NEEDS_CSUM, 0, 0, 0, 200, 6)) + TCP_SUPER[10:], id="checksum starts behind the frame"),
    pytest.param(bytes(VNET.pack(NEEDS_CSUM, 0, 0, 0, 34, 200)) + TCP_SUPER[10:], id="checksum lies behind the frame"),
    pytest.param(bytes(VNET.pack(NEEDS_CSUM, 0, 0, 0, 14, 0)) + TCP_SUPER[10:], id="checksum in the IP header"),
    pytest.param(bytes(VNET.pack(NEEDS_CSUM, 0, 0, 0, 0, 0)) + TCP_SUPER[10:], id="checksum in the Ethernet header"),
])
def test_an_offload_header_that_lies_is_refused(frame: bytes) -> None:
    with pytest.raises(segment.CannotSegment):
        cut(frame)


@given(st.binary(min_size=VNET_BYTES, max_size=VNET_BYTES), st.lists(st.tuples(st.integers(10, 80), st.integers(0, 255)),
                                                                    max_size=4), st.integers(10, 150))
@settings(max_examples=examples(300))
def test_nothing_but_a_refusal_comes_of_a_lie(vnet: bytes, lies: list[tuple[int, int]], size: int) -> None:
    for base in (TCP_SUPER, UDP_SUPER):
        frame = bytearray(vnet + base[VNET_BYTES:])
        for offset, value in lies:
            frame[offset] = value
        try:
            cut(frame[:size])
            segment.superframe_headers(frame[:size])
        except segment.CannotSegment:
            pass


def test_segments_are_made_smaller_by_the_offload_header_alone() -> None:
    frame = bytearray(TCP_SUPER)
    segment.limit_segment_bytes(frame, 33)
    assert frame == with_bytes(TCP_SUPER, 4, b"\x21\x00")
    pieces = cut(frame)
    assert [len(piece) - L3 - 40 for piece in pieces] == [33, 33, 33, 1]
    segment.limit_segment_bytes(frame, 4000)
    assert frame == with_bytes(TCP_SUPER, 4, b"\x21\x00"), "never larger than they were"


@pytest.mark.parametrize(("frame", "headers"), [(TCP_SUPER, 40), (UDP_SUPER, 28)])
def test_headers_that_each_packet_repeats(frame: bytes, headers: int) -> None:
    assert segment.superframe_headers(frame) == headers


# -- fragments -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("U10")
@pytest.mark.parametrize("mtu", [68, 576, 1400, 1499])
def test_fragments_are_those_scapy_makes(mtu: int) -> None:
    packet = LINK / IP(src=IP_A, dst=IP_B, id=4711, ttl=9) / UDP(sport=5, dport=6) / bytes(i % 253 for i in range(3000))
    expected = [bytes(framed(piece)) for piece in fragment(packet, fragsize=(mtu - 20) & ~7)]
    assert [bytes(piece) for piece in segment.fragments(framed(packet), mtu)] == expected
    assert all(len(piece) - L3 <= mtu for piece in expected)


@pytest.mark.requirement("U10")
@given(st.integers(28, 2000), st.integers(0, 500), st.booleans(), st.integers(1, 4000))
def test_fragments_hold_what_the_packet_held(mtu: int, offset: int, more: bool, size: int) -> None:
    packet = LINK / IP(src=IP_A, dst=IP_B, id=1, frag=offset, flags="MF" if more else "", proto=17) / bytes(
        i % 253 for i in range(size))
    pieces = [IP(bytes(piece[L3:])) for piece in segment.fragments(framed(packet), mtu)]
    assert b"".join(bytes(piece.payload) for piece in pieces) == bytes(packet[IP].payload)
    at = offset
    for number, piece in enumerate(pieces):
        assert piece.frag == at
        assert ("MF" in piece.flags) == (more or number < len(pieces) - 1)
        assert piece.len == len(piece) <= mtu
        assert scapy_checksum(bytes(piece)[:20]) == 0
        at += len(piece.payload) // 8


def test_options_are_repeated_in_each_fragment() -> None:
    packet = LINK / IP(src=IP_A, dst=IP_B, options=[IPOption_Router_Alert()]) / UDP() / bytes(100)
    pieces = list(segment.fragments(framed(packet), 64))
    assert len(pieces) == 3
    assert all(piece[L3] == 0x46 and piece[L3 + 20 : L3 + 24] == bytes(packet)[34:38] for piece in pieces)


def test_a_link_too_small_for_any_fragment_is_refused() -> None:
    with pytest.raises(segment.CannotSegment, match="an MTU of 27 has no room"):
        list(segment.fragments(framed(LINK / _UDP), 27))
