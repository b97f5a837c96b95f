"""natgw as Docker's network driver, asked by a real dockerd: what a user of Docker does, and what natgw then shows."""

from __future__ import annotations

import concurrent.futures
import functools
import json
import re
import sys

import pytest

from tests.engines.docker_lab import HOSTS, SMALL, DockerLab, volumes, web_page
from tests.namespaces.topology import GATEWAY, OUTSIDE, eventually

HTTPD = ("httpd", "-f", "-p", "80", "-h", "/www")
MTU = "com.docker.network.driver.mtu"
NOTEBOOK = ("-m", "jupyter_server", "--ip=0.0.0.0", "--port=1111", "--no-browser", "--allow-root",
            "--ServerApp.root_dir=/srv", "--IdentityProvider.token=")

LISTEN = "import socket; server = socket.create_server(('', 9996)); print(flush=True); server.accept()"
ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 53))
while True:
    data, address = server.recvfrom(99)
    server.sendto(data + b" from " + address[0].encode(), address)
"""
ASK = """
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(1)
for attempt in range(10):
    client.sendto(b"asked", (sys.argv[1], 53))
    try:
        print(client.recv(99).decode())
        break
    except TimeoutError:
        pass  # the server has not started yet
"""


def from_outside(lab: DockerLab, path: str) -> str:
    """A page as the outside host gets it."""
    return lab.outside.run("curl", "-sf", "--max-time", "5", f"http://{GATEWAY}:{path}", check=False).stdout


def from_host(lab: DockerLab, path: str) -> str:
    return lab.run("curl", "-sf", "--max-time", "5", f"http://localhost:{path}", check=False).stdout


def test_the_opening_line(docker: DockerLab) -> None:
    """`docker run --network natgw -p 9999:80 IMAGE`; and natgw tells of it by Docker's names."""
    folder = web_page(docker.folder / "www", "hello")
    id_ = docker.start_container("web", "--network", "natgw", "-p", "9999:80", "-v", f"{folder}:/www:ro", command=HTTPD)
    assert eventually(lambda: from_outside(docker, "9999/")) == "hello"
    assert from_host(docker, "9999/") == "hello"
    eventually(lambda: [row["name"] for row in docker.json("ps")] == ["web"])
    (row,) = docker.json("ps")
    assert (row["id"], row["kind"], row["state"], row["ip"]) == (id_, "docker", "running", docker.address("web", "natgw"))
    assert "80/tcp -> 0.0.0.0:9999" in docker.natgw("port", "web").stdout
    assert "natgw" in [network["Name"] for network in docker.json("network", "ls")]
    assert "9999" in str(docker.json("flows")[0])
    assert json.loads(docker.natgw("inspect", "web").stdout)[0]["id"] == id_
    for command in (("stop", "web"), ("detach", id_), ("publish", "web", "81"), ("network", "disconnect", "natgw", "web")):
        assert "use the commands of docker" in docker.natgw(*command, check=False).stderr


def test_web_server_and_notebook(docker: DockerLab) -> None:
    """Two containers on one network, on 9999 and 1111, from outside and from the host; and one reaches the other by name."""
    folder = web_page(docker.folder / "www", "web")
    docker.start_container("web", "--network", "natgw", "-p", "9999:80", "-v", f"{folder}:/www:ro", command=HTTPD)
    docker.start_container("notebook", "--network", "natgw", "-p", "1111:1111", *volumes(), "-e", "HOME=/tmp", image=HOSTS,
                           command=(sys.executable, *NOTEBOOK))
    for reach in (from_outside, from_host):
        assert eventually(functools.partial(reach, docker, "9999/")) == "web"
        assert '"version"' in eventually(functools.partial(reach, docker, "1111/api"), within_s=30)
    assert docker.inside("notebook", sys.executable, "-c", "import urllib.request as r; "
                         "print(r.urlopen('http://web/').read().decode())") == "web\n"


def test_udp_and_a_chosen_address_and_an_alias(docker: DockerLab) -> None:
    docker.docker("network", "create", "-d", "natgw", "--subnet", "10.61.0.0/16", "--gateway", "10.61.0.254", "chosen")
    docker.start_container("dns", "--network", "chosen", "--ip", "10.61.7.7", "--network-alias", "resolver", "-p", "53:53/udp",
                           *volumes(), image=HOSTS, command=(sys.executable, "-c", ECHO))
    docker.start_container("client", "--network", "chosen")
    assert docker.address("dns", "chosen") == "10.61.7.7"
    assert "02:42:0a:3d:07:07" in docker.inside("dns", "ip", "link", "show", "eth0")
    assert "default via 10.61.0.254" in docker.inside("dns", "ip", "route")
    for name in ("dns", "resolver"):
        assert "10.61.7.7" in docker.inside("client", "nslookup", name)
    docker.inside("client", "ping", "-c", "1", "-W", "2", "resolver")
    docker.inside("client", "ping", "-c", "1", "-W", "2", OUTSIDE)
    assert docker.outside.run(sys.executable, "-c", ASK, GATEWAY).stdout == "asked from 198.51.100.1\n"
    assert docker.run(sys.executable, "-c", ASK, "localhost").stdout == "asked from 10.61.0.254\n"


