"""The outcome: medians over the rounds, and each subject as a ratio to the kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.table import Table

from tools.benchlib.figures import Figure, Numbers

BASE = "kernel"


@dataclass
class Results:
    """Every number that was measured: by figure's number name, by subject, in the order of the rounds."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, subject: str, numbers: Numbers) -> None:
        for name, value in numbers.items():
            self.values.setdefault(name, {}).setdefault(subject, []).append(value)

    def median(self, name: str, subject: str) -> float | None:
        values = self.values.get(name, {}).get(subject)
        return median(values) if values else None

    def ratio(self, name: str, subject: str) -> float | None:
        """The median's ratio to the kernel's, both of this run."""
        own, base = self.median(name, subject), self.median(name, BASE)
        return None if own is None or not base else own / base


def missed(results: Results, figures: tuple[Figure, ...], subjects: list[str]) -> list[str]:
    """The targets that were not met, a line each."""
    lines = []
    for figure in figures:
        for name, target in figure.targets.items():
            for subject in subjects:
                ratio = results.ratio(name, subject)
                if subject != BASE and ratio is not None and not target.met(ratio):
                    lines.append(f"{name}, {subject}: {ratio:.2f} of the kernel's, wanted {target}")
    return lines


def table(results: Results, figures: tuple[Figure, ...], subjects: list[str]) -> Table:
    """Medians, ratios, and whether they are what was wanted."""
    shown = Table(title="medians; in brackets the ratio to the kernel in this run", title_justify="left")
    shown.add_column("figure")
    for subject in subjects:
        shown.add_column(subject, justify="right")
    shown.add_column("wanted", justify="right")
    for figure in figures:
        for name, unit in figure.units.items():
            target = figure.targets.get(name)
            row = [f"{name}, {unit}"]
            for subject in subjects:
                value, ratio = results.median(name, subject), results.ratio(name, subject)
                if value is None:
                    row.append("-")
                elif subject == BASE or ratio is None:
                    row.append(f"{value:.1f}")
                else:
                    good = target is None or target.met(ratio)
                    row.append(f"{value:.1f} [{'green' if good else 'red'}]({ratio:.2f})[/]")
            shown.add_row(*row, str(target) if target else "")
    return shown


def as_json(results: Results, figures: tuple[Figure, ...], subjects: list[str], conditions: dict[str, Any]) -> dict[str, Any]:
    """Everything, for a file: conditions, each value of each round, medians and ratios."""
    return {
        "conditions": conditions,
        "figures": [
            {"name": name, "unit": unit, "subjects": {
                subject: {"rounds": results.values.get(name, {}).get(subject, []), "median": results.median(name, subject),
                          "ratio": results.ratio(name, subject)} for subject in subjects}}
            for figure in figures for name, unit in figure.units.items()
        ],
    }
