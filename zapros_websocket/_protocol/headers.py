"""The headers of the frames in a stream of bytes, for who looks on: nothing is judged here, and no payload is kept.

Invariant: however the stream is cut, the same headers come out, each once its frame is complete.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .frames import span

_FIN: Final = 0x80
_RSV1: Final = 0x40
_OPCODE: Final = 0x0F

# No header is longer.
_MAX_HEADER: Final = 14


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What the header of a frame says (RFC 6455, section 5.2).

    Attributes:
        opcode: 0 for a continuation, 1 for text, 2 for binary, 8 for a close, 9 for a ping, 10 for a pong.
        fin: Whether it is the last frame of its message.
        rsv1: Whether the message is compressed (RFC 7692, section 6); only the first frame of a message says so.
        length: The bytes of the payload, as they are sent: after compression.
    """

    opcode: int
    fin: bool
    rsv1: bool
    length: int


class FrameHeaders:
    """Finds the headers in one direction of a connection."""

    def __init__(self) -> None:
        self._start = bytearray()
        self._frame: FrameHeader | None = None
        self._left = 0

    def feed(self, data: bytes | bytearray | memoryview) -> list[FrameHeader]:
        """The headers of the frames that ``data`` completes."""
        found: list[FrameHeader] = []
        position = 0
        while position < len(data):
            if self._frame is None:
                known = len(self._start)
                self._start += data[position : position + _MAX_HEADER - known]
                lengths = span(self._start, 0)
                if lengths is None:
                    break
                header, self._left = lengths
                first = self._start[0]
                self._frame = FrameHeader(first & _OPCODE, bool(first & _FIN), bool(first & _RSV1), self._left)
                self._start.clear()
                position += header - known
            step = min(self._left, len(data) - position)
            position += step
            found += self.skip(step)
        return found

    def skip(self, count: int) -> list[FrameHeader]:
        """The header of the frame that ``count`` more bytes of its payload complete, if they do."""
        self._left -= count
        if self._frame is None or self._left:
            return []
        frame, self._frame = self._frame, None
        return [frame]
