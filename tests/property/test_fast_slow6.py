"""The fast path and the slow path give the same bytes, verdicts and state for IPv6 too (see test_fast_slow.py)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from natgw.datapath import Extra, Verdict
from natgw.tables.flowtable import MAX_AWAKE
from natgw.wire.ethernet import L3
from tests.conftest import examples
from tests.generated import note
from tests.unit.core_lab import A_MAC, B_MAC, GATEWAY_MAC, ROUTER_MAC, UPLINK_MAC
from tests.unit.lab6 import A6, B6, EXTERNAL6, GATEWAY6, REMOTE6, Lab6, from_a6, from_outside6, partial6

pytestmark = pytest.mark.requirement("V1")

OTHER_REMOTE = "2001:db8:113::a"
MACS = {A6: A_MAC, B6: B_MAC}
payloads = st.binary(max_size=40)
ports = st.sampled_from((80, 5000, 5001, 45000, 8080))
tcp_flags = st.sampled_from(("S", "SA", "A", "A", "A", "PA", "FA", "R", "SF", "", "RA", "U"))
numbers = st.one_of(st.sampled_from((0, 1, 9, 10, 2**32 - 1)), st.integers(0, 2**32 - 1))


@st.composite
def transports(draw: st.DrawFn, outbound: bool) -> Packet:
    payload = Raw(draw(payloads))
    kind = draw(st.sampled_from(("tcp", "tcp", "udp", "echo", "reply", "error", "other")))
    sport, dport = draw(ports), draw(ports)
    if kind == "tcp":
        return TCP(sport=sport, dport=dport, flags=draw(tcp_flags), seq=draw(numbers),
                   ack=draw(numbers), window=draw(st.sampled_from((0, 10, 65535)))) / payload
    if kind == "udp":
        return UDP(sport=sport, dport=dport) / payload
    if kind == "echo":
        return ICMPv6EchoRequest(id=sport, seq=1, data=payload.load)
    if kind == "reply":
        return ICMPv6EchoReply(id=sport, seq=1, data=payload.load)
    if kind == "error":
        quoted = IPv6(src=REMOTE6, dst=A6) if outbound else IPv6(src=EXTERNAL6, dst=REMOTE6)
        return ICMPv6TimeExceeded() / quoted / UDP(sport=sport, dport=dport) / payload
    return payload


@st.composite
def steps(draw: st.DrawFn) -> tuple[str, bytes, float]:
    """(port, frame with offload header, seconds that pass before)."""
    elapsed = draw(st.sampled_from((0.0, 0.0, 0.1, 1.0, 70.0, 301.0)))
    outbound = draw(st.booleans())
    body = draw(transports(outbound))
    hop_limit = draw(st.sampled_from((1, 2, 64, 64, 64)))
    if outbound:
        src = draw(st.sampled_from((A6, A6, B6)))
        dst = draw(st.sampled_from((REMOTE6, REMOTE6, OTHER_REMOTE, EXTERNAL6, GATEWAY6, B6)))
        port, link = "a" if src == A6 else "b", Ether(src=MACS[src], dst=GATEWAY_MAC)
    else:
        src, dst, port = draw(st.sampled_from((REMOTE6, OTHER_REMOTE))), EXTERNAL6, "uplink"
        link = Ether(src=ROUTER_MAC, dst=UPLINK_MAC)
    header = IPv6(src=src, dst=dst, hlim=hop_limit)
    if isinstance(body, Raw):
        header.nh = 47
    headers = draw(st.sampled_from(("", "", "", "", "options", "fragment")))
    if headers and not isinstance(body, Raw):
        header /= IPv6ExtHdrDestOpt() if headers == "options" else IPv6ExtHdrFragment(m=1, id=7)
    packet = link / header / body
    plain_transport = not headers and isinstance(body, TCP | UDP)
    frame = bytearray(partial6(packet) if plain_transport and draw(st.booleans()) else bytes(10) + bytes(packet))
    if draw(st.integers(0, 9)) == 0:
        frame[draw(st.integers(L3, len(frame) - 1))] ^= draw(st.integers(1, 255))
    if draw(st.integers(0, 9)) == 0:
        del frame[draw(st.integers(14, len(frame))) :]
    return port, bytes(frame), elapsed


def gateway(*, fast_path: bool, max_awake_flows: int = MAX_AWAKE) -> Lab6:
    lab = Lab6(fast_path=fast_path, coalesce=False, verify=False, uplink_mtu=1400, max_awake_flows=max_awake_flows)
    lab.publish6(8080, 80)
    return lab


@given(st.lists(steps(), min_size=1, max_size=40), st.sampled_from((1, MAX_AWAKE)))
@settings(max_examples=examples(250))
def test_same_bytes_and_verdicts(sequence: list[tuple[str, bytes, float]], max_awake_flows: int) -> None:
    """Also with one flow awake and all others at rest."""
    fast, slow = (gateway(fast_path=fast, max_awake_flows=max_awake_flows) for fast in (True, False))
    for port, frame, elapsed in sequence:
        for lab in (fast, slow):
            lab.now += elapsed
            if elapsed:
                lab.dp.tick(lab.now)
        assert fast.send(port, frame) == slow.send(port, frame)
        assert fast.dp.verdicts == slow.dp.verdicts
    assert fast.flows() == slow.flows()
    note("fast and slow, IPv6", len(sequence))


def test_the_property_is_not_vacuous() -> None:
    """An established TCP conversation, UDP and echo go the fast way, both directions."""
    lab = gateway(fast_path=True)

    def fast(port: str, packet: Packet) -> int:
        before = lab.dp.extras[Extra.FAST_PATH]
        assert lab.send(port, packet).verdict in (Verdict.TRANSLATED_OUT, Verdict.TRANSLATED_IN)
        return lab.dp.extras[Extra.FAST_PATH] - before

    def inside(flags: str) -> Packet:
        return from_a6(TCP(sport=45000, dport=80, flags=flags) / b"x")

    def outside(flags: str) -> Packet:
        return from_outside6(TCP(sport=80, dport=45000, flags=flags) / b"x")

    went = [fast("a", inside("S")), fast("uplink", outside("SA")), fast("a", inside("A")), fast("uplink", outside("A")),
            fast("a", inside("PA"))]
    assert went == [0, 0, 1, 1, 1]
    question, answer = UDP(sport=45001, dport=53) / b"q", UDP(sport=53, dport=45001) / b"a"
    assert [fast("a", from_a6(question)), fast("a", from_a6(question)), fast("uplink", from_outside6(answer))] == [0, 1, 1]
    ping, pong = ICMPv6EchoRequest(id=7), ICMPv6EchoReply(id=7)
    assert [fast("a", from_a6(ping)), fast("a", from_a6(ping)), fast("uplink", from_outside6(pong))] == [0, 1, 1]
