"""TCP as a gateway sees it: one table of transitions (RFC 5382 REQ-2 to REQ-5; states named as nf_conntrack names them).

A gateway sees segments of both sides but not what the hosts make of them, so its states are not those of RFC 9293; they say
how far a conversation has come, and how long it may be idle. ORIGINAL is the direction of the side that began. What has no
transition is not believable in that state and is dropped, except for the re-sent handshake segments in IGNORED, which pass
and change nothing.

    NEW -syn-> SYN_SENT -synack(reply)-> SYN_RECV -ack-> ESTABLISHED
    ESTABLISHED -fin-> FIN_WAIT -ack-> CLOSE_WAIT -fin(other side)-> LAST_ACK -ack-> TIME_WAIT
    any -rst-> CLOSE -ack-> ESTABLISHED; SYN_SENT -syn(reply)-> SYN_SENT2 (simultaneous open) -synack-> SYN_RECV

A gateway cannot be sure that a host believes a RST. So every RST passes; where it lies in the receiver's window
(`tcp_window`) the flow is CLOSE, with a short time to live, and if the hosts just go on, so does the flow (RFC 7857 section
2.2, which keeps it for 4 minutes; requirement T6).
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto

FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


class TcpState(IntEnum):
    NEW = 0
    SYN_SENT = auto()
    SYN_SENT2 = auto()
    SYN_RECV = auto()
    ESTABLISHED = auto()
    FIN_WAIT = auto()
    CLOSE_WAIT = auto()
    LAST_ACK = auto()
    TIME_WAIT = auto()
    CLOSE = auto()


class Event(Enum):
    """What the flags of a segment say."""

    SYN = auto()
    SYN_ACK = auto()
    FIN = auto()
    ACK = auto()
    RST = auto()


class Direction(Enum):
    ORIGINAL = auto()
    REPLY = auto()


def event_of(flags: int) -> Event | None:
    """The event of a segment's flags byte, or None for combinations no TCP sends (SYN+FIN, SYN+RST, none at all ...)."""
    if flags & RST:
        return None if flags & (SYN | FIN) else Event.RST
    if flags & SYN:
        if flags & FIN:
            return None
        return Event.SYN_ACK if flags & ACK else Event.SYN
    if not flags & ACK:
        return None
    return Event.FIN if flags & FIN else Event.ACK


_S = TcpState
_ORIGINAL: dict[Event, dict[TcpState, TcpState]] = {
    Event.SYN: {_S.NEW: _S.SYN_SENT, _S.SYN_SENT: _S.SYN_SENT, _S.SYN_SENT2: _S.SYN_SENT2,
                # A new connection with the ports of one that is over.
                _S.TIME_WAIT: _S.SYN_SENT, _S.CLOSE: _S.SYN_SENT},
    Event.SYN_ACK: {_S.SYN_SENT2: _S.SYN_RECV, _S.SYN_RECV: _S.SYN_RECV},
    Event.FIN: {_S.SYN_RECV: _S.FIN_WAIT, _S.ESTABLISHED: _S.FIN_WAIT, _S.FIN_WAIT: _S.LAST_ACK, _S.CLOSE_WAIT: _S.LAST_ACK,
                _S.LAST_ACK: _S.LAST_ACK, _S.TIME_WAIT: _S.TIME_WAIT, _S.CLOSE: _S.CLOSE},
    # An ACK in NEW is a conversation older than the gateway, picked up (requirement T7).
    Event.ACK: {_S.NEW: _S.ESTABLISHED, _S.SYN_RECV: _S.ESTABLISHED, _S.ESTABLISHED: _S.ESTABLISHED,
                _S.FIN_WAIT: _S.CLOSE_WAIT, _S.CLOSE_WAIT: _S.CLOSE_WAIT, _S.LAST_ACK: _S.TIME_WAIT,
                _S.TIME_WAIT: _S.TIME_WAIT, _S.CLOSE: _S.ESTABLISHED},
}
_REPLY: dict[Event, dict[TcpState, TcpState]] = {
    Event.SYN: {_S.SYN_SENT: _S.SYN_SENT2, _S.SYN_SENT2: _S.SYN_SENT2},
    Event.SYN_ACK: {_S.SYN_SENT: _S.SYN_RECV, _S.SYN_SENT2: _S.SYN_RECV},
    Event.FIN: {_S.SYN_RECV: _S.FIN_WAIT, _S.ESTABLISHED: _S.FIN_WAIT, _S.FIN_WAIT: _S.LAST_ACK, _S.CLOSE_WAIT: _S.LAST_ACK,
                _S.LAST_ACK: _S.LAST_ACK, _S.TIME_WAIT: _S.TIME_WAIT, _S.CLOSE: _S.CLOSE},
    Event.ACK: {_S.SYN_RECV: _S.SYN_RECV, _S.ESTABLISHED: _S.ESTABLISHED, _S.FIN_WAIT: _S.CLOSE_WAIT,
                _S.CLOSE_WAIT: _S.CLOSE_WAIT, _S.LAST_ACK: _S.TIME_WAIT, _S.TIME_WAIT: _S.TIME_WAIT,
                _S.CLOSE: _S.ESTABLISHED},
}
_RST: dict[TcpState, TcpState] = {state: _S.CLOSE for state in TcpState if state is not _S.NEW}