def test_network_inspect_is_as_for_the_bridge_driver(docker: DockerLab) -> None:
    docker.docker("network", "create", "-d", "natgw", "--subnet", "10.62.0.0/16", "--ip-range", "10.62.5.0/24",
                  "--aux-address", "router=10.62.5.1", "--label", "team=blue", "-o", MTU + "=1400", "full")
    id_ = docker.start_container("one", "--network", "full")
    found = docker.inspect("network", "full")
    assert found["Driver"] == "natgw"
    assert found["IPAM"]["Config"] == [{"Subnet": "10.62.0.0/16", "IPRange": "10.62.5.0/24",
                                        "AuxiliaryAddresses": {"router": "10.62.5.1"}}]
    (endpoint,) = found["Containers"].values()
    assert re.fullmatch(r"02:42(:[0-9a-f]{2}){4}", endpoint["MacAddress"])
    assert endpoint["Name"] == "one"
    assert "mtu 1400" in docker.inside("one", "ip", "link", "show", "eth0")
    eventually(lambda: id_ in docker.json("network", "inspect", "full")[0]["Containers"])
    (ours,) = docker.json("network", "inspect", "full")
    assert ours["Id"] == found["Id"]
    assert ours["Labels"] == found["Labels"] == {"team": "blue"}
    assert ours["Options"] == found["Options"] == {MTU: "1400"}
    assert ours["Containers"][id_] == endpoint


def test_connect_and_disconnect_while_it_runs(docker: DockerLab) -> None:
    docker.docker("network", "create", "-d", "natgw", "--subnet", "10.63.0.0/16", "second")
    docker.start_container("moving", "--network", "natgw")
    docker.start_container("other", "--network", "second")
    docker.docker("network", "connect", "--ip", "10.63.0.9", "--alias", "visitor", "second", "moving")
    assert "10.63.0.9/16" in docker.inside("moving", "ip", "addr", "show", "eth1")
    assert "10.63.0.9" in docker.inside("other", "nslookup", "visitor")
    docker.inside("other", "ping", "-c", "1", "-W", "2", "10.63.0.9")
    docker.docker("network", "disconnect", "natgw", "moving")
    assert "eth0" not in docker.inside("moving", "ip", "link")
    docker.inside("moving", "ping", "-c", "1", "-W", "2", OUTSIDE)
    docker.docker("network", "disconnect", "second", "moving")
    assert docker.inside("moving", "ip", "-o", "link").count("\n") == 1
    docker.docker("network", "connect", "natgw", "moving")
    docker.inside("moving", "ping", "-c", "1", "-W", "2", OUTSIDE)


def test_every_verb_of_a_containers_life(docker: DockerLab) -> None:
    folder = web_page(docker.folder / "www", "alive")
    docker.docker("create", "--name", "web", "--network", "natgw", "-p", "9998:80", "-v", f"{folder}:/www:ro", SMALL, *HTTPD)
    assert docker.json("ps") == []
    for verb in (("start",), ("restart", "-t", "0"), ("stop", "-t", "0"), ("start",), ("kill",), ("start",), ("pause",),
                 ("unpause",)):
        docker.docker(*verb, "web")
        if verb[0] in ("stop", "kill"):
            eventually(lambda: docker.json("ps") == [])
            assert from_host(docker, "9998/") == ""
        elif verb[0] != "pause":
            assert eventually(lambda: from_outside(docker, "9998/")) == "alive", verb
    docker.docker("rm", "-f", "web")
    assert docker.json("ps") == []
    assert docker.inspect("network", "natgw")["Containers"] == {}


def test_sharing_another_containers_network(docker: DockerLab) -> None:
    docker.start_container("first", "--network", "natgw")
    docker.start_container("beside", "--network", "container:first")
    assert docker.inside("beside", "ip", "-o", "addr") == docker.inside("first", "ip", "-o", "addr")
    docker.inside("beside", "ping", "-c", "1", "-W", "2", OUTSIDE)
    assert len(docker.json("ps")) == 1


