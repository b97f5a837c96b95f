"""Whatever comes in, at whichever port: no exception, exactly one verdict a frame, and natgw goes on working.

Hypothesis makes frames of random bytes, real frames cut short, and real frames with fields that lie: lengths, types, header
sizes, fragment offsets, at each layer and in the offload header too. After each of them all a good frame must still cross in
both directions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from natgw.datapath import Verdict
from natgw.wire.ethernet import ETH, L3, parse_mac
from natgw.wire.ipv4 import ICMPV6
from natgw.wire.vnet import GSO_TCPV4, GSO_UDP_L4, NO_OFFLOAD
from tests.conftest import examples
from tests.generated import note
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
)

PORTS = ("host", "a", "b", "uplink")


def make_lab(*, fast_path: bool = True) -> Lab:
    """A gateway with flows of each protocol, a published port, and an uplink smaller than the bridge."""
    lab = Lab(verify=False, uplink_mtu=1400, fast_path=fast_path, max_fdb_entries=64, max_neighbours=64, max_flows=200)
    lab.publish(8080, 80)
    lab.publish(8080, 80, "udp")
    for body in (UDP(sport=45000, dport=53), TCP(sport=45000, dport=80, flags="A"), ICMP(id=7)):
        lab.send("a", from_a(body))
    lab.send("uplink", from_outside(TCP(sport=5000, dport=8080, flags="A")))
    lab.send("b", Ether(src=B_MAC, dst=BROADCAST_MAC) / ARP(hwsrc=B_MAC, psrc=B_IP, pdst=GATEWAY_IP))
    return lab


def _inside() -> Iterator[bytes]:
    """Frames that a container or the host sends: each takes another way through natgw."""
    data = bytes(range(64))
    for body in (UDP(sport=45000, dport=53) / data, UDP(sport=45001, dport=53), TCP(sport=45000, dport=80, flags="A") / data,
                 TCP(sport=45002, dport=80, flags="S", options=[("MSS", 1460)]), ICMP(id=7, seq=1) / data,
                 ICMP(type=3, code=3) / IP(src=REMOTE, dst=A_IP) / UDP(sport=53, dport=45000),
                 ICMP(type=11) / IP(src=REMOTE, dst=A_IP) / TCP(sport=80, dport=45000)):
        yield NO_OFFLOAD + bytes(from_a(body))
        yield NO_OFFLOAD + bytes(from_a(body, options=[IPOption_Router_Alert()]))
    for dst in (GATEWAY_IP, EXTERNAL, B_IP, "224.0.0.1"):
        yield NO_OFFLOAD + bytes(from_a(UDP(sport=45000, dport=8080) / data, dst=dst))
        yield NO_OFFLOAD + bytes(from_a(ICMP(id=3) / data, dst=dst))
    yield NO_OFFLOAD + bytes(from_a(UDP(sport=45000, dport=53) / bytes(1460)))
    yield NO_OFFLOAD + bytes(from_a(Raw(data), proto=17, frag=8, flags="MF", id=9))
    yield NO_OFFLOAD + bytes(from_a(UDP(sport=45000, dport=53, len=900) / data, flags="MF", id=9))
    yield NO_OFFLOAD + bytes(Ether(src=A_MAC, dst=B_MAC) / IP(src=A_IP, dst=B_IP) / UDP() / data)
    yield NO_OFFLOAD + bytes(Ether(src=A_MAC, dst=GATEWAY_MAC) / IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP())
    for dst in (BROADCAST_MAC, GATEWAY_MAC):
        yield NO_OFFLOAD + bytes(Ether(src=A_MAC, dst=dst) / ARP(hwsrc=A_MAC, psrc=A_IP, pdst=GATEWAY_IP))
    yield partial(from_a(UDP(sport=45000, dport=53) / data, flags="DF"))
    yield partial(from_a(UDP(sport=45000, dport=53) / bytes(1460)))
    yield partial(from_a(TCP(sport=45000, dport=80, flags="A") / bytes(4000), flags="DF"), gso_type=GSO_TCPV4, gso_size=1448)
    yield partial(from_a(TCP(sport=45000, dport=80, flags="A") / bytes(4000)), gso_type=GSO_TCPV4, gso_size=100)
    yield partial(from_a(UDP(sport=45000, dport=53) / bytes(4000)), gso_type=GSO_UDP_L4, gso_size=1448)
    yield partial(Ether(src=A_MAC, dst=B_MAC) / IP(src=A_IP, dst=B_IP) / TCP(flags="A") / bytes(4000), gso_type=GSO_TCPV4,
                  gso_size=1448)


def _outside() -> Iterator[bytes]:
    """Frames that come in by the uplink."""
    data = bytes(range(64))
    quoted: tuple[Packet, ...] = (IP(src=EXTERNAL, dst=REMOTE) / UDP(sport=45000, dport=53),
                                  IP(src=EXTERNAL, dst=REMOTE, options=[IPOption_Router_Alert()]) / TCP(sport=45000, dport=80),
                                  IP(src=EXTERNAL, dst=REMOTE) / ICMP(id=7))
    for body in (UDP(sport=53, dport=45000) / data, TCP(sport=80, dport=45000, flags="PA") / data, ICMP(type=0, id=7) / data,
                 TCP(sport=5001, dport=8080, flags="S"), UDP(sport=5001, dport=8080), TCP(sport=1, dport=50000, flags="S"),
                 *(ICMP(type=3, code=4, nexthopmtu=1280) / each for each in quoted)):
        yield NO_OFFLOAD + bytes(from_outside(body))
    yield NO_OFFLOAD + bytes(from_outside(Raw(data), proto=17, frag=8, id=9))
    yield NO_OFFLOAD + bytes(arp_reply(ROUTER, ROUTER_MAC))
    yield NO_OFFLOAD + bytes(Ether(src=ROUTER_MAC, dst=BROADCAST_MAC) / ARP(hwsrc=ROUTER_MAC, psrc=ROUTER, pdst=EXTERNAL))
    yield partial(from_outside(UDP(sport=53, dport=45000) / data, flags="DF"))
    yield partial(from_outside(TCP(sport=80, dport=45000, flags="A") / bytes(4000)), gso_type=GSO_TCPV4, gso_size=1448)


def _host() -> Iterator[bytes]:
    """What the host sends by way of natgw0: the same to a container, with the gateway's MAC address, which is its own."""
    for frame in _inside():
        yield frame[:ETH] + parse_mac(A_MAC) + parse_mac(GATEWAY_MAC) + frame[ETH + 12 :]


