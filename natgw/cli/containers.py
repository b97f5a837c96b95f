"""`run`, `exec`, `logs`, `stop`, `ps`, `inspect`: containers, and what runs in them."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import click

from natgw.api.client import Client, NotRunning
from natgw.cli import output
from natgw.cli.group import TeachingCommand, fail
from natgw.cli.options import (
    absolute,
    complete_container,
    container_argument,
    containers_argument,
    json_option,
    link_options,
    no_trunc_option,
)
from natgw.cli.output import Column
from natgw.errors import NatgwError, NotFound

Record = dict[str, Any]

# Whatever follows the first word is the command's own, options too.
COMMAND_FOLLOWS = {"allow_interspersed_args": False}
STOP_MARGIN_S = 20.0

command_argument = click.argument("command", metavar="-- CMD...", nargs=-1, type=click.UNPROCESSED)


@click.command(cls=TeachingCommand, context_settings=COMMAND_FOLLOWS, examples="""
    # a command on this terminal; its container goes when it ends, and its exit code is passed on
    natgw run --name probe -- ping -c 3 172.17.0.1
    # a shell in a namespace of its own
    natgw run --name shell -- bash
    # a server in the background; port 8080 of the host leads to its port 80
    natgw run -d --name web -p 8080:80 -- python3 -m http.server 80
    # on a network of one's own, with another name there; beside a container, in its network
    natgw network create lab
    natgw run -d --network lab --network-alias db --name postgres -- ./server
    natgw run --network container:postgres -- ss -tln
    # by a veth pair instead of a tap, with an address of one's choice, published on localhost only
    natgw run -d --name api --link veth --ip 172.17.0.100 -p 127.0.0.1:9000:80/tcp -- ./server
""")
@link_options
@click.option("-d", "--detach", is_flag=True, help="Run in the background, print the id; see natgw logs.")
@click.option("-e", "--env", multiple=True, metavar="KEY=VALUE", help="Set an environment variable.")
@click.option("-w", "--workdir", metavar="DIR", help="Directory to run in  [default: this one]")
@command_argument
@click.pass_context
def run(ctx: click.Context, /, command: tuple[str, ...], detach: bool, env: tuple[str, ...], workdir: str | None,
        name: str | None, publish: tuple[str, ...], **link: Any) -> None:
    """Run a command in a new container.

    A container without an engine: a network namespace on the bridge, and the command in it. Only the network is its own;
    files, users and processes are the host's. It has the environment and the directory that natgw run has.
    """
    client = ctx.find_object(Client)
    assert client is not None
    words = the_command(command)
    variables = {**os.environ, **environment(env)}
    directory = absolute(workdir or ".")
    if publish and link["network"] == "host":
        click.echo("WARNING: Published ports are discarded when using host network mode", err=True)
    body = {"name": name, "command": words, "publish": publish, "detach": detach, **link}
    if detach:
        body |= {"env": variables, "workdir": directory}
        try:
            click.echo(client.post("containers", body=body)["id"])
        except NatgwError as error:
            fail(str(error), exec_exit_code(str(error)))
        return
    ctx.exit(run_here(client, body, variables, directory))


def run_here(client: Client, body: Record, env: dict[str, str], workdir: str) -> int:
    """Run a container on this terminal and return the exit code of its process; it is removed in any case."""
    from natgw.cli import process

    container = client.post("containers", body=body)
    path = ("containers", container["id"])
    try:
        return process.run(container["netns"], body["command"], env=env, workdir=workdir,
                           resolv_conf=container.get("resolv_conf"),
                           on_start=lambda pid: client.post(*path, "started", body={"pid": pid}))
    except process.CannotExecute as error:
        fail(str(error), error.exit_code)
    finally:
        # The daemon removes it as well when it sees the process end: who comes second finds nothing.
        with contextlib.suppress(NotFound, NotRunning):
            client.post(*path, "stop", body={"timeout_s": 0})


def exec_exit_code(message: str) -> int:
    """127 or 126 if it was the command that could not be executed, told as docker does by the daemon's words."""
    if not message.startswith("exec: "):
        return 1
    return 127 if "not found" in message or "no such file" in message else 126


def the_command(words: tuple[str, ...]) -> list[str]:
    """The words without a leading `--`. Raises UsageError if there are none."""
    command = list(words[1:] if words[:1] == ("--",) else words)
    if not command:
        raise click.UsageError("Missing a command to run, after '--'.", click.get_current_context())
    return command


