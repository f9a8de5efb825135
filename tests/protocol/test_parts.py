"""A message over the limit comes in parts, and all others as ever."""

from __future__ import annotations

import os
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zapros_websocket import BinaryMessage, Message, PerMessageDeflateExtension, PingMessage, TextMessage
from zapros_websocket._protocol.deflate import Deflate
from zapros_websocket._protocol.messages import Part
from zapros_websocket._protocol.parts import PartsSession
from zapros_websocket._protocol.session import Session, State

from .wire import (
    BINARY,
    CONTINUATION,
    PING,
    RSV1,
    TEXT,
    Deflater,
    bytewise,
    frame,
    joined,
    new_session,
    steady,
    take_in,
)

LIMIT = 50


def parts_session(*, deflate: bool = False, limit: int = LIMIT) -> PartsSession:
    agreed = Deflate(PerMessageDeflateExtension()) if deflate else None
    return PartsSession(max_message_size=limit, deflate=agreed)


def received_by(session: Session, data: bytes) -> list[Message | Part]:
    """What a session gives out, with its parts."""
    return cast("list[Message | Part]", take_in(session, data))


def wire_of(message: Message, cuts: list[int], deflater: Deflater | None, between: bytes) -> bytes:
    """The frames of a message: one, or fragments with something between them."""
    payload = message.data.encode() if isinstance(message, TextMessage) else cast("BinaryMessage", message).data
    opcode = TEXT if isinstance(message, TextMessage) else BINARY
    places = sorted({cut % (len(payload) + 1) for cut in cuts})
    pieces = [payload[start:stop] for start, stop in zip([0, *places], [*places, len(payload)], strict=True)]
    if deflater is not None and payload:
        pieces = [*(deflater.block(piece) if piece else b"" for piece in pieces[:-1]), deflater.end(pieces[-1])]
    frames = [
        frame(
            CONTINUATION if at else opcode,
            piece,
            final=at == len(pieces) - 1,
            reserved=RSV1 if deflater is not None and payload and not at else 0,
        )
        for at, piece in enumerate(pieces)
    ]
    return between.join(frames)


MESSAGES = st.one_of(
    st.builds(TextMessage, st.text(max_size=4 * LIMIT)), st.builds(BinaryMessage, st.binary(max_size=8 * LIMIT))
)


@pytest.mark.parametrize("deflate", [False, True])
@steady
@given(data=st.data())
def test_the_parts_joined_are_the_message_however_it_is_cut(deflate: bool, data: st.DataObject) -> None:
    messages = data.draw(st.lists(MESSAGES, max_size=4))
    deflater = Deflater() if deflate else None
    between = data.draw(st.sampled_from([b"", frame(PING, b"p")]))
    wire = b"".join(
        wire_of(m, data.draw(st.lists(st.integers(0, 400), max_size=3)), deflater, between) for m in messages
    )
    size = data.draw(st.sampled_from([1, 7, 100, 65536]))
    session = parts_session(deflate=deflate)
    received: list[Message | Part] = []
    for start in range(0, len(wire), size):
        received += received_by(session, wire[start : start + size])
    assert session.failure is None
    for part in received:
        if isinstance(part, Part):
            assert len(part.data) <= max(size, LIMIT) + 1024 * 1024
    assert [message for message in joined(received) if not isinstance(message, PingMessage)] == messages


def test_a_message_within_the_limit_comes_whole_and_one_over_it_as_soon_as_its_header_says_so() -> None:
    session = parts_session()
    assert received_by(session, frame(BINARY, bytes(LIMIT))) == [BinaryMessage(bytes(LIMIT))]
    wire = frame(BINARY, bytes(LIMIT + 1))
    assert received_by(session, wire[:12]) == [Part(bytes(10), "binary", True, False)]
    assert received_by(session, wire[12:]) == [Part(bytes(LIMIT - 9), "binary", False, True)]
    assert received_by(session, frame(TEXT, b"")) == [TextMessage("")]


def test_fragments_come_in_parts_once_they_are_over_the_limit() -> None:
    session = parts_session()
    assert received_by(session, frame(TEXT, b"a" * 30, final=False)) == []
    assert received_by(session, frame(CONTINUATION, b"b" * 30, final=False)) == [
        Part("a" * 30 + "b" * 30, "text", True, False)
    ]
    assert received_by(session, frame(CONTINUATION, b"c", final=False)) == [Part("c", "text", False, False)]
    assert received_by(session, frame(CONTINUATION, b"")) == [Part("", "text", False, True)]
    assert received_by(session, frame(BINARY, b"small", final=False) + frame(CONTINUATION, b"")) == [
        BinaryMessage(b"small")
    ]


def test_text_is_not_cut_within_a_character_and_what_is_not_utf8_fails_when_it_comes() -> None:
    session = parts_session()
    text = "é€𝄞" * 20
    assert joined([m for byte in bytewise(frame(TEXT, text.encode())) for m in received_by(session, byte)]) == [
        TextMessage(text)
    ]
    messages = received_by(session, frame(TEXT, b"a" * 60, final=False) + frame(CONTINUATION, b"\xff", final=False))
    assert messages == [Part("a" * 60, "text", True, False)]
    assert session.failure is not None
    assert session.failure.code == 1007


def test_a_control_frame_between_fragments_comes_between_the_parts() -> None:
    session = parts_session()
    wire = frame(BINARY, bytes(60), final=False) + frame(PING, b"p") + frame(CONTINUATION, b"end")
    assert received_by(session, wire) == [
        Part(bytes(60), "binary", True, False),
        PingMessage(b"p"),
        Part(b"end", "binary", False, True),
    ]
    assert session.has_control


def test_what_inflates_a_thousandfold_is_given_out_in_many_calls() -> None:
    bomb = frame(BINARY, Deflater().end(bytes(64 * 1024 * 1024)), reserved=RSV1)
    session = parts_session(deflate=True, limit=1024)
    total = calls = 0
    for start in range(0, len(bomb), 65536):
        messages = session.receive(bomb[start : start + 65536])
        while True:
            calls += 1
            size = sum(len(part.data) for part in cast("list[Part]", messages))
            assert size < 2 * 1024 * 1024
            total += size
            if not session.has_more:
                break
            messages = session.receive(b"")
    assert total == 64 * 1024 * 1024
    assert calls > 32
    assert session.failure is None


def test_data_that_is_not_deflated_fails_the_connection() -> None:
    session = parts_session(deflate=True)
    assert received_by(session, frame(BINARY, b"\xff" * 20, reserved=RSV1)) == []
    assert session.failure is not None
    assert session.failure.code == 1007


def test_the_window_goes_on_behind_a_message_in_parts() -> None:
    session, deflater = parts_session(deflate=True), Deflater()
    noise = os.urandom(200)
    for _ in range(3):
        wire = frame(BINARY, deflater.end(noise), reserved=RSV1) + frame(BINARY, deflater.end(b"small"), reserved=RSV1)
        assert joined(received_by(session, wire)) == [BinaryMessage(noise), BinaryMessage(b"small")]


def test_a_session_without_parts_fails_on_the_same() -> None:
    for session in (parts_session(), new_session(limit=LIMIT)):
        take_in(session, frame(BINARY, bytes(LIMIT + 1)))
        assert (session.state is State.CLOSED) is not isinstance(session, PartsSession)
