"""The writing half of a connection: whole frames, one after the other.

Invariants:

- The order of the session is the order of the wire: between encoding a message and the start of its write nothing is
  awaited, and both happen in the turn to write.
- Nothing is written after a partial write: a write that was cancelled half-way, stopped or refused is the last.
- Control frames go in front of all messages that wait for their turn.
"""

from __future__ import annotations

from collections.abc import Callable

from anyio import CancelScope

from ._errors import ConnectionClosed
from ._pace import Pace
from ._protocol.session import Session
from ._streams.base import ByteStream, EagerStream
from ._turn import Turn


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
        *,
        broken: Callable[[], None],
        failed: Callable[[Exception], None],
        turn: Turn | None = None,
    ) -> None:
        self.is_over = False
        self._stream = stream
        self._eager = stream if isinstance(stream, EagerStream) else None
        self._session = session
        self._pace = pace
        self._broken = broken
        self._failed = failed
        self._turn = turn or Turn()
        self._writing: CancelScope | None = None

    async def write(self, encode: Callable[[], bytes], *, first: bool = False) -> Exception | None:
        """Wait for the turn and for the wire, and write; return what kept it from being written whole.

        What ``encode`` raises comes out, and nothing has been written then. Cancelling it before the first byte is
        written has no effect.
        """
        await self._turn.take(first=first)
        try:
            return await self._write(encode)
        finally:
            self._turn.give_back()

    async def finish(self, rest: bytes | memoryview) -> Exception | None:
        """Write the rest of a frame that was begun in the turn to write, and give that turn back.

        Return what kept it from being written. Cancelling it breaks the connection.
        """
        try:
            return await self._write(lambda: rest, begun=True)
        finally:
            self._turn.give_back()

    async def flush(self) -> None:
        """Write the control frames that are pending."""
        while self._session.has_control and not self.is_over:
            await self.write(self._session.take_control, first=True)

    def stop(self) -> None:
        """Stop the write that is under way, if there is one; it was the last."""
        if self._writing is not None:
            self._writing.cancel()

    async def _write(self, encode: Callable[[], bytes | memoryview], *, begun: bool = False) -> Exception | None:
        if self.is_over:
            return WriteStoppedError()
        left: bytes | memoryview | None = None
        try:
            if self._eager is not None and self._eager.is_writable():
                await self._pace.observe()
                frame = encode()
                begun = True
                left = self._eager.send_now(frame)
                if not left:
                    return None
            with CancelScope() as self._writing:
                if left is None:
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
            self._end()
            self._failed(error)
            return error
        except BaseException:
            if begun:
                self._end()
                self._broken()
            raise
        finally:
            self._writing = None
        self._end()
        return WriteStoppedError()

    def _end(self) -> None:
        self.is_over = True
        self._session.drop_control()
