"""ICMP errors across the translator (RFC 5508 section 4; RFC 4787 REQ-14, RFC 5382 REQ-9).

An error quotes the packet it is about, as that packet was where the error arose: translated. To mean anything to the packet's
sender, the quotation must be put back: addresses, ports and checksums of the quoted packet first, then the error's own
addresses. The quoted packet left by one leg of a flow, so a packet that answered it would come back by the other leg; that
one is looked up, and the error goes where the answer would have gone.

A redirect is for the link it arises on, and goes no further: behind a translator it would tell a host to send past it.

An error neither ends a flow nor keeps it alive (RFC 4787 REQ-10: it must not end a mapping).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from natgw.datapath.forward import hop_of, send_by
from natgw.datapath.rewrite import parse_embedded, restore_embedded
from natgw.datapath.verdict import Verdict
from natgw.tables.flows import Realm, destination, source
from natgw.wire.checksum import checksum
from natgw.wire.ethernet import L3
from natgw.wire.ip import IpPacket
from natgw.wire.ipv4 import ICMP, ICMP_REDIRECT, ICMPV6
from natgw.wire.ipv6 import ADDRESSES, icmp_checksum

if TYPE_CHECKING:
    from natgw.datapath.core import Datapath


def translate_error(dp: Datapath, realm: Realm, packet: IpPacket, now: float) -> Verdict:
    """Send an ICMP error that arrived in `realm` on to whoever sent the packet it quotes."""
    if packet.version == 4 and packet.icmp_type == ICMP_REDIRECT:
        return Verdict.DROP_ICMP_TYPE
    embedded = parse_embedded(packet)
    if embedded is None:
        return Verdict.DROP_ICMP_BAD
    answer = dp.napt.flows.find(realm, embedded.protocol, embedded.reversed_key)
    if answer is None:
        return Verdict.DROP_ICMP_NO_FLOW
    flow = answer.flow
    if embedded.protocol in (ICMP, ICMPV6) and embedded.is_query != (answer is flow.reply):
        return Verdict.DROP_ICMP_NO_FLOW
    if packet.ttl <= 1:
        return Verdict.DROP_TTL
    neighbour = hop_of(dp, answer, now)
    if neighbour is None:
        return Verdict.DROP_NO_ROUTE
    message = bytearray(packet.buf[packet.l4 : packet.end])
    restore_embedded(message, embedded, flow.other(answer).key)
    # A router on the way keeps its own address, so that traceroute shows it; an address that the flow translates is
    # translated, and nothing inside is ever shown outside.
    comes_from_inside = dp.uplink is None or realm is not dp.uplink.realm
    translates_source = comes_from_inside or packet.src == source(answer.key)
    _write(packet, message, source(answer.rewrite) if translates_source else packet.src, destination(answer.rewrite))
    return send_by(dp, neighbour, packet, Verdict.TRANSLATED_ERROR)


def is_about_untranslated(dp: Datapath, packet: IpPacket) -> bool:
    """Whether a packet from outside is an ICMP error about what its receiver sent to a destination that is reached as it is;
    such an error may come from any router on the way there.
    """
    if not packet.is_icmp_error or packet.is_fragment:
        return False
    embedded = parse_embedded(packet)
    return (embedded is not None and source(embedded.key) == packet.dst
            and dp.napt.is_untranslated(destination(embedded.key)))


def _write(packet: IpPacket, message: bytearray, src: bytes, dst: bytes) -> None:
    """Give a packet new addresses and a new ICMP message of the same length, one hop less, and the checksums of that."""
    buf = packet.buf
    message[2:4] = b"\0\0"
    message[2:4] = icmp_checksum(message, packet, src, dst).to_bytes(2, "big")
    buf[packet.l4 : packet.end] = message
    if packet.version == 6:
        buf[ADDRESSES : ADDRESSES + 32] = src + dst
        buf[L3 + 7] -= 1
        return
    buf[L3 + 12 : L3 + 20] = src + dst
    buf[L3 + 8] -= 1
    buf[L3 + 10 : L3 + 12] = b"\0\0"
    buf[L3 + 10 : L3 + 12] = checksum(memoryview(buf)[L3 : packet.l4]).to_bytes(2, "big")
