"""What a caller may send, and what is raised before anything is written."""

from __future__ import annotations

import array
import ctypes
from dataclasses import FrozenInstanceError, fields

import pytest

from zapros_websocket._protocol.messages import (
    BinaryMessage,
    CloseCode,
    CloseMessage,
    Message,
    PingMessage,
    PongMessage,
    TextMessage,
    may_be_sent,
)
from zapros_websocket._protocol.outgoing import close_message, outgoing

from .wire import BINARY, PING, PONG, TEXT

ALLOWED = [*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)]


def sent(message: object) -> tuple[int, bytes]:
    encoded = outgoing(message)
    assert isinstance(encoded, tuple)
    opcode, payload = encoded
    return opcode, bytes(payload)


def binary(data: object) -> BinaryMessage:
    """The annotation says bytes; anything bytes-like can be sent."""
    return BinaryMessage(data)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def ping(data: object) -> PingMessage:
    return PingMessage(data)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def pong(data: object) -> PongMessage:
    return PongMessage(data)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def text(data: object) -> TextMessage:
    return TextMessage(data)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def closing(code: object, reason: object) -> CloseMessage:
    """A close message with fields of any type, as a caller without a type checker can make it."""
    return CloseMessage(code, reason)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


class Word(str):
    """A text that knows more, such as the member of an enum."""

    __slots__ = ()


class Remark(TextMessage):
    """A message that knows more."""

    __slots__ = ()


# The messages


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (TextMessage("a"), "text"),
        (BinaryMessage(b"a"), "binary"),
        (PingMessage(b"a"), "ping"),
        (PongMessage(b"a"), "pong"),
        (CloseMessage(), "close"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_messages_are_frozen_and_slotted_and_have_a_literal_kind(message: Message, kind: str) -> None:
    assert message.kind == kind
    assert fields(message)[-1].name == "kind"
    assert not hasattr(message, "__dict__")
    assert hash(message) == hash(message)
    with pytest.raises(FrozenInstanceError):
        message.kind = "other"  # type: ignore[misc,assignment] # pyright: ignore


def test_defaults() -> None:
    assert (PingMessage().data, PongMessage().data) == (b"", b"")
    assert CloseMessage() == CloseMessage(CloseCode.NORMAL, None)


# What is sent


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param("héllo", (TEXT, "héllo".encode()), id="str"),
        pytest.param("", (TEXT, b""), id="empty str"),
        pytest.param(TextMessage("😀"), (TEXT, "😀".encode()), id="TextMessage"),
        pytest.param(Word("a"), (TEXT, b"a"), id="subclass of str"),
        pytest.param(TextMessage(Word("a")), (TEXT, b"a"), id="TextMessage of a subclass of str"),
        pytest.param(Remark("a"), (TEXT, b"a"), id="subclass of TextMessage"),
        pytest.param(b"a", (BINARY, b"a"), id="bytes"),
        pytest.param(b"", (BINARY, b""), id="empty bytes"),
        pytest.param(bytearray(b"a"), (BINARY, b"a"), id="bytearray"),
        pytest.param(bytearray(), (BINARY, b""), id="empty bytearray"),
        pytest.param(memoryview(b"abc")[1:], (BINARY, b"bc"), id="memoryview"),
        pytest.param(memoryview(b"abcdef")[::2], (BINARY, b"ace"), id="memoryview with gaps"),
        pytest.param(memoryview(bytes(range(6))).cast("B", (2, 3)), (BINARY, bytes(range(6))), id="two dimensions"),
        pytest.param(array.array("H", [1, 2]), (BINARY, array.array("H", [1, 2]).tobytes()), id="array"),
        pytest.param(array.array("d"), (BINARY, b""), id="empty array"),
        pytest.param((ctypes.c_uint8 * 3)(1, 2, 3), (BINARY, b"\1\2\3"), id="array of ctypes"),
        pytest.param(BinaryMessage(b"a"), (BINARY, b"a"), id="BinaryMessage"),
        pytest.param(binary(bytearray(b"a")), (BINARY, b"a"), id="BinaryMessage of a bytearray"),
        pytest.param(PingMessage(b"p" * 125), (PING, b"p" * 125), id="PingMessage"),
        pytest.param(pong(bytearray(b"p")), (PONG, b"p"), id="PongMessage of a bytearray"),
    ],
)
def test_send_takes(message: object, expected: tuple[int, bytes]) -> None:
    assert sent(message) == expected


