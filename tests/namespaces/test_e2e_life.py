"""Life and death: everything natgw makes goes with it, however it goes; and what the host does to it meanwhile."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import pytest

from natgw.host.interfaces import LEGACY_SUPERFRAME_BYTES
from natgw.host.links import BIG_TCP_BYTES, kernel_knows_big_tcp
from tests.namespaces.topology import GATEWAY, OUTSIDE, Lab, Namespace, eventually, ip, web_server


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("how", ["down", "SIGTERM", "SIGINT", "SIGQUIT"])
def test_nothing_is_left(lab: Lab, how: str) -> None:
    before = lab.leftovers()
    pid = lab.up()
    tap, veth = lab.container("tap", "-p", "8080:80"), lab.container("veth", "--link", "veth")
    lab.natgw("run", "-d", "--name", "sleeper", "--", "sleep", "1000")
    sleeper = lab.json("ps")[-1]["pid"]
    assert lab.leftovers() != before
    if how == "down":
        lab.natgw("down")
    else:
        os.kill(pid, getattr(signal, how))
    eventually(lambda: gone(pid))
    assert lab.leftovers() == before == []
    assert tap.links() == veth.links() == {"lo"}
    assert gone(sleeper)


def test_up_is_ready_soon(lab: Lab) -> None:
    """By the daemon's own time, which another's work does not lengthen; `tools/bench` has the figure by the clock."""
    pid = lab.up()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    used_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime of proc(5)
    # A third of a second here; twice as much when all of it has to be compiled first, and some are slower machines.
    assert used_s < 1.5


def test_who_comes_makes_no_work_for_those_who_are_there(lab: Lab) -> None:
    """A frame to everybody is a write for each of them, and so would be all that a container's kernel sends by itself."""
    lab.up()
    came = [lab.container(f"c{number}", "--link", kind) for number, kind in enumerate(("tap", "veth", "tap", "veth"))]
    for container in came:
        assert "inet6" not in container.run("ip", "address", "show", "eth0").stdout
    came[0].run("ping", "-c", "1", "-W", "2", "172.17.0.1")  # whose ARP request is the one frame to everybody
    assert lab.json("stats")["counters"]["flooded"] == 1


def test_kill_9_and_up_again(lab: Lab) -> None:
    pid = lab.up()
    veth = lab.container("veth", "--link", "veth")
    lab.natgw("run", "-d", "--name", "sleeper", "-p", "8080:80", "--", "sleep", "1000")
    sleeper = next(row["pid"] for row in lab.json("ps") if row["name"] == "sleeper")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gone(pid))
    assert any(name.startswith("veth") for name in lab.gateway.links())
    lab.up()
    assert gone(sleeper) or Path(f"/proc/{sleeper}/stat").read_text().split()[2] == "Z"
    assert lab.json("ps")[0]["name"] == "veth" and len(lab.json("ps")) == 1
    assert len([name for name in lab.gateway.links() if name.startswith("veth")]) == 1
    veth.run("ping", "-c", "1", "-W", "2", OUTSIDE)
    lab.natgw("down")
    assert lab.leftovers() == []


def superframe_bytes(namespace: Namespace) -> int:
    """The longest superframe that the namespace's eth0 is set to take."""
    program = "from natgw.host.interfaces import read_uplink; print(read_uplink('eth0').superframe_bytes)"
    return int(namespace.run(sys.executable, "-c", program).stdout)


def test_the_uplink_takes_what_a_veth_pair_gives_as_long_as_natgw_runs(lab: Lab) -> None:
    if not kernel_knows_big_tcp():
        longest = LEGACY_SUPERFRAME_BYTES
    else:
        longest = BIG_TCP_BYTES
    pid = lab.up()
    lab.container("tap")
    assert superframe_bytes(lab.gateway) == LEGACY_SUPERFRAME_BYTES, "a tap gives none that are longer"
    assert superframe_bytes(lab.container("veth", "--link", "veth")) == superframe_bytes(lab.gateway) == longest
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gone(pid))
    assert superframe_bytes(lab.gateway) == longest
    lab.up()
    assert superframe_bytes(lab.gateway) == longest, "the container is there again"
    lab.natgw("down")
    assert superframe_bytes(lab.gateway) == LEGACY_SUPERFRAME_BYTES
    lab.up("--no-big-tcp")
    veth = lab.container("other", "--link", "veth")
    assert superframe_bytes(veth) == superframe_bytes(lab.gateway) == LEGACY_SUPERFRAME_BYTES


