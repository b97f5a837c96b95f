"""Sequences of steps, by Hypothesis: a few conversations with their packets mixed, from a believable handshake to nonsense."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

from tests.kernel.addresses import EXTERNAL, HOSTS, REMOTES
from tests.kernel.packets import (
    ACK,
    ECHO,
    ECHO_REPLY,
    FIN,
    ICMP,
    PSH,
    RST,
    SYN,
    TCP,
    TIMESTAMP,
    TIMESTAMP_REPLY,
    UDP,
    URG,
    Conversation,
    Envelope,
    Error,
    Segment,
    Step,
)

_ODD_FLAGS = (0, FIN, SYN | FIN, SYN | RST, FIN | RST, FIN | PSH | URG, PSH, URG, SYN | PSH, SYN | URG, RST | ACK | PSH,
              SYN | ACK | FIN, SYN | ACK | RST, SYN | ACK | PSH, 0x3F, FIN | ACK | RST, 0x40 | SYN, 0xC0 | SYN, 0x80 | ACK,
              ACK | URG, ACK | PSH | URG, FIN | ACK | PSH, FIN | ACK | URG, SYN | ACK | URG)
_USUAL_FLAGS = (SYN, SYN | ACK, ACK, PSH | ACK, FIN | ACK, RST, RST | ACK)
_NOP, _END, _ROUTER_ALERT = b"\x01", b"\x00", b"\x94\x04\x00\x00"
_RECORD_ROUTE = b"\x07\x07\x04\x00\x00\x00\x00\x00"
_FULL_RECORD_ROUTE = b"\x07\x07\x08\xc0\x00\x02\x01\x00"
_TIMESTAMP = b"\x44\x08\x05\x00" + bytes(4)
_SECURITY = b"\x82\x04\xab\xcd"
_SOURCE_ROUTE = b"\x83\x07\x04\xcb\x00\x71\x09\x00"
_LENGTH_BEYOND = b"\x94\x28\x00\x00"
_OPTIONS = (_NOP * 4, _NOP * 2 + _END * 2, _ROUTER_ALERT, _SECURITY, _FULL_RECORD_ROUTE, _RECORD_ROUTE, _TIMESTAMP,
            _SOURCE_ROUTE, _LENGTH_BEYOND, _NOP * 40)

_HOSTS, _PORTS, _REMOTE_PORTS = tuple(HOSTS), (5000, 5000, 45000), (80, 5000)

_remotes = st.sampled_from((*REMOTES, *REMOTES, *REMOTES, *REMOTES, EXTERNAL))
conversations = st.one_of(
    st.builds(Conversation, st.sampled_from((TCP, TCP, TCP, UDP)), st.sampled_from(_HOSTS), st.sampled_from(_PORTS), _remotes,
              st.sampled_from(_REMOTE_PORTS)),
    st.builds(Conversation, st.just(TCP), st.sampled_from(_HOSTS), st.just(5000), st.sampled_from(REMOTES), st.just(80)),
    st.builds(Conversation, st.just(ICMP), st.sampled_from(_HOSTS), st.sampled_from(_PORTS), _remotes, st.just(0)))

envelopes = st.one_of(st.just(Envelope()), st.builds(
    Envelope, ttl=st.sampled_from((64, 64, 3, 2, 1, 0)), tos=st.sampled_from((0, 0, 0xB8, 3)),
    ident=st.sampled_from((0, 1, 0xFFFF, 0x1234)), df=st.booleans(),
    options=st.one_of(st.just(b""), st.just(b""), st.sampled_from(_OPTIONS))))

_numbers = st.sampled_from((*(0,) * 12, 1, 2, 100, -1, 100_000, -100_000))
_payloads = st.one_of(st.just(b""), st.binary(max_size=9),
                      st.sampled_from((bytes(1300), b"\xff" * 1371, b"x" * 1400, b"y" * 1460)))


def _segments(draw: st.DrawFn, conversation: Conversation) -> Segment:
    inward = draw(st.booleans())
    flags = draw(st.sampled_from(_USUAL_FLAGS * 4 + _ODD_FLAGS))
    kinds = ("good", "good", "good", "bad") + (("none",) if conversation.protocol == UDP else ())
    usual = (ECHO_REPLY, TIMESTAMP_REPLY) if inward else (ECHO, TIMESTAMP)
    return Segment(
        conversation, inward, draw(envelopes), draw(_payloads), flags if conversation.protocol == TCP else 0,
        draw(_numbers) if conversation.protocol == TCP else 0, draw(_numbers) if conversation.protocol == TCP else 0,
        draw(st.sampled_from((*usual, usual[0], usual[0], ECHO, ECHO_REPLY, TIMESTAMP, 15, 17, 42))),
        draw(st.sampled_from(kinds)))


def _fragmented(draw: st.DrawFn, conversation: Conversation) -> Segment:
    """In two to four fragments, all there."""
    count = draw(st.integers(2, 4))
    return Segment(conversation, draw(st.booleans()), Envelope(ttl=draw(st.sampled_from((64, 2)))),
                   draw(st.sampled_from((b"f" * 100, b"F" * 1000))), ACK if conversation.protocol == TCP else 0,
                   query=ECHO, pieces=tuple(draw(st.permutations(range(count)))))


def _errors(draw: st.DrawFn, conversation: Conversation) -> Error:
    inward = draw(st.booleans())
    routers = (None, "198.51.100.1", "192.0.2.77") if inward else (None, None, "172.17.0.3")
    type_, code = draw(st.sampled_from(((3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (11, 0), (11, 1), (12, 0), (4, 0), (5, 1))))
    return Error(conversation, inward, type_, code, draw(st.sampled_from(routers)),
                 draw(st.sampled_from((28, 28, 48, 64, 200, 24))), draw(st.sampled_from((b"", b"", b"", _NOP * 4))),
                 draw(st.sampled_from(("", "", "", "", "icmp", "quoted ip", "quoted transport"))), draw(envelopes))


_MAKERS: tuple[Callable[[st.DrawFn, Conversation], Step], ...] = (*(_segments,) * 8, *(_errors,) * 2, _fragmented)


_OPENING = ((False, SYN), (True, SYN | ACK), (False, ACK))
_CLOSING = ((False, FIN | ACK), (True, ACK), (True, FIN | ACK), (False, ACK))
_CROSSING = ((False, SYN), (True, SYN), (False, SYN | ACK), (True, SYN | ACK), (False, ACK))


def _story(draw: st.DrawFn, conversation: Conversation) -> list[Step]:
    """The beginning of what a conversation usually is."""
    if conversation.protocol == TCP:
        by_remote = draw(st.booleans())
        whole = draw(st.sampled_from((_OPENING, _CROSSING))) + tuple(
            (inward != by_remote, flags) for inward, flags in _CLOSING)
        return [Segment(conversation, inward, flags=flags) for inward, flags in whole[: draw(st.integers(0, len(whole)))]]
    return [Segment(conversation, False, payload=b"question"), Segment(conversation, True, payload=b"answer", query=ECHO_REPLY)]


@st.composite
def conversing(draw: st.DrawFn) -> list[Step]:
    """Up to some thirty steps of one to four conversations."""
    talking = draw(st.lists(conversations, min_size=1, max_size=4, unique=True))
    steps: list[Step] = []
    for conversation in talking:
        if draw(st.booleans()):
            steps += _story(draw, conversation)
    for _ in range(draw(st.integers(1, 20))):
        conversation = draw(st.sampled_from(talking))
        steps.append(draw(st.sampled_from(_MAKERS))(draw, conversation))
    return steps
