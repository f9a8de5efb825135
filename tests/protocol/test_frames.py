"""Whole data frames: what is encoded, and where reading stops."""

from __future__ import annotations

import os
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate

from zapros_websocket._protocol.deflate import Deflate
from zapros_websocket._protocol.frames import encode, read_messages, span
from zapros_websocket._protocol.messages import BinaryMessage, CloseMessage, Message, TextMessage
from zapros_websocket._protocol.options import PerMessageDeflateExtension

from .cases import CASES, Case
from .wire import (
    BINARY,
    CONTINUATION,
    LIMIT,
    PING,
    RSV1,
    TEXT,
    Server,
    close_frame,
    deflated,
    frame,
    header,
    masked_frame,
    steady,
)

HELLO = frame(TEXT, b"hello")


def read(
    buffer: bytes | bytearray, start: int = 0, *, limit: int = LIMIT, deflate: bool = False
) -> tuple[list[Message], int, int, int | None]:
    """The messages, where it stopped, what it needs, and the code of the failure."""
    messages: list[Message] = []
    agreed = Deflate(PerMessageDeflateExtension()) if deflate else None
    stop, needed, failure = read_messages(buffer, start, limit, agreed, messages)
    return messages, stop, needed, None if failure is None else int(failure.code)


# Encoding


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 125, 126, 127, 65535, 65536, 65537])
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_a_server_reads_every_length(opcode: int, length: int) -> None:
    payload = bytes(place % 128 for place in range(length))
    expected = TextMessage(payload.decode()) if opcode == TEXT else BinaryMessage(payload)
    assert Server().read(encode(opcode, payload)) == [expected]


@steady
@given(st.binary(max_size=300))
def test_a_server_reads_every_payload(payload: bytes) -> None:
    assert Server().read(encode(BINARY, payload) + encode(BINARY, memoryview(payload))) == [BinaryMessage(payload)] * 2


def test_a_server_inflates_what_is_marked_as_compressed() -> None:
    extension = PerMessageDeflate()
    extension.finalize("permessage-deflate")
    assert Server(extension).read(encode(TEXT, deflated(b"hello"), compressed=True)) == [TextMessage("hello")]


@pytest.mark.parametrize(
    ("length", "beginning"),
    [
        pytest.param(0, b"\x82\x80", id="empty"),
        pytest.param(125, b"\x82\xfd", id="seven bits"),
        pytest.param(126, b"\x82\xfe\x00\x7e", id="two bytes"),
        pytest.param(65535, b"\x82\xfe\xff\xff", id="the most of two bytes"),
        pytest.param(65536, b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00", id="eight bytes"),
    ],
)
def test_the_shortest_form_of_a_length_is_used(length: int, beginning: bytes) -> None:
    wire = encode(BINARY, bytes(length))
    assert wire.startswith(beginning)
    assert len(wire) == len(beginning) + 4 + length


def test_every_frame_is_masked_with_a_fresh_key_of_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = count(1)
    asked: list[int] = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return bytes((next(numbers), 0, 0xFF, 0x80))

    monkeypatch.setattr(os, "urandom", urandom)
    first, second = encode(BINARY, bytes(6)), encode(BINARY, bytes(6))
    assert asked == [4, 4]
    # A mask of zeros shows the key.
    assert first == b"\x82\x86" + b"\x01\x00\xff\x80" + b"\x01\x00\xff\x80\x01\x00"
    assert second == b"\x82\x86" + b"\x02\x00\xff\x80" + b"\x02\x00\xff\x80\x02\x00"


def test_keys_do_not_repeat() -> None:
    assert len({encode(TEXT, b"hello") for _ in range(200)}) == 200


# The length of the next frame


@pytest.mark.parametrize("form", [0, 2, 8])
def test_the_span_of_a_frame_is_known_with_its_header(form: int) -> None:
    wire = header(BINARY, 5, form=form)
    for length in range(len(wire)):
        assert span(wire[:length], 0) is None
    assert span(wire, 0) == (len(wire), 5)
    assert span(bytearray(b"before" + wire + b"behind"), 6) == (len(wire), 5)


def test_the_span_of_a_masked_frame_has_the_key_in_it() -> None:
    wire = masked_frame(TEXT, b"abc")
    assert span(wire[:5], 0) is None
    assert span(wire, 0) == (6, 3)


# Reading: it accepts only what wsproto would accept, and stops in front of everything else


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(frame(PING), id="a ping"),
        pytest.param(close_frame(1000), id="a close"),
        pytest.param(frame(TEXT, b"a", final=False), id="a fragment"),
        pytest.param(frame(CONTINUATION, b"a"), id="a continuation"),
        pytest.param(frame(0x3, b"a"), id="an opcode that is reserved"),
        pytest.param(frame(TEXT, b"a", reserved=RSV1), id="a compressed message that was not agreed to"),
        pytest.param(frame(BINARY, b"a", reserved=0x20), id="a reserved bit"),
        pytest.param(masked_frame(BINARY, b"a"), id="a masked frame"),
        pytest.param(frame(BINARY, b"a", form=2), id="two bytes of length where none is needed"),
        pytest.param(frame(BINARY, b"a" * 126, form=8), id="eight bytes of length where two do"),
        pytest.param(header(BINARY, 1 << 63), id="a length with the highest bit"),
        pytest.param(header(BINARY, LIMIT + 1), id="a length above the limit"),
    ],
)
def test_it_stops_in_front_of_what_is_not_its_business(wire: bytes) -> None:
    assert read(wire) == ([], 0, 0, None)
    assert read(HELLO + wire + HELLO) == ([TextMessage("hello")], len(HELLO), 0, None)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES if case.failure == 1002])
