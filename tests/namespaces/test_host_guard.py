"""The guard on a real interface: natgw's packet socket hears everything, the host's stack only what is the host's.

"The host says nothing" is shown by order: a later packet on the same wire, which the host does answer, has been answered.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address

import pytest

from natgw.errors import Conflict, NatgwError, NotFound
from natgw.host import guard, links
from natgw.host.bpf import BpfHash
from natgw.host.guard import Guard
from tests.conftest import eventually
from tests.namespaces.host_lab import Namespace, namespaces, wire

pytestmark = pytest.mark.requires("ip", "nsenter", "sysctl", "tc")

OURS, SECOND = IPv4Address("198.51.100.2"), IPv4Address("198.51.100.3")
RANGE = (40000, 50000)
GUARDED, FREE, PUBLISHED = 45000, 30000, 8080


@pytest.fixture
def lab() -> Iterator[list[Namespace]]:
    """natgw's namespace with interface `up0`, and the outside."""
    with namespaces(2) as made:
        wire(made[0], "up0", f"{OURS}/24", made[1], "up0", "198.51.100.1/24")
        # Port unreachables are rate-limited; these tests count on each.
        made[0].run("sysctl", "-q", "-w", "net.ipv4.icmp_ratemask=0")
        yield made


@pytest.fixture
def attached(lab: list[Namespace]) -> Iterator[Guard]:
    made = Guard("up0", port_range=RANGE)
    lab[0].call(made.attach, [OURS])
    yield made
    lab[0].call(made.detach)


def refused(outside: Namespace, port: int, *, to: IPv4Address = OURS, kind: int = socket.SOCK_STREAM,
            options: bytes = b"") -> bool:
    """Whether the host says that nobody is at a port; nobody is, so else it did not get the packet."""
    def probe(target: int) -> socket.socket:
        handle = outside.socket(kind)
        handle.setblocking(False)
        if options:
            handle.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, options)
        if handle.connect_ex((str(to), target)) == 0:
            handle.send(b"anybody there?")
        return handle

    def failed(handle: socket.socket) -> bool:
        return handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED

    with closing(probe(port)) as first, closing(probe(FREE)) as second:
        eventually(lambda: failed(second))
        return failed(first)


def hears(link: links.Link, port: int) -> bool:
    """Whether a TCP SYN to a port has come to the packet socket."""
    while select.select([link.fd], [], [], 0)[0]:
        frame = os.read(link.fd, 70000)[10:]
        if frame[12:14] == b"\x08\x00" and frame[23] == 6 and frame[36:38] == port.to_bytes(2, "big"):
            return True
    return False


def filters(home: Namespace) -> str:
    return home.run("tc", "filter", "show", "dev", "up0", "ingress")


def has_clsact(home: Namespace) -> bool:
    return "clsact" in home.run("tc", "qdisc", "show", "dev", "up0")


def add_users_filter(home: Namespace) -> None:
    """Somebody's own filter on the same qdisc, which matches nothing."""
    home.run("tc", "filter", "add", "dev", "up0", "egress", "prio", "7", "protocol", "ip", "bpf", "bytecode", "1,6 0 0 0")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_the_host_does_not_answer_for_natgws_ports(lab: list[Namespace], attached: Guard, kind: int) -> None:
    outside = lab[1]
    for port in (RANGE[0], GUARDED, RANGE[1]):
        assert not refused(outside, port, kind=kind)
    for port in (RANGE[0] - 1, RANGE[1] + 1):
        assert refused(outside, port, kind=kind)


def test_natgw_still_hears_what_the_host_does_not(lab: list[Namespace], attached: Guard) -> None:
    home, outside = lab
    with closing(home.call(links.open_uplink, "up0")) as link:
        assert not refused(outside, GUARDED)
        assert eventually(lambda: hears(link, GUARDED))


def test_ip_options_do_not_get_past(lab: list[Namespace], attached: Guard) -> None:
    assert not refused(lab[1], GUARDED, options=b"\x01" * 8)


def test_the_hosts_own_servers_and_connections_go_on(lab: list[Namespace], attached: Guard) -> None:
    home, outside = lab
    for here, there, address in ((home, outside, str(OURS)), (outside, home, "198.51.100.1")):
        with here.socket(socket.SOCK_STREAM, (address, 8081)) as server, there.socket(socket.SOCK_STREAM) as client:
            server.listen()
            if there is home:
                client.bind((str(OURS), 30001))
            client.connect(server.getsockname())
            accepted, _ = server.accept()
            with accepted:
                client.sendall(b"hello")
                assert accepted.recv(5) == b"hello"


def test_fragments_of_guarded_datagrams_never_become_whole(lab: list[Namespace], attached: Guard) -> None:
    home, outside = lab
    with home.socket(socket.SOCK_DGRAM, (str(OURS), GUARDED)) as guarded, \
            home.socket(socket.SOCK_DGRAM, (str(OURS), FREE)) as free, outside.socket(socket.SOCK_DGRAM) as client:
        for port in (GUARDED, FREE):
            client.sendto(bytes(4000), (str(OURS), port))
        assert len(free.recv(5000)) == 4000
        guarded.setblocking(False)
        with pytest.raises(BlockingIOError):
            guarded.recv(5000)


def test_published_ports_come_and_go_live(lab: list[Namespace], attached: Guard) -> None:
    outside = lab[1]
    assert refused(outside, PUBLISHED)
    attached.add(OURS, "tcp", PUBLISHED)
    assert not refused(outside, PUBLISHED)
    assert refused(outside, PUBLISHED, kind=socket.SOCK_DGRAM)
    attached.remove(OURS, "tcp", PUBLISHED)
    attached.remove(OURS, "tcp", PUBLISHED)
    assert refused(outside, PUBLISHED)


