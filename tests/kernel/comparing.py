"""The same steps through both gateways, and what came out compared byte for byte.

What may differ without being a difference: which external port a flow got (each gateway's is put at zero, with the checksums
that follow from it, where they did not choose alike), and the IP identification of packets a gateway makes itself. A packet
that came in fragments is compared put together: where it is cut again is each gateway's own business.

After each packet the state of its conversation is compared as well, so that a difference shows where it begins.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from natgw.wire.checksum import adjust, checksum, delta, ones_sum
from natgw.wire.ipv4 import PROTOCOL_NUMBERS
from tests.kernel.addresses import EXTERNAL
from tests.kernel.differences import DIFFERENCES, STATE_DIFFERENCES, Case, Emitted, States
from tests.kernel.kernel_gateway import KernelGateway
from tests.kernel.natgw_gateway import NatgwGateway
from tests.kernel.packets import ICMP, TCP, UDP, Conversation, Error, Segment, Step, frames

_ETH = 14
_CHECKSUM_AT = {TCP: 16, UDP: 6, ICMP: 2}
_QUERIES = (0, 8, 13, 14, 15, 16, 17, 18)
STALLED_S = 5.0
"""Half of the shortest time that Linux lets a flow live. Its clock is the machine's, and goes on while a busy one stands still:
what took longer than this says nothing."""


@dataclass
class Tally:
    """What the comparisons saw: `same` counts packets that both let through alike, by what they were; `dropped` those that
    neither did; `states` flows in the same state at both; `different` the intended differences, by name; `stalled` the
    sequences that took too long to say anything."""

    same: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    different: Counter[str] = field(default_factory=Counter)
    stalled: int = 0


class Stepwise(Protocol):
    """A comparison by either version of IP."""

    tally: Tally

    @property
    def stalled(self) -> bool: ...

    def step(self, step: Step) -> None: ...


def follow(comparison: Stepwise, steps: Iterable[Step]) -> None:
    """Take a sequence's steps. What differs in one that took too long is counted as stalled. Raises AssertionError."""
    try:
        for step in steps:
            comparison.step(step)
    except AssertionError:
        if not comparison.stalled:
            raise
        comparison.tally.stalled += 1


