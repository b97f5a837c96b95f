"""Published ports: real servers, from outside, from the host, from containers; taken, freed, refused."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.namespaces.conftest import Pair
from tests.namespaces.topology import GATEWAY, OUTSIDE, Lab, Namespace, eventually, web_server

KERNEL_CLIENT = """
import asyncio, json, sys, uuid
import aiohttp

async def main(base, token):
    headers = {"Authorization": f"token {token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(base + "/api/kernels") as answer:
            kernel = (await answer.json())["id"]
        async with session.ws_connect(f"{base}/api/kernels/{kernel}/channels") as channel:
            await channel.send_json({"header": {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "username": "",
                "session": uuid.uuid4().hex, "version": "5.3"}, "parent_header": {}, "metadata": {}, "channel": "shell",
                "content": {"code": "print(6 * 7)", "silent": False}})
            async for message in channel:
                body = json.loads(message.data)
                if body["msg_type"] == "stream":
                    print(body["content"]["text"].strip())
                    return

asyncio.run(asyncio.wait_for(main(sys.argv[1], sys.argv[2]), 60))
"""


def fetch(namespace: Namespace, url: str) -> str:
    return namespace.run("curl", "-gsS", "--fail", "--max-time", "10", url).stdout


@pytest.mark.requires("curl")
def test_reached_from_everywhere(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("hello")
    server = web_server(pair.one, 80, tmp_path)
    pair.lab.natgw("publish", "one", "8080:80")
    for namespace, host in ((pair.lab.outside, GATEWAY), (pair.lab.gateway, "localhost"), (pair.lab.gateway, "127.0.0.1"),
                            (pair.lab.gateway, "[::1]"), (pair.lab.gateway, GATEWAY), (pair.two, GATEWAY), (pair.one, GATEWAY),
                            (pair.two, "172.17.0.1")):
        assert fetch(namespace, f"http://{host}:8080/page") == "hello", host
    pair.lab.natgw("unpublish", "one", "8080:80")
    refused = pair.lab.outside.run("curl", "-sS", "--max-time", "5", f"http://{GATEWAY}:8080/", check=False)
    assert refused.returncode != 0
    seen = pair.one.end(server)
    assert f"{OUTSIDE} - -" in seen, "the container must see the client's own address"


@pytest.mark.requires("apache2", "curl")
def test_apache(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("It works, through natgw")
    config = tmp_path / "apache.conf"
    modules = "/usr/lib/apache2/modules"
    config.write_text(f"""
ServerName web
Listen 80
PidFile {tmp_path}/pid
ErrorLog {tmp_path}/error.log
Mutex file:{tmp_path}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule dir_module {modules}/mod_dir.so
DocumentRoot {tmp_path}
""")
    tmp_path.chmod(0o755)
    server = pair.one.spawn("apache2", "-X", "-f", str(config))
    eventually(lambda: pair.one.listening(80))
    pair.lab.natgw("publish", "one", "9999:80")
    try:
        answer = pair.lab.outside.run("curl", "-sSi", "--max-time", "10", f"http://{GATEWAY}:9999/index.html").stdout
        assert "Server: Apache" in answer
    finally:
        pair.lab.natgw("unpublish", "one", "9999:80")
        pair.one.end(server)


def test_jupyter(pair: Pair, tmp_path: Path) -> None:
    """A real notebook server: its pages, and a kernel that computes over its websocket."""
    token = "secret-of-this-test"
    server = pair.two.spawn(
        sys.executable, "-m", "jupyter_server", "--allow-root", "--ip=0.0.0.0", "--port=8888", "--no-browser",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={tmp_path}",
        env={"HOME": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path / "run"), "PYTHONWARNINGS": "ignore"})
    eventually(lambda: pair.two.listening(8888), within_s=40)
    pair.lab.natgw("publish", "two", "1111:8888")
    try:
        status = json.loads(fetch(pair.lab.outside, f"http://{GATEWAY}:1111/api/status?token={token}"))
        assert "kernels" in status
        done = pair.lab.outside.run(sys.executable, "-c", KERNEL_CLIENT, f"http://{GATEWAY}:1111", token, timeout_s=90)
        assert done.stdout.strip() == "42"
    finally:
        pair.lab.natgw("unpublish", "two", "1111:8888")
        pair.two.end(server)


UDP_ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", int(sys.argv[1])))
while True:
    data, peer = s.recvfrom(2000)
    s.sendto(peer[0].encode(), peer)
"""
UDP_ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.sendto(b"who am I", (sys.argv[1], int(sys.argv[2])))
print(s.recv(2000).decode())
"""


def test_udp(pair: Pair) -> None:
    server = pair.one.spawn(sys.executable, "-c", UDP_ECHO, "5353")
    eventually(lambda: pair.one.listening(5353, "udp"))
    pair.lab.natgw("publish", "one", "5300-5301:5353/udp")
    port = next(line["host_port"] for line in pair.lab.json("port", "one"))
    assert port == 5300
    ask = (sys.executable, "-c", UDP_ASK)
    assert pair.lab.outside.run(*ask, GATEWAY, "5300").stdout.strip() == OUTSIDE
    assert pair.lab.gateway.run(*ask, "127.0.0.1", "5300").stdout.strip() == "172.17.0.1"
    assert pair.two.run(*ask, GATEWAY, "5300").stdout.strip() == GATEWAY
    pair.lab.natgw("unpublish", "one", "5353/udp")
    pair.one.end(server)


def test_a_taken_port_is_refused_and_nothing_half_done(pair: Pair) -> None:
    lab = pair.lab
    lab.natgw("publish", "one", "8085:80")
    before = lab.json("port")
    taken = lab.natgw("publish", "two", "8090:80", "8085:80", check=False)
    assert taken.returncode == 1
    assert "Bind for 0.0.0.0:8085 failed: port is already allocated" in taken.stderr
    server = lab.gateway.spawn(sys.executable, "-m", "http.server", "8086", "--bind", "0.0.0.0")
    eventually(lambda: lab.gateway.listening(8086))
    used = lab.natgw("publish", "two", "8091:80", "8086:80", check=False)
    assert used.returncode == 1
    assert "failed to bind host port for 0.0.0.0:8086/tcp: address already in use" in used.stderr
    lab.gateway.end(server)
    assert lab.json("port") == before
    assert not lab.gateway.listening(8090)
    assert not lab.gateway.listening(8091)
    lab.natgw("publish", "two", "8090:80")
    lab.natgw("unpublish", "two", "8090:80")
    lab.natgw("unpublish", "one", "8085:80")


def test_the_forms_of_a_port_spec(pair: Pair) -> None:
    lab = pair.lab
    lab.natgw("publish", "one", "80", "127.0.0.1::81", "[::1]:8082:82", "7000-7002:7000-7002", "7000-7005:83")
    lines = {(line["container_port"], line["host_ip"]): line["host_port"] for line in lab.json("port", "one")}
    assert lines[82, "::1"] == 8082
    assert (81, "127.0.0.1") in lines
    assert [lines[port, "0.0.0.0"] for port in (7000, 7001, 7002, 83)] == [7000, 7001, 7002, 7003]
    assert lines[80, "0.0.0.0"] == lines[80, "::"]
    bad = lab.natgw("publish", "one", "1-2:3-5", check=False)
    assert bad.returncode == 1
    assert "invalid ranges specified for container and host Ports: 3-5 and 1-2" in bad.stderr
    lab.natgw("unpublish", "one", *{f"{port}" for port, _ in lines})
    assert lab.json("port", "one") == []


@pytest.mark.requires("curl", "tcpdump")
def test_the_hosts_own_servers_and_connections_go_on(lab: Lab, tmp_path: Path) -> None:
    """Beside translated flows: the host serves, connects, and never answers a translated flow with a RST."""
    (tmp_path / "page").write_text("of the host")
    lab.up()
    one = lab.container("one")
    web_server(lab.gateway, 8000, tmp_path)
    web_server(lab.outside, 8000, tmp_path)
    capture = lab.outside.spawn("tcpdump", "-n", "-l", "-i", "eth0", "tcp[tcpflags] & tcp-rst != 0")
    eventually(lambda: "listening on" in (capture.stdout.readline() if capture.stdout else ""))
    for _ in range(20):
        assert fetch(one, f"http://{OUTSIDE}:8000/page") == "of the host"
        assert fetch(lab.gateway, f"http://{OUTSIDE}:8000/page") == "of the host"
        assert fetch(lab.outside, f"http://{GATEWAY}:8000/page") == "of the host"
        assert fetch(one, f"http://{GATEWAY}:8000/page") == "of the host"
    assert lab.json("flows")
    assert "Flags [R" not in lab.outside.end(capture)


def test_nobody_else_answers_on_an_exclusive_uplink(lab: Lab, tmp_path: Path) -> None:
    lab.up("--exclusive-uplink", "--port-range", "1024-65535")
    one = lab.container("one", "-p", "80:80")
    (tmp_path / "page").write_text("hello")
    web_server(one, 80, tmp_path)
    web_server(lab.gateway, 8000, tmp_path)
    lab.outside.run("ping", "-c", "2", "-i", "0.1", "-W", "2", GATEWAY)
    assert fetch(lab.outside, f"http://{GATEWAY}:80/page") == "hello"
    web_server(lab.outside, 8000, tmp_path)
    assert fetch(one, f"http://{OUTSIDE}:8000/page") == "hello"
    blocked = lab.outside.run("curl", "-sS", "--max-time", "1", f"http://{GATEWAY}:8000/page", check=False)
    assert blocked.returncode == 28, "the host's own server must not be reached"


async def test_twenty_attached_at_once(lab: Lab) -> None:
    lab.up()
    namespaces = [lab.namespace(f"n{number}") for number in range(20)]
    environment = {"NATGW_SOCKET": str(lab.socket)}

    async def attach(number: int, namespace: Namespace) -> None:
        command = lab.natgw_command("attach", namespace.name, "--name", f"n{number}", "--link", ("tap", "veth")[number % 2])
        done = await asyncio.to_thread(lab.gateway.run, *command, env=environment)
        assert done.returncode == 0

    await asyncio.gather(*(attach(number, namespace) for number, namespace in enumerate(namespaces)))
    addresses = {namespace.address()[0] for namespace in namespaces}
    assert addresses == {f"172.17.0.{host}/16" for host in range(2, 22)}
    for namespace in namespaces[:4]:
        namespace.run("ping", "-c", "1", "-W", "2", OUTSIDE)
