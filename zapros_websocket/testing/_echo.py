"""An embedded WebSocket server on loopback, for tests and demonstrations::

    async with echo_server() as server:
        async with aconnect_ws(server.url) as ws:
            ...

It runs in the caller's event loop, on trio or asyncio; with a plain ``with`` it runs in a thread of its own, for
synchronous code. The path of the request says what it does:

.. code-block:: none

    /  or  /echo            every text and binary message comes back whole
    /count/N                sends the text messages "1" to "N" (N below a million), then closes with 1000
    /close/CODE/REASON      accepts, then closes with this code and this percent-encoded reason
    /status/N               refuses the handshake with the HTTP status N (200 to 599) and a short text

What it holds to: a client can end its own connection only. Whatever it sends, its task keeps at most one message
of ``MAX_MESSAGE_SIZE`` bytes and raises nothing. Leaving the block ends every task.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from ssl import SSLContext
from types import TracebackType
from typing import Final
from urllib.parse import unquote

import anyio
from anyio.abc import ByteStream, SocketStream
from anyio.streams.tls import TLSStream
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import RemoteProtocolError

from .._protocol.messages import CloseCode, may_be_sent
from ._serving import InThread, Listening

MAX_MESSAGE_SIZE: Final = 16 * 1024 * 1024
"""The longest message that the server takes, in bytes after inflation; a longer one is refused with 1009."""

# Deflate shrinks a thousand times at best, so what one read can inflate to stays near MAX_MESSAGE_SIZE.
_READ_SIZE: Final = 16 * 1024

# What a client can bring about by vanishing or by breaking TLS, whose errors are OSErrors.
_CLIENT_GONE: Final = (anyio.EndOfStream, anyio.BrokenResourceError, OSError)


@dataclass(slots=True)
class Traffic:
    """Bytes of all connections together, handshakes included, as they are inside TLS.

    Attributes:
        received: What the server has received.
        sent: What it has sent.
    """

    received: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True)
class EchoServer:
    """A running server: where it listens, and what has gone over the wire.

    Attributes:
        url: The address to connect to, with a final slash: append a path such as ``count/3``.
        port: The TCP port on 127.0.0.1.
        traffic: The bytes received and sent so far. What a client has received is counted already.
    """

    url: str
    port: int
    traffic: Traffic = field(default_factory=Traffic, compare=False)


class echo_server:
    """Serve WebSocket connections on a free port of 127.0.0.1 while the block runs.

    An exception of the block comes out as itself. When the block is cancelled the server runs until the block
    has ended, so that clients in it can still close in order.

    Args:
        subprotocols: What the server speaks; of these, the one that the client offers first is taken.
        permessage_deflate: Whether to accept permessage-deflate (RFC 7692).
        headers: Further headers of the 101.
        tls: A server-side context, for wss.
        port: The TCP port to listen on; 0 takes any that is free.
    """

    def __init__(
        self,
        *,
        subprotocols: Iterable[str] = (),
        permessage_deflate: bool = True,
        headers: Iterable[tuple[str, str]] = (),
        tls: SSLContext | None = None,
        port: int = 0,
    ) -> None:
        self._subprotocols = frozenset(subprotocols)
        self._permessage_deflate = permessage_deflate
        self._headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
        self._tls = tls
        self._port = port
        self._traffic = Traffic()

    async def __aenter__(self) -> EchoServer:
        self._listening = Listening(self._converse)
        port = await self._listening.start(self._port)
        scheme = "ws" if self._tls is None else "wss"
        return EchoServer(f"{scheme}://127.0.0.1:{port}/", port, self._traffic)

    async def __aexit__(self, *exception: object) -> None:
        await self._listening.stop()

    def __enter__(self) -> EchoServer:
        self._thread = InThread(self)
        server, _ = self._thread.start()
        return server

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.stop(exc_type, exc, traceback)

    async def _converse(self, socket: SocketStream) -> None:
        with suppress(*_CLIENT_GONE):
            async with socket:
                if self._tls is None:
                    await self._conversation(socket).run()
                else:
                    tls = await TLSStream.wrap(socket, server_side=True, ssl_context=self._tls)
                    async with tls:
                        await self._conversation(tls).run()

    def _conversation(self, stream: ByteStream) -> _Conversation:
        extensions = [PerMessageDeflate()] if self._permessage_deflate else []
        return _Conversation(stream, self._traffic, self._subprotocols, extensions, self._headers)


class _Conversation:
    """One connection, from the request to the close frames."""

    def __init__(
        self,
        stream: ByteStream,
        traffic: Traffic,
        subprotocols: frozenset[str],
        extensions: list[PerMessageDeflate],
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        self._stream = stream
        self._traffic = traffic
        self._subprotocols = subprotocols
        self._extensions = extensions
        self._headers = headers
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._message = bytearray()
        self._over = False

    async def run(self) -> None:
        while not self._over:
            data = await self._stream.receive(_READ_SIZE)
            self._traffic.received += len(data)
            try:
                self._protocol.receive_data(data)
                for event in self._protocol.events():
                    await self._handle(event)
            except RemoteProtocolError as error:
                await self._refuse(error.event_hint or RejectConnection())
            except ValueError:  # what wsproto raises on headers that it cannot decode
                await self._refuse(RejectConnection())

    async def _handle(self, event: Event) -> None:
        match event:
            case Request():
                await self._answer(event)
            case CloseConnection():
                # wsproto also reports a violation of the protocol as a close, with the code to answer.
                if self._protocol.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
                    await self._send(event.response())
                self._over = True
            case _ if self._protocol.state is not ConnectionState.OPEN:
                pass  # our close frame is out: nothing but the client's close matters now
            case Ping():
                await self._send(event.response())
            case TextMessage() | BytesMessage():
                await self._echo(event)
            case _:
                pass  # a pong that nobody asked for

    async def _answer(self, request: Request) -> None:
        path = request.target.partition("?")[0]
        match path.strip("/").split("/"):
            case [""] | ["echo"]:
                await self._accept(request)
            case ["count", number] if number.isdecimal() and len(number) < 7:
                await self._accept(request)
                await self._count(int(number))
            case ["close", code, *reason] if code.isdecimal() and len(code) == 4 and may_be_sent(int(code)):
                await self._accept(request)
                await self._close(int(code), unquote("/".join(reason)))
            case ["status", status] if status.isdecimal() and len(status) == 3 and "200" <= status <= "599":
                await self._refuse_in_words(int(status), "refused on request")
            case _:
                await self._refuse_in_words(404, f"there is nothing at {path}")

    async def _accept(self, request: Request) -> None:
        chosen = next((name for name in request.subprotocols if name in self._subprotocols), None)
        await self._send(AcceptConnection(chosen, [*self._extensions], [*self._headers]))

    async def _refuse_in_words(self, status: int, text: str) -> None:
        # A 204 and a 304 have no body (RFC 9110, section 6.4.1).
        body = b"" if status in (204, 304) else f"{text}\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        refusal = RejectConnection(status_code=status, headers=headers, has_body=True)
        await self._refuse(refusal, RejectData(body))

    async def _refuse(self, *answer: Event) -> None:
        self._over = True
        for event in answer:
            await self._send(event)

    async def _count(self, number: int) -> None:
        for i in range(1, number + 1):
            await self._send(TextMessage(str(i)))
        await self._close(CloseCode.NORMAL, "counted")

    async def _echo(self, part: TextMessage | BytesMessage) -> None:
        self._message += part.data.encode() if isinstance(part, TextMessage) else part.data
        if len(self._message) > MAX_MESSAGE_SIZE:
            self._message.clear()
            await self._close(CloseCode.MESSAGE_TOO_BIG, f"over {MAX_MESSAGE_SIZE} bytes")
        elif part.message_finished:
            data = bytes(self._message)
            self._message.clear()
            text = isinstance(part, TextMessage)
            await self._send(TextMessage(data.decode()) if text else BytesMessage(data))

    async def _close(self, code: int, reason: str) -> None:
        await self._send(CloseConnection(code, reason))

    async def _send(self, event: Event) -> None:
        data = self._protocol.send(event)
        self._traffic.sent += len(data)
        await self._stream.send(data)
