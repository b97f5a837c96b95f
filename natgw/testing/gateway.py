"""A whole gateway in memory: packets go in and come out as values, and the clock is turned by hand.

It is natgw's own datapath, the one that `natgw up` runs, with lists where the links would be. What the outside and the
containers would do by themselves is done here: ARP and neighbour discovery are answered, and a container sends to its
neighbours directly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_address
from typing import Any

from scapy.packet import Packet

from natgw.control.portspec import parse_port_specs
from natgw.datapath import (
    Datapath,
    DatapathConfig,
    NatConfig,
    NetworkConfig,
    Port,
    PortKind,
    Publication,
    Route,
    UplinkConfig,
)
from natgw.datapath.config import TransportName
from natgw.datapath.core import TICK_S
from natgw.tables.flowtable import MAX_AWAKE
from natgw.testing.packets import addresses_of, dissected, version_of
from natgw.wire import nd
from natgw.wire.arp import REQUEST, ArpMessage, build_reply, parse_arp
from natgw.wire.ethernet import ETH, L3, TYPE_ARP, TYPE_IPV4, TYPE_IPV6, is_group
from natgw.wire.ip import group_mac, ip_text, link_local_of

OUTSIDE = "outside"
SUBNET = IPv4Network("172.17.0.0/16")
GATEWAY = IPv4Address("172.17.0.1")
GATEWAY_MAC = bytes.fromhex("0242ac110001")
UPLINK_MAC = bytes.fromhex("02aa00000001")
ROUTER_MAC = bytes.fromhex("02bb00000001")
EXTERNAL = "198.51.100.2"
SUBNET6 = IPv6Network("fd00:1:2:3::/64")
GATEWAY6 = IPv6Address("fd00:1:2:3::1")
EXTERNAL6 = "2001:db8:51::2"
_TRANSPORTS: dict[str, TransportName] = {"tcp": "tcp", "udp": "udp", "sctp": "sctp"}
_OFFLOAD = bytes(ETH)
_TYPES = {4: TYPE_IPV4.to_bytes(2, "big"), 6: TYPE_IPV6.to_bytes(2, "big")}
_STALE = bytes((0xA5,)) * 64
"""What a reused buffer holds behind a frame; the datapath must never look at it."""


@dataclass(frozen=True)
class Delivery:
    """A packet that arrived: `to` is "outside" or a container's name, `data` its bytes from the IP header on."""

    to: str
    data: bytes

    @cached_property
    def packet(self) -> Packet:
        """The same as scapy dissects it. Change a copy of it, not itself."""
        return dissected(self.data)

    def __repr__(self) -> str:
        return f"Delivery({self.to}: {self.packet.summary()})"


