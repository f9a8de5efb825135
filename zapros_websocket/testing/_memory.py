"""A connection in memory: two pipes of bytes between a client and the server half of an application.

Invariants:

- The client's end is a stream like one of a network: it is written in pieces as there is room, reads what is there,
  and a write that is cancelled leaves a part of its bytes behind.
- The server's end writes whole frames: it waits for room and then writes at once, so that a pong or a close never
  stands within a frame, and never waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import zapros
from anyio import Event, fail_after

CAPACITY: Final = 64 * 1024
"""Bytes that are under way in one direction before the writer has to wait."""


class Pipe:
    """Bytes of one direction."""

    def __init__(self) -> None:
        self.is_ended = False
        self.is_broken = False
        self.on_end: Callable[[], None] | None = None
        self._buffer = bytearray()
        self._changed = Event()

    def put(self, data: bytes) -> None:
        """Write at once, whether there is room or not."""
        if not self.is_broken:
            self._buffer += data
            self._change()

    async def room(self) -> int:
        """Wait for room, and return how much there is; one if nobody reads any more."""
        while not self.is_broken and len(self._buffer) >= CAPACITY:
            await self._changed.wait()
        return max(CAPACITY - len(self._buffer), 1)

    async def get(self, max_bytes: int) -> bytes:
        """Wait for bytes; none at the end."""
        while not self._buffer and not self.is_ended:
            await self._changed.wait()
        data = bytes(self._buffer[:max_bytes])
        del self._buffer[:max_bytes]
        self._change()
        return data

    def end(self) -> None:
        """Nothing more will be written."""
        self.is_ended = True
        self._change()
        if self.on_end is not None:
            self.on_end()

    def break_off(self) -> None:
        """Nobody will read any more."""
        self.is_broken = True
        self._buffer.clear()
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = Event()


class MemoryStream(zapros.AsyncBaseNetworkStream):
    """The client's end, for Zapros and for a connection."""

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Wait for bytes; none at the end."""
        try:
            with fail_after(timeout):
                return await self._incoming.get(max_bytes)
        except TimeoutError as error:
            raise zapros.ReadTimeoutError(f"nothing came within {timeout:g} seconds") from error

    async def write_all(self, data: bytes, timeout: float | None = None) -> int:
        """Write all of it, as there is room."""
        left = memoryview(data)
        try:
            with fail_after(timeout):
                while left:
                    room = await self._outgoing.room()
                    if self._outgoing.is_broken:
                        raise zapros.WriteError("the server has closed the connection")
                    self._outgoing.put(bytes(left[:room]))
                    left = left[room:]
        except TimeoutError as error:
            raise zapros.WriteTimeoutError(f"it could not be written within {timeout:g} seconds") from error
        return len(data)

    async def close(self) -> None:
        """Close both directions."""
        self._outgoing.end()
        self._incoming.break_off()
