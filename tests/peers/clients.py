"""The clients that are tried out, under one surface."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any, ClassVar


class Client(ABC):
    """``ws`` is whatever the client calls a connection."""

    package: ClassVar[str]
    deflate: ClassVar[dict[str, Any]] = {}
    """What asks for compression."""
    keepalive: ClassVar[dict[str, Any] | None] = None
    """What asks for a ping every 0.3 seconds, and for an answer within another 0.3; None without keepalive."""

    is_for_trio: ClassVar[bool] = False
    """Whether this client, of those of the package, knows trio alone."""

    @abstractmethod
    def connect(self, url: str, **options: Any) -> AbstractAsyncContextManager[Any]:
        """A connection for the length of a block."""

    async def send(self, ws: Any, data: bytes) -> None:
        """Send a binary message."""
        await ws.send(data)

    async def recv(self, ws: Any) -> object:
        """The payload of the next message."""
        return await ws.recv()

    def entry_point(self) -> Any:
        """The function or class whose parameters say what can be asked for."""
        raise NotImplementedError

    def parameters(self) -> dict[str, object]:
        """The parameters of the entry point, and their defaults."""
        return {name: p.default for name, p in inspect.signature(self.entry_point()).parameters.items()}

    @property
    def version(self) -> str:
        return version(self.package)


class Ours(Client):
    package = "zapros-websocket"
    deflate: ClassVar[dict[str, Any]] = {"permessage_deflate": True}
    keepalive: ClassVar[dict[str, Any] | None] = {"ping_interval": 0.3, "ping_timeout": 0.3}

    def entry_point(self) -> Any:
        from zapros_websocket import aconnect_ws

        return aconnect_ws

    def connect(self, url: str, **options: Any) -> AbstractAsyncContextManager[Any]:
        connection: AbstractAsyncContextManager[Any] = self.entry_point()(url, **options)
        return connection

    async def recv(self, ws: Any) -> object:
        return (await ws.recv()).data


class Zapros(Client):
    package = "zapros"
    deflate: ClassVar[dict[str, Any]] = {"permessage_deflate": True}

    def entry_point(self) -> Any:
        from zapros.websocket import aconnect_ws

        return aconnect_ws

    def connect(self, url: str, **options: Any) -> AbstractAsyncContextManager[Any]:
        connection: AbstractAsyncContextManager[Any] = self.entry_point()(url, **options)
        return connection

    async def send(self, ws: Any, data: bytes) -> None:
        from zapros.websocket import BinaryMessage

        await ws.send(BinaryMessage(data=data))

    async def recv(self, ws: Any) -> object:
        from zapros.websocket import CloseMessage, ConnectionClosed

        message = await ws.recv()
        if isinstance(message, CloseMessage):
            raise ConnectionClosed(message.code, message.reason)
        return message.data


class Websockets(Client):
    package = "websockets"
    is_for_trio = True
    keepalive: ClassVar[dict[str, Any] | None] = {"ping_interval": 0.3, "ping_timeout": 0.3}

    def entry_point(self) -> Any:
        from websockets.trio.client import connect

        return connect

    def connect(self, url: str, **options: Any) -> AbstractAsyncContextManager[Any]:
        connection: AbstractAsyncContextManager[Any] = self.entry_point()(url, proxy=None, **options)
        return connection


class TrioWebsocket(Client):
    package = "trio-websocket"
    is_for_trio = True

    def entry_point(self) -> Any:
        from trio_websocket import open_websocket_url

        return open_websocket_url

    def connect(self, url: str, **options: Any) -> AbstractAsyncContextManager[Any]:
        connection: AbstractAsyncContextManager[Any] = self.entry_point()(url, **options)
        return connection

    async def send(self, ws: Any, data: bytes) -> None:
        await ws.send_message(data)

    async def recv(self, ws: Any) -> object:
        return await ws.get_message()


class HttpxWs(Client):
    package = "httpx-ws"
    keepalive: ClassVar[dict[str, Any] | None] = {
        "keepalive_ping_interval_seconds": 0.3,
        "keepalive_ping_timeout_seconds": 0.3,
    }

    def entry_point(self) -> Any:
        from httpx_ws import aconnect_ws

        return aconnect_ws

    @asynccontextmanager
    async def connect(self, url: str, **options: Any) -> AsyncGenerator[Any]:
        async with self.entry_point()(url, **options) as ws:
            yield ws

    async def send(self, ws: Any, data: bytes) -> None:
        await ws.send_bytes(data)

    async def recv(self, ws: Any) -> object:
        return (await ws.receive()).data


CLIENTS: dict[str, Client] = {
    "zapros_websocket": Ours(),
    "zapros.websocket": Zapros(),
    "websockets": Websockets(),
    "trio-websocket": TrioWebsocket(),
    "httpx-ws": HttpxWs(),
}
