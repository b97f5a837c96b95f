"""Sending what the walk decided: by a neighbour, in a size the link takes, or back as an ICMP error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from natgw.datapath.napt import verdict_of
from natgw.datapath.port import Port
from natgw.datapath.refusal import Refusal
from natgw.datapath.rewrite import can_translate, decrement_ttl, translate, translate_addresses
from natgw.datapath.sides import Bridge, NoWay, Side, Uplink
from natgw.datapath.verdict import Extra, Verdict
from natgw.tables.flows import Leg, destination
from natgw.tables.neigh import Neighbour
from natgw.wire import icmp, icmpv6
from natgw.wire.ethernet import ETH, L3
from natgw.wire.ip import IpPacket, is_link_local, is_multicast
from natgw.wire.ipv4 import TCP, UDP
from natgw.wire.ipv6 import transport_verifies
from natgw.wire.parse import parse_packet
from natgw.wire.segment import CannotSegment, fragments, limit_segment_bytes, segments, superframe_headers

if TYPE_CHECKING:
    from natgw.datapath.core import Datapath

def forward(dp: Datapath, leg: Leg, packet: IpPacket, now: float, side: Side) -> Verdict:
    """Translate a packet that came in at `side` by its leg, and send it on."""
    if packet.ttl <= 1:
        return refuse(dp, side, packet, Refusal.TIME_EXCEEDED, now, Verdict.DROP_TTL)
    neighbour = hop_of(dp, leg, now)
    if neighbour is None:
        return Verdict.DROP_NO_ROUTE
    must_cut = _is_too_big(dp, neighbour, packet)
    if must_cut and _must_not_be_cut(packet):
        return refuse(dp, side, packet, Refusal.TOO_BIG, now, Verdict.DROP_TOO_BIG, mtu=neighbour.mtu)
    if not can_translate(packet, leg):
        return Verdict.DROP_FRAGMENT
    if not dp.napt.advance(leg, packet, now):
        return Verdict.DROP_TCP_STATE
    key = packet.fragment_key if packet.more_fragments else b""
    translate(packet, leg)
    verdict = _send_cut(dp, neighbour, packet) if must_cut else send_by(dp, neighbour, packet, verdict_of(leg))
    if key:
        for frame in side.fragments.lead(key, leg, now):
            later = parse_packet(bytearray(frame), len(frame))
            if isinstance(later, IpPacket):
                _follow(dp, leg, later, now)
    return verdict


def forward_untranslated(dp: Datapath, side: Side, neighbour: Neighbour[Port], packet: IpPacket, now: float) -> Verdict:
    """Send a packet that came in at `side` on as it is, but for its TTL, which must be above 1."""
    if not _is_too_big(dp, neighbour, packet):
        decrement_ttl(packet)
        return send_by(dp, neighbour, packet, Verdict.ROUTED)
    if _must_not_be_cut(packet):
        return refuse(dp, side, packet, Refusal.TOO_BIG, now, Verdict.DROP_TOO_BIG, mtu=neighbour.mtu)
    decrement_ttl(packet)
    return _send_cut(dp, neighbour, packet)


def _is_too_big(dp: Datapath, neighbour: Neighbour[Port], packet: IpPacket) -> bool:
    """Whether a packet is larger than the link to a neighbour takes, and no superframe that can be made to fit."""
    return packet.total_length > neighbour.mtu > 0 and not _segments_fit(dp, packet, neighbour.mtu)


def _must_not_be_cut(packet: IpPacket) -> bool:
    return packet.df or (packet.is_superframe and packet.protocol != UDP)


def forward_later_fragment(dp: Datapath, side: Side, packet: IpPacket, now: float) -> Verdict:
    """A fragment without ports goes where the first of its packet went, and waits if that has not come yet."""
    if packet.ttl <= 1:
        return Verdict.DROP_TTL
    key = packet.fragment_key
    leg = side.fragments.leader(key, now)
    if leg is not None:
        leg = dp.napt.flows.current(leg, packet.protocol)
    if leg is not None:
        return _follow(dp, leg, packet, now)
    waits = side.fragments.wait(key, bytes(memoryview(packet.buf)[: packet.end]), now)
    return Verdict.FRAGMENT_WAITS if waits else Verdict.DROP_FRAGMENT


def _follow(dp: Datapath, leg: Leg, packet: IpPacket, now: float) -> Verdict:
    neighbour = hop_of(dp, leg, now)
    if neighbour is None:
        return Verdict.DROP_NO_ROUTE
    too_big = packet.total_length > neighbour.mtu > 0
    if too_big and packet.df:
        return Verdict.DROP_TOO_BIG
    leg.last = now
    leg.packets += 1
    leg.bytes += packet.total_length
    translate_addresses(packet, leg)
    if too_big:
        return _send_cut(dp, neighbour, packet)
    return send_by(dp, neighbour, packet, verdict_of(leg))


def hop_of(dp: Datapath, leg: Leg, now: float) -> Neighbour[Port] | None:
    """The neighbour a leg sends to, found again if it is not what it was; None: there is no way there any more."""
    neighbour: Neighbour[Port] = leg.neighbour
    if neighbour.transmit is not None:
        return neighbour
    target = destination(leg.rewrite)
    bridge = dp.bridge_of(target)
    found: Neighbour[Port] | None = None
    if bridge is not None:
        found = bridge.neighbours.resolve(target, now)
    elif dp.uplink is not None:
        way = dp.uplink.way_to(target, now)
        found = None if isinstance(way, NoWay) else way
    if found is not None and found is not neighbour:
        dp.napt.flows.set_neighbour(leg, found)
        dp.napt.judge_again(leg.flow)
    return found


def send_by(dp: Datapath, neighbour: Neighbour[Port], packet: IpPacket, verdict: Verdict) -> Verdict:
    """Send a finished packet to a neighbour, or let it wait until the neighbour is found."""
    buf, end = packet.buf, packet.end
    if neighbour.transmit is None:
        _queue(dp, neighbour, memoryview(buf)[:end])
        return Verdict.QUEUED
    buf[ETH:L3] = neighbour.header
    neighbour.transmit(memoryview(buf)[:end])
    return verdict


def _queue(dp: Datapath, neighbour: Neighbour[Port], frame: memoryview) -> None:
    """Let a frame wait for a neighbour; the oldest give way."""
    dp.extras[Extra.QUEUE_DROPPED] += neighbour.queue.add(bytes(frame))


def _segments_fit(dp: Datapath, packet: IpPacket, mtu: int) -> bool:
    """Whether a superframe's packets fit a link, TCP's made smaller if need be: a stream does not care where it is cut."""
    if not packet.is_superframe:
        return False
    try:
        headers = superframe_headers(memoryview(packet.buf)[: packet.end])
    except CannotSegment:
        return False
    if headers + packet.gso_bytes <= mtu:
        return True
    if packet.protocol != TCP or headers >= mtu:
        return False
    dp.extras[Extra.RESIZED_SUPERFRAMES] += 1
    limit_segment_bytes(packet.buf, mtu - headers)
    return True


def _send_cut(dp: Datapath, neighbour: Neighbour[Port], packet: IpPacket) -> Verdict:
    """Send a packet, or each datagram of a superframe, in fragments (RFC 791; requirement U10)."""
    transmit = neighbour.transmit
    if transmit is not None:
        packet.buf[ETH:L3] = neighbour.header
    if packet.is_superframe:
        dp.extras[Extra.SPLIT_SUPERFRAMES] += 1
    try:
        for whole in segments(memoryview(packet.buf)[: packet.end]):
            for piece in fragments(whole, neighbour.mtu):
                if transmit is not None:
                    transmit(memoryview(piece))
                else:
                    _queue(dp, neighbour, memoryview(piece))
    except CannotSegment:
        return Verdict.DROP_BAD_OFFLOAD
    return Verdict.FRAGMENTED if transmit is not None else Verdict.QUEUED


def answer_echo(dp: Datapath, side: Side, packet: IpPacket, now: float) -> Verdict:
    """Answer a ping of natgw's own address (RFC 1122 section 3.2.2.6), unless it was damaged on its way here."""
    if not packet.checksum_is_partial and not transport_verifies(packet):
        return Verdict.DROP_ICMP_BAD
    if not dp.errors_allowed(packet.src, now, echo=True):
        return Verdict.DROP_RATE_LIMITED
    build = icmp.build_echo_reply if packet.version == 4 else icmpv6.build_echo_reply
    if not _send_back(dp, side, packet, build(_header_back(side, packet), packet), now):
        return Verdict.DROP_TOO_BIG
    return Verdict.ECHO_ANSWERED


