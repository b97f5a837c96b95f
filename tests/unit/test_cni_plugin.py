"""`natgw-cni` with a daemon that only writes down: what it asks for, what it prints, and what it says when it must not ask."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from natgw.api import SOCKET_VARIABLE
from natgw.api.cniroutes import ADD
from natgw.cli.main import natgw as command_line
from natgw.cni import call
from natgw.cni.call import VERSIONS, Call
from natgw.cni.plugin import COMMANDS, main
from natgw.control.options import DEFAULT_SOCKET
from natgw.errors import Conflict, NatgwError, NotFound
from tests.unit.fake_daemon import FakeDaemon

Record = dict[str, Any]
ENVIRONMENT = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/pod", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}
ALONE_MODULES = {"json", "os", "re", "socket", "sys"}
"""What the plugin itself imports of the standard library, and nothing heavier may come along."""
HEAVY = {"asyncio", "aiohttp", "click", "dataclasses", "email", "http", "inspect", "ipaddress", "logging", "pathlib",
         "pyroute2", "ssl", "tempfile", "typing", "urllib", "uvloop"}


def config(version: str = "1.0.0", **changes: Any) -> Record:
    return {"cniVersion": version, "name": "lab", "type": "natgw-cni", **changes}


def plugin(command: str, configuration: Record | bytes, **environment: str) -> tuple[int, Any]:
    """Exit code, and what was printed."""
    content = configuration if isinstance(configuration, bytes) else json.dumps(configuration).encode()
    socket = {SOCKET_VARIABLE: os.environ[SOCKET_VARIABLE]} if SOCKET_VARIABLE in os.environ else {}
    printed = io.StringIO()
    code = main({**ENVIRONMENT, **socket, "CNI_COMMAND": command, **environment}, io.BytesIO(content), printed)
    return code, json.loads(printed.getvalue()) if printed.getvalue() else None


def failure(command: str, configuration: Record | bytes, **environment: str) -> Record:
    code, printed = plugin(command, configuration, **environment)
    assert code == 1
    assert set(printed) <= {"cniVersion", "code", "msg", "details"}
    found: Record = printed
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_the_result_in_each_version(daemon: FakeDaemon, version: str) -> None:
    code, result = plugin("ADD", config(version))
    assert code == 0
    assert result["cniVersion"] == version
    assert ("version" in result["ips"][0]) is (version == "0.4.0")
    assert ("mtu" in result["interfaces"][1]) is (version == "1.1.0")
    assert result["interfaces"][result["ips"][0]["interface"]]["sandbox"] == "/run/netns/pod"
    assert plugin("CHECK", config(version, prevResult=result)) == (0, None)
    assert plugin("DEL", config(version, prevResult=result)) == (0, None)
    assert plugin("DEL", config(version)) == (0, None)
    assert not daemon.cni.known


def test_what_is_asked_for_reaches_the_daemon(daemon: FakeDaemon) -> None:
    wanted = config(
        ipam={"subnet": "10.88.0.0/16", "gateway": "10.88.0.254", "ipRange": "10.88.1.0/24", "subnet6": "fd00:88::/64",
              "gateway6": "fd00:88::fe", "ipRange6": "fd00:88::1:0/112"}, ipv6=True, mtu=1400, link="veth",
        internal=True, ipMasq=False, icc=False, isDefaultGateway=False, isGateway=True, args={"cni": {"ips": ["10.88.1.1"]}},
        runtimeConfig={
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                             {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "127.0.0.1"},
                             {"hostPort": 1, "containerPort": 2, "hostIP": "::1"}],
            "ips": ["10.88.1.9/16", "fd00:88::9/64"], "mac": "02:00:00:00:00:01", "aliases": {"lab": ["www"], "other": ["no"]},
            "bandwidth": {"ingressRate": 8000, "ingressBurst": 800, "egressRate": 0, "egressBurst": 2147483647}})
    assert plugin("ADD", wanted, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=web;K8S_POD_NAMESPACE=web;IP=10.88.1.2")[0] == 0
    (asked,) = daemon.cni.requests
    assert asked == {
        "network": "lab", "container_id": "c1", "ifname": "eth0", "netns": "/run/netns/pod", "name": "web", "aliases": ["www"],
        "subnet": "10.88.0.0/16", "gateway": "10.88.0.254", "ip_range": "10.88.1.0/24", "mtu": 1400, "link": "veth",
        "ipv6": True, "subnet6": "fd00:88::/64", "gateway6": "fd00:88::fe", "ip_range6": "fd00:88::1:0/112",
        "internal": True, "masquerade": False, "icc": False, "default_route": False, "ips": ["10.88.1.9", "fd00:88::9"],
        "mac": "02:00:00:00:00:01",
        "publish": ["8080:80/tcp", "127.0.0.1:53:5353/udp", "[::1]:1:2/tcp"],
        "ingress_rate": 8000, "ingress_burst": 800, "egress_rate": None, "egress_burst": 2147483647,
    }
    assert set(asked) == set(ADD)


@pytest.mark.parametrize(
    ("arguments", "changes", "expected"),
    [
        ("K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop", {}, {"name": "web.shop"}),
        ("IP=10.88.0.5;MAC=02:00:00:00:00:05", {}, {"ips": ["10.88.0.5"], "mac": "02:00:00:00:00:05", "name": None}),
        ("IP=10.88.0.5", {"args": {"cni": {"ips": ["10.88.0.6"]}, "labels": 7}}, {"ips": ["10.88.0.6"]}),
        ("", {"network": "bridge"}, {"network": "bridge"}),
        ("", {"cni.dev/attachments": [], "io.kubernetes.x": 1}, {"network": "lab"}),
    ])
def test_other_ways_to_ask(daemon: FakeDaemon, arguments: str, changes: Record, expected: Record) -> None:
    assert plugin("ADD", config(**changes), CNI_ARGS=arguments)[0] == 0
    asked = daemon.cni.requests[0]
    assert {key: asked[key] for key in expected} == expected


def test_a_null_is_what_is_not_there(daemon: FakeDaemon) -> None:
    """Engines in Go write one for an empty list."""
    nothing = dict.fromkeys(("portMappings", "ips", "mac", "bandwidth", "dns", "aliases"))
    assert plugin("ADD", config(mtu=None, args=None, dns=None, prevResult=None, runtimeConfig=nothing))[0] == 0
    assert (daemon.cni.requests[0]["publish"], daemon.cni.requests[0]["ips"]) == ([], [])


def test_names(daemon: FakeDaemon) -> None:
    """The runtime's DNS comes before the configuration's, and natgw's own where neither names a server."""
    daemon.cni.nameservers = ["10.88.0.1"]
    assert plugin("ADD", config(dns={"search": ["lab.example"]}))[1]["dns"] == {
        "nameservers": ["10.88.0.1"], "search": ["lab.example"]}
    wish = {"servers": ["192.0.2.1"], "searches": ["a.example"], "options": ["ndots:5"]}
    result = plugin("ADD", config(dns={"nameservers": ["192.0.2.9"], "domain": "d.example"}, runtimeConfig={"dns": wish}),
                    CNI_IFNAME="eth1")[1]
    assert result["dns"] == {"nameservers": ["192.0.2.1"], "domain": "d.example", "search": ["a.example"],
                             "options": ["ndots:5"]}


