"""Translating one packet by one leg, readably. The fast path does the same in its own way; a property test compares both."""

from __future__ import annotations

import struct

from natgw.tables.flows import Leg
from natgw.wire.checksum import adjust, adjust_partial, combine, delta, ones_sum
from natgw.wire.ethernet import L3, TYPE_IPV4
from natgw.wire.ipv4 import CHECKSUM_OFFSET, ICMP, TCP, UDP, Ipv4Packet, has_ports
from natgw.wire.transport import SCTP, finish_sctp_checksum, set_sctp_ports
from natgw.wire.vnet import NEEDS_CSUM

TTL_DELTA = 0xFEFF
"""What one hop changes in the sum of an IP header: the word TTL, protocol gets 0x0100 less (RFC 1141)."""

_U16 = struct.Struct("!H")


def prepare(leg: Leg, protocol: int) -> None:
    """Compute, once for the life of a flow, the checksum changes that the leg's rewrite causes."""
    leg.key_sum = ones_sum(leg.key[:8]) + 0xFFFF - TYPE_IPV4
    addresses = delta(leg.key[:8], leg.rewrite[:8])
    ports = delta(leg.key[8:], leg.rewrite[8:])
    leg.ip_delta = combine((addresses, TTL_DELTA))
    if protocol == ICMP:
        # The identifier stands for both ports but is there once, and there is no pseudo-header (RFC 792).
        leg.l4_delta = delta(leg.key[8:10], leg.rewrite[8:10])
    else:
        leg.l4_delta = combine((addresses, ports))
        leg.addr_delta = addresses


def translate(packet: Ipv4Packet, leg: Leg) -> None:
    """Rewrite addresses, ports, TTL and checksums in place. The TTL must be above 1."""
    buf = packet.buf
    translate_addresses(packet, leg)
    if packet.protocol == ICMP:
        buf[packet.l4 + 4 : packet.l4 + 6] = leg.rewrite[8:10]
    elif packet.protocol == SCTP:
        _translate_sctp(packet, leg)
    elif has_ports(packet.protocol):
        buf[packet.l4 : packet.l4 + 4] = leg.rewrite[8:]
    if packet.protocol in CHECKSUM_OFFSET:
        _adjust_transport(packet, leg)


def _translate_sctp(packet: Ipv4Packet, leg: Leg) -> None:
    if packet.checksum_is_partial:
        # Completing it would be left to a link that takes any checksum for an Internet checksum.
        finish_sctp_checksum(packet.buf, packet.l4, packet.end)
        packet.buf[0] &= ~NEEDS_CSUM & 0xFF
    set_sctp_ports(packet.buf, packet.l4, packet.end, leg.rewrite[8:])


def can_translate(packet: Ipv4Packet, leg: Leg) -> bool:
    """Whether the packet has all that is needed: SCTP's checksum covers what the other fragments carry."""
    return packet.protocol != SCTP or not packet.more_fragments or leg.key[8:] == leg.rewrite[8:]


def translate_addresses(packet: Ipv4Packet, leg: Leg) -> None:
    """The IP header's part of it: all there is to do to a fragment that is not the first."""
    buf = packet.buf
    buf[L3 + 8] -= 1
    _U16.pack_into(buf, L3 + 10, adjust(_U16.unpack_from(buf, L3 + 10)[0], leg.ip_delta))
    buf[L3 + 12 : L3 + 20] = leg.rewrite[:8]


def _adjust_transport(packet: Ipv4Packet, leg: Leg) -> None:
    field = packet.l4 + CHECKSUM_OFFSET[packet.protocol]
    old: int = _U16.unpack_from(packet.buf, field)[0]
    if packet.checksum_is_partial:
        new = adjust_partial(old, leg.addr_delta)
    elif packet.protocol == UDP and old == 0:
        return  # RFC 768: the sender made none, and none it stays
    else:
        new = adjust(old, leg.l4_delta)
        if packet.protocol != TCP and packet.protocol != ICMP and new == 0:
            new = 0xFFFF
    _U16.pack_into(packet.buf, field, new)


