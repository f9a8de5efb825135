"""The event loop of asyncio calls back for a socket, where a task that is woken up would have to ask it each time.

Invariants:

- What is received goes to the sink in the callback in which it was received: cancelling ``keep`` loses nothing.
- A callback that is still to come when it is over does nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

import anyio

from .watch import READS_IN_A_ROW, Next


class Callbacks:
    """The event loop's watch over a socket, as long as ``keep`` lasts."""

    __slots__ = ("_again", "_calls_back", "_loop", "_over", "_receive", "_socket")

    def __init__(self, sock: socket.socket, receive: Callable[[], Next]) -> None:
        self._socket = sock
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        # The call that is to come without the kernel having anything to say.
        self._again: asyncio.Handle | None = None
        self._calls_back = False

    async def keep(self) -> bool:
        """Receive until the sink wants no more; False where the event loop knows no readiness, and more may come."""
        self._on_readable()
        if self._over.done():
            self._over.result()
            return True
        try:
            self._loop.add_reader(self._socket, self._on_readable)
        except NotImplementedError:
            self._over.cancel()
            return False
        self._calls_back = True
        try:
            await self._over
        finally:
            # What is still to be called back finds that it is over.
            self._call_back_no_more()
        return True

    def close(self) -> None:
        """End ``keep`` with an error: the socket is being closed.

        Later the loop would not find it, and take the next that has its number for one that it watches.
        """
        self._call_back_no_more()
        with suppress(asyncio.InvalidStateError):
            self._over.set_exception(anyio.ClosedResourceError())

    def _call_back_no_more(self) -> None:
        if self._calls_back:
            self._calls_back = False
            self._loop.remove_reader(self._socket)

    def _on_readable(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._over.done():
            return
        try:
            for _ in range(READS_IN_A_ROW):
                after = self._receive()
                if after is Next.WAIT:
                    return
                if after is Next.STOP:
                    self._over.set_result(None)
                    break
            else:
                # There is more. For what TLS has decrypted already nobody will call back.
                self._again = self._loop.call_soon(self._on_readable)
                return
        except Exception as error:
            # Unless the sink has closed the stream.
            with suppress(asyncio.InvalidStateError):
                self._over.set_exception(error)
        self._call_back_no_more()
