"""Several networks: made, joined, left, kept apart; and what comes back after a restart."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.namespaces.topology import GATEWAY, OUTSIDE, Lab, Namespace, eventually, ip, web_server

ICC = "com.docker.network.bridge.enable_icc=false"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade=false"


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    """One natgw for the tests of this module that leave it as they found it."""
    with Lab() as made:
        made.up()
        yield made


def pings(namespace: Namespace, address: str) -> bool:
    return namespace.run("ping", "-c", "1", "-W", "1", address, check=False).returncode == 0


def refused(lab: Lab, *words: str) -> str:
    failed = lab.natgw(*words, check=False)
    assert failed.returncode == 1 and failed.stdout == "" and "Traceback" not in failed.stderr
    return failed.stderr.removeprefix("natgw: ").strip()


def inspect(lab: Lab, name: str) -> dict[str, Any]:
    (network,) = json.loads(lab.natgw("network", "inspect", name).stdout)
    found: dict[str, Any] = network
    return found


def address(namespace: Namespace, ifname: str = "eth0") -> str:
    return namespace.address(ifname)[0].split("/")[0]


def drops(lab: Lab, name: str) -> int:
    return lab.counters()[name]


def test_the_three_that_are_always_there(lab: Lab) -> None:
    lab.up()
    listed = {(one["Name"], one["Driver"]) for one in lab.json("network", "ls")}
    assert listed == {("bridge", "bridge"), ("host", "host"), ("none", "null")}
    for name in ("bridge", "host", "none"):
        assert refused(lab, "network", "rm", name) == f"{name} is a pre-defined network and cannot be removed"
        assert refused(lab, "network", "create", name) == f"operation is not permitted on predefined {name} network"
    assert lab.natgw("network", "prune").stdout == ""


def test_addresses_as_docker_gives_them(shared: Lab) -> None:
    lab = shared
    ip("-n", lab.gateway.name, "route", "add", "172.19.0.0/24", "via", OUTSIDE)
    made = lab.natgw("network", "create", "one").stdout.strip()
    lab.natgw("network", "create", "--subnet", "10.1.0.0/16", "--ip-range", "10.1.5.0/24", "--gateway", "10.1.0.254",
              "--aux-address", "router=10.1.5.0", "--label", "a=b", "two")
    lab.natgw("network", "create", "three")
    try:
        one, two, three = (inspect(lab, name) for name in ("one", "two", "three"))
        assert one["Id"] == made and one["IPAM"]["Config"] == [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]
        assert three["IPAM"]["Config"][0]["Subnet"] == "172.20.0.0/16"  # the host has a route into 172.19.0.0/16
        assert two["IPAM"]["Config"] == [{"Subnet": "10.1.0.0/16", "IPRange": "10.1.5.0/24", "Gateway": "10.1.0.254",
                                          "AuxiliaryAddresses": {"router": "10.1.5.0"}}] and two["Labels"] == {"a": "b"}
        assert lab.gateway.address("br-" + made[:12])[0] == "172.18.0.1/16"
        assert lab.natgw("network", "ls", "-q", "--no-trunc", "--filter", "label=a=b").stdout.split() == [two["Id"]]
        member = lab.container("member", "--network", "two")
        assert member.address() == ("10.1.5.1/16", "02:42:0a:01:05:01")
        assert inspect(lab, "two")["Containers"].popitem()[1]["IPv4Address"] == "10.1.5.1/16"
        assert refused(lab, "network", "create", "one") == "network with name one already exists"
        assert refused(lab, "network", "create", "--subnet", "10.1.5.0/24", "x").startswith(
            "Pool overlaps with other one on this address space")
        assert refused(lab, "network", "create", "--subnet", "10.9.0.0/16", "--gateway", "10.8.0.1", "x") == \
            "no matching subnet for gateway 10.8.0.1"
        assert refused(lab, "network", "create", "-o", ICC.replace("false", "maybe"), "x").startswith("failed to parse")
        assert refused(lab, "network", "connect", "one", "nobody").startswith("No such container: nobody")
        assert refused(lab, "network", "connect", "nowhere", "member") == "network nowhere not found"
        assert refused(lab, "network", "connect", "two", "member") == \
            "endpoint with name member already exists in network two"
        assert refused(lab, "network", "rm", "two") == "network two has active endpoints"
        other = lab.namespace("other")
        assert refused(lab, "attach", other.name, "--network", "two", "--ip", "10.1.5.1") == "Address already in use"
        lab.natgw("detach", "member")
        assert lab.natgw("network", "prune").stdout.split() == ["Deleted", "Networks:", "one", "two", "three"]
        assert not any(name.startswith("br-") for name in lab.gateway.links())
    finally:
        lab.natgw("detach", "member", check=False)
        lab.natgw("network", "rm", "one", "two", "three", check=False)
        ip("-n", lab.gateway.name, "route", "del", "172.19.0.0/24")


def test_networks_are_isolated(shared: Lab) -> None:
    lab = shared
    lab.natgw("network", "create", "apart")
    here, there, beside = (lab.container("here"), lab.container("there", "--network", "apart"),
                           lab.container("beside", "--network", "apart"))
    before = drops(lab, "drop_isolated")
    assert pings(here, OUTSIDE) and pings(there, OUTSIDE) and pings(beside, address(there))
    assert not pings(here, address(there)) and not pings(there, address(here))
    assert not pings(here, inspect(lab, "apart")["IPAM"]["Config"][0]["Gateway"])
    assert drops(lab, "drop_isolated") - before == 3
    ip("-n", here.name, "route", "add", address(there), "via", "172.17.0.1")
    assert not pings(here, address(there))
    lab.natgw("detach", "here", "there", "beside")
    lab.natgw("network", "rm", "apart")


def test_an_internal_network_has_no_outside(shared: Lab, tmp_path: Path) -> None:
    lab = shared
    lab.natgw("network", "create", "--internal", "inside")
    one, two = (lab.container(name, "--network", "inside", "-p", port) for name, port in (("in1", "8081:80"), ("in2", "82")))
    gateway = inspect(lab, "inside")["IPAM"]["Config"][0]["Gateway"]
    assert pings(one, address(two)) and pings(one, gateway)
    assert lab.json("port") == [] and "default" not in one.run("ip", "route").stdout
    ip("-n", one.name, "route", "add", "default", "via", gateway)
    before = drops(lab, "drop_internal")
    assert not pings(one, OUTSIDE) and not pings(one, GATEWAY)
    assert drops(lab, "drop_internal") - before == 2
    lab.natgw("detach", "in1", "in2")
    lab.natgw("network", "rm", "inside")


def test_without_icc_containers_meet_by_published_ports_only(shared: Lab, tmp_path: Path) -> None:
    lab = shared
    (tmp_path / "page").write_text("hello")
    lab.natgw("network", "create", "-o", ICC, "lonely")
    server = lab.container("server", "--network", "lonely", "-p", "8085:80")
    client = lab.container("client", "--network", "lonely")
    process = web_server(server, 80, tmp_path)
    before = drops(lab, "drop_icc")
    assert not pings(client, address(server)) and pings(client, OUTSIDE)
    assert drops(lab, "drop_icc") > before
    curl = ("curl", "-sS", "--fail", "--max-time", "3")
    assert client.run(*curl, f"http://{address(server)}/page", check=False).returncode != 0
    assert client.run(*curl, f"http://{GATEWAY}:8085/page").stdout == "hello"
    assert lab.outside.run(*curl, f"http://{GATEWAY}:8085/page").stdout == "hello"
    server.end(process)
    lab.natgw("detach", "server", "client")
    lab.natgw("network", "rm", "lonely")


def test_without_masquerade_it_routes(shared: Lab, tmp_path: Path) -> None:
    lab = shared
    lab.natgw("network", "create", "-o", MASQUERADE, "--subnet", "10.7.0.0/24", "routed")
    one = lab.container("one", "--network", "routed")
    assert not pings(one, OUTSIDE)  # who does not know the way back
    ip("-n", lab.outside.name, "route", "add", "10.7.0.0/24", "via", GATEWAY)
    assert pings(one, OUTSIDE)
    (tmp_path / "page").write_text("hello")
    process = web_server(lab.outside, 80, tmp_path)
    fetch = one.run("curl", "-sS", "--fail", "--max-time", "5", f"http://{OUTSIDE}/page")
    assert fetch.stdout == "hello" and "10.7.0.2" in lab.outside.end(process)
    lab.natgw("detach", "one")
    lab.natgw("network", "rm", "routed")


def test_connect_and_disconnect_live(shared: Lab, tmp_path: Path) -> None:
    lab = shared
    (tmp_path / "page").write_text("hello")
    for name in ("aa", "zz"):
        lab.natgw("network", "create", name)
    web, peer = lab.container("web", "-p", "8086:80"), lab.container("peer", "--network", "zz")
    process = web_server(web, 80, tmp_path)
    curl = ("curl", "-sS", "--fail", "--max-time", "5", f"http://{GATEWAY}:8086/page")

    def way_out() -> str:
        return web.run("ip", "route", "show", "default").stdout.split()[4]

    record = json.loads(lab.natgw("network", "connect", "--ip", "172.19.0.77", "--alias", "db", "--json", "zz", "web").stdout)
    assert record["networks"]["zz"]["ifname"] == "eth1" and record["networks"]["zz"]["aliases"] == ["db"]
    assert address(web, "eth1") == "172.19.0.77" and pings(peer, "172.19.0.77") and way_out() == "eth0"
    assert refused(lab, "network", "connect", "--alias", "x", "bridge", "peer").startswith("network-scoped alias")
    lab.natgw("network", "connect", "aa", "web")  # the first by name: the way out from now on
    assert way_out() == "eth2" and pings(web, OUTSIDE)
    assert lab.outside.run(*curl).stdout == lab.gateway.run(*curl[:-1], "http://localhost:8086/page").stdout == "hello"
    lab.natgw("network", "disconnect", "aa", "web")
    assert way_out() == "eth0" and lab.outside.run(*curl).stdout == "hello"
    lab.natgw("network", "disconnect", "bridge", "web")
    assert web.links() == {"lo", "eth1"} and way_out() == "eth1" and lab.outside.run(*curl).stdout == "hello"
    assert pings(web, OUTSIDE)
    assert refused(lab, "network", "disconnect", "bridge", "web").endswith("is not connected to network bridge")
    lab.natgw("network", "disconnect", "zz", "web")
    assert web.links() == {"lo"} and lab.json("port") == []
    lab.natgw("network", "connect", "bridge", "web")
    assert [port["host_port"] for port in lab.json("port")] == [8086, 8086] and lab.outside.run(*curl).stdout == "hello"
    web.end(process)
    lab.natgw("detach", "web", "peer")
    lab.natgw("network", "rm", "aa", "zz")


def test_modes_of_run(shared: Lab) -> None:
    lab = shared
    lab.natgw("network", "create", "mine")
    assert json.loads(lab.natgw("run", "--network", "none", "--", "ip", "-j", "addr").stdout)[0]["ifname"] == "lo"
    assert "natgw0" in lab.natgw("run", "--network", "host", "--", "ip", "-br", "link").stdout
    warned = lab.natgw("run", "--network", "host", "-p", "80:80", "--", "true")
    assert warned.stderr == "WARNING: Published ports are discarded when using host network mode\n"
    lab.natgw("run", "-d", "--network", "mine", "--name", "first", "--", "sleep", "1000")
    beside = lab.natgw("run", "--network", "container:first", "--", "ip", "-br", "addr", "show", "eth0").stdout
    assert lab.json("inspect", "first")[0]["ip"] in beside
    assert refused(lab, "run", "-p", "80", "--network", "container:first", "--", "true") == \
        "conflicting options: port publishing and the container type network mode"
    assert refused(lab, "run", "--network", "nowhere", "--", "true") == "network nowhere not found"
    lab.natgw("run", "-d", "--network", "container:first", "--name", "second", "--", "sleep", "1000")
    assert refused(lab, "network", "connect", "bridge", "second").startswith("container sharing network namespace")
    lab.natgw("run", "-d", "--network", "host", "--name", "third", "--", "sleep", "1000")
    lab.natgw("run", "-d", "--network", "none", "--name", "fourth", "--", "sleep", "1000")
    pids = {one["name"]: one["pid"] for one in lab.json("ps")}
    for network, name in (("host", "third"), ("none", "fourth")):
        (there,) = lab.json("network", "inspect", network)[0]["Containers"].values()
        assert (there["Name"], there["MacAddress"], there["IPv4Address"]) == (name, "", "")
    lab.natgw("stop", "-t", "1", "fourth", "third", "second", "first")
    assert lab.json("network", "inspect", "host")[0]["Containers"] == {}
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())
    lab.natgw("network", "rm", "mine")


def test_events(shared: Lab) -> None:
    lab = shared
    sentences = lab.gateway.spawn(*lab.natgw_command("events"), env={"NATGW_SOCKET": str(lab.socket), "PYTHONUNBUFFERED": "1"})
    lines = lab.gateway.spawn(*lab.natgw_command("events", "--json", "--filter", "event=connect"),
                              env={"NATGW_SOCKET": str(lab.socket), "PYTHONUNBUFFERED": "1"})
    # A stream that has begun tells of a network; before, it misses it. So ask until both have told one.
    seen = {"text": "", "json": ""}
    streams = {"text": sentences.stdout, "json": lines.stdout}

    def read() -> None:
        for name, stream in streams.items():
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            with contextlib.suppress(BlockingIOError):
                seen[name] += os.read(stream.fileno(), 65536).decode()

    probe = lab.namespace("probe")

    def told() -> bool:
        lab.natgw("attach", probe.name, "--name", "probe")
        lab.natgw("detach", "probe")
        read()
        return bool(seen["text"] and seen["json"])

    eventually(told, within_s=30)
    made = lab.natgw("network", "create", "lab").stdout.strip()
    id_ = lab.natgw("attach", probe.name, "--name", "probe", "--network", "lab").stdout.strip()
    lab.natgw("network", "disconnect", "lab", "probe")
    lab.natgw("network", "rm", "lab")
    lab.natgw("detach", "probe")

    def all_told() -> bool:
        read()
        return "network destroy" in seen["text"] and made in seen["json"]

    eventually(all_told)
    words = [line.split(maxsplit=1)[1] for line in seen["text"].splitlines() if made in line]
    member = f"network {{}} {made} (container={id_}, name=lab, type=bridge)"
    alone = f"network {{}} {made} (name=lab, type=bridge)"
    assert words == [alone.format("create"), member.format("connect"), member.format("disconnect"), alone.format("destroy")]
    event = json.loads(seen["json"].splitlines()[-1])
    assert event["Action"] == "connect" and event["Actor"] == {
        "ID": made, "Attributes": {"container": id_, "name": "lab", "type": "bridge"}}
    for process in (sentences, lines):
        lab.gateway.end(process)


@pytest.mark.parametrize("how", ["down --keep", "kill -9"])
def test_after_a_restart(lab: Lab, how: str, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("hello")
    pid = lab.up()
    lab.natgw("network", "create", "--subnet", "10.1.0.0/16", "--label", "a=b", "mine")
    web = lab.container("web", "--network", "mine", "--ip", "10.1.7.7", "--mac", "02:00:00:00:07:07",
                        "-p", "80", "-p", "8080:80")
    before, gone = inspect(lab, "mine"), lab.container("gone")
    lab.natgw("network", "create", "second")
    lab.natgw("network", "connect", "--alias", "db", "second", "web")
    lab.natgw("run", "-d", "--name", "sleeper", "--", "sleep", "1000")
    ports, networks = lab.json("port", "web"), lab.json("inspect", "web")[0]["networks"]
    if how == "kill -9":
        os.kill(pid, signal.SIGKILL)
    else:
        lab.natgw("down", "--keep")
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert web.links() == {"lo"}
    gone.close()
    lab.up()
    assert [one["name"] for one in lab.json("ps", "-a")] == ["web"]
    after = inspect(lab, "mine")
    assert after == before
    (now,) = lab.json("inspect", "web")
    assert lab.json("port", "web") == ports and web.address()[0] == "10.1.7.7/16"
    assert web.address()[1] == "02:00:00:00:07:07" and web.links() == {"lo", "eth0", "eth1"}
    for name, kept in networks.items():
        assert {**now["networks"][name], "device": "", "network_id": ""} == {**kept, "device": "", "network_id": ""}
    process = web_server(web, 80, tmp_path)
    assert lab.outside.run("curl", "-sS", "--max-time", "5", f"http://{GATEWAY}:8080/page").stdout == "hello"
    web.end(process)
    lab.natgw("down")
    assert lab.leftovers() == [str(lab.socket.with_suffix(".d")), str(lab.socket.with_suffix(".d") / "natgw.db")]
    lab.up()
    assert inspect(lab, "mine") == {**before, "Containers": {}} and lab.json("ps") == []
    lab.natgw("network", "rm", "mine", "second")
    lab.natgw("down")
    assert lab.leftovers() == []
