"""One ASGI application for all the ASGI servers. It waits for nothing but its events, so any event loop will do."""

from __future__ import annotations

from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGISendCallable,
    LifespanScope,
    Scope,
    WebsocketScope,
)

from .script import ACCEPT_HEADER, choose_subprotocol, converse, describe, is_refused


class AsgiConversation:
    def __init__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self._receive = receive
        self._send = send
        self._farewell: tuple[int | None, str | None] = (None, None)

    async def send(self, data: str | bytes) -> None:
        if isinstance(data, str):
            await self._send({"type": "websocket.send", "text": data, "bytes": None})
        else:
            await self._send({"type": "websocket.send", "text": None, "bytes": data})

    async def receive(self) -> str | bytes | None:
        event = await self._receive()
        if event["type"] == "websocket.receive":
            # The specification lets a server leave out the one that is not there.
            text = event.get("text")
            return event.get("bytes") if text is None else text
        assert event["type"] == "websocket.disconnect"
        reason = dict(event).get("reason")
        self._farewell = (event["code"], None if reason is None else str(reason))
        return None

    async def ping(self, payload: bytes) -> None:
        raise NotImplementedError("ASGI has no pings")

    async def close(self, code: int, reason: str) -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    def farewell(self) -> tuple[int | None, str | None]:
        return self._farewell


async def application(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] == "lifespan":
        await live(scope, receive, send)
    elif scope["type"] == "websocket":
        await talk(scope, receive, send)


async def live(scope: LifespanScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    assert (await receive())["type"] == "lifespan.startup"
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    await send({"type": "lifespan.shutdown.complete"})


async def talk(scope: WebsocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    assert (await receive())["type"] == "websocket.connect"
    target = f"{scope['raw_path'].decode()}?{scope['query_string'].decode()}"
    conversation = AsgiConversation(receive, send)
    if is_refused(target):
        await conversation.close(1000, "")
        return
    name, value = ACCEPT_HEADER
    subprotocol = choose_subprotocol(list(scope["subprotocols"]))
    headers = [(name.lower().encode(), value.encode())]
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})
    description = describe(target, [(n.decode(), v.decode()) for n, v in scope["headers"]], scope["client"])
    await converse(conversation, target, description)
