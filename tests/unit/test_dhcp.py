"""DHCP: clients played by scapy, a server behind the bridge, and time as an argument."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from natgw.control.dhcp.server import DECLINED_S, MAX_LEASES_OF_ONE, OFFER_S, DhcpServer, DhcpSettings
from natgw.datapath import Verdict
from natgw.datapath.dhcp import DhcpHook
from natgw.tables.leases import Lease
from natgw.wire.dhcp import DhcpMessage, Kind, build_dhcp, parse_dhcp
from natgw.wire.ethernet import ETH, mac_text, parse_mac
from tests.unit.core_lab import A_IP, A_MAC, B_IP, B_MAC, BROADCAST_MAC, GATEWAY_IP, GATEWAY_MAC, Lab, Outcome, partial

GUEST = "02:99:00:00:00:01"
LEASE_S = 3600
ASKED = [1, 3, 6, 26, 28, 51]


class FakeAddresses:
    """Containers a and b have theirs; the pool has `free`."""

    def __init__(self, lab: Lab, free: int) -> None:
        self.stations = {parse_mac(mac): (IPv4Address(ip), lab.ports[port])
                         for mac, ip, port in ((A_MAC, A_IP, "a"), (B_MAC, B_IP, "b"))}
        self.free = {IPv4Address("172.17.0.10") + n for n in range(free)}

    def reserved(self, mac: bytes) -> tuple[IPv4Address, Hashable] | None:
        return self.stations.get(mac)

    def take(self, wanted: IPv4Address | None) -> IPv4Address | None:
        address = min(self.free, default=None) if wanted is None else wanted
        if address not in self.free:
            return None
        self.free.remove(address)
        return address

    def give_back(self, address: IPv4Address) -> None:
        assert address not in self.free
        self.free.add(address)


class Segment:
    """A bridge with a DHCP server, and what clients do."""

    def __init__(self, *, free: int = 3, lease_s: int = LEASE_S, router: bool = True) -> None:
        self.lab = Lab()
        self.addresses = FakeAddresses(self.lab, free)
        self.count: Counter[str] = Counter()
        self.kept: dict[bytes, Lease] = {}
        gateway = IPv4Address(GATEWAY_IP)
        self.settings = DhcpSettings(subnet=IPv4Network("172.17.0.0/16"), server=gateway, router=gateway if router else None,
                                     dns=(gateway,), mtu=1450, lease_s=lease_s)
        self.start()

    def start(self) -> None:
        self.server = DhcpServer(self.settings, self.addresses, self.count, self._changed)
        self.lab.bridge.dhcp = DhcpHook(self.server.receive, self.lab.now)

    def _changed(self, lease: Lease, holds: bool) -> None:
        if holds:
            self.kept[lease.client] = lease
        else:
            del self.kept[lease.client]

    def send(self, kind: str, *words: Any, mac: str = A_MAC, port: str = "a", **more: Any) -> Outcome:
        return self.lab.send(port, request(kind, *words, mac=mac, **more))

    def answer(self, kind: str, *options: Any, **more: Any) -> Any:
        return read(self.send(kind, *options, **more))

    def bind(self, mac: str = A_MAC, port: str = "a") -> str:
        """DISCOVER, OFFER, REQUEST, ACK; gives the address."""
        offer = self.answer("discover", ("param_req_list", ASKED), mac=mac, port=port)
        ack = self.answer("request", ("server_id", GATEWAY_IP), ("requested_addr", offer.yiaddr), mac=mac, port=port)
        assert (options(offer)["message-type"], options(ack)["message-type"]) == (2, 5)
        assert ack.yiaddr == offer.yiaddr
        return str(ack.yiaddr)

    def wait(self, seconds: float) -> None:
        self.lab.now += seconds
        self.server.expire(self.lab.now)


def request(kind: str, *words: Any, mac: str = A_MAC, unicast: bool = False, **fields: Any) -> Packet:
    ip = IP(src=fields.get("ciaddr", "0.0.0.0"), dst=GATEWAY_IP if unicast else "255.255.255.255")
    bootp = BOOTP(**{"op": 1, "xid": 0x1234, "chaddr": parse_mac(mac)} | fields)
    return (Ether(src=mac, dst=GATEWAY_MAC if unicast else BROADCAST_MAC) / ip / UDP(sport=68, dport=67) / bootp
            / DHCP(options=[("message-type", kind), *words, "end"]))


def read(outcome: Outcome) -> Any:
    """The reply, as scapy reads it."""
    assert outcome.verdict is Verdict.DHCP
    return outcome.packet[BOOTP]


def options(reply: Any) -> dict[str, Any]:
    return {option[0]: option[1] for option in reply.payload.options if isinstance(option, tuple)}


@pytest.fixture
def segment() -> Segment:
    return Segment()


def test_a_container_gets_the_address_that_was_chosen_for_it(segment: Segment) -> None:
    outcome = segment.send("discover", ("param_req_list", ASKED))
    offer = read(outcome)
    assert outcome.ports == ["a"]
    assert (offer.op, offer.xid, offer.yiaddr, offer.chaddr[:6]) == (2, 0x1234, A_IP, parse_mac(A_MAC))
    found = options(offer)
    assert found == {"message-type": 2, "server_id": GATEWAY_IP, "lease_time": LEASE_S, "renewal_time": LEASE_S // 2,
                     "rebinding_time": 3150, "subnet_mask": "255.255.0.0", "router": GATEWAY_IP, "name_server": GATEWAY_IP,
                     "interface-mtu": 1450, "broadcast_address": "172.17.255.255"}
    frame = outcome.packet
    assert (frame.dst, frame.src, frame[IP].src, frame[IP].dst) == (A_MAC, GATEWAY_MAC, GATEWAY_IP, A_IP)
    assert (frame[UDP].sport, frame[UDP].dport) == (67, 68)
    assert not segment.kept
    assert segment.bind() == A_IP
    assert [mac_text(lease.mac) for lease in segment.kept.values()] == [A_MAC]
    assert segment.bind(B_MAC, "b") == B_IP


def test_only_what_was_asked_for_is_told() -> None:
    segment = Segment(router=False)
    assert set(options(segment.answer("discover", ("param_req_list", [1, 3])))) == {
        "message-type", "server_id", "lease_time", "renewal_time", "rebinding_time", "subnet_mask"}
    assert "name_server" in options(segment.answer("discover"))


def test_a_client_that_cannot_take_unicast_gets_broadcast(segment: Segment) -> None:
    frame = segment.send("discover", flags=0x8000).packet
    assert (frame.dst, frame[IP].dst) == (BROADCAST_MAC, "255.255.255.255")


def test_renewing_and_rebinding(segment: Segment) -> None:
    segment.bind()
    (lease,) = segment.kept.values()
    segment.wait(LEASE_S / 2)
    frame = segment.send("request", unicast=True, ciaddr=A_IP).packet
    assert (frame.dst, frame[IP].dst, frame[BOOTP].yiaddr) == (A_MAC, A_IP, A_IP)
    assert lease.until == segment.lab.now + LEASE_S
    segment.wait(LEASE_S * 7 / 8)
    assert options(segment.answer("request", ciaddr=A_IP))["message-type"] == 5
    assert lease.until == segment.lab.now + LEASE_S


@pytest.mark.parametrize(("address", "answer"), [(A_IP, 5), (B_IP, 6), ("10.1.2.3", 6)])
def test_init_reboot(segment: Segment, address: str, answer: int) -> None:
    """A client that remembers an address: the right one is confirmed, any other refused, by broadcast."""
    segment.bind()
    outcome = segment.send("request", ("requested_addr", address))
    assert options(read(outcome))["message-type"] == answer
    assert (outcome.packet[IP].dst == "255.255.255.255") == (answer == 6)


def test_init_reboot_of_a_stranger(segment: Segment) -> None:
    """RFC 2131 section 4.3.2: no record of the client, no word; but one from another network is told so."""
    outcome = segment.send("request", ("requested_addr", "172.17.0.10"), mac=GUEST)
    assert outcome.verdict is Verdict.DHCP and not outcome.sent
    assert options(segment.answer("request", ("requested_addr", "10.1.2.3"), mac=GUEST))["message-type"] == 6


def test_a_wrong_address_is_refused(segment: Segment) -> None:
    segment.answer("discover")
    reply = segment.answer("request", ("server_id", GATEWAY_IP), ("requested_addr", "172.17.0.77"))
    assert options(reply)["message-type"] == 6 and reply.yiaddr == "0.0.0.0"
    assert options(segment.answer("request", unicast=True, ciaddr=A_IP))["message-type"] == 5


def test_stations_behind_a_container_get_addresses_of_the_pool(segment: Segment) -> None:
    assert segment.bind(GUEST) == "172.17.0.10"
    assert segment.bind("02:99:00:00:00:02") == "172.17.0.11"
    outcome = segment.send("release", ("server_id", GATEWAY_IP), mac=GUEST, unicast=True, ciaddr="172.17.0.10")
    assert outcome.verdict is Verdict.DHCP and not outcome.sent
    assert IPv4Address("172.17.0.10") in segment.addresses.free
    assert segment.bind("02:99:00:00:00:03") == "172.17.0.10"
    segment.wait(LEASE_S + 1)
    assert len(segment.addresses.free) == 3 and not segment.kept
    assert segment.bind(GUEST) == "172.17.0.10"
    assert segment.bind("02:99:00:00:00:02") == "172.17.0.11"


def test_a_client_gets_again_what_it_had_or_wants(segment: Segment) -> None:
    assert segment.bind(GUEST) == "172.17.0.10"
    segment.wait(LEASE_S + 1)
    assert segment.bind("02:99:00:00:00:02") == "172.17.0.10"
    segment.send("release", mac="02:99:00:00:00:02", unicast=True, ciaddr="172.17.0.10")
    assert segment.answer("discover", ("requested_addr", "172.17.0.12"), mac=GUEST).yiaddr == "172.17.0.10"
    assert segment.answer("discover", ("requested_addr", "172.17.0.12"), mac="02:99:00:00:00:05").yiaddr == "172.17.0.12"


def test_no_address_is_left() -> None:
    segment = Segment(free=1)
    segment.bind(GUEST)
    outcome = segment.send("discover", mac="02:99:00:00:00:02")
    assert outcome.verdict is Verdict.DHCP and not outcome.sent
    assert segment.count["exhausted"] == 1
    assert segment.bind() == A_IP


def test_an_offer_nobody_takes_lapses() -> None:
    segment = Segment(free=1)
    segment.answer("discover", mac=GUEST)
    segment.wait(OFFER_S + 1)
    assert segment.bind("02:99:00:00:00:02") == "172.17.0.10"


def test_another_servers_offer_was_taken(segment: Segment) -> None:
    segment.answer("discover", mac=GUEST)
    outcome = segment.send("request", ("server_id", "172.17.0.99"), ("requested_addr", "172.17.0.50"), mac=GUEST)
    assert outcome.verdict is Verdict.DHCP and not outcome.sent
    assert len(segment.addresses.free) == 3


@pytest.mark.parametrize("mac", [A_MAC, GUEST])
def test_a_declined_address_rests(segment: Segment, mac: str) -> None:
    address = segment.bind(mac)
    segment.send("decline", ("server_id", GATEWAY_IP), ("requested_addr", address), mac=mac)
    assert not segment.kept
    outcome = segment.send("discover", mac=mac)
    if mac == A_MAC:
        assert not outcome.sent  # no other address would be any good: its published ports lead there
    else:
        assert read(outcome).yiaddr == "172.17.0.11"
    segment.wait(DECLINED_S + 1)
    assert len(segment.addresses.free) == 3
    assert segment.bind(A_MAC) == A_IP
    assert segment.bind("02:99:00:00:00:02") == "172.17.0.10"


def test_inform(segment: Segment) -> None:
    reply = segment.answer("inform", ("param_req_list", ASKED), ciaddr=A_IP)
    assert reply.yiaddr == "0.0.0.0"
    assert options(reply)["message-type"] == 5 and "lease_time" not in options(reply)


def test_who_asks_for_less_time_gets_less(segment: Segment) -> None:
    for wanted, given_s in ((600, 600), (1, 60), (0xFFFFFFFF, LEASE_S)):
        assert options(segment.answer("discover", ("lease_time", wanted)))["lease_time"] == given_s


def test_the_client_identifier_is_who_a_client_is(segment: Segment) -> None:
    first = segment.answer("discover", ("client_id", b"\xffone"), mac=GUEST)
    assert options(first)["client_id"] == b"\xffone"  # RFC 6842
    assert segment.answer("discover", ("client_id", b"\xfftwo"), mac=GUEST).yiaddr != first.yiaddr
    one = segment.answer("discover", ("client_id", b"\xffone"))
    two = segment.answer("discover", ("client_id", b"\xfftwo"))
    assert one.yiaddr == two.yiaddr == A_IP


def test_a_container_cannot_ask_for_another(segment: Segment) -> None:
    outcome = segment.send("discover", mac=A_MAC, port="b")
    assert outcome.verdict is Verdict.DHCP and not outcome.sent
    assert segment.count["ignored"] == 1
    forged = request("discover", mac=B_MAC)
    forged[Ether].src = A_MAC
    assert segment.lab.send("a", forged).verdict is Verdict.DROP_BAD_DHCP


def test_one_port_cannot_take_all_addresses() -> None:
    segment = Segment(free=200)
    answered = [bool(segment.send("discover", mac=f"02:99:00:00:01:{n:02x}").sent) for n in range(MAX_LEASES_OF_ONE + 5)]
    assert answered == [True] * MAX_LEASES_OF_ONE + [False] * 5
    assert segment.send("discover", mac="02:99:00:00:02:00", port="b").sent


def test_requests_are_limited() -> None:
    segment = Segment()
    verdicts = Counter(segment.send("discover").verdict for _ in range(250))
    assert verdicts == {Verdict.DHCP: 200, Verdict.DROP_RATE_LIMITED: 50}


def test_leases_outlive_the_server(segment: Segment) -> None:
    assert segment.bind(GUEST) == "172.17.0.10" and segment.bind() == A_IP
    kept = list(segment.kept.values())
    segment.server.close()
    assert len(segment.addresses.free) == 3
    segment.start()
    assert all(segment.server.restore(Lease(each.client, each.mac, each.ip, each.until, bound=True), segment.lab.now)
               for each in kept)
    assert options(segment.answer("request", ciaddr="172.17.0.10", mac=GUEST, unicast=True))["message-type"] == 5
    assert segment.bind("02:99:00:00:00:02") == "172.17.0.11"
    late = Lease(b"late", b"late", IPv4Address("172.17.0.12").packed, segment.lab.now - 1, bound=True)
    assert not segment.server.restore(late, segment.lab.now)


def test_a_station_that_was_unplugged_loses_its_lease(segment: Segment) -> None:
    segment.bind()
    segment.server.forget(parse_mac(A_MAC))
    assert not segment.kept


def test_without_a_server_requests_flood_as_any_broadcast(segment: Segment) -> None:
    segment.lab.bridge.dhcp = None
    outcome = segment.send("discover")
    assert outcome.verdict is Verdict.FLOODED and set(outcome.ports) == {"b", "host"}
    assert segment.send("request", unicast=True, ciaddr=A_IP).verdict is Verdict.TO_HOST


def test_other_broadcasts_still_flood(segment: Segment) -> None:
    frame = Ether(src=A_MAC, dst=BROADCAST_MAC) / IP(src=A_IP, dst="172.17.255.255") / UDP(sport=9, dport=67) / b"x"
    assert segment.lab.send("a", frame).verdict is Verdict.FLOODED


def test_a_kernels_unfinished_checksum(segment: Segment) -> None:
    """A renewal comes from an ordinary socket, and its checksum is left to the network card."""
    segment.bind()
    frame = partial(request("request", unicast=True, ciaddr=A_IP))
    assert segment.lab.send("a", frame).verdict is Verdict.DHCP


@pytest.mark.parametrize("damage", ["cookie", "short", "option", "kind", "checksum", "hardware"])
def test_what_is_no_dhcp(segment: Segment, damage: str) -> None:
    frame = request("discover")
    if damage == "cookie":
        frame[BOOTP].options = b"abcd"
    elif damage == "short":
        frame[UDP].payload = type(frame[UDP].payload)(bytes(frame[BOOTP])[:200])
    elif damage == "option":
        frame[DHCP].options = [("message-type", "discover"), (12, b"\xff" * 4)]
        frame = Ether(bytes(frame)[:-4])
        del frame[IP].len, frame[IP].chksum, frame[UDP].len, frame[UDP].chksum
    elif damage == "kind":
        frame[DHCP].options = [("message-type", 77), "end"]
    elif damage == "checksum":
        frame[UDP].chksum = 1
    else:
        frame[BOOTP].htype = 6
    assert segment.lab.send("a", frame).verdict is Verdict.DROP_BAD_DHCP


def test_options_in_parts_and_in_other_fields() -> None:
    """RFC 3396, and option 52 of RFC 2132 section 9.3."""
    plain = build_dhcp(DhcpMessage(op=1, kind=Kind.DISCOVER, xid=1, chaddr=bytes(6), options={60: bytes(300)}))
    message = parse_dhcp(plain)
    assert message is not None and message.options[60] == bytes(300)
    base = bytearray(build_dhcp(DhcpMessage(op=1, kind=Kind.DISCOVER, xid=1, chaddr=bytes(6), options={52: b"\x03"})))
    base[44:49] = b"\x0c\x02hi\xff"
    base[108:115] = b"\x32\x04\x0a\0\0\1\xff"
    overloaded = parse_dhcp(bytes(base))
    assert overloaded is not None
    assert overloaded.options == {50: b"\x0a\0\0\1", 12: b"hi"}


@given(st.binary(max_size=400) | st.binary(max_size=80).map(lambda tail: bytes(request("discover")[BOOTP])[:240] + tail))
def test_any_bytes_are_a_message_or_none(data: bytes) -> None:
    message = parse_dhcp(data)
    if message is not None:
        again = parse_dhcp(build_dhcp(message))
        assert again == message


def test_scapy_reads_what_is_built() -> None:
    message = DhcpMessage(op=2, kind=Kind.ACK, xid=7, chaddr=parse_mac(A_MAC), yiaddr=IPv4Address(A_IP).packed,
                          options={54: IPv4Address(GATEWAY_IP).packed, 51: b"\0\0\x0e\x10"})
    data = build_dhcp(message)
    assert len(data) >= 300 and ETH == 10
    reply = BOOTP(data)
    assert (reply.yiaddr, options(reply)) == (A_IP, {"message-type": 5, "server_id": GATEWAY_IP, "lease_time": 3600})
    assert parse_dhcp(data) == message
