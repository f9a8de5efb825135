"""A middleware for a Zapros client that writes down what is said on its WebSockets.

Invariants:

- What goes over the network is left as it is, byte for byte.
- A line is in the file when the event it stands for reaches the client, or before it leaves it.
"""

from __future__ import annotations

from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, cast

from anyio import current_time
from wsproto.connection import ConnectionType
from zapros import AsyncBaseHandler, AsyncBaseMiddleware, AsyncBaseNetworkStream, Request, Response

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
            client = AsyncClient().wrap_with_middleware(recorder)

    A line has the number of the connection, the seconds since the first line, ``>`` for the client or ``<`` for the
    server, and what was said: text as a JSON string, bytes in base64. Headers are not recorded; a secret in the query
    or in a message is. ``Script.from_recording`` makes scripts of the file, for ``scripted_server`` to play it back.

    Args:
        path: The file to write; what is in it is replaced.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = path
        self._file = open(path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115 (it is closed by close)
        self._log = Log(current_time, self._write)
        self._connections = 0
        self._write(HEADING)

    @property
    def entries(self) -> list[Entry]:
        """What was recorded so far, read from the file."""
        return read_recording(self._path)

    def __call__(self, handler: AsyncBaseHandler) -> AsyncBaseMiddleware:
        """The middleware around a handler: what ``wrap_with_middleware`` asks for."""
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
        self._connections += 1
        line = _Line(self._log, self._connections)
        line.event("client", "request", data=target)
        return line

    def _write(self, line: Entry | str) -> None:
        if not self._file.closed:
            self._file.write(f"{line}\n")
            self._file.flush()


class _Line:
    """The lines of one connection."""

    def __init__(self, log: Log, number: int) -> None:
        self._log = log
        self._number = number
        self._parsers: dict[Sender, Incoming] = {}

    def event(self, sender: Sender, kind: str, *, number: int | None = None, data: str | bytes | None = None) -> None:
        """Record something that is no frame."""
        self._log.add(self._number, sender, kind, number=number, data=data)

    def begin(self, *, deflate: bool) -> None:
        """From now on there are frames."""
        # The largest window inflates what any window has deflated, with a context that is kept or not.
        agreed = PerMessageDeflateExtension()
        self._parsers["client"] = Incoming(ConnectionType.SERVER, Deflate(agreed) if deflate else None)
        self._parsers["server"] = Incoming(ConnectionType.CLIENT, Deflate(agreed) if deflate else None)

    def bytes(self, sender: Sender, data: bytes) -> None:
        """Record the messages that these bytes complete."""
        for item in self._parsers[sender].receive(data):
            if isinstance(item, Received):
                self._log.add(self._number, sender, item.message, frames=item.frames)
            else:
                self.event(sender, "violation", number=item.code, data=item.reason)


class _Recording(AsyncBaseMiddleware):
    """The handler in front of those that open a connection."""

    def __init__(self, recorder: Recorder, following: AsyncBaseHandler) -> None:
        self.async_next = following
        self._recorder = recorder

    async def ahandle(self, request: Request) -> Response:
        """Send the request on, and record what comes of it if it is an opening handshake."""
        if request.headers.get("upgrade", "").lower() != "websocket":
            return await self.async_next.ahandle(request)
        line = self._recorder.new_connection(f"{request.url.pathname}{request.url.search}")
        response = await self.async_next.ahandle(request)
        if response.status != 101:
            line.event("server", "refuse", number=response.status)
            return response
        handoff = response.context.get("handoff", {})
        application = handoff.get("_asgi_websocket_stream")
        if application is not None:
            await application.aclose()
            raise RuntimeError("zapros.AsgiHandler has no frames to record: use testing.WebSocketAsgiHandler")
        stream = cast("AsyncBaseNetworkStream | None", handoff.get("network_stream"))
        if stream is not None:
            line.event("server", "accept", data=response.headers.get("sec-websocket-protocol"))
            line.begin(deflate="permessage-deflate" in response.headers.get("sec-websocket-extensions", ""))
            line.bytes("server", handoff.get("trailing_data", b""))
            handoff["network_stream"] = _RecordedStream(stream, line)
        return response


class _RecordedStream(AsyncBaseNetworkStream):
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
        if data:
            self._line.bytes("server", data)
        else:
            self._line.event("server", "end")
        return data

    async def write_all(self, data: bytes, timeout: float | None = None) -> int:
        """Write to the stream. What an answer could overtake is recorded before."""
        self._line.bytes("client", data)
        return await self._stream.write_all(data, timeout)

    async def close(self) -> None:
        """Close the stream."""
        self._line.event("client", "end")
        await self._stream.close()
