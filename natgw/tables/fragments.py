"""Fragments on their way through a translator, which does not put them together (RFC 4787 REQ-14, RFC 6888 section 3).

Only the first fragment of a packet has ports, so only it tells the flow. The others follow it: by the packet's addresses,
protocol and identification they find the leg that the first one took. Those that come before it wait for it. All of it is
bounded, in packets, bytes and time, and the oldest packet gives way: a flood of fragments costs other fragments.
"""

from __future__ import annotations

from collections import OrderedDict

from natgw.tables.flows import Leg

MAX_PACKETS = 1024
MAX_WAITING_BYTES = 1 << 20
MAX_WAITING_EACH = 64
"""Fragments of 64 KiB at the smallest usual MTU, and a few."""
LIFETIME_S = 30.0
"""As long as Linux keeps fragments (net.ipv4.ipfrag_time)."""


class _Packet:
    __slots__ = ("leg", "until", "waiting")

    def __init__(self, until: float) -> None:
        self.until = until
        self.leg: Leg | None = None
        self.waiting: list[bytes] = []


class FragmentTable:
    """The fragmented packets of one side; `lost` counts fragments that waited in vain."""

    def __init__(self) -> None:
        self._packets: OrderedDict[bytes, _Packet] = OrderedDict()
        self._waiting_bytes = 0
        self.lost = 0

    def __len__(self) -> int:
        return len(self._packets)

    def lead(self, key: bytes, leg: Leg, now: float) -> list[bytes]:
        """The first fragment has taken `leg`; gives the fragments that waited for it, in the order they came."""
        packet = self._packet(key, now)
        packet.leg = leg
        waiting, packet.waiting = packet.waiting, []
        self._waiting_bytes -= sum(map(len, waiting))
        return waiting

    def leader(self, key: bytes, now: float) -> Leg | None:
        """The leg that the first fragment took, if it has come and its flow is still there."""
        packet = self._packets.get(key)
        if packet is None or packet.leg is None or packet.until <= now or packet.leg.flow.ended:
            return None
        return packet.leg

    def wait(self, key: bytes, frame: bytes, now: float) -> bool:
        """Keep a fragment whose first has not come; False if there are too many of its packet."""
        packet = self._packet(key, now)
        if len(packet.waiting) >= MAX_WAITING_EACH:
            return False
        packet.waiting.append(frame)
        self._waiting_bytes += len(frame)
        while self._waiting_bytes > MAX_WAITING_BYTES:
            self._drop_oldest()
        return True

    def expire(self, now: float) -> None:
        """Forget packets whose time is over. They lie in the order in which they began."""
        while self._packets and next(iter(self._packets.values())).until <= now:
            self._drop_oldest()

    def _packet(self, key: bytes, now: float) -> _Packet:
        packet = self._packets.get(key)
        if packet is not None and packet.until <= now:
            self._drop(key)
            packet = None
        if packet is None:
            if len(self._packets) >= MAX_PACKETS:
                self._drop_oldest()
            packet = self._packets[key] = _Packet(now + LIFETIME_S)
        return packet

    def _drop_oldest(self) -> None:
        self._drop(next(iter(self._packets)))

    def _drop(self, key: bytes) -> None:
        packet = self._packets.pop(key)
        self.lost += len(packet.waiting)
        self._waiting_bytes -= sum(map(len, packet.waiting))
