"""UDP-Lite, SCTP, DCCP and what has no ports, through a gateway in memory; scapy's packets, and checksums of our own count."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, fragment
from scapy.layers.l2 import GRE
from scapy.layers.sctp import SCTP, SCTPChunkData, SCTPChunkInit
from scapy.packet import Packet, Raw

from natgw.cli.output import conntrack_line
from natgw.control import natconfig
from natgw.datapath import PRESETS, NatConfig
from natgw.testing import OUTSIDE, Delivery, SimulatedGateway, assert_checksums
from natgw.wire.checksum import checksum, ones_sum, pseudo_sum
from natgw.wire.transport import DCCP, UDPLITE, finish_sctp_checksum

ONE, TWO, FAR, OTHER, EXTERNAL = "172.17.0.2", "172.17.0.3", "203.0.113.9", "203.0.113.10", "198.51.100.2"
PORT = 9999


def pseudo(packet: bytes, protocol: int) -> int:
    return pseudo_sum(packet[12:20], protocol, len(packet) - 20)


def udplite(src: str, sport: int, dst: str, dport: int, payload: bytes = b"payload", coverage: int = 8) -> bytes:
    """A datagram whose checksum covers `coverage` bytes (0: all of them), made by RFC 3828 section 3.1."""
    header = struct.pack("!HHHH", sport, dport, coverage, 0)
    packet = bytes(IP(src=src, dst=dst, proto=UDPLITE) / Raw(header + payload))
    covered = packet[20 : 20 + coverage] if coverage else packet[20:]
    value = checksum(struct.pack("!H", pseudo(packet, UDPLITE)), covered) or 0xFFFF
    return packet[:26] + value.to_bytes(2, "big") + packet[28:]


def dccp(src: str, sport: int, dst: str, dport: int, payload: bytes = b"payload", coverage: int = 0, kind: int = 0) -> bytes:
    """A DCCP-Request or, with `kind` 4, DCCP-DataAck (RFC 4340 section 5.1), of which the checksum covers the header and
    (coverage - 1) words of payload, or all (0)."""
    last = struct.pack("!I", 42) if kind == 0 else bytes(8)
    words = (16 + len(last)) // 4
    header = struct.pack("!HHBBHBBHI", sport, dport, words, coverage, 0, kind << 1 | 1, 0, 0, 1234) + last
    packet = bytes(IP(src=src, dst=dst, proto=DCCP) / Raw(header + payload))
    value = checksum(struct.pack("!H", pseudo(packet, DCCP)), dccp_covered(packet))
    return packet[:26] + value.to_bytes(2, "big") + packet[28:]


def dccp_covered(packet: bytes) -> bytes:
    coverage = packet[25] & 15
    return packet[20 : 20 + packet[24] * 4 + (coverage - 1) * 4] if coverage else packet[20:]


def verifies(packet: bytes) -> bool:
    """Whether the IP checksum and the transport's do, by the letter of their RFCs."""
    good = ones_sum(packet[:20]) == 0xFFFF
    if packet[9] == UDPLITE:
        coverage = int.from_bytes(packet[24:26], "big") or len(packet) - 20
        summed = checksum(struct.pack("!H", pseudo(packet, UDPLITE)), packet[20 : 20 + coverage])
        return good and summed == 0 and packet[26:28] != b"\0\0"
    if packet[9] == DCCP:
        return good and checksum(struct.pack("!H", pseudo(packet, DCCP)), dccp_covered(packet)) == 0
    return good and packet[28:32] == crc32c(packet[20:28] + bytes(4) + packet[32:]).to_bytes(4, "little")


def sctp(src: str, sport: int, dst: str, dport: int, chunk: Packet | None = None, tag: int = 7) -> bytes:
    return bytes(IP(src=src, dst=dst) / SCTP(sport=sport, dport=dport, tag=tag) / (chunk or SCTPChunkInit(init_tag=9)))


def gre(src: str, dst: str, payload: bytes = b"inner") -> bytes:
    return bytes(IP(src=src, dst=dst) / GRE(proto=0x88BE) / payload)


def other(src: str, dst: str, protocol: int = 50) -> bytes:
    return bytes(IP(src=src, dst=dst, proto=protocol) / Raw(b"sealed"))


def only(found: list[Delivery], to: str) -> Delivery:
    assert [each.to for each in found] == [to]
    return found[0]


def ports(delivery: Delivery) -> tuple[int, int]:
    sport, dport = struct.unpack_from("!HH", delivery.data, 20)
    return sport, dport


