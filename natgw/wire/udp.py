"""UDP (RFC 768) as natgw sends it itself.

     0       2       4       6       8
    +-------+-------+-------+-------+------
    | source| dest. | length| chksum| data
    +-------+-------+-------+-------+------
"""

from __future__ import annotations

import struct

from natgw.wire.checksum import fold, ones_sum, pseudo_sum
from natgw.wire.ipv4 import UDP

UDP_BYTES = 8
_HEADER = struct.Struct("!HHHH")


def build_udp(src: bytes, dst: bytes, sport: int, dport: int, data: bytes) -> bytes:
    """A datagram with its checksum; `src` and `dst` are the IP addresses, of IPv4 or IPv6, of the packet it will be in."""
    length = UDP_BYTES + len(data)
    datagram = _HEADER.pack(sport, dport, length, 0) + data
    total = fold(pseudo_sum(src + dst, UDP, length) + ones_sum(datagram)) ^ 0xFFFF
    return _HEADER.pack(sport, dport, length, total or 0xFFFF) + data
