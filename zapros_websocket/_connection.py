"""A connection: the task that reads, the one that writes control frames, keepalive, and the calls of the user.

The tasks live in one ``run``, which a task group owns. It reads until the session is over, and then finishes:

    reading --------------------------> finishing ---------------------> closed
    until the peer's close, a failure,   wakes all who wait in recv,       the stream is closed,
    the end of the stream, or the        writes the last close frame,      close() returns
    deadline of our own close            waits a little for the peer's FIN

Invariants:

- The order of the session is the order of the wire: between encoding a message and the start of its write nothing is
  awaited, and both happen in the turn to write.
- Nothing is written after a partial write: a send that was cancelled half-way ends the connection.
- The reader never waits for the wire: what it has to answer it leaves with the session, and another task writes it.
- A task in the background does not raise: what goes wrong becomes the reason of ConnectionClosed.
- Every wait for the peer has a deadline, but for those that the user asked for: ``recv`` and ``ping``, and a ``send``
  that the peer's silence blocks. Those last as long as the connection, and keepalive ends a dead one.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

import trio
from anyio import (
    CancelScope,
    Event,
    create_task_group,
    current_time,
    get_cancelled_exc_class,
    move_on_after,
    sleep_until,
)
from zapros import Response

from ._base import AsyncBaseWebSocket
from ._errors import ConnectionClosed
from ._inbox import Inbox
from ._pace import Pace
from ._pings import Pings
from ._protocol.messages import (
    BinaryMessage,
    CloseCode,
    CloseMessage,
    Message,
    PongMessage,
    TextMessage,
)
from ._protocol.outgoing import PING, PONG, close_message, outgoing
from ._protocol.session import Session, State
from ._turn import Turn

if TYPE_CHECKING:
    from anyio.abc import TaskGroup
    from typing_extensions import Self

    from ._protocol.handshake import Agreement
    from ._protocol.options import Options, PerMessageDeflateExtension
    from ._streams.base import ByteStream

# Seconds for the last words to leave and the peer to end TCP, once the closing handshake is done or has failed.
LINGER: Final = 1.0

# Seconds for a polite end where nobody should be kept waiting: the caller was cancelled, or raised.
SHORT: Final = 0.5


class AsyncWebSocket(AsyncBaseWebSocket):
    """An open connection, made by ``aconnect_ws`` or ``open_ws``.

    Any number of tasks may send, receive, ping and close at once.
    """

    def __init__(
        self, stream: ByteStream, session: Session, options: Options, *, agreement: Agreement, response: Response
    ) -> None:
        self._stream = stream
        self._session = session
        self._options = options
        self._agreement = agreement
        self._response = response
        self._inbox = Inbox()
        self._pace = Pace(asyncio_tasks=not trio.lowlevel.in_trio_run())
        self._pings = Pings()
        self._turn = Turn()
        # What is under way, so that it can be ended from elsewhere.
        self._running = CancelScope()
        self._reading = CancelScope()
        self._writing: CancelScope | None = None
        self._tasks: TaskGroup | None = None
        self._flushing = False
        # When the peer was last heard; a reader that is stopped hears nothing, which is not the peer's fault.
        self._heard_at = current_time()
        # How it ends.
        self._close_by = inf
        self._closed_here = False
        self._owes_close_message = True
        self._cannot_write = False
        self._cause: Exception | None = None
        self._reading_over = Event()
        self._closed = Event()

    # What the user sees

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose among those offered, or None."""
        return self._agreement.subprotocol

    @property
    def response(self) -> Response:
        """The answer to the opening handshake: a response with the status 101."""
        return self._response

    @property
    def permessage_deflate(self) -> PerMessageDeflateExtension | None:
        """The parameters of permessage-deflate that were agreed to, or None without compression."""
        return self._agreement.permessage_deflate

    @property
    def latency(self) -> float | None:
        """The last round trip of a ping of this library, in seconds, or None before the first."""
        return self._pings.latency

    @property
    def close_code(self) -> int | None:
        """The peer's close code when it sent one, else the code of what ended the connection; None while open."""
        end = self._session.received or self._session.failure
        return None if end is None else end.code

    @property
    def close_reason(self) -> str | None:
        """The reason that belongs to ``close_code``."""
        end = self._session.received or self._session.failure
        return None if end is None else end.reason

    def __repr__(self) -> str:
        state = self._session.state.name.lower()
        return f"<{type(self).__name__} {state}{'' if self.close_code is None else f' {self.close_code}'}>"

    async def send(self, message: Message | str | bytes | bytearray | memoryview) -> None:
        """Send one message: a message object, a ``str`` as text, or any bytes-like object as binary.

        Several tasks may send at once: their messages never mix. It returns when the message was handed to the
        network, and waits while the peer does not read. Sending a CloseMessage starts the closing handshake;
        ``recv`` then gives what the peer still sends, up to its own close.

        Cancelling it before the first byte is written has no effect on the connection. Cancelling it in the middle of
        a message breaks the connection, and every later call says so.

        Raises:
            TypeError: it is not a message.
            ValueError: it cannot be sent: text that UTF-8 cannot carry, more than 125 bytes in a ping or pong, a close
                code or reason that may not be sent.
            ConnectionClosed: the connection is closed or closing.
        """
        prepared = outgoing(message)
        if isinstance(prepared, CloseMessage):
            await self._pace.observe()
            self._raise_unless_open()
            self._start_close(prepared)
            await self._flush()
            return
        opcode, payload = prepared
        if opcode in (PING, PONG) and not self._stream.carries_control:
            await self._pace.observe()
            self._raise_unless_open()
            return

        def encode() -> bytes:
            self._raise_unless_open()
            return self._session.encode(opcode, payload)

        await self._write_in_turn(encode)

    async def recv(self) -> Message:
        """Wait for the next message of any kind, in the order of the wire.

        Pings were answered already when they come out here. The peer's close comes out once, as a CloseMessage.
        Several tasks may wait at once: each message goes to one of them, first come, first served.

        Cancelling it loses nothing: the message stays for the next call.

        Raises:
            ConnectionClosed: the connection is closed, and all that came before was received.
        """
        while True:
            if self._inbox.is_ready:
                await self._pace.observe()
                if not self._inbox.is_ready:
                    continue
            else:
                await self._inbox.wait()
            message = self._inbox.pop()
            if message is not None:
                return message
            if self._session.received is not None and self._owes_close_message:
                self._owes_close_message = False
                return self._session.received
            raise self._closed_error()

    def __aiter__(self) -> Self:
        """Iterate over the text and binary messages, until the peer closes or this side has closed.

        Raises:
            ConnectionClosed: the connection was lost or failed: what the peer meant to send may be incomplete.
        """
        return self

    async def __anext__(self) -> TextMessage | BinaryMessage:
        """The next text or binary message; cancelling it loses nothing."""
        while True:
            try:
                message = await self.recv()
            except ConnectionClosed:
                if self._session.received is not None or self._closed_here:
                    raise StopAsyncIteration from None
                raise
            if isinstance(message, (TextMessage, BinaryMessage)):
                return message

    async def ping(self) -> float:
        """Send a ping and wait for its pong (RFC 6455, section 5.5.2): the round trip in seconds.

        It lasts as long as the peer takes, or the connection: put it under a deadline of your own. Cancelling it has
        no effect but that of a cancelled ``send``. Over ASGI there are no pings, and it returns 0.0 at once.

        Raises:
            ConnectionClosed: the connection is closed, or ended before the pong came.
        """
        if not self._stream.carries_control:
            await self._pace.observe()
            self._raise_unless_open()
            return 0.0
        ping = self._pings.new(current_time())

        def encode() -> bytes:
            self._raise_unless_open()
            ping.sent_at = current_time()
            return self._session.encode(PING, ping.payload)

        try:
            await self._write_in_turn(encode)
            await ping.answered.wait()
        finally:
            self._pings.forget(ping)
        if ping.round_trip is None:
            raise self._closed_error()
        return ping.round_trip

    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the connection (RFC 6455, section 7.1.2) and wait until its transport is closed.

        It is idempotent, and several tasks may call it at once: the first code and reason go out. It is bounded by
        ``close_timeout``: a peer that does not answer, or leaves TCP open, is left behind; so is a ``send`` that is
        blocked, which raises ConnectionClosed.

        Cancelling it leaves the closing to the background, within the same bound.

        Raises:
            TypeError: the code is not an ``int`` or the reason not a ``str``.
            ValueError: the code may not be sent (allowed: 1000-1003, 1007-1014, 3000-4999), or the reason is over 123
                bytes of UTF-8.
        """
        message = close_message(code, reason)
        if self._session.received is None:
            # What the peer answers to this is no news to anyone.
            self._owes_close_message = False
        self._start_close(message)
        # Its close may stand behind messages that nobody will ask for.
        self._inbox.lift()
        await self._closed.wait()

    # What the owner of the task group uses

    def feed(self, data: bytes) -> None:
        """Take in what came in the same segment as the answer to the handshake."""
        if data:
            self._take_in(data)

    async def run(self, *, shield: bool) -> None:
        """Keep the connection until it is closed. With ``shield`` only ``stop`` ends it before."""
        try:
            self._running.shield = shield
            with self._running:
                try:
                    async with create_task_group() as self._tasks:
                        if self._options.ping_interval is not None and self._stream.carries_control:
                            self._tasks.start_soon(self._keep_alive, self._options.ping_interval)
                        self._flush_soon()
                        with self._reading:
                            await self._read()
                        await self._finish()
                        self._tasks.cancel_scope.cancel()
                except get_cancelled_exc_class():
                    self._tasks = None
                    await self._leave_politely()
                    raise
        finally:
            self._tasks = None
            await self._end()

    async def run_unshielded(self) -> None:
        """``run`` for a task group of the user, who ends it by cancelling the group."""
        await self.run(shield=False)

    async def stop(self) -> None:
        """End ``run`` now, whatever the peer does. Shielded: it has a bound of its own."""
        self._running.cancel()
        with CancelScope(shield=True):
            await self._closed.wait()

    # Reading

    async def _read(self) -> None:
        while self._session.state is not State.CLOSED:
            if self._inbox.is_full:
                await self._inbox.room()
                self._heard_at = current_time()
            try:
                data = await self._stream.receive()
            except Exception as error:
                # Whatever a stream raises: it is the reason of the loss.
                self._lost(error)
                return
            self._heard_at = current_time()
            if not data:
                self._session.end("the connection was lost: the peer ended TCP without a close frame")
                return
            self._take_in(data)

    def _take_in(self, data: bytes) -> None:
        messages = self._session.receive(data)
        self._inbox.put(message for message in messages if not self._is_for_itself(message))
        if self._session.has_control:
            self._flush_soon()

    def _is_for_itself(self, message: Message) -> bool:
        if isinstance(message, PongMessage):
            return self._pings.is_answer(message.data, current_time())
        # The peer's close is given out by recv, when the inbox is empty.
        return isinstance(message, CloseMessage)

    def _lost(self, error: Exception) -> None:
        self._cause = self._cause or error
        self._session.end(f"the connection was lost: {error or type(error).__name__}")

    # Writing

    async def _write_in_turn(self, encode: Callable[[], bytes]) -> None:
        await self._turn.take()
        try:
            self._raise_unless_open()
            error = await self._write(encode)
        finally:
            self._turn.give_back()
        if error is not None:
            # The reader may still find a close frame, and with it a better reason than a broken pipe.
            await self._reading_over.wait()
            raise self._closed_error() from error

    async def _write(self, encode: Callable[[], bytes]) -> Exception | None:
        """Write what ``encode`` gives, in the turn of the caller; return what a broken stream raised."""
        begun = False
        try:
            with CancelScope() as self._writing:
                await self._stream.wait_writable()
                await self._pace.observe()
                frame = encode()
                begun = True
                await self._stream.send_all(frame)
                return None
        except ConnectionClosed:
            raise
        except Exception as error:
            self._cannot_write = True
            self._session.drop_control()
            self._cause = self._cause or error
            self._reading.deadline = min(self._reading.deadline, current_time() + LINGER)
            return error
        except BaseException:
            if begun:
                self._break("a send was cancelled when part of its message was written")
            raise
        finally:
            self._writing = None
        # Stopped by _finish, for whom it stood in the way.
        self._cannot_write = True
        raise self._closed_error()

    def _flush_soon(self) -> None:
        if self._tasks is not None and not self._flushing and self._session.has_control:
            self._flushing = True
            self._tasks.start_soon(self._flush_in_background)

    async def _flush_in_background(self) -> None:
        try:
            await self._flush()
        finally:
            self._flushing = False

    async def _flush(self) -> None:
        """Write the control frames that are pending, in front of all messages that wait."""
        while self._session.has_control and not self._cannot_write:
            await self._turn.take(first=True)
            try:
                await self._write(self._session.take_control)
            except ConnectionClosed:
                return
            finally:
                self._turn.give_back()

    def _break(self, reason: str) -> None:
        self._cannot_write = True
        self._session.end(reason)
        self._session.drop_control()
        self._reading.cancel()

    # Keepalive

    async def _keep_alive(self, interval: float) -> None:
        timeout = inf if self._options.ping_timeout is None else self._options.ping_timeout
        ping_at = current_time() + interval
        asked_at = give_up_at = inf
        ping = None
        while True:
            await sleep_until(min(ping_at, give_up_at))
            now = current_time()
            # A reader that is stopped by backpressure cannot hear; and any byte is a sign of life.
            if self._inbox.is_full or self._heard_at >= asked_at:
                asked_at = give_up_at = inf
            if now >= give_up_at:
                self._session.fail(
                    CloseCode.INTERNAL_ERROR, f"ping timeout: nothing was heard for {timeout:g} seconds after a ping"
                )
                self._reading.cancel()
                return
            if now >= ping_at:
                ping_at = now + interval
                if give_up_at == inf:
                    asked_at, give_up_at = now, now + timeout
                if ping is not None:
                    self._pings.forget(ping)
                ping = self._pings.new(now)
                self._session.ping(ping.payload)
                self._flush_soon()

    # Closing

    def _start_close(self, message: CloseMessage) -> None:
        if self._session.state is State.OPEN:
            self._closed_here = True
            self._session.close(message)
            self._close_by = current_time() + self._options.close_timeout
            self._reading.deadline = min(self._reading.deadline, self._close_by)
            self._flush_soon()

    async def _finish(self) -> None:
        """Reading is over: say so, and part from the peer as well as can be within the time that there is."""
        if self._cause is not None:
            self._lost(self._cause)
        self._session.end(f"the peer did not answer the close frame within {self._options.close_timeout:g} seconds")
        self._say_reading_is_over()
        if self._session.received is None:
            self._close_by = min(self._close_by, current_time() + LINGER)
        else:
            self._close_by = min(self._close_by, current_time() + self._options.close_timeout)
        if not self._is_lost:
            with CancelScope(deadline=self._close_by):
                await self._flush()
                with move_on_after(LINGER):
                    await self._drain()
        if self._writing is not None:
            self._writing.cancel()

    async def _drain(self) -> None:
        # A socket that is closed with something unread in it is reset, and our last frame with it.
        try:
            while await self._stream.receive():
                pass
        except Exception:
            # It is over already, in order or with a reason: how TCP ends tells nobody anything.
            return

    async def _leave_politely(self) -> None:
        """The owner of the tasks was cancelled: say goodbye, if that can be done quickly."""
        with CancelScope(shield=True), move_on_after(SHORT):
            self._start_close(CloseMessage(CloseCode.NORMAL))
            await self._flush()

    async def _end(self) -> None:
        try:
            self._session.end("the connection was given up by this side")
            self._say_reading_is_over()
            lost = self._is_lost or self._cannot_write or self._session.has_control
            self._session.drop_control()
            left = min(self._close_by - current_time(), self._options.close_timeout)
            await self._stream.aclose(grace=0 if lost else max(left, 0))
        except Exception as error:
            # The stream of a caller can fail to close: that is not news for whoever closes the connection.
            self._cause = self._cause or error
        finally:
            self._closed.set()

    def _say_reading_is_over(self) -> None:
        self._inbox.end()
        self._pings.end()
        self._reading_over.set()

    @property
    def _is_lost(self) -> bool:
        return self._session.failure is not None and self._session.failure.code == CloseCode.ABNORMAL

    def _raise_unless_open(self) -> None:
        if self._session.state is not State.OPEN or self._cannot_write:
            raise self._closed_error()

    def _closed_error(self) -> ConnectionClosed:
        session = self._session
        end = session.received or session.failure or session.sent
        assert end is not None
        error = ConnectionClosed(end.code, end.reason, received=session.received, sent=session.sent)
        error.__cause__ = self._cause
        return error
