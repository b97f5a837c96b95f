"""A frame's way through natgw, one step after the other. Each function is one decision point; each way ends in a verdict.

    from_bridge   learn the sender; another station's frame goes to its port or floods, unchanged; DHCP to its server
      to_gateway  ARP and neighbour discovery for the gateway; IPv4 and IPv6 go on
        route     what is addressed to the gateway or the host goes to the host; the rest goes out, translated
    from_uplink   ARP and neighbour discovery for the uplink; packets to one of its addresses go on
        deliver   a reply is translated back, a published port is forwarded, a mapping is asked whether it admits the packet;
                  anything else is the host's or is dropped
    loop_back     what one container sends to another's external endpoint goes out and comes in again, in one go

What a bridge does with a frame (`bridging.py`) and how a packet is sent on (`forward.py`) is elsewhere; here it is decided.

IPv6 takes the same way as IPv4; where natgw has no IPv6 address, its frames are bridged and otherwise left alone.

The fast path (`fastpath.py`) is this walk with every answer remembered; it must never decide otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from natgw.datapath import dhcp, tcp_state
from natgw.datapath.bridging import bridge_apart, bridge_to, flood, flood_group, hear_nd
from natgw.datapath.config import Publication
from natgw.datapath.forward import answer_echo, forward, forward_later_fragment, forward_untranslated, refuse
from natgw.datapath.icmp_errors import is_about_untranslated, translate_error
from natgw.datapath.plans import remember_plan
from natgw.datapath.port import ROUTE, Port
from natgw.datapath.refusal import Refusal
from natgw.datapath.rewrite import increment_ttl
from natgw.datapath.sides import Bridge, NoWay, Side, Uplink
from natgw.datapath.verdict import MALFORMED_VERDICTS, Extra, Verdict
from natgw.tables.fdb import Learned
from natgw.tables.flows import Leg, Mapping, leg_key
from natgw.tables.neigh import Neighbour
from natgw.wire import nd
from natgw.wire.arp import REPLY, parse_arp
from natgw.wire.ethernet import ETH, L3, TYPE_ARP, TYPE_IPV4, TYPE_IPV6, ZERO_MAC, is_group, is_link_reserved
from natgw.wire.ip import UNSPECIFIED6, IpPacket, is_link_local, is_martian
from natgw.wire.ipv4 import TCP, Ipv4Packet, Malformed, has_ports, parse_ipv4
from natgw.wire.ipv6 import parse_ipv6
from natgw.wire.parse import parse_packet

if TYPE_CHECKING:
    from natgw.datapath.core import Datapath


EXHAUSTED = frozenset((Verdict.DROP_PORTS_EXHAUSTED, Verdict.DROP_ADDRESS_TAKEN, Verdict.DROP_HOST_PORTS,
                       Verdict.DROP_HOST_RATE, Verdict.DROP_FLOWS_FULL))
"""What its sender is told as "administratively prohibited" (RFC 5508 REQ-8)."""


def from_bridge(dp: Datapath, port: Port, bridge: Bridge, buf: bytearray, n: int, now: float) -> Verdict:
    """A frame that came in at a bridge port."""
    if n < L3:
        return Verdict.DROP_RUNT
    macs = bytes(buf[ETH : ETH + 12])
    dst, src = macs[:6], macs[6:]
    if is_group(src) or src == ZERO_MAC:
        return Verdict.DROP_BAD_SOURCE_MAC
    if bridge.learn(src, port, now) is Learned.REFUSED_STATIC:
        return Verdict.DROP_SOURCE_IS_GATEWAY
    if is_link_reserved(dst):
        return Verdict.DROP_LINK_RESERVED
    if is_group(dst):
        return flood_group(bridge, port, buf, n, now)
    if dst == bridge.mac and port is not bridge.host_port:
        port.remember(macs, ROUTE)
        return to_gateway(dp, port, bridge, buf, n, now)
    out = bridge.fdb.lookup(dst, now)
    if out is None:
        return flood(bridge, port, buf, n)
    if out is port:
        return Verdict.DROP_SAME_PORT
    if bridge.keeps_apart(port, out):
        return bridge_apart(dp, out, buf, n)
    if port.mtu <= out.mtu:
        port.remember(macs, out)
    return Verdict.BRIDGED if bridge_to(dp, out, buf, n) else Verdict.DROP_TOO_BIG


def to_gateway(dp: Datapath, port: Port, bridge: Bridge, buf: bytearray, n: int, now: float) -> Verdict:
    """A frame from a station of the bridge to the gateway's MAC address."""
    ethertype = int.from_bytes(buf[ETH + 12 : L3], "big")
    if ethertype == TYPE_ARP:
        message = parse_arp(buf, n)
        if message is None:
            return Verdict.DROP_BAD_ARP
        bridge.hear_arp(message, port, now)
        if message.operation == REPLY and bridge.host_port is not None:
            bridge.host_port.transmit(memoryview(buf)[:n])  # it may be the host that asked
        return Verdict.ABSORBED
    packet: IpPacket | Malformed
    if ethertype == TYPE_IPV4:
        packet = parse_ipv4(buf, n)
    elif ethertype == TYPE_IPV6 and bridge.gateway6 is not None:
        if nd.is_nd(buf, n):
            return _nd_to_gateway(bridge, port, buf, n, now)
        packet = parse_ipv6(buf, n)
    else:
        return Verdict.DROP_ETHERTYPE
    if isinstance(packet, Malformed):
        return MALFORMED_VERDICTS[packet]
    if packet.src == packet.dst:
        return Verdict.DROP_LAND
    if not bridge.on_link(packet.src) or bridge.owns(packet.src):
        return Verdict.DROP_MARTIAN_SOURCE
    if (bridge.dhcp is not None and isinstance(packet, Ipv4Packet) and packet.dst == bridge.gateway
            and dhcp.is_request(packet)):
        return dhcp.serve(bridge.dhcp, bridge, port, packet, now)
    return route(dp, bridge, packet, now)


