"""docs/cli.md has every command, option, route, key and counter that there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import click
import pytest

import natgw
from natgw.api import schema
from natgw.api.metrics import exposition
from natgw.api.routes import make_app
from natgw.cli.main import natgw as command_line
from natgw.control.model import Container, Endpoint, IpamConfig, Network, PublishedPort
from natgw.datapath import Datapath, PortKind
from natgw.datapath.port import Port
from tests.unit.fake_daemon import FakeDaemon, flow

PAGE = (Path(natgw.__file__).parents[1] / "docs" / "cli.md").read_text()
CODE = set(re.findall(r"`([^`\n]+)`", PAGE))
"""What stands in backquotes: names, not words of a sentence that happen to be the same."""
HEADINGS = re.findall(r"^#+ `natgw ([^`]+)`$", PAGE, re.MULTILINE)


def all_commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield " ".join((*path, name)), command
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))


COMMANDS = dict(all_commands(command_line))


def section(command: str) -> str:
    """What the page says under a command's own heading."""
    _, _, after = PAGE.partition(f"### `natgw {command}`\n")
    return re.split(r"^#{2,3} ", after, maxsplit=1, flags=re.MULTILINE)[0]


def keys(value: Any) -> set[str]:
    """The keys of a record and of the records in it."""
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def missing(names: set[str]) -> set[str]:
    """Those that the page does not have, alone or behind a dot."""
    return names - {part for code in CODE for part in (code, code.rpartition(".")[2])}


def test_every_command_in_the_order_of_the_help() -> None:
    assert list(COMMANDS) == HEADINGS


@pytest.mark.parametrize("command", [name for name, found in COMMANDS.items() if not isinstance(found, click.Group)])
def test_each_command_has_an_example_and_its_options(command: str) -> None:
    text = section(command)
    assert re.search(rf"^# (?:.*\b)?natgw {command}\b", text, re.MULTILINE)
    everywhere = {"--socket", "--json"} | {name for option in shared_options() for name in option.opts}
    for parameter in COMMANDS[command].params:
        if isinstance(parameter, click.Option):
            for name in set(parameter.opts) - everywhere:
                assert re.search(rf"`{name}[ `]", text), name


def shared_options() -> list[click.Option]:
    """Those that `run` and `attach` have in common."""
    run, attach = ({option.name: option for option in COMMANDS[name].params if isinstance(option, click.Option)}
                   for name in ("run", "attach"))
    return [option for name, option in run.items() if name in attach]


def test_the_options_of_plugging_in() -> None:
    for option in shared_options():
        assert all(re.search(rf"`{name}[ `]", section("run") + section("attach") + PAGE.split("## The daemon")[0])
                   for name in option.opts), option.opts


def test_every_route() -> None:
    routes = {f"{method} {path}" for method, path, _ in make_app(FakeDaemon(), lambda: None).routes}
    documented = {code for code in CODE if re.match(r"(GET|POST|PATCH|DELETE) /", code)}
    assert documented == routes


def test_every_key_of_a_body() -> None:
    _, _, bodies = PAGE.partition("### Bodies\n")
    table = bodies.split("###")[0]
    assert not {key for key in (*schema.RUN, *schema.ATTACH) if f"`{key}`" not in table}
    assert not missing({*schema.STARTED, *schema.STOP, *schema.PUBLISH})


def test_every_key_of_the_containers_records() -> None:
    network = Network(id="1" * 64, name="lab", created="", ipam=IpamConfig(subnet=IPv4Network("10.1.0.0/16"),
                                                                           gateway=IPv4Address("10.1.0.1")))
    endpoint = Endpoint(id="3" * 64, network=network, name="web", ip=IPv4Address("10.1.0.2"), mac=bytes(6), mtu=1500,
                        ports=[PublishedPort("tcp", "0.0.0.0", 8080, 80)])
    container = Container(id="2" * 64, name="web", kind="run", created="", endpoints=[endpoint])
    assert not missing(keys(container.record()) - {"lab"})


async def test_every_key_of_the_other_records() -> None:
    daemon = FakeDaemon()
    for record in (await daemon.status(), await daemon.nat(), flow(), await daemon.fdb(), await daemon.neigh()):
        assert not missing(keys(record))
    port = Port("web", PortKind.ENDPOINT, 1500, lambda frame: None, None)
    assert not missing(keys(port.record()))


def test_every_counter() -> None:
    counters = set(Datapath().counters())
    assert not missing(counters)
    assert not {name for name in CODE if name.startswith("drop_")} - counters


async def test_every_metric() -> None:
    daemon = FakeDaemon()
    status, stats = await daemon.status(), await daemon.stats()
    names = set(re.findall(r"^(natgw_\w+)", exposition(status, stats).decode(), re.MULTILINE))
    assert {name for name in CODE if name.startswith("natgw_")} == names
