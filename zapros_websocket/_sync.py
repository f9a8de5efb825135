"""The synchronous entry point and connection: a facade of the asynchronous ones, which live on a portal's event loop.

Invariants:

- No message is lost to an interrupt, and none of those that are received.
- There is no second implementation of anything here: each method hands on, and waits where one has to wait.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, TypeVar

from anyio import CancelScope, current_time, move_on_after
from anyio.from_thread import BlockingPortal
from zapros import URL, Client, Headers, RequestContext, Response

from ._base import BaseWebSocket
from ._blocking import open_through
from ._chunks_of_threads import send_chunks
from ._connect import connected, open_by_itself
from ._connection import AsyncWebSocket
from ._errors import ConnectionClosed
from ._host import Host
from ._inbox_of_parts_for_threads import InboxOfPartsForThreads
from ._inbox_of_threads import InboxOfThreads
from ._incoming_for_threads import IncomingMessage
from ._lending import Lending
from ._link import SHORT, Link
from ._observed import ObservedSession
from ._observer import Observer, check_observer
from ._opening import Opened, Opening
from ._outbox import Outbox
from ._portal import process, refuse_event_loop, refuse_fork, refuse_inherited, shared_portal
from ._protocol.messages import BinaryMessage, CloseCode, CloseMessage, Message, TextMessage
from ._protocol.options import Options, PerMessageDeflateExtension, check_number
from ._protocol.outgoing import BytesLike, Chunks, check_compress, close_message, outgoing
from ._protocol.session import Session
from ._streams.handed_over import taken_over
from ._streams.sockets import SocketStream
from ._tasks import Tasks
from ._time_left import time_left
from ._turn import SharedTurn
from ._waiting import new_waiter_here

if TYPE_CHECKING:
    from typing_extensions import Self


T = TypeVar("T")


class connect_ws:
    """Open a connection for the length of a ``with`` block, in code without an event loop.

    The connection is that of ``aconnect_ws``, and lives on an event loop in another thread, which all connections of
    the process share. The opening handshake is one GET through ``client.stream(...)``, in the calling thread: its
    handlers, default headers and parameters, cookies, auth, retries, redirects and proxies all take part. Leaving the
    block closes the connection with the code 1000, within ``close_timeout``; when the block raised, within half a
    second. What the block raises comes out as it is.

    Args:
        url: A ``str`` or ``zapros.URL`` with the scheme ws, wss, http or https, or relative to the ``base_url`` of the
            client. ``user:password@`` in it becomes Basic auth, unless the request carries an Authorization already.
        client: The client to use; it is not closed. Without one, the handshake goes the way of ``aconnect_ws``
            without a client.
        subprotocols: The subprotocols to offer, the preferred first.
        permessage_deflate: Whether to offer compression (RFC 7692), or with which parameters.
        headers: More headers for the request.
        max_message_size: The largest message that is received whole, in bytes after inflation. A larger one fails the
            connection with the code 1009, unless ``stream_large_messages`` is set.
        stream_large_messages: Whether a message over ``max_message_size`` waits for ``recv_chunks``, to be received
            with no limit on its size.
        ping_interval: Seconds between pings of keepalive; None sends none.
        ping_timeout: Seconds in which something must be heard after such a ping; if not, the connection fails with
            the code 1011. None waits for ever.
        open_timeout: Seconds for everything up to the 101; None waits for ever. With a client, the resolver of the
            system and handlers of your own take as long as they take.
        close_timeout: Seconds for the closing handshake, and for the peer to end TCP.
        context: The request context for the handlers of the client, such as ``{"network": {"proxy": ...}}``.
        observer: Hears what goes over the connection, and how it fares and ends.
        portal: The portal on whose event loop the connection lives (``anyio.from_thread.start_blocking_portal``);
            without one, that of the process.

    An interrupt (KeyboardInterrupt) while it connects comes out at once, and closes what was opened so far.

    Raises:
        TypeError, ValueError: an argument cannot be used; nothing was sent.
        HandshakeError: the answer was not a valid 101.
        HandshakeTimeoutError: there was no answer within ``open_timeout``.
        zapros.ZaprosError: the network failed, or a handler of the client raised.
        RuntimeError: an event loop runs in this thread, or wsproto is not installed.
    """

    def __init__(
        self,
        url: URL | str,
        *,
        client: Client | None = None,
        subprotocols: Sequence[str] | None = None,
        permessage_deflate: bool | PerMessageDeflateExtension = False,
        headers: Mapping[str, str] | Headers | None = None,
        max_message_size: int = 16 * 1024 * 1024,
        stream_large_messages: bool = False,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
        open_timeout: float | None = 10.0,
        close_timeout: float = 10.0,
        context: RequestContext | None = None,
        observer: Observer | None = None,
        portal: BlockingPortal | None = None,
    ) -> None:
        if client is not None and not isinstance(client, Client):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"client is a zapros.Client, not {type(client).__name__}")
        if portal is not None and not isinstance(portal, BlockingPortal):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"portal is an anyio.from_thread.BlockingPortal, not {type(portal).__name__}")
        check_observer(observer)
        self._client = client
        self._observer = observer
        self._portal = portal
        self._options = Options(
            max_message_size, ping_interval, ping_timeout, open_timeout, close_timeout, stream_large_messages
        )
        self._opening = Opening(
            url,
            subprotocols=subprotocols,
            permessage_deflate=permessage_deflate,
            headers=headers,
            context=context,
        )
        self._opening.check_url(client)

    def __enter__(self) -> WebSocket:
        """Connect."""
        refuse_event_loop("async with aconnect_ws(...)")
        if self._portal is not None:
            refuse_inherited(self._portal)
        portal = self._portal or shared_portal()
        if self._client is None:
            # Nothing that lives on with the connection may keep this alive, which keeps it from being collected.
            opening, options = self._opening, self._options
            self._connection = _open(portal, lambda: open_by_itself(opening, options), options, self._observer)
            return self._connection
        handed_over = open_through(self._opening, self._client, self._options.open_timeout, portal)

        async def take() -> Opened:
            stream = taken_over(handed_over.stream)
            return Opened(stream, handed_over.trailing_data, handed_over.agreement, handed_over.response)

        try:
            self._connection = _open(portal, take, self._options, self._observer)
        except BaseException:
            handed_over.stream.close()
            raise
        return self._connection

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connection, and raise nothing that hides what the block raised."""
        self._connection.part(exc)


