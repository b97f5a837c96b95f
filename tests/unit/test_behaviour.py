"""Mapping, filtering, allocation and limits as they are chosen (RFC 4787, 5382, 6888): seen from outside, packet by packet."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, UDPerror
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from natgw.datapath import (
    PRESETS,
    TIMEOUT_PROFILES,
    Datapath,
    DatapathConfig,
    Dependence,
    NatBehaviour,
    NatConfig,
    NetworkConfig,
    Port,
    PortKind,
    Publication,
    Route,
    UplinkConfig,
)

GATEWAY_MAC, UPLINK_MAC, ROUTER_MAC = "02:42:ac:11:00:01", "02:aa:00:00:00:01", "02:bb:00:00:00:01"
ONE, TWO, THREE = "172.17.0.2", "172.17.0.3", "172.17.0.4"
EXTERNAL, SECOND = "198.51.100.2", "198.51.100.3"
EIM, ADM, APDM = Dependence
SEEN = tuple[str, int]


def udp(src: str, sport: int, dst: str, dport: int, payload: bytes = b"x") -> Packet:
    return IP(src=src, dst=dst) / UDP(sport=sport, dport=dport) / Raw(payload)


def tcp(src: str, sport: int, dst: str, dport: int, flags: str = "S") -> Packet:
    return IP(src=src, dst=dst) / TCP(sport=sport, dport=dport, flags=flags)


class Lab:
    """A gateway that owns its external addresses, three containers, and an outside that is all behind one router."""

    def __init__(self, nat: NatConfig | None = None, *, port_range: tuple[int, int] = (1024, 65535)) -> None:
        self.now = 0.0
        self.sent: list[tuple[str, Packet]] = []
        self.dp = Datapath(DatapathConfig(nat=nat or NatConfig(), seed=1, exclusive=True, port_range=port_range))
        bridge = self.dp.add_network(NetworkConfig(
            name="bridge", subnet=IPv4Network("172.17.0.0/16"), gateway=IPv4Address("172.17.0.1"),
            gateway_mac=bytes.fromhex(GATEWAY_MAC.replace(":", ""))))
        self.ports: dict[str, Port] = {}
        for ip in (ONE, TWO, THREE):
            self.ports[ip] = self.dp.add_port(bridge, ip, PortKind.ENDPOINT, transmit=self._collector(ip))
            self.dp.add_neighbour(bridge, IPv4Address(ip), bytes.fromhex(mac_of(ip).replace(":", "")), self.ports[ip])
        uplink = UplinkConfig(
            mac=bytes.fromhex(UPLINK_MAC.replace(":", "")),
            addresses=(IPv4Interface(f"{EXTERNAL}/24"), IPv4Interface(f"{SECOND}/24")),
            routes=(Route(IPv4Network("0.0.0.0/0"), IPv4Address("198.51.100.1")),))
        self.ports["outside"] = self.dp.set_uplink("uplink", self._collector("outside"), uplink)

    def _collector(self, name: str) -> Callable[[memoryview], None]:
        return lambda frame: self.sent.append((name, Ether(bytes(frame)[10:]).payload))

    def _feed(self, port: str, frame: Packet) -> list[tuple[str, Packet]]:
        raw = bytes(10) + bytes(frame)
        self.dp.receive(self.ports[port], bytearray(raw + bytes(64)), len(raw), self.now)
        return self._settled()

    def _settled(self) -> list[tuple[str, Packet]]:
        """What was sent, once whoever was asked for by ARP has answered."""
        self.dp.flush()
        sent, self.sent = self.sent, []
        asked = [(where, packet[ARP]) for where, packet in sent if ARP in packet and packet[ARP].op == 1]
        sent = [(where, packet) for where, packet in sent if ARP not in packet]
        for where, request in asked:
            mac = ROUTER_MAC if where == "outside" else mac_of(request.pdst)
            sent += self._feed(where, Ether(dst=request.hwsrc, src=mac) / ARP(
                op=2, hwsrc=mac, psrc=request.pdst, hwdst=request.hwsrc, pdst=request.psrc))
        return sent

    def out(self, packet: Packet) -> list[tuple[str, Packet]]:
        """What a packet of a container causes."""
        return self._feed(packet[IP].src, Ether(dst=GATEWAY_MAC, src=mac_of(packet[IP].src)) / packet)

    def into(self, packet: Packet) -> list[tuple[str, Packet]]:
        """What a packet from outside causes."""
        return self._feed("outside", Ether(dst=UPLINK_MAC, src=ROUTER_MAC) / packet)

    def seen(self, packet: Packet) -> SEEN:
        """The external endpoint that a packet of a container is seen with outside."""
        ((where, out),) = self.out(packet)
        assert where == "outside"
        assert bytes(out.payload.payload) == bytes(packet.payload.payload)
        return out.src, out.payload.sport

    def advance(self, seconds: float) -> list[tuple[str, Packet]]:
        """Turn the clock, a second at a time at most."""
        end, sent = self.now + seconds, []
        while self.now < end:
            self.now = min(self.now + 1, end)
            self.dp.tick(self.now)
            sent += self._settled()
        return sent

    def count(self, name: str) -> int:
        return self.dp.counters()[name]


def mac_of(ip: str) -> str:
    return "02:42:" + IPv4Address(ip).packed.hex(":")


def behaving(mapping: Dependence = EIM, filtering: Dependence = APDM, **options: Any) -> NatConfig:
    both = NatBehaviour(mapping=mapping, filtering=filtering)
    return replace(NatConfig(udp=both, tcp=both), **options)


# ---- mapping and filtering -------------------------------------------------------------------------------------------

FAR = [("203.0.113.1", 53), ("203.0.113.1", 54), ("203.0.113.2", 53)]
"""A remote endpoint, another port of it, another address."""


@pytest.mark.requirement("U1", "T1")
@pytest.mark.parametrize("make", [udp, tcp], ids=["udp", "tcp"])
@pytest.mark.parametrize(("mapping", "distinct"), [(EIM, 1), (ADM, 2), (APDM, 3)])
def test_mapping(make: object, mapping: Dependence, distinct: int) -> None:
    lab = Lab(behaving(mapping))
    assert callable(make)
    seen = [lab.seen(make(ONE, 5000, *far)) for far in FAR]
    assert len(set(seen)) == distinct
    assert seen == [lab.seen(make(ONE, 5000, *far)) for far in FAR]
    assert (seen[0] == seen[1]) == (mapping is not APDM)


@pytest.mark.requirement("U2")
@pytest.mark.parametrize("mapping", [EIM, ADM, APDM])
@pytest.mark.parametrize(("filtering", "admitted"), [
    (EIM, [True, True, True]), (ADM, [True, True, False]), (APDM, [True, False, False])])
def test_filtering_is_independent_of_mapping(mapping: Dependence, filtering: Dependence, admitted: list[bool]) -> None:
    for far, expected in zip(FAR, admitted, strict=True):
        lab = Lab(behaving(mapping, filtering))
        address, port = lab.seen(udp(ONE, 5000, *FAR[0]))
        arrived = lab.into(udp(*far, address, port))
        assert [where for where, _ in arrived] == ([ONE] if expected else [])
        if expected:
            packet = arrived[0][1]
            assert (packet.src, packet.sport, packet.dst, packet.dport) == (*far, ONE, 5000)
            # The answer goes out by the same mapping, whatever the mapping depends on.
            assert lab.seen(udp(ONE, 5000, *far)) == (address, port)
        else:
            assert lab.count("drop_filtered") == 1


@pytest.mark.requirement("U2")
def test_a_second_mapping_of_one_endpoint_leads_in_though_its_way_out_is_taken() -> None:
    lab = Lab(behaving(APDM, EIM))
    first, second = (lab.seen(udp(ONE, 5000, *far)) for far in FAR[:2])
    assert first != second
    ((where, packet),) = lab.into(udp(*FAR[1], *first))
    assert (where, packet.dport) == (ONE, 5000)
    assert lab.seen(udp(ONE, 5000, *FAR[1])) == second


@pytest.mark.requirement("U2")
@pytest.mark.parametrize(("filtering", "admitted"), [(EIM, True), (ADM, False), (APDM, False)])
def test_unsolicited_syn_is_filtered_like_a_datagram(filtering: Dependence, admitted: bool) -> None:
    lab = Lab(behaving(EIM, filtering))
    external = lab.seen(tcp(ONE, 5000, *FAR[0]))
    assert bool(lab.into(tcp(*FAR[2], *external))) == admitted
    assert lab.into(tcp(*FAR[2], *external, "A")) == []


@pytest.mark.requirement("U2")
def test_inbound_creates_nothing_where_the_filter_says_no() -> None:
    lab = Lab()
    external = lab.seen(udp(ONE, 5000, *FAR[0]))
    for far in FAR[1:]:
        lab.into(udp(*far, *external))
    assert len(lab.dp.flow_records(lab.now)) == 1


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    lab = Lab(PRESETS[name])
    seen = [lab.seen(udp(ONE, 5000, *far)) for far in FAR[::2]]
    admitted = [bool(lab.into(udp(*far, *seen[0]))) for far in FAR[:2]] + [bool(lab.into(udp("203.0.113.9", 9, *seen[0])))]
    assert (seen[0] == seen[1], admitted) == {
        "full-cone": (True, [True, True, True]), "restricted-cone": (True, [True, True, False]),
        "port-restricted": (True, [True, False, False]), "symmetric": (False, [True, False, False]),
        "linux": (True, [True, False, False])}[name]  # Linux keeps the port while it can


@pytest.mark.requirement("U4")
def test_linux_overloads_a_port_and_others_do_not() -> None:
    lab = Lab(PRESETS["linux"])
    assert lab.seen(udp(ONE, 5000, *FAR[0])) == (EXTERNAL, 5000)
    assert lab.seen(udp(TWO, 5000, *FAR[1])) == (EXTERNAL, 5000)
    assert lab.seen(udp(THREE, 5000, *FAR[0])) != (EXTERNAL, 5000)
    for host, far in ((ONE, FAR[0]), (TWO, FAR[1])):
        ((where, _),) = lab.into(udp(*far, EXTERNAL, 5000))
        assert where == host
    lab = Lab()
    assert lab.seen(udp(ONE, 5000, *FAR[0])) == (EXTERNAL, 5000)
    assert lab.seen(udp(TWO, 5000, *FAR[1])) != (EXTERNAL, 5000)


def test_overload_needs_strict_behaviour() -> None:
    with pytest.raises(ValueError, match="overload"):
        NatBehaviour(overload=True)


@pytest.mark.requirement("U8")
def test_a_change_leaves_flows_that_exist_alone() -> None:
    lab = Lab(PRESETS["symmetric"])
    before = [lab.seen(udp(ONE, 5000, *far)) for far in FAR]
    lab.dp.set_nat(PRESETS["restricted-cone"])
    assert [lab.seen(udp(ONE, 5000, *far)) for far in FAR] == before
    new = [lab.seen(udp(ONE, 5000, "203.0.113.8", port)) for port in (1, 2)]
    assert new[0] == new[1]
    # Contacts from before the change count for the filter.
    assert lab.into(udp(FAR[0][0], 99, *before[0]))
    with pytest.raises(ValueError, match="no port policy"):
        lab.dp.set_nat(NatConfig(allocation="nonesuch"))
    assert lab.dp.napt.nat is PRESETS["restricted-cone"]


# ---- ports and addresses ---------------------------------------------------------------------------------------------


@pytest.mark.requirement("U5")
def test_privileged_ports_stay_privileged() -> None:
    lab = Lab(NatConfig(allocation="random"), port_range=(1, 65535))
    assert all(lab.seen(udp(ONE, port, *FAR[0]))[1] < 1024 for port in (53, 80, 500))
    assert all(lab.seen(udp(ONE, port, *FAR[0]))[1] >= 1024 for port in (1024, 5000, 65535))


@pytest.mark.requirement("U5")
@pytest.mark.parametrize("allocation", ["preserve", "random", "sequential"])
def test_parity(allocation: str) -> None:
    lab = Lab(NatConfig(allocation=allocation, parity=True), port_range=(30000, 30999))
    for port in range(5000, 5100):
        assert lab.seen(udp(ONE, port, *FAR[0]))[1] % 2 == port % 2


def test_sequential_allocation_goes_round() -> None:
    lab = Lab(NatConfig(allocation="sequential"), port_range=(30000, 30003))
    ports = [lab.seen(udp(ONE, port, *FAR[0]))[1] for port in (1, 2, 3, 4)]
    assert ports == [30000, 30001, 30002, 30003]
    lab.advance(301)
    assert lab.seen(udp(ONE, 9, *FAR[0]))[1] == 30000


@pytest.mark.requirement("C3")
def test_random_ports_follow_no_pattern() -> None:
    lab = Lab(NatConfig(allocation="random"))
    ports = [lab.seen(udp(ONE, 6000 + n, *FAR[0]))[1] for n in range(200)]
    assert len(set(ports)) == 200
    steps = [b - a for a, b in itertools.pairwise(ports)]
    assert len(set(steps)) > 190
    assert max(ports) - min(ports) > 50000


@pytest.mark.requirement("U4", "I8", "U8")
def test_exhaustion_is_told_and_changes_nothing_else() -> None:
    lab = Lab(port_range=(30000, 30001))
    kept = [lab.seen(udp(ONE, port, *FAR[0])) for port in (1, 2)]
    ((where, error),) = lab.out(udp(TWO, 1, *FAR[0]))
    assert (where, error[ICMP].type, error[ICMP].code) == (TWO, 3, 13)
    assert lab.count("drop_ports_exhausted") == 1
    assert [lab.seen(udp(ONE, port, *FAR[1])) for port in (1, 2)] == kept
    lab.advance(301)
    assert lab.seen(udp(TWO, 1, *FAR[0]))[1] in (30000, 30001)


@pytest.mark.requirement("C2")
def test_a_freed_port_rests_for_others() -> None:
    lab = Lab(NatConfig(port_rest_s=120), port_range=(30000, 30000))
    assert lab.seen(udp(ONE, 30000, *FAR[0])) == (EXTERNAL, 30000)
    lab.advance(302)
    assert lab.out(udp(TWO, 30000, *FAR[0]))[0][0] == TWO  # refused
    assert lab.seen(udp(ONE, 30000, *FAR[0])) == (EXTERNAL, 30000)
    lab.advance(302 + 121)
    assert lab.seen(udp(TWO, 30000, *FAR[0])) == (EXTERNAL, 30000)


@pytest.mark.requirement("C1")
def test_limits_of_one_host() -> None:
    lab = Lab(NatConfig(ports_per_host=2, flows_per_host_per_s=5))
    for port in (1, 2):
        lab.seen(udp(ONE, port, *FAR[0]))
    lab.out(udp(ONE, 3, *FAR[0]))
    assert lab.count("drop_host_ports") == 1
    lab.seen(udp(TWO, 1, *FAR[0]))
    for n in range(10):
        lab.out(udp(ONE, 1, "203.0.113.5", 1000 + n))
    assert lab.count("drop_host_rate") == 8
    lab.advance(1)
    lab.seen(udp(ONE, 1, "203.0.113.6", 1))


@pytest.mark.requirement("U3")
def test_several_external_addresses() -> None:
    pool = (IPv4Address(EXTERNAL), IPv4Address(SECOND))
    lab = Lab(NatConfig(external_addresses=pool))
    by_host = {host: {lab.seen(udp(host, port, *FAR[0]))[0] for port in range(1, 20)} for host in (ONE, TWO, THREE)}
    assert all(len(addresses) == 1 for addresses in by_host.values())
    assert set.union(*by_host.values()) == {EXTERNAL, SECOND}
    lab = Lab(NatConfig(external_addresses=pool, paired=False))
    assert {lab.seen(udp(ONE, port, *FAR[0]))[0] for port in range(1, 40)} == {EXTERNAL, SECOND}


@pytest.mark.requirement("C4")
def test_untranslated_destinations() -> None:
    lab = Lab(NatConfig(untranslated=(IPv4Network("203.0.113.0/31"),)))
    ((where, packet),) = lab.out(udp(ONE, 5000, *FAR[0]))
    assert (where, packet.src, packet.sport, packet.ttl) == ("outside", ONE, 5000, 63)
    ((where, packet),) = lab.into(udp(*FAR[0], ONE, 5000))
    assert (where, packet.dst, packet.ttl) == (ONE, ONE, 63)
    assert lab.seen(udp(ONE, 5000, *FAR[2]))[0] == EXTERNAL
    assert lab.into(udp(*FAR[2], ONE, 5000)) == []


# ---- hairpin ---------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("U7", "T2")
@pytest.mark.parametrize("filtering", [EIM, ADM, APDM])
def test_hairpin_between_mappings_is_filtered_like_the_outside(filtering: Dependence) -> None:
    lab = Lab(behaving(EIM, filtering))
    one, two = lab.seen(udp(ONE, 5000, *FAR[0])), lab.seen(udp(TWO, 6000, *FAR[0]))
    first = lab.out(udp(ONE, 5000, *two))
    assert [where for where, _ in first] == ([TWO] if filtering is EIM else [])
    ((where, packet),) = lab.out(udp(TWO, 6000, *one))  # ONE has sent to it: the hole is open
    assert (where, packet.src, packet.sport, packet.dst, packet.dport, packet.ttl) == (ONE, *two, ONE, 5000, 63)
    ((where, packet),) = lab.out(udp(ONE, 5000, *two))
    assert (where, packet.src, packet.sport, packet.dport) == (TWO, *one, 6000)
    assert lab.count("translated_hairpin") == (3 if filtering is EIM else 2)
    assert lab.count("drop_filtered") == (0 if filtering is EIM else 1)


@pytest.mark.requirement("U7")
def test_hairpin_to_oneself_and_to_a_published_port() -> None:
    lab = Lab(behaving(EIM, EIM))
    own = lab.seen(udp(ONE, 5000, *FAR[0]))
    ((where, packet),) = lab.out(udp(ONE, 5000, *own))
    assert (where, packet.src, packet.sport) == (ONE, *own)
    lab.dp.publish(Publication(protocol="tcp", host_ip=None, host_port=8080, container_ip=IPv4Address(TWO), container_port=80))
    ((where, packet),) = lab.out(tcp(ONE, 7000, EXTERNAL, 8080))
    assert (where, packet.src, packet.dport, packet.ttl) == (TWO, EXTERNAL, 80, 63)
    ((where, packet),) = lab.out(tcp(TWO, 80, packet.src, packet.sport, "SA"))
    assert (where, packet.src, packet.sport, packet.dport) == (ONE, EXTERNAL, 8080, 7000)


@pytest.mark.requirement("I7")
def test_an_error_about_a_hairpinned_packet_finds_its_sender() -> None:
    lab = Lab(behaving(EIM, EIM))
    two = lab.seen(udp(TWO, 6000, *FAR[0]))
    ((_, arrived),) = lab.out(udp(ONE, 5000, *two))
    ((where, error),) = lab.out(IP(src=TWO, dst=arrived.src) / ICMP(type=3, code=3) / bytes(arrived))
    assert where == ONE
    assert (error[IPerror].src, error[UDPerror].sport, error[IPerror].dst, error[UDPerror].dport) == (ONE, 5000, *two)


def test_no_hairpin() -> None:
    lab = Lab(NatConfig(hairpin=False))
    two = lab.seen(udp(TWO, 6000, *FAR[0]))
    assert lab.out(udp(ONE, 5000, *two)) == []
    assert lab.count("drop_hairpin") == 1


@pytest.mark.requirement("U7")
def test_ttl_of_what_hairpins_ends_once() -> None:
    lab = Lab(behaving(EIM, EIM))
    two = lab.seen(udp(TWO, 6000, *FAR[0]))
    packet = udp(ONE, 5000, *two)
    packet.ttl = 1
    ((where, error),) = lab.out(packet)
    assert (where, error.src, error[ICMP].type) == (ONE, "172.17.0.1", 11)
    packet.ttl = 2
    assert lab.out(packet)[0][1].ttl == 1


# ---- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("U6")
@pytest.mark.parametrize("refresh_inbound", [True, False])
def test_what_keeps_a_udp_mapping_alive(refresh_inbound: bool) -> None:
    lab = Lab(NatConfig(refresh_inbound=refresh_inbound))
    external = lab.seen(udp(ONE, 5000, *FAR[0]))
    for _ in range(4):
        lab.advance(100)
        lab.into(udp(*FAR[0], *external))
    assert bool(lab.into(udp(*FAR[0], *external))) == refresh_inbound


@pytest.mark.requirement("U6")
def test_udp_becomes_a_stream_in_the_linux_profile() -> None:
    lab = Lab(NatConfig(timeouts=TIMEOUT_PROFILES["linux"]))

    def left() -> object:
        (flow,) = lab.dp.flow_records(lab.now)
        return flow["timeout_s"]

    lab.seen(udp(ONE, 5000, *FAR[0]))
    assert left() == 30
    assert lab.into(udp(*FAR[0], EXTERNAL, 5000))
    assert left() == 30
    lab.advance(3)
    lab.seen(udp(ONE, 5000, *FAR[0]))
    assert left() == 120
    assert lab.into(udp(*FAR[0], EXTERNAL, 5000))
    lab.advance(119)
    assert lab.into(udp(*FAR[0], EXTERNAL, 5000))


@pytest.mark.requirement("T5")
@pytest.mark.parametrize(("profile", "expected"), [("rfc", [240, 240, 7440, 240]), ("linux", [120, 60, 432000, 120])])
def test_tcp_lives_as_long_as_its_state(profile: str, expected: list[int]) -> None:
    lab = Lab(NatConfig(timeouts=TIMEOUT_PROFILES[profile]))
    left = []
    for packet in (tcp(ONE, 5000, *FAR[0], "S"), tcp(*FAR[0], EXTERNAL, 5000, "SA"), tcp(ONE, 5000, *FAR[0], "A"),
                   tcp(ONE, 5000, *FAR[0], "FA")):
        assert lab.out(packet) if packet.src == ONE else lab.into(packet)
        (flow,) = lab.dp.flow_records(lab.now)
        left.append(flow["timeout_s"])
    assert left == expected


@pytest.mark.requirement("T3")
def test_simultaneous_open() -> None:
    lab = Lab()
    assert lab.out(tcp(ONE, 5000, *FAR[0], "S"))
    for packet in (tcp(*FAR[0], EXTERNAL, 5000, "S"), tcp(*FAR[0], EXTERNAL, 5000, "SA")):
        assert lab.into(packet)
    assert lab.out(tcp(ONE, 5000, *FAR[0], "SA"))
    assert lab.into(tcp(*FAR[0], EXTERNAL, 5000, "A"))
    assert lab.out(tcp(ONE, 5000, *FAR[0], "A"))
    (flow,) = lab.dp.flow_records(lab.now)
    assert flow["state"] == "ESTABLISHED"


@pytest.mark.requirement("T4")
def test_an_unsolicited_syn_is_held_and_then_refused() -> None:
    lab = Lab()
    lab.seen(tcp(ONE, 5000, *FAR[0]))
    assert lab.into(tcp(*FAR[2], EXTERNAL, 5000)) == []
    assert lab.count("held") == 1
    assert lab.advance(5.5) == []
    ((where, error),) = lab.advance(1.5)
    assert (where, error.dst, error[ICMP].type, error[ICMP].code) == ("outside", FAR[2][0], 3, 3)
    assert lab.count("syn_refused") == 1


@pytest.mark.requirement("T3", "T4")
def test_a_syn_from_inside_crosses_one_that_is_held() -> None:
    lab = Lab()
    lab.seen(tcp(ONE, 5000, *FAR[0]))
    assert lab.into(tcp(*FAR[2], EXTERNAL, 5000)) == []
    assert lab.seen(tcp(ONE, 5000, *FAR[2])) == (EXTERNAL, 5000)
    assert lab.advance(10) == []
    assert lab.into(tcp(*FAR[2], EXTERNAL, 5000))  # sent again, it comes in


@pytest.mark.requirement("T6")
@pytest.mark.parametrize("from_inside", [True, False])
def test_a_reset_passes_and_ends_only_what_its_hosts_end(from_inside: bool) -> None:
    lab = Lab()

    def out(flags: str) -> list[tuple[str, Packet]]:
        return lab.out(tcp(ONE, 5000, *FAR[0], flags))

    def into(flags: str) -> list[tuple[str, Packet]]:
        return lab.into(tcp(*FAR[0], EXTERNAL, 5000, flags))

    assert out("S")
    assert into("SA")
    assert out("A")

    def state() -> tuple[object, object]:
        (flow,) = lab.dp.flow_records(lab.now)
        return flow["state"], flow["timeout_s"]

    assert (out if from_inside else into)("R")
    assert state() == ("CLOSE", 240)
    lab.advance(200)
    assert (into if from_inside else out)("A")  # the other did not believe it
    assert state() == ("ESTABLISHED", 7440)
    assert (out if from_inside else into)("RA")
    lab.advance(242)
    assert lab.dp.flow_records(lab.now) == []


@pytest.mark.requirement("T7")
@pytest.mark.parametrize("pick_up", [True, False])
def test_a_connection_under_way_is_picked_up(pick_up: bool) -> None:
    lab = Lab(NatConfig(pick_up=pick_up))
    assert bool(lab.out(tcp(ONE, 5000, *FAR[0], "PA"))) == pick_up
    assert bool(lab.into(tcp(*FAR[0], EXTERNAL, 5000, "A"))) == pick_up


@pytest.mark.requirement("T8")
@pytest.mark.parametrize("flags", ["SF", "SR", "", "FR", "F", "SFRPA", "P", "U"])
def test_impossible_flags(flags: str) -> None:
    lab = Lab()
    assert lab.out(tcp(ONE, 5000, *FAR[0], flags)) == []
    lab.seen(tcp(ONE, 5000, *FAR[0]))
    assert lab.into(tcp(*FAR[0], EXTERNAL, 5000, flags)) == []
