"""Names in containers, asked for by real programs; other names, asked of real servers in a namespace outside."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.namespaces.resolvers import resolver
from tests.namespaces.topology import GATEWAY, OUTSIDE, Lab, Namespace, eventually, ip, web_server

pytestmark = pytest.mark.requires("dig", "busybox", "getent", "curl", "dnsmasq")

DEAD = "198.51.100.77"
"""Nobody: a resolver that never answers."""


@dataclass
class Town:
    """natgw with two networks: `one` has web (alias site) and db, `two` has web and lone, and both is on both."""

    lab: Lab
    one: Namespace
    other: Namespace
    both: Namespace

    def names(self, inside: Namespace, name: str, kind: str = "A", *words: str, server: str = "127.0.0.11") -> list[str]:
        """What dig +short says, but for its complaints."""
        said = inside.run("dig", "+short", "+nocookie", "+time=6", "+tries=1", *words, f"@{server}", name, kind, check=False)
        return [line for line in said.stdout.splitlines() if not line.startswith(";")]

    def status(self, inside: Namespace, name: str, kind: str = "A", *words: str, server: str = "127.0.0.11") -> str:
        """NOERROR, NXDOMAIN, ..."""
        text = inside.run("dig", "+time=6", "+tries=1", *words, f"@{server}", name, kind, check=False).stdout
        return text.partition("status: ")[2].partition(",")[0]


def attach(lab: Lab, label: str, name: str, *words: str) -> Namespace:
    namespace = lab.namespace(label)
    lab.natgw("attach", namespace.name, "--name", name, *words)
    return namespace


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with Lab() as lab:
        resolver(lab.outside, OUTSIDE)
        lab.up("--dns", DEAD, "--dns", OUTSIDE)
        lab.natgw("network", "create", "one")
        lab.natgw("network", "create", "two")
        one = attach(lab, "web", "web", "--network", "one", "--network-alias", "site")
        attach(lab, "db", "db", "--network", "one", "--network-alias", "site")
        other = attach(lab, "lone", "lone", "--network", "two")
        both = attach(lab, "both", "both", "--network", "one")
        lab.natgw("network", "connect", "--alias", "double", "two", "both")
        yield Town(lab, one, other, both)


def test_names_aliases_and_ids(town: Town) -> None:
    web = town.lab.json("inspect", "web")[0]
    for name in ("web", "WEB.", "web.one", web["id"][:12]):
        assert town.names(town.one, name) == [web["ip"]]
    db = town.lab.json("inspect", "db")[0]
    assert set(town.names(town.one, "site")) == {web["ip"], db["ip"]}
    assert town.names(town.one, "web", "A", "+tcp") == [web["ip"]]
    assert town.names(town.one, "-x", web["ip"]) == ["web.one."]
    assert town.names(town.one, "host.docker.internal") == [web["gateway"]]
    assert town.names(town.one, "-x", web["gateway"]) == ["host.docker.internal."]
    answer = town.one.run("dig", "+noall", "+answer", "@127.0.0.11", "web").stdout.split()
    assert answer[1] == "600"


def test_what_a_name_has_not_and_names_that_are_none(town: Town) -> None:
    assert town.status(town.one, "web", "AAAA") == "NOERROR" and town.names(town.one, "web", "AAAA") == []
    assert town.status(town.one, "nobody.test") == "NXDOMAIN"
    assert town.status(town.one, "250.255.18.172.in-addr.arpa", "PTR") == "NXDOMAIN"


def test_each_network_sees_its_own_names(town: Town) -> None:
    double = town.lab.json("inspect", "both")[0]["networks"]
    assert town.names(town.other, "web") != town.names(town.one, "web")
    assert town.names(town.one, "lone") != town.names(town.other, "lone")
    assert town.names(town.other, "double") == [double["two"]["ip"]]
    assert town.names(town.both, "web") == town.names(town.one, "web")
    assert town.names(town.both, "lone") == town.names(town.other, "lone")
    assert set(town.names(town.both, "both")) == {double["one"]["ip"], double["two"]["ip"]}
    assert town.names(town.one, "both") == [double["one"]["ip"]]


def test_the_gateway_serves_its_own_network(town: Town) -> None:
    gateway, other = (town.lab.json("inspect", name)[0]["gateway"] for name in ("web", "lone"))
    assert town.names(town.one, "db", server=gateway) == town.names(town.one, "db")
    assert town.names(town.one, "db", "A", "+tcp", server=gateway) == town.names(town.one, "db")
    assert town.names(town.lab.gateway, "db", server=gateway) == town.names(town.one, "db")
    assert town.names(town.other, "lone", server=other)
    assert town.names(town.one, "lone", "A", "+time=1", server=other) == []


def test_port_53_can_be_published(town: Town) -> None:
    """By a container that is a name server itself; natgw's own go on at the gateways, and its port is still its own."""
    lab = town.lab
    server = attach(lab, "ns", "ns", "-p", "53:53/udp", "-p", "53:53/tcp")
    resolver(server, "172.17.0.2")
    assert town.names(lab.outside, "any.test", server=GATEWAY) == ["203.0.113.80"]
    assert town.names(lab.outside, "any.test", "A", "+tcp", server=GATEWAY) == ["203.0.113.80"]
    assert town.names(lab.gateway, "any.test", server="127.0.0.1") == ["203.0.113.80"]
    gateway = lab.json("inspect", "web")[0]["gateway"]
    assert town.names(town.one, "web", server=gateway) == town.names(town.one, "web") != []
    taken = lab.natgw("publish", "web", "53:53/udp", check=False)
    assert "Bind for 0.0.0.0:53 failed: port is already allocated" in taken.stderr
    lab.natgw("detach", "ns")


