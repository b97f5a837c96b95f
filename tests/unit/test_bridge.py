"""The learning bridge (IEEE 802.1D): who is learned, where frames go, what stays on its link."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from natgw.datapath import DatapathConfig, NetworkConfig, PortKind, Verdict
from natgw.errors import Conflict
from natgw.wire.ethernet import parse_mac
from natgw.wire.vnet import GSO_TCPV4, GSO_UDP_L4
from tests.unit.core_lab import (
    A_IP,
    A_MAC,
    B_IP,
    B_MAC,
    BROADCAST_MAC,
    GATEWAY_IP,
    GATEWAY_MAC,
    REMOTE,
    Lab,
    from_a,
    partial,
)

C_MAC, D_MAC = "02:42:ac:11:00:04", "02:42:ac:11:00:05"


def frame(src: str, dst: str) -> Packet:
    """A frame of a protocol natgw knows nothing of."""
    return Ether(src=src, dst=dst, type=0x88B5) / Raw(b"experimental")


def heard(lab: Lab) -> dict[str, str]:
    """The stations of the forwarding database, by the port they are behind."""
    return {str(entry["mac"]): str(entry["port"]) for entry in lab.dp.fdb_records(lab.now) if not entry["static"]}


# -- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("B1", "B4")
def test_unknown_destinations_flood_until_they_have_been_heard() -> None:
    lab = Lab()
    out = lab.send("a", frame(A_MAC, B_MAC))
    assert out.verdict is Verdict.FLOODED and out.ports == ["host", "b"]
    assert lab.send("b", frame(B_MAC, A_MAC)).ports == ["a"]
    out = lab.send("a", frame(A_MAC, B_MAC))
    assert out.verdict is Verdict.BRIDGED and out.ports == ["b"]
    assert heard(lab) == {A_MAC: "a", B_MAC: "b"}


@pytest.mark.requirement("B1")
@pytest.mark.parametrize("src", ["01:00:5e:00:00:01", BROADCAST_MAC, "00:00:00:00:00:00"])
def test_only_stations_are_learned_and_only_they_may_send(src: str) -> None:
    lab = Lab()
    out = lab.send("a", frame(src, B_MAC))
    assert (out.verdict, out.sent) == (Verdict.DROP_BAD_SOURCE_MAC, [])
    assert heard(lab) == {}


def test_a_frame_is_bridged_as_it_is_with_its_offload_header() -> None:
    lab = Lab()
    lab.send("b", frame(B_MAC, A_MAC))
    superframe = partial(from_a(TCP(flags="A") / bytes(20000), dst=B_IP, to_mac=B_MAC), gso_type=GSO_TCPV4, gso_size=1448)
    for _ in range(2):  # the second time by the fast path
        assert lab.send("a", superframe).only.raw == superframe
    assert lab.dp.counters()["fast_path"] == 1


def test_a_frame_for_the_port_it_came_from_stays_there() -> None:
    lab = Lab()
    lab.send("a", frame(C_MAC, BROADCAST_MAC))
    out = lab.send("a", frame(A_MAC, C_MAC))
    assert (out.verdict, out.sent) == (Verdict.DROP_SAME_PORT, [])


@pytest.mark.requirement("B2")
def test_a_station_that_moves_is_found_at_its_new_port_at_once() -> None:
    lab = Lab()
    lab.add_port("c")
    lab.send("b", frame(B_MAC, A_MAC))
    for _ in range(3):
        assert lab.send("a", frame(A_MAC, B_MAC)).ports == ["b"]
    lab.send("c", frame(B_MAC, BROADCAST_MAC))
    assert lab.send("a", frame(A_MAC, B_MAC)).ports == ["c"]
    lab.send("b", frame(B_MAC, A_MAC))
    assert lab.send("a", frame(A_MAC, B_MAC)).ports == ["b"]


@pytest.mark.requirement("B2")
def test_flows_follow_a_station_that_moves() -> None:
    lab = Lab()
    lab.add_port("c")
    sport = lab.external_port(lab.send("a", from_a(UDP(sport=45000, dport=53) / b"x")))
    answer = Ether(src="02:bb:00:00:00:01", dst="02:aa:00:00:00:01") / IP(src=REMOTE, dst="198.51.100.2") / UDP(
        sport=53, dport=sport) / b"y"
    assert lab.send("uplink", answer).ports == ["a"]
    lab.send("c", frame(A_MAC, BROADCAST_MAC))
    assert lab.send("uplink", answer).ports == ["c"]


@pytest.mark.requirement("B3")
def test_a_station_is_forgotten_after_300_seconds_of_silence() -> None:
    lab = Lab()
    lab.send("b", frame(B_MAC, A_MAC))
    lab.send("a", frame(A_MAC, B_MAC))
    lab.wait(299)
    lab.send("a", frame(A_MAC, B_MAC))
    lab.wait(2)
    assert heard(lab) == {A_MAC: "a"}
    assert lab.send("a", frame(A_MAC, B_MAC)).verdict is Verdict.FLOODED


@pytest.mark.requirement("B3")
def test_a_station_that_talks_by_the_fast_path_is_not_forgotten() -> None:
    lab = Lab()
    lab.send("b", frame(B_MAC, A_MAC))
    for _ in range(400):
        lab.wait(1)
        lab.send("a", frame(A_MAC, B_MAC))
        assert lab.send("b", frame(B_MAC, A_MAC)).ports == ["a"]
    assert heard(lab) == {A_MAC: "a", B_MAC: "b"}


# -- flooding --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("B4")
@pytest.mark.parametrize("dst", [BROADCAST_MAC, "01:00:5e:00:00:fb", "33:33:00:00:00:01", "01:80:c2:00:00:10"])
@pytest.mark.parametrize("port", ["host", "a", "b"])
def test_groups_flood_all_other_ports_and_never_the_incoming_one(dst: str, port: str) -> None:
    lab = Lab()
    out = lab.send(port, frame(C_MAC, dst))
    assert out.verdict is Verdict.FLOODED
    assert out.ports == [each for each in ("host", "a", "b") if each != port]
    assert all(each.packet == frame(C_MAC, dst) for each in out.sent)


@pytest.mark.requirement("B4")
def test_a_network_does_not_flood_into_another() -> None:
    lab = Lab()
    other = lab.dp.add_network(NetworkConfig(name="other", subnet=IPv4Network("172.18.0.0/16"),
                                             gateway=IPv4Address("172.18.0.1"), gateway_mac=parse_mac("02:42:ac:12:00:01")))
    lab.add_port("x", bridge=other)
    lab.add_port("y", bridge=other)
    assert lab.send("x", frame(C_MAC, BROADCAST_MAC)).ports == ["y"]
    assert lab.send("a", frame(A_MAC, C_MAC)).ports == ["host", "b"], "nor is a station of one known in the other"


@pytest.mark.requirement("B5")
@pytest.mark.parametrize("last", [0x00, 0x01, 0x02, 0x0E, 0x0F])
def test_frames_of_the_link_itself_are_not_forwarded(last: int) -> None:
    lab = Lab()
    out = lab.send("a", frame(A_MAC, f"01:80:c2:00:00:{last:02x}"))
    assert (out.verdict, out.sent) == (Verdict.DROP_LINK_RESERVED, [])


@pytest.mark.parametrize("size", range(15))
def test_a_runt_is_counted_as_one(size: int) -> None:
    lab = Lab()
    out = lab.send("a", bytes(10) + bytes(frame(A_MAC, B_MAC))[:size])
    assert out.verdict is (Verdict.DROP_RUNT if size < 14 else Verdict.FLOODED)


# -- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("B6")
def test_a_flood_of_addresses_pushes_nobody_out() -> None:
    lab = Lab(max_fdb_entries=4)
    lab.send("a", frame(A_MAC, BROADCAST_MAC))
    lab.send("b", frame(B_MAC, BROADCAST_MAC))
    for number in range(100):
        lab.send("b", frame(f"02:00:00:00:00:{number:02x}", BROADCAST_MAC))
    assert lab.dp.counters()["fdb_full"] == 98
    assert len(lab.dp.fdb_records(lab.now)) == 5, "and the gateway's"
    assert lab.send("b", frame(B_MAC, A_MAC)).ports == ["a"]
    assert lab.send("a", from_a(UDP(sport=5, dport=6))).verdict is Verdict.TRANSLATED_OUT, "the gateway is still there"
    assert lab.send("b", frame("02:00:00:00:00:63", A_MAC)).ports == ["a"], "one not learned is bridged all the same"


@pytest.mark.requirement("B6")
def test_nobody_takes_the_gateways_address() -> None:
    lab = Lab()
    for dst in (B_MAC, BROADCAST_MAC, GATEWAY_MAC):
        out = lab.send("a", frame(GATEWAY_MAC, dst))
        assert (out.verdict, out.sent) == (Verdict.DROP_SOURCE_IS_GATEWAY, [])
    assert lab.send("b", from_a(UDP(sport=5, dport=6))).verdict is Verdict.TRANSLATED_OUT


@pytest.mark.requirement("B6")
def test_a_host_that_floods_pairs_of_addresses_leaves_the_rest_working() -> None:
    lab = Lab()
    lab.send("b", frame(B_MAC, BROADCAST_MAC))
    for number in range(600):
        lab.send("a", frame(f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}", B_MAC))
    assert lab.send("a", frame(A_MAC, B_MAC)).ports == ["b"]


# -- the host --------------------------------------------------------------------------------------------------------


def test_the_host_is_a_station_with_the_gateways_address() -> None:
    lab = Lab()
    lab.send("a", frame(A_MAC, BROADCAST_MAC))
    out = lab.send("host", frame(GATEWAY_MAC, A_MAC))
    assert out.verdict is Verdict.BRIDGED and out.ports == ["a"]
    out = lab.send("host", frame(GATEWAY_MAC, GATEWAY_MAC))
    assert (out.verdict, out.sent) == (Verdict.DROP_SAME_PORT, [])


def test_a_network_works_without_its_host_port() -> None:
    lab = Lab()
    lab.dp.remove_port(lab.ports["host"])
    out = lab.send("a", from_a(TCP(dport=22, flags="S"), dst=GATEWAY_IP))
    assert (out.verdict, out.sent) == (Verdict.DROP_NO_HOST, [])
    assert lab.send("a", from_a(UDP(sport=5, dport=6))).verdict is Verdict.TRANSLATED_OUT
    assert lab.send("a", frame(GATEWAY_MAC, B_MAC)).verdict is Verdict.DROP_SOURCE_IS_GATEWAY


# -- ports that come and go ------------------------------------------------------------------------------------------


def test_a_port_that_goes_takes_its_stations_along() -> None:
    lab = Lab()
    lab.send("b", frame(B_MAC, A_MAC))
    lab.send("a", frame(A_MAC, B_MAC))
    lab.dp.remove_port(lab.ports["b"])
    assert heard(lab) == {A_MAC: "a"}
    assert lab.send("a", frame(A_MAC, B_MAC)).ports == ["host"]
    assert lab.send("b", frame(B_MAC, A_MAC)).verdict is Verdict.DROP_NO_UPLINK, "its last frames are counted, and no more"
    lab.dp.remove_port(lab.ports["b"])


def test_two_networks_cannot_have_one_name_or_overlap() -> None:
    lab = Lab()

    def network(name: str, subnet: str) -> NetworkConfig:
        net = IPv4Network(subnet)
        return NetworkConfig(name=name, subnet=net, gateway=next(net.hosts()), gateway_mac=parse_mac(C_MAC))

    with pytest.raises(Conflict, match="network with name bridge already exists"):
        lab.dp.add_network(network("bridge", "10.0.0.0/24"))
    with pytest.raises(Conflict, match="Pool overlaps"):
        lab.dp.add_network(network("other", "172.17.128.0/24"))
    other = lab.dp.add_network(network("other", "10.0.0.0/24"))
    lab.dp.remove_network(other)
    lab.dp.add_network(network("other", "10.0.0.0/24"))


@pytest.mark.parametrize("fields", [{"gateway": IPv4Address("10.0.1.1")}, {"gateway_mac": b"12345"}])
def test_a_network_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    sound: dict[str, Any] = {"name": "n", "subnet": IPv4Network("10.0.0.0/24"), "gateway": IPv4Address("10.0.0.1"),
                             "gateway_mac": b"123456"}
    NetworkConfig(**sound)
    with pytest.raises(ValueError):
        NetworkConfig(**(sound | fields))
    with pytest.raises(ValueError, match="port range 0-80"):
        DatapathConfig(port_range=(0, 80))


# -- links of different size -----------------------------------------------------------------------------------------


def small_link() -> Lab:
    """Container b has learned its place behind a link with an MTU of 1000."""
    lab = Lab()
    lab.dp.remove_port(lab.ports["b"])
    lab.add_port("b", PortKind.ENDPOINT, mtu=1000)
    lab.send("b", frame(B_MAC, A_MAC))
    return lab


@pytest.mark.parametrize("times", [1, 3])
def test_a_frame_too_big_for_a_link_is_dropped_every_time(times: int) -> None:
    lab = small_link()
    for _ in range(times):
        assert lab.send("a", from_a(UDP() / bytes(972), dst=B_IP, to_mac=B_MAC)).ports == ["b"]
        out = lab.send("a", from_a(UDP() / bytes(973), dst=B_IP, to_mac=B_MAC))
        assert (out.verdict, out.sent) == (Verdict.DROP_TOO_BIG, [])


def test_a_tcp_superframe_is_made_to_fit_a_smaller_link() -> None:
    lab = small_link()
    superframe = partial(from_a(TCP(flags="A") / bytes(9000), dst=B_IP, to_mac=B_MAC), gso_type=GSO_TCPV4, gso_size=1460)
    for _ in range(2):
        sent = lab.send("a", superframe).only.raw
        assert sent == superframe[:4] + (960).to_bytes(2, "little") + superframe[6:]
    assert lab.dp.counters()["resized_superframes"] == 2


def test_datagrams_of_a_superframe_cannot_be_made_smaller() -> None:
    lab = small_link()
    out = lab.send("a", partial(from_a(UDP() / bytes(9000), dst=B_IP, to_mac=B_MAC), gso_type=GSO_UDP_L4, gso_size=1200))
    assert (out.verdict, out.sent) == (Verdict.DROP_TOO_BIG, [])
    assert lab.send("a", partial(from_a(UDP() / bytes(9000), dst=B_IP, to_mac=B_MAC), gso_type=GSO_UDP_L4,
                                 gso_size=972)).ports == ["b"]


# -- ARP on the bridge -----------------------------------------------------------------------------------------------


@pytest.mark.requirement("G6")
def test_the_gateway_answers_arp_and_the_host_is_not_asked_as_well() -> None:
    lab = Lab()
    out = lab.send("a", Ether(src=A_MAC, dst=BROADCAST_MAC) / ARP(hwsrc=A_MAC, psrc=A_IP, pdst=GATEWAY_IP))
    assert sorted(out.ports) == ["a", "b"]
    (reply,) = (each.packet for each in out.sent if each.port == "a")
    assert bytes(reply) == bytes(Ether(src=GATEWAY_MAC, dst=A_MAC) / ARP(
        op=2, hwsrc=GATEWAY_MAC, psrc=GATEWAY_IP, hwdst=A_MAC, pdst=A_IP))
    assert out.verdict is Verdict.FLOODED


def test_arp_between_stations_floods_and_returns() -> None:
    lab = Lab()
    out = lab.send("a", Ether(src=A_MAC, dst=BROADCAST_MAC) / ARP(hwsrc=A_MAC, psrc=A_IP, pdst=B_IP))
    assert out.verdict is Verdict.FLOODED and out.ports == ["host", "b"]
    out = lab.send("b", Ether(src=B_MAC, dst=A_MAC) / ARP(op=2, hwsrc=B_MAC, psrc=B_IP, hwdst=A_MAC, pdst=A_IP))
    assert out.verdict is Verdict.BRIDGED and out.ports == ["a"]


def test_an_arp_reply_to_the_gateway_is_for_natgw_and_for_the_host() -> None:
    lab = Lab()
    out = lab.send("a", Ether(src=A_MAC, dst=GATEWAY_MAC) / ARP(op=2, hwsrc=A_MAC, psrc=A_IP, hwdst=GATEWAY_MAC,
                                                               pdst=GATEWAY_IP))
    assert out.verdict is Verdict.ABSORBED and out.ports == ["host"]


@pytest.mark.parametrize("dst", [BROADCAST_MAC, GATEWAY_MAC])
def test_arp_that_is_not_well_formed_is_dropped(dst: str) -> None:
    lab = Lab()
    for bad in (ARP(op=9), ARP(hwtype=6), Raw(b"\0\1\x08\0")):
        out = lab.send("a", Ether(src=A_MAC, dst=dst, type=0x0806) / bad)
        assert (out.verdict, out.sent) == (Verdict.DROP_BAD_ARP, [])


def test_an_address_that_natgw_gave_cannot_be_claimed_from_another_port() -> None:
    lab = Lab()
    lab.send("b", Ether(src=B_MAC, dst=BROADCAST_MAC) / ARP(op=1, hwsrc=B_MAC, psrc=A_IP, pdst=GATEWAY_IP))
    known = {entry["ip"]: entry["port"] for entry in lab.dp.neighbour_records(lab.now) if entry["network"] == "bridge"}
    assert known == {A_IP: "a", B_IP: "b"}


def test_the_gateway_learns_nothing_from_a_probe_or_a_foreign_address() -> None:
    lab = Lab()
    for psrc in ("0.0.0.0", "10.9.9.9", GATEWAY_IP):
        lab.send("a", Ether(src=A_MAC, dst=BROADCAST_MAC) / ARP(hwsrc=A_MAC, psrc=psrc, pdst=GATEWAY_IP))
    assert {entry["ip"] for entry in lab.dp.neighbour_records(lab.now) if entry["network"] == "bridge"} == {A_IP, B_IP}
