"""Every choice about the translation, made live with `natgw nat set` and seen from outside by real sockets.

One natgw for all of them: what a test needs to begin anew are other sockets, since what goes on keeps its old ways.
"""

from __future__ import annotations

import itertools
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from natgw.host.netns import run_inside
from tests.namespaces.test_e2e_nat import Sockets, external_ports, talk
from tests.namespaces.topology import GATEWAY, OUTSIDE, Lab, Namespace, eventually, ip

SECOND = "198.51.100.20"
LOW, HIGH = 50000, 50999
ANSWER_WITHIN_S = 0.3


class Stage:
    """A natgw with two external addresses and three containers."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        ip("-n", lab.gateway.name, "addr", "add", f"{SECOND}/24", "dev", "eth0")
        lab.up("--port-range", f"{LOW}-{HIGH}", "--nat", "allocation=sequential")
        self.containers = [lab.container(name) for name in ("one", "two", "three")]

    def choose(self, *words: str) -> None:
        self.lab.natgw("nat", "set", *words)

    def unused(self, start: int) -> int:
        """The first external port from `start` on that no flow has: earlier tests' flows, with ports by chance, may go on."""
        taken = {int(flow["mapping"]["external"].rpartition(":")[2]) for flow in self.lab.json("flows") if flow["mapping"]}
        return next(port for port in range(start, HIGH + 1) if port not in taken)

    def counted(self, name: str) -> int:
        return self.lab.counters()[name]


@pytest.fixture(scope="module")
def shared() -> Iterator[Stage]:
    with Lab() as lab:
        yield Stage(lab)


@pytest.fixture
def stage(shared: Stage) -> Iterator[Stage]:
    """With the defaults, and nothing of an earlier test's going on."""
    yield shared
    shared.choose("type=port-restricted", "parity=off", "external_addresses=none", "pooling=paired", "hairpin=on",
                  "refresh_inbound=on", "pick_up=on", "port_rest=0", "ports_per_host=0", "flows_per_host=0",
                  "untranslated=none")


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with ExitStack() as stack:
        yield Sockets(stack)


