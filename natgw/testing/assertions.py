"""Comparing packets. What differs is shown a packet a line, as tcpdump would, and then field by field."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet

from natgw.testing.gateway import Delivery

CHECKSUM_FIELDS = {IP: "chksum", TCP: "chksum", UDP: "chksum", ICMP: "chksum"}


def summary(packet: Packet | bytes) -> str:
    """One line: `172.17.0.2.5000 > 203.0.113.9.80: tcp S, ttl 64, 0 bytes`."""
    packet = dissected(packet)
    if IP not in packet:
        return f"{len(bytes(packet))} bytes that are no IPv4 packet"
    ip = packet[IP]
    tail = f"ttl {ip.ttl}, {len(payload_of(packet))} bytes"
    if ip.frag:
        return f"{ip.src} > {ip.dst}: proto {ip.proto} fragment at {ip.frag * 8}, {tail}"
    for layer, name in ((TCP, "tcp"), (UDP, "udp")):
        if isinstance(ip.payload, layer):
            flags = f" {ip[TCP].flags}" if layer is TCP else ""
            return f"{ip.src}.{ip.payload.sport} > {ip.dst}.{ip.payload.dport}: {name}{flags}, {tail}"
    if isinstance(ip.payload, ICMP):
        message = ip[ICMP]
        about = f" id {message.id}" if message.type in (0, 8) else ""
        return f"{ip.src} > {ip.dst}: icmp {message.type}/{message.code}{about}, {tail}"
    return f"{ip.src} > {ip.dst}: proto {ip.proto}, {tail}"


def payload_of(packet: Packet | bytes) -> bytes:
    """What the packet carries behind its transport header."""
    packet = dissected(packet)
    return bytes(packet[IP].payload.payload) if IP in packet else b""


def dissected(packet: Packet | bytes) -> Packet:
    return IP(packet) if isinstance(packet, bytes) else packet


def difference(left: Packet | bytes, right: Packet | bytes) -> str:
    """What differs between two packets: both summaries, and a line for each field that is not the same; empty if none is."""
    one, two = IP(bytes(left)), IP(bytes(right))
    if bytes(one) == bytes(two):
        return ""
    lines = difflib.unified_diff(one.show(dump=True).splitlines(), two.show(dump=True).splitlines(), lineterm="", n=0)
    fields = [line for line in lines if line[:2] not in ("--", "++", "@@")]
    return "\n".join([f"- {summary(one)}", f"+ {summary(two)}", *fields])


def assert_packets_equal(left: Packet | bytes, right: Packet | bytes, *, ignoring: Sequence[str] = ()) -> None:
    """Both packets have the same bytes. `ignoring` names fields of the IP header, such as "ttl"; "chksum" goes with any."""
    one, two = IP(bytes(left)), IP(bytes(right))
    if ignoring:
        for name in (*ignoring, "chksum"):
            setattr(one, name, getattr(two, name))
    found = difference(one, two)
    if found:
        raise AssertionError(f"packets differ:\n{found}")


def assert_deliveries_equal(left: Sequence[Delivery], right: Sequence[Delivery]) -> None:
    """The same packets arrived at the same places, in the same order."""
    if list(left) == list(right):
        return
    marked = difflib.ndiff([_line(each) for each in left], [_line(each) for each in right])
    lines = [line for line in marked if not line.startswith("?")]
    details = [difference(one.data, two.data) for one, two in zip(left, right, strict=False) if one.data != two.data]
    raise AssertionError("\n".join(["deliveries differ:", *lines, *details]))


def _line(delivery: Delivery) -> str:
    return f"{delivery.to}: {summary(delivery.data)}"


def assert_checksums(packet: Packet | bytes) -> None:
    """All checksums verify, against those that scapy computes anew. A UDP checksum of 0 is none (RFC 768)."""
    data = bytes(packet)
    found, anew = IP(data), IP(data)
    layers = [layer for layer in CHECKSUM_FIELDS if layer in found and (layer is IP or not (found.frag or found.flags.MF))]
    for layer in layers:
        if not (layer is UDP and found[UDP].chksum == 0):
            del anew[layer].chksum
    anew = IP(bytes(anew))
    for layer in layers:
        assert found[layer].chksum == anew[layer].chksum, (
            f"{layer.__name__} checksum is {found[layer].chksum:#06x}, not {anew[layer].chksum:#06x}: {summary(found)}")
