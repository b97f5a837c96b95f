"""`natgw-cni` against a real natgw and real namespaces: each command, each version, and what it says when it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import requires
from tests.namespaces.cni_engine import CniFailure, Engine
from tests.namespaces.topology import GATEWAY, Lab, Namespace, eventually, ip, web_server

VERSIONS = ("0.4.0", "1.0.0", "1.1.0")
DEFAULT_ROUTE = {"dst": "0.0.0.0/0", "gw": "10.89.0.1"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    requires("ip", "tc", "ss", "iperf3")
    with Lab() as lab:
        lab.up()
        yield lab


@pytest.fixture
def here(shared: Lab) -> Iterator[Lab]:
    """The shared laboratory; afterwards it has no attachment, and no network that was made for one."""
    yield shared
    Engine(shared.socket, "1.1.0").call("GC", Engine(shared.socket, "1.1.0").config(**{"cni.dev/valid-attachments": []}))
    assert attachments(shared) == []
    assert [one["Name"] for one in shared.json("network", "ls") if one["Name"] not in ("bridge", "host", "none")] == []
    assert shared.gateway.links() == {"lo", "eth0", "natgw0"}


@pytest.fixture
def pod(here: Lab) -> Iterator[Namespace]:
    yield from new_namespace(here, "pod")


@pytest.fixture
def other(here: Lab) -> Iterator[Namespace]:
    yield from new_namespace(here, "other")


def new_namespace(lab: Lab, label: str) -> Iterator[Namespace]:
    made = Namespace(label, lab.suffix)
    yield made
    made.close()


def attachments(lab: Lab) -> list[dict[str, Any]]:
    answer = lab.gateway.run("curl", "-sS", "--unix-socket", str(lab.socket), "http://natgw/v1/cni/attachments").stdout
    found: list[dict[str, Any]] = json.loads(answer)
    return found


def reaches(source: Namespace, address: str) -> bool:
    return source.run("ping", "-c", "1", "-W", "2", address, check=False).returncode == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_add_check_delete(here: Lab, pod: Namespace, version: str) -> None:
    engine = Engine(here.socket, version)
    result = engine.add("c1", pod.path)
    address, mac = pod.address()
    host = json.loads(here.gateway.run("ip", "-j", "link", "show", result["interfaces"][0]["name"]).stdout)[0]
    mtu = {"mtu": 1500} if version == "1.1.0" else {}
    family = {"version": "4"} if version == "0.4.0" else {}
    assert result == {
        "cniVersion": version,
        "interfaces": [{"name": host["ifname"], "mac": host["address"], **mtu},
                       {"name": "eth0", "mac": mac, "sandbox": pod.path, **mtu}],
        "ips": [{"interface": 1, "address": address, "gateway": "10.89.0.1", **family}],
        "routes": [DEFAULT_ROUTE], "dns": {"nameservers": ["10.89.0.1"]},
    }
    assert address == "10.89.0.2/24"
    assert reaches(pod, "198.51.100.1")
    engine.check("c1", pod.path, result)
    engine.delete("c1", pod.path, prevResult=result)
    assert pod.links() == {"lo"}
    engine.delete("c1", pod.path)
    engine.delete("c1", None)
    with pytest.raises(CniFailure) as failure:
        engine.check("c1", pod.path, result)
    assert failure.value.code == 3


def test_version_needs_no_daemon(here: Lab) -> None:
    engine = Engine(here.folder / "nobody.sock")
    wanted = {"supportedVersions": list(VERSIONS)}
    assert engine.call("VERSION", {"cniVersion": "1.0.0"}) == {"cniVersion": "1.0.0", **wanted}
    assert engine.call("VERSION", "") == {"cniVersion": "1.1.0", **wanted}


def test_what_the_runtime_asks_for(here: Lab, pod: Namespace) -> None:
    engine = Engine(here.socket)
    result = engine.add("c1", pod.path, mtu=1400, runtimeConfig={
        "ips": ["10.89.0.77/24"], "mac": "02:11:22:33:44:55",
        "dns": {"servers": ["192.0.2.53"], "searches": ["lab.example"]},
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]})
    assert pod.address() == ("10.89.0.77/24", "02:11:22:33:44:55")
    assert result["dns"] == {"nameservers": ["192.0.2.53"], "search": ["lab.example"]}
    web_server(pod, 80, here.folder)
    for source, address in ((here.outside, GATEWAY), (here.gateway, "127.0.0.1"), (here.gateway, "10.89.0.77:80")):
        port = "" if ":" in address else ":8080"
        assert "Directory listing" in source.run("curl", "-sS", "--max-time", "5", f"http://{address}{port}/").stdout
    assert json.loads(pod.run("ip", "-j", "link", "show", "eth0").stdout)[0]["mtu"] == 1400


def test_two_networks_and_neighbours(here: Lab, pod: Namespace, other: Namespace) -> None:
    """eth0 and eth1; the first has the way out. On one network they reach each other, on two they do not."""
    engine = Engine(here.socket)
    second: dict[str, Any] = {"name": "back", "ipam": {"subnet": "10.90.0.0/24"}}
    first_result, second_result = engine.add("c1", pod.path), engine.add("c1", pod.path, "eth1", **second)
    assert (first_result["routes"], second_result.get("routes", [])) == ([DEFAULT_ROUTE], [])
    assert pod.address("eth1")[0] == "10.90.0.2/24"
    engine.add("c2", other.path, **second)
    assert reaches(pod, "10.90.0.3")
    assert reaches(other, "10.90.0.2")
    assert not reaches(other, "10.89.0.2")
    engine.check("c1", pod.path, second_result, "eth1", **second)
    engine.delete("c1", pod.path, "eth1", **second)
    assert pod.links() == {"lo", "eth0"}
    engine.delete("c2", other.path, **second)


def test_twenty_at_once(here: Lab) -> None:
    """All of them make the network that none has made before."""
    pods = [Namespace(f"p{number}", here.suffix) for number in range(20)]
    engine = Engine(here.socket)
    try:
        with ThreadPoolExecutor(20) as threads:
            results = list(threads.map(lambda pod: engine.add(pod.name, pod.path), pods))
            addresses = {result["ips"][0]["address"] for result in results}
            assert addresses == {f"10.89.0.{number}/24" for number in range(2, 22)}
            list(threads.map(lambda pod: engine.delete(pod.name, pod.path), pods))
        assert attachments(here) == []
    finally:
        for one in pods:
            one.close()


def test_gc_takes_what_the_engine_does_not_know(here: Lab, pod: Namespace, other: Namespace) -> None:
    engine = Engine(here.socket, "1.1.0")
    engine.add("c1", pod.path)
    engine.add("c2", other.path)
    valid = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
    assert engine.call("GC", engine.config(**valid)) is None
    assert [one["container_id"] for one in attachments(here)] == ["c2"]
    assert (pod.links(), other.links()) == ({"lo"}, {"lo", "eth0"})
    assert engine.call("GC", engine.config(name="nothing", **valid)) is None
    with pytest.raises(CniFailure) as failure:
        engine.call("GC", engine.config())
    assert failure.value.code == 7


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (("addr", "flush", "dev", "eth0"), "eth0 does not have the address 10.89.0.2/24"),
        (("link", "set", "eth0", "down"), "eth0 is down"),
        (("link", "set", "eth0", "address", "02:00:00:00:00:99"), "eth0 has the MAC address 02:00:00:00:00:99, not"),
        (("route", "del", "default"), "there is no route to 0.0.0.0/0 by eth0"),
        (("link", "del", "eth0"), "interface eth0 is missing"),
    ])
def test_check_sees_what_is_not_as_it_was(here: Lab, pod: Namespace, spoil: tuple[str, ...], said: str) -> None:
    engine = Engine(here.socket)
    result = engine.add("c1", pod.path)
    ip("-n", pod.name, *spoil)

    with pytest.raises(CniFailure) as failure:
        engine.check("c1", pod.path, result)
    assert (failure.value.code, said in failure.value.error["details"]) == (103, True), failure.value.error
    engine.delete("c1", pod.path)


def test_a_namespace_that_is_gone_can_be_deleted_from(here: Lab, pod: Namespace) -> None:
    engine = Engine(here.socket)
    engine.add("c1", pod.path)
    pod.close()
    engine.delete("c1", pod.path)
    assert attachments(here) == []


@pytest.mark.parametrize(
    ("code", "changes", "said"),
    [
        (101, {"runtimeConfig": {"ips": ["10.89.0.2"]}}, "Address already in use"),
        (101, {"runtimeConfig": {"portMappings": [{"hostPort": 8081, "containerPort": 1, "protocol": "tcp"}]}},
         "Bind for 0.0.0.0:8081 failed: port is already allocated"),
        (100, {"runtimeConfig": {"ips": ["192.0.2.7"]}}, "no configured subnet or ip-range contain the IP address 192.0.2.7"),
        (7, {"ipam": {"subnet": "10.88.0.0/24"}}, "network lab is there with the subnet 10.89.0.0/24"),
        (7, {"ipam": {"subnet": "10.89.0.7/24"}}, "subnet: 10.89.0.7/24 has host bits set"),
        (7, {"runtimeConfig": {"portMappings": [{"hostPort": 5, "containerPort": 5, "protocol": "icmp"}]}},
         "invalid proto: icmp"),
        (7, {"mtu": "big"}, "mtu must be a whole number"),
        (2, {"subnett": "10.88.0.0/24"}, 'unsupported field subnett: "10.88.0.0/24"'),
        (2, {"ipam": {"type": "dhcp"}}, 'unsupported field ipam.type: "dhcp"'),
        (1, {"cniVersion": "0.2.0"}, "incompatible CNI version 0.2.0"),
    ])
def test_what_cannot_be_added(here: Lab, pod: Namespace, other: Namespace, code: int, changes: dict[str, Any],
                              said: str) -> None:
    engine = Engine(here.socket)
    mapping = {"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}
    engine.add("c1", pod.path, runtimeConfig={"portMappings": [mapping]})
    with pytest.raises(CniFailure) as failure:
        engine.add("c2", other.path, **changes)
    assert (failure.value.code, said in failure.value.error["msg"]) == (code, True), failure.value.error
    assert other.links() == {"lo"}
    assert [one["container_id"] for one in attachments(here)] == ["c1"]


def test_the_first_one_that_fails_leaves_no_network(here: Lab, pod: Namespace) -> None:
    engine = Engine(here.socket)
    with pytest.raises(CniFailure) as failure:
        engine.add("c1", "/run/netns/t-there-is-none")
    assert failure.value.code == 102
    with pytest.raises(CniFailure, match="natgw's own namespace"):
        engine.add("c1", here.gateway.path)
    ip("-n", pod.name, "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
    with pytest.raises(CniFailure) as failure:
        engine.add("c1", pod.path)
    assert (failure.value.code, "eth0" in str(failure.value)) == (101, True)
    with pytest.raises(CniFailure) as failure:
        engine.call("ADD", engine.config(), containerid="c1", netns=pod.path, ifname="eth/0")
    assert (failure.value.code, "CNI_IFNAME" in failure.value.error["msg"]) == (4, True)


def rate_of(client: Namespace, address: str, *options: str) -> float:
    """Megabits per second that arrive in two seconds of TCP."""
    report = client.run("iperf3", "-J", "-c", address, "-t", "2", *options).stdout
    return float(json.loads(report)["end"]["sum_received"]["bits_per_second"]) / 1e6


@pytest.mark.parametrize("link", ["tap", "veth"])
def test_bandwidth_is_limited_both_ways(here: Lab, pod: Namespace, link: str) -> None:
    """20 Mbit/s to it, 10 Mbit/s from it; the counter says what was dropped of it."""
    engine = Engine(here.socket)
    limits = {"ingressRate": 20_000_000, "ingressBurst": 800_000, "egressRate": 10_000_000, "egressBurst": 400_000}
    engine.add("c1", pod.path, link=link, runtimeConfig={"bandwidth": limits})
    server = here.outside.spawn("iperf3", "-s", "-p", "5201")
    eventually(lambda: here.outside.listening(5201))
    try:
        up, down = rate_of(pod, "198.51.100.1"), rate_of(pod, "198.51.100.1", "-R")
    finally:
        here.outside.end(server)
    assert 6 < up < 13
    assert 13 < down < 25


def test_after_a_kill_it_is_all_there_again(lab: Lab) -> None:
    """Addresses, ports and limits come back; what lost its namespace meanwhile does not."""
    engine = Engine(lab.socket)
    pod, gone = lab.namespace("pod"), lab.namespace("gone")
    pid = lab.up()
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    result = engine.add("c1", pod.path, runtimeConfig={"portMappings": [mapping], "bandwidth": {"egressRate": 5_000_000}})
    engine.add("c2", gone.path)
    before = [one for one in attachments(lab) if one["container_id"] == "c1"]
    lab.gateway.run("kill", "-9", str(pid))
    eventually(lambda: not lab.gateway.run("sh", "-c", f"kill -0 {pid} 2>/dev/null && echo there", check=False).stdout)
    with pytest.raises(CniFailure) as failure:
        engine.add("c3", gone.path)
    assert failure.value.code == 11
    with pytest.raises(CniFailure) as failure:
        Engine(lab.socket, "1.1.0").call("STATUS", Engine(lab.socket, "1.1.0").config())
    assert failure.value.code == 50
    gone.close()
    engine.delete("c2", gone.path)
    lab.up()
    assert Engine(lab.socket, "1.1.0").call("STATUS", Engine(lab.socket, "1.1.0").config()) is None
    assert [{**one, "mac": before[0]["mac"]} for one in attachments(lab)] == before
    engine.check("c1", pod.path, result)
    web_server(pod, 80, lab.folder)
    assert "Directory" in lab.outside.run("curl", "-sS", "--max-time", "5", f"http://{GATEWAY}:8080/").stdout
    engine.delete("c1", pod.path)
    lab.natgw("down")
    assert lab.leftovers() == []