def test_what_a_plugin_before_it_gave_stays(daemon: FakeDaemon) -> None:
    before = {"cniVersion": "1.0.0", "interfaces": [{"name": "lo", "sandbox": "/run/netns/pod"}], "dns": {"domain": "x"},
              "ips": [{"interface": 0, "address": "127.0.0.1/8", "version": "4"}], "routes": [{"dst": "192.0.2.0/24"}]}
    result = plugin("ADD", config(prevResult=before))[1]
    assert [one["name"] for one in result["interfaces"]] == ["lo", "br-0123456789ab", "eth0"]
    assert result["ips"] == [{"interface": 0, "address": "127.0.0.1/8"},
                             {"interface": 2, "address": "10.88.0.2/16", "gateway": "10.88.0.1"}]
    assert result["routes"] == [{"dst": "192.0.2.0/24"}, {"dst": "0.0.0.0/0", "gw": "10.88.0.1"}]
    assert result["dns"] == {"domain": "x"}
    assert plugin("CHECK", config(prevResult=result)) == (0, None)


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ({"mac": "02:00:00:00:00:99"}, "eth0 has the MAC address 02:00:00:00:00:99, not 02:42:0a:58:00:02"),
        ({"up": False}, "eth0 is down"),
        ({"mtu": 9000}, "eth0 has an MTU of 9000, not 1400"),
        ({"addresses": []}, "eth0 does not have the address 10.88.0.2/16"),
        ({"routes": []}, "there is no route to 0.0.0.0/0 by eth0"),
        (None, "interface eth0 is missing"),
    ])
