"""Who has which address for how long (RFC 2131 section 2.2): leases by client and by address, and addresses that rest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass


@dataclass
class Lease:
    """An address (4 bytes) of a client until a time. An offer is not `bound` yet; `dynamic`: taken for this lease only.

    `client` is its identifier, or its MAC address if it has none; `source` is where it was heard.
    """

    client: bytes
    mac: bytes
    ip: bytes
    until: float
    bound: bool = False
    dynamic: bool = False
    source: Hashable = None


class LeaseTable:
    """At most one lease a client, and one client an address. Remembers `max_remembered` addresses that clients had before."""

    def __init__(self, max_remembered: int = 1024) -> None:
        self._by_client: dict[bytes, Lease] = {}
        self._by_ip: dict[bytes, Lease] = {}
        self._resting: dict[bytes, tuple[float, bool]] = {}
        self._had: OrderedDict[bytes, bytes] = OrderedDict()
        self._max_remembered = max_remembered

    def __len__(self) -> int:
        return len(self._by_client)

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self._by_client.values()))

    def of(self, client: bytes) -> Lease | None:
        return self._by_client.get(client)

    def at(self, ip: bytes) -> Lease | None:
        return self._by_ip.get(ip)

    def from_source(self, source: Hashable) -> int:
        """How many leases one source has caused."""
        return sum(lease.source == source for lease in self._by_client.values())

    def add(self, lease: Lease) -> None:
        """Client and address must be free."""
        self._by_client[lease.client] = lease
        self._by_ip[lease.ip] = lease
        self._had.pop(lease.client, None)

    def remove(self, lease: Lease) -> None:
        """The address is remembered as the one its client had. Twice is once."""
        if self._by_client.get(lease.client) is not lease:
            return
        del self._by_client[lease.client]
        del self._by_ip[lease.ip]
        self._had[lease.client] = lease.ip
        if len(self._had) > self._max_remembered:
            self._had.popitem(last=False)

    def had(self, client: bytes) -> bytes | None:
        """The address a client had last."""
        return self._had.get(client)

    def rest(self, lease: Lease, until: float) -> None:
        """End a lease whose address somebody uses who should not, and give the address to nobody for a while."""
        self.remove(lease)
        self._resting[lease.ip] = (until, lease.dynamic)

    def is_resting(self, ip: bytes) -> bool:
        return ip in self._resting

    def expire(self, now: float) -> tuple[list[Lease], list[bytes]]:
        """The leases that are over, and those addresses that have rested and were taken for a lease; all are taken out."""
        over = [lease for lease in self if lease.until <= now]
        for lease in over:
            self.remove(lease)
        rested = [ip for ip, (until, _) in self._resting.items() if until <= now]
        return over, [ip for ip in rested if self._resting.pop(ip)[1]]
