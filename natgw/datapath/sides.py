"""The two kinds of network natgw stands between: a bridge with containers on it, and the uplink to the outside.

What they have in common is a *side*: a realm of flow legs, a table of neighbours, an address and a MAC of natgw's own, and
ARP, with neighbour discovery as IPv6's. The bridge adds learning and flooding, and is a router to its hosts; the uplink
adds routes and the question of what belongs to the host.

Addresses of both versions are in the same tables. A bridge without an IPv6 prefix owns no IPv6 address, hears no neighbour
discovery and bridges all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from natgw.datapath.advertiser import Advertiser
from natgw.datapath.config import NetworkConfig, PortKind, UplinkConfig
from natgw.datapath.port import ROUTE, Port
from natgw.datapath.verdict import Extra
from natgw.tables.fdb import Fdb, Learned
from natgw.tables.flows import Realm
from natgw.tables.fragments import FragmentTable
from natgw.tables.neigh import Neighbour, NeighbourTable
from natgw.tables.routes import RouteTable
from natgw.wire import nd
from natgw.wire.arp import ArpMessage, build_reply, build_request
from natgw.wire.ethernet import BROADCAST, ETH, L3, TYPE_IPV4, TYPE_IPV6
from natgw.wire.ip import IPV4_ADDRESS_BYTES, IPV6_ADDRESS_BYTES, is_link_local, is_multicast, link_local_of
from natgw.wire.nd import NdMessage

if TYPE_CHECKING:
    from natgw.datapath.dhcp import DhcpHook

_TYPES = {IPV4_ADDRESS_BYTES: TYPE_IPV4.to_bytes(2, "big"), IPV6_ADDRESS_BYTES: TYPE_IPV6.to_bytes(2, "big")}

LOOPBACK_MTU = 65535


class NoWay(Enum):
    """Why a packet cannot go."""

    NO_ROUTE = "no route"
    TABLE_FULL = "no room for another neighbour"


Unresolved = Callable[["Side", Neighbour[Port], list[bytes]], None]


class Side:
    """A network segment natgw has an address on. `extras` are the datapath's side counters."""

    def __init__(self, mac: bytes, max_neighbours: int, extras: list[int], unresolved: Unresolved) -> None:
        self.mac = mac
        self.realm = Realm()
        self.extras = extras
        self.fragments = FragmentTable()
        self.neighbours: NeighbourTable[Port] = NeighbourTable(
            max_neighbours, self._send_request, lambda neighbour, frames: unresolved(self, neighbour, frames))

    def owns(self, ip: bytes) -> bool:
        """Whether natgw answers ARP for this address here."""
        raise NotImplementedError

    def source_for(self, ip: bytes) -> bytes:
        """The address of natgw's own that a neighbour `ip` should see."""
        raise NotImplementedError

    def ports_for(self, neighbour: Neighbour[Port], to_mac: bytes | None) -> list[Port]:
        """Where an ARP request for a neighbour goes."""
        raise NotImplementedError

    def hear_arp(self, message: ArpMessage, port: Port, now: float) -> None:
        """Learn from an ARP message and answer it if it asks for us (RFC 826, packet reception)."""
        for_us = self.owns(message.target_ip)
        if not message.is_probe and not self.owns(message.sender_ip) and self.on_link(message.sender_ip):
            neighbour = self.neighbours.confirm(message.sender_ip, message.sender_mac, port, now, create=for_us)
            if neighbour is not None:
                self.bind(neighbour)
        if for_us and message.operation == 1 and self.answers:
            port.transmit(memoryview(build_reply(message, self.mac)))

    def hear_nd(self, message: NdMessage, from_mac: bytes, port: Port, now: float) -> None:
        """Learn from a neighbour's solicitation or advertisement, and answer it if it asks for us (RFC 4861 section 7.2)."""
        asks = message.type == nd.NEIGHBOUR_SOLICITATION
        for_us = asks and self.owns(message.target)
        about = message.target if message.type == nd.NEIGHBOUR_ADVERTISEMENT else message.src
        # A solicitation without the option tells no address; an advertisement without it came from where it says (7.2.4).
        mac = message.mac or (None if asks else from_mac)
        if mac is not None and not message.is_probe and not self.owns(about) and self.on_link(about):
            known = self.neighbours.get(about)
            if asks or message.override or known is None or known.mac in (None, mac):
                neighbour = self.neighbours.confirm(about, mac, port, now, create=for_us)
                if neighbour is not None:
                    self.bind(neighbour)
        if for_us and self.answers:
            port.transmit(memoryview(nd.build_advertisement(message, from_mac, self.mac, router=self.is_router)))

    answers = True
    """Whether natgw answers ARP and neighbour discovery on this side, or leaves that to the host."""
    is_router = False
    """Whether natgw is a router to the hosts on this side."""

    def on_link(self, ip: bytes) -> bool:
        """Whether an address can be a neighbour here at all."""
        raise NotImplementedError

    def bind(self, neighbour: Neighbour[Port]) -> None:
        """Make a confirmed neighbour ready to send to, and send what waited for it."""
        if neighbour.port is None or neighbour.mac is None:
            return
        neighbour.macs = neighbour.mac + self.mac
        neighbour.header = neighbour.macs + _TYPES[len(neighbour.ip)]
        neighbour.mtu = neighbour.port.mtu
        neighbour.coalesces = neighbour.port.coalesces
        neighbour.transmit = neighbour.port.transmit
        for waiting in neighbour.queue.take():
            frame = bytearray(waiting)
            frame[ETH:L3] = neighbour.header
            neighbour.transmit(memoryview(frame))

    def _send_request(self, neighbour: Neighbour[Port], to_mac: bytes | None) -> None:
        source = self.source_for(neighbour.ip)
        if len(neighbour.ip) == IPV4_ADDRESS_BYTES:
            counter, frame = Extra.ARP_REQUESTS, bytearray(build_request(self.mac, source, neighbour.ip, to_mac or BROADCAST))
        else:
            counter, frame = Extra.ND_SOLICITATIONS, nd.build_solicitation(self.mac, source, neighbour.ip, to_mac)
        for port in self.ports_for(neighbour, to_mac):
            self.extras[counter] += 1
            port.transmit(memoryview(frame))


