"""A connection as its user sees it: send, recv, iteration, ping and close, on a link that does the work.

Invariants:

- Cancelling ``recv`` loses nothing: between taking a message and returning it nothing is awaited.
- So does an interrupt (KeyboardInterrupt) on trio: it comes out where the task waits.
- The peer's close comes out once; the peer's answer to our own ``close`` does not.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from anyio.lowlevel import checkpoint
from trio.lowlevel import enable_ki_protection
from zapros import Response

from ._base import AsyncBaseWebSocket
from ._byte_stream import WebSocketByteStream
from ._chunks import send_chunks
from ._errors import ConnectionClosed
from ._incoming import AsyncIncomingMessage
from ._link import Link
from ._protocol.frames import BINARY
from ._protocol.messages import BinaryMessage, CloseCode, Message, TextMessage
from ._protocol.outgoing import PING, BytesLike, Chunks, check_compress, close_message, outgoing

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._protocol.handshake import Agreement
    from ._protocol.options import PerMessageDeflateExtension

T = TypeVar("T")


class AsyncWebSocket(AsyncBaseWebSocket):
    """An open connection, made by ``aconnect_ws`` or ``open_ws``.

    Any number of tasks may send, receive, ping and close at once.
    """

    def __init__(self, link: Link, *, agreement: Agreement, response: Response) -> None:
        self._link = link
        self._session = link.session
        self._inbox = link.inbox
        self._pace = link.pace
        self._is_due = link.pace.is_due
        self._send_now = link.writer.send_now
        self._write_gathered = link.writer.write_gathered
        self._agreement = agreement
        self._response = response
        self._byte_stream: WebSocketByteStream | None = None

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
        return self._link.pings.latency

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

    @enable_ki_protection
    async def send(
        self,
        message: Message
        | str
        | BytesLike
        | Iterable[str]
        | Iterable[BytesLike]
        | AsyncIterable[str]
        | AsyncIterable[BytesLike],
        *,
        compress: bool | None = None,
    ) -> None:
        """Send one message: a message object, a ``str`` as text, or any bytes-like object as binary.

        An iterable, asynchronous or not, of ``str`` or of bytes-like chunks is sent as one text or binary message in
        fragments (RFC 6455, section 5.4): one chunk after the other, each asked for when the one before is written.
        An iterable without a chunk is an empty binary message. Until it ends other messages wait; pings, pongs and the
        close frame do not.

        Several tasks may send at once: their messages never mix. It returns when the message was handed to the
        network, and waits while the peer does not read. Small messages that follow another in the same turn of the
        event loop are handed over together, in the next turn at the latest; nothing that is done to the task takes
        them back, and how that failed the next call says. Sending a CloseMessage starts the closing handshake;
        ``recv`` then gives what the peer still sends, up to its own close.

        Cancelling it before the first byte is written has no effect on the connection. Cancelling it in the middle of
        a message breaks the connection, and every later call says so. So does an iterable that raises, when a chunk
        of it is written; what it raises comes out as it is. Behind the last byte only a native cancellation of asyncio
        can come out of it, and has no effect on the connection or the message.

        Args:
            message: The message.
            compress: Whether to compress it, where compression was agreed to. None: if it is not smaller than the
                ``threshold``; chunks always. Without compression it has no effect.

        Raises:
            TypeError: it is not a message, its chunks are not all text or all bytes-like, or ``compress`` is no bool.
            ValueError: it cannot be sent: text that UTF-8 cannot carry, more than 125 bytes in a ping or pong, a close
                code or reason that may not be sent.
            ConnectionClosed: the connection is closed or closing.
        """
        if compress is not None:
            check_compress(compress)
        opcode: int
        payload: bytes | memoryview
        if type(message) is bytes:
            # The common case, in as few steps as can be.
            opcode, payload = BINARY, message
        else:
            prepared = outgoing(message)
            if not isinstance(prepared, tuple):
                await self._pace.observe()
                if isinstance(prepared, Chunks):
                    await send_chunks(self._link, prepared, compress)
                else:
                    await self._link.write_close(prepared)
                return
            opcode, payload = prepared
        if opcode <= BINARY:
            if not self._is_due():
                if self._send_now(opcode, payload, compress):
                    return
            else:
                await self._pace.raise_if_cancelled()
                if self._send_now(opcode, payload, compress):
                    # Not before: nobody who calls later goes in front.
                    await self._pace.let_others_run()
                    return
        elif not self._link.stream.carries_control:
            await self._pace.observe()
            self._link.raise_unless_open()
            return
        encode = partial(self._session.encode, opcode, payload, compress)
        await self._link.write(encode, between=opcode >= PING, size=len(payload))

    async def _send_text(self, message: TextMessage, compress: bool | None) -> None:
        await self.send(message, compress=compress)

    @enable_ki_protection
    async def recv(self) -> Message:
        """Wait for the next message of any kind, in the order of the wire.

        Pings were answered already when they come out here. The peer's close comes out once, as a CloseMessage.
        Several tasks may wait at once: each message goes to one of them, first come, first served.

        Cancelling it loses nothing: the message stays for the next call.

        Raises:
            ConnectionClosed: the connection is closed, and all that came before was received.
        """
        # The common case, in as few steps as can be; what follows does the same for any case.
        inbox = self._inbox
        data = inbox.data
        if data and inbox.is_simple and not self._is_due():
            message = data.popleft()
            if inbox.low_mark >= 0 and len(data) == inbox.low_mark:
                inbox.let_in()
            return message
        if self._is_due():
            await self._pace.observe()
        if not inbox.is_ready:
            self._write_gathered()
            await inbox.wait()
            self._pace.waited()
        return inbox.pop() or self._link.last_message()

    def __aiter__(self) -> Self:
        """Iterate over the text and binary messages, until the peer closes or this side has closed.

        Raises:
            ConnectionClosed: the connection was lost or failed: what the peer meant to send may be incomplete.
        """
        return self

    @enable_ki_protection
    async def __anext__(self) -> TextMessage | BinaryMessage:
        """The next text or binary message; cancelling it loses nothing."""
        # As in ``recv``; what stands among the data is never a control message.
        inbox = self._inbox
        data = inbox.data
        if data and inbox.is_simple and not self._is_due():
            message = data.popleft()
            if inbox.low_mark >= 0 and len(data) == inbox.low_mark:
                inbox.let_in()
            return message
        while True:
            try:
                received = await self.recv()
            except ConnectionClosed:
                if self._link.is_over_in_order:
                    raise StopAsyncIteration from None
                raise
            if isinstance(received, (TextMessage, BinaryMessage)):
                return received

    @enable_ki_protection
    async def _recv_as(self, read: Callable[[TextMessage | BinaryMessage], T]) -> T:
        while True:
            if self._is_due():
                await self._pace.observe()
            if not self._inbox.is_ready:
                self._write_gathered()
                await self._inbox.wait()
                self._pace.waited()
            # From here on nothing is awaited: the message that was looked at is the one that is taken.
            message = self._inbox.peek()
            if isinstance(message, (TextMessage, BinaryMessage)):
                try:
                    value = read(message)
                except BaseException:
                    self._inbox.leave()
                    raise
                self._inbox.pop()
                return value
            self._inbox.pop()
            if message is None:
                # The peer's close has come out now, as an error.
                self._link.owes_close_message = False
                raise self._link.closed_error()

    def recv_chunks(self) -> AsyncIncomingMessage:
        """Receive the next text or binary message chunk by chunk, in an ``async with`` block that holds the iterator.

        Entering the block waits for the message; pings and pongs that come before it are skipped. With
        ``stream_large_messages`` a message over ``max_message_size`` comes as it is received, whatever its size; every
        other comes in one chunk. Meanwhile the message is that of this block: others that receive wait for its end.
        What is left of it when the block is left is dropped, and the next ``recv`` gives the next message.

        Cancelling it loses nothing, neither before the block nor in it.

        Raises:
            ConnectionClosed: as with ``recv_text``; in the block, that the message will not be complete.
        """
        return AsyncIncomingMessage(self._link)

    @enable_ki_protection
    async def ping(self) -> float:
        """Send a ping and wait for its pong (RFC 6455, section 5.5.2): the round trip in seconds.

        It lasts as long as the peer takes, or the connection: put it under a deadline of your own. Cancelling it has
        no effect but that of a cancelled ``send``. Over ASGI there are no pings, and it returns 0.0 at once.

        Raises:
            ConnectionClosed: the connection is closed, or ended before the pong came.
        """
        if not self._link.stream.carries_control:
            await checkpoint()
            self._link.raise_unless_open()
            return 0.0
        ping = self._link.pings.new()

        def encode() -> bytes:
            self._link.pings.sent(ping)
            return self._session.encode(PING, ping.payload)

        try:
            await self._link.write(encode, between=True)
            self._inbox.take_back()
            await ping.answered.wait()
        finally:
            self._link.pings.forget(ping)
        if ping.round_trip is None:
            raise self._link.closed_error()
        return ping.round_trip

    @enable_ki_protection
    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the connection (RFC 6455, section 7.1.2) and wait until its transport is closed.

        It is idempotent, and several tasks may call it at once: the first code and reason go out. It is bounded by
        ``close_timeout``: a peer that does not answer, or leaves TCP open, is left behind; so is a ``send`` that is
        blocked, which raises ConnectionClosed.

        Cancelling it leaves the closing to the background, within the same bound.

        Raises:
            TypeError: the code is not an ``int`` or the reason neither a ``str`` nor None.
            ValueError: the code may not be sent (allowed: 1000-1003, 1007-1014, 3000-4999), or the reason is over 123
                bytes of UTF-8.
        """
        await self._link.close(close_message(code, reason))

    def as_stream(self) -> WebSocketByteStream:
        """The binary messages as a stream of bytes: an ``anyio.abc.ByteStream`` and a ``trio.abc.Stream``.

        Each call returns the same stream. Closing it closes the connection. What it has taken of a message and not
        given out yet, ``recv`` does not see.
        """
        if self._byte_stream is None:
            self._byte_stream = WebSocketByteStream(self, self._link)
        return self._byte_stream

    # What reconnecting asks

    def _seen_end(self) -> ConnectionClosed | None:
        """How the connection ended, when not by this side, and the user has seen it: as an error, a message or the end
        of iteration."""
        return self._end_that_is_seen(is_told=self._link.is_told)

    def _end_that_is_seen(self, *, is_told: bool) -> ConnectionClosed | None:
        has_given_close = self._session.received is not None and not self._link.owes_close_message
        if self._link.is_closed_here or not (is_told or has_given_close):
            return None
        return self._link.how_it_ended()

    def _how_it_ended(self) -> ConnectionClosed:
        return self._link.how_it_ended()

    def _is_lost_by(self, error: ConnectionClosed) -> bool:
        """Whether the error says how this very connection ended, and it was not this side that closed it."""
        is_its_own = error.received is self._session.received and error.code == self.close_code
        return is_its_own and not self._link.is_closed_here
