"""The translator with its defaults (RFC 4787, 5382, 5508): flows, ports, published ports, ICMP errors, and how flows end.

What can be chosen of its behaviour is tested in test_behaviour, fragments in test_fragments.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from natgw.datapath import Publication, Verdict
from natgw.errors import Conflict, NotFound
from natgw.tables.portpool import PortPool
from natgw.wire.ethernet import parse_mac
from tests.unit.core_lab import (
    A_IP,
    A_MAC,
    B_IP,
    B_MAC,
    EXTERNAL,
    GATEWAY_IP,
    GATEWAY_MAC,
    REMOTE,
    ROUTER,
    ROUTER_MAC,
    UPLINK_MAC,
    Lab,
    Outcome,
    arp_reply,
    from_a,
    from_b,
    from_outside,
    transports,
    uplink_config,
)

FAST = pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "slow"])


def ports_of(out: Outcome) -> tuple[str, int, str, int]:
    """Source and destination of the only packet, with ports."""
    packet = out.packet[IP]
    return packet.src, packet.payload.sport, packet.dst, packet.payload.dport


def connect(lab: Lab, sport: int = 45000, dport: int = 80) -> int:
    """A TCP connection of container a to the remote, established; gives its external port."""
    port = lab.external_port(lab.send("a", from_a(TCP(sport=sport, dport=dport, flags="S"))))
    assert lab.send("uplink", from_outside(TCP(sport=dport, dport=port, flags="SA"))).verdict is Verdict.TRANSLATED_IN
    assert lab.send("a", from_a(TCP(sport=sport, dport=dport, flags="A"))).verdict is Verdict.TRANSLATED_OUT
    return port


# -- outbound --------------------------------------------------------------------------------------------------------


@FAST
@pytest.mark.requirement("U5", "G2")
def test_udp_goes_out_and_its_answer_comes_back(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)
    for _ in range(3):
        out = lab.send("a", from_a(UDP(sport=45000, dport=53) / b"question"))
        assert out.verdict is Verdict.TRANSLATED_OUT and out.ports == ["uplink"]
        assert (out.packet[Ether].src, out.packet[Ether].dst) == (UPLINK_MAC, ROUTER_MAC)
        assert ports_of(out) == (EXTERNAL, 45000, REMOTE, 53)
        back = lab.send("uplink", from_outside(UDP(sport=53, dport=45000) / b"answer"))
        assert back.verdict is Verdict.TRANSLATED_IN and back.ports == ["a"]
        assert (back.packet[Ether].src, back.packet[Ether].dst) == (GATEWAY_MAC, A_MAC)
        assert ports_of(back) == (REMOTE, 53, A_IP, 45000)
        assert bytes(back.packet[UDP].payload) == b"answer"
    (flow,) = lab.flows()
    assert flow["kind"] == "outbound" and flow["state"] == "REPLIED"
    assert flow["mapping"] == {"internal": f"{A_IP}:45000", "external": f"{EXTERNAL}:45000"}
    assert flow["original"] | flow["reply"] == flow["reply"]
    assert (flow["original"]["packets"], flow["original"]["bytes"]) == (3, 3 * 36)
    assert (flow["reply"]["packets"], flow["reply"]["bytes"]) == (3, 3 * 34)
    assert lab.dp.counters()["fast_path"] == (4 if fast_path else 0), "all but the first each way"


@FAST
@pytest.mark.requirement("T8")
def test_a_tcp_connection_from_its_first_segment_to_its_last(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)

    def out(flags: str, state: str) -> None:
        sent = lab.send("a", from_a(TCP(sport=45000, dport=80, flags=flags, seq=7, ack=9) / b""))
        assert ports_of(sent) == (EXTERNAL, 45000, REMOTE, 80) and str(sent.packet[TCP].flags) == flags
        assert lab.flows()[0]["state"] == state

    def back(flags: str, state: str) -> None:
        sent = lab.send("uplink", from_outside(TCP(sport=80, dport=45000, flags=flags)))
        assert ports_of(sent) == (REMOTE, 80, A_IP, 45000) and lab.flows()[0]["state"] == state

    out("S", "SYN_SENT")
    back("SA", "SYN_RECV")
    out("A", "ESTABLISHED")
    back("PA", "ESTABLISHED")
    out("FA", "FIN_WAIT")
    back("A", "CLOSE_WAIT")
    back("FA", "LAST_ACK")
    out("A", "TIME_WAIT")
    lab.wait(239)
    assert lab.flows()
    lab.wait(3)
    assert not lab.flows()


@FAST
@pytest.mark.requirement("I1", "I2")
def test_two_containers_may_ping_with_one_identifier(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)
    for sequence in range(1, 4):
        first = lab.external_port(lab.send("a", from_a(ICMP(id=7, seq=sequence) / b"a")))
        second = lab.external_port(lab.send("b", from_b(ICMP(id=7, seq=sequence) / b"b")))
        assert first == 7 and second != 7
        for identifier, port in ((first, "a"), (second, "b")):
            back = lab.send("uplink", from_outside(ICMP(type=0, id=identifier, seq=sequence) / port.encode()))
            assert back.verdict is Verdict.TRANSLATED_IN and back.ports == [port]
            assert (back.packet[ICMP].id, back.packet[ICMP].seq, bytes(back.packet[ICMP].payload)) == (
                7, sequence, port.encode())


@FAST
@pytest.mark.requirement("I1")
def test_an_echo_request_is_no_answer_and_an_answer_no_request(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path, exclusive=True)
    lab.send("a", from_a(ICMP(id=7)))
    lab.send("uplink", from_outside(ICMP(type=0, id=7)))
    assert lab.send("uplink", from_outside(ICMP(type=8, id=7))).verdict is Verdict.ECHO_ANSWERED
    assert lab.send("a", from_a(ICMP(type=0, id=7))).verdict is Verdict.DROP_ICMP_TYPE


@pytest.mark.requirement("U5")
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_port_outside_the_range_becomes_one_inside(protocol: str) -> None:
    lab = Lab()
    for sport in (5000, 1, 39999):
        body = UDP(sport=sport) if protocol == "udp" else TCP(sport=sport, flags="S")
        assert 40000 <= lab.external_port(lab.send("a", from_a(body))) <= 65535
    assert lab.external_port(lab.send("b", from_b(ICMP(id=5000)))) == 5000, "identifiers have no range"


@pytest.mark.requirement("U1", "T1")
def test_one_endpoint_keeps_one_external_port_to_every_remote() -> None:
    lab = Lab()
    seen = {(protocol, lab.external_port(lab.send("a", from_a(body, dst=dst))))
            for dst in (REMOTE, "192.0.2.1", "192.0.2.2")
            for dport in (80, 81)
            for protocol, body in (("udp", UDP(sport=5000, dport=dport)), ("tcp", TCP(sport=5000, dport=dport, flags="S")))}
    assert len(seen) == 2, "one for each protocol"
    assert len(lab.flows()) == 12


@pytest.mark.requirement("U4")
def test_a_port_that_another_container_has_is_not_given_again() -> None:
    lab = Lab()
    assert lab.external_port(lab.send("a", from_a(UDP(sport=45000, dport=53)))) == 45000
    second = lab.external_port(lab.send("b", from_b(UDP(sport=45000, dport=53))))
    assert second != 45000
    assert lab.send("uplink", from_outside(UDP(sport=53, dport=45000))).ports == ["a"]
    assert ports_of(lab.send("uplink", from_outside(UDP(sport=53, dport=second)))) == (REMOTE, 53, B_IP, 45000)
    assert lab.external_port(lab.send("b", from_b(TCP(sport=45000, dport=53, flags="S")))) == 45000, "TCP has its own ports"


@pytest.mark.requirement("U2")
def test_from_outside_only_answers_come_in() -> None:
    lab = Lab()
    lab.send("a", from_a(UDP(sport=45000, dport=53)))
    for packet, verdict in (
            (from_outside(UDP(sport=53, dport=45000)), Verdict.TRANSLATED_IN),
            (from_outside(UDP(sport=54, dport=45000)), Verdict.DROP_FILTERED),
            (from_outside(UDP(sport=53, dport=45000), src="192.0.2.1"), Verdict.DROP_FILTERED),
            (from_outside(UDP(sport=53, dport=45001)), Verdict.DROP_NO_MAPPING),
            (from_outside(TCP(sport=53, dport=45000, flags="A")), Verdict.DROP_NO_MAPPING)):
        assert lab.send("uplink", packet).verdict is verdict
    assert len(lab.flows()) == 1, "inbound creates nothing"


# -- how many --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("U4", "U8")
def test_every_port_is_given_once_and_then_none() -> None:
    lab = Lab(port_range=(50000, 50009))
    given = [lab.external_port(lab.send("a", from_a(UDP(sport=1000 + number)))) for number in range(10)]
    assert sorted(given) == list(range(50000, 50010))
    assert given != sorted(given), "in no order that can be guessed"
    out = lab.send("a", from_a(UDP(sport=2000) / b"one too many"))
    assert out.verdict is Verdict.DROP_PORTS_EXHAUSTED and lab.dp.counters()["drop_ports_exhausted"] == 1
    assert lab.external_port(lab.send("a", from_a(UDP(sport=1000, dport=99)))) == given[0], "a mapping that is there serves on"
    assert lab.external_port(lab.send("a", from_a(TCP(sport=50003, flags="S")))) == 50003
    lab.wait(301)
    assert not lab.flows()
    assert lab.external_port(lab.send("b", from_b(UDP(sport=50005)))) == 50005


@pytest.mark.requirement("I8")
@pytest.mark.parametrize("limits", [{"port_range": (50000, 50000)}, {"max_flows": 1}])
def test_who_cannot_get_a_port_is_told(limits: dict[str, Any]) -> None:
    lab = Lab(**limits)
    lab.send("a", from_a(UDP(sport=1)))
    out = lab.send("b", from_b(UDP(sport=2) / b"x"))
    assert out.verdict in (Verdict.DROP_PORTS_EXHAUSTED, Verdict.DROP_FLOWS_FULL) and out.ports == ["b"]
    assert (out.packet[IP].src, out.packet[ICMP].type, out.packet[ICMP].code) == (GATEWAY_IP, 3, 13)
    assert out.only.quoted == bytes(from_b(UDP(sport=2) / b"x")[IP])


@pytest.mark.requirement("U8")
def test_when_the_table_is_full_flows_that_exist_go_on() -> None:
    lab = Lab(max_flows=2)
    lab.publish(8080, 80)
    for number in range(2):
        assert lab.send("a", from_a(UDP(sport=45000 + number, dport=53))).verdict is Verdict.TRANSLATED_OUT
    assert lab.send("a", from_a(UDP(sport=45002, dport=53))).verdict is Verdict.DROP_FLOWS_FULL
    assert lab.send("uplink", from_outside(TCP(dport=8080, flags="S"))).verdict is Verdict.DROP_FLOWS_FULL
    assert lab.send("uplink", from_outside(UDP(sport=53, dport=45001))).verdict is Verdict.TRANSLATED_IN
    lab.wait(302)
    assert lab.send("a", from_a(UDP(sport=45002, dport=53))).verdict is Verdict.TRANSLATED_OUT
    counters = lab.dp.counters()
    assert (counters["flows_created"], counters["flows_ended"]) == (3, 2)


class Pools(RuleBasedStateMachine):
    """A port pool beside plain sets."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PortPool(100, 105)
        self.taken: set[int] = set()
        self.resting: dict[int, tuple[bytes, float]] = {}
        self.now = 0.0

    @rule(port=st.integers(98, 107))
    def take(self, port: int) -> None:
        assert self.pool.take(port) == (port not in self.taken and port not in self.resting)
        if port not in self.resting:
            self.taken.add(port)

    @rule(port=st.integers(100, 105), owner=st.sampled_from((b"a", b"b")))
    def take_back(self, port: int, owner: bytes) -> None:
        rests_for = self.resting.get(port, (None, 0))[0]
        assert self.pool.take_back(port, owner) == (rests_for == owner)
        if rests_for == owner:
            del self.resting[port]
            self.taken.add(port)

    @rule(port=st.integers(98, 107))
    def claim(self, port: int) -> None:
        self.pool.claim(port)
        self.resting.pop(port, None)
        self.taken.add(port)

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), owner=st.sampled_from((b"a", b"b")), rest_s=st.sampled_from((0.0, 2.0, 9.0)))
    def release(self, data: st.DataObject, owner: bytes, rest_s: float) -> None:
        port = data.draw(st.sampled_from(sorted(self.taken)))
        rests = rest_s > 0 and 100 <= port <= 105
        self.pool.release(port, owner=owner, rest_until=self.now + rest_s if rest_s else 0.0)
        self.pool.release(port, owner=owner)  # a port nobody has: nothing happens
        self.taken.discard(port)
        if rests:
            self.resting[port] = (owner, self.now + rest_s)

    @rule(seconds=st.sampled_from((0.5, 1.0, 3.0)))
    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pool.wake(self.now)
        self.resting = {port: rest for port, rest in self.resting.items() if rest[1] > self.now}

    @rule(start=st.integers(0, 5), step=st.sampled_from((1, 2)))
    def next_free(self, start: int, step: int) -> None:
        ports = range(100, 106, step)
        start %= len(ports)
        free = [port for port in (*ports[start:], *ports[:start]) if port not in self.taken and port not in self.resting]
        assert self.pool.next_free(ports, start) == (free[0] if free else None)

    @invariant()
    def agrees(self) -> None:
        inside = set(range(100, 106))
        assert self.pool.free == 6 - len(self.taken & inside) - len(self.resting)
        assert {port for port in range(95, 110) if self.pool.is_taken(port)} == self.taken
        assert {port for port in inside if self.pool.is_free(port)} == inside - self.taken - self.resting.keys()


