"""`natgw up --ipv6` from end to end: real kernels on both sides, real programs, by tap and by veth."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.conftest import eventually, requires
from tests.namespaces.ipv6_lab import BEYOND6, GATEWAY6, OUTSIDE6, add_ipv6, addresses6, who_asks_server
from tests.namespaces.topology import Lab, Namespace

pytestmark = [pytest.mark.requirement("V1", "V2"), pytest.mark.requires("ping", "traceroute", "curl", "iperf3")]

PREFIX = "fd00:1:2:3::"


class Lab6(Lab):
    """With two containers."""

    one: Namespace
    two: Namespace


@pytest.fixture(scope="module", params=["tap", "veth"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab6]:
    requires("ip", "tc", "ss")
    with Lab6() as made:
        add_ipv6(made)
        made.up("--ipv6", "--subnet6", f"{PREFIX}/64", "--link", request.param)
        made.one = made.container("one", "-p", "8080:80", "-p", "9090:90/udp")
        made.two = made.container("two")
        yield made


def containers(lab: Lab6) -> tuple[Namespace, Namespace]:
    return lab.one, lab.two


def test_addresses_and_routes_are_the_ones_natgw_gave(lab: Lab6) -> None:
    one, two = containers(lab)
    assert (addresses6(one), addresses6(two)) == ([f"{PREFIX}2/64"], [f"{PREFIX}3/64"])
    assert addresses6(lab.gateway, "natgw0") == [f"{PREFIX}1/64"]
    (route,) = json.loads(one.run("ip", "-j", "-6", "route", "show", "default").stdout)
    assert (route["gateway"], route["dev"]) == (f"{PREFIX}1", "eth0")


def test_what_natgw_says_of_it(lab: Lab6) -> None:
    status = lab.json("status")
    assert (status["subnet6"], status["gateway6"]) == (f"{PREFIX}/64", f"{PREFIX}1")
    (network,) = json.loads(lab.natgw("network", "inspect", "bridge").stdout)
    assert network["EnableIPv6"] is True
    assert network["IPAM"]["Config"][1] == {"Subnet": f"{PREFIX}/64", "Gateway": f"{PREFIX}1"}
    assert {each["IPv6Address"] for each in network["Containers"].values()} == {f"{PREFIX}2/64", f"{PREFIX}3/64"}


@pytest.mark.parametrize("target", [f"{PREFIX}1", f"{PREFIX}3", OUTSIDE6, BEYOND6, GATEWAY6])
def test_ping(lab: Lab6, target: str) -> None:
    """The gateway, another container, a neighbour outside, somebody further on, and the host's own address."""
    one, _ = containers(lab)
    assert " 0% packet loss" in one.run("ping", "-6", "-c", "2", "-i", "0.2", "-W", "5", target).stdout


def test_the_host_reaches_a_container(lab: Lab6) -> None:
    assert " 0% packet loss" in lab.gateway.run("ping", "-6", "-c", "1", "-W", "5", f"{PREFIX}2").stdout


def test_traceroute_shows_the_gateway(lab: Lab6) -> None:
    one, _ = containers(lab)
    for flags in ([], ["-I"], ["-T", "-p", "81"]):
        shown = one.run("traceroute", "-6", "-n", "-q", "1", "-w", "3", "-m", "5", *flags, BEYOND6).stdout.splitlines()[1:]
        assert [line.split()[1] for line in shown] == [f"{PREFIX}1", BEYOND6], flags


def test_curl_from_inside_is_seen_from_the_hosts_address(lab: Lab6) -> None:
    one, _ = containers(lab)
    server = who_asks_server(lab.outside, 8000)
    try:
        assert one.run("curl", "-sS6", f"http://[{OUTSIDE6}]:8000/").stdout == GATEWAY6
    finally:
        lab.outside.end(server)


def test_a_published_port_by_ipv6(lab: Lab6) -> None:
    """From outside with the client's own address; from the host through the relay; from a container by hairpin."""
    one, two = containers(lab)
    server = who_asks_server(one, 80)
    try:
        assert lab.outside.run("curl", "-sS6", f"http://[{GATEWAY6}]:8080/").stdout == OUTSIDE6
        assert lab.gateway.run("curl", "-sS6", "http://[::1]:8080/").stdout == f"{PREFIX}1"
        assert two.run("curl", "-sS6", f"http://[{GATEWAY6}]:8080/").stdout == GATEWAY6
    finally:
        one.end(server)


def test_the_host_answers_nothing_that_is_natgws(lab: Lab6) -> None:
    """A closed port of the host's own is refused by the host; one of natgw's range is not, since the guard keeps it away."""
    refused = lab.outside.run("curl", "-sS6", "-m", "3", f"http://[{GATEWAY6}]:81/", check=False)
    assert refused.returncode == 7
    before = lab.counters()["held"]
    silent = lab.outside.run("curl", "-sS6", "-m", "2", f"http://[{GATEWAY6}]:50000/", check=False)
    assert silent.returncode == 28
    assert lab.counters()["held"] > before


@pytest.mark.parametrize("flags", [[], ["-R"], ["-u", "-b", "50M", "-l", "1200"]])
def test_iperf3(lab: Lab6, flags: list[str]) -> None:
    one, _ = containers(lab)
    server = lab.outside.spawn("iperf3", "-s", "-1", "-p", "5202")
    try:
        eventually(lambda: lab.outside.listening(5202))
        done = one.run("iperf3", "-6", "-J", "-c", OUTSIDE6, "-p", "5202", "-t", "1", *flags)
        end = json.loads(done.stdout)["end"]
        assert (end.get("sum_received") or end["sum"])["bytes"] > 1_000_000
    finally:
        lab.outside.end(server)


