"""Whole data frames to bytes and back (RFC 6455, section 5.2), without the detour through wsproto.

What is read here is the common case: a final, unfragmented text or binary frame that is complete in the buffer.
Invariant: ``read_messages`` accepts only what wsproto would accept, and stops in front of everything else, so that
wsproto judges it: control frames, fragments, and every violation of the protocol.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from .deflate import most_compressed
from .messages import BinaryMessage, CloseCode, CloseMessage, TextMessage

if TYPE_CHECKING:
    from .deflate import Deflate
    from .messages import Message

TEXT: Final = 0x1
BINARY: Final = 0x2

_FINAL: Final = 0x80
_COMPRESSED: Final = 0x40
_MASKED: Final = 0x80

_PLAIN: Final = frozenset((_FINAL | TEXT, _FINAL | BINARY))
_PLAIN_OR_COMPRESSED: Final = _PLAIN | {first | _COMPRESSED for first in _PLAIN}


def encode(opcode: int, payload: bytes | memoryview, *, compressed: bool = False) -> bytes:
    """A final data frame of a client: masked with a key that nobody can predict (section 5.3)."""
    first = _FINAL | (_COMPRESSED if compressed else 0) | opcode
    length = len(payload)
    if length < 126:
        header = bytes((first, _MASKED | length))
    elif length < 1 << 16:
        header = bytes((first, _MASKED | 126)) + length.to_bytes(2, "big")
    else:
        header = bytes((first, _MASKED | 127)) + length.to_bytes(8, "big")
    key = os.urandom(4)
    return b"".join((header, key, _mask(payload, key)))


def _mask(payload: bytes | memoryview, key: bytes) -> bytes:
    # One exclusive or of two large numbers: the fastest way there is without leaving Python.
    length = len(payload)
    keys = (key * (length // 4 + 1))[:length]
    masked = int.from_bytes(payload, "little") ^ int.from_bytes(keys, "little")
    return masked.to_bytes(length, "little")


def span(buffer: bytes | bytearray | memoryview, start: int) -> tuple[int, int] | None:
    """The lengths of the header and of the payload of the frame at ``start``; None while the header is incomplete."""
    available = len(buffer) - start
    if available < 2:
        return None
    second = buffer[start + 1]
    length = second & ~_MASKED
    header = 2 if length < 126 else 4 if length == 126 else 10
    # Nothing that a server sends is masked. wsproto will say so, once it has the whole header.
    key = 4 if second & _MASKED else 0
    if available < header + key:
        return None
    if header > 2:
        length = int.from_bytes(buffer[start + 2 : start + header], "big")
    return header + key, length


def read_messages(
    buffer: bytes | bytearray | memoryview, start: int, limit: int, deflate: Deflate | None, messages: list[Message]
) -> tuple[int, int, CloseMessage | None]:
    """Append the messages that stand at ``start``, one behind the other, to ``messages``.

    Returns where it stopped; how long the buffer must be to be worth another call, or 0 where it stopped in front of
    something that is not its business; and the failure that a message turned out to be.
    """
    accepted = _PLAIN if deflate is None else _PLAIN_OR_COMPRESSED
    compressed_limit = most_compressed(limit)
    end = len(buffer)
    while end - start >= 2:
        first = buffer[start]
        length = buffer[start + 1]
        if first not in accepted or length & _MASKED:
            return start, 0, None
        body = start + 2
        if length >= 126:
            body += 2 if length == 126 else 8
            if body > end:
                return start, body, None
            shortest = 126 if length == 126 else 1 << 16
            length = int.from_bytes(buffer[start + 2 : body], "big")
            if length < shortest:
                return start, 0, None
        stop = body + length
        if length > limit and (length > compressed_limit or not first & _COMPRESSED):
            return start, 0, None
        if stop > end:
            return start, stop, None
        payload = buffer[body:stop] if isinstance(buffer, bytes) else bytes(memoryview(buffer)[body:stop])
        received = message(first, payload, limit, deflate)
        if isinstance(received, CloseMessage):
            return start, 0, received
        messages.append(received)
        start = stop
    return start, start + 2, None


def message(
    first: int, payload: bytes, limit: int, deflate: Deflate | None
) -> TextMessage | BinaryMessage | CloseMessage:
    """The message that an accepted frame stands for, by its ``first`` byte; or the failure that it is."""
    if first & _COMPRESSED:
        assert deflate is not None
        inflated = deflate.inflate(payload, limit, final=True)
        if isinstance(inflated, CloseMessage):
            return inflated
        payload = inflated
    if first & BINARY:
        return BinaryMessage(payload)
    try:
        return TextMessage(payload.decode())
    except UnicodeDecodeError as error:
        # Judged here and not by wsproto, because the window of the inflater has moved on.
        return CloseMessage(CloseCode.INVALID_FRAME_PAYLOAD_DATA, f"invalid text: {error}")
