"""The words of the model (see `model`): what of a packet counts, what may become of it, and what is remembered of a flow."""

from __future__ import annotations

from dataclasses import dataclass

Endpoint = tuple[str, int]
QUERIES = ("icmp", "icmpv6")
"""Whose identifier does for a port."""
WITH_PORTS = ("udp", "tcp", *QUERIES, "udplite", "sctp")
IDLE = {"udp": ("udp_s", "udp_stream_s"), "icmp": ("icmp_s", "icmp_s"), "icmpv6": ("icmp_s", "icmp_s"),
        "udplite": ("udplite_s", "udplite_stream_s"), "sctp": ("sctp_init_s", "sctp_established_s"),
        "gre": ("gre_s", "gre_stream_s")}
"""The timeouts of a conversation that has not been answered, and of one that has; TCP has one for each state."""
OTHER = ("other_s", "other_s")
FIRST_UNPRIVILEGED = 1024
STREAM_AFTER_S = 2.0
TOLD = {"ttl": {4: (11, 0), 6: (3, 0)}, "no port": {4: (3, 13), 6: (1, 1)}, "nobody": {4: (3, 3), 6: (1, 4)}}
"""Type and code of the ICMP error that says so to a sender (RFC 792, RFC 1812), and of ICMPv6's (RFC 4443)."""


@dataclass(frozen=True)
class Segment:
    """What of a packet a NAT looks at. `protocol` is "udp", "tcp", "icmp", "icmpv6", "udplite", "sctp"; "gre" and numbers
    have no ports. Addresses are text, and say which version the packet is of.

    An ICMP query's identifier is the port of the end that is behind the NAT, and the other end's port is 0. Where there are no
    ports, both are 0.
    `event` is what a TCP segment says: "syn", "synack", "ack", "fin", "rst", or "" for flags no TCP sends; for ICMP it is
    "ask" or "answer".
    """

    protocol: str
    src: Endpoint
    dst: Endpoint
    event: str = ""
    ttl: int = 64

    @property
    def version(self) -> int:
        return 6 if ":" in self.src[0] else 4


@dataclass(frozen=True)
class Arrives:
    """The packet arrives: `to` is "outside" or a container's address."""

    to: str
    src: Endpoint
    dst: Endpoint
    flow: int = -1


@dataclass(frozen=True)
class Dropped:
    """Nothing arrives, but perhaps an ICMP error (type, code) at the sender: gateways may send fewer than they might."""

    why: str
    error: tuple[int, int] | None = None

    @classmethod
    def telling(cls, why: str, packet: Segment) -> Dropped:
        """Such an error is of the packet's version."""
        return cls(why, TOLD[why][packet.version])


@dataclass(frozen=True)
class Answered:
    """The gateway itself answers a ping."""


Outcome = Arrives | Dropped | Answered


@dataclass
class ModelMapping:
    protocol: str
    internal: Endpoint
    external: Endpoint
    scope: tuple[object, ...]
    shared: bool


@dataclass
class ModelFlow:
    """One conversation, by its three endpoints: `internal` is seen as `external` by `remote`."""

    number: int
    protocol: str
    internal: Endpoint
    external: Endpoint
    remote: Endpoint
    kind: str
    mapping: ModelMapping | None
    state: str
    timeout_s: float
    created: float
    last_out: float
    last_in: float
    answered: bool = False
    waits_to_stream: bool = False

    @property
    def began_inside(self) -> bool:
        return self.kind == "outbound"


# What a TCP segment does to a conversation, as `state: event of the side that began > next, ...; of the other side > next`.
_TCP = {
    "new": ("syn>syn_sent ack>established", ""),
    "syn_sent": ("syn>syn_sent rst>close", "syn>syn_sent2 synack>syn_recv ack>syn_sent rst>close"),
    "syn_sent2": ("syn>syn_sent2 synack>syn_recv rst>close", "syn>syn_sent2 synack>syn_recv ack>syn_sent2 rst>close"),
    "syn_recv": ("syn>syn_recv synack>syn_recv ack>established fin>fin_wait rst>close",
                 "synack>syn_recv ack>syn_recv fin>fin_wait rst>close"),
    "established": ("syn>established ack>established fin>fin_wait rst>close",
                    "synack>established ack>established fin>fin_wait rst>close"),
    "fin_wait": ("syn>fin_wait ack>close_wait fin>last_ack rst>close", "synack>fin_wait ack>close_wait fin>last_ack rst>close"),
    "close_wait": ("syn>close_wait ack>close_wait fin>last_ack rst>close",
                   "synack>close_wait ack>close_wait fin>last_ack rst>close"),
    "last_ack": ("syn>last_ack ack>time_wait fin>last_ack rst>close", "synack>last_ack ack>time_wait fin>last_ack rst>close"),
    "time_wait": ("syn>syn_sent ack>time_wait fin>time_wait rst>close",
                  "synack>time_wait ack>time_wait fin>time_wait rst>close"),
    "close": ("syn>syn_sent ack>established fin>close rst>close", "synack>close ack>established fin>close rst>close"),
}
TCP_STATES = {state: tuple(dict(rule.split(">") for rule in side.split()) for side in sides) for state, sides in _TCP.items()}


class Disagreement(AssertionError):
    """The gateway chose what it may not choose."""