TestPools = Pools.TestCase


@pytest.mark.requirement("C2")
def test_a_port_that_rests_for_a_shorter_time_than_another_is_free_before_it() -> None:
    """The time was made shorter between the two releases."""
    pool = PortPool(100, 105)
    assert pool.take(100) and pool.take(101)
    pool.release(100, owner=b"a", rest_until=300)
    pool.release(101, owner=b"a", rest_until=10)
    pool.wake(11)
    assert (pool.is_free(100), pool.is_free(101)) == (False, True)

# -- how long --------------------------------------------------------------------------------------------------------


@FAST
@pytest.mark.requirement("U6", "I1", "T5")
@pytest.mark.parametrize(("body", "seconds"), [
    (UDP(sport=45000, dport=53), 300), (ICMP(id=45000), 60), (TCP(sport=45000, dport=80, flags="S"), 240),
    (TCP(sport=45000, dport=80, flags="A"), 7440)], ids=["udp", "icmp", "transitory", "established"])
def test_a_flow_lives_for_its_idle_time_and_each_packet_prolongs_it(body: Packet, seconds: int, fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)
    lab.dp.tick(lab.now)
    lab.send("a", from_a(body))
    for _ in range(2):
        lab.wait(seconds - 1)
        assert lab.flows()[0]["timeout_s"] == 1
        assert lab.send("a", from_a(body)).verdict is Verdict.TRANSLATED_OUT
        assert lab.flows()[0]["timeout_s"] == seconds
    lab.wait(seconds - 0.5)
    assert lab.flows()
    lab.wait(2)
    assert not lab.flows()
    assert lab.dp.counters()["flows_created"] == lab.dp.counters()["flows_ended"] == 1
    assert lab.external_port(lab.send("b", from_b(body))) == 45000, "its port is free again"


