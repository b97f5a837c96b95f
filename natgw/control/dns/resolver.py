"""What natgw itself answers: names and addresses of one zone, which is what the asking container can see.

A name that exists is answered here whatever is asked about it: with its addresses, or with "nothing of that kind" (NODATA).
"No such name" (NXDOMAIN) is said only where natgw alone can know, of addresses within its own networks. Anything else
the host's resolvers may know, and Docker asks them too. From internal networks nothing is passed on, or a query would be a way
out of them; Docker answers SERVFAIL there.
"""

from __future__ import annotations

import random
from typing import Protocol

from natgw.wire import dns
from natgw.wire.dns import Address, Query

TTL_S = 600
"""Docker's (respTTL in libnetwork's resolver)."""


class Zone(Protocol):
    """What one asker can see."""

    @property
    def forwards(self) -> bool:
        """Whether it may ask the outside."""

    def addresses(self, name: str) -> list[Address] | None:
        """Those of a name in lower case without the dot at the end; None if there is no such name here."""

    def name_of(self, address: Address) -> str | None:
        """The name of an address."""

    def covers(self, address: Address) -> bool:
        """Whether an address belongs to a network of this zone."""


def answer(query: Query, zone: Zone, rng: random.Random) -> bytes | None:
    """natgw's own answer; None if the question is to be passed on."""
    addresses = zone.addresses(query.name)
    if addresses is not None:
        # In another order each time: who takes the first spreads over all that share an alias.
        return dns.addresses_answer(query, rng.sample(addresses, len(addresses)), TTL_S)
    address = query.reverse_address
    if address is not None:
        name = zone.name_of(address)
        if name is not None or zone.covers(address):
            return dns.name_answer(query, name, TTL_S)
    return None if zone.forwards else dns.refusal(query, dns.SERVFAIL)
