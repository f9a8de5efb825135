"""One message as a sequence of frames on its way out (RFC 6455, section 5.4).

Invariants:

- All frames but the last are not final, and all but the first are continuations; only the first says that the message
  is compressed (RFC 7692, section 6).
- Compressed, the fragments are one stream of blocks: what is cut off the last (section 7.2.1) stands in front of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .deflate import TAIL
from .frames import encode

if TYPE_CHECKING:
    from .deflate import Deflate

_CONTINUATION: Final = 0x0
_FINAL: Final = 0x80


class Sequence:
    """A message with this ``opcode``, compressed if there is a ``deflate`` for it."""

    def __init__(self, opcode: int, deflate: Deflate | None) -> None:
        self.opcode = opcode
        self._deflate = deflate

    def encode(self, payload: bytes | memoryview, *, first: bool) -> bytes:
        """A fragment that is not empty, and not the last. A receiver can inflate all of it."""
        opcode = self.opcode if first else _CONTINUATION
        if self._deflate is not None:
            payload = self._deflate.compress_piece(payload)
            if not first:
                payload = TAIL + payload
        frame = encode(opcode, payload, compressed=first and self._deflate is not None)
        return bytes((frame[0] & ~_FINAL,)) + memoryview(frame)[1:]

    def end(self) -> bytes:
        """The last fragment: an empty one, so that none has to wait until it is known whether another follows."""
        if self._deflate is not None:
            self._deflate.end_compressed()
        return encode(_CONTINUATION, b"")
