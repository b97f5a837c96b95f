"""DHCP requests on a bridge: taken out of the walk, given to a server, and its reply sent back where they came from.

A socket on natgw0 would hear them too. But the frame says more: by which port it came, and so which container asks, whatever
it says of itself. Nothing the host has on port 67, and no firewall of the host, comes in between; a reply can go to a
station that has no address yet and answers no ARP; other containers need not hear any of it. A network without a
server floods such frames like any broadcast: a container may be a DHCP server itself.
"""

from __future__ import annotations

from collections.abc import Callable

from natgw.datapath.port import Port
from natgw.datapath.sides import Bridge
from natgw.datapath.verdict import Verdict
from natgw.tables.ratelimit import TokenBucket
from natgw.wire import dhcp
from natgw.wire.checksum import fold, ones_sum, pseudo_sum
from natgw.wire.dhcp import DhcpMessage, build_dhcp, parse_dhcp
from natgw.wire.ethernet import BROADCAST, ETH, L3, TYPE_IPV4
from natgw.wire.ipv4 import UDP, Ipv4Packet, build_ipv4, parse_ipv4
from natgw.wire.udp import UDP_BYTES, build_udp

RATE, BURST = 100.0, 200.0
"""Requests a second of one network: each may cost a write to the disk."""
EVERYBODY = b"\xff\xff\xff\xff"
_TYPE_IPV4 = TYPE_IPV4.to_bytes(2, "big")

Serve = Callable[[DhcpMessage, Port, float], DhcpMessage | None]
"""What answers: the message, the port it came in by, and `now`."""


class DhcpHook:
    """A network's DHCP server as the walk knows it."""

    def __init__(self, serve: Serve, now: float) -> None:
        self.serve = serve
        self.allowance = TokenBucket(RATE, BURST, now)


def broadcast_request(buf: bytearray, n: int) -> Ipv4Packet | None:
    """The packet in a broadcast frame that is for a DHCP server: by UDP, to port 67 of everybody (RFC 2131 section 4.1)."""
    if int.from_bytes(buf[ETH + 12 : L3], "big") != TYPE_IPV4 or buf[L3 + 9] != UDP:
        return None
    packet = parse_ipv4(buf, n)
    return packet if isinstance(packet, Ipv4Packet) and packet.dst == EVERYBODY and is_request(packet) else None


def is_request(packet: Ipv4Packet) -> bool:
    return packet.protocol == UDP and packet.dport == dhcp.SERVER_PORT and not packet.is_fragment


def serve(hook: DhcpHook, bridge: Bridge, port: Port, packet: Ipv4Packet, now: float) -> Verdict:
    """Have a request answered. Its sender must be who it says: the MAC address in it is that of its frame."""
    source_mac = bytes(packet.buf[ETH + 6 : ETH + 12])
    message = parse_dhcp(bytes(packet.buf[packet.l4 + UDP_BYTES : packet.end])) if _verifies(packet) else None
    if message is None or message.chaddr != source_mac:
        return Verdict.DROP_BAD_DHCP
    if not hook.allowance.take(now):
        return Verdict.DROP_RATE_LIMITED
    reply = hook.serve(message, port, now)
    if reply is not None:
        ip, mac = _destination(reply)
        segment = build_udp(bridge.gateway, ip, dhcp.SERVER_PORT, dhcp.CLIENT_PORT, build_dhcp(reply))
        port.transmit(memoryview(build_ipv4(mac + bridge.mac + _TYPE_IPV4, bridge.gateway, ip, UDP, segment)))
    return Verdict.DHCP


def _verifies(packet: Ipv4Packet) -> bool:
    """Whether the UDP checksum holds, if there is one that is complete."""
    buf, l4 = packet.buf, packet.l4
    end = l4 + int.from_bytes(buf[l4 + 4 : l4 + 6], "big")
    if packet.checksum_is_partial or buf[l4 + 6 : l4 + 8] == b"\0\0":
        return True
    return fold(pseudo_sum(packet.src + packet.dst, UDP, end - l4) + ones_sum(memoryview(buf)[l4:end])) == 0xFFFF


def _destination(reply: DhcpMessage) -> tuple[bytes, bytes]:
    """Where a reply goes (RFC 2131 section 4.1): to the address a client has, to all, or to the one it is about to have."""
    if reply.ciaddr != dhcp.ZERO:
        return reply.ciaddr, reply.chaddr
    if reply.wants_broadcast or reply.yiaddr == dhcp.ZERO:
        return EVERYBODY, BROADCAST
    return reply.yiaddr, reply.chaddr
