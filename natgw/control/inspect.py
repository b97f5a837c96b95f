"""`network inspect` as Docker prints it, field by field (moby, api/types/network.Inspect)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from natgw.control.model import Endpoint, IpamConfig, Network
from natgw.wire.ethernet import mac_text


def network_record(network: Network, endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """One network with the endpoints on it."""
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": network.scope,
        "Driver": network.driver,
        "EnableIPv6": network.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": None if network.predefined else {},
            "Config": [] if network.ipam is None else [_pool(network.ipam)],
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {endpoint.container_id or f"ep-{endpoint.id}": _endpoint(endpoint) for endpoint in endpoints},
        "Options": dict(network.options),
        "Labels": dict(network.labels),
    }


def _pool(ipam: IpamConfig) -> dict[str, Any]:
    """What was not asked for is left out, as Docker leaves it."""
    pool: dict[str, Any] = {"Subnet": str(ipam.subnet)}
    if ipam.ip_range is not None:
        pool["IPRange"] = str(ipam.ip_range)
    pool["Gateway"] = str(ipam.gateway)
    if ipam.aux:
        pool["AuxiliaryAddresses"] = {name: str(address) for name, address in ipam.aux.items()}
    return pool


def _endpoint(endpoint: Endpoint) -> dict[str, str]:
    return {
        "Name": endpoint.name,
        "EndpointID": endpoint.id,
        "MacAddress": mac_text(endpoint.mac),
        "IPv4Address": f"{endpoint.ip}/{endpoint.network.subnet.prefixlen}",
        "IPv6Address": "" if endpoint.ip6 is None else str(endpoint.ip6),
    }
