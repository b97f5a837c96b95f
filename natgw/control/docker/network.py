"""NetworkDriver.*: Docker's networks and endpoints, as networks and endpoints of natgw.

A container's start is CreateEndpoint (address and MAC), Join (a tap, which Docker moves into the container and gives the
address) and ProgramExternalConnectivity (the published ports, on the one network that is the container's way out). Its end
is the same backwards. The namespace that Join names need not exist yet: Docker makes it, and then moves the tap.

All that may be asked twice: Docker asks again when natgw was killed before it had answered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from natgw.control.docker import messages
from natgw.control.docker.addresses import SPACE, Addresses
from natgw.control.docker.messages import Record
from natgw.control.endpoints import Endpoints
from natgw.control.ipam import AddressPool
from natgw.control.model import SHORT_ID, Endpoint, Network
from natgw.control.networks import Networks
from natgw.control.requests import EndpointRequest, NetworkRequest
from natgw.errors import NatgwError, NotFound
from natgw.wire.ethernet import mac_text

log = logging.getLogger(__name__)

IFNAME_PREFIX = "eth"


class NetworkDriver:
    """Each method takes a request and gives the answer, or raises NatgwError. `look` is told of networks that changed."""

    def __init__(self, networks: Networks, endpoints: Endpoints, addresses: Addresses, look: Callable[[str], None]) -> None:
        self._networks = networks
        self._endpoints = endpoints
        self._addresses = addresses
        self._look = look

    # -- networks ----------------------------------------------------------------------------------------------------------

    async def create_network(self, request: Record) -> Record:
        wanted = messages.create_network(request)
        if self._network(wanted.network_id) is None:
            await self._networks.create(NetworkRequest(
                name=wanted.network_id[:SHORT_ID], id=wanted.network_id, owner="docker", subnet=wanted.ipam.subnet,
                gateway=wanted.ipam.gateway, aux=wanted.ipam.aux, pool=self._requested(wanted), **self._ipv6(wanted),
                internal=wanted.internal, options=wanted.options))
        self._look(wanted.network_id)
        return {}

    def _requested(self, wanted: messages.CreateNetwork) -> AddressPool | None:
        """The pool that our own IPAM driver gave for the network, if that is where it got its addresses."""
        return self._addresses.pool_of(wanted.ipam.subnet) if wanted.ipam.space == SPACE else None

    def _ipv6(self, wanted: messages.CreateNetwork) -> Record:
        """What a NetworkRequest says of IPv6, which Docker's IPAM gives addresses of too or the network does without."""
        ipam6 = wanted.ipam6
        if ipam6 is None:
            return {}
        return {"ipv6": True, "subnet6": ipam6.subnet, "gateway6": ipam6.gateway, "aux6": ipam6.aux,
                "pool6": self._addresses.pool6_of(ipam6.subnet) if ipam6.space == SPACE else None}

    async def delete_network(self, request: Record) -> Record:
        network = self._network(messages.text_of(request, "NetworkID"))
        if network is not None:
            for endpoint in self._endpoints.of(network):
                if endpoint.owner == "docker":  # Docker has forgotten it already, or it would not remove the network
                    await self._endpoints.delete(endpoint)
            await self._networks.remove(network)
        return {}

    # -- endpoints -----------------------------------------------------------------------------------------------------------

    async def create_endpoint(self, request: Record) -> Record:
        wanted = messages.create_endpoint(request)
        network = self._network(wanted.network_id)
        if network is None:
            raise NotFound(f"natgw has no network {wanted.network_id[:SHORT_ID]} (made by another natgw, or its state was "
                           "removed): `docker network rm` it and create it again")
        endpoint = self._endpoint(wanted.endpoint_id)
        if endpoint is None:
            await self._make_way(network, wanted)
            endpoint = await self._endpoints.create(network, EndpointRequest(
                id=wanted.endpoint_id, owner="docker", ip=wanted.ip, mac=wanted.mac, ip6=wanted.ip6, link="tap",
                holds_address=self._addresses.gave(network.subnet, wanted.ip)))
        return {"Interface": {} if wanted.mac is not None else {"MacAddress": mac_text(endpoint.mac)}}

    async def _make_way(self, network: Network, wanted: messages.CreateEndpoint) -> None:
        """Docker gives an address to one endpoint at a time: another of its that has it was removed while natgw was away."""
        for address in (wanted.ip, wanted.ip6):
            other = None if address is None else self._endpoints.at(network, address)
            if other is not None and other.owner == "docker":
                log.info("docker: endpoint %s is gone", other.name)
                await self._endpoints.delete(other)

    async def forget_stale(self) -> None:
        """After a restart: endpoints whose interface is gone have gone with their containers, while natgw was away."""
        for endpoint in self._endpoints.all():
            if endpoint.owner == "docker" and not endpoint.device:
                await self._endpoints.delete(endpoint)

    async def delete_endpoint(self, request: Record) -> Record:
        endpoint = self._endpoint(messages.text_of(request, "EndpointID"))
        if endpoint is not None:
            await self._endpoints.delete(endpoint)
        return {}

    async def endpoint_info(self, request: Record) -> Record:
        endpoint = self._endpoint(messages.text_of(request, "EndpointID"))
        return {"Value": {} if endpoint is None else messages.published(endpoint.ports)}

    async def join(self, request: Record) -> Record:
        """The name of a tap here, to be moved; and the gateway, unless there is no way out.

        DisableGatewayService keeps Docker from giving the container a way out of its own making (docker_gwbridge).
        """
        endpoint = self._endpoints.find(messages.text_of(request, "EndpointID"))
        await self._endpoints.unplug(endpoint)  # as it was joined before an answer that never arrived
        device = await self._endpoints.prepare(endpoint, messages.text_of(request, "SandboxKey"))
        network = endpoint.network
        self._look(network.id)
        return {
            "InterfaceName": {"SrcName": device, "DstPrefix": IFNAME_PREFIX},
            "Gateway": "" if network.internal else str(network.gateway),
            "GatewayIPv6": "" if network.internal or network.ipam6 is None else str(network.ipam6.gateway),
            "StaticRoutes": [],
            "DisableGatewayService": True,
        }

    async def leave(self, request: Record) -> Record:
        endpoint = self._endpoint(messages.text_of(request, "EndpointID"))
        if endpoint is not None:
            await self._endpoints.unplug(endpoint)
        return {}

    async def publish(self, request: Record) -> Record:
        """The endpoint is its container's way out from now on: its ports are published here."""
        endpoint = self._endpoints.find(messages.text_of(request, "EndpointID"))
        bindings = messages.port_map(request)
        await self._unpublish(endpoint)
        if bindings:
            await self._endpoints.publish(endpoint, bindings)
        return {}

    async def unpublish(self, request: Record) -> Record:
        endpoint = self._endpoint(messages.text_of(request, "EndpointID"))
        if endpoint is not None:
            await self._unpublish(endpoint)
        return {}

    async def _unpublish(self, endpoint: Endpoint) -> None:
        published = list(self._endpoints.published(endpoint))
        if published:
            await self._endpoints.unpublish(endpoint, published)

    # -- what a driver must be able to say -------------------------------------------------------------------------------------

    async def capabilities(self, request: Record) -> Record:
        return {"Scope": "local", "ConnectivityScope": "local"}

    async def nothing(self, request: Record) -> Record:
        """Of other hosts, which a driver of scope `local` has none of."""
        return {}

    # -- small -----------------------------------------------------------------------------------------------------------

    def _network(self, id_: str) -> Network | None:
        return next((network for network in self._networks.all() if network.id == id_), None)

    def _endpoint(self, id_: str) -> Endpoint | None:
        try:
            return self._endpoints.find(id_)
        except NatgwError:
            return None
