"""The states of a session and its invariants, one test for each; what frames mean is in test_wire."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate

from zapros_websocket._protocol.messages import (
    BinaryMessage,
    CloseMessage,
    Message,
    PingMessage,
    PongMessage,
    TextMessage,
)
from zapros_websocket._protocol.options import PerMessageDeflateExtension
from zapros_websocket._protocol.outgoing import outgoing
from zapros_websocket._protocol.session import MAX_PONGS, Session, State

from .cases import CASES, Case
from .wire import (
    BINARY,
    CONTINUATION,
    LARGE,
    PING,
    RSV1,
    TEXT,
    Server,
    bytewise,
    close_frame,
    deflated,
    frame,
    new_session,
    outcome_of,
    steady,
)

FAILURES = [
    pytest.param(frame(TEXT, b"a", reserved=RSV1), 1002, id="a violation of the protocol"),
    pytest.param(frame(TEXT, b"\xff"), 1007, id="bad data"),
    pytest.param(frame(BINARY, b"x" * 101), 1009, id="a message that is too big"),
]
every_failure = pytest.mark.parametrize(("wire", "code"), FAILURES)


def sent_by(session: Session) -> list[Message]:
    """What the pending control frames are, as the server reads them."""
    return Server().read(session.take_control())


# The invariants


@steady
@given(st.lists(st.sampled_from([case.wire for case in CASES if len(case.wire) < 300]) | st.binary(max_size=20)))
def test_it_never_raises_on_what_a_peer_sends(pieces: list[bytes]) -> None:
    for deflate in (False, True):
        session = new_session(limit=100, deflate=deflate)
        outcome = outcome_of(session, pieces)
        assert outcome.failure in (None, 1002, 1007, 1009)
        assert (outcome.state is State.CLOSED) == (outcome.failure is not None or outcome.received is not None)
        session.take_control()
        assert not session.has_control


LARGE_TEXT = "ä€" * (LARGE // 4)
# What cannot be compressed.
LARGE_DATA = Random(0).randbytes(LARGE * 2)


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        pytest.param(frame(TEXT, LARGE_TEXT.encode()), TextMessage(LARGE_TEXT), id="text"),
        pytest.param(frame(BINARY, LARGE_DATA), BinaryMessage(LARGE_DATA), id="data"),
        pytest.param(frame(BINARY, deflated(LARGE_DATA), reserved=RSV1), BinaryMessage(LARGE_DATA), id="compressed"),
        pytest.param(frame(TEXT, LARGE_TEXT.encode()[:-1]), 1007, id="not UTF-8"),
        pytest.param(frame(BINARY, b"\xff" * LARGE, reserved=RSV1), 1007, id="not compressed"),
    ],
)
def test_a_large_frame_is_judged_like_any_other(wire: bytes, expected: Message | int) -> None:
    session = new_session(deflate=True)
    assert session.receive(wire[:100]) == []
    assert session.room() is not None
    messages = session.receive(wire[100:])
    if isinstance(expected, int):
        assert (messages, session.failure and session.failure.code) == ([], expected)
    else:
        assert (messages, session.failure) == ([expected], None)


@every_failure
def test_a_violation_bad_data_and_a_message_that_is_too_big_become_failure_a_value(wire: bytes, code: int) -> None:
    session = new_session(limit=100)
    assert session.receive(wire) == []
    assert session.failure is not None
    assert session.failure.code == code
    assert session.failure.reason


def test_the_end_of_the_stream_becomes_failure_a_value() -> None:
    session = new_session()
    session.end("the line is dead")
    assert session.failure == CloseMessage(1006, "the line is dead")


@every_failure
def test_a_failure_of_this_side_is_not_a_close_of_the_peer(wire: bytes, code: int) -> None:
    session = new_session(limit=100)
    session.receive(wire)
    assert session.received is None
    assert session.sent == session.failure
    (close,) = sent_by(session)
    assert isinstance(close, CloseMessage)
    assert close.code == code


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES if case.failure or case.received])
def test_nothing_goes_out_after_a_close_frame(case: Case) -> None:
    session = new_session(deflate=case.deflate)
    session.receive(frame(PING, b"before"))
    session.ping(b"ours")
    session.receive(case.wire)
    (close,) = sent_by(session)
    assert isinstance(close, CloseMessage)
    session.receive(frame(PING, b"after"))
    session.ping(b"after")
    session.fail(1011, "after")
    session.close(CloseMessage(1000))
    assert not session.has_control
    assert session.take_control() == b""


def test_no_pong_once_a_close_frame_is_to_go_out() -> None:
    session = new_session()
    session.receive(frame(PING, b"1"))
    session.close(CloseMessage(1000))
    assert session.receive(frame(PING, b"2")) == [PingMessage(b"2")]
    assert sent_by(session) == [CloseMessage(1000, "")]
    assert session.receive(frame(PING, b"3")) == [PingMessage(b"3")]
    assert not session.has_control


def test_what_waits_to_be_written_is_one_ping_and_the_pongs_to_the_newest_pings() -> None:
    session = new_session()
    for number in range(1000):
        session.receive(frame(PING, b"their %d" % number))
        session.ping(b"our %d" % number)
    pongs = [PongMessage(b"their %d" % number) for number in range(1000 - MAX_PONGS, 1000)]
    assert sent_by(session) == [PingMessage(b"our 999"), *pongs]
    assert not session.has_control


def test_a_few_pings_are_answered_one_by_one() -> None:
    session = new_session()
    session.receive(frame(PING, b"1") + frame(TEXT, b"a") + frame(PING, b"2") + frame(PING, b"2"))
    assert sent_by(session) == [PongMessage(b"1"), PongMessage(b"2"), PongMessage(b"2")]


def test_a_pong_goes_out_before_any_message_that_is_sent_after_its_ping_was_received() -> None:
    session = new_session()
    session.receive(frame(PING, b"1"))
    session.ping(b"ours")
    wire = session.encode(TEXT, b"hello")
    assert Server().read(wire) == [PingMessage(b"ours"), PongMessage(b"1"), TextMessage("hello")]
    assert not session.has_control


def test_what_waits_to_be_written_is_one_close() -> None:
    session = new_session()
    session.close(CloseMessage(1001, "first"))
    session.close(CloseMessage(1000, "second"))
    session.receive(close_frame(4000))
    assert sent_by(session) == [CloseMessage(1001, "first")]
    assert not session.has_control


# Closing


@pytest.mark.parametrize(
    ("received", "reply"),
    [
        pytest.param(close_frame(1000, b"bye"), CloseMessage(1000, "bye"), id="the code and the reason"),
        pytest.param(close_frame(4999), CloseMessage(4999, ""), id="a code alone"),
        pytest.param(frame(0x8), CloseMessage(1005, ""), id="nothing for nothing"),
    ],
)
def test_the_close_of_the_peer_is_answered_in_kind(received: bytes, reply: CloseMessage) -> None:
    session = new_session()
    session.receive(received)
    assert session.state is State.CLOSED
    assert session.failure is None
    assert session.sent == session.received == reply
    assert sent_by(session) == [reply]


def test_the_code_1014_is_answered_in_kind_though_wsproto_does_not_know_it() -> None:
    session = new_session()
    session.receive(close_frame(1014, b"bad gateway"))
    reply = session.take_control()
    assert len(reply) == 6 + 2 + len(b"bad gateway")
    assert bytes(a ^ b for a, b in zip(reply[2:4], reply[6:8], strict=True)) == (1014).to_bytes(2, "big")


def test_our_close_and_the_answer_to_it() -> None:
    session = new_session()
    states = [session.state]
    session.close(CloseMessage(1001, "leaving"))
    states.append(session.state)
    assert sent_by(session) == [CloseMessage(1001, "leaving")]
    assert session.receive(close_frame(1000)) == [CloseMessage(1000, "")]
    states.append(session.state)
    assert states == [State.OPEN, State.CLOSING, State.CLOSED]
    assert not session.has_control
    assert session.sent == CloseMessage(1001, "leaving")
    assert session.received == CloseMessage(1000, "")
    assert session.failure is None


@pytest.mark.parametrize("written", [True, False], ids=["written", "pending"])
def test_a_failure_while_closing_leaves_our_close_as_it_was(written: bool) -> None:
    session = new_session()
    session.close(CloseMessage(1000, "ours"))
    if written:
        session.take_control()
    session.receive(frame(0x3))
    assert session.failure is not None
    assert session.failure.code == 1002
    assert session.sent == CloseMessage(1000, "ours")
    assert session.has_control is not written


def test_messages_that_come_before_the_answer_to_our_close_are_delivered() -> None:
    session = new_session()
    session.close(CloseMessage(1000))
    wire = frame(TEXT, b"a") + frame(PING) + frame(BINARY, b"b", final=False) + frame(CONTINUATION) + close_frame(1000)
    expected = [TextMessage("a"), PingMessage(b""), BinaryMessage(b"b"), CloseMessage(1000, "")]
    assert session.receive(wire) == expected


@pytest.mark.parametrize("when", ["open", "closing", "closed"])
def test_the_end_of_the_stream(when: str) -> None:
    session = new_session()
    session.receive(frame(PING))
    if when != "open":
        session.close(CloseMessage(1000))
    if when == "closed":
        session.receive(close_frame(1000))
    session.end("gone")
    assert session.state is State.CLOSED
    assert session.failure == (None if when == "closed" else CloseMessage(1006, "gone"))
    # Only what was handed over for writing can have been sent.
    assert session.has_control is (when == "closed")
    assert session.sent == (CloseMessage(1000) if when == "closed" else None)


def test_the_end_of_the_stream_in_the_middle_of_a_message_loses_only_that() -> None:
    session = new_session()
    assert session.receive(frame(TEXT, b"a") + frame(TEXT, b"half")[:-1]) == [TextMessage("a")]
    session.end("gone")
    assert session.receive(b"f") == []


def test_failing_tells_the_peer_why() -> None:
    session = new_session()
    session.receive(frame(PING))
    session.fail(1011, "no answer to a ping")
    session.fail(1002, "too late to matter")
    assert session.failure == session.sent == CloseMessage(1011, "no answer to a ping")
    assert sent_by(session) == [CloseMessage(1011, "no answer to a ping")]
    assert session.receive(frame(TEXT, b"a")) == []


def test_a_reason_that_is_too_long_is_cut_between_code_points() -> None:
    session = new_session()
    session.fail(1011, "€" * 100)
    assert sent_by(session) == [CloseMessage(1011, "€" * 41)]


def test_a_close_that_could_not_be_written_was_not_sent() -> None:
    session = new_session()
    session.close(CloseMessage(1000))
    session.drop_control()
    assert session.sent is None
    assert not session.has_control


def test_a_close_that_was_written_stays_sent_when_the_rest_is_dropped() -> None:
    session = new_session()
    session.close(CloseMessage(1000))
    session.take_control()
    session.drop_control()
    assert session.sent == CloseMessage(1000)


def test_dropping_forgets_pings_and_pongs() -> None:
    session = new_session()
    session.ping(b"ours")
    session.receive(frame(PING, b"theirs"))
    session.drop_control()
    assert not session.has_control
    assert session.take_control() == b""


@pytest.mark.parametrize("pieces", ["whole", "byte by byte"])
def test_nothing_is_read_after_the_close_of_the_peer(pieces: str) -> None:
    session = new_session()
    wire = close_frame(1000) + frame(TEXT, b"late") + close_frame(1001)
    outcome = outcome_of(session, [wire] if pieces == "whole" else bytewise(wire))
    assert outcome.messages == (CloseMessage(1000, ""),)
    assert session.receive(frame(TEXT, b"later")) == []


# Sending

MESSAGES: list[Message] = [
    TextMessage("hello"),
    BinaryMessage(b"hello" * 20_000),
    PingMessage(b"?"),
    TextMessage(""),
    PongMessage(b"!"),
    BinaryMessage(b""),
    TextMessage("hello"),
]


@pytest.mark.parametrize("bits", [None, 8, 9, 15], ids=["uncompressed", "8 bits", "9 bits", "15 bits"])
@pytest.mark.parametrize("takeover", [True, False], ids=["takeover", "no takeover"])
def test_a_server_reads_what_is_sent(bits: int | None, takeover: bool) -> None:
    extension = PerMessageDeflate()
    extension.finalize("permessage-deflate")
    if bits is None:
        session, server = new_session(), Server()
    else:
        agreed = PerMessageDeflateExtension(client_no_context_takeover=not takeover, client_max_window_bits=bits)
        session, server = new_session(deflate=agreed), Server(extension)
    sizes: list[int] = []
    for message in MESSAGES:
        encoded = outgoing(message)
        assert isinstance(encoded, tuple)
        wire = session.encode(*encoded)
        sizes.append(len(wire))
        assert server.read(wire) == [message]
    assert (sizes[1] > 100_000) is (bits in (None, 8))
    # What is empty gains nothing from compression.
    assert sizes[3] == sizes[5] == 6
