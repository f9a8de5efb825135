"""aiohttp's server, which speaks plain HTTP beside WebSocket: also over TLS, IPv6 and Unix sockets.

Beside the paths of ``script``:

    GET /login              sets a cookie
    GET /redirect?to=URL    302 to that URL
    GET /busy?key=KEY       503 for the first two requests with that key, then as /describe
    GET /members            401 without Authorization, else as /describe
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

from aiohttp import WSMsgType, web

from .hosting import Arguments, announce
from .script import ACCEPT_HEADER, LARGEST_MESSAGE, SUBPROTOCOLS, converse, describe

requests_seen: Counter[str] = Counter()


class AiohttpConversation:
    def __init__(self, response: web.WebSocketResponse) -> None:
        self._response = response
        self._farewell: tuple[int | None, str | None] = (None, None)

    async def send(self, data: str | bytes) -> None:
        if isinstance(data, str):
            await self._response.send_str(data)
        else:
            await self._response.send_bytes(data)

    async def receive(self) -> str | bytes | None:
        while True:
            message = await self._response.receive()
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    data: str | bytes = message.data
                    return data
                case WSMsgType.PING:
                    await self._response.pong(message.data)
                case WSMsgType.PONG:
                    pass
                case _:
                    self._farewell = (self._response.close_code, message.extra)
                    return None

    async def ping(self, payload: bytes) -> None:
        await self._response.ping(payload)
        message = await self._response.receive()
        assert message.type is WSMsgType.PONG
        assert message.data == payload

    async def close(self, code: int, reason: str) -> None:
        await self._response.close(code=code, message=reason.encode())

    def farewell(self) -> tuple[int | None, str | None]:
        return self._farewell


async def talk(request: web.Request) -> web.StreamResponse:
    # aiohttp would swallow pongs if it answered pings by itself.
    response = web.WebSocketResponse(protocols=sorted(SUBPROTOCOLS), max_msg_size=LARGEST_MESSAGE, autoping=False)
    response.headers.extend([ACCEPT_HEADER])
    await response.prepare(request)
    address = request.transport and request.transport.get_extra_info("peername")
    description = describe(
        request.raw_path,
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers],
        address or None,
    )
    # A client may leave at any time, also in the middle of an answer.
    with contextlib.suppress(ConnectionResetError):
        await converse(AiohttpConversation(response), request.raw_path, description)
    return response


async def refuse(request: web.Request) -> web.StreamResponse:
    raise web.HTTPForbidden(text="not for you")


async def log_in(request: web.Request) -> web.StreamResponse:
    response = web.Response(text="welcome")
    response.set_cookie("session", "chocolate", httponly=True)
    return response


async def redirect(request: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": request.query["to"]})


async def be_busy(request: web.Request) -> web.StreamResponse:
    key = request.query["key"]
    requests_seen[key] += 1
    if requests_seen[key] <= 2:
        return web.Response(status=503, text="busy")
    return await talk(request)


async def admit_members(request: web.Request) -> web.StreamResponse:
    if "Authorization" not in request.headers:
        raise web.HTTPUnauthorized(text="who are you?", headers={"WWW-Authenticate": 'Basic realm="members"'})
    return await talk(request)


async def main() -> None:
    arguments = Arguments.from_command_line()
    application = web.Application()
    application.router.add_get("/refuse", refuse)
    application.router.add_get("/login", log_in)
    application.router.add_get("/redirect", redirect)
    application.router.add_get("/busy", be_busy)
    application.router.add_get("/members", admit_members)
    application.router.add_get("/{path:.*}", talk)
    runner = web.AppRunner(application)
    await runner.setup()
    listener = arguments.listen()
    await web.SockSite(runner, listener, ssl_context=arguments.tls()).start()
    announce(listener)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