def test_bytes_are_not_copied() -> None:
    payload = b"abc"
    assert outgoing(payload) == (BINARY, payload)
    assert outgoing(BinaryMessage(payload))[1] is payload  # type: ignore[index] # pyright: ignore


def test_a_control_payload_is_a_copy() -> None:
    payload = bytearray(b"a")
    encoded = outgoing(ping(payload))
    payload[:] = b"b"
    assert encoded == (PING, b"a")


@pytest.mark.parametrize(
    "message",
    [
        None,
        1,
        1.5,
        True,
        {"kind": "text"},
        pytest.param(object(), id="object()"),
        TextMessage,
        text(b"a"),
        text(None),
        binary("a"),
        ping("a"),
        pong(None),
        closing("1000", None),
        closing(None, None),
        closing(1000.0, None),
        closing(1000, b"why"),
    ],
    ids=repr,
)
def test_any_other_object_raises_type_error(message: object) -> None:
    with pytest.raises(TypeError):
        outgoing(message)


@pytest.mark.parametrize("payload", [b"p" * 126, bytearray(1000)], ids=["126 bytes", "1000 bytes"])
@pytest.mark.parametrize("kind", [PingMessage, PongMessage])
def test_a_control_payload_over_125_bytes_raises_value_error(
    kind: type[PingMessage | PongMessage], payload: bytes
) -> None:
    with pytest.raises(ValueError, match=f"up to 125 bytes, not {len(payload)}"):
        outgoing(kind(payload))


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud83d\ude00"], ids=ascii)
def test_text_that_utf8_cannot_carry_raises_value_error(text: str) -> None:
    for message in (text, TextMessage(text), CloseMessage(1000, text)):
        with pytest.raises(ValueError, match="lone surrogates"):
            outgoing(message)


# Close frames


def test_the_close_codes_that_may_be_sent() -> None:
    assert [code for code in range(-10, 70_000) if may_be_sent(code)] == ALLOWED


@pytest.mark.parametrize("code", [1000, CloseCode.GOING_AWAY, 1007, 1014, 3000, 4999])
def test_a_close_that_may_be_sent(code: int) -> None:
    assert close_message(code, None) == CloseMessage(code)
    assert outgoing(CloseMessage(code, "why")) == CloseMessage(code, "why")


@pytest.mark.parametrize(
    "code", [-1, 0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536, True, CloseCode.NO_STATUS]
)
def test_a_close_code_that_may_not_be_sent_raises_value_error(code: int) -> None:
    with pytest.raises(ValueError, match="may not be sent"):
        close_message(code, None)
    with pytest.raises(ValueError, match="may not be sent"):
        outgoing(CloseMessage(code))


@pytest.mark.parametrize("reason", ["r" * 123, "é" * 61, "€" * 41], ids=["ASCII", "two bytes", "three bytes"])
def test_a_reason_of_up_to_123_bytes_is_taken(reason: str) -> None:
    assert close_message(1000, reason) == CloseMessage(1000, reason)


@pytest.mark.parametrize("reason", ["r" * 124, "é" * 62, "€" * 42], ids=["ASCII", "two bytes", "three bytes"])
def test_a_reason_over_123_bytes_of_utf8_raises_value_error(reason: str) -> None:
    with pytest.raises(ValueError, match="up to 123 bytes"):
        close_message(1000, reason)


@pytest.mark.parametrize("reason", [1, b"why", ["why"]], ids=repr)
def test_a_reason_that_is_not_a_str_raises_type_error(reason: object) -> None:
    with pytest.raises(TypeError, match="a close reason is a str"):
        close_message(1000, reason)
