"""Flows and mappings: what the translator remembers.

A *mapping* binds an internal address and port to an external one (RFC 4787 section 2). A *flow* is one conversation through
the gateway; it has two *legs*, one for each direction, and a mapping can carry many flows. A leg is found by its key, the
12 bytes source, destination, source port, destination port as they lie in a packet, and holds the 12 bytes they become
with the checksum changes that follow from it. IPv6's addresses make it 36 bytes, in the same tables: the length tells them
apart.

    inside   172.17.0.2:5000 > 203.0.113.9:80   --original-->   198.51.100.2:5000 > 203.0.113.9:80   outside
             203.0.113.9:80 > 172.17.0.2:5000   <---reply----   203.0.113.9:80 > 198.51.100.2:5000

A *realm* is one side's view: the legs of packets that arrive there. Each network has one and the uplink has one, since the
same 12 bytes may mean different flows on different sides. For ICMP queries the identifier stands for both ports.

These are the objects a packet meets; `natgw.tables.flowtable` has them all, and lets those rest that have not been used for
a while (`natgw.tables.resting`). A leg that packets go by is always awake, and stays the same object while it is.
"""

from __future__ import annotations

from typing import Any

from natgw.tables.neigh import Neighbour
from natgw.wire.ipv4 import ICMP, ICMPV6, TCP, UDP


def leg_key(src: bytes, dst: bytes, sport: int, dport: int) -> bytes:
    """The 12 bytes (36 of IPv6) a packet with these addresses and ports ends its IP header and begins its transport with."""
    return src + dst + (sport << 16 | dport).to_bytes(4, "big")


def source(key: bytes) -> bytes:
    """The source address in a leg's key or rewrite."""
    return key[: len(key) - 4 >> 1]


def destination(key: bytes) -> bytes:
    """The destination address in a leg's key or rewrite."""
    return key[len(key) - 4 >> 1 : -4]


def reversed_key(key: bytes) -> bytes:
    """The key of a packet that would answer one with `key`."""
    return destination(key) + source(key) + key[-2:] + key[-4:-2]


class Realm:
    """The legs of packets that arrive on one side, by protocol; ICMP queries have the identifier as both ports.

    What has no ports has 0 for them: there is one flow between two addresses. These are the legs that are awake, for the fast
    path to look in; `FlowTable.find` knows the others too.
    """

    __slots__ = ("icmp", "others", "tcp", "udp")

    def __init__(self) -> None:
        self.tcp: dict[bytes, Leg] = {}
        self.udp: dict[bytes, Leg] = {}
        self.icmp: dict[bytes, Leg] = {}
        self.others: dict[int, dict[bytes, Leg]] = {}

    def of(self, protocol: int) -> dict[bytes, Leg]:
        """The legs of a protocol."""
        if protocol == TCP:
            return self.tcp
        if protocol == UDP:
            return self.udp
        if protocol in (ICMP, ICMPV6):
            return self.icmp
        return self.others.setdefault(protocol, {})

    def __len__(self) -> int:
        return len(self.tcp) + len(self.udp) + len(self.icmp) + sum(map(len, self.others.values()))


class Mapping:
    """An internal endpoint's external one. Endpoints are an address and 2 bytes of port; `flows` counts the flows that use it.

    `scope` is what the mapping depends on of the remote endpoint: nothing, its address, or all of it. `shared` says that
    other internal endpoints may have the same external one towards other remotes, as Linux has it: then only a flow tells
    whose it is.
    """

    __slots__ = ("external", "flows", "internal", "protocol", "scope", "shared")

    def __init__(self, protocol: int, internal: bytes, external: bytes, scope: bytes = b"", *, shared: bool = False) -> None:
        self.protocol = protocol
        self.internal = internal
        self.external = external
        self.scope = scope
        self.shared = shared
        self.flows = 0


NOTHING_ACKNOWLEDGED = -1
"""What TCP's side of a leg has acknowledged before its first ACK."""


class Leg:
    """One direction of a flow: what to find it by, and what to do to its packets.

    `key_sum` is what the addresses add to the sum of an IP header, less the Ethernet type that the fast path reads along
    with its first word. `ip_delta` is the change of the IP header checksum for addresses and TTL together; `l4_delta`
    that of a complete transport checksum, for addresses and ports; `addr_delta` that of a partial one, for addresses only.
    `fast` is the verdict to count when the fast path translates by this leg, and 0 while only the slow path may. `moves` is
    what TCP's state machine makes of a segment's flags at the moment (`natgw.datapath.tcp_state`). `ack`, `window` and
    `window_scale` are what TCP's side of this leg last said of its receive window.
    """

    __slots__ = ("ack", "addr_delta", "bytes", "fast", "flow", "ip_delta", "key", "key_sum", "l4_delta", "last", "moves",
                 "neighbour", "packets", "realm", "rewrite", "window", "window_scale")

    flow: Flow
    moves: tuple[int, ...]

    def __init__(self, key: bytes, rewrite: bytes, realm: Realm, neighbour: Neighbour[Any]) -> None:
        self.key = key
        self.rewrite = rewrite
        self.realm = realm
        self.neighbour = neighbour
        self.key_sum = self.ip_delta = self.l4_delta = self.addr_delta = 0
        self.fast = 0
        self.last = 0.0
        self.packets = 0
        self.bytes = 0
        self.ack = NOTHING_ACKNOWLEDGED
        self.window = self.window_scale = 0


NOWHERE = -1
"""The slot of a flow that is not in the table."""
AT_REST = -2
"""The slot of a flow whose place in the table has been taken by its record."""


class Flow:
    """A conversation. `original` is the leg of the side that began it; `timeout_s` the idle time it is given.

    `kind` is "outbound" if it began inside, "published" if it came in by a published port, "inbound" by a mapping.
    `slot` and `reminder` are where it lies in the wheels of the table and of the flows at rest.
    """

    __slots__ = ("created", "ended", "kind", "mapping", "network", "original", "protocol", "reminder", "reply", "slot", "state",
                 "timeout_s")

    def __init__(self, protocol: int, original: Leg, reply: Leg, mapping: Mapping | None, network: str, kind: str) -> None:
        self.protocol = protocol
        self.original = original
        self.reply = reply
        self.ended = False
        self.mapping = mapping
        self.network = network
        self.kind = kind
        self.state = 0
        self.created = 0.0
        self.timeout_s = 0.0
        self.slot = NOWHERE
        self.reminder = NOWHERE
        original.flow = self
        reply.flow = self

    @property
    def inner(self) -> Leg:
        """The leg of packets from inside."""
        return self.original if self.kind == "outbound" else self.reply

    def other(self, leg: Leg) -> Leg:
        """The leg of the other direction."""
        return self.reply if leg is self.original else self.original


def _mark(slot: int, *, ended: bool) -> Flow:
    nowhere: Neighbour[Any] = Neighbour(b"", 0.0)
    flow = Flow(0, Leg(b"", b"", Realm(), nowhere), Leg(b"", b"", Realm(), nowhere), None, "", "")
    flow.slot, flow.ended = slot, ended
    return flow


ENDED = _mark(NOWHERE, ended=True)
"""What a leg calls its flow once that has ended: a flow and its legs must not keep each other alive."""
RESTING = _mark(AT_REST, ended=False)
"""The same, once the flow rests. Whoever has kept the leg asks `FlowTable.current` for the one that took its place."""
