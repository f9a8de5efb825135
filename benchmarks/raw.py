"""The limit: sockets with frames that were made before, and a count of bytes where a library would parse.

What no client can undercut on that event loop: it neither masks nor parses, nor hands a message over.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import trio

from .library import Payload, Session, Setting

READ_SIZE = 1 << 18


@cache
def frame(payload: Payload) -> bytes:
    """A masked frame, made once for each message. The key is zero: the server does not mind, and nobody measures it."""
    data = payload if isinstance(payload, bytes) else payload.encode()
    size = len(data)
    if size < 126:
        length = bytes([0x80 | size])
    else:
        length = b"\xfe" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xff" + size.to_bytes(8, "big")
    return b"\x82" + length + bytes(4) + data


def expected(setting: Setting) -> int:
    """How many bytes a message from the server has on the wire: the sink answers without a payload."""
    if setting.workload.kind == "send":
        return 2
    return len(frame(bytes(setting.workload.size))) - 4


def request(setting: Setting) -> bytes:
    place = urlsplit(setting.url)
    return (
        f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def address(setting: Setting) -> tuple[str, int]:
    place = urlsplit(setting.url)
    assert place.hostname is not None
    assert place.port is not None
    return place.hostname, place.port


def on_threads(setting: Setting) -> nullcontext[Session]:
    size = expected(setting)

    @contextmanager
    def connect() -> Generator[socket.socket, None, None]:
        with socket.create_connection(address(setting)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            context = setting.ssl_context
            with sock if context is None else context.wrap_socket(sock, server_hostname="127.0.0.1") as stream:
                stream.sendall(request(setting))
                stream.recv(READ_SIZE)
                yield stream

    def talk(stream: socket.socket) -> tuple[Any, Any]:
        buffer = bytearray(READ_SIZE)
        arrived = 0

        def receive() -> None:
            nonlocal arrived
            while arrived < size:
                arrived += stream.recv_into(buffer)
            arrived -= size

        def send(payload: Payload) -> None:
            stream.sendall(frame(payload))

        return send, receive

    return nullcontext(Session(connect, talk))


def on_trio(setting: Setting) -> nullcontext[Session]:
    @asynccontextmanager
    async def connect() -> AsyncGenerator[trio.abc.Stream, None]:
        stream: trio.abc.Stream = await trio.open_tcp_stream(*address(setting))
        if setting.ssl_context is not None:
            stream = trio.SSLStream(stream, setting.ssl_context, server_hostname="127.0.0.1", https_compatible=True)
        async with stream:
            await stream.send_all(request(setting))
            await stream.receive_some()
            yield stream

    def talk(stream: trio.abc.Stream) -> tuple[Any, Any]:
        def send(payload: Payload) -> Awaitable[None]:
            return stream.send_all(frame(payload))

        return send, counting(stream.receive_some, expected(setting))

    return nullcontext(Session(connect, talk))


def counting(read: Callable[[int], Awaitable[bytes | bytearray]], size: int) -> Callable[[], Awaitable[None]]:
    arrived = 0

    async def receive() -> None:
        nonlocal arrived
        while arrived < size:
            arrived += len(await read(READ_SIZE))
        arrived -= size

    return receive


class Counter(asyncio.BufferedProtocol):
    """Counts what arrives, into a buffer that is written again and again."""

    def __init__(self) -> None:
        self._buffer = bytearray(READ_SIZE)
        self.arrived = 0
        self.waiter: asyncio.Future[None] | None = None
        self.writable: asyncio.Future[None] | None = None

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.arrived += nbytes
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def pause_writing(self) -> None:
        self.writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self.writable is not None:
            self.writable.set_result(None)
            self.writable = None

    async def more(self) -> None:
        self.waiter = asyncio.get_running_loop().create_future()
        await self.waiter
        self.waiter = None


def on_asyncio(setting: Setting) -> nullcontext[Session]:
    size = expected(setting)

    @asynccontextmanager
    async def connect() -> AsyncGenerator[tuple[asyncio.Transport, Counter], None]:
        loop = asyncio.get_running_loop()
        transport, counter = await loop.create_connection(Counter, *address(setting), ssl=setting.ssl_context)
        try:
            transport.write(request(setting))
            await counter.more()
            counter.arrived = 0
            yield transport, counter
        finally:
            transport.close()

    def talk(connection: tuple[asyncio.Transport, Counter]) -> tuple[Any, Any]:
        transport, counter = connection

        async def send(payload: Payload) -> None:
            transport.write(frame(payload))
            if counter.writable is not None:
                await counter.writable

        async def receive() -> None:
            while counter.arrived < size:
                await counter.more()
            counter.arrived -= size

        return send, receive

    return nullcontext(Session(connect, talk))
