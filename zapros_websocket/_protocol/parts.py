"""Messages over the limit that come in part by part, where that was asked for, and whole ones as ever.

Invariants:

- A message that is larger than ``max_message_size`` is no failure: what there is of it comes out when that is known,
  and all that follows when it is received. A smaller one comes out whole.
- What one call gives out is bounded, also of a message that inflates: what is left is parsed by the next.
- Text is never cut within a character; what is not UTF-8 fails the connection when it comes.
"""

from __future__ import annotations

import sys
from io import StringIO
from typing import TYPE_CHECKING, ClassVar, Final, cast

from wsproto.events import BytesMessage, Event
from wsproto.events import TextMessage as WsprotoText
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from .fragments import Fragments
from .messages import CloseMessage, Part
from .session import Session

if TYPE_CHECKING:
    from .deflate import Deflate
    from .messages import Message

# Bytes of compressed payload that are inflated at once: they become a thousand times as many at most.
_PIECE: Final = 1024


class LargeFragments(Fragments):
    """Counts the bytes of a message, and says whether it is over the limit."""

    def __init__(self, limit: int, deflate: Deflate | None) -> None:
        super().__init__(limit, deflate)
        self.is_large = False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        """Notice the header that makes a message large."""
        given = super().frame_inbound_header(proto, opcode, rsv, payload_length)
        if self._is_data:
            if opcode is not Opcode.CONTINUATION:
                self.is_large = False
            if not self._is_compressed and self._size + payload_length > self._limit:
                self.is_large = True
        return given

    def _room(self) -> int:
        return sys.maxsize

    def _take(self, data: bytes, *, final: bool) -> bytes | CloseReason:
        if self._is_compressed:
            assert self._deflate is not None
            inflated = self._deflate.inflate(data, sys.maxsize, final=final)
            if isinstance(inflated, CloseMessage):
                return self._fail(inflated)
            data = inflated
        self._size += len(data)
        if self._size > self._limit:
            self.is_large = True
        return data


class PartsSession(Session):
    """A session that gives a large message out in parts, which stand among the messages."""

    _new_fragments: ClassVar[type[Fragments]] = LargeFragments

    def __init__(self, *, max_message_size: int, deflate: Deflate | None = None) -> None:
        super().__init__(max_message_size=max_message_size, deflate=deflate)
        # What is compressed can be larger than the limit, and is inflated piece by piece.
        self._inflating = None
        self._most_at_once = sys.maxsize if deflate is None else _PIECE
        self.inflates = self.may_wait = True
        self._is_in_parts = False

    def _handle(self, event: Event, messages: list[Message]) -> None:
        if isinstance(event, (WsprotoText, BytesMessage)) and cast("LargeFragments", self._fragments).is_large:
            self._count(event)
            # Only an inbox of parts ever gets to see it.
            messages.append(cast("Message", self._part(event)))
        else:
            super()._handle(event, messages)

    def _part(self, event: WsprotoText | BytesMessage) -> Part:
        is_first = not self._is_in_parts
        self._is_in_parts = self._assembling = not event.message_finished
        data: str | bytes
        if isinstance(event, WsprotoText):
            self._text.write(event.data)
            data, self._text = self._text.getvalue(), StringIO()
            return Part(data, "text", is_first, event.message_finished)
        self._data += event.data
        data, self._data = bytes(self._data), bytearray()
        return Part(data, "binary", is_first, event.message_finished)
