"""Reading batches: one system call a frame, or one for all, and both say the same."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from natgw.host import reading
from natgw.host.reading import BATCH_BYTES, BATCH_FRAMES, Buffers, Read, fitting

FRAMES = [bytes((number,)) * (60 + number) for number in range(100)]


@pytest.fixture(scope="module")
def buffers() -> Buffers:
    return Buffers()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Datagrams sent to the first come out of the second."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        far.setblocking(False)
        yield near, far


@pytest.fixture(params=["tap", "veth"])
def read(request: pytest.FixtureRequest, buffers: Buffers) -> Read:
    return buffers.reader(request.param)


@pytest.mark.parametrize("count", [0, 1, 7, BATCH_FRAMES - 1])
def test_what_is_there_is_read_and_nothing_is_left(pair: tuple[socket.socket, socket.socket], buffers: Buffers, read: Read,
                                                   count: int) -> None:
    near, far = pair
    for frame in FRAMES[:count]:
        near.send(frame)
    lengths, empty = read(far.fileno(), BATCH_FRAMES)
    assert lengths == [len(frame) for frame in FRAMES[:count]] and empty
    assert [bytes(buffer[:n]) for buffer, n in zip(buffers.frames, lengths, strict=False)] == FRAMES[:count]


def test_no_more_than_asked_for(pair: tuple[socket.socket, socket.socket], buffers: Buffers, read: Read) -> None:
    near, far = pair
    for frame in FRAMES[:10]:
        near.send(frame)
    assert read(far.fileno(), 4) == ([len(frame) for frame in FRAMES[:4]], False)
    assert read(far.fileno(), BATCH_FRAMES) == ([len(frame) for frame in FRAMES[4:10]], True)
    assert bytes(buffers.frames[0][: len(FRAMES[4])]) == FRAMES[4]


def test_never_more_than_there_are_buffers(pair: tuple[socket.socket, socket.socket], read: Read) -> None:
    near, far = pair
    for frame in FRAMES:
        near.send(frame)
    assert read(far.fileno(), BATCH_FRAMES) == ([len(frame) for frame in FRAMES[:BATCH_FRAMES]], False)


def test_frame_by_frame_it_ends_with_the_bytes_of_a_batch(pair: tuple[socket.socket, socket.socket], buffers: Buffers,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads all at once cannot know; the pump asks for as many as fitted the last time."""
    monkeypatch.setattr(reading, "BATCH_BYTES", 150)
    near, far = pair
    for frame in FRAMES[:10]:
        near.send(frame)
    assert buffers.read(far.fileno(), BATCH_FRAMES) == ([60, 61, 62], False)


def test_an_error_is_raised_with_its_number(read: Read) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as unconnected, pytest.raises(OSError, match="not connected"):
        read(unconnected.fileno(), BATCH_FRAMES)


def test_a_buffer_that_the_kernel_writes_to_cannot_be_moved(buffers: Buffers) -> None:
    with pytest.raises(BufferError):
        buffers.frames[-1].append(0)


@pytest.mark.parametrize(("frames", "size", "more"), [
    (1, 0, BATCH_FRAMES), (7, 700, BATCH_FRAMES), (7, 7 * 65_000, BATCH_BYTES // 65_000 + 1), (2, 2 * BATCH_BYTES + 1, 1)])
def test_a_batch_is_as_many_frames_as_its_bytes_allow(frames: int, size: int, more: int) -> None:
    assert fitting(frames, size) == more
