"""Sending what the walk decided: by a neighbour, in a size the link takes, or back as an ICMP error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from natgw.datapath.napt import verdict_of
from natgw.datapath.port import Port
from natgw.datapath.rewrite import can_translate, translate, translate_addresses
from natgw.datapath.sides import Bridge, NoWay, Side, Uplink
from natgw.datapath.verdict import Extra, Verdict
from natgw.tables.flows import Leg
from natgw.tables.neigh import MAX_QUEUED_FRAMES, Neighbour
from natgw.wire import icmp
from natgw.wire.checksum import ones_sum
from natgw.wire.ethernet import ETH, L3, TYPE_IPV4
from natgw.wire.ipv4 import ICMP_TIME_EXCEEDED, ICMP_UNREACHABLE, TCP, UDP, Ipv4Packet, parse_ipv4
from natgw.wire.segment import CannotSegment, fragments, limit_segment_bytes, segments, superframe_headers

if TYPE_CHECKING:
    from natgw.datapath.core import Datapath

_TYPE_IPV4 = TYPE_IPV4.to_bytes(2, "big")


def forward(dp: Datapath, leg: Leg, packet: Ipv4Packet, now: float, side: Side) -> Verdict:
    """Translate a packet that came in at `side` by its leg, and send it on."""
    if packet.ttl <= 1:
        return refuse(dp, side, packet, ICMP_TIME_EXCEEDED, 0, now, Verdict.DROP_TTL)
    neighbour = hop_of(dp, leg, now)
    if neighbour is None:
        return Verdict.DROP_NO_ROUTE
    must_cut = False
    if packet.total_length > neighbour.mtu > 0 and not _segments_fit(dp, packet, neighbour.mtu):
        if packet.df or (packet.is_superframe and packet.protocol != UDP):
            return refuse(dp, side, packet, ICMP_UNREACHABLE, icmp.UNREACHABLE_TOO_BIG, now, Verdict.DROP_TOO_BIG,
                          mtu=neighbour.mtu)
        must_cut = True
    if not can_translate(packet, leg):
        return Verdict.DROP_FRAGMENT
    if not dp.napt.advance(leg, packet, now):
        return Verdict.DROP_TCP_STATE
    key = packet.fragment_key if packet.more_fragments else b""
    translate(packet, leg)
    verdict = _send_cut(dp, neighbour, packet) if must_cut else send_by(dp, neighbour, packet, verdict_of(leg))
    if key:
        for frame in side.fragments.lead(key, leg, now):
            later = parse_ipv4(bytearray(frame), len(frame))
            if isinstance(later, Ipv4Packet):
                _follow(dp, leg, later, now)
    return verdict


def forward_later_fragment(dp: Datapath, side: Side, packet: Ipv4Packet, now: float) -> Verdict:
    """A fragment without ports goes where the first of its packet went, and waits if that has not come yet."""
    if packet.ttl <= 1:
        return Verdict.DROP_TTL
    key = packet.fragment_key
    leg = side.fragments.leader(key, now)
    if leg is not None:
        return _follow(dp, leg, packet, now)
    waits = side.fragments.wait(key, bytes(memoryview(packet.buf)[: packet.end]), now)
    return Verdict.FRAGMENT_WAITS if waits else Verdict.DROP_FRAGMENT


def _follow(dp: Datapath, leg: Leg, packet: Ipv4Packet, now: float) -> Verdict:
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
    destination = leg.rewrite[4:8]
    bridge = dp.bridge_of(destination)
    found: Neighbour[Port] | None = None
    if bridge is not None:
        found = bridge.neighbours.resolve(destination, now)
    elif dp.uplink is not None:
        way = dp.uplink.way_to(destination, now)
        found = None if isinstance(way, NoWay) else way
    if found is not None and found is not neighbour:
        dp.napt.flows.set_neighbour(leg, found)
    return found


def send_by(dp: Datapath, neighbour: Neighbour[Port], packet: Ipv4Packet, verdict: Verdict) -> Verdict:
    """Send a finished packet to a neighbour, or let it wait until the neighbour is found."""
    buf, end = packet.buf, packet.end
    if neighbour.transmit is None:
        _queue(dp, neighbour, memoryview(buf)[:end])
        return Verdict.QUEUED
    buf[ETH:L3] = neighbour.header
    neighbour.transmit(memoryview(buf)[:end])
    return verdict


def _queue(dp: Datapath, neighbour: Neighbour[Port], frame: memoryview) -> None:
    """Let a frame wait for a neighbour; the oldest gives way."""
    if len(neighbour.queue) == MAX_QUEUED_FRAMES:
        dp.extras[Extra.QUEUE_DROPPED] += 1
    neighbour.queue.append(bytes(frame))


def _segments_fit(dp: Datapath, packet: Ipv4Packet, mtu: int) -> bool:
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


def _send_cut(dp: Datapath, neighbour: Neighbour[Port], packet: Ipv4Packet) -> Verdict:
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


def answer_echo(dp: Datapath, side: Side, packet: Ipv4Packet, now: float) -> Verdict:
    """Answer a ping of natgw's own address (RFC 1122 section 3.2.2.6), unless it was damaged on its way here."""
    if not packet.checksum_is_partial and ones_sum(memoryview(packet.buf)[packet.l4 : packet.end]) != 0xFFFF:
        return Verdict.DROP_ICMP_BAD
    if not dp.errors_allowed(packet.src, now, echo=True):
        return Verdict.DROP_RATE_LIMITED
    _send_back(dp, side, packet, icmp.build_echo_reply(_header_back(side, packet), packet), now)
    return Verdict.ECHO_ANSWERED


