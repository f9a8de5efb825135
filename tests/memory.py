"""A network in memory: a handler that answers the handshake, and the peer at the other end of the pipe.

Nothing here is timed and nothing is random: a test decides when the peer reads, writes, stalls and leaves.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Mapping
from typing import Literal

import trio.testing
from anyio import Event
from wsproto.connection import SERVER, Connection
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.events import Event as WsprotoEvent
from wsproto.utilities import generate_accept_token
from zapros import (
    AsyncBaseHandler,
    AsyncBaseNetworkStream,
    AsyncClient,
    ReadError,
    Request,
    Response,
    ResponseContext,
    WriteError,
)

from .deflate import SteadyDeflate

Backend = tuple[str, dict[str, object]]


class Pipe:
    """One direction: up to ``capacity`` bytes under way."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.buffer = bytearray()
        self.ended = False
        self.broken = False
        self.total = 0
        self._changed = Event()

    def change(self) -> None:
        self._changed.set()
        self._changed = Event()

    async def write(self, data: bytes) -> None:
        while data:
            if self.broken or self.ended:
                raise WriteError("Broken pipe")
            room = self.capacity - len(self.buffer)
            if room <= 0:
                await self._changed.wait()
                continue
            self.buffer += data[:room]
            self.total += len(data[:room])
            data = data[room:]
            self.change()

    async def read(self, max_bytes: int) -> bytes:
        while not self.buffer:
            if self.broken:
                raise ReadError("Connection reset by peer")
            if self.ended:
                return b""
            await self._changed.wait()
        data = bytes(self.buffer[:max_bytes])
        del self.buffer[:max_bytes]
        self.change()
        return data


class MemoryStream(AsyncBaseNetworkStream):
    """One end of two pipes."""

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.is_closed = False
        self.close_error: Exception | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self.incoming.read(max_bytes)

    async def write_all(self, data: bytes, timeout: float | None = None) -> int:
        await self.outgoing.write(data)
        return len(data)

    async def close(self) -> None:
        self.is_closed = True
        self.outgoing.ended = True
        self.incoming.broken = True
        self.outgoing.change()
        self.incoming.change()
        if self.close_error is not None:
            raise self.close_error


class Peer:
    """The server's side, moved by hand: it reads and writes when it is told to."""

    def __init__(self, stream: MemoryStream, extension: SteadyDeflate | None) -> None:
        self.stream = stream
        self.protocol = Connection(SERVER, extensions=[] if extension is None else [extension])
        self._events: deque[WsprotoEvent] = deque()

    async def send(self, *events: WsprotoEvent) -> None:
        """Frames, in one write."""
        await self.write(b"".join(self.protocol.send(event) for event in events))

    async def write(self, data: bytes) -> None:
        """Any bytes."""
        await self.stream.outgoing.write(data)

    async def receive(self) -> WsprotoEvent | None:
        """The next frame of the client; None at the end of the stream."""
        while not self._events:
            data = await self.stream.incoming.read(65536)
            if not data:
                return None
            self.protocol.receive_data(data)
            self._events.extend(self.protocol.events())
        return self._events.popleft()

    async def receive_message(self) -> str | bytes:
        """The next text or binary message of the client, whole, however wsproto cuts it."""
        pieces: list[str | bytes] = []
        while True:
            event = await self.receive()
            assert isinstance(event, (TextMessage, BytesMessage)), event
            pieces.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
            if event.message_finished:
                return type(pieces[0])().join(pieces)  # type: ignore[arg-type]

    async def answer_close(self) -> CloseConnection:
        """Read up to the client's close, answer it, and end the stream."""
        while not isinstance(event := await self.receive(), CloseConnection):
            assert event is not None, "the client ended the stream without a close frame"
        await self.send(event.response())
        self.end()
        return event

    async def serve(self) -> None:
        """Answer pings and the close, and read everything else."""
        while (event := await self.receive()) is not None:
            if isinstance(event, CloseConnection):
                await self.send(event.response())
                self.end()
                return
            if isinstance(event, Ping):
                await self.send(event.response())

    def end(self) -> None:
        """End the stream: a FIN."""
        self.stream.outgoing.ended = True
        self.stream.outgoing.change()

    def reset(self) -> None:
        """Break the stream both ways: a RST."""
        for pipe in (self.stream.incoming, self.stream.outgoing):
            pipe.broken = True
            pipe.change()


def accepting(request: Request, deflate: SteadyDeflate | None = None) -> dict[str, str]:
    """The headers of a valid 101."""
    accept = generate_accept_token(request.headers["Sec-WebSocket-Key"].encode()).decode()
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}
    if deflate is not None:
        agreed = deflate.accept(request.headers["Sec-WebSocket-Extensions"])
        headers["Sec-WebSocket-Extensions"] = f"permessage-deflate; {agreed}"
    return headers


class StreamHandler(AsyncBaseHandler):
    """A handler that accepts the handshake, and compression as ``deflate`` does, and hands ``stream`` over."""

    def __init__(self, stream: AsyncBaseNetworkStream, deflate: SteadyDeflate | None = None) -> None:
        self.stream = stream
        self.deflate = deflate

    async def ahandle(self, request: Request) -> Response:
        context: ResponseContext = {"handoff": {"network_stream": self.stream}}
        return Response(101, accepting(request, self.deflate), context=context, request=request)


class MemoryServer(AsyncBaseHandler):
    """A handler that accepts the handshake, as the last of a client's handlers; each accepted one is a ``peer``."""

    def __init__(self, *, capacity: int = 65536, trailing: bytes = b"", deflate: bool = False) -> None:
        self.capacity = capacity
        self.trailing = trailing
        self.deflate = deflate
        self.requests: list[Request] = []
        self.peers: list[Peer] = []

    @property
    def client(self) -> AsyncClient:
        return AsyncClient(handler=self)

    @property
    def peer(self) -> Peer:
        return self.peers[-1]

    @property
    def stream(self) -> MemoryStream:
        """The client's end of the newest connection."""
        return self._stream

    async def ahandle(self, request: Request) -> Response:
        self.requests.append(request)
        there, back = Pipe(self.capacity), Pipe(self.capacity)
        self._stream = MemoryStream(incoming=back, outgoing=there)
        extension = SteadyDeflate() if self.deflate else None
        headers = accepting(request, extension)
        self.peers.append(Peer(MemoryStream(incoming=there, outgoing=back), extension))
        context: ResponseContext = {"handoff": {"network_stream": self._stream, "trailing_data": self.trailing}}
        return Response(101, headers, context=context, request=request)


class AutojumpEventLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose clock jumps to the next timer when nothing else is to be done."""

    def __init__(self) -> None:
        self._jumped = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._jumped

    def jump(self, seconds: float) -> None:
        self._jumped += seconds


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: AutojumpEventLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            self._loop.jump(timeout)
        return ready


def autojump(name: Literal["trio", "asyncio"]) -> Backend:
    """A backend whose clock jumps over every wait, so that hours pass in no time."""
    options: Mapping[str, object]
    if name == "trio":
        options = {"clock": trio.testing.MockClock(autojump_threshold=0)}
    else:
        options = {"loop_factory": AutojumpEventLoop}
    return name, dict(options)
