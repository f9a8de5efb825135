"""Data frames to bytes and back in Python alone: the form of ``frames`` that is always there.

``_speedups.c`` says the same in C, and the tests hold the two to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Final

from .deflate import ENOUGH, most_compressed
from .messages import BinaryMessage, CloseMessage, TextMessage, not_utf8

if TYPE_CHECKING:
    from .deflate import Deflate
    from .messages import Message

# First bytes of frames: the final one of its message, and its opcode.
_TEXT: Final = 0x81
_BINARY: Final = 0x82

_FINAL: Final = 0x80
_COMPRESSED: Final = 0x40
_MASKED: Final = 0x80

_PLAIN: Final = frozenset((_TEXT, _BINARY))
_PLAIN_OR_COMPRESSED: Final = _PLAIN | {first | _COMPRESSED for first in _PLAIN}

# Bytes that are copied to cut small messages out of them, and of a header.
_WINDOW: Final = 16 * 1024
_LONGEST_HEADER: Final = 10

# An instance of a frozen dataclass calls object.__setattr__ for each field, and takes longer to make than to parse.
_new: Final = object.__new__
_set_text: Final = TextMessage.__dict__["data"].__set__
_set_text_kind: Final = TextMessage.__dict__["kind"].__set__
_set_binary: Final = BinaryMessage.__dict__["data"].__set__
_set_binary_kind: Final = BinaryMessage.__dict__["kind"].__set__

_SHORT: Final = Struct("!BB4s").pack
_MEDIUM: Final = Struct("!BBH4s").pack
_LONG: Final = Struct("!BBQ4s").pack

# One exclusive or of two large numbers is the fastest mask that there is without leaving Python, and of long ones it
# is faster piece by piece.
_PIECE: Final = 8192
_to_number: Final = int.from_bytes

# Keys that nobody has used, for asking the operating system costs as much as all the rest. Taking one is a single
# ``pop``, which threads cannot share.
_KEYS: Final = 256
_keys: Final[list[bytes]] = []
_split_keys: Final = Struct("4s" * _KEYS).unpack
forget_keys: Final = _keys.clear

# What the parent of a process will use, the child must not. Windows has no fork, and nothing to register with.
_register_at_fork: Callable[..., object] = getattr(os, "register_at_fork", dict)
_register_at_fork(after_in_child=forget_keys)


def encode(opcode: int, payload: bytes | memoryview, *, compressed: bool = False) -> bytes:
    """A final frame of a client: masked with a key that nobody can predict (RFC 6455, section 5.3)."""
    try:
        key = _keys.pop()
    except IndexError:
        fresh = _split_keys(os.urandom(4 * _KEYS))
        key = fresh[0]
        _keys.extend(fresh[1:])
    first = opcode | (_FINAL | _COMPRESSED if compressed else _FINAL)
    length = len(payload)
    if length < 126:
        header = _SHORT(first, _MASKED | length, key)
    elif length < 1 << 16:
        header = _MEDIUM(first, _MASKED | 126, length, key)
    else:
        header = _LONG(first, _MASKED | 127, length, key)
    if length > _PIECE:
        return _masked_in_pieces(header, payload, key)
    keys = (key * (length // 4 + 1))[:length]
    return header + (_to_number(payload, "little") ^ _to_number(keys, "little")).to_bytes(length, "little")


def _masked_in_pieces(header: bytes, payload: bytes | memoryview, key: bytes) -> bytes:
    keys = _to_number(key * (_PIECE // 4), "little")
    pieces = [header]
    view = memoryview(payload)
    whole = len(payload) // _PIECE * _PIECE
    for start in range(0, whole, _PIECE):
        pieces.append((_to_number(view[start : start + _PIECE], "little") ^ keys).to_bytes(_PIECE, "little"))
    left = len(payload) - whole
    keys &= (1 << 8 * left) - 1
    pieces.append((_to_number(view[whole:], "little") ^ keys).to_bytes(left, "little"))
    return b"".join(pieces)


def read_messages(
    buffer: bytes | bytearray | memoryview, start: int, limit: int, deflate: Deflate | None, messages: list[Message]
) -> tuple[int, int, CloseMessage | None]:
    """Append the messages that stand at ``start``, one behind the other, to ``messages``.

    Returns where it stopped; how long the buffer must be to be worth another call, or 0 where it stopped in front of
    something that is not its business; and the failure that a message turned out to be. Where much was inflated it
    stops early: the buffer is worth another call as it is. It keeps nothing of ``buffer``.
    """
    given = 0
    accepted = _PLAIN if deflate is None else _PLAIN_OR_COMPRESSED
    size = len(buffer)
    whole, base, window = (buffer, 0, buffer) if isinstance(buffer, bytes) else (memoryview(buffer), start, b"")
    at = start - base
    while True:
        # Small messages are cut out of bytes, which is faster than out of any other buffer: out of a window, whose
        # beginning is at ``base``, and in which all other places are counted.
        if window is not buffer:
            base, at = base + at, 0
            window = bytes(whole[base : base + _WINDOW])
        end = len(window)
        while True:
            if end - at < _LONGEST_HEADER:
                if base + end < size:
                    break
                if end - at < 2:
                    return base + at, base + at + 2, None
            first = window[at]
            if first not in accepted:
                return base + at, 0, None
            length = window[at + 1]
            body = at + 2
            if length >= 126:
                if length & _MASKED:
                    return base + at, 0, None
                body += 2 if length == 126 else 8
                if body > end:
                    return base + at, base + body, None
                if length == 126:
                    length = window[at + 2] << 8 | window[at + 3]
                    if length < 126:
                        return base + at, 0, None
                else:
                    length = _to_number(window[at + 2 : body], "big")
                    if not 1 << 16 <= length < 1 << 63:
                        return base + at, 0, None
            if length > limit and (first < _COMPRESSED | _FINAL or length > most_compressed(limit)):
                return base + at, 0, None
            stop = body + length
            payload: bytes | memoryview
            if stop <= end:
                payload = window[body:stop]
            elif base + stop > size:
                return base + at, base + stop, None
            elif at:
                break
            else:
                payload = whole[base + body : base + stop]
            if first & _COMPRESSED:
                assert deflate is not None
                inflated = deflate.inflate(payload, limit, final=True)
                if isinstance(inflated, CloseMessage):
                    return base + at, 0, inflated
                payload = inflated
                given += len(inflated)
            if first & 1:
                try:
                    text = payload.decode() if isinstance(payload, bytes) else str(payload, "utf-8")
                except UnicodeDecodeError as error:
                    # Judged here and not by wsproto, because the window of the inflater has moved on.
                    return base + at, 0, not_utf8(error)
                message = _new(TextMessage)
                _set_text(message, text)
                _set_text_kind(message, "text")
                messages.append(message)
            else:
                binary = _new(BinaryMessage)
                _set_binary(binary, payload if isinstance(payload, bytes) else bytes(payload))
                _set_binary_kind(binary, "binary")
                messages.append(binary)
            at = stop
            if given >= ENOUGH:
                return base + at, base + at, None
