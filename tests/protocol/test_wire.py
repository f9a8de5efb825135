"""Bytes in, messages out: every kind of frame, and every violation that a server can make.

Each case comes whole, byte by byte, cut in two at every place and with data behind it, and the outcome is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from zapros_websocket._protocol.messages import BinaryMessage, CloseMessage, TextMessage
from zapros_websocket._protocol.session import State

from .cases import CASES, Case
from .wire import BINARY, PING, TEXT, bytewise, close_frame, frame, new_session, outcome_of

every_case = pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])


def places(wire: bytes) -> list[int]:
    """Where to cut: everywhere, but for the middle of a long payload."""
    length = len(wire)
    return list(range(length)) if length <= 300 else [*range(16), 126, 32768, *range(length - 8, length)]


@every_case
def test_whole(case: Case) -> None:
    assert outcome_of(new_session(limit=case.limit, deflate=case.deflate), [case.wire]) == case.outcome


@every_case
def test_byte_by_byte(case: Case) -> None:
    assert outcome_of(new_session(limit=case.limit, deflate=case.deflate), bytewise(case.wire)) == case.outcome


@every_case
def test_cut_in_two_at_every_place(case: Case) -> None:
    for place in places(case.wire):
        session = new_session(limit=case.limit, deflate=case.deflate)
        assert outcome_of(session, [case.wire[:place], case.wire[place:]]) == case.outcome, place


def overwritten(wire: bytes, size: int) -> Iterator[memoryview]:
    """Pieces of ``wire`` in one buffer, each of which is gone when the next is asked for."""
    buffer = bytearray(size)
    for place in range(0, len(wire), size):
        piece = wire[place : place + size]
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]
        buffer[:] = b"\xff" * size


@every_case
@pytest.mark.parametrize("size", [7, 8192, 1 << 20])
def test_in_a_buffer_that_is_overwritten(case: Case, size: int) -> None:
    session = new_session(limit=case.limit, deflate=case.deflate)
    assert outcome_of(session, overwritten(case.wire, size)) == case.outcome


@every_case
def test_one_frame_in_a_call(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not matter how many frames one call parses, nor that data arrives while there is more to parse."""
    monkeypatch.setattr("zapros_websocket._protocol.session._FRAMES_A_CALL", 1)
    assert outcome_of(new_session(limit=case.limit, deflate=case.deflate), [case.wire]) == case.outcome
    session = new_session(limit=case.limit, deflate=case.deflate)
    messages = [message for place in (slice(5), slice(5, None)) for message in session.receive(case.wire[place])]
    rest = outcome_of(session, [b""])
    assert replace(rest, messages=(*messages, *rest.messages)) == case.outcome


@every_case
@pytest.mark.parametrize("together", [True, False], ids=["in the same piece", "in the next piece"])
def test_with_data_behind_it(case: Case, together: bool) -> None:
    behind = frame(BINARY, b"behind")
    expected = case.outcome
    if expected.state is State.OPEN:
        expected = replace(expected, messages=(*expected.messages, BinaryMessage(b"behind")))
    pieces = [case.wire + behind] if together else [case.wire, behind]
    assert outcome_of(new_session(limit=case.limit, deflate=case.deflate), pieces) == expected


@every_case
def test_a_failure_says_what_was_wrong(case: Case) -> None:
    session = new_session(limit=case.limit, deflate=case.deflate)
    session.receive(case.wire)
    reason = None if session.failure is None else session.failure.reason
    assert bool(reason) is (case.failure is not None)
    assert case.words in (reason or "")


@every_case
def test_payloads_are_exactly_str_and_bytes(case: Case) -> None:
    for message in new_session(limit=case.limit, deflate=case.deflate).receive(case.wire):
        if not isinstance(message, CloseMessage):
            assert type(message.data) is (str if isinstance(message, TextMessage) else bytes)


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x81", id="half a header"),
        pytest.param(b"\x81\x7e\x01", id="half a length of two bytes"),
        pytest.param(b"\x81\x7f\0\0\0\0\0\1", id="half a length of eight bytes"),
        pytest.param(b"\x81\x83abc", id="half a key"),
        pytest.param(frame(TEXT, b"abc")[:-1], id="a message without its last byte"),
        pytest.param(frame(PING, b"abc")[:-1], id="a ping without its last byte"),
        pytest.param(close_frame(1000, b"abc")[:-1], id="a close without its last byte"),
        pytest.param(frame(TEXT, b"abc", final=False), id="a fragment"),
        pytest.param(frame(TEXT, b"abc", final=False)[:-1], id="a fragment without its last byte"),
        pytest.param(frame(TEXT, final=False) + b"\x80", id="half the header of a continuation"),
    ],
)
def test_what_is_not_complete_is_waited_for(wire: bytes) -> None:
    for pieces in ([wire], bytewise(wire)):
        session = new_session()
        assert outcome_of(session, pieces).messages == ()
        assert session.state is State.OPEN


def test_a_long_message_in_many_pieces_is_looked_at_when_it_is_complete() -> None:
    """The fewer calls into the parser, the better; what counts is that no piece is lost."""
    wire = frame(BINARY, b"x" * 60_000) + frame(TEXT, b"y")
    session = new_session()
    pieces = [wire[place : place + 1000] for place in range(0, len(wire), 1000)]
    assert outcome_of(session, pieces).messages == (BinaryMessage(b"x" * 60_000), TextMessage("y"))