INSIDE = tuple(_inside())
FRAMES = {"host": tuple(_host()), "a": INSIDE, "b": INSIDE, "uplink": tuple(_outside())}
"""Container b forges what a sends: so stations move to and fro."""

# (offset, bytes) of the fields that others trust: of the offload header, Ethernet, IP, and what may lie behind it.
_L4 = L3 + 20
_INNER = _L4 + 8
FIELDS = ((0, 1), (1, 1), (2, 2), (4, 2), (6, 2), (8, 2), (ETH + 12, 2), (L3, 1), (L3 + 2, 2), (L3 + 6, 2), (L3 + 8, 1),
          (L3 + 9, 1), (L3 + 12, 4), (L3 + 16, 4), (_L4, 2), (_L4 + 2, 2), (_L4 + 4, 2), (_L4 + 12, 1), (_L4 + 13, 1),
          (_INNER, 1), (_INNER + 2, 2), (_INNER + 6, 2), (_INNER + 9, 1), (_INNER + 20, 2))


@dataclass(frozen=True)
class Hostile:
    """A frame for a port. `kind` is how it was made."""

    kind: str
    port: str
    frame: bytes


def _repaired(frame: bytearray) -> bytearray:
    """The frame with an IP checksum that verifies, so that what lies behind it is looked at."""
    header = max(20, (frame[L3] & 0x0F) * 4) if len(frame) > L3 else 0
    if header and len(frame) >= L3 + header:
        frame[L3 + 10 : L3 + 12] = b"\0\0"
        words = sum(int.from_bytes(frame[at : at + 2], "big") for at in range(L3, L3 + header, 2))
        while words > 0xFFFF:
            words = (words & 0xFFFF) + (words >> 16)
        frame[L3 + 10 : L3 + 12] = (words ^ 0xFFFF).to_bytes(2, "big")
    return frame


