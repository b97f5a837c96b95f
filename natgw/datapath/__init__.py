"""Decisions: a frame comes in, frames go out. No I/O, no clock, no logging (see docs/architecture.md)."""

from natgw.datapath.config import (
    DatapathConfig,
    NetworkConfig,
    PortKind,
    Publication,
    Route,
    Timeouts,
    UplinkConfig,
)

__all__ = [
    "DatapathConfig",
    "NetworkConfig",
    "PortKind",
    "Publication",
    "Route",
    "Timeouts",
    "UplinkConfig",
]