def test_internal(docker: DockerLab) -> None:
    docker.docker("network", "create", "-d", "natgw", "--internal", "inner")
    docker.start_container("one", "--network", "inner")
    docker.start_container("two", "--network", "inner")
    assert "default" not in docker.inside("one", "ip", "route")
    docker.inside("one", "ping", "-c", "1", "-W", "2", "two")
    assert docker.docker("exec", "one", "ping", "-c", "1", "-W", "1", OUTSIDE, check=False).returncode != 0


def test_addresses_from_natgws_ipam_driver(docker: DockerLab) -> None:
    docker.docker("network", "create", "-d", "natgw", "--ipam-driver", "natgw", "pooled")
    (config,) = docker.inspect("network", "pooled")["IPAM"]["Config"]
    subnet = config["Subnet"]
    docker.start_container("one", "--network", "pooled")
    docker.start_container("two", "--network", "pooled")
    first, second = docker.address("one", "pooled"), docker.address("two", "pooled")
    assert first.endswith(".0.2") and second.endswith(".0.3")
    docker.docker("rm", "-f", "one")
    docker.start_container("three", "--network", "pooled")
    assert docker.address("three", "pooled") == first
    docker.docker("rm", "-f", "two", "three")
    docker.docker("network", "rm", "pooled")
    docker.docker("network", "create", "-d", "natgw", "--ipam-driver", "natgw", "--subnet", subnet, "again")


def test_twenty_at_once(docker: DockerLab) -> None:
    names = [f"c{number}" for number in range(20)]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda name: docker.start_container(name, "--network", "natgw", "-p", "80"), names))
    addresses = {docker.address(name, "natgw") for name in names}
    assert len(addresses) == 20
    eventually(lambda: {row["name"] for row in docker.json("ps")} == set(names))
    assert len({port["host_port"] for row in docker.json("ps") for port in row["ports"]}) == 20
    for name in names[1:4]:
        docker.inside(name, "ping", "-c", "1", "-W", "2", "c0")
    docker.docker("rm", "-f", *names)
    assert docker.json("ps") == []


def test_errors_in_dockers_words(docker: DockerLab) -> None:
    docker.docker("network", "create", "-d", "natgw", "--subnet", "10.64.0.0/16", "strict")
    docker.start_container("one", "--network", "strict", "--ip", "10.64.0.9", "-p", "9997:80")
    assert "Bind for 0.0.0.0:9997 failed: port is already allocated" in docker.refused(
        "run", "--name", "two", "--network", "strict", "-p", "9997:80", SMALL, "true")
    listener = docker.spawn(sys.executable, "-c", LISTEN)
    assert listener.stdout is not None and listener.stdout.readline()
    assert "failed to bind host port for 0.0.0.0:9996/tcp: address already in use" in docker.refused(
        "run", "--rm", "--network", "strict", "-p", "9996:80", SMALL, "true")
    docker.end(listener)
    assert "Address already in use" in docker.refused("run", "--rm", "--network", "strict", "--ip", "10.64.0.9", SMALL, "true")
    assert "network nowhere not found" in docker.refused("run", "--rm", "--network", "nowhere", SMALL, "true")
    assert "has active endpoints" in docker.refused("network", "rm", "strict")
    assert "network with name strict already exists" in docker.refused("network", "create", "-d", "natgw", "strict")
    assert "Pool overlaps with other one on this address space" in docker.refused(
        "network", "create", "-d", "natgw", "--subnet", "10.64.7.0/24", "overlapping")
    assert "SCTP" in docker.refused("run", "--rm", "--network", "strict", "-p", "9:9/sctp", SMALL, "true")
    docker.docker("rm", "-f", "two", check=False)
    # The same by natgw's own command, which leaves Docker's networks to Docker.
    assert "was made by docker" in docker.natgw("network", "rm", "strict", check=False).stderr
    # Whatever was refused left nothing behind.
    assert [row["name"] for row in docker.json("ps")] == ["one"]


def test_attach_a_container_without_a_network(docker: DockerLab) -> None:
    folder = web_page(docker.folder / "www", "attached")
    docker.start_container("plain", "--network", "none", "-v", f"{folder}:/www:ro", command=HTTPD)
    docker.natgw("attach", "docker:plain", "-p", "9995:80")
    assert eventually(lambda: from_outside(docker, "9995/")) == "attached"
    (row,) = docker.json("ps")
    assert (row["name"], row["kind"]) == ("plain", "attached")
    docker.docker("rm", "-f", "plain")
    eventually(lambda: docker.json("ps") == [])
    for target, says in (("docker:plain", "no container plain in docker"), ("podman:plain", "podman"), ("docker:", "which")):
        done = docker.natgw("attach", target, check=False)
        assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["bridge", "host", "a b"])
