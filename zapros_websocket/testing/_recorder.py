"""A middleware for a Zapros client, of either kind, that writes down what is said on its WebSockets.

Invariants:

- What goes over the network is left as it is, byte for byte.
- A line is in the file when the event it stands for reaches the client, or before it leaves it.
"""

from __future__ import annotations

import asyncio
from os import PathLike
from threading import Lock
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, cast, overload

import trio
from anyio import current_time
from wsproto.connection import ConnectionType
from zapros import (
    AsyncBaseHandler,
    AsyncBaseMiddleware,
    AsyncBaseNetworkStream,
    BaseHandler,
    BaseMiddleware,
    BaseNetworkStream,
    Request,
    Response,
)
from zapros import TimeoutError as ZaprosTimeoutError

from .._protocol.deflate import Deflate
from .._protocol.options import PerMessageDeflateExtension
from ._half import Incoming, Received
from ._recording import HEADING, Entry, Log, Sender, read_recording

if TYPE_CHECKING:
    from typing_extensions import Self


class Recorder:
    """Record the WebSockets of a client in a file, a line for each message.

    ::

        with Recorder("conversation.txt") as recorder:
            client = AsyncClient().wrap_with_middleware(recorder)  # or a Client

    A line has the number of the connection, the seconds since the first line, ``>`` for the client or ``<`` for the
    server, and what was said: text as a JSON string, bytes in base64. Headers are not recorded, nor the body of a
    refusal; a secret in the query or in a message is. A handshake without an answer is a ``drop`` of the server, or the
    ``end`` of a client that did not wait any longer. ``Script.from_recording`` makes scripts of the file, for
    ``scripted_server`` to play it back.

    Args:
        path: The file to write; what is in it is replaced.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = path
        self._file = open(path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115 (it is closed by close)
        self._log = Log(_clock, self._write)
        self._connections = 0
        # Of a synchronous client one thread reads and another writes.
        self._lock = Lock()
        self._write(HEADING)

    @property
    def entries(self) -> list[Entry]:
        """What was recorded so far, read from the file."""
        return read_recording(self._path)

    @overload
    def __call__(self, handler: AsyncBaseHandler) -> AsyncBaseMiddleware: ...
    @overload
    def __call__(self, handler: BaseHandler) -> BaseMiddleware: ...
    def __call__(self, handler: AsyncBaseHandler | BaseHandler) -> AsyncBaseMiddleware | BaseMiddleware:
        """The middleware around a handler: what ``wrap_with_middleware`` of either kind of client asks for."""
        return _Recording(self, handler)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what is said afterwards is not recorded."""
        self._file.close()

    def new_connection(self, target: str) -> _Line:
        """Record a request, and number its connection."""
        with self._lock:
            self._connections += 1
            line = _Line(self._log, self._connections, self._lock)
        line.event("client", "request", data=target)
        return line

    def _write(self, line: Entry | str) -> None:
        if not self._file.closed:
            self._file.write(f"{line}\n")
            self._file.flush()


def _clock() -> float:
    # That of the event loop can jump, in tests; threads have none.
    in_event_loop = trio.lowlevel.in_trio_run() or asyncio._get_running_loop() is not None
    return current_time() if in_event_loop else monotonic()


class _Line:
    """The lines of one connection."""

    def __init__(self, log: Log, number: int, lock: Lock) -> None:
        self._log = log
        self._number = number
        self._lock = lock
        self._is_over = False
        self._parsers: dict[Sender, Incoming] = {}

    def event(self, sender: Sender, kind: str, *, number: int | None = None, data: str | bytes | None = None) -> None:
        """Record something that is no frame."""
        with self._lock:
            if not self._is_over:
                self._log.add(self._number, sender, kind, number=number, data=data)

    def unanswered(self, error: BaseException) -> None:
        """The handshake was lost, or the client has not waited for the answer any longer."""
        if isinstance(error, Exception) and not isinstance(error, (TimeoutError, ZaprosTimeoutError)):
            self.event("server", "drop")
        else:
            self.end()

    def begin(self, *, deflate: bool) -> None:
        """From now on there are frames."""
        # The largest window inflates what any window has deflated, with a context that is kept or not.
        agreed = PerMessageDeflateExtension()
        self._parsers["client"] = Incoming(ConnectionType.SERVER, Deflate(agreed) if deflate else None)
        self._parsers["server"] = Incoming(ConnectionType.CLIENT, Deflate(agreed) if deflate else None)

    def frames(self, sender: Sender, data: bytes) -> None:
        """Record the messages that these bytes complete."""
        for item in self._parsers[sender].receive(data):
            if isinstance(item, Received):
                with self._lock:
                    self._log.add(self._number, sender, item.message, frames=item.frames)
            else:
                self.event(sender, "violation", number=item.code, data=item.reason)

    def received(self, data: bytes) -> bytes:
        """Record what was read, or the end of it."""
        if data:
            self.frames("server", data)
        else:
            self.event("server", "end")
        return data

    def end(self) -> None:
        """The client closes. What a thread that still reads learns by that is no news."""
        with self._lock:
            if not self._is_over:
                self._log.add(self._number, "client", "end")
                self._is_over = True


