"""Columns, times, sizes and ports, in docker's words."""

from __future__ import annotations

import io
import re
import sys
from datetime import UTC, datetime

import pytest

from natgw.cli import output
from natgw.cli.output import Column


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("seconds", "words"), [
    (0.0, "Less than a second"), (0.99, "Less than a second"), (1, "1 second"), (59.9, "59 seconds"), (60, "About a minute"),
    (119, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"), (5399, "About an hour"),
    (5400, "2 hours"), (47 * 3600, "47 hours"), (48 * 3600, "2 days"), (13 * 86400, "13 days"), (14 * 86400, "2 weeks"),
    (59 * 86400, "8 weeks"), (60 * 86400, "2 months"), (729 * 86400, "24 months"), (730 * 86400, "2 years"),
])
def test_durations(seconds: float, words: str) -> None:
    assert output.human_duration(seconds) == words


@pytest.mark.parametrize(("size", "text"), [(0, "0B"), (999, "999B"), (1000, "1kB"), (1337, "1.34kB"), (15_300, "15.3kB"),
                                            (999_499, "999kB"), (999_500, "1MB"), (2_040_000_000, "2.04GB"),
                                            (10**15, "1PB"), (10**18, "1e+03PB")])
def test_sizes(size: int, text: str) -> None:
    assert output.human_size(size) == text


@pytest.mark.parametrize(("created", "age"), [("2026-01-02T03:04:05.500000001Z", 4.5), ("2026-01-02T03:04:10Z", 0.0),
                                              ("2026-01-02T03:04:09.9Z", 0.1)])
def test_age(created: str, age: float) -> None:
    assert output.age_s(created, datetime(2026, 1, 2, 3, 4, 10, tzinfo=UTC)) == pytest.approx(age)


def test_a_table_in_a_pipe_is_plain_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    columns: list[Column | str] = ["NAME", Column("COUNT", right=True, style="red"), "LAST"]
    output.table(columns, [["web", 7, "x" * 300], ["a-long-name", 12345, ""]])
    assert capsys.readouterr().out == (
        "NAME          COUNT   LAST\n"
        f"web               7   {'x' * 300}\n"
        "a-long-name   12345\n"
    )


def test_an_empty_table_has_its_titles(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["A", "B"], [])
    assert capsys.readouterr().out == "A   B\n"


def test_a_table_on_a_terminal_has_colour_and_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    output.table(["NAME", Column("STATE", style="red")], [["web [bold]", "x" * 100], ["b", "y"]])
    assert "\x1b[31m" in terminal.getvalue()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert [line.split() for line in plain.splitlines()] == [["NAME", "STATE"], ["web", "[bold]", "x" * 100], ["b", "y"]]


def test_json_is_indented_as_dockers(capsys: pytest.CaptureFixture[str]) -> None:
    output.as_json([{"Name": "café", "Options": None, "Labels": {}}])
    assert capsys.readouterr().out == """\
[
    {
        "Name": "café",
        "Options": null,
        "Labels": {}
    }
]
"""


def test_a_command_is_cut_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["python3", "-m", "http.server", "80"]
    assert output.shown_command(command) == '"python3 -m http.server 80"'
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    assert output.shown_command(command) == '"python3 -m http.ser…"'
    assert output.shown_command(command, no_trunc=True) == '"python3 -m http.server 80"'
    assert output.shown_command(None) == ""


@pytest.mark.parametrize(("host", "text"), [("0.0.0.0", "0.0.0.0:8080"), ("::", "[::]:8080"), ("::1", "[::1]:8080")])
def test_addresses_of_ports(host: str, text: str) -> None:
    port = {"protocol": "tcp", "host_ip": host, "host_port": 8080, "container_port": 80}
    assert (output.bound_to(port), output.inner(port)) == (text, "80/tcp")
