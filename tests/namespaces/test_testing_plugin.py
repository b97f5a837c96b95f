"""The fixture natgw_namespace of the pytest plugin, as a user's test would have it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from natgw.testing.namespace import OUTSIDE, NamespaceGateway
from tests.unit.test_examples import IMPORTS, OWN
from tests.unit.test_testing import run_pytest


@pytest.mark.requires("ip", "ping")
@pytest.mark.natgw_up("--nat-type", "symmetric")
def test_a_real_gateway_for_a_test(natgw_namespace: NamespaceGateway) -> None:
    box = natgw_namespace.container("box", "-p", "8080:80")
    natgw_namespace.run(box, "ping", "-c", "1", "-W", "5", OUTSIDE)
    assert [flow["protocol"] for flow in json.loads(natgw_namespace.natgw("flows", "--json"))] == ["icmp"]
    assert json.loads(natgw_namespace.natgw("nat", "show", "--json"))["type"] == "symmetric"
    with pytest.raises(AssertionError, match="exit 1"):
        natgw_namespace.run(natgw_namespace.outside, "false")
    assert natgw_namespace.run(natgw_namespace.outside, "false", check=False).returncode == 1


@pytest.mark.requires("ip")
def test_nothing_is_left_of_one_that_could_not_start(tmp_path: Path) -> None:
    made = NamespaceGateway(tmp_path, ["--nat-type", "nonsense"])
    with pytest.raises(AssertionError, match="nonsense"), made:
        pass
    there = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert made.gateway not in there and made.outside not in there


@pytest.mark.requires("ip", "ping")
def test_what_the_page_shows_of_it(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, IMPORTS + "".join(block for block in OWN if "natgw_namespace" in block))
    assert re.search(r"\n=* ?1 passed", output), output