# ---- with ports ------------------------------------------------------------------------------------------------------

Make = Callable[[str, int, str, int], bytes]


@pytest.mark.parametrize("make", [udplite, sctp, dccp], ids=["udplite", "sctp", "dccp"])
@pytest.mark.parametrize("kind", ["port-restricted", "symmetric"])
def test_there_and_back_by_address_and_port(make: Make, kind: str) -> None:
    gateway = SimulatedGateway(PRESETS[kind])
    out = only(gateway.send("c1", make(ONE, PORT, FAR, 36)), OUTSIDE)
    assert (out.packet.src, out.packet.dst, ports(out)[1]) == (EXTERNAL, FAR, 36)
    assert (ports(out)[0] == PORT) == (kind != "symmetric")
    assert verifies(out.data)
    back = only(gateway.send(OUTSIDE, make(FAR, 36, EXTERNAL, ports(out)[0])), "c1")
    assert (back.packet.src, back.packet.dst, ports(back)) == (FAR, ONE, (36, PORT))
    assert verifies(back.data)
    assert gateway.send(OUTSIDE, make(OTHER, 36, EXTERNAL, ports(out)[0])) == []


@pytest.mark.parametrize("make", [udplite, sctp, dccp], ids=["udplite", "sctp", "dccp"])
def test_two_containers_with_one_port(make: Make) -> None:
    gateway = SimulatedGateway()
    first, second = (only(gateway.send(name, make(address, PORT, FAR, 36)), OUTSIDE)
                     for name, address in (("c1", ONE), ("c2", TWO)))
    assert ports(first)[0] == PORT != ports(second)[0]
    assert verifies(second.data)
    assert only(gateway.send(OUTSIDE, make(FAR, 36, EXTERNAL, ports(second)[0])), "c2").packet.dst == TWO


@given(coverage=st.sampled_from((0, 8, 9, 11, 15, 40)), payload=st.binary(min_size=32, max_size=60), port=st.integers(1, 65535),
       seed=st.integers(0, 3))
def test_udplite_keeps_its_coverage(coverage: int, payload: bytes, port: int, seed: int) -> None:
    gateway = SimulatedGateway(PRESETS["symmetric"], seed=seed)
    data = udplite(ONE, port, FAR, 36, payload, coverage)
    assert verifies(data)
    out = only(gateway.send("c1", data), OUTSIDE)
    assert verifies(out.data)
    assert out.data[24:26] == data[24:26]
    assert out.data[28:] == payload
    # What is not covered may be damaged on the way, and what is may not, and no translation changes that.
    harmed = bytearray(udplite(FAR, 36, EXTERNAL, ports(out)[0], payload, coverage))
    harmed[-1] ^= 1
    back = only(gateway.send(OUTSIDE, bytes(harmed)), "c1")
    assert verifies(back.data) == verifies(bytes(harmed)) == (coverage != 0 and coverage < 8 + len(payload))


@pytest.mark.parametrize(("change", "value"), [(slice(24, 26), b"\0\7"), (slice(24, 26), b"\0\x7f"), (slice(26, 28), b"\0\0")])
def test_udplite_that_cannot_be(change: slice, value: bytes) -> None:
    gateway = SimulatedGateway()
    data = bytearray(udplite(ONE, PORT, FAR, 36))
    data[change] = value
    assert gateway.send("c1", bytes(data)) == []
    assert gateway.counters["drop_bad_transport"] == 1


@given(coverage=st.sampled_from((0, 1, 2, 8)), payload=st.binary(min_size=32, max_size=60), kind=st.sampled_from((0, 4)),
       port=st.integers(1, 65535), seed=st.integers(0, 3))
def test_dccp_keeps_its_coverage(coverage: int, payload: bytes, kind: int, port: int, seed: int) -> None:
    gateway = SimulatedGateway(PRESETS["symmetric"], seed=seed)
    data = dccp(ONE, port, FAR, 36, payload, coverage, kind)
    out = only(gateway.send("c1", data), OUTSIDE)
    assert verifies(data)
    assert verifies(out.data)
    assert (out.data[24:26], out.data[28:]) == (data[24:26], data[28:])
    harmed = bytearray(dccp(FAR, 36, EXTERNAL, ports(out)[0], payload, coverage, kind))
    harmed[-1] ^= 1
    back = only(gateway.send(OUTSIDE, bytes(harmed)), "c1")
    assert verifies(back.data) == verifies(bytes(harmed)) == (coverage != 0)