def test_a_second_up_is_refused(lab: Lab) -> None:
    pid = lab.up()
    second = lab.natgw("up", "--detach", check=False)
    assert second.returncode == 1
    assert f"natgw is already running on {lab.socket} (pid {pid})" in second.stderr
    assert "Traceback" not in second.stderr
    assert lab.json("status")["pid"] == pid


def test_one_daemon_a_namespace(lab: Lab) -> None:
    lab.up()
    second = lab.natgw("up", "--detach", "--subnet", "10.9.0.0/16", check=False, socket=lab.folder / "other" / "n.sock")
    assert second.returncode == 1
    assert "another natgw serves this network namespace" in second.stderr
    assert not (lab.folder / "other").exists()
    lab.container("one").run("ping", "-c", "1", "-W", "2", OUTSIDE)


def test_several_daemons_side_by_side(lab: Lab) -> None:
    with Lab() as other:
        lab.up()
        other.up("--subnet", "10.9.0.0/16")
        one, two = lab.container("one"), other.container("one")
        assert two.address()[0] == "10.9.0.2/16"
        for namespace in (one, two):
            namespace.run("ping", "-c", "1", "-W", "2", OUTSIDE)
        other.natgw("down")
        one.run("ping", "-c", "1", "-W", "2", OUTSIDE)


@pytest.mark.parametrize("link", ["tap", "veth"])
def test_a_namespace_that_disappears_is_detached(lab: Lab, link: str) -> None:
    lab.up("--link", link)
    lab.container("one").close()
    eventually(lambda: lab.json("ps") == [])
    assert lab.container("two").address()[0] == "172.17.0.2/16"


def test_an_isolated_network(lab: Lab) -> None:
    lab.up("--uplink", "none")
    one, two = lab.container("one"), lab.container("two")
    one.run("ping", "-c", "1", "-W", "2", two.address()[0].split("/")[0])
    one.run("ping", "-c", "1", "-W", "2", "172.17.0.1")
    assert one.run("ping", "-c", "1", "-W", "1", OUTSIDE, check=False).returncode != 0
    assert lab.json("status")["uplink"] is None


def test_no_default_route_says_what_to_do(lab: Lab) -> None:
    ip("-n", lab.gateway.name, "route", "del", "default")
    failed = lab.natgw("up", "--detach", check=False)
    assert failed.returncode == 1
    assert "--uplink" in failed.stderr
    assert lab.leftovers() == []


def test_an_overlapping_subnet_is_refused(lab: Lab) -> None:
    failed = lab.natgw("up", "--detach", "--subnet", "198.51.0.0/16", check=False)
    assert failed.returncode == 1
    assert "Pool overlaps with other one on this address space" in failed.stderr
    assert lab.leftovers() == []


def test_the_uplink_changes(lab: Lab, tmp_path: Path) -> None:
    """Address, route and link: natgw follows each, and published ports follow the address."""
    (tmp_path / "page").write_text("hello")
    lab.up()
    one = lab.container("one", "-p", "8080:80")
    web_server(one, 80, tmp_path)
    one.run("ping", "-c", "1", "-W", "2", OUTSIDE)
    gateway = lab.gateway.name
    ip("-n", gateway, "addr", "del", f"{GATEWAY}/24", "dev", "eth0")
    ip("-n", gateway, "addr", "add", "198.51.100.9/24", "dev", "eth0")
    eventually(lambda: lab.json("status")["uplink"]["addresses"] == ["198.51.100.9/24"])
    one.run("ping", "-c", "1", "-W", "2", OUTSIDE)
    lab.outside.run("curl", "-sS", "--fail", "--max-time", "5", "http://198.51.100.9:8080/page")
    ip("-n", gateway, "link", "set", "eth0", "down")
    eventually(lambda: not lab.json("status")["uplink"]["up"])
    ip("-n", gateway, "link", "set", "eth0", "up")
    eventually(lambda: lab.json("status")["uplink"]["up"])
    eventually(lambda: one.run("ping", "-c", "1", "-W", "1", OUTSIDE, check=False).returncode == 0)
    ip("-n", lab.outside.name, "addr", "add", "203.0.113.1/32", "dev", "lo")
    assert one.run("ping", "-c", "1", "-W", "1", "203.0.113.1", check=False).returncode != 0
    ip("-n", gateway, "route", "add", "203.0.113.0/24", "via", OUTSIDE)
    eventually(lambda: one.run("ping", "-c", "1", "-W", "1", "203.0.113.1", check=False).returncode == 0)