def refuse(dp: Datapath, side: Side, packet: IpPacket, why: Refusal, now: float, otherwise: Verdict, mtu: int = 0) -> Verdict:
    """Drop a packet and tell its sender why, unless RFC 1812 section 4.3.2.7 (RFC 4443 section 2.4) forbids it; then the
    verdict is `otherwise`.

    Never about an ICMP error, a later fragment, or a packet from or to something that is not one host.
    """
    if packet.is_icmp_error or packet.fragment_offset or is_multicast(packet.dst) or is_limited_group(packet):
        return otherwise
    if not dp.errors_allowed(packet.src, now):
        return Verdict.DROP_RATE_LIMITED
    source = _gateway_for(side, packet)
    original = bytes(memoryview(packet.buf)[L3 : packet.end])
    _send_back(dp, side, packet, why.build(_header_back(side, packet), source, packet, original, mtu), now)
    return why.verdict


def _gateway_for(side: Side, packet: IpPacket) -> bytes:
    """The gateway's address that a packet's sender is to hear from: of the same version, and of the same scope. Outside it is
    the one that the packet was sent to, if it was sent to one.
    """
    if isinstance(side, Uplink):
        return packet.dst if side.owns(packet.dst) else side.external_for(packet.src, packet.src)
    assert isinstance(side, Bridge)
    if packet.version == 4 or side.gateway6 is None:
        return side.gateway
    return side.link_local if is_link_local(packet.src) else side.gateway6


def is_limited_group(packet: IpPacket) -> bool:
    """Whether the frame was sent to a group at layer 2, which no error may answer."""
    return bool(packet.buf[ETH] & 1)


def _header_back(side: Side, packet: IpPacket) -> bytes:
    return bytes(packet.buf[ETH + 6 : ETH + 12]) + side.mac + packet.ethertype


def _send_back(dp: Datapath, side: Side, packet: IpPacket, frame: bytearray, now: float) -> bool:
    """Send a frame of our own to the station a packet came from; False if the link there is too small for it."""
    port: Port | None
    if isinstance(side, Uplink):
        loop_back = side.loopbacks[len(packet.src)].transmit
        if frame[ETH : ETH + 6] == side.mac and loop_back is not None:
            loop_back(memoryview(frame))  # what came by the loopback goes back by it
            return True
        port = side.port
    else:
        assert isinstance(side, Bridge)
        port = side.fdb.lookup(bytes(packet.buf[ETH + 6 : ETH + 12]), now)
    if port is None:
        return True
    if len(frame) - L3 <= port.mtu:
        port.transmit(memoryview(frame))
        return True
    if packet.version == 6:
        return False  # no link hands over more than it takes, and natgw makes no fragments of IPv6
    for piece in fragments(frame, port.mtu):  # the answer to a ping that came by a link with a larger MTU
        port.transmit(memoryview(piece))
    return True