def test_addresses_change(lab: list[Namespace], attached: Guard) -> None:
    home, outside = lab
    home.ip("addr", "add", f"{SECOND}/24", "dev", "up0")
    assert refused(outside, GUARDED, to=SECOND)
    attached.set_addresses([SECOND])
    assert not refused(outside, GUARDED, to=SECOND) and refused(outside, GUARDED)
    attached.set_addresses([OURS, SECOND])
    assert not refused(outside, GUARDED, to=SECOND) and not refused(outside, GUARDED)


def test_what_was_published_before_it_was_attached(lab: list[Namespace]) -> None:
    home, outside = lab
    made = Guard("up0", port_range=RANGE)
    made.add(OURS, "tcp", PUBLISHED)
    home.call(made.attach, [OURS])
    assert not refused(outside, PUBLISHED) and not refused(outside, GUARDED)
    home.call(made.detach)
    assert refused(outside, PUBLISHED)


def test_alone_on_the_interface(lab: list[Namespace]) -> None:
    """Nothing of IPv4 is answered, ARP neither; natgw's socket hears it all."""
    home, outside = lab
    made = Guard("up0", port_range=RANGE, exclusive=True)
    home.call(made.attach, [OURS])
    with closing(home.call(links.open_uplink, "up0")) as link, outside.socket(socket.SOCK_DGRAM) as client:
        client.sendto(b"x", (str(OURS), FREE))

        def arp_request() -> bool:
            return bool(select.select([link.fd], [], [], 0)[0]) and os.read(link.fd, 2000)[22:24] == b"\x08\x06"

        assert eventually(arp_request)
        neighbours = outside.look("neigh", "show", str(OURS))
        assert all("lladdr" not in entry for entry in neighbours)
    home.call(made.detach)
    outside.ip("neigh", "flush", "all")
    assert refused(outside, GUARDED)


def test_detach_leaves_nothing(lab: list[Namespace]) -> None:
    home, outside = lab
    made = Guard("up0", port_range=RANGE)
    home.call(made.attach, [OURS])
    assert guard.FILTER_NAME in filters(home) and has_clsact(home)
    home.call(made.detach)
    home.call(made.detach)
    assert not has_clsact(home)
    assert refused(outside, GUARDED)
    home.call(made.attach, [OURS])
    assert not refused(outside, GUARDED)
    home.call(made.detach)


def test_a_qdisc_of_the_users_stays_with_its_filters(lab: list[Namespace]) -> None:
    home, outside = lab
    home.run("tc", "qdisc", "add", "dev", "up0", "clsact")
    made = Guard("up0", port_range=RANGE)
    home.call(made.attach, [OURS])
    add_users_filter(home)
    assert not refused(outside, GUARDED)
    home.call(made.detach)
    assert has_clsact(home) and guard.FILTER_NAME not in filters(home)
    assert "pref 7 bpf" in home.run("tc", "filter", "show", "dev", "up0", "egress")


def test_after_a_kill(lab: list[Namespace]) -> None:
    """The filter outlives its natgw. It is in the next one's way until it is removed, and then only it is."""
    home, outside = lab
    lost = Guard("up0", port_range=RANGE)
    home.call(lost.attach, [OURS])
    made = Guard("up0", port_range=RANGE)
    with pytest.raises(Conflict, match="another natgw has up0"):
        home.call(made.attach, [OURS])
    assert guard.FILTER_NAME in filters(home)
    add_users_filter(home)
    home.call(guard.remove_leftover, "up0")
    assert guard.FILTER_NAME not in filters(home) and has_clsact(home)
    home.run("tc", "filter", "del", "dev", "up0", "egress", "prio", "7")
    home.call(guard.remove_leftover, "up0")
    assert not has_clsact(home)
    home.call(guard.remove_leftover, "up0")
    home.call(guard.remove_leftover, "up9")
    home.call(made.attach, [OURS])
    assert not refused(outside, GUARDED)
    home.call(made.detach)
    home.call(lost.detach)


def test_the_interface_goes_first(lab: list[Namespace]) -> None:
    home = lab[0]
    made = Guard("up0", port_range=RANGE)
    home.call(made.attach, [OURS])
    home.ip("link", "del", "up0")
    home.call(made.detach)


def test_no_such_interface_leaves_nothing_open(lab: list[Namespace]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NotFound, match="no interface up9"):
        lab[0].call(Guard("up9", port_range=RANGE).attach, [OURS])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.requires("setpriv")
def test_without_the_right_to_load_programs(lab: list[Namespace]) -> None:
    script = ("from natgw.errors import NatgwError\nfrom natgw.host.guard import Guard\n"
              "try:\n    Guard('up0', port_range=(1, 2)).attach([])\nexcept NatgwError as error:\n    print(error)\n")
    done = subprocess.run(["nsenter", f"--net={lab[0].path}", "setpriv", "--bounding-set=-bpf,-sys_admin", sys.executable,
                           "-c", script], capture_output=True, text=True, timeout=30)
    assert "needs root (CAP_BPF and CAP_NET_ADMIN)" in done.stdout, done.stderr
    assert not has_clsact(lab[0])


def test_more_published_ports_than_the_map_holds() -> None:
    made = Guard("up0", port_range=RANGE)
    with pytest.raises(NatgwError, match="takes no more entries"), closing(BpfHash(8, 1, 1)) as small:
        made._map = small
        made.add(OURS, "tcp", 1)
        made.add(OURS, "tcp", 2)
