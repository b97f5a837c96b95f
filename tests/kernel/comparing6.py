"""The same steps of IPv6 through both gateways, and what came out compared byte for byte.

As comparing.py does it, but for what IPv6 does not have (identifications, fragments made on the way), and without the states.
Where natgw means to differ is listed here, each difference with its requirement.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from natgw.datapath import Verdict
from natgw.wire.checksum import adjust, checksum, delta, pseudo_sum
from tests.kernel.addresses6 import EXTERNAL6
from tests.kernel.comparing import STALLED_S, Tally, port_at, shared
from tests.kernel.kernel_gateway6 import KernelGateway6
from tests.kernel.natgw_gateway6 import NatgwGateway6
from tests.kernel.packets import ACK, PSH, RST, SYN, TCP, UDP, URG, Conversation, Error, Segment, Step
from tests.kernel.packets6 import CHECKSUM_AT, ICMPV6, frames6

_IP = 14
_EXTENSIONS = (0, 43, 60)
_QUERIES = (128, 129)
_OWN = socket.inet_pton(socket.AF_INET6, EXTERNAL6)


@dataclass(frozen=True)
class Emitted6:
    """A frame that left a gateway."""

    side: str
    frame: bytes

    @property
    def upper(self) -> tuple[int, int]:
        """The protocol, and where its header lies."""
        return upper(self.frame, _IP)

    @property
    def icmp(self) -> tuple[int, int] | None:
        protocol, at = self.upper
        return (self.frame[at], self.frame[at + 1]) if protocol == ICMPV6 else None


def upper(data: bytes | bytearray, start: int) -> tuple[int, int]:
    """The transport protocol of the IPv6 packet at `start`, and where its header lies."""
    protocol, at = data[start + 6], start + 40
    while protocol in _EXTENSIONS and at + 2 <= len(data):
        protocol, at = data[at], at + 8 + data[at + 1] * 8
    return protocol, at


@dataclass(frozen=True)
class Case6:
    """A step, what each gateway sent because of it, and natgw's verdict."""

    step: Step
    kernel: list[Emitted6]
    natgw: list[Emitted6]
    verdict: Verdict
    history: list[Case6]
    states: frozenset[str]
    """Of natgw's TCP flows that packets of this conversation can mean, after the step."""

    @property
    def arrival(self) -> str:
        return "outside" if self.step.inward else "inside"

    @property
    def is_tcp(self) -> bool:
        return isinstance(self.step, Segment) and self.step.conversation.protocol == TCP

    @property
    def flags(self) -> int:
        return self.step.flags if isinstance(self.step, Segment) and self.is_tcp else 0


@dataclass(frozen=True)
class Difference6:
    """As `differences.Difference`. From there on the conversation is not the same at both."""

    name: str
    requirement: str
    reason: str
    applies: Callable[[Case6], bool]
    silent: bool = False


def _reset(case: Case6) -> bool:
    return bool(case.flags & RST) and bool(case.natgw)


def _reset_refused(case: Case6) -> bool:
    return bool(case.flags & RST) and not case.kernel


def _urgent(case: Case6) -> bool:
    return not case.kernel and case.flags & ~(PSH | 0xC0) in (RST | URG, RST | ACK | URG, SYN | ACK | URG)


def _refused_on_the_way(case: Case6) -> bool:
    refused = (Verdict.ICMP_TIME_EXCEEDED, Verdict.ICMP_TOO_BIG, Verdict.DROP_TTL)
    return isinstance(case.step, Segment) and case.verdict in refused


def _invalid_and_dying(case: Case6) -> bool:
    ours, theirs = ([(each.side, each.icmp) for each in sent] for sent in (case.natgw, case.kernel))
    refusals = [[(case.arrival, icmp)] for icmp in ((3, 0), (2, 0))]
    return (case.is_tcp or case.verdict is Verdict.DROP_ICMP_TYPE) and (
        (ours in refusals and not theirs) or (theirs in refusals and not ours))


def _ended_from_outside(case: Case6) -> bool:
    return case.step.inward and not case.natgw and case.flags & (SYN | ACK) == SYN and "TIME_WAIT" in case.states


def _answer_too_large(case: Case6) -> bool:
    return case.verdict is Verdict.DROP_TOO_BIG and not case.natgw and len(case.kernel) > 1 and isinstance(
        case.step, Segment) and case.step.conversation.protocol == ICMPV6


DIFFERENCES6: tuple[Difference6, ...] = (
    Difference6("reset", "T6", "What a RST does to a flow differs in ways that differences.py lists.", _reset, silent=True),
    Difference6("reset refused", "T6", "Linux drops a RST whose number is before the window; to natgw it closes nothing.",
                _reset_refused),
    Difference6("urgent", "T8", "Linux holds RST+URG and SYN+ACK+URG to be invalid; to natgw URG says nothing.", _urgent),
    Difference6("refused packets count", "G1", "Linux advances a flow by a packet that it then refuses to send on (hop limit, "
                "size); natgw does not.", _refused_on_the_way, silent=True),
    Difference6("refused or dropped", "G1", "Which is looked at first, flags or the hop limit and size, as in differences.py.",
                _invalid_and_dying),
    Difference6("ended from outside", "T8", "To Linux a SYN from outside ends a flow in TIME_WAIT, as in differences.py.",
                _ended_from_outside, silent=True),
    Difference6("answer too large", "G6", "Linux fragments its answer to a ping that is larger than the link it came by; natgw "
                "makes no fragments of IPv6.", _answer_too_large),
)


