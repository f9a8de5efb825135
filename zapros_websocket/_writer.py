"""The writing half of a connection: whole frames, one after the other.

Invariants:

- The order of the session is the order of the wire: between encoding a message and the start of its write nothing is
  awaited, and both happen in the turn to write.
- Nothing is written after a partial write: a write that was cancelled half-way, stopped or refused is the last.
- Control frames go in front of all messages that wait for their turn. They are written in a plain call where nobody has
  the turn and the stream takes them; what it does not take of them keeps the turn, as what was gathered does.

A burst of small messages is gathered, and written with one system call. The first message in a turn of the scheduler
is written at once; those that follow it in the same turn are put one behind the other, and go out before that turn is
long over:

- Something is gathered only while nobody has the turn to write. Whoever takes it, for whatever frame, writes first what
  was gathered: so the order of the calls stays the order of the wire.
- It is written in the next turn of the scheduler at the latest, and before that when there is much of it, and when
  somebody is about to wait for a message.
- It belongs to sends that have returned, so nobody's cancellation can take it back. What the stream does not take of it
  keeps the turn to write until a task of the connection has written the rest: the next ``send`` waits for that.
- It is less than ``_GATHERED`` bytes and one small message.
- How it failed, the next call says.

When the stream has no room, those who send wait in line for the turn. Who gives it back writes for them, with one call,
what they wait to write, up to ``_GATHERED`` bytes and a message below ``_LARGE``, and it belongs to sends that have
returned as well. If each were woken to write for itself, those who send one message after the other would go on waiting
for each other for ever after.

On trio an interrupt (KeyboardInterrupt) comes behind what is done in a plain call, and never into the middle of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from anyio import CancelScope
from trio.lowlevel import enable_ki_protection

from ._errors import ConnectionClosed
from ._next_turn import NextTurn, Start
from ._pace import Pace
from ._protocol.frames import encode
from ._protocol.session import Session
from ._streams.base import ByteStream, eager
from ._turn import Job, Turn
from ._waiting import NewWaiter

# Bytes of a message that is not encoded before it is known that some of it can be written.
_LARGE: Final = 16 * 1024

# Bytes of a message that is gathered with others, and of those that are then written at once.
_SMALL: Final = 4 * 1024
_GATHERED: Final = 16 * 1024


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
        new_waiter: NewWaiter,
        start: Start,
        finish_gathered: Callable[[], Awaitable[None]],
        broken: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.is_over = False
        self._stream = stream
        self._eager = eager(stream)
        self._sender = None if self._eager is None else self._eager.sender
        self._session = session
        self._is_plain = not session.compresses
        self._pace = pace
        self._turn_here = pace.turn
        self._broken = broken
        self._failed = failed
        self._turn = turn
        self._writing: CancelScope | None = None
        # Those who wait for the next chunk of what they send.
        self.awaiting_chunks: set[CancelScope] = set()
        # What was begun without waiting, and how that failed.
        self._rest: memoryview | None = None
        self._error: Exception | None = None
        # The turn of the scheduler in which the stream last took a whole frame at once, what was gathered in it since,
        # and what the stream did not take of that.
        self._last_turn = -1
        self._gathered = bytearray()
        self._left: memoryview | None = None
        self._next_turn = NextTurn(new_waiter, start, self.write_gathered, finish_gathered)

    @enable_ki_protection
    def send_now(self, opcode: int, payload: bytes | memoryview, compress: bool | None) -> bool:
        """Write a message if that can be done at once, whole, or gather it; if not, ``write`` it in the same step."""
        stream = self._eager
        if stream is None or self.is_over or self._turn.is_taken or not self._session.is_simple:
            return False
        turn = self._turn_here()
        gathered = self._gathered
        if turn == self._last_turn and len(payload) <= _SMALL and (gathered or self._next_turn.ask()):
            gathered += encode(opcode, payload) if self._is_plain else self._session.encode(opcode, payload, compress)
            if len(gathered) >= _GATHERED:
                self.write_gathered()
            return True
        if gathered and (self.write_gathered() or self.is_over):
            return False
        sender = self._sender
        if self._is_plain and sender is not None and len(payload) < _LARGE:
            # Such a frame depends on nothing but its message, and may be thrown away again.
            frame = encode(opcode, payload)
        elif stream.is_writable():
            frame = self._session.encode(opcode, payload, compress)
        else:
            return False
        left: bytes | memoryview
        try:
            if sender is None:
                # What TLS does not write it has encrypted all the same: it counts as begun.
                left = stream.send_now(frame)
            else:
                sent = sender(frame)
                if sent == len(frame):
                    self._last_turn = turn
                    return True
                left = memoryview(frame)[sent:]
        except BlockingIOError:
            if not self._is_plain:
                self._rest = memoryview(frame)
            return False
        except OSError as error:
            self._error = error
            return False
        if not left:
            self._last_turn = turn
            return True
        self._rest = memoryview(left)
        return False

    @enable_ki_protection
    def write_gathered(self) -> bool:
        """Write what was gathered; whether something is left of it, for ``finish_gathered``.

        It may be called from anywhere in the event loop, a callback included, and then does nothing that waits.
        """
        gathered = self._gathered
        if not gathered:
            return self._left is not None
        assert self._eager is not None
        self._gathered = bytearray()
        left: bytes | memoryview
        try:
            if self._sender is None:
                left = self._eager.send_now(gathered)
            else:
                left = memoryview(gathered)[self._sender(gathered) :]
        except BlockingIOError:
            left = memoryview(gathered)
        except Exception as error:
            self.end()
            self._failed(error)
            return False
        if not left:
            return False
        self._turn.is_taken = True
        self._left = memoryview(left)
        self._next_turn.go_on()
        return True

    async def finish_gathered(self) -> None:
        """Write what is left of what was gathered, and give back the turn that it has kept."""
        if self.write_gathered():
            left, self._left = self._left, None
            assert left is not None
            await self.finish(left)

    @enable_ki_protection
    def flush_now(self) -> bool:
        """Write the control frames that are pending, if that can be done at once; if not, ``flush`` has to be awaited.

        It may be called from where ``write_gathered`` may be.
        """
        stream = self._eager
        if self._left is not None:
            return False
        if self.is_over or not self._session.has_control:
            return True
        if stream is None or self.write_gathered():
            return False
        if self.is_over:
            return True
        if not self._turn.take_now():
            return False
        left: bytes | memoryview = b""
        try:
            if not stream.is_writable():
                return False
            left = stream.send_now(self._session.take_control())
        except Exception as error:
            self.end()
            self._failed(error)
        finally:
            if left:
                self._left = memoryview(left)
            else:
                self._turn.give_back()
        return not left

    async def write(
        self, encode: Job, *, first: bool = False, between: bool = False, size: int | None = None
    ) -> Exception | None:
        """Wait for the turn and for the wire, and write; return what kept it from being written whole.

        ``size`` is that of a message, in bytes. What ``encode`` raises comes out, and nothing has been written then.
        Cancelling it before the first byte is written has no effect.
        """
        self.write_gathered()
        job = encode if size is not None and size < _LARGE and not between else None
        if not await self._turn.take(first=first, between=between, job=job):
            self._pace.waited()
            return None
        try:
            error = await self._write(encode)
        except BaseException:
            # What comes out of here has written nothing, and says nothing of the stream.
            self._turn.give_back()
            raise
        self._give_back()
        return error

    async def finish(self, rest: memoryview) -> Exception | None:
        """Write the rest of a frame that was begun in the turn to write, and give that turn back.

        Return what kept it from being written. Cancelling it breaks the connection.
        """
        self._rest = rest
        try:
            return await self._write(bytes)
        finally:
            self._give_back()

    async def flush(self) -> None:
        """Write the control frames that are pending, behind what is left of others and somebody finishes."""
        while (self._session.has_control or self._left is not None) and not self.is_over:
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

    @enable_ki_protection
    def _give_back(self) -> None:
        """Write for those who wait, as far as that can be, and hand the turn to the next."""
        turn = self._turn
        if turn.has_job and self._eager is not None and not self.is_over and self._session.is_simple:
            try:
                # What the stream does not take of it somebody has to finish.
                while turn.has_job and len(self._gathered) < _GATHERED and self._next_turn.ask():
                    job = turn.take_over()
                    if job is None:
                        break
                    self._gathered += job()
            finally:
                if not self.write_gathered():
                    turn.give_back()
            return
        turn.give_back()

    async def _write(self, encode: Job) -> Exception | None:
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
                    self._last_turn = self._turn_here()
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
