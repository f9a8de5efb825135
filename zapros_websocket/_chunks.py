"""A message that is sent chunk by chunk, in fragments (RFC 6455, section 5.4).

Invariants:

- No chunk is asked for before the one before it is written, and none is kept: memory is that of one chunk.
- Until the first fragment is written nothing has happened to the connection, and nobody waits for this message.
- From then on other messages wait, and control frames do not. A message that is begun and not ended breaks the
  connection; what the iterable raised comes out as it is.
- The end of the connection ends the wait for a chunk.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Final

from anyio import CancelScope
from trio.lowlevel import disable_ki_protection

from ._protocol.frames import BINARY
from ._protocol.outgoing import chunk

if TYPE_CHECKING:
    from ._link import Link
    from ._protocol.outgoing import Chunks
    from ._protocol.sequence import Sequence

BROKEN_OFF: Final = "a message was broken off when a part of it was written"


async def send_chunks(link: Link, chunks: Chunks, compress: bool | None) -> None:
    """Send one message, as ``send`` does."""
    link.raise_unless_open()
    # One scope around all that is asked of the iterable, which may have scopes of its own between two chunks.
    with CancelScope() as scope:
        await _Message(link, chunks, compress, scope).send()
        return
    raise link.closed_error()


class _Message:
    """One message on its way."""

    def __init__(self, link: Link, chunks: Chunks, compress: bool | None, scope: CancelScope) -> None:
        self._link = link
        self._compress = compress
        self._scope = scope
        source = chunks.source
        # An object that is both is taken at its word in code with await.
        self._chunks = aiter(source) if isinstance(source, AsyncIterable) else _Each(source)
        self._opcode: int | None = None
        # Whether a part of it is written, and something is missing.
        self._is_begun = False

    async def send(self) -> None:
        link, session = self._link, self._link.session
        payload = await self._next()
        opcode = BINARY if self._opcode is None else self._opcode
        if payload is None:
            await link.write(lambda: session.encode(opcode, b"", self._compress))
            return
        sequence = session.sequence(opcode, self._compress)
        try:
            while payload is not None:
                await self._write(sequence, payload)
                del payload
                payload = await self._next()
            await link.write(lambda: self._end(sequence), first=True)
        except BaseException:
            if self._is_begun:
                link.break_off(BROKEN_OFF)
            raise
        finally:
            if self._is_begun:
                link.turn.end_message()

    async def _next(self) -> bytes | memoryview | None:
        """The payload of the next chunk that is not empty, or None at the end."""
        link = self._link
        while True:
            link.raise_unless_open()
            if link.pace.is_due():
                await link.pace.observe()
            link.writer.awaiting_chunks.add(self._scope)
            try:
                given = await self._ask()
            except StopAsyncIteration:
                return None
            finally:
                link.writer.awaiting_chunks.discard(self._scope)
            self._opcode, payload = chunk(given, self._opcode)
            if payload:
                return payload

    @disable_ki_protection
    async def _ask(self) -> object:
        # What is asked is not ours: an interrupt comes out of it as of any other code.
        return await self._chunks.__anext__()

    async def _write(self, sequence: Sequence, payload: bytes | memoryview) -> None:
        first = not self._is_begun

        def encode() -> bytes:
            self._is_begun = True
            self._link.turn.begin_message()
            return self._link.session.encode_fragment(sequence, payload, first=first)

        await self._link.write(encode, first=not first)

    def _end(self, sequence: Sequence) -> bytes:
        # Whatever happens from here on is the matter of the write, and the next turn is that of others.
        self._is_begun = False
        self._link.turn.end_message()
        return self._link.session.encode_end(sequence)


class _Each:
    """As much of an asynchronous iterator as is needed, which never waits."""

    def __init__(self, chunks: Iterable[object]) -> None:
        self._chunks = iter(chunks)

    async def __anext__(self) -> object:
        for given in self._chunks:
            return given
        raise StopAsyncIteration
