"""A network as `natgw network create` and the control API ask for it: text, judged in Docker's order and words."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from natgw.control.requests import NetworkRequest
from natgw.errors import NatgwError


def parse_request(body: Mapping[str, Any]) -> NetworkRequest:
    """Raises NatgwError that names the option and the value."""
    subnet = None if body.get("subnet") is None else _network("subnet", body["subnet"])
    ip_range = None if body.get("ip_range") is None else _network("ip-range", body["ip_range"])
    gateway = None if body.get("gateway") is None else _address("gateway", body["gateway"])
    aux = {name: _address("aux-address", address) for name, address in (body.get("aux") or {}).items()}
    if ip_range is not None and (subnet is None or not ip_range.subnet_of(subnet)):
        raise NatgwError(f"no matching subnet for range {ip_range}")
    for what, address in [("gateway", gateway), *(("aux-address", each) for each in aux.values())]:
        if address is not None and (subnet is None or address not in subnet):
            raise NatgwError(f"no matching subnet for {what} {address}")
    if body.get("ipv6"):
        raise NatgwError("IPv6 is not supported on networks yet: leave out --ipv6")
    return NetworkRequest(
        name=body["name"], driver=body.get("driver") or "bridge", subnet=subnet, ip_range=ip_range, gateway=gateway, aux=aux,
        internal=bool(body.get("internal")), attachable=bool(body.get("attachable")), options=dict(body.get("options") or {}),
        labels=dict(body.get("labels") or {}))


def _network(what: str, text: str) -> IPv4Network:
    try:
        found = IPv4Network(text, strict=False)
    except ValueError:
        raise NatgwError(f"invalid {what} {text} : invalid CIDR block notation") from None
    if "/" not in text:
        raise NatgwError(f"invalid {what} {text} : invalid CIDR block notation")
    if str(found) != text:
        raise NatgwError(f"invalid {what} {text}: it should be {found}")
    return found


def _address(what: str, text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise NatgwError(f"invalid {what} {text}: not an IPv4 address") from None
