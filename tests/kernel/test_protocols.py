"""UDP-Lite, SCTP, GRE and what nf_conntrack does not know, through Linux and through natgw: the same bytes, the same lines.

These kernels track and translate SCTP though they do not speak it.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP
from scapy.layers.sctp import SCTPChunkCookieAck, SCTPChunkCookieEcho, SCTPChunkInit, SCTPChunkInitAck
from scapy.packet import Raw

from natgw.cli.output import conntrack_line
from natgw.host import netns
from natgw.wire.transport import GRE, UDPLITE
from tests.conftest import examples
from tests.kernel.addresses import EXTERNAL, GATEWAY_MAC, HOSTS, OUTSIDE_MAC, REMOTES, ROUTER, UPLINK_MAC, mac_bytes
from tests.kernel.kernel_gateway import KernelGateway
from tests.kernel.natgw_gateway import NatgwGateway
from tests.unit.test_protocols import gre, other, sctp, udplite, verifies

ONE, TWO = HOSTS
SEQUENCES = examples(200)
_MACS = {ip: mac_bytes(GATEWAY_MAC) + mac_bytes(mac) for ip, mac in HOSTS.items()}
_ONLY_ONE_SAYS = ("packets=", "bytes=", "use=", "zone=", "mark=", "timeout=", "stream_timeout=")
_INWARD = mac_bytes(UPLINK_MAC) + mac_bytes(OUTSIDE_MAC)


@dataclass
class Both:
    """What goes through one goes through the other."""

    kernel: KernelGateway
    natgw: NatgwGateway

    def out(self, packet: bytes) -> list[tuple[str, bytes]]:
        return self._send("inside", _MACS[IP(packet).src] + b"\x08\x00" + packet)

    def back(self, packet: bytes) -> list[tuple[str, bytes]]:
        return self._send("outside", _INWARD + b"\x08\x00" + packet)

    def _send(self, side: str, frame: bytes) -> list[tuple[str, bytes]]:
        """What both sent through; what they say themselves about a packet is not compared, but that they let none through."""
        kernel, natgw = ([each for each in gateway.send(side, [frame]) if each[0] != side]
                         for gateway in (self.kernel, self.natgw))
        assert kernel == natgw, f"{IP(frame[14:]).summary()}: Linux {kernel}, natgw {natgw}"
        return kernel


@pytest.fixture
def both(kernel: KernelGateway) -> Both:
    kernel.flush()
    return Both(kernel, NatgwGateway())


def lines(kernel: KernelGateway) -> list[str]:
    """Conntrack's own lines, without what only the kernel's /proc says, in the words of `conntrack -L`."""
    def read() -> str:
        with open("/proc/thread-self/net/nf_conntrack") as table:
            return table.read()

    found = netns.run_inside(kernel.path, read).splitlines()
    return [line.split(None, 2)[2] for line in found if "127." not in line]


def words(line: str) -> list[str]:
    """A line without the time left, which the machine's clock turns, and what only /proc says."""
    parts = line.split()
    return [*parts[:2], *(part for part in parts[3:] if not part.startswith(_ONLY_ONE_SAYS))]


@pytest.mark.parametrize(("out", "back"), [
    pytest.param(udplite(ONE, 5000, ROUTER, 80), udplite(ROUTER, 80, EXTERNAL, 5000), id="udplite"),
    pytest.param(gre(ONE, ROUTER), gre(ROUTER, EXTERNAL), id="gre"),
    pytest.param(other(ONE, ROUTER), other(ROUTER, EXTERNAL), id="esp"),
    pytest.param(other(ONE, ROUTER, 253), other(ROUTER, EXTERNAL, 253), id="unknown")])
def test_there_and_back_and_as_conntrack_shows_it(both: Both, out: bytes, back: bytes) -> None:
    assert [side for side, _ in both.out(out)] == ["outside"]
    assert [side for side, _ in both.back(back)] == ["inside"]
    both.out(out)
    (flow,) = both.natgw.datapath.flow_records(both.natgw.now)
    (line,) = lines(both.kernel)
    assert words(conntrack_line(flow)) == words(line)
    assert 0 <= int(conntrack_line(flow).split()[2]) - int(line.split()[2]) <= 5


