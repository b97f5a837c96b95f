"""`attach`, `detach`, `port`, `publish`, `unpublish`: namespaces on the bridge, and the ports that lead to them."""

from __future__ import annotations

from typing import Any

import click

from natgw.api.client import Client
from natgw.cli import output
from natgw.cli.engines import namespace_of, split_target
from natgw.cli.group import TeachingCommand
from natgw.cli.options import (
    absolute,
    complete_container,
    container_argument,
    containers_argument,
    json_option,
    link_options,
    ports_argument,
)
from natgw.errors import NatgwError


@click.command(cls=TeachingCommand, examples="""
    # a namespace made by ip netns, by its name
    ip netns add lab && natgw attach lab --name lab
    # that of a process, by its pid, with a published port
    natgw attach 4711 --name db -p 5432:5432
    # any other, by its path
    natgw attach /proc/4711/ns/net --name db
    # a container of docker's or podman's that was started with --network none
    docker run -d --name web --network none httpd && natgw attach docker:web -p 8080:80
""")
@click.argument("target", metavar="TARGET")
@link_options
@click.option("--ifname", default="eth0", show_default=True, metavar="NAME", help="Name of the interface inside.")
@click.pass_obj
def attach(client: Client, /, target: str, **options: Any) -> None:
    """Put an existing namespace on the bridge.

    TARGET is the name of a network namespace, its path, the pid of a process in it, or docker:NAME or podman:NAME for a
    container of an engine, which lends its name if there is no --name.
    """
    engine = split_target(target)
    if engine is not None:
        target, options["name"] = namespace_of(*engine), options["name"] or engine[1]
    elif "/" in target:
        target = absolute(target)
    click.echo(client.post("endpoints", body={"target": target, **options})["id"])


@click.command(cls=TeachingCommand, examples="""
    natgw detach lab
    natgw detach lab db
""")
@containers_argument
@click.pass_obj
def detach(client: Client, names: tuple[str, ...]) -> None:
    """Take attached namespaces off the bridge.

    The namespace itself and what runs in it stay; the interface, its address and its published ports go.
    """
    for name in names:
        client.delete("endpoints", name)
        click.echo(name)


@click.command(cls=TeachingCommand, examples="""
    # every published port
    natgw port
    # those of one container
    natgw port web
    # where one of them is
    natgw port web 80
""")
@click.argument("name", metavar="[NAME]", required=False, shell_complete=complete_container)
@click.argument("private", metavar="[PORT[/PROTO]]", required=False)
@json_option
@click.pass_obj
def port(client: Client, name: str | None, private: str | None, json_: bool) -> None:
    """List published ports, as docker port does.

    Without NAME, those of all containers, each line with the container's name in front. With PORT, only where that
    port of the container is published.
    """
    containers = client.get("containers") if name is None else [client.get("containers", name)]
    found = [{"container": one["name"], **each} for one in containers for each in one["ports"]]
    if private is not None:
        wanted = private if "/" in private else f"{private}/tcp"
        found = [each for each in found if output.inner(each) == wanted]
        if not found:
            raise NatgwError(f"no public port '{wanted}' published for {name}")
    found.sort(key=lambda each: (each["container"], each["container_port"], each["protocol"]))
    if json_:
        output.as_json(found)
        return
    for each in found:
        where = output.bound_to(each)
        if private is None:
            where = f"{output.inner(each)} -> {where}"
        click.echo(where if name is not None else f"{each['container']} {where}")


@click.command(cls=TeachingCommand, examples="""
    # port 8080 of the host leads to port 80 of web, from now on
    natgw publish web 8080:80
    # on localhost only; a port that natgw chooses; a range
    natgw publish web 127.0.0.1:8081:80 443 8000-8010:8000-8010/udp
    # which one it was given
    natgw publish --json web 80 | jq '.[-1].host_port'
""")
@container_argument
@ports_argument
@json_option
@click.pass_obj
def publish(client: Client, name: str, specs: tuple[str, ...], json_: bool) -> None:
    """Publish ports of a running container.

    SPEC is [[HOSTIP:]HOSTPORT:]PORT[/tcp|udp], with ranges, as for docker's -p. If one of them is taken, none is
    published. Prints all ports that the container then has.
    """
    ports = client.post("containers", name, "ports", body={"publish": specs})["ports"]
    if json_:
        output.as_json(ports)
        return
    for each in ports:
        click.echo(f"{output.inner(each)} -> {output.bound_to(each)}")


@click.command(cls=TeachingCommand, examples="""
    natgw unpublish web 8080:80
    # every host port of this container port
    natgw unpublish web 80
""")
@container_argument
@ports_argument
@click.option("--json", "json_", is_flag=True, help="Print the ports it still has, as JSON.")
@click.pass_obj
def unpublish(client: Client, name: str, specs: tuple[str, ...], json_: bool) -> None:
    """Take published ports back.

    SPEC is as for publish; without a host port, every host port of that container port is meant. Connections that use
    them end.
    """
    left = client.delete("containers", name, "ports", body={"publish": specs})["ports"]
    if json_:
        output.as_json(left)