@FAST
@pytest.mark.requirement("U6", "T5")
def test_packets_from_outside_prolong_a_flow_too(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)
    lab.send("a", from_a(UDP(sport=45000, dport=53)))
    for _ in range(3):
        lab.wait(299)
        assert lab.send("uplink", from_outside(UDP(sport=53, dport=45000))).verdict is Verdict.TRANSLATED_IN


@FAST
@pytest.mark.requirement("T6", "T5")
@pytest.mark.parametrize("side", ["a", "uplink"])
def test_a_reset_is_forwarded_and_the_flow_lives_four_minutes_more(side: str, fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)
    connect(lab)
    segments = {"a": from_a(TCP(sport=45000, dport=80, flags="R")),
                "uplink": from_outside(TCP(sport=80, dport=45000, flags="RA"))}
    assert lab.send(side, segments[side]).ports == [{"a": "uplink", "uplink": "a"}[side]]
    assert (lab.flows()[0]["state"], lab.flows()[0]["timeout_s"]) == ("CLOSE", 240)
    lab.wait(239)
    assert lab.flows()
    lab.wait(3)
    assert not lab.flows()


@FAST
@pytest.mark.requirement("T8")
@pytest.mark.parametrize("flags", ["", "SF", "SR", "FR", "SFA", "F", "P", "U"])
def test_flags_that_cannot_be_are_dropped_in_both_directions(flags: str, fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)
    connect(lab)
    for side, packet in (("a", from_a(TCP(sport=45000, dport=80, flags=flags))),
                         ("uplink", from_outside(TCP(sport=80, dport=45000, flags=flags)))):
        out = lab.send(side, packet)
        assert (out.verdict, out.sent) == (Verdict.DROP_TCP_STATE, [])
    assert lab.flows()[0]["state"] == "ESTABLISHED"


