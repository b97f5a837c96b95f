"""`network ...`: networks made, looked at, joined and left, with docker's words and columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from natgw.api.client import Client
from natgw.cli import output
from natgw.cli.events import key_values
from natgw.cli.group import TeachingGroup, fail
from natgw.cli.options import complete_container, complete_network, json_option, no_trunc_option
from natgw.errors import NatgwError

Record = dict[str, Any]

network_argument = click.argument("network_name", metavar="NETWORK", shell_complete=complete_network)
networks_argument = click.argument("names", metavar="NETWORK...", nargs=-1, required=True, shell_complete=complete_network)
member_argument = click.argument("container", metavar="CONTAINER", shell_complete=complete_container)


@click.group(cls=TeachingGroup, examples="""
    # the networks there are
    natgw network ls
    # another one, with a container on it
    natgw network create lab
    natgw run -d --network lab --name web -- python3 -m http.server 80
    # a second interface for it
    natgw network connect bridge web
    # all about one, with its containers
    natgw network inspect lab
""")
def network() -> None:
    """Make, join and look at networks."""


@network.command("create", examples="""
    # with addresses that natgw chooses: 172.18.0.0/16, 172.19.0.0/16, ...
    natgw network create lab
    # with addresses of one's own, of which containers get those of a part
    natgw network create --subnet 10.1.0.0/16 --ip-range 10.1.5.0/24 --gateway 10.1.0.254 --aux-address router=10.1.5.1 lab
    # with IPv6: a unique local prefix that natgw chooses, or one's own
    natgw network create --ipv6 both
    natgw network create --ipv6 --subnet 10.2.0.0/16 --subnet fd00:2::/64 --gateway fd00:2::fe mine
    # without an outside; with containers that do not see each other; routed without translation
    natgw network create --internal hidden
    natgw network create -o com.docker.network.bridge.enable_icc=false apart
    natgw network create -o com.docker.network.bridge.enable_ip_masquerade=false routed
""")
@click.option("-d", "--driver", default="bridge", show_default=True, metavar="NAME", help="Kind of network.")
@click.option("--subnet", multiple=True, metavar="CIDR",
              help="Its addresses; for IPv6 once more  [default: the first of docker's pools that is free; a unique local /64]")
@click.option("--ip-range", multiple=True, metavar="CIDR", help="The part of them that containers get; for IPv6 once more.")
@click.option("--gateway", multiple=True, metavar="A",
              help="natgw's address in them; for IPv6 once more  [default: the first]")
@click.option("--aux-address", "aux", multiple=True, metavar="NAME=A", callback=key_values,
              help="An address that no container gets; may be given several times.")
@click.option("--internal", is_flag=True, help="It leads nowhere but to this host.")
@click.option("--attachable", is_flag=True, help="Kept for docker's sake: every network of natgw can be joined.")
@click.option("--ipv6", is_flag=True, help="With IPv6 too, translated as IPv4 is.")
@click.option("-o", "--opt", "options", multiple=True, metavar="KEY=VALUE", callback=key_values,
              help="An option of docker's bridge driver; may be given several times.")
@click.option("--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="A label; may be given several times.")
@click.option("--json", "json_", is_flag=True, help="Print the network as JSON instead of its id.")
@click.argument("name", metavar="NAME")
@click.pass_obj
def create_network(client: Client, /, name: str, json_: bool, aux: list[tuple[str, str]], options: list[tuple[str, str]],
                   labels: tuple[str, ...], **body: Any) -> None:
    """Make a network, and print its id.

    It is there until natgw network rm: natgw down takes its interface away, and natgw up makes it again.
    """
    made = client.post("networks", body={
        "name": name, "aux": dict(aux), "options": dict(options),
        "labels": {key: value for key, _, value in (label.partition("=") for label in labels)}, **body})
    if json_:
        output.as_json(made)
    else:
        click.echo(made["Id"])


FILTERS: dict[str, Callable[[Record, str], bool]] = {
    "name": lambda one, value: value in one["Name"],
    "driver": lambda one, value: value == one["Driver"],
    "id": lambda one, value: value in one["Id"],
    "scope": lambda one, value: value == one["Scope"],
    "type": lambda one, value: (one["Name"] in ("bridge", "host", "none")) == (value == "builtin"),
    "label": lambda one, value: one["Labels"].get(value.partition("=")[0]) in
    ((value.partition("=")[2],) if "=" in value else tuple(one["Labels"].values())),
}


@network.command("ls", examples="""
    natgw network ls
    natgw network ls --filter driver=bridge --filter type=custom -q
    natgw network ls --json | jq -r '.[].Name'
