"""UDP datagrams put together before they are written: what may be merged, what must not, and that nobody can tell."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from natgw.datapath import PortKind, Verdict
from natgw.datapath.coalesce import MAX_DATAGRAMS
from natgw.datapath.outgoing import MAX_RUNS
from natgw.wire.ethernet import L3, parse_mac
from natgw.wire.segment import segments
from natgw.wire.vnet import GSO_UDP_L4, NEEDS_CSUM, VNET
from tests.conftest import examples
from tests.unit.core_lab import (
    A_IP,
    A_MAC,
    B_MAC,
    EXTERNAL,
    GATEWAY_IP,
    GATEWAY_MAC,
    REMOTE,
    Lab,
    Sent,
    from_a,
    from_b,
    from_outside,
    partial,
)


def datagram(data: bytes = b"x" * 20, *, sport: int = 45000, dport: int = 53, **ip: Any) -> bytes:
    """A datagram of container a as a link with offload delivers it."""
    return partial(from_a(UDP(sport=sport, dport=dport) / data, **({"flags": "DF"} | ip)))


def warm(**config: Any) -> Lab:
    """A gateway with flows on their way: container a from port 45000 and 45001, b from 46000."""
    lab = Lab(**config)
    for sport in (45000, 45001):
        lab.send("a", datagram(sport=sport))
        lab.send("uplink", from_outside(UDP(sport=53, dport=sport)))
    lab.send("b", from_b(UDP(sport=46000, dport=53)))
    return lab


def run(lab: Lab, *frames: bytes | tuple[str, bytes]) -> list[Sent]:
    """What frames cause that are read in one wake-up; a frame without a port is container a's. Each counts once."""
    before = list(lab.dp.verdicts)
    sent = []
    for each in frames:
        port, frame = each if isinstance(each, tuple) else ("a", each)
        sent += lab.send(port, frame, flush=False).sent
    sent += lab.flush()
    assert sum(lab.dp.verdicts) - sum(before) == len(frames), "one verdict a frame, merged or not"
    return sent


def payloads(sent: Sent) -> list[bytes]:
    """The datagrams that the receiver's kernel makes of a frame."""
    return [bytes(Ether(bytes(piece[10:]))[UDP].payload) for piece in segments(sent.raw)]


def translated(frame: bytes, ident: int) -> bytes:
    """A datagram of container a as it is on the wire outside, complete."""
    packet = Ether(frame[10:])
    packet[IP].src, packet[IP].ttl, packet[IP].id = EXTERNAL, packet[IP].ttl - 1, ident
    packet[Ether].src, packet[Ether].dst = "02:aa:00:00:00:01", "02:bb:00:00:00:01"
    del packet[IP].chksum, packet[UDP].chksum
    return bytes(packet)


# -- merged ----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("G2")
@pytest.mark.parametrize("size", [1, 2, 18, 333, 1472])
def test_a_superframe_stands_for_the_datagrams_it_was_made_of(size: int) -> None:
    lab = warm()
    frames = [datagram(bytes((number,)) * size, id=100) for number in range(5)]
    (sent,) = run(lab, *frames)
    assert sent.port == "uplink"
    assert sent.vnet == VNET.pack(NEEDS_CSUM, GSO_UDP_L4, 42, size, 34, 6)
    assert [bytes(piece[10:]) for piece in segments(sent.raw)] == [
        translated(frame, 100 + number) for number, frame in enumerate(frames)]


def test_counters_tell_of_every_datagram() -> None:
    lab = warm()
    before = lab.dp.counters()
    run(lab, *[datagram() for _ in range(10)])
    after = lab.dp.counters()
    grown = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert grown == {"translated_out": 10, "fast_path": 10, "coalesced": 10}
    flow = next(flow for flow in lab.flows() if flow["original"]["sport"] == 45000)
    assert (flow["original"]["packets"], flow["original"]["bytes"]) == (11, 11 * 48)


def test_a_datagram_alone_leaves_as_it_is() -> None:
    lab = warm()
    (sent,) = run(lab, datagram(id=5))
    assert sent.vnet == datagram()[:10]
    assert [bytes(piece[10:]) for piece in segments(sent.raw)] == [translated(datagram(), 5)]
    assert lab.dp.counters()["coalesced"] == 0


