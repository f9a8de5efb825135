"""A connection as a stream of bytes, for what expects an ``anyio.abc.ByteStream`` or a ``trio.abc.Stream``.

One object can be both: what the two interfaces have in common, closing and iteration, means the same in both. Their
errors are of different classes, so each error that is raised here is of both.

Invariants:

- No byte is lost or doubled: what was received and not asked for is kept, and a text message is not taken.
- An end that may leave something out is not the end of the stream: it raises.
- Every call is a checkpoint, and one that a close from elsewhere interrupts raises as if it came after it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import anyio
import anyio.abc
import trio
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from ._errors import ConnectionClosed, LargeMessageError, UnexpectedMessageError
from ._protocol.messages import BinaryMessage, CloseCode

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._base import AsyncBaseWebSocket
    from ._link import Link

# A message on the way keeps back pongs and the close, and a peer may refuse large ones.
MAX_MESSAGE: Final = 64 * 1024

# The codes of a peer that has said all it had to say (RFC 6455, section 7.4.1); 1005 is a close frame without a code.
_ENDS: Final = (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS)

_CLOSED: Final = "this stream was closed"


class BrokenResourceError(anyio.BrokenResourceError, trio.BrokenResourceError):
    """The peer is gone, or what came is not bytes; the cause says more."""


class ClosedResourceError(anyio.ClosedResourceError, trio.ClosedResourceError):
    """This side has closed the stream, before the call or during it."""


class BusyResourceError(anyio.BusyResourceError, trio.BusyResourceError):
    """Two tasks receive, or two tasks send, at once."""


class WebSocketByteStream(anyio.abc.ByteStream, trio.abc.Stream):
    """The binary messages of a connection as a stream of bytes, made by ``as_stream()``.

    It is an ``anyio.abc.ByteStream`` (``receive``, ``send``) on both event loops, and a ``trio.abc.Stream``
    (``receive_some``, ``send_all``). Where one message ends and the next begins means nothing, and pings and pongs are
    left out. One task may receive and one may send at a time. Iterating gives what comes, up to the end. Each error is
    one of anyio and one of trio at once.

    A text message is not taken: it raises the error of a broken stream until somebody takes it from the connection.
    """

    def __init__(self, ws: AsyncBaseWebSocket, link: Link) -> None:
        self._ws = ws
        self._link = link
        self._rest = memoryview(b"")
        self._is_closed = False
        # The calls under way, which a close interrupts.
        self._receiving: CancelScope | None = None
        self._sending: CancelScope | None = None

    # anyio.abc.ByteStream

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Wait for some bytes, and return up to ``max_bytes`` of them. Cancelling it loses nothing.

        Raises:
            ValueError: ``max_bytes`` is under 1.
            anyio.EndOfStream: the peer has closed, with the code 1000, 1001 or none.
            BrokenResourceError: the connection was lost or failed, or the peer has closed with another code; or a
                text message has come. The cause is the ConnectionClosed or UnexpectedMessageError that says so.
            ClosedResourceError: this stream was closed.
            BusyResourceError: another task is receiving.
        """
        data = await self._receive(max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """Send bytes, in binary messages of up to 64 KiB; no bytes are no message.

        It returns when they were handed to the network, and waits while the peer does not read. Cancelled, it is
        unknown how many of them were sent; cancelled in the middle of a message, it breaks the connection.

        Raises:
            TypeError: they are not bytes-like.
            BrokenResourceError: the peer has closed, or the connection was lost or failed.
            ClosedResourceError: this stream was closed.
            BusyResourceError: another task is sending.
        """
        await self._send(item)

    async def send_eof(self) -> None:
        """Not possible: a WebSocket is closed in both directions at once (RFC 6455, section 1.4).

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "a WebSocket cannot be closed in one direction only: close the stream, or agree with the peer on what says "
            "that nothing more comes"
        )

    # trio.abc.Stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for some bytes, and return up to ``max_bytes`` of them; none at the end, as ``receive`` knows it.

        Without ``max_bytes`` it is what one message holds. Cancelling it loses nothing.

        Raises:
            ValueError: ``max_bytes`` is under 1.
            BrokenResourceError, ClosedResourceError, BusyResourceError: as with ``receive``.
        """
        return await self._receive(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes: what it does, and what cancelling it does, are those of ``send``.

        Raises:
            TypeError: they are not bytes-like.
            BrokenResourceError, ClosedResourceError, BusyResourceError: as with ``send``.
        """
        await self._send(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the network takes at least one byte, where that can be known. Cancelling it has no effect.

        Raises:
            BrokenResourceError, ClosedResourceError, BusyResourceError: as with ``send``.
        """
        await self._send_by(lambda: self._link.write(lambda: b""))

    # Both

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """What comes next, as ``receive_some`` gives it."""
        data = await self._receive(None)
        if not data:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        """Close the connection with the code 1000, and wait until its transport is closed, up to ``close_timeout``.

        What is under way in other tasks raises the error of a closed stream; a message that is half sent cannot be
        ended any more, and the peer sees the connection break off. It may be called again. Cancelled, the stream is
        closed all the same, and the closing handshake goes on in the background, within the same bound.
        """
        self._is_closed = True
        self._rest = memoryview(b"")
        for under_way in (self._receiving, self._sending):
            if under_way is not None:
                under_way.cancel()
        await self._ws.close()

    # How it is done

    async def _receive(self, max_bytes: int | None) -> bytes:
        """Up to ``max_bytes``; none at the end."""
        if max_bytes is not None and not isinstance(max_bytes, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"max_bytes is an int or None, not {type(max_bytes).__name__}")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, and is {max_bytes}")
        if self._receiving is not None:
            raise BusyResourceError("receiving from")
        try:
            with CancelScope() as self._receiving:
                await checkpoint()
                self._raise_if_closed()
                while not self._rest:
                    self._rest = memoryview(await self._ws.recv_bytes())
                data = bytes(self._rest[:max_bytes])
                self._rest = self._rest[len(data) :]
                return data
        except ConnectionClosed as closed:
            if not self._is_closed and closed.received is not None and closed.received.code in _ENDS:
                return b""
            raise self._gone(closed) from closed
        except (UnexpectedMessageError, LargeMessageError) as error:
            raise BrokenResourceError(str(error)) from error
        finally:
            self._receiving = None
        raise ClosedResourceError(_CLOSED)

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        view = view.cast("B") if view.c_contiguous else memoryview(bytes(view))

        async def send() -> None:
            self._link.raise_unless_open()
            for start in range(0, len(view), MAX_MESSAGE):
                await self._ws.send(BinaryMessage(bytes(view[start : start + MAX_MESSAGE])))

        await self._send_by(send)

    async def _send_by(self, send: Callable[[], Awaitable[None]]) -> None:
        if self._sending is not None:
            raise BusyResourceError("sending to")
        try:
            with CancelScope() as self._sending:
                await checkpoint()
                self._raise_if_closed()
                await send()
                return
        except ConnectionClosed as closed:
            raise self._gone(closed) from closed
        finally:
            self._sending = None
        raise ClosedResourceError(_CLOSED)

    def _raise_if_closed(self) -> None:
        if self._is_closed:
            raise ClosedResourceError(_CLOSED)

    def _gone(self, closed: ConnectionClosed) -> Exception:
        if self._is_closed or self._link.is_closed_here:
            return ClosedResourceError(_CLOSED)
        return BrokenResourceError(str(closed))
