"""`cni install`, `cni uninstall`: natgw as the network of engines that speak CNI."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import click

from natgw.api.client import Client
from natgw.cli import output
from natgw.cli.group import TeachingGroup
from natgw.cli.lifecycle import parsed
from natgw.cli.options import LINKS, absolute, json_option, no_trunc_option
from natgw.control import cnifiles
from natgw.control.options import DEFAULT_SOCKET

DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.group(cls=TeachingGroup, examples="""
    # a network of natgw's for podman, with its CNI backend
    natgw cni install --name natgw
    podman run --rm --network natgw -p 8080:80 httpd
    # and away with it
    natgw cni uninstall
""")
def cni() -> None:
    """Serve podman and others that speak CNI."""


def directories(function: Any) -> Any:
    """The options that say where the files are."""
    for option in (
        click.option("--conf-dir", type=DIRECTORY, default=cnifiles.CONF_DIR, show_default=True, metavar="DIR",
                     help="Where the engine reads networks."),
        click.option("--bin-dir", type=DIRECTORY, default=cnifiles.BIN_DIR, show_default=True, metavar="DIR",
                     help="Where the engine looks for plugins."),
    ):
        function = option(function)
    return function


@cni.command("install", examples="""
    natgw cni install
    # a second network, with addresses of one's own choice
    natgw cni install --name lab --subnet 10.89.0.0/24
    natgw cni install --name both --ipv6
    # where this podman looks (podman info; network_config_dir and cni_plugin_dirs in containers.conf)
    natgw cni install --conf-dir /etc/containers/cni --bin-dir /usr/local/lib/cni
""")
@directories
@click.option("--name", default="natgw", show_default=True, metavar="NAME", help="The network's name.")
@click.option("--subnet", callback=parsed(IPv4Network), metavar="CIDR", help="Its addresses  [default: the next free ones]")
@click.option("--gateway", callback=parsed(IPv4Address), metavar="A", help="natgw's address in it  [default: its first]")
@click.option("--ipv6", is_flag=True, help="With IPv6 too, translated as IPv4 is.")
@click.option("--subnet6", callback=parsed(IPv6Network), metavar="CIDR",
              help="Its IPv6 addresses, with --ipv6  [default: a unique local /64]")
@click.option("--mtu", type=click.IntRange(68, 65521), metavar="BYTES", help="MTU of the containers' interfaces.")
@click.option("--link", type=LINKS, help="How its containers are plugged in  [default: that of natgw up]")
@click.option("--internal", is_flag=True, help="Without a way to the outside.")
@json_option
@click.pass_obj
def install(client: Client, /, bin_dir: Path, conf_dir: Path, json_: bool, **options: Any) -> None:
    """Tell an engine of a network of natgw's.

    Writes the plugin natgw-cni and the network's configuration, and prints their paths. The network is made when the first
    container joins it. Files of others are left alone.
    """
    socket = None if client.path == str(DEFAULT_SOCKET) else Path(absolute(client.path))
    _tell(cnifiles.install(cnifiles.CniNetwork(socket=socket, **options), bin_dir, conf_dir), json_)


@cni.command("ls", examples="""
    natgw cni ls
    # addresses of one container
    natgw cni ls --json | jq -r '.[] | select(.name == "web").addresses[].address'
""")
@no_trunc_option
@json_option
@click.pass_obj
def list_attachments(client: Client, no_trunc: bool, json_: bool) -> None:
    """List what engines have attached.

    One line for each interface of a container.
    """
    found = client.get("cni", "attachments")
    if json_:
        output.as_json(found)
        return
    output.table(["CONTAINER ID", "NAME", "NETWORK", "INTERFACE", "ADDRESS", "PORTS"],
                 ([output.short_id(one["container_id"], no_trunc), one["name"], one["network"], one["ifname"],
                   ", ".join(each["address"] for each in one["addresses"]),
                   ", ".join(f"{output.bound_to(port)}->{output.inner(port)}" for port in one["ports"])] for one in found))


@cni.command("uninstall", examples="""
    natgw cni uninstall
    # one network; the plugin stays as long as another needs it
    natgw cni uninstall --name lab
""")
@directories
@click.option("--name", metavar="NAME", help="This network only  [default: all of natgw's]")
@json_option
def uninstall(bin_dir: Path, conf_dir: Path, name: str | None, json_: bool) -> None:
    """Take away what install wrote.

    Prints the paths of the files that are gone. Containers that run keep their network until they are stopped; the engine
    needs both files for that, so stop them first.
    """
    _tell(cnifiles.uninstall(name, bin_dir, conf_dir), json_)


def _tell(paths: list[Path], json_: bool) -> None:
    if json_:
        output.as_json([str(path) for path in paths])
    else:
        for path in paths:
            click.echo(path)