TRANSITIONS: dict[Direction, dict[Event, dict[TcpState, TcpState]]] = {
    Direction.ORIGINAL: {**_ORIGINAL, Event.RST: _RST},
    Direction.REPLY: {**_REPLY, Event.RST: _RST},
}

IGNORED: dict[Direction, dict[Event, frozenset[TcpState]]] = {
    Direction.ORIGINAL: {Event.SYN: frozenset((_S.SYN_RECV, _S.ESTABLISHED, _S.FIN_WAIT, _S.CLOSE_WAIT, _S.LAST_ACK))},
    Direction.REPLY: {
        Event.SYN_ACK: frozenset((_S.SYN_RECV, _S.ESTABLISHED, _S.FIN_WAIT, _S.CLOSE_WAIT, _S.LAST_ACK, _S.TIME_WAIT,
                                  _S.CLOSE)),
        Event.ACK: frozenset((_S.SYN_SENT, _S.SYN_SENT2)),
    },
}

def next_state(state: TcpState, direction: Direction, event: Event) -> TcpState | None:
    """The state after a segment, which may be the same; None: the segment is not believable and must not pass."""
    following = TRANSITIONS[direction][event].get(state)
    if following is not None:
        return following
    return state if state in IGNORED[direction].get(event, ()) else None


DECIDING_FLAGS = FIN | SYN | RST | ACK
"""The flags an event follows from."""
UNCHANGED, NOT_BELIEVED, RESET = 0, -1, -2
"""In place of a state that is entered. No flow enters NEW, which is 0. A RST leads to CLOSE if its number is right, which the
slow path judges (`tcp_window`), and a SYN always enters a state, if the same again: it says how windows are scaled."""


def moves_of(state: TcpState, direction: Direction) -> tuple[int, ...]:
    """What each combination of the deciding flags leads to in a state; see `MOVES`."""
    found = []
    for flags in range(DECIDING_FLAGS + 1):
        event = event_of(flags)
        following = None if event is None else next_state(state, direction, event)
        if following is None:
            found.append(NOT_BELIEVED)
        elif event is Event.RST:
            found.append(RESET)
        else:
            found.append(UNCHANGED if following is state and not flags & SYN else following)
    return tuple(found)


# The whole machine as one look-up, so that the fast path can ask it: before, seven of a connection's ten segments took the slow
# path, which is eight times the work. With this alone a connection took 0.4 of the time (tools/bench core).
MOVES: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = tuple(
    (moves_of(state, Direction.ORIGINAL), moves_of(state, Direction.REPLY)) for state in TcpState)
"""By state: what a segment leads to, by its deciding flags, on the original leg and on the reply leg."""
