"""A DHCP server for one network (RFC 2131 section 4.3): a message in, a message or nothing out.

What a client asks for is told by what it fills in (RFC 2131 table 4):

    DISCOVER                              an OFFER
    REQUEST  server id, requested address SELECTING    it took an offer: ours, and it is bound; another's, and ours lapses
             requested address only       INIT-REBOOT  it remembers an address: right, wrong (NAK), or unknown here (silence)
             ciaddr only                  RENEWING (unicast to us), REBINDING (broadcast)
    DECLINE  requested address            somebody else uses it: it rests
    RELEASE  ciaddr                       it goes back
    INFORM   ciaddr                       it has an address, and wants to know the rest

The address of a station that natgw plugged in was chosen when it was: it is offered that one and no other, and only where it
is plugged in. Other stations (a virtual machine inside a container, a bridge behind one) get an address of the network's
pool for as long as their lease lasts, the one they had before if it is free.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

from natgw.tables.leases import Lease, LeaseTable
from natgw.wire import dhcp
from natgw.wire.dhcp import ZERO, DhcpMessage, Kind

OFFER_S = 60.0
"""How long an offer stands."""
DECLINED_S = 600.0
"""How long an address rests that a client found in use."""
SHORTEST_LEASE_S = 60
"""A client that wants less gets this much, or all there is."""
MAX_LEASES = 4096
MAX_LEASES_OF_ONE = 64
"""Of one bridge port, so that no container takes all addresses by making up clients."""


@dataclass(frozen=True, kw_only=True)
class DhcpSettings:
    """What clients are told. `router` None: no way out (an internal network)."""

    subnet: IPv4Network
    server: IPv4Address
    router: IPv4Address | None
    dns: tuple[IPv4Address, ...]
    mtu: int
    lease_s: int


class Addresses(Protocol):
    """The addresses of the network, which containers have too."""

    def reserved(self, mac: bytes) -> tuple[IPv4Address, Hashable] | None:
        """The address of a station that was plugged in, and where."""

    def take(self, wanted: IPv4Address | None) -> IPv4Address | None:
        """Take an address: this one, or the lowest free; None if it is taken, or none is free."""

    def give_back(self, address: IPv4Address) -> None:
        """What was taken."""


class DhcpServer:
    """`changed` is told of each lease that was bound or, with False, has ended; `count` of what happened."""

    def __init__(self, settings: DhcpSettings, addresses: Addresses, count: Counter[str],
                 changed: Callable[[Lease, bool], None]) -> None:
        self.settings = settings
        self.leases = LeaseTable()
        self._addresses = addresses
        self._count = count
        self._changed = changed
        self._server = settings.server.packed
        self._handlers = {Kind.DISCOVER: self._discover, Kind.REQUEST: self._request, Kind.DECLINE: self._decline,
                          Kind.RELEASE: self._release, Kind.INFORM: self._inform}

    def receive(self, message: DhcpMessage, source: Hashable, now: float) -> DhcpMessage | None:
        """Answer a message that was heard at `source`, or not: there is much a server has to be silent about."""
        handler = self._handlers.get(message.kind)
        reserved = self._addresses.reserved(message.chaddr)
        if handler is None or message.op != dhcp.REQUEST_OP or message.giaddr != ZERO or (
                reserved is not None and reserved[1] != source):
            self._count["ignored"] += 1
            return None
        self._count[message.kind.name.lower()] += 1
        reply = handler(message, source, now)
        if reply is not None:
            self._count[f"sent_{reply.kind.name.lower()}"] += 1
        return reply

    def restore(self, lease: Lease, now: float) -> bool:
        """Take up a lease of an earlier life; whether it still holds."""
        address = IPv4Address(lease.ip)
        if lease.until <= now or address not in self.settings.subnet:
            return False
        reserved = self._addresses.reserved(lease.mac)
        lease.dynamic = reserved is None
        if reserved is not None:
            if reserved[0] != address:
                return False
        elif self._addresses.take(address) is None:
            return False
        self.leases.add(lease)
        return True

    def forget(self, mac: bytes) -> None:
        """A station was unplugged: its lease goes with it."""
        for lease in self.leases:
            if lease.mac == mac:
                self._end(lease)

    def expire(self, now: float) -> None:
        """Give back what is over."""
        over, rested = self.leases.expire(now)
        for lease in over:
            self._ended(lease)
        for ip in rested:
            self._addresses.give_back(IPv4Address(ip))

    def close(self) -> None:
        """Give all addresses back; leases are kept by whoever was told of them."""
        over, rested = self.leases.expire(math.inf)
        for ip in [*(lease.ip for lease in over if lease.dynamic), *rested]:
            self._addresses.give_back(IPv4Address(ip))

    # -- what clients send ---------------------------------------------------------------------------------------------

    def _discover(self, message: DhcpMessage, source: Hashable, now: float) -> DhcpMessage | None:
        wishes = (self.leases.had(_client(message)), message.address(dhcp.REQUESTED_ADDRESS))  # RFC 2131 section 4.3.1
        lease = self._lease_for(message, (*(ip for ip in wishes if ip is not None), None), source, now)
        if lease is None:
            return None
        if not lease.bound:
            lease.until = now + OFFER_S
        return self._reply(message, Kind.OFFER, lease.ip)

    def _request(self, message: DhcpMessage, source: Hashable, now: float) -> DhcpMessage | None:
        chosen, wanted = message.address(dhcp.SERVER_ID), message.address(dhcp.REQUESTED_ADDRESS)
        lease = self.leases.of(_client(message))
        if chosen is not None and chosen != self._server:
            if lease is not None and not lease.bound:
                self._end(lease)
            return None
        ip = wanted if wanted is not None else message.ciaddr
        known = self._known(message, lease)
        if known is None and chosen is None and wanted is not None and IPv4Address(ip) in self.settings.subnet:
            return None  # INIT-REBOOT: "if the server has no record of this client, then it MUST remain silent"
        if known not in (None, ip) or ip == ZERO or IPv4Address(ip) not in self.settings.subnet:
            return self._nak(message, "that address is not yours here")
        lease = self._lease_for(message, (ip,), source, now)
        if lease is None or lease.ip != ip:
            return self._nak(message, "that address is not free")
        lease.bound, lease.until = True, now + self._lease_s(message)
        self._changed(lease, True)
        return self._reply(message, Kind.ACK, ip)

    def _decline(self, message: DhcpMessage, source: Hashable, now: float) -> None:
        lease = self.leases.of(_client(message))
        if lease is None or lease.ip != message.address(dhcp.REQUESTED_ADDRESS):
            return
        self.leases.rest(lease, now + DECLINED_S)  # if it was taken for this lease, it stays so until it has rested
        if lease.bound:
            self._changed(lease, False)

    def _release(self, message: DhcpMessage, source: Hashable, now: float) -> None:
        lease = self.leases.of(_client(message))
        if lease is not None and lease.ip == message.ciaddr:
            self._end(lease)

    def _inform(self, message: DhcpMessage, source: Hashable, now: float) -> DhcpMessage:
        return self._reply(message, Kind.ACK, ZERO)

    # -- addresses -----------------------------------------------------------------------------------------------------

    def _known(self, message: DhcpMessage, lease: Lease | None) -> bytes | None:
        """The address of a client that is known: reserved, or leased."""
        reserved = self._addresses.reserved(message.chaddr)
        if reserved is not None:
            return reserved[0].packed
        return None if lease is None else lease.ip

    def _lease_for(self, message: DhcpMessage, choices: tuple[bytes | None, ...], source: Hashable, now: float) -> Lease | None:
        """The lease of a client: of its reserved address, of the one it has, or an offer of the first of `choices` that is
        free (None: any)."""
        client, mac = _client(message), message.chaddr
        lease = self.leases.of(client)
        reserved = self._addresses.reserved(mac)
        if reserved is not None:
            return self._reserved_lease(Lease(client, mac, reserved[0].packed, now + OFFER_S, source=source))
        if lease is not None:
            return lease
        if len(self.leases) >= MAX_LEASES or self.leases.from_source(source) >= MAX_LEASES_OF_ONE:
            self._count["exhausted"] += 1
            return None
        for ip in choices:
            wanted = None if ip is None else IPv4Address(ip)
            taken = self._addresses.take(wanted) if wanted is None or wanted in self.settings.subnet else None
            if taken is not None:
                lease = Lease(client, mac, taken.packed, now + OFFER_S, dynamic=True, source=source)
                self.leases.add(lease)
                return lease
        self._count["exhausted"] += 1
        return None

    def _reserved_lease(self, wanted: Lease) -> Lease | None:
        if self.leases.is_resting(wanted.ip):
            return None
        lease = self.leases.of(wanted.client)
        if lease is not None and lease.ip == wanted.ip:
            return lease
        for other in (lease, self.leases.at(wanted.ip)):  # the same station under another identifier
            if other is not None:
                self._end(other)
        self.leases.add(wanted)
        return wanted

    def _end(self, lease: Lease) -> None:
        self.leases.remove(lease)
        self._ended(lease)

    def _ended(self, lease: Lease) -> None:
        if lease.dynamic:
            self._addresses.give_back(IPv4Address(lease.ip))
        if lease.bound:
            self._changed(lease, False)

    # -- answers -------------------------------------------------------------------------------------------------------

    def _lease_s(self, message: DhcpMessage) -> int:
        """What the client asks for within what is allowed."""
        longest = self.settings.lease_s
        wanted = message.number(dhcp.LEASE_TIME)
        return longest if wanted is None else min(longest, max(wanted, SHORTEST_LEASE_S))

    def _nak(self, message: DhcpMessage, why: str) -> DhcpMessage:
        return self._message(message, Kind.NAK, ZERO, {dhcp.SERVER_ID: self._server, dhcp.MESSAGE: why.encode()},
                             flags=message.flags | dhcp.BROADCAST_FLAG)

    def _reply(self, message: DhcpMessage, kind: Kind, ip: bytes) -> DhcpMessage:
        options = {dhcp.SERVER_ID: self._server}
        if message.kind is not Kind.INFORM:
            lease_s = self._lease_s(message)
            for code, seconds in ((dhcp.LEASE_TIME, lease_s), (dhcp.RENEWAL_TIME, lease_s // 2),
                                  (dhcp.REBINDING_TIME, lease_s * 7 // 8)):
                options[code] = seconds.to_bytes(4, "big")
        return self._message(message, kind, ip, options | self._parameters(message), flags=message.flags)

    def _message(self, message: DhcpMessage, kind: Kind, ip: bytes, options: dict[int, bytes], *, flags: int) -> DhcpMessage:
        if dhcp.CLIENT_ID in message.options:
            options[dhcp.CLIENT_ID] = message.options[dhcp.CLIENT_ID]  # RFC 6842
        ciaddr = ZERO if kind is Kind.NAK else message.ciaddr
        return DhcpMessage(op=dhcp.REPLY_OP, kind=kind, xid=message.xid, chaddr=message.chaddr, flags=flags, ciaddr=ciaddr,
                           yiaddr=ip, options=options)

    def _parameters(self, message: DhcpMessage) -> dict[int, bytes]:
        """What there is of what was asked for; the netmask before the router (RFC 2132 section 3.3)."""
        settings = self.settings
        known = {dhcp.SUBNET_MASK: settings.subnet.netmask.packed,
                 dhcp.ROUTER: b"" if settings.router is None else settings.router.packed,
                 dhcp.DNS: b"".join(address.packed for address in settings.dns),
                 dhcp.INTERFACE_MTU: settings.mtu.to_bytes(2, "big"),
                 dhcp.BROADCAST_ADDRESS: settings.subnet.broadcast_address.packed}
        wanted = message.options.get(dhcp.PARAMETERS, bytes(known))
        return {code: value for code, value in known.items() if value and code in wanted}


def _client(message: DhcpMessage) -> bytes:
    """Who a client is: its identifier, marked as such, or else its MAC address (RFC 2131 section 4.2)."""
    identifier = message.options.get(dhcp.CLIENT_ID, b"")
    return b"\x3d" + identifier if len(identifier) >= 2 else message.chaddr
