"""A container's networks: joining and leaving them, and where its published ports and its default route are meanwhile.

One endpoint of a container is its *way out*: it has the default route and the published ports, as with Docker. Joining or
leaving a network may make another one the way out; ports and route move there then, and the host ports stay the same.
"""

from __future__ import annotations

import asyncio
import re
from ipaddress import IPv4Address, IPv6Address

from natgw.control.endpoints import Endpoints
from natgw.control.model import Container, Endpoint, Network
from natgw.control.networks import Networks
from natgw.control.portspec import PortBinding
from natgw.control.publishing import Published
from natgw.control.requests import EndpointRequest
from natgw.control.roster import Member, Record
from natgw.errors import Conflict, NatgwError, NotFound
from natgw.host import inside
from natgw.wire.ethernet import is_group, parse_mac


class Connections:
    """Works on containers whose lock its caller has."""

    def __init__(self, networks: Networks, endpoints: Endpoints) -> None:
        self._networks = networks
        self._endpoints = endpoints

    async def join(self, member: Member, network: Network, request: Record) -> Endpoint:
        """A new endpoint of a container. Raises NatgwError, with nothing changed."""
        container = member.container
        if container.endpoint_on(network) is not None:
            raise Conflict(f"endpoint with name {container.name} already exists in network {network.name}")
        aliases = tuple(request.get("aliases") or ())
        if aliases and network.is_default:
            raise NatgwError("network-scoped alias is supported only for containers in user defined networks")
        first = not container.endpoints
        endpoint = await self._endpoints.create(network, EndpointRequest(
            name=container.name, id=request.get("endpoint_id"), container_id=container.id, ip=parse_ip(request.get("ip")),
            ip6=parse_ip6(request.get("ip6")), mac=parse_station(request.get("mac")), aliases=aliases,
            bindings=tuple(member.bindings) if first else (),
            link=container.link, ifname=request.get("ifname") or await self._ifname(container),
            mtu=container.mtu, offload=container.offload, gateway=first, keep=container.kind == "attached",
            dhcp=bool(request.get("dhcp"))))
        try:
            before, before6 = container.way_out, container.way_out6
            await self._endpoints.plug(endpoint, container.netns)
            container.endpoints.append(endpoint)
            if not first:
                await self._follow_way_out(member, before)
                await self._follow_way_out6(container, before6)
            elif endpoint.ports:
                member.bindings = self._bindings(endpoint)
        except BaseException:
            await self.leave(member, endpoint)
            raise
        return endpoint

    async def leave(self, member: Member, endpoint: Endpoint) -> None:
        """Take an endpoint away from a container that may go on with others."""
        container = member.container
        before, before6 = container.way_out, container.way_out6
        if endpoint in container.endpoints:
            container.endpoints.remove(endpoint)
        try:
            await self._follow_way_out(member, before)
            await self._follow_way_out6(container, before6)
        finally:
            await self._endpoints.delete(endpoint)

    async def leave_all(self, member: Member) -> None:
        """Take all endpoints away. One that has none keeps having none."""
        endpoints, member.container.endpoints = member.container.endpoints, []
        for endpoint in reversed(endpoints):
            await self._endpoints.delete(endpoint)

    async def _follow_way_out(self, member: Member, before: Endpoint | None) -> None:
        container = member.container
        after = container.way_out
        if after is before or after is None:
            return
        if before is None:
            if member.bindings and not self._endpoints.published(after):
                await self._endpoints.publish(after, member.bindings)
                member.bindings = self._bindings(after)
        else:
            self._endpoints.hand_over(before, after)
        await asyncio.to_thread(inside.set_default_route, container.netns, after.ifname, after.network.gateway,
                                instead_of=None if before is None else before.network.gateway)

    async def _follow_way_out6(self, container: Container, before: Endpoint | None) -> None:
        """The default route of IPv6, which may lead by another network."""
        after = container.way_out6
        if after is before or after is None or after.network.ipam6 is None:
            return
        instead_of = None if before is None or before.network.ipam6 is None else before.network.ipam6.gateway
        await asyncio.to_thread(inside.set_default_route, container.netns, after.ifname, after.network.ipam6.gateway,
                                instead_of=instead_of)

    async def _ifname(self, container: Container) -> str:
        """The name of the next interface: the one asked for, then the first free one of eth0, eth1, ..."""
        if not container.endpoints:
            return container.ifname
        stem = re.sub(r"\d+$", "", container.ifname) or "eth"
        return await asyncio.to_thread(inside.free_ifname, container.netns, stem)

    # -- published ports -------------------------------------------------------------------------------------------------

    async def publish(self, member: Member, bindings: list[PortBinding]) -> None:
        """Publish ports of a container that is on a network: all of them, or Conflict and none."""
        endpoint = member.container.way_out
        if endpoint is None:
            raise Conflict(f"container {member.container.name} is on no network that leads outside")
        await self._endpoints.publish(endpoint, bindings)
        member.bindings = self._bindings(endpoint)

    async def unpublish(self, member: Member, bindings: list[PortBinding]) -> None:
        """Take published ports back: each binding names a container port, and the host's if there are several."""
        container, endpoint = member.container, member.container.way_out
        published = [] if endpoint is None else self._endpoints.published(endpoint)
        chosen: list[Published] = []
        for binding in bindings:
            matching = [item for item in published if item.matches(binding)]
            if not matching:
                raise NotFound(f"container {container.name} has no published port {binding.container_port}/{binding.protocol} "
                               f"like that (`natgw port {container.name}` shows those it has)")
            chosen += [item for item in matching if item not in chosen]
        if chosen and endpoint is not None:
            await self._endpoints.unpublish(endpoint, chosen)
            member.bindings = self._bindings(endpoint)

    def _bindings(self, endpoint: Endpoint) -> list[PortBinding]:
        return [item.binding for item in self._endpoints.published(endpoint)]


def parse_ip(text: str | None) -> IPv4Address | None:
    """Raises NatgwError."""
    if text is None:
        return None
    try:
        return IPv4Address(text)
    except ValueError:
        raise NatgwError(f"invalid IPv4 address: {text}") from None


def parse_ip6(text: str | None) -> IPv6Address | None:
    """Raises NatgwError."""
    if text is None:
        return None
    try:
        return IPv6Address(text)
    except ValueError:
        raise NatgwError(f"invalid IPv6 address: {text}") from None


def parse_station(text: str | None) -> bytes | None:
    """The MAC address of one station. Raises NatgwError."""
    if text is None:
        return None
    try:
        mac = parse_mac(text)
    except ValueError as error:
        raise NatgwError(str(error)) from None
    if is_group(mac) or not any(mac):
        raise NatgwError(f"{text} cannot be the address of one station")
    return mac
