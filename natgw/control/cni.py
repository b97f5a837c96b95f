"""Attachments: what `natgw-cni` asks for, one interface of one container on one network (CNI specification, section 2).

An attachment is known by network, container id and interface name. Behind it stands an endpoint of the owner `cni`; what the
store has of it brings it back after a restart, if its namespace is still there. A network that no `natgw network create`
has made is made for its first attachment and goes with its last; so nothing is left of it when the engine is done with it.

Requests for one network wait for each other where they make it, take an address, or remove it; for one attachment, wholly.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from natgw.control import netoptions
from natgw.control.connecting import parse_station
from natgw.control.endpoints import Endpoints
from natgw.control.ipam import check_subnet
from natgw.control.ipam6 import check_subnet6
from natgw.control.model import SHORT_ID, Endpoint, Network
from natgw.control.networks import Networks
from natgw.control.options import check_link, check_mtu
from natgw.control.portspec import parse_port_specs
from natgw.control.requests import EndpointRequest, NetworkRequest
from natgw.control.store import Store, StoredEndpoint
from natgw.errors import Conflict, NatgwError, NotFound
from natgw.host import look, netns
from natgw.host.shaper import Rate
from natgw.wire.ethernet import mac_text

log = logging.getLogger(__name__)

Record = dict[str, Any]
Key = tuple[str, str, str]
"""Network, container id, interface name."""


class InvalidConfig(NatgwError):
    """The network's configuration makes no sense, or not the sense it made before."""

    status = 422


