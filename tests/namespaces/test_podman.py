"""A real podman, on its CNI backend, with natgw as its network: what its users do, and that nothing is left of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import requires
from tests.namespaces.podman_machine import Podman
from tests.namespaces.topology import GATEWAY, Lab, Namespace, eventually

pytestmark = pytest.mark.requires("podman", "runc", "busybox", "curl", "nsenter")


def mounts() -> set[str]:
    """Where something is mounted; overlays and namespaces of podman's would be here."""
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def files_of_engines() -> set[str]:
    """What podman and CNI keep outside the laboratory's folder."""
    folders = [Path(name) for name in ("/run/netns", "/var/lib/cni/results", "/dev/shm", "/run/crun", "/run/runc")]
    return {str(path) for folder in folders if folder.exists() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def machine() -> Iterator[Podman]:
    requires("ip", "tc", "ss")
    with Lab() as lab, Podman(lab) as podman:
        lab.up()
        podman.install("--subnet", "10.89.0.0/24")
        podman.install("--name", "back", "--subnet", "10.90.0.0/24")
        yield podman


@pytest.fixture
def podman(machine: Podman) -> Iterator[Podman]:
    """The shared one; a test's containers go with it, and with them all that natgw made for them."""
    yield machine
    machine.remove(*machine.names())
    assert machine.lab.gateway.links() == {"lo", "eth0", "natgw0"}
    assert [one["Name"] for one in machine.lab.json("network", "ls") if one["Name"] not in ("bridge", "host", "none")] == []


REFUSED = "connection refused"

_UDP_ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 53))
print("listens", flush=True)
while True:
    message, client = server.recvfrom(2048)
    server.sendto(message, client)
"""
_UDP_ASK = """
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(10)
client.sendto(b"hello", (sys.argv[1], 5353))
print(client.recv(2048).decode())
"""


def page(source: Namespace, address: str, name: str) -> str:
    """What a web server of the test's answers, or why it does not."""
    done = source.run("curl", "-sS", "--max-time", "5", f"http://{address}/{name}.html", check=False)
    return REFUSED if done.returncode == 7 else (done.stdout or done.stderr).strip()


def serves(source: Namespace, address: str, name: str) -> bool:
    """Whether it does, soon: a server listens some moments after its container has started."""
    return eventually(lambda: page(source, address, name) == name)


def test_web_server_and_notebook(podman: Podman) -> None:
    """The pair on 9999 and 1111, reached from outside, from the host, and from each other."""
    lab = podman.lab
    web = podman.serve("web", 80, "-p", "9999:80")
    notebook = podman.serve("notebook", 8888, "-p", "1111:8888")
    assert (web, notebook) == ("10.89.0.2", "10.89.0.3")
    for port, name in ((9999, "web"), (1111, "notebook")):
        for source, address in ((lab.outside, GATEWAY), (lab.gateway, "127.0.0.1"), (lab.gateway, GATEWAY)):
            assert page(source, f"{address}:{port}", name) == name
    assert podman.exec("notebook", "wget", "-q", "-O", "-", "http://10.89.0.2/web.html").stdout.strip() == "web"
    assert podman.exec("web", "ping", "-c", "1", "-W", "2", "198.51.100.1").returncode == 0


def test_published_ports_of_every_kind(podman: Podman) -> None:
    """tcp, udp, a range, one address of the host, and one that podman chooses."""
    lab = podman.lab
    servers = "; ".join(f"httpd -p {port} -h /www" for port in (80, 8000, 8001, 8002))
    podman.run("all", "-p", "8000-8002:8000-8002", "-p", "127.0.0.1:8080:80", "-p", "5353:53/udp", "-p", "80",
               command=f"echo all > /www/all.html; {servers}; sleep 600")
    pid = podman("inspect", "--format", "{{.State.Pid}}", "all").stdout.strip()
    echo = lab.gateway.spawn("nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", _UDP_ECHO)
    assert echo.stdout is not None
    assert echo.stdout.readline() == "listens\n"
    for port in (8000, 8001, 8002):
        assert serves(lab.outside, f"{GATEWAY}:{port}", "all")
    assert serves(lab.gateway, "127.0.0.1:8080", "all")
    assert page(lab.outside, f"{GATEWAY}:8080", "all") == REFUSED
    chosen = podman("port", "all", "80/tcp").stdout.split()
    (own,) = {line.rpartition(":")[2] for line in chosen} - {"8080"}
    assert page(lab.outside, f"{GATEWAY}:{own}", "all") == "all"
    assert lab.outside.run(sys.executable, "-c", _UDP_ASK, GATEWAY).stdout == "hello\n"
    lab.gateway.end(echo)


