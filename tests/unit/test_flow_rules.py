"""What a flow is from its beginning to its end: its kind and network, its idle time as it becomes a stream, whether the fast
path may translate it, what it is after a rest, and what is left when it ends. test_napt and test_behaviour have the first
examples.
"""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.packet import Packet

from natgw.datapath import PRESETS, TIMEOUT_PROFILES, Dependence, NatBehaviour, NatConfig, Publication, Verdict
from natgw.datapath.allocation import POLICIES
from tests.unit.core_lab import (
    A_IP,
    A_MAC,
    B_IP,
    REMOTE,
    ROUTER,
    ROUTER_MAC,
    Lab,
    arp_reply,
    from_a,
    from_b,
    from_outside,
    uplink_config,
)
from tests.unit.test_plans import fast

FAST = pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "slow"])
STREAMS = NatConfig(timeouts=TIMEOUT_PROFILES["linux"])
"""UDP lives for 30 seconds, and as a stream for 120."""
OPEN = PRESETS["full-cone"]
OTHER = "192.0.2.1"
QUESTION, ANSWER = from_a(UDP(sport=45000, dport=53) / b"?"), from_outside(UDP(sport=53, dport=45000) / b"!")
SYN, SYN_ACK = from_a(TCP(sport=45001, dport=80, flags="S")), from_outside(TCP(sport=80, dport=45001, flags="SA"))
SEGMENT = from_a(TCP(sport=45001, dport=80, flags="A"))


def left(lab: Lab, sport: int = 45000) -> object:
    """The idle time that is left to the flow of a container's port."""
    return next(flow["timeout_s"] for flow in lab.flows() if flow["original"]["sport"] == sport)


def goes_fast(lab: Lab, packet: Packet, port: str = "a") -> bool:
    return fast(lab, port, packet)[0]


# -- UDP that becomes a stream (nf_conntrack_proto_udp.c) ------------------------------------------------------------------


@FAST
@pytest.mark.requirement("U6")
def test_udp_both_ways_is_a_stream_after_two_seconds_and_no_sooner(fast_path: bool) -> None:
    lab = Lab(fast_path=fast_path, nat=STREAMS)
    lab.wait(9)
    lab.send("a", QUESTION)
    lab.send("uplink", ANSWER)
    for after, seconds in ((1.5, 30), (0.5, 120)):
        lab.now += after
        assert lab.send("a", QUESTION).verdict is Verdict.TRANSLATED_OUT
        assert left(lab) == seconds


@pytest.mark.requirement("U6")
def test_udp_that_nobody_answers_is_no_stream() -> None:
    lab = Lab(nat=STREAMS)
    for _ in range(5):
        lab.send("a", QUESTION)
        lab.now += 1.0
    assert left(lab) == 29


@pytest.mark.requirement("U6", "U8")
@pytest.mark.parametrize("nat", [STREAMS, NatConfig()], ids=["it became one", "it lives as long as one anyway"])
def test_a_stream_keeps_its_idle_time_whatever_is_configured_later(nat: NatConfig) -> None:
    lab = Lab(fast_path=False, nat=nat)
    lab.send("a", QUESTION)
    lab.send("uplink", ANSWER)
    lab.now += 3.0
    lab.send("a", QUESTION)
    before = left(lab)
    lab.dp.set_nat(replace(nat, timeouts=replace(nat.timeouts, udp_stream_s=900)))
    lab.now += 3.0
    lab.send("a", QUESTION)
    assert left(lab) == before == nat.timeouts.udp_stream_s


# -- who may take the fast path ------------------------------------------------------------------------------------------


def test_udp_takes_the_fast_path_once_it_can_become_no_stream_any_more() -> None:
    lab = Lab(nat=STREAMS)
    assert [goes_fast(lab, QUESTION), goes_fast(lab, ANSWER, "uplink"), goes_fast(lab, QUESTION)] == [False] * 3
    lab.now += 3.0
    assert not goes_fast(lab, QUESTION), "this one makes it a stream"
    assert goes_fast(lab, QUESTION) and goes_fast(lab, ANSWER, "uplink")