@pytest.mark.requirement("V4")
def test_large_pings_in_fragments(lab: Lab6) -> None:
    """The kernel fragments at the source; natgw passes the fragments on, both ways."""
    one, _ = containers(lab)
    assert " 0% packet loss" in one.run("ping", "-6", "-c", "2", "-i", "0.2", "-s", "8000", "-W", "5", BEYOND6).stdout


@pytest.mark.requirement("V3", "U10")
def test_path_mtu_is_learned_from_an_error_that_was_translated_back(lab: Lab6) -> None:
    one, _ = containers(lab)
    for end in (lab.gateway, lab.outside):
        end.run("ip", "link", "set", "eth0", "mtu", "1400")
    try:
        eventually(lambda: lab.json("status")["uplink"]["mtu"] == 1400)
        one.run("ping", "-6", "-c", "1", "-M", "do", "-s", "1400", "-W", "1", BEYOND6, check=False)
        assert "mtu 1400" in one.run("ip", "-6", "route", "get", BEYOND6).stdout
        assert " 0% packet loss" in one.run("ping", "-6", "-c", "1", "-s", "1400", "-W", "5", BEYOND6).stdout
    finally:
        for end in (lab.gateway, lab.outside):
            end.run("ip", "link", "set", "eth0", "mtu", "1500")
        eventually(lambda: lab.json("status")["uplink"]["mtu"] == 1500)


def test_a_kernel_that_listens_to_advertisements_configures_itself(lab: Lab6) -> None:
    """A namespace behind a container's place on the bridge, which asks for routers: address, route and MTU follow."""
    three = lab.container("three", "--mtu", "1400")
    three.run("ip", "-6", "addr", "flush", "dev", "eth0", "scope", "global")
    three.run("ip", "-6", "route", "del", "default")
    three.run("ip", "link", "set", "eth0", "down")
    three.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra")
    three.run("ip", "link", "set", "eth0", "up")
    found = eventually(lambda: addresses6(three))
    assert found[0].startswith(PREFIX.rstrip(":")) and found[0].endswith("/64")
    (route,) = eventually(lambda: json.loads(three.run("ip", "-j", "-6", "route", "show", "default").stdout))
    assert (route["protocol"], route["gateway"]) == ("ra", "fe80::42:acff:fe11:1")
    eventually(lambda: " 0% packet loss" in three.run("ping", "-6", "-c", "1", "-W", "2", BEYOND6, check=False).stdout)
    lab.natgw("detach", "three")


def test_natgw_follows_the_uplinks_addresses(lab: Lab6) -> None:
    one, _ = containers(lab)
    lab.gateway.run("ip", "addr", "add", "2001:db8:51::22/64", "dev", "eth0", "nodad")
    lab.gateway.run("ip", "addr", "del", f"{GATEWAY6}/64", "dev", "eth0")
    lab.gateway.run("ip", "-6", "route", "replace", "default", "via", OUTSIDE6)
    try:
        eventually(lambda: "2001:db8:51::22/64" in lab.json("status")["uplink"]["addresses"]
                   and f"{GATEWAY6}/64" not in lab.json("status")["uplink"]["addresses"])
        eventually(lambda: " 0% packet loss" in one.run("ping", "-6", "-c", "1", "-W", "2", BEYOND6, check=False).stdout)
        assert any(flow["mapping"]["external"].startswith("[2001:db8:51::22]") for flow in lab.json("flows"))
    finally:
        lab.gateway.run("ip", "addr", "add", f"{GATEWAY6}/64", "dev", "eth0", "nodad")
        lab.gateway.run("ip", "addr", "del", "2001:db8:51::22/64", "dev", "eth0")
        lab.gateway.run("ip", "-6", "route", "replace", "default", "via", OUTSIDE6)
        eventually(lambda: f"{GATEWAY6}/64" in lab.json("status")["uplink"]["addresses"])


def test_exclusive_uplink_and_a_prefix_made_by_chance() -> None:
    """natgw answers neighbour discovery and ping for the address itself, and nothing is left in the end."""
    with Lab() as made:
        add_ipv6(made)
        made.up("--ipv6", "--exclusive-uplink")
        assert made.json("status")["subnet6"].startswith("fd")
        one = made.container("one")
        made.outside.run("ip", "neigh", "flush", "all")
        assert " 0% packet loss" in made.outside.run("ping", "-6", "-c", "1", "-W", "5", GATEWAY6).stdout
        assert " 0% packet loss" in one.run("ping", "-6", "-c", "1", "-W", "5", BEYOND6).stdout
        assert made.counters()["echo_answered"] >= 1
        made.natgw("down")
        assert made.leftovers() == []


def test_without_ipv6_everything_is_as_it_was() -> None:
    with Lab() as made:
        add_ipv6(made)
        made.up()
        one = made.container("one")
        assert made.json("status")["subnet6"] is None
        assert addresses6(one) == []
        assert "2001" not in json.dumps(made.json("status")["uplink"])
        assert made.gateway.run("cat", "/proc/sys/net/ipv6/conf/natgw0/disable_ipv6").stdout.strip() == "1"


def test_what_cannot_be_is_refused() -> None:
    with Lab() as made:
        add_ipv6(made)
        for arguments, code, words in ((("--subnet6", "fd00::/64"), 2, "--subnet6 needs --ipv6"),
                                       (("--ipv6", "--mtu", "1000"), 1, "too small for IPv6"),
                                       (("--ipv6", "--subnet6", "fe80::/64"), 1, "no host can have"),
                                       (("--ipv6", "--subnet6", "2001:db8:51::/64"), 1, "meets the host's route")):
            done = made.natgw("up", "--detach", *arguments, check=False)
            assert (done.returncode, words in done.stderr) == (code, True), done.stderr