def test_two_networks(podman: Podman) -> None:
    """eth0 and eth1 on one container; who is on one network only does not reach the other."""
    # podman numbers the interfaces of several networks in no order of its own.
    podman.run("both", "--network", "natgw:interface_name=eth0", "--network", "back:interface_name=eth1")
    podman.run("front")
    podman.run("rear", "--network", "back")
    assert podman.address("both", "eth1") == "10.90.0.2"
    for name, there, reached in (("front", "10.89.0.2", True), ("rear", "10.90.0.2", True), ("front", "10.90.0.2", False),
                                 ("rear", "10.89.0.2", False), ("both", "10.90.0.3", True)):
        assert (podman.exec(name, "ping", "-c", "1", "-W", "1", there).returncode == 0) is reached, (name, there)


def test_names(podman: Podman) -> None:
    """By name, alias and short id, and only on one's own network; port 53 of a container's own is free."""
    podman.run("asks")
    identity = podman("inspect", "--format", "{{.Id}}", "asks").stdout[:12]
    podman.run("web", "--network", "natgw:alias=www")
    podman.run("hidden", "--network", "back")
    for name, address in (("web", "10.89.0.3"), ("www", "10.89.0.3"), (identity, "10.89.0.2"), ("hidden", None)):
        done = podman.exec("asks", "nslookup", name, "10.89.0.1")
        assert (address in done.stdout) if address else done.returncode, (name, done.stdout)
    assert "nameserver 10.89.0.1" in podman.exec("asks", "cat", "/etc/resolv.conf").stdout
    assert podman.exec("asks", "ping", "-c", "1", "-W", "2", "web").returncode == 0


def test_connect_and_disconnect(podman: Podman) -> None:
    podman.run("web")
    podman("network", "connect", "back", "web")
    assert podman.address("web", "eth1") == "10.90.0.2"
    podman("network", "disconnect", "back", "web")
    assert podman.address("web", "eth1") == ""
    assert podman.address("web") == "10.89.0.2"


def test_stop_start_restart_kill(podman: Podman) -> None:
    """A stopped container's port and address are free; a started one has its port again."""
    lab = podman.lab
    podman.serve("web", 80, "-p", "9999:80")
    podman("stop", "-t", "0", "web")
    assert page(lab.outside, f"{GATEWAY}:9999", "web") == REFUSED
    assert podman.run("other") == "10.89.0.2"
    podman("start", "web")
    assert serves(lab.outside, f"{GATEWAY}:9999", "web")
    assert podman.address("web") == "10.89.0.3"
    podman("restart", "-t", "0", "web")
    assert serves(lab.outside, f"{GATEWAY}:9999", "web")
    podman("kill", "web")
    assert eventually(lambda: page(lab.outside, f"{GATEWAY}:9999", "web") == REFUSED)
    podman("rm", "web")
    podman.serve("again", 80, "-p", "9999:80")
    assert page(lab.outside, f"{GATEWAY}:9999", "again") == "again"


def test_chosen_address_and_mac(podman: Podman) -> None:
    podman.run("web", "--ip", "10.89.0.77", "--mac-address", "02:11:22:33:44:55")
    found = podman.exec("web", "ip", "-o", "address").stdout + podman.exec("web", "ip", "-o", "link").stdout
    assert "10.89.0.77/24" in found
    assert "02:11:22:33:44:55" in found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-p", "9999:81"), "Bind for 0.0.0.0:9999 failed: port is already allocated"),
        (("--ip", "10.89.0.2"), "Address already in use"),
        (("--ip", "10.91.0.2"), "no configured subnet or ip-range contain the IP address 10.91.0.2"),
        (("--network", "nowhere"), "nowhere"),
    ])
def test_what_podman_is_told(podman: Podman, options: tuple[str, ...], said: str) -> None:
    podman.serve("web", 80, "-p", "9999:80")
    done = podman("run", "--rm", "--name", "late", *options, "--rootfs", str(podman.rootfs), "/bin/sleep", "1", check=False)
    assert done.returncode not in (0, 1)
    assert said in done.stderr
    assert page(podman.lab.outside, f"{GATEWAY}:9999", "web") == "web"


def attached(podman: Podman, *args: str) -> str:
    """`natgw attach`; gives the container's address."""
    done = podman.natgw("attach", *args)
    assert done.returncode == 0, done.stderr
    (row,) = podman.lab.json("ps")
    assert (row["id"], row["name"], row["kind"], row["state"]) == (done.stdout.strip(), "web", "attached", "running")
    address: str = row["ip"]
    return address


