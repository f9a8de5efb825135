"""What a caller may send, checked before anything is written: the caller's mistakes are raised here."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

from .frames import BINARY, TEXT
from .messages import (
    MAX_CLOSE_REASON,
    MAX_CONTROL_PAYLOAD,
    BinaryMessage,
    CloseMessage,
    PingMessage,
    PongMessage,
    TextMessage,
    may_be_sent,
)

PING: Final = 0x9
PONG: Final = 0xA

BytesLike: TypeAlias = bytes | bytearray | memoryview

Outgoing: TypeAlias = "tuple[int, bytes | memoryview]"
"""An opcode and its payload."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """A message that is given chunk by chunk: what the chunks are shows itself when they come."""

    source: Iterable[object] | AsyncIterable[object]


def outgoing(message: object) -> Outgoing | CloseMessage | Chunks:
    """The opcode and the payload of a message; or the close message, or the chunks, that it is.

    Raises:
        TypeError: it is no message, ``str``, bytes-like object or iterable.
        ValueError: UTF-8 cannot carry the text, a control payload is too long, or the close frame may not be sent.
    """
    # The common case, in as few steps as can be.
    text: object = message.data if type(message) is TextMessage else message
    if type(text) is str:
        try:
            return TEXT, text.encode()
        except UnicodeEncodeError as error:
            raise _no_utf8("text", error) from error
    data: object = message.data if type(message) is BinaryMessage else message
    if type(data) is bytes:
        return BINARY, data
    # Subclasses, other bytes-like objects, control messages, and what is not to be sent.
    if isinstance(message, str):
        return TEXT, _utf8(message, "text")
    if isinstance(message, TextMessage):
        return TEXT, _utf8(message.data, "text")
    if isinstance(message, BinaryMessage):
        return BINARY, _bytes_like(message.data)
    if isinstance(message, PingMessage):
        return PING, _control_payload(message.data)
    if isinstance(message, PongMessage):
        return PONG, _control_payload(message.data)
    if isinstance(message, CloseMessage):
        return close_message(message.code, message.reason)
    payload = _view(message)
    if payload is not None:
        return BINARY, payload
    kind = type(message)
    if issubclass(kind, Mapping):
        # Its keys are hardly what is meant.
        raise TypeError(f"cannot send {kind.__name__}: use send_json() for JSON")
    if issubclass(kind, (Iterable, AsyncIterable)):
        return Chunks(cast("Iterable[object] | AsyncIterable[object]", message))
    raise _no_message(message)


def chunk(given: object, begun_as: int | None) -> Outgoing:
    """The opcode and the payload of a chunk, of a message that has ``begun_as`` text or binary, or begins with it.

    Raises:
        TypeError: it is neither a ``str`` nor bytes-like, or not what the chunks before it were.
        ValueError: UTF-8 cannot carry the text.
    """
    opcode, payload = (TEXT, _utf8(given, "text")) if isinstance(given, str) else (BINARY, _view(given))
    if payload is None:
        raise TypeError(f"a chunk of a message is a str or bytes-like, not {type(given).__name__}")
    if begun_as not in (None, opcode):
        kinds = ("str", "bytes-like") if begun_as == TEXT else ("bytes-like", "str")
        raise TypeError("the chunks of a message are all str or all bytes-like: {} came after {}".format(*kinds[::-1]))
    return opcode, payload


def check_compress(compress: object) -> None:
    """Raise TypeError unless it says whether to compress a message, or leaves it open."""
    if compress is not None and not isinstance(compress, bool):
        raise TypeError(f"compress is True, False or None, not {compress!r}")


def close_message(code: object, reason: object) -> CloseMessage:
    """A close frame that an endpoint may send.

    Raises:
        TypeError: the code is not an ``int`` or the reason not a ``str``.
        ValueError: the code may not be sent, or the reason is over 123 bytes of UTF-8.
    """
    if not isinstance(code, int):
        raise TypeError(f"a close code is an int, not {type(code).__name__}")
    if not may_be_sent(code):
        raise ValueError(f"close code {code!r} may not be sent: use 1000-1003, 1007-1014 or 3000-4999")
    if reason is None:
        return CloseMessage(code)
    if len(_utf8(reason, "close reason")) > MAX_CLOSE_REASON:
        raise ValueError(f"a close reason takes up to {MAX_CLOSE_REASON} bytes of UTF-8: shorten it")
    assert isinstance(reason, str)
    return CloseMessage(code, reason)


def _utf8(text: object, what: str) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"a {what} is a str, not {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise _no_utf8(what, error) from error


def _no_utf8(what: str, error: UnicodeEncodeError) -> ValueError:
    return ValueError(f"the {what} cannot be sent: UTF-8 has no lone surrogates ({error})")


def _bytes_like(data: object) -> bytes | memoryview:
    payload = _view(data)
    if payload is None:
        raise _no_message(data)
    return payload


def _view(data: object) -> bytes | memoryview | None:
    if isinstance(data, bytes):
        return data
    try:
        view = memoryview(data)  # type: ignore[arg-type]
    except TypeError:
        return None
    return view.cast("B") if view.c_contiguous else bytes(view)


def _no_message(data: object) -> TypeError:
    kind = type(data).__name__
    return TypeError(f"cannot send {kind}: a message is one of the message classes, str, bytes-like, or such in chunks")


def _control_payload(data: object) -> bytes:
    payload = bytes(_bytes_like(data))
    if len(payload) > MAX_CONTROL_PAYLOAD:
        raise ValueError(f"a ping or pong carries up to {MAX_CONTROL_PAYLOAD} bytes, not {len(payload)}")
    return payload
