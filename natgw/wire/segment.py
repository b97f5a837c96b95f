"""What a network card would do with a superframe, done in software: cut it, number it, complete its checksums.

Needed where the other end has no offload, or where a packet must be looked at one by one. The slow way, and counted by
whoever calls it: the point of natgw's data path is that it hardly ever happens.

TCP (RFC 9293): sequence numbers go on by the payload of each segment, FIN and PSH stay on the last one, CWR on the first
(RFC 3168 section 6.1.2). UDP: every datagram but the last has gso_size bytes. IP ids count up from the first, as Linux
does it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from natgw.wire.checksum import checksum, fold, ones_sum, pseudo_sum
from natgw.wire.ethernet import ETH, ETH_BYTES, L3, TYPE_IPV4, TYPE_IPV6
from natgw.wire.ipv4 import (
    CHECKSUM_OFFSET,
    DONT_FRAGMENT,
    FRAGMENT_OFFSET,
    IPV4_BYTES,
    LONGEST,
    MORE_FRAGMENTS,
    TCP,
    UDP,
)
from natgw.wire.vnet import GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, NO_OFFLOAD, VNET, VNET_BYTES

_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")

LONGEST_FRAME_BYTES = L3 + LONGEST
"""With its offload header; longer ones are superframes of TCP."""
_TCP_LAST_ONLY = 0x01 | 0x08
"""FIN and PSH."""
_TCP_FIRST_ONLY = 0x80
"""CWR."""
_IPV6_BYTES = 40
_END_OF_OPTIONS, _NO_OPERATION, _COPIED = 0, 1, 0x80


class CannotSegment(ValueError):
    """The offload header does not describe the frame behind it."""


def segments(frame: bytes | bytearray | memoryview) -> Iterator[bytearray]:
    """The plain frames (zeroed offload header, checksums complete) that `frame` stands for, in order.

    A frame without offload comes back once, copied. Raises CannotSegment for an offload header that lies.
    """
    flags, gso_type, _, gso_size, csum_start, csum_offset = VNET.unpack_from(frame, 0)
    kind = gso_type & ~GSO_ECN
    if kind == GSO_NONE:
        whole = bytearray(frame)
        if flags & NEEDS_CSUM:
            complete_checksum(whole, csum_start, csum_offset)
        whole[:VNET_BYTES] = NO_OFFLOAD
        yield whole
        return
    if kind not in (GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4) or not gso_size:
        raise CannotSegment(f"gso type {kind} with size {gso_size}")
    yield from _cut(frame, TCP if kind != GSO_UDP_L4 else UDP, gso_size)


def superframes(frame: memoryview) -> Iterator[memoryview]:
    """A TCP superframe that is longer than an IPv4 header can say (BIG TCP), as superframes that are not, in order.

    The last may be a single packet. Nothing is copied: each is a part of `frame` with its headers written in front of it,
    over what lies there. It is to be used before the next one is asked for; in the end `frame` is what it was. Raises
    CannotSegment.
    """
    flags, gso_type, _, gso_size, _, _ = VNET.unpack_from(frame, 0)
    l4, payload = _layout(frame, TCP)
    if gso_type & ~GSO_ECN != GSO_TCPV4 or not gso_size or not flags & NEEDS_CSUM:
        raise CannotSegment(f"gso type {gso_type} with size {gso_size} is no superframe of TCP")
    step = (LONGEST - (payload - L3)) // gso_size * gso_size
    headers = bytearray(frame[:payload])
    ident, sequence = _U16.unpack_from(headers, L3 + 4)[0], _U32.unpack_from(headers, l4 + 4)[0]
    unfinished = _U16.unpack_from(headers, l4 + CHECKSUM_OFFSET[TCP])[0] - (len(frame) - l4)
    tcp_flags, end = headers[l4 + 13], len(frame)
    for start in range(payload, end, step):
        stop = min(start + step, end)
        _U16.pack_into(headers, L3 + 2, payload - L3 + stop - start)
        _U16.pack_into(headers, L3 + 4, ident + (start - payload) // gso_size & 0xFFFF)
        rewrite_ip_checksum(headers)
        _U32.pack_into(headers, l4 + 4, sequence + start - payload & 0xFFFFFFFF)
        headers[l4 + 13] = tcp_flags if stop == end else tcp_flags & ~_TCP_LAST_ONLY
        _U16.pack_into(headers, l4 + CHECKSUM_OFFSET[TCP], (unfinished + payload - l4 + stop - start) % 0xFFFF)
        if stop - start <= gso_size:
            headers[1] = GSO_NONE
            headers[4:6] = b"\0\0"
        at = start - payload
        covered = bytes(frame[at:start])
        frame[at:start] = headers
        yield frame[at:stop]
        frame[at:start] = covered
        tcp_flags &= ~_TCP_FIRST_ONLY
        headers[1] = GSO_TCPV4


def complete_checksum(frame: bytearray, csum_start: int, csum_offset: int) -> None:
    """Finish a partial checksum in place; both offsets count from the Ethernet header, as in virtio."""
    start, field = ETH + csum_start, ETH + csum_start + csum_offset
    # Before the end of an IP header there is no transport to sum up, and the field written would be the header's own.
    if csum_start < ETH_BYTES + IPV4_BYTES or start >= len(frame) or field + 2 > len(frame):
        raise CannotSegment(f"checksum at {csum_start}+{csum_offset} is no place in the frame")
    value = checksum(memoryview(frame)[start:])
    # RFC 768: a UDP checksum that computes to 0 is sent as FFFF. For TCP both mean the same.
    _U16.pack_into(frame, field, value or 0xFFFF)


def _layout(frame: bytes | bytearray | memoryview, protocol: int) -> tuple[int, int]:
    """(offset of the transport header, offset of the payload), for both IP versions."""
    if len(frame) < L3 + IPV4_BYTES:
        raise CannotSegment("shorter than its headers")
    ethertype = _U16.unpack_from(frame, ETH + 12)[0]
    if ethertype == TYPE_IPV4 and 0x45 <= frame[L3] <= 0x4F:
        l4 = L3 + (frame[L3] & 0x0F) * 4
        carried = frame[L3 + 9]
    elif ethertype == TYPE_IPV6 and frame[L3] >> 4 == 6:
        l4 = L3 + _IPV6_BYTES
        carried = frame[L3 + 6]
    else:
        raise CannotSegment(f"ethertype {ethertype:#06x} with first byte {frame[L3]:#04x} has no superframes")
    if carried != protocol:
        raise CannotSegment(f"protocol {carried} in a superframe of protocol {protocol}")
    minimum = 20 if protocol == TCP else 8
    if len(frame) < l4 + minimum:
        raise CannotSegment("shorter than its headers")
    payload = l4 + ((frame[l4 + 12] >> 4) * 4 if protocol == TCP else 8)
    if not l4 + minimum <= payload < len(frame):
        raise CannotSegment("no payload to cut")
    return l4, payload


def _cut(frame: bytes | bytearray | memoryview, protocol: int, gso_size: int) -> Iterator[bytearray]:
    l4, payload = _layout(frame, protocol)
    ipv6 = frame[L3] >> 4 == 6
    headers = bytes(frame[ETH:payload])
    ident = 0 if ipv6 else _U16.unpack_from(frame, L3 + 4)[0]
    sequence = _U32.unpack_from(frame, l4 + 4)[0] if protocol == TCP else 0
    end = len(frame)
    for number, start in enumerate(range(payload, end, gso_size)):
        data = bytes(frame[start : start + gso_size])
        piece = bytearray(NO_OFFLOAD + headers + data)
        if protocol == TCP:
            _U32.pack_into(piece, l4 + 4, (sequence + number * gso_size) & 0xFFFFFFFF)
            if start + gso_size < end:
                piece[l4 + 13] &= ~_TCP_LAST_ONLY & 0xFF
            if number:
                piece[l4 + 13] &= ~_TCP_FIRST_ONLY & 0xFF
        else:
            _U16.pack_into(piece, l4 + 4, 8 + len(data))
        if ipv6:
            _U16.pack_into(piece, L3 + 4, len(piece) - l4)
        else:
            _U16.pack_into(piece, L3 + 2, len(piece) - L3)
            _U16.pack_into(piece, L3 + 4, (ident + number) & 0xFFFF)
            rewrite_ip_checksum(piece)
        write_transport_checksum(piece, l4, protocol)
        yield piece


def rewrite_ip_checksum(frame: bytearray) -> None:
    """Compute an IPv4 header's checksum anew, in place."""
    end = L3 + (frame[L3] & 0x0F) * 4
    frame[L3 + 10 : L3 + 12] = b"\0\0"
    _U16.pack_into(frame, L3 + 10, checksum(memoryview(frame)[L3:end]))


