"""A client asks a server for a job that takes a while, over UDP, and asks again until the answer comes.

Everything works in the lab. Behind a NAT whose mappings end after 30 seconds of silence the first server never gets its answer
through, since it takes what comes again for a duplicate and forgets to look where it comes from by now.

    pytest docs/examples/test_retry.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP

from natgw.datapath import PRESETS, NatConfig, Timeouts
from natgw.testing import Delivery, SimulatedGateway
from natgw.testing.strategies import nat_configs

SERVER, PORT = "203.0.113.9", 4000
FIRST_RETRY_S, LAST_RETRY_S = 1, 32
Endpoint = tuple[str, int]


@dataclass
class Server:
    """Answers to where it was asked from first. This is the bug."""

    job_s: float
    asked_by: Endpoint | None = None
    began: float = 0.0

    def hears(self, asker: Endpoint, now: float) -> None:
        if self.asked_by is None:
            self.asked_by, self.began = asker, now

    def answers(self, now: float) -> Endpoint | None:
        """Whom to send the answer to, if it is ready."""
        return self.asked_by if self.asked_by and now >= self.began + self.job_s else None


@dataclass
class BetterServer(Server):
    """Answers to where it was asked from last."""

    def hears(self, asker: Endpoint, now: float) -> None:
        super().hears(asker, now)
        self.asked_by = asker


def is_answered(server: Server, nat: NatConfig, within_s: int = 240) -> bool:
    """The client's life: ask, wait twice as long each time, ask again; whether the answer ever gets through."""
    gateway = SimulatedGateway(nat, containers=["client"])
    question = IP(src=gateway.containers["client"], dst=SERVER) / UDP(sport=5000, dport=PORT) / b"please"
    next_ask, wait_s = 0.0, FIRST_RETRY_S
    while gateway.now < within_s:
        arrived: list[Delivery] = []
        if gateway.now >= next_ask:
            arrived += gateway.send("client", question)
            next_ask, wait_s = gateway.now + wait_s, min(2 * wait_s, LAST_RETRY_S)
        for each in arrived:
            server.hears((each.packet.src, each.packet.sport), gateway.now)
        to = server.answers(gateway.now)
        if to is not None and gateway.send("outside", IP(src=SERVER, dst=to[0]) / UDP(sport=PORT, dport=to[1]) / b"done"):
            return True
        gateway.advance(1)
    return False


SHORT = replace(PRESETS["symmetric"], timeouts=Timeouts(udp_s=30))


@pytest.mark.parametrize("make", [Server, BetterServer])
def test_in_the_lab_both_work(make: Callable[[float], Server]) -> None:
    assert is_answered(make(90), PRESETS["full-cone"])


def test_a_mapping_that_ends_shows_the_bug() -> None:
    assert not is_answered(Server(90), SHORT)


def test_the_repaired_one_is_answered() -> None:
    assert is_answered(BetterServer(90), SHORT)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(nat=nat_configs(), job_s=st.integers(0, 120))
def test_the_repaired_one_is_answered_behind_any_nat(nat: NatConfig, job_s: int) -> None:
    assert is_answered(BetterServer(job_s), nat)
