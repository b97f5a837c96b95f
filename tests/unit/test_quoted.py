"""Packets that ICMP errors quote: what is read of them, and that one that is put back is the one that was sent."""

from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrRouting
from scapy.packet import Packet, Raw

from natgw.datapath.rewrite import Embedded, parse_embedded, restore_embedded
from natgw.tables.flows import reversed_key
from natgw.testing.packets import error_of, transport_of
from natgw.wire.checksum import checksum
from natgw.wire.ip import IpPacket
from natgw.wire.ipv4 import CHECKSUM_OFFSET, ICMP
from tests.unit.test_rewrite import AFTER, BEFORE, CASES, EVERY, NUMBERS, key_of, made, read


def quoting(quoted: bytes) -> IpPacket:
    """An error of the quoted packet's version, not about anything in particular."""
    if quoted[:1] and quoted[0] >> 4 == 6:
        return read(error_of("2001:db8:113::9", "2001:db8:51::2", (1, 0), quoted))
    return read(error_of("203.0.113.9", "198.51.100.2", (3, 1), quoted))


def cut(packet: bytes, size: int) -> bytes:
    """The packet's first bytes, of which it says that they are all."""
    found = IP(packet[:size])
    found.len, found.chksum = size, None
    return bytes(found)


def put_back(protocol: str, version: int, quoted: bytes) -> bytes:
    """What an error quotes after the packet that left as AFTER has become BEFORE again."""
    packet = quoting(quoted)
    embedded = parse_embedded(packet)
    assert embedded is not None
    message = bytearray(packet.buf[packet.l4 : packet.end])
    head = bytes(message[:8])
    restore_embedded(message, embedded, key_of(protocol, BEFORE[version]))
    assert message[:8] == head
    return bytes(message[8:])


@EVERY
@pytest.mark.requirement("I3", "V3")
def test_however_much_is_quoted_it_is_put_back_to_what_was_sent(protocol: str, version: int) -> None:
    """Of a checksum all or nothing can be put back, and of SCTP's only if all that it covers is there."""
    left, sent = (bytes(made(protocol, ends[version])) for ends in (AFTER, BEFORE))
    at = transport_of(left).at
    field = at + {"sctp": 8}.get(protocol, CHECKSUM_OFFSET.get(NUMBERS[protocol], 0))
    for size in range(at + 8, len(left) + 1):
        expected = bytearray(sent[:size])
        if (protocol == "sctp" and size < len(left)) or size == field + 1:
            expected[field:] = left[field:size]
            if protocol == "sctp":
                expected[field + 4 :] = sent[field + 4 : size]
        assert put_back(protocol, version, left[:size]) == expected, size


@pytest.mark.requirement("I3")
def test_a_quoted_sctp_packet_is_whole_without_a_chunk_and_not_without_a_checksum() -> None:
    left, sent = (bytes(made("sctp", ends[4], payload=b"")) for ends in (AFTER, BEFORE))
    assert put_back("sctp", 4, left) == sent
    for size in range(28, 32):
        short, back = (cut(data, size) for data in (left, sent[:28] + left[28:]))
        assert put_back("sctp", 4, short) == back


@pytest.mark.requirement("I3")
def test_what_follows_a_quoted_packet_is_left_alone() -> None:
    """RFC 4884: an error may have more to say behind it. Only what has no end of its own is not known to be whole then."""
    for protocol in ("udp", "tcp"):
        left, sent = (bytes(made(protocol, ends[4])) for ends in (AFTER, BEFORE))
        assert put_back(protocol, 4, left + b"more") == sent + b"more"
    left, sent = (bytes(made("sctp", ends[4])) for ends in (AFTER, BEFORE))
    assert put_back("sctp", 4, left + b"more") == sent[:28] + left[28:32] + sent[32:] + b"more"


@pytest.mark.requirement("I3", "G3")
def test_a_quoted_udp_checksum_of_zero_stays_zero() -> None:
    left, sent = (bytearray(bytes(made("udp", ends[4]))) for ends in (AFTER, BEFORE))
    left[26:28] = sent[26:28] = b"\0\0"
    assert put_back("udp", 4, bytes(left)) == sent
    left, sent = (bytearray(bytes(made("tcp", ends[4]))) for ends in (AFTER, BEFORE))
    left[36:38] = b"\0\0"
    assert put_back("tcp", 4, bytes(left))[36:38] not in (b"\0\0", sent[36:38]), "the checksum of TCP is never left out"


def embedded_in(quoted: bytes | Packet) -> Embedded | None:
    return parse_embedded(quoting(bytes(quoted)))


@pytest.mark.parametrize(("protocol", "version"), [case for case in CASES if not case[0].startswith("icmp")])
@pytest.mark.requirement("I3", "V3")
def test_what_is_read_of_a_quoted_packet(protocol: str, version: int) -> None:
    whole = bytes(made(protocol, BEFORE[version], payload=bytes(300)))
    at = transport_of(whole).at
    for quoted in (whole, whole[: at + 8]):
        found = embedded_in(quoted)
        assert found is not None
        assert (found.protocol, found.key) == (NUMBERS[protocol], key_of(protocol, BEFORE[version]))
        assert (found.start, found.l4, found.end, found.is_query) == (8, 8 + at, 8 + len(whole), False)
        assert found.reversed_key == reversed_key(found.key)
    assert embedded_in(whole[: at + 7]) is None