def decrement_ttl(packet: Ipv4Packet) -> None:
    """One hop without translation."""
    packet.buf[L3 + 8] -= 1
    _U16.pack_into(packet.buf, L3 + 10, adjust(_U16.unpack_from(packet.buf, L3 + 10)[0], TTL_DELTA))


def increment_ttl(packet: Ipv4Packet) -> None:
    """Take one hop back."""
    packet.buf[L3 + 8] += 1
    packet.ttl += 1
    _U16.pack_into(packet.buf, L3 + 10, adjust(_U16.unpack_from(packet.buf, L3 + 10)[0], TTL_DELTA ^ 0xFFFF))


def restore_embedded(message: bytearray, start: int, emitted: bytes, original: bytes) -> None:
    """Put back a packet quoted in an ICMP error: what left as `emitted` becomes what its sender knows as `original`.

    Both are 12 bytes, as a leg's key. `start` is the offset of the quoted IP header in `message`; of its transport header
    8 bytes are there at least (RFC 792), so that a TCP checksum may be missing (RFC 5508 REQ-4).
    """
    header = (message[start] & 0x0F) * 4
    protocol = message[start + 9]
    l4 = start + header
    addresses = delta(emitted[:8], original[:8])
    _adjust_at(message, start + 10, addresses)
    message[start + 12 : start + 20] = original[:8]
    if protocol == ICMP:
        message[l4 + 4 : l4 + 6] = original[8:10]
        _adjust_at(message, l4 + 2, delta(emitted[8:10], original[8:10]))
        return
    if protocol == SCTP and l4 + 12 <= len(message) == start + int.from_bytes(message[start + 2 : start + 4], "big"):
        set_sctp_ports(message, l4, len(message), original[8:])
    elif has_ports(protocol):
        message[l4 : l4 + 4] = original[8:]
    if protocol not in CHECKSUM_OFFSET:
        return
    field = l4 + CHECKSUM_OFFSET[protocol]
    if field + 2 <= len(message) and not (protocol == UDP and message[field : field + 2] == b"\0\0"):
        _adjust_at(message, field, combine((addresses, delta(emitted[8:], original[8:]))))


def _adjust_at(message: bytearray, field: int, change: int) -> None:
    _U16.pack_into(message, field, adjust(_U16.unpack_from(message, field)[0], change))


class Embedded:
    """The packet an ICMP error quotes: its protocol and its 12 bytes of addresses and ports, as it was on the wire."""

    __slots__ = ("is_query", "key", "protocol", "start")

    def __init__(self, protocol: int, key: bytes, start: int, is_query: bool) -> None:
        self.protocol = protocol
        self.key = key
        self.start = start
        self.is_query = is_query

    @property
    def reversed_key(self) -> bytes:
        """The key of a packet that would answer the quoted one."""
        key = self.key
        return key[4:8] + key[:4] + key[10:12] + key[8:10]


def parse_embedded(packet: Ipv4Packet) -> Embedded | None:
    """What an ICMP error is about, or None if its own checksum or the quoted IP header is bad (RFC 5508 REQ-3)."""
    buf, message = packet.buf, packet.l4
    if ones_sum(memoryview(buf)[message : packet.end]) != 0xFFFF:
        return None
    start = message + 8
    if packet.end < start + 20 or buf[start] >> 4 != 4:
        return None
    header = (buf[start] & 0x0F) * 4
    l4 = start + header
    if header < 20 or packet.end < l4 + 8 or ones_sum(buf[start:l4]) != 0xFFFF:
        return None
    if int.from_bytes(buf[start + 6 : start + 8], "big") & 0x1FFF:
        return None  # a later fragment: nothing in it tells the flow
    protocol = buf[start + 9]
    addresses = bytes(buf[start + 12 : start + 20])
    if protocol == ICMP:
        return Embedded(protocol, addresses + bytes(buf[l4 + 4 : l4 + 6]) * 2, start, buf[l4] in (8, 13))
    ports = bytes(buf[l4 : l4 + 4]) if has_ports(protocol) else bytes(4)
    return Embedded(protocol, addresses + ports, start, False)