def conversations(nat: NatConfig) -> Lab:
    """Two flows of container a, UDP of port 45000 and TCP of port 45001, both answered; of few flows that stay awake."""
    lab = Lab(nat=nat, max_awake_flows=2)
    for question, answer in ((QUESTION, ANSWER), (SYN, SYN_ACK)):
        lab.send("a", question)
        lab.send("uplink", answer)
    assert goes_fast(lab, SEGMENT)
    return lab


@pytest.mark.parametrize(("nat", "udp_too"), [(STREAMS, False), (NatConfig(), True)], ids=["may become one", "is one"])
def test_a_flow_whose_next_hop_is_another_goes_on_as_fast_as_before(nat: NatConfig, udp_too: bool) -> None:
    lab = conversations(nat)
    lab.dp.update_uplink(uplink_config(mtu=1400))  # neighbours are asked for anew
    assert [lab.send("a", packet).verdict for packet in (QUESTION, SEGMENT)] == [Verdict.QUEUED] * 2
    lab.send("uplink", arp_reply(ROUTER, ROUTER_MAC))
    assert (goes_fast(lab, QUESTION), goes_fast(lab, SEGMENT)) == (udp_too, True)
    if not udp_too:
        lab.now += 3.0
        lab.send("a", QUESTION)
        assert left(lab) == 120 and goes_fast(lab, QUESTION), "it is a stream now"


def test_a_flow_that_loops_back_all_at_once_takes_the_fast_path_no_longer() -> None:
    """The uplink was given the address that the flow's remote had: both ways of it are one from now on."""
    lab = conversations(NatConfig())
    lab.dp.update_uplink(uplink_config(more=(REMOTE,)))
    for _ in range(2):
        went, out = fast(lab, "a", SEGMENT)
        assert not went and out.ports != ["uplink"]


def crowd(lab: Lab) -> None:
    """So much else that the flows there were have gone to rest."""
    for port in range(20):
        lab.now += 1.2
        lab.send("b", from_b(TCP(sport=10_000 + port, dport=80, flags="S")))
    assert lab.dp.napt.flows.awake < 10


@pytest.mark.parametrize(("nat", "udp_too"), [(STREAMS, False), (NatConfig(), True)], ids=["may become one", "is one"])
def test_a_flow_that_rested_is_as_fast_as_it_was(nat: NatConfig, udp_too: bool) -> None:
    lab = conversations(nat)
    crowd(lab)
    assert not goes_fast(lab, QUESTION) and not goes_fast(lab, SEGMENT), "they wake up"
    assert goes_fast(lab, SEGMENT)
    if udp_too:
        assert goes_fast(lab, QUESTION)
    else:
        assert left(lab) == 120, "it became a stream by the packet that woke it"


def test_udp_that_may_become_a_stream_may_so_after_a_rest() -> None:
    lab = Lab(nat=STREAMS, max_awake_flows=2)
    lab.send("a", QUESTION)
    crowd(lab)
    assert not goes_fast(lab, QUESTION) and not goes_fast(lab, QUESTION)
    lab.send("uplink", ANSWER)
    lab.send("a", QUESTION)
    assert left(lab) == 120


@pytest.mark.parametrize("behaviour", [*(NatBehaviour(mapping=each) for each in Dependence), PRESETS["linux"].tcp],
                         ids=[*(each.value for each in Dependence), "shared"])
def test_flows_rest_whatever_their_mapping_depends_on(behaviour: NatBehaviour) -> None:
    crowd(Lab(nat=NatConfig(tcp=behaviour), max_awake_flows=2))


# -- how a flow began ----------------------------------------------------------------------------------------------------


