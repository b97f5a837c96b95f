"""Who is on the network: containers by name and id, and what natgw holds for each.

A name is taken from the moment it is admitted, so that requests side by side cannot take the same. What then is done to a
container is done under its lock: one thing at a time, in the order it was asked for.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from natgw.control import names
from natgw.control.ledger import Entry
from natgw.control.model import Container, Network
from natgw.control.options import check_link, check_mtu
from natgw.control.portspec import PortBinding
from natgw.control.processes import Watch
from natgw.errors import Conflict, NotFound

SHORTEST_ID = 4
ENGINES = {"docker": "docker", "cni": "the engine that made it (podman, say)"}

Record = dict[str, Any]


@dataclass
class Run:
    """The process of a container; `process` is None if `natgw run` itself is its parent."""

    watch: Watch
    process: subprocess.Popen[bytes] | None
    entry: Entry


@dataclass(eq=False)
class Member:
    """A container, with its lock, the descriptor of a namespace natgw made for it, and its process.

    `bindings` are the ports it wants published, on whichever endpoint is its way out.
    """

    container: Container
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    namespace: int | None = None
    run: Run | None = None
    bindings: list[PortBinding] = field(default_factory=list)


class Roster:
    """All containers, in the order they came."""

    def __init__(self, default_link: str, rng: random.Random) -> None:
        self._default_link = default_link
        self._rng = rng
        self._members: dict[str, Member] = {}
        self._closed = False
        self.foreign: Callable[[], list[Container]] = list
        """What there is of other engines' containers, which only they can change."""

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members.values()))

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member: Member) -> bool:
        return self._members.get(member.container.name) is member

    def admit(self, request: Record, kind: Literal["run", "attached"], network: str) -> Member:
        """A new container as it was asked for, its name taken. Raises Conflict if it is taken, NatgwError for nonsense.

        `network` is the one it will be on, or the mode that it has instead.
        """
        if self._closed:
            raise Conflict("natgw is going down")
        name = request.get("name")
        name = names.generated_name(set(self._members), self._rng) if name is None else names.check_name(name)
        if name in self._members:
            raise Conflict(f"endpoint with name {name} already exists in network {network}")
        link = self._default_link if request.get("link") is None else request["link"]
        mtu = request.get("mtu")
        member = self._members[name] = Member(Container(
            id=request.get("id") or names.new_id(), name=name, kind=kind,
            created=request.get("created") or names.timestamp(time.time_ns()), link=check_link(link),
            mtu=None if mtu is None else check_mtu(mtu), network_mode=network,
            ifname=names.check_ifname(request.get("ifname") or "eth0"), offload=request.get("offload", True)))
        return member

    def find(self, name: str) -> Member:
        """A container by name, id, or the beginning of an id that only one has. Raises NotFound."""
        member = self._members.get(name)
        if member is not None:
            return member
        found = [one for one in self if len(name) >= SHORTEST_ID and one.container.id.startswith(name)]
        if len(found) == 1:
            return found[0]
        other = self._foreign(name)
        if other is not None:
            raise Conflict(f"container {name} is not natgw's own: use the commands of {ENGINES[other.kind]} for that")
        raise NotFound(f"No such container: {name} (`natgw ps -a` shows those there are)")

    def find_any(self, name: str) -> Container:
        """The same, among the containers of engines as well. Raises NotFound."""
        try:
            return self.find(name).container
        except Conflict:
            other = self._foreign(name)
            if other is None:
                raise
            return other

    def _foreign(self, name: str) -> Container | None:
        return next((container for container in self.foreign() if name in (container.name, container.id)
                     or (len(name) >= SHORTEST_ID and container.id.startswith(name))), None)

    def without_link(self, network: Network) -> list[Container]:
        """Who is on a network that has no bridge: the containers that run in mode `host` or `none`."""
        return [member.container for member in self if network.driver != "bridge" and member.container.state != "exited"
                and member.container.network_mode == network.name]

    def dismiss(self, member: Member) -> None:
        """The name is free again. Twice is once."""
        if member in self:
            del self._members[member.container.name]

    def close(self) -> None:
        """Admit nobody any more."""
        self._closed = True
