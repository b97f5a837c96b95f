"""Addresses by DHCP: busybox's udhcpc and ISC's dhclient, in namespaces whose interface natgw left without an address.

Both run a script of the test's own: the packages' scripts would write the machine's /etc/resolv.conf.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.namespaces.topology import OUTSIDE, Lab, eventually, ip

pytestmark = pytest.mark.requires("busybox", "dhclient")

UDHCPC = """#!/bin/sh
echo "$1 ip=$ip mask=$mask router=$router dns=$dns mtu=$mtu lease=$lease server=$serverid" >> {log}
case $1 in
bound|renew) ip addr replace $ip/$mask dev $interface; [ -z "$mtu" ] || ip link set $interface mtu $mtu
    [ -z "$router" ] || ip route replace default via $router ;;
deconfig) ip addr flush dev $interface ;;
esac
"""
DHCLIENT = """#!/bin/sh
echo "$reason ip=$new_ip_address mask=$new_subnet_mask router=$new_routers dns=$new_domain_name_servers mtu=$new_interface_mtu \
lease=$new_dhcp_lease_time server=$new_dhcp_server_identifier" >> {log}
case $reason in
BOUND|RENEW|REBIND|REBOOT) ip addr replace $new_ip_address/16 dev $interface; ip route replace default via $new_routers ;;
PREINIT) ip link set $interface up ;;
RELEASE|EXPIRE|FAIL) ip addr flush dev $interface ;;
esac
"""


class Client:
    """A namespace attached without an address, and a DHCP client for it."""

    def __init__(self, lab: Lab, name: str, folder: Path, *words: str) -> None:
        self.lab, self.name = lab, name
        self.namespace = lab.namespace(name)
        lab.natgw("attach", self.namespace.name, "--name", name, *words)
        self.log = folder / f"{name}.log"
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None
        ip("-n", self.namespace.name, "link", "set", "eth0", "up")

    def script(self, text: str) -> str:
        path = self.folder / f"{self.name}.sh"
        path.write_text(text.format(log=self.log))
        path.chmod(0o755)
        return str(path)

    def udhcpc(self, *words: str) -> None:
        self.process = self.namespace.spawn("busybox", "udhcpc", "-f", "-i", "eth0", "-s", self.script(UDHCPC), "-O", "mtu",
                                            *words)

    def dhclient(self, *words: str) -> None:
        conf = self.folder / f"{self.name}.conf"
        conf.write_text("timeout 10; retry 1; initial-interval 1;\n"
                        "request subnet-mask, routers, domain-name-servers, interface-mtu, dhcp-lease-time;\n")
        self.namespace.run("dhclient", "-4", "-1", "-v", "-cf", str(conf), "-sf", self.script(DHCLIENT),
                           "-lf", str(self.folder / f"{self.name}.leases"), "-pf", str(self.folder / f"{self.name}.pid"),
                           *words, "eth0")

    def stop(self) -> None:
        pid = self.folder / f"{self.name}.pid"
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGKILL)
            pid.unlink()
        if self.process is not None:
            self.namespace.end(self.process)

    def said(self, reason: str) -> dict[str, str]:
        """The last time the script was called for a reason, once it has been."""
        line = eventually(lambda: [line for line in self.lines if line.startswith(reason + " ")])[-1]
        return dict(word.split("=", 1) for word in line.split()[1:] if "=" in word)

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def send(self, number: int) -> None:
        """A signal to udhcpc itself, which runs under `ip netns exec` without a process in between."""
        assert self.process is not None
        os.kill(self.process.pid, number)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def dhcp(lab: Lab) -> dict[str, int]:
    return {name.removeprefix("dhcp_"): number for name, number in lab.counters().items() if name.startswith("dhcp_")}


def test_udhcpc(lab: Lab, folder: Path) -> None:
    """Bound, renewed by unicast, released, and asked for again; what natgw chose, and the way out works."""
    lab.up("--dhcp", "--dhcp-lease", "1800", "--mtu", "1400")
    client = Client(lab, "one", folder, "--dhcp", "--ip", "172.17.5.5")
    assert "inet " not in client.namespace.run("ip", "-4", "addr", "show", "dev", "eth0").stdout
    try:
        client.udhcpc()
        assert client.said("bound") == {"ip": "172.17.5.5", "mask": "16", "router": "172.17.0.1", "dns": "172.17.0.1",
                                        "mtu": "1400", "lease": "1800", "server": "172.17.0.1"}
        client.namespace.run("ping", "-c", "1", "-W", "2", OUTSIDE)
        acks = dhcp(lab)["sent_ack"]
        client.send(signal.SIGUSR1)
        assert client.said("renew")["ip"] == "172.17.5.5"
        assert dhcp(lab)["sent_ack"] == acks + 1
        client.send(signal.SIGUSR2)
        eventually(lambda: dhcp(lab)["release"] == 1)
        eventually(lambda: client.lines[-1].startswith("deconfig"))
        client.send(signal.SIGUSR1)
        eventually(lambda: sum(line.startswith("bound") for line in client.lines) == 2)
        assert client.said("bound")["ip"] == "172.17.5.5"
    finally:
        client.stop()


def test_dhclient(lab: Lab, folder: Path) -> None:
    """Bound; after a restart of the client INIT-REBOOT, confirmed or, with a wrong address, refused."""
    lab.up("--dhcp")
    client = Client(lab, "one", folder, "--dhcp", "--link", "veth")
    try:
        client.dhclient()
        assert client.said("BOUND") == {"ip": "172.17.0.2", "mask": "255.255.0.0", "router": "172.17.0.1", "dns": "172.17.0.1",
                                        "mtu": "1500", "lease": "3600", "server": "172.17.0.1"}
        client.namespace.run("ping", "-c", "1", "-W", "2", OUTSIDE)
        client.stop()
        before = dhcp(lab)
        client.dhclient()
        assert client.said("REBOOT")["ip"] == "172.17.0.2"
        assert dhcp(lab)["discover"] == before["discover"]
        client.stop()
        leases = folder / "one.leases"
        leases.write_text(leases.read_text().replace("172.17.0.2;", "172.17.9.9;"))
        client.dhclient()
        assert dhcp(lab)["sent_nak"] == 1
        assert client.said("BOUND")["ip"] == "172.17.0.2"
    finally:
        client.stop()


def test_several_clients_and_no_address_left(lab: Lab, folder: Path) -> None:
    """Containers get theirs side by side; stations behind one get the rest, until there is none; one in use is declined."""
    lab.up("--dhcp", "--subnet", "10.9.0.0/29")
    clients = [Client(lab, name, folder, "--dhcp") for name in ("one", "two")]
    try:
        for client in clients:
            client.udhcpc()
        assert [client.said("bound")["ip"] for client in clients] == ["10.9.0.2", "10.9.0.3"]
        inside = clients[0].namespace
        got = []
        for number in range(4):
            mac = f"02:99:00:00:00:0{number}"
            ip("-n", inside.name, "link", "add", f"m{number}", "link", "eth0", "address", mac, "type", "macvlan",
               "mode", "bridge")
            ip("-n", inside.name, "link", "set", f"m{number}", "up")
            words = ("busybox", "udhcpc", "-n", "-q", "-f", "-t", "2", "-T", "1", "-s", "/bin/true", "-i", f"m{number}")
            done = inside.run(*words, *(("-a",) if number == 0 else ()), check=False)
            got.append(done.stderr.partition("lease of ")[2].partition(" ")[0])
        assert got == ["10.9.0.4", "10.9.0.5", "10.9.0.6", ""]
        assert dhcp(lab)["exhausted"] >= 1
    finally:
        for client in clients:
            client.stop()


def test_an_address_in_use_is_declined(lab: Lab, folder: Path) -> None:
    lab.up("--dhcp", "--subnet", "10.9.0.0/24")
    client = Client(lab, "one", folder, "--dhcp")
    squatter = lab.container("two", "--ip", "10.9.0.9")
    ip("-n", squatter.name, "addr", "add", "10.9.0.3/24", "dev", "eth0")
    inside = client.namespace
    ip("-n", inside.name, "link", "add", "m0", "link", "eth0", "address", "02:99:00:00:00:01", "type", "macvlan", "mode",
       "bridge")
    ip("-n", inside.name, "link", "set", "m0", "up")
    done = inside.run("busybox", "udhcpc", "-n", "-q", "-f", "-a", "-A", "1", "-s", "/bin/true", "-i", "m0", check=False)
    assert "declining it" in done.stderr or dhcp(lab)["decline"] == 1
    assert dhcp(lab)["decline"] == 1
    assert "lease of 10.9.0.4 obtained" in done.stderr


def test_leases_outlive_the_daemon(lab: Lab, folder: Path) -> None:
    """After a kill -9 a station behind a container renews the address it has, and nobody else was given it."""
    pid = lab.up("--dhcp")
    client = Client(lab, "one", folder)
    inside = client.namespace

    def station() -> str:
        ip("-n", inside.name, "link", "add", "m0", "link", "eth0", "address", "02:99:00:00:00:01", "type", "macvlan", "mode",
           "bridge")
        ip("-n", inside.name, "link", "set", "m0", "up")
        return inside.run("busybox", "udhcpc", "-n", "-q", "-f", "-s", "/bin/true", "-i", "m0").stderr

    assert "lease of 172.17.0.3 obtained" in station()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    lab.up("--dhcp")
    assert [row["name"] for row in lab.json("ps")] == ["one"]
    assert lab.container("two").address()[0] == "172.17.0.4/16"
    assert "lease of 172.17.0.3 obtained" in station()


def test_by_network(lab: Lab, folder: Path) -> None:
    """A network with the option has it, others have not; and a wrong option is told so."""
    lab.up()
    refused = lab.natgw("run", "--dhcp", "--", "true", check=False)
    assert refused.returncode == 1 and "network bridge has no DHCP server" in refused.stderr
    lab.natgw("network", "create", "-o", "natgw.dhcp=true", "-o", "natgw.dhcp.lease=120", "--internal", "lan")
    wrong = lab.natgw("network", "create", "-o", "natgw.dhcp.lease=soon", "bad", check=False)
    assert wrong.returncode == 1 and "natgw.dhcp.lease" in wrong.stderr
    client = Client(lab, "one", folder, "--dhcp", "--network", "lan")
    try:
        client.udhcpc()
        said = client.said("bound")
        assert (said["lease"], said["router"], said["dns"]) == ("120", "", "172.18.0.1")
    finally:
        client.stop()
    lab.natgw("detach", "one")
    lab.natgw("network", "rm", "lan")
    lab.natgw("down")
    assert lab.leftovers() == []


def test_run_leaves_the_interface_to_its_command(lab: Lab, folder: Path) -> None:
    lab.up("--dhcp")
    done = lab.natgw("run", "--dhcp", "--", "busybox", "udhcpc", "-n", "-q", "-f", "-s", "/bin/true", "-i", "eth0")
    assert "lease of 172.17.0.2 obtained from 172.17.0.1" in done.stderr


