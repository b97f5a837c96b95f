"""Where natgw means to differ from Linux's nf_nat: each with the requirement it follows (docs/nat-behaviour.md) and a
predicate that is as narrow as can be. What differs and is not here is a bug.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from natgw.datapath import Verdict
from tests.kernel.addresses import EXTERNAL
from tests.kernel.packets import ACK, ICMP, PSH, RST, SYN, TCP, URG, Error, Segment, Step

_ETH = 14
_NOP, _END, _RECORD_ROUTE, _TIMESTAMP, _SOURCE_ROUTE, _ROUTER_ALERT = 1, 0, 7, 68, 131, 148
ECE, CWR = 0x40, 0x80


@dataclass(frozen=True)
class Emitted:
    """A frame that left a gateway."""

    side: str
    frame: bytes

    @property
    def l4(self) -> int:
        return _ETH + (self.frame[_ETH] & 0x0F) * 4

    @property
    def protocol(self) -> int:
        return self.frame[_ETH + 9]

    @property
    def fragment_offset(self) -> int:
        """In bytes."""
        return (int.from_bytes(self.frame[_ETH + 6 : _ETH + 8], "big") & 0x1FFF) * 8

    @property
    def icmp(self) -> tuple[int, int] | None:
        """Type and code of an ICMP message."""
        return (self.frame[self.l4], self.frame[self.l4 + 1]) if self.protocol == 1 else None


@dataclass(frozen=True)
class Case:
    """A step, what each gateway sent because of it, natgw's verdict (on the last frame), and what was before."""

    step: Step
    kernel: list[Emitted]
    natgw: list[Emitted]
    verdict: Verdict
    history: list[Case]


@dataclass(frozen=True)
class Difference:
    """`applies` is asked when what came out differs, and `silent` ones also when it does not: they leave the gateways in
    different states. `parts` says that from here on the conversation is not the same any more at both.
    """

    name: str
    requirement: str
    reason: str
    applies: Callable[[Case], bool]
    parts: bool = True
    silent: bool = False


# -- IP options (requirement G4: they pass) ----------------------------------------------------------------------------


def _option(case: Case) -> int:
    """The first option that is not padding, or 0."""
    return next((byte for byte in case.step.envelope.options[:4] if byte not in (_NOP, _END)), 0)


def _written_on_the_way(case: Case) -> bool:
    """Record route and timestamp."""
    return _option(case) in (_RECORD_ROUTE, _TIMESTAMP) and _alike(case, _without_options)


def _options_refused(case: Case) -> bool:
    answers = [(each.side, each.icmp) for each in case.kernel]
    expected = [] if isinstance(case.step, Error) else [(_arrival(case), (12, 0))]
    return _option(case) == _ROUTER_ALERT and case.step.envelope.options[1] != 4 and answers == expected


def _source_routed(case: Case) -> bool:
    return _option(case) == _SOURCE_ROUTE and not case.kernel


def _own_words(case: Case) -> bool:
    """Each copies another part of the IP header of what it answers."""
    own = all(each.side == _arrival(case) and each.protocol == ICMP for each in (*case.kernel, *case.natgw))
    envelope = case.step.envelope
    return own and bool(envelope.tos or envelope.options or envelope.df) and _alike(case, _without_copies)


# -- which is looked at first ------------------------------------------------------------------------------------------


def _refused_on_the_way(case: Case) -> bool:
    """A packet of a flow that is there is refused by natgw, its TTL or its size being what it is."""
    return isinstance(case.step, Segment) and case.verdict in (Verdict.ICMP_TIME_EXCEEDED, Verdict.ICMP_TOO_BIG,
                                                                  Verdict.DROP_TTL)


def _invalid_and_dying(case: Case) -> bool:
    """What is refused for its TTL or its size, and would be dropped for its flags or ICMP type too."""
    ours, theirs = ([(each.side, each.icmp) for each in sent] for sent in (case.natgw, case.kernel))
    refusals = [[(_arrival(case), icmp)] for icmp in ((11, 0), (3, 4))]
    judged = _is_tcp(case) or case.verdict is Verdict.DROP_ICMP_TYPE
    return judged and ((ours in refusals and not theirs) or (theirs in refusals and not ours))


# -- TCP ---------------------------------------------------------------------------------------------------------------


def _reset_judged_by_its_number(case: Case) -> bool:
    return _is_tcp(case) and bool(_flags(case) & RST) and isinstance(case.step, Segment) and case.step.seq != 0


def _forgotten_after_a_reset(case: Case) -> bool:
    """Before there was an answer the host sent a RST, and the kernel forgot the flow at once."""
    if case.step.conversation.protocol != TCP or case.kernel:
        return False
    answered = False
    for each in case.history:
        if each.step.conversation == case.step.conversation and each.natgw and isinstance(each.step, Segment):
            if each.step.flags & RST and not answered:
                return True
            answered = answered or each.step.inward
    return False


def _urgent(case: Case) -> bool:
    return _is_tcp(case) and not case.kernel and _flags(case) & ~(PSH | ECE | CWR) in (RST | URG, RST | ACK | URG,
                                                                                       SYN | ACK | URG)


# -- the rest ----------------------------------------------------------------------------------------------------------


def _other_queries(case: Case) -> bool:
    step = case.step
    return (isinstance(step, Segment) and step.conversation.protocol == ICMP and not step.inward
            and step.query in (13, 15, 17) and not case.natgw)


def _hairpin(case: Case) -> bool:
    conversation = case.step.conversation
    return (not case.step.inward and conversation.remote == EXTERNAL and conversation.protocol != ICMP
            and isinstance(case.step, Segment) and not case.kernel)


