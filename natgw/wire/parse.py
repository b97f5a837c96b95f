"""The packet in a frame, of either version."""

from __future__ import annotations

from natgw.wire.ethernet import L3
from natgw.wire.ip import IpPacket
from natgw.wire.ipv4 import Malformed, parse_ipv4
from natgw.wire.ipv6 import parse_ipv6


def parse_packet(buf: bytearray, n: int) -> IpPacket | Malformed:
    """What `parse_ipv6` gives if the packet says that it is IPv6, else what `parse_ipv4` gives."""
    return parse_ipv6(buf, n) if n > L3 and buf[L3] >> 4 == 6 else parse_ipv4(buf, n)