class Comparison:
    """One sequence of steps through a kernel gateway without flows and a new natgw."""

    def __init__(self, kernel: KernelGateway, tally: Tally) -> None:
        self.kernel = kernel
        self.natgw = NatgwGateway()
        self.tally = tally
        self.history: list[Case] = []
        self._ports: dict[str, dict[Conversation, int]] = {"kernel": {}, "natgw": {}}
        self._apart: set[tuple[int, int, str, int]] = set()
        self._states: dict[Conversation, str | None] = {}
        self._answered: set[Conversation] = set()
        self._past: dict[Conversation, tuple[str | None, ...]] = {}
        self._began = time.monotonic()
        kernel.flush()

    @property
    def elapsed_s(self) -> float:
        """How long it goes on, by the machine's clock."""
        return time.monotonic() - self._began

    @property
    def stalled(self) -> bool:
        """Whether so much time has passed that Linux may have ended flows."""
        return self.elapsed_s > STALLED_S

    def external_port(self, gateway: str, conversation: Conversation) -> int:
        """The external port a conversation has at a gateway: its own until one is seen."""
        return port_at(self._ports, gateway, conversation)

    def step(self, step: Step) -> None:
        """Send a step through both. Raises AssertionError if what comes out differs, and is not meant to."""
        conversation = step.conversation
        if shared(conversation) in self._apart:
            return
        step = self._numbered(step)
        side = "outside" if step.inward else "inside"
        # What a gateway says itself it may cut as it likes, and what came in fragments too.
        whole = {"inside", "outside"} if isinstance(step, Segment) and step.pieces else {side}
        sent = {}
        for name, gateway in (("kernel", self.kernel), ("natgw", self.natgw)):
            out = gateway.send(side, frames(step, self.external_port(name, conversation)))
            sent[name] = [Emitted(each, frame) for each, frame in _put_together(out, whole)]
            self._learn(name, step, sent[name])
        kernel, natgw = self._normal("kernel", step, sent["kernel"]), self._normal("natgw", step, sent["natgw"])
        case = Case(step, [Emitted(*each) for each in kernel], [Emitted(*each) for each in natgw], self.natgw.verdict,
                    self.history)
        same = kernel == natgw
        differences = [each for each in DIFFERENCES if (each.silent or not same) and each.applies(case)]
        if same:
            (self.tally.same if kernel else self.tally.dropped)[_name(step, kernel)] += 1
        elif not differences:
            raise AssertionError(_describe(case, kernel, natgw))
        for difference in differences:
            self.tally.different[difference.name] += 1
            if difference.parts:
                self._apart.add(shared(conversation))
        self.history.append(case)
        self._compare_state(case)

    def _compare_state(self, case: Case) -> None:
        """Compare what both think of a conversation that has not parted. Raises AssertionError if they do not agree."""
        conversation = case.step.conversation
        if shared(conversation) in self._apart or conversation.remote == EXTERNAL:
            return
        kernel = {_conversation(entry.protocol, *entry.original): entry.state for entry in self.kernel.entries()}
        ours = {}
        for flow in self.natgw.datapath.flow_records(self.natgw.now):
            leg: Any = flow["original"]
            ours[_conversation(str(flow["protocol"]), leg["src"], leg["dst"], leg["sport"], leg["dport"])] = str(flow["state"])
        # What comes from outside may have been for another conversation that looks the same there.
        for each in {past.step.conversation: None for past in self.history}:
            if shared(each) != shared(conversation):
                continue
            states = States(each, self._states.get(each), kernel.get(each), ours.get(each), each in self._answered,
                            self._past.get(each, ()))
            if states.kernel == states.natgw:
                self._states[each] = states.natgw
                began = states.natgw == "SYN_SENT" != states.before
                if began:
                    self._answered.discard(each)  # a new flow, with the ports of an old one
                self._past[each] = (*(() if began else states.past), states.natgw)
                self.tally.states[str(states.natgw)] += 1
                continue
            difference = next((one for one in STATE_DIFFERENCES if one.applies(case, states)), None)
            if difference is None:
                raise AssertionError(f"{states}\n" + "\n".join(
                    f"    {past.step}" for past in self.history))
            self.tally.different[difference.name] += 1
            self._apart.add(shared(conversation))
        self._answered.update(_goes_to(each) for each in case.natgw if each.side == "inside")

    def _numbered(self, step: Step) -> Step:
        """Fragments of two packets must not have one identification (RFC 6864 section 4.3)."""
        if not isinstance(step, Segment) or not step.pieces:
            return step
        return replace(step, envelope=replace(step.envelope, ident=2000 + len(self.history)))

    def _learn(self, gateway: str, step: Step, sent: list[Emitted]) -> None:
        if isinstance(step, Segment) and not step.inward:
            for each in sent:
                if each.side == "outside" and not each.fragment_offset:
                    at = each.l4 + (4 if each.protocol == ICMP else 0)
                    self._ports[gateway][step.conversation] = int.from_bytes(each.frame[at : at + 2], "big")

    def _normal(self, gateway: str, step: Step, sent: list[Emitted]) -> list[tuple[str, bytes]]:
        ports = {name: self.external_port(name, step.conversation) for name in ("kernel", "natgw")}
        made = []
        for each in sent:
            frame = bytearray(each.frame)
            if each.side == ("outside" if step.inward else "inside"):
                _forget_ident(frame)
            if ports["kernel"] != ports["natgw"] and each.side == "outside" and not each.fragment_offset:
                _forget_port(frame, _ETH, ports[gateway])
            made.append((each.side, bytes(frame)))
        return made


def port_at(ports: dict[str, dict[Conversation, int]], gateway: str, conversation: Conversation) -> int:
    """The external port of a conversation, of those seen at each gateway; its own until one is seen.

    But if its own is at one of the gateways that of another conversation, which the same packets from outside can mean, and
    at the other that has another port, then a packet to it would not be the same at both: it is meant for the other one.
    """
    if conversation in ports[gateway]:
        return ports[gateway][conversation]
    for each, port in ports[gateway].items():
        seen = {known.get(each) for known in ports.values()}
        if shared(each) == shared(conversation) and conversation.port in seen and len(seen) > 1:
            return port
    return conversation.port


def shared(conversation: Conversation) -> tuple[int, int, str, int]:
    """What the conversations have in common that the same packets from outside can mean: if one parts, so may the others."""
    return conversation.protocol, conversation.port, conversation.remote, conversation.remote_port


def _conversation(protocol: str, src: str, dst: str, sport: int, dport: int) -> Conversation:
    return Conversation(PROTOCOL_NUMBERS[protocol], src, sport, dst, 0 if protocol == "icmp" else dport)


def _goes_to(sent: Emitted) -> Conversation:
    """The conversation of a packet that was sent inside."""
    frame, at = sent.frame, sent.l4
    src, dst = socket.inet_ntoa(frame[_ETH + 12 : _ETH + 16]), socket.inet_ntoa(frame[_ETH + 16 : _ETH + 20])
    return Conversation(sent.protocol, dst, int.from_bytes(frame[at + 2 : at + 4], "big"), src,
                        int.from_bytes(frame[at : at + 2], "big"))


