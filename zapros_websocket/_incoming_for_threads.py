"""One message as it comes, chunk by chunk: what ``recv_chunks`` gives to threads."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NoReturn

from ._inbox_of_parts_for_threads import InboxOfPartsForThreads
from ._portal import process, refuse_fork
from ._protocol.messages import BinaryMessage, Message, Part, TextMessage
from ._time_left import time_left

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._inbox_of_threads import InboxOfThreads


class IncomingMessage:
    """One text or binary message, received chunk by chunk: an iterator, made by ``recv_chunks``.

    Attributes:
        kind: ``"text"`` or ``"binary"``, in its block.
    """

    kind: Literal["text", "binary"]

    def __init__(self, inbox: InboxOfThreads, timeout: float | None, raise_closed: Callable[[], NoReturn]) -> None:
        self._inbox = inbox
        self._timeout = timeout
        self._raise_closed = raise_closed
        self._forks = process.forks
        self._was_entered = False
        self._whole: str | bytes = b""
        self._parts: InboxOfPartsForThreads | None = None

    def __enter__(self) -> Self:
        """Wait for the message, as ``recv_chunks`` says."""
        refuse_fork(self._forks)
        left = time_left(self._timeout)
        while True:
            message: Message | Part | None
            if isinstance(self._inbox, InboxOfPartsForThreads):
                message = self._inbox.take_or_open(next(left))
            else:
                message = self._inbox.take(next(left))
            if isinstance(message, Part):
                assert isinstance(self._inbox, InboxOfPartsForThreads)
                self.kind, self._parts = message.kind, self._inbox
                self._was_entered = True
                return self
            if isinstance(message, (TextMessage, BinaryMessage)):
                self.kind, self._whole = message.kind, message.data
                self._was_entered = True
                return self
            if message is None:
                self._raise_closed()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drop what is left of the message."""
        parts, self._parts, self._whole = self._parts, None, b""
        if parts is not None and self._forks == process.forks:
            parts.leave_open()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str | bytes:
        """The next chunk, of ``str`` or of ``bytes``, which is never empty.

        Raises:
            RuntimeError: its block was not entered, or was entered before the process was forked.
            ConnectionClosed, TimeoutError: as ``recv_chunks`` says.
        """
        if not self._was_entered:
            raise RuntimeError("chunks are received in a block: with ws.recv_chunks() as message")
        refuse_fork(self._forks)
        chunk, self._whole = self._whole, b""
        while not chunk and self._parts is not None:
            part = self._parts.take_part_within(self._timeout)
            if part is None:
                self._raise_closed()
            chunk = part.data
            if part.is_final:
                self._parts = None
        if not chunk:
            raise StopIteration
        return chunk