def test_other_names_are_asked_of_the_hosts_resolvers(town: Town) -> None:
    """The first resolver is dead, the second answers; what is too big for UDP comes by TCP; NXDOMAIN and what is kept."""
    before = town.lab.counters()
    assert town.names(town.one, "first.test") == ["203.0.113.80"]
    assert town.names(town.one, "second.test") == ["203.0.113.80"]
    assert town.names(town.one, "second.test") == ["203.0.113.80"]
    assert len(town.names(town.one, "big.test", "TXT")) == 20
    assert len(town.names(town.one, "big.test", "TXT", "+tcp")) == 20
    assert town.status(town.one, "elsewhere.test", "A", "+dnssec", "+cookie=0123456789abcdef") == "NOERROR"
    after = town.lab.counters()
    changed = {name: after[name] - before[name] for name in after if name.startswith("dns_")}
    assert changed["dns_retried"] <= 1  # the dead one is asked last from now on
    assert changed["dns_cached"] >= 2 and changed["dns_by_tcp"] == 1


def test_nobody_answers(town: Town) -> None:
    assert town.status(town.one, "silent.test") == "SERVFAIL"


def test_malformed_questions_do_no_harm(town: Town) -> None:
    program = ("import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(3)\n"
               "for data in (b'', b'x', b'\\0' * 11, b'\\1\\2\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\xc0\\x0c\\0\\1\\0\\1'):\n"
               "    s.sendto(data, ('127.0.0.11', 53))\nprint(s.recv(99).hex())")
    before = town.lab.counters()["dns_malformed"]
    assert town.one.run(sys.executable, "-c", program).stdout.strip() == "010281810000000000000000"
    assert town.lab.counters()["dns_malformed"] - before == 4
    assert town.names(town.one, "web")


def test_programs_of_a_container_find_names_by_themselves(town: Town, tmp_path: Path) -> None:
    """resolv.conf, getent (glibc), nslookup and wget (busybox), curl, in natgw's own containers."""
    lab = town.lab
    (tmp_path / "page").write_text("hello")
    web_server(town.one, 80, tmp_path)
    conf = lab.natgw("run", "--network", "one", "--name", "probe", "--", "cat", "/etc/resolv.conf").stdout
    assert "nameserver 127.0.0.11\n" in conf and "ndots:0" in conf
    lab.natgw("run", "-d", "--network", "one", "--name", "guest", "--", "sleep", "600")
    address = lab.json("inspect", "web")[0]["ip"]
    assert lab.natgw("exec", "guest", "--", "getent", "hosts", "web").stdout.split()[0] == address
    assert lab.natgw("exec", "guest", "--", "curl", "-sS", "--max-time", "5", "http://web/page").stdout == "hello"
    assert address in lab.natgw("exec", "guest", "--", "busybox", "nslookup", "web").stdout
    assert lab.natgw("exec", "guest", "--", "busybox", "wget", "-qO-", "http://web/page").stdout == "hello"
    assert lab.natgw("exec", "guest", "--", "getent", "hosts", "else.test").stdout.split()[0] == "203.0.113.80"
    shared = lab.natgw("run", "--network", "container:guest", "--", "cat", "/etc/resolv.conf").stdout
    assert "127.0.0.11" in shared
    host = Path("/etc/resolv.conf").read_text()
    assert "127.0.0.11" not in host
    assert lab.natgw("run", "--network", "host", "--", "cat", "/etc/resolv.conf").stdout == host
    lab.natgw("stop", "-t", "0", "guest")