class Bridge(Side):
    """A MAC-learning bridge (IEEE 802.1D) with natgw's gateway as one of its stations."""

    def __init__(self, config: NetworkConfig, max_fdb: int, max_neighbours: int, extras: list[int],
                 unresolved: Unresolved) -> None:
        super().__init__(config.gateway_mac, max_neighbours, extras, unresolved)
        self.config = config
        self.name = config.name
        self.gateway = config.gateway.packed
        self.mtu = config.mtu
        self.icc = config.icc
        self.network = int(config.subnet.network_address)
        self.mask = int(config.subnet.netmask)
        self.broadcast = config.subnet.broadcast_address.packed
        self.gateway6 = None if config.gateway6 is None else config.gateway6.packed
        self.link_local = link_local_of(config.gateway_mac)
        self._prefix6 = None if config.subnet6 is None else (
            int(config.subnet6.network_address), int(config.subnet6.netmask))
        self.advertiser = None if config.subnet6 is None or not config.advertises else Advertiser(
            config.gateway_mac, config.subnet6, config.mtu, leads_out=not config.internal)
        self.ports: list[Port] = []
        self.host_port: Port | None = None
        self.dhcp: DhcpHook | None = None
        """The network's DHCP server, if it has one."""
        self.fdb: Fdb[Port] = Fdb(max_fdb)
        self.fdb.add_static(config.gateway_mac, ROUTE)

    is_router = True

    def owns(self, ip: bytes) -> bool:
        return ip == self.gateway or (self.gateway6 is not None and ip in (self.gateway6, self.link_local))

    def source_for(self, ip: bytes) -> bytes:
        if len(ip) == IPV4_ADDRESS_BYTES or self.gateway6 is None:
            return self.gateway
        return self.link_local if is_link_local(ip) else self.gateway6

    def on_link(self, ip: bytes) -> bool:
        if len(ip) == IPV4_ADDRESS_BYTES:
            return int.from_bytes(ip, "big") & self.mask == self.network and ip != self.broadcast
        if self._prefix6 is None:
            return False
        network, mask = self._prefix6
        return int.from_bytes(ip, "big") & mask == network or is_link_local(ip)

    def routes_to(self, ip: bytes) -> bool:
        """Whether an address is a host's of this network, reachable from elsewhere: on the link, and not only valid there."""
        return self.on_link(ip) and not is_link_local(ip)

    def ports_for(self, neighbour: Neighbour[Port], to_mac: bytes | None) -> list[Port]:
        if to_mac is not None and neighbour.port is not None:
            return [neighbour.port]
        return [port for port in self.ports if port is not self.host_port]

    def keeps_apart(self, port: Port, out: Port) -> bool:
        """Whether what comes in at `port` must not go out at `out`: both lead to containers, which are not to meet here."""
        return not self.icc and port.kind is PortKind.ENDPOINT and out.kind is PortKind.ENDPOINT

    def learn(self, mac: bytes, port: Port, now: float) -> Learned:
        """Note where a station is; one that moved takes its neighbour entries, and so its flows, along at once."""
        learned = self.fdb.learn(mac, port, now)
        if learned is Learned.MOVED:
            self.clear_shortcuts()
            for neighbour in self.neighbours.entries():
                if neighbour.mac == mac and neighbour.port is not port:
                    neighbour.port = port
                    self.bind(neighbour)
        elif learned is Learned.REFUSED_FULL:
            self.extras[Extra.FDB_FULL] += 1
        return learned

    def clear_shortcuts(self) -> None:
        for port in self.ports:
            port.shortcuts.clear()

    def add(self, port: Port, *, is_host: bool) -> None:
        self.ports.append(port)
        if is_host:
            self.host_port = port
            self.fdb.add_static(self.mac, port)
        self.clear_shortcuts()

    def remove(self, port: Port) -> None:
        self.ports.remove(port)
        self.fdb.forget_port(port)
        if port is self.host_port:
            self.host_port = None
            self.fdb.add_static(self.mac, ROUTE)
        self.neighbours.forget_port(port)
        self.clear_shortcuts()