def _nd_to_gateway(bridge: Bridge, port: Port, buf: bytearray, n: int, now: float) -> Verdict:
    heard = hear_nd(bridge, port, buf, n, now)
    if heard is not None:
        return heard
    if buf[nd.TYPE] == nd.NEIGHBOUR_ADVERTISEMENT and bridge.host_port is not None:
        bridge.host_port.transmit(memoryview(buf)[:n])  # it may be the host that asked
    return Verdict.ABSORBED


def route(dp: Datapath, bridge: Bridge, packet: IpPacket, now: float) -> Verdict:
    """A sound packet from a container to the gateway."""
    uplink = dp.uplink
    if bridge.owns(packet.dst):
        if packet.is_echo_request and not packet.is_fragment:
            return answer_echo(dp, bridge, packet, now)
        return to_host(bridge, packet)
    if is_link_local(packet.src):
        return refuse(dp, bridge, packet, Refusal.BEYOND_SCOPE, now, Verdict.DROP_MARTIAN_SOURCE)
    other = dp.bridge_of(packet.dst)
    if other is not None and other is not bridge:
        return Verdict.DROP_ISOLATED
    if bridge.config.internal and other is None:
        return Verdict.DROP_INTERNAL
    if packet.is_icmp_error and not packet.is_fragment:
        verdict = translate_error(dp, bridge.realm, packet, now)
        if verdict is not Verdict.DROP_ICMP_NO_FLOW:
            return verdict  # about no flow: what it quotes came untranslated, or is of nobody's
    if dp.is_local(packet.dst):
        return _to_local(dp, bridge, packet, now)
    if bridge.routes_to(packet.dst):
        if not bridge.icc:
            return Verdict.DROP_ICC
        return _route_back(dp, bridge, packet, now)
    if is_martian(packet.dst) or packet.dst == bridge.broadcast:
        return Verdict.DROP_MARTIAN_DESTINATION
    if uplink is None or not uplink.leads_out(packet.dst):
        return refuse(dp, bridge, packet, Refusal.NO_ROUTE, now, Verdict.DROP_NO_UPLINK)
    if not bridge.config.masquerade or dp.napt.is_untranslated(packet.dst):
        return _route_on(dp, bridge, packet, uplink.way_to(packet.dst, now), now)
    if packet.is_icmp_error or packet.is_foreign_icmp:
        return Verdict.DROP_ICMP_NO_FLOW if packet.is_icmp_error and not packet.is_fragment else Verdict.DROP_PROTOCOL
    if packet.fragment_offset:
        return forward_later_fragment(dp, bridge, packet, now)
    return _translate_outbound(dp, bridge, uplink, packet, now)


