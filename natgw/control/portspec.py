"""The grammar of `-p`, as Docker's (go-connections, package nat):

    [[hostIP:][hostPort[-hostEnd]]:]containerPort[-containerEnd][/tcp|udp|sctp]

A host range with one container port means "the first free one of these"; without a host port, or with port 0, the kernel
chooses one. What is wrong is looked for in Docker's order and said in its words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from natgw.errors import NatgwError

PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(frozen=True)
class PortBinding:
    """One container port to publish. `host_ports` are the candidates in order; empty: an ephemeral one. No `host_ip`: all."""

    protocol: str
    host_ip: IPv4Address | IPv6Address | None
    host_ports: range
    container_port: int

    def at_host(self, default: IPv4Address) -> PortBinding:
        """The same, at the address that a network has for what was given none (`host_binding_ipv4`)."""
        return self if self.host_ip is not None or default.is_unspecified else replace(self, host_ip=default)


def parse_port_spec(spec: str) -> list[PortBinding]:
    """The bindings of one `-p` argument. Raises NatgwError with Docker's words."""
    *front, container = spec.split(":")
    container, _, protocol = container.partition("/")
    protocol = protocol.lower() or "tcp"
    if not container:
        raise NatgwError(f"no port specified: {spec}<empty>")
    if protocol not in PROTOCOLS:
        raise NatgwError(f"invalid proto: {protocol} (in {spec!r}; use tcp, udp or sctp)")
    host = front.pop() if front else ""
    address = _parse_address(":".join(front), spec)
    container_ports = _parse_range(container, "containerPort", spec)
    host_ports = _parse_range(host, "hostPort", spec) if host.strip("0") else range(0)
    if len(container_ports) == 1:
        return [PortBinding(protocol, address, host_ports, container_ports[0])]
    if host_ports and len(host_ports) != len(container_ports):
        raise NatgwError(f"invalid ranges specified for container and host Ports: {container} and {host}")
    return [
        PortBinding(protocol, address, host_ports[index : index + 1], port)
        for index, port in enumerate(container_ports)
    ]


def parse_port_specs(specs: list[str]) -> list[PortBinding]:
    """All bindings of several arguments, refusing SCTP where only a relay would serve. Raises NatgwError."""
    bindings = [binding for spec in specs for binding in parse_port_spec(spec)]
    for binding in bindings:
        address = binding.host_ip
        if binding.protocol == "sctp" and address is not None and (address.version == 6 or address.is_loopback):
            raise NatgwError(f"port {binding.container_port}/sctp: SCTP is published on IPv4 addresses of the uplink only, "
                             f"not on {address}")
    return bindings


def _parse_address(text: str, spec: str) -> IPv4Address | IPv6Address | None:
    if not text:
        return None
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ip_address(bare)
    except ValueError:
        raise NatgwError(f"invalid IP address: {text} (in {spec!r})") from None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise NatgwError(f"invalid IP address: {text} (in {spec!r}: a zone is not accepted)")
        return address.ipv4_mapped or address
    return address


def _parse_range(text: str, what: str, spec: str) -> range:
    low, dash, high = text.partition("-")
    first = _parse_port(low, what, text)
    last = _parse_port(high, what, text) if dash else first
    if last < first:
        raise NatgwError(f"invalid {what}: {text} (in {spec!r}): the range ends before it begins")
    return range(first, last + 1)


def _parse_port(text: str, what: str, whole: str) -> int:
    digits = text.lstrip("0") if text.isascii() and text.isdigit() else ""
    if not 1 <= len(digits) <= 5 or int(digits) > 65535:
        raise NatgwError(f"invalid {what}: {whole} (a port is a number from 1 to 65535)")
    return int(digits)
