"""Requests over a real unix socket: what reaches the daemon, and what comes back."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from natgw.api.client import Client
from natgw.errors import NatgwError, NotFound
from tests.conftest import eventually
from tests.unit.fake_daemon import NETWORK, FakeDaemon


def raw(path: Path, request: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to a request written by hand."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(request.replace("\n", "\r\n").encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), {key.lower(): value for key, value in (line.split(": ", 1) for line in lines)}, body


def body_of(text: str) -> str:
    return f"Host: x\nConnection: close\nContent-Length: {len(text)}\n\n{text}"


def test_status(client: Client) -> None:
    assert client.get("status")["uplink"]["port_range"] == [40000, 65535]


def test_containers(client: Client, daemon: FakeDaemon) -> None:
    web = daemon.add("web")
    assert client.get("containers") == [web]
    assert client.get("containers", "web") == web


def test_run_hands_over_every_key(client: Client, daemon: FakeDaemon) -> None:
    asked = {"name": "web", "command": ["sleep", "1"], "publish": ["8080:80"], "link": "veth", "ip": "172.17.0.9",
             "ip6": "fd00::9", "mac": "02:00:00:00:00:01", "mtu": 1400, "offload": False, "dhcp": True,
             "detach": True, "env": {"A": "b"}, "workdir": "/tmp",
             "network": "lab", "aliases": ["db"]}
    assert client.post("containers", body=asked)["name"] == "web"
    assert daemon.wait_for("run") == (asked,)


def test_attach_hands_over_every_key(client: Client, daemon: FakeDaemon) -> None:
    asked: dict[str, Any] = {"target": "lab", "name": "lab", "publish": [], "link": None, "ip": None, "mac": None, "mtu": None,
             "ip6": None, "offload": False, "dhcp": False, "ifname": "net1", "network": None, "aliases": []}
    assert client.post("endpoints", body=asked)["kind"] == "attached"
    assert daemon.wait_for("attach") == (asked,)


def test_started_and_stop(client: Client, daemon: FakeDaemon) -> None:
    daemon.add("web", state="created")
    assert client.post("containers", "web", "started", body={"pid": 77})["pid"] == 77
    assert client.post("containers", "web", "stop", body={"timeout_s": 1.5}) is None
    assert daemon.wait_for("stop") == ("web", 1.5)
    assert client.get("containers") == []


def test_detach_publish_unpublish_ports(client: Client, daemon: FakeDaemon) -> None:
    web = daemon.add("web")
    assert client.post("containers", "web", "ports", body={"publish": ["8080:81"]}) == {"ports": web["ports"]}
    assert client.delete("containers", "web", "ports", body={"publish": ["8080:81"]}) == {"ports": []}
    assert client.get("ports")[0] == {"container": "web", **web["ports"][0]}
    assert client.delete("endpoints", "web") is None
    assert [call[0] for call in daemon.calls] == ["publish", "unpublish", "detach"]


def test_networks(client: Client) -> None:
    assert client.get("networks") == [NETWORK]
    assert client.get("networks", "bridge") == NETWORK
    with pytest.raises(NotFound, match=r"^network x not found$"):
        client.get("networks", "x")


def test_nat(client: Client, daemon: FakeDaemon) -> None:
    before = client.get("nat")
    assert (before["type"], before["udp"]["filtering"]) == ("port-restricted", "apdf")
    after = client.patch("nat", body={"udp": {"filtering": "eif"}, "timeouts.udp": "2m"})
    assert (after["type"], after["udp"]["filtering"], after["timeouts"]["udp"]) == (None, "eif", 120)
    assert client.patch("nat", body=before) == before
    assert client.get("nat") == before


def test_shutdown(client: Client, daemon: FakeDaemon) -> None:
    assert client.post("shutdown") is None
    assert daemon.calls == [("end",)]


@pytest.mark.parametrize(("query", "expected"), [
    ({}, {"5000", "53", "4000"}),
    ({"protocol": "tcp"}, {"5000", "4000"}),
    ({"container": "api"}, {"53", "4000"}),
    ({"container": "api", "protocol": "udp"}, {"53"}),
    ({"container": "gone"}, set()),
])
def test_flows_are_filtered(client: Client, daemon: FakeDaemon, query: dict[str, str], expected: set[str]) -> None:
    daemon.add("api", 3)
    daemon.add("gone", 4, ip=None)
    assert {str(flow["original"]["sport"]) for flow in client.get("flows", **query)} == expected


@pytest.mark.parametrize(("query", "message"), [
    ({"protocl": "tcp"}, 'unknown key "protocl": did you mean "protocol"?'),
    ({"protocol": "ipx"}, 'unknown protocol "ipx": one of tcp, udp, icmp, sctp, udplite, dccp, gre, or the number of another'),
    ({"protocol": "256"},
     'unknown protocol "256": one of tcp, udp, icmp, sctp, udplite, dccp, gre, or the number of another'),
    ({"container": "nobody"}, "No such container: nobody"),
])
def test_filters_that_cannot_be(client: Client, query: dict[str, str], message: str) -> None:
    with pytest.raises(NatgwError) as caught:
        client.get("flows", **query)
    assert str(caught.value) == message


def test_stats_are_grouped(client: Client) -> None:
    stats = client.get("stats")
    assert stats["groups"] == {"verdicts": ["bridged", "flooded", "translated_out"], "drops": ["drop_runt", "drop_ttl"],
                               "events": ["fast_path"]}
    assert sorted(itertools.chain(*stats["groups"].values())) == sorted(stats["counters"])


# ---- logs ------------------------------------------------------------------------------------------------------------


def test_log_as_it_is(client: Client, daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.add("web")
    (tmp_path / "log").write_bytes(b"caf\xc3\xa9\n\xff\x00" + b"x" * 200_000)
    assert b"".join(client.stream("containers", "web", "logs")) == (tmp_path / "log").read_bytes()


@pytest.mark.parametrize("ending", ["exits", "is removed"])
def test_log_followed_to_its_end(client: Client, daemon: FakeDaemon, tmp_path: Path, ending: str) -> None:
    web = daemon.add("web")
    log = tmp_path / "log"
    log.write_text("first\n")
    pieces = client.stream("containers", "web", "logs", follow=1)
    assert next(pieces) == b"first\n"
    with log.open("a") as file:
        file.write("second\n")
    assert next(pieces) == b"second\n"
    with log.open("a") as file:
        file.write("last words\n")
    if ending == "exits":
        web.update(state="exited")
    else:
        del daemon.containers["web"]
    assert b"".join(pieces) == b"last words\n"


def test_a_follower_that_leaves_is_forgotten(daemon: FakeDaemon, socket_path: Path, tmp_path: Path) -> None:
    daemon.add("web")
    (tmp_path / "log").write_text("first\n")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(socket_path))
        connection.sendall(b"GET /v1/containers/web/logs?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        eventually(lambda: log_is_open(tmp_path / "log"))
    eventually(lambda: not log_is_open(tmp_path / "log"))


def log_is_open(path: Path) -> bool:
    return any(os.path.realpath(entry) == str(path) for entry in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize(("query", "message"), [({"follow": "maybe"}, '"follow" must be 0 or 1, not "maybe"'),
                                                ({"folow": "1"}, 'unknown key "folow": did you mean "follow"?')])
def test_follow_is_yes_or_no(client: Client, daemon: FakeDaemon, query: dict[str, str], message: str) -> None:
    daemon.add("web")
    with pytest.raises(NatgwError) as caught:
        list(client.stream("containers", "web", "logs", pairs=[*query.items()]))
    assert str(caught.value) == message


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("request_line", "body", "status", "message"), [
    ("POST /v1/containers", '{"comand": ["ls"]}', 400, 'unknown key "comand": did you mean "command"?'),
    ("POST /v1/containers", '{"command": "ls"}', 400, '"command" must be a list of at least one string, not "ls"'),
    ("POST /v1/containers/x/stop", "[1]", 400, "the request body must be a JSON object"),
    ("POST /v1/shutdown", '{"now": true}', 400, 'unknown key "now"; known keys: keep'),
    ("PATCH /v1/nat", '{"udp": {"maping": "eim"}}', 400, 'unknown key "udp.maping": did you mean "udp.mapping"?'),
    ("PATCH /v1/nat", "[]", 400, "the request body must be a JSON object"),
    ("PATCH /v1/nat", '{"timeouts": {"udp": NaN}}', 400, "the request body is not JSON: NaN is not a JSON number"),
    ("GET /v2/status", "", 404, "page not found: /v2/status"),
    ("PUT /v1/status", "", 405, "Method Not Allowed"),
    ("GET /v1/containers/nobody", "", 404, "No such container: nobody"),
])
def test_errors_have_one_form(daemon: FakeDaemon, socket_path: Path, request_line: str, body: str, status: int,
                              message: str) -> None:
    found, headers, content = raw(socket_path, f"{request_line} HTTP/1.1\n{body_of(body)}")
    assert (found, json.loads(content)) == (status, {"message": message})
    assert headers["content-type"].startswith("application/json")


def test_a_body_that_is_not_text(daemon: FakeDaemon, socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(socket_path))
        connection.sendall(b"POST /v1/containers HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n\xff\xfe")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"not JSON" in answer


def test_a_bug_is_told_in_one_line_and_logged(client: Client, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture) -> None:
    daemon.broken = True
    with pytest.raises(NatgwError) as caught:
        client.get("status")
    assert caught.value.status == 500
    assert str(caught.value).startswith("internal error: ZeroDivisionError: a bug")
    assert "Traceback" in caplog.text
    daemon.broken = False
    assert client.get("status")["version"] == "9.8.7"


# ---- a foreground run whose command line dies ------------------------------------------------------------------------

ASK = """
import sys
from natgw.api.client import Client
print(Client(sys.argv[1]).post("containers", body={"name": "shell", "command": ["bash"]})["name"], flush=True)
sys.stdin.read()
"""


def asking(path: Path, program: str = ASK) -> subprocess.Popen[str]:
    """A process that has a foreground container made, and lives until it is killed."""
    command = [sys.executable, "-c", program, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "shell\n"
    return process


@pytest.mark.parametrize("started", [False, True])
def test_its_container_goes_with_it(client: Client, daemon: FakeDaemon, socket_path: Path, started: bool) -> None:
    with asking(socket_path) as process:
        if started:
            client.post("containers", "shell", "started", body={"pid": os.getpid()})
        assert client.get("containers", "shell")["state"] == ("running" if started else "created")
        process.kill()
    assert daemon.wait_for("stop")[0] == "2" * 64
    eventually(lambda: not daemon.containers)


def test_one_that_has_ended_as_it_should_is_nobodys(client: Client, daemon: FakeDaemon, socket_path: Path) -> None:
    with asking(socket_path) as process:
        client.post("containers", "shell", "stop")
        process.kill()
    web = daemon.add("shell", 3)  # another one since, of the same name
    eventually(lambda: len([call for call in daemon.calls if call[0] == "stop"]) == 2)
    assert client.get("containers") == [web]


def test_a_detached_one_stays(client: Client, daemon: FakeDaemon, socket_path: Path) -> None:
    detached = 'Client(sys.argv[1]).post("containers", body={"name": "web", "command": ["x"], "detach": True})'
    with asking(socket_path, ASK.replace("print", f"{detached}\nprint")) as process:
        process.kill()
    eventually(lambda: "shell" not in daemon.containers)
    assert list(daemon.containers) == ["web"]


# ---- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics(daemon: FakeDaemon, socket_path: Path) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    daemon.add("web")
    status, headers, body = raw(socket_path, f"GET /metrics HTTP/1.1\n{body_of('')}")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=")
    values: dict[tuple[Any, ...], float] = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body.decode()) for sample in family.samples
    }
    assert values["natgw_frames_total", "translated_out"] == 1234
    assert values["natgw_frames_total", "drop_ttl"] == 3
    assert values["natgw_events_total", "fast_path"] == 1200
    assert ("natgw_frames_total", "fast_path") not in values  # the sum over verdicts is the number of frames
    assert values["natgw_flows",] == 3
    assert values["natgw_containers",] == 1
    assert values["natgw_uptime_seconds",] == 300
    assert values["natgw_info", "9.8.7"] == 1
    assert values["natgw_port_receive_bytes_total", "endpoint", "web"] == 12_345
    assert values["natgw_port_transmit_drops_total", "endpoint", "web"] == 1
    assert values["natgw_port_segmented_total", "endpoint", "web"] == 2
