"""The fast path and the slow path give the same bytes, the same verdicts and the same state, whatever comes.

Two gateways are made alike, one without the fast path. Hypothesis sends both the same frames, in any order, with the clock
turned in between; what they emit and what they count must agree. Coalescing is off here and has its own tests.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from natgw.datapath import Datapath, DatapathConfig, NetworkConfig, Port, PortKind, Publication, Route, UplinkConfig, Verdict
from natgw.tables.flowtable import MAX_AWAKE
from natgw.wire.checksum import pseudo_sum
from tests.conftest import examples
from tests.generated import note

GATEWAY_MAC = "02:42:ac:11:00:01"
UPLINK_MAC = "02:aa:00:00:00:01"
OUTSIDE_MAC = "02:bb:00:00:00:01"
EXTERNAL = "198.51.100.2"
CONTAINERS = {"172.17.0.2": "02:42:ac:11:00:02", "172.17.0.3": "02:42:ac:11:00:03"}
REMOTES = ("198.51.100.1", "203.0.113.9")


class Gateway:
    """A gateway in memory with two containers, an uplink and one published port."""

    def __init__(self, *, fast_path: bool, max_awake_flows: int = MAX_AWAKE) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.datapath = dp = Datapath(DatapathConfig(
            seed=7, fast_path=fast_path, coalesce=False, max_awake_flows=max_awake_flows))
        bridge = dp.add_network(NetworkConfig(
            name="bridge", subnet=IPv4Network("172.17.0.0/16"), gateway=IPv4Address("172.17.0.1"),
            gateway_mac=bytes.fromhex(GATEWAY_MAC.replace(":", ""))))
        self.ports: dict[str, Port] = {}
        for name, kind in (("host", PortKind.HOST), *((ip, PortKind.ENDPOINT) for ip in CONTAINERS)):
            self.ports[name] = dp.add_port(bridge, name, kind, transmit=self._collector(name))
        self.ports["uplink"] = dp.set_uplink("uplink", self._collector("uplink"), UplinkConfig(
            mac=bytes.fromhex(UPLINK_MAC.replace(":", "")), addresses=(IPv4Interface(f"{EXTERNAL}/24"),),
            routes=(Route(IPv4Network("198.51.100.0/24")), Route(IPv4Network("0.0.0.0/0"), IPv4Address("198.51.100.1"))),
            mtu=1400))
        for ip, mac in CONTAINERS.items():
            dp.add_neighbour(bridge, IPv4Address(ip), bytes.fromhex(mac.replace(":", "")), self.ports[ip])
        dp.publish(Publication(protocol="tcp", host_ip=None, host_port=8080,
                               container_ip=IPv4Address("172.17.0.2"), container_port=80))
        self.feed("uplink", bytes(10) + bytes(Ether(dst=UPLINK_MAC, src=OUTSIDE_MAC) / ARP(
            op=2, hwsrc=OUTSIDE_MAC, psrc="198.51.100.1", hwdst=UPLINK_MAC, pdst=EXTERNAL)), 0.0)

    def _collector(self, name: str) -> Callable[[memoryview], None]:
        return lambda frame: self.sent.append((name, bytes(frame)))

    def feed(self, port: str, frame: bytes, now: float) -> list[tuple[str, bytes]]:
        """Frames that one frame causes. The buffer ends in stale bytes, as a reused one does."""
        buf = bytearray(frame + b"\xa5" * 256)
        self.datapath.receive(self.ports[port], buf, len(frame), now)
        self.datapath.flush()
        sent, self.sent = self.sent, []
        return sent


payloads = st.binary(max_size=40)
ports = st.sampled_from((80, 5000, 5001, 45000, 8080))
tcp_flags = st.sampled_from(("S", "SA", "A", "A", "A", "PA", "FA", "R", "SF", "", "RA", "U"))
ttls = st.sampled_from((1, 2, 64, 64, 64))
numbers = st.one_of(st.sampled_from((0, 1, 9, 10, 2**32 - 1)), st.integers(0, 2**32 - 1))


@st.composite
def transports(draw: st.DrawFn, outbound: bool) -> Packet:
    payload = Raw(draw(payloads))
    kind = draw(st.sampled_from(("tcp", "tcp", "udp", "echo", "error", "other", "connect")))
    sport, dport = draw(ports), draw(ports)
    if kind == "connect":
        return TCP(sport=sport, dport=dport if outbound else 8080, flags="S")
    if kind == "tcp":
        return TCP(sport=sport, dport=dport, flags=draw(tcp_flags), seq=draw(numbers),
                   ack=draw(numbers), window=draw(st.sampled_from((0, 10, 65535)))) / payload
    if kind == "udp":
        udp = UDP(sport=sport, dport=dport) / payload
        if draw(st.booleans()):
            udp[UDP].chksum = 0
        return udp
    if kind == "echo":
        return ICMP(type=draw(st.sampled_from((0, 8, 8, 13))), id=sport, seq=1) / payload
    if kind == "error":
        near, far = EXTERNAL, draw(st.sampled_from(REMOTES))
        quoted = IP(src=near, dst=far) if not outbound else IP(src=far, dst=draw(st.sampled_from(tuple(CONTAINERS))))
        return ICMP(type=draw(st.sampled_from((3, 11))), code=0) / quoted / UDP(sport=sport, dport=dport) / payload
    return Raw(draw(payloads))


@st.composite
def steps(draw: st.DrawFn) -> tuple[str, bytes, float]:
    """(port, frame with offload header, seconds that pass before)."""
    elapsed = draw(st.sampled_from((0.0, 0.0, 0.1, 1.0, 70.0, 301.0)))
    outbound = draw(st.booleans())
    body = draw(transports(outbound))
    flags = draw(st.sampled_from(("", "DF", "MF")))
    if outbound:
        src = draw(st.sampled_from(tuple(CONTAINERS)))
        dst = draw(st.sampled_from((*REMOTES, *REMOTES, EXTERNAL, "172.17.0.1", "172.17.0.3")))
        port, link = src, Ether(src=CONTAINERS[src], dst=draw(st.sampled_from(
            (GATEWAY_MAC, GATEWAY_MAC, GATEWAY_MAC, CONTAINERS["172.17.0.3"], "02:00:00:00:00:99"))))
    else:
        src, dst, port = draw(st.sampled_from(REMOTES)), EXTERNAL, "uplink"
        link = Ether(src=OUTSIDE_MAC, dst=UPLINK_MAC)
    packet = IP(src=src, dst=dst, ttl=draw(ttls), flags=flags, id=draw(st.integers(0, 65535)),
                proto=47 if isinstance(body, Raw) else None)
    frame = bytearray(bytes(10) + bytes(link / packet / body))
    if isinstance(body, TCP | UDP) and draw(st.booleans()):
        _make_partial(frame, body)
    if draw(st.integers(0, 9)) == 0:
        frame[draw(st.integers(24, len(frame) - 1))] ^= draw(st.integers(1, 255))
    if draw(st.integers(0, 9)) == 0:
        del frame[draw(st.integers(14, len(frame))) :]
    return port, bytes(frame), elapsed


def _make_partial(frame: bytearray, body: Packet) -> None:
    """As the kernel hands over a packet whose checksum is left to the network card."""
    protocol, offset = (6, 16) if isinstance(body, TCP) else (17, 6)
    frame[0], frame[6], frame[8] = 1, 34, offset
    length = len(frame) - 44
    frame[44 + offset : 46 + offset] = pseudo_sum(frame[36:44], protocol, length).to_bytes(2, "big")


@given(st.lists(steps(), min_size=1, max_size=40), st.sampled_from((1, MAX_AWAKE)))
@settings(max_examples=examples(400))
def test_same_bytes_and_verdicts(sequence: list[tuple[str, bytes, float]], max_awake_flows: int) -> None:
    """Also with one flow awake and all others at rest."""
    fast, slow = (Gateway(fast_path=fast, max_awake_flows=max_awake_flows) for fast in (True, False))
    now = 1.0
    for port, frame, elapsed in sequence:
        now += elapsed
        if elapsed:
            fast.datapath.tick(now)
            slow.datapath.tick(now)
        assert fast.feed(port, frame, now) == slow.feed(port, frame, now)
        assert fast.datapath.verdicts == slow.datapath.verdicts
    assert fast.datapath.flow_records(now) == slow.datapath.flow_records(now)
    assert sum(fast.datapath.verdicts) == len(sequence) + 1
    note("fast and slow", len(sequence))


def test_the_property_is_not_vacuous() -> None:
    """An established TCP conversation goes the fast way, both directions, or the property compares nothing."""
    gateway = Gateway(fast_path=True)

    def inside(flags: str) -> bytes:
        return bytes(10) + bytes(Ether(src=CONTAINERS["172.17.0.2"], dst=GATEWAY_MAC) / IP(
            src="172.17.0.2", dst="203.0.113.9") / TCP(sport=45000, dport=80, flags=flags) / b"x")

    def outside(flags: str) -> bytes:
        return bytes(10) + bytes(Ether(src=OUTSIDE_MAC, dst=UPLINK_MAC) / IP(
            src="203.0.113.9", dst=EXTERNAL) / TCP(sport=80, dport=45000, flags=flags) / b"x")

    for port, frame in (("172.17.0.2", inside("S")), ("uplink", outside("SA")), ("172.17.0.2", inside("A")),
                        ("uplink", outside("A")), ("172.17.0.2", inside("PA"))):
        assert len(gateway.feed(port, frame, 1.0)) == 1
    assert gateway.datapath.counters()["fast_path"] == 3, "all but the SYN and the first frame of the uplink"
    assert gateway.datapath.verdicts[Verdict.TRANSLATED_OUT] == 3
    assert gateway.datapath.verdicts[Verdict.TRANSLATED_IN] == 2
