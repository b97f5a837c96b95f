"""Where natgw means to differ from Linux's nf_nat: each with the requirement it follows (docs/nat-behaviour.md) and a
predicate that is as narrow as can be. What differs and is not here is a bug.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from natgw.datapath import Verdict
from tests.kernel.addresses import EXTERNAL
from tests.kernel.packets import ACK, ICMP, PSH, RST, SYN, TCP, URG, Conversation, Error, Segment, Step

_ETH = 14
_NOP, _END, _RECORD_ROUTE, _TIMESTAMP, _SOURCE_ROUTE, _ROUTER_ALERT = 1, 0, 7, 68, 131, 148
ECE, CWR = 0x40, 0x80
_WINDOW = 65535
"""What every segment here tells of it, and no SYN scales."""


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


def _reset_refused_by_its_number(case: Case) -> bool:
    return _is_tcp(case) and _flags(case) & (RST | URG) == RST and not case.kernel


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
    Difference("reset refused", "T6", "Linux drops a RST whose number is before the window; to natgw it closes nothing, and is "
               "its receiver's to judge.", _reset_refused_by_its_number),
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
class States:
    """The state of a conversation, as conntrack names it: before a packet at both gateways, and after it at each. None is no
    flow. The packet may have been one of another conversation, which looks the same from outside. `answered` says that
    something had come back before it, `past` which states the flow had been in by then.
    """

    conversation: Conversation
    before: str | None
    kernel: str | None
    natgw: str | None
    answered: bool
    past: tuple[str | None, ...]

    @property
    def change(self) -> tuple[str | None, str | None, str | None]:
        return self.before, self.kernel, self.natgw


@dataclass(frozen=True)
class StateDifference:
    """`applies` is given the last packet, at which the states parted. From here on the conversation is not the same at both."""

    name: str
    requirement: str
    reason: str
    applies: Callable[[Case, States], bool]


def _forgotten(case: Case, states: States) -> bool:
    return bool(_flags(case) & RST) and not states.answered and (states.kernel, states.natgw) == (None, "CLOSE")


def _reset_in_window(case: Case, states: States) -> bool:
    places = [_place_in_window(case, states.conversation, since_syn=since) for since in (False, True)]
    return (bool(_flags(case) & RST) and states.natgw == "CLOSE" and states.kernel == states.before
            and any(place is None or 0 <= place < _WINDOW for place in places))


def _reset_outside_window(case: Case, states: States) -> bool:
    place = _place_in_window(case, states.conversation)
    return (bool(_flags(case) & RST) and states.natgw == states.before and states.kernel in ("CLOSE", None)
            and place is not None and not 0 <= place < _WINDOW)


def _place_in_window(case: Case, conversation: Conversation, *, since_syn: bool = False) -> int | None:
    """How far a segment's number is from the last that its receiver acknowledged; None if it has acknowledged nothing, or, if
    `since_syn`, nothing since the host began a connection."""
    assert isinstance(case.step, Segment)
    for each in reversed(case.history[:-1]):
        step, theirs = each.step, each.step.conversation
        if (not isinstance(step, Segment) or (not step.inward and theirs != conversation) or not any(
                sent.side != _arrival(each) for sent in each.natgw) or theirs.protocol != TCP or step.flags & RST
                or (theirs.port, theirs.remote, theirs.remote_port)
                != (conversation.port, conversation.remote, conversation.remote_port)):
            continue
        if step.inward != case.step.inward:
            return case.step.seq - step.ack if step.flags & ACK else None
        if since_syn and step.flags & (SYN | ACK) == SYN:
            return None
    return None


def _ended_from_outside(case: Case, states: States) -> bool:
    return (states.change == ("TIME_WAIT", None, "TIME_WAIT") and case.step.inward and not case.natgw
            and _flags(case) & (SYN | ACK) == SYN)


def _went_on(case: Case, states: States) -> bool:
    return _flags(case) & (SYN | RST | ACK) == ACK and states.change == ("CLOSE", "CLOSE", "ESTABLISHED")


def _began_anew(case: Case, states: States) -> bool:
    """The kernel lets the side begin anew that sent the RST, if the flow was not closed before."""
    return _flags(case) & (SYN | ACK) == SYN and not case.step.inward and states.change == ("CLOSE", "CLOSE", "SYN_SENT")


def _taken_over(case: Case, states: States) -> bool:
    """SYN+ACK from outside, and the last from the host was a SYN that changed nothing."""
    syns = [_flags(each) & (SYN | ACK) == SYN for each in case.history[:-1]
            if each.step.conversation == case.step.conversation and not each.step.inward and each.natgw]
    return (case.step.inward and _flags(case) & (SYN | ACK) == SYN | ACK and any(syns) and states.kernel == "SYN_RECV"
            and states.natgw == states.before)


def _challenged(case: Case, states: States) -> bool:
    last = next((each for each in reversed(case.history[:-1]) if each.natgw and _is_tcp(each)), None)
    return (last is not None and _flags(last) & (SYN | ACK) == SYN and not last.step.inward and case.step.inward
            and _flags(case) & (SYN | ACK) == ACK and states.change == ("LAST_ACK", "LAST_ACK", "TIME_WAIT"))


def _opened_from_both_sides(case: Case, states: States) -> bool:
    return ("SYN_SENT2" in states.past and case.step.inward and _flags(case) & (SYN | ACK) == ACK
            and states.change == ("SYN_RECV", "ESTABLISHED", "SYN_RECV"))


STATE_DIFFERENCES: tuple[StateDifference, ...] = (
    StateDifference("forgotten", "T6", "Linux forgets a flow at once when there is no answer before a RST; natgw keeps it for "
                    "its time.", _forgotten),
    StateDifference("reset in the window", "T6", "Linux lets a RST pass whose number is not the next one, but does not close "
                    "the flow; to natgw any number in the window closes it.", _reset_in_window),
    StateDifference("reset outside the window", "T6", "Linux judges the number in ESTABLISHED alone, and where it has seen the "
                    "SYNs; natgw in each state, by what it has seen.", _reset_outside_window),
    StateDifference("ended from outside", "T8", "To Linux a SYN from outside ends a flow in TIME_WAIT, before it is dropped "
                    "itself; to natgw it is no part of it.", _ended_from_outside),
    StateDifference("not closed", "T6", "A flow that goes on after a RST was not closed by it, to natgw; to Linux it is until "
                    "it expires.", _went_on),
    StateDifference("begun anew", "T6", "A host may use the ports of a closed flow again, whoever closed it; Linux watches "
                    "such a SYN, and believes it when it is answered.", _began_anew),
    StateDifference("taken over", "T8", "A SYN on a flow that is open passes and changes nothing. When it is answered, "
                    "Linux takes the flow to be a new one, and natgw to be the old one.", _taken_over),
    StateDifference("challenged", "T8", "Linux knows an ACK that follows a SYN on a closing flow to be about that SYN (RFC "
                    "5961 section 4); to natgw it acknowledges the FIN.", _challenged),
    StateDifference("opened from both sides", "T3", "After SYNs that crossed, an ACK of either side is the last of the "
                    "handshake to Linux; natgw waits for that of the host, as ever.", _opened_from_both_sides),
)

LISTED: tuple[Difference | StateDifference, ...] = (*DIFFERENCES, *STATE_DIFFERENCES)
