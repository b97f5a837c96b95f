"""Options of a network, `docker network create -o KEY=VALUE`, and what they mean to natgw.

Docker's bridge driver parses the ones it knows and keeps the rest as it found them (drivers/bridge/bridge.go,
networkConfiguration.fromLabels); so does natgw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from natgw.control.model import ANY4
from natgw.control.names import check_ifname
from natgw.control.options import check_lease, check_mtu
from natgw.errors import NatgwError

BRIDGE = "com.docker.network.bridge."
MTU = "com.docker.network.driver.mtu"
DHCP, DHCP_LEASE = "natgw.dhcp", "natgw.dhcp.lease"
"""natgw's own: whether there is a DHCP server, and the seconds of a lease."""

# strconv.ParseBool of Go.
_TRUE, _FALSE = {"1", "t", "T", "true", "TRUE", "True"}, {"0", "f", "F", "false", "FALSE", "False"}


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What the options of a network say; None where they say nothing."""

    device: str | None = None
    mtu: int | None = None
    masquerade: bool = True
    icc: bool = True
    host_binding: IPv4Address = ANY4
    dhcp: bool | None = None
    dhcp_lease_s: int | None = None


def meaning_of(options: Mapping[str, str]) -> Meaning:
    """Raises NatgwError, in Docker's words, for a value that makes no sense."""
    name = options.get(BRIDGE + "name")
    mtu = options.get(MTU)
    return Meaning(
        device=None if not name else check_ifname(name),
        mtu=None if mtu is None else _mtu(mtu),
        masquerade=_flag(options, BRIDGE + "enable_ip_masquerade"),
        icc=_flag(options, BRIDGE + "enable_icc"),
        host_binding=_address(options.get(BRIDGE + "host_binding_ipv4")),
        dhcp=_flag(options, DHCP) if DHCP in options else None,
        dhcp_lease_s=_lease(options[DHCP_LEASE]) if DHCP_LEASE in options else None,
    )


def default_bridge_options(device: str, mtu: int, *, masquerade: bool) -> dict[str, str]:
    """The options Docker shows for its default bridge."""
    return {
        BRIDGE + "default_bridge": "true",
        BRIDGE + "enable_icc": "true",
        BRIDGE + "enable_ip_masquerade": "true" if masquerade else "false",
        BRIDGE + "host_binding_ipv4": "0.0.0.0",
        BRIDGE + "name": device,
        MTU: str(mtu),
    }


def _mtu(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise NatgwError(f'failed to parse {MTU} value: "{text}" is not a number of bytes')
    return check_mtu(int(text))


def _lease(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise NatgwError(f'failed to parse {DHCP_LEASE} value: "{text}" is not a number of seconds')
    return check_lease(int(text))


def _flag(options: Mapping[str, str], key: str) -> bool:
    text = options.get(key, "true")
    if text not in _TRUE | _FALSE:
        raise NatgwError(f'failed to parse {key} value: "{text}" (use true or false)')
    return text in _TRUE


def _address(text: str | None) -> IPv4Address:
    try:
        return IPv4Address(text or 0)
    except ValueError:
        raise NatgwError(f"failed to parse {BRIDGE}host_binding_ipv4 value: {text}: invalid ip address") from None