@pytest.mark.requirement("T8")
def test_ports_of_a_connection_that_is_over_serve_a_new_one() -> None:
    lab = Lab()
    connect(lab)
    lab.send("a", from_a(TCP(sport=45000, dport=80, flags="R")))
    connect(lab)
    assert [flow["state"] for flow in lab.flows()] == ["ESTABLISHED"]
    lab.wait(7000)
    assert lab.flows(), "it lives as long as any established connection"


# -- published ports -------------------------------------------------------------------------------------------------


@FAST
def test_a_published_port_leads_to_its_container(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)
    lab.publish(8080, 80)
    lab.publish(5353, 53, "udp", container=B_IP)
    for flags, answer in (("S", "SA"), ("A", "A"), ("PA", "A")):
        into = lab.send("uplink", from_outside(TCP(sport=5000, dport=8080, flags=flags)))
        assert into.verdict is Verdict.TRANSLATED_IN and into.ports == ["a"]
        assert ports_of(into) == (REMOTE, 5000, A_IP, 80), "the client's address is seen"
        back = lab.send("a", from_a(TCP(sport=80, dport=5000, flags=answer)))
        assert back.verdict is Verdict.TRANSLATED_OUT and ports_of(back) == (EXTERNAL, 8080, REMOTE, 5000)
    into = lab.send("uplink", from_outside(UDP(sport=5000, dport=5353) / b"x"))
    assert ports_of(into) == (REMOTE, 5000, B_IP, 53) and into.ports == ["b"]
    assert ports_of(lab.send("b", from_b(UDP(sport=53, dport=5000)))) == (EXTERNAL, 5353, REMOTE, 5000)
    assert {flow["kind"] for flow in lab.flows()} == {"published"} and all(not flow["mapping"] for flow in lab.flows())
    assert lab.send("uplink", from_outside(UDP(sport=5000, dport=8080))).verdict is Verdict.TO_HOST, "UDP is not published"


def test_a_container_that_is_not_known_yet_is_asked_for() -> None:
    lab = Lab()
    lab.publish(8080, 80, container="172.17.0.9")
    out = lab.send("uplink", from_outside(TCP(sport=5000, dport=8080, flags="S")))
    assert out.verdict is Verdict.QUEUED and out.ports == ["a", "b"]
    assert {(each.packet[ARP].psrc, each.packet[ARP].pdst) for each in out.sent} == {(GATEWAY_IP, "172.17.0.9")}
    out = lab.send("b", Ether(src=B_MAC, dst=GATEWAY_MAC) / ARP(
        op=2, hwsrc=B_MAC, psrc="172.17.0.9", hwdst=GATEWAY_MAC, pdst=GATEWAY_IP))
    assert [each.port for each in out.sent if IP in each.packet] == ["b"]


def test_a_published_container_that_is_not_there_is_told() -> None:
    lab = Lab()
    lab.publish(8080, 80, container="172.17.0.9")
    lab.send("uplink", from_outside(TCP(sport=5000, dport=8080, flags="S")))
    (error,) = (each for each in lab.wait(5) if IP in each.packet)
    assert error.port == "uplink"
    assert (error.packet[IP].src, error.packet[IP].dst, error.packet[ICMP].type, error.packet[ICMP].code) == (
        EXTERNAL, REMOTE, 3, 1)
    quoted = IP(error.quoted)
    assert (quoted.dst, quoted.payload.dport) == (EXTERNAL, 8080), "nothing inside is shown outside"


@pytest.mark.requirement("U7", "T2")
def test_a_published_port_is_reached_from_inside_and_sees_an_external_source() -> None:
    lab = Lab()
    lab.publish(8080, 80)
    for number, (flags, answer) in enumerate((("S", "SA"), ("A", "A"), ("PA", "A"))):
        into = lab.send("b", from_b(TCP(sport=45000, dport=8080, flags=flags), dst=EXTERNAL))
        assert into.verdict is Verdict.TRANSLATED_HAIRPIN and into.ports == ["a"], number
        assert ports_of(into) == (EXTERNAL, 45000, A_IP, 80)
        assert (into.packet[IP].ttl, into.packet[Ether].src, into.packet[Ether].dst) == (63, GATEWAY_MAC, A_MAC)
        back = lab.send("a", from_a(TCP(sport=80, dport=45000, flags=answer), dst=EXTERNAL))
        assert back.verdict is Verdict.TRANSLATED_HAIRPIN and back.ports == ["b"]
        assert ports_of(back) == (EXTERNAL, 8080, B_IP, 45000)
    lab.dp.remove_neighbour(lab.bridge, IPv4Address(B_IP))
    assert lab.send("a", from_a(TCP(sport=80, dport=45000, flags="A"), dst=EXTERNAL)).verdict is not Verdict.TRANSLATED_HAIRPIN


