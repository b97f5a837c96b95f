"""Why a packet is sent back, and how that is said in ICMP (RFC 792, RFC 1812) and in ICMPv6 (RFC 4443)."""

from __future__ import annotations

from enum import Enum

from natgw.datapath.verdict import Verdict
from natgw.wire import icmp, icmpv6
from natgw.wire.ip import IpPacket
from natgw.wire.ipv4 import ICMP_TIME_EXCEEDED, ICMP_UNREACHABLE
from natgw.wire.ipv6 import ICMPV6_TIME_EXCEEDED, ICMPV6_TOO_BIG, ICMPV6_UNREACHABLE


class Refusal(Enum):
    """Type and code in ICMP, those in ICMPv6, and what it counts as."""

    TIME_EXCEEDED = ((ICMP_TIME_EXCEEDED, 0), (ICMPV6_TIME_EXCEEDED, 0), Verdict.ICMP_TIME_EXCEEDED)
    NO_ROUTE = ((ICMP_UNREACHABLE, icmp.UNREACHABLE_NET), (ICMPV6_UNREACHABLE, icmpv6.NO_ROUTE), Verdict.ICMP_UNREACHABLE)
    NO_HOST = ((ICMP_UNREACHABLE, icmp.UNREACHABLE_HOST), (ICMPV6_UNREACHABLE, icmpv6.ADDRESS_UNREACHABLE),
               Verdict.ICMP_UNREACHABLE)
    NO_PORT = ((ICMP_UNREACHABLE, icmp.UNREACHABLE_PORT), (ICMPV6_UNREACHABLE, icmpv6.PORT_UNREACHABLE),
               Verdict.ICMP_UNREACHABLE)
    PROHIBITED = ((ICMP_UNREACHABLE, icmp.UNREACHABLE_FILTERED), (ICMPV6_UNREACHABLE, icmpv6.PROHIBITED),
                  Verdict.ICMP_UNREACHABLE)
    BEYOND_SCOPE = ((ICMP_UNREACHABLE, icmp.UNREACHABLE_HOST), (ICMPV6_UNREACHABLE, icmpv6.BEYOND_SCOPE),
                    Verdict.ICMP_UNREACHABLE)
    """From a link-local address to one elsewhere."""
    TOO_BIG = ((ICMP_UNREACHABLE, icmp.UNREACHABLE_TOO_BIG), (ICMPV6_TOO_BIG, 0), Verdict.ICMP_TOO_BIG)

    @property
    def verdict(self) -> Verdict:
        return self.value[2]

    def build(self, eth: bytes, source: bytes, packet: IpPacket, original: bytes, mtu: int = 0) -> bytearray:
        """The frame that tells the sender of `packet`, from address `source`. `original` is the packet as it sent it."""
        if packet.version == 4:
            type_, code = self.value[0]
            return icmp.build_error(eth, source, packet, original, type_, code, mtu)
        type_, code = self.value[1]
        return icmpv6.build_error(eth, source, packet, original, type_, code, mtu)
