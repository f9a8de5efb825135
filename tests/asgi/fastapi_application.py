"""The endpoints on FastAPI."""

from __future__ import annotations

from fastapi import FastAPI, WebSocket, WebSocketException

from .endpoints import HEADERS, SUBPROTOCOL, Disconnects


def make(disconnects: Disconnects) -> FastAPI:
    application = FastAPI()

    async def echo(socket: WebSocket) -> None:
        await socket.accept(SUBPROTOCOL, [(name.encode(), value.encode()) for name, value in HEADERS.items()])
        while (event := await socket.receive())["type"] == "websocket.receive":
            if event.get("text") is not None:
                await socket.send_text(event["text"])
            else:
                await socket.send_bytes(event["bytes"])
        disconnects.append((event["code"], event["reason"]))

    async def reject(socket: WebSocket) -> None:
        raise WebSocketException(4403)

    async def close(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("one")
        await socket.close(4001, "that is all")

    async def crash(socket: WebSocket) -> None:
        await socket.accept()
        raise RuntimeError("the endpoint is broken")

    for endpoint in (echo, reject, close, crash):
        application.websocket(f"/{endpoint.__name__}")(endpoint)
    return application