def write_transport_checksum(frame: bytearray, l4: int, protocol: int) -> None:
    """Compute the checksum of a TCP or UDP packet that ends with the frame, in place."""
    ipv6 = frame[L3] >> 4 == 6
    addresses = frame[L3 + 8 : L3 + 40] if ipv6 else frame[L3 + 12 : L3 + 20]
    field = l4 + CHECKSUM_OFFSET[protocol]
    frame[field : field + 2] = b"\0\0"
    body = memoryview(frame)[l4:]
    value = fold(pseudo_sum(addresses, protocol, len(body)) + ones_sum(body)) ^ 0xFFFF
    if protocol == UDP and value == 0:
        value = 0xFFFF
    _U16.pack_into(frame, field, value)


def limit_segment_bytes(frame: bytearray, payload_bytes: int) -> None:
    """Make a TCP superframe's segments at most `payload_bytes` long, by its offload header alone.

    A TCP stream does not care where it is cut, so a smaller link behind natgw needs no copy.
    """
    flags, gso_type, header, gso_size, start, offset = VNET.unpack_from(frame, 0)
    VNET.pack_into(frame, 0, flags, gso_type, header, min(gso_size, payload_bytes), start, offset)


def fragments(frame: bytes | bytearray, mtu: int) -> Iterator[bytearray]:
    """An IPv4 frame without offload, cut into fragments of at most `mtu` bytes of IP packet (RFC 791 section 3.2).

    The packet may itself be a fragment. Of its IP options all but the first have those whose copied flag is set.
    """
    header = (frame[L3] & 0x0F) * 4
    original = _U16.unpack_from(frame, L3 + 6)[0]
    flags, base = original & ~FRAGMENT_OFFSET & ~MORE_FRAGMENTS & ~DONT_FRAGMENT, original & FRAGMENT_OFFSET
    step = (mtu - header) & ~7
    if step <= 0:
        raise CannotSegment(f"an MTU of {mtu} has no room for a fragment")
    data = memoryview(frame)[L3 + header :]
    front = bytes(frame[: L3 + header])
    later = front[: L3 + IPV4_BYTES] + _copied_options(front[L3 + IPV4_BYTES :])
    for start in range(0, len(data), step):
        piece = bytearray((later if start else front) + bytes(data[start : start + step]))
        last = start + step >= len(data) and not original & MORE_FRAGMENTS
        field = flags | (base + start // 8) | (0 if last else MORE_FRAGMENTS)
        _U16.pack_into(piece, L3 + 2, len(piece) - L3)
        _U16.pack_into(piece, L3 + 6, field)
        rewrite_ip_checksum(piece)
        yield piece


def _copied_options(options: bytes) -> bytes:
    """IP options as later fragments have them: what is not to be copied becomes no operation (RFC 791 section 3.1), so that the
    header keeps its length. What cannot be read stays as it is, and all behind it."""
    found, at = bytearray(options), 0
    while at < len(found) and found[at] != _END_OF_OPTIONS:
        size = 1 if found[at] == _NO_OPERATION else found[at + 1] if at + 1 < len(found) else 0
        if not size or (found[at] != _NO_OPERATION and size < 2) or at + size > len(found):
            break
        if not found[at] & _COPIED:
            found[at : at + size] = bytes((_NO_OPERATION,)) * size
        at += size
    return bytes(found)


def superframe_headers(frame: bytes | bytearray | memoryview) -> int:
    """Bytes of IP and transport headers that every packet of a superframe repeats. Raises CannotSegment."""
    protocol = UDP if frame[1] & ~GSO_ECN == GSO_UDP_L4 else TCP
    return _layout(frame, protocol)[1] - ETH - ETH_BYTES
