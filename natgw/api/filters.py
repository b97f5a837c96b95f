"""What a query string may ask for, and the part of the flow table that it means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from natgw.api.backend import Record
from natgw.api.schema import unknown_key
from natgw.errors import NatgwError

PROTOCOLS = ("tcp", "udp", "icmp", "sctp", "udplite", "dccp", "gre")
FLAGS = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True)
class FlowFilter:
    """None means any."""

    container: str | None = None
    protocol: str | None = None

    def apply(self, flows: list[Record], container_ips: set[str]) -> list[Record]:
        """The flows of this protocol, and with an address of the container as one of their inner ends."""
        return [flow for flow in flows if self.protocol in (None, flow["protocol"])
                and (self.container is None or container_ips & _addresses(flow))]


def flow_filter(query: Mapping[str, str]) -> FlowFilter:
    """Raises NatgwError for a key or a protocol that does not exist."""
    known = {key: query.get(key) for key in ("container", "protocol")}
    _refuse_others(query, known)
    protocol = known["protocol"]
    if protocol not in (None, *PROTOCOLS) and not (str(protocol).isdecimal() and int(str(protocol)) < 256):
        raise NatgwError(f'unknown protocol "{protocol}": one of {", ".join(PROTOCOLS)}, or the number of another')
    return FlowFilter(**known)


EVENT_KEYS = ("event", "network", "container", "type")


@dataclass(frozen=True)
class EventFilter:
    """By key, the values of which one must fit. A network is meant by its name or id, a container by its id."""

    wanted: Mapping[str, Sequence[str]]

    def fits(self, event: Record) -> bool:
        actor = event["Actor"]
        have = {"event": {event["Action"]}, "type": {event["Type"]}, "network": {actor["ID"], actor["Attributes"]["name"]},
                "container": {actor["Attributes"].get("container", "")}}
        return all(have[key] & set(values) for key, values in self.wanted.items())


def event_filter(query: Iterable[tuple[str, str]]) -> EventFilter:
    """From `network=lab`, which may be there several times. Raises NatgwError for a key that does not exist."""
    wanted: dict[str, list[str]] = {}
    for key, value in query:
        if key not in EVENT_KEYS:
            raise NatgwError(f"invalid filter '{key}': there are {', '.join(EVENT_KEYS)}")
        wanted.setdefault(key, []).append(value)
    return EventFilter(wanted)


def follow_flag(query: Mapping[str, str]) -> bool:
    """`follow` of a log's query. Raises NatgwError for anything but 0 or 1, and for other keys."""
    _refuse_others(query, {"follow": None})
    value = query.get("follow", "0")
    if value not in FLAGS:
        raise NatgwError(f'"follow" must be 0 or 1, not "{value}"')
    return FLAGS[value]


def _refuse_others(query: Mapping[str, str], known: Mapping[str, object]) -> None:
    for key in query:
        if key not in known:
            raise NatgwError(unknown_key(key, known))


def _addresses(flow: Record) -> set[str]:
    """Both ends as seen from within: where the flow came from, and who answers it."""
    return {flow["original"]["src"], flow["original"]["dst"], flow["reply"]["src"], flow["reply"]["dst"]}
