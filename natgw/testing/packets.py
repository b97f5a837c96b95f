"""Packets as the test kit makes and reads them: what their endpoints are, and what they carry."""

from __future__ import annotations

import struct

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet, Raw

from natgw.wire.checksum import checksum, pseudo_sum
from natgw.wire.transport import GRE, SCTP, UDPLITE, finish_sctp_checksum

Endpoint = tuple[str, int]
NUMBERS = {"udplite": UDPLITE, "sctp": SCTP, "gre": GRE, "50": 50}
"""The protocols that scapy's own layers are not needed for."""
WITHOUT_PORTS = ("gre", "50")
EVENTS = {"S": "syn", "SA": "synack", "A": "ack", "PA": "ack", "FA": "fin", "R": "rst", "RA": "rst"}
"""What TCP flags say to the model."""


def dissected(packet: Packet | bytes) -> Packet:
    return IP(packet) if isinstance(packet, bytes) else packet


def payload_of(packet: Packet | bytes) -> bytes:
    """What the packet carries behind its transport header."""
    packet = dissected(packet)
    return bytes(packet[IP].payload.payload) if IP in packet else b""


def packet_of(protocol: str, src: Endpoint, dst: Endpoint, payload: bytes, *, number: int, flags: str = "", ttl: int = 64,
              kind: int = 8, identifier: int = 0) -> Packet:
    """The `number`th packet of all. Of an ICMP query, `kind` is the type, and the identifier does for ports."""
    ip = IP(src=src[0], dst=dst[0], ttl=ttl, id=number)
    if protocol == "icmp":
        layer = ICMP(type=kind, id=identifier, seq=number)
    elif protocol in NUMBERS:
        return IP(bytes(_other(ip, protocol, src[1], dst[1], payload)))
    elif protocol == "tcp":
        layer = TCP(sport=src[1], dport=dst[1], flags=flags, seq=number)
    else:
        layer = UDP(sport=src[1], dport=dst[1])
    return IP(bytes(ip / layer / Raw(payload)))


def _other(ip: Packet, protocol: str, sport: int, dport: int, payload: bytes) -> Packet:
    """A packet of a protocol that scapy's own layers are not needed for; with 8 bytes at least, so that errors quote it."""
    ip.proto = NUMBERS[protocol]
    if protocol == "udplite":
        header = struct.pack("!HHHH", sport, dport, 8, 0)
        pseudo = pseudo_sum(bytes(ip)[12:20], UDPLITE, len(header + payload))
        value = checksum(pseudo.to_bytes(2, "big"), header) or 0xFFFF
        return ip / Raw(header[:6] + value.to_bytes(2, "big") + payload)
    if protocol == "sctp":
        message = bytearray(struct.pack("!HHII", sport, dport, 7, 0) + payload)
        finish_sctp_checksum(message, 0, len(message))
        return ip / Raw(bytes(message))
    return ip / Raw(bytes(8) + payload)


def endpoints(packet: Packet) -> tuple[Endpoint, Endpoint]:
    """Source and destination of a packet; an ICMP query has its identifier as both ports."""
    layer = packet[IP].payload
    if layer.name in ("ICMP", "ICMP in ICMP"):
        return (packet.src, layer.id), (packet.dst, layer.id)
    if packet.proto in NUMBERS.values():
        body = bytes(layer)
        ports = [int.from_bytes(body[at : at + 2], "big") if packet.proto in (UDPLITE, SCTP) else 0 for at in (0, 2)]
        return (packet.src, ports[0]), (packet.dst, ports[1])
    return (packet.src, layer.sport), (packet.dst, layer.dport)


def carried(packet: Packet | bytes) -> bytes:
    """What a packet carries behind its transport header, or behind the IP header where that has all there is."""
    data = bytes(packet)
    header = (data[0] & 15) * 4
    sizes = {UDPLITE: 8, SCTP: 12}
    return data[header + sizes.get(data[9], 0) :] if data[9] in NUMBERS.values() else payload_of(data)
