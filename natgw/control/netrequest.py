"""A network as `natgw network create` and the control API ask for it: text, judged in Docker's order and words.

There may be one subnet of each IP version; a range, a gateway, an auxiliary address belong to the subnet that they are in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from natgw.control.requests import NetworkRequest
from natgw.errors import NatgwError

Subnet = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


@dataclass
class _Asked:
    """What is asked for of one IP version."""

    subnet: Subnet | None = None
    ip_range: Subnet | None = None
    gateway: Address | None = None
    aux: dict[str, Address] = field(default_factory=dict)

    def request(self, suffix: str) -> dict[str, Any]:
        """As keys of a NetworkRequest."""
        return {f"{name}{suffix}": value for name, value in vars(self).items()}


def parse_request(body: Mapping[str, Any]) -> NetworkRequest:
    """Raises NatgwError that names the option and the value."""
    asked = {4: _Asked(), 6: _Asked()}
    for text in _texts(body, "subnet"):
        subnet = _network("subnet", text)
        if asked[subnet.version].subnet is not None:
            raise NatgwError("bridge driver doesn't support multiple subnets: give --subnet once for each IP version")
        asked[subnet.version].subnet = subnet
    for text in _texts(body, "ip_range"):
        ip_range = _network("ip-range", text)
        of = asked[ip_range.version]
        if of.subnet is None or not _contains(of.subnet, ip_range.network_address, ip_range.broadcast_address):
            raise NatgwError(f"no matching subnet for range {ip_range}")
        _refuse_second("ranges", ip_range, of.ip_range, of.subnet)
        of.ip_range = ip_range
    for text in _texts(body, "gateway"):
        gateway = _address("gateway", text)
        of = asked[gateway.version]
        if of.subnet is None or not _contains(of.subnet, gateway):
            raise NatgwError(f"no matching subnet for gateway {gateway}")
        _refuse_second("gateways", gateway, of.gateway, of.subnet)
        of.gateway = gateway
    for name, text in (body.get("aux") or {}).items():
        address = _address("aux-address", text)
        of = asked[address.version]
        if of.subnet is None or not _contains(of.subnet, address):
            raise NatgwError(f"no matching subnet for aux-address {address}")
        of.aux[name] = address
    ipv6 = bool(body.get("ipv6"))
    if asked[6].subnet is not None and not ipv6:
        raise NatgwError(f"subnet {asked[6].subnet} is of IPv6, which the network has with --ipv6 only")
    return NetworkRequest(
        name=body["name"], driver=body.get("driver") or "bridge", ipv6=ipv6, **asked[4].request(""), **asked[6].request("6"),
        internal=bool(body.get("internal")), attachable=bool(body.get("attachable")), options=dict(body.get("options") or {}),
        labels=dict(body.get("labels") or {}))


def _texts(body: Mapping[str, Any], key: str) -> list[str]:
    """One text, several, or none."""
    value = body.get(key)
    return [value] if isinstance(value, str) else list(value or [])


def _contains(subnet: Subnet, *addresses: Address) -> bool:
    return all(address in subnet for address in addresses)


def _refuse_second(what: str, new: object, old: object, subnet: Subnet) -> None:
    if old is not None:
        article = "the same" if what == "gateways" else "the"
        raise NatgwError(f"cannot configure multiple {what} ({new}, {old}) on {article} subnet ({subnet})")


def _network(what: str, text: str) -> Subnet:
    try:
        found = ip_network(text, strict=False)
    except ValueError:
        raise NatgwError(f"invalid {what} {text} : invalid CIDR block notation") from None
    address, slash, _ = text.partition("/")
    if not slash:
        raise NatgwError(f"invalid {what} {text} : invalid CIDR block notation")
    if ip_address(address) != found.network_address:
        raise NatgwError(f"invalid {what} {text}: it should be {found}")
    return found


def _address(what: str, text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise NatgwError(f"invalid {what} {text}: not an IP address") from None