class SimulatedGateway:
    """A gateway with containers inside and everything else outside.

    `containers` is how many (`c1`, `c2` ...) or their names; they have 172.17.0.2 and following. `external` are the uplink's
    addresses, the first of which is used unless `nat` says otherwise. With an IPv6 address among them, such as 2001:db8:51::2,
    the network has IPv6 too, as by `natgw up --ipv6`: containers have fd00:1:2:3::2 and following beside. `publish` has a pair
    for each published port, such as ("c1", "8080:80/udp"), in Docker's words. `seed` makes the choice of ports repeatable.
    With `exclusive` the external addresses are natgw's alone, as with `natgw up --exclusive-uplink`; else what is not natgw's
    goes to a host that is not there. More flows than `max_awake_flows` rest until a packet comes. Raises ValueError for what
    the datapath refuses.
    """

    def __init__(self, nat: NatConfig | None = None, *, containers: int | Sequence[str] = 2,
                 publish: Iterable[tuple[str, str]] = (), external: Sequence[str] = (EXTERNAL,), seed: int = 0,
                 fast_path: bool = True, port_range: tuple[int, int] = (1024, 65535), exclusive: bool = True,
                 mtu: int = 1500, max_awake_flows: int = MAX_AWAKE) -> None:
        names = [f"c{n + 1}" for n in range(containers)] if isinstance(containers, int) else list(containers)
        self.now = 0.0
        self.external = [str(ip_address(address)) for address in external]
        has_ipv6 = any(version_of(address) == 6 for address in self.external)
        self.containers = {name: str(GATEWAY + 1 + index) for index, name in enumerate(names)}
        """Each container's address, by its name."""
        self.containers6 = {name: str(GATEWAY6 + 1 + index) for index, name in enumerate(names)} if has_ipv6 else {}
        """Each container's IPv6 address, by its name, if the network has IPv6."""
        self.datapath = Datapath(DatapathConfig(nat=nat or NatConfig(), seed=seed, fast_path=fast_path, coalesce=False,
                                                exclusive=exclusive, port_range=port_range,
                                                max_awake_flows=max_awake_flows))
        self._sent: list[tuple[str, bytes]] = []
        self._ports: dict[str, Port] = {}
        self._macs: dict[bytes, bytes] = {}
        bridge = self.datapath.add_network(NetworkConfig(
            name="bridge", subnet=SUBNET, gateway=GATEWAY, gateway_mac=GATEWAY_MAC,
            subnet6=SUBNET6 if has_ipv6 else None, gateway6=GATEWAY6 if has_ipv6 else None))
        for name in names:
            self._ports[name] = port = self.datapath.add_port(bridge, name, PortKind.ENDPOINT, transmit=self._collector(name))
            for address in map(ip_address, self._addresses_of(name)):
                self._macs[address.packed] = self._mac_of(name)
                self.datapath.add_neighbour(bridge, address, self._mac_of(name), port)
            if has_ipv6:
                self._macs[link_local_of(self._mac_of(name))] = self._mac_of(name)
        config = self._uplink(mtu)
        self._ports[OUTSIDE] = self.datapath.set_uplink(OUTSIDE, self._collector(OUTSIDE), config)
        self.publications = [publication for name, spec in publish for publication in self._published(name, spec)]
        for publication in self.publications:
            self.datapath.publish(publication)
        self._introduce_router(config)

    def _uplink(self, mtu: int) -> UplinkConfig:
        """The interface outside. Its router is one host for both versions, known by its link-local address in IPv6."""
        links = [IPv4Interface(f"{address}/24") for address in self.external if version_of(address) == 4]
        links6 = [IPv6Interface(f"{address}/64") for address in self.external if version_of(address) == 6]
        routes = []
        if links:
            router = next(address for address in links[0].network.hosts() if str(address) not in self.external)
            routes.append(Route(IPv4Network("0.0.0.0/0"), router))
        if links6:
            links6.append(IPv6Interface((link_local_of(UPLINK_MAC), 64)))
            routes += [Route(links6[-1].network), Route(IPv6Network("::/0"), IPv6Address(link_local_of(ROUTER_MAC)))]
        return UplinkConfig(mac=UPLINK_MAC, mtu=mtu, addresses=(*links, *links6), routes=tuple(routes))

    def _introduce_router(self, config: UplinkConfig) -> None:
        """Let the gateway hear of its router, so that no packet has to wait for that."""
        for route in config.routes:
            if isinstance(route.gateway, IPv4Address):
                own = config.addresses[0].ip.packed
                self._send_arp(OUTSIDE, ArpMessage(REQUEST, UPLINK_MAC, own, bytes(6), route.gateway.packed))
            elif isinstance(route.gateway, IPv6Address):
                asks = nd.build_solicitation(ROUTER_MAC, route.gateway.packed, link_local_of(UPLINK_MAC), UPLINK_MAC)
                self._feed(OUTSIDE, bytes(asks)[ETH:])
        self._sent.clear()

    def _published(self, name: str, spec: str) -> list[Publication]:
        """What `natgw publish` makes of it: a publication for each version that the container has and SCTP does without."""
        found = []
        for port in parse_port_specs([spec]):
            if not port.host_ports:
                raise ValueError(f"{spec!r}: a simulated gateway publishes only on ports that are named")
            at = None if port.host_ip is None or port.host_ip.is_unspecified else port.host_ip
            made = [Publication(protocol=_TRANSPORTS[port.protocol], host_ip=at, host_port=port.host_ports[0],
                                container_ip=inside, container_port=port.container_port)
                    for inside in map(ip_address, self._addresses_of(name))
                    if port.host_ip is None or port.host_ip.version == inside.version
                    if (port.protocol, inside.version) != ("sctp", 6)]
            if not made:
                raise ValueError(f"{spec!r}: this simulated gateway has no IPv6")
            found += made
        return found

    def _addresses_of(self, name: str) -> list[str]:
        """A container's address of each version."""
        return [each[name] for each in (self.containers, self.containers6) if each]

    def _mac_of(self, name: str) -> bytes:
        return mac_of(self.containers[name])

    # -- packets ---------------------------------------------------------------------------------------------------------

    def send(self, sender: str, packet: Packet | bytes) -> list[Delivery]:
        """Send an IP packet from a container or from outside; gives what arrived anywhere because of it, in order.

        Bytes are sent as they are, well formed or not. A container sends to other containers by the bridge and all else to
        the gateway; what comes from outside comes from the next router.
        """
        data = packet if isinstance(packet, bytes) else bytes(packet)
        version, (_, destination) = version_of(data), addresses_of(data)
        if sender == OUTSIDE:
            header = UPLINK_MAC + ROUTER_MAC
        elif version == 6 and destination[:1] == b"\xff":
            header = group_mac(destination) + self._mac_of(sender)
        else:
            header = self._macs.get(destination, GATEWAY_MAC) + self._mac_of(sender)
        return self.send_frame(sender, header + _TYPES[version] + data)

    def send_frame(self, sender: str, frame: bytes) -> list[Delivery]:
        """Send an Ethernet frame, whatever is in it."""
        self._feed(sender, frame)
        return self._arrivals()

    def advance(self, seconds: float, *, tick_s: float = TICK_S) -> list[Delivery]:
        """Turn the clock, with a tick at least every `tick_s`; gives what the gateway sent by itself meanwhile."""
        end, arrived = self.now + seconds, []
        while self.now < end:
            self.now = min(self.now + tick_s, end)
            self.datapath.tick(self.now)
            arrived += self._arrivals()
        return arrived

    def _feed(self, sender: str, frame: bytes) -> None:
        buf = bytearray(_OFFLOAD + frame + _STALE)
        self.datapath.receive(self._ports[sender], buf, ETH + len(frame), self.now)
        self.datapath.flush()

    def _arrivals(self) -> list[Delivery]:
        """What the links got, once everybody who was asked for has answered; without ARP and neighbour discovery."""
        found = []
        while self._sent:
            sent, self._sent = self._sent, []
            for to, frame in sent:
                ethertype = int.from_bytes(frame[ETH + 12 : L3], "big")
                if ethertype == TYPE_ARP:
                    self._hear_arp(to, frame)
                elif ethertype == TYPE_IPV6 and nd.is_nd(frame, len(frame)):
                    self._hear_nd(to, frame)
                elif ethertype in (TYPE_IPV4, TYPE_IPV6) and self._is_for(to, frame[ETH : ETH + 6]):
                    found.append(Delivery(to, frame[L3:]))
        return found

    def _is_for(self, to: str, mac: bytes) -> bool:
        """Whether a station takes a frame: a bridge also floods frames to those who do not."""
        return is_group(mac) or mac == (ROUTER_MAC if to == OUTSIDE else self._mac_of(to))

    def _hear_arp(self, to: str, frame: bytes) -> None:
        message = parse_arp(bytearray(frame), len(frame))
        if message is not None and message.operation == REQUEST:
            self._send_arp(to, message)

    def _send_arp(self, sender: str, request: ArpMessage) -> None:
        """Answer an ARP request as the station that has the address would: outside, that is the router, for any."""
        mac = self._answers_for(sender, request.target_ip)
        if mac is not None:
            self._feed(sender, bytes(build_reply(request, mac))[ETH:])

    def _hear_nd(self, to: str, frame: bytes) -> None:
        message = nd.parse_nd(frame, len(frame))
        if message is not None and message.type == nd.NEIGHBOUR_SOLICITATION:
            mac = self._answers_for(to, message.target)
            if mac is not None:
                asker = frame[ETH + 6 : ETH + 12]
                self._feed(to, bytes(nd.build_advertisement(message, asker, mac, router=to == OUTSIDE))[ETH:])

    def _answers_for(self, station: str, address: bytes) -> bytes | None:
        """The MAC address that a station says an address has: outside the router answers for any."""
        if station == OUTSIDE:
            return ROUTER_MAC
        return self._mac_of(station) if self._macs.get(address) == self._mac_of(station) else None

    def _collector(self, name: str) -> Any:
        return lambda frame: self._sent.append((name, bytes(frame)))

    # -- state -----------------------------------------------------------------------------------------------------------

    def set_nat(self, nat: NatConfig) -> None:
        """Behave otherwise from now on; flows that exist go on as they are. Raises ValueError."""
        self.datapath.set_nat(nat)

    @property
    def nat(self) -> NatConfig:
        return self.datapath.napt.nat

    @property
    def counters(self) -> dict[str, int]:
        """Every counter by its name, as in `natgw stats`."""
        return self.datapath.counters()

    def flows(self) -> list[dict[str, Any]]:
        """The flows as `natgw flows --json` gives them."""
        return self.datapath.flow_records(self.now)


