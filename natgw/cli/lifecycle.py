"""`up`, `down`, `status`: the daemon's life."""

from __future__ import annotations

import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from natgw.api import state_directory
from natgw.api.client import Client
from natgw.cli import output
from natgw.cli.group import TeachingCommand
from natgw.cli.options import LINKS, NAT_TYPES, absolute, json_option
from natgw.control.options import (
    DEFAULT_LEASE_S,
    DEFAULT_PORT_RANGE,
    DEFAULT_SUBNET,
    DOCKER_DRIVER,
    LONGEST_LEASE_S,
    SHORTEST_LEASE_S,
    DaemonOptions,
    parse_driver_name,
    parse_port_range,
)
from natgw.errors import NatgwError
from natgw.startup import importing

Record = dict[str, Any]
Value = TypeVar("Value")

DOWN_TIMEOUT_S = 30.0
CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21


def parsed(parse: Callable[[str], Value]) -> Callable[[click.Context, click.Parameter, Any], Value | None]:
    """An option's callback: the value that `parse` makes of the text, its ValueError as a usage error."""

    def callback(ctx: click.Context, param: click.Parameter, text: str | None) -> Value | None:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise click.BadParameter(f"{error}.", ctx, param) from None

    return callback


def resolver(text: str) -> str:
    """An address to ask names of. Raises BadParameter."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not an IP address.", param_hint="'--dns'") from None


@click.command(cls=TeachingCommand, examples="""
    # in the background, with the interface of the default route as uplink; returns when natgw is ready
    natgw up --detach
    # on this terminal, with its log; Ctrl-C ends it and removes everything it made
    natgw up --uplink eth0
    # containers reach each other and this host, nothing else
    natgw up -d --uplink none
    # a symmetric NAT, but with a shorter life for UDP; natgw nat set changes it while natgw runs
    natgw up -d --nat-type symmetric --nat timeouts.udp=2m
    # all of it from a file; what stands here comes before what stands there
    natgw up -d --config natgw.toml --mtu 1400
    # external ports by a policy of one's own (docs/extending.md)
    natgw up -d --port-policy ./own_policy.py:Multiples
    # the network driver natgw of the Docker on this machine: docker network create -d natgw NET (docs/docker.md)
    natgw up -d --docker
    # names that are no container's are asked of these; stations may ask for their address by DHCP
    natgw up -d --dns 9.9.9.9 --dns 149.112.112.112 --dhcp
    # other addresses for the containers
    natgw up -d --subnet 10.88.0.0/16 --gateway 10.88.0.254
    # IPv6 beside IPv4, translated by the same rules; with a prefix of one's own
    natgw up -d --ipv6 --subnet6 fd00:1:2:3::/64
    # a second one, in a namespace of its own, with a socket of its own
    ip netns exec lab natgw up -d --socket /run/lab/natgw.sock
