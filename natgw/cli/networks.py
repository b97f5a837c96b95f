"""`network ls` and `network inspect`, as docker prints them."""

from __future__ import annotations

import click

from natgw.api.client import Client
from natgw.cli import output
from natgw.cli.group import TeachingGroup
from natgw.cli.options import complete_network, json_option, no_trunc_option


@click.group(cls=TeachingGroup, examples="""
    # the networks there are
    natgw network ls
    # all about one, with its containers
    natgw network inspect bridge
""")
def network() -> None:
    """Look at networks."""


@network.command("ls", examples="""
    natgw network ls
    natgw network ls --no-trunc
    natgw network ls --json | jq -r '.[].Name'
""")
@no_trunc_option
@json_option
@click.pass_obj
def list_networks(client: Client, no_trunc: bool, json_: bool) -> None:
    """List networks."""
    found = sorted(client.get("networks"), key=lambda one: one["Name"])
    if json_:
        output.as_json(found)
        return
    output.table(["NETWORK ID", "NAME", "DRIVER", "SCOPE"],
                 ([output.short_id(one["Id"], no_trunc), one["Name"], one["Driver"], one["Scope"]] for one in found))


@network.command("inspect", examples="""
    natgw network inspect bridge
    # its subnet
    natgw network inspect bridge | jq -r '.[].IPAM.Config[].Subnet'
    # addresses of its containers
    natgw network inspect bridge | jq -r '.[].Containers[] | .Name + " " + .IPv4Address'
""")
@click.argument("names", metavar="NETWORK...", nargs=-1, required=True, shell_complete=complete_network)
@click.option("--json", "_json", is_flag=True, expose_value=False, help="Print JSON: it always does.")
@click.pass_obj
def inspect_network(client: Client, names: tuple[str, ...]) -> None:
    """Show all about networks, as docker does.

    A JSON array, field by field what docker network inspect prints.
    """
    output.as_json([client.get("networks", name) for name in names])