def test_it_accepts_no_violation_of_the_protocol(case: Case) -> None:
    messages, stop, needed, failure = read(case.wire, deflate=case.deflate)
    assert (needed, failure) == (0, None)
    assert stop < len(case.wire)
    assert tuple(messages) == case.messages[: len(messages)]


def test_all_that_is_complete_is_read_in_one_go() -> None:
    wire = HELLO + frame(BINARY, b"x" * 126) + frame(BINARY, b"y" * 65536) + frame(TEXT)
    expected = [TextMessage("hello"), BinaryMessage(b"x" * 126), BinaryMessage(b"y" * 65536), TextMessage("")]
    for buffer in (wire, bytearray(wire)):
        assert read(buffer) == (expected, len(wire), len(wire) + 2, None)


def test_it_starts_where_it_is_told() -> None:
    assert read(b"\xff\xff" + HELLO, 2) == ([TextMessage("hello")], 9, 11, None)


@pytest.mark.parametrize(
    ("wire", "needed"),
    [
        pytest.param(b"", 2, id="nothing"),
        pytest.param(b"\x81", 2, id="one byte"),
        pytest.param(HELLO[:2], 7, id="a header"),
        pytest.param(HELLO[:-1], 7, id="all but one byte"),
        pytest.param(frame(BINARY, bytes(126))[:3], 4, id="half a length of two bytes"),
        pytest.param(frame(BINARY, bytes(126))[:4], 130, id="a length of two bytes"),
        pytest.param(frame(BINARY, bytes(65536))[:9], 10, id="half a length of eight bytes"),
        pytest.param(frame(BINARY, bytes(65536))[:10], 65546, id="a length of eight bytes"),
    ],
)
def test_it_says_how_long_the_buffer_must_be_to_be_worth_another_call(wire: bytes, needed: int) -> None:
    assert read(wire) == ([], 0, needed, None)
    assert read(HELLO + wire) == ([TextMessage("hello")], 7, 7 + needed, None)


def test_text_that_is_not_utf8_is_a_failure() -> None:
    wire = HELLO + frame(TEXT, b"\xff") + HELLO
    assert read(wire) == ([TextMessage("hello")], 7, 0, 1007)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        pytest.param(b"\xff" * 8, 1007, id="no blocks of deflate"),
        pytest.param(deflated(b"\xff"), 1007, id="not UTF-8"),
        pytest.param(deflated(b"x" * (LIMIT + 1)), 1009, id="too big once inflated"),
    ],
)
def test_a_compressed_message_that_cannot_be_is_a_failure(payload: bytes, code: int) -> None:
    wire = HELLO + frame(TEXT, payload, reserved=RSV1)
    assert read(wire, deflate=True) == ([TextMessage("hello")], 7, 0, code)


def test_compressed_and_plain_messages_are_read_side_by_side() -> None:
    wire = frame(TEXT, deflated(b"a"), reserved=RSV1) + frame(BINARY, b"b")
    assert read(wire, deflate=True) == ([TextMessage("a"), BinaryMessage(b"b")], len(wire), len(wire) + 2, None)


def test_what_is_read_stays_as_it_is_when_the_buffer_goes_on() -> None:
    buffer = bytearray(frame(BINARY, b"first"))
    (message,) = read(buffer)[0]
    buffer[2:] = b"wiped"
    assert message == BinaryMessage(b"first")
    assert not isinstance(message, CloseMessage)
    assert type(message.data) is bytes
