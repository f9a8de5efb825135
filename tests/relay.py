"""Two connections of this library, back to back: what one sends, the other receives.

Between them stand two server halves of wsproto, and nothing is kept there: who does not read stops who sends. A close
is carried on as well, and so is the loss of a connection.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from contextlib import suppress
from typing import Final, Protocol

import trio
from anyio import Event, Lock
from wsproto.connection import SERVER, Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.events import Event as WsprotoEvent
from zapros import ReadError, WriteError

from zapros_websocket._streams.sockets import SocketStream

from .memory import MemoryStream

LOST = (ReadError, WriteError, trio.BrokenResourceError, trio.ClosedResourceError)


NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Wire(Protocol):
    """The server's end of a byte stream."""

    async def read(self) -> bytes:
        """Some bytes, or none at the end."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def end(self) -> None:
        """Nothing more comes."""
        ...


class MemoryWire:
    """One that stands on the pipes of ``tests.memory``, and reads as much at once as ``reads`` says, in turn."""

    def __init__(self, stream: MemoryStream, reads: list[int] | None = None) -> None:
        self.stream = stream
        self._reads = deque(reads or [65536])

    async def read(self) -> bytes:
        self._reads.rotate(-1)
        return await self.stream.incoming.read(self._reads[-1])

    async def write(self, data: bytes) -> None:
        await self.stream.outgoing.write(data)

    async def end(self) -> None:
        self.stream.outgoing.ended = True
        self.stream.outgoing.change()

    async def reset(self) -> None:
        """Break it in both directions."""
        for pipe in (self.stream.incoming, self.stream.outgoing):
            pipe.broken = True
            pipe.change()


class SocketWire:
    """One that stands on a real socket, and reads as much at once as ``reads`` says, in turn."""

    def __init__(self, sock: socket.socket, reads: list[int] | None = None) -> None:
        self.stream = SocketStream(sock, NO_TLS)
        self._socket = sock
        self._reads = deque(reads or [65536])

    async def read(self) -> bytes:
        self._reads.rotate(-1)
        return await self.stream.read(self._reads[-1])

    async def write(self, data: bytes) -> None:
        await self.stream.write_all(data)

    async def end(self) -> None:
        # It may be broken, or closed, already.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    async def reset(self) -> None:
        await self.stream.close()


class TrioWire:
    """One that stands on a stream of trio."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def read(self) -> bytes:
        return bytes(await self._stream.receive_some())

    async def write(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def end(self) -> None:
        await self._stream.aclose()


class Side:
    """The server's half towards one of the two."""

    def __init__(self, wire: Wire, protocol: Connection | None = None) -> None:
        self.wire = wire
        # How many messages have come from this side, whole, and were given to it, begun or whole; and in how many
        # pieces the newest one was.
        self.taken = 0
        self.begun = 0
        self.given: int = 0
        self.pieces = 0
        self._protocol = protocol or Connection(SERVER)
        self._goes_on = Event()
        self._goes_on.set()
        self._lock = Lock()

    def stall(self) -> None:
        """Read nothing more from this side."""
        if self._goes_on.is_set():
            self._goes_on = Event()

    def resume(self) -> None:
        self._goes_on.set()

    async def carry_to(self, other: Side) -> None:
        """Carry on what comes, until this side has closed or is lost."""
        try:
            while data := await self._read():
                self._protocol.receive_data(data)
                for event in self._protocol.events():
                    if isinstance(event, CloseConnection):
                        assert self._protocol.state is not ConnectionState.OPEN, f"what came is no frame: {event}"
                        await self.give(event.response())
                        await self._end()
                        await other.give(CloseConnection(event.code, event.reason))
                        return
                    if isinstance(event, Ping):
                        await self.give(event.response())
                    elif isinstance(event, (BytesMessage, TextMessage)):
                        self.taken += event.message_finished
                        await other.give(event)
        except LOST:
            pass
        await other.lose()

    async def give(self, event: WsprotoEvent) -> None:
        """Send a frame, if this side is open; only an answer to its close goes out behind that."""
        async with self._lock:
            is_answer = isinstance(event, CloseConnection) and self._protocol.state is ConnectionState.REMOTE_CLOSING
            if self._protocol.state is ConnectionState.OPEN or is_answer:
                try:
                    await self.wire.write(self._protocol.send(event))
                except LOST:
                    # The task that reads from this side finds that out as well, and says so.
                    return
                if isinstance(event, (BytesMessage, TextMessage)):
                    if self.begun == self.given:
                        self.begun += 1
                        self.pieces = 0
                    self.pieces += 1
                    self.given += event.message_finished

    async def lose(self) -> None:
        """The other side is lost: so is this, unless it is closing."""
        if self._protocol.state is ConnectionState.OPEN:
            await self._end()

    async def _end(self) -> None:
        async with self._lock:
            await self.wire.end()

    async def _read(self) -> bytes:
        await self._goes_on.wait()
        data = await self.wire.read()
        # What was read in the moment in which it was stalled is carried on later.
        await self._goes_on.wait()
        return data


class Relay:
    """Both sides, each of which is carried to the other in a task of its own."""

    def __init__(self, first: Side, second: Side) -> None:
        self.sides = first, second

    async def carry(self, number: int) -> None:
        """Carry what comes from the side of that number."""
        await self.sides[number].carry_to(self.sides[1 - number])