def _translate_outbound(dp: Datapath, bridge: Bridge, uplink: Uplink, packet: IpPacket, now: float) -> Verdict:
    leg = dp.napt.leg_of(bridge.realm, packet)
    if leg is None:
        begun = _begin_outbound(dp, bridge, uplink, packet, now)
        if isinstance(begun, Verdict):
            if begun in EXHAUSTED:
                refuse(dp, bridge, packet, Refusal.PROHIBITED, now, begun)
            return begun
        leg = begun
    return forward(dp, leg, packet, now, bridge)


def _begin_outbound(dp: Datapath, bridge: Bridge, uplink: Uplink, packet: IpPacket, now: float) -> Leg | Verdict:
    if packet.is_icmp and not packet.is_echo_request:
        return Verdict.DROP_ICMP_TYPE
    hop = uplink.way_to(packet.dst, now)
    if hop is NoWay.NO_ROUTE:
        return refuse(dp, bridge, packet, Refusal.NO_ROUTE, now, Verdict.DROP_NO_ROUTE)
    if packet.ttl <= 1:
        return refuse(dp, bridge, packet, Refusal.TIME_EXCEEDED, now, Verdict.DROP_TTL)
    inside = bridge.neighbours.resolve(packet.src, now)
    if isinstance(hop, NoWay) or inside is None:
        return Verdict.DROP_NEIGHBOURS_FULL
    leg = dp.napt.outbound(packet, bridge, uplink, hop, inside, now)
    if isinstance(leg, Leg) and packet.protocol == TCP:
        # Should the other half of a simultaneous open be waiting, this is what it waited for.
        dp.held.forget(leg.flow.reply.key)
    return leg


def _to_local(dp: Datapath, bridge: Bridge, packet: IpPacket, now: float) -> Verdict:
    """To an address of the host: what is natgw's of it hairpins (RFC 4787 REQ-9), anything else is the host itself."""
    uplink = dp.uplink
    if uplink is None or not uplink.owns(packet.dst) or not has_ports(packet.protocol) or packet.is_foreign_icmp:
        return to_host(bridge, packet)
    if packet.fragment_offset:
        if bridge.fragments.leader(packet.fragment_key, now) is None and not dp.config.exclusive:
            return to_host(bridge, packet)
        return forward_later_fragment(dp, bridge, packet, now)
    if packet.is_icmp:
        return _ping(dp, bridge, packet, now) if dp.config.exclusive else to_host(bridge, packet)
    if not _is_natgws(dp, packet):
        return to_host(bridge, packet)
    if not dp.napt.nat.hairpin and dp.napt.publication_at(packet.protocol, packet.dst, packet.dport) is None:
        return Verdict.DROP_HAIRPIN
    return _translate_outbound(dp, bridge, uplink, packet, now)


def _ping(dp: Datapath, side: Side, packet: IpPacket, now: float) -> Verdict:
    """An ICMP query of an address that natgw alone has. What comes in fragments is not put together, and so not answered."""
    if not packet.is_echo_request:
        return Verdict.DROP_NO_MAPPING
    return Verdict.DROP_FRAGMENT if packet.is_fragment else answer_echo(dp, side, packet, now)


def _is_natgws(dp: Datapath, packet: IpPacket) -> bool:
    """Whether an endpoint at one of the uplink's addresses is natgw's, not the host's."""
    low, high = dp.config.port_range
    return (dp.config.exclusive or low <= packet.dport <= high
            or dp.napt.publication_at(packet.protocol, packet.dst, packet.dport) is not None)


def loop_back(dp: Datapath, uplink: Uplink, packet: IpPacket, now: float) -> Verdict:
    """Take in what was just translated outward, to one of natgw's own addresses; the hop between counts for nothing."""
    increment_ttl(packet)
    verdict = deliver(dp, uplink, packet, now)
    if verdict is Verdict.TO_HOST:
        return Verdict.DROP_NO_MAPPING
    return Verdict.TRANSLATED_HAIRPIN if verdict is Verdict.TRANSLATED_IN else verdict


def to_host(bridge: Bridge, packet: IpPacket) -> Verdict:
    """Hand a packet to the host's own stack, through natgw0, as it is."""
    if bridge.host_port is None:
        return Verdict.DROP_NO_HOST
    bridge.host_port.transmit(memoryview(packet.buf)[: packet.end])
    return Verdict.TO_HOST