@pytest.mark.parametrize(("size", "each"), [(20, MAX_DATAGRAMS), (1400, 65507 // 1400)])
def test_a_superframe_is_bounded_in_datagrams_and_in_bytes(size: int, each: int) -> None:
    lab = warm()
    count = 2 * each + 3
    sent = run(lab, *[datagram(number.to_bytes(2, "big") * (size // 2)) for number in range(count)])
    assert [len(payloads(frame)) for frame in sent] == [each, each, 3]
    assert all(len(frame.raw) - L3 <= 65535 for frame in sent)
    assert [data[:2] for frame in sent for data in payloads(frame)] == [number.to_bytes(2, "big") for number in range(count)]


def test_answers_from_outside_are_merged_as_well() -> None:
    lab = warm()
    frames = [partial(from_outside(UDP(sport=53, dport=45000) / (bytes((number,)) * 9), flags="DF")) for number in range(4)]
    (sent,) = run(lab, *(("uplink", frame) for frame in frames))
    assert sent.port == "a" and payloads(sent) == [bytes((number,)) * 9 for number in range(4)]
    assert sent.packet[IP].dst == A_IP
    assert lab.dp.verdicts[Verdict.TRANSLATED_IN] == 2 + 4


# -- not merged ------------------------------------------------------------------------------------------------------


def complete(packet: Packet) -> bytes:
    return bytes(10) + bytes(packet)


def spoiled(frame: bytes) -> bytes:
    """The frame with an IP header checksum that does not verify."""
    return frame[: L3 + 10] + bytes((frame[L3 + 10] ^ 1,)) + frame[L3 + 11 :]


OTHERS = {
    "a longer one": datagram(b"y" * 21),
    "a shorter one": datagram(b"y" * 19),
    "TTL": datagram(b"y" * 20, ttl=63),
    "TOS": datagram(b"y" * 20, tos=4),
    "ECN": datagram(b"y" * 20, tos=3),
    "no DF": datagram(b"y" * 20, flags=""),
    "reserved flag": datagram(b"y" * 20, flags="DF+evil"),
    "complete checksum": complete(from_a(UDP(sport=45000, dport=53) / (b"y" * 20), flags="DF")),
    "no checksum": complete(from_a(UDP(sport=45000, dport=53, chksum=0) / (b"y" * 20), flags="DF")),
    "options": datagram(b"y" * 20, options=[IPOption_Router_Alert()]),
    "a superframe": partial(from_a(UDP(sport=45000, dport=53) / (b"y" * 40), flags="DF"), gso_type=GSO_UDP_L4, gso_size=20),
    "TCP": complete(from_a(TCP(sport=45000, dport=53, flags="A") / (b"y" * 8))),
}
OTHER_FLOWS = {
    "source port": datagram(b"y" * 20, sport=45001),
    "destination port": datagram(b"y" * 20, dport=54),
    "destination": datagram(b"y" * 20, dst="192.0.2.1"),
    "a ping": complete(from_a(ICMP() / (b"y" * 20))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_frame_that_differs_is_not_merged_and_order_is_kept(name: str) -> None:
    lab = warm()
    other = OTHERS[name]
    lab.send("a", other)  # a flow of its own, should it be one
    sent = run(lab, datagram(b"1" * 20), other, datagram(b"2" * 20))
    assert [frame.port for frame in sent] == ["uplink"] * 3
    assert payloads(sent[0]) == [b"1" * 20] and payloads(sent[2]) == [b"2" * 20]
    assert b"y" in sent[1].raw and b"1" * 20 not in sent[1].raw and b"2" * 20 not in sent[1].raw


@pytest.mark.parametrize("name", OTHER_FLOWS)
def test_a_frame_of_another_flow_is_not_merged_and_does_not_end_the_run(name: str) -> None:
    lab = warm()
    lab.send("a", OTHER_FLOWS[name])
    sent = run(lab, datagram(b"1" * 20), OTHER_FLOWS[name], datagram(b"2" * 20))
    merged = [frame for frame in sent if b"y" not in frame.raw]
    assert [payloads(frame) for frame in merged] == [[b"1" * 20, b"2" * 20]]
    assert [frame.port for frame in sent] == ["uplink"] * 2


@pytest.mark.parametrize(("change", "verdict"), [
    (spoiled, Verdict.DROP_BAD_CHECKSUM),
    (lambda frame: frame[:-1], Verdict.DROP_BAD_LENGTH),
    (lambda frame: frame[: L3 + 24] + b"\0\x1d" + frame[L3 + 26 :], Verdict.DROP_BAD_TRANSPORT),
], ids=["IP checksum", "cut short", "UDP length"])
def test_a_datagram_that_would_be_dropped_alone_is_not_merged(change: Callable[[bytes], bytes], verdict: Verdict) -> None:
    lab = warm()
    bad = change(datagram(b"y" * 20))
    sent = run(lab, datagram(b"1" * 20), bad, datagram(b"2" * 20))
    assert [payloads(frame) for frame in sent] == [[b"1" * 20], [b"2" * 20]]
    assert lab.dp.verdicts[verdict] == 1


def test_a_wrong_pseudo_header_sum_is_not_hidden() -> None:
    lab = warm(verify=False)
    good = datagram(b"y" * 20)
    bad = good[: L3 + 26] + bytes((good[L3 + 26] ^ 1,)) + good[L3 + 27 :]
    sent = run(lab, good, bad, good)
    assert [int.from_bytes(frame.vnet[4:6], "little") for frame in sent] == [0, 0, 0]


def test_padding_is_no_payload() -> None:
    lab = warm()
    (sent,) = run(lab, datagram(b"1" * 10), datagram(b"2" * 10) + bytes(8), datagram(b"3" * 10))
    assert payloads(sent) == [b"1" * 10, b"2" * 10, b"3" * 10]


def test_empty_datagrams_leave_one_by_one() -> None:
    lab = warm()
    assert len(run(lab, *[datagram(b"") for _ in range(3)])) == 3


def test_a_datagram_of_another_station_is_not_merged() -> None:
    lab = warm()
    forged = Ether(datagram(b"y" * 20)[10:])
    forged[Ether].src = B_MAC
    sent = run(lab, datagram(b"1" * 20), ("a", datagram()[:10] + bytes(forged)), datagram(b"2" * 20))
    assert [payloads(frame) for frame in sent] == [[b"1" * 20], [b"y" * 20], [b"2" * 20]]


def test_interleaved_flows_keep_their_order() -> None:
    lab = warm()
    names = "112122211"
    frames = [datagram(bytes((number,)) * 20, sport=45000 + int(name) - 1) for number, name in enumerate(names)]
    sent = run(lab, *frames)
    assert [[data[0] for data in payloads(frame)] for frame in sent] == [[0, 1, 3, 7, 8], [2, 4, 5, 6]]
    assert [frame.packet[UDP].sport for frame in sent] == [45000, 45001], "in the order in which they began"


def test_more_flows_than_there_may_be_runs_keep_their_order() -> None:
    lab = warm()
    for flow in range(MAX_RUNS + 6):
        lab.send("a", datagram(sport=40000 + flow))
    frames = [datagram(bytes((number,)) * 20, sport=40000 + flow) for number in range(2) for flow in range(MAX_RUNS + 6)]
    sent = run(lab, *frames)
    found: dict[int, list[int]] = {}
    for frame in sent:
        found.setdefault(frame.packet[UDP].sport, []).extend(data[0] for data in payloads(frame))
    assert found == {40000 + flow: [0, 1] for flow in range(MAX_RUNS + 6)}


def test_what_the_gateway_says_itself_comes_after_what_was_there_before() -> None:
    lab = warm()
    sent = run(lab, datagram(b"1" * 20), datagram(b"2" * 20), complete(from_a(ICMP(), dst=GATEWAY_IP)), datagram(b"3" * 20))
    assert [frame.port for frame in sent] == ["uplink", "a", "uplink"]
    assert payloads(sent[0]) == [b"1" * 20, b"2" * 20]


def test_a_frame_for_the_slow_path_comes_after_what_was_there_before() -> None:
    """A run's own flow may be among what it does: a fragment of it, or an ICMP error about it."""
    lab = warm()
    later = complete(from_a(UDP(sport=45000, dport=53) / (b"y" * 20), flags="MF"))
    sent = run(lab, datagram(b"1" * 20), datagram(b"2" * 20), later, datagram(b"3" * 20))
    assert [payloads(sent[0]), payloads(sent[2])] == [[b"1" * 20, b"2" * 20], [b"3" * 20]]
    assert b"y" * 20 in sent[1].raw


def test_a_bridged_frame_ends_no_run() -> None:
    lab = warm()
    bridged = Ether(src=A_MAC, dst=B_MAC) / IP(src=A_IP, dst="172.17.0.3") / UDP()
    lab.send("b", Ether(src=B_MAC, dst=GATEWAY_MAC) / b"heard")
    lab.send("a", complete(bridged))
    sent = run(lab, datagram(b"1" * 20), complete(bridged), datagram(b"2" * 20))
    assert [frame.port for frame in sent] == ["b", "uplink"] and payloads(sent[1]) == [b"1" * 20, b"2" * 20]


# -- flush -----------------------------------------------------------------------------------------------------------


def test_nothing_is_held_after_a_flush_and_flushing_nothing_does_nothing() -> None:
    lab = warm()
    assert lab.flush() == []
    lab.send("a", datagram(b"1" * 20), flush=False)
    lab.send("a", datagram(b"2" * 20), flush=False)
    (sent,) = lab.flush()
    assert payloads(sent) == [b"1" * 20, b"2" * 20]
    assert lab.flush() == []


def test_sending_what_is_ready_leaves_datagrams_to_be_put_together() -> None:
    """As the pump does between two batches of one turn."""
    lab = warm()
    lab.send("a", datagram(b"1" * 20), flush=False)
    lab.send("a", datagram(b"whole", flags=""), flush=False)  # a datagram that is not put together with others
    lab.send("a", datagram(b"2" * 20), flush=False)
    lab.collected.clear()
    lab.dp.send()
    assert [payloads(sent) for sent in lab.collected] == [[b"whole"]]
    lab.send("a", datagram(b"3" * 20), flush=False)
    (sent,) = lab.flush()
    assert payloads(sent) == [b"2" * 20, b"3" * 20]


@pytest.mark.parametrize("change", ["port", "neighbour", "publication", "uplink"])
def test_what_is_held_leaves_before_anything_changes(change: str) -> None:
    lab = warm()
    publication = lab.publish(9999, 99, "udp")
    lab.send("a", datagram(b"1" * 20), flush=False)
    lab.send("a", datagram(b"2" * 20), flush=False)
    lab.collected.clear()
    {"port": lambda: lab.dp.remove_port(lab.ports["a"]),
     "neighbour": lambda: lab.dp.remove_neighbour(lab.bridge, IPv4Address(A_IP)),
     "publication": lambda: lab.dp.unpublish(publication),
     "uplink": lab.dp.clear_uplink}[change]()
    (sent,) = lab.collected
    assert payloads(sent) == [b"1" * 20, b"2" * 20]
    assert lab.dp.counters()["coalesced"] == 2


def test_a_link_that_takes_no_superframes_gets_none() -> None:
    lab = warm()
    lab.dp.remove_port(lab.ports["a"])
    lab.ports["a"] = lab.dp.add_port(lab.bridge, "a", PortKind.ENDPOINT, transmit=lab.ports["a"].transmit, coalesces=False)
    lab.dp.add_neighbour(lab.bridge, IPv4Address(A_IP), parse_mac(A_MAC), lab.ports["a"], lab.now)
    frames = [partial(from_outside(UDP(sport=53, dport=45000) / b"x", flags="DF")) for _ in range(3)]
    run(lab, ("uplink", frames[0]))  # finds the new port
    assert len(run(lab, *(("uplink", frame) for frame in frames))) == 3


@pytest.mark.parametrize("config", [{"coalesce": False}, {"fast_path": False}])
def test_it_can_be_turned_off(config: dict[str, Any]) -> None:
    lab = warm(**config)
    sent = run(lab, *[datagram() for _ in range(5)])
    assert len(sent) == 5 and lab.dp.counters()["coalesced"] == 0


# -- whatever comes --------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from((0, 1, 20, 20, 20, 700)), st.sampled_from((64, 64, 64, 63)),
                          st.sampled_from(("DF", "DF", "DF", "")), st.booleans()), max_size=30))
@settings(max_examples=examples(200))
def test_the_receiver_cannot_tell(steps: list[tuple[int, int, int, str, bool]]) -> None:
    """With coalescing and without, each flow's receiver gets the same datagrams in the same order, but for the IP id."""
    frames = [datagram(bytes((number,)) * size, sport=45000 + flow, dst=REMOTE, ttl=ttl, flags=flags, id=7)
              for number, (flow, size, ttl, flags, _) in enumerate(steps)]
    received = []
    for coalesce in (True, False):
        lab = warm(coalesce=coalesce)
        sent: list[Sent] = []
        for frame, (*_, flush) in zip(frames, steps, strict=True):
            sent += lab.send("a", frame, flush=False).sent
            sent += lab.flush() if flush else []
        sent += lab.flush()
        pieces = [Ether(bytes(piece[10:])) for frame in sent for piece in segments(frame.raw)]
        for piece in pieces:
            if "DF" in piece[IP].flags:  # RFC 6864: then the id means nothing
                piece[IP].id = 0
                del piece[IP].chksum
        received.append(sorted(((piece[UDP].sport, bytes(piece)) for piece in pieces), key=lambda each: each[0]))
        assert sum(lab.dp.verdicts[verdict] for verdict in Verdict if verdict.is_drop) == 0
    assert received[0] == received[1]
