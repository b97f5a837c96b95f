"""Published ports: all of a request or none of it.

Each has up to three parts: a listening socket (it reserves the port, and serves the host's own processes), a publication in the
datapath (it serves the outside, which keeps its own address), and an entry in the guard. The sockets are bound first, since
only they can fail.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from natgw.control.model import PublishedPort
from natgw.control.portspec import PortBinding
from natgw.control.uplink import UplinkManager
from natgw.datapath import Datapath, Publication
from natgw.datapath.config import TransportName
from natgw.errors import Conflict, NatgwError
from natgw.host.relay import HostAddress, Relay
from natgw.host.sctp_port import EPHEMERAL, SctpPort

ANY4, ANY6 = IPv4Address(0), IPv6Address(0)
_EPHEMERAL_TRIES = 16
_TRANSPORTS: dict[str, TransportName] = {"tcp": "tcp", "udp": "udp", "sctp": "sctp"}


@dataclass(eq=False)
class Published:
    """One binding as it was made: its relays, and its publications, one for each IP version the datapath serves."""

    relays: list[Relay]
    publications: list[Publication]
    protocol: str
    host_ip: HostAddress | None
    host_port: int
    container_port: int

    def matches(self, binding: PortBinding) -> bool:
        """Whether a binding written to take it back means this one: what it leaves open fits anything."""
        return (self.protocol == binding.protocol and self.container_port == binding.container_port
                and (not binding.host_ports or self.host_port in binding.host_ports)
                and binding.host_ip in (None, self.host_ip))

    @property
    def binding(self) -> PortBinding:
        """What would publish it again, at the same host port."""
        return PortBinding(self.protocol, self.host_ip, range(self.host_port, self.host_port + 1), self.container_port)

    @property
    def lines(self) -> list[PublishedPort]:
        return [PublishedPort(self.protocol, str(relay.host_ip), self.host_port, self.container_port) for relay in self.relays]


class Publisher:
    """All published ports of the daemon."""

    def __init__(self, datapath: Datapath, uplink: UplinkManager) -> None:
        self._datapath = datapath
        self._uplink = uplink
        self._published: list[Published] = []

    async def publish(self, bindings: list[PortBinding], container_ip: IPv4Address,
                      container_ip6: IPv6Address | None = None) -> list[Published]:
        """Publish all bindings. Raises Conflict in Docker's words, with nothing half-done.

        What comes by IPv6 reaches a container without an IPv6 address through the relay, over IPv4.
        """
        made: list[Published] = []
        try:
            for binding in bindings:
                made.append(await self._publish_one(binding, container_ip, container_ip6))
        except BaseException:
            await self.unpublish(made)
            raise
        return made

    async def unpublish(self, published: list[Published]) -> None:
        """Take published ports back; connections through them end."""
        for item in published:
            self._withdraw(item)
            for relay in item.relays:
                await relay.close()
            # Last: until the sockets are closed the ports are taken, and for whoever asks meanwhile, by natgw.
            if item in self._published:
                self._published.remove(item)

    def _offer(self, item: Published, publication: Publication) -> None:
        self._datapath.publish(publication)
        item.publications.append(publication)
        self._uplink.add_publication(publication)

    def _withdraw(self, item: Published) -> None:
        while item.publications:
            publication = item.publications.pop()
            self._uplink.drop_publication(publication)
            self._datapath.unpublish(publication)

    def retarget(self, published: list[Published], container_ip: IPv4Address, container_ip6: IPv6Address | None = None) -> None:
        """Let published ports lead to another address; connections through the datapath end."""
        for item in published:
            self._withdraw(item)
            for publication in _publications(item.binding, item.host_port, container_ip, container_ip6):
                self._offer(item, publication)
            for relay in item.relays:
                relay.retarget(_target_of(relay.host_ip, container_ip, container_ip6))

    async def _publish_one(self, binding: PortBinding, container_ip: IPv4Address,
                           container_ip6: IPv6Address | None) -> Published:
        relays, port = self._bind(binding, container_ip, container_ip6)
        item = Published(relays, [], binding.protocol, binding.host_ip, port, binding.container_port)
        self._published.append(item)
        try:
            for publication in _publications(binding, port, container_ip, container_ip6):
                self._offer(item, publication)
            for relay in relays:
                await relay.start()
        except BaseException:
            await self.unpublish([item])
            raise
        return item

    def _bind(self, binding: PortBinding, container_ip: IPv4Address,
              container_ip6: IPv6Address | None) -> tuple[list[Relay], int]:
        """Bind the sockets of a binding at the first of its ports that is free."""
        if not binding.host_ports:
            failure: NatgwError = Conflict("no free host port")
            for _ in range(_EPHEMERAL_TRIES):
                try:
                    return self._bind_at(binding, 0, container_ip, container_ip6)
                except Conflict as error:
                    failure = error  # free on one family, taken on the other: another try
            raise failure
        for port in binding.host_ports:
            try:
                return self._bind_at(binding, port, container_ip, container_ip6)
            except Conflict as error:
                failure = error
        raise failure

    def _bind_at(self, binding: PortBinding, port: int, container_ip: IPv4Address,
                 container_ip6: IPv6Address | None) -> tuple[list[Relay], int]:
        addresses: list[HostAddress] = [ANY4, ANY6] if binding.host_ip is None else [binding.host_ip]
        holder: type[Relay] = Relay
        if binding.protocol == "sctp":
            # Which no relay serves: neither the host itself nor IPv6.
            addresses, holder = [address for address in addresses if address.version == 4], SctpPort
            port = port or secrets.choice(EPHEMERAL)
        for address in addresses:
            self._check_free(binding.protocol, address, port)
        relays: list[Relay] = []
        try:
            for address in addresses:
                target = _target_of(address, container_ip, container_ip6)
                relay = holder(binding.protocol, address, port, target, binding.container_port)
                try:
                    port = relay.bind()
                except Conflict:
                    raise
                except NatgwError:
                    if address == ANY6 and relays:
                        continue  # a host without IPv6 serves IPv4 alone
                    raise
                relays.append(relay)
        except BaseException:
            for relay in relays:
                relay.release()
            raise
        return relays, port

    def _check_free(self, protocol: str, address: HostAddress, port: int) -> None:
        for item in self._published:
            if item.protocol != protocol or item.host_port != port:
                continue
            for relay in item.relays:
                if relay.host_ip.version == address.version and (
                        relay.host_ip == address or relay.host_ip.is_unspecified or address.is_unspecified):
                    raise Conflict(f"Bind for {address}:{port} failed: port is already allocated")


def _target_of(host_ip: HostAddress, container_ip: IPv4Address, container_ip6: IPv6Address | None) -> HostAddress:
    """Where a relay at an address of the host leads: by the same IP version if that can be, as docker-proxy does."""
    return container_ip6 if host_ip.version == 6 and container_ip6 is not None else container_ip


def _publications(binding: PortBinding, port: int, container_ip: IPv4Address,
                  container_ip6: IPv6Address | None) -> list[Publication]:
    """What the datapath is to know of a binding; nothing of loopback's, which it never sees and the relay alone serves."""
    host_ip, wanted = binding.host_ip, []
    for target, wildcard in ((container_ip, ANY4), (container_ip6, ANY6)):
        if target is None or (host_ip is not None and (host_ip.is_loopback or host_ip.version != target.version)):
            continue
        if target.version == 6 and binding.protocol == "sctp":
            continue
        wanted.append(Publication(protocol=_TRANSPORTS[binding.protocol], host_ip=None if host_ip == wildcard else host_ip,
                                  host_port=port, container_ip=target, container_port=binding.container_port))
    return wanted