def test_check(daemon: FakeDaemon, inside: Record | None, said: str) -> None:
    result = plugin("ADD", config("1.1.0"))[1]
    (record,) = daemon.cni.known.values()
    record["inside"] = None if inside is None else record["inside"] | inside
    error = failure("CHECK", config("1.1.0", prevResult=result))
    assert (error["code"], error["details"]) == (103, said)


def test_check_of_what_is_not_there(daemon: FakeDaemon) -> None:
    result = {"interfaces": [{"name": "eth0", "sandbox": "x"}]}
    assert failure("CHECK", config(prevResult=result))["code"] == 3
    assert failure("CHECK", config())["code"] == 7
    plugin("ADD", config())
    assert failure("CHECK", config(prevResult={"interfaces": []}))["code"] == 7


def test_they_are_listed(daemon: FakeDaemon) -> None:
    plugin("ADD", config(), CNI_CONTAINERID="0123456789abcdef", CNI_ARGS="K8S_POD_NAME=web")
    listed = CliRunner().invoke(command_line, ["cni", "ls"]).stdout
    assert [line.split() for line in listed.splitlines()] == [
        ["CONTAINER", "ID", "NAME", "NETWORK", "INTERFACE", "ADDRESS", "PORTS"],
        ["0123456789ab", "web", "lab", "eth0", "10.88.0.2/16", "0.0.0.0:8080->80/tcp"]]
    (record,) = json.loads(CliRunner().invoke(command_line, ["cni", "ls", "--json"]).stdout)
    assert record["container_id"] == "0123456789abcdef"