def environment(settings: tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE sets, KEY alone passes on our own, as docker's -e does."""
    found = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not key:
            raise click.UsageError(f"invalid environment variable: {setting}", click.get_current_context())
        if equals:
            found[key] = value
        elif key in os.environ:
            found[key] = os.environ[key]
    return found


@click.command("exec", cls=TeachingCommand, context_settings=COMMAND_FOLLOWS, examples="""
    # its address, as it sees it
    natgw exec web -- ip address show eth0
    # a shell inside
    natgw exec web -- bash
    # its exit code is passed on (127: no such command, 126: not executable)
    natgw exec web -- curl -sf http://172.17.0.3/ || echo "no answer"
""")
@container_argument
@command_argument
@click.pass_obj
def exec_(client: Client, name: str, command: tuple[str, ...]) -> None:
    """Run a command in a container's network.

    It runs on this terminal, beside whatever else is in the container's network namespace.
    """
    from natgw.cli import process

    words = the_command(command)
    container = client.get("containers", name)
    if container["state"] == "exited":
        raise NatgwError(f"container {name} is not running")
    try:
        process.become(container["netns"], words, container.get("resolv_conf"))
    except process.CannotExecute as error:
        fail(str(error), error.exit_code)


@click.command(cls=TeachingCommand, examples="""
    natgw logs web
    # go on as it is written, until the process ends
    natgw logs -f web
    natgw logs notebook | grep token=
""")
@click.option("-f", "--follow", is_flag=True, help="Go on until the process ends.")
@container_argument
@click.pass_obj
def logs(client: Client, name: str, follow: bool) -> None:
    """Print the output of a background container.

    What its process wrote to stdout and stderr, in one stream. It is kept after the process has ended, until natgw stop
    or natgw down.
    """
    for piece in client.stream("containers", name, "logs", follow=1 if follow else None):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


@click.command(cls=TeachingCommand, examples="""
    natgw stop web
    # several, and with more patience before SIGKILL
    natgw stop -t 60 web notebook
""")
@click.option("-t", "--time", "timeout_s", type=click.FloatRange(0), default=10, show_default=True, metavar="SECONDS",
              help="Time to end by itself before SIGKILL.")
@containers_argument
@click.pass_obj
def stop(client: Client, names: tuple[str, ...], timeout_s: float) -> None:
    """Stop and remove containers.

    SIGTERM, and SIGKILL for what is still there after --time. Addresses, ports and logs are freed.
    """
    for name in names:
        client.post("containers", name, "stop", body={"timeout_s": timeout_s}, timeout_s=timeout_s + STOP_MARGIN_S)
        click.echo(name)


@click.command(cls=TeachingCommand, examples="""
    natgw ps
    # those that have ended, too
    natgw ps -a
    # the address of one
    natgw ps --json | jq -r '.[] | select(.name == "web").ip'
""")
@click.option("-a", "--all", "all_", is_flag=True, help="Show containers whose process has ended, too.")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@no_trunc_option
@json_option
@click.pass_obj
def ps(client: Client, all_: bool, quiet: bool, no_trunc: bool, json_: bool) -> None:
    """List containers, the newest first."""
    found = [one for one in client.get("containers") if all_ or one["state"] != "exited"]
    found.sort(key=lambda one: one["created"], reverse=True)
    if json_:
        output.as_json(found)
    elif quiet:
        for one in found:
            click.echo(output.short_id(one["id"], no_trunc))
    else:
        output.table(
            ["CONTAINER ID", "COMMAND", "CREATED", "STATUS", Column("IP", style="cyan"), "LINK", "PORTS",
             Column("NAMES", style="bold")],
            ([output.short_id(one["id"], no_trunc), output.shown_command(one["command"], no_trunc),
              output.human_duration(output.age_s(one["created"])) + " ago", status(one), one["ip"] or "", one["link"],
              ports(one), one["name"]] for one in found),
        )


def status(container: Record) -> str:
    """The words of `docker ps`."""
    if container["state"] == "exited":
        return f"Exited ({container['exit_code']})"
    if container["state"] == "created":
        return "Created"
    word = "Attached" if container["kind"] == "attached" else "Up"
    return f"{word} {output.human_duration(output.age_s(container['created']))}"


def ports(container: Record) -> str:
    """`0.0.0.0:8080->80/tcp, [::]:8080->80/tcp`."""
    return ", ".join(f"{output.bound_to(port)}->{output.inner(port)}" for port in container["ports"])


@click.command(cls=TeachingCommand, examples="""
    natgw inspect web
    # its addresses, as one asks docker for them
    natgw inspect web | jq -r '.[0].NetworkSettings.Networks[].IPAddress'
    # the namespace, for tools that want its path
    nsenter --net=$(natgw inspect web | jq -r '.[0].netns') ss -tlnp
""")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_container)
@click.option("--json", "_json", is_flag=True, expose_value=False, help="Print JSON: it always does.")
@click.pass_obj
def inspect(client: Client, names: tuple[str, ...]) -> None:
    """Show all about containers, as JSON.

    natgw's own record of each, and behind it what docker inspect would say of its network.
    """
    from natgw.cli.dockerview import docker_view

    found = [client.get("containers", name) for name in names]
    output.as_json([one | docker_view(one) for one in found])