def _bad_quotation(case: Case) -> bool:
    return isinstance(case.step, Error) and case.step.spoilt == "quoted ip" and case.verdict is Verdict.DROP_ICMP_BAD


def _fragmented_ping(case: Case) -> bool:
    step = case.step
    return (isinstance(step, Segment) and bool(step.pieces) and step.conversation.protocol == ICMP and not case.natgw
            and [(each.side, each.icmp) for each in case.kernel] == [(_arrival(case), (0, 0))])


def _is_tcp(case: Case) -> bool:
    return isinstance(case.step, Segment) and case.step.conversation.protocol == TCP


def _flags(case: Case) -> int:
    return case.step.flags if isinstance(case.step, Segment) else 0


def _arrival(case: Case) -> str:
    return "outside" if case.step.inward else "inside"


def _alike(case: Case, edit: Callable[[bytes], bytes]) -> bool:
    ours, theirs = ([(each.side, edit(each.frame)) for each in sent] for sent in (case.natgw, case.kernel))
    return ours == theirs


def _without_options(frame: bytes) -> bytes:
    """Options, and the checksum over them, left out; their length stays."""
    return frame[: _ETH + 10] + frame[_ETH + 12 : _ETH + 20] + frame[_ETH + (frame[_ETH] & 0x0F) * 4 :]


def _without_copies(frame: bytes) -> bytes:
    """All of the IP header that copying and numbering changes left out."""
    return frame[:_ETH] + frame[_ETH + 8 : _ETH + 10] + frame[_ETH + 12 : _ETH + 20] + frame[_ETH + (frame[_ETH] & 0x0F) * 4 :]


DIFFERENCES: tuple[Difference, ...] = (
    Difference("refused packets count", "G1", "Linux advances a flow by a packet that it then refuses to send on (TTL, size). "
               "It never reached anybody, so natgw does not.", _refused_on_the_way, silent=True),
    Difference("refused or dropped", "G1", "natgw judges TTL and size of a packet of a flow before its flags, whichever way it "
               "goes, and those of the first of a flow after it; Linux does not translate invalid packets from outside, and so "
               "does not route them, and refuses those from inside before it drops them.", _invalid_and_dying),
    Difference("options written", "G4", "Linux writes to options that ask for it (record route, timestamp); natgw passes all.",
               _written_on_the_way, parts=False),
    Difference("options refused", "G4", "Linux answers options it cannot read with ICMP 12; natgw does not read them.",
               _options_refused),
    Difference("source route", "G4", "Linux drops what asks for a source route; natgw passes it as it is.", _source_routed),
    Difference("own words", "G6", "Linux copies type of service and options to the ICMP it makes; natgw sends errors with "
               "RFC 1349's default, and no options, and lets an echo reply have the request's DF.", _own_words, parts=False),
    Difference("reset by number", "T6", "Linux drops a RST whose number is before the window, and lets one inside of it pass "
               "without closing; natgw follows no numbers.", _reset_judged_by_its_number, silent=True),
    Difference("reset unanswered", "T6", "Linux forgets a flow at once when a RST comes before any answer; natgw keeps it for "
               "its time.", _forgotten_after_a_reset),
    Difference("urgent", "T8", "Linux holds RST+URG and SYN+ACK+URG to be invalid; to natgw URG says nothing.", _urgent),
    Difference("other queries", "I1", "Linux translates timestamp, information and address mask requests (13, 15, 17); natgw "
               "echo only.", _other_queries),
    Difference("hairpin", "U7", "natgw hairpins; Linux with a masquerade rule only takes the packet for its own.", _hairpin,
               silent=True),
    Difference("bad quotation", "I5", "Linux does not look at the checksum of the quoted IP header.", _bad_quotation,
               parts=False),
    Difference("fragmented ping", "U11", "Linux puts fragments together, and so answers a ping that comes in some; natgw does "
               "not.", _fragmented_ping),
)


@dataclass(frozen=True)
class StateDifference:
    """`applies` is given the cases of the conversation, the kernel's state and natgw's; None is no flow."""

    name: str
    requirement: str
    reason: str
    applies: Callable[[list[Case], str | None, str | None], bool]


def _flow_forgotten(cases: list[Case], kernel: str | None, natgw: str | None) -> bool:
    """A RST from inside passed before anything came back."""
    answered = False
    for case in cases:
        if case.natgw and isinstance(case.step, Segment) and case.step.conversation.protocol == TCP:
            if case.step.flags & RST and not answered:
                return kernel is None and natgw is not None
            answered = answered or case.step.inward
    return False


def _went_on_after_a_reset(cases: list[Case], kernel: str | None, natgw: str | None) -> bool:
    """A RST passed, and after it something other than a RST."""
    flags = [_flags(case) for case in cases if case.natgw and _is_tcp(case)]
    resets = [index for index, each in enumerate(flags) if each & RST]
    return kernel == "CLOSE" and natgw is not None and bool(resets) and any(not each & RST for each in flags[resets[0]:])


STATE_DIFFERENCES: tuple[StateDifference, ...] = (
    StateDifference("forgotten", "T6", "Linux forgets a flow at once when a RST comes before any answer; natgw keeps it for "
                    "its time.", _flow_forgotten),
    StateDifference("not closed", "T6", "A flow that goes on after a RST was not closed by it, to natgw; to Linux it is until "
                    "it expires, unless the side that sent the RST begins anew.", _went_on_after_a_reset),
)