def test_attach_a_container_without_a_network(podman: Podman) -> None:
    """`podman run --network none`, then natgw's default network with a published port, as long as it is wanted."""
    lab = podman.lab
    assert podman.serve("web", 80, "--network", "none") == ""
    assert attached(podman, "podman:web", "-p", "9995:80") == podman.address("web") == "172.17.0.2"
    for source, address in ((lab.outside, f"{GATEWAY}:9995"), (lab.gateway, "127.0.0.1:9995"), (lab.gateway, "172.17.0.2")):
        assert page(source, address, "web") == "web"
    assert podman.exec("web", "ping", "-c", "1", "-W", "2", "198.51.100.1").returncode == 0
    lab.natgw("detach", "web")
    assert podman.exec("web", "ip", "-o", "link").stdout.count("\n") == 1
    assert page(lab.outside, f"{GATEWAY}:9995", "web") == REFUSED
    assert lab.json("ps") == []


@pytest.mark.parametrize("end", [("stop", "-t", "0"), ("kill",), ("rm", "-f", "-t", "0")])
def test_an_attached_container_ends(podman: Podman, end: tuple[str, ...]) -> None:
    """It leaves the network by itself, port and address with it; started again, it is attached again by its user."""
    lab = podman.lab
    podman.serve("web", 80, "--network", "none")
    identity = podman("inspect", "--format", "{{.Id}}", "web").stdout.strip()
    attached(podman, f"podman:{identity[:12]}", "--name", "web", "-p", "9995:80")
    podman(*end, "web")
    assert eventually(lambda: lab.json("ps") == [])
    assert page(lab.outside, f"{GATEWAY}:9995", "web") == REFUSED
    if end[0] != "rm":
        done = podman.natgw("attach", "podman:web")
        assert (done.returncode, done.stderr) == (1, "natgw: container web is not running: `podman start web` first\n")
        podman("start", "web")
        assert attached(podman, "podman:web", "-p", "9995:80") == "172.17.0.2"
        assert serves(lab.outside, f"{GATEWAY}:9995", "web")
        podman("rm", "-f", "-t", "0", "web")
        assert eventually(lambda: lab.json("ps") == [])
    done = podman.natgw("attach", "podman:web")
    assert (done.returncode, done.stderr) == (1, "natgw: no container web in podman: `podman ps` shows those that run\n")


def test_twenty_at_once(podman: Podman) -> None:
    with ThreadPoolExecutor(20) as threads:
        addresses = list(threads.map(lambda number: podman.run(f"c{number}", "-p", f"{9000 + number}:80"), range(20)))
    assert sorted(addresses, key=lambda address: int(address.rpartition(".")[2])) == [f"10.89.0.{n}" for n in range(2, 22)]
    assert podman.exec("c0", "ping", "-c", "1", "-W", "2", addresses[19]).returncode == 0


def test_nothing_is_left() -> None:
    """Installed, used, uninstalled and down: no interface, mount, process or file of any of it."""
    mounted, kept = mounts(), files_of_engines()
    with Lab() as lab, Podman(lab) as podman:
        lab.up()
        podman.install("--name", "natgw")
        podman.serve("web", 80, "-p", "9999:80")
        podman.run("two")
        podman.remove("web", "two")
        assert podman.names() == []
        lab.natgw("cni", "uninstall", *podman.directories)
        assert sorted(path.name for name in ("cni-bin", "cni-conf") for path in (podman.folder / name).iterdir()
                      if path.name != "cni.lock") == []
        assert eventually(lambda: podman.processes() == [])
        lab.natgw("down")
        assert lab.leftovers() == []
        ours = {lab.outside.path, lab.gateway.path}
        assert {path for path in files_of_engines() - kept - ours if "/t-" not in path} == set()
        assert {path for path in mounts() - mounted - ours if str(lab.folder) in path or "/netns-" in path} == set()


def test_a_natgw_that_is_not_there(podman: Podman) -> None:
    """Its error is podman's: one line that says what to do; and what is to be removed can be, but for its interface."""
    lab = podman.lab
    podman.run("web")
    lab.natgw("down")
    try:
        done = podman("run", "--rm", "--rootfs", str(podman.rootfs), "/bin/sleep", "1", check=False)
        assert done.returncode
        assert f"natgw is not running on {lab.socket}: start it with `natgw up`" in done.stderr
        podman.remove("web")
        assert podman.names() == []
    finally:
        lab.up()
    api = ("curl", "-sS", "--unix-socket", str(lab.socket), "http://natgw/v1/cni/attachments")
    assert json.loads(lab.gateway.run(*api).stdout) == []
