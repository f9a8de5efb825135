"""What stands in a message, read as the kind that was asked for; and JSON, written as text.

Invariants:

- A message of another kind is never converted: it is an error that says what came.
- What ``dumps`` gives goes out as text, also when it gives bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from ._errors import UnexpectedMessageError
from ._protocol.messages import BinaryMessage, TextMessage

T = TypeVar("T")

JsonValue: TypeAlias = bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"] | None
"""What ``recv_json`` gives without a ``loads`` of your own."""


def text_of(message: TextMessage | BinaryMessage) -> str:
    """The text of a text message."""
    if not isinstance(message, TextMessage):
        raise UnexpectedMessageError("text", message)
    return message.data


def bytes_of(message: TextMessage | BinaryMessage) -> bytes:
    """The bytes of a binary message."""
    if not isinstance(message, BinaryMessage):
        raise UnexpectedMessageError("binary", message)
    return message.data


def json_of(loads: Callable[[str], T]) -> Callable[[TextMessage | BinaryMessage], T]:
    """What gives the value in a text message (RFC 8259)."""
    return lambda message: loads(text_of(message))


def json_text(value: T, dumps: Callable[[T], str | bytes | bytearray | memoryview]) -> str:
    """``value`` as the text of a message.

    Raises:
        TypeError: ``dumps`` gave neither a ``str`` nor something bytes-like.
        ValueError: ``dumps`` gave bytes that are not UTF-8.
    """
    dumped = dumps(value)
    if isinstance(dumped, str):
        return dumped
    if not isinstance(dumped, (bytes, bytearray, memoryview)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"dumps must give a str or bytes, not {type(dumped).__name__}")
    return bytes(dumped).decode()


def compact(value: object) -> str:
    """JSON without spaces, in which characters are themselves; NaN and infinity are no JSON, and raise ValueError."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def parsed(text: str) -> JsonValue:
    """The value that a JSON text stands for."""
    value: JsonValue = json.loads(text)
    return value
