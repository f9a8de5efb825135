"""The entry points: a handshake becomes a connection, whose tasks somebody owns.

Invariants:

- The user's exception is never handed to the task group: it comes out of the block as itself.
- The stream is closed on every path, and a client that was made here as well; one of the caller never is.
- A bug in the tasks of a connection cancels the block, and comes out bare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import trio
from anyio import CancelScope, get_cancelled_exc_class, move_on_after
from zapros import URL, AsyncClient, AsyncStdNetworkHandler, Headers, RequestContext

from ._connection import AsyncWebSocket
from ._frame_log import observers_of
from ._inbox import Inbox
from ._inbox_of_parts import InboxOfParts
from ._link import SHORT, Link
from ._observed import ObservedLink, ObservedPartsSession, ObservedSession
from ._observer import Observer, check_observer
from ._opening import Opened, Opening
from ._protocol.deflate import Deflate
from ._protocol.options import Options, PerMessageDeflateExtension
from ._protocol.parts import PartsSession
from ._protocol.session import Session
from ._streams.transport import SocketTransport
from ._tasks import new_tasks
from ._turn import Turn
from ._waiting import new_waiter_here

if TYPE_CHECKING:
    from anyio.abc import TaskGroup


class aconnect_ws:
    """Open a connection for the length of an ``async with`` block.

    The opening handshake is one GET through ``client.stream(...)``: its handlers, default headers and parameters,
    cookies, auth, retries, redirects and proxies all take part. Leaving the block closes the connection with the code
    1000, within ``close_timeout``; when the block raised or was cancelled, within half a second. What the block raises
    comes out as it is.

    Args:
        url: A ``str`` or ``zapros.URL`` with the scheme ws, wss, http or https, or relative to the ``base_url`` of the
            client. ``user:password@`` in it becomes Basic auth, unless the request carries an Authorization already.
        client: The client to use; it is not closed. Without one, a client is made for this connection.
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
        open_timeout: Seconds for everything up to the 101; None waits for ever.
        close_timeout: Seconds for the closing handshake, and for the peer to end TCP.
        context: The request context for the handlers of the client, such as ``{"network": {"proxy": ...}}``.
        observer: Hears what goes over the connection, and how it fares and ends.

    Entering it, cancelled, closes what was opened so far.

    Raises:
        TypeError, ValueError: an argument cannot be used; nothing was sent.
        HandshakeError: the answer was not a valid 101.
        HandshakeTimeoutError: there was no answer within ``open_timeout``.
        zapros.ZaprosError: the network failed, or a handler of the client raised.
        RuntimeError: wsproto is not installed.
    """

    def __init__(
        self,
        url: URL | str,
        *,
        client: AsyncClient | None = None,
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
    ) -> None:
        self._client = _checked(client)
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
        check_observer(observer)
        self._observer = observer
        self._bug: BaseException | None = None

    async def __aenter__(self) -> AsyncWebSocket:
        """Connect."""
        self._link, self._connection = await _open(self._opening, self._client, self._options, self._observer)
        self._group = new_tasks()
        self._tasks = await self._group.__aenter__()
        self._tasks.start_soon(self._keep)
        return self._connection

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connection, and raise nothing that hides what the block raised."""
        try:
            if exc is None:
                await self._connection.close()
            else:
                with CancelScope(shield=True), move_on_after(SHORT):
                    await self._connection.close()
        except get_cancelled_exc_class():
            # A bug has cancelled the tasks, and this with them: it is what is told.
            if self._bug is None:
                raise
        finally:
            # From here on a cancellation from outside waits until all is cleaned up, which has a deadline.
            self._tasks.cancel_scope.shield = True
            try:
                await self._link.stop()
            finally:
                await self._group.__aexit__(None, None, None)
        if self._bug is not None:
            raise self._bug

    @trio.lowlevel.enable_ki_protection
    async def _keep(self) -> None:
        try:
            await self._link.run(shield=True)
        except BaseException as bug:
            self._bug = bare(bug)
            self._tasks.cancel_scope.cancel()


