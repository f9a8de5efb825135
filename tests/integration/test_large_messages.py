"""Large messages in chunks: to and from every server, and what memory 64 MiB of them take."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import tracemalloc
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager

import pytest

from tests.raw_frames import BINARY, header
from zapros_websocket import BinaryMessage, TextMessage, aconnect_ws, connect_ws

from .processes import ServerProcess, Servers

WEBSOCKET_SERVERS = (
    "websockets",
    "uvicorn-websockets",
    "uvicorn-wsproto",
    "hypercorn-asyncio",
    "hypercorn-trio",
    "aiohttp",
)
MEBIBYTE = 1024 * 1024
# Chunks of a size that fits into nothing, and cuts no character.
CHUNKS = [f"naïve \N{SNOWMAN} {number} " * 3333 for number in range(20)]
DATA = [chunk.encode() for chunk in CHUNKS]

PIECE = bytes(range(256)) * 256
SIZE = 64 * MEBIBYTE
# What may be unread, twice, and what a read and a frame take.
BOUND = 6 * MEBIBYTE


@pytest.fixture(params=WEBSOCKET_SERVERS)
def server(servers: Servers, request: pytest.FixtureRequest) -> ServerProcess:
    return servers.websocket(request.param)


async def asynchronously(chunks: list[str]) -> AsyncIterator[str]:
    for chunk in chunks:
        yield chunk


@pytest.mark.anyio
@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflated"])
async def test_messages_in_chunks_go_both_ways(server: ServerProcess, deflate: bool) -> None:
    async with aconnect_ws(
        f"{server.address()}/echo", permessage_deflate=deflate, max_message_size=1000, stream_large_messages=True
    ) as ws:
        for _ in range(2):
            await ws.send(asynchronously(CHUNKS))
            async with ws.recv_chunks() as message:
                assert "".join([str(chunk) async for chunk in message]) == "".join(CHUNKS)
            await ws.send(DATA, compress=False)
            async with ws.recv_chunks() as message:
                assert b"".join([chunk async for chunk in message if isinstance(chunk, bytes)]) == b"".join(DATA)
            await ws.send("small")
            assert await ws.recv() == TextMessage("small")


@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflated"])
def test_messages_in_chunks_go_both_ways_in_threads(server: ServerProcess, deflate: bool) -> None:
    with connect_ws(
        f"{server.address()}/echo", permessage_deflate=deflate, max_message_size=1000, stream_large_messages=True
    ) as ws:
        for _ in range(2):
            ws.send(CHUNKS)
            with ws.recv_chunks(30) as message:
                assert "".join(map(str, message)) == "".join(CHUNKS)
            ws.send(DATA, compress=False)
            with ws.recv_chunks(30) as message:
                assert b"".join(chunk for chunk in message if isinstance(chunk, bytes)) == b"".join(DATA)
            ws.send(b"small")
            assert ws.recv(30) == BinaryMessage(b"small")


class RawServer:
    """Sends one frame of 64 MiB, then reads whatever comes; it keeps nothing."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}/"
        self.read = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with sock, self._listener:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += sock.recv(65536)
            key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
            digest = hashlib.sha1(key.partition(b":")[2].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            sock.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
            )
            sock.sendall(header(BINARY, SIZE))
            for _ in range(SIZE // len(PIECE)):
                sock.sendall(PIECE)
            buffer = bytearray(65536)
            while read := sock.recv_into(buffer):
                self.read += read

    def end(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def raw() -> Iterator[RawServer]:
    server = RawServer()
    yield server
    server.end()


@contextmanager
def bounded() -> Generator[None]:
    """The most memory that is taken in the block is within the bound."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < BOUND


@pytest.mark.anyio
async def test_64_mebibytes_take_the_memory_of_what_may_be_unread(raw: RawServer) -> None:
    with bounded():
        async with aconnect_ws(raw.url, max_message_size=MEBIBYTE, stream_large_messages=True, close_timeout=0) as ws:
            received = hashlib.sha256()
            async with ws.recv_chunks() as message:
                async for chunk in message:
                    assert isinstance(chunk, bytes)
                    received.update(chunk)
            await ws.send(PIECE for _ in range(SIZE // len(PIECE)))
    raw.end()
    assert received.digest() == hashlib.sha256(PIECE * (SIZE // len(PIECE))).digest()
    assert raw.read > SIZE


def test_64_mebibytes_take_the_memory_of_what_may_be_unread_in_threads(raw: RawServer) -> None:
    with bounded():
        with connect_ws(raw.url, max_message_size=MEBIBYTE, stream_large_messages=True, close_timeout=0) as ws:
            received = hashlib.sha256()
            with ws.recv_chunks(60) as message:
                for chunk in message:
                    assert isinstance(chunk, bytes)
                    received.update(chunk)
            ws.send(PIECE for _ in range(SIZE // len(PIECE)))
    raw.end()
    assert received.digest() == hashlib.sha256(PIECE * (SIZE // len(PIECE))).digest()
    assert raw.read > SIZE
