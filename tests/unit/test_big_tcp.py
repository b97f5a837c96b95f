"""Superframes of TCP that are longer than an IPv4 header can say: read, translated, and cut for who does not take them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from natgw.datapath import Verdict
from natgw.host.shaper import Rate
from natgw.wire.checksum import ones_sum
from natgw.wire.ethernet import L3
from natgw.wire.ipv4 import Malformed, big_tcp_bytes, parse_ipv4
from natgw.wire.segment import CannotSegment, segments, superframes
from natgw.wire.vnet import GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VNET, VNET_BYTES
from tests.conftest import examples
from tests.unit.core_lab import A_IP, B_MAC, EXTERNAL, Lab, from_a, from_outside, partial
from tests.unit.test_pump import Bench
from tests.unit.test_shaper import Limited

MSS = 1448
LONGEST_IP = 65535


def big(payload_bytes: int, *, mss: int = MSS, ident: int = 7, sequence: int = 100, flags: str = "PA", ports: int = 45000,
        options: tuple[tuple[str, object], ...] = (), to_mac: str | None = None) -> bytearray:
    """A frame of container a as its kernel gives it: 0 for the length, the sum of the pseudo-header for the checksum."""
    segment = TCP(sport=ports, dport=80, seq=sequence, ack=17, flags=flags, options=list(options))
    packet = from_a(segment, id=ident, flags="DF", len=0, **({} if to_mac is None else {"to_mac": to_mac}))
    frame = bytearray(partial(packet, gso_type=GSO_TCPV4 | (GSO_ECN if "C" in flags else 0), gso_size=mss))
    length = len(frame) - L3 - 20 + payload_bytes
    addresses = bytes(frame[L3 + 12 : L3 + 20])
    frame[L3 + 36 : L3 + 38] = ones_sum(addresses + b"\0\x06" + length.to_bytes(4, "big")).to_bytes(2, "big")
    return frame + bytes(number * 31 % 251 for number in range(payload_bytes))


def cut(frame: bytearray) -> list[bytes]:
    """The parts, each as it is while its turn lasts."""
    return [bytes(part) for part in superframes(memoryview(frame))]


@pytest.mark.requirement("G2")
@given(st.integers(LONGEST_IP - 39, 200_000), st.integers(500, 9000), st.integers(0, 65535), st.integers(0, 2**32 - 1),
       st.sampled_from(["A", "PA", "FPA", "CEA"]), st.booleans())
@example(131_000, 65_000, 65_535, 2**32 - 1, "FPA", False)
@settings(max_examples=examples(200))
def test_the_parts_stand_for_the_same_packets(payload: int, mss: int, ident: int, sequence: int, flags: str,
                                              timestamps: bool) -> None:
    """What a network card makes of the parts is what it would have made of the whole."""
    frame = big(payload, mss=mss, ident=ident, sequence=sequence, flags=flags,
                options=(("NOP", None), ("NOP", None), ("Timestamp", (1, 2))) if timestamps else ())
    whole = bytes(frame)
    parts = cut(frame)
    assert [bytes(piece) for part in parts for piece in segments(part)] == [bytes(piece) for piece in segments(whole)]
    assert bytes(frame) == whole, "nothing is left of how it was done"
    assert all(len(part) <= L3 + LONGEST_IP for part in parts)
    assert len(parts) <= payload // (LONGEST_IP - 60 - mss) + 1


@pytest.mark.requirement("G2")
def test_each_part_is_a_packet_that_the_kernel_takes() -> None:
    """Its length and both checksums are its own, and a single segment is no superframe, which the kernel would refuse."""
    room = (LONGEST_IP - 40) // MSS * MSS
    first, second = cut(big(room + MSS))
    for part, payload, gso in ((first, room, GSO_TCPV4), (second, MSS, GSO_NONE)):
        assert (part[0], part[1]) == (NEEDS_CSUM, gso)
        assert int.from_bytes(part[4:6], "little") == (MSS if gso else 0)
        packet = parse_ipv4(bytearray(part), len(part))
        assert not isinstance(packet, Malformed) and packet.end == len(part) and packet.total_length == 40 + payload
        pseudo_header = part[L3 + 12 : L3 + 20] + b"\0\x06" + (20 + payload).to_bytes(2, "big")
        assert int.from_bytes(part[L3 + 36 : L3 + 38], "big") == ones_sum(pseudo_header)


@pytest.mark.parametrize("header", [
    pytest.param(VNET.pack(NEEDS_CSUM, GSO_TCPV4, 54, 0, 34, 16), id="segments of no bytes"),
    pytest.param(VNET.pack(0, GSO_TCPV4, 54, MSS, 34, 16), id="a complete checksum"),
    pytest.param(VNET.pack(NEEDS_CSUM, GSO_TCPV6, 54, MSS, 34, 16), id="of IPv6"),
    pytest.param(VNET.pack(NEEDS_CSUM, GSO_UDP_L4, 42, MSS, 34, 6), id="of UDP"),
    pytest.param(bytes(VNET_BYTES), id="no superframe"),
])
def test_what_is_no_such_superframe_is_not_cut(header: bytes) -> None:
    frame = big(70_000)
    frame[:VNET_BYTES] = header
    with pytest.raises(CannotSegment):
        cut(frame)


@pytest.mark.requirement("G5")
def test_a_length_of_zero_means_the_frames_own_for_such_superframes_alone() -> None:
    frame = big(70_000)
    packet = parse_ipv4(frame, len(frame))
    assert not isinstance(packet, Malformed)
    assert (packet.total_length, packet.end, packet.sport) == (len(frame) - L3, len(frame), 45000)
    assert parse_ipv4(frame, L3 + LONGEST_IP) is Malformed.BAD_LENGTH, "so long a packet can say its length"
    assert big_tcp_bytes(L3 + LONGEST_IP + 1, GSO_TCPV4 | GSO_ECN) == LONGEST_IP + 1
    for gso in (GSO_NONE, GSO_TCPV6, GSO_UDP_L4):
        frame[1] = gso
        assert parse_ipv4(frame, len(frame)) is Malformed.BAD_LENGTH


@pytest.mark.requirement("G5")
def test_what_is_not_tcp_must_say_its_length() -> None:
    frame = big(70_000)
    frame[L3 + 9] = 17
    frame[L3 + 10 : L3 + 12] = b"\0\0"
    frame[L3 + 10 : L3 + 12] = (ones_sum(frame[L3 : L3 + 20]) ^ 0xFFFF).to_bytes(2, "big")
    assert parse_ipv4(frame, len(frame)) is Malformed.BAD_LENGTH


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def lab(request: pytest.FixtureRequest) -> Lab:
    made = Lab(fast_path=request.param, verify=False)
    made.buf = bytearray(500_000)
    return made


def shake_hands(lab: Lab) -> None:
    lab.send("a", from_a(TCP(sport=45000, dport=80, flags="S", seq=99)))
    lab.send("uplink", from_outside(TCP(sport=80, dport=45000, flags="SA", seq=16, ack=100)))


@pytest.mark.requirement("G2")
def test_it_is_translated_whole_and_counted(lab: Lab) -> None:
    shake_hands(lab)
    frame = big(150_000)
    sizes = []
    for _ in range(2):
        out = lab.send("a", bytes(frame))
        assert out.verdict is Verdict.TRANSLATED_OUT and out.only.port == "uplink"
        sizes.append(len(out.only.raw))
        assert out.only.raw[L3 + 2 : L3 + 4] == b"\0\0" and out.only.raw[:10] == bytes(frame[:10])
        for piece, before in zip(segments(out.only.raw), segments(frame), strict=True):
            expected = Ether(bytes(before[10:]))
            assert expected[IP].src == A_IP
            expected[IP].src, expected[IP].ttl = EXTERNAL, expected[IP].ttl - 1
            del expected[IP].chksum, expected[TCP].chksum
            assert bytes(piece[L3:]) == bytes(expected[IP])
    assert sizes == [len(frame)] * 2
    assert lab.flows()[0]["original"]["bytes"] == 40 + 2 * (len(frame) - L3)


@pytest.mark.requirement("B1")
def test_it_is_bridged_as_it_is(lab: Lab) -> None:
    frame = big(150_000, to_mac=B_MAC)
    for _ in range(2):
        assert lab.send("a", bytes(frame)).sent[-1].raw == bytes(frame)


@pytest.mark.requirement("G5")
def test_one_that_lies_about_itself_goes_nowhere(lab: Lab) -> None:
    """As a container may write it to a packet socket of its own."""
    shake_hands(lab)
    frame = big(150_000)
    frame[1] = GSO_NONE
    out = lab.send("a", bytes(frame))
    assert out.verdict is Verdict.DROP_BAD_LENGTH and not out.sent


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench("veth")
    try:
        yield made
    finally:
        made.close()


def test_a_link_that_does_not_take_it_gets_its_parts(bench: Bench) -> None:
    bench.links["b"].big_tcp = False
    bench.say(b"a is here", "a", "b")
    bench.run(1)
    frame = big(150_000, to_mac="02:00:00:00:00:0b")
    frame[10:22] = bench.got[0][10:22]
    bench.links["a"].far.send(frame)
    parts = cut(frame)
    assert bench.run(1 + len(parts))[1:] == parts and len(parts) == 3
    assert bench.ports["b"].tx == [4, len(bench.got[0]) + sum(map(len, parts)), 0, 1]
    frame[0] = 0
    bench.links["a"].far.send(frame)
    bench.until(lambda: bench.ports["b"].tx[2] == 1)


def test_a_limit_takes_it_by_parts() -> None:
    """Else it might never find room in the queue, and its sender would send it again and again."""
    limited = Limited(Rate(8_000_000))
    frame = big(150_000)
    limited.shaper.send(memoryview(bytes(frame[:100]) + bytes(60_000)))
    limited.shaper.send(memoryview(frame))
    limited.time.run(1.0)
    assert [each for _, each in limited.passed][1:] == cut(frame) and limited.dropped == 0
    frame[0] = 0
    limited.shaper.send(memoryview(frame))
    assert limited.dropped == 1
