"""`events`: what happens to networks, while it happens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import click

from natgw.api.client import Client
from natgw.cli.group import TeachingCommand
from natgw.control.names import timestamp

Record = dict[str, Any]


def key_values(ctx: click.Context, param: click.Parameter, words: Iterable[str]) -> list[tuple[str, str]]:
    """An option's callback: KEY=VALUE, as often as it is given."""
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{word!r} is not KEY=VALUE.", ctx, param)
        pairs.append((key, value))
    return pairs


@click.command(cls=TeachingCommand, examples="""
    # until Ctrl-C
    natgw events
    # who joins and leaves one network
    natgw events --filter network=lab --filter event=connect --filter event=disconnect
    # one JSON object a line
    natgw events --json | jq --unbuffered -r '.Action + " " + .Actor.Attributes.name'
""")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", callback=key_values,
              help="Only these: event=connect, network=NAME, container=ID, type=network; may be given several times.")
@click.option("--json", "json_", is_flag=True, help="Print JSON, one object a line.")
@click.pass_obj
def events(client: Client, filters: list[tuple[str, str]], json_: bool) -> None:
    """Follow what happens to networks.

    Networks are created and destroyed, containers connect and disconnect. One line each, in docker's form, until Ctrl-C or
    natgw down.
    """
    for line in _lines(client.stream("events", pairs=filters)):
        click.echo(line if json_ else _sentence(json.loads(line)))


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    pending = b""
    for piece in pieces:
        *whole, pending = (pending + piece).split(b"\n")
        yield from (line.decode() for line in whole)


def _sentence(event: Record) -> str:
    """`2020-02-02T10:20:30.123456789Z network connect ID (container=ID, name=lab, type=bridge)`."""
    actor = event["Actor"]
    attributes = ", ".join(f"{key}={value}" for key, value in sorted(actor["Attributes"].items()))
    return f"{timestamp(event['timeNano'])} {event['Type']} {event['Action']} {actor['ID']} ({attributes})"
