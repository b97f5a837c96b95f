"""Docker's networks with IPv6: addresses by Docker's IPAM or natgw's, a gateway, the outside, published ports, a restart."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import requires
from tests.engines.conftest import PROGRAMS
from tests.engines.docker_lab import HOSTS, SMALL, DockerLab, volumes
from tests.namespaces.ipv6_lab import BEYOND6, GATEWAY6, OUTSIDE6, WHO_ASKS, add_ipv6, who_asks
from tests.namespaces.topology import eventually

SUBNETS = ("--ipv6", "--subnet", "10.67.0.0/16", "--subnet", "fd00:67::/64")


@pytest.fixture(scope="module")
def shared() -> Iterator[DockerLab]:
    requires(*PROGRAMS)
    lab = DockerLab()
    try:
        add_ipv6(lab)
        lab.up()
        lab.start_docker()
        lab.make_images()
        yield lab
    finally:
        lab.close()


@pytest.fixture
def docker(shared: DockerLab) -> Iterator[DockerLab]:
    yield shared
    shared.remove_containers()


def pings(lab: DockerLab, name: str, *targets: str) -> bool:
    return all(", 0% packet loss" in lab.inside(name, "ping", "-6", "-c", "1", "-W", "2", target, check=False)
               for target in targets)


def addresses(lab: DockerLab, name: str, ifname: str = "eth0") -> list[str]:
    """Its global IPv6 addresses."""
    shown = lab.inside(name, "ip", "-6", "addr", "show", "dev", ifname, "scope", "global").splitlines()
    return [line.split()[1] for line in shown if line.split()[0] == "inet6"]


def ways_out(lab: DockerLab, name: str) -> list[str]:
    """Its IPv6 default routes' next hops."""
    words = [line.split() for line in lab.inside(name, "ip", "-6", "route").splitlines()]
    return [line[2] for line in words if line[0] == "default"]


def test_addresses_gateway_and_the_outside(docker: DockerLab) -> None:
    docker.docker("network", "create", "-d", "natgw", *SUBNETS, "--gateway", "fd00:67::fe", "--aux-address", "x=fd00:67::2",
                  "six")
    docker.start_container("one", "--network", "six")
    docker.start_container("two", "--network", "six", "--ip6", "fd00:67::22")
    assert docker.inspect("network", "six")["EnableIPv6"]
    one, two = (docker.inspect("container", name)["NetworkSettings"]["Networks"]["six"] for name in ("one", "two"))
    assert (two["GlobalIPv6Address"], two["GlobalIPv6PrefixLen"], two["IPv6Gateway"]) == ("fd00:67::22", 64, "fd00:67::fe")
    assert one["GlobalIPv6Address"] not in ("fd00:67::2", "fd00:67::fe", "")
    # None of the kernel's own making beside the one that Docker gave: on such a network nobody is invited to make some.
    assert addresses(docker, "one") == [one["GlobalIPv6Address"] + "/64"] and addresses(docker, "two") == ["fd00:67::22/64"]
    assert ways_out(docker, "one") == ["fd00:67::fe"]
    assert pings(docker, "one", "fd00:67::fe", "fd00:67::22", OUTSIDE6, BEYOND6, GATEWAY6)
    eventually(lambda: "six" in [network["Name"] for network in docker.json("network", "ls")])
    (shown,) = json.loads(docker.natgw("network", "inspect", "six").stdout)
    assert shown["EnableIPv6"] and shown["IPAM"]["Config"][1] == {
        "Subnet": "fd00:67::/64", "Gateway": "fd00:67::fe", "AuxiliaryAddresses": {"x": "fd00:67::2"}}
    assert {each["IPv6Address"] for each in shown["Containers"].values()} == {
        one["GlobalIPv6Address"] + "/64", "fd00:67::22/64"}
    assert shown["Containers"] == docker.inspect("network", "six")["Containers"]
    assert "Address already in use" in docker.refused("run", "--rm", "--network", "six", "--ip6", "fd00:67::22", SMALL, "true")


