"""The endpoints on Litestar."""

from __future__ import annotations

from typing import Any, cast

from litestar import Litestar, WebSocket, websocket
from litestar.exceptions import WebSocketException
from litestar.handlers import websocket_listener

from .endpoints import HEADERS, SUBPROTOCOL, Disconnects

Socket = WebSocket[Any, Any, Any]


def make(disconnects: Disconnects) -> Litestar:
    @websocket("/echo")
    async def echo(socket: Socket) -> None:
        await socket.accept(subprotocols=SUBPROTOCOL, headers=HEADERS)
        while True:
            event = cast("dict[str, Any]", await socket.receive())
            if event["type"] == "websocket.disconnect":
                disconnects.append((event["code"], event["reason"]))
                return
            if event.get("text") is not None:
                await socket.send_text(event["text"])
            else:
                await socket.send_bytes(event["bytes"])

    @websocket("/reject")
    async def reject(socket: Socket) -> None:
        raise WebSocketException(detail="no", code=4403)

    @websocket("/close")
    async def close(socket: Socket) -> None:
        await socket.accept()
        await socket.send_text("one")
        await socket.close(code=4001, reason="that is all")

    @websocket("/crash")
    async def crash(socket: Socket) -> None:
        await socket.accept()
        raise RuntimeError("the endpoint is broken")

    @websocket_listener("/listener")
    async def listener(data: str) -> str:
        return data.upper()

    return Litestar(route_handlers=[echo, reject, close, crash, listener])
