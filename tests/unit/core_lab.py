"""A gateway in memory: a bridge with the host and two containers, an uplink with a next hop, and what they send.

Frames are built with scapy and given to `natgw.datapath.Datapath` as its pump would: in a buffer that is used again, with stale
bytes behind the frame. What the datapath sends is collected for each port. Every frame must end in exactly one verdict, and
`Lab.send` sees to that each time; checksums of all that is sent are computed anew by scapy and compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, in4_pseudoheader
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from natgw.datapath import (
    Bridge,
    Datapath,
    DatapathConfig,
    NetworkConfig,
    Port,
    PortKind,
    Publication,
    Route,
    UplinkConfig,
    Verdict,
)
from natgw.datapath.config import TransportName
from natgw.wire.checksum import ones_sum
from natgw.wire.ethernet import ETH, L3, parse_mac
from natgw.wire.ipv4 import Ipv4Packet, parse_ipv4
from natgw.wire.vnet import NEEDS_CSUM, NO_OFFLOAD, VNET, VNET_BYTES

GATEWAY_IP, GATEWAY_MAC = "172.17.0.1", "02:42:ac:11:00:01"
A_IP, A_MAC = "172.17.0.2", "02:42:ac:11:00:02"
B_IP, B_MAC = "172.17.0.3", "02:42:ac:11:00:03"
EXTERNAL, UPLINK_MAC = "198.51.100.2", "02:aa:00:00:00:01"
ROUTER, ROUTER_MAC = "198.51.100.1", "02:bb:00:00:00:01"
REMOTE = "203.0.113.9"
BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"

STALE = b"\xa5" * 128
_CHECKSUM_OFFSET = {6: 16, 17: 6}


@dataclass(frozen=True)
class Sent:
    """A frame that came out of a port, offload header included."""

    port: str
    raw: bytes

    @property
    def vnet(self) -> bytes:
        return self.raw[:VNET_BYTES]

    @property
    def packet(self) -> Any:
        """The frame as scapy reads it."""
        return Ether(self.raw[ETH:])

    @property
    def quoted(self) -> bytes:
        """What an ICMP error quotes, its IP header first (scapy would take a part of it for RFC 4884's extensions)."""
        assert self.raw[L3] == 0x45 and self.raw[L3 + 9] == 1
        return self.raw[L3 + 28 :]


@dataclass(frozen=True)
class Outcome:
    """What became of one frame. `verdict` is None as long as coalescing holds it; what was not flushed may be sent later."""

    verdict: Verdict | None
    sent: list[Sent] = field(default_factory=list)

    @property
    def ports(self) -> list[str]:
        return [each.port for each in self.sent]

    @property
    def only(self) -> Sent:
        """The one frame that was sent."""
        assert len(self.sent) == 1, f"{self.verdict!r}: {len(self.sent)} frames were sent, to {self.ports}"
        return self.sent[0]

    @property
    def packet(self) -> Any:
        return self.only.packet


class Lab:
    """`config` are fields of DatapathConfig. The clock is `now`; `wait` turns it, with ticks as the daemon makes them.

    Without `resolved` the router's MAC address is not known, and it does not answer ARP either. `verify` says that what is
    fed in has good checksums, so that what comes out must have them too.
    """

    def __init__(self, *, resolved: bool = True, uplink_mtu: int = 1500, verify: bool = True, **config: Any) -> None:
        self.now = 1.0
        self.verify = verify
        self.collected: list[Sent] = []
        self.buf = bytearray(70000)
        self.dp = Datapath(DatapathConfig(**({"seed": 7} | config)))
        self.bridge = self.dp.add_network(NetworkConfig(
            name="bridge", subnet=IPv4Network("172.17.0.0/16"), gateway=IPv4Address(GATEWAY_IP),
            gateway_mac=parse_mac(GATEWAY_MAC)))
        self.ports: dict[str, Port] = {}
        self.add_port("host", PortKind.HOST)
        for name, ip, mac in (("a", A_IP, A_MAC), ("b", B_IP, B_MAC)):
            self.add_port(name)
            self.dp.add_neighbour(self.bridge, IPv4Address(ip), parse_mac(mac), self.ports[name], self.now)
        self.ports["uplink"] = self.dp.set_uplink("uplink", self._collector("uplink"), uplink_config(mtu=uplink_mtu))
        self.stations = {"a": (A_IP, A_MAC), "b": (B_IP, B_MAC)}
        if resolved:
            self.stations["uplink"] = (ROUTER, ROUTER_MAC)
            self.send("uplink", arp_reply(ROUTER, ROUTER_MAC))

    def add_port(self, name: str, kind: PortKind = PortKind.ENDPOINT, *, mtu: int = 1500, bridge: Bridge | None = None) -> Port:
        self.ports[name] = port = self.dp.add_port(bridge or self.bridge, name, kind, mtu=mtu, transmit=self._collector(name))
        return port

    def send(self, port: str, frame: Packet | bytes, *, vnet: bytes = NO_OFFLOAD, flush: bool = True) -> Outcome:
        """Feed one frame, flush (unless told not to), and give what became of it."""
        raw = frame if isinstance(frame, bytes) else vnet + bytes(frame)
        before = list(self.dp.verdicts)
        self.collected.clear()
        buf = self.buf if flush else bytearray(len(self.buf))  # it is the datapath's until the flush
        buf[: len(raw) + len(STALE)] = raw + STALE
        self.dp.receive(self.ports[port], buf, len(raw), self.now)
        if flush:
            self.dp.flush()
        counted = [verdict for verdict in Verdict for _ in range(self.dp.verdicts[verdict] - before[verdict])]
        if flush:
            assert len(counted) == 1, f"counted {counted} for one frame"
        return Outcome(counted[0] if len(counted) == 1 else None, list(self.collected))

    def flush(self) -> list[Sent]:
        """Flush, and give what that sent."""
        self.collected.clear()
        self.dp.flush()
        return list(self.collected)

    def wait(self, seconds: float) -> list[Sent]:
        """Let time pass, in which stations answer ARP as they do; gives what was sent meanwhile."""
        sent: list[Sent] = []
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 1.0)
            self.collected.clear()
            self.dp.tick(self.now)
            batch = list(self.collected)
            sent += batch
            for each in batch:
                if each.raw[ETH + 12 : L3] == b"\x08\x06":
                    sent += self._answer_arp(each)
        return sent

    def _answer_arp(self, request: Sent) -> list[Sent]:
        asked = request.packet[ARP]
        ip, mac = self.stations.get(request.port, ("", ""))
        if asked.pdst != ip:
            return []
        return self.send(request.port, arp_reply(ip, mac, to_ip=asked.psrc, to_mac=asked.hwsrc)).sent

    def publish(self, host_port: int, container_port: int, protocol: TransportName = "tcp", *, container: str = A_IP,
                host_ip: str | None = None) -> Publication:
        publication = Publication(protocol=protocol, host_ip=None if host_ip is None else IPv4Address(host_ip),
                                  host_port=host_port, container_ip=IPv4Address(container), container_port=container_port)
        self.dp.publish(publication)
        return publication

    def flows(self) -> list[dict[str, Any]]:
        return self.dp.flow_records(self.now)

    def external_port(self, out: Outcome) -> int:
        """The source port (or identifier) that a packet left with."""
        assert out.verdict is Verdict.TRANSLATED_OUT, out.verdict
        packet = out.packet
        return int(packet[ICMP].id if ICMP in packet else packet[IP].payload.sport)

    def _collector(self, name: str) -> Any:
        def transmit(frame: memoryview) -> None:
            raw = bytes(frame)
            if self.verify:
                assert_checksums(raw)
            self.collected.append(Sent(name, raw))

        return transmit