def refuse(dp: Datapath, side: Side, packet: Ipv4Packet, type_: int, code: int, now: float, otherwise: Verdict,
           mtu: int = 0) -> Verdict:
    """Drop a packet and tell its sender why, unless RFC 1812 section 4.3.2.7 forbids it; then the verdict is `otherwise`.

    Never about an ICMP error, a later fragment, or a packet from or to something that is not one host.
    """
    if packet.is_icmp_error or packet.fragment_offset or packet.dst[0] >= 224 or is_limited_group(packet):
        return otherwise
    if not dp.errors_allowed(packet.src, now):
        return Verdict.DROP_RATE_LIMITED
    source = side.gateway if isinstance(side, Bridge) else packet.dst
    original = bytes(memoryview(packet.buf)[L3 : packet.end])
    frame = icmp.build_error(_header_back(side, packet), source, packet, original, type_, code, mtu)
    _send_back(dp, side, packet, frame, now)
    if type_ == ICMP_TIME_EXCEEDED:
        return Verdict.ICMP_TIME_EXCEEDED
    return Verdict.ICMP_TOO_BIG if code == icmp.UNREACHABLE_TOO_BIG else Verdict.ICMP_UNREACHABLE


def is_limited_group(packet: Ipv4Packet) -> bool:
    """Whether the frame was sent to a group at layer 2, which no error may answer."""
    return bool(packet.buf[ETH] & 1)


def _header_back(side: Side, packet: Ipv4Packet) -> bytes:
    return bytes(packet.buf[ETH + 6 : ETH + 12]) + side.mac + _TYPE_IPV4


def _send_back(dp: Datapath, side: Side, packet: Ipv4Packet, frame: bytearray, now: float) -> None:
    """Send a frame of our own to the station a packet came from."""
    port: Port | None
    if isinstance(side, Uplink):
        if frame[ETH : ETH + 6] == side.mac and side.loopback.transmit is not None:
            side.loopback.transmit(memoryview(frame))  # what came by the loopback goes back by it
            return
        port = side.port
    else:
        assert isinstance(side, Bridge)
        port = side.fdb.lookup(bytes(packet.buf[ETH + 6 : ETH + 12]), now)
    if port is None:
        return
    if len(frame) - L3 <= port.mtu:
        port.transmit(memoryview(frame))
        return
    for piece in fragments(frame, port.mtu):  # the answer to a ping that came by a link with a larger MTU
        port.transmit(memoryview(piece))
