"""What outlives what: natgw restarted, dockerd restarted, both killed, with containers running; and nothing left in the end."""

from __future__ import annotations

import os
import shutil
import signal
import time

import pytest

from tests.engines.conftest import make_docker
from tests.engines.docker_lab import SMALL, DockerLab, web_page
from tests.engines.test_docker import HTTPD, from_host, from_outside
from tests.namespaces.topology import OUTSIDE, eventually


def start_web(lab: DockerLab, *args: str) -> None:
    folder = web_page(lab.folder / "www", "alive")
    lab.docker("network", "create", "-d", lab.driver, "net")
    lab.start_container("web", "--network", "net", "-p", "9999:80", "-p", "81", "-v", f"{folder}:/www:ro", *args, command=HTTPD)
    lab.start_container("client", "--network", "net", *args)
    eventually(lambda: from_outside(lab, "9999/") == "alive")


def works(lab: DockerLab) -> None:
    """From outside, from the host, from one container to the other by its name, and to the outside."""
    assert eventually(lambda: from_outside(lab, "9999/")) == "alive"
    assert from_host(lab, "9999/") == "alive"
    assert lab.inside("client", "wget", "-q", "-O", "-", "http://web/") == "alive"
    lab.inside("client", "ping", "-c", "1", "-W", "2", OUTSIDE)


@pytest.mark.parametrize("how", ["down", "SIGKILL"])
def test_natgw_is_restarted(own: DockerLab, how: str) -> None:
    start_web(own)
    before = {row["name"]: (row["ip"], row["mac"], row["ports"]) for row in own.json("ps")}
    pid = own.json("status")["pid"]
    if how == "down":
        own.natgw("down")
    else:
        own.kill_natgw()
    assert own.gone(pid)
    assert "172.1" in own.inside("client", "ip", "addr", "show", "eth0")  # the container keeps its interface and address
    own.up()
    works(own)
    assert {row["name"]: (row["ip"], row["mac"], row["ports"]) for row in own.json("ps")} == before
    # And Docker goes on with what it has: the verbs, a new container, the end.
    own.docker("restart", "-t", "0", "web")
    works(own)
    own.start_container("new", "--network", "net")
    own.inside("new", "ping", "-c", "1", "-W", "2", "web")
    own.docker("rm", "-f", "web", "client", "new")
    own.docker("network", "rm", "net")
    assert own.json("ps") == []


def test_a_container_that_ended_while_natgw_was_away(own: DockerLab) -> None:
    start_web(own)
    pid = own.inspect("container", "web")["State"]["Pid"]
    own.kill_natgw()
    own.run("kill", "-9", str(pid))
    eventually(lambda: own.gone(pid))
    own.up()
    eventually(lambda: [row["name"] for row in own.json("ps")] == ["client"], within_s=20)
    eventually(lambda: own.docker("start", "web", check=False).returncode == 0, within_s=40)
    works(own)


def test_dockerd_is_restarted_and_containers_live_on(own: DockerLab) -> None:
    own.stop_docker()
    own.start_docker("--live-restore")
    start_web(own)
    own.stop_docker()
    assert from_outside(own, "9999/") == "alive"  # natgw needs no dockerd to go on
    # What is for Docker's bridge driver changes nothing.
    own.start_docker("--live-restore", "--userland-proxy=false", "--ip-forward=false", "--ip-masq=false")
    works(own)
    own.docker("restart", "-t", "0", "web")
    works(own)
    own.docker("rm", "-f", "web", "client")
    own.docker("network", "rm", "net")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_dockerd_is_restarted_and_containers_start_again(own: DockerLab, number: signal.Signals) -> None:
    start_web(own, "--restart", "always")
    own.stop_docker(number)
    own.start_docker()
    eventually(lambda: own.docker("exec", "client", "true", check=False).returncode == 0
               and own.docker("exec", "web", "true", check=False).returncode == 0, within_s=20)
    works(own)
    eventually(lambda: sorted(row["name"] for row in own.json("ps")) == ["client", "web"])
    own.docker("rm", "-f", "web", "client")
    own.docker("network", "rm", "net")


def reboot(lab: DockerLab) -> None:
    """What a reboot leaves of it: files that are not in /run."""
    lab.power_off()
    lab.up()
    lab.start_docker()


def test_the_machine_is_rebooted(own: DockerLab) -> None:
    """With a socket in a place that stays, networks and containers come back; without, the network is made again."""
    own.natgw("down")
    own.driver, own.socket = "lab", own.folder / "kept" / "natgw.sock"
    own.up()
    start_web(own, "--restart", "always")
    before = own.inspect("network", "net")
    reboot(own)
    eventually(lambda: own.docker("exec", "client", "true", check=False).returncode == 0
               and own.docker("exec", "web", "true", check=False).returncode == 0, within_s=20)
    works(own)
    assert {**own.inspect("network", "net"), "Containers": {}} == {**before, "Containers": {}}
    own.docker("rm", "-f", "web", "client")
    own.natgw("down")
    shutil.rmtree(own.socket.parent)
    own.up()
    assert "docker network rm" in own.refused("run", "--rm", "--network", "net", SMALL, "true")
    own.docker("network", "rm", "net")
    start_web(own)
    works(own)


def test_a_stopped_natgw_does_not_hang_dockerd(own: DockerLab) -> None:
    own.docker("network", "create", "-d", "natgw", "net")
    own.kill_natgw()
    own.natgw("up", "--detach")  # no driver this time: the socket of the one that was killed goes
    assert own.run("test", "-e", "/run/docker/plugins/natgw.sock", check=False).returncode == 1
    own.natgw("down")
    waiting = own.spawn("docker", "run", "--rm", "--network", "net", SMALL, "echo", "it ran")
    began = time.monotonic()
    own.docker("ps")
    own.docker("network", "inspect", "net")
    own.docker("run", "--rm", "--network", "none", SMALL, "true")
    assert time.monotonic() - began < 10
    # It comes back while dockerd is still trying: the container starts as if nothing had been.
    own.up()
    assert waiting.communicate(timeout=40)[0] == "it ran\n"
    own.natgw("down")
    began = time.monotonic()
    assert "natgw.sock" in own.refused("run", "--rm", "--network", "net", SMALL, "true")
    assert time.monotonic() - began < 40
    own.up()
    assert own.docker("run", "--rm", "--network", "net", SMALL, "echo", "again").stdout == "again\n"


def test_nothing_is_left() -> None:
    """Interfaces, filters, mounts, processes, files, control groups: all that was there before, and nothing else."""
    lab = make_docker()
    try:
        start_web(lab)
        lab.docker("rm", "-f", "web", "client")
        lab.docker("network", "rm", "net")
        lab.stop_docker()
        lab.stop("containerd")
        lab.natgw("down")
        assert lab.leftovers() == []
        folder, suffix, init = lab.folder, lab.suffix, lab.init
    finally:
        lab.close()
    assert not folder.exists()
    assert lab.cgroups() == []
    assert not [name for name in os.listdir("/run/netns") if suffix in name]
    assert not os.path.exists(f"/proc/{init}")
    with open("/proc/mounts") as mounts:
        assert str(folder) not in mounts.read()
