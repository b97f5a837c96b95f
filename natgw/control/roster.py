"""Who is on the network: containers by name and id, and what natgw holds for each.

A name is taken from the moment it is admitted, so that requests side by side cannot take the same. What then is done to a
container is done under its lock: one thing at a time, in the order it was asked for.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from natgw.control import names
from natgw.control.ledger import Entry
from natgw.control.model import Container, Network
from natgw.control.processes import Watch
from natgw.errors import Conflict, NatgwError, NotFound

LINK_KINDS = ("tap", "veth")
MTU_RANGE = (68, 65521)
"""RFC 791 asks for 68; a tap takes no more than 65535 less its header (drivers/net/tun.c)."""
SHORTEST_ID = 4

Record = dict[str, Any]


@dataclass
class Run:
    """The process of a container; `process` is None if `natgw run` itself is its parent."""

    watch: Watch
    process: subprocess.Popen[bytes] | None
    entry: Entry


@dataclass(eq=False)
class Member:
    """A container, with its lock, the descriptor of a namespace natgw made for it, and its process."""

    container: Container
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    namespace: int | None = None
    run: Run | None = None


class Roster:
    """The containers of one network, in the order they came."""

    def __init__(self, network: Network, default_link: str, rng: random.Random) -> None:
        self._network = network
        self._default_link = default_link
        self._rng = rng
        self._members: dict[str, Member] = {}
        self._closed = False

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members.values()))

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member: Member) -> bool:
        return self._members.get(member.container.name) is member

    def admit(self, request: Record, kind: Literal["run", "attached"]) -> Member:
        """A new container as it was asked for, its name taken. Raises Conflict if it is taken, NatgwError for nonsense."""
        if self._closed:
            raise Conflict("natgw is going down")
        network, name = self._network, request.get("name")
        name = names.generated_name(set(self._members), self._rng) if name is None else names.check_name(name)
        if name in self._members:
            raise Conflict(f"endpoint with name {name} already exists in network {network.name}")
        link = self._default_link if request.get("link") is None else request["link"]
        mtu = network.mtu if request.get("mtu") is None else request["mtu"]
        member = self._members[name] = Member(Container(
            id=names.new_id(), endpoint_id=names.new_id(), name=name, kind=kind, created=names.timestamp(time.time_ns()),
            netns="", link=check_link(link), mtu=check_mtu(mtu), network=network.name, prefixlen=network.subnet.prefixlen,
            gateway=network.gateway, ifname=names.check_ifname(request.get("ifname") or "eth0"),
            offload=request.get("offload", True)))
        return member

    def find(self, name: str) -> Member:
        """A container by name, id, or the beginning of an id that only one has. Raises NotFound."""
        member = self._members.get(name)
        if member is not None:
            return member
        found = [one for one in self if len(name) >= SHORTEST_ID and one.container.id.startswith(name)]
        if len(found) != 1:
            raise NotFound(f"No such container: {name} (`natgw ps -a` shows those there are)")
        return found[0]

    def dismiss(self, member: Member) -> None:
        """The name is free again. Twice is once."""
        if member in self:
            del self._members[member.container.name]

    def close(self) -> None:
        """Admit nobody any more."""
        self._closed = True


def check_link(kind: str) -> str:
    if kind not in LINK_KINDS:
        raise NatgwError(f"link {kind!r} is neither tap nor veth")
    return kind


def check_mtu(mtu: int) -> int:
    low, high = MTU_RANGE
    if not low <= mtu <= high:
        raise NatgwError(f"an MTU of {mtu} is not within {low}-{high}")
    return mtu
