"""The life of a connection: a task that reads, and what is done beside that.

It is one ``run``, which a task group owns. It reads until the session is over, and then finishes:

    reading --------------------------> finishing ---------------------> closed
    until the peer's close, a failure,   wakes all who wait in recv,       the stream is closed,
    the end of the stream, or the        writes the last close frame,      close() returns
    deadline of our own close            waits a little for the peer's FIN

Invariants:

- The reader never waits for the wire: what it has to answer is written if that can be done at once, and if not, another
  task writes it.
- Keepalive is no task: its alarm may ring in any, so that what it does is done in plain calls.
- A task in the background does not raise: what goes wrong becomes the reason of ConnectionClosed. An interrupt
  (KeyboardInterrupt) does not hit it on trio, and comes out where the main task waits.
- A send that was cancelled half-way ends the connection.
- Every wait for the peer has a deadline, but for those that the user asked for: ``recv`` and ``ping``, and a ``send``
  that the peer's silence blocks. Those last as long as the connection, and keepalive ends a dead one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from math import inf
from typing import TYPE_CHECKING, Any, Final

import trio
from anyio import CancelScope, current_time, move_on_after
from anyio.lowlevel import checkpoint

from ._alarm import Alarm, call_at_here
from ._errors import ConnectionClosed
from ._inbox import Inbox
from ._keepalive import Keepalive
from ._pace import pace_here
from ._pings import PingInFlight, Pings, round_trip_clock
from ._protocol.messages import CloseCode, CloseMessage, Message, PongMessage
from ._protocol.session import Session, State
from ._tasks import Tasks, call_in_task, new_tasks
from ._turn import Turn
from ._waiting import Signal, is_uvloop_here, new_waiter_here
from ._writer import Writer, WriteStoppedError

if TYPE_CHECKING:
    from ._protocol.options import Options
    from ._streams.base import ByteStream

# Seconds for the last words to leave and the peer to end TCP, once the closing handshake is done or has failed.
LINGER: Final = 1.0

# Seconds in which a failed write waits for a better reason than its own: a reader that listens is over by then.
PATIENCE: Final = LINGER + 0.1

# Rounds of the reader, each of which ends when it cannot go on by itself, before others have their turn.
_ROUNDS: Final = 8

# Seconds for a polite end where nobody should be kept waiting: the caller was cancelled, or raised.
SHORT: Final = 0.5


class Link:
    """A session on a stream, kept alive by ``run``; the calls of the user stand on its parts."""

    # An instance with so many attributes and without this takes up four times as much.
    __slots__ = (
        "_alarm",
        "_bug",
        "_call_at",
        "_cause",
        "_clock",
        "_close_by",
        "_ending",
        "_finish_by",
        "_finishing",
        "_is_flushing",
        "_is_given_up",
        "_is_stopped",
        "_keepalive",
        "_keepalive_ping",
        "_linger_until",
        "_options",
        "_reading",
        "_reading_over",
        "_tasks",
        "closed",
        "has_heard",
        "inbox",
        "is_closed_here",
        "is_told",
        "owes_close_message",
        "pace",
        "pings",
        "room",
        "session",
        "stream",
        "takers",
        "turn",
        "writer",
    )

    def __init__(
        self,
        stream: ByteStream,
        session: Session,
        options: Options,
        *,
        inbox: Inbox | None = None,
        turn: Turn | None = None,
    ) -> None:
        self.stream = stream
        self.session = session
        # Where the next bytes belong, when that is known.
        self.room = session.room
        new_waiter = new_waiter_here()
        self.inbox = self.takers = inbox or Inbox(new_waiter)
        self._clock = trio.current_time if trio.lowlevel.in_trio_run() else asyncio.get_running_loop().time
        self._call_at = call_at_here()
        self.pings = Pings(round_trip_clock(self._clock, is_uvloop=is_uvloop_here()), new_waiter)
        self.pace = pace_here()
        self.turn = turn or Turn(new_waiter)
        self.writer = Writer(
            stream,
            session,
            self.pace,
            self.turn,
            new_waiter=new_waiter,
            start=self._start,
            finish_gathered=self._finish_gathered,
            broken=self._write_broken,
            failed=self._write_failed,
        )
        self.closed = Signal(new_waiter)
        self.is_closed_here = False
        self.owes_close_message = True
        # Whether an error has said how the connection ended.
        self.is_told = False
        # Whether the peer was heard since keepalive asked; a reader that was stopped by backpressure begins anew.
        self.has_heard = True
        self._options = options
        self._keepalive: Keepalive | None = None
        self._keepalive_ping: PingInFlight | None = None
        self._alarm: Alarm | None = None
        # What is under way, so that it can be ended from elsewhere.
        self._tasks: Tasks | None = None
        self._reading = CancelScope()
        self._finishing: CancelScope | None = None
        self._ending: CancelScope | None = None
        self._is_stopped = False
        self._is_flushing = False
        # How it ends.
        self._close_by = inf
        self._finish_by = inf
        # When nobody waits any longer for what is read behind a write that has failed, and whether that is over.
        self._linger_until = inf
        self._is_given_up = False
        self._cause: Exception | None = None
        self._bug: BaseException | None = None
        self._reading_over = Signal(new_waiter)

    # What the owner of the task group uses

    def feed(self, data: bytes) -> None:
        """Take in what came in the same segment as the answer to the handshake."""
        if data:
            self.take(data)

    @trio.lowlevel.enable_ki_protection
    async def run(self, *, shield: bool) -> None:
        """Keep the connection until it is closed. With ``shield`` only ``stop`` ends it before."""
        is_cut_short = False
        try:
            try:
                async with new_tasks() as tasks:
                    tasks.cancel_scope.shield = shield
                    self._tasks = tasks
                    if self._is_stopped:
                        tasks.cancel_scope.cancel()
                    try:
                        await self._read_and_finish()
                    except BaseException as error:
                        # A cancellation: a stream may have it in a group.
                        is_cut_short = error is not self._bug
                        raise
                    tasks.cancel_scope.cancel()
            finally:
                if is_cut_short:
                    await self._leave_politely()
        finally:
            await self._end()

    async def _read_and_finish(self) -> None:
        try:
            self._begin_keepalive()
            with self._reading:
                await self._read()
            if self._bug is not None:
                raise self._bug
            await self._finish()
        finally:
            # Those that there are come to their end, and no more are started.
            self._tasks = None
            if self._alarm is not None:
                self._alarm.cancel()
            # What was sent is not taken back, but it does not hold up the end either.
            self._finish_by = self._clock() + SHORT
            if self._finishing is not None:
                self._finishing.deadline = self._finish_by

    async def run_unshielded(self) -> None:
        """``run`` for a task group of the user, who ends it by cancelling the group."""
        await self.run(shield=False)

    async def discard(self) -> None:
        """Close the stream of a connection that nobody will ``run``."""
        await self._end()

    async def stop(self) -> None:
        """End ``run`` now, whatever the peer does. Shielded: it has a bound of its own."""
        if self.closed.is_set():
            return
        self._is_stopped = True
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
        if self._ending is not None:
            self._ending.cancel()
        with CancelScope(shield=True):
            await self.closed.wait()

    # Reading

    async def _read(self) -> None:
        rounds = 0
        while self.session.state is not State.CLOSED:
            self._flush_soon()
            rounds += 1
            if rounds % _ROUNDS == 0:
                # A stream that always has something, and stops at once for what cannot be written.
                await checkpoint()
            if self.session.has_more and not (self.session.may_wait and self.inbox.is_full):
                # What takes long lets others have their turn.
                await checkpoint()
                self._give_out(self.session.receive(b""), None)
                continue
            try:
                if self.inbox.is_full:
                    self._limit_reading()
                    await self.inbox.room()
                    self.has_heard = True
                    self._limit_reading()
                    continue
                await self.stream.pump(self)
            except Exception as error:
                if error is not self._bug:
                    # Whatever a stream raises: it is the reason of the loss.
                    self._lost(error)
                return

    # What the stream brings: a Sink

    def take(self, data: bytes | memoryview) -> bool:
        """Take in what was received, before it changes, or the end of the stream; whether to go on receiving."""
        self.has_heard = True
        if not data:
            self.session.end("the connection was lost: the peer ended TCP without a close frame")
            return False
        try:
            return self._give_out(self.session.receive(data), len(data))
        except Exception as bug:
            self._bug = bug
            raise

    def fill(self, count: int) -> bool:
        """Take in ``count`` bytes that were received into the ``room``; whether to go on receiving."""
        self.has_heard = True
        return self._give_out(self.session.fill(count), None)

    def _give_out(self, messages: list[Message], size: int | None) -> bool:
        session = self.session
        if session.inflates:
            size = None
        if session.has_seen_control:
            session.has_seen_control = False
            self.inbox.put([message for message in messages if not self._is_for_itself(message)], size)
            if session.has_control and not self.writer.flush_now():
                # The reader has it written: what takes in may be called from where no task can be started.
                return False
        elif messages:
            self.inbox.put_data(messages, size)  # type: ignore[arg-type]
        return not (self.inbox.is_full or session.has_more or session.state is State.CLOSED)

    def _is_for_itself(self, message: Message) -> bool:
        if isinstance(message, PongMessage):
            return self.pings.is_answer(message.data)
        # The peer's close is given out by recv, when the inbox is empty.
        return isinstance(message, CloseMessage)

    def _lost(self, error: Exception) -> None:
        self._cause = self._cause or error
        self.session.end(f"the connection was lost: {str(error) or type(error).__name__}")

    # Writing

    async def write(
        self, encode: Callable[[], bytes], *, first: bool = False, between: bool = False, size: int | None = None
    ) -> None:
        """Write what ``encode`` gives, in turn; it is called while the session is open, or not at all.

        ``first`` and ``between`` are those of the turn; ``size`` is that of a message, in bytes.

        Raises:
            ConnectionClosed: the connection is closed or closing, or the write did not succeed.
        """

        def encode_while_open() -> bytes:
            self.raise_unless_open()
            return encode()

        error = await self.writer.write(encode_while_open, first=first, between=between, size=size)
        if error is not None:
            await self._raise_when_reading_is_over(error)

    def break_off(self, reason: str) -> None:
        """A message was begun and can never be ended: the connection is lost, unless it is ending already."""
        if self.session.state is State.OPEN:
            self.writer.end()
            self.session.end(reason)
            self._reading.cancel()

    async def finish(self, rest: memoryview) -> None:
        """Write the rest of a frame that was begun in the turn to write.

        Raises:
            ConnectionClosed: the write did not succeed.
        """
        error = await self.writer.finish(rest)
        if error is not None:
            await self._raise_when_reading_is_over(error)

    async def write_close(self, message: CloseMessage) -> None:
        """Start the closing handshake, and wait until the close frame was written.

        Raises:
            ConnectionClosed: the connection is closed or closing, or the write did not succeed.
        """
        self.raise_unless_open()
        self.start_close(message)
        await self.writer.flush()
        if self.writer.is_over:
            await self._raise_when_reading_is_over(None)

    async def _raise_when_reading_is_over(self, error: Exception | None) -> None:
        # The reader may still find a close frame, and with it a better reason than a broken pipe.
        with CancelScope(deadline=self._linger_until) as lingering:
            await self._reading_over.wait()
        self._is_given_up = lingering.cancelled_caught
        raise self.closed_error(error)

    def _flush_soon(self) -> None:
        """Have the pending control frames written, at once where that can be done."""
        if not self.writer.flush_now() and self._tasks is not None and not self._is_flushing:
            self._is_flushing = True
            self._tasks.start_soon(self._flush)

    @trio.lowlevel.enable_ki_protection
    async def _flush(self) -> None:
        try:
            await self._finish_gathered()
            await self.writer.flush()
        finally:
            self._is_flushing = False

    def _start(self, task: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        if self._tasks is None:
            return False
        self._tasks.start_soon(task)
        return True

    async def _finish_gathered(self) -> None:
        if self.writer.write_gathered():
            # Whoever cancels the connection has not cancelled the sends that have returned.
            with CancelScope(shield=True, deadline=self._finish_by) as self._finishing:
                await self.writer.finish_gathered()

    def _write_broken(self) -> None:
        self.session.end("a send was cancelled when a part of its message was written")
        self._reading.cancel()

    def _write_failed(self, error: Exception) -> None:
        self._cause = self._cause or error
        self._linger_until = self._clock() + PATIENCE
        self._limit_reading()

    def _limit_reading(self) -> None:
        """Once a write has failed, listen no longer than ``LINGER``; but what has arrived waits for who takes it."""
        listens = self._linger_until < inf and not self.inbox.is_full
        self._reading.deadline = min(self._close_by, self._clock() + LINGER if listens else inf)

    # Keepalive, and what it asks for

    def _begin_keepalive(self) -> None:
        interval, timeout = self._options.ping_interval, self._options.ping_timeout
        if interval is not None and self.stream.carries_control:
            self._keepalive = Keepalive(interval, timeout, self._clock())
            self._alarm = self._call_at(self._keepalive.due_at, self._on_alarm)

    def _on_alarm(self) -> None:
        assert self._keepalive is not None
        if self.session.state is not State.OPEN:
            # Nothing more is asked of the peer, and how long it may take to close is not keepalive's business.
            return
        try:
            self._keepalive.look(self, self._clock())
        except BaseException as bug:
            # Not of this task, if it is one: it comes out where the connection is.
            self._bug = bug
            self._reading.cancel()
        else:
            if self._keepalive.due_at < inf:
                self._alarm = self._call_at(self._keepalive.due_at, self._on_alarm)

    @property
    def is_deaf(self) -> bool:
        """Whether the reader is stopped by backpressure."""
        return self.inbox.is_deaf

    def send_ping(self) -> None:
        """Have a ping written behind the frame that is being written."""
        ping = self.pings.new()
        self.pings.sent(ping)
        self.session.ping(ping.payload)
        if self._keepalive_ping is None or self._keepalive_ping.answered.is_set():
            self._keepalive_ping = ping
        else:
            # The round trip is that of the one before, which takes longer than the interval.
            self.pings.forget(ping)
        self.inbox.take_back()
        if not self.writer.flush_now():
            call_in_task(self._flush_soon)

    def give_up(self, reason: str) -> None:
        """Fail the connection with the code 1011."""
        self.session.fail(CloseCode.INTERNAL_ERROR, reason)
        self._reading.cancel()

    # Closing

    def start_close(self, message: CloseMessage, by: float | None = None) -> None:
        """Start the closing handshake, unless the connection is closing already."""
        if self.session.state is State.OPEN:
            self.is_closed_here = True
            self.session.close(message)
            self._close_by = current_time() + self._options.close_timeout if by is None else by
            self._reading.deadline = min(self._reading.deadline, self._close_by)
            self._flush_soon()

    async def close(self, message: CloseMessage, by: float | None = None) -> None:
        """Close, and wait until the stream is closed; ``by`` takes the place of ``close_timeout``.

        Cancelling it leaves the rest to the background.
        """
        if self.session.received is None:
            # What the peer answers to this is no news to anyone.
            self.owes_close_message = False
        self.start_close(message, by)
        # The peer's close may stand behind messages that nobody will ask for.
        self.inbox.lift()
        await self.closed.wait()

    async def _finish(self) -> None:
        """Reading is over: say so, and part from the peer as well as can be within the time that there is."""
        if self._cause is not None:
            self._lost(self._cause)
        self.session.end(f"the peer did not answer the close frame within {self._options.close_timeout:g} seconds")
        self._say_reading_is_over()
        if self.session.received is None:
            self._close_by = min(self._close_by, current_time() + LINGER)
        else:
            self._close_by = min(self._close_by, current_time() + self._options.close_timeout)
        if not self._is_lost:
            with CancelScope(deadline=self._close_by) as parting:
                await self.writer.finish_gathered()
                await self.writer.flush()
                parting.deadline = min(self._close_by, current_time() + LINGER)
                await self._drain()
        # Whoever is still in the middle of a frame would wait for ever.
        self.writer.stop()

    async def _drain(self) -> None:
        # A socket that is closed with something unread in it is reset, and our last frame with it.
        try:
            while await self.stream.receive():
                pass
        except Exception:
            # It is over already, in order or with a reason: how TCP ends tells nobody anything.
            return

    async def _leave_politely(self) -> None:
        """The owner of the tasks was cancelled: say goodbye, if that can be done quickly."""
        with CancelScope(shield=True), move_on_after(SHORT):
            self.start_close(CloseMessage(CloseCode.NORMAL))
            await self.writer.finish_gathered()
            await self.writer.flush()

    async def _end(self) -> None:
        try:
            self.session.end("the connection was given up by this side")
            self._say_reading_is_over()
            self.writer.write_gathered()
            lost = self._is_lost or self.writer.is_over or self.session.has_control
            self.session.drop_control()
            left = min(self._close_by - current_time(), self._options.close_timeout)
            self._ending = CancelScope(deadline=-inf if self._is_stopped else inf, shield=True)
            with self._ending:
                await self.stream.aclose(grace=0 if lost else max(left, 0))
        except Exception as error:
            # The stream of a caller can fail to close: that is not news for whoever closes the connection.
            self._cause = self._cause or error
        finally:
            # Who writes to a stream that does not notice its end must not wait for it.
            self.writer.stop()
            self.closed.set()

    def _say_reading_is_over(self) -> None:
        self.inbox.end()
        self.pings.end()
        self._reading_over.set()

    @property
    def _is_lost(self) -> bool:
        return self.session.failure is not None and self.session.failure.code == CloseCode.ABNORMAL

    @property
    def is_over_in_order(self) -> bool:
        """Whether iteration ends without an error, once all is received."""
        return self.session.received is not None or self.is_closed_here

    def last_message(self) -> CloseMessage:
        """What ``recv`` returns at the end: the peer's close, once; or raise ConnectionClosed."""
        if self.session.received is not None and self.owes_close_message:
            self.owes_close_message = False
            return self.session.received
        raise self.closed_error()

    def raise_unless_open(self) -> None:
        """Raise ConnectionClosed when nothing more may be sent."""
        if self.session.state is not State.OPEN or self._is_given_up:
            raise self.closed_error()

    def closed_error(self, cause: Exception | None = None) -> ConnectionClosed:
        """The error that tells the user how the connection was closed, or is being closed."""
        self.is_told = True
        return self.how_it_ended(cause)

    def how_it_ended(self, cause: Exception | None = None) -> ConnectionClosed:
        """The same, for who is not the user."""
        session = self.session
        end = session.received or session.failure or session.sent
        if end is None:
            assert self._is_given_up
            end = CloseMessage(CloseCode.ABNORMAL, f"the connection was lost: {self._cause}")
        error = ConnectionClosed(end.code, end.reason, received=session.received, sent=session.sent)
        error.__cause__ = self._cause if cause is None or isinstance(cause, WriteStoppedError) else cause
        return error