@pytest.mark.parametrize(("version", "kind", "is_query"), [
    (4, 8, True), (4, 13, True), (4, 0, False), (4, 14, False), (6, 128, True), (6, 129, False)])
@pytest.mark.requirement("I3", "V3")
def test_a_quoted_query_is_told_from_an_answer(version: int, kind: int, is_query: bool) -> None:
    packet = bytearray(bytes(made("icmp" if version == 4 else "icmpv6", BEFORE[version])))
    packet[transport_of(bytes(packet)).at] = kind
    found = embedded_in(bytes(packet))
    assert found is not None
    assert (found.is_query, found.key) == (is_query, key_of("icmp", BEFORE[version]))
    assert found.end == 8 + len(packet)


@pytest.mark.requirement("I5", "V3")
def test_an_error_whose_own_checksum_is_bad_says_nothing() -> None:
    for version in (4, 6):
        packet = quoting(bytes(made("udp", BEFORE[version])))
        packet.buf[packet.end - 1] ^= 1
        assert parse_embedded(packet) is None


def header4(words: int, *, version: int = 4) -> bytes:
    """An IPv4 packet that says its header has so many words, with a checksum over as many, and much behind it."""
    packet = bytearray(bytes(made("udp", BEFORE[4], payload=bytes(80))))
    packet[0] = version << 4 | words
    packet[10:12] = b"\0\0"
    packet[10:12] = checksum(packet[: words * 4]).to_bytes(2, "big")
    return bytes(packet)


@pytest.mark.requirement("I4", "I5")
def test_a_quotation_that_is_no_ipv4_packet_says_nothing() -> None:
    assert embedded_in(header4(5)) is not None and embedded_in(header4(6)) is not None
    for quoted in (header4(4), header4(5, version=5), header4(5, version=0), b"", b"\x45", header4(5)[:20], header4(15)[:67]):
        assert embedded_in(quoted) is None
    harmed = bytearray(header4(5))
    harmed[8] ^= 1
    assert embedded_in(bytes(harmed)) is None


@pytest.mark.requirement("I3")
def test_of_quoted_fragments_the_first_tells_the_flow() -> None:
    ports = Raw(struct.pack("!HHHH", 5000, 33333, 8, 1))
    for offset, flags, is_known in ((0, "MF", True), (0, "DF", True), (1, "MF", False), (1, 0, False), (0x1000, 0, False)):
        found = embedded_in(IP(src=BEFORE[4][0][0], dst=BEFORE[4][1][0], proto=17, frag=offset, flags=flags) / ports)
        assert (found is not None) is is_known


@pytest.mark.requirement("I4", "V3", "V4")
def test_a_quotation_that_is_no_ipv6_packet_says_nothing() -> None:
    whole = bytes(made("udp", BEFORE[6]))
    ip = IPv6(src=BEFORE[6][0][0], dst=BEFORE[6][1][0])
    ports = struct.pack("!HHHH", 5000, 33333, 8, 1)

    def error6(quoted: bytes) -> Embedded | None:
        return parse_embedded(read(error_of("2001:db8:113::9", "2001:db8:51::2", (1, 0), quoted)))

    assert error6(whole) is not None
    for quoted in (b"", b"\x60", whole[:40], whole[:47], b"\x45" + whole[1:], b"\x75" + whole[1:]):
        assert error6(quoted) is None
    found = error6(bytes(ip / IPv6ExtHdrDestOpt(nh=17) / Raw(ports)))
    assert found is not None and (found.l4, found.end, found.key) == (56, 64, key_of("udp", BEFORE[6]))
    assert error6(bytes(ip / IPv6ExtHdrFragment(nh=17, offset=0, m=1) / Raw(ports))) is not None
    assert error6(bytes(ip / IPv6ExtHdrFragment(nh=17, offset=1, m=1) / Raw(ports))) is None
    assert error6(bytes(ip / IPv6ExtHdrRouting(nh=17, segleft=0, len=0) / Raw(bytes(4) + ports))[:56] + ports) is not None
    assert error6(bytes(ip / IPv6ExtHdrRouting(nh=17, segleft=1, len=0) / Raw(bytes(4) + ports))[:56] + ports) is None
    assert error6(bytes(ip / IPv6ExtHdrDestOpt(nh=17))[:40] + b"\x11\x09" + ports) is None, "its options are not all there"


@pytest.mark.requirement("I3", "V3")
def test_the_icmp_of_the_other_version_means_nothing_in_a_quotation() -> None:
    ipv4 = IP(src=BEFORE[4][0][0], dst=BEFORE[4][1][0], proto=58) / Raw(b"\x80" + bytes(11))
    ipv6 = IPv6(src=BEFORE[6][0][0], dst=BEFORE[6][1][0], nh=ICMP) / Raw(b"\x08" + bytes(11))
    assert embedded_in(ipv4) is None and embedded_in(ipv6) is None

