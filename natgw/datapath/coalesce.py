"""Putting UDP datagrams together again before they are written (what WireGuard's Go implementation calls GRO).

A small packet costs its system calls. So datagrams of one flow and one size that are read in one wake-up are appended to
one buffer, a *run*, and written once as a UDP superframe; the kernel cuts it into the same datagrams at the other end.
Nothing is held back: the pump flushes before every wake-up ends. Each flow has a run of its own, so that flows that take
turns are merged too (32 of them: from 0.40 of the kernel's rate to 0.87, by `tools/bench --only "32 flows"`). Which runs there
are, and the order in which things leave, is `natgw.datapath.outgoing`'s matter.

Merged is only what the receiver cannot tell apart from the datagrams sent singly: same addresses, ports, TOS, TTL and
length; DF set (the IP id means nothing then, RFC 6864) ; and a checksum that was still to be completed, since a complete
one would be replaced, and an error in it hidden.
"""

from __future__ import annotations

import struct

from natgw.tables.flows import Leg
from natgw.wire.checksum import adjust, adjust_partial, delta
from natgw.wire.ethernet import L3
from natgw.wire.vnet import GSO_UDP_L4, NEEDS_CSUM, VNET, VNET_BYTES

MAX_DATAGRAMS = 64
"""UDP_MAX_SEGMENTS of kernels before 6.9; later ones allow 128."""
HEADERS = L3 + 28
"""Bytes in a buffer before the payload: offload header, Ethernet, IPv4 without options, UDP."""
_MAX_BYTES = L3 + 65535
_U16 = struct.Struct("!H")


class Run:
    """Datagrams of one flow that will leave together.

    The fields from `macs` on are those of the frames as they came in, compared by the fast path one by one: a datagram that
    agrees in all of them gets its payload appended and is done with.
    """

    __slots__ = ("buf", "check", "count", "end", "kind", "leg", "limit", "macs", "payload", "total", "ttl_proto", "udp_sum",
                 "view")

    leg: Leg

    def __init__(self) -> None:
        self.buf = bytearray(_MAX_BYTES + 1)
        self.view = memoryview(self.buf)
        self.macs = b""
        self.kind = self.total = self.ttl_proto = self.udp_sum = self.check = 0
        self.payload = self.count = self.end = self.limit = 0

    def start(self, buf: bytearray, end: int, leg: Leg) -> None:
        """Begin with a frame that is already translated, its Ethernet header included. The caller sets the fields to match."""
        self.view[:end] = memoryview(buf)[:end]
        self.leg = leg
        self.count = 1
        self.end = end
        self.payload = end - HEADERS
        self.limit = min(_MAX_BYTES, HEADERS + MAX_DATAGRAMS * self.payload) - self.payload

    def flush(self) -> int:
        """Write what is there; gives the number of datagrams beyond the first."""
        more = self.count - 1
        leg = self.leg
        transmit = leg.neighbour.transmit
        if more:
            leg.packets += more
            leg.bytes += more * self.total
            self._seal()
        if transmit is not None:
            transmit(self.view[: self.end])
        return more

    def _seal(self) -> None:
        """Turn the first datagram's headers into those of the superframe."""
        buf, total = self.buf, self.end - L3
        VNET.pack_into(buf, 0, NEEDS_CSUM, GSO_UDP_L4, HEADERS - VNET_BYTES, self.payload, HEADERS - VNET_BYTES - 8, 6)
        longer = delta(buf[L3 + 2 : L3 + 4], total.to_bytes(2, "big"))
        _U16.pack_into(buf, L3 + 10, adjust(_U16.unpack_from(buf, L3 + 10)[0], longer))
        _U16.pack_into(buf, L3 + 2, total)
        # The UDP length is in the datagram and once more in the pseudo-header, of which the field holds the sum.
        _U16.pack_into(buf, L3 + 24, total - 20)
        _U16.pack_into(buf, L3 + 26, adjust_partial(_U16.unpack_from(buf, L3 + 26)[0], longer))
