"""What became of a frame. Every frame that comes in ends in exactly one verdict, and each verdict is a counter.

The names are the counters' names (`natgw stats`, and `natgw_frames_total{verdict=...}`); those that begin with `drop_` are
losses. A frame that waits for ARP counts as `queued` once; if it then cannot be sent, `Extra.QUEUE_DROPPED` says so.
"""

from __future__ import annotations

from enum import IntEnum, auto

from natgw.wire.ipv4 import Malformed


class Verdict(IntEnum):
    # Layer 2
    BRIDGED = 0
    FLOODED = auto()
    ABSORBED = auto()
    """For the gateway itself: ARP it answered or learned from."""
    DHCP = auto()
    """For the DHCP server of the network: answered, or noted."""
    # Layer 3
    TRANSLATED_OUT = auto()
    TRANSLATED_IN = auto()
    TRANSLATED_HAIRPIN = auto()
    TRANSLATED_ERROR = auto()
    """An ICMP error, put back in the words of the flow it belongs to."""
    ROUTED = auto()
    """Forwarded without translation (a network without masquerade)."""
    TO_HOST = auto()
    """Handed to the host by way of natgw0, or left to it on the uplink."""
    ECHO_ANSWERED = auto()
    QUEUED = auto()
    HELD = auto()
    """An unsolicited SYN that waits for one that crosses it."""
    FRAGMENT_WAITS = auto()
    """A fragment that came before the first of its packet."""
    FRAGMENTED = auto()
    ICMP_TIME_EXCEEDED = auto()
    ICMP_UNREACHABLE = auto()
    ICMP_TOO_BIG = auto()

    DROP_RUNT = auto()
    DROP_BAD_SOURCE_MAC = auto()
    DROP_SOURCE_IS_GATEWAY = auto()
    DROP_LINK_RESERVED = auto()
    DROP_SAME_PORT = auto()
    DROP_NOT_FOR_US = auto()
    DROP_ETHERTYPE = auto()
    DROP_BAD_ARP = auto()
    DROP_BAD_DHCP = auto()
    """No DHCP message, or one about another station than it is from."""
    DROP_BAD_ND = auto()
    """Neighbour discovery that RFC 4861 says to ignore."""
    DROP_BAD_VERSION = auto()
    DROP_BAD_IHL = auto()
    DROP_BAD_LENGTH = auto()
    DROP_BAD_CHECKSUM = auto()
    DROP_BAD_TRANSPORT = auto()
    DROP_BAD_EXTENSION = auto()
    DROP_ROUTING_HEADER = auto()
    """An IPv6 routing header that is not used up (RFC 5095)."""
    DROP_BAD_OFFLOAD = auto()
    DROP_MARTIAN_SOURCE = auto()
    DROP_MARTIAN_DESTINATION = auto()
    DROP_LAND = auto()
    DROP_TTL = auto()
    DROP_TOO_BIG = auto()
    DROP_FRAGMENT = auto()
    DROP_PROTOCOL = auto()
    DROP_NO_ROUTE = auto()
    DROP_NO_UPLINK = auto()
    DROP_NO_HOST = auto()
    DROP_NEIGHBOURS_FULL = auto()
    DROP_ISOLATED = auto()
    """From one network to another, or to another's gateway."""
    DROP_INTERNAL = auto()
    """From an internal network to anywhere else."""
    DROP_ICC = auto()
    """Between containers of a network that keeps them apart."""
    DROP_NO_MAPPING = auto()
    DROP_FILTERED = auto()
    DROP_PORTS_EXHAUSTED = auto()
    DROP_ADDRESS_TAKEN = auto()
    """Of a protocol without ports, that another container speaks with the same remote host already."""
    DROP_HOST_PORTS = auto()
    """The host has as many mappings as one host may have."""
    DROP_HOST_RATE = auto()
    """The host begins flows faster than one host may."""
    DROP_HAIRPIN = auto()
    DROP_FLOWS_FULL = auto()
    DROP_FLOW_COLLISION = auto()
    DROP_TCP_STATE = auto()
    DROP_ICMP_BAD = auto()
    DROP_ICMP_NO_FLOW = auto()
    DROP_ICMP_TYPE = auto()
    DROP_RATE_LIMITED = auto()
    """An ICMP error was due, but not allowed to go (RFC 1812 section 4.3.2.8)."""
    DROP_BANDWIDTH = auto()
    """The container sends more than the limit on its bandwidth lets through."""

    @property
    def label(self) -> str:
        """The counter's name."""
        return self.name.lower()

    @property
    def is_drop(self) -> bool:
        return self.name.startswith("DROP_")


class Extra(IntEnum):
    """Things counted beside the verdicts."""

    FAST_PATH = 0
    """Frames the fast path decided, whatever their verdict."""
    COALESCED = auto()
    """Datagrams that left inside a UDP superframe natgw made."""
    RESIZED_SUPERFRAMES = auto()
    """TCP superframes whose segments were made smaller for a link with a smaller MTU."""
    SPLIT_SUPERFRAMES = auto()
    """Superframes cut in software by the datapath, to fragment or refuse their packets one by one."""
    QUEUE_DROPPED = auto()
    FRAGMENTS_LOST = auto()
    """Fragments that waited for the first of their packet in vain."""
    SYN_REFUSED = auto()
    """Held SYNs that were answered with an ICMP error in the end."""
    ARP_REQUESTS = auto()
    ND_SOLICITATIONS = auto()
    ROUTER_ADVERTISEMENTS = auto()
    FDB_FULL = auto()
    FLOWS_CREATED = auto()
    FLOWS_ENDED = auto()

    @property
    def label(self) -> str:
        return self.name.lower()


MALFORMED_VERDICTS = {
    Malformed.RUNT: Verdict.DROP_RUNT,
    Malformed.BAD_VERSION: Verdict.DROP_BAD_VERSION,
    Malformed.BAD_IHL: Verdict.DROP_BAD_IHL,
    Malformed.BAD_LENGTH: Verdict.DROP_BAD_LENGTH,
    Malformed.BAD_CHECKSUM: Verdict.DROP_BAD_CHECKSUM,
    Malformed.BAD_TRANSPORT: Verdict.DROP_BAD_TRANSPORT,
    Malformed.BAD_EXTENSION: Verdict.DROP_BAD_EXTENSION,
    Malformed.ROUTING_HEADER: Verdict.DROP_ROUTING_HEADER,
}