def one_of_each() -> tuple[Lab, Publication]:
    """A flow of each kind, all of container a: out by port 45000, in by its mapping, in by port 8080, and one of port 8080
    that is older than the gateway.
    """
    lab = Lab(nat=OPEN)
    published = lab.publish(8080, 80)
    assert lab.send("a", QUESTION).verdict is Verdict.TRANSLATED_OUT
    assert lab.send("uplink", from_outside(UDP(sport=9, dport=45000), src=OTHER)).ports == ["a"]
    assert lab.send("uplink", from_outside(TCP(sport=5000, dport=8080, flags="S"))).ports == ["a"]
    assert lab.send("a", from_a(TCP(sport=80, dport=6000, flags="A"))).verdict is Verdict.TRANSLATED_OUT
    return lab, published


def test_each_flow_tells_its_kind_and_network() -> None:
    lab, _ = one_of_each()
    assert {flow["original"]["sport"]: (flow["kind"], flow["network"]) for flow in lab.flows()} == {
        45000: ("outbound", "bridge"), 9: ("inbound", "bridge"), 5000: ("published", "bridge"), 6000: ("published", "bridge")}


def test_with_a_network_its_flows_end_of_whatever_kind() -> None:
    lab, _ = one_of_each()
    lab.dp.remove_network(lab.bridge)
    assert not lab.flows()


def test_with_a_container_its_flows_end_of_whatever_kind_and_no_others() -> None:
    lab, _ = one_of_each()
    lab.send("b", from_b(UDP(sport=50000, dport=53)))
    lab.send("uplink", from_outside(UDP(sport=9, dport=50000), src=OTHER))
    lab.dp.remove_neighbour(lab.bridge, IPv4Address(A_IP))
    assert sorted((flow["kind"], flow["original"]["sport"]) for flow in lab.flows()) == [("inbound", 9), ("outbound", 50000)]


def test_what_ends_with_a_published_port_is_what_came_in_by_it_old_connections_too() -> None:
    lab, published = one_of_each()
    lab.publish(8080, 80, "udp")
    lab.send("uplink", from_outside(UDP(sport=5001, dport=8080)))
    lab.send("a", from_a(TCP(sport=45002, dport=8080, flags="S")))
    lab.dp.unpublish(published)
    assert sorted(flow["original"]["sport"] for flow in lab.flows()) == [9, 5001, 45000, 45002]


@pytest.mark.requirement("U1", "U6")
def test_a_flow_from_outside_keeps_the_mapping_that_it_came_in_by() -> None:
    """RFC 4787 REQ-6: the flow that made the mapping is long gone."""
    lab = Lab(nat=replace(OPEN, allocation="random"))
    port = lab.external_port(lab.send("a", QUESTION))
    for _ in range(4):
        assert lab.send("uplink", from_outside(UDP(sport=9, dport=port), src=OTHER)).ports == ["a"]
        lab.wait(100)
    (flow,) = lab.flows()
    assert flow["kind"] == "inbound" and flow["mapping"]["external"].endswith(f":{port}")
    assert lab.external_port(lab.send("a", from_a(UDP(sport=45000, dport=99)))) == port


# -- what may not begin, and what is left of what ended ------------------------------------------------------------------


@pytest.mark.requirement("C1")
def test_the_limit_of_a_host_is_none_of_all_together() -> None:
    lab = Lab(nat=NatConfig(flows_per_host_per_s=100))
    verdicts = [lab.send("a", from_a(UDP(sport=41000 + number, dport=53))).verdict for number in range(101)]
    assert verdicts == [Verdict.TRANSLATED_OUT] * 100 + [Verdict.DROP_HOST_RATE]
    assert lab.send("b", from_b(UDP(sport=41000, dport=53))).verdict is Verdict.TRANSLATED_OUT