@dataclass(frozen=True)
class _Parts:
    """What a connection is made of, for the threads and for the event loop."""

    link: Link
    connection: AsyncWebSocket
    inbox: InboxOfThreads
    outbox: Outbox
    options: Options

    async def close(self, message: CloseMessage) -> None:
        """Close, behind what was handed over before."""
        by = current_time() + self.options.close_timeout
        self.outbox.refuse(message)
        with CancelScope(deadline=by):
            await self.outbox.flushed()
        await self.link.close(message, by)

    async def close_soon(self) -> None:
        """Close in a short time."""
        with move_on_after(SHORT):
            await self.close(CloseMessage(CloseCode.NORMAL))


def _open(
    portal: BlockingPortal,
    handshake: Callable[[], Awaitable[Opened]],
    options: Options,
    observer: Observer | None,
) -> WebSocket:
    host = Host(portal)

    async def live(tasks: Tasks, ready: Callable[[_Parts], None]) -> None:
        opened = await handshake()
        stream = opened.stream
        new_waiter = new_waiter_here()
        sockets = stream if isinstance(stream, SocketStream) else None
        mutex = Lock() if sockets is None else sockets.mutex
        new_inbox = InboxOfPartsForThreads if options.stream_large_messages else InboxOfThreads
        inbox, turn = new_inbox(new_waiter, host.soon), SharedTurn(new_waiter, mutex)
        link, connection = connected(opened, options, observer, inbox=inbox, turn=turn)
        direct = None if sockets is None else sockets.share()
        if sockets is not None and direct is not None and type(link.session) is Session:
            lending = Lending(link.session, sockets, direct, options.max_message_size, host.soon)
            inbox.lend_from_now_on(lending, link.take)
        # What is compressed has to be compressed in the order of the wire, and is left to the event loop; so is what is
        # observed.
        is_direct = opened.agreement.permessage_deflate is None and not isinstance(link.session, ObservedSession)
        outbox = Outbox(link, turn, host.soon, direct if is_direct else None)
        tasks.start_soon(outbox.run)
        ready(_Parts(link, connection, inbox, outbox, options))
        try:
            await link.run(shield=False)
        finally:
            outbox.end()

    parts = host.open(live)
    try:
        return WebSocket(host, parts)
    except BaseException:
        # An interrupt: until it is made nobody else would.
        host.abandon()
        raise


