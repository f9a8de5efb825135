"""The bound on a message: exactly at it, one byte above it, and however the message comes."""

from __future__ import annotations

from random import Random

import pytest

from zapros_websocket._protocol.fragments import Fragments
from zapros_websocket._protocol.messages import BinaryMessage, Message, PingMessage, TextMessage
from zapros_websocket._protocol.session import State

from .wire import (
    BINARY,
    CONTINUATION,
    PING,
    RSV1,
    TEXT,
    Deflater,
    Outcome,
    bytewise,
    close_frame,
    deflated,
    final_stream,
    frame,
    halves,
    header,
    new_session,
    outcome_of,
)

LIMIT = 1000
FULL = b"x" * LIMIT
NOISE = Random(0).randbytes(LIMIT)
MEBIBYTE = 1 << 20
TOO_BIG = Outcome((), State.CLOSED, 1009, None, 1009)


def compressed_fragments(*pieces: bytes) -> bytes:
    """One compressed message, a frame for each piece."""
    deflater = Deflater()
    blocks = [*(deflater.block(piece) for piece in pieces[:-1]), deflater.end(pieces[-1])]
    return frame(BINARY, blocks[0], final=False, reserved=RSV1) + fragments_behind(blocks[1:])


def fragments_behind(blocks: list[bytes]) -> bytes:
    frames = [frame(CONTINUATION, block, final=number == len(blocks)) for number, block in enumerate(blocks, start=1)]
    return b"".join(frames)


