"""`flows`, `fdb`, `neigh`, `stats`: what the gateway and the bridge know."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import click

from natgw.api.client import Client
from natgw.cli import output
from natgw.cli.group import TeachingCommand
from natgw.cli.options import complete_container, json_option
from natgw.cli.output import Column

Record = dict[str, Any]

FLOW_ORDERS: dict[str, Callable[[Record], Any]] = {
    "bytes": lambda flow: -(flow["original"]["bytes"] + flow["reply"]["bytes"]),
    "packets": lambda flow: -(flow["original"]["packets"] + flow["reply"]["packets"]),
    "timeout": lambda flow: flow["timeout_s"],
}


def _known_protocol(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A protocol that flows may have: one with a name, or the number of another."""
    if value is None or value in output.IP_PROTOCOLS or (value.isdecimal() and int(value) < 256):
        return value
    raise click.BadParameter(f"'{value}' is not one of {', '.join(output.IP_PROTOCOLS)}, nor another's number.", ctx, param)


@click.command(cls=TeachingCommand, examples="""
    # every flow, each as the container sees it and as the outside sees it
    natgw flows
    # only those of one container, the largest first
    natgw flows --container web --protocol tcp --sort bytes
    # the same, line by line, for what reads the output of conntrack -L
    natgw flows --conntrack | grep -c ASSURED
    # the external ports in use
    natgw flows --json | jq -r '.[].mapping.external'
""")
@click.option("--container", metavar="NAME", help="Only flows of this container.", shell_complete=complete_container)
@click.option("--protocol", metavar="NAME", callback=_known_protocol, help="Only flows of this protocol, such as tcp, or 50.",
              shell_complete=lambda ctx, param, begin: [name for name in output.IP_PROTOCOLS if name.startswith(begin)])
@click.option("--sort", type=click.Choice(list(FLOW_ORDERS)), help="Largest first; for timeout, the next to end first.")
@click.option("--conntrack", is_flag=True, help="Print one line for each, in the form of conntrack -L.")
@json_option
@click.pass_obj
def flows(client: Client, container: str | None, protocol: str | None, sort: str | None, conntrack: bool,
          json_: bool) -> None:
    """List translated flows.

    ORIGINAL is the flow as its first packet came in, REPLY the answer as it comes in: what differs between them is
    the translation. For icmp the number behind the colon is the query's id; protocols
    without ports have none. PACKETS and BYTES count original/reply.
    """
    if conntrack and json_:
        raise click.UsageError("--conntrack and --json exclude each other.", click.get_current_context())
    found = client.get("flows", container=container, protocol=protocol)
    found.sort(key=FLOW_ORDERS[sort] if sort else _flow_order)
    if json_:
        output.as_json(found)
        return
    if conntrack:
        for flow in found:
            click.echo(output.conntrack_line(flow))
        return
    output.table(
        ["PROTOCOL", Column("STATE", style="cyan"), Column("TIMEOUT", right=True), "KIND", "ORIGINAL", "REPLY",
         Column("PACKETS", right=True), Column("BYTES", right=True)],
        ([flow["protocol"], flow["state"], f"{flow['timeout_s']}s", flow["kind"], _leg(flow["original"]),
          _leg(flow["reply"]), _both(flow, "packets", str), _both(flow, "bytes", output.human_size)] for flow in found),
    )


def _flow_order(flow: Record) -> Any:
    original = flow["original"]
    return flow["protocol"], _address_order(original["src"]), original["sport"], _address_order(original["dst"])


def _address_order(address: str) -> tuple[int, bytes]:
    """IPv4 before IPv6, each by its number."""
    parsed = ip_address(address)
    return parsed.version, parsed.packed


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _leg(leg: Record) -> str:
    if not (leg["sport"] or leg["dport"]):
        return f"{leg['src']} -> {leg['dst']}"  # of a protocol without ports
    return f"{_endpoint(leg['src'], leg['sport'])} -> {_endpoint(leg['dst'], leg['dport'])}"


def _both(flow: Record, key: str, shown: Callable[[int], str]) -> str:
    return f"{shown(flow['original'][key])}/{shown(flow['reply'][key])}"


@click.command(cls=TeachingCommand, examples="""
    # which station is behind which port of the bridge
    natgw fdb
    # where is this one?
    natgw fdb | grep 02:42:ac:11:00:02
""")
@json_option
@click.pass_obj
def fdb(client: Client, json_: bool) -> None:
    """List the bridge's forwarding database.

    MAC addresses and the ports they were learned on. AGE is the time since the station was last heard; a static entry
    is natgw's own and has none.
    """
    found = sorted(client.get("fdb"), key=lambda entry: (entry["port"], entry["mac"]))
    if json_:
        output.as_json(found)
        return
    output.table(
        ["MAC", "PORT", "TYPE", Column("AGE", right=True)],
        ([entry["mac"], entry["port"], "static" if entry["static"] else "learned", _age(entry)] for entry in found),
    )


@click.command(cls=TeachingCommand, examples="""
    # the addresses natgw can send to, and what it knows of each
    natgw neigh
    # next hops on the uplink's side
    natgw neigh --json | jq '.[] | select(.network == "uplink")'
""")
@json_option
@click.pass_obj
def neigh(client: Client, json_: bool) -> None:
    """List what ARP has found out.

    IP addresses and the MAC addresses behind them, as ip neigh shows them, for the bridge and for the uplink.
    """
    found = sorted(client.get("neigh"), key=lambda entry: _address_order(entry["ip"]))
    if json_:
        output.as_json(found)
        return
    output.table(
        ["ADDRESS", "PORT", "MAC", Column("STATE", style="cyan"), Column("AGE", right=True)],
        ([entry["ip"], entry["port"] or "-", entry["mac"] or "-", entry["state"].upper(), _age(entry)]
         for entry in found),
    )


def _age(entry: Record) -> str:
    age = entry["age_s"]
    return "-" if age is None else f"{age:.0f}s"


@click.command(cls=TeachingCommand, examples="""
    # what became of all frames, and what went through each port
    natgw stats
    # zeros too: every counter there is
    natgw stats --all
    # follow it
    watch natgw stats
    # the same for Prometheus
    curl --unix-socket /run/natgw/natgw.sock http://natgw/metrics
""")
@click.option("--all", "-a", "all_", is_flag=True, help="Show counters that are zero, too.")
@json_option
@click.pass_obj
def stats(client: Client, all_: bool, json_: bool) -> None:
    """Show counters of frames and ports.

    Each frame that came in is in exactly one line of VERDICT or DROP. EVENT counts other things, such as frames decided
    on the fast path. SEGMENTED counts frames that had to be cut, or their checksum completed, in software for the port.
    """
    found = client.get("stats")
    if json_:
        output.as_json(found)
        return
    counters = found["counters"]
    for title, group in (("VERDICT", "verdicts"), ("DROP", "drops"), ("EVENT", "events")):
        rows = [(name, counters[name]) for name in found["groups"][group] if counters[name] or all_]
        output.table([Column(title, style="red" if group == "drops" else ""), Column("COUNT", right=True)], rows)
        click.echo()
    output.table(
        ["PORT", "KIND", *(Column(title, right=True) for title in
                           ("MTU", "RX FRAMES", "RX BYTES", "TX FRAMES", "TX BYTES", "TX DROPS", "SEGMENTED"))],
        ([port["name"], port["kind"], port["mtu"], port["rx_frames"], output.human_size(port["rx_bytes"]),
          port["tx_frames"], output.human_size(port["tx_bytes"]), port["tx_drops"], port["segmented"]]
         for port in found["ports"]),
    )
