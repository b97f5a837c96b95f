"""Arguments and options that several commands share, and what the shell offers when one presses Tab."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from natgw.api import socket_path
from natgw.api.client import Client
from natgw.errors import NatgwError

Command = TypeVar("Command", bound=Callable[..., Any])

LINKS = click.Choice(["tap", "veth"])
NAT_TYPES = ("full-cone", "restricted-cone", "port-restricted", "symmetric", "linux")
"""Those of natgw.datapath.behaviour.PRESETS, without importing it."""


def absolute(path: str) -> str:
    """A path as the daemon, which works in another directory, has to be told it. Raises NatgwError."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise NatgwError("the directory this command was started in is gone: cd to one that exists") from None


def _client(ctx: click.Context) -> Client:
    """The client for a completion, for which the command's own options may not have been read."""
    client = ctx.find_object(Client)
    return client or Client(socket_path())


def complete_container(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of containers, from the daemon if it is there."""
    try:
        containers = _client(ctx).get("containers")
    except NatgwError:
        return []
    return [CompletionItem(container["name"], help=container["ip"] or "") for container in containers
            if container["name"].startswith(incomplete)]


def complete_network(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    try:
        networks = _client(ctx).get("networks")
    except NatgwError:
        return []
    return [CompletionItem(network["Name"]) for network in networks if network["Name"].startswith(incomplete)]


container_argument = click.argument("name", metavar="NAME", shell_complete=complete_container)
containers_argument = click.argument("names", metavar="NAME...", nargs=-1, required=True,
                                     shell_complete=complete_container)
ports_argument = click.argument("specs", metavar="SPEC...", nargs=-1, required=True)
json_option = click.option("--json", "json_", is_flag=True, help="Print JSON, with the keys of docs/cli.md.")
no_trunc_option = click.option("--no-trunc", is_flag=True, help="Print whole ids and commands.")


def link_options(function: Command) -> Command:
    """How a container is plugged into the bridge: for `run` and `attach`."""
    for option in (
        click.option("--no-offload", "offload", is_flag=True, callback=lambda ctx, param, refused: not refused,
                     help="Its link takes no superframes: natgw cuts them (see SEGMENTED in natgw stats)."),
        click.option("--dhcp", is_flag=True, help="Leave its interface without an address: a DHCP client inside gets it."),
        click.option("--mtu", type=click.IntRange(68, 65521), metavar="BYTES", help="MTU of its interface."),
        click.option("--mac", metavar="MAC", help="MAC address  [default: 02:42 and the address]"),
        click.option("--ip6", metavar="A", help="IPv6 address, on a network that has them  [default: the lowest free one]"),
        click.option("--ip", metavar="A", help="Address  [default: the lowest free one]"),
        click.option("--network-alias", "aliases", multiple=True, metavar="NAME",
                     help="Another name it has on its network; may be given several times."),
        click.option("--network", metavar="NET", shell_complete=complete_network,
                     help="Network to be on; for run also host, none or container:NAME  [default: bridge]"),
        click.option("--link", type=LINKS, help="Kind of link  [default: that of natgw up]"),
        click.option("-p", "--publish", multiple=True, metavar="SPEC",
                     help="Publish a port: [[HOSTIP:]HOSTPORT:]PORT[/tcp|udp]; may be given several times."),
        click.option("--name", metavar="NAME", help="Its name  [default: a random one]"),
    ):
        function = option(function)
    return function
