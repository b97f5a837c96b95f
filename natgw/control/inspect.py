"""`network inspect` as Docker prints it, field by field (moby, api/types/network.Inspect)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from natgw.control.model import Container, Endpoint, Ipam6Config, IpamConfig, Network
from natgw.wire.ethernet import mac_text


def network_record(network: Network, endpoints: Iterable[Endpoint], without: Iterable[Container] = ()) -> dict[str, Any]:
    """One network with the endpoints on it, and on `host` and `none` with the containers that are there without one."""
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
            "Config": [_pool(ipam) for ipam in (network.ipam, network.ipam6) if ipam is not None],
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {endpoint.container_id or f"ep-{endpoint.id}": _endpoint(endpoint) for endpoint in endpoints}
        | {container.id: _nowhere(network, container) for container in without},
        "Options": dict(network.options),
        "Labels": dict(network.labels),
    }


def _pool(ipam: IpamConfig | Ipam6Config) -> dict[str, Any]:
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
        "IPv6Address": _with_length(endpoint),
    }


def _nowhere(network: Network, container: Container) -> dict[str, str]:
    """Docker has an endpoint there too, of which nothing is seen but an id: here one that follows from what is joined."""
    identity = hashlib.sha256(f"{network.id} {container.id}".encode()).hexdigest()
    return {"Name": container.name, "EndpointID": identity, "MacAddress": "", "IPv4Address": "", "IPv6Address": ""}


def _with_length(endpoint: Endpoint) -> str:
    ipam6 = endpoint.network.ipam6
    if endpoint.ip6 is None:
        return ""
    return str(endpoint.ip6) if ipam6 is None else f"{endpoint.ip6}/{ipam6.subnet.prefixlen}"
