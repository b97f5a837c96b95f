"""The table of docs/docker.md, those rows that a container's ordinary life does not pass through (test_docker.py)."""

from __future__ import annotations

import functools
from ipaddress import ip_address, ip_network

import pytest

from tests.engines.docker_lab import DockerLab, web_page
from tests.engines.test_docker import HTTPD, from_host, from_outside
from tests.namespaces.topology import GATEWAY, OUTSIDE, eventually

BRIDGE = "com.docker.network.bridge."
PAGE = ("wget", "-q", "-O", "-")


def create(lab: DockerLab, name: str, *args: str) -> None:
    lab.docker("network", "create", "-d", "natgw", *args, name)


def reached(lab: DockerLab, source: str, url: str) -> str:
    """The page that one container gets of another, or nothing."""
    return lab.inside(source, *PAGE, url, check=False)


def test_a_network_without_options(docker: DockerLab) -> None:
    """Docker's next subnet after natgw0's, the host's interface by the short id, and the list as Docker prints it."""
    found = docker.inspect("network", "natgw")
    (config,) = found["IPAM"]["Config"]
    assert config["Subnet"] == "172.18.0.0/16"
    assert "172.18.0.1/16" in docker.run("ip", "addr", "show", "dev", f"br-{found['Id'][:12]}").stdout
    listed = docker.docker("network", "ls", "--filter", "name=natgw", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").stdout
    assert listed == "natgw natgw local\n"


def test_what_is_kept_without_effect(docker: DockerLab) -> None:
    create(docker, "kept", "--subnet", "10.70.0.0/16", "--attachable", "-o", "some.body/knows=this")
    docker.start_container("one", "--network", "kept")
    eventually(lambda: docker.json("network", "inspect", "kept")[0]["Containers"])
    (ours,) = docker.json("network", "inspect", "kept")
    theirs = docker.inspect("network", "kept")
    for key in ("Attachable", "Options", "Internal", "EnableIPv6", "Scope"):
        assert ours[key] == theirs[key], key
    assert theirs["Attachable"] and theirs["Options"] == {"some.body/knows": "this"}


@pytest.mark.parametrize("mode", ["host", "none"])
def test_containers_without_a_network_of_their_own(docker: DockerLab, mode: str) -> None:
    """`network inspect host` and `none`: Docker of its containers, natgw of its own, in the same form."""
    docker.start_container("same", "--network", mode)
    docker.natgw("run", "-d", "--name", "same", "--network", mode, "--", "sleep", "1000")
    (theirs,) = docker.inspect("network", mode)["Containers"].values()
    (ours,) = docker.json("network", "inspect", mode)[0]["Containers"].values()
    assert ours | {"EndpointID": ""} == theirs | {"EndpointID": ""}
    assert list(ours) == list(theirs) and len(ours["EndpointID"]) == len(theirs["EndpointID"])
    docker.natgw("stop", "-t", "0", "same")


def test_a_range_of_addresses(docker: DockerLab) -> None:
    """Docker gives addresses of the range without those named; a container of natgw's own takes one outside it."""
    create(docker, "ranged", "--subnet", "10.71.0.0/16", "--ip-range", "10.71.5.0/29", "--aux-address", "a=10.71.5.1",
           "--aux-address", "b=10.71.5.3")
    for name in ("one", "two", "three"):
        docker.start_container(name, "--network", "ranged")
    given = {docker.address(name, "ranged") for name in ("one", "two", "three")}
    assert len(given) == 3 and not given & {"10.71.5.1", "10.71.5.3"}
    assert all(ip_address(each) in ip_network("10.71.5.0/29") for each in given)
    eventually(lambda: "ranged" in [network["Name"] for network in docker.json("network", "ls")])
    docker.natgw("run", "-d", "--name", "own", "--network", "ranged", "--ip", "10.71.9.9", "--", "sleep", "1000")
    docker.inside("one", "ping", "-c", "1", "-W", "2", "10.71.9.9")
    docker.natgw("stop", "-t", "0", "own")
    assert "one IPv4 subnet" in docker.refused("network", "create", "-d", "natgw", "--subnet", "10.72.0.0/16", "--subnet",
                                               "10.73.0.0/16", "twofold")


def test_host_binding(docker: DockerLab) -> None:
    """`-p PORT:PORT` on such a network is on that address of the host; an address in `-p` says otherwise."""
    create(docker, "bound", "-o", BRIDGE + "host_binding_ipv4=127.0.0.1")
    folder = web_page(docker.folder / "www", "bound")
    docker.start_container("web", "--network", "bound", "-p", "9993:80", "-p", "0.0.0.0:9992:80", "-v", f"{folder}:/www:ro",
                           command=HTTPD)
    assert eventually(lambda: from_outside(docker, "9992/")) == from_host(docker, "9993/") == "bound"
    assert from_outside(docker, "9993/") == ""
    eventually(lambda: [row["name"] for row in docker.json("ps")] == ["web"])
    assert docker.natgw("port", "web").stdout == "80/tcp -> 0.0.0.0:9992\n80/tcp -> 127.0.0.1:9993\n"


def test_containers_kept_apart_but_for_published_ports(docker: DockerLab) -> None:
    create(docker, "apart", "--subnet", "10.74.0.0/16", "-o", BRIDGE + "enable_icc=false")
    folder = web_page(docker.folder / "www", "apart")
    docker.start_container("web", "--network", "apart", "-p", "9991:80", "-v", f"{folder}:/www:ro", command=HTTPD)
    docker.start_container("client", "--network", "apart")
    assert eventually(lambda: reached(docker, "client", f"http://{GATEWAY}:9991/")) == "apart"
    there = docker.address("web", "apart")
    assert docker.docker("exec", "client", "nc", "-w", "1", there, "80", check=False).returncode != 0


def test_internal_networks_have_no_published_ports(docker: DockerLab) -> None:
    create(docker, "shut", "--internal")
    folder = web_page(docker.folder / "www", "shut")
    docker.start_container("web", "--network", "shut", "-p", "9990:80", "-v", f"{folder}:/www:ro", command=HTTPD)
    docker.start_container("client", "--network", "shut")
    assert eventually(lambda: reached(docker, "client", "http://web/")) == "shut"
    assert from_outside(docker, "9990/") == from_host(docker, "9990/") == ""
    assert [row["ports"] for row in docker.json("ps")] == [[], []]


def test_published_ports_of_every_form(docker: DockerLab) -> None:
    """Ranges, addresses, what natgw chooses; all of it in `natgw port`, where `docker port` has nothing."""
    folder = web_page(docker.folder / "www", "formed")
    servers = "; ".join(f"httpd -p {port} -h /www" for port in (80, 8000, 8001, 8002))
    forms = ("8000-8002:8000-8002", "127.0.0.1:8081:80", "127.0.0.1::80", f"{GATEWAY}:8083:80", "8090-8095:80", "80",
             "[::1]:8084:80")
    options = [word for form in forms for word in ("-p", form)]
    docker.start_container("web", "--network", "natgw", *options, "-v", f"{folder}:/www:ro",
                           command=("sh", "-c", f"{servers}; sleep 1000"))
    eventually(lambda: [row["name"] for row in docker.json("ps")] == ["web"])
    assert docker.docker("port", "web").stdout == ""
    places = docker.natgw("port", "web", "80").stdout.split()
    assert {"127.0.0.1:8081", f"{GATEWAY}:8083", "[::1]:8084"} < set(places)
    (first,) = [int(place.rpartition(":")[2]) for place in places if place.startswith("0.0.0.0:809")]
    assert 8090 <= first <= 8095
    for port in (8000, 8001, 8002, 8083, first):
        assert eventually(functools.partial(from_outside, docker, f"{port}/")) == "formed", port
    for place in places:
        asked = place.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")
        assert docker.run("curl", "-sf", "--max-time", "5", f"http://{asked}/").stdout == "formed", place
    assert from_outside(docker, "8081/") == ""


def test_published_ports_move_with_the_way_out(docker: DockerLab) -> None:
    create(docker, "aside", "--subnet", "10.75.0.0/16")
    folder = web_page(docker.folder / "www", "moved")
    docker.start_container("web", "--network", "natgw", "-p", "9989:80", "-v", f"{folder}:/www:ro", command=HTTPD)
    docker.docker("network", "connect", "aside", "web")
    assert eventually(lambda: from_outside(docker, "9989/")) == "moved"
    docker.docker("network", "disconnect", "natgw", "web")
    assert eventually(lambda: from_outside(docker, "9989/")) == from_host(docker, "9989/") == "moved"
    docker.inside("web", "ping", "-c", "1", "-W", "2", OUTSIDE)


def test_errors_of_networks_and_containers(docker: DockerLab) -> None:
    docker.start_container("one", "--network", "natgw")
    for said, command in (
        ("No such network: nowhere", ("network", "rm", "nowhere")),
        ("network nowhere not found", ("network", "connect", "nowhere", "one")),
        ("already exists in network natgw", ("network", "connect", "natgw", "one")),
        ("only when connecting to networks with user configured subnets",
         ("run", "--rm", "--network", "natgw", "--ip", "172.18.0.99", "small", "true")),
        ("has active endpoints", ("network", "rm", "natgw")),
        ("Invalid ranges specified for container and host Ports: 80-81 and 80-82",
         ("run", "--rm", "--network", "natgw", "-p", "80-82:80-81", "small", "true")),
        ("failed to parse", ("network", "create", "-d", "natgw", "-o", BRIDGE + "enable_icc=perhaps", "odd")),
        ("failed to parse", ("network", "create", "-d", "natgw", "-o", "com.docker.network.driver.mtu=much", "odd")),
    ):
        assert said in docker.refused(*command), command
    assert "odd" not in docker.docker("network", "ls", "--format", "{{.Name}}").stdout