def test_sockets_come_and_go_with_networks(town: Town) -> None:
    lab = town.lab
    guest = attach(lab, "guest", "guest")
    gateway = lab.json("inspect", "guest")[0]["gateway"]
    assert not guest.listening(53)
    assert "web" not in str(town.names(guest, "web", server=gateway))
    lab.natgw("network", "connect", "one", "guest")
    assert guest.listening(53) and guest.listening(53, "udp")
    assert town.names(guest, "web") == town.names(town.one, "web")
    lab.natgw("network", "disconnect", "one", "guest")
    assert not guest.listening(53) and not guest.listening(53, "udp")
    lab.natgw("detach", "guest")


def test_a_namespace_that_is_deleted_goes(town: Town) -> None:
    """natgw's own socket in it does not keep it: nobody else is there any more."""
    lab = town.lab
    attach(lab, "short", "short", "--network", "one").close()
    eventually(lambda: "short" not in [row["name"] for row in lab.json("ps")])
    keeper = attach(lab, "kept", "kept", "--network", "one")
    sleeper = keeper.spawn("sleep", "60")
    eventually(lambda: Path(f"/proc/{sleeper.pid}/comm").read_text() == "sleep\n")  # `ip netns exec` has got there
    ip("netns", "del", keeper.name)
    eventually(lambda: "kept" in [row["name"] for row in lab.json("ps")])
    assert town.names(town.one, "kept")
    keeper.end(sleeper)
    eventually(lambda: "kept" not in [row["name"] for row in lab.json("ps")])


def test_an_internal_network_asks_nobody(lab: Lab) -> None:
    server = resolver(lab.outside, OUTSIDE)
    lab.up("--dns", OUTSIDE)
    lab.natgw("network", "create", "--internal", "hidden")
    one, _ = (attach(lab, name, name, "--network", "hidden") for name in ("one", "two"))
    town = Town(lab, one, one, one)
    assert town.names(one, "two") and town.status(one, "else.test") == "SERVFAIL"
    assert "else" not in lab.outside.end(server)


def test_a_resolver_of_the_host_keeps_its_port(lab: Lab) -> None:
    """dnsmasq on all addresses of the host: natgw says so in its log and goes on, and dnsmasq is what natgw asks."""
    lab.gateway.spawn("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
                      "--pid-file=", "--address=/known.test/192.0.2.7")
    eventually(lambda: lab.gateway.listening(53))
    lab.up("--dns", "127.0.0.1")
    lab.natgw("network", "create", "one")
    one = attach(lab, "one", "one", "--network", "one")
    town = Town(lab, one, one, one)
    assert town.names(one, "one") and town.names(one, "known.test") == ["192.0.2.7"]
    assert town.status(one, "unknown.test") == "REFUSED"
    assert "no names of network one at its gateway" in (lab.socket.parent / "n.d" / "natgw.log").read_text()


def test_nothing_is_left(lab: Lab) -> None:
    before = lab.leftovers()
    pid = lab.up("--dns", DEAD)
    lab.natgw("network", "create", "one")
    attach(lab, "one", "one", "--network", "one")
    lab.natgw("run", "-d", "--network", "one", "--name", "guest", "--", "sleep", "600")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    lab.up("--dns", DEAD)
    assert lab.natgw("exec", "one", "--", "getent", "hosts", "one").stdout
    lab.natgw("network", "disconnect", "one", "one", check=False)
    lab.natgw("detach", "one", check=False)
    lab.natgw("network", "rm", "one")
    lab.natgw("down")
    assert lab.leftovers() == before == []
