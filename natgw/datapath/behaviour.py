"""How the translator behaves: every choice that the RFCs name or leave open, as one value that can be replaced while it runs.

RFC 4787 (UDP), 5382 (TCP) and 5508 (ICMP) say which behaviours NATs have and which they should have; RFC 6888 adds what a
carrier needs. The words here are theirs. The defaults are what they ask for: endpoint-independent mapping, address and
port-dependent filtering.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network


class Dependence(Enum):
    """What of the remote endpoint a mapping, or a filter, depends on (RFC 4787 sections 4.1 and 5)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"

    def scope(self, remote: bytes) -> bytes:
        """The part that counts of a remote endpoint (an address and 2 bytes of port)."""
        if self is Dependence.ADDRESS_AND_PORT_DEPENDENT:
            return remote
        return remote[:-2] if self is Dependence.ADDRESS_DEPENDENT else b""


SHORT_NAMES = {
    "mapping": {"eim": Dependence.ENDPOINT_INDEPENDENT, "adm": Dependence.ADDRESS_DEPENDENT,
                "apdm": Dependence.ADDRESS_AND_PORT_DEPENDENT},
    "filtering": {"eif": Dependence.ENDPOINT_INDEPENDENT, "adf": Dependence.ADDRESS_DEPENDENT,
                  "apdf": Dependence.ADDRESS_AND_PORT_DEPENDENT},
}
"""The usual abbreviations of each choice."""


