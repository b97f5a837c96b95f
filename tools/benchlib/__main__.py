"""The command line of tools/bench."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tools.benchlib import core as datapath_alone
from tools.benchlib.figures import FIGURES, Figure, start_servers
from tools.benchlib.report import BASE, Results, as_json, missed, table
from tools.benchlib.subjects import SUBJECTS, Subject

console = Console()


@click.group(invoke_without_command=True)
@click.option("--quick", is_flag=True, help="3 rounds of 1 second a figure: minutes, not a quarter of an hour.")
@click.option("--rounds", type=click.IntRange(1, 50), help="Rounds; the median over them counts.  [default: 5]")
@click.option("--seconds", type=click.FloatRange(0.5, 60), help="Seconds for each figure in a round.  [default: 3]")
@click.option("--subject", "subjects", multiple=True, type=click.Choice(sorted(SUBJECTS)),
              help="Only this one, beside the kernel.")
@click.option("--only", multiple=True, metavar="WORDS", help="Only figures whose name has these words.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write every number to a file.")
@click.option("--check", is_flag=True, help="Exit with 1 if a target is missed.")
@click.pass_context
def main(context: click.Context, quick: bool, rounds: int | None, seconds: float | None, subjects: tuple[str, ...],
         only: tuple[str, ...], json_path: Path | None, check: bool) -> None:
    """Measure natgw beside the kernel's bridge and NAT: the same topology, in turn, in one run.

    \b
    sudo tools/bench --quick                 all figures, a few minutes
    sudo tools/bench --json results.json     the full run
    sudo tools/bench --only UDP --subject tap
    tools/bench core                         the datapath alone
    """
    if context.invoked_subcommand is not None:
        return
    figures = tuple(figure for figure in FIGURES if not only or any(words.lower() in figure.name.lower() for words in only))
    if not figures:
        raise click.UsageError(f"no figure is named like that; there are: {', '.join(figure.name for figure in FIGURES)}")
    chosen = [BASE, *(name for name in SUBJECTS if name != BASE and (not subjects or name in subjects))]
    rounds = rounds or (3 if quick else 5)
    seconds = seconds or (1.0 if quick else 3.0)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    results, names = _measure(chosen, figures, rounds, seconds)
    console.print(table(results, figures, names))
    conditions = {"rounds": rounds, "seconds": seconds, "kernel": platform.release(), "python": platform.python_version(),
                  "cores": os.cpu_count()}
    if json_path is not None:
        json_path.write_text(json.dumps(as_json(results, figures, names, conditions), indent=2) + "\n")
    lines = missed(results, figures, names)
    for line in lines:
        console.print(f"[red]missed[/]: {line}")
    if lines and check:
        sys.exit(1)


def _measure(chosen: list[str], figures: tuple[Figure, ...], rounds: int, seconds: float) -> tuple[Results, list[str]]:
    """All rounds, the subjects taking turns within each figure; everything is removed whatever happens."""
    results = Results()
    running: list[Subject] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("setting up", total=rounds * len(figures) * len(chosen))
            for name in chosen:
                subject = SUBJECTS[name]()
                running.append(subject)
                subject.set_up()
                start_servers(subject.stage)
            for number in range(rounds):
                for figure in figures:
                    for subject in running:
                        progress.update(task, description=f"round {number + 1}: {figure.name}, {subject.name}")
                        results.add(subject.name, figure.take(subject.stage, seconds))
                        progress.advance(task)
    finally:
        for subject in running:
            subject.tear_down()
    return results, [subject.name for subject in running]


@main.command("core")
@click.option("--json", "as_text", is_flag=True, help="Print JSON.")
def core_command(as_text: bool) -> None:
    """The datapath alone: nanoseconds for a frame by its path, without a kernel; to compare two commits."""
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