def test_a_published_port_by_ipv6(docker: DockerLab) -> None:
    docker.docker("network", "create", "-d", "natgw", *SUBNETS, "six")
    docker.start_container("web", "--network", "six", "-p", "8080:80", *volumes(), image=HOSTS,
                           command=(sys.executable, "-c", WHO_ASKS, "80"))
    assert eventually(lambda: who_asks(docker.outside, GATEWAY6, 8080)) == OUTSIDE6
    assert docker.run("curl", "-sS6", "http://[::1]:8080/").stdout == "fd00:67::1"


def test_an_internal_network_has_no_way_out(docker: DockerLab) -> None:
    docker.docker("network", "create", "-d", "natgw", "--internal", *SUBNETS, "inside")
    docker.start_container("one", "--network", "inside")
    docker.start_container("two", "--network", "inside", "--ip6", "fd00:67::22")
    assert pings(docker, "one", "fd00:67::22") and ways_out(docker, "one") == [] and not pings(docker, "one", OUTSIDE6)


def test_natgws_own_addresses(docker: DockerLab) -> None:
    """`--ipam-driver natgw`: a subnet of natgw's prefix, its lowest free addresses, given back."""
    docker.docker("network", "create", "-d", "natgw", "--ipam-driver", "natgw", "--ipv6", "chosen")
    docker.docker("network", "create", "-d", "natgw", "--ipam-driver", "natgw", "--ipv6", "--subnet", "fd00:68::/64",
                  "--ip-range", "fd00:68::1:0/112", "asked")
    (first,) = (config for config in docker.inspect("network", "chosen")["IPAM"]["Config"] if ":" in config["Subnet"])
    assert first["Subnet"].startswith("fd") and first["Subnet"].endswith("::/64")
    prefix = first["Subnet"].removesuffix("::/64")
    for _ in range(2):
        docker.start_container("one", "--network", "chosen")
        docker.start_container("two", "--network", "asked")
        assert (addresses(docker, "one"), addresses(docker, "two")) == ([f"{prefix}::2/64"], ["fd00:68::1:0/64"])
        assert pings(docker, "one", BEYOND6, f"{prefix}::1") and pings(docker, "two", BEYOND6)
        docker.docker("rm", "-f", "one", "two")
    docker.docker("network", "rm", "asked")
    docker.docker("network", "create", "-d", "natgw", "--ipam-driver", "natgw", "--ipv6", "--subnet", "fd00:68::/64", "again")


def test_connect_and_disconnect(docker: DockerLab) -> None:
    docker.docker("network", "create", "-d", "natgw", *SUBNETS, "six")
    docker.docker("network", "create", "-d", "natgw", "plain")
    docker.start_container("one", "--network", "plain")
    assert addresses(docker, "one") == []
    docker.docker("network", "connect", "--ip6", "fd00:67::33", "six", "one")
    assert addresses(docker, "one", "eth1") == ["fd00:67::33/64"] and pings(docker, "one", "fd00:67::1")
    docker.docker("network", "disconnect", "plain", "one")
    assert ways_out(docker, "one") == ["fd00:67::1"] and pings(docker, "one", BEYOND6)


def test_a_restart_of_natgw(docker: DockerLab) -> None:
    docker.docker("network", "create", "-d", "natgw", "--ipam-driver", "natgw", "--ipv6", "chosen")
    docker.start_container("one", "--network", "chosen")
    before = addresses(docker, "one")
    docker.kill_natgw()
    docker.up()
    assert addresses(docker, "one") == before and eventually(lambda: pings(docker, "one", BEYOND6))
    docker.start_container("two", "--network", "chosen")
    assert pings(docker, "two", before[0].removesuffix("/64"), BEYOND6)
    docker.docker("restart", "one")
    assert eventually(lambda: pings(docker, "one", BEYOND6))