@pytest.mark.parametrize("words", [0, 2, 9, 255])
def test_dccp_whose_header_cannot_be(words: int) -> None:
    gateway = SimulatedGateway()
    data = bytearray(dccp(ONE, PORT, FAR, 36))
    data[24] = words
    assert gateway.send("c1", bytes(data)) == []
    assert gateway.counters["drop_bad_transport"] == 1


def test_dccp_cut_short() -> None:
    gateway = SimulatedGateway()
    assert gateway.send("c1", bytes(IP(src=ONE, dst=FAR, proto=DCCP) / Raw(dccp(ONE, PORT, FAR, 36)[20:31]))) == []
    assert gateway.counters["drop_bad_transport"] == 1


@given(payload=st.binary(min_size=1, max_size=60), harm=st.integers(0, 8 * 20), seed=st.integers(0, 3))
def test_sctp_that_was_damaged_stays_damaged(payload: bytes, harm: int, seed: int) -> None:
    gateway = SimulatedGateway(PRESETS["symmetric"], seed=seed)
    data = bytearray(sctp(ONE, PORT, FAR, 36, SCTPChunkData(data=payload)))
    if harm:
        data[24 + (harm - 1) // 8 % (len(data) - 24)] ^= 1 << (harm - 1) % 8
    out = only(gateway.send("c1", bytes(data)), OUTSIDE)
    assert verifies(out.data) == (harm == 0)
    assert out.data[32:] == bytes(data[32:])


def test_sctp_whose_checksum_was_left_to_the_card() -> None:
    data = bytearray(sctp(ONE, PORT, FAR, 36))
    good = bytes(data)
    data[28:32] = b"\xde\xad\xbe\xef"
    finish_sctp_checksum(data, 20, len(data))
    assert bytes(data) == good


def test_sctp_in_fragments_crosses_only_if_its_port_is_kept() -> None:
    pieces = fragment(IP(sctp(ONE, PORT, FAR, 36, SCTPChunkData(data=bytes(80)))), fragsize=40)
    gateway = SimulatedGateway()
    found = [each for piece in pieces for each in gateway.send("c1", bytes(piece))]
    assert len(found) == len(pieces)
    assert b"".join(each.data[20:] for each in found) == sctp(EXTERNAL, PORT, FAR, 36, SCTPChunkData(data=bytes(80)))[20:]
    gateway = SimulatedGateway(PRESETS["symmetric"])
    assert [each for piece in pieces for each in gateway.send("c1", bytes(piece))] == []
    assert gateway.counters["drop_fragment"] == 1


def test_published_sctp() -> None:
    gateway = SimulatedGateway(publish=[("c2", "9999:99/sctp")])
    seen = only(gateway.send(OUTSIDE, sctp(FAR, 4000, EXTERNAL, 9999)), "c2")
    assert (seen.packet.dst, ports(seen)) == (TWO, (4000, 99))
    assert verifies(seen.data)
    answer = only(gateway.send("c2", sctp(TWO, 99, FAR, 4000)), OUTSIDE)
    assert (answer.packet.src, ports(answer)) == (EXTERNAL, (9999, 4000))
    assert verifies(answer.data)


def test_dccp_filters_and_hairpins_as_tcp_does() -> None:
    """docs/nat-behaviour.md: DCCP has TCP's mapping and filtering."""
    nat = natconfig.changed(NatConfig(), {"tcp.filtering": "endpoint-independent"})
    gateway = SimulatedGateway(nat)
    only(gateway.send("c1", dccp(ONE, PORT, FAR, 36)), OUTSIDE)
    assert only(gateway.send(OUTSIDE, dccp(OTHER, 37, EXTERNAL, PORT)), "c1").packet.dst == ONE
    seen = only(gateway.send("c2", dccp(TWO, 5000, EXTERNAL, PORT)), "c1")
    assert (seen.packet.src, ports(seen)) == (EXTERNAL, (5000, PORT))
    assert verifies(seen.data)
    assert {flow["protocol"] for flow in gateway.flows()} == {"dccp"}


def test_dccp_in_fragments() -> None:
    gateway = SimulatedGateway(PRESETS["symmetric"])
    data = dccp(ONE, PORT, FAR, 36, bytes(range(80)))
    out = [only(gateway.send("c1", bytes(piece)), OUTSIDE) for piece in fragment(IP(data), fragsize=40)]
    body = b"".join(each.data[20:] for each in out)
    assert body[2:6] + body[8:] == data[22:26] + data[28:]
    whole = bytes(IP(src=EXTERNAL, dst=FAR, proto=DCCP) / Raw(body))
    assert verifies(whole)


def test_hairpin() -> None:
    gateway = SimulatedGateway(PRESETS["full-cone"])
    only(gateway.send("c1", udplite(ONE, PORT, FAR, 36)), OUTSIDE)
    seen = only(gateway.send("c2", udplite(TWO, 5000, EXTERNAL, PORT)), "c1")
    assert (seen.packet.src, ports(seen)) == (EXTERNAL, (5000, PORT))
    assert verifies(seen.data)


# ---- by address alone ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [gre, other], ids=["gre", "esp"])
def test_there_and_back_by_address(make: Callable[[str, str], bytes]) -> None:
    gateway = SimulatedGateway()
    out = only(gateway.send("c1", make(ONE, FAR)), OUTSIDE)
    assert_checksums(out.data)
    assert (out.packet.src, out.packet.dst, out.data[20:]) == (EXTERNAL, FAR, make(ONE, FAR)[20:])
    back = only(gateway.send(OUTSIDE, make(FAR, EXTERNAL)), "c1")
    assert (back.packet.src, back.packet.dst, back.data[20:]) == (FAR, ONE, make(ONE, FAR)[20:])
    assert gateway.send(OUTSIDE, make(OTHER, EXTERNAL)) == [], "nobody speaks with this one"
    assert gateway.counters["drop_protocol"] == 1


@pytest.mark.parametrize("kind", list(PRESETS))
def test_a_second_container_may_not_speak_it_with_the_same_host(kind: str) -> None:
    gateway = SimulatedGateway(PRESETS[kind])
    only(gateway.send("c1", gre(ONE, FAR)), OUTSIDE)
    refused = only(gateway.send("c2", gre(TWO, FAR)), "c2")
    assert (refused.packet[ICMP].type, refused.packet[ICMP].code) == (3, 13)
    gateway.send("c2", gre(TWO, FAR))
    only(gateway.send("c2", gre(TWO, OTHER)), OUTSIDE)
    only(gateway.send("c2", other(TWO, FAR)), OUTSIDE)
    assert only(gateway.send(OUTSIDE, gre(OTHER, EXTERNAL)), "c2").packet.dst == TWO
    assert gateway.counters["drop_address_taken"] == 2


def test_when_the_first_has_ended_the_second_may() -> None:
    gateway = SimulatedGateway()
    told: list[tuple[bytes, int, bool]] = []
    gateway.datapath.napt.owns_protocol = lambda *what: told.append(what)
    only(gateway.send("c1", gre(ONE, FAR)), OUTSIDE)
    only(gateway.send("c1", gre(ONE, OTHER)), OUTSIDE)
    gateway.advance(602)
    only(gateway.send("c2", gre(TWO, FAR)), OUTSIDE)
    address = bytes(map(int, EXTERNAL.split(".")))
    assert told == [(address, 47, True), (address, 47, False), (address, 47, True)]


def test_what_is_the_hosts_stays_the_hosts() -> None:
    gateway = SimulatedGateway(exclusive=False)
    assert gateway.send(OUTSIDE, gre(FAR, EXTERNAL)) == []
    assert gateway.counters["to_host"] == 1
    only(gateway.send("c1", gre(ONE, FAR)), OUTSIDE)
    assert only(gateway.send(OUTSIDE, gre(FAR, EXTERNAL)), "c1").packet.dst == ONE


def test_several_external_addresses_serve_several_containers() -> None:
    both = (EXTERNAL, "198.51.100.3")
    nat = natconfig.changed(NatConfig(), {"external_addresses": list(both), "pooling": "arbitrary"})
    gateway = SimulatedGateway(nat, external=both)
    seen = {only(gateway.send(name, gre(address, FAR)), OUTSIDE).packet.src for name, address in (("c1", ONE), ("c2", TWO))}
    assert seen == set(both)


# ---- errors, times, records ------------------------------------------------------------------------------------------


@pytest.mark.requirement("I3")
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("packet", [
    pytest.param(udplite(ONE, PORT, FAR, 36), id="udplite"), pytest.param(sctp(ONE, PORT, FAR, 36), id="sctp"),
    pytest.param(dccp(ONE, PORT, FAR, 36), id="dccp"), pytest.param(gre(ONE, FAR), id="gre"),
    pytest.param(other(ONE, FAR), id="esp")])
def test_an_error_is_put_back(packet: bytes, whole: bool) -> None:
    if len(packet) < 28:
        packet = other(ONE, FAR)[:20] + packet[20:]
        packet += bytes(28 - len(packet))
        packet = bytes(IP(src=ONE, dst=FAR, proto=50) / Raw(packet[20:]))
    gateway = SimulatedGateway(PRESETS["symmetric"])
    out = only(gateway.send("c1", packet), OUTSIDE)
    quoted = out.data if whole else out.data[:28]
    error = IP(src="192.0.2.7", dst=EXTERNAL) / ICMP(type=3, code=2) / Raw(quoted)
    seen = only(gateway.send(OUTSIDE, bytes(error)), "c1")
    back, sent = bytearray(seen.data[28:]), bytearray(packet[: len(quoted)])
    for data in (back, sent):
        data[8], data[10:12] = 0, b"\0\0"
    assert back == sent
    assert_checksums(seen.data)


@pytest.mark.parametrize(("packet", "answer", "before", "after"), [
    (udplite(ONE, PORT, FAR, 36), udplite(FAR, 36, EXTERNAL, PORT), "udplite", "udplite_stream"),
    (sctp(ONE, PORT, FAR, 36), sctp(FAR, 36, EXTERNAL, PORT), "sctp_init", "sctp_established"),
    (dccp(ONE, PORT, FAR, 36), dccp(FAR, 36, EXTERNAL, PORT, kind=4), "other", "other"),
    (gre(ONE, FAR), gre(FAR, EXTERNAL), "gre", "gre_stream"), (other(ONE, FAR), other(FAR, EXTERNAL), "other", "other")])
def test_idle_times_by_name(packet: bytes, answer: bytes, before: str, after: str) -> None:
    nat = natconfig.changed(NatConfig(), {f"timeouts.{before}": 50, f"timeouts.{after}": 90 if after != "other" else 50})
    gateway = SimulatedGateway(nat)
    gateway.send("c1", packet)
    gateway.advance(49)
    assert [flow["timeout_s"] for flow in gateway.flows()] == [1]
    gateway.advance(3)
    assert gateway.flows() == []
    gateway.send("c1", packet)
    only(gateway.send(OUTSIDE, answer), "c1")
    assert [flow["timeout_s"] for flow in gateway.flows()] == [90 if after != "other" else 50]
    gateway.advance(92)
    assert gateway.flows() == []


@pytest.mark.parametrize(("packet", "answer", "line"), [
    (udplite(ONE, PORT, FAR, 36), udplite(FAR, 36, EXTERNAL, PORT),
     "udplite  136 300 src=172.17.0.2 dst=203.0.113.9 sport=9999 dport=36 packets=1 bytes=35 src=203.0.113.9 dst=198.51.100.2 "
     "sport=36 dport=9999 packets=1 bytes=35 [ASSURED] mark=0 use=1"),
    (gre(ONE, FAR), gre(FAR, EXTERNAL),
     "gre      47 600 src=172.17.0.2 dst=203.0.113.9 srckey=0x0 dstkey=0x0 packets=1 bytes=29 src=203.0.113.9 dst=198.51.100.2 "
     "srckey=0x0 dstkey=0x0 packets=1 bytes=29 [ASSURED] mark=0 use=1"),
    (other(ONE, FAR), other(FAR, EXTERNAL),
     "unknown  50 600 src=172.17.0.2 dst=203.0.113.9 packets=1 bytes=26 src=203.0.113.9 dst=198.51.100.2 packets=1 bytes=26 "
     "mark=0 use=1")], ids=["udplite", "gre", "esp"])
def test_as_conntrack_shows_them(packet: bytes, answer: bytes, line: str) -> None:
    gateway = SimulatedGateway()
    gateway.send("c1", packet)
    gateway.send(OUTSIDE, answer)
    (flow,) = gateway.flows()
    assert conntrack_line(flow) == line
    assert flow["state"] == "REPLIED"


@pytest.mark.parametrize("fast_path", [True, False])
def test_the_fast_path_leaves_them_alone(fast_path: bool) -> None:
    gateway = SimulatedGateway(fast_path=fast_path)
    for _ in range(3):
        for data in (udplite(ONE, PORT, FAR, 36), sctp(ONE, PORT, FAR, 36), dccp(ONE, PORT, FAR, 36), gre(ONE, FAR)):
            only(gateway.send("c1", data), OUTSIDE)
    assert gateway.counters["translated_out"] == 12
    assert gateway.counters["fast_path"] == 0
