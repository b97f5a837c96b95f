"""Plans of how connections to published ports begin: the second takes the fast path, and nothing outlives its reason."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet

from natgw.datapath import Extra, NatConfig, NetworkConfig, Publication, Verdict
from natgw.datapath.plans import MAX_PLANS
from natgw.wire.ethernet import parse_mac
from tests.unit.core_lab import (
    A_IP,
    B_IP,
    EXTERNAL,
    Lab,
    Outcome,
    from_a,
    from_b,
    from_outside,
    uplink_config,
)
from tests.unit.lab6 import Lab6, from_outside6


def syn(sport: int, **ip: str) -> Packet:
    return from_outside(TCP(sport=sport, dport=8080, flags="S"), **ip)


def fast(lab: Lab, port: str, packet: Packet) -> tuple[bool, Outcome]:
    """Whether a packet went the fast way, and what became of it."""
    before = lab.dp.extras[Extra.FAST_PATH]
    outcome = lab.send(port, packet)
    return lab.dp.extras[Extra.FAST_PATH] > before, outcome


def planned() -> tuple[Lab, Publication]:
    """A gateway with a plan for connections to port 8080."""
    lab = Lab()
    publication = lab.publish(8080, 80)
    assert fast(lab, "uplink", syn(40000))[0] is False
    assert len(lab.ports["uplink"].plans) == 1
    return lab, publication


def test_the_next_connection_takes_the_fast_path_and_is_the_same() -> None:
    lab, _ = planned()
    slow = Lab(fast_path=False)
    slow.publish(8080, 80)
    slow.send("uplink", syn(40000))
    for port, packet in (("uplink", syn(40001)), ("a", from_a(TCP(sport=80, dport=40001, flags="SA"))),
                         ("uplink", from_outside(TCP(sport=40001, dport=8080, flags="A"))),
                         ("a", from_a(TCP(sport=80, dport=40001, flags="PA") / b"x")),
                         ("uplink", from_outside(TCP(sport=40001, dport=8080, flags="FA")))):
        went, outcome = fast(lab, port, packet)
        assert went or port == "a"
        assert outcome.sent == slow.send(port, packet).sent
    assert lab.flows() == slow.flows()
    assert lab.dp.verdicts == slow.dp.verdicts


def _other_network(lab: Lab, publication: Publication) -> None:
    lab.dp.add_network(NetworkConfig(name="other", subnet=IPv4Network("10.9.0.0/24"), gateway=IPv4Address("10.9.0.1"),
                                     gateway_mac=parse_mac("02:42:0a:09:00:01")))


@pytest.mark.parametrize("change", [
    lambda lab, publication: lab.dp.unpublish(publication),
    lambda lab, publication: lab.dp.set_nat(NatConfig()),
    lambda lab, publication: lab.publish(8081, 80, container=B_IP),
    lambda lab, publication: lab.dp.update_uplink(uplink_config(local=("10.0.0.1",))),
    lambda lab, publication: lab.dp.update_uplink(uplink_config(more=("198.51.100.7",))),
    lambda lab, publication: lab.dp.remove_neighbour(lab.bridge, IPv4Address(A_IP)),
    lambda lab, publication: lab.dp.remove_network(lab.bridge),
    lambda lab, publication: lab.wait(1),
    _other_network,
])
def test_whatever_changes_makes_the_walk_look_again(change: Callable[[Lab, Publication], object]) -> None:
    lab, publication = planned()
    change(lab, publication)
    assert not lab.ports["uplink"].plans


def test_no_plan_outlives_the_way_to_the_container() -> None:
    lab, _ = planned()
    lab.dp.remove_port(lab.ports["a"])
    went, outcome = fast(lab, "uplink", syn(40001))
    assert not went and outcome.ports != ["a"]
    assert lab.flows()[-1]["original"]["packets"] == 1


def test_a_container_that_moved_is_followed() -> None:
    lab = Lab()
    lab.publish(8080, 80, container="172.17.0.9")
    mac = "02:42:ac:11:00:09"
    lab.add_port("c")
    lab.dp.add_neighbour(lab.bridge, IPv4Address("172.17.0.9"), parse_mac(mac), lab.ports["c"], lab.now)
    lab.bridge.learn(parse_mac(mac), lab.ports["c"], lab.now)
    assert lab.send("uplink", syn(40000)).ports == ["c"]
    lab.bridge.learn(parse_mac(mac), lab.ports["b"], lab.now)
    went, outcome = fast(lab, "uplink", syn(40001))
    assert went and outcome.ports == ["b"]


def test_a_damaged_packet_begins_nothing() -> None:
    lab, _ = planned()
    damaged = syn(40001)
    damaged[IP].chksum = 1
    lab.verify = False
    assert lab.send("uplink", damaged).verdict is Verdict.DROP_BAD_CHECKSUM
    assert len(lab.flows()) == 1


@pytest.mark.parametrize("side", ["original", "reply"])
def test_no_plan_sends_by_a_neighbour_that_cannot_be_sent_to(side: str) -> None:
    lab, _ = planned()
    (flow,) = lab.dp.napt.flows
    (flow.original if side == "original" else flow.reply).neighbour.transmit = None
    went, _ = fast(lab, "uplink", syn(40001))
    assert not went


def test_a_plan_takes_no_flows_key_of_which_only_the_answer_is_alike() -> None:
    """The container has a connection of its own from the published port to that port of the client."""
    outcomes = []
    for fast_path in (True, False):
        lab = Lab(fast_path=fast_path)
        lab.publish(8080, 80)
        own = lab.send("a", from_a(TCP(sport=80, dport=40001, flags="S")))
        lab.send("uplink", syn(40000))
        begun = lab.send("uplink", syn(40001))
        again = lab.send("a", from_a(TCP(sport=80, dport=40001, flags="S")))
        outcomes.append((begun.verdict, begun.sent, again.verdict, again.sent == own.sent, lab.flows()))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("fast_path", [True, False])
def test_a_plan_takes_no_key_of_a_flow_at_rest_that_had_the_port_before_it_was_published(fast_path: bool) -> None:
    lab = Lab(max_awake_flows=1, port_range=(8000, 8999), fast_path=fast_path)
    assert lab.external_port(lab.send("b", from_b(TCP(sport=8080, dport=40001, flags="S")))) == 8080
    lab.publish(8080, 80)
    for number in range(2, 7):
        lab.wait(2)
        lab.send("uplink", syn(40000 + number))
    table = lab.dp.napt.flows
    assert table.awake < len(table) == 6
    crossing = lab.send("uplink", syn(40001))
    assert (crossing.verdict, crossing.ports, len(table)) == (Verdict.TRANSLATED_IN, ["b"], 6)


def test_only_tcp_over_ipv4_leaves_plans() -> None:
    lab, looks_like_a_syn = Lab6(), b"\x02" * 12
    lab.publish6(8080, 80)
    assert lab.send("uplink", from_outside6(TCP(sport=40000, dport=8080, flags="S"))).ports == ["a"]
    assert not lab.ports["uplink"].plans
    lab.publish(8080, 80, "udp")
    assert lab.send("uplink", from_outside(UDP(sport=40000, dport=8080) / looks_like_a_syn)).ports == ["a"]
    assert not lab.ports["uplink"].plans


def test_plans_are_bounded_and_begin_anew() -> None:
    lab = Lab()
    lab.publish(8080, 80)
    for number in range(MAX_PLANS):
        lab.send("uplink", syn(40000, src=f"203.0.{number >> 8}.{number & 255}"))
    plans = lab.ports["uplink"].plans
    assert len(plans) == MAX_PLANS
    lab.send("uplink", syn(40000, src="203.0.112.1"))
    assert len(plans) == 1


def test_what_hairpins_leaves_no_plan_for_what_only_pretends_to() -> None:
    lab = Lab()
    lab.publish(8080, 80)
    assert lab.send("b", from_b(TCP(sport=40000, dport=8080, flags="S"), dst=EXTERNAL)).ports == ["a"]
    assert not lab.ports["uplink"].plans
    assert lab.send("uplink", syn(40001, src=EXTERNAL)).verdict in (Verdict.DROP_LAND, Verdict.DROP_MARTIAN_SOURCE)


def test_a_full_table_takes_no_more() -> None:
    lab = Lab(max_flows=2)
    lab.publish(8080, 80)
    assert [lab.send("uplink", syn(40000 + number)).verdict for number in range(3)] == [
        Verdict.TRANSLATED_IN, Verdict.TRANSLATED_IN, Verdict.DROP_FLOWS_FULL]


def test_a_flow_at_rest_is_found_before_a_new_one_begins() -> None:
    lab = Lab(max_awake_flows=1)
    lab.publish(8080, 80)
    lab.send("uplink", syn(40000))
    lab.send("a", from_a(TCP(sport=80, dport=40000, flags="SA")))
    for number in range(1, 5):
        lab.wait(2)
        lab.send("uplink", syn(40000 + number))
    table = lab.dp.napt.flows
    assert table.awake < len(table) == 5
    assert lab.send("uplink", syn(40000)).verdict is Verdict.TRANSLATED_IN
    assert len(table) == 5
    assert next(flow for flow in lab.flows() if flow["original"]["sport"] == 40000)["state"] == "SYN_RECV"
