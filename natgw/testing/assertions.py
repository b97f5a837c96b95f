"""Comparing packets. What differs is shown a packet a line, as tcpdump would, and then field by field."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from socket import IPPROTO_TCP, IPPROTO_UDP

from scapy.layers.inet import ICMP, IP, TCP, UDP, in4_chksum
from scapy.packet import Packet
from scapy.utils import checksum

from natgw.testing.gateway import Delivery
from natgw.testing.packets import dissected, payload_of


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
    """All checksums verify, against those that scapy computes anew. A UDP checksum of 0 is none (RFC 768).

    They are computed over the packet's own bytes, not by building it again: scapy takes what it cannot read inside a
    quoted packet for padding, which it leaves out of the sum.
    """
    data = bytes(packet)
    ip = IP(data)
    head, transport = data[:ip.ihl * 4], data[ip.ihl * 4:ip.len]
    _assert_checksum(ip, ip.chksum, checksum(_without(head, 10)))
    if ip.frag or ip.flags.MF:
        return
    layer = ip.payload
    if isinstance(layer, ICMP):
        _assert_checksum(layer, layer.chksum, checksum(_without(transport, 2)))
    elif isinstance(layer, TCP):
        _assert_checksum(layer, layer.chksum, in4_chksum(IPPROTO_TCP, ip, _without(transport, 16)))
    elif isinstance(layer, UDP) and layer.chksum:
        _assert_checksum(layer, layer.chksum, in4_chksum(IPPROTO_UDP, ip, _without(transport, 6)) or 0xFFFF)


def _without(data: bytes, at: int) -> bytes:
    """The bytes with the checksum field at this offset set to 0, as the sum is computed."""
    return data[:at] + bytes(2) + data[at + 2:]


def _assert_checksum(layer: Packet, found: int, right: int) -> None:
    name = type(layer).__name__
    assert found == right, f"{name} checksum is {found:#06x}, not {right:#06x}: {summary(layer.firstlayer())}"
