"""Whether a RST may close a flow: the window its receiver has told its sender of (RFC 9293 sections 3.4 and 3.10.7.4).

A host ignores a RST outside its receive window, so a flow must not be shortened by one: anybody who knows addresses and
ports could send it (requirement T6). A gateway knows a host's window from the host's own segments: it begins at the last
acknowledgement and is as long as the window beside it says, shifted by the scale of the SYN (RFC 7323 section 2.2).

    segments of this side          ack ......... ack + (window << scale)
    RST of the other side   < ack: old, ignored   | closes |   beyond: ignored

What is remembered is the last of each, on the leg of the side that sent them, which costs the fast path no more than storing
two numbers it has read along with the flags. Nothing that one side sends changes by what its own resets are judged, so who
forges one gains nothing by forging an ACK before it. Where a side has acknowledged nothing, any number is in its window. Its
scale is 0 where the gateway has not seen its SYN: the window is never taken for larger than it is.

Linux closes by the exact next number only (RFC 5961 section 3.2), or one that follows the sender's own last segment, and
drops what lies before it. Here every RST passes: the host knows better than the gateway what has arrived.
"""

from __future__ import annotations

import struct

from natgw.datapath.tcp_state import ACK, SYN, TcpState
from natgw.tables.flows import NOTHING_ACKNOWLEDGED, Leg
from natgw.wire.ip import IpPacket
from natgw.wire.tcp import window_scale

_SEQUENCE_NUMBERS = 1 << 32
_ACK_AND_WINDOW = struct.Struct("!IHH")
"""Acknowledgement, data offset and flags, window."""


def note(leg: Leg, packet: IpPacket, becomes: int) -> None:
    """Remember what a segment says of its sender's window, but for a RST: that is what is judged.

    `becomes` is the state that it leads to.
    """
    buf, l4 = packet.buf, packet.l4
    if packet.tcp_flags & SYN:
        note_syn(leg, buf, l4, becomes)
    else:
        leg.ack, _, leg.window = _ACK_AND_WINDOW.unpack_from(buf, l4 + 8)


def note_syn(leg: Leg, buf: bytearray, l4: int, becomes: int) -> None:
    """Remember what a SYN, or SYN+ACK, whose TCP header is at `l4` says of its sender's window."""
    ack, offset_flags, window = _ACK_AND_WINDOW.unpack_from(buf, l4 + 8)
    other = leg.flow.other(leg)
    scale = window_scale(buf[l4 : l4 + (offset_flags >> 10 & 0x3C)])
    leg.window_scale = scale or 0
    if scale is None:
        other.window_scale = 0  # both scale, or none (RFC 7323 section 2.2)
    leg.window = window >> leg.window_scale  # that of a SYN is not scaled itself
    leg.ack = ack if offset_flags & ACK else NOTHING_ACKNOWLEDGED
    if becomes == TcpState.SYN_SENT:
        other.ack = NOTHING_ACKNOWLEDGED  # a new connection: the numbers of an old one say nothing about it


def admits_reset(leg: Leg, packet: IpPacket) -> bool:
    """Whether a RST on a leg lies in the window of the side that it goes to."""
    receiver = leg.flow.other(leg)
    if receiver.ack == NOTHING_ACKNOWLEDGED:
        return True
    number = int.from_bytes(packet.buf[packet.l4 + 4 : packet.l4 + 8], "big")
    # A closed window takes the next number all the same (RFC 9293 table 6).
    return (number - receiver.ack) % _SEQUENCE_NUMBERS <= max(0, (receiver.window << receiver.window_scale) - 1)
