"""What the state machine of natgw.testing found, each as the shortest sequence that showed it."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP

from natgw.datapath import PRESETS, Dependence, NatBehaviour, NatConfig
from natgw.testing import SimulatedGateway
from natgw.testing.packets import endpoints, packet_of

ONE, TWO = "172.17.0.2", "172.17.0.3"
FAR, OTHER = ("203.0.113.1", 53), ("203.0.113.2", 53)


def seen(gateway: SimulatedGateway, name: str, port: int, far: tuple[str, int]) -> tuple[str, int]:
    """The external endpoint that a datagram of a container is seen with outside."""
    (out,) = gateway.send(name, IP(src=gateway.containers[name], dst=far[0]) / UDP(sport=port, dport=far[1]))
    assert out.to == "outside"
    return out.packet.src, out.packet.sport


def test_a_port_that_was_overloaded_is_not_given_to_another_after_a_change() -> None:
    gateway = SimulatedGateway(PRESETS["linux"])
    assert seen(gateway, "c1", 5000, FAR) == ("198.51.100.2", 5000)
    gateway.set_nat(NatConfig())
    assert seen(gateway, "c2", 5000, OTHER) != ("198.51.100.2", 5000)
    assert seen(gateway, "c2", 5000, FAR) != ("198.51.100.2", 5000)


def test_the_last_that_shares_an_overloaded_port_frees_it() -> None:
    gateway = SimulatedGateway(PRESETS["linux"])
    assert seen(gateway, "c1", 5000, FAR) == seen(gateway, "c2", 5000, OTHER)
    gateway.set_nat(NatConfig())
    gateway.advance(20)
    seen(gateway, "c2", 5000, OTHER)
    gateway.advance(20)
    assert seen(gateway, "c1", 5000, FAR)[1] != 5000  # c2 has it still
    gateway.advance(400)
    assert gateway.flows() == []
    assert seen(gateway, "c1", 5000, FAR) == ("198.51.100.2", 5000)


def test_a_later_stream_timeout_is_not_for_flows_that_exist() -> None:
    left = []
    for fast_path in (True, False):
        gateway = SimulatedGateway(fast_path=fast_path)
        external = seen(gateway, "c1", 5000, FAR)
        gateway.set_nat(PRESETS["linux"])
        for _ in range(3):
            gateway.send("outside", IP(src=FAR[0], dst=external[0]) / UDP(sport=FAR[1], dport=external[1]))
            gateway.advance(2)
        left += [flow["timeout_s"] for flow in gateway.flows()]
    assert left == [298, 298]


def test_a_port_that_has_rested_can_be_overloaded() -> None:
    gateway = SimulatedGateway(NatConfig(port_rest_s=10), port_range=(5000, 5000))
    seen(gateway, "c1", 5000, FAR)
    gateway.advance(400)
    gateway.set_nat(PRESETS["linux"])
    assert seen(gateway, "c1", 5001, FAR) == ("198.51.100.2", 5000)


def test_linux_gives_a_host_the_port_again_that_it_has_towards_another() -> None:
    """Found beside Linux: the host kept its own port towards a second remote, where it had to be given another towards one."""
    gateway = SimulatedGateway(PRESETS["linux"])
    assert seen(gateway, "c1", 5000, FAR) == ("198.51.100.2", 5000)
    given = seen(gateway, "c2", 5000, FAR)
    assert given[1] != 5000
    assert seen(gateway, "c2", 5000, OTHER) == given


def test_a_syn_once_more_takes_no_idle_time_of_a_later_configuration() -> None:
    """A SYN enters its state again, for the window scale it names; the flow is still the one that began before the change."""
    for fast_path in (True, False):
        gateway = SimulatedGateway(fast_path=fast_path)
        syn = IP(src=ONE, dst=FAR[0]) / TCP(sport=5000, dport=80, flags="S")
        gateway.send("c1", syn)
        gateway.set_nat(PRESETS["linux"])
        gateway.send("c1", syn)
        (flow,) = gateway.flows()
        assert flow["timeout_s"] == NatConfig().timeouts.tcp_syn_sent_s != PRESETS["linux"].timeouts.tcp_syn_sent_s


@pytest.mark.parametrize("far", [FAR[0], "2001:db8:113::1"], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(("protocol", "arrives"), [("udp", True), ("udplite", True), ("sctp", False)])
def test_two_mappings_of_an_endpoint_both_lead_in_for_one_remote(protocol: str, arrives: bool, far: str) -> None:
    """UDP-Lite is treated as UDP is; TCP, and SCTP with it, has a state that both ways make, and so one external endpoint."""
    open_to_all = NatBehaviour(mapping=Dependence.ADDRESS_AND_PORT_DEPENDENT, filtering=Dependence.ENDPOINT_INDEPENDENT)
    for fast_path in (True, False):
        gateway = SimulatedGateway(NatConfig(udp=open_to_all, tcp=open_to_all), external=["198.51.100.2", "2001:db8:51::2"],
                                   fast_path=fast_path)
        own = (gateway.containers6 if ":" in far else gateway.containers)["c1"]
        _, second = (gateway.send("c1", packet_of(protocol, (own, 5000), (far, port), b"", number=1))[0] for port in (53, 54))
        found = gateway.send("outside", packet_of(protocol, (far, 53), endpoints(second.packet)[0], b"", number=1))
        assert [(each.to, *endpoints(each.packet)) for each in found] == ([("c1", (far, 53), (own, 5000))] if arrives else [])
        assert len(gateway.flows()) == 2
