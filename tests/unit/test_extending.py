"""docs/extending.md: its policy, loaded as the page says, and the property that every policy must have."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import natgw
from natgw.control import natconfig, policies
from natgw.datapath import DatapathConfig, NatConfig
from natgw.datapath.allocation import POLICIES, PortPolicy, PortRequest, Preserve, Random, Sequential
from natgw.datapath.napt import Napt
from natgw.datapath.verdict import Extra
from natgw.errors import NatgwError
from natgw.tables.portpool import PortPool

DOCS = Path(natgw.__file__).parents[1] / "docs"
EXAMPLE = DOCS / "examples" / "own_policy.py"
REQUEST = PortRequest(17, b"\xac\x11\0\x02", 5000, b"\xc6\x33\x64\x02", b"\xc6\x33\x64\x01", 53)

requests = st.builds(PortRequest, protocol=st.sampled_from((6, 17)), internal_address=st.binary(min_size=4, max_size=4),
                     internal_port=st.integers(1, 65535), external_address=st.just(REQUEST.external_address),
                     remote_address=st.binary(min_size=4, max_size=4), remote_port=st.integers(1, 65535), parity=st.booleans())


def example(rng: random.Random) -> PortPolicy:
    """The page's policy, by a loader of the test's own: what is parametrised is made before fixtures are."""
    made: PortPolicy = policies._module(str(EXAMPLE)).Multiples(rng)
    return made


@pytest.fixture
def load() -> Iterator[Callable[[str], str]]:
    """`policies.load`, undone afterwards."""
    before = dict(POLICIES)
    yield policies.load
    POLICIES.clear()
    POLICIES.update(before)


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_page_shows_what_the_file_has() -> None:
    _, _, code = EXAMPLE.read_text().partition("\n\n\n")
    assert code
    assert f"```python\n{code}```" in (DOCS / "extending.md").read_text()


@pytest.mark.parametrize("make", [example, Preserve, Random, Sequential], ids=["example", "preserve", "random", "sequential"])
@given(low=st.integers(1, 65535), size=st.integers(1, 300),
       steps=st.lists(st.one_of(requests, st.integers(0, 299)), max_size=400), seed=st.integers(0, 2**32))
def test_a_policy_gives_free_ports_while_there_are_any(make: Callable[[random.Random], PortPolicy], low: int, size: int,
                                                       steps: list[PortRequest | int], seed: int) -> None:
    pool, policy, taken = PortPool(low, min(65535, low + size - 1)), make(random.Random(seed)), []
    for step in steps:
        if isinstance(step, PortRequest):
            port = policy.choose(step, pool)
            assert port is not None or not available(step, pool)
            if port is not None:
                assert port in pool
                assert pool.take(port)
                taken.append(port)
        elif taken:
            pool.release(taken.pop(step % len(taken)))


def available(request: PortRequest, pool: PortPool) -> bool:
    """Whether a free port is left of those that may serve the request."""
    return any(pool.is_free(port) for ports in request.ranges(pool) for port in ports)


def test_multiples_come_first(load: Callable[[str], str]) -> None:
    assert load(f"{EXAMPLE}:Multiples") == "Multiples"
    policy, pool = POLICIES["Multiples"](random.Random(1)), PortPool(40050, 40350)
    chosen = []
    for _ in range(4):
        port = policy.choose(REQUEST, pool)
        assert port is not None
        assert pool.take(port)
        chosen.append(port)
    assert chosen[:3] == [40100, 40200, 40300]
    assert chosen[3] in pool


def test_it_is_chosen_by_the_name_of_its_class(load: Callable[[str], str]) -> None:
    load(f"{EXAMPLE}:Multiples")
    nat = natconfig.changed(NatConfig(), {"allocation": "multiples"})
    assert nat.allocation == "Multiples"
    Napt(DatapathConfig(nat=nat), [0] * len(Extra))


def test_a_module_by_its_name(load: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "policies_of_mine.py").write_text(EXAMPLE.read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load("policies_of_mine:Multiples") == "Multiples"


# ---- one that is not right -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "name", "message"), [
    ("", "Mine", "there is no Mine in {path}"),
    ("Mine = 3", "Mine", "port policy {path}:Mine is not a class"),
    ("class Mine: pass", "Mine",
     "port policy {path}:Mine cannot be made with a random.Random: TypeError: Mine() takes no arguments"),
    ("class Mine:\n    def __init__(self, rng): pass", "Mine", "port policy {path}:Mine has no method choose(request, pool)"),
    ("1 / 0", "Mine", "port policy: {path} cannot be imported: ZeroDivisionError: division by zero"),
    ("import nosuchmodule", "Mine", "port policy: No module named 'nosuchmodule'"),
    ("from natgw.datapath.allocation import Random\nclass random(Random): pass", "random",
     "port policy {path}:random: there is a port policy 'random' already"),
])
def test_what_is_wrong_is_said_at_once(load: Callable[[str], str], tmp_path: Path, code: str, name: str, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(code)
    with pytest.raises(NatgwError) as caught:
        load(f"{path}:{name}")
    assert str(caught.value) == message.format(path=path)


@pytest.mark.parametrize(("spec", "message"), [
    ("mine", 'port policy "mine" is not MODULE:CLASS or PATH.py:CLASS'),
    ("mine:", 'port policy "mine:" is not MODULE:CLASS or PATH.py:CLASS'),
    (":Mine", 'port policy ":Mine" is not MODULE:CLASS or PATH.py:CLASS'),
    ("/nowhere/mine.py:Mine", "port policy: there is no file /nowhere/mine.py"),
    ("nosuchmodule:Mine",
     "port policy: No module named 'nosuchmodule'; a file is given by its path, such as ./nosuchmodule.py"),
])
def test_what_cannot_be_found(load: Callable[[str], str], spec: str, message: str) -> None:
    with pytest.raises(NatgwError) as caught:
        load(spec)
    assert str(caught.value) == message


@pytest.mark.parametrize(("answer", "told"), [
    ("1 / 0", "port policy Mine: ZeroDivisionError: division by zero (told once)"),
    ("22", "port policy Mine: 22 is not a port of 40000-40009 (told once)"),
    ("'40000'", "port policy Mine: '40000' is not a port of 40000-40009 (told once)"),
    ("-1", "port policy Mine: -1 is not a port of 40000-40009 (told once)"),
])
def test_what_goes_wrong_later_is_none_and_told_once(load: Callable[[str], str], tmp_path: Path, answer: str, told: str,
                                                     caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "mine.py"
    path.write_text("class Mine:\n    def __init__(self, rng): pass\n"
                    f"    def choose(self, request, pool): return {answer}\n")
    policy = POLICIES[load(f"{path}:Mine")](random.Random(1))
    with caplog.at_level(logging.ERROR):
        assert [policy.choose(REQUEST, PortPool(40000, 40009)) for _ in range(3)] == [None] * 3
    assert [record.getMessage() for record in caplog.records] == [told]
