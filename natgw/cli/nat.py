"""`nat show` and `nat set`: how the gateway translates, while it runs."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from natgw.api.client import Client
from natgw.cli import output
from natgw.cli.group import TeachingGroup
from natgw.cli.options import json_option
from natgw.cli.output import Column

Record = dict[str, Any]


@click.group(cls=TeachingGroup, examples="""
    # how it translates now
    natgw nat show
    # otherwise from now on; what goes on goes on
    natgw nat set type=full-cone
""")
def nat() -> None:
    """See and choose how natgw translates."""


@nat.command("show", examples="""
    natgw nat show
    # which kind of NAT is it?
    natgw nat show --json | jq -r .type
""")
@json_option
@click.pass_obj
def show(client: Client, json_: bool) -> None:
    """Show how the gateway translates.

    Each KEY can be given to natgw nat set, to natgw up --nat, and to the file of natgw up --config; MAY BE says what
    values it has. A "-" as type or timeouts.profile: a choice that has no name.
    """
    found = client.get("nat")
    if json_:
        output.as_json(found)
        return
    show_table(found)


def show_table(found: Record) -> None:
    from natgw.control import natconfig  # which knows the datapath

    output.table(["KEY", Column("VALUE", style="cyan"), "MAY BE"],
                 ([name, _shown(value), natconfig.KNOWN.get(name, "")] for name, value in natconfig.flat(found).items()))


def _shown(value: object) -> str:
    """As one would give it to `natgw nat set`."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(value) or "none"
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def complete_change(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The keys, with "=" behind them."""
    from natgw.control import natconfig

    return [CompletionItem(f"{name}=", help=may_be) for name, may_be in natconfig.KNOWN.items()
            if f"{name}=".startswith(incomplete)]


@nat.command("set", examples="""
    # a NAT that everybody outside may send to, by the ports that are in use
    natgw nat set type=full-cone
    # one mapping for each remote host; answers only from hosts that were sent to
    natgw nat set mapping=adm filtering=adf
    # for UDP alone, and with Linux's timeouts but one
    natgw nat set udp.mapping=apdm timeouts.profile=linux timeouts.udp=2m
    # what a carrier limits (RFC 6888)
    natgw nat set ports_per_host=1000 flows_per_host=50 port_rest=120
    # reach these networks without translation
    natgw nat set untranslated=10.0.0.0/8,192.168.0.0/16
    # what was added is taken back so
    natgw nat set untranslated=none
""")
@click.argument("words", metavar="KEY=VALUE...", nargs=-1, required=True, shell_complete=complete_change)
@json_option
@click.pass_obj
def set_(client: Client, words: tuple[str, ...], json_: bool) -> None:
    """Translate otherwise from now on.

    Flows and mappings that exist stay as they are; what begins from now on is translated by the new choice.

    \b
    type            full-cone, restricted-cone, port-restricted, symmetric, linux;
                    sets mapping, filtering, overload, allocation, hold_syn and
                    timeouts, before the other keys given with it
    mapping         eim, adm, apdm: what of the remote endpoint an external port
                    depends on (RFC 4787, section 4.1)
    filtering       eif, adf, apdf: from whom it may be reached (section 5)
    overload        several internal endpoints share an external port, as Linux does
    udp.mapping, tcp.filtering, ...    one of these for one protocol
    allocation      preserve, random, sequential, or the class of --port-policy
    parity          odd ports stay odd, even ones even
    external_addresses                 addresses of the uplink to translate to
    pooling         paired: a host keeps to one of them; arbitrary: it does not
    hairpin         containers reach each other by external endpoints
    refresh_inbound what comes in keeps a UDP flow alive too
    pick_up         take over TCP connections older than natgw
    hold_syn        how long an unexpected SYN may wait for one that crosses it
    port_rest       how long a freed port is kept from other hosts
    ports_per_host  mappings a container may have
    flows_per_host  new flows a second a container may begin
    untranslated    networks that are reached without translation
    timeouts.profile                   rfc, linux
    timeouts.udp    also udp_stream, icmp, tcp_syn_sent, tcp_syn_recv,
                    tcp_established, tcp_fin_wait, tcp_close_wait, tcp_last_ack,
                    tcp_time_wait, tcp_close, udplite, udplite_stream, sctp_init,
                    sctp_established, gre, gre_stream, other

    Times are in seconds, or with a unit: 500ms, 90s, 5m, 2h, 5d. 0 or none: no limit, not at all.
    """
    from natgw.control import natconfig

    found = client.patch("nat", body=natconfig.words_to_changes(words))
    if json_:
        output.as_json(found)