def test_names_that_no_driver_can_have(docker: DockerLab, name: str) -> None:
    done = docker.natgw("up", f"--docker={name}", check=False)
    assert done.returncode == 2 and name in done.stderr


def test_nothing_of_docker0_or_iptables(docker: DockerLab) -> None:
    docker.start_container("one", "--network", "natgw", "-p", "9994:80")
    assert "docker0" not in docker.run("ip", "link").stdout
    assert "docker-proxy" not in "\n".join(docker.processes())
    for table in ("filter", "nat"):
        rules = docker.run("iptables", "-t", table, "-S").stdout
        assert "DOCKER" not in rules and "-A" not in rules


def test_options_of_a_network(docker: DockerLab) -> None:
    """`-o` as for Docker's bridge driver: the host's interface by name, containers kept apart, no translation."""
    bridge = "com.docker.network.bridge."
    docker.docker("network", "create", "-d", "natgw", "--subnet", "10.65.0.0/16", "-o", bridge + "name=natgw-apart",
                  "-o", bridge + "enable_icc=false", "apart")
    assert "10.65.0.1/16" in docker.run("ip", "addr", "show", "dev", "natgw-apart").stdout
    docker.start_container("one", "--network", "apart")
    docker.start_container("two", "--network", "apart")
    docker.inside("one", "ping", "-c", "1", "-W", "2", OUTSIDE)
    assert docker.docker("exec", "one", "ping", "-c", "1", "-W", "1", "10.65.0.3", check=False).returncode != 0
    docker.docker("network", "create", "-d", "natgw", "--subnet", "10.66.0.0/16", "-o", bridge + "enable_ip_masquerade=false",
                  "routed")
    docker.outside.run("ip", "route", "add", "10.66.0.0/16", "via", GATEWAY)
    server = docker.outside.spawn(sys.executable, "-c", ECHO)
    eventually(lambda: docker.outside.listening(53, "udp"))
    docker.start_container("plain", "--network", "routed", *volumes(), image=HOSTS)
    assert docker.inside("plain", sys.executable, "-c", ASK, OUTSIDE) == "asked from 10.66.0.2\n"
    docker.outside.end(server)
    docker.outside.run("ip", "route", "del", "10.66.0.0/16")


def test_options_of_a_container(docker: DockerLab) -> None:
    """A MAC address of one's choice, all exposed ports on ephemeral ones, and a container that asks for the host's address."""
    folder = web_page(docker.folder / "www", "around")
    docker.start_container("web", "--network", "natgw", "--mac-address", "02:42:0a:00:00:99", "-P", "--expose", "80",
                           "-v", f"{folder}:/www:ro", command=HTTPD)
    assert "02:42:0a:00:00:99" in docker.inside("web", "ip", "link", "show", "eth0")
    eventually(lambda: [row["name"] for row in docker.json("ps")] == ["web"])
    (row,) = docker.json("ps")
    port = row["ports"][0]["host_port"]
    assert row["mac"] == "02:42:0a:00:00:99"
    docker.start_container("client", "--network", "natgw", "--link", "web:server")
    page = ("wget", "-q", "-O", "-")
    assert docker.inside("client", *page, f"http://{GATEWAY}:{port}/") == "around"
    assert docker.inside("client", *page, "http://server/") == "around"


def test_networks_that_nobody_uses_are_pruned(docker: DockerLab) -> None:
    docker.docker("network", "create", "-d", "natgw", "unused")
    docker.start_container("one", "--network", "natgw")
    assert docker.docker("network", "prune", "-f").stdout.split() == ["Deleted", "Networks:", "unused"]
    assert "unused" not in [network["Name"] for network in docker.json("network", "ls")]


def test_ipv6_within_a_network(docker: DockerLab) -> None:
    docker.docker("network", "create", "-d", "natgw", "--ipv6", "--subnet", "10.67.0.0/16", "--subnet", "fd00:67::/64", "six")
    docker.start_container("one", "--network", "six")
    docker.start_container("two", "--network", "six", "--ip6", "fd00:67::22")
    assert "fd00:67::22/64" in docker.inside("two", "ip", "addr", "show", "eth0")
    docker.inside("one", "ping", "-6", "-c", "3", "-W", "2", "fd00:67::22")
    assert docker.inspect("network", "six")["EnableIPv6"]
