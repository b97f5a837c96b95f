"""IpamDriver.*: subnets and addresses from natgw's own pools, for `docker network create --ipam-driver`.

Without that option Docker's own driver chooses them, in the same way. What a network of Docker's got here is kept with the
network, so that natgw can be restarted; what was given since then is remembered here, since only that is to be released.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from natgw.control.docker import messages
from natgw.control.docker.messages import Record, RequestPool6
from natgw.control.ipam import AddressPool, Pools
from natgw.control.ipam6 import AddressPool6, Pools6
from natgw.control.pool import AnyPool, Pool
from natgw.errors import NatgwError, NotFound
from natgw.host import interfaces

SPACE = "natgw"
"""The address space of natgw's networks: what a network's addresses are marked with, if they are from here."""


class Addresses:
    """Each method takes a request and gives the answer, or raises NatgwError."""

    def __init__(self, pools: Pools, pools6: Pools6) -> None:
        self._pools = pools
        self._pools6 = pools6
        self._given: set[tuple[str, IPv4Address | IPv6Address]] = set()

    def pool_of(self, subnet: IPv4Network) -> AddressPool:
        """The pool that was requested for a network. Raises NotFound."""
        return _requested(self._pools.of_subnet(subnet), subnet)

    def pool6_of(self, subnet: IPv6Network) -> AddressPool6:
        """The same of IPv6."""
        return _requested(self._pools6.of_subnet(subnet), subnet)

    def gave(self, subnet: IPv4Network, address: IPv4Address | None) -> bool:
        """Whether an address was requested here, and will be released here; one of IPv6 beside it then was and will be too."""
        pool = self._pools.of_subnet(subnet)
        return pool is not None and (pool.id, address) in self._given

    async def capabilities(self, request: Record) -> Record:
        return {"RequiresMACAddress": False, "RequiresRequestReplay": False}

    async def spaces(self, request: Record) -> Record:
        return {"LocalDefaultAddressSpace": SPACE, "GlobalDefaultAddressSpace": SPACE}

    async def request_pool(self, request: Record) -> Record:
        wanted = messages.request_pool(request)
        pool: Pool[Any, Any]
        if isinstance(wanted, RequestPool6):
            routes6 = await asyncio.to_thread(interfaces.host_routes6)
            pool = self._pools6.request(wanted.subnet, wanted.ip_range, avoid=routes6)
        else:
            routes = await asyncio.to_thread(interfaces.host_routes)
            pool = self._pools.request(wanted.subnet, wanted.ip_range, avoid=routes)
        pool.label = str(pool.subnet)
        return {"PoolID": pool.id, "Pool": str(pool.subnet), "Data": {}}

    async def release_pool(self, request: Record) -> Record:
        pool = self._pool(request)
        if pool is not None:
            self._given = {entry for entry in self._given if entry[0] != pool.id}
            (self._pools if pool.subnet.version == 4 else self._pools6).release(pool.id)
        return {}

    async def request_address(self, request: Record) -> Record:
        """An address with its length; the gateway's is the first of the subnet, wherever containers' addresses begin."""
        wanted = messages.request_address(request)
        pool: Pool[Any, Any] = self._pools6.get(wanted.pool_id) or self._pools.find(wanted.pool_id)
        if wanted.ip is not None:
            if wanted.ip.version != pool.subnet.version:
                raise NatgwError(f"{wanted.ip} is no address of the pool {pool.subnet}")
            address = pool.reserve(wanted.ip)
        elif wanted.for_gateway:
            address = pool.reserve(pool.first)
        else:
            address = pool.allocate()
        self._given.add((pool.id, address))
        return {"Address": f"{address}/{pool.subnet.prefixlen}", "Data": {}}

    async def release_address(self, request: Record) -> Record:
        pool, address = self._pool(request), messages.address_of(request)
        if pool is not None and address is not None and (pool.id, address) in self._given:
            self._given.discard((pool.id, address))
            pool.release(address)
        return {}

    def _pool(self, request: Record) -> Pool[Any, Any] | None:
        """The pool that a request names; None for one that is gone with its network, or with natgw's state."""
        id_ = messages.text_of(request, "PoolID")
        return self._pools6.get(id_) or self._pools.get(id_)


def _requested(pool: AnyPool | None, subnet: IPv4Network | IPv6Network) -> AnyPool:
    if pool is None:
        raise NotFound(f"no pool of {subnet} was requested of natgw, or before it was started")
    return pool
