"""Decisions: a frame comes in, frames go out. No I/O, no clock, no logging (see docs/architecture.md).

    walk        a frame's way, step by step, for people to read
    bridging    what a bridge does with a frame: to one port or to all, and what it hears on the way
    fastpath    the same for flows that exist, for the machine to run
    sides       bridge and uplink: learning, ARP, routes
    napt        which flow a packet belongs to, which may begin
    rewrite     what translation does to a packet; icmp_errors: to one quoted in an error
    forward     sending, fitting to a link, refusing
    behaviour   what can be chosen: NAT types, timeouts, limits; allocation: which port a mapping gets
    tcp_state   the table of TCP transitions; tcp_window: which RST may close a flow
    coalesce    UDP datagrams put together before they are written; outgoing: what waits to be written
"""

from natgw.datapath.behaviour import (
    PRESETS,
    SHORT_NAMES,
    TIMEOUT_PROFILES,
    Dependence,
    NatBehaviour,
    NatConfig,
    Timeouts,
)
from natgw.datapath.config import (
    DatapathConfig,
    NetworkConfig,
    PortKind,
    Publication,
    Route,
    UplinkConfig,
)
from natgw.datapath.core import Datapath
from natgw.datapath.port import Port
from natgw.datapath.sides import Bridge
from natgw.datapath.verdict import Extra, Verdict

__all__ = [
    "PRESETS",
    "SHORT_NAMES",
    "TIMEOUT_PROFILES",
    "Bridge",
    "Datapath",
    "DatapathConfig",
    "Dependence",
    "Extra",
    "NatBehaviour",
    "NatConfig",
    "NetworkConfig",
    "Port",
    "PortKind",
    "Publication",
    "Route",
    "Timeouts",
    "UplinkConfig",
    "Verdict",
]
