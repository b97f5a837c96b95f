"""What the walk does on a bridge: to send a frame to one port or to all, unchanged, and to listen to what is said to all.

ARP, neighbour discovery and DHCP are heard on their way; what natgw answers goes to the port that asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from natgw.datapath import dhcp
from natgw.datapath.port import Port
from natgw.datapath.sides import Bridge
from natgw.datapath.verdict import Extra, Verdict
from natgw.wire import nd
from natgw.wire.arp import parse_arp
from natgw.wire.ethernet import ETH, L3, TYPE_ARP, TYPE_IPV6
from natgw.wire.segment import CannotSegment, limit_segment_bytes, superframe_headers
from natgw.wire.vnet import GSO_TCPV4, GSO_TCPV6

if TYPE_CHECKING:
    from natgw.datapath.core import Datapath


def bridge_to(dp: Datapath, out: Port, buf: bytearray, n: int) -> bool:
    """Send a frame unchanged to a port; one too big for the link there is made to fit if it is a TCP superframe. False: it was
    not sent.
    """
    if n - L3 > out.mtu and not _fits(dp, buf, n, out.mtu):
        return False
    out.transmit(memoryview(buf)[:n])
    return True


def bridge_apart(dp: Datapath, out: Port, buf: bytearray, n: int) -> Verdict:
    """Between containers that are kept apart: ARP goes through, as it does under Docker's iptables rule, and nothing else."""
    if int.from_bytes(buf[ETH + 12 : L3], "big") == TYPE_ARP and bridge_to(dp, out, buf, n):
        return Verdict.BRIDGED
    return Verdict.DROP_ICC


def _fits(dp: Datapath, buf: bytearray, n: int, mtu: int) -> bool:
    kind = buf[1] & 0x7F
    if not kind:
        return False
    try:
        headers = superframe_headers(memoryview(buf)[:n])
    except CannotSegment:
        return False
    if (buf[4] | buf[5] << 8) + headers <= mtu:
        return True
    if kind not in (GSO_TCPV4, GSO_TCPV6) or headers >= mtu:
        return False
    dp.extras[Extra.RESIZED_SUPERFRAMES] += 1
    limit_segment_bytes(buf, mtu - headers)
    return True


def flood_group(bridge: Bridge, port: Port, buf: bytearray, n: int, now: float) -> Verdict:
    """Broadcast and multicast: to all other ports, and to the gateway's own ears."""
    ethertype = int.from_bytes(buf[ETH + 12 : L3], "big")
    if ethertype == TYPE_IPV6 and bridge.gateway6 is not None and nd.is_nd(buf, n):
        heard = hear_nd(bridge, port, buf, n, now)
        if heard is not None:
            return heard
        if bridge.owns(bytes(buf[nd.TARGET : nd.TARGET + 16])):
            return flood(bridge, port, buf, n, but=bridge.host_port)  # as with ARP
    if ethertype == TYPE_ARP:
        message = parse_arp(buf, n)
        if message is None:
            return Verdict.DROP_BAD_ARP
        bridge.hear_arp(message, port, now)
        if bridge.owns(message.target_ip):
            # The host port has the gateway's address too: asked as well, it would answer a second time.
            return flood(bridge, port, buf, n, but=bridge.host_port)
    elif bridge.dhcp is not None and port is not bridge.host_port:
        request = dhcp.broadcast_request(buf, n)
        if request is not None:
            return dhcp.serve(bridge.dhcp, bridge, port, request, now)
    return flood(bridge, port, buf, n)


def flood(bridge: Bridge, port: Port, buf: bytearray, n: int, but: Port | None = None) -> Verdict:
    """Send a frame unchanged to all ports that it may go to, but for the one it came from, too small ones, and `but`."""
    frame = memoryview(buf)[:n]
    arp = int.from_bytes(buf[ETH + 12 : L3], "big") == TYPE_ARP
    for out in bridge.ports:
        if out is not port and out is not but and (n - L3 <= out.mtu or buf[1]) and (arp or not bridge.keeps_apart(port, out)):
            out.transmit(frame)
    return Verdict.FLOODED


def hear_nd(bridge: Bridge, port: Port, buf: bytearray, n: int, now: float) -> Verdict | None:
    """Neighbour discovery from a station: learned from and answered; a verdict if it is to go no further."""
    message = nd.parse_nd(buf, n)
    if message is None:
        return Verdict.DROP_BAD_ND
    from_mac = bytes(buf[ETH + 6 : ETH + 12])
    if message.type in (nd.NEIGHBOUR_SOLICITATION, nd.NEIGHBOUR_ADVERTISEMENT):
        bridge.hear_nd(message, from_mac, port, now)
    elif message.type == nd.ROUTER_SOLICITATION and bridge.advertiser is not None and port is not bridge.host_port:
        answer = bridge.advertiser.answer(message, from_mac, now)
        if answer is not None:
            bridge.extras[Extra.ROUTER_ADVERTISEMENTS] += 1
            port.transmit(memoryview(answer))
    return None


def advertise(bridge: Bridge, frame: bytearray) -> None:
    """Send a router advertisement to every station of a bridge; the host, which is the router, needs none."""
    bridge.extras[Extra.ROUTER_ADVERTISEMENTS] += 1
    for port in bridge.ports:
        if port is not bridge.host_port:
            port.transmit(memoryview(frame))
