"""What is sent through both gateways: packets described by the conversation they belong to, and made into frames for each.

A packet from outside goes to the external port its conversation has, and the two gateways may have chosen different ones. So a
step says "a SYN+ACK of this conversation", and each gateway is sent the frames that mean this to it. Nothing of natgw's own
makes these bytes but its checksum function, which has tests of its own.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from natgw.wire.checksum import checksum, fold, pseudo_sum
from tests.kernel.addresses import EXTERNAL, GATEWAY_MAC, HOSTS, OUTSIDE_MAC, UPLINK_MAC, mac_bytes

ICMP, TCP, UDP = 1, 6, 17
FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20

ECHO_REPLY, ECHO, TIMESTAMP, TIMESTAMP_REPLY = 0, 8, 13, 14
ANSWERS = {ECHO: ECHO_REPLY, TIMESTAMP: TIMESTAMP_REPLY}

MORE_FRAGMENTS, DONT_FRAGMENT = 0x2000, 0x4000
_CHECKSUM_AT = {ICMP: 2, TCP: 16, UDP: 6}


@dataclass(frozen=True)
class Conversation:
    """Two endpoints. For ICMP the host's port is the identifier, and the remote's is not used."""

    protocol: int
    host: str
    port: int
    remote: str
    remote_port: int


@dataclass(frozen=True)
class Envelope:
    """What the IP header says beside the addresses. `ident` is 16 bits; `options` fill whole words."""

    ttl: int = 64
    tos: int = 0
    ident: int = 1
    df: bool = False
    options: bytes = b""


@dataclass(frozen=True)
class Segment:
    """A packet of a conversation.

    `flags`, `seq` and `ack` are TCP's: the numbers are what is added to those of a conversation in which each side has sent
    its SYN and nothing more. `query` is the type of an ICMP query, `checksum` what to do to the transport's: "good", "bad"
    or (UDP) "none".
    """

    conversation: Conversation
    inward: bool
    envelope: Envelope = Envelope()
    payload: bytes = b""
    flags: int = 0
    seq: int = 0
    ack: int = 0
    query: int = ECHO
    checksum: str = "good"
    pieces: tuple[int, ...] = ()
    """The order in which it comes in fragments, () for whole."""


@dataclass(frozen=True)
class Error:
    """An ICMP error about a packet of a conversation that went the other way. `source` makes it: the far end if None.

    `spoilt` names what is wrong with it: "" for nothing, "icmp", "quoted ip" or "quoted transport" for a checksum.
    """

    conversation: Conversation
    inward: bool
    type: int
    code: int
    source: str | None = None
    quoted_bytes: int = 64
    quoted_options: bytes = b""
    spoilt: str = ""
    envelope: Envelope = Envelope()


Step = Segment | Error


def ip_header(src: str, dst: str, protocol: int, length: int, envelope: Envelope | None = None, fragment: int = 0) -> bytes:
    """An IPv4 header for a payload of `length` bytes; `fragment` is the whole field but DF."""
    envelope = envelope or Envelope()
    size = 20 + len(envelope.options)
    header = struct.pack("!BBHHHBBH4s4s", 0x40 | size // 4, envelope.tos, size + length, envelope.ident,
                         fragment | DONT_FRAGMENT * envelope.df, envelope.ttl, protocol, 0, socket.inet_aton(src),
                         socket.inet_aton(dst)) + envelope.options
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:]


def frames(step: Step, external_port: int) -> list[bytes]:
    """The step as frames, for a gateway at which the conversation has this external port."""
    conversation = step.conversation
    if isinstance(step, Error):
        src = step.source or (conversation.remote if step.inward else conversation.host)
        body, protocol = _error(step, external_port), ICMP
    else:
        src = conversation.remote if step.inward else conversation.host
        body, protocol = _transport(step, external_port), conversation.protocol
    dst = EXTERNAL if step.inward else conversation.remote
    macs = ((mac_bytes(UPLINK_MAC) + mac_bytes(OUTSIDE_MAC)) if step.inward
            else (mac_bytes(GATEWAY_MAC) + mac_bytes(HOSTS[conversation.host])))
    pieces = step.pieces if isinstance(step, Segment) else ()
    return [macs + b"\x08\x00" + packet for packet in _cut(src, dst, protocol, body, step.envelope, pieces)]


def _cut(src: str, dst: str, protocol: int, body: bytes, envelope: Envelope, pieces: tuple[int, ...]) -> list[bytes]:
    if not pieces:
        return [ip_header(src, dst, protocol, len(body), envelope) + body]
    size = max(8, -(-len(body) // len(pieces)) + 7 & ~7)
    if size * (len(pieces) - 1) >= len(body):
        return [ip_header(src, dst, protocol, len(body), envelope) + body]
    made = []
    for piece in pieces:
        start = piece * size
        part = body[start : start + size]
        more = MORE_FRAGMENTS if start + size < len(body) else 0
        made.append(ip_header(src, dst, protocol, len(part), envelope, more | start // 8) + part)
    return made


def transport_body(step: Segment, external_port: int) -> bytes:
    """The transport header without its checksum, and the payload; the same for both versions of IP."""
    conversation = step.conversation
    near = external_port if step.inward else conversation.port
    protocol, far = conversation.protocol, conversation.remote_port
    sport, dport = (far, near) if step.inward else (near, far)
    if protocol == TCP:
        # Each side's numbers begin at its own place; the SYN is number 0 of them.
        ours, theirs = (5000, 1000) if step.inward else (1000, 5000)
        seq = ours + step.seq + (0 if step.flags & SYN else 1)
        body = struct.pack("!HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF,
                           theirs + step.ack + 1 & 0xFFFFFFFF if step.flags & ACK else 0, 0x50, step.flags, 65535, 0, 0)
    elif protocol == UDP:
        body = struct.pack("!HHHH", sport, dport, 8 + len(step.payload), 0)
    else:
        body = struct.pack("!BBHHH", step.query, 0, 0, near, 1)
    return body + step.payload


def _transport(step: Segment, external_port: int) -> bytes:
    conversation = step.conversation
    src, dst = (conversation.remote, EXTERNAL) if step.inward else (conversation.host, conversation.remote)
    return _with_checksum(conversation.protocol, src, dst, transport_body(step, external_port), step.checksum)


def _with_checksum(protocol: int, src: str, dst: str, body: bytes, kind: str) -> bytes:
    field = _CHECKSUM_AT[protocol]
    pseudo = b"" if protocol == ICMP else pseudo_sum(socket.inet_aton(src) + socket.inet_aton(dst), protocol,
                                                     len(body)).to_bytes(2, "big")
    value = checksum(pseudo, body)
    if protocol == UDP:
        value = 0 if kind == "none" else value or 0xFFFF
    if kind == "bad":
        value = fold(value + 0x1234)  # off by as much, whatever the ports are
    return body[:field] + value.to_bytes(2, "big") + body[field + 2 :]


def _error(step: Error, external_port: int) -> bytes:
    conversation = step.conversation
    quoted = Segment(conversation, not step.inward, Envelope(ttl=1, ident=77, options=step.quoted_options), b"quoted data" * 40,
                     flags=ACK, query=ECHO if step.inward else ECHO_REPLY,
                     checksum="bad" if step.spoilt == "quoted transport" else "good")
    packet = bytearray(_as_seen_outside(quoted, external_port) if step.inward else _as_seen_inside(quoted))
    if step.spoilt == "quoted ip":
        packet[10] ^= 0x12
    body = struct.pack("!BBHHH", step.type, step.code, 0, 0, 1300 if (step.type, step.code) == (3, 4) else 0)
    body += bytes(packet[: step.quoted_bytes])
    return _with_checksum(ICMP, "", "", body, "bad" if step.spoilt == "icmp" else "good")


def _as_seen_outside(quoted: Segment, external_port: int) -> bytes:
    """A packet the host sent, translated: what a router outside has of it."""
    conversation = quoted.conversation
    outside = Conversation(conversation.protocol, EXTERNAL, external_port, conversation.remote, conversation.remote_port)
    body = _transport(Segment(outside, False, payload=quoted.payload, flags=quoted.flags, query=quoted.query,
                              checksum=quoted.checksum), external_port)
    return ip_header(EXTERNAL, conversation.remote, conversation.protocol, len(body), quoted.envelope) + body


def _as_seen_inside(quoted: Segment) -> bytes:
    """A packet to the host, translated: what the host has of it."""
    conversation = quoted.conversation
    body = bytearray(_transport(quoted, conversation.port))
    field = _CHECKSUM_AT[conversation.protocol]
    body[field : field + 2] = b"\0\0"
    made = _with_checksum(conversation.protocol, conversation.remote, conversation.host, bytes(body), quoted.checksum)
    return ip_header(conversation.remote, conversation.host, conversation.protocol, len(made), quoted.envelope) + made
