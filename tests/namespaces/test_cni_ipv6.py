"""`natgw-cni` on networks with IPv6: addresses and routes of both versions, chosen ones, CHECK, a restart."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually, requires
from tests.namespaces.cni_engine import CniFailure, Engine
from tests.namespaces.ipv6_lab import BEYOND6, GATEWAY6, OUTSIDE6, add_ipv6, addresses6, pings6, who_asks, who_asks_server
from tests.namespaces.topology import Lab

pytestmark = pytest.mark.requires("ping", "curl")

BOTH: dict[str, Any] = {"ipv6": True, "ipam": {"subnet": "10.89.0.0/24", "subnet6": "fd00:89::/64", "gateway6": "fd00:89::fe"}}


@pytest.fixture
def here() -> Iterator[Lab]:
    requires("ip", "tc", "ss")
    with Lab() as made:
        add_ipv6(made)
        made.up()
        yield made


@pytest.mark.parametrize("version", ["0.4.0", "1.1.0"])
def test_both_versions_in_the_result_and_after_a_restart(here: Lab, version: str) -> None:
    engine, pod = Engine(here.socket, version), here.namespace("pod")
    result = engine.add("c1", pod.path, **BOTH, runtimeConfig={
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]})
    four, six = ({"version": "4"}, {"version": "6"}) if version == "0.4.0" else ({}, {})
    assert result["ips"] == [{"interface": 1, "address": "10.89.0.2/24", "gateway": "10.89.0.1", **four},
                             {"interface": 1, "address": "fd00:89::1/64", "gateway": "fd00:89::fe", **six}]
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.89.0.1"}, {"dst": "::/0", "gw": "fd00:89::fe"}]
    assert addresses6(pod) == ["fd00:89::1/64"] and pings6(pod, "fd00:89::fe") and pings6(pod, BEYOND6)
    process = who_asks_server(pod, 80)
    assert who_asks(here.outside, GATEWAY6, 8080) == OUTSIDE6
    pid = here.json("status")["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    here.up()
    engine.check("c1", pod.path, result, **BOTH)
    assert eventually(lambda: pings6(pod, BEYOND6)) and who_asks(here.outside, GATEWAY6, 8080) == OUTSIDE6
    pod.end(process)
    pod.run("ip", "-6", "route", "del", "default")
    with pytest.raises(CniFailure, match="there is no route to ::/0"):
        engine.check("c1", pod.path, result, **BOTH)
    engine.delete("c1", pod.path, **BOTH)
    assert pod.links() == {"lo"}
    here.natgw("down")
    assert here.leftovers() == []


def test_an_address_that_the_runtime_chose_and_what_makes_no_sense(here: Lab) -> None:
    engine, pod = Engine(here.socket), here.namespace("pod")
    result = engine.add("c1", pod.path, ipv6=True, runtimeConfig={"ips": ["10.89.0.7/24"]})
    assert result["ips"][1]["address"].startswith("fd") and result["ips"][1]["address"].endswith("::2/64")
    engine.delete("c1", pod.path, ipv6=True)
    result = engine.add("c1", pod.path, **BOTH, runtimeConfig={"ips": ["fd00:89::77/64", "10.89.0.7/24"]})
    assert [each["address"] for each in result["ips"]] == ["10.89.0.7/24", "fd00:89::77/64"]
    other = here.namespace("other")
    plain: dict[str, Any] = {"name": "plain", "ipam": {"subnet": "10.90.0.0/24"}}
    engine.add("c2", other.path, "eth1", **plain)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"ipv6": True, "ipam": {"subnet6": "fd00:88::/64"}}, "network lab is there with the subnet fd00:89::/64"),
        ({"ipam": {"subnet6": "fd00:89::/64"}}, "IPv6 addresses need"),
        ({"ipv6": True, "ipam": {"gateway6": "fd00:89::1"}}, "needs the subnet that it is in"),
        ({**plain, "ipv6": True}, "network plain is there without IPv6"),
        ({**plain, "runtimeConfig": {"ips": ["fd00:90::1"]}}, "network plain has no IPv6 addresses")]
    for changes, says in wrong:
        with pytest.raises(CniFailure) as failure:
            engine.add("c3", other.path, **changes)
        assert failure.value.code == 7 and says in str(failure.value)
    engine.delete("c1", pod.path, **BOTH)
    engine.delete("c2", other.path, "eth1", **plain)
