"""`natgw flows --conntrack` against what conntrack 1.4.7 printed of the same flows, and when a flow is assured."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP

from natgw.cli.output import conntrack_line
from natgw.testing import OUTSIDE, SimulatedGateway

C1, HOST, EXTERNAL = "10.1.0.2", "10.2.0.2", "10.2.0.1"


def record(protocol: str, timeout_s: int, state: str, ports: tuple[int, int], counts: tuple[int, int, int, int], *,
           assured: bool = False) -> dict[str, Any]:
    """A flow of a masqueraded host that kept its port."""
    sport, dport = ports
    original, original_bytes, reply, reply_bytes = counts
    return {"protocol": protocol, "state": state, "timeout_s": timeout_s, "assured": assured,
            "original": {"src": C1, "dst": HOST, "sport": sport, "dport": dport, "packets": original, "bytes": original_bytes},
            "reply": {"src": HOST, "dst": EXTERNAL, "sport": dport, "dport": sport, "packets": reply, "bytes": reply_bytes}}


@pytest.mark.parametrize(("flow", "line"), [
    (record("tcp", 431996, "ESTABLISHED", (43934, 80), (2, 112, 1, 60), assured=True),
     "tcp      6 431996 ESTABLISHED src=10.1.0.2 dst=10.2.0.2 sport=43934 dport=80 packets=2 bytes=112 src=10.2.0.2 "
     "dst=10.2.0.1 sport=80 dport=43934 packets=1 bytes=60 [ASSURED] mark=0 use=1"),
    (record("tcp", 116, "SYN_SENT", (51414, 80), (1, 60, 0, 0)),
     "tcp      6 116 SYN_SENT src=10.1.0.2 dst=10.2.0.2 sport=51414 dport=80 packets=1 bytes=60 [UNREPLIED] src=10.2.0.2 "
     "dst=10.2.0.1 sport=80 dport=51414 packets=0 bytes=0 mark=0 use=1"),
    (record("udp", 26, "REPLIED", (51796, 53), (1, 29, 1, 29)),
     "udp      17 26 src=10.1.0.2 dst=10.2.0.2 sport=51796 dport=53 packets=1 bytes=29 src=10.2.0.2 dst=10.2.0.1 sport=53 "
     "dport=51796 packets=1 bytes=29 mark=0 use=1"),
    (record("udp", 26, "UNREPLIED", (60714, 99), (1, 29, 0, 0)),
     "udp      17 26 src=10.1.0.2 dst=10.2.0.2 sport=60714 dport=99 packets=1 bytes=29 [UNREPLIED] src=10.2.0.2 dst=10.2.0.1 "
     "sport=99 dport=60714 packets=0 bytes=0 mark=0 use=1"),
    (record("udp", 118, "REPLIED", (51085, 53), (4, 116, 4, 116), assured=True),
     "udp      17 118 src=10.1.0.2 dst=10.2.0.2 sport=51085 dport=53 packets=4 bytes=116 src=10.2.0.2 dst=10.2.0.1 sport=53 "
     "dport=51085 packets=4 bytes=116 [ASSURED] mark=0 use=1"),
    (record("icmp", 27, "REPLIED", (19302, 19302), (1, 84, 1, 84)),
     "icmp     1 27 src=10.1.0.2 dst=10.2.0.2 type=8 code=0 id=19302 packets=1 bytes=84 src=10.2.0.2 dst=10.2.0.1 type=0 "
     "code=0 id=19302 packets=1 bytes=84 mark=0 use=1"),
], ids=["established", "syn-sent", "udp", "udp-unreplied", "udp-stream", "icmp"])
def test_lines_are_those_of_conntrack(flow: dict[str, Any], line: str) -> None:
    assert conntrack_line(flow) == line


# ---- assured ---------------------------------------------------------------------------------------------------------

REMOTE = "203.0.113.9"


class Talk:
    """A container that sends to one remote endpoint, and is answered at its external one."""

    def __init__(self, layer: type[TCP] | type[UDP]) -> None:
        self.gateway = SimulatedGateway()
        self.layer = layer
        self.port = 5000

    def out(self, **fields: Any) -> None:
        (arrived,) = self.gateway.send("c1", IP(dst=REMOTE, src="172.17.0.2") / self.layer(sport=5000, dport=80, **fields))
        self.port = arrived.packet[self.layer].sport

    def back(self, **fields: Any) -> None:
        source = IP(src=REMOTE, dst=self.gateway.external[0])
        (arrived,) = self.gateway.send(OUTSIDE, source / self.layer(sport=80, dport=self.port, **fields))
        assert arrived.to == "c1"

    @property
    def assured(self) -> bool:
        (flow,) = self.gateway.flows()
        return bool(flow["assured"])


def test_tcp_is_assured_once_established() -> None:
    talk = Talk(TCP)
    seen = []
    for send, flags in ((talk.out, "S"), (talk.back, "SA"), (talk.out, "A"), (talk.out, "FA"), (talk.back, "FA"),
                        (talk.out, "A")):
        send(flags=flags)
        seen.append(talk.assured)
    assert seen == [False, False, True, True, True, True]


def test_tcp_that_was_established_and_reset_stays_assured() -> None:
    talk = Talk(TCP)
    for send, flags in ((talk.out, "S"), (talk.back, "SA"), (talk.out, "A"), (talk.back, "RA")):
        send(flags=flags)
    assert talk.gateway.flows()[0]["state"] == "CLOSE"
    assert talk.assured


def test_tcp_that_was_refused_is_not() -> None:
    talk = Talk(TCP)
    talk.out(flags="S")
    talk.out(flags="S")
    talk.back(flags="RA")
    assert talk.gateway.flows()[0]["state"] == "CLOSE"
    assert not talk.assured


def test_tcp_picked_up_is_assured_when_answered() -> None:
    talk = Talk(TCP)
    talk.out(flags="A")
    assert not talk.assured
    talk.back(flags="A")
    assert talk.assured


def test_udp_is_assured_when_it_goes_on_both_ways() -> None:
    talk = Talk(UDP)
    talk.out()
    talk.gateway.advance(3)
    talk.out()
    assert not talk.assured, "nobody has answered"
    talk.back()
    assert talk.assured


def test_udp_that_was_answered_at_once_is_not() -> None:
    talk = Talk(UDP)
    talk.out()
    talk.back()
    talk.gateway.advance(3)
    assert not talk.assured
    talk.out()
    assert talk.assured


def test_icmp_never_is() -> None:
    gateway = SimulatedGateway()
    for _ in range(2):
        gateway.send("c1", IP(src="172.17.0.2", dst=REMOTE) / ICMP(id=7))
        (flow,) = gateway.flows()
        gateway.send(OUTSIDE, IP(src=REMOTE, dst=gateway.external[0]) / ICMP(type=0, id=flow["reply"]["dport"]))
        gateway.advance(3)
    assert gateway.flows()[0]["reply"]["packets"] == 2
    assert gateway.flows()[0]["assured"] is False
