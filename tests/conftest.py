"""What all tests share: saying what a machine lacks, and waiting for something to happen.

A test is never skipped quietly. One that needs a program or root's powers says so, with `requires()` or a
marker; on a developer's machine without them it is listed at the end of the run, and under CI=true it fails.

Hypothesis runs by one of four profiles, which HYPOTHESIS_PROFILE names. `ci`, the default under CI=true, tries the same
examples each time, so that what fails was broken by a change; `dev`, the default elsewhere, tries others each time;
`nightly` tries at least 5,000 of each property; `mutants` is `ci` for tools/mutants, which does not want to know the smallest
example of what fails. None judges by the time that an example takes: that is the machine's.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests import generated

T = TypeVar("T")

_ANY_SPEED = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
settings.register_profile("dev", _ANY_SPEED)
settings.register_profile("ci", _ANY_SPEED, derandomize=True, database=None)
settings.register_profile("mutants", _ANY_SPEED, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
settings.register_profile("nightly", _ANY_SPEED, max_examples=5000)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "dev")
settings.load_profile(PROFILE)


def examples(number: int) -> int:
    """How many examples of a property to try where an ordinary run tries `number`."""
    return max(number, 5000) if PROFILE == "nightly" else number

NAMESPACE_TESTS = tuple(Path(__file__).parent / folder for folder in ("namespaces", "kernel", "engines"))
# Administrators' tools are not on the PATH of an ordinary user in Debian.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21

_could_not_run: dict[str, list[str]] = {}


def eventually(condition: Callable[[], T], *, within_s: float = 10.0, every_s: float = 0.01) -> T:
    """Poll until `condition()` is true and return its value; fail after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"did not happen within {within_s:g} s; the last look gave {value!r}")
        time.sleep(every_s)
    return value


def requires(*programs: str) -> None:
    """End the running test here unless all `programs` are installed; CI counts that as a failure."""
    missing = [program for program in programs if shutil.which(program, path=SEARCH_PATH) is None]
    if missing:
        _cannot_run(f"not installed: {', '.join(missing)}")


def root_powers() -> bool:
    """Whether this process may make namespaces and interfaces (being uid 0 neither shows nor needs it)."""
    status = Path("/proc/self/status").read_text()
    effective = int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)
    return all(effective >> bit & 1 for bit in (CAP_NET_ADMIN, CAP_SYS_ADMIN))


def _cannot_run(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"cannot run here, and CI must be able to: {reason}", pytrace=False)
    test = os.environ.get("PYTEST_CURRENT_TEST", "a test").rsplit(" ", 1)[0]
    _could_not_run.setdefault(reason, []).append(test)
    pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in NAMESPACE_TESTS):
            item.add_marker("root")
        if PROFILE == "nightly":
            item.add_marker(pytest.mark.timeout(generated.NIGHTLY_LIMIT_S), append=False)  # before a test's own


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and not root_powers():
        _cannot_run("needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN)")
    requires(*(program for marker in item.iter_markers("requires") for program in marker.args))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if figures := generated.report():
        terminalreporter.section("generated sequences")
        for line in figures:
            terminalreporter.write_line(line)
    if not _could_not_run:
        return
    terminalreporter.section("could not run on this machine", yellow=True)
    for reason, tests in sorted(_could_not_run.items()):
        terminalreporter.write_line(f"{reason} ({len(tests)} tests)")
        for test in tests:
            terminalreporter.write_line(f"    {test}")