def uplink_config(*, address: str = EXTERNAL, more: tuple[str, ...] = (), mtu: int = 1500, mac: str = UPLINK_MAC,
                  local: tuple[str, ...] = ()) -> UplinkConfig:
    return UplinkConfig(
        mac=parse_mac(mac), addresses=tuple(IPv4Interface(f"{each}/24") for each in (address, *more)), mtu=mtu,
        routes=(Route(IPv4Network("198.51.100.0/24")), Route(IPv4Network("0.0.0.0/0"), IPv4Address(ROUTER))),
        local_addresses=frozenset(map(IPv4Address, local)))


def arp_reply(ip: str, mac: str, *, to_ip: str = EXTERNAL, to_mac: str = UPLINK_MAC) -> Packet:
    return Ether(src=mac, dst=to_mac) / ARP(op=2, hwsrc=mac, psrc=ip, hwdst=to_mac, pdst=to_ip)


def from_a(body: Packet, *, dst: str = REMOTE, to_mac: str = GATEWAY_MAC, **ip: Any) -> Packet:
    """A packet of container a, by way of the gateway unless `to_mac` says otherwise."""
    return Ether(src=A_MAC, dst=to_mac) / IP(**({"src": A_IP, "dst": dst} | ip)) / body


def from_b(body: Packet, *, dst: str = REMOTE, to_mac: str = GATEWAY_MAC, **ip: Any) -> Packet:
    return Ether(src=B_MAC, dst=to_mac) / IP(**({"src": B_IP, "dst": dst} | ip)) / body


