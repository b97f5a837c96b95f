"""`tools/bench core`: the datapath alone, without a kernel: nanoseconds for a frame, by the path it takes.

Frames are made beforehand and copied into buffers, a batch of 64 at a time, as reading would; the copy is measured apart and
taken off. The best of several repeats counts: what disturbs a measurement only ever makes it slower.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from natgw.datapath import Datapath, DatapathConfig, NetworkConfig, Port, PortKind, Publication, Route, UplinkConfig
from natgw.wire.checksum import checksum, pseudo_sum
from natgw.wire.ethernet import BROADCAST, TYPE_IPV4
from natgw.wire.ipv4 import DONT_FRAGMENT, ICMP, TCP, UDP, build_ipv4

GATEWAY_MAC = bytes.fromhex("0242ac110001")
UPLINK_MAC, ROUTER_MAC = bytes.fromhex("02aa00000001"), bytes.fromhex("02bb00000001")
CONTAINERS = (IPv4Address("172.17.0.2"), IPv4Address("172.17.0.3"))
REMOTE = IPv4Address("203.0.113.9").packed
ROUTER, EXTERNAL = IPv4Address("198.51.100.1"), IPv4Address("198.51.100.2")
FRAMES = 20_000
REPEATS = 7


def _mac(address: IPv4Address) -> bytes:
    return b"\x02\x42" + address.packed


def _nowhere(frame: memoryview) -> None:
    """Where sent frames go: writing them is the kernel's cost, not the datapath's."""


class Bed:
    """A gateway with two containers and an uplink whose neighbours are known."""

    def __init__(self) -> None:
        self.datapath = dp = Datapath(DatapathConfig(seed=1, max_flows=2_000_000))
        bridge = dp.add_network(NetworkConfig(name="bridge", subnet=IPv4Network("172.17.0.0/16"),
                                              gateway=IPv4Address("172.17.0.1"), gateway_mac=GATEWAY_MAC))
        self.ports = [dp.add_port(bridge, str(address), PortKind.ENDPOINT, transmit=_nowhere) for address in CONTAINERS]
        for port, address in zip(self.ports, CONTAINERS, strict=True):
            dp.add_neighbour(bridge, address, _mac(address), port)
        self.uplink = dp.set_uplink("uplink", _nowhere, UplinkConfig(
            mac=UPLINK_MAC, addresses=(IPv4Interface(f"{EXTERNAL}/24"),), routes=(Route(IPv4Network("0.0.0.0/0"), ROUTER),)))
        assert dp.uplink is not None
        entry = dp.uplink.neighbours.confirm(ROUTER.packed, ROUTER_MAC, self.uplink, 0.0, create=True)
        assert entry is not None
        dp.uplink.bind(entry)
        dp.publish(Publication(protocol="tcp", host_ip=None, host_port=8080, container_ip=CONTAINERS[0], container_port=80))

    def feed(self, port: Port, frame: bytes) -> None:
        buf = bytearray(frame + bytes(64))
        self.datapath.receive(port, buf, len(frame), 1.0)
        self.datapath.flush()


def _l4(protocol: int, sport: int, dport: int, payload: bytes, flags: int = 0x10) -> bytes:
    ports = sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
    if protocol == TCP:
        return ports + bytes(8) + bytes((0x50, flags)) + bytes(6) + payload
    if protocol == UDP:
        return ports + (8 + len(payload)).to_bytes(2, "big") + bytes(2) + payload
    body = bytes((8, 0, 0, 0)) + sport.to_bytes(2, "big") + bytes(2) + payload
    return body[:2] + checksum(body).to_bytes(2, "big") + body[4:]


def _out(protocol: int, sport: int, dport: int, payload: bytes = b"", flags: int = 0x10,
         ip_flags: int = DONT_FRAGMENT) -> bytes:
    """A frame of the first container to the outside, its checksum left to the network card as the kernel does it."""
    eth = GATEWAY_MAC + _mac(CONTAINERS[0]) + TYPE_IPV4.to_bytes(2, "big")
    frame = build_ipv4(eth, CONTAINERS[0].packed, REMOTE, protocol, _l4(protocol, sport, dport, payload, flags), flags=ip_flags)
    if protocol != ICMP:
        field = {TCP: 16, UDP: 6}[protocol]
        frame[0], frame[6], frame[8] = 1, 34, field
        frame[44 + field : 46 + field] = pseudo_sum(frame[36:44], protocol, len(frame) - 44).to_bytes(2, "big")
    return bytes(frame)


def _fragment(frame: bytes, field: int) -> bytes:
    """The frame as a fragment of packet 7, with these flags and this offset; nobody judges the rest of it."""
    plain = bytearray(frame)
    plain[:10] = bytes(10)
    plain[28:32] = (7).to_bytes(2, "big") + field.to_bytes(2, "big")
    plain[34:36] = bytes(2)
    plain[34:36] = checksum(plain[24:44]).to_bytes(2, "big")
    return bytes(plain)


def _back(sport: int, dport: int, flags: int, payload: bytes = b"") -> bytes:
    eth = UPLINK_MAC + ROUTER_MAC + TYPE_IPV4.to_bytes(2, "big")
    return bytes(build_ipv4(eth, REMOTE, EXTERNAL.packed, TCP, _l4(TCP, sport, dport, payload, flags)))


def _connection(bed: Bed, sport: int) -> list[tuple[Port, bytes]]:
    """All of an HTTP request by a published port: handshake, request and answer, the server closes first."""
    client, server = bed.uplink, bed.ports[0]
    return [
        (client, _back(sport, 8080, 0x02)), (server, _out(TCP, 80, sport, flags=0x12)), (client, _back(sport, 8080, 0x10)),
        (client, _back(sport, 8080, 0x18, bytes(60))), (server, _out(TCP, 80, sport)),
        (server, _out(TCP, 80, sport, bytes(170), flags=0x18)), (server, _out(TCP, 80, sport, flags=0x11)),
        (client, _back(sport, 8080, 0x10)), (client, _back(sport, 8080, 0x11)), (server, _out(TCP, 80, sport))]


def paths() -> Iterator[tuple[str, Bed, Port, list[bytes]]]:
    """(name of the path, a gateway in the state for it, the port, the frames to send in turn)."""
    bed = Bed()
    one = bed.ports[0]
    handshake = ((one, _out(TCP, 45000, 80, flags=2)), (bed.uplink, _back(80, 45000, 0x12)), (one, _out(TCP, 45000, 80)))
    for port, frame in handshake:
        bed.feed(port, frame)
    yield "TCP segment of an established flow", bed, one, [_out(TCP, 45000, 80, bytes(1000))]
    yield "UDP datagram, one flow, merged", bed, one, [_out(UDP, 45000, 53, bytes(64))]
    many = [_out(UDP, 45000 + number, 53, bytes(64)) for number in range(32)]
    yield "UDP datagram, 32 flows in turn", bed, one, many
    yield "ICMP echo", bed, one, [_out(ICMP, 77, 0, bytes(56))]
    eth = _mac(CONTAINERS[1]) + _mac(CONTAINERS[0]) + TYPE_IPV4.to_bytes(2, "big")
    bed.feed(bed.ports[1], bytes(10) + GATEWAY_MAC + _mac(CONTAINERS[1]) + b"\x88\xb5" + bytes(46))
    inner = build_ipv4(eth, CONTAINERS[0].packed, CONTAINERS[1].packed, UDP, _l4(UDP, 1, 2, b"x"))
    yield "bridged frame", bed, one, [bytes(inner)]
    yield "broadcast frame", bed, one, [bytes(10) + BROADCAST + _mac(CONTAINERS[0]) + b"\x88\xb5" + bytes(46)]
    fresh = Bed()
    yield "first packet of a UDP flow", fresh, fresh.ports[0], [
        _out(UDP, 41000 + number % 20000, 1000 + number // 20000) for number in range(FRAMES)]
    yield "TCP segment the slow path takes", bed, one, [_out(TCP, 45000, 80, b"x", ip_flags=0x8000)]
    bed.feed(one, _fragment(_out(UDP, 45000, 53, bytes(64)), 0x2000))
    yield "later fragment", bed, one, [_fragment(_out(UDP, 45000, 53, bytes(64)), 0x0010)]


def _buffers() -> list[bytearray]:
    """A batch of them, as the pump has: each is the datapath's until the flush."""
    return [bytearray(2048) for _ in range(64)]


