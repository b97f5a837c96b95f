"""The translator as a user chooses it: at the start, live without breaking what goes on, and by a policy of one's own.

The sockets are the test's own, made inside the namespaces. Whether a datagram was kept out is seen by the next one from a known
place: both take the same way, so the first that arrives is the first that was let in.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from natgw.host.netns import run_inside
from tests.namespaces.topology import GATEWAY, OUTSIDE, Lab, Namespace, ip

STRANGER = "198.51.100.3"
POLICY = Path(__file__).parents[2] / "docs" / "examples" / "own_policy.py"
TIMEOUT_S = 10.0


class Sockets:
    """Sockets inside namespaces, closed together."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def keep(self, made: socket.socket) -> socket.socket:
        made.settimeout(TIMEOUT_S)
        return self._stack.enter_context(made)

    def udp(self, namespace: Namespace, address: str = "") -> socket.socket:
        made = self.keep(run_inside(namespace.path, socket.socket, socket.AF_INET, socket.SOCK_DGRAM))
        made.bind((address, 0))
        return made

    def tcp(self, inside: Namespace, outside: Namespace) -> tuple[socket.socket, socket.socket]:
        """Both ends of a connection from inside to the outside."""
        with run_inside(outside.path, socket.create_server, (OUTSIDE, 0)) as server:
            server.settimeout(TIMEOUT_S)
            near = self.keep(run_inside(inside.path, socket.create_connection, server.getsockname(), TIMEOUT_S))
            return near, self.keep(server.accept()[0])


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with ExitStack() as stack:
        yield Sockets(stack)


def external_ports(near: socket.socket, *far: socket.socket) -> list[int]:
    """Where datagrams of one socket inside come from, as each of those outside sees it."""
    ports = []
    for each in far:
        near.sendto(b"hello", each.getsockname())
        message, (address, port) = each.recvfrom(100)
        assert (message, address) == (b"hello", GATEWAY)
        ports.append(port)
    return ports


def talk(near: socket.socket, far: socket.socket) -> None:
    """A line each way on a connection that is there."""
    for sender, receiver in ((near, far), (far, near)):
        sender.sendall(b"line\n")
        assert receiver.recv(100) == b"line\n"


def test_another_type_live(lab: Lab, sockets: Sockets) -> None:
    ip("-n", lab.outside.name, "addr", "add", f"{STRANGER}/24", "dev", "eth0")
    lab.up("--nat-type", "symmetric")
    one = lab.container("one")
    near, far = sockets.tcp(one, lab.outside)
    talk(near, far)
    first, second = sockets.udp(lab.outside, OUTSIDE), sockets.udp(lab.outside, OUTSIDE)
    stranger = sockets.udp(lab.outside, STRANGER)

    before = sockets.udp(one)
    ports = external_ports(before, first, second)
    assert ports[0] != ports[1]
    stranger.sendto(b"unasked", (GATEWAY, ports[0]))
    first.sendto(b"asked", (GATEWAY, ports[0]))
    assert before.recv(100) == b"asked"

    lab.natgw("nat", "set", "type=full-cone")
    assert lab.json("nat", "show")["type"] == "full-cone"
    after = sockets.udp(one)
    ports_after = external_ports(after, first, second)
    assert ports_after[0] == ports_after[1]
    stranger.sendto(b"unasked", (GATEWAY, ports_after[0]))
    assert after.recvfrom(100) == (b"unasked", stranger.getsockname())

    talk(near, far)
    first.sendto(b"still", (GATEWAY, ports[0]))
    assert before.recv(100) == b"still", "the mapping it had is there"
    assert external_ports(before, first, second) == ports, "and its flows go on by it"

    (line,) = lab.natgw("flows", "--conntrack", "--protocol", "tcp").stdout.splitlines()
    sport, dport, outer = near.getsockname()[1], far.getsockname()[1], far.getpeername()[1]
    assert re.fullmatch(
        rf"tcp      6 \d+ ESTABLISHED src=172\.17\.0\.2 dst={OUTSIDE} sport={sport} dport={dport} packets=\d+ bytes=\d+ "
        rf"src={OUTSIDE} dst={GATEWAY} sport={dport} dport={outer} packets=\d+ bytes=\d+ \[ASSURED\] mark=0 use=1", line)


def test_what_is_wrong_changes_nothing_live(lab: Lab) -> None:
    lab.up("--nat-type", "linux")
    before = lab.json("nat", "show")
    refused = lab.natgw("nat", "set", "type=full-cone", "hairpn=off", check=False)
    assert (refused.returncode, refused.stderr) == (1, 'natgw: unknown key "hairpn": did you mean "hairpin"?\n')
    assert lab.json("nat", "show") == before


def test_a_file_and_a_policy_of_ones_own(lab: Lab, sockets: Sockets) -> None:
    config = lab.folder / "natgw.toml"
    config.write_text('[up]\nsubnet = "10.9.0.0/24"\nport_range = "50001-50999"\n[nat]\nudp.filtering = "eif"\n')
    lab.up("--config", str(config), "--port-policy", f"{POLICY}:Multiples")
    one = lab.container("one")
    assert one.address()[0] == "10.9.0.2/24"
    found = lab.json("nat", "show")
    assert (found["allocation"], found["udp"]["filtering"], found["tcp"]["filtering"]) == ("Multiples", "eif", "apdf")
    far = sockets.udp(lab.outside, OUTSIDE)
    assert [external_ports(sockets.udp(one), far)[0] for _ in range(3)] == [50100, 50200, 50300]
    lab.natgw("nat", "set", "allocation=sequential")
    assert external_ports(sockets.udp(one), far) == [50001]
    lab.natgw("nat", "set", "allocation=Multiples")
    assert external_ports(sockets.udp(one), far) == [50400]