@dataclass(eq=False)
class _Turn:
    """Those who change one thing, one after the other."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Attachments:
    """All attachments of the daemon."""

    def __init__(self, networks: Networks, endpoints: Endpoints, store: Store,
                 nameservers: Callable[[Network], list[str]]) -> None:
        self._networks = networks
        self._endpoints = endpoints
        self._store = store
        self._nameservers = nameservers
        self._known: dict[Key, Endpoint] = {}
        self._turns: dict[Key | str, _Turn] = {}

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Attach again what was attached when natgw ended, as far as its namespaces are still there."""
        for stored in self._store.endpoints():
            if stored.row["owner"] == "cni":
                try:
                    await self._restore(stored)
                except NatgwError as error:
                    log.warning("%s does not come back: %s", stored.row["name"], error)
                    self._store.drop_endpoint(stored.row["id"])
        for network in self._networks.all():
            await self._leave(network)

    # -- what the plugin asks --------------------------------------------------------------------------------------------

    async def add(self, request: Record) -> Record:
        """Give a container an interface. Raises NatgwError, with nothing left behind."""
        key = _key(request)
        asked = _endpoint_request(request)
        wanted = _network_request(request)
        async with self._locked(key):
            if key in self._known:
                raise Conflict(f"{key[2]} of container {key[1][:SHORT_ID]} is attached to network {key[0]} already")
            identity = netns.namespace_id(request["netns"])
            if identity == netns.namespace_id("/proc/self/ns/net"):
                raise NatgwError(f"{request['netns']} is natgw's own namespace: a container needs one of its own")
            async with self._locked(key[0]):
                network = await self._join(wanted)
                try:
                    if asked.ip6 is not None and network.ipam6 is None:
                        raise InvalidConfig(f"network {network.name} has no IPv6 addresses: {asked.ip6} is none of its")
                    endpoint = await self._endpoints.create(network, asked)
                except BaseException:
                    await self._leave_locked(network)
                    raise
            try:
                await self._endpoints.plug(endpoint, request["netns"])
                self._keep(endpoint, asked, identity)
                self._known[key] = endpoint
                return await self._record(endpoint)
            except BaseException:
                await self._forget(key, endpoint)
                raise

    async def delete(self, key: Record) -> None:
        """Take it away with all it has. What is not there is no error."""
        wanted = _key(key)
        async with self._locked(wanted):
            endpoint = self._known.get(wanted)
            if endpoint is not None:
                await self._forget(wanted, endpoint)

    async def check(self, key: Record) -> Record:
        """What there is of an attachment, in the container too. Raises NotFound."""
        wanted = _key(key)
        async with self._locked(wanted):
            if wanted not in self._known:
                raise NotFound(f"{wanted[2]} of container {wanted[1][:SHORT_ID]} is not attached to network {wanted[0]}")
            return await self._record(self._known[wanted])

    async def collect(self, network: str, valid: list[Record]) -> Record:
        """Take away all attachments to a network but these; gives those that went."""
        kept = {(network, one["container_id"], one["ifname"]) for one in valid}
        stale = [key for key in self._known if key[0] == network and key not in kept]
        for key in stale:
            await self.delete({"network": key[0], "container_id": key[1], "ifname": key[2]})
        return {"removed": [{"network": key[0], "container_id": key[1], "ifname": key[2]} for key in stale]}

    async def attachments(self) -> list[Record]:
        """All of them, without a look into the containers."""
        return [self._outside(endpoint) for endpoint in self._known.values()]

    # -- networks ----------------------------------------------------------------------------------------------------------

    async def _join(self, wanted: NetworkRequest) -> Network:
        """The network of that name, made if there is none. Raises InvalidConfig if it is not as the configuration says."""
        network = next((one for one in self._networks.all() if one.name == wanted.name), None)
        if network is None:
            return await self._networks.create(wanted)
        addresses, ipam6 = network.addresses, network.ipam6
        if wanted.ipv6 and ipam6 is None:
            raise InvalidConfig(f"network {network.name} is there without IPv6, which the configuration asks for")
        for what, theirs, ours in (
                ("subnet", addresses.subnet, wanted.subnet), ("gateway", addresses.gateway, wanted.gateway),
                ("subnet", ipam6 and ipam6.subnet, wanted.subnet6), ("gateway", ipam6 and ipam6.gateway, wanted.gateway6)):
            if ours is not None and ours != theirs:
                raise InvalidConfig(f"network {network.name} is there with the {what} {theirs}, the configuration says {ours}")
        return network

    async def _leave(self, network: Network) -> None:
        async with self._locked(network.name):
            await self._leave_locked(network)

    async def _leave_locked(self, network: Network) -> None:
        """The last to go takes along a network that was made for attachments."""
        if network.owner == "cni" and not self._endpoints.of(network) and network in self._networks.all():
            await self._networks.remove(network)

    # -- endpoints ---------------------------------------------------------------------------------------------------------

    async def _forget(self, key: Key, endpoint: Endpoint) -> None:
        self._known.pop(key, None)
        await self._endpoints.delete(endpoint)
        await self._leave(endpoint.network)

    def _keep(self, endpoint: Endpoint, asked: EndpointRequest, identity: tuple[int, int]) -> None:
        ingress, egress = asked.ingress, asked.egress
        self._store.save_attachment(endpoint.id, {
            "netns_device": identity[0], "netns_inode": identity[1], "default_route": asked.gateway,
            "ingress_rate": ingress and ingress.bits_per_s, "ingress_burst": ingress and ingress.burst_bits,
            "egress_rate": egress and egress.bits_per_s, "egress_burst": egress and egress.burst_bits})

    async def _restore(self, stored: StoredEndpoint) -> None:
        row, attachment = stored.row, self._store.attachment(stored.row["id"])
        if attachment is None or not row["netns"]:
            raise NotFound("it was never attached wholly")
        identity = attachment["netns_device"], attachment["netns_inode"]
        if netns.namespace_id(row["netns"]) != identity:
            raise NotFound(f"there is another namespace at {row['netns']} now")
        asked = replace(stored.as_request, gateway=bool(attachment["default_route"]),
                        ingress=_rate(attachment["ingress_rate"], attachment["ingress_burst"]),
                        egress=_rate(attachment["egress_rate"], attachment["egress_burst"]))
        endpoint = await self._endpoints.create(self._networks.find(row["network"]), asked)
        try:
            await self._plug_again(endpoint, row["netns"])
        except BaseException:
            await self._endpoints.delete(endpoint)
            raise
        self._keep(endpoint, asked, identity)
        self._known[(endpoint.network.name, endpoint.container_id, endpoint.ifname)] = endpoint

    async def _plug_again(self, endpoint: Endpoint, namespace: str) -> None:
        """By the tap that was left for us, with the routes it has; by a new link if there is none."""
        if endpoint.link == "tap":
            try:
                await self._endpoints.reopen(endpoint, namespace)
                return
            except NotFound as error:
                log.info("%s gets a new interface: %s", endpoint.name, error)
        await self._endpoints.plug(endpoint, namespace)

    async def _record(self, endpoint: Endpoint) -> Record:
        """With what is inside the container now."""
        record = self._outside(endpoint)
        found = None
        if endpoint.netns is not None:
            try:
                found = await asyncio.to_thread(look.interface, endpoint.netns, endpoint.ifname)
            except NatgwError as error:
                record["faults"].append(str(error))
        record["inside"] = None if found is None else {
            "mac": found.mac, "mtu": found.mtu, "up": found.up, "addresses": list(found.addresses),
            "routes": [{"dst": destination, "gw": gateway} for destination, gateway in found.routes]}
        return record

    def _outside(self, endpoint: Endpoint) -> Record:
        return _record(endpoint) | {"nameservers": self._nameservers(endpoint.network)}

    @asynccontextmanager
    async def _locked(self, what: Key | str) -> AsyncIterator[None]:
        """One at a time; a lock that nobody uses is forgotten."""
        turn = self._turns.setdefault(what, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[what]


def _key(request: Record) -> Key:
    return request["network"], request["container_id"], request["ifname"]


def _record(endpoint: Endpoint) -> Record:
    """As the control API gives it; see docs/cli.md."""
    network = endpoint.network
    addresses = [{"address": f"{endpoint.ip}/{network.subnet.prefixlen}",
                  "gateway": None if network.internal else str(network.gateway)}]
    if endpoint.ip6 is not None and network.ipam6 is not None:
        addresses.append({"address": f"{endpoint.ip6}/{network.ipam6.subnet.prefixlen}",
                          "gateway": None if network.internal else str(network.ipam6.gateway)})
    return {
        "network": network.name, "container_id": endpoint.container_id, "ifname": endpoint.ifname, "netns": endpoint.netns,
        "name": endpoint.name, "aliases": list(endpoint.aliases), "endpoint_id": endpoint.id,
        "bridge": network.device, "bridge_mac": mac_text(network.gateway_mac), "mac": mac_text(endpoint.mac),
        "mtu": endpoint.mtu, "link": endpoint.link, "addresses": addresses,
        "ports": [port.record() for port in endpoint.ports],
        "faults": [] if endpoint.port is not None else ["its link to the bridge is gone"],
    }


def _network_request(request: Record) -> NetworkRequest:
    """The network as the configuration has it. Raises InvalidConfig."""
    subnet, gateway = _parsed(IPv4Network, request, "subnet"), _parsed(IPv4Address, request, "gateway")
    ip_range, mtu = _parsed(IPv4Network, request, "ip_range"), request.get("mtu")
    options = {}
    ipv6 = _ipv6_of(request)
    try:
        if subnet is not None:
            check_subnet(subnet)
        if mtu is not None:
            options[netoptions.MTU] = str(check_mtu(mtu))
    except NatgwError as error:
        raise InvalidConfig(str(error)) from None
    for needed, *needing in ((subnet, gateway, ip_range), (ipv6["subnet6"], ipv6["gateway6"], ipv6["ip_range6"])):
        if needed is None and any(needing):
            raise InvalidConfig("a gateway or a range of addresses needs the subnet that it is in")
    for key, name in (("masquerade", "enable_ip_masquerade"), ("icc", "enable_icc")):
        if not request.get(key, True):
            options[netoptions.BRIDGE + name] = "false"
    return NetworkRequest(name=request["network"], owner="cni", subnet=subnet, gateway=gateway, ip_range=ip_range, **ipv6,
                          internal=request.get("internal", False), options=options)


def _ipv6_of(request: Record) -> Record:
    """What a NetworkRequest says of IPv6."""
    found = {"subnet6": _parsed(IPv6Network, request, "subnet6"), "gateway6": _parsed(IPv6Address, request, "gateway6"),
             "ip_range6": _parsed(IPv6Network, request, "ip_range6")}
    ipv6 = request.get("ipv6", False)
    if any(found.values()) and not ipv6:
        raise InvalidConfig('IPv6 addresses need "ipv6": true')
    try:
        if found["subnet6"] is not None:
            check_subnet6(found["subnet6"])
    except NatgwError as error:
        raise InvalidConfig(str(error)) from None
    return {"ipv6": ipv6, **found}


def _endpoint_request(request: Record) -> EndpointRequest:
    """The container's interface. Raises InvalidConfig."""
    try:
        link, mtu = request.get("link"), request.get("mtu")
        return EndpointRequest(
            name=request.get("name") or request["container_id"][:SHORT_ID], container_id=request["container_id"], owner="cni",
            **_addresses(request.get("ips") or []), mac=parse_station(request.get("mac")),
            aliases=tuple(request.get("aliases") or ()), bindings=tuple(parse_port_specs(request.get("publish") or [])),
            link=None if link is None else check_link(link), ifname=request["ifname"],
            mtu=None if mtu is None else check_mtu(mtu), gateway=request.get("default_route", True),
            ingress=_rate(request.get("ingress_rate"), request.get("ingress_burst")),
            egress=_rate(request.get("egress_rate"), request.get("egress_burst")))
    except NatgwError as error:
        raise InvalidConfig(str(error)) from None


def _addresses(ips: list[str]) -> dict[str, Any]:
    """One address of each version at most: an interface has no more."""
    found: dict[str, Any] = {}
    for text in ips:
        try:
            address = ip_address(text)
        except ValueError:
            raise InvalidConfig(f"invalid IP address: {text}") from None
        name = "ip6" if isinstance(address, IPv6Address) else "ip"
        if name in found:
            raise InvalidConfig(f"more than one IPv{address.version} address for an interface: {', '.join(ips)}")
        found[name] = address
    return found


def _rate(bits_per_s: int | None, burst_bits: int | None) -> Rate | None:
    if not bits_per_s:
        return None
    return Rate(bits_per_s, burst_bits or None)


def _parsed(kind: Any, request: Record, key: str) -> Any:
    text = request.get(key)
    try:
        return None if text is None else kind(text)
    except ValueError as error:
        raise InvalidConfig(f"{key}: {error}") from None
