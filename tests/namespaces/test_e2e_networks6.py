"""Networks with IPv6 beside a default one without: addresses, ways out, isolation, published ports, and what comes back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually, requires
from tests.namespaces.ipv6_lab import (
    BEYOND6,
    GATEWAY6,
    OUTSIDE6,
    add_ipv6,
    addresses6,
    pings6,
    ways_out6,
    who_asks,
    who_asks_server,
)
from tests.namespaces.topology import OUTSIDE, Lab, Namespace

pytestmark = [pytest.mark.requirement("V1", "V2"), pytest.mark.requires("ping", "curl")]

BRIDGE = "com.docker.network.bridge."


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    """One natgw, started without IPv6, for the tests of this module that leave it as they found it."""
    requires("ip", "tc", "ss")
    with Lab() as made:
        add_ipv6(made)
        made.up()
        yield made


@pytest.fixture
def lab6() -> Iterator[Lab]:
    requires("ip", "tc", "ss")
    with Lab() as made:
        add_ipv6(made)
        yield made


def create(lab: Lab, name: str, number: int, *options: str) -> None:
    subnets = ("--subnet", f"10.{number}.0.0/16", "--subnet", f"fd00:{number}::/64")
    lab.natgw("network", "create", "--ipv6", *subnets, *options, name)


def remove(lab: Lab, networks: list[str], **containers: Namespace) -> None:
    lab.natgw("detach", *containers)
    lab.natgw("network", "rm", *networks)
    for namespace in containers.values():
        namespace.close()


def inspect(lab: Lab, name: str) -> dict[str, Any]:
    (network,) = json.loads(lab.natgw("network", "inspect", name).stdout)
    found: dict[str, Any] = network
    return found


def refused(lab: Lab, *words: str) -> str:
    failed = lab.natgw(*words, check=False)
    assert failed.returncode == 1 and failed.stdout == "" and "Traceback" not in failed.stderr
    return failed.stderr.removeprefix("natgw: ").strip()


def test_addresses_as_docker_gives_them(shared: Lab) -> None:
    lab = shared
    id_ = lab.natgw("network", "create", "--ipv6", "--subnet", "fd00:5::/64", "--ip-range", "fd00:5::1:0/112",
                    "--gateway", "fd00:5::fe", "--aux-address", "router=fd00:5::1:0", "five").stdout.strip()
    shown = inspect(lab, "five")
    assert shown["EnableIPv6"] is True
    assert shown["IPAM"]["Config"] == [
        {"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"},
        {"Subnet": "fd00:5::/64", "IPRange": "fd00:5::1:0/112", "Gateway": "fd00:5::fe",
         "AuxiliaryAddresses": {"router": "fd00:5::1:0"}}]
    assert addresses6(lab.gateway, "br-" + id_[:12]) == ["fd00:5::fe/64"]
    one, two = lab.container("one", "--network", "five"), lab.container("two", "--network", "five", "--ip6", "fd00:5::abcd")
    assert (addresses6(one), addresses6(two)) == (["fd00:5::1:1/64"], ["fd00:5::abcd/64"])
    assert ways_out6(one) == [("fd00:5::fe", "eth0")]
    endpoint = lab.json("inspect", "one")[0]["NetworkSettings"]["Networks"]["five"]
    assert {key: endpoint[key] for key in ("GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway")} == {
        "GlobalIPv6Address": "fd00:5::1:1", "GlobalIPv6PrefixLen": 64, "IPv6Gateway": "fd00:5::fe"}
    assert {each["IPv6Address"] for each in inspect(lab, "five")["Containers"].values()} == {
        "fd00:5::1:1/64", "fd00:5::abcd/64"}
    three = lab.namespace("three")
    for address, words in (("fd00:5::abcd", "Address already in use"),
                           ("fd00:6::1", "no configured subnet or ip-range contain"),
                           ("fd00:5::", "no configured subnet"), ("10.0.0.1", "invalid IPv6 address: 10.0.0.1")):
        assert words in refused(lab, "attach", three.name, "--network", "five", "--ip6", address)
    assert refused(lab, "attach", three.name, "--ip6", "fd00:5::9") == \
        "network bridge has no IPv6 addresses: fd00:5::9 is none of its"
    remove(lab, ["five"], one=one, two=two)


def test_prefixes_that_natgw_chooses(shared: Lab) -> None:
    lab = shared
    prefixes = []
    for name in ("first", "second"):
        lab.natgw("network", "create", "--ipv6", name)
        prefixes.append(inspect(lab, name)["IPAM"]["Config"][1]["Subnet"])
    assert prefixes[0].startswith("fd") and prefixes[0].endswith(":1::/64")
    assert prefixes[1] == prefixes[0].replace(":1::/64", ":2::/64")
    for words, said in ((("--ipv6", "--subnet", prefixes[0]), "Pool overlaps with other one on this address space"),
                        (("--ipv6", "--subnet", "2001:db8:51::/64"), "meets the host's route"),
                        (("--ipv6", "--subnet", "fe80::/64"), "no host can have"),
                        (("--ipv6", "-o", "com.docker.network.driver.mtu=1000"), "too small for IPv6"),
                        (("--subnet", "fd00::/64"), "with --ipv6 only")):
        assert said in refused(lab, "network", "create", *words, "x")
    assert not any(one["Name"] == "x" for one in lab.json("network", "ls"))
    lab.natgw("network", "rm", "first", "second")


def test_from_inside_to_outside_and_back(shared: Lab) -> None:
    lab = shared
    create(lab, "six", 6)
    one, two = lab.container("one", "--network", "six", "-p", "8080:80"), lab.container("two", "--network", "six")
    inner, outer = who_asks_server(one, 80), who_asks_server(lab.outside, 8000)
    assert all(pings6(one, target) for target in ("fd00:6::1", "fd00:6::3", OUTSIDE6, BEYOND6, GATEWAY6))
    assert pings6(lab.gateway, "fd00:6::2")
    assert who_asks(one, OUTSIDE6, 8000) == GATEWAY6
    assert who_asks(lab.outside, GATEWAY6, 8080) == OUTSIDE6
    assert who_asks(lab.gateway, "::1", 8080) == "fd00:6::1"
    assert who_asks(two, GATEWAY6, 8080) == GATEWAY6
    found = lab.json("flows", "--container", "one")
    assert any(flow["original"]["src"] == "fd00:6::2" and flow["original"]["dst"] == OUTSIDE6 for flow in found)
    # The guard has learned of IPv6: what is not published is not the host's to refuse either, where natgw translates to.
    assert lab.outside.run("curl", "-sS6", "-m", "2", f"http://[{GATEWAY6}]:50000/", check=False).returncode == 28
    assert lab.outside.run("curl", "-sS6", "-m", "3", f"http://[{GATEWAY6}]:81/", check=False).returncode == 7
    one.end(inner)
    lab.outside.end(outer)
    remove(lab, ["six"], one=one, two=two)


def test_networks_are_isolated(shared: Lab) -> None:
    lab = shared
    create(lab, "here", 7)
    create(lab, "there", 8)
    one, two = lab.container("one", "--network", "here"), lab.container("two", "--network", "there")
    before = lab.counters()["drop_isolated"]
    assert not any(pings6(*pair) for pair in ((one, "fd00:8::2"), (one, "fd00:8::1"), (two, "fd00:7::2")))
    assert lab.counters()["drop_isolated"] - before == 3
    remove(lab, ["here", "there"], one=one, two=two)


def test_an_internal_network_has_no_outside(shared: Lab) -> None:
    lab = shared
    create(lab, "inside", 9, "--internal")
    one, two = lab.container("one", "--network", "inside"), lab.container("two", "--network", "inside")
    assert pings6(one, "fd00:9::3") and pings6(two, "fd00:9::1") and ways_out6(one) == []
    one.run("ip", "-6", "route", "add", "default", "via", "fd00:9::1")
    before = lab.counters()["drop_internal"]
    assert not pings6(one, OUTSIDE6) and not pings6(one, GATEWAY6)
    assert lab.counters()["drop_internal"] - before == 2
    remove(lab, ["inside"], one=one, two=two)


def test_without_icc_containers_meet_by_published_ports_only(shared: Lab) -> None:
    lab = shared
    create(lab, "lonely", 10, "-o", BRIDGE + "enable_icc=false")
    server = lab.container("server", "--network", "lonely", "-p", "8085:80")
    client = lab.container("client", "--network", "lonely")
    process = who_asks_server(server, 80)
    assert not pings6(client, "fd00:10::2") and pings6(client, OUTSIDE6) and pings6(client, "fd00:10::1")
    assert who_asks(client, "fd00:10::2", 80) == ""
    assert who_asks(client, GATEWAY6, 8085) == GATEWAY6 and who_asks(lab.outside, GATEWAY6, 8085) == OUTSIDE6
    server.end(process)
    remove(lab, ["lonely"], server=server, client=client)


def test_without_masquerade_it_routes(shared: Lab) -> None:
    lab = shared
    create(lab, "routed", 11, "-o", BRIDGE + "enable_ip_masquerade=false")
    one = lab.container("one", "--network", "routed")
    assert not pings6(one, OUTSIDE6)  # who does not know the way back
    lab.outside.run("ip", "-6", "route", "add", "fd00:11::/64", "via", GATEWAY6)
    process = who_asks_server(lab.outside, 8000)
    assert who_asks(one, OUTSIDE6, 8000) == "fd00:11::2" and pings6(lab.outside, "fd00:11::2")
    lab.outside.end(process)
    lab.outside.run("ip", "-6", "route", "del", "fd00:11::/64")
    remove(lab, ["routed"], one=one)


def test_the_way_out_moves_with_the_networks(shared: Lab) -> None:
    """As that of IPv4 does where both have IPv6; where the first by name has none, IPv6 goes by the next."""
    lab = shared
    create(lab, "mm", 12)
    create(lab, "aa", 13)
    web = lab.container("web", "-p", "8086:80")  # on bridge, which has no IPv6
    process = who_asks_server(web, 80)
    assert ways_out6(web) == [] and who_asks(lab.outside, GATEWAY6, 8086) != OUTSIDE6
    lab.natgw("network", "connect", "--ip6", "fd00:12::77", "mm", "web")
    assert addresses6(web, "eth1") == ["fd00:12::77/64"] and ways_out6(web) == [("fd00:12::1", "eth1")]
    assert "dev eth0" in web.run("ip", "route", "show", "default").stdout and pings6(web, BEYOND6)
    lab.natgw("network", "connect", "aa", "web")
    assert ways_out6(web) == [("fd00:13::1", "eth2")] and pings6(web, BEYOND6)
    assert "dev eth2" in web.run("ip", "route", "show", "default").stdout
    assert who_asks(lab.outside, GATEWAY6, 8086) == OUTSIDE6
    lab.natgw("network", "disconnect", "aa", "web")
    assert ways_out6(web) == [("fd00:12::1", "eth1")] and pings6(web, BEYOND6)
    lab.natgw("network", "disconnect", "bridge", "web")
    assert who_asks(lab.outside, GATEWAY6, 8086) == OUTSIDE6
    lab.natgw("network", "disconnect", "mm", "web")
    assert ways_out6(web) == [] and web.links() == {"lo"}
    web.end(process)
    remove(lab, ["aa", "mm"], web=web)


@pytest.mark.parametrize("link", ["tap", "veth"])
def test_a_command_with_an_address_of_its_own(shared: Lab, link: str) -> None:
    lab = shared
    create(lab, "run", 14)
    shown = lab.natgw("run", "--network", "run", "--ip6", "fd00:14::5", "--link", link, "--", "ip", "-6", "addr", "show",
                      "dev", "eth0", "scope", "global").stdout
    assert "inet6 fd00:14::5/64 " in shown
    assert " 0% packet loss" in lab.natgw("run", "--network", "run", "--link", link, "--", "ping", "-6", "-c", "1", "-W", "5",
                                          BEYOND6).stdout
    lab.natgw("network", "rm", "run")


def test_flows_go_on_when_the_first_network_with_ipv6_comes(lab6: Lab) -> None:
    """Also where natgw has the uplink for itself, and so takes IPv6 from the host."""
    lab6.up("--exclusive-uplink")
    one = lab6.container("one")
    server = who_asks_server(lab6.outside, 8000)
    assert one.run("curl", "-sS", f"http://{OUTSIDE}:8000/").stdout.endswith("198.51.100.2")
    before = [(flow["original"], flow["mapping"]["external"]) for flow in lab6.json("flows")]
    assert before and lab6.json("status")["uplink"]["addresses"] == ["198.51.100.2/24"]
    assert pings6(lab6.gateway, OUTSIDE6)
    create(lab6, "six", 6)
    assert [(flow["original"], flow["mapping"]["external"]) for flow in lab6.json("flows")] == before
    assert f"{GATEWAY6}/64" in lab6.json("status")["uplink"]["addresses"]
    two = lab6.container("two", "--network", "six")
    assert pings6(two, BEYOND6) and not pings6(lab6.gateway, OUTSIDE6)
    lab6.outside.run("ip", "neigh", "flush", "all")
    assert pings6(lab6.outside, GATEWAY6) and lab6.counters()["echo_answered"] >= 1
    lab6.outside.end(server)
    remove(lab6, ["six"], one=one, two=two)
    lab6.natgw("down")
    assert lab6.leftovers() == []


@pytest.mark.parametrize("how", ["down --keep", "kill -9"])
def test_after_a_restart(lab6: Lab, how: str) -> None:
    lab = lab6
    pid = lab.up("--ipv6")
    create(lab, "mine", 15)
    lab.natgw("network", "create", "--ipv6", "chosen")
    web = lab.container("web", "--ip6", lab.json("status")["subnet6"].replace("::/64", "::99"), "-p", "8080:80")
    lab.natgw("network", "connect", "chosen", "web")
    lab.natgw("network", "connect", "--ip6", "fd00:15::9", "mine", "web")
    before = {"status": lab.json("status")["subnet6"], "networks": [inspect(lab, name) for name in ("mine", "chosen")],
              "endpoints": lab.json("inspect", "web")[0]["networks"], "ways": ways_out6(web)}
    if how == "kill -9":
        os.kill(pid, signal.SIGKILL)
    else:
        lab.natgw("down", "--keep")
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    lab.up("--ipv6")
    after = {"status": lab.json("status")["subnet6"], "networks": [inspect(lab, name) for name in ("mine", "chosen")],
             "endpoints": lab.json("inspect", "web")[0]["networks"], "ways": ways_out6(web)}
    for endpoints in (before["endpoints"], after["endpoints"]):
        for endpoint in endpoints.values():
            endpoint["device"] = endpoint["network_id"] = ""  # of which the default network has a new one each time
    assert after == before and len({address for name in ("eth0", "eth1", "eth2") for address in addresses6(web, name)}) == 3
    process = who_asks_server(web, 80)
    assert who_asks(lab.outside, GATEWAY6, 8080) == OUTSIDE6
    web.end(process)
    lab.natgw("down")
    lab.up("--ipv6")  # there are networks that came back, and so the prefix of the default one is the same
    assert lab.json("status")["subnet6"] == before["status"] and inspect(lab, "chosen")["IPAM"] == before["networks"][1]["IPAM"]
    lab.natgw("network", "rm", "mine", "chosen")
    lab.natgw("down")
    assert lab.leftovers() == []


def test_the_default_networks_prefix_is_kept_for_a_restart_alone(lab6: Lab) -> None:
    lab6.up("--ipv6")
    first = lab6.json("status")["subnet6"]
    lab6.natgw("down", "--keep")
    lab6.up("--ipv6")
    assert lab6.json("status")["subnet6"] == first
    lab6.natgw("down")
    assert lab6.leftovers() == []