async def open_ws(
    task_group: TaskGroup | trio.Nursery,
    url: URL | str,
    *,
    client: AsyncClient | None = None,
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
) -> AsyncWebSocket:
    """Open a connection whose tasks run in ``task_group``, an anyio task group or a trio nursery.

    This is the layer beneath ``aconnect_ws``, for a connection that outlives the function that opens it. The group
    waits for the connection: end it with ``close()``, or by cancelling the group, which says goodbye to the peer
    within half a second. The arguments, what is raised, and what cancelling does are those of ``aconnect_ws``.
    """
    if not callable(getattr(task_group, "start_soon", None)):
        raise TypeError(f"task_group is an anyio task group or a trio nursery, not {type(task_group).__name__}")
    _checked(client)
    options = Options(max_message_size, ping_interval, ping_timeout, open_timeout, close_timeout, stream_large_messages)
    opening = Opening(
        url, subprotocols=subprotocols, permessage_deflate=permessage_deflate, headers=headers, context=context
    )
    check_observer(observer)
    link, connection = await _open(opening, client, options, observer)
    try:
        task_group.start_soon(link.run_unshielded)
    except BaseException:
        # A group that takes no more tasks: nobody would ever close what was opened.
        await link.discard()
        raise
    return connection


def _checked(client: AsyncClient | None) -> AsyncClient | None:
    if client is not None and not isinstance(client, AsyncClient):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"client is a zapros.AsyncClient, not {type(client).__name__}")
    return client


async def _open(
    opening: Opening, client: AsyncClient | None, options: Options, observer: Observer | None
) -> tuple[Link, AsyncWebSocket]:
    if client is not None:
        return connected(await opening.through(client, options.open_timeout), options, observer)
    return connected(await open_by_itself(opening, options), options, observer)


def connected(
    opened: Opened,
    options: Options,
    observer: Observer | None,
    *,
    inbox: Inbox | None = None,
    turn: Turn | None = None,
) -> tuple[Link, AsyncWebSocket]:
    """The connection that a handshake has led to; its link is to be run, or discarded."""
    subprotocol, agreed = opened.agreement.subprotocol, opened.agreement.permessage_deflate
    deflate = None if agreed is None else Deflate(agreed)
    size = options.max_message_size
    in_parts = options.stream_large_messages
    if inbox is None and in_parts:
        inbox = InboxOfParts(new_waiter_here())
    observers = observers_of(observer)
    if observers is None:
        session = (PartsSession if in_parts else Session)(max_message_size=size, deflate=deflate)
        link = Link(opened.stream, session, options, inbox=inbox, turn=turn)
    else:
        kind = ObservedPartsSession if in_parts else ObservedSession
        session = kind(observers, max_message_size=size, deflate=deflate)
        link = ObservedLink(opened.stream, session, options, observers=observers, inbox=inbox, turn=turn)
        observers.tell(lambda one: one.opened(opened.response, subprotocol=subprotocol, permessage_deflate=agreed))
    link.feed(opened.trailing_data)
    return link, AsyncWebSocket(link, agreement=opened.agreement, response=opened.response)


async def open_by_itself(opening: Opening, options: Options) -> Opened:
    """A handshake through a client that is made for it."""
    transport = SocketTransport()
    client = AsyncClient(handler=AsyncStdNetworkHandler(transport=transport))
    kept: object = None
    try:
        opened = await opening.through_new(client, options.open_timeout)
        kept = opened.stream
        return opened
    finally:
        # There is nothing else to the client that would have to be closed.
        transport.close_all_but(kept)


def bare(error: BaseException) -> BaseException:
    """The one exception in a group of one, or in a group in it."""
    # Looked at by its attribute, because Python 3.10 has no exception groups of its own.
    inner: Sequence[BaseException] = getattr(error, "exceptions", ())
    return bare(inner[0]) if len(inner) == 1 else error
