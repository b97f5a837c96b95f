"""The outcome: medians over the rounds, and each subject as a ratio to the kernel; as a table, JSON, Markdown and a plot."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from statistics import median
from typing import Any

from rich.markup import escape as plain
from rich.table import Table

from tools.benchlib.figures import Figure, Numbers

BASE = "kernel"
ROW, BAR, LEFT, SCALE, MOST = 8, 6, 260, 260, 2.0
COLOURS = ("#2a6f97", "#e07a1f", "#8a8a8a", "#6a994e", "#a4508b", "#444444")


@dataclass
class Results:
    """Every number that was measured: by figure's number name, by subject, in the order of the rounds; and what failed."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

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
    """The targets that natgw did not meet, a line each."""
    lines = []
    for figure in figures:
        for name, target in figure.targets.items():
            for subject in subjects:
                judged = results.median(name, subject) if target.absolute else results.ratio(name, subject)
                if subject.startswith("natgw") and judged is not None and not target.met(judged):
                    found = f"{judged:.2f}" if target.absolute else f"{judged:.2f} of the kernel's"
                    lines.append(f"{name}, {subject}: {found}, wanted {target}")
    return lines


def _rows(results: Results, figures: tuple[Figure, ...], subjects: list[str]) -> list[tuple[str, list[str], str]]:
    """(figure, a cell for each subject, what was wanted), for those that have any number."""
    rows = []
    for figure in figures:
        for name, unit in figure.units.items():
            if name not in results.values:
                continue
            cells = []
            for subject in subjects:
                value, ratio = results.median(name, subject), results.ratio(name, subject)
                if value is None:
                    cells.append("-")
                else:
                    text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
                    cells.append(text if subject == BASE or ratio is None else f"{text} ({ratio:.2f})")
            rows.append((f"{name}, {unit}" if unit else name, cells, str(figure.targets.get(name, ""))))
    return rows


def table(results: Results, figures: tuple[Figure, ...], subjects: list[str]) -> Table:
    """Medians, ratios, and what was wanted."""
    shown = Table(title="medians; in brackets the ratio to the kernel in this run", title_justify="left")
    shown.add_column("figure")
    for subject in subjects:
        shown.add_column(subject, justify="right")
    shown.add_column("wanted", justify="right")
    for name, cells, wanted in _rows(results, figures, subjects):
        shown.add_row(plain(name), *cells, wanted)
    return shown


def as_markdown(results: Results, figures: tuple[Figure, ...], subjects: list[str]) -> str:
    """The same table for a document."""
    lines = ["| figure | " + " | ".join(subjects) + " | wanted |", "|---" * (len(subjects) + 2) + "|"]
    lines += [f"| {' | '.join((name, *cells, wanted))} |" for name, cells, wanted in _rows(results, figures, subjects)]
    return "\n".join(lines) + "\n"


def as_svg(results: Results, figures: tuple[Figure, ...], subjects: list[str]) -> str:
    """A bar for each subject's ratio to the kernel, figure by figure; the line is the kernel. Bars end at twice of it."""
    others = [subject for subject in subjects if subject != BASE]
    names = [name for figure in figures for name in figure.units if any(results.ratio(name, each) for each in others)]
    height = 40 + len(names) * (len(others) * ROW + 10)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + int(SCALE * MOST) + 60}" height="{height}" '
             'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>']
    for number, subject in enumerate(others):
        x = LEFT + number * 100
        parts.append(f'<rect x="{x}" y="8" width="10" height="10" fill="{COLOURS[number % len(COLOURS)]}"/>'
                     f'<text x="{x + 14}" y="17">{escape(subject)}</text>')
    y = 32
    for name in names:
        parts.append(f'<text x="{LEFT - 8}" y="{y + len(others) * ROW // 2 + 4}" text-anchor="end">{escape(name)}</text>')
        for number, subject in enumerate(others):
            ratio = results.ratio(name, subject)
            if ratio is not None:
                width = min(ratio, MOST) * SCALE
                parts.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" '
                             f'fill="{COLOURS[number % len(COLOURS)]}"/>'
                             f'<text x="{LEFT + width + 3:.1f}" y="{y + BAR}" font-size="8">{ratio:.2f}</text>')
            y += ROW
        y += 10
    parts.append(f'<line x1="{LEFT + SCALE}" y1="26" x2="{LEFT + SCALE}" y2="{height}" stroke="black" '
                 'stroke-dasharray="3 3"/></svg>\n')
    return "\n".join(parts)


def as_json(results: Results, figures: tuple[Figure, ...], subjects: list[str], conditions: dict[str, Any]) -> dict[str, Any]:
    """Everything, for a file: conditions, each value of each round, medians and ratios, and what failed."""
    return {
        "conditions": conditions,
        "failures": results.failures,
        "figures": [
            {"name": name, "unit": unit, "subjects": {
                subject: {"rounds": results.values.get(name, {}).get(subject, []), "median": results.median(name, subject),
                          "ratio": results.ratio(name, subject)} for subject in subjects}}
            for figure in figures for name, unit in figure.units.items()
        ],
    }
