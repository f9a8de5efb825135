"""One message as it comes, chunk by chunk: what ``recv_chunks`` gives.

Invariants:

- It begins in its turn among all who receive, and has the message to itself from then on.
- Cancelling it loses nothing that was not given out: between taking a part and returning it nothing is awaited.
- Whoever leaves its block has done with the message: what is left of it is dropped.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Literal, cast

from ._inbox_of_parts import InboxOfParts
from ._protocol.messages import BinaryMessage, Part, TextMessage

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._link import Link


class AsyncIncomingMessage:
    """One text or binary message, received chunk by chunk: an asynchronous iterator, made by ``recv_chunks``.

    Attributes:
        kind: ``"text"`` or ``"binary"``, in its block.
    """

    kind: Literal["text", "binary"]

    def __init__(self, link: Link) -> None:
        self._link = link
        self._was_entered = False
        self._whole: str | bytes = b""
        self._parts: InboxOfParts | None = None

    async def __aenter__(self) -> Self:
        """Wait for the message, as ``recv_chunks`` says."""
        pace, inbox = self._link.pace, self._link.inbox
        while True:
            if pace.is_due():
                await pace.observe()
            if not inbox.is_ready:
                await inbox.wait()
            # From here on nothing is awaited: the message that was looked at is the one that is taken.
            message = cast("object", inbox.peek())
            if isinstance(message, Part):
                self.kind, self._parts = message.kind, cast("InboxOfParts", inbox)
                self._parts.open()
                self._was_entered = True
                return self
            inbox.pop()
            if isinstance(message, (TextMessage, BinaryMessage)):
                self.kind, self._whole = message.kind, message.data
                self._was_entered = True
                return self
            if message is None:
                self._raise_closed()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drop what is left of the message."""
        parts, self._parts, self._whole = self._parts, None, b""
        if parts is not None:
            parts.leave_open()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        """The next chunk, of ``str`` or of ``bytes``, which is never empty.

        Raises:
            RuntimeError: its block was not entered.
            ConnectionClosed: the message will not be complete.
        """
        if not self._was_entered:
            raise RuntimeError("chunks are received in a block: async with ws.recv_chunks() as message")
        if self._link.pace.is_due():
            await self._link.pace.observe()
        chunk, self._whole = self._whole, b""
        while not chunk and self._parts is not None:
            part = self._parts.take_part()
            if part is not None:
                chunk = part.data
                if part.is_final:
                    self._parts = None
            elif not await self._parts.wait_for_part():
                self._raise_closed()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    def _raise_closed(self) -> None:
        # The peer's close has come out now, as an error.
        self._link.owes_close_message = False
        raise self._link.closed_error()
