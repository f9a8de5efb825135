"""Staying connected: one connection after another, until the block is done or the policy says that it is enough.

Invariants:

- A block runs on a connection that is open: a handshake that failed is repeated before the block begins.
- Only the end of this very connection is taken for a loss. Every other exception of the block comes out as itself.
- What was opened is owned by an ``async with`` block at every moment; nothing yields inside a task group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from anyio import current_time, sleep
from zapros import URL, AsyncClient, Headers, RequestContext

from ._connect import aconnect_ws
from ._connection import AsyncWebSocket
from ._errors import ConnectionClosed
from ._observer import Observer
from ._protocol.options import PerMessageDeflateExtension
from ._retries import ReconnectPolicy, Retries, lost_connections, policy_of

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._sync import WebSocket


class reconnecting:
    """Stay connected: an asynchronous iterator of attempts, each of which is an ``async with`` block on a connection::

        async for attempt in reconnecting("wss://api.example.com/feed"):
            async with attempt as ws:
                await ws.send_json({"subscribe": "trades"})
                async for message in ws:
                    ...

    Entering the block opens a connection like ``aconnect_ws``, with a handshake of its own through the client each
    time; it repeats a handshake that fails, after pauses, as long as the policy says so.

    - When the connection is lost and ConnectionClosed leaves the block, alone or in a group with nothing else, the
      loop goes on with the next attempt if the policy retries the code. Otherwise it is raised as it is.
    - When the block ends after it has seen the end of its connection, that is when iteration ended, ``recv`` gave the
      CloseMessage, or a call raised the ConnectionClosed that the block caught, the loop goes on as well if the policy
      retries the code, such as 1001, 1006 and 1012. After any other, such as 1000, the loop is over; ``ws.close_code``
      says which it was.
    - When the block ends otherwise, the loop is over.
    - Any other exception of the block comes out as it is. So does the last error of a handshake or of a connection when
      the attempts or the time are used up; a last close that would have been retried is raised as ConnectionClosed.

    Cancelling it, also in a pause, ends it; what was opened is closed as ``aconnect_ws`` does.

    Args:
        url: As for ``aconnect_ws``, with all that follows but the policy.
        policy: After what to connect again, how often, and with which pauses.

    Raises:
        TypeError, ValueError: an argument cannot be used; nothing was sent.
        RuntimeError: wsproto is not installed.
    """

    def __init__(
        self,
        url: URL | str,
        *,
        policy: ReconnectPolicy | None = None,
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
        self._policy = policy_of(policy)
        self._connect = partial(
            aconnect_ws,
            url,
            client=client,
            subprotocols=subprotocols,
            permessage_deflate=permessage_deflate,
            headers=headers,
            max_message_size=max_message_size,
            stream_large_messages=stream_large_messages,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            open_timeout=open_timeout,
            close_timeout=close_timeout,
            context=context,
            observer=observer,
        )
        # What is wrong with the arguments is found now.
        self._connect()
        self._retries = Retries(self._policy)

    def __aiter__(self) -> Self:
        """Begin: nothing is known of what went before."""
        self._retries = Retries(self._policy)
        return self

    async def __anext__(self) -> Attempt:
        """Wait for the pause after a loss, and give the next attempt; none when the loop is over.

        Raises:
            RuntimeError: the attempt before was not entered.
        """
        if self._retries.is_over:
            raise StopAsyncIteration
        await sleep(self._retries.pause)
        self._retries.turn()
        return Attempt(self._connect, self._retries)


class Attempt:
    """One turn of the loop of ``reconnecting``: enter it once, for the length of an ``async with`` block.

    Attributes:
        number: The number of the attempt, from 1. Those whose handshake failed count too, so it can grow while the
            block is entered.
        previous: Why the last attempt before it ended: a ConnectionClosed when there was a connection, or the error of
            the handshake; None for the first.
        last_closed: How the last connection of the loop ended; None before there was one. Look at it to subscribe
            again, or to begin where you left off.
    """

    def __init__(self, connect: Callable[[], aconnect_ws], retries: Retries) -> None:
        self._connect = connect
        self._retries = retries
        self.number = retries.number + 1
        self.previous = retries.previous
        self.last_closed = retries.last_closed

    async def __aenter__(self) -> AsyncWebSocket:
        """Connect, and try again as long as the policy says so.

        Raises:
            HandshakeError, zapros.ZaprosError: the handshake failed, and is not to be repeated.
            RuntimeError: the attempt was entered before.
        """
        self._retries.enter()
        while True:
            self._retries.begin(current_time())
            self.number, self.previous = self._retries.number, self._retries.previous
            self._connecting = self._connect()
            try:
                self._ws = await self._connecting.__aenter__()
            except Exception as error:
                if not self._retries.failed(error, current_time()):
                    raise
            else:
                self._retries.opened(current_time())
                return self._ws
            await sleep(self._retries.pause)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Close the connection, and take a loss for the reason to go on."""
        now = current_time()
        loss = loss_of(self._ws, exc)
        await self._connecting.__aexit__(exc_type, exc, traceback)
        self._retries.last_closed = loss or self._ws._how_it_ended()  # pyright: ignore[reportPrivateUsage]
        return self._retries.left(exc, loss, now)


def loss_of(ws: AsyncWebSocket | WebSocket, raised: BaseException | None) -> ConnectionClosed | None:
    """The loss of this connection for which a block has ended, or None; to be asked before the connection is closed."""
    if raised is None:
        return ws._seen_end()  # pyright: ignore[reportPrivateUsage]
    lost = lost_connections(raised)
    if all(ws._is_lost_by(error) for error in lost):  # pyright: ignore[reportPrivateUsage]
        return lost[0] if lost else None
    return None