def connection_nanoseconds() -> float:
    """The best time for a whole connection of ten segments through a published port, the end of its flow not included."""
    best = float("inf")
    for _ in range(REPEATS):
        bed, buffers = Bed(), _buffers()
        turns = [each for number in range(FRAMES // 20) for each in _connection(bed, 20000 + number)]
        flush = bed.datapath.flush
        took = []
        for deliver in (True, False):
            began = time.perf_counter_ns()
            for count, (port, frame) in enumerate(turns):
                buf = buffers[count & 63]
                buf[: len(frame)] = frame
                if deliver:
                    port.receive(buf, len(frame), 1.0)
                if count & 63 == 63:
                    flush()
            flush()
            took.append(time.perf_counter_ns() - began)
        assert bed.datapath.counters()["translated_out"] == len(turns) // 2
        best = min(best, (took[0] - took[1]) / (FRAMES // 20))
    return best


def nanoseconds(bed: Bed, port: Port, frames: list[bytes]) -> float:
    """The best time for a frame, over the repeats. A path whose frames change the state (a new flow) has one repeat."""
    buffers = _buffers()
    once = len(frames) == FRAMES
    turns = (frames * (FRAMES // len(frames) + 1))[:FRAMES]
    best = float("inf")
    for _ in range(1 if once else REPEATS):
        receive, flush = port.receive, bed.datapath.flush
        began = time.perf_counter_ns()
        for count, frame in enumerate(turns):
            buf = buffers[count & 63]
            buf[: len(frame)] = frame
            receive(buf, len(frame), 1.0)
            if count & 63 == 63:
                flush()
        flush()
        best = min(best, time.perf_counter_ns() - began)
    copying = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter_ns()
        for count, frame in enumerate(turns):
            buf = buffers[count & 63]
            buf[: len(frame)] = frame
            if count & 63 == 63:
                flush()
        copying = min(copying, time.perf_counter_ns() - began)
    return (best - copying) / FRAMES


def measure() -> list[tuple[str, float]]:
    """(path, nanoseconds for a frame), in the order of `paths`."""
    measured = [(name, nanoseconds(bed, port, frames)) for name, bed, port, frames in paths()]
    return [*measured, ("a whole connection, published port", connection_nanoseconds())]