class _Recording(AsyncBaseMiddleware, BaseMiddleware):
    """The handler in front of those that open a connection; like those of Zapros for both kinds of client."""

    def __init__(self, recorder: Recorder, following: AsyncBaseHandler | BaseHandler) -> None:
        self.async_next = cast("AsyncBaseHandler", following)
        self.next = cast("BaseHandler", following)
        self._recorder = recorder

    async def ahandle(self, request: Request) -> Response:
        """Send the request on, and record what comes of it if it is an opening handshake."""
        if not _is_handshake(request):
            return await self.async_next.ahandle(request)
        line = self._recorder.new_connection(_target(request))
        try:
            response = await self.async_next.ahandle(request)
        except BaseException as error:
            line.unanswered(error)
            raise
        application = response.context.get("handoff", {}).get("_asgi_websocket_stream")
        if application is not None:
            await application.aclose()
            raise RuntimeError("zapros.AsgiHandler has no frames to record: use testing.WebSocketAsgiHandler")
        stream = _begin(line, response)
        if stream is not None:
            recorded = _AsyncRecordedStream(cast("AsyncBaseNetworkStream", stream), line)
            response.context.get("handoff", {})["network_stream"] = recorded
        return response

    def handle(self, request: Request) -> Response:
        """Send the request on, and record what comes of it if it is an opening handshake."""
        if not _is_handshake(request):
            return self.next.handle(request)
        line = self._recorder.new_connection(_target(request))
        try:
            response = self.next.handle(request)
        except BaseException as error:
            line.unanswered(error)
            raise
        stream = _begin(line, response)
        if stream is not None:
            recorded = _RecordedStream(cast("BaseNetworkStream", stream), line)
            response.context.get("handoff", {})["network_stream"] = recorded
        return response


def _is_handshake(request: Request) -> bool:
    return request.headers.get("upgrade", "").lower() == "websocket"


def _target(request: Request) -> str:
    return f"{request.url.pathname}{request.url.search}"


def _begin(line: _Line, response: Response) -> object:
    """Record the answer; the stream that was handed over, if there is one."""
    if response.status != 101:
        line.event("server", "refuse", number=response.status)
        return None
    handoff = response.context.get("handoff", {})
    stream: object = handoff.get("network_stream")
    if stream is not None:
        line.event("server", "accept", data=response.headers.get("sec-websocket-protocol"))
        line.begin(deflate="permessage-deflate" in response.headers.get("sec-websocket-extensions", ""))
        line.frames("server", handoff.get("trailing_data", b""))
    return stream


class _AsyncRecordedStream(AsyncBaseNetworkStream):
    """A stream that says what goes through it."""

    def __init__(self, stream: AsyncBaseNetworkStream, line: _Line) -> None:
        self._stream = stream
        self._line = line

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read from the stream."""
        try:
            data = await self._stream.read(max_bytes, timeout)
        except Exception:
            self._line.event("server", "drop")
            raise
        return self._line.received(data)

    async def write_all(self, data: bytes, timeout: float | None = None) -> int:
        """Write to the stream. What an answer could overtake is recorded before."""
        self._line.frames("client", data)
        return await self._stream.write_all(data, timeout)

    async def close(self) -> None:
        """Close the stream."""
        self._line.end()
        await self._stream.close()


class _RecordedStream(BaseNetworkStream):
    """The same for a synchronous client, whose methods several threads call."""

    def __init__(self, stream: BaseNetworkStream, line: _Line) -> None:
        self._stream = stream
        self._line = line

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read from the stream."""
        try:
            data = self._stream.read(max_bytes, timeout)
        except Exception:
            self._line.event("server", "drop")
            raise
        return self._line.received(data)

    def write_all(self, data: bytes, timeout: float | None = None) -> int:
        """Write to the stream. What an answer could overtake is recorded before."""
        self._line.frames("client", data)
        return self._stream.write_all(data, timeout)

    def close(self) -> None:
        """Close the stream."""
        self._line.end()
        self._stream.close()
