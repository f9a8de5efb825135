"""Whole data frames: what is encoded, and where reading stops."""

from __future__ import annotations

import copy
import pickle
import random
import zlib
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate

from zapros_websocket._protocol.deflate import ENOUGH, TAIL, Deflate, most_compressed
from zapros_websocket._protocol.frames import span
from zapros_websocket._protocol.messages import BinaryMessage, CloseMessage, Message, TextMessage
from zapros_websocket._protocol.options import PerMessageDeflateExtension

from .cases import CASES, Case
from .forms import Buffer, Form
from .wire import (
    BINARY,
    CONTINUATION,
    LIMIT,
    PING,
    RSV1,
    TEXT,
    Deflater,
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
    form: Form, buffer: Buffer, start: int = 0, *, limit: int = LIMIT, deflate: bool = False
) -> tuple[list[Message], int, int, int | None]:
    """The messages, where it stopped, what it needs, and the code of the failure."""
    messages: list[Message] = []
    agreed = Deflate(PerMessageDeflateExtension()) if deflate else None
    stop, needed, failure = form.read_messages(buffer, start, limit, agreed, messages)
    return messages, stop, needed, None if failure is None else int(failure.code)


# Encoding


def test_it_stops_where_much_was_inflated_and_goes_on_in_the_next_call(form: Form) -> None:
    compressor = zlib.compressobj(wbits=-15)
    payload = (compressor.compress(bytes(ENOUGH)) + compressor.flush(zlib.Z_FULL_FLUSH)).removesuffix(TAIL)
    large, small = frame(BINARY, payload, reserved=RSV1), frame(BINARY, b"x")
    wire = small + large + small
    stop = len(small + large)
    messages, *where = read(form, wire, limit=ENOUGH, deflate=True)
    assert messages == [BinaryMessage(b"x"), BinaryMessage(bytes(ENOUGH))]
    assert where == [stop, stop, None]
    assert read(form, wire, stop, limit=ENOUGH, deflate=True)[0] == [BinaryMessage(b"x")]


@pytest.mark.parametrize("length", [*range(20), 125, 126, 127, 8191, 8192, 8193, 16384, 65535, 65536, 65537])
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_a_server_reads_every_length(form: Form, opcode: int, length: int) -> None:
    payload = bytes(place % 128 for place in range(length))
    expected = TextMessage(payload.decode()) if opcode == TEXT else BinaryMessage(payload)
    assert Server().read(form.encode(opcode, payload)) == [expected]


@steady
@given(st.binary(max_size=300))
def test_a_server_reads_every_payload(form: Form, payload: bytes) -> None:
    wire = form.encode(BINARY, payload) + form.encode(BINARY, memoryview(payload))
    assert Server().read(wire) == [BinaryMessage(payload)] * 2


def test_a_server_inflates_what_is_marked_as_compressed(form: Form) -> None:
    extension = PerMessageDeflate()
    extension.finalize("permessage-deflate")
    assert Server(extension).read(form.encode(TEXT, deflated(b"hello"), compressed=True)) == [TextMessage("hello")]


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
def test_the_shortest_form_of_a_length_is_used(form: Form, length: int, beginning: bytes) -> None:
    wire = form.encode(BINARY, bytes(length))
    assert wire.startswith(beginning)
    assert len(wire) == len(beginning) + 4 + length


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
def test_it_stops_in_front_of_what_is_not_its_business(form: Form, wire: bytes) -> None:
    assert read(form, wire) == ([], 0, 0, None)
    assert read(form, HELLO + wire + HELLO) == ([TextMessage("hello")], len(HELLO), 0, None)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES if case.failure == 1002])
def test_it_accepts_no_violation_of_the_protocol(form: Form, case: Case) -> None:
    messages, stop, needed, failure = read(form, case.wire, deflate=case.deflate)
    assert (needed, failure) == (0, None)
    assert stop < len(case.wire)
    assert tuple(messages) == case.messages[: len(messages)]


def test_all_that_is_complete_is_read_in_one_go(form: Form) -> None:
    wire = HELLO + frame(BINARY, b"x" * 126) + frame(BINARY, b"y" * 65536) + frame(TEXT)
    expected = [TextMessage("hello"), BinaryMessage(b"x" * 126), BinaryMessage(b"y" * 65536), TextMessage("")]
    for buffer in (wire, bytearray(wire), memoryview(wire), memoryview(bytearray(wire))):
        assert read(form, buffer) == (expected, len(wire), len(wire) + 2, None)


def test_it_starts_where_it_is_told(form: Form) -> None:
    assert read(form, b"\xff\xff" + HELLO, 2) == ([TextMessage("hello")], 9, 11, None)
    assert read(form, HELLO, 7) == ([], 7, 9, None)


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
def test_it_says_how_long_the_buffer_must_be_to_be_worth_another_call(form: Form, wire: bytes, needed: int) -> None:
    assert read(form, wire) == ([], 0, needed, None)
    assert read(form, HELLO + wire) == ([TextMessage("hello")], 7, 7 + needed, None)