class WebSocket(BaseWebSocket):
    """An open connection, made by ``connect_ws``.

    Any thread may call any method, and any number of them at once.
    """

    def __init__(self, host: Host, parts: _Parts) -> None:
        self._host = host
        self._parts = parts
        self._connection = parts.connection
        self._inbox = parts.inbox
        self._outbox = parts.outbox
        self._forks = process.forks
        self._end = Lock()
        # Whether an error has said how the connection ended: one that was raised here, and not on the event loop.
        self._is_told = False

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose among those offered, or None."""
        return self._connection.subprotocol

    @property
    def response(self) -> Response:
        """The answer to the opening handshake: a response with the status 101."""
        return self._connection.response

    @property
    def permessage_deflate(self) -> PerMessageDeflateExtension | None:
        """The parameters of permessage-deflate that were agreed to, or None without compression."""
        return self._connection.permessage_deflate

    @property
    def latency(self) -> float | None:
        """The last round trip of a ping of this library, in seconds, or None before the first."""
        return self._connection.latency

    @property
    def close_code(self) -> int | None:
        """The peer's close code when it sent one, else the code of what ended the connection; None while open."""
        return self._connection.close_code

    @property
    def close_reason(self) -> str | None:
        """The reason that belongs to ``close_code``."""
        return self._connection.close_reason

    def __repr__(self) -> str:
        return repr(self._connection).replace(type(self._connection).__name__, type(self).__name__, 1)

    def send(
        self,
        message: Message | str | BytesLike | Iterable[str] | Iterable[BytesLike],
        *,
        compress: bool | None = None,
    ) -> None:
        """Send one message: a message object, a ``str`` as text, or any bytes-like object as binary.

        An iterable of ``str`` or of bytes-like chunks is sent as one text or binary message in fragments (RFC 6455,
        section 5.4): one chunk after the other, in the calling thread. An iterable without a chunk is an empty binary
        message. Until it ends other messages wait; pings, pongs and the close frame do not.

        Several threads may send at once: their messages never mix. It returns when the message was handed to the
        network or to the event loop, in order, and waits while too much is unsent (1,024 messages, or one MiB). So a
        failure is raised by this call or by the next. Sending a CloseMessage starts the closing handshake; ``recv``
        then gives what the peer still sends, up to its own close.

        An interrupt (KeyboardInterrupt) while it waits has no effect on the connection: the message is not sent, or
        sent whole in the background when it was begun. In the middle of an iterable it breaks the connection, as does
        whatever else the iterable raises when a chunk of it is written; it comes out as it is.

        Args:
            message: The message.
            compress: Whether to compress it, where compression was agreed to. None: if it is not smaller than the
                ``threshold``; chunks always. Without compression it has no effect.

        Raises:
            TypeError: it is not a message, its chunks are not all text or all bytes-like, or ``compress`` is no bool.
            ValueError: it cannot be sent: text that UTF-8 cannot carry, more than 125 bytes in a ping or pong, a close
                code or reason that may not be sent.
            ConnectionClosed: the connection is closed or closing.
            RuntimeError: it would have to wait, and an event loop runs in this thread; a CloseMessage always waits.
        """
        if self._forks != process.forks:
            refuse_fork(self._forks)
        if compress is not None:
            check_compress(compress)
        prepared = outgoing(message)
        try:
            if isinstance(prepared, tuple):
                self._outbox.send(*prepared, compress)
            elif isinstance(prepared, Chunks):
                send_chunks(self._outbox, self._parts.link.session, prepared, compress)
            else:
                self._outbox.send_close(prepared)
        except ConnectionClosed:
            self._is_told = True
            raise

    def _send_text(self, message: TextMessage, compress: bool | None) -> None:
        self.send(message, compress=compress)

    def recv(self, timeout: float | None = None) -> Message:
        """Wait for the next message of any kind, in the order of the wire; for ``timeout`` seconds, or for ever.

        Pings were answered already when they come out here. The peer's close comes out once, as a CloseMessage.
        Several threads may wait at once: each message goes to one of them, first come, first served.

        Nothing is lost when the time is over, or by an interrupt (KeyboardInterrupt): the message stays for the next
        call.

        Raises:
            TimeoutError: no message came within ``timeout``.
            ConnectionClosed: the connection is closed, and all that came before was received.
        """
        if self._forks != process.forks:
            refuse_fork(self._forks)
        if timeout is not None:
            check_number("timeout", timeout, (int, float))
        message = self._inbox.take(timeout)
        if message is not None:
            return message
        try:
            with self._end:
                return self._parts.link.last_message()
        except ConnectionClosed:
            self._is_told = True
            raise

    def recv_chunks(self, timeout: float | None = None) -> IncomingMessage:
        """Receive the next text or binary message chunk by chunk, in a ``with`` block that holds the iterator over it.

        Entering the block waits for the message, for ``timeout`` seconds or for ever, and each chunk may take as long
        again. Pings and pongs that come before the message are skipped. With ``stream_large_messages`` a message over
        ``max_message_size`` comes as it is received, whatever its size; every other comes in one chunk. Meanwhile the
        message is that of this block: others that receive wait for its end. What is left of it when the block is left
        is dropped, and the next ``recv`` gives the next message.

        Raises:
            TimeoutError: nothing came within ``timeout``. In the block nothing is lost by it.
            ConnectionClosed: as with ``recv_text``; in the block, that the message will not be complete.
        """
        refuse_fork(self._forks)
        if timeout is not None:
            check_number("timeout", timeout, (int, float))
        return IncomingMessage(self._inbox, timeout, self._raise_close)

    def _recv_as(self, read: Callable[[TextMessage | BinaryMessage], T], timeout: float | None) -> T:
        if timeout is not None:
            check_number("timeout", timeout, (int, float))
        left = time_left(timeout)
        while True:
            message = self.recv(next(left))
            if isinstance(message, CloseMessage):
                # The peer's close has come out now, as an error.
                self._raise_closed()
            if isinstance(message, (TextMessage, BinaryMessage)):
                try:
                    return read(message)
                except BaseException:
                    self._inbox.put_back(message)
                    raise

    def __iter__(self) -> Self:
        """Iterate over the text and binary messages, until the peer closes or this side has closed.

        Raises:
            ConnectionClosed: the connection was lost or failed: what the peer meant to send may be incomplete.
        """
        return self

    def __next__(self) -> TextMessage | BinaryMessage:
        """The next text or binary message."""
        while True:
            try:
                message = self.recv()
            except ConnectionClosed:
                if self._parts.link.is_over_in_order:
                    raise StopIteration from None
                raise
            if isinstance(message, (TextMessage, BinaryMessage)):
                return message

    def ping(self) -> float:
        """Send a ping and wait for its pong (RFC 6455, section 5.5.2): the round trip in seconds.

        It lasts as long as the peer takes, or the connection. An interrupt (KeyboardInterrupt) has no effect on it.

        Raises:
            ConnectionClosed: the connection is closed, or ended before the pong came.
        """
        refuse_fork(self._forks)
        try:
            return self._host.call(self._parts.connection.ping, instead="await ws.ping()", when_over=self._raise_closed)
        except ConnectionClosed:
            self._is_told = True
            raise

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the connection (RFC 6455, section 7.1.2) and wait until its transport is closed.

        What was sent before goes out before. It is idempotent, and several threads may call it at once: the first
        code and reason go out. It is bounded by ``close_timeout``: a peer that does not answer, or leaves TCP open, is
        left behind; so is a ``send`` that waits, which raises ConnectionClosed. A ``recv`` that waits is woken.

        An interrupt (KeyboardInterrupt) leaves the closing to the background, within the same bound.

        Raises:
            TypeError: the code is not an ``int`` or the reason neither a ``str`` nor None.
            ValueError: the code may not be sent (allowed: 1000-1003, 1007-1014, 3000-4999), or the reason is over 123
                bytes of UTF-8.
        """
        refuse_fork(self._forks)
        message = close_message(code, reason)
        self._host.call(
            lambda: self._parts.close(message), instead="await ws.close()", when_over=_nothing, goes_on=True
        )

    def part(self, raised: BaseException | None) -> None:
        """Leave the block, in a short time when it raised."""
        if self._forks != process.forks:
            if raised is None:
                refuse_fork(self._forks)
            return
        parts = self._parts

        async def part() -> None:
            try:
                if raised is None:
                    await parts.close(CloseMessage(CloseCode.NORMAL))
                else:
                    await parts.close_soon()
            finally:
                await parts.link.stop()

        try:
            self._host.call(part, instead="async with aconnect_ws(...)", when_over=_nothing, is_last=True)
        except BaseException:
            # An interrupt, or an event loop in this thread, for which nobody can wait.
            self._host.abandon()
            raise
        self._host.wait_until_over()

    def _raise_close(self) -> NoReturn:
        # The peer's close comes out now, as an error.
        with self._end:
            self._parts.link.owes_close_message = False
        self._raise_closed()

    def _raise_closed(self) -> NoReturn:
        self._is_told = True
        raise self._parts.link.closed_error()

    # What reconnecting asks

    def _seen_end(self) -> ConnectionClosed | None:
        return self._connection._end_that_is_seen(is_told=self._is_told)  # pyright: ignore[reportPrivateUsage]

    def _how_it_ended(self) -> ConnectionClosed:
        return self._parts.link.how_it_ended()

    def _is_lost_by(self, error: ConnectionClosed) -> bool:
        return self._connection._is_lost_by(error)  # pyright: ignore[reportPrivateUsage]

    def __del__(self) -> None:
        # One that an interrupt has kept from being made has nothing yet, and is abandoned by who has made it.
        is_forgotten = hasattr(self, "_end") and self._forks == process.forks and not self._parts.link.closed.is_set()
        if is_forgotten:
            unclosed = f"unclosed {self!r}: leave its block, or call close()"
            # Before the warning, which may be an error.
            self._host.abandon()
            warnings.warn(unclosed, ResourceWarning, stacklevel=1, source=self)


def _nothing() -> None:
    """There is nothing to do about a connection that is over."""
