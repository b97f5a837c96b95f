"""`network inspect` as Docker prints it, field by field (moby, api/types/network.Inspect)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from natgw.control.model import Container, Network
from natgw.wire.ethernet import mac_text

_BRIDGE = "com.docker.network.bridge."


def network_record(network: Network, containers: Iterable[Container]) -> dict[str, Any]:
    """One network with the containers that have an address on it."""
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv6": False,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [{"Subnet": str(network.subnet), "Gateway": str(network.gateway)}],
        },
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {container.id: _endpoint(container) for container in containers if container.ip is not None},
        "Options": dict(network.options),
        "Labels": dict(network.labels),
    }


def default_bridge_options(device: str, mtu: int, *, masquerade: bool) -> dict[str, str]:
    """The options Docker shows for its default bridge."""
    return {
        _BRIDGE + "default_bridge": "true",
        _BRIDGE + "enable_icc": "true",
        _BRIDGE + "enable_ip_masquerade": "true" if masquerade else "false",
        _BRIDGE + "host_binding_ipv4": "0.0.0.0",
        _BRIDGE + "name": device,
        "com.docker.network.driver.mtu": str(mtu),
    }


def _endpoint(container: Container) -> dict[str, str]:
    return {
        "Name": container.name,
        "EndpointID": container.endpoint_id,
        "MacAddress": mac_text(container.mac),
        "IPv4Address": f"{container.ip}/{container.prefixlen}",
        "IPv6Address": "",
    }
