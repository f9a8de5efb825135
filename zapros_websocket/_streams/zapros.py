"""Any stream of Zapros, by its public methods; and the places where they do not suffice.

- Zapros's asyncio stream hands at most 64 KiB of TLS data of one ``write_all`` to the socket when it stands inside
  another connection (a tunnel): larger data is written in pieces.
- A reset connection raises there in front of what had arrived before: it is taken out of the reader's buffer.
- Closing it waits for what is buffered to leave and, with TLS, for an answer of the peer: only its transport can be
  told to give that up.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final

import trio
from anyio import CancelScope, move_on_after
from zapros import AsyncBaseNetworkStream, AsyncIOStream, TrioStream

from .base import READ_SIZE, Sink, pump

# Below what one flush takes, less what TLS adds.
_PIECE: Final = 32 * 1024

# Seconds that closing may take, whatever more is granted: the closing handshake is over by then.
_SHORT: Final = 0.5


class ZaprosStream:
    """A network stream that the handshake of a client handed over."""

    carries_control: ClassVar[bool] = True

    def __init__(self, stream: AsyncBaseNetworkStream) -> None:
        self._stream = stream
        self._writable = _writable_of(stream)
        self._transport = _transport_of(stream)

    async def receive(self) -> bytes:
        """Wait for some bytes; none at the end of the stream."""
        try:
            return await self._stream.read(READ_SIZE)
        except Exception:
            if arrived := _arrived_before(self._stream):
                return arrived
            raise

    async def pump(self, sink: Sink) -> None:
        """Receive until ``sink`` wants no more."""
        await pump(self, sink)

    async def wait_writable(self) -> None:
        """Wait until the socket takes a byte, on trio; asyncio buffers the first byte of any write at once."""
        if self._writable is not None:
            await self._writable.wait_send_all_might_not_block()

    async def send_all(self, data: bytes | memoryview) -> None:
        """Write all of ``data``."""
        data = bytes(data)
        if self._transport is None or len(data) <= _PIECE:
            await self._stream.write_all(data)
            return
        for start in range(0, len(data), _PIECE):
            await self._stream.write_all(data[start : start + _PIECE])

    async def aclose(self, *, grace: float) -> None:
        """Close, with up to ``grace`` seconds for what was written to leave; 0 closes at once."""
        if grace <= 0 and self._transport is not None:
            self._transport.abort()
        try:
            with CancelScope(shield=True), move_on_after(_SHORT):
                await self._stream.close()
        finally:
            if self._transport is not None:
                self._transport.abort()


# The guarded places: what lies beneath a stream class of Zapros, or None for any other.


def _writable_of(stream: AsyncBaseNetworkStream) -> trio.abc.SendStream | None:
    inner: object = getattr(stream, "_stream", None) if isinstance(stream, TrioStream) else None
    return inner if isinstance(inner, trio.abc.SendStream) else None


def _transport_of(stream: AsyncBaseNetworkStream) -> asyncio.WriteTransport | None:
    writer: object = getattr(stream, "_writer", None) if isinstance(stream, AsyncIOStream) else None
    return writer.transport if isinstance(writer, asyncio.StreamWriter) else None


def _arrived_before(stream: AsyncBaseNetworkStream) -> bytes:
    # With TLS of a tunnel on top, what is in the buffer is no plain text.
    if not isinstance(stream, AsyncIOStream) or getattr(stream, "_tls_state", None) is not None:
        return b""
    buffer: object = getattr(getattr(stream, "_reader", None), "_buffer", None)
    if not isinstance(buffer, bytearray):
        return b""
    arrived = bytes(buffer)
    buffer.clear()
    return arrived