def _route_back(dp: Datapath, bridge: Bridge, packet: IpPacket, now: float) -> Verdict:
    """From the bridge to the bridge by way of the gateway: a container with a narrower netmask than the network."""
    return _route_on(dp, bridge, packet, bridge.neighbours.resolve(packet.dst, now) or NoWay.TABLE_FULL, now)


def _route_on(dp: Datapath, side: Side, packet: IpPacket, way: Neighbour[Port] | NoWay, now: float) -> Verdict:
    """Send a packet on as it is, but for its TTL."""
    if way is NoWay.NO_ROUTE:
        return refuse(dp, side, packet, Refusal.NO_ROUTE, now, Verdict.DROP_NO_ROUTE)
    if packet.ttl <= 1:
        return refuse(dp, side, packet, Refusal.TIME_EXCEEDED, now, Verdict.DROP_TTL)
    if isinstance(way, NoWay):
        return Verdict.DROP_NEIGHBOURS_FULL
    return forward_untranslated(dp, side, way, packet, now)


def from_uplink(dp: Datapath, uplink: Uplink, buf: bytearray, n: int, now: float) -> Verdict:
    """A frame that came in from outside. In a shared namespace the host has seen it too."""
    if n < L3:
        return Verdict.DROP_RUNT
    macs = bytes(buf[ETH : ETH + 12])
    dst = macs[:6]
    ethertype = int.from_bytes(buf[ETH + 12 : L3], "big")
    if ethertype == TYPE_ARP and (is_group(dst) or dst == uplink.mac):
        message = parse_arp(buf, n)
        if message is None:
            return Verdict.DROP_BAD_ARP
        uplink.hear_arp(message, uplink.port, now)
        return Verdict.ABSORBED
    speaks_ipv6 = ethertype == TYPE_IPV6 and uplink.leads_out(UNSPECIFIED6)
    if speaks_ipv6 and nd.is_nd(buf, n) and (is_group(dst) or dst == uplink.mac):
        return _nd_from_uplink(uplink, buf, n, now)
    if dst != uplink.mac:
        return Verdict.DROP_NOT_FOR_US
    if ethertype != TYPE_IPV4 and not speaks_ipv6:
        return Verdict.DROP_ETHERTYPE if dp.config.exclusive else Verdict.TO_HOST
    uplink.port.remember(macs, ROUTE)
    packet = parse_ipv6(buf, n) if speaks_ipv6 else parse_ipv4(buf, n)
    if isinstance(packet, Malformed):
        return MALFORMED_VERDICTS[packet]
    if not uplink.owns(packet.dst):
        bridge = dp.bridge_of(packet.dst)
        if bridge is not None and not bridge.config.internal and not dp.is_local(packet.dst) and (
                not bridge.config.masquerade or dp.napt.is_untranslated(packet.src) or is_about_untranslated(dp, packet)):
            if is_martian(packet.src) or dp.bridge_of(packet.src) is not None or dp.is_local(packet.src):
                return Verdict.DROP_MARTIAN_SOURCE
            return _route_on(dp, uplink, packet, bridge.neighbours.resolve(packet.dst, now) or NoWay.TABLE_FULL, now)
        return Verdict.TO_HOST if dp.is_local(packet.dst) and not dp.config.exclusive else Verdict.DROP_NOT_FOR_US
    if packet.src == packet.dst:
        return Verdict.DROP_LAND
    if is_link_local(packet.src) and is_link_local(packet.dst):  # between neighbours, natgw being none but for their errors
        return Verdict.DROP_NOT_FOR_US if dp.config.exclusive else Verdict.TO_HOST
    if is_martian(packet.src) or dp.is_local(packet.src) or dp.bridge_of(packet.src) is not None:
        return Verdict.DROP_MARTIAN_SOURCE
    return deliver(dp, uplink, packet, now)


def _nd_from_uplink(uplink: Uplink, buf: bytearray, n: int, now: float) -> Verdict:
    """Neighbour discovery on the outer link. Routers are the host's to find; natgw reads its routes."""
    message = nd.parse_nd(buf, n)
    if message is None:
        return Verdict.DROP_BAD_ND
    if message.type in (nd.NEIGHBOUR_SOLICITATION, nd.NEIGHBOUR_ADVERTISEMENT):
        uplink.hear_nd(message, bytes(buf[ETH + 6 : ETH + 12]), uplink.port, now)
    return Verdict.ABSORBED