@pytest.mark.parametrize("small", ["uplink", "container"])
def test_links_of_different_mtu(lab: Lab, small: str, tmp_path: Path) -> None:
    """A transfer from a link with a big MTU to one with a small one: whole, and the counters say what it took."""
    data = random.Random(9).randbytes(5_000_000)
    (tmp_path / "big").write_bytes(data)
    if small == "uplink":
        for namespace in (lab.gateway, lab.outside):
            ip("-n", namespace.name, "link", "set", "eth0", "mtu", "1300")
    lab.up("--mtu", "9000")
    near = lab.container("near")
    far = lab.outside if small == "uplink" else lab.container("far", "--mtu", "1400")
    server = web_server(near, 80, tmp_path)
    lab.natgw("publish", "near", "8080:80")
    url = f"http://{GATEWAY}:8080/big" if small == "uplink" else "http://172.17.0.2/big"
    far.run("curl", "-sS", "--fail", "--max-time", "30", "-o", str(tmp_path / "copy"), url)
    near.end(server)
    assert (tmp_path / "copy").read_bytes() == data


HOSTILE = """
import random, socket, struct, sys
rng = random.Random(11)
mac = bytes.fromhex(sys.argv[1].replace(":", ""))
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
own = s.getsockname()[4]
def ip(length, ihl=5, version=4, proto=17, frag=0, body=b""):
    return struct.pack("!BBHHHBBH4s4s", version << 4 | ihl, 0, length, 7, frag, 64, proto, 0,
        socket.inet_aton(sys.argv[2]), socket.inet_aton(sys.argv[3])) + body
for _ in range(2000):
    kind = rng.randrange(8)
    body = rng.randbytes(rng.randrange(0, 60))
    frame = {
        0: lambda: rng.randbytes(rng.randrange(14, 200)),
        1: lambda: mac + own + b"\\x08\\x00" + body,
        2: lambda: mac + own + b"\\x08\\x00" + ip(rng.randrange(65536), body=body),
        3: lambda: mac + own + b"\\x08\\x00" + ip(20 + len(body), ihl=rng.randrange(16), body=body),
        4: lambda: mac + own + b"\\x08\\x00" + ip(20 + len(body), version=rng.randrange(16), proto=6, body=body),
        5: lambda: mac + own + b"\\x08\\x06" + body,
        6: lambda: b"\\xff" * 6 + own + b"\\x08\\x06" + body,
        7: lambda: mac + own + b"\\x08\\x00" + ip(20 + len(body), frag=rng.randrange(65536), body=body),
    }[kind]()
    try:
        s.send(frame)
    except OSError:
        pass
print("sent")
"""


def test_hostile_frames_from_both_sides(lab: Lab) -> None:
    """Random bytes, cut headers and lying lengths are counted and dropped, and the daemon serves on."""
    pid = lab.up()
    one, two = lab.container("one"), lab.container("two", "--link", "veth")
    gateway_mac = lab.gateway.address()[1]
    before = lab.counters()
    for namespace, mac, src, dst in ((one, "02:42:ac:11:00:01", "172.17.0.2", OUTSIDE),
                                     (two, "02:42:ac:11:00:01", "172.17.0.3", OUTSIDE),
                                     (lab.outside, gateway_mac, OUTSIDE, GATEWAY)):
        assert namespace.run(sys.executable, "-c", HOSTILE, mac, src, dst).stdout == "sent\n"
    after = lab.counters()
    dropped = {name: after[name] - before[name] for name in after if name.startswith("drop_") and after[name] != before[name]}
    assert sum(dropped.values()) > 1000
    assert {"drop_bad_version", "drop_bad_ihl", "drop_bad_length", "drop_bad_checksum", "drop_bad_arp"} <= set(dropped)
    one.run("ping", "-c", "1", "-W", "2", OUTSIDE)
    assert lab.json("status")["pid"] == pid
