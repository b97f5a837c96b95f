"""`natgw flows --conntrack` beside the real `conntrack -L`, for the same packets, but for the time that passed."""

from __future__ import annotations

import re
import subprocess

import pytest

from natgw.cli.output import conntrack_line
from tests.kernel.addresses import ROUTER
from tests.kernel.comparing import Comparison, Tally
from tests.kernel.kernel_gateway import KernelGateway
from tests.kernel.packets import ACK, ECHO, ECHO_REPLY, FIN, ICMP, PSH, RST, SYN, TCP, UDP, Conversation, Segment, Step

pytestmark = pytest.mark.requires("conntrack")

_LINE = re.compile(r"(?P<protocol>\w+ +\d+) (?P<left>\d+) (?P<rest>.*?)(?: use=\d+)?\s*")


def of_linux(kernel: KernelGateway) -> list[str]:
    done = subprocess.run(["nsenter", f"--net={kernel.path}", "--", "conntrack", "-L"], capture_output=True, text=True,
                          timeout=30, check=True)
    return [line for line in done.stdout.splitlines() if line]


def compare(both: Comparison) -> list[str]:
    """Every line of both, without the time left and the kernel's count of references; the times left are compared here."""
    lines = {"Linux": of_linux(both.kernel),
             "natgw": [conntrack_line(flow) for flow in both.natgw.datapath.flow_records(both.natgw.now)]}
    parsed = {}
    for name, each in lines.items():
        matches = sorted((match["protocol"], match["rest"], int(match["left"])) for line in each
                         if (match := _LINE.fullmatch(line)))
        assert len(matches) == len(each), each
        parsed[name] = matches
    linux, natgw = parsed["Linux"], parsed["natgw"]
    assert [each[:2] for each in natgw] == [each[:2] for each in linux]
    for (protocol, rest, left), (_, _, linux_left) in zip(natgw, linux, strict=True):
        # The two clocks: natgw's goes on by a tenth of a second with each packet, Linux's is the machine's.
        passed = both.elapsed_s + 2
        assert abs(left - linux_left) <= passed, f"{protocol} {left} {rest}: {linux_left} s for Linux"
    return [rest for _, rest, _ in natgw]


@pytest.fixture
def both(kernel: KernelGateway) -> Comparison:
    return Comparison(kernel, Tally())


def tcp(port: int, *segments: tuple[bool, int, bytes]) -> list[Step]:
    """A conversation; what each side has sent is counted and acknowledged as it goes on."""
    conversation, sent, made = Conversation(TCP, "172.17.0.2", port, ROUTER, 80), {False: 0, True: 0}, []
    for inward, flags, payload in segments:
        made.append(Segment(conversation, inward, flags=flags, payload=payload, seq=sent[inward], ack=sent[not inward]))
        sent[inward] += len(payload) + bool(flags & FIN)
    return [*made]


OUT, IN = False, True
OPENED = ((OUT, SYN, b""), (IN, SYN | ACK, b""), (OUT, ACK, b""))
TALK = (*OPENED, (OUT, PSH | ACK, b"question"), (IN, PSH | ACK, b"answer, longer"), (OUT, ACK, b""))


@pytest.mark.parametrize(("segments", "state"), [
    pytest.param(OPENED[:1], "SYN_SENT", id="SYN"),
    pytest.param(OPENED[:2], "SYN_RECV", id="SYN+ACK"),
    pytest.param(OPENED, "ESTABLISHED", id="handshake"),
    pytest.param(TALK, "ESTABLISHED", id="data"),
    pytest.param((*TALK, (OUT, FIN | ACK, b"")), "FIN_WAIT", id="FIN"),
    pytest.param((*TALK, (OUT, FIN | ACK, b""), (IN, ACK, b"")), "CLOSE_WAIT", id="FIN acknowledged"),
    pytest.param((*TALK, (OUT, FIN | ACK, b""), (IN, ACK, b""), (IN, FIN | ACK, b"")), "LAST_ACK", id="both FIN"),
    pytest.param((*TALK, (OUT, FIN | ACK, b""), (IN, FIN | ACK, b""), (OUT, ACK, b"")), "TIME_WAIT", id="closed"),
    pytest.param((*TALK, (IN, RST | ACK, b"")), "CLOSE", id="reset"),
])
def test_tcp(both: Comparison, segments: tuple[tuple[bool, int, bytes], ...], state: str) -> None:
    for step in tcp(5000, *segments):
        both.step(step)
    (line,) = compare(both)
    assert line.startswith(f"{state} ")


def test_all_at_once(both: Comparison) -> None:
    """Each protocol, answered or not."""
    for step in (*tcp(5000, *TALK), *tcp(5001, *OPENED[:1])):
        both.step(step)
    for port in (5000, 5001):
        udp, ping = (Conversation(UDP, "172.17.0.2", port, ROUTER, 53), Conversation(ICMP, "172.17.0.3", port, ROUTER, 0))
        both.step(Segment(udp, OUT, payload=b"question"))
        both.step(Segment(ping, OUT, payload=b"x" * 56, query=ECHO))
        if port == 5000:
            both.step(Segment(udp, IN, payload=b"a longer answer"))
            both.step(Segment(ping, IN, payload=b"x" * 56, query=ECHO_REPLY))
    lines = compare(both)
    assert len(lines) == 6
    assert sum("[UNREPLIED]" in line for line in lines) == 3
    assert sum("[ASSURED]" in line for line in lines) == 1
