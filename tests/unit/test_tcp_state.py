"""The table of TCP transitions: what a conversation looks like to a gateway, and what is no conversation at all."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natgw.datapath.tcp_state import (
    ACK,
    DECIDING_FLAGS,
    FIN,
    IGNORED,
    MOVES,
    NOT_BELIEVED,
    PSH,
    RESET,
    RST,
    SYN,
    TRANSITIONS,
    UNCHANGED,
    URG,
    Direction,
    Event,
    TcpState,
    event_of,
    moves_of,
    next_state,
)

OUT, BACK = Direction.ORIGINAL, Direction.REPLY
S = TcpState


def states(*segments: tuple[Direction, int], start: TcpState = S.NEW) -> list[TcpState | None]:
    """The states a conversation goes through; it ends at the first segment that is not believed."""
    seen: list[TcpState | None] = []
    state = start
    for direction, flags in segments:
        event = event_of(flags)
        following = None if event is None else next_state(state, direction, event)
        seen.append(following)
        if following is None:
            break
        state = following
    return seen


@pytest.mark.requirement("T8")
def test_the_handshake() -> None:
    assert states((OUT, SYN), (BACK, SYN | ACK), (OUT, ACK), (BACK, PSH | ACK), (OUT, ACK)) == [
        S.SYN_SENT, S.SYN_RECV, S.ESTABLISHED, S.ESTABLISHED, S.ESTABLISHED]


@pytest.mark.requirement("T3")
@pytest.mark.parametrize(("first", "second"), [(OUT, BACK), (BACK, OUT)])
def test_a_simultaneous_open_completes(first: Direction, second: Direction) -> None:
    assert states((OUT, SYN), (BACK, SYN), (first, SYN | ACK), (second, SYN | ACK), (OUT, ACK), (BACK, ACK)) == [
        S.SYN_SENT, S.SYN_SENT2, S.SYN_RECV, S.SYN_RECV, S.ESTABLISHED, S.ESTABLISHED]


@pytest.mark.requirement("T8")
@pytest.mark.parametrize(("closer", "other"), [(OUT, BACK), (BACK, OUT)])
def test_either_side_may_close_first(closer: Direction, other: Direction) -> None:
    assert states((closer, FIN | ACK), (other, ACK), (other, PSH | ACK), (other, FIN | ACK), (closer, ACK),
                  start=S.ESTABLISHED) == [S.FIN_WAIT, S.CLOSE_WAIT, S.CLOSE_WAIT, S.LAST_ACK, S.TIME_WAIT]


@pytest.mark.requirement("T8")
@pytest.mark.parametrize(("closer", "other"), [(OUT, BACK), (BACK, OUT)])
def test_both_sides_may_close_at_once(closer: Direction, other: Direction) -> None:
    assert states((closer, FIN | ACK), (other, FIN | ACK), (closer, ACK), (other, ACK), start=S.ESTABLISHED) == [
        S.FIN_WAIT, S.LAST_ACK, S.TIME_WAIT, S.TIME_WAIT]


@pytest.mark.requirement("T8")
def test_a_connection_may_close_as_soon_as_it_is_answered() -> None:
    for closer in (OUT, BACK):
        assert states((OUT, SYN), (BACK, SYN | ACK), (closer, FIN | ACK)) == [S.SYN_SENT, S.SYN_RECV, S.FIN_WAIT]


@pytest.mark.requirement("T8")
def test_time_wait_lets_late_segments_pass_and_nothing_reopens_it_but_who_began() -> None:
    for direction, flags in ((OUT, ACK), (BACK, ACK), (OUT, FIN | ACK), (BACK, FIN | ACK), (BACK, SYN | ACK)):
        assert states((direction, flags), start=S.TIME_WAIT) == [S.TIME_WAIT]
    for over in (S.TIME_WAIT, S.CLOSE):
        assert states((OUT, SYN), (BACK, SYN | ACK), start=over) == [S.SYN_SENT, S.SYN_RECV]
        assert states((BACK, SYN), start=over) == [None]


@pytest.mark.requirement("T6")
@pytest.mark.parametrize("direction", list(Direction))
def test_a_reset_closes_from_every_state_but_begins_nothing(direction: Direction) -> None:
    for state in TcpState:
        for flags in (RST, RST | ACK):
            assert states((direction, flags), start=state) == [None if state is S.NEW else S.CLOSE]


@pytest.mark.requirement("T7")
def test_a_conversation_older_than_the_gateway_is_picked_up_by_its_acks_alone() -> None:
    assert states((OUT, ACK)) == states((OUT, PSH | ACK)) == [S.ESTABLISHED]
    for direction, flags in ((OUT, SYN | ACK), (OUT, FIN | ACK), (OUT, RST), (BACK, ACK), (BACK, SYN), (BACK, SYN | ACK),
                             (BACK, FIN | ACK)):
        assert states((direction, flags)) == [None], (direction, flags)


@pytest.mark.requirement("T8")
def test_flags_that_no_tcp_sends_mean_nothing() -> None:
    impossible = {0, SYN | FIN, SYN | RST, FIN | RST, SYN | FIN | RST, FIN, PSH, URG, FIN | PSH | URG}
    impossible |= {flags | ACK for flags in impossible if flags & (SYN | RST) and flags & (FIN | RST | SYN) not in (SYN, RST)}
    assert all(event_of(flags) is None for flags in impossible)


@pytest.mark.requirement("T8")
@given(st.integers(0, 255))
def test_every_combination_of_flags_has_one_meaning(flags: int) -> None:
    connection = flags & (SYN | FIN | RST)
    event = event_of(flags)
    if connection not in (0, SYN, FIN, RST):
        assert event is None
    elif connection == RST:
        assert event is Event.RST
    elif connection == SYN:
        assert event is (Event.SYN_ACK if flags & ACK else Event.SYN)
    elif not flags & ACK:
        assert event is None
    else:
        assert event is (Event.FIN if connection == FIN else Event.ACK)
    assert event_of(flags ^ PSH) is event_of(flags ^ URG) is event_of(flags ^ 0xC0) is event, "PSH, URG, ECE, CWR say nothing"


@pytest.mark.requirement("T8")
def test_a_handshake_sent_again_passes_and_changes_nothing() -> None:
    for state in (S.SYN_RECV, S.ESTABLISHED, S.FIN_WAIT, S.CLOSE_WAIT, S.LAST_ACK):
        assert states((OUT, SYN), (BACK, SYN | ACK), start=state) == [state, state]
    assert states((BACK, ACK), start=S.SYN_SENT) == [S.SYN_SENT], "a challenge ACK (RFC 5961)"
    for direction, events in IGNORED.items():
        for event, ignored in events.items():
            for state in ignored:
                assert state not in TRANSITIONS[direction].get(event, {}), "said twice"
                assert next_state(state, direction, event) is state


@pytest.mark.requirement("T8")
def test_what_is_not_believable_is_refused() -> None:
    for direction, flags, state in (
            (OUT, SYN | ACK, S.SYN_SENT), (OUT, ACK, S.SYN_SENT), (OUT, FIN | ACK, S.SYN_SENT), (BACK, FIN | ACK, S.SYN_SENT),
            (OUT, SYN | ACK, S.ESTABLISHED), (BACK, SYN, S.SYN_RECV), (BACK, SYN, S.ESTABLISHED)):
        assert states((direction, flags), start=state) == [None], (direction, flags, state)


def test_the_table_that_each_segment_asks_is_the_machine() -> None:
    for state, (number, direction) in product(S, enumerate(Direction)):
        moves = moves_of(state, direction)
        assert moves == MOVES[state][number]
        assert len(moves) == DECIDING_FLAGS + 1
        for flags in range(256):
            event = event_of(flags)
            expected = None if event is None else next_state(state, direction, event)
            move = moves[flags & DECIDING_FLAGS]
            assert {NOT_BELIEVED: None, UNCHANGED: state, RESET: S.CLOSE}.get(move, move) == expected, (state, direction, flags)


def test_the_fast_path_leaves_resets_and_whatever_tells_a_scale_to_the_slow_one() -> None:
    for state, direction in product(S, Direction):
        moves = moves_of(state, direction)
        assert moves[RST] == moves[RST | ACK] == (NOT_BELIEVED if state is S.NEW else RESET)
        assert moves[SYN] != UNCHANGED and moves[SYN | ACK] != UNCHANGED
    assert moves_of(S.ESTABLISHED, OUT)[ACK] == moves_of(S.ESTABLISHED, BACK)[ACK] == UNCHANGED
    assert moves_of(S.SYN_RECV, BACK)[ACK] == UNCHANGED


def test_every_state_can_be_reached_and_left() -> None:
    reached, todo = {S.NEW}, [S.NEW]
    while todo:
        state = todo.pop()
        following = {after for direction, event in product(Direction, Event)
                     if (after := next_state(state, direction, event)) is not None}
        assert following - {state}, f"{state.name} is never left"
        todo += following - reached
        reached |= following
    assert reached == set(TcpState)
