"""permessage-deflate (RFC 7692) with a bound on what is inflated.

Invariants:

- ``inflate`` never produces more than the room it is given, however small the input (a deflate bomb is stopped
  while inflating, not after).
- Nothing raises on what a peer sends: a failure comes back as the close frame that should end the connection.
- What is compressed is written in the same order: the window of the peer follows the wire.
"""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING, Final

from .messages import CloseCode, CloseMessage

if TYPE_CHECKING:
    from .options import PerMessageDeflateExtension

# The empty block at the end of a message, which is cut off by the sender and put back by the receiver (section 7.2).
TAIL: Final = b"\x00\x00\xff\xff"

# Bytes that a session inflates in one call, and one message: what is received can become a thousand times as much.
ENOUGH: Final = 256 * 1024

# Streams of blocks in one piece of a message. A sender needs one; each costs a copy of all that stands behind it.
MAX_STREAMS: Final = 64

# zlib has no raw window of 8 bits. A larger window inflates what a smaller one deflated, never the reverse.
SMALLEST_WINDOW: Final = 9


def most_compressed(size: int) -> int:
    """The most that a message of ``size`` bytes can take up when it is compressed, by the bound that zlib gives."""
    return size + size // 8 + size // 64 + 64


class Deflate:
    """The two directions of one connection, with the parameters that were agreed to."""

    def __init__(self, agreed: PerMessageDeflateExtension) -> None:
        self.agreed = agreed
        # With a window that zlib cannot honour nothing is compressed, which the sender is free to decide by message
        # (section 6).
        self.compresses = agreed.client_max_window_bits >= SMALLEST_WINDOW
        # Made when first used: a pair costs about 300 KiB.
        self._deflater: zlib._Compress | None = None  # pyright: ignore[reportPrivateUsage]
        self._inflater: zlib._Decompress | None = None  # pyright: ignore[reportPrivateUsage]

    def compress(self, payload: bytes | memoryview) -> bytes:
        """One whole message as the payload of one frame (section 7.2.1)."""
        compressed = self.compress_piece(payload)
        self.end_compressed()
        return compressed

    def compress_piece(self, payload: bytes | memoryview) -> bytes:
        """A piece of a message that is not empty. The ``TAIL`` is cut off, and belongs in front of the next piece."""
        if self._deflater is None:
            agreed = self.agreed
            self._deflater = zlib.compressobj(
                agreed.level, wbits=-agreed.client_max_window_bits, memLevel=agreed.memory_level
            )
        compressed = self._deflater.compress(payload) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        return compressed[: -len(TAIL)]

    def end_compressed(self) -> None:
        """The message that was compressed ends here."""
        if self.agreed.client_no_context_takeover:
            self._deflater = None

    def inflate(self, data: bytes | memoryview, room: int, *, final: bool) -> bytes | CloseMessage:
        """A piece of a message, the ``final`` one or not (section 7.2.2), or the failure that it is.

        Not more than ``room`` bytes come out: what would be more is a failure with the code 1009.
        """
        if self._inflater is None:
            self._inflater = self._new_inflater()
        # A limit that means none is more than zlib can be told.
        room = min(room, sys.maxsize - 1)
        if final:
            data = b"".join((data, TAIL))
        try:
            inflated = self._inflater.decompress(data, room + 1)
            # A sender may end its stream of blocks within a message (section 7.2.3.4): another begins behind it.
            streams = 1
            while self._inflater.eof and len(inflated) <= room:
                streams += 1
                if streams > MAX_STREAMS:
                    return CloseMessage(CloseCode.INVALID_FRAME_PAYLOAD_DATA, "too many deflate streams in one piece")
                rest = self._inflater.unused_data
                self._inflater = self._new_inflater()
                if not rest:
                    break
                inflated += self._inflater.decompress(rest, room + 1 - len(inflated))
        except zlib.error as error:
            return CloseMessage(CloseCode.INVALID_FRAME_PAYLOAD_DATA, f"invalid deflate data: {error}")
        if len(inflated) > room:
            return CloseMessage(CloseCode.MESSAGE_TOO_BIG, "the message is too big once inflated")
        if final and self.agreed.server_no_context_takeover:
            self._inflater = None
        return inflated

    def _new_inflater(self) -> zlib._Decompress:  # pyright: ignore[reportPrivateUsage]
        return zlib.decompressobj(-max(self.agreed.server_max_window_bits, SMALLEST_WINDOW))
