"""The tables as people and JSON see them: names and text instead of bytes. See docs/cli.md for the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from natgw.datapath.napt import STREAM_AFTER_S
from natgw.datapath.sides import Bridge
from natgw.datapath.tcp_state import TcpState
from natgw.tables.flows import Flow, Leg, Mapping, destination, source
from natgw.wire.ethernet import mac_text
from natgw.wire.ip import endpoint_text, ip_text
from natgw.wire.ipv4 import ICMP, PROTOCOL_NAMES, TCP, UDP

if TYPE_CHECKING:
    from natgw.datapath.core import Datapath

Record = dict[str, object]

HANDSHAKE_PACKETS = 3


def flow_records(dp: Datapath, now: float) -> list[Record]:
    """One record a flow; `timeout_s` is what is left of its idle time."""
    return [_flow(dp, flow, now) for flow in dp.napt.flows]


def _flow(dp: Datapath, flow: Flow, now: float) -> Record:
    mapping = flow.mapping
    return {
        "protocol": PROTOCOL_NAMES.get(flow.protocol) or str(flow.protocol),
        "state": TcpState(flow.state).name if flow.protocol == TCP else _query_state(flow),
        "timeout_s": max(0, round(dp.napt.flows.last(flow) + flow.timeout_s - now)),
        "assured": _assured(flow),
        "network": flow.network,
        "kind": flow.kind,
        "original": _leg(flow.original),
        "reply": _leg(flow.reply),
        "mapping": None if mapping is None else _mapping(mapping),
    }


def _mapping(mapping: Mapping) -> Record:
    return {"internal": endpoint_text(mapping.internal), "external": endpoint_text(mapping.external)}


def _query_state(flow: Flow) -> str:
    return "REPLIED" if flow.reply.packets else "UNREPLIED"


def _assured(flow: Flow) -> bool:
    """Whether both sides have shown that they mean it, in nf_conntrack's sense: TCP that was established, UDP that still
    goes on after a while, anything else that was answered. nf_conntrack calls an ICMP query and what it does not know never
    so."""
    if not flow.reply.packets or flow.protocol == ICMP or flow.protocol not in PROTOCOL_NAMES:
        return False
    if flow.protocol == UDP:
        return max(flow.original.last, flow.reply.last) - flow.created >= STREAM_AFTER_S
    if flow.protocol == TCP and flow.state == TcpState.CLOSE:
        # Its past is not kept, but a handshake and what ended it are more packets than a SYN and its refusal.
        return flow.original.packets + flow.reply.packets > HANDSHAKE_PACKETS
    return flow.protocol != TCP or flow.state >= TcpState.ESTABLISHED


def _leg(leg: Leg) -> Record:
    key = leg.key
    return {"src": ip_text(source(key)), "sport": int.from_bytes(key[-4:-2], "big"), "dst": ip_text(destination(key)),
            "dport": int.from_bytes(key[-2:], "big"), "packets": leg.packets, "bytes": leg.bytes}


def fdb_records(dp: Datapath, now: float) -> list[Record]:
    """One record a station; `age_s` since it was last heard, null for a static one."""
    return [
        {"mac": mac_text(entry.mac), "port": entry.port.name, "network": bridge.name, "static": entry.static,
         "age_s": None if entry.static else round(max(0.0, now - entry.last_seen), 1)}
        for bridge in dp.bridges for entry in bridge.fdb.entries()
    ]


def neighbour_records(dp: Datapath, now: float) -> list[Record]:
    """One record an address; `age_s` since it was last confirmed."""
    return [
        {"ip": ip_text(entry.ip), "mac": None if entry.mac is None else mac_text(entry.mac), "state": entry.state.value,
         "port": None if entry.port is None else entry.port.name,
         "network": side.name if isinstance(side, Bridge) else "uplink", "age_s": round(max(0.0, now - entry.confirmed), 1)}
        for side in dp.sides() for entry in side.neighbours.entries()
    ]
