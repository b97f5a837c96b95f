"""ARP for IPv4 over Ethernet (RFC 826).

     0     2     4  5  6     8          14         18         24         28
    +-----+-----+--+--+-----+----------+----------+----------+----------+
    |htype|ptype|hl|pl| op  |sender MAC|sender IP |target MAC|target IP |
    +-----+-----+--+--+-----+----------+----------+----------+----------+
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from natgw.wire.ethernet import BROADCAST, L3, TYPE_ARP, ZERO_MAC, is_group
from natgw.wire.vnet import NO_OFFLOAD

ARP_BYTES = 28
REQUEST = 1
REPLY = 2
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_PREFIX = (1, 0x0800, 6, 4)


@dataclass(frozen=True, slots=True)
class ArpMessage:
    """A well-formed ARP message; addresses are raw bytes, 6 and 4 long."""

    operation: int
    sender_mac: bytes
    sender_ip: bytes
    target_mac: bytes
    target_ip: bytes

    @property
    def is_probe(self) -> bool:
        """An RFC 5227 probe: a sender that does not own the address yet, from which nothing may be learned."""
        return self.sender_ip == b"\0\0\0\0"


def parse_arp(buf: bytes | bytearray, n: int) -> ArpMessage | None:
    """The ARP message in a frame of `n` bytes, or None if it is short, not IPv4 over Ethernet, or claims a group MAC."""
    if n < L3 + ARP_BYTES:
        return None
    *prefix, operation, sender_mac, sender_ip, target_mac, target_ip = _ARP.unpack_from(buf, L3)
    if tuple(prefix) != _PREFIX or operation not in (REQUEST, REPLY) or is_group(sender_mac):
        return None
    return ArpMessage(operation, sender_mac, sender_ip, target_mac, target_ip)


def build_request(sender_mac: bytes, sender_ip: bytes, target_ip: bytes, to_mac: bytes = BROADCAST) -> bytes:
    """A frame that asks who has `target_ip`; `to_mac` other than broadcast probes a neighbour already known."""
    return _build(to_mac, ArpMessage(REQUEST, sender_mac, sender_ip, ZERO_MAC, target_ip))


def build_reply(request: ArpMessage, mac: bytes) -> bytes:
    """The frame that answers `request`: its target address is at `mac`."""
    reply = ArpMessage(REPLY, mac, request.target_ip, request.sender_mac, request.sender_ip)
    return _build(request.sender_mac, reply)


def _build(to_mac: bytes, message: ArpMessage) -> bytes:
    ethernet = to_mac + message.sender_mac + TYPE_ARP.to_bytes(2, "big")
    body = _ARP.pack(*_PREFIX, message.operation, message.sender_mac, message.sender_ip, message.target_mac,
                     message.target_ip)
    return NO_OFFLOAD + ethernet + body
