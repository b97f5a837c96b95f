"""What a query string may ask for, and the part of the flow table that it means."""

from __future__ import annotations

from collections.abc import Mapping
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

    def apply(self, flows: list[Record], container_ip: str | None) -> list[Record]:
        """The flows of this protocol, and with the address of the container as one of their inner ends."""
        return [flow for flow in flows if self.protocol in (None, flow["protocol"])
                and (self.container is None or container_ip in _addresses(flow))]


def flow_filter(query: Mapping[str, str]) -> FlowFilter:
    """Raises NatgwError for a key or a protocol that does not exist."""
    known = {key: query.get(key) for key in ("container", "protocol")}
    _refuse_others(query, known)
    protocol = known["protocol"]
    if protocol not in (None, *PROTOCOLS) and not (str(protocol).isdecimal() and int(str(protocol)) < 256):
        raise NatgwError(f'unknown protocol "{protocol}": one of {", ".join(PROTOCOLS)}, or the number of another')
    return FlowFilter(**known)


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
