"""What is sent through both gateways by IPv6: packets.py's steps, made into frames of the other version.

Of an `Envelope`, `ttl` is the hop limit, `tos` the traffic class, `ident` the flow label, and `options` are extension headers,
each with the number of what follows it still to be filled in. Errors have ICMPv6's types and codes.
"""

from __future__ import annotations

import socket
import struct

from natgw.wire.checksum import checksum, fold, pseudo_sum
from tests.kernel.addresses import mac_bytes
from tests.kernel.addresses6 import EXTERNAL6, GATEWAY_MAC, HOSTS6, OUTSIDE_MAC, UPLINK_MAC
from tests.kernel.packets import ACK, TCP, UDP, Conversation, Envelope, Error, Segment, Step, transport_body

ICMPV6 = 58
ECHO6, ECHO_REPLY6 = 128, 129
PAD = b"\x00\x00\x01\x04\0\0\0\0"
"""A header of options with nothing but padding: hop by hop (0) or for the destination (60)."""
CHECKSUM_AT = {ICMPV6: 2, TCP: 16, UDP: 6}


def ip6_header(src: str, dst: str, protocol: int, length: int, envelope: Envelope | None = None) -> bytes:
    envelope = envelope or Envelope()
    return struct.pack("!IHBB", 6 << 28 | envelope.tos << 20 | envelope.ident, length, protocol, envelope.ttl) + _packed(
        src) + _packed(dst)


def packet6(src: str, dst: str, protocol: int, body: bytes, envelope: Envelope) -> bytes:
    """A packet with the extension headers of its envelope: `options` is the number of the first, and then all of them."""
    first, headers = (envelope.options[0], bytearray(envelope.options[1:])) if envelope.options else (protocol, bytearray())
    if headers:
        headers[0] = protocol
    return ip6_header(src, dst, first, len(headers) + len(body), envelope) + bytes(headers) + body


def frames6(step: Step, external_port: int) -> list[bytes]:
    """The step as frames, for a gateway at which the conversation has this external port."""
    conversation = step.conversation
    if isinstance(step, Error):
        src = step.source or (conversation.remote if step.inward else conversation.host)
        body, protocol = _error(step, src, external_port), ICMPV6
    else:
        src = conversation.remote if step.inward else conversation.host
        body, protocol = _transport(step, external_port), conversation.protocol
    dst = EXTERNAL6 if step.inward else conversation.remote
    macs = ((mac_bytes(UPLINK_MAC) + mac_bytes(OUTSIDE_MAC)) if step.inward
            else (mac_bytes(GATEWAY_MAC) + mac_bytes(HOSTS6[conversation.host])))
    return [macs + b"\x86\xdd" + packet6(src, dst, protocol, body, step.envelope)]


def _transport(step: Segment, external_port: int) -> bytes:
    conversation = step.conversation
    src, dst = (conversation.remote, EXTERNAL6) if step.inward else (conversation.host, conversation.remote)
    return with_checksum(conversation.protocol, src, dst, transport_body(step, external_port), step.checksum)


def with_checksum(protocol: int, src: str, dst: str, body: bytes, kind: str) -> bytes:
    field = CHECKSUM_AT[protocol]
    value = checksum(pseudo_sum(_packed(src) + _packed(dst), protocol, len(body)).to_bytes(2, "big"), body)
    if protocol == UDP:
        value = 0 if kind == "none" else value or 0xFFFF
    if kind == "bad":
        value = fold(value + 0x1234)
    return body[:field] + value.to_bytes(2, "big") + body[field + 2 :]


def _error(step: Error, source: str, external_port: int) -> bytes:
    conversation = step.conversation
    envelope = Envelope(ttl=1, options=step.quoted_options)
    quoted = Segment(conversation, not step.inward, envelope, b"quoted data" * 40, flags=ACK,
                     query=ECHO6 if step.inward else ECHO_REPLY6,
                     checksum="bad" if step.spoilt == "quoted transport" else "good")
    packet = _as_seen_outside(quoted, external_port) if step.inward else _as_seen_inside(quoted)
    body = struct.pack("!BBHI", step.type, step.code, 0, 1300 if step.type == 2 else 0) + packet[: step.quoted_bytes]
    return with_checksum(ICMPV6, source, EXTERNAL6 if step.inward else conversation.remote, body,
                         "bad" if step.spoilt == "icmp" else "good")


def _as_seen_outside(quoted: Segment, external_port: int) -> bytes:
    """A packet the host sent, translated: what a router outside has of it."""
    there = quoted.conversation
    outside = Conversation(there.protocol, EXTERNAL6, external_port, there.remote, there.remote_port)
    body = _transport(Segment(outside, False, payload=quoted.payload, flags=quoted.flags, query=quoted.query,
                              checksum=quoted.checksum), external_port)
    return packet6(EXTERNAL6, there.remote, there.protocol, body, quoted.envelope)


def _as_seen_inside(quoted: Segment) -> bytes:
    """A packet to the host, translated: what the host has of it."""
    there = quoted.conversation
    body = bytearray(_transport(quoted, there.port))
    field = CHECKSUM_AT[there.protocol]
    body[field : field + 2] = b"\0\0"
    made = with_checksum(there.protocol, there.remote, there.host, bytes(body), quoted.checksum)
    return packet6(there.remote, there.host, there.protocol, made, quoted.envelope)


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, address)