class Comparison6:
    """One sequence of steps through a kernel gateway without flows and a new natgw."""

    def __init__(self, kernel: KernelGateway6, tally: Tally) -> None:
        self.kernel = kernel
        self.natgw = NatgwGateway6()
        self.tally = tally
        self.history: list[Case6] = []
        self._ports: dict[str, dict[Conversation, int]] = {"kernel": {}, "natgw": {}}
        self._apart: set[tuple[int, int, str, int]] = set()
        self._began = time.monotonic()
        kernel.flush()

    @property
    def stalled(self) -> bool:
        """Whether so much time has passed that Linux may have ended flows."""
        return time.monotonic() - self._began > STALLED_S

    def step(self, step: Step) -> None:
        """Send a step through both. Raises AssertionError if what comes out differs, and is not meant to."""
        conversation = step.conversation
        if shared(conversation) in self._apart:
            return
        side, opposite = ("outside", "inside") if step.inward else ("inside", "outside")
        sent = {}
        for name, gateway in (("kernel", self.kernel), ("natgw", self.natgw)):
            port = port_at(self._ports, name, conversation)
            sent[name] = [Emitted6(*each) for each in gateway.send(side, frames6(step, port))]
            self._learn(name, step, sent[name])
        ports = {name: port_at(self._ports, name, conversation) for name in sent}
        kernel, natgw = ([self._normal(each, ports[name], ports["kernel"] != ports["natgw"]) for each in sent[name]]
                         for name in sent)
        case = Case6(step, kernel, natgw, self.natgw.verdict, self.history, self._states(conversation))
        found = [each for each in DIFFERENCES6 if (each.silent or kernel != natgw) and each.applies(case)]
        if kernel == natgw:
            kind = "error" if isinstance(step, Error) else {TCP: "tcp", UDP: "udp", ICMPV6: "icmp"}[conversation.protocol]
            through = any(each.side == opposite for each in kernel)
            name = f"{kind} {'in' if step.inward else 'out'}" if through or not kernel else "answered"
            (self.tally.same if kernel else self.tally.dropped)[name] += 1
        elif not found:
            raise AssertionError(_describe(case))
        for difference in found:
            self.tally.different[difference.name] += 1
            self._apart.add(shared(conversation))
        self.history.append(case)

    def _states(self, conversation: Conversation) -> frozenset[str]:
        legs: list[tuple[Any, str]] = [(flow["original"], str(flow["state"]))
                                       for flow in self.natgw.datapath.flow_records(self.natgw.now)]
        return frozenset(state for leg, state in legs if conversation.protocol == TCP and (
            leg["sport"], leg["dst"], leg["dport"]) == (conversation.port, conversation.remote, conversation.remote_port))

    def _learn(self, gateway: str, step: Step, sent: list[Emitted6]) -> None:
        if isinstance(step, Segment) and not step.inward:
            for each in sent:
                protocol, at = each.upper
                if each.side == "outside":
                    at += 4 if protocol == ICMPV6 else 0
                    self._ports[gateway][step.conversation] = int.from_bytes(each.frame[at : at + 2], "big")

    def _normal(self, sent: Emitted6, port: int, apart: bool) -> Emitted6:
        """The frame with the external port at zero, if the gateways chose differently. A fragment is Linux's own answer."""
        if not apart or sent.side == "inside" or sent.upper[0] not in CHECKSUM_AT:
            return sent
        frame = bytearray(sent.frame)
        _forget_port(frame, _IP, port)
        return Emitted6(sent.side, bytes(frame))


def _forget_port(frame: bytearray, start: int, port: int) -> None:
    protocol, at = upper(frame, start)
    if protocol == ICMPV6 and frame[at] not in _QUERIES:
        assert checksum(pseudo_sum(bytes(frame[start + 8 : start + 40]), ICMPV6, len(frame) - at).to_bytes(2, "big"),
                        frame[at:]) == 0
        frame[at + 2 : at + 4] = b"\0\0"
        _forget_port(frame, at + 8, port)
        return
    src, dst = frame[start + 8 : start + 24], frame[start + 24 : start + 40]
    places = [at + 4] if protocol == ICMPV6 else [at] * (src == _OWN) + [at + 2] * (dst == _OWN)
    field = at + CHECKSUM_AT[protocol]
    for place in places:
        assert int.from_bytes(frame[place : place + 2], "big") == port, "neither the conversation's port nor none"
        change = delta(bytes(frame[place : place + 2]), b"\0\0")
        frame[place : place + 2] = b"\0\0"
        if field + 2 <= len(frame):
            old = int.from_bytes(frame[field : field + 2], "big")
            frame[field : field + 2] = (adjust(old, change) % 0xFFFF).to_bytes(2, "big")


def _describe(case: Case6) -> str:
    lines = [f"{case.step}", f"natgw: {case.verdict.label}"]
    for name, sent in (("Linux", case.kernel), ("natgw", case.natgw)):
        lines += [f"{name} sent {each.side}: {each.frame[:_IP].hex()} {each.frame[_IP:].hex()}" for each in sent]
        if not sent:
            lines.append(f"{name} sent nothing")
    return "\n".join([*lines, "before:", *(f"    {each.step}" for each in case.history)])
