"""The command line of tools/bench."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from natgw.errors import NatgwError
from tools.benchlib import compare, scale
from tools.benchlib import core as datapath_alone
from tools.benchlib.figures import FIGURES, Figure, Numbers, start_servers
from tools.benchlib.report import BASE, Results, as_json, as_markdown, as_svg, missed, table
from tools.benchlib.subjects import SUBJECTS, Subject

console = Console()
FAILED = (RuntimeError, OSError, subprocess.SubprocessError, ValueError, KeyError, NatgwError)
"""What a program, a namespace or its output can fail with: noted, and the run goes on."""
NATGW_ALONE = "natgw tap"
ENDPOINTS, ENDPOINTS_QUICK = 1000, 100


@click.group(invoke_without_command=True)
@click.option("--quick", is_flag=True, help="2 rounds of 1 second a figure, 100 endpoints instead of 1,000: under ten minutes.")
@click.option("--rounds", type=click.IntRange(1, 50), help="The median over them counts.  [default: 3]")
@click.option("--seconds", type=click.FloatRange(1, 60), help="Seconds for each figure in a round.  [default: 3]")
@click.option("--subject", "subjects", multiple=True, type=click.Choice(sorted(SUBJECTS)),
              help="Only this one, beside the kernel.")
@click.option("--only", multiple=True, metavar="WORDS", help="Only figures whose name has these words.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write every number to a file.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write the table to a file.")
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), help="Write a plot of the ratios to a file.")
@click.option("--check", is_flag=True, help="Exit with 1 if a target is missed.")
@click.pass_context
def main(context: click.Context, quick: bool, rounds: int | None, seconds: float | None, subjects: tuple[str, ...],
         only: tuple[str, ...], json_path: Path | None, markdown: Path | None, svg: Path | None, check: bool) -> None:
    """Measure natgw beside the kernel's bridge and NAT, slirp4netns, pasta and vde2: in turn, in one run.

    What fails is noted and the run goes on; after Ctrl-C, what was measured is still shown and written.

    \b
    sudo tools/bench --quick                              all figures, under ten minutes
    sudo tools/bench --json bench.json --svg bench.svg    the full run
    sudo tools/bench --only UDP --subject tap
    tools/bench core                                      the datapath alone
    tools/bench core --compare main                       and that of another commit
    """
    if context.invoked_subcommand is not None:
        return
    alone = tuple(scale.figures())
    every = (*FIGURES, *alone)
    wanted = tuple(figure for figure in every
                   if not only or any(words.lower() in name.lower() for words in only for name in (figure.name, *figure.units)))
    if not wanted:
        raise click.UsageError(f"no figure is named like that; there are: {', '.join(figure.name for figure in every)}")
    chosen = [BASE, *(name for name in SUBJECTS if name != BASE and (not subjects or name in subjects))]
    seconds, rounds = seconds or (1.0 if quick else 3.0), rounds or (2 if quick else 3)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results, names, interrupted = Results(), list[str](), False
    try:
        in_turn = tuple(figure for figure in wanted if figure not in alone)
        if in_turn:
            _measure(results, names, chosen, in_turn, rounds, seconds)
        if "tap" in chosen:
            _measure_alone(results, tuple(figure for figure in wanted if figure in alone), seconds, quick)
    except KeyboardInterrupt:
        interrupted = True
        console.print("interrupted: this is what there is")
    names = names or [BASE, NATGW_ALONE]
    console.print(table(results, wanted, names))
    conditions = {"rounds": rounds, "seconds": seconds, "kernel": platform.release(), "python": platform.python_version(),
                  "cores": os.cpu_count(), "interrupted": interrupted}
    for path, text in ((json_path, json.dumps(as_json(results, wanted, names, conditions), indent=2) + "\n"),
                       (markdown, as_markdown(results, wanted, names)), (svg, as_svg(results, wanted, names))):
        if path is not None:
            path.write_text(text)
    lines = missed(results, wanted, names)
    for line in lines:
        console.print(f"[red]missed[/]: {line}")
    for line in results.failures:
        console.print(f"[red]failed[/]: {line}")
    if interrupted:
        sys.exit(130)
    # Other people's programs may fail on a machine; natgw and the kernel may not.
    if any(line.startswith((BASE, "natgw")) for line in results.failures) or (lines and check):
        sys.exit(1)


def _measure(results: Results, names: list[str], chosen: list[str], figures: tuple[Figure, ...], rounds: int,
             seconds: float) -> None:
    """All rounds, the subjects taking turns within each figure; everything is removed whatever happens."""
    running: list[Subject] = []
    made: list[Subject] = []
    try:
        for key in chosen:
            name = key
            try:
                subject = SUBJECTS[key]()
                made.append(subject)
                name = subject.name
                subject.set_up()
                start_servers(subject.stage)
                running.append(subject)
                names.append(name)
            except FAILED as error:
                _note(results, name, "setting up", error)
        for number in range(rounds):
            for figure in figures:
                for subject in running:
                    if figure.needs <= subject.offers:
                        _say(f"round {number + 1} of {rounds}: {figure.name}, {subject.name}")
                        _take(results, subject, figure, seconds)
    finally:
        for subject in made:
            try:
                subject.tear_down()
            except FAILED as error:
                _note(results, subject.name, "removing it", error)


def _take(results: Results, subject: Subject, figure: Figure, seconds: float) -> None:
    """One turn; a second try if it fails (a server that still has the last client in hand, say)."""
    for tries_left in (1, 0):
        try:
            results.add(subject.name, figure.take(subject.stage, seconds))
            return
        except FAILED as error:
            if not tries_left:
                _note(results, subject.name, figure.name, error)


def _measure_alone(results: Results, figures: tuple[Figure, ...], seconds: float, quick: bool) -> None:
    """What only natgw is asked, each once."""
    names = {name for figure in figures for name in figure.units}
    count = ENDPOINTS_QUICK if quick else ENDPOINTS
    parts: tuple[tuple[str, str, Callable[[], Iterator[Numbers]]], ...] = (
        ("start", "ready", scale.start),
        ("endpoints", "endpoint", lambda: scale.endpoints(count)),
        ("many flows", "flows", lambda: scale.many_flows(seconds)),
    )
    for title, word, measure in parts:
        if not any(word in name for name in names):
            continue
        _say(title)
        try:
            for numbers in measure():
                results.add(NATGW_ALONE, numbers)
                _say(f"{title}: {scale.as_text(numbers)}")
        except FAILED as error:
            _note(results, NATGW_ALONE, title, error)


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False)


def _note(results: Results, subject: str, what: str, error: BaseException) -> None:
    line = f"{subject}, {what}: {str(error)[:300] or type(error).__name__}"
    results.failures.append(line)
    _say(line)


@main.command("core")
@click.option("--json", "as_text", is_flag=True, help="Print JSON.")
@click.option("--compare", "revision", metavar="REV", help="Measure that commit too, in turn with this one.")
def core_command(as_text: bool, revision: str | None) -> None:
    """The datapath alone: nanoseconds for a frame by its path, without a kernel; to compare two commits."""
    if revision is not None:
        pairs = compare.with_revision(revision)
        if as_text:
            click.echo(json.dumps([{"path": name, "there": round(there), "here": round(here)} for name, there, here in pairs]))
            return
        shown = Table("path", f"{revision}, ns a frame", "here", "ratio")
        for name, there, here in pairs:
            shown.add_row(name, f"{there:.0f}", f"{here:.0f}", f"{here / there:.2f}")
        console.print(shown)
        return
    measured = datapath_alone.measure()
    if as_text:
        click.echo(json.dumps([{"path": name, "nanoseconds": round(value)} for name, value in measured]))
        return
    shown = Table()
    shown.add_column("path")
    shown.add_column("ns a frame", justify="right")
    for name, value in measured:
        shown.add_row(name, f"{value:.0f}")
    console.print(shown)


if __name__ == "__main__":
    try:
        main(prog_name="tools/bench")
    except (RuntimeError, OSError) as error:
        console.print(f"[red]tools/bench[/]: {error}")
        sys.exit(1)