def test_sctp_from_init_to_established(both: Both) -> None:
    """nf_conntrack drops what breaks the handshake, so there is one."""
    steps = ((both.out, sctp(ONE, 5000, ROUTER, 80, SCTPChunkInit(init_tag=9), tag=0)),
             (both.back, sctp(ROUTER, 80, EXTERNAL, 5000, SCTPChunkInitAck(init_tag=8), tag=9)),
             (both.out, sctp(ONE, 5000, ROUTER, 80, SCTPChunkCookieEcho(cookie=b"cook"), tag=8)),
             (both.back, sctp(ROUTER, 80, EXTERNAL, 5000, SCTPChunkCookieAck(), tag=9)))
    for send, packet in steps:
        ((_, frame),) = send(packet)
        assert verifies(frame[14:])
    (flow,) = both.natgw.datapath.flow_records(both.natgw.now)
    (line,) = lines(both.kernel)
    assert [word for word in words(line) if word != "ESTABLISHED"] == words(conntrack_line(flow))
    assert 0 <= int(conntrack_line(flow).split()[2]) - int(line.split()[2]) <= 5


def test_a_second_host_with_one_remote_is_let_through_by_neither(both: Both) -> None:
    assert both.out(other(ONE, ROUTER))
    assert both.out(other(TWO, ROUTER)) == []
    assert both.out(other(TWO, REMOTES[1]))
    assert both.back(other(ROUTER, EXTERNAL))
    assert both.back(other(REMOTES[1], EXTERNAL))


@pytest.mark.parametrize(("out", "type_", "code"), [
    pytest.param(udplite(ONE, 5000, ROUTER, 80), 3, 3, id="udplite"), pytest.param(gre(ONE, ROUTER), 3, 2, id="gre"),
    pytest.param(bytes(IP(src=ONE, dst=ROUTER, proto=50) / Raw(b"sealed letter")), 11, 0, id="esp"),
    pytest.param(sctp(ONE, 5000, ROUTER, 80, tag=0), 3, 2, id="sctp")])
def test_an_error_about_one(both: Both, out: bytes, type_: int, code: int) -> None:
    ((_, frame),) = both.out(out)
    assert both.back(bytes(IP(src=REMOTES[1], dst=EXTERNAL) / ICMP(type=type_, code=code) / Raw(frame[14:])))
    assert both.back(bytes(IP(src=ROUTER, dst=EXTERNAL) / ICMP(type=type_, code=code) / Raw(frame[14 : 14 + 28])))


def _conversation(kind: int, host: str, remote: str, port: int, coverage: int) -> tuple[bytes, bytes]:
    """A packet out, and the one that answers it if nothing has got in its way. UDP-Lite is one host's: where two want one
    port, which other port the second gets is each gateway's own choice."""
    if kind == UDPLITE:
        said = b"0123456789abc"
        return udplite(ONE, port, remote, 80, said, coverage), udplite(remote, 80, EXTERNAL, port, said, coverage)
    return (gre(host, remote), gre(remote, EXTERNAL)) if kind == GRE else (
        other(host, remote, kind), other(remote, EXTERNAL, kind))


conversations = st.builds(_conversation, st.sampled_from((UDPLITE, UDPLITE, GRE, 50, 4, 253)), st.sampled_from((ONE, ONE, TWO)),
                          st.sampled_from(REMOTES), st.sampled_from((5000, 5001)), st.sampled_from((0, 8, 12)))
packets = st.lists(conversations, min_size=1, max_size=3).flatmap(lambda chosen: st.lists(
    st.tuples(st.booleans(), st.sampled_from(chosen)), min_size=4, max_size=12))


def test_any_sequence_comes_out_the_same(kernel: KernelGateway) -> None:
    passed = {True: 0, False: 0}

    @settings(max_examples=SEQUENCES)
    @given(packets)
    def compare(steps: list[tuple[bool, tuple[bytes, bytes]]]) -> None:
        kernel.flush()
        both = Both(kernel, NatgwGateway())
        for outward, (out, back) in steps:
            passed[outward] += len(both.out(out) if outward else both.back(back))

    compare()
    assert min(passed.values()) > SEQUENCES // 3, passed
