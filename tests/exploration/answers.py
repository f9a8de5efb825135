"""Any answer to the opening handshake is a connection or one documented error, and nothing else; nothing stays open.

The whole way is taken: aconnect_ws, a client, its HTTP parser, the judgement on the answer, and a session for what is
behind it. The first bytes of an input choose how the answer is cut and whether it ends, the others are the answer;
``{accept}`` in it stands for the value that belongs to the key of the request.
"""

from __future__ import annotations

import asyncio
import atexit
import re
from typing import Literal

from wsproto.utilities import generate_accept_token
from zapros import AsyncBaseNetworkStream, AsyncBaseTransport, AsyncClient, AsyncStdNetworkHandler, ZaprosError

from tests.memory import AutojumpEventLoop
from zapros_websocket import AsyncWebSocket, CloseMessage, ConnectionClosed, HandshakeError, WebsocketError, aconnect_ws

from .source import Source

SUBPROTOCOLS = ("chat", "v2.chat")
CUTS = (1 << 20, 1, 7, 100)
MAX_BODY = 64 * 1024

_KEY = re.compile(rb"sec-websocket-key: *([^\r\n]+)", re.IGNORECASE)

_loops: list[AutojumpEventLoop] = []


def explore(data: bytes) -> None:
    """Raise AssertionError, or what has come out, where the property does not hold."""
    source = Source(data)
    cut = source.one_of(CUTS)
    ends = source.flag()
    offers = source.flag()
    answer = source.take(1 << 20)
    if not _loops:
        _loops.append(AutojumpEventLoop())
        atexit.register(_loops[0].close)
    _loops[0].run_until_complete(open_and_read(Server(answer, cut, ends=ends), offers=offers))


async def open_and_read(server: Server, *, offers: bool) -> None:
    body = b""
    client = AsyncClient(handler=AsyncStdNetworkHandler(transport=server))
    try:
        async with aconnect_ws(
            "ws://test/", client=client, subprotocols=SUBPROTOCOLS if offers else None, permessage_deflate=offers
        ) as ws:
            assert ws.response.status == 101
            assert ws.response.headers["Sec-WebSocket-Accept"].strip() == server.accept
            assert ws.subprotocol is None or (offers and ws.subprotocol in SUBPROTOCOLS)
            assert ws.permessage_deflate is None or offers
            code = await read_to_the_end(ws)
        # A close of the peer, the end of TCP, silence that keepalive ends, or what a session finds fault with.
        assert code is None or code in (1002, 1006, 1007, 1009, 1011)
    except HandshakeError as error:
        body = b"" if error.response is None else error.response.read()
    except WebsocketError as error:
        raise AssertionError(f"{error!r} came out of the opening handshake") from error
    except ZaprosError:
        # The network, as Zapros calls it.
        pass
    finally:
        await client.aclose()
    assert len(body) <= MAX_BODY
    assert all(stream.is_closed for stream in server.streams), "a stream was left open"
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks were left: {left}"


async def read_to_the_end(ws: AsyncWebSocket) -> int | None:
    """The code with which this side ended the connection; None when the peer closed it."""
    while True:
        try:
            if isinstance(await ws.recv(), CloseMessage):
                return None
        except ConnectionClosed as closed:
            return closed.code


class Server(AsyncBaseTransport):
    """Answers every request with the same bytes."""

    def __init__(self, answer: bytes, cut: int, *, ends: bool) -> None:
        self.answer = answer
        self.cut = cut
        self.ends = ends
        self.accept = ""
        self.streams: list[AnsweringStream] = []

    async def aconnect(
        self,
        host: str,
        port: int,
        server_hostname: str | None = None,
        tls: bool = False,
        *,
        alpn_protocols: list[Literal["http/1.1", "h2"]] | None = None,
        timeout: float | None = None,
    ) -> AsyncBaseNetworkStream:
        self.streams.append(AnsweringStream(self))
        return self.streams[-1]


class AnsweringStream(AsyncBaseNetworkStream):
    """Nothing until there is a request, then the answer in pieces, then the end or nothing more."""

    def __init__(self, server: Server) -> None:
        self.is_closed = False
        self._server = server
        self._request = b""
        self._answer = b""
        self._is_there = asyncio.Event()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        await self._is_there.wait()
        if not self._answer and not self._server.ends:
            await asyncio.sleep(3600)
        piece = self._answer[: min(max_bytes, self._server.cut)]
        self._answer = self._answer[len(piece) :]
        return piece

    async def write_all(self, data: bytes, timeout: float | None = None) -> int:
        if not self._is_there.is_set():
            self._request += data
            key = _KEY.search(self._request)
            if key is not None and b"\r\n\r\n" in self._request:
                self._server.accept = generate_accept_token(key[1].strip()).decode()
                self._answer = self._server.answer.replace(b"{accept}", self._server.accept.encode())
                self._is_there.set()
        return len(data)

    async def close(self) -> None:
        self.is_closed = True
        self._is_there.set()
