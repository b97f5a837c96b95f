"""Real programs through natgw, for both kinds of link: ping, traceroute, iperf3, big transfers, many at once."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from pathlib import Path

import pytest

from tests.namespaces.conftest import Pair
from tests.namespaces.topology import GATEWAY, OUTSIDE, Lab, Namespace, eventually, web_server


def ping(namespace: Namespace, target: str, *args: str) -> None:
    namespace.run("ping", "-c", "3", "-i", "0.05", "-W", "2", *args, target)


def test_addresses_and_macs_as_docker_gives_them(pair: Pair) -> None:
    assert pair.one.address() == ("172.17.0.2/16", "02:42:ac:11:00:02")
    assert pair.two.address() == ("172.17.0.3/16", "02:42:ac:11:00:03")


@pytest.mark.requires("ping")
def test_ping_everywhere(pair: Pair) -> None:
    for target in (OUTSIDE, "172.17.0.1", "172.17.0.3", GATEWAY):
        ping(pair.one, target)
    ping(pair.lab.gateway, "172.17.0.2")
    ping(pair.lab.gateway, OUTSIDE)


@pytest.mark.requires("traceroute")
@pytest.mark.requirement("G1", "I3")
@pytest.mark.parametrize("method", [[], ["-I"]], ids=["udp", "icmp"])
def test_traceroute_shows_the_gateway_and_what_is_behind(pair: Pair, method: list[str]) -> None:
    lines = pair.one.run("traceroute", "-n", "-q", "1", "-w", "3", "-N", "1", *method, OUTSIDE).stdout.splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["172.17.0.1", OUTSIDE]


@pytest.mark.requires("iperf3")
@pytest.mark.parametrize("direction", [[], ["-R"], ["-u", "-b", "20M"], ["-u", "-b", "20M", "-R"]],
                         ids=["tcp-up", "tcp-down", "udp-up", "udp-down"])
@pytest.mark.parametrize("far", ["outside", "container"])
def test_iperf3(pair: Pair, direction: list[str], far: str) -> None:
    server, address = (pair.lab.outside, OUTSIDE) if far == "outside" else (pair.two, "172.17.0.3")
    process = server.spawn("iperf3", "-s", "-1", "--forceflush")
    eventually(lambda: server.listening(5201))
    result = json.loads(pair.one.run("iperf3", "-c", address, "-t", "1", "-J", *direction).stdout)
    server.end(process)
    end = result["end"]
    if "-u" in direction:
        assert end["sum"]["lost_percent"] < 5
        assert end["sum"]["bits_per_second"] > 15e6
    else:
        assert end["sum_received"]["bits_per_second"] > 100e6


@pytest.mark.requires("curl")
@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_hundred_megabytes_arrive_whole(pair: Pair, direction: str, tmp_path: Path) -> None:
    data = random.Random(5).randbytes(100_000_000)
    (tmp_path / "big").write_bytes(data)
    wanted = hashlib.sha256(data).hexdigest()
    near, far, address = (pair.one, pair.lab.outside, OUTSIDE)
    if direction == "up":
        near, far, address = far, near, GATEWAY
        pair.lab.natgw("publish", "one", "8000:8000")
    server = web_server(far, 8000, tmp_path)
    try:
        near.run("curl", "-sS", "--max-time", "40", "-o", str(tmp_path / "copy"), f"http://{address}:8000/big")
        assert hashlib.sha256((tmp_path / "copy").read_bytes()).hexdigest() == wanted
    finally:
        far.end(server)
        if direction == "up":
            pair.lab.natgw("unpublish", "one", "8000:8000")


@pytest.mark.requires("curl")
@pytest.mark.parametrize("kinds", [("veth", "veth"), ("veth", "tap"), ("tap", "veth")], ids="-to-".join)
def test_between_links_of_all_kinds_as_well(lab: Lab, kinds: tuple[str, str], tmp_path: Path) -> None:
    """Whatever the superframes are that one end gives and the other takes."""
    (tmp_path / "big").write_bytes(random.Random(7).randbytes(50_000_000))
    lab.up()
    server, client = (lab.container(name, "--link", kind) for name, kind in zip(("one", "two"), kinds, strict=True))
    web_server(server, 8000, tmp_path)
    for target in (client, lab.gateway):
        target.run("curl", "-sS", "--max-time", "40", "-o", str(tmp_path / "copy"), "http://172.17.0.2:8000/big")
        assert (tmp_path / "copy").read_bytes() == (tmp_path / "big").read_bytes()
    assert all(port["tx_drops"] == 0 for port in lab.json("stats")["ports"])


@pytest.mark.requires("curl")
def test_an_uplink_that_is_not_set_for_it_gets_shorter_superframes(lab: Lab, tmp_path: Path) -> None:
    data = random.Random(8).randbytes(20_000_000)
    (tmp_path / "big").write_bytes(data)
    lab.up()
    one = lab.container("one", "--link", "veth", "-p", "8000:8000")
    lab.gateway.run(sys.executable, "-c", "from natgw.host.interfaces import set_superframe_bytes as set; set('eth0', 65536)")
    eventually(lambda: lab.json("status")["uplink"]["superframe_bytes"] == 65536)
    web_server(one, 8000, tmp_path)
    lab.outside.run("curl", "-sS", "--max-time", "40", "-o", str(tmp_path / "copy"), f"http://{GATEWAY}:8000/big")
    assert (tmp_path / "copy").read_bytes() == data
    uplink = next(port for port in lab.json("stats")["ports"] if port["name"] == "eth0")
    assert uplink["tx_drops"] == 0


@pytest.mark.requires("curl")
def test_two_hundred_downloads_at_once(pair: Pair, tmp_path: Path) -> None:
    data = random.Random(6).randbytes(200_000)
    (tmp_path / "file").write_bytes(data)
    server = web_server(pair.lab.outside, 8001, tmp_path)
    config = "".join(f'url = "http://{OUTSIDE}:8001/file"\noutput = "{tmp_path}/got{number}"\n' for number in range(200))
    (tmp_path / "config").write_text(config)
    pair.one.run("curl", "-sS", "--fail", "--max-time", "50", "--retry", "3", "--retry-connrefused", "--parallel",
                 "--parallel-max", "200", "--parallel-immediate", "-K", str(tmp_path / "config"))
    pair.lab.outside.end(server)
    assert all((tmp_path / f"got{number}").read_bytes() == data for number in range(200))


def test_unreachable_hosts_and_ports_are_told(pair: Pair) -> None:
    """ICMP errors come back translated: from a host that refuses, and from natgw for a host that is not there."""
    refused = pair.one.run("curl", "-sS", "--max-time", "5", f"http://{OUTSIDE}:81/", check=False)
    assert refused.returncode == 7, "curl's word for a connection that was refused, at once and not by a timeout"
    lost = pair.one.run("ping", "-c", "1", "-W", "5", "198.51.100.77", check=False)
    assert "Destination Host Unreachable" in lost.stdout


def test_every_frame_has_a_verdict(pair: Pair) -> None:
    """What the ports took in is what the verdicts account for."""
    stats = pair.lab.json("stats")
    extras = {"fast_path", "coalesced", "resized_superframes", "split_superframes", "queue_dropped", "arp_requests", "fdb_full",
              "flows_created", "flows_ended"}
    verdicts = sum(count for name, count in stats["counters"].items() if name not in extras)
    assert verdicts == sum(port["rx_frames"] for port in stats["ports"])


def test_the_flow_table_shows_both_sides(pair: Pair) -> None:
    ping(pair.one, OUTSIDE)
    flows = [flow for flow in pair.lab.json("flows") if flow["protocol"] == "icmp" and flow["original"]["dst"] == OUTSIDE]
    assert flows
    assert flows[-1]["original"]["src"] == "172.17.0.2"
    assert flows[-1]["reply"]["dst"] == GATEWAY