def _forget_ident(frame: bytearray) -> None:
    """A gateway numbers its own packets as it likes."""
    header = (frame[_ETH] & 0x0F) * 4
    assert ones_sum(frame[_ETH : _ETH + header]) == 0xFFFF
    frame[_ETH + 4 : _ETH + 6] = frame[_ETH + 10 : _ETH + 12] = b"\0\0"


def _forget_port(frame: bytearray, start: int, port: int) -> None:
    """Put the external port of the packet at `start`, and of one it quotes, at zero, and the checksums right after that."""
    header, protocol = (frame[start] & 0x0F) * 4, frame[start + 9]
    l4 = start + header
    if protocol == ICMP and frame[l4] not in _QUERIES:
        assert ones_sum(frame[l4:]) == 0xFFFF
        frame[l4 + 2 : l4 + 4] = b"\0\0"
        _forget_port(frame, l4 + 8, port)
        return
    if protocol == ICMP:
        places = [l4 + 4]
    else:
        own = [l4] if frame[start + 12 : start + 16] == socket.inet_aton(EXTERNAL) else []
        places = own + ([l4 + 2] if frame[start + 16 : start + 20] == socket.inet_aton(EXTERNAL) else [])
    at = l4 + _CHECKSUM_AT[protocol]
    for place in places:
        assert int.from_bytes(frame[place : place + 2], "big") == port, "neither the conversation's port nor none"
        change = delta(frame[place : place + 2], b"\0\0")
        frame[place : place + 2] = b"\0\0"
        old = int.from_bytes(frame[at : at + 2], "big")
        if len(frame) >= at + 2 and not (protocol == UDP and old == 0):
            frame[at : at + 2] = (adjust(old, change) % 0xFFFF).to_bytes(2, "big")


def _put_together(sent: list[tuple[str, bytes]], sides: set[str]) -> list[tuple[str, bytes]]:
    """Fragments at some sides as the packets they are parts of. Raises AssertionError if one is not all there."""
    parts: dict[tuple[str, bytes], list[bytes]] = {}
    made: list[tuple[str, bytes]] = []
    for side, frame in sent:
        if side in sides and int.from_bytes(frame[_ETH + 6 : _ETH + 8], "big") & 0x3FFF:
            parts.setdefault((side, frame[_ETH + 4 : _ETH + 6] + frame[_ETH + 9 : _ETH + 10] + frame[_ETH + 12 : _ETH + 20]),
                             []).append(frame)
        else:
            made.append((side, frame))
    for (side, _), pieces in parts.items():
        pieces.sort(key=lambda frame: int.from_bytes(frame[_ETH + 6 : _ETH + 8], "big") & 0x1FFF)
        first, body = pieces[0], b""
        header = (first[_ETH] & 0x0F) * 4
        for piece in pieces:
            fragment = int.from_bytes(piece[_ETH + 6 : _ETH + 8], "big")
            own_header = (piece[_ETH] & 0x0F) * 4
            assert ones_sum(piece[_ETH : _ETH + own_header]) == 0xFFFF
            assert (fragment & 0x1FFF) * 8 == len(body), "a fragment is missing or overlaps"
            body += piece[_ETH + own_header :]
        assert not fragment & 0x2000, "the last fragment is missing"
        whole = bytearray(first[: _ETH + header])
        whole[_ETH + 2 : _ETH + 4] = (header + len(body)).to_bytes(2, "big")
        whole[_ETH + 6 : _ETH + 8] = (fragment & 0x4000).to_bytes(2, "big")
        whole[_ETH + 10 : _ETH + 12] = b"\0\0"
        whole[_ETH + 10 : _ETH + 12] = checksum(whole[_ETH:]).to_bytes(2, "big")
        made.append((side, bytes(whole) + body))
    return made


def _name(step: Step, sent: list[tuple[str, bytes]]) -> str:
    """What kind of packet this was, for the counts."""
    if isinstance(step, Error):
        return f"error {'in' if step.inward else 'out'}"
    protocol = {ICMP: "icmp", TCP: "tcp", UDP: "udp"}[step.conversation.protocol]
    opposite = "inside" if step.inward else "outside"
    if sent and sent[0][0] != opposite:
        return "answered"
    return f"{protocol} {'in' if step.inward else 'out'}"


def _describe(case: Case, kernel: list[tuple[str, bytes]], natgw: list[tuple[str, bytes]]) -> str:
    lines = [f"{case.step}", f"natgw: {case.verdict.label}"]
    for name, sent in (("Linux", kernel), ("natgw", natgw)):
        lines += [f"{name} sent {side}: {frame[:_ETH].hex()} {frame[_ETH:].hex()}" for side, frame in sent]
        if not sent:
            lines.append(f"{name} sent nothing")
    lines.append("before:")
    lines += [f"    {each.step}" for each in case.history]
    return "\n".join(lines)
