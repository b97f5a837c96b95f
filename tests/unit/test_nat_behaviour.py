"""docs/nat-behaviour.md names every requirement once, and the tests that show it: no more, no less."""

from __future__ import annotations

import pytest

from tests.requirements import DOCUMENT, NOT_YET, ROW, shown_by, with_links

IDS = [f"{letter}{number}" for letter, last in (("U", 11), ("T", 8), ("I", 8), ("G", 6), ("C", 4), ("B", 6), ("V", 5))
       for number in range(1, last + 1)]
ROWS = ROW.findall(DOCUMENT.read_text())


def test_every_requirement_has_its_row() -> None:
    assert [row[0] for row in ROWS] == IDS


def test_the_links_are_those_of_the_markers() -> None:
    text = DOCUMENT.read_text()
    assert with_links(text) == text, "run: python -m tests.requirements"


@pytest.mark.parametrize(("requirement", "shown"), [(row[0], row[2]) for row in ROWS])
def test_a_requirement_is_shown_or_said_to_be_missing(requirement: str, shown: str) -> None:
    assert requirement in shown_by() or (shown.startswith(NOT_YET) and len(shown) > len(NOT_YET) + 10), shown


def test_markers_name_requirements_that_exist() -> None:
    assert set(shown_by()) <= set(IDS)
