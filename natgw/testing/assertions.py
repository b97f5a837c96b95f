"""Comparing packets. What differs is shown a packet a line, as tcpdump would, and then field by field."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from socket import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP

from scapy.layers.inet import IP, TCP, in4_chksum
from scapy.layers.inet6 import IPv6, in6_chksum
from scapy.packet import Packet
from scapy.utils import checksum

from natgw.testing.gateway import Delivery
from natgw.testing.packets import (
    ECHO_TYPES,
    dissected,
    endpoints,
    header_of,
    hops_of,
    icmp_of,
    payload_of,
    transport_of,
    version_of,
)

_NAMES = {IPPROTO_ICMP: "ICMP", IPPROTO_ICMPV6: "ICMPv6", IPPROTO_TCP: "TCP", IPPROTO_UDP: "UDP"}
_CHECKSUMS = {IPPROTO_ICMP: 2, IPPROTO_ICMPV6: 2, IPPROTO_TCP: 16, IPPROTO_UDP: 6}
"""Where the checksum lies in a transport header."""
_HEADERS = {IPPROTO_ICMP: 8, IPPROTO_ICMPV6: 8, IPPROTO_TCP: 20, IPPROTO_UDP: 8}
"""Bytes of such a header at the least; what is cut off before is not read."""


def summary(packet: Packet | bytes) -> str:
    """One line: `172.17.0.2.5000 > 203.0.113.9.80: tcp S, ttl 64, 0 bytes`, or `hlim 64` of IPv6."""
    packet = dissected(packet)
    ip = header_of(packet)
    if ip is None:
        return f"{len(bytes(packet))} bytes that are no IP packet"
    protocol, at, offset, _ = transport_of(bytes(ip))
    tail = f"{'hlim' if isinstance(ip, IPv6) else 'ttl'} {hops_of(ip)}, {len(payload_of(packet))} bytes"
    if offset:
        return f"{ip.src} > {ip.dst}: proto {protocol} fragment at {offset}, {tail}"
    if len(bytes(ip)) < at + _HEADERS.get(protocol, 0):
        return f"{ip.src} > {ip.dst}: proto {protocol}, {tail}"
    (src, sport), (dst, dport) = endpoints(ip)
    kind = icmp_of(ip)
    if kind is not None:
        about = f" id {sport}" if kind[0] in ECHO_TYPES[version_of(src)] else ""
        return f"{src} > {dst}: {'icmp6' if isinstance(ip, IPv6) else 'icmp'} {kind[0]}/{kind[1]}{about}, {tail}"
    if protocol in (IPPROTO_TCP, IPPROTO_UDP):
        flags = f" {ip[TCP].flags}" if TCP in ip else ""
        return f"{src}.{sport} > {dst}.{dport}: {_NAMES[protocol].lower()}{flags}, {tail}"
    return f"{src} > {dst}: proto {protocol}, {tail}"


def difference(left: Packet | bytes, right: Packet | bytes) -> str:
    """What differs between two packets: both summaries, and a line for each field that is not the same; empty if none is."""
    one, two = dissected(bytes(left)), dissected(bytes(right))
    if bytes(one) == bytes(two):
        return ""
    lines = difflib.unified_diff(one.show(dump=True).splitlines(), two.show(dump=True).splitlines(), lineterm="", n=0)
    fields = [line for line in lines if line[:2] not in ("--", "++", "@@")]
    return "\n".join([f"- {summary(one)}", f"+ {summary(two)}", *fields])


def assert_packets_equal(left: Packet | bytes, right: Packet | bytes, *, ignoring: Sequence[str] = ()) -> None:
    """Both packets have the same bytes. `ignoring` names fields of the IP header, such as "ttl" or IPv6's "hlim"; "chksum" goes
    with any of IPv4's."""
    one, two = dissected(bytes(left)), dissected(bytes(right))
    if ignoring and type(one) is type(two):
        for name in (*ignoring, *(("chksum",) if isinstance(one, IP) else ())):
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
    """All checksums verify, against those that scapy computes anew. A UDP checksum of 0 is none (RFC 768, RFC 6935).

    They are computed over the packet's own bytes, not by building it again: scapy takes what it cannot read inside a
    quoted packet for padding, which it leaves out of the sum.
    """
    data = bytes(packet)
    ip = dissected(data)
    if isinstance(ip, IP):
        _assert_checksum("IP", ip.chksum, checksum(_without(data[: ip.ihl * 4], 10)), ip)
    protocol, at, offset, more = transport_of(data)
    if offset or more or protocol not in _CHECKSUMS:
        return
    field = _CHECKSUMS[protocol]
    transport = data[at : 40 + ip.plen if isinstance(ip, IPv6) else ip.len]
    carried = int.from_bytes(transport[field : field + 2], "big")
    if len(transport) < _HEADERS[protocol] or (protocol == IPPROTO_UDP and not carried):
        return
    right = _transport_sum(ip, protocol, _without(transport, field))
    _assert_checksum(_NAMES[protocol], carried, right or (0xFFFF if protocol == IPPROTO_UDP else 0), ip)


def _transport_sum(ip: Packet, protocol: int, message: bytes) -> int:
    """What belongs in the checksum field of a message whose own is 0."""
    if isinstance(ip, IPv6):
        return in6_chksum(protocol, IPv6(src=ip.src, dst=ip.dst), message)
    return checksum(message) if protocol == IPPROTO_ICMP else in4_chksum(protocol, ip, message)


def _without(data: bytes, at: int) -> bytes:
    """The bytes with the checksum field at this offset set to 0, as the sum is computed."""
    return data[:at] + bytes(2) + data[at + 2:]


def _assert_checksum(name: str, found: int, right: int, ip: Packet) -> None:
    assert found == right, f"{name} checksum is {found:#06x}, not {right:#06x}: {summary(ip)}"