""")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", callback=key_values,
              help="Only these: name, driver, id, scope, label, type=custom|builtin; may be given several times.")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@no_trunc_option
@json_option
@click.pass_obj
def list_networks(client: Client, filters: list[tuple[str, str]], quiet: bool, no_trunc: bool, json_: bool) -> None:
    """List networks."""
    found = sorted(client.get("networks"), key=lambda one: one["Name"])
    for key in dict(filters):
        if key not in FILTERS:
            raise NatgwError(f"invalid filter '{key}': there are {', '.join(FILTERS)}")
        values = [value for other, value in filters if other == key]
        found = [one for one in found if any(FILTERS[key](one, value) for value in values)]
    if json_:
        output.as_json(found)
    elif quiet:
        for one in found:
            click.echo(output.short_id(one["Id"], no_trunc))
    else:
        output.table(["NETWORK ID", "NAME", "DRIVER", "SCOPE"],
                     ([output.short_id(one["Id"], no_trunc), one["Name"], one["Driver"], one["Scope"]] for one in found))


@network.command("inspect", examples="""
    natgw network inspect bridge
    # its subnet
    natgw network inspect bridge | jq -r '.[].IPAM.Config[].Subnet'
    # addresses of its containers
    natgw network inspect bridge | jq -r '.[].Containers[] | .Name + " " + .IPv4Address'
""")
@networks_argument
@click.option("--json", "_json", is_flag=True, expose_value=False, help="Print JSON: it always does.")
@click.pass_obj
def inspect_network(client: Client, names: tuple[str, ...]) -> None:
    """Show all about networks, as docker does.

    A JSON array, field by field what docker network inspect prints.
    """
    output.as_json([client.get("networks", name) for name in names])


@network.command("rm", examples="""
    natgw network rm lab
    natgw network rm lab hidden
""")
@networks_argument
@click.pass_obj
def remove_networks(client: Client, names: tuple[str, ...]) -> None:
    """Remove networks.

    Only those that nobody is on; prints the name of each. Of several, those that can be removed are; the errors of the
    others come at the end.
    """
    errors = []
    for name in names:
        try:
            client.delete("networks", name)
            click.echo(name)
        except NatgwError as error:
            errors.append(str(error))
    if errors:
        fail("; ".join(errors))


@network.command("prune", examples="""
    natgw network prune
    natgw network prune --json | jq -r '.NetworksDeleted[]'
""")
@json_option
@click.pass_obj
def prune_networks(client: Client, json_: bool) -> None:
    """Remove all networks without containers.

    bridge, host and none stay. It does not ask back.
    """
    deleted = client.post("networks", "prune")
    if json_:
        output.as_json(deleted)
    elif deleted["NetworksDeleted"]:
        click.echo("Deleted Networks:")
        for name in deleted["NetworksDeleted"]:
            click.echo(name)


@network.command("connect", examples="""
    # eth1 for web, while it runs
    natgw network connect lab web
    # with an address and another name there
    natgw network connect --ip 10.1.5.9 --alias db lab web
    natgw network connect --ip6 fd00:2::9 mine web
""")
@click.option("--ip", metavar="A", help="Address  [default: the lowest free one]")
@click.option("--ip6", metavar="A", help="IPv6 address, likewise.")
@click.option("--alias", "aliases", multiple=True, metavar="NAME", help="Another name there; may be given several times.")
@click.option("--json", "json_", is_flag=True, help="Print the container as JSON.")
@network_argument
@member_argument
@click.pass_obj
def connect(client: Client, /, network_name: str, json_: bool, **body: Any) -> None:
    """Put a running container on another network.

    It gets another interface. Published ports and the default route are on the first of its networks by name that is not
    internal, as with docker: they move there if that is this one.
    """
    record = client.post("networks", network_name, "connect", body=body)
    if json_:
        output.as_json(record)


@network.command("disconnect", examples="""
    natgw network disconnect lab web
""")
@click.option("--json", "json_", is_flag=True, help="Print the container as JSON.")
@network_argument
@member_argument
@click.pass_obj
def disconnect(client: Client, network_name: str, container: str, json_: bool) -> None:
    """Take a container off a network.

    Its interface there goes. Published ports move to another of its networks; if there is none, they wait for the next.
    """
    record = client.post("networks", network_name, "disconnect", body={"container": container})
    if json_:
        output.as_json(record)
