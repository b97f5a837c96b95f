"""How answers look: docker's columns, docker's words for times and sizes, and JSON.

On a terminal, rich draws the same columns with colour. Into a pipe goes plain text, each value whole, so that awk and
grep find what they look for; rich is not even imported then.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

GAP = "   "
SHORT_ID = 12
SHORT_COMMAND = 20
IP_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "dccp": 33, "gre": 47, "sctp": 132, "udplite": 136}
"""Those that conntrack knows by name; others are known by their number."""


@dataclass(frozen=True)
class Column:
    """`right` aligns numbers; `style` is a colour of rich's for the values."""

    title: str
    right: bool = False
    style: str = ""


def table(columns: Sequence[Column | str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their titles."""
    heads = [column if isinstance(column, Column) else Column(column) for column in columns]
    cells = [[str(value) for value in row] for row in rows]
    if on_terminal():
        _draw(heads, cells)
        return
    widths = [max([len(head.title), *(len(row[index]) for row in cells)]) for index, head in enumerate(heads)]
    for row in ([head.title for head in heads], *cells):
        padded = (cell.rjust(width) if head.right else cell.ljust(width)
                  for cell, width, head in zip(row, widths, heads, strict=True))
        click.echo(GAP.join(padded).rstrip())


def _draw(heads: Sequence[Column], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, len(GAP), 0, 0), header_style="bold")
    for head in heads:
        drawn.add_column(head.title, justify="right" if head.right else "left", no_wrap=True)
    for row in cells:
        drawn.add_row(*(Text(cell, style=head.style) for cell, head in zip(row, heads, strict=True)))
    console = Console(highlight=False)
    # As wide as it needs to be: a long line wraps at the terminal's edge, as docker's do, and no value is cut.
    natural = console.measure(drawn, options=console.options.update(max_width=10_000)).maximum
    console.width = max(console.width, natural)
    console.print(drawn, soft_wrap=True, no_wrap=True, crop=False)


def details(pairs: Iterable[tuple[str, object]]) -> None:
    """Print `name: value` lines with the values in one column."""
    lines = [(f"{name}:", str(value)) for name, value in pairs]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        click.echo(click.style(name.ljust(width), bold=True) + "  " + value)


def as_json(value: Any) -> None:
    """Print JSON the way docker indents it."""
    click.echo(json.dumps(value, indent=4, ensure_ascii=False))


def on_terminal() -> bool:
    return sys.stdout.isatty()


def short_id(identifier: str, no_trunc: bool = False) -> str:
    return identifier if no_trunc else identifier[:SHORT_ID]


def shown_command(command: Sequence[str] | None, no_trunc: bool = False) -> str:
    """As `docker ps` shows it: in quotes, and on a terminal no longer than 20 characters."""
    if command is None:
        return ""
    text = " ".join(command)
    if not no_trunc and on_terminal() and len(text) > SHORT_COMMAND:
        text = text[: SHORT_COMMAND - 1] + "…"
    return f'"{text}"'


def age_s(created: str, now: datetime | None = None) -> float:
    """Seconds since a time in RFC 3339 with nanoseconds, as the API gives it."""
    whole, _, fraction = created.removesuffix("Z").partition(".")
    moment = datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}+00:00")
    return ((now or datetime.now(UTC)) - moment).total_seconds()


def human_duration(seconds: float) -> str:
    """Docker's words for a length of time (HumanDuration of go-units)."""
    whole, minutes, hours = int(seconds), int(seconds // 60), int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    return f"{days // 30} months" if days < 730 else f"{days // 365} years"


def human_size(size: int) -> str:
    """Bytes with decimal prefixes and at most three digits: 999B, 1.5kB, 15kB, 2.04GB."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g}{unit}"


def bound_to(port: dict[str, Any]) -> str:
    """`0.0.0.0:8080`, `[::]:8080`."""
    host = port["host_ip"]
    return f"[{host}]:{port['host_port']}" if ":" in host else f"{host}:{port['host_port']}"


def inner(port: dict[str, Any]) -> str:
    """`80/tcp`."""
    return f"{port['container_port']}/{port['protocol']}"


def conntrack_line(flow: dict[str, Any]) -> str:
    """A flow in the form of `conntrack -L` (libnetfilter_conntrack, snprintf_default.c), with packets and bytes counted.

    Marks and reference counts are the kernel's own affair: natgw has none. An ICMP query is shown as an echo, GRE with the key
    0 that it has for nf_conntrack unless it is PPTP's, and SCTP without a state, since natgw follows none.
    """
    protocol, original, reply = flow["protocol"], flow["original"], flow["reply"]
    number = IP_PROTOCOLS.get(protocol)
    words = [f"{'unknown' if number is None else protocol:<8} {number or protocol} {flow['timeout_s']}"]
    if protocol == "tcp":
        words.append(flow["state"])
    words.append(_tuple(protocol, original, 8))
    if not reply["packets"]:
        words.append("[UNREPLIED]")
    words.append(_tuple(protocol, reply, 0))
    if flow["assured"]:
        words.append("[ASSURED]")
    return " ".join([*words, "mark=0 use=1"])


def _tuple(protocol: str, leg: dict[str, Any], icmp_type: int) -> str:
    if protocol == "icmp":
        ends = f" type={icmp_type} code=0 id={leg['sport']}"
    elif protocol == "gre":
        ends = " srckey=0x0 dstkey=0x0"
    else:
        ends = f" sport={leg['sport']} dport={leg['dport']}" if protocol in IP_PROTOCOLS else ""
    return f"src={leg['src']} dst={leg['dst']}{ends} packets={leg['packets']} bytes={leg['bytes']}"