@pytest.mark.requirement("U7")
def test_a_container_reaches_its_own_published_port() -> None:
    lab = Lab()
    lab.publish(8080, 80, "udp")
    into = lab.send("a", from_a(UDP(sport=45000, dport=8080), dst=EXTERNAL))
    assert into.ports == ["a"] and ports_of(into) == (EXTERNAL, 45000, A_IP, 80)
    assert ports_of(lab.send("a", from_a(UDP(sport=80, dport=45000), dst=EXTERNAL))) == (EXTERNAL, 8080, A_IP, 45000)


def test_a_port_may_be_published_at_one_address_of_several() -> None:
    lab = Lab()
    other = "198.51.100.3"
    lab.dp.update_uplink(uplink_config(more=(other,)))
    lab.send("uplink", arp_reply(ROUTER, ROUTER_MAC))
    lab.publish(8080, 80, "udp", host_ip=other)
    assert lab.send("uplink", from_outside(UDP(sport=5000, dport=8080))).verdict is Verdict.TO_HOST
    assert lab.send("uplink", from_outside(UDP(sport=5000, dport=8080), dst=other)).ports == ["a"]
    assert ports_of(lab.send("a", from_a(UDP(sport=80, dport=5000)))) == (other, 8080, REMOTE, 5000)


def test_a_port_is_published_once() -> None:
    lab = Lab()
    first = lab.publish(8080, 80)
    message = "port is already allocated"
    with pytest.raises(Conflict, match=message):
        lab.publish(8080, 81, container=B_IP)
    with pytest.raises(Conflict, match=message):
        lab.publish(8080, 81, host_ip=EXTERNAL)
    lab.publish(8080, 80, "udp")
    lab.publish(9090, 80, host_ip=EXTERNAL)
    lab.publish(9090, 80, host_ip="198.51.100.77")
    with pytest.raises(Conflict, match=rf"^Bind for {EXTERNAL}:9090 failed: {message}$"):
        lab.publish(9090, 81, host_ip=EXTERNAL)
    with pytest.raises(Conflict, match=rf"^Bind for 0.0.0.0:9090 failed: {message}$"):
        lab.publish(9090, 80)
    lab.dp.unpublish(first)
    with pytest.raises(NotFound, match="port 8080/tcp is not published"):
        lab.dp.unpublish(first)
    lab.publish(8080, 80)


