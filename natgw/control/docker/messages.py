"""What libnetwork sends to a remote driver, decoded (moby, libnetwork/docs/remote.md and docs/ipam.md).

Every request is a JSON object. Addresses come with a prefix length ("172.18.0.1/16"); an empty string is "none". `Options`
holds what the command line said: `-o` of a network under com.docker.network.generic, published ports under
com.docker.network.portmap. What is not understood is refused, with NatgwError; what is not known is ignored, as Docker's
own drivers do: a newer Docker may say more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_address, ip_interface
from typing import Any, Generic, Protocol, TypeVar

from natgw.control.model import PublishedPort
from natgw.control.portspec import PortBinding
from natgw.errors import NatgwError
from natgw.wire.ethernet import parse_mac

Record = dict[str, Any]
Value = TypeVar("Value")
Address = TypeVar("Address", IPv4Address, IPv6Address)
AddressOut = TypeVar("AddressOut", IPv4Address, IPv6Address, covariant=True)
Subnet = TypeVar("Subnet", IPv4Network, IPv6Network)


class Interface(Protocol[AddressOut]):
    """An address with its length: IPv4Interface or IPv6Interface."""

    @property
    def ip(self) -> AddressOut: ...


GENERIC = "com.docker.network.generic"
ENABLE_IPV6 = "com.docker.network.enable_ipv6"
INTERNAL = "com.docker.network.internal"
PORT_MAP = "com.docker.network.portmap"
GATEWAY_REQUEST = "com.docker.network.gateway"
"""What RequestAddressType says when the address is for the gateway."""

PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
NUMBERS = {name: number for number, name in PROTOCOLS.items()}


@dataclass(frozen=True, kw_only=True)
class IpamData(Generic[Subnet, Address]):
    """One entry of IPv4Data or IPv6Data: a subnet as an IPAM driver chose it. `space` tells which driver that was."""

    space: str
    subnet: Subnet
    gateway: Address | None
    aux: Mapping[str, Address]


@dataclass(frozen=True, kw_only=True)
class CreateNetwork:
    network_id: str
    ipam: IpamData[IPv4Network, IPv4Address]
    ipam6: IpamData[IPv6Network, IPv6Address] | None = None
    ipv6: bool = False
    internal: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CreateEndpoint:
    """An address is None where Docker leaves the choice to the driver."""

    network_id: str
    endpoint_id: str
    ip: IPv4Address | None
    ip6: IPv6Address | None
    mac: bytes | None


@dataclass(frozen=True, kw_only=True)
class RequestPool:
    subnet: IPv4Network | None
    ip_range: IPv4Network | None


@dataclass(frozen=True, kw_only=True)
class RequestPool6:
    subnet: IPv6Network | None
    ip_range: IPv6Network | None


@dataclass(frozen=True, kw_only=True)
class RequestAddress:
    pool_id: str
    ip: IPv4Address | IPv6Address | None
    for_gateway: bool


# -- decoding ----------------------------------------------------------------------------------------------------------


def decode(body: bytes) -> Record:
    """The object in a request's body; some requests have none. Raises NatgwError."""
    try:
        value = json.loads(body or b"{}")
    except ValueError as error:
        raise NatgwError(f"the request is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise NatgwError("the request is no JSON object")
    return value


def text_of(request: Record, key: str) -> str:
    """A text that must be there. Raises NatgwError."""
    value = _typed(request, key, str, "")
    if not value:
        raise NatgwError(f"the request has no {key}")
    return value


def create_network(request: Record) -> CreateNetwork:
    """Raises NatgwError, also for more than one IPv4 subnet."""
    options = _typed(request, "Options", dict, {})
    data = [_ipam(each, IPv4Network, IPv4Interface) for each in _records(request, "IPv4Data")]
    data6 = [_ipam(each, IPv6Network, IPv6Interface) for each in _records(request, "IPv6Data")]
    if len(data) != 1 or len(data6) > 1:
        raise NatgwError("a network of natgw's has one IPv4 subnet, and one of IPv6 at most: give --subnet once for each")
    return CreateNetwork(
        network_id=text_of(request, "NetworkID"), ipam=data[0], ipam6=data6[0] if data6 else None,
        ipv6=_typed(options, ENABLE_IPV6, bool, False), internal=_typed(options, INTERNAL, bool, False),
        options={key: str(value) for key, value in _typed(options, GENERIC, dict, {}).items()})


def create_endpoint(request: Record) -> CreateEndpoint:
    """Raises NatgwError."""
    interface = _typed(request, "Interface", dict, {})
    ip = _optional(interface, "Address", IPv4Interface)
    ip6 = _optional(interface, "AddressIPv6", IPv6Interface)
    return CreateEndpoint(
        network_id=text_of(request, "NetworkID"), endpoint_id=text_of(request, "EndpointID"),
        ip=None if ip is None else ip.ip, ip6=None if ip6 is None else ip6.ip,
        mac=_optional(interface, "MacAddress", parse_mac))


def port_map(request: Record) -> list[PortBinding]:
    """The ports to publish (moby, libnetwork/types.PortBinding). Raises NatgwError for what cannot be."""
    return [_binding(each) for each in _records(_typed(request, "Options", dict, {}), PORT_MAP)]


def request_pool(request: Record) -> RequestPool | RequestPool6:
    """Raises NatgwError."""
    if _typed(request, "V6", bool, False):
        return RequestPool6(subnet=_optional(request, "Pool", IPv6Network),
                            ip_range=_optional(request, "SubPool", IPv6Network))
    return RequestPool(subnet=_optional(request, "Pool", IPv4Network), ip_range=_optional(request, "SubPool", IPv4Network))


def request_address(request: Record) -> RequestAddress:
    """Raises NatgwError."""
    options = _typed(request, "Options", dict, {})
    return RequestAddress(pool_id=text_of(request, "PoolID"), ip=address_of(request),
                          for_gateway=options.get("RequestAddressType") == GATEWAY_REQUEST)


def address_of(request: Record) -> IPv4Address | IPv6Address | None:
    """The address that a request of the IPAM driver's names; None for "any". Raises NatgwError."""
    found = _optional(request, "Address", ip_interface)
    return None if found is None else ip_address(found.ip)


def _binding(entry: Record) -> PortBinding:
    number = _typed(entry, "Proto", int, 0)
    protocol = PROTOCOLS.get(number)
    if protocol is None:
        raise NatgwError(f"cannot publish a port of protocol {number}: use tcp or udp")
    port = _port(entry, "Port")
    if protocol == "sctp":
        raise NatgwError(f"port {port}/sctp: publishing SCTP is not supported yet; use tcp or udp")
    first = _port(entry, "HostPort")
    last = _port(entry, "HostPortEnd") or first
    return PortBinding(protocol, _optional(entry, "HostIP", ip_address), range(first, last + 1) if first else range(0), port)


def _ipam(entry: Record, subnet: Callable[[str], Subnet], interface: Callable[[str], Interface[Address]]
          ) -> IpamData[Subnet, Address]:
    gateway: Interface[Address] | None = _optional(entry, "Gateway", interface)
    aux = {name: _parsed(name, text, interface) for name, text in _typed(entry, "AuxAddresses", dict, {}).items()}
    return IpamData(space=_typed(entry, "AddressSpace", str, ""), subnet=_required(entry, "Pool", subnet),
                    gateway=None if gateway is None else gateway.ip, aux={name: found.ip for name, found in aux.items()})


def _typed(record: Record, key: str, kind: type[Value], otherwise: Value) -> Value:
    """What stands under a key, null counting as nothing. Raises NatgwError if it is of another kind."""
    value = record.get(key)
    if value is None:
        return otherwise
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise NatgwError(f"{key} is {value!r}, not {kind.__name__}")
    return value


def _records(record: Record, key: str) -> list[Record]:
    values = _typed(record, key, list, [])
    if not all(isinstance(value, dict) for value in values):
        raise NatgwError(f"{key} is not a list of objects")
    return values


def _port(entry: Record, key: str) -> int:
    value = _typed(entry, key, int, 0)
    if not 0 <= value <= 65535:
        raise NatgwError(f"{key} {value} is no port")
    return value


def _optional(record: Record, key: str, parse: Any) -> Any:
    text = _typed(record, key, str, "")
    return _parsed(key, text, parse) if text else None


def _required(record: Record, key: str, parse: Any) -> Any:
    return _parsed(key, text_of(record, key), parse)


def _parsed(key: str, text: object, parse: Any) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise NatgwError(f"{key}: {error}") from None


# -- encoding ----------------------------------------------------------------------------------------------------------


def published(ports: Iterable[PublishedPort]) -> Record:
    """What EndpointOperInfo tells of an endpoint: the ports it has now."""
    return {PORT_MAP: [{"Proto": NUMBERS[port.protocol], "Port": port.container_port, "HostIP": port.host_ip,
                        "HostPort": port.host_port, "HostPortEnd": port.host_port} for port in ports]}