class Uplink(Side):
    """The way out: one interface, its addresses and routes."""

    def __init__(self, port: Port, config: UplinkConfig, max_neighbours: int, extras: list[int], unresolved: Unresolved, *,
                 exclusive: bool) -> None:
        super().__init__(config.mac, max_neighbours, extras, unresolved)
        self.port = port
        # In a shared namespace the host's own stack answers ARP for the address.
        self.answers = exclusive
        self.loopbacks: dict[int, Neighbour[Port]] = {length: Neighbour(bytes(length), 0.0) for length in _TYPES}
        """The way to natgw's own addresses, for what hairpins: out and in again. By the length of an address."""
        for loopback in self.loopbacks.values():
            loopback.is_loopback = True
            loopback.mtu = LOOPBACK_MTU
        self.apply(config)

    def apply(self, config: UplinkConfig) -> None:
        """Take over a new state of the interface. Neighbours are asked for anew; flows find their way again."""
        self.config = config
        self.mac = config.mac
        self.port.mtu = config.mtu
        self.port.shortcuts.clear()
        self.neighbours.clear()
        for length, loopback in self.loopbacks.items():
            loopback.macs = config.mac + config.mac
            loopback.header = loopback.macs + _TYPES[length]
        own = [interface.ip.packed for interface in config.addresses]
        self.addresses = [address for address in own if not is_link_local(address)]
        """Those to translate to, in the order of the interface."""
        self.address_set = frozenset(own)
        self._lengths = frozenset(map(len, self.addresses))
        self.local = self.address_set | {address.packed for address in config.local_addresses}
        self._links = [(int(interface.network.network_address), int(interface.network.netmask), interface.ip.packed)
                       for interface in config.addresses]
        self._routes = {length: RouteTable(
            (int(route.destination.network_address), int(route.destination.netmask),
             None if route.gateway is None else route.gateway.packed)
            for route in config.routes if route.destination.max_prefixlen == length * 8) for length in _TYPES}

    def apply_local(self, config: UplinkConfig) -> bool:
        """Take over a new state that differs in the host's other addresses alone, as it does with each network that comes
        and goes: nobody has to be asked for anew then. False if more is different, and nothing is done.
        """
        if replace(config, local_addresses=self.config.local_addresses) != self.config:
            return False
        self.config = config
        self.local = self.address_set | {address.packed for address in config.local_addresses}
        return True

    def owns(self, ip: bytes) -> bool:
        return ip in self.address_set

    def leads_out(self, like: bytes) -> bool:
        """Whether there is an address of the same version to translate to."""
        return len(like) in self._lengths

    def on_link(self, ip: bytes) -> bool:
        return ip not in self.address_set and not (len(ip) == IPV6_ADDRESS_BYTES and is_multicast(ip))

    def source_for(self, ip: bytes) -> bytes:
        """The address on the network of a next hop, else the first one: what Linux picks without a preferred source."""
        address = int.from_bytes(ip, "big")
        for network, mask, own in self._links:
            if len(own) == len(ip) and address & mask == network:
                return own
        for own in (*self.addresses, *self.address_set):
            if len(own) == len(ip):
                return own
        return bytes(len(ip))

    def external_for(self, destination: bytes, hop: bytes) -> bytes:
        """The address to translate to, on the way to `destination` by next hop `hop`.

        For IPv4 as `source_for`. An IPv6 router mostly has a link-local address, which says nothing; so of several the one
        that has most in common with the destination (RFC 6724 section 5, rule 8; it tells unique local ones from others).
        """
        usable = [address for address in self.addresses if len(address) == len(destination)]
        if len(destination) == IPV4_ADDRESS_BYTES or not usable:
            return self.source_for(hop)
        number = int.from_bytes(destination, "big")
        return min(usable, key=lambda own: (int.from_bytes(own, "big") ^ number).bit_length())

    def way_to(self, ip: bytes, now: float) -> Neighbour[Port] | NoWay:
        """The neighbour that leads to an address."""
        if ip in self.address_set:
            return self.loopbacks[len(ip)]
        hop = self._routes[len(ip)].next_hop(ip)
        if hop is None:
            return NoWay.NO_ROUTE
        neighbour = self.neighbours.resolve(hop, now)
        if neighbour is None:
            return NoWay.TABLE_FULL
        # Whoever it is, there is one way to it: what is too big for that is so before ARP has answered.
        neighbour.mtu = self.port.mtu
        return neighbour

    def ports_for(self, neighbour: Neighbour[Port], to_mac: bytes | None) -> list[Port]:
        return [self.port]