@pytest.mark.parametrize("ports", [(0, 80), (65536, 80), (80, 0), (80, 65536)])
def test_a_port_that_is_none_cannot_be_published(ports: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is not within 1-65535"):
        Publication(protocol="tcp", host_ip=None, host_port=ports[0], container_ip=IPv4Address(A_IP), container_port=ports[1])


@FAST
def test_unpublishing_ends_what_came_in_by_it_and_nothing_else(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)
    publication = lab.publish(8080, 80)
    lab.publish(8081, 81)
    for dport in (8080, 8081):
        lab.send("uplink", from_outside(TCP(sport=5000, dport=dport, flags="S")))
    connect(lab)
    lab.dp.unpublish(publication)
    assert sorted(flow["kind"] for flow in lab.flows()) == ["outbound", "published"]
    assert lab.send("uplink", from_outside(TCP(sport=5000, dport=8080, flags="S"))).verdict is Verdict.TO_HOST
    assert lab.send("uplink", from_outside(TCP(sport=5000, dport=8081, flags="S"))).verdict is Verdict.TRANSLATED_IN
    assert lab.send("a", from_a(TCP(sport=45000, dport=80, flags="A"))).verdict is Verdict.TRANSLATED_OUT


@pytest.mark.requirement("U4")
@pytest.mark.parametrize("pool_first", [False, True])
def test_a_published_port_is_no_mappings_and_after_it_is_one_again(pool_first: bool) -> None:
    lab = Lab()
    if pool_first:
        lab.send("b", from_b(UDP(sport=50000)))
    publication = lab.publish(45000, 53, "udp", container=B_IP)
    assert lab.external_port(lab.send("a", from_a(UDP(sport=45000)))) != 45000
    lab.dp.unpublish(publication)
    lab.wait(302)
    assert lab.external_port(lab.send("a", from_a(UDP(sport=45000)))) == 45000


@pytest.mark.requirement("T7")
def test_a_servers_connection_older_than_the_gateway_keeps_its_published_port() -> None:
    lab = Lab()
    lab.publish(8080, 80)
    out = lab.send("a", from_a(TCP(sport=80, dport=5000, flags="PA") / b"x"))
    assert out.verdict is Verdict.TRANSLATED_OUT and ports_of(out) == (EXTERNAL, 8080, REMOTE, 5000)
    assert ports_of(lab.send("uplink", from_outside(TCP(sport=5000, dport=8080, flags="A")))) == (REMOTE, 5000, A_IP, 80)
    assert lab.send("a", from_a(TCP(sport=80, dport=5001, flags="FA"))).verdict is Verdict.DROP_TCP_STATE


# -- ICMP errors -----------------------------------------------------------------------------------------------------

ERRORS = [(3, 0, {}), (3, 1, {}), (3, 3, {}), (3, 4, {"nexthopmtu": 1280}), (11, 0, {}), (11, 1, {}), (12, 0, {"ptr": 4})]


def inner(sent: bytes) -> Any:
    """A quoted packet; its IP checksum and, if it is whole, its transport checksum are right."""
    packet = IP(sent)
    fresh = packet.copy()
    del fresh[IP].chksum
    if len(sent) == packet.len:
        del fresh[IP].payload.chksum
    assert bytes(fresh) == sent
    return packet


@pytest.mark.requirement("I3", "G2")
@pytest.mark.parametrize(("type_", "code", "rest"), ERRORS)
@pytest.mark.parametrize("protocol", ["udp", "tcp", "icmp"])
def test_an_error_from_outside_comes_back_in_the_senders_words(type_: int, code: int, rest: dict[str, int],
                                                               protocol: str) -> None:
    lab = Lab()
    packet = from_a(next(question for name, question, _ in transports(5000) if name == protocol), id=77)
    sent = bytes(lab.send("a", packet).packet[IP])
    out = lab.send("uplink", from_outside(ICMP(type=type_, code=code, **rest) / Raw(sent), src=ROUTER))
    assert out.verdict is Verdict.TRANSLATED_ERROR and out.ports == ["a"]
    error = out.packet
    assert (error[IP].src, error[IP].dst, error[ICMP].type, error[ICMP].code) == (ROUTER, A_IP, type_, code)
    assert all(getattr(error[ICMP], name) == value for name, value in rest.items())
    packet[IP].ttl = 63
    assert bytes(inner(out.only.quoted)) == bytes(packet[IP]), "one hop older, else as it was"


@pytest.mark.requirement("I3")
def test_an_error_of_the_remote_itself_and_one_of_a_router_on_the_way() -> None:
    lab = Lab()
    sent = bytes(lab.send("a", from_a(UDP(sport=5000, dport=53))).packet[IP])
    for src in (REMOTE, "192.0.2.254"):
        out = lab.send("uplink", from_outside(ICMP(type=3, code=3) / Raw(sent), src=src))
        assert out.packet[IP].src == src, "traceroute shows who it was"


@pytest.mark.requirement("I3")
def test_an_error_is_one_hop_older_behind_the_gateway() -> None:
    lab = Lab()
    sent = bytes(lab.send("a", from_a(UDP(sport=5000, dport=53))).packet[IP])
    assert lab.send("uplink", from_outside(ICMP(type=3, code=3) / Raw(sent), ttl=17)).packet[IP].ttl == 16


@pytest.mark.requirement("I3")
def test_an_error_waits_for_a_neighbour_as_any_packet_does() -> None:
    lab = Lab()
    lab.publish(8080, 80, "udp")
    received = bytes(lab.send("uplink", from_outside(UDP(sport=5000, dport=8080) / b"x")).packet[IP])
    lab.dp.update_uplink(uplink_config(mtu=1400))  # neighbours are asked for anew
    assert lab.send("a", from_a(ICMP(type=3, code=3) / Raw(received))).verdict is Verdict.QUEUED
    error = next(each for each in lab.send("uplink", arp_reply(ROUTER, ROUTER_MAC)).sent if each.port == "uplink")
    assert (error.packet[IP].src, error.packet[IP].dst, error.packet[ICMP].type) == (EXTERNAL, REMOTE, 3)


@pytest.mark.requirement("I3")
def test_a_redirect_is_for_its_own_link_alone() -> None:
    """RFC 1812 section 5.2.7.2: it tells a host of the link a better way on that link."""
    lab = Lab()
    sent = bytes(lab.send("a", from_a(UDP(sport=5000, dport=53))).packet[IP])
    out = lab.send("uplink", from_outside(ICMP(type=5, code=1, gw="198.51.100.9") / Raw(sent), src=ROUTER))
    assert out.verdict is Verdict.DROP_ICMP_TYPE and not out.sent


@pytest.mark.requirement("I3")
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_an_error_from_a_container_goes_out_as_the_gateways(protocol: str) -> None:
    lab = Lab()
    lab.publish(8080, 80)
    lab.publish(8080, 80, "udp")
    body = UDP(sport=5000, dport=8080) / b"x" if protocol == "udp" else TCP(sport=5000, dport=8080, flags="S")
    packet = from_outside(body, id=9)
    received = bytes(lab.send("uplink", packet).packet[IP])
    out = lab.send("a", from_a(ICMP(type=3, code=3) / Raw(received)))
    assert out.verdict is Verdict.TRANSLATED_ERROR and out.ports == ["uplink"]
    assert (out.packet[IP].src, out.packet[IP].dst, out.packet[ICMP].type, out.packet[ICMP].code) == (EXTERNAL, REMOTE, 3, 3)
    packet[IP].ttl = 63
    assert bytes(inner(out.only.quoted)) == bytes(packet[IP]), "nothing inside is shown outside"


@pytest.mark.requirement("I4")
def test_options_of_the_quoted_packet_are_skipped() -> None:
    lab = Lab()
    packet = from_a(UDP(sport=5000, dport=53) / b"x", options=[IPOption_Router_Alert()])
    sent = bytes(lab.send("a", packet).packet[IP])
    out = lab.send("uplink", from_outside(ICMP(type=3, code=1) / Raw(sent), src=ROUTER))
    packet[IP].ttl = 63
    assert bytes(inner(out.only.quoted)) == bytes(packet[IP])


@pytest.mark.requirement("I3")
@pytest.mark.parametrize("protocol", ["udp", "tcp", "icmp"])
def test_eight_bytes_of_transport_are_enough(protocol: str) -> None:
    lab = Lab()
    packet = from_a(next(question for name, question, _ in transports(5000) if name == protocol))
    sent = bytes(lab.send("a", packet).packet[IP])[:28]
    out = lab.send("uplink", from_outside(ICMP(type=11) / Raw(sent), src=ROUTER))
    assert out.verdict is Verdict.TRANSLATED_ERROR
    packet[IP].ttl = 63
    assert bytes(inner(out.only.quoted)) == bytes(packet[IP])[:28]


@pytest.mark.requirement("I5")
def test_an_error_with_a_bad_checksum_drops_and_a_bad_inner_transport_checksum_is_not_judged() -> None:
    lab = Lab(verify=False)
    sent = lab.send("a", from_a(UDP(sport=5000, dport=53) / b"x")).packet[IP]
    bad_ip, bad_udp = sent.copy(), sent.copy()
    bad_ip.chksum ^= 0x0101
    bad_udp[UDP].chksum ^= 0x0101
    for body, verdict in ((ICMP(type=3, chksum=0x1234) / Raw(bytes(sent)), Verdict.DROP_ICMP_BAD),
                          (ICMP(type=3) / Raw(bytes(bad_ip)), Verdict.DROP_ICMP_BAD),
                          (ICMP(type=3) / Raw(bytes(sent)[:27]), Verdict.DROP_ICMP_BAD),
                          (ICMP(type=3) / Raw(bytes(sent)[:8]), Verdict.DROP_ICMP_BAD),
                          (ICMP(type=3) / Raw(b"\x60" + bytes(sent)[1:]), Verdict.DROP_ICMP_BAD),
                          (ICMP(type=3) / Raw(bytes(bad_udp)), Verdict.TRANSLATED_ERROR)):
        out = lab.send("uplink", from_outside(body, src=ROUTER))
        assert out.verdict is verdict
        assert bool(out.sent) == (verdict is Verdict.TRANSLATED_ERROR)


@pytest.mark.requirement("I6")
@pytest.mark.parametrize("exclusive", [True, False])
def test_an_error_about_nothing_natgw_knows_goes_nowhere_inside(exclusive: bool) -> None:
    lab = Lab(exclusive=exclusive)
    lab.send("a", from_a(UDP(sport=45000, dport=53)))
    lab.send("a", from_a(ICMP(id=7)))
    for quoted in (IP(src=EXTERNAL, dst=REMOTE) / UDP(sport=45001, dport=53),
                   IP(src=EXTERNAL, dst=REMOTE) / UDP(sport=45000, dport=54),
                   IP(src=EXTERNAL, dst="192.0.2.1") / UDP(sport=45000, dport=53),
                   IP(src=EXTERNAL, dst=REMOTE) / TCP(sport=45000, dport=53),
                   IP(src=EXTERNAL, dst=REMOTE) / ICMP(type=0, id=7)):
        out = lab.send("uplink", from_outside(ICMP(type=3, code=3) / quoted, src=ROUTER))
        assert (out.verdict, out.sent) == (Verdict.DROP_ICMP_NO_FLOW if exclusive else Verdict.TO_HOST, [])
    out = lab.send("a", from_a(ICMP(type=3) / IP(src=REMOTE, dst=A_IP) / UDP(sport=1, dport=2)))
    assert (out.verdict, out.sent) == (Verdict.DROP_ICMP_NO_FLOW, [])


@pytest.mark.requirement("I7")
def test_an_error_about_a_hairpinned_packet_crosses() -> None:
    lab = Lab()
    lab.publish(8080, 80, "udp")
    packet = from_b(UDP(sport=45000, dport=8080) / b"x", dst=EXTERNAL)
    received = bytes(lab.send("b", packet).packet[IP])
    out = lab.send("a", from_a(ICMP(type=3, code=3) / Raw(received), dst=EXTERNAL))
    assert out.ports == ["b"]
    assert (out.packet[IP].src, out.packet[IP].dst, out.packet[ICMP].code) == (EXTERNAL, B_IP, 3)
    quoted = inner(out.only.quoted)
    assert (quoted.src, quoted.sport, quoted.dst, quoted.dport) == (B_IP, 45000, EXTERNAL, 8080)


@pytest.mark.requirement("U9")
def test_an_error_neither_ends_a_flow_nor_keeps_it() -> None:
    lab = Lab()
    lab.dp.tick(lab.now)
    sent = bytes(lab.send("a", from_a(UDP(sport=45000, dport=53))).packet[IP])
    for _ in range(29):
        lab.wait(10)
        assert lab.send("uplink", from_outside(ICMP(type=3, code=3) / Raw(sent))).verdict is Verdict.TRANSLATED_ERROR
        assert lab.send("uplink", from_outside(UDP(sport=99, dport=45000))).verdict is Verdict.DROP_FILTERED
    lab.wait(12)
    assert not lab.flows()


@pytest.mark.requirement("G1")
def test_an_error_at_its_last_hop_drops_without_a_word() -> None:
    lab = Lab()
    sent = bytes(lab.send("a", from_a(UDP(sport=45000, dport=53))).packet[IP])
    out = lab.send("uplink", from_outside(ICMP(type=3, code=3) / Raw(sent), ttl=1))
    assert (out.verdict, out.sent) == (Verdict.DROP_TTL, [])


# -- changes -------------------------------------------------------------------------------------------------------


def test_when_the_address_changes_flows_that_used_it_end() -> None:
    lab = Lab()
    lab.publish(8080, 80)
    connect(lab)
    lab.send("uplink", from_outside(TCP(sport=5000, dport=8080, flags="S")))
    lab.send("b", from_b(TCP(sport=45000, dport=8080, flags="S"), dst=EXTERNAL))
    assert len(lab.flows()) == 4, "a hairpin is two: one out and one in"
    lab.dp.update_uplink(uplink_config(address="198.51.100.3"))
    assert not lab.flows()
    lab.send("uplink", arp_reply(ROUTER, ROUTER_MAC, to_ip="198.51.100.3"))
    assert ports_of(lab.send("a", from_a(UDP(sport=45000, dport=53)))) == ("198.51.100.3", 45000, REMOTE, 53)
    assert lab.send("uplink", from_outside(TCP(sport=5000, dport=8080, flags="S"), dst="198.51.100.3")).ports == ["a"]


@FAST
def test_when_something_else_of_the_uplink_changes_flows_go_on(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)
    connect(lab)
    lab.dp.update_uplink(uplink_config(more=("198.51.100.3",), mac="02:aa:00:00:00:99", mtu=1400))
    out = lab.send("a", from_a(TCP(sport=45000, dport=80, flags="PA") / b"x"))
    assert out.verdict is Verdict.QUEUED, "the next hop is asked for anew"
    (sent,) = lab.send("uplink", arp_reply(ROUTER, ROUTER_MAC, to_mac="02:aa:00:00:00:99")).sent
    assert sent.packet[Ether].src == "02:aa:00:00:00:99" and sent.packet[TCP].sport == 45000
    assert lab.send("a", from_a(TCP(sport=45000, dport=80, flags="PA") / b"x")).verdict is Verdict.TRANSLATED_OUT


@FAST
def test_when_the_next_hop_moves_flows_follow(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)
    connect(lab)
    lab.send("uplink", arp_reply(ROUTER, "02:bb:00:00:00:77"))
    out = lab.send("a", from_a(TCP(sport=45000, dport=80, flags="PA") / b"x"))
    assert out.packet[Ether].dst == "02:bb:00:00:00:77"


@FAST
def test_a_container_that_leaves_ends_its_flows_and_a_new_one_does_not_inherit_them(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)
    lab.publish(8080, 80)
    connect(lab)
    lab.send("uplink", from_outside(TCP(sport=5000, dport=8080, flags="S")))
    lab.send("b", from_b(UDP(sport=50000, dport=53)))
    lab.dp.remove_neighbour(lab.bridge, IPv4Address(A_IP))
    lab.dp.remove_port(lab.ports["a"])
    assert [flow["original"]["src"] for flow in lab.flows()] == [B_IP]
    lab.add_port("c")
    lab.dp.add_neighbour(lab.bridge, IPv4Address(A_IP), parse_mac("02:42:ac:11:00:99"), lab.ports["c"], lab.now)
    out = lab.send("uplink", from_outside(TCP(sport=80, dport=45000, flags="PA") / b"late"))
    assert (out.verdict, out.sent) == (Verdict.DROP_NO_MAPPING, [])


@FAST
def test_a_container_whose_port_comes_back_keeps_its_flows(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path)
    connect(lab)
    lab.dp.remove_port(lab.ports["a"])
    out = lab.send("uplink", from_outside(TCP(sport=80, dport=45000, flags="A")))
    assert out.verdict is Verdict.QUEUED
    lab.add_port("a")
    lab.dp.add_neighbour(lab.bridge, IPv4Address(A_IP), parse_mac(A_MAC), lab.ports["a"], lab.now)
    assert lab.send("uplink", from_outside(TCP(sport=80, dport=45000, flags="A"))).ports == ["a"]


def test_clearing_the_uplink_ends_flows_and_a_new_one_begins_clean() -> None:
    lab = Lab()
    connect(lab)
    lab.dp.clear_uplink()
    assert not lab.flows()
    lab.ports["uplink"] = lab.dp.set_uplink("uplink", lab._collector("uplink"), uplink_config())
    lab.send("uplink", arp_reply(ROUTER, ROUTER_MAC))
    assert connect(lab) == 45000


# -- reversibility, whatever the packet ------------------------------------------------------------------------------


@given(st.integers(1, 65535), st.integers(1, 65535), st.binary(max_size=100), st.booleans(),
       st.sampled_from(("203.0.113.9", "198.51.100.200", "192.0.2.255", "1.1.1.1")))
def test_what_goes_out_comes_back_to_where_it_came_from(sport: int, dport: int, data: bytes, fast_path: bool,
                                                        remote: str) -> None:
    lab = Lab(fast_path=fast_path)
    lab.send("uplink", arp_reply(remote, ROUTER_MAC))
    for _ in range(2):
        for name, packet, answer in transports(sport, dport=dport):
            out = lab.send("a", from_a(packet.copy() / data, dst=remote))
            while out.verdict is Verdict.QUEUED:
                lab.send("uplink", arp_reply(remote, ROUTER_MAC))
                out = lab.send("a", from_a(packet.copy() / data, dst=remote))
            assert bytes(out.packet[IP].payload.payload).endswith(data)
            reply = answer.copy() / data
            if name == "icmp":
                reply.id = lab.external_port(out)
            else:
                reply.dport = lab.external_port(out)
            back = lab.send("uplink", from_outside(reply, src=remote))
            assert back.verdict is Verdict.TRANSLATED_IN and back.ports == ["a"]
            header = back.packet[IP].payload
            assert (header.id if name == "icmp" else header.dport) == sport
            assert bytes(header.payload).endswith(data)
