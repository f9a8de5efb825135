"""What wsproto is told about the frames that it parses: how large a message may be, and how it is inflated.

wsproto asks its extensions about every frame header and every piece of payload. This extension is always there; it
stands in the place of wsproto's own permessage-deflate, which has no bound on what it inflates and takes a ping
between two fragments for the end of a compressed message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from .deflate import most_compressed
from .messages import CloseCode, CloseMessage

if TYPE_CHECKING:
    from .deflate import Deflate


class Fragments(Extension):
    """Counts the bytes of the message that is being assembled, after inflation, and stops at the limit."""

    name = "fragments"

    def __init__(self, limit: int, deflate: Deflate | None) -> None:
        self.failure: CloseMessage | None = None
        self._limit = limit
        self._deflate = deflate
        self._size: int = 0
        self._is_data = False
        self._is_compressed = False

    def enabled(self) -> bool:
        """It takes part whatever was negotiated."""
        return True

    def offer(self) -> bool:
        """It is nothing that a peer has to know of."""
        return False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        """Refuse a message on the header that makes it too big; say which reserved bits have a meaning."""
        self._is_data = not opcode.iscontrol()
        begins = self._is_data and opcode is not Opcode.CONTINUATION
        if begins:
            self._size = 0
            self._is_compressed = rsv.rsv1
        if self._is_data and payload_length > self._room():
            return self._fail(_too_big(self._limit))
        # RFC 7692, section 6: only the first frame of a message carries the bit.
        return RsvBits(begins and self._deflate is not None, False, False)

    def frame_inbound_payload_data(self, proto: FrameDecoder | FrameProtocol, data: bytes) -> bytes | CloseReason:
        """Inflate a piece of payload and count it."""
        return self._take(data, final=False) if self._is_data else data

    def frame_inbound_complete(self, proto: FrameDecoder | FrameProtocol, fin: bool) -> bytes | CloseReason | None:
        """Get what the end of a compressed message still holds."""
        if not self._is_data or not fin:
            return None
        rest = self._take(b"", final=True) if self._is_compressed else None
        # A fragment that follows belongs to no message, and wsproto will say so.
        self._size = 0
        self._is_compressed = False
        return rest

    def _room(self) -> int:
        # How much a compressed fragment will be, only inflating it can tell.
        return most_compressed(self._limit) if self._is_compressed else self._limit - self._size

    def _take(self, data: bytes, *, final: bool) -> bytes | CloseReason:
        if self._is_compressed:
            assert self._deflate is not None
            inflated = self._deflate.inflate(data, self._limit - self._size, final=final)
            if isinstance(inflated, CloseMessage):
                return self._fail(inflated)
            data = inflated
        self._size += len(data)
        return data

    def _fail(self, failure: CloseMessage) -> CloseReason:
        self.failure = failure
        return CloseReason(failure.code)


def _too_big(limit: int) -> CloseMessage:
    return CloseMessage(CloseCode.MESSAGE_TOO_BIG, f"the message is over the limit of {limit} bytes")
