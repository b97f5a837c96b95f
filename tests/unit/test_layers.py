"""Each layer imports only itself, the layers to its left, and natgw.errors: read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import natgw

PACKAGE = Path(natgw.__file__).parent
LAYERS = ("wire", "tables", "datapath", "host", "control", "api", "cli")
TESTING = "testing"
"""The test kit: it may import every layer and is imported by none."""
CNI = "cni"
"""The plugin that engines start for every container: it stands apart, and for its start's sake imports next to nothing."""
CNI_USERS = ("control", "api", "cli")
CNI_MODULES = {"__future__", "collections.abc", "json", "os", "re", "socket", "sys", "typing"}
TEST_TOOLS = {"hypothesis", "pytest", "scapy"}
"""Only the test kit needs them: they are not installed with natgw."""
COMMON = {"natgw", "natgw.errors", "natgw.startup"}
# Standard modules that would let the world, the clock or a log into code that must run in a plain unit test.
IMPURE = {"asyncio", "fcntl", "logging", "os", "select", "signal", "subprocess", "sys", "threading", "time"}
PURE_LAYERS = ("wire", "tables", "datapath")


def imports(path: Path, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import in the file, whether at its head or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(part for part in (above, node.module) if part)
            if module == "natgw":  # from natgw import host
                for alias in node.names:
                    inside = (PACKAGE / alias.name).is_dir() or (PACKAGE / f"{alias.name}.py").exists()
                    yield node.lineno, f"natgw.{alias.name}" if inside else "natgw"
            else:
                yield node.lineno, module


def source_files(layer: str) -> list[Path]:
    return sorted((PACKAGE / layer).rglob("*.py"))


def layer_imports(layer: str) -> Iterator[tuple[str, str]]:
    """("natgw/wire/arp.py:12", "natgw.wire.ethernet") for every import of the layer."""
    for path in source_files(layer):
        package = ".".join(path.parent.relative_to(PACKAGE.parent).parts)
        for line, module in imports(path, package):
            yield f"{path.relative_to(PACKAGE.parent)}:{line}", module


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_left(layer: str) -> None:
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    wrong = [
        f"{place} imports {module}"
        for place, module in layer_imports(layer)
        if module.split(".")[0] == "natgw" and module not in COMMON and module.split(".")[1] not in allowed
        and not (layer in CNI_USERS and module.split(".")[1] == CNI)
    ]
    assert not wrong


def test_the_cni_plugin_imports_next_to_nothing() -> None:
    assert not [f"{place} imports {module}" for place, module in layer_imports(CNI)
                if module not in CNI_MODULES and module.split(".")[:2] != ["natgw", CNI]]
    assert list(layer_imports(CNI))


@pytest.mark.parametrize("layer", LAYERS)
def test_no_layer_needs_what_only_the_test_kit_does(layer: str) -> None:
    assert not [f"{place} imports {module}" for place, module in layer_imports(layer) if module.split(".")[0] in TEST_TOOLS]


def test_nothing_imports_the_test_kit() -> None:
    found = [place for layer in LAYERS for place, module in layer_imports(layer) if module.startswith("natgw.testing")]
    found += [path.name for path in PACKAGE.glob("*.py") for _, module in imports(path, "natgw")
              if module.split(".")[0] in TEST_TOOLS or module.startswith("natgw.testing")]
    assert not found
    assert list(layer_imports(TESTING))


@pytest.mark.parametrize("layer", PURE_LAYERS)
def test_no_io_clock_or_log_below_host(layer: str) -> None:
    assert not [f"{place} imports {module}" for place, module in layer_imports(layer) if module in IMPURE]


def test_every_package_is_a_layer() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} <= {*LAYERS, CNI, TESTING}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import natgw.cli.main", "natgw.cli.main"),
        ("from natgw import wire", "natgw.wire"),
        ("from natgw import __version__", "natgw"),
        ("from natgw.api.client import Client", "natgw.api.client"),
        ("from . import arp", "natgw.wire"),
        ("from ..host import links", "natgw.host"),
        ("def f():\n    import natgw.host", "natgw.host"),
    ],
)
def test_the_check_sees_every_form_of_import(source: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert [module for _, module in imports(path, "natgw.wire")] == [found]
