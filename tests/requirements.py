"""Which test shows which requirement: read from the `requirement` markers, without running anything.

`python -m tests.requirements` brings the last column of docs/nat-behaviour.md up to date; tests/unit/test_nat_behaviour.py
fails while it is not.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "nat-behaviour.md"
ROW = re.compile(r"^\| ([A-Z]\d+) \| (.*?) \| (.*?) ?\|$", re.MULTILINE)
NOT_YET = "not yet"


def shown_by() -> dict[str, list[str]]:
    """Test modules by requirement id, relative to the checkout, sorted."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.requirement":
                for argument in node.args:
                    found[ast.literal_eval(argument)].add(str(path.relative_to(ROOT)))
    return {requirement: sorted(paths) for requirement, paths in found.items()}


def with_links(text: str) -> str:
    """The document with the links that belong into its rows. A row that says why something is missing keeps saying so."""
    tests = shown_by()

    def row(match: re.Match[str]) -> str:
        requirement, what, shown = match.groups()
        links = ", ".join(f"[{Path(path).stem.removeprefix('test_')}](../{path})" for path in tests.get(requirement, []))
        return f"| {requirement} | {what} | {links or shown} |"

    return ROW.sub(row, text)


if __name__ == "__main__":
    DOCUMENT.write_text(with_links(DOCUMENT.read_text()))