class Wire:
    """An outside network where gateways and hosts have addresses, so that what one gateway sends another gets.

    Gateways and hosts have names: Wire({"alice": gateway, "bob": another}, hosts={"server": "203.0.113.9"}). A container
    is named after its gateway, such as "alice/c1".
    """

    def __init__(self, gateways: Mapping[str, SimulatedGateway], hosts: Mapping[str, str]) -> None:
        self.gateways = dict(gateways)
        self.hosts = dict(hosts)
        self._host_at = {str(ip_address(address)): name for name, address in self.hosts.items()}
        self._gateway_at: dict[str, str] = {}
        for name, gateway in self.gateways.items():
            for address in gateway.external:
                if address in self._gateway_at or address in self._host_at:
                    raise ValueError(f"two on this wire have the address {address}")
                self._gateway_at[address] = name

    def send(self, sender: str, packet: Packet | bytes) -> list[Delivery]:
        """Send a packet from a host or a container; gives what arrives at containers and hosts, however far it has to go.

        A packet to an address that nobody has is lost, as it would be.
        """
        name, _, container = sender.partition("/")
        if container:
            return self._carry(name, self.gateways[name].send(container, packet))
        if name not in self.hosts:
            raise KeyError(f"{sender} is no host on this wire; a container is named gateway/container")
        return self._route(Delivery(OUTSIDE, packet if isinstance(packet, bytes) else bytes(packet)))

    def address(self, name: str, version: int = 4) -> str:
        """The address of a host, or a container's own of an IP version. Raises KeyError."""
        name, _, container = name.partition("/")
        if not container:
            return self.hosts[name]
        gateway = self.gateways[name]
        return (gateway.containers6 if version == 6 else gateway.containers)[container]

    def advance(self, seconds: float) -> list[Delivery]:
        """Turn the clock of every gateway."""
        arrived = []
        for name, gateway in self.gateways.items():
            arrived += self._carry(name, gateway.advance(seconds))
        return arrived

    def _carry(self, name: str, deliveries: list[Delivery]) -> list[Delivery]:
        arrived: list[Delivery] = []
        for delivery in deliveries:
            if delivery.to == OUTSIDE:
                arrived += self._route(delivery)
            else:
                arrived.append(Delivery(f"{name}/{delivery.to}", delivery.data))
        return arrived

    def _route(self, delivery: Delivery) -> list[Delivery]:
        destination = ip_text(addresses_of(delivery.data)[1])
        name = self._gateway_at.get(destination)
        if name is not None:
            return self._carry(name, self.gateways[name].send(OUTSIDE, delivery.data))
        host = self._host_at.get(destination)
        return [] if host is None else [Delivery(host, delivery.data)]


def mac_of(address: str) -> bytes:
    """The MAC address that a simulated container with an address has."""
    return bytes((2, 0x42)) + IPv4Address(address).packed