def test_gc(daemon: FakeDaemon) -> None:
    valid = [{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c2", "ifname": "eth1"}]
    assert plugin("GC", config("1.1.0", **{"cni.dev/valid-attachments": valid})) == (0, None)
    assert daemon.cni.kept == [{"container_id": "c1", "ifname": "eth0"}, {"container_id": "c2", "ifname": "eth1"}]
    wrongs: list[Any] = [None, {}, [{"containerID": "c1"}], ["c1"]]
    for wrong in wrongs:
        assert failure("GC", config("1.1.0", **{"cni.dev/valid-attachments": wrong}))["code"] == 7


def test_status_and_version(daemon: FakeDaemon) -> None:
    assert plugin("STATUS", config("1.1.0")) == (0, None)
    daemon.broken = True
    assert failure("STATUS", config("1.1.0"))["code"] == 50
    assert plugin("VERSION", b"") == (0, {"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]})
    assert plugin("VERSION", config("0.4.0"))[1]["cniVersion"] == "0.4.0"


@pytest.mark.parametrize(
    ("code", "command", "configuration", "environment", "said"),
    [
        (1, "ADD", config("0.3.1"), {}, "incompatible CNI version 0.3.1"),
        (1, "ADD", {"name": "lab", "type": "natgw-cni"}, {}, "incompatible CNI version 0.1.0"),
        (1, "GC", config("1.0.0"), {}, "CNI version 1.0.0 has no GC"),
        (1, "STATUS", config("0.4.0"), {}, "CNI version 0.4.0 has no STATUS"),
        (2, "ADD", config(subnet="10.0.0.0/8"), {}, 'unsupported field subnet: "10.0.0.0/8"'),
        (2, "ADD", config(ipam={"type": "host-local"}), {}, 'unsupported field ipam.type: "host-local"'),
        (2, "ADD", config(isGateway=False), {}, "unsupported field isGateway: false"),
        (2, "ADD", config(runtimeConfig={"ipRanges": []}), {}, "unsupported field runtimeConfig.ipRanges: []"),
        (4, "ADD", config(), {"CNI_CONTAINERID": ""}, "CNI_CONTAINERID=''"),
        (4, "ADD", config(), {"CNI_CONTAINERID": "-x", "CNI_IFNAME": "a:b"}, "CNI_CONTAINERID='-x', CNI_IFNAME='a:b'"),
        (4, "ADD", config(), {"CNI_IFNAME": "abcdefghijklmnop"}, "CNI_IFNAME='abcdefghijklmnop'"),
        (4, "ADD", config(), {"CNI_NETNS": ""}, "CNI_NETNS=''"),
        (4, "ADD", config(), {"CNI_ARGS": "IP"}, "CNI_ARGS='IP'"),
        (4, "FROB", config(), {}, "CNI_COMMAND='FROB'"),
        (6, "ADD", b"{", {}, "not JSON"),
        (6, "ADD", b"[]", {}, "not a JSON object"),
        (7, "ADD", config(name="a/b"), {}, 'invalid network name "a/b"'),
        (7, "ADD", config(mtu=True), {}, "mtu must be a whole number, not true"),
        (7, "ADD", config(runtimeConfig={"portMappings": [{"hostPort": 0, "containerPort": 1}]}), {}, "invalid hostPort"),
        (7, "ADD", config(runtimeConfig={"portMappings": [7]}), {}, "portMappings holds 7"),
        (7, "ADD", config(runtimeConfig={"bandwidth": {"ingressRate": -1}}), {}, "must not be negative"),
        (7, "ADD", config(prevResult={"interfaces": [5]}), {}, "prevResult.interfaces must be a list of objects"),
        (7, "ADD", config(prevResult={"ips": [{}]}), {}, "prevResult.ips has one without an address"),
        (7, "ADD", config(prevResult={"dns": []}), {}, "prevResult.dns must be an object"),
        (7, "ADD", config(runtimeConfig={"ips": [5]}), {}, "ips must be a list of strings"),
    ])
def test_what_is_wrong_is_said_in_the_specifications_codes(
        daemon: FakeDaemon, code: int, command: str, configuration: Record | bytes, environment: dict[str, str],
        said: str) -> None:
    error = failure(command, configuration, **environment)
    assert (error["code"], said in error["msg"]) == (code, True), error
    assert not daemon.cni.requests


class Nonsense(NatgwError):
    status = 422


@pytest.mark.parametrize(("refusal", "code"), [(Conflict("taken"), 101), (NotFound("none"), 102), (NatgwError("no"), 100),
                                               (Nonsense("what"), 7)])
def test_the_daemons_refusals(daemon: FakeDaemon, refusal: NatgwError, code: int) -> None:
    daemon.cni.refuses = refusal
    assert failure("ADD", config()) == {"cniVersion": "1.0.0", "code": code, "msg": str(refusal)}


def test_without_a_daemon(socket_path: Path, tmp_path: Path) -> None:
    for command in ("ADD", "CHECK"):
        error = failure(command, config(prevResult={}))
        assert (error["code"], error["msg"]) == (11, f"natgw is not running on {socket_path}: start it with `natgw up`")
    assert failure("STATUS", config("1.1.0"))["code"] == 50
    assert plugin("DEL", config(), CNI_NETNS=str(tmp_path / "gone")) == (0, None)
    assert plugin("DEL", config(), CNI_NETNS="") == (0, None)
    assert failure("DEL", config(), CNI_NETNS=str(tmp_path))["code"] == 11
    assert failure("ADD", config(socket="/nowhere/else.sock"))["msg"].startswith("natgw is not running on /nowhere/else.sock")


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
                    max_leaves=4)


def objects(keys: Iterable[str], values: st.SearchStrategy[Any] = JSON) -> st.SearchStrategy[Record]:
    """Objects with some of these keys, and whatever under them."""
    return st.dictionaries(st.sampled_from(sorted(keys)), values, max_size=4)


def typed(keys: Mapping[str, type]) -> st.SearchStrategy[Record]:
    """Objects whose values have the right type, or are null."""
    values: dict[type, st.SearchStrategy[Any]] = {
        str: st.text(max_size=5), int: st.integers(-1, 70_000), bool: st.booleans(), list: st.lists(JSON, max_size=2),
        dict: st.dictionaries(st.text(max_size=5), JSON, max_size=2)}
    return st.fixed_dictionaries({}, optional={key: st.none() | values[kind] for key, kind in keys.items()})


RUNTIME = st.fixed_dictionaries({}, optional={
    "portMappings": st.none() | st.lists(typed(call._MAPPING_KEYS), max_size=2), "bandwidth": typed(call._BANDWIDTH_KEYS),
    "dns": typed(call._RUNTIME_DNS_KEYS), "aliases": st.none() | objects(["lab"]), "ips": JSON, "mac": JSON})
CONFIGURATION = st.builds(
    lambda base, rest, sections: base | rest | sections,
    st.just(config("1.1.0")),
    st.just({}) | objects(call._CONFIG_KEYS) | typed(call._CONFIG_KEYS),
    st.fixed_dictionaries({}, optional={
        "runtimeConfig": RUNTIME, "ipam": typed(call._IPAM_KEYS), "dns": typed(call._DNS_KEYS),
        "args": st.fixed_dictionaries({"cni": JSON | objects(["ips", "mac"])}),
        "prevResult": objects(["interfaces", "ips", "routes", "dns"]), "cni.dev/valid-attachments": JSON}))


@given(st.sampled_from([*COMMANDS, "VERSION"]), CONFIGURATION,
       st.just({}) | st.dictionaries(st.sampled_from(["CNI_IFNAME", "CNI_CONTAINERID", "CNI_NETNS", "CNI_ARGS"]),
                                     st.text(max_size=9), max_size=1))
def test_whatever_comes_in_an_engine_gets_json(command: str, configuration: Record, environment: dict[str, str]) -> None:
    """And never natgw's own surprise."""
    configuration.pop("socket", None)
    printed = io.StringIO()
    code = main({**ENVIRONMENT, **environment, "CNI_COMMAND": command, SOCKET_VARIABLE: "/nowhere/natgw.sock"},
                io.BytesIO(json.dumps(configuration).encode()), printed)
    if code:
        assert json.loads(printed.getvalue())["code"] in {1, 2, 4, 7, 11, 50}


def test_what_others_have_too() -> None:
    """Written twice, since the plugin imports nothing of natgw."""
    assert (str(DEFAULT_SOCKET), SOCKET_VARIABLE) == (call.DEFAULT_SOCKET, call.SOCKET_VARIABLE)
    assert set(COMMANDS) == {"ADD", "DEL", "CHECK", "GC", "STATUS"}
    assert Call({**ENVIRONMENT, "CNI_COMMAND": "ADD"}, config()).socket == call.DEFAULT_SOCKET


def started(*flags: str) -> tuple[set[str], float]:
    """The modules that a call of the plugin has imported in the end, and the seconds of processor time that it took."""
    folder = str(Path(call.__file__).parents[2])
    program = (f"import sys; sys.path.append({folder!r}); from natgw.cni import main; code = main(); "
               "print(*sys.modules, file=sys.stderr); sys.exit(code)")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *flags, "-c", program], input=json.dumps(config()), capture_output=True, text=True,
                          env={**ENVIRONMENT, "CNI_COMMAND": "ADD", SOCKET_VARIABLE: "/nowhere"}, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert json.loads(done.stdout)["code"] == 11
    return set(done.stderr.split()), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_it_starts_quickly() -> None:
    """150 ms are the limit; processor time, the least of several, so that a busy machine does not tell a lie."""
    modules, _ = started("-IS")
    assert modules.isdisjoint(HEAVY)
    assert modules >= ALONE_MODULES
    assert {name for name in modules if name.startswith("natgw")} == {
        "natgw", "natgw.cni", *(f"natgw.cni.{name}" for name in ("call", "client", "errors", "plugin", "results"))}
    assert min(started("-IS")[1] for _ in range(5)) < 0.150