def _icmp_repaired(frame: bytearray) -> bytearray:
    """And with an ICMP checksum that verifies."""
    total = int.from_bytes(frame[L3 + 2 : L3 + 4], "big")
    end = min(len(frame), L3 + total)
    if len(frame) >= _L4 + 8 and frame[L3] == 0x45 and frame[L3 + 9] == 1 and end >= _L4 + 8:
        frame[_L4 + 2 : _L4 + 4] = b"\0\0"
        covered = bytes(frame[_L4:end]) + bytes((end - _L4) % 2)
        words = sum(int.from_bytes(covered[at : at + 2], "big") for at in range(0, len(covered), 2))
        while words > 0xFFFF:
            words = (words & 0xFFFF) + (words >> 16)
        frame[_L4 + 2 : _L4 + 4] = (words ^ 0xFFFF).to_bytes(2, "big")
    return frame


@st.composite
def hostile(draw: st.DrawFn) -> Hostile:
    port = draw(st.sampled_from(PORTS))
    base = draw(st.sampled_from(FRAMES[port]))
    kind = draw(st.sampled_from(("random", "random behind MACs", "truncated", "lying", "lying", "lying", "flipped", "good")))
    if kind == "random":
        return Hostile(kind, port, draw(st.binary(max_size=200)))
    if kind == "random behind MACs":
        front = draw(st.sampled_from((NO_OFFLOAD, base[:ETH]))) + base[ETH:L3]
        return Hostile(kind, port, front + draw(st.binary(max_size=120)))
    if kind == "truncated":
        return Hostile(kind, port, base[: draw(st.integers(0, min(len(base), 120)))])
    if kind == "lying":
        frame = bytearray(base)
        for offset, size in draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3)):
            if offset + size <= len(frame):
                limit, true = 2 ** (8 * size), int.from_bytes(base[offset : offset + size], "big")
                edges = st.sampled_from((0, 1, 2, 0x14, 0x22, limit // 2, limit - 1))
                near = st.integers(true - 3, true + 3)
                value = draw(edges | near | st.integers(0, limit - 1)) % limit
                frame[offset : offset + size] = value.to_bytes(size, "big")
        if draw(st.integers(0, 3)):
            frame = _icmp_repaired(_repaired(frame))
        return Hostile(kind, port, bytes(frame))
    if kind == "flipped":
        frame = bytearray(base)
        for _ in range(draw(st.integers(1, 4))):
            frame[draw(st.integers(0, min(len(frame), 110) - 1))] ^= draw(st.integers(1, 255))
        return Hostile(kind, port, bytes(frame))
    return Hostile(kind, port, base)


GOOD_PORT = 47000


def still_works(lab: Lab) -> bool:
    """Whether a new flow of container b crosses in both directions, once everybody has said where they are."""
    lab.send("b", Ether(src=B_MAC, dst=BROADCAST_MAC) / ARP(hwsrc=B_MAC, psrc=B_IP, pdst=GATEWAY_IP))
    lab.send("uplink", arp_reply(ROUTER, ROUTER_MAC))
    question = Ether(src=B_MAC, dst=GATEWAY_MAC) / IP(src=B_IP, dst=REMOTE) / UDP(sport=GOOD_PORT, dport=4242) / b"question"
    out = lab.send("b", question)
    if out.verdict is not Verdict.TRANSLATED_OUT or out.ports != ["uplink"] or out.packet[IP].src != EXTERNAL:
        return False
    assert (out.packet[Ether].dst, bytes(out.packet[UDP].payload)) == (ROUTER_MAC, b"question")
    back = lab.send("uplink", Ether(src=ROUTER_MAC, dst=UPLINK_MAC) / IP(src=REMOTE, dst=EXTERNAL) / UDP(
        sport=4242, dport=out.packet[UDP].sport) / b"answer")
    return back.verdict is Verdict.TRANSLATED_IN and back.ports == ["b"] and bytes(back.packet[UDP].payload) == b"answer"


@given(st.lists(st.tuples(hostile(), st.sampled_from((0.0, 0.0, 0.0, 0.5, 4.0, 70.0))), min_size=1, max_size=25), st.booleans())
@settings(max_examples=examples(300))
def test_nothing_that_comes_in_does_harm(attack: list[tuple[Hostile, float]], fast_path: bool) -> None:
    lab = make_lab(fast_path=fast_path)
    for each, pause in attack:
        if pause:
            lab.now += pause
            lab.dp.tick(lab.now)
        out = lab.send(each.port, each.frame)  # which sees to it that one verdict is counted
        assert out.verdict is not None
        event(f"{each.kind}: {out.verdict.label}")
    assert still_works(lab)
    note("hostile frames one by one", len(attack))


@given(st.lists(hostile(), min_size=1, max_size=25))
@settings(max_examples=examples(300))
def test_frames_read_in_one_wake_up_are_each_counted_once(attack: list[Hostile]) -> None:
    lab = make_lab()
    before = sum(lab.dp.verdicts)
    for each in attack:
        lab.send(each.port, each.frame, flush=False)
    lab.flush()
    assert sum(lab.dp.verdicts) - before == len(attack)
    assert still_works(lab)
    note("hostile frames in one wake-up", len(attack))


@pytest.mark.requirement("G5")
@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("port", PORTS)
def test_every_cut_of_every_real_frame_is_survived(port: str, fast_path: bool) -> None:
    lab = make_lab(fast_path=fast_path)
    for frame in FRAMES[port]:
        for size in range(min(len(frame), 110) + 1):
            lab.send(port, frame[:size])
    assert still_works(lab)


@pytest.mark.requirement("G5")
@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("port", PORTS)
def test_every_byte_of_every_real_frame_may_be_anything(port: str, fast_path: bool) -> None:
    lab = make_lab(fast_path=fast_path)
    for base in FRAMES[port]:
        for offset in range(min(len(base), 90)):
            for value in (0x00, 0x01, 0x7F, 0xFF):
                frame = bytearray(base)
                frame[offset] = value
                lab.send(port, bytes(_icmp_repaired(_repaired(frame))))
        lab.now += 1
        lab.dp.tick(lab.now)
    lab.wait(301)
    assert still_works(lab)


def test_the_frames_reach_deep_into_natgw() -> None:
    """The property is worth little if all frames end at the first check."""
    reached: Counter[Verdict] = Counter()
    for fast_path in (True, False):
        lab = make_lab(fast_path=fast_path)
        for port in PORTS:
            for base in FRAMES[port]:
                for offset, size in FIELDS:
                    limit, true = 2 ** (8 * size), int.from_bytes(base[offset : offset + size], "big")
                    for value in (true, 0, 1, ICMPV6, (true - 1) % limit, (true + 1) % limit, limit - 1):
                        frame = bytearray(base)
                        frame[offset : offset + size] = value.to_bytes(size, "big")
                        verdict = lab.send(port, bytes(_icmp_repaired(_repaired(frame)))).verdict
                        assert verdict is not None
                        reached[verdict] += 1
    expected = {
        Verdict.BRIDGED, Verdict.FLOODED, Verdict.ABSORBED, Verdict.TRANSLATED_OUT, Verdict.TRANSLATED_IN,
        Verdict.TRANSLATED_ERROR, Verdict.ROUTED, Verdict.TO_HOST, Verdict.ECHO_ANSWERED, Verdict.FRAGMENTED,
        Verdict.ICMP_TIME_EXCEEDED, Verdict.DROP_BAD_VERSION, Verdict.DROP_BAD_IHL, Verdict.DROP_BAD_LENGTH,
        Verdict.DROP_BAD_TRANSPORT, Verdict.DROP_MARTIAN_SOURCE, Verdict.DROP_MARTIAN_DESTINATION, Verdict.DROP_TTL,
        Verdict.DROP_PROTOCOL, Verdict.DROP_FILTERED, Verdict.DROP_TCP_STATE, Verdict.DROP_ICMP_BAD,
        Verdict.DROP_ETHERTYPE, Verdict.DROP_BAD_ARP, Verdict.DROP_RATE_LIMITED, Verdict.DROP_BAD_OFFLOAD}
    assert {verdict.name for verdict in expected - reached.keys()} == set()
