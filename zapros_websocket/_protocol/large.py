"""A large frame on its way in: its payload is received to where it stays.

A ``BytesIO`` has a buffer that can be written into, and gives it out as ``bytes`` without a copy.

Invariant: memory is taken up as the payload arrives, and not as its header declares: never more than twice of it.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Final

from .messages import BinaryMessage, CloseMessage, TextMessage, not_utf8

if TYPE_CHECKING:
    from .deflate import Deflate

_COMPRESSED: Final = 0x40
_TEXT: Final = 0x01

# Bytes of payload from which it is worth it: several smaller ones are received at once.
LARGE: Final = 128 * 1024

_FIRST_ROOM: Final = 1024 * 1024


class LargeFrame:
    """The payload of one frame of ``length`` bytes, whose first byte was ``first``."""

    def __init__(self, first: int, length: int) -> None:
        self.first = first
        self.missing = length
        self._length = length
        self._bytes = BytesIO()
        self._size = 0
        self._view = memoryview(b"")

    def room(self) -> memoryview:
        """Where the next bytes belong: at least one, as long as some are ``missing``."""
        filled = self._length - self.missing
        if filled == self._size:
            self._view.release()
            self._size = min(self._length, max(_FIRST_ROOM, 2 * filled))
            self._bytes.seek(self._size - 1)
            self._bytes.write(b"\0")
            self._view = self._bytes.getbuffer()
        return self._view[filled:]

    def fill(self, count: int) -> None:
        """So many bytes were written into the room."""
        self.missing -= count

    def put(self, data: memoryview) -> int:
        """Copy what belongs here from the beginning of ``data``, and return how much that was."""
        put = 0
        while self.missing and put < len(data):
            with self.room() as room:
                count = min(len(room), len(data) - put)
                room[:count] = data[put : put + count]
            self.fill(count)
            put += count
        return put

    def payload(self) -> bytes:
        """The whole of it."""
        self._view.release()
        return self._bytes.getvalue()


def message_of(
    first: int, payload: bytes, limit: int, deflate: Deflate | None
) -> TextMessage | BinaryMessage | CloseMessage:
    """The message that a frame stands for, by its ``first`` byte and its payload; or the failure that it is."""
    if first & _COMPRESSED:
        assert deflate is not None
        inflated = deflate.inflate(payload, limit, final=True)
        if isinstance(inflated, CloseMessage):
            return inflated
        payload = inflated
    if not first & _TEXT:
        return BinaryMessage(payload)
    try:
        return TextMessage(payload.decode())
    except UnicodeDecodeError as error:
        return not_utf8(error)