def bound(sockets: Sockets, namespace: Namespace, port: int) -> socket.socket:
    made = run_inside(namespace.path, socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(10)
    made.bind(("", port))
    return sockets.keep(made)


def seen_from(near: socket.socket, far: socket.socket) -> tuple[str, int]:
    """The external endpoint of a datagram."""
    near.sendto(b"hello", far.getsockname())
    endpoint: tuple[str, int] = far.recvfrom(100)[1]
    return endpoint


def comes_through(sender: socket.socket, to: tuple[str, int], receiver: socket.socket) -> bool:
    sender.sendto(b"knock", to)
    receiver.settimeout(ANSWER_WITHIN_S)
    try:
        return receiver.recv(100) == b"knock"
    except TimeoutError:
        return False
    finally:
        receiver.settimeout(10)


def test_which_port(stage: Stage, sockets: Sockets) -> None:
    one, far = stage.containers[0], sockets.udp(stage.lab.outside, OUTSIDE)
    stage.choose("allocation=sequential")
    ports = [external_ports(sockets.udp(one), far)[0] for _ in range(3)]
    assert [port - ports[0] for port in ports] == [0, 1, 2]
    stage.choose("allocation=preserve")
    port = stage.unused(50500)
    assert external_ports(bound(sockets, one, port), far) == [port]
    assert external_ports(bound(sockets, stage.containers[1], port), far) != [port], "somebody has it"
    stage.choose("allocation=random")
    ports = [external_ports(sockets.udp(one), far)[0] for _ in range(6)]
    assert all(LOW <= port <= HIGH for port in ports)
    assert len({after - before for before, after in itertools.pairwise(ports)}) > 1
    stage.choose("parity=on")
    for port in (30001, 30002, 30003, 30004):
        assert external_ports(bound(sockets, one, port), far)[0] % 2 == port % 2


@pytest.mark.requirement("U3")
def test_which_address(stage: Stage, sockets: Sockets) -> None:
    far = sockets.udp(stage.lab.outside, OUTSIDE)
    stage.choose(f"external_addresses={GATEWAY},{SECOND}", "pooling=paired")
    each = [{seen_from(sockets.udp(container), far)[0] for _ in range(8)} for container in stage.containers]
    assert all(len(addresses) == 1 for addresses in each)
    assert set().union(*each) == {GATEWAY, SECOND}
    stage.choose("pooling=arbitrary")
    assert {seen_from(sockets.udp(stage.containers[0]), far)[0] for _ in range(24)} == {GATEWAY, SECOND}


@pytest.mark.requirement("U7")
def test_hairpin(stage: Stage, sockets: Sockets) -> None:
    stage.choose("type=full-cone")
    far = sockets.udp(stage.lab.outside, OUTSIDE)
    one, two = (sockets.udp(container) for container in stage.containers[:2])
    at = seen_from(one, far)
    stage.choose("hairpin=off")
    assert not comes_through(two, at, one)
    assert stage.counted("drop_hairpin") == 1
    stage.choose("hairpin=on")
    two.sendto(b"knock", at)
    assert one.recvfrom(100)[1][0] == GATEWAY


@pytest.mark.requirement("C1")
def test_limits_of_a_host(stage: Stage, sockets: Sockets) -> None:
    far, three = sockets.udp(stage.lab.outside, OUTSIDE), stage.containers[2]
    mappings = Counter(address for address, _ in {(flow["original"]["src"], flow["mapping"]["external"])
                                                  for flow in stage.lab.json("flows") if flow["mapping"]})
    limit = max(mappings.values(), default=0) + 1
    stage.choose(f"ports_per_host={limit}")
    for _ in range(limit - mappings["172.17.0.4"]):
        seen_from(sockets.udp(three), far)
    assert not comes_through(sockets.udp(three), far.getsockname(), far)
    assert stage.counted("drop_host_ports") == 1
    seen_from(sockets.udp(stage.containers[0]), far)  # it is the limit of one host
    stage.choose("ports_per_host=0", "flows_per_host=2")
    before = stage.counted("drop_host_rate")
    for _ in range(10):
        sockets.udp(three).sendto(b"hello", far.getsockname())
    eventually(lambda: stage.counted("drop_host_rate") > before)


@pytest.mark.requirement("U6")
def test_times_by_name_and_what_goes_on_keeps_its_own(stage: Stage, sockets: Sockets) -> None:
    far, one = sockets.udp(stage.lab.outside, OUTSIDE), stage.containers[0]
    before = sockets.udp(one)
    at = seen_from(before, far)
    stage.choose("timeouts.udp=1", "timeouts.udp_stream=1")
    short = sockets.udp(one)
    gone = seen_from(short, far)
    assert comes_through(far, gone, short)

    def external() -> set[str]:
        return {flow["mapping"]["external"] for flow in stage.lab.json("flows", "--protocol", "udp") if flow["mapping"]}

    eventually(lambda: f"{gone[0]}:{gone[1]}" not in external(), within_s=5)
    assert not comes_through(far, gone, short)
    assert comes_through(far, at, before)
    stage.choose("timeouts.profile=linux")
    shown = stage.lab.json("nat", "show")["timeouts"]
    assert (shown["profile"], shown["udp"], shown["tcp_established"], shown["gre"]) == ("linux", 30, 432000, 30)


@pytest.mark.requirement("C2")
def test_a_freed_port_rests(stage: Stage, sockets: Sockets) -> None:
    far = sockets.udp(stage.lab.outside, OUTSIDE)
    stage.choose("timeouts.udp=1", "timeouts.udp_stream=1", "port_rest=60", "allocation=preserve")
    port = stage.unused(50700)
    first = bound(sockets, stage.containers[0], port)
    assert external_ports(first, far) == [port]
    eventually(lambda: stage.unused(port) == port, within_s=5)
    other = bound(sockets, stage.containers[1], port)
    assert external_ports(other, far) != [port], "it is kept for a while for the host that had it"
    assert external_ports(first, far) == [port]


@pytest.mark.requirement("T7")
def test_pick_up_and_connections_through_every_change(stage: Stage, sockets: Sockets) -> None:
    near, far = sockets.tcp(stage.containers[0], stage.lab.outside)
    talk(near, far)
    for words in (["type=full-cone"], ["type=symmetric"], ["type=linux"], ["tcp.filtering=adf", "tcp.overload=off"],
                  ["hairpin=off"], ["pick_up=off"], ["allocation=random"], ["timeouts.tcp_established=100"],
                  [f"external_addresses={SECOND}"], ["ports_per_host=1"], ["port_rest=120"], ["type=port-restricted"]):
        stage.choose(*words)
        talk(near, far)


@pytest.mark.requirement("C4")
def test_without_translation(stage: Stage, sockets: Sockets) -> None:
    ip("-n", stage.lab.outside.name, "route", "replace", "172.17.0.0/16", "via", GATEWAY)
    far = sockets.udp(stage.lab.outside, OUTSIDE)
    stage.choose(f"untranslated={OUTSIDE}/32")
    near = sockets.udp(stage.containers[0])
    assert seen_from(near, far)[0] == "172.17.0.2"
    far.sendto(b"back", ("172.17.0.2", near.getsockname()[1]))
    assert near.recv(100) == b"back"


@pytest.mark.parametrize(("text", "message"), [
    ("[nat]\nhairpn = false\n", '[nat] unknown key "hairpn": did you mean "hairpin"?'),
    ("[nat.timeouts]\nudp_steam = 3\n", '[nat] unknown key "timeouts.udp_steam": did you mean "timeouts.udp_stream"?'),
    ("[up]\nport_rang = '1-2'\n", '[up] unknown key "port_rang": did you mean "port_range"?'),
    ("[natt]\n", 'unknown key "natt": did you mean "nat"?')])
def test_a_file_with_a_key_that_does_not_exist(lab: Lab, text: str, message: str) -> None:
    config = lab.folder / "natgw.toml"
    config.write_text(text)
    refused = lab.natgw("up", "--detach", "--config", str(config), check=False)
    assert (refused.returncode, refused.stderr) == (1, f"natgw: {config}: {message}\n")
    assert not lab.socket.exists()
