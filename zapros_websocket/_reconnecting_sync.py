"""Staying connected without an event loop: the loop of ``reconnecting``, whose waits are those of a thread.

Invariants: those of ``_reconnecting``, which decides with the same ``Retries`` and the same ``loss_of``; and an
interrupt (KeyboardInterrupt) in a pause comes out at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final

from anyio.from_thread import BlockingPortal
from zapros import URL, Client, Headers, RequestContext

from ._attentive import sleep
from ._observer import Observer
from ._portal import refuse_event_loop
from ._protocol.options import PerMessageDeflateExtension
from ._reconnecting import loss_of
from ._retries import ReconnectPolicy, Retries, policy_of
from ._sync import WebSocket, connect_ws

if TYPE_CHECKING:
    from typing_extensions import Self

# What to call where an event loop runs.
_INSTEAD: Final = "async for attempt in reconnecting(...)"


class reconnecting_sync:
    """Stay connected in code without an event loop: an iterator of attempts, each a ``with`` block on a connection::

        for attempt in reconnecting_sync("wss://api.example.com/feed"):
            with attempt as ws:
                ws.send_json({"subscribe": "trades"})
                for message in ws:
                    ...

    It is ``reconnecting`` for threads, and goes on, ends and raises as that does. Entering the block opens a connection
    like ``connect_ws``, with a handshake of its own through the client each time; it repeats a handshake that fails,
    after pauses, as long as the policy says so.

    Pauses are waited for in the thread of the loop. An interrupt (KeyboardInterrupt) in a pause comes out at once;
    in the block, as from ``connect_ws``.

    Args:
        url: As for ``connect_ws``, with all that follows but the policy.
        policy: After what to connect again, how often, and with which pauses.

    Raises:
        TypeError, ValueError: an argument cannot be used; nothing was sent.
        RuntimeError: an event loop runs in this thread, or wsproto is not installed.
    """

    def __init__(
        self,
        url: URL | str,
        *,
        policy: ReconnectPolicy | None = None,
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
        self._policy = policy_of(policy)
        self._connect = partial(
            connect_ws,
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
            portal=portal,
        )
        # What is wrong with the arguments is found now.
        self._connect()
        self._retries = Retries(self._policy)

    def __iter__(self) -> Self:
        """Begin: nothing is known of what went before."""
        self._retries = Retries(self._policy)
        return self

    def __next__(self) -> SyncAttempt:
        """Wait for the pause after a loss, and give the next attempt; none when the loop is over.

        Raises:
            RuntimeError: the attempt before was not entered, or an event loop runs in this thread.
        """
        refuse_event_loop(_INSTEAD)
        if self._retries.is_over:
            raise StopIteration
        if self._retries.pause:
            sleep(self._retries.pause)
        self._retries.turn()
        return SyncAttempt(self._connect, self._retries)


class SyncAttempt:
    """One turn of the loop of ``reconnecting_sync``: enter it once, for the length of a ``with`` block.

    Attributes:
        number: The number of the attempt, from 1. Those whose handshake failed count too, so it can grow while the
            block is entered.
        previous: Why the last attempt before it ended: a ConnectionClosed when there was a connection, or the error of
            the handshake; None for the first.
        last_closed: How the last connection of the loop ended; None before there was one. Look at it to subscribe
            again, or to begin where you left off.
    """

    def __init__(self, connect: Callable[[], connect_ws], retries: Retries) -> None:
        self._connect = connect
        self._retries = retries
        self.number = retries.number + 1
        self.previous = retries.previous
        self.last_closed = retries.last_closed

    def __enter__(self) -> WebSocket:
        """Connect, and try again as long as the policy says so.

        Raises:
            HandshakeError, zapros.ZaprosError: the handshake failed, and is not to be repeated.
            RuntimeError: the attempt was entered before, or an event loop runs in this thread.
        """
        refuse_event_loop(_INSTEAD)
        self._retries.enter()
        while True:
            self._retries.begin(time.monotonic())
            self.number, self.previous = self._retries.number, self._retries.previous
            self._connecting = self._connect()
            try:
                self._ws = self._connecting.__enter__()
            except Exception as error:
                if not self._retries.failed(error, time.monotonic()):
                    raise
            else:
                self._retries.opened(time.monotonic())
                return self._ws
            sleep(self._retries.pause)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Close the connection, and take a loss for the reason to go on."""
        now = time.monotonic()
        loss = loss_of(self._ws, exc)
        self._connecting.__exit__(exc_type, exc, traceback)
        self._retries.last_closed = loss or self._ws._how_it_ended()  # pyright: ignore[reportPrivateUsage]
        return self._retries.left(exc, loss, now)
