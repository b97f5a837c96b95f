"""Containers of engines, as natgw sees them: by the endpoints they have here, and nothing else.

An engine keeps its containers itself. What natgw can tell is where they are on its networks; `natgw ps`, `inspect` and `port`
show that beside natgw's own.
"""

from __future__ import annotations

from collections.abc import Iterable

from natgw.control.model import Container, Endpoint


def engine_containers(endpoints: Iterable[Endpoint]) -> list[Container]:
    """One for all endpoints in the same namespace; its id is the engine's, if that was told, or else the first endpoint's."""
    found: dict[str, Container] = {}
    for endpoint in endpoints:
        if endpoint.owner == "natgw":
            continue
        key = endpoint.netns or endpoint.container_id or endpoint.id
        if key in found:
            found[key].endpoints.append(endpoint)
        else:
            found[key] = Container(
                id=endpoint.container_id or endpoint.id, name=endpoint.name, kind=endpoint.owner, created=endpoint.created,
                netns=endpoint.netns or "", link=endpoint.link, network_mode=endpoint.network.name,
                state="running" if endpoint.device else "created", endpoints=[endpoint])
    return list(found.values())