def test_text_that_is_not_utf8_is_a_failure(form: Form) -> None:
    wire = HELLO + frame(TEXT, b"\xff") + HELLO
    assert read(form, wire) == ([TextMessage("hello")], 7, 0, 1007)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        pytest.param(b"\xff" * 8, 1007, id="no blocks of deflate"),
        pytest.param(deflated(b"\xff"), 1007, id="not UTF-8"),
        pytest.param(deflated(b"x" * (LIMIT + 1)), 1009, id="too big once inflated"),
    ],
)
def test_a_compressed_message_that_cannot_be_is_a_failure(form: Form, payload: bytes, code: int) -> None:
    wire = HELLO + frame(TEXT, payload, reserved=RSV1)
    assert read(form, wire, deflate=True) == ([TextMessage("hello")], 7, 0, code)


@pytest.mark.parametrize(
    ("length", "needed"),
    [
        pytest.param(most_compressed(LIMIT), most_compressed(LIMIT) + 10, id="the most"),
        pytest.param(most_compressed(LIMIT) + 1, 0, id="more"),
    ],
)
def test_a_compressed_message_may_be_longer_than_the_limit(form: Form, length: int, needed: int) -> None:
    assert read(form, header(TEXT, length, reserved=RSV1), deflate=True) == ([], 0, needed, None)
    assert read(form, header(TEXT, length), deflate=True) == ([], 0, 0, None)


@pytest.mark.parametrize("limit", [1 << 62, (1 << 63) - 1, 1 << 63, 1 << 200])
@pytest.mark.parametrize("deflate", [False, True], ids=["uncompressed", "compressed"])
def test_a_limit_may_be_larger_than_any_message(form: Form, limit: int, deflate: bool) -> None:
    reserved = RSV1 if deflate else 0
    length = min(limit, (1 << 63) - 1)
    wire = header(BINARY, length, reserved=reserved)
    assert read(form, wire, limit=limit, deflate=deflate) == ([], 0, length + 10, None)
    assert read(form, header(BINARY, 1 << 63, reserved=reserved), limit=limit, deflate=deflate) == ([], 0, 0, None)


def test_compressed_and_plain_messages_are_read_side_by_side(form: Form) -> None:
    wire = frame(TEXT, deflated(b"a"), reserved=RSV1) + frame(BINARY, b"b")
    assert read(form, wire, deflate=True) == ([TextMessage("a"), BinaryMessage(b"b")], len(wire), len(wire) + 2, None)


@pytest.mark.parametrize("length", [0, 4096, 4097, 20_000])
def test_compressed_messages_of_every_length_are_read(form: Form, length: int) -> None:
    # Noise, which does not get smaller when it is compressed.
    payload = random.Random(1).randbytes(length)
    wire = frame(BINARY, Deflater().end(payload), reserved=RSV1)
    for buffer in (wire, bytearray(wire), memoryview(bytearray(wire))):
        assert read(form, buffer, deflate=True) == ([BinaryMessage(payload)], len(wire), len(wire) + 2, None)


@pytest.mark.parametrize("length", [5, 5000])
def test_the_failure_says_what_is_wrong_with_a_text(form: Form, length: int) -> None:
    for wire in (frame(TEXT, b"x" * length + b"\xff"), bytearray(frame(TEXT, b"x" * length + b"\xff"))):
        failure = form.read_messages(wire, 0, LIMIT, None, [])[2]
        words = f"invalid text: 'utf-8' codec can't decode byte 0xff in position {length}: invalid start byte"
        assert failure == CloseMessage(1007, words)


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
@pytest.mark.parametrize("length", [1, 5000])
def test_a_message_that_was_read_is_like_one_that_was_made(form: Form, opcode: int, length: int) -> None:
    made = TextMessage("x" * length) if opcode == TEXT else BinaryMessage(b"x" * length)
    (message,) = read(form, bytearray(frame(opcode, b"x" * length)))[0]
    assert type(message) is type(made)
    assert message == made
    assert (hash(message), repr(message), message.kind) == (hash(made), repr(made), made.kind)
    assert copy.copy(message) == copy.deepcopy(message) == pickle.loads(pickle.dumps(message)) == made
    assert replace(message) == made
    with pytest.raises(FrozenInstanceError):
        message.kind = made.kind  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


def test_a_buffer_can_grow_when_it_was_read(form: Form) -> None:
    buffer = bytearray(frame(TEXT, b"x" * 5000) + frame(TEXT, b"\xff" * 5000))
    messages, stop, _, failure = read(form, buffer)
    del buffer[:stop]
    buffer += HELLO
    assert (messages, failure) == ([TextMessage("x" * 5000)], 1007)


def test_what_is_read_stays_as_it_is_when_the_buffer_goes_on(form: Form) -> None:
    buffer = bytearray(frame(BINARY, b"first"))
    (message,) = read(form, buffer)[0]
    buffer[2:] = b"wiped"
    assert message == BinaryMessage(b"first")
    assert not isinstance(message, CloseMessage)
    assert type(message.data) is bytes
