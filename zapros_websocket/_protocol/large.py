"""A large frame on its way in: its payload is received to where it stays.

Invariant: memory is taken up as the payload arrives, and not as its header declares.
"""

from __future__ import annotations

from typing import Final

# Bytes of payload from which it is worth it.
LARGE: Final = 32 * 1024

_PIECE: Final = 1024 * 1024


class LargeFrame:
    """The payload of one frame of ``length`` bytes, whose first byte was ``first``."""

    def __init__(self, first: int, length: int) -> None:
        self.first = first
        self.missing = length
        self._pieces: list[bytearray] = []
        self._filled = 0

    def room(self) -> memoryview:
        """Where the next bytes belong: at least one, as long as some are ``missing``."""
        if not self._pieces or self._filled == len(self._pieces[-1]):
            self._pieces.append(bytearray(min(self.missing, _PIECE)))
            self._filled = 0
        return memoryview(self._pieces[-1])[self._filled :]

    def fill(self, count: int) -> None:
        """So many bytes were written into the room."""
        self._filled += count
        self.missing -= count

    def put(self, data: memoryview) -> int:
        """Copy what belongs here from the beginning of ``data``, and return how much that was."""
        put = 0
        while self.missing and put < len(data):
            room = self.room()
            count = min(len(room), len(data) - put)
            room[:count] = data[put : put + count]
            self.fill(count)
            put += count
        return put

    def payload(self) -> bytes:
        """The whole of it."""
        return b"".join(self._pieces)