def bomb(size: int) -> bytes:
    """A compressed message of ``size`` zeros: a thousandth of it on the wire."""
    deflater = Deflater()
    piece = bytes(min(size, MEBIBYTE))
    return b"".join(deflater.block(piece) for _ in range(size // len(piece))) + deflater.end(b"")


WITHIN = [
    pytest.param(frame(BINARY, FULL), BinaryMessage(FULL), id="a frame"),
    pytest.param(frame(TEXT, "é".encode() * 500), TextMessage("é" * 500), id="text"),
    pytest.param(
        frame(BINARY, FULL[:400], final=False) + frame(CONTINUATION, FULL[400:]), BinaryMessage(FULL), id="fragments"
    ),
    pytest.param(
        frame(BINARY, FULL, final=False) + frame(CONTINUATION), BinaryMessage(FULL), id="an empty fragment at the end"
    ),
    pytest.param(frame(BINARY, deflated(FULL), reserved=RSV1), BinaryMessage(FULL), id="compressed"),
    pytest.param(
        frame(BINARY, deflated(NOISE), reserved=RSV1), BinaryMessage(NOISE), id="longer compressed than it is"
    ),
    pytest.param(
        compressed_fragments(NOISE[:400], NOISE[400:]),
        BinaryMessage(NOISE),
        id="fragments longer compressed",
    ),
    pytest.param(
        compressed_fragments(FULL[:400], FULL[400:990], FULL[990:]), BinaryMessage(FULL), id="compressed fragments"
    ),
    pytest.param(compressed_fragments(FULL, b""), BinaryMessage(FULL), id="an empty compressed fragment at the end"),
]

BEYOND = [
    pytest.param(frame(BINARY, FULL + b"x"), id="a frame"),
    pytest.param(frame(TEXT, "é".encode() * 501), id="text is counted in bytes"),
    pytest.param(header(BINARY, LIMIT + 1), id="declared on the header"),
    pytest.param(header(TEXT, 1 << 62), id="2^62 declared on the header"),
    pytest.param(header(BINARY, 1 << 62, final=False), id="2^62 declared on the header of a fragment"),
    pytest.param(header(BINARY, 1 << 62, reserved=RSV1), id="2^62 declared on the header of a compressed message"),
    pytest.param(header(BINARY, LIMIT + 1, final=False), id="declared on the header of a fragment"),
    pytest.param(header(BINARY, 2 * LIMIT, reserved=RSV1), id="declared on the header of a compressed message"),
    pytest.param(
        header(BINARY, 2 * LIMIT, final=False, reserved=RSV1), id="declared on the header of a compressed fragment"
    ),
    pytest.param(frame(BINARY, deflated(NOISE + b"x"), reserved=RSV1), id="longer compressed, after inflation"),
    pytest.param(frame(BINARY, FULL, final=False) + header(CONTINUATION, 1), id="declared on the header of the last"),
    pytest.param(
        frame(BINARY, b"x", final=False) + frame(CONTINUATION, b"x", final=False) * LIMIT, id="accumulating fragments"
    ),
    pytest.param(
        frame(BINARY, FULL[1:], final=False) + frame(PING) * 3 + frame(CONTINUATION, b"xx"),
        id="accumulating around pings",
    ),
    pytest.param(frame(BINARY, deflated(FULL + b"x"), reserved=RSV1), id="after inflation"),
    pytest.param(frame(TEXT, deflated(FULL + b"x"), reserved=RSV1), id="text after inflation"),
    pytest.param(compressed_fragments(FULL, b"x"), id="fragments after inflation"),
    pytest.param(compressed_fragments(FULL + b"x", b""), id="the first of the fragments after inflation"),
    pytest.param(frame(BINARY, bomb(MEBIBYTE)[:900], reserved=RSV1), id="a bomb"),
    pytest.param(frame(BINARY, bomb(MEBIBYTE)[:900], final=False, reserved=RSV1), id="a bomb in a fragment"),
    pytest.param(
        frame(BINARY, bomb(MEBIBYTE)[:1], final=False, reserved=RSV1)
        + b"".join(frame(CONTINUATION, byte, final=False) for byte in bytewise(bomb(MEBIBYTE)[1:900])),
        id="a bomb in many fragments",
    ),
    pytest.param(
        frame(BINARY, final_stream(FULL), final=False, reserved=RSV1) + frame(CONTINUATION, deflated(b"x")),
        id="a second stream of blocks in a message",
    ),
]


def without_pings(outcome: Outcome) -> Outcome:
    kept = tuple(message for message in outcome.messages if not isinstance(message, PingMessage))
    return Outcome(kept, outcome.state, outcome.failure, outcome.received, outcome.sent)


@pytest.mark.parametrize(("wire", "message"), WITHIN)
def test_a_message_of_exactly_the_limit_is_delivered(wire: bytes, message: Message) -> None:
    for pieces in ([wire], bytewise(wire), *halves(wire)):
        assert outcome_of(new_session(limit=LIMIT, deflate=True), pieces) == Outcome((message,))


@pytest.mark.parametrize(("wire", "message"), WITHIN)
def test_the_count_begins_anew_with_each_message(wire: bytes, message: Message) -> None:
    # The second one is compressed in a window of its own, which a server may choose to do at any time.
    session = new_session(limit=LIMIT, deflate=True)
    assert outcome_of(session, [wire + wire]) == Outcome((message, message))


@pytest.mark.parametrize("wire", BEYOND)
def test_a_message_of_one_byte_more_is_a_failure(wire: bytes) -> None:
    for pieces in ([wire], bytewise(wire), [wire + frame(TEXT, b"behind")]):
        outcome = outcome_of(new_session(limit=LIMIT, deflate=True), pieces)
        assert without_pings(outcome) == TOO_BIG


def test_the_reason_names_the_limit_or_the_inflation() -> None:
    reasons: list[str | None] = []
    for wire in (header(BINARY, LIMIT + 1), frame(BINARY, deflated(FULL + b"x"), reserved=RSV1)):
        session = new_session(limit=LIMIT, deflate=True)
        session.receive(wire)
        assert session.failure is not None
        reasons.append(session.failure.reason)
    assert reasons == ["the message is over the limit of 1000 bytes", "the message is too big once inflated"]


def test_messages_in_front_of_one_that_is_too_big_are_delivered() -> None:
    session = new_session(limit=LIMIT)
    assert session.receive(frame(TEXT, b"a") + header(BINARY, LIMIT + 1)) == [TextMessage("a")]
    assert session.failure is not None


def test_the_count_is_nothing_that_a_peer_has_to_know_of() -> None:
    fragments = Fragments(LIMIT, None)
    assert fragments.enabled()
    assert not fragments.offer()


def test_control_frames_do_not_count() -> None:
    session = new_session(limit=1)
    assert session.receive(frame(PING, b"p" * 125)) == [PingMessage(b"p" * 125)]
    session.receive(close_frame(1000, b"r" * 123))
    assert session.failure is None


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(frame(BINARY, FULL, final=False) + frame(CONTINUATION), id="of the limit"),
        pytest.param(compressed_fragments(b"one", b"two"), id="compressed"),
    ],
)
def test_a_continuation_of_a_message_that_has_ended_is_a_violation_and_nothing_else(message: bytes) -> None:
    for pieces in ([b"\xff" * 5], bytewise(b"\xff" * 5)):
        session = new_session(limit=LIMIT, deflate=True)
        session.receive(message + header(CONTINUATION, 5))
        assert outcome_of(session, pieces).failure == 1002