def from_outside(body: Packet, *, src: str = REMOTE, dst: str = EXTERNAL, **ip: Any) -> Packet:
    """A packet that the router hands to the uplink."""
    return Ether(src=ROUTER_MAC, dst=UPLINK_MAC) / IP(**({"src": src, "dst": dst} | ip)) / body


def partial(packet: Packet, *, gso_type: int = 0, gso_size: int = 0) -> bytes:
    """The frame as the kernel hands it over when the transport checksum is left to the network card."""
    frame = bytearray(bytes(VNET_BYTES) + bytes(packet))
    protocol, header = frame[L3 + 9], (frame[L3] & 0x0F) * 4
    offset = _CHECKSUM_OFFSET[protocol]
    length = len(frame) - L3 - header
    field_at = L3 + header + offset
    frame[field_at : field_at + 2] = ones_sum(in4_pseudoheader(protocol, packet[IP], length)).to_bytes(2, "big")
    VNET.pack_into(frame, 0, NEEDS_CSUM, gso_type, 14 + header + (20 if protocol == 6 else 8) if gso_type else 0, gso_size,
                   14 + header, offset)
    return bytes(frame)


def assert_checksums(raw: bytes) -> None:
    """Every checksum of a frame is what scapy computes from nothing (requirement G2)."""
    frame = Ether(raw[ETH:])
    if IP not in frame or not isinstance(parse_ipv4(bytearray(raw + STALE), len(raw)), Ipv4Packet):
        return  # bridged as it came, whatever it is
    fresh = frame.copy()
    del fresh[IP].chksum
    whole = not frame[IP].frag and "MF" not in frame[IP].flags
    for layer in (TCP, UDP, ICMP):
        if whole and layer in fresh and frame[IP].payload.name == layer().name:
            if layer is UDP and frame[UDP].chksum == 0:
                continue
            if raw[0] & NEEDS_CSUM:
                expected = ones_sum(in4_pseudoheader(frame[IP].proto, frame[IP], frame[IP].len - frame[IP].ihl * 4))
                assert frame[layer].chksum == expected, f"partial {layer.__name__} checksum of {frame!r}"
            else:
                del fresh[layer].chksum
    assert bytes(fresh) == bytes(frame), f"checksums of {frame!r}"


def transports(port: int, *, dport: int = 80) -> Iterator[tuple[str, Packet, Packet]]:
    """(name, a first packet, the answer to it as the remote sees the ports) for each translated protocol."""
    yield "udp", UDP(sport=port, dport=dport) / b"question", UDP(sport=dport) / b"answer"
    yield "tcp", TCP(sport=port, dport=dport, flags="S"), TCP(sport=dport, flags="SA")
    yield "icmp", ICMP(id=port, seq=1) / b"question", ICMP(type=0, seq=1) / b"answer"
