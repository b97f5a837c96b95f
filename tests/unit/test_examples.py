"""docs/testing.md: its examples run as they are, what it quotes of them is in them, and its other code runs too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import natgw
import natgw.testing
from natgw.testing import strategies
from tests.unit.test_testing import run_pytest

DOCS = Path(natgw.__file__).parents[1] / "docs"
PAGE = (DOCS / "testing.md").read_text()
EXAMPLES = sorted((DOCS / "examples").glob("test_*.py"))
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
OWN = [block for block in BLOCKS if not any(block in path.read_text() for path in EXAMPLES)]
"""The page's own code, in no file of the examples. That which needs root is run by tests/namespaces/test_testing_plugin.py."""
IMPORTS = """
import pytest
from hypothesis import given, settings
from natgw.testing import SimulatedGateway, assert_checksums
from natgw.testing.strategies import hostile_bytes, nat_configs
settings.register_profile("quick", derandomize=True, max_examples=20, deadline=None)
settings.load_profile("quick")
"""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_the_page_names_it(example: Path, tmp_path: Path) -> None:
    assert f"](examples/{example.name})" in PAGE
    output = run_pytest(tmp_path, example.read_text())
    assert re.search(r"^=* ?\d+ passed", output, re.MULTILINE) and "failed" not in output and "skipped" not in output, output


def test_what_is_quoted_of_an_example_is_in_it() -> None:
    assert (len(BLOCKS), len(OWN)) == (8, 4)


def test_the_code_of_the_page_itself_runs(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, IMPORTS + "\n\n".join(block for block in OWN if "natgw_namespace" not in block))
    assert re.search(r"\n=* ?3 passed", output), output


def test_everything_public_is_on_the_page() -> None:
    public = {*natgw.testing.__all__} - {"OUTSIDE", "AT_LEAST"}
    assert not {name for name in public if f"`{name}" not in PAGE}
    made_here = {name for name, value in vars(strategies).items()
                 if callable(value) and getattr(value, "__module__", "") == strategies.__name__ and not name.startswith("_")}
    assert not {name for name in made_here if f"`{name}" not in PAGE}


def test_what_is_public_can_be_imported() -> None:
    assert all(getattr(natgw.testing, name) is not None for name in natgw.testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = natgw.testing.nothing