def deliver(dp: Datapath, uplink: Uplink, packet: IpPacket, now: float) -> Verdict:
    """A sound packet from outside to an address of the uplink."""
    shared = not dp.config.exclusive
    if packet.is_foreign_icmp:
        return Verdict.TO_HOST if shared else Verdict.DROP_PROTOCOL
    if packet.fragment_offset:
        return forward_later_fragment(dp, uplink, packet, now)
    if packet.is_icmp_error:
        verdict = translate_error(dp, uplink.realm, packet, now)
        return Verdict.TO_HOST if verdict is Verdict.DROP_ICMP_NO_FLOW and shared else verdict
    leg = dp.napt.leg_of(uplink.realm, packet)
    if leg is not None:
        return forward(dp, leg, packet, now, uplink)
    if not has_ports(packet.protocol):
        return Verdict.TO_HOST if shared else Verdict.DROP_PROTOCOL
    publication = dp.napt.publication_at(packet.protocol, packet.dst, packet.dport)
    if packet.is_icmp:
        if shared:
            return Verdict.TO_HOST
        return _ping(dp, uplink, packet, now)
    mapping = dp.napt.flows.mapping_at(packet.protocol, packet.dst + packet.dport.to_bytes(2, "big"))
    behind = publication or (mapping if mapping is not None and dp.napt.admits(mapping, packet) else None)
    if behind is not None:
        begun = _begin_inbound(dp, uplink, packet, behind, now)
        return begun if isinstance(begun, Verdict) else forward(dp, begun, packet, now, uplink)
    low, high = dp.config.port_range
    if shared and not low <= packet.dport <= high:
        return Verdict.TO_HOST
    return _hold(dp, packet, now) or (Verdict.DROP_NO_MAPPING if mapping is None else Verdict.DROP_FILTERED)


def _begin_inbound(dp: Datapath, uplink: Uplink, packet: IpPacket, behind: Publication | Mapping,
                   now: float) -> Leg | Verdict:
    """A flow from outside to a published port or to a mapping."""
    target = behind.container_ip.packed if isinstance(behind, Publication) else behind.internal[:-2]
    bridge = dp.bridge_of(target)
    if bridge is None or bridge.config.internal:
        return Verdict.DROP_NO_MAPPING
    hop = uplink.way_to(packet.src, now)
    if hop is NoWay.NO_ROUTE:
        return Verdict.DROP_NO_ROUTE
    if packet.ttl <= 1:
        return refuse(dp, uplink, packet, Refusal.TIME_EXCEEDED, now, Verdict.DROP_TTL)
    inside = bridge.neighbours.resolve(target, now)
    if isinstance(hop, NoWay) or inside is None:
        return Verdict.DROP_NEIGHBOURS_FULL
    if isinstance(behind, Publication):
        begun = dp.napt.inbound(packet, behind, bridge, uplink, inside, hop, now)
        if isinstance(begun, Leg):
            remember_plan(dp.napt, uplink.port, packet, begun)
        return begun
    return dp.napt.mapped(packet, behind, bridge, uplink, inside, hop, now)


def _hold(dp: Datapath, packet: IpPacket, now: float) -> Verdict | None:
    """Let an unsolicited SYN wait (RFC 5382 REQ-4); None for anything else."""
    hold_s = dp.napt.nat.hold_syn_s
    if not hold_s or packet.protocol != TCP or tcp_state.event_of(packet.tcp_flags) is not tcp_state.Event.SYN:
        return None
    key = leg_key(packet.src, packet.dst, packet.sport, packet.dport)
    dp.held.hold(key, bytes(memoryview(packet.buf)[: packet.end]), now + hold_s)
    return Verdict.HELD


def refuse_held(dp: Datapath, uplink: Uplink, now: float) -> None:
    """Tell the senders of SYNs that waited in vain (ICMP 3/3)."""
    for frame in dp.held.due(now):
        packet = parse_packet(bytearray(frame), len(frame))
        if isinstance(packet, IpPacket):
            refuse(dp, uplink, packet, Refusal.NO_PORT, now, Verdict.DROP_NO_MAPPING)
            dp.extras[Extra.SYN_REFUSED] += 1
