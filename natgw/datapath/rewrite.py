"""Translating one packet by one leg, readably. The fast path does the same in its own way; a property test compares both."""

from __future__ import annotations

import struct

from natgw.tables.flows import Flow, Leg, reversed_key
from natgw.wire.checksum import adjust, adjust_partial, combine, delta, fold, ones_sum
from natgw.wire.ethernet import L3, TYPE_IPV4
from natgw.wire.ip import IPV4_ADDRESS_BYTES, IpPacket
from natgw.wire.ipv4 import CHECKSUM_OFFSET, ICMP, ICMPV6, TCP, UDP, has_ports
from natgw.wire.ipv6 import ADDRESSES, ICMPV6_ECHO, IPV6_BYTES, transport_verifies, walk_chain
from natgw.wire.transport import SCTP, finish_sctp_checksum, set_sctp_ports
from natgw.wire.vnet import NEEDS_CSUM

TTL_DELTA = 0xFEFF
"""What one hop changes in the sum of an IP header: the word TTL, protocol gets 0x0100 less (RFC 1141)."""

_U16 = struct.Struct("!H")


def prepare(leg: Leg, protocol: int) -> None:
    """Compute, once for the life of a flow, the checksum changes that the leg's rewrite causes."""
    addresses = delta(leg.key[:-4], leg.rewrite[:-4])
    ports = delta(leg.key[-4:], leg.rewrite[-4:])
    leg.key_sum = ones_sum(leg.key[:-4]) - TYPE_IPV4
    leg.ip_delta = combine((addresses, TTL_DELTA))
    if protocol in (ICMP, ICMPV6):
        # The identifier stands for both ports but is there once.
        ports = delta(leg.key[-4:-2], leg.rewrite[-4:-2])
    if protocol == ICMP:
        leg.l4_delta = ports  # there is no pseudo-header (RFC 792)
    else:
        leg.l4_delta = combine((addresses, ports))
        leg.addr_delta = addresses


def prepare_flow(flow: Flow) -> None:
    """The same for both legs of a flow, of which the reply is the original's mirror image: each sum is needed only once."""
    original, reply = flow.original, flow.reply
    key, rewrite, protocol = original.key, original.rewrite, flow.protocol
    before, after = ones_sum(key[:-4]), ones_sum(rewrite[:-4])
    original.key_sum, reply.key_sum = before - TYPE_IPV4, after - TYPE_IPV4
    there, back = fold((before ^ 0xFFFF) + after), fold((after ^ 0xFFFF) + before)
    original.ip_delta, reply.ip_delta = fold(there + TTL_DELTA), fold(back + TTL_DELTA)
    ports = slice(-4, -2 if protocol in (ICMP, ICMPV6) else None)  # the identifier is there once
    before, after = ones_sum(key[ports]), ones_sum(rewrite[ports])
    ports_there, ports_back = fold((before ^ 0xFFFF) + after), fold((after ^ 0xFFFF) + before)
    if protocol == ICMP:
        original.l4_delta, reply.l4_delta = ports_there, ports_back  # there is no pseudo-header (RFC 792)
        return
    original.addr_delta, reply.addr_delta = there, back
    original.l4_delta, reply.l4_delta = fold(there + ports_there), fold(back + ports_back)


def translate(packet: IpPacket, leg: Leg) -> None:
    """Rewrite addresses, ports, TTL and checksums in place. The TTL must be above 1."""
    buf = packet.buf
    translate_addresses(packet, leg)
    if packet.is_icmp:
        buf[packet.l4 + 4 : packet.l4 + 6] = leg.rewrite[-4:-2]
    elif packet.protocol == SCTP:
        _translate_sctp(packet, leg)
    elif has_ports(packet.protocol):
        buf[packet.l4 : packet.l4 + 4] = leg.rewrite[-4:]
    if packet.protocol in CHECKSUM_OFFSET:
        _adjust_transport(packet, leg)


def _translate_sctp(packet: IpPacket, leg: Leg) -> None:
    if packet.checksum_is_partial:
        # Completing it would be left to a link that takes any checksum for an Internet checksum.
        finish_sctp_checksum(packet.buf, packet.l4, packet.end)
        packet.buf[0] &= ~NEEDS_CSUM & 0xFF
    set_sctp_ports(packet.buf, packet.l4, packet.end, leg.rewrite[-4:])


def can_translate(packet: IpPacket, leg: Leg) -> bool:
    """Whether the packet has all that is needed: SCTP's checksum covers what the other fragments carry."""
    return packet.protocol != SCTP or not packet.more_fragments or leg.key[-4:] == leg.rewrite[-4:]


def translate_addresses(packet: IpPacket, leg: Leg) -> None:
    """The IP header's part of it: all there is to do to a fragment that is not the first."""
    buf = packet.buf
    if packet.version == 6:
        buf[L3 + 7] -= 1
        buf[ADDRESSES : ADDRESSES + 32] = leg.rewrite[:-4]
        return
    buf[L3 + 8] -= 1
    _U16.pack_into(buf, L3 + 10, adjust(_U16.unpack_from(buf, L3 + 10)[0], leg.ip_delta))
    buf[L3 + 12 : L3 + 20] = leg.rewrite[:8]


def _adjust_transport(packet: IpPacket, leg: Leg) -> None:
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


