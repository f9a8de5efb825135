"""Nothing that a peer sends costs more memory or more steps than it should; both are counted, and no clock is read."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable, Iterable
from itertools import repeat
from types import FrameType

import pytest

from zapros_websocket._protocol.messages import BinaryMessage, CloseMessage, PingMessage, PongMessage, TextMessage
from zapros_websocket._protocol.session import Session, State

from .test_limits import MEBIBYTE, bomb, compressed_fragments
from .wire import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    RSV1,
    TEXT,
    calls,
    close_frame,
    frame,
    new_session,
    outcome_of,
    take_in,
)


def peak_of(session: Session, pieces: Iterable[bytes]) -> int:
    """The most memory that was in use while ``pieces`` came in, in bytes."""
    tracemalloc.start()
    try:
        outcome_of(session, pieces)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def blocks_kept(act: Callable[[], object]) -> int:
    """How many blocks of memory are in use that were not before; a list of fragments is two for each and more."""
    gc.collect()
    before = sys.getallocatedblocks()
    act()
    gc.collect()
    return sys.getallocatedblocks() - before


def steps_of(act: Callable[[], object]) -> int:
    """How many functions were called, of Python and of C."""
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        act()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("cut", ["whole", "in fragments"])
def test_a_bomb_is_stopped_while_inflating(cut: str) -> None:
    data = bomb(64 * MEBIBYTE)
    wire = frame(BINARY, data, reserved=RSV1)
    if cut == "in fragments":
        places = range(1000, len(data), 1000)
        wire = frame(BINARY, data[:1000], final=False, reserved=RSV1)
        wire += b"".join(frame(CONTINUATION, data[place : place + 1000], final=False) for place in places)
    session = new_session(limit=MEBIBYTE, deflate=True)
    assert peak_of(session, [wire]) < 5 * MEBIBYTE
    assert session.failure is not None
    assert session.failure.code == 1009


def fragments_of_one_byte(opcode: int, count: int) -> bytes:
    return (
        frame(opcode, b"x", final=False)
        + frame(CONTINUATION, b"x", final=False) * (count - 2)
        + frame(CONTINUATION, b"x")
    )


def in_chunks(wire: bytes, size: int) -> list[bytes]:
    return [wire[place : place + size] for place in range(0, len(wire), size)]


# A slow machine is no failure.
@pytest.mark.timeout(600)
def test_200_000_fragments_of_one_byte_are_one_buffer_and_not_a_list() -> None:
    *chunks, last = in_chunks(fragments_of_one_byte(BINARY, 200_000), 65536)
    session = new_session(limit=MEBIBYTE)
    assert blocks_kept(lambda: outcome_of(session, chunks)) < 10_000
    assert take_in(session, last) == [BinaryMessage(b"x" * 200_000)]


def test_fragments_of_text_are_one_buffer_and_not_a_list() -> None:
    *chunks, last = in_chunks(fragments_of_one_byte(TEXT, 20_000), 4096)
    session = new_session()
    assert blocks_kept(lambda: outcome_of(session, chunks)) < 1000
    assert take_in(session, last) == [TextMessage("x" * 20_000)]


def test_behind_a_message_that_was_cut_what_comes_is_not_copied_twice() -> None:
    wire = frame(BINARY, bytes(MEBIBYTE // 16)) * 16
    # The messages, and the one that was cut once more.
    assert peak_of(new_session(limit=MEBIBYTE), [wire[:100], wire[100:]]) < 1.5 * MEBIBYTE


@pytest.mark.parametrize(
    "end", [pytest.param(close_frame(1000), id="a close"), pytest.param(frame(0x3), id="a violation")]
)
def test_what_comes_after_the_end_is_not_kept(end: bytes) -> None:
    session = new_session()
    session.receive(end)
    assert peak_of(session, repeat(bytes(10_000), 100)) < 200_000


@pytest.mark.parametrize("deflate", [False, True], ids=["uncompressed", "compressed"])
@pytest.mark.parametrize("size", [1, 1000, 1 << 30], ids=["byte by byte", "in chunks", "whole"])
def test_twice_the_fragments_take_twice_the_steps(size: int, deflate: bool) -> None:
    def steps(count: int) -> int:
        wire = compressed_fragments(*repeat(b"x", count)) if deflate else fragments_of_one_byte(TEXT, count)
        session = new_session(deflate=deflate)
        return steps_of(lambda: outcome_of(session, in_chunks(wire, size)))

    assert steps(400) < 2.1 * steps(200)


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(frame(PING), id="pings"),
        pytest.param(frame(TEXT, b"x") + frame(PONG), id="pongs between messages"),
        pytest.param(frame(BINARY, final=False) + frame(CONTINUATION), id="messages in fragments"),
    ],
)
def test_one_call_parses_a_bounded_number_of_the_frames_that_take_long(piece: bytes) -> None:
    def steps(count: int) -> int:
        session = new_session()
        wire = piece * count
        taken = steps_of(lambda: session.receive(wire))
        assert session.has_more
        return taken

    assert steps(20_000) < 1.1 * steps(2000)


def test_what_one_call_leaves_is_parsed_by_the_next() -> None:
    session = new_session()
    messages = session.receive(frame(PING) * 1000)
    assert 0 < len(messages) < 1000
    messages += session.receive(frame(TEXT, b"behind") + close_frame(1000) + frame(PING) * 1000)
    while session.has_more:
        messages += session.receive(b"")
    assert messages == [PingMessage(b"")] * 1000 + [TextMessage("behind"), CloseMessage(1000, "")]


@pytest.mark.parametrize("in_fragments", [False, True], ids=["whole", "in fragments"])
def test_one_call_inflates_little_more_than_one_message_however_many_were_received(in_fragments: bool) -> None:
    payload = bomb(MEBIBYTE)
    wire = frame(BINARY, payload, reserved=RSV1)
    if in_fragments:
        wire = frame(BINARY, payload[:9], final=False, reserved=RSV1) + frame(CONTINUATION, payload[9:])
    session = new_session(limit=MEBIBYTE, deflate=True)
    given = list(calls(session, wire * 20 + frame(TEXT, b"behind")))
    assert all(len(messages) <= 2 for messages in given)
    assert [message for messages in given for message in messages] == [
        *[BinaryMessage(bytes(MEBIBYTE))] * 20,
        TextMessage("behind"),
    ]
    assert session.may_wait


def test_there_is_no_more_once_the_session_is_closed() -> None:
    session = new_session()
    session.receive(frame(PING) * 1000)
    session.end("gone")
    assert session.receive(b"") == []
    assert not session.has_more


def test_pings_and_pongs_take_no_wsproto_in_either_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **named: object) -> None:
        pytest.fail("it was made")

    monkeypatch.setattr("zapros_websocket._protocol.session.Connection", never)
    session = new_session()
    session.ping(b"ours")
    assert session.receive(frame(TEXT, b"x") + frame(PING, b"theirs") + frame(PONG, b"ours")) == [
        TextMessage("x"),
        PingMessage(b"theirs"),
        PongMessage(b"ours"),
    ]
    control = session.take_control()
    assert (control[0], control[1], control[10], control[11]) == (0x80 | PING, 0x84, 0x80 | PONG, 0x86)
    assert session.encode(PING, b"of the user")[:2] == b"\x89\x8b"


def test_twice_the_messages_take_twice_the_steps() -> None:
    def steps(count: int) -> int:
        session = new_session()
        return steps_of(lambda: take_in(session, (frame(TEXT, b"x") + frame(PING)) * count))

    assert steps(1000) < 2.1 * steps(500)


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(frame(PING, b"p" * 125) * 100, id="pings"),
        pytest.param(frame(PONG, b"p" * 125) * 100, id="pongs"),
        pytest.param(frame(CONTINUATION, final=False) * 100, id="empty fragments"),
    ],
)
def test_endless_frames_without_data_take_no_memory(piece: bytes) -> None:
    session = new_session()
    session.receive(frame(BINARY, final=False))
    session.receive(piece)

    def many() -> None:
        for _ in range(100):
            take_in(session, piece)

    assert blocks_kept(many) < 1000
    assert session.state is State.OPEN