@pytest.mark.requirement("C1")
def test_a_limit_of_less_than_one_a_second_lets_one_begin() -> None:
    lab = Lab(nat=NatConfig(flows_per_host_per_s=0.5))
    begun: list[bool] = []
    for after in (0.0, 0.0, 1.0, 1.0):
        lab.now += after
        begun.append(lab.send("a", from_a(UDP(sport=41000 + len(begun), dport=53))).verdict is Verdict.TRANSLATED_OUT)
    assert begun == [True, False, False, True]


def test_a_policy_that_there_is_not_is_told_with_those_that_there_are() -> None:
    names = ", ".join(POLICIES)
    with pytest.raises(ValueError, match=rf"^there is no port policy 'nonesuch'; there are {re.escape(names)}$"):
        Lab(nat=NatConfig(allocation="nonesuch"))


@pytest.mark.requirement("U8", "T7")
def test_a_full_table_takes_no_connection_older_than_the_gateway_either() -> None:
    lab = Lab(max_flows=1)
    lab.publish(8080, 80)
    lab.send("a", QUESTION)
    assert lab.send("a", from_a(TCP(sport=80, dport=5000, flags="A"))).verdict is Verdict.DROP_FLOWS_FULL
    assert len(lab.flows()) == 1


@pytest.mark.requirement("T7")
@pytest.mark.parametrize("pick_up", [True, False])
def test_connections_older_than_the_gateway_are_taken_over_only_if_that_is_wanted(pick_up: bool) -> None:
    """Those of a published port's server as well as those of a client."""
    lab = Lab(nat=NatConfig(pick_up=pick_up))
    lab.publish(8080, 80)
    for sport in (80, 45000):
        verdict = lab.send("a", from_a(TCP(sport=sport, dport=5000, flags="A"))).verdict
        assert verdict is (Verdict.TRANSLATED_OUT if pick_up else Verdict.DROP_TCP_STATE)


@pytest.mark.requirement("T7", "U4")
def test_a_server_takes_over_no_connection_that_is_a_clients_of_the_same_port() -> None:
    """Port 45001 was published while a mapping had it: towards this remote port it is the mapping's."""
    lab = Lab()
    lab.send("a", SYN)
    lab.publish(45001, 80, container=B_IP)
    assert lab.send("b", from_b(TCP(sport=80, dport=80, flags="A"))).verdict is Verdict.DROP_FLOW_COLLISION
    assert lab.send("uplink", SYN_ACK).ports == ["a"]


@pytest.mark.requirement("C2")
@pytest.mark.parametrize("last", [
    pytest.param(None, id="it began"),
    pytest.param(from_outside(TCP(sport=5000, dport=8080, flags="S")), id="a published port was asked for in vain"),
    pytest.param(from_a(TCP(sport=80, dport=5000, flags="A")), id="a server went on in vain"),
    pytest.param(from_outside(UDP(sport=9, dport=45000), src=OTHER), id="its mapping was asked for in vain")])
def test_a_port_rests_from_the_end_of_its_last_flow_on_whatever_came_before(last: Packet | None) -> None:
    lab = Lab(nat=replace(OPEN, port_rest_s=120), max_flows=1)
    lab.publish(8080, 80)
    lab.wait(50)
    assert lab.external_port(lab.send("a", QUESTION)) == 45000
    if last is not None:
        assert lab.send("a" if last.src == A_MAC else "uplink", last).verdict is Verdict.DROP_FLOWS_FULL
    lab.dp.remove_neighbour(lab.bridge, IPv4Address(A_IP))
    lab.now += 119
    assert lab.external_port(lab.send("b", from_b(UDP(sport=45000, dport=53)))) != 45000
    lab.wait(302)
    assert lab.external_port(lab.send("b", from_b(UDP(sport=45000, dport=53)))) == 45000


@pytest.mark.requirement("I1")
@pytest.mark.parametrize("identifier", [0, 65535])
def test_the_first_and_the_last_identifier_are_as_good_as_any(identifier: int) -> None:
    lab = Lab()
    assert lab.external_port(lab.send("a", from_a(ICMP(id=identifier)))) == identifier