""")
@click.option("--uplink", metavar="IF", help="Interface to the outside, or none  [default: that of the default route]")
@click.option("--subnet", callback=parsed(IPv4Network), metavar="CIDR", default=str(DEFAULT_SUBNET), show_default=True,
              help="Addresses of the containers.")
@click.option("--gateway", callback=parsed(IPv4Address), metavar="A", help="natgw's address in it  [default: its first]")
@click.option("--ipv6", is_flag=True, help="IPv6 for the containers too, translated as IPv4 is.")
@click.option("--subnet6", callback=parsed(IPv6Network), metavar="CIDR",
              help="Their IPv6 addresses, with --ipv6  [default: a unique local /64, made by chance]")
@click.option("--mtu", type=click.IntRange(68, 65521), metavar="BYTES", default=1500, show_default=True,
              help="MTU of the containers' interfaces.")
@click.option("--link", type=LINKS, default="tap", show_default=True,
              help="How containers are plugged in unless they say otherwise.")
@click.option("--big-tcp/--no-big-tcp", default=True, show_default=True,
              help="TCP superframes of more than 64 KiB by veth links, and by the uplink if its driver takes them.")
@click.option("--port-range", callback=parsed(parse_port_range), metavar="LO-HI",
              default="{}-{}".format(*DEFAULT_PORT_RANGE), show_default=True,
              help="Ports of the uplink's address that are natgw's; the others are the host's.")
@click.option("--exclusive-uplink", is_flag=True,
              help="The uplink's address is natgw's alone: the host itself is not reached by it.")
@click.option("--dns", multiple=True, callback=lambda ctx, param, texts: tuple(map(resolver, texts)), metavar="ADDR",
              help="Resolver for names that are no container's; may be given several times  [default: the host's]")
@click.option("--dhcp", is_flag=True, help="Give addresses by DHCP too, on each network that does not say otherwise.")
@click.option("--dhcp-lease", type=click.IntRange(SHORTEST_LEASE_S, LONGEST_LEASE_S), metavar="SECONDS",
              default=DEFAULT_LEASE_S, show_default=True, help="How long an address that was given so may be kept.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Read options from a TOML file, tables [up] and [nat]; other options override it.")
@click.option("--nat-type", type=click.Choice(NAT_TYPES), help="Kind of NAT  [default: port-restricted]")
@click.option("--nat", "nat_words", multiple=True, metavar="KEY=VALUE",
              help="Change how it translates, as natgw nat set does; may be given several times.")
@click.option("--port-policy", metavar="MODULE:CLASS",
              help="Choose external ports by a Python class of one's own, in a module or a .py file.")
@click.option("--docker", is_flag=False, flag_value=DOCKER_DRIVER, callback=parsed(parse_driver_name), metavar="[NAME]",
              help=f"Be a network driver of Docker's, by this name  [default: {DOCKER_DRIVER}]")
@click.option("-d", "--detach", is_flag=True, help="Run in the background; return when ready.")
@click.pass_context
def up(ctx: click.Context, /, detach: bool, config: Path | None, nat_type: str | None, nat_words: tuple[str, ...],
       port_policy: str | None, **options: Any) -> None:
    """Start natgw in this network namespace.

    It makes a bridge for containers, with a gateway on it that translates addresses and ports to the outside. Everything
    it makes goes again when it ends.
    """
    client = ctx.find_object(Client)
    assert client is not None
    _require_powers()
    if config is not None or nat_type or nat_words or port_policy:
        options = _chosen(ctx, options, config, nat_type, nat_words, port_policy)
    if options["subnet6"] is not None and not options["ipv6"]:
        raise click.UsageError("--subnet6 needs --ipv6.", ctx)
    path = Path(absolute(client.path))
    wanted = DaemonOptions(socket=path, state_dir=state_directory(path), **options)
    if detach:
        from natgw.api.detach import detach as run_detached

        run_detached(lambda reporter: _serve(wanted, lambda status: reporter.ready(), log_to_file=True))
    else:
        _serve(wanted, _banner)


def _chosen(ctx: click.Context, options: Record, config: Path | None, nat_type: str | None, nat_words: tuple[str, ...],
            port_policy: str | None) -> Record:
    """The options with what the file says of those that the command line leaves out, and with how to translate."""
    from natgw.control import configfile, natconfig, policies  # they know the datapath

    policy = {} if port_policy is None else {"allocation": policies.load(port_policy)}
    chosen = dict(options)
    nat = DaemonOptions().nat
    if config is not None:
        from_file, changes = configfile.read(config)
        chosen |= {name: value for name, value in from_file.items()
                   if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE}
        nat = natconfig.changed(nat, changes, f"{config}: [nat] ")
    try:
        words = {} if nat_type is None else {"type": nat_type}
        nat = natconfig.changed(nat, words | policy | natconfig.words_to_changes(nat_words))
    except NatgwError as error:
        text = str(error)
        raise click.BadParameter(text if text.endswith("?") else f"{text}.", ctx, param_hint="'--nat'") from None
    return chosen | {"nat": nat}


def _serve(options: DaemonOptions, on_ready: Callable[[Record], None], *, log_to_file: bool = False) -> None:
    with importing():
        from natgw.api.serve import serve  # with all that a daemon needs: nobody else should wait for it

    serve(options, on_ready, log_to_file=log_to_file)


def _banner(status: Record) -> None:
    click.echo(click.style(f"natgw {status['version']}", bold=True) + f" serves on {status['socket']}")
    output.details(_network_lines(status))
    click.echo("Ctrl-C ends it and removes everything it made.")
    sys.stdout.flush()


def _require_powers() -> None:
    """Raises NatgwError without the powers over interfaces and namespaces that root has."""
    effective = _effective_capabilities()
    if not all(effective >> power & 1 for power in (CAP_NET_ADMIN, CAP_SYS_ADMIN)):
        raise NatgwError("natgw up needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN): try sudo")


def _effective_capabilities() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))


@click.command(cls=TeachingCommand, examples="""
    natgw down
    natgw down --socket /run/lab/natgw.sock
    # to start it again: what is attached comes back
    natgw down --keep
""")
@click.option("--keep", is_flag=True, help="A restart follows: attached namespaces come back with the next natgw up.")
@click.pass_obj
def down(client: Client, keep: bool) -> None:
    """Stop natgw and remove all it made.

    Containers are ended; interfaces, filters and files are removed. Networks of natgw network create come back with the
    next natgw up. Returns when the daemon is gone, after 30 seconds at the latest.
    """
    if not client.shut_down(DOWN_TIMEOUT_S, keep=keep):
        log = state_directory(client.path) / "natgw.log"
        raise NatgwError(f"natgw on {client.path} has not ended after {DOWN_TIMEOUT_S:g} seconds: {log} may say why")


@click.command(cls=TeachingCommand, examples="""
    natgw status
    # is it running? (exit code 1 if not)
    natgw status >/dev/null && echo yes
    natgw status --json | jq -r .uplink.interface
""")
@json_option
@click.pass_obj
def status(client: Client, json_: bool) -> None:
    """Show the daemon, network and uplink."""
    found = client.get("status")
    if json_:
        output.as_json(found)
        return
    output.details([
        ("version", found["version"]),
        ("pid", found["pid"]),
        ("up", output.human_duration(found["uptime_s"])),
        ("socket", found["socket"]),
        *_network_lines(found),
        ("containers", found["containers"]),
        ("flows", found["flows"]),
    ])


def _network_lines(status: Record) -> list[tuple[str, object]]:
    lines: list[tuple[str, object]] = [
        ("network", f"{status['network']}, {status['subnet']}, gateway {status['gateway']}"),
    ]
    if status.get("subnet6"):
        lines.append(("ipv6", f"{status['subnet6']}, gateway {status['gateway6']}"))
    uplink = status["uplink"]
    if uplink is None:
        return [*lines, ("uplink", "none: containers reach each other and this host")]
    low, high = uplink["port_range"]
    addresses = ", ".join(uplink["addresses"]) or "no address"
    return [
        *lines,
        ("uplink", f"{uplink['interface']} ({'up' if uplink['up'] else 'down'}), {addresses}, mtu {uplink['mtu']}"),
        ("ports", "all of its address" if uplink["exclusive"] else f"{low}-{high}, shared with the host"),
    ]