@dataclass(frozen=True, kw_only=True)
class NatBehaviour:
    """Mapping and filtering of one protocol, chosen independently of each other.

    `overload` lets one external port serve several internal endpoints that talk to different remote ones, as Linux does
    (and against RFC 4787 REQ-1); it needs mapping and filtering that depend on address and port.
    """

    mapping: Dependence = Dependence.ENDPOINT_INDEPENDENT
    filtering: Dependence = Dependence.ADDRESS_AND_PORT_DEPENDENT
    overload: bool = False

    def __post_init__(self) -> None:
        strict = Dependence.ADDRESS_AND_PORT_DEPENDENT
        if self.overload and (self.mapping, self.filtering) != (strict, strict):
            raise ValueError("overload needs mapping and filtering that depend on address and port (apdm, apdf)")


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Idle lifetimes of a flow by its state, in seconds. The defaults are profile `rfc`.

    RFC 4787 REQ-5 (UDP at least 120 s, 300 s recommended), RFC 5382 REQ-5 (TCP: established at least 7440 s, transitory at
    least 240 s), RFC 5508 REQ-1 (ICMP queries at least 60 s). `udp_stream_s` holds for UDP that goes both ways, and so do
    `udplite_stream_s`, `gre_stream_s` and `sctp_established_s` from the first answer on. No RFC names times for these: UDP-Lite
    has UDP's, SCTP has TCP's, and the rest has the time that nf_conntrack gives to what it does not know.
    """

    udp_s: float = 300.0
    udp_stream_s: float = 300.0
    udplite_s: float = 300.0
    udplite_stream_s: float = 300.0
    sctp_init_s: float = 240.0
    sctp_established_s: float = 7440.0
    gre_s: float = 600.0
    gre_stream_s: float = 600.0
    other_s: float = 600.0
    icmp_s: float = 60.0
    tcp_syn_sent_s: float = 240.0
    tcp_syn_recv_s: float = 240.0
    tcp_established_s: float = 7440.0
    tcp_fin_wait_s: float = 240.0
    tcp_close_wait_s: float = 7440.0
    tcp_last_ack_s: float = 240.0
    tcp_time_wait_s: float = 240.0
    tcp_close_s: float = 240.0

    def __post_init__(self) -> None:
        for item in fields(self):
            if getattr(self, item.name) <= 0:
                raise ValueError(f"timeout {item.name.removesuffix('_s')} must be more than 0 seconds")


TIMEOUT_PROFILES = {
    "rfc": Timeouts(),
    # net/netfilter/nf_conntrack_proto_{tcp,udp,icmp,gre,sctp,generic}.c
    "linux": Timeouts(udp_s=30, udp_stream_s=120, udplite_s=30, udplite_stream_s=120, sctp_init_s=3, sctp_established_s=210,
                      gre_s=30, gre_stream_s=180, other_s=600, icmp_s=30, tcp_syn_sent_s=120, tcp_syn_recv_s=60,
                      tcp_established_s=432000, tcp_fin_wait_s=120, tcp_close_wait_s=60, tcp_last_ack_s=30,
                      tcp_time_wait_s=120, tcp_close_s=10),
}


@dataclass(frozen=True, kw_only=True)
class NatConfig:
    """All of the translator's behaviour.

    - `udp`, `tcp`: mapping and filtering; UDP-Lite is treated as UDP is, SCTP and DCCP as TCP is. ICMP queries are mapped
      endpoint-independently and answered by whom they went to. What has no ports is one flow between two addresses.
    - `allocation`: the name of the port policy, see natgw.datapath.allocation; `parity` keeps odd ports odd and even ones
      even where that can be had (RFC 4787 section 4.2.2).
    - `external_addresses`: addresses of the uplink to translate to; none (of the packet's version) means the one of the
      route that is taken.
      `paired`: an internal host keeps to one of them (RFC 4787 REQ-2); else each mapping may get another.
    - `hairpin`: an internal host reaches another by its external endpoint (RFC 4787 REQ-9).
    - `refresh_inbound`: packets from outside keep a UDP flow alive too (RFC 4787 REQ-6 leaves it open).
    - `pick_up`: a TCP connection older than the gateway is taken over by what it sends outward.
    - `hold_syn_s`: how long an unsolicited SYN waits for one that crosses it, before it is refused (RFC 5382 REQ-4: 6 s).
    - `port_rest_s`: how long a freed port is kept from other hosts (RFC 6888 REQ-8: 120 s).
    - `ports_per_host`, `flows_per_host_per_s`: limits of one internal address, 0 for none (RFC 6888 REQ-4).
    - `untranslated`: destinations that are reached without translation (requirement C4).
    """

    udp: NatBehaviour = field(default_factory=NatBehaviour)
    tcp: NatBehaviour = field(default_factory=NatBehaviour)
    timeouts: Timeouts = field(default_factory=Timeouts)
    allocation: str = "preserve"
    parity: bool = False
    external_addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    paired: bool = True
    hairpin: bool = True
    refresh_inbound: bool = True
    pick_up: bool = True
    hold_syn_s: float = 6.0
    port_rest_s: float = 0.0
    ports_per_host: int = 0
    flows_per_host_per_s: float = 0.0
    untranslated: tuple[IPv4Network | IPv6Network, ...] = ()

    def __post_init__(self) -> None:
        for name in ("hold_syn_s", "port_rest_s", "ports_per_host", "flows_per_host_per_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")


def _cone(filtering: Dependence) -> NatConfig:
    behaviour = NatBehaviour(filtering=filtering)
    return NatConfig(udp=behaviour, tcp=behaviour)


_STRICT = NatBehaviour(mapping=Dependence.ADDRESS_AND_PORT_DEPENDENT)

PRESETS = {
    "full-cone": _cone(Dependence.ENDPOINT_INDEPENDENT),
    "restricted-cone": _cone(Dependence.ADDRESS_DEPENDENT),
    "port-restricted": _cone(Dependence.ADDRESS_AND_PORT_DEPENDENT),
    "symmetric": NatConfig(udp=_STRICT, tcp=_STRICT, allocation="random"),
    "linux": NatConfig(udp=replace(_STRICT, overload=True), tcp=replace(_STRICT, overload=True),
                       timeouts=TIMEOUT_PROFILES["linux"], hold_syn_s=0.0),
}
"""The NAT types people ask for by name: those of RFC 3489 section 5, which RFC 4787's words replaced, and Linux's own."""
