"""The test kit itself: gateways in memory, wires, comparisons, the plugin."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.sctp import SCTP
from scapy.packet import Raw

from natgw.datapath import PRESETS
from natgw.testing import (
    Delivery,
    SimulatedGateway,
    Wire,
    assert_checksums,
    assert_deliveries_equal,
    assert_packets_equal,
    summary,
)

FAR = "203.0.113.9"


def udp(src: str, sport: int, dst: str, dport: int, payload: bytes = b"x") -> IP:
    return IP(src=src, dst=dst) / UDP(sport=sport, dport=dport) / payload


def test_there_and_back() -> None:
    gateway = SimulatedGateway()
    (out,) = gateway.send("c1", udp("172.17.0.2", 5000, FAR, 53))
    assert (out.to, out.packet.src, out.packet.sport) == ("outside", "198.51.100.2", 5000)
    (back,) = gateway.send("outside", bytes(udp(FAR, 53, "198.51.100.2", 5000)))
    assert (back.to, back.packet.dst, back.packet.dport) == ("c1", "172.17.0.2", 5000)
    assert gateway.counters["translated_out"] == gateway.counters["translated_in"] == 1
    assert [flow["state"] for flow in gateway.flows()] == ["REPLIED"]
    gateway.advance(302)
    assert gateway.flows() == []


def test_names_addresses_and_published_ports() -> None:
    gateway = SimulatedGateway(containers=["web", "db"], publish=[("web", "8080:80"), ("db", "5353:53/udp")])
    assert gateway.containers == {"web": "172.17.0.2", "db": "172.17.0.3"}
    ((web,), (db,)) = (gateway.send("outside", IP(src=FAR, dst="198.51.100.2") / layer) for layer in (
        TCP(sport=1, dport=8080, flags="S"), UDP(sport=1, dport=5353)))
    assert (web.to, web.packet.dport, db.to, db.packet.dport) == ("web", 80, "db", 53)
    with pytest.raises(ValueError, match="ports that are named"):
        SimulatedGateway(publish=[("c1", "80")])
    with pytest.raises(KeyError):
        SimulatedGateway(publish=[("c9", "80:80")])


def test_containers_reach_each_other_by_the_bridge() -> None:
    gateway = SimulatedGateway()
    (seen,) = gateway.send("c1", udp("172.17.0.2", 1, "172.17.0.3", 2))
    assert (seen.to, seen.packet.src, seen.packet.ttl) == ("c2", "172.17.0.2", 64)
    (seen,) = gateway.send("c1", IP(src="172.17.0.2", dst="172.17.0.1") / ICMP())
    assert (seen.to, seen.packet[ICMP].type) == ("c1", 0)


def test_nonsense_is_taken_and_counted() -> None:
    gateway = SimulatedGateway()
    assert gateway.send("outside", b"") == gateway.send("c1", bytes(30)) == []
    assert gateway.counters["drop_runt"] == 1
    assert gateway.counters["drop_bad_version"] == 1


def test_what_waits_is_sent_by_the_clock() -> None:
    gateway = SimulatedGateway()
    assert gateway.send("outside", IP(src=FAR, dst="198.51.100.2") / TCP(sport=1, dport=5000, flags="S")) == []
    ((to, error),) = ((each.to, each.packet) for each in gateway.advance(7))
    assert (to, error[ICMP].type, error[ICMP].code) == ("outside", 3, 3)


def test_the_same_seed_gives_the_same_ports() -> None:
    seen = [[gateway.send("c1", udp("172.17.0.2", port, FAR, 53))[0].packet.sport for port in range(2000, 2020)]
            for gateway in (SimulatedGateway(PRESETS["symmetric"], seed=seed) for seed in (1, 1, 2))]
    assert seen[0] == seen[1] != seen[2]


def test_wire_joins_gateways_and_hosts() -> None:
    wire = Wire({"a": SimulatedGateway(external=["198.51.100.2"]),
                 "b": SimulatedGateway(external=["198.51.100.3"], publish=[("c1", "8080:80/udp")])}, {"server": FAR})
    (seen,) = wire.send("a/c2", udp("172.17.0.3", 5000, "198.51.100.3", 8080))
    assert (seen.to, seen.packet.src, seen.packet.dst, seen.packet.ttl) == ("b/c1", "198.51.100.2", "172.17.0.2", 62)
    (seen,) = wire.send("b/c1", udp("172.17.0.2", 80, seen.packet.src, seen.packet.sport))
    assert (seen.to, seen.packet.src, seen.packet.sport) == ("a/c2", "198.51.100.3", 8080)
    assert [each.to for each in wire.send("a/c1", udp("172.17.0.2", 1, FAR, 1))] == ["server"]
    assert wire.send("server", udp(FAR, 1, "192.0.2.1", 1)) == []
    with pytest.raises(KeyError, match="gateway/container"):
        wire.send("nobody", udp(FAR, 1, "192.0.2.1", 1))
    with pytest.raises(ValueError, match="two on this wire"):
        Wire({"a": SimulatedGateway(), "b": SimulatedGateway()}, {})


def test_differences_read_like_tcpdump() -> None:
    one, two = udp("192.0.2.1", 1, "192.0.2.2", 2), udp("192.0.2.1", 1, "192.0.2.2", 3)
    assert_packets_equal(one, bytes(one))
    lines = r"- 192\.0\.2\.1\.1 > 192\.0\.2\.2\.2: udp, ttl 64, 1 bytes\n\+ .*2\.3: udp(.*\n)*\+ +dport += 3"
    with pytest.raises(AssertionError, match=lines):
        assert_packets_equal(one, two)
    later = one.copy()
    later.ttl = 3
    assert_packets_equal(one, later, ignoring=["ttl"])
    with pytest.raises(AssertionError, match="ttl 3"):
        assert_packets_equal(one, later)
    assert_deliveries_equal([Delivery("c1", bytes(one))], [Delivery("c1", bytes(one))])
    with pytest.raises(AssertionError, match=r"- c1: 192.*\n\+ c2: 192"):
        assert_deliveries_equal([Delivery("c1", bytes(one))], [Delivery("c2", bytes(one))])


@pytest.mark.parametrize(("packet", "line"), [
    (IP(src="192.0.2.1", dst="192.0.2.2") / TCP(sport=1, dport=2, flags="SA") / b"ab",
     "192.0.2.1.1 > 192.0.2.2.2: tcp SA, ttl 64, 2 bytes"),
    (IP(src="192.0.2.1", dst="192.0.2.2") / ICMP(id=7), "192.0.2.1 > 192.0.2.2: icmp 8/0 id 7, ttl 64, 0 bytes"),
    (IP(src="192.0.2.1", dst="192.0.2.2", proto=47) / b"abc", "192.0.2.1 > 192.0.2.2: proto 47, ttl 64, 0 bytes"),
    (IP(src="192.0.2.1", dst="192.0.2.2", proto=17, frag=2) / b"abc",
     "192.0.2.1 > 192.0.2.2: proto 17 fragment at 16, ttl 64, 0 bytes"),
])
def test_summary(packet: IP, line: str) -> None:
    assert summary(bytes(packet)) == line


@pytest.mark.parametrize("layer", [UDP(sport=1, dport=2), TCP(sport=1, dport=2), ICMP()])
def test_checksums_that_are_wrong_are_found(layer: IP) -> None:
    good = bytearray(bytes(IP(src="192.0.2.1", dst="192.0.2.2") / layer / b"abc"))
    assert_checksums(bytes(good))
    good[-1] ^= 1
    with pytest.raises(AssertionError, match=r"checksum is 0x"):
        assert_checksums(bytes(good))
    good[-1] ^= 1
    good[8] ^= 1
    with pytest.raises(AssertionError, match="IP checksum"):
        assert_checksums(bytes(good))


def test_an_error_that_quotes_what_scapy_cannot_read_has_a_good_checksum() -> None:
    quoted = bytes(IP(src="172.17.0.2", dst="203.0.113.1") / SCTP(sport=80, dport=53, tag=7) / b"\x01")
    error = bytes(IP(src="172.17.0.1", dst="172.17.0.2") / ICMP(type=11) / Raw(quoted))
    assert_checksums(error)


def run_pytest(folder: Path, test: str) -> str:
    """Pytest on a file of its own, with the plugin and no other."""
    (folder / "test_it.py").write_text(test)
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-rs", "-p", "natgw.testing.plugin", str(folder)], text=True,
                          capture_output=True, timeout=60, env=environment, cwd=folder)
    return done.stdout + done.stderr


def test_plugin_makes_gateways(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, "def test_one(natgw_gateway):\n    assert natgw_gateway(containers=3).containers['c3']\n")
    assert "1 passed" in output


def test_plugin_costs_nothing_where_it_is_not_used() -> None:
    code = "import sys, natgw.testing.plugin; print(sorted({'scapy', 'hypothesis', 'natgw.datapath'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
