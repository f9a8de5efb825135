"""The writing half of a connection: whole frames, one after the other.

Invariants:

- The order of the session is the order of the wire: between encoding a message and the start of its write nothing is
  awaited, and both happen in the turn to write.
- Nothing is written after a partial write: a write that was cancelled half-way, stopped or refused is the last.
- Control frames go in front of all messages that wait for their turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyio import CancelScope

from ._errors import ConnectionClosed
from ._pace import Pace
from ._protocol.frames import encode
from ._protocol.session import Session
from ._streams.base import ByteStream, EagerStream
from ._turn import Turn

# Bytes of a message that is not encoded before it is known that some of it can be written.
_LARGE: Final = 16 * 1024


class WriteStoppedError(Exception):
    """A write stood in the way of the end of its connection, and was stopped."""


class Writer:
    """Writes what ``encode`` functions give, in turn, until it cannot.

    ``broken`` is called in the moment in which a write is cancelled with a part of its frame written, ``failed`` when
    the stream has raised.
    """

    def __init__(
        self,
        stream: ByteStream,
        session: Session,
        pace: Pace,
        turn: Turn,
        *,
        broken: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.is_over = False
        self._stream = stream
        self._eager = stream if isinstance(stream, EagerStream) else None
        self._sender = None if self._eager is None else self._eager.sender
        self._session = session
        self._pace = pace
        self._broken = broken
        self._failed = failed
        self._turn = turn
        self._writing: CancelScope | None = None
        # Those who wait for the next chunk of what they send.
        self.awaiting_chunks: set[CancelScope] = set()
        # What was begun without waiting, and how that failed.
        self._rest: memoryview | None = None
        self._error: Exception | None = None

    def send_now(self, opcode: int, payload: bytes | memoryview) -> bool:
        """Write a message if that can be done at once, whole; if not, ``write`` it in the same step."""
        eager = self._eager
        if eager is None or self.is_over or self._turn.is_taken or not self._session.is_simple:
            return False
        sender = self._sender
        if (sender is None or len(payload) >= _LARGE) and not eager.is_writable():
            return False
        # Without compression a frame depends on nothing but its message, so it may be thrown away again.
        frame = encode(opcode, payload)
        left: bytes | memoryview
        try:
            if sender is None:
                # What TLS does not write it has encrypted all the same: it counts as begun.
                left = eager.send_now(frame)
            else:
                sent = sender(frame)
                if sent == len(frame):
                    return True
                left = memoryview(frame)[sent:]
        except BlockingIOError:
            return False
        except OSError as error:
            self._error = error
            return False
        if not left:
            return True
        self._rest = memoryview(left)
        return False

    async def write(
        self, encode: Callable[[], bytes], *, first: bool = False, between: bool = False
    ) -> Exception | None:
        """Wait for the turn and for the wire, and write; return what kept it from being written whole.

        What ``encode`` raises comes out, and nothing has been written then. Cancelling it before the first byte is
        written has no effect.
        """
        await self._turn.take(first=first, between=between)
        try:
            return await self._write(encode)
        finally:
            self._turn.give_back()

    async def finish(self, rest: memoryview) -> Exception | None:
        """Write the rest of a frame that was begun in the turn to write, and give that turn back.

        Return what kept it from being written. Cancelling it breaks the connection.
        """
        self._rest = rest
        try:
            return await self._write(bytes)
        finally:
            self._turn.give_back()

    async def flush(self) -> None:
        """Write the control frames that are pending."""
        while self._session.has_control and not self.is_over:
            await self.write(self._session.take_control, first=True)

    def stop(self) -> None:
        """Stop the write that is under way, if there is one, and the waits for what to write; it was the last."""
        for under_way in (self._writing, *self.awaiting_chunks):
            if under_way is not None:
                under_way.cancel()

    def end(self) -> None:
        """Write nothing more."""
        self.is_over = True
        self._session.drop_control()

    async def _write(self, encode: Callable[[], bytes]) -> Exception | None:
        if self.is_over:
            return WriteStoppedError()
        left: bytes | memoryview = b""
        begun = False
        try:
            if self._error is not None:
                raise self._error
            if self._rest is not None:
                left, self._rest = self._rest, None
                begun = True
            elif self._eager is not None and self._eager.is_writable():
                await self._pace.observe()
                frame = encode()
                begun = True
                left = self._eager.send_now(frame)
                if not left:
                    return None
            with CancelScope() as self._writing:
                if not begun:
                    await self._stream.wait_writable()
                    await self._pace.observe()
                    left = encode()
                    begun = True
                # Nothing is left of control frames that went out in front of a message meanwhile.
                if left:
                    await self._stream.send_all(left)
                return None
        except ConnectionClosed:
            # It comes from encode: nothing was written.
            raise
        except Exception as error:
            self.end()
            self._failed(error)
            return error
        except BaseException:
            if begun:
                self.end()
                self._broken()
            raise
        finally:
            self._writing = None
        self.end()
        return WriteStoppedError()