def decrement_ttl(packet: IpPacket) -> None:
    """One hop without translation."""
    if packet.version == 6:
        packet.buf[L3 + 7] -= 1
        return
    packet.buf[L3 + 8] -= 1
    _U16.pack_into(packet.buf, L3 + 10, adjust(_U16.unpack_from(packet.buf, L3 + 10)[0], TTL_DELTA))


def increment_ttl(packet: IpPacket) -> None:
    """Take one hop back."""
    packet.ttl += 1
    if packet.version == 6:
        packet.buf[L3 + 7] += 1
        return
    packet.buf[L3 + 8] += 1
    _U16.pack_into(packet.buf, L3 + 10, adjust(_U16.unpack_from(packet.buf, L3 + 10)[0], TTL_DELTA ^ 0xFFFF))


def restore_embedded(message: bytearray, embedded: Embedded, original: bytes) -> None:
    """Put back the packet quoted in an ICMP error: what left as `embedded.key` becomes what its sender knows as `original`.

    `message` is the error from its ICMP header on. Of the quoted transport header 8 bytes are there at least (RFC 792), so
    that a TCP checksum may be missing (RFC 5508 REQ-4).
    """
    emitted, protocol, start, l4 = embedded.key, embedded.protocol, embedded.start, embedded.l4
    addresses = delta(emitted[:-4], original[:-4])
    if len(emitted) == 2 * IPV4_ADDRESS_BYTES + 4:
        _adjust_at(message, start + 10, addresses)
        message[start + 12 : start + 20] = original[:8]
    else:
        message[start + 8 : start + 40] = original[:32]
    if protocol in (ICMP, ICMPV6):
        message[l4 + 4 : l4 + 6] = original[-4:-2]
        identifier = delta(emitted[-4:-2], original[-4:-2])
        _adjust_at(message, l4 + 2, identifier if protocol == ICMP else combine((addresses, identifier)))
        return
    if protocol == SCTP and l4 + 12 <= len(message) == embedded.end:
        set_sctp_ports(message, l4, len(message), original[-4:])
    elif has_ports(protocol):
        message[l4 : l4 + 4] = original[-4:]
    if protocol not in CHECKSUM_OFFSET:
        return
    field = l4 + CHECKSUM_OFFSET[protocol]
    if field + 2 <= len(message) and not (protocol == UDP and message[field : field + 2] == b"\0\0"):
        _adjust_at(message, field, combine((addresses, delta(emitted[-4:], original[-4:]))))


def _adjust_at(message: bytearray, field: int, change: int) -> None:
    _U16.pack_into(message, field, adjust(_U16.unpack_from(message, field)[0], change))


class Embedded:
    """The packet an ICMP error quotes: its protocol and its leg key, as it was on the wire.

    `start` and `l4` are the offsets of its IP and transport headers in the error, counted from the ICMP header, and `end` is
    where it would end if all of it were quoted.
    """

    __slots__ = ("end", "is_query", "key", "l4", "protocol", "start")

    def __init__(self, protocol: int, key: bytes, start: int, l4: int, end: int, is_query: bool) -> None:
        self.protocol = protocol
        self.key = key
        self.start = start
        self.l4 = l4
        self.end = end
        self.is_query = is_query

    @property
    def reversed_key(self) -> bytes:
        """The key of a packet that would answer the quoted one."""
        return reversed_key(self.key)


def parse_embedded(packet: IpPacket) -> Embedded | None:
    """What an ICMP error is about, or None if its own checksum or the quoted IP header is bad (RFC 5508 REQ-3)."""
    if not transport_verifies(packet):
        return None
    message = bytes(memoryview(packet.buf)[packet.l4 : packet.end])
    return _embedded4(message) if packet.version == 4 else _embedded6(message)


_QUOTED = 8
"""Where the quoted packet begins in an ICMP error."""


def _embedded4(message: bytes) -> Embedded | None:
    start = _QUOTED
    if len(message) < start + 20 or message[start] >> 4 != 4:
        return None
    header = (message[start] & 0x0F) * 4
    l4 = start + header
    if header < 20 or len(message) < l4 + 8 or ones_sum(message[start:l4]) != 0xFFFF:
        return None
    if int.from_bytes(message[start + 6 : start + 8], "big") & 0x1FFF:
        return None  # a later fragment: nothing in it tells the flow
    end = start + int.from_bytes(message[start + 2 : start + 4], "big")
    return _embedded(message, message[start + 9], message[start + 12 : start + 20], l4, end, ICMP, (8, 13))


def _embedded6(message: bytes) -> Embedded | None:
    start = _QUOTED
    if len(message) < start + IPV6_BYTES or message[start] >> 4 != 6:
        return None
    chain = walk_chain(message, start, len(message))
    if chain is None or chain.fragment_offset or chain.segments_left or len(message) < chain.l4 + 8:
        return None
    end = start + IPV6_BYTES + int.from_bytes(message[start + 4 : start + 6], "big")
    return _embedded(message, chain.protocol, message[start + 8 : start + 40], chain.l4, end, ICMPV6, (ICMPV6_ECHO,))


def _embedded(message: bytes, protocol: int, addresses: bytes, l4: int, end: int, icmp: int,
              queries: tuple[int, ...]) -> Embedded | None:
    if protocol == icmp:
        return Embedded(protocol, addresses + message[l4 + 4 : l4 + 6] * 2, _QUOTED, l4, end, message[l4] in queries)
    if protocol in (ICMP, ICMPV6):
        return None
    ports = message[l4 : l4 + 4] if has_ports(protocol) else bytes(4)
    return Embedded(protocol, addresses + ports, _QUOTED, l4, end, False)
