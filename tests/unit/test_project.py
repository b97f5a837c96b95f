"""The project's own files agree with one another."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path

import pytest

import natgw
from natgw.errors import Conflict, NatgwError, NotFound

ROOT = Path(natgw.__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read_string((ROOT / "setup.cfg").read_text())
    return parser


def supported() -> list[str]:
    """The Python versions that the classifiers promise, as "3.11"."""
    return re.findall(r"Python :: (3\.\d+)$", setup_cfg()["metadata"]["classifiers"], re.MULTILINE)


def test_version_has_three_numbers() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", natgw.__version__)


def test_tox_runs_every_supported_python() -> None:
    parser = configparser.ConfigParser()
    parser.read_string((ROOT / "tox.ini").read_text())
    environments = [name.strip() for name in parser["tox"]["env_list"].split(",")]
    assert environments == ["py" + version.replace(".", "") for version in supported()]


def test_oldest_python_is_the_same_everywhere() -> None:
    oldest = supported()[0]
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert setup_cfg()["options"]["python_requires"] == f">={oldest}"
    assert tools["ruff"]["target-version"] == "py" + oldest.replace(".", "")


def test_each_error_carries_its_http_status() -> None:
    assert [error("gone").status for error in (NatgwError, NotFound, Conflict)] == [400, 404, 409]
    assert str(NotFound("network x not found")) == "network x not found"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\((\d{4}-[^)]+)\)", (folder / "README.md").read_text())
    assert listed == sorted(path.name for path in folder.glob("[0-9]*.md"))
