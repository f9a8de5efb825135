"""Starlette, FastAPI and Litestar through the ASGI handler, with the endpoints that the tests of zapros's have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from importlib import import_module
from typing import Any, cast

import pytest
from zapros import AsyncClient

from tests.asgi.applications import Application
from tests.asgi.endpoints import HEADERS, SUBPROTOCOL, Disconnects
from zapros_websocket import BinaryMessage, CloseMessage, HandshakeError, TextMessage, aconnect_ws
from zapros_websocket.testing import WebSocketAsgiHandler

pytestmark = pytest.mark.anyio

MEBIBYTE = bytes(range(256)) * 4096


@pytest.fixture
def disconnects() -> Disconnects:
    return []


@pytest.fixture(params=["starlette", "fastapi", "litestar"])
def framework(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip(name)
    return name


@pytest.fixture
def application(framework: str, disconnects: Disconnects) -> Application:
    module = import_module(f"tests.asgi.{framework}_application")
    make = cast("Callable[[Disconnects], Application]", module.make)
    return make(disconnects)


@pytest.fixture
async def client(application: Application) -> AsyncIterator[AsyncClient]:
    async with WebSocketAsgiHandler(application) as handler:
        async with AsyncClient(handler, base_url="ws://testserver/") as client:
            yield client


async def test_echo(client: AsyncClient, disconnects: Disconnects) -> None:
    async with aconnect_ws("echo", client=client, subprotocols=["chat.v1", SUBPROTOCOL], permessage_deflate=True) as ws:
        assert ws.subprotocol == SUBPROTOCOL
        assert ws.permessage_deflate is not None
        assert HEADERS.items() <= dict(ws.response.headers).items()
        await ws.send("text")
        assert await ws.recv() == TextMessage("text")
        await ws.send(MEBIBYTE)
        assert await ws.recv() == BinaryMessage(MEBIBYTE)
        assert await ws.ping() > 0
        await ws.close(3000, "enough")
    assert disconnects == [(3000, "enough")]


@pytest.mark.parametrize("path", ["reject", "nowhere"])
async def test_a_rejection_is_a_handshake_error(client: AsyncClient, path: str) -> None:
    with pytest.raises(HandshakeError) as caught:
        async with aconnect_ws(path, client=client):
            pytest.fail("the endpoint did not accept")
    assert caught.value.response is not None
    assert caught.value.response.status == 403


async def test_the_endpoint_closes(client: AsyncClient) -> None:
    async with aconnect_ws("close", client=client) as ws:
        assert await ws.recv() == TextMessage("one")
        assert await ws.recv() == CloseMessage(4001, "that is all")


async def test_the_endpoint_crashes(application: Application, framework: str) -> None:
    handler = WebSocketAsgiHandler(application)
    client = AsyncClient(handler, base_url="ws://testserver/")
    async with aconnect_ws("crash", client=client) as ws:
        assert [message async for message in ws] == []
        # Litestar turns an exception into a close of its own.
        assert ws.close_code == (4500 if framework == "litestar" else 1011)
    if framework == "litestar":
        await client.aclose()
    else:
        with pytest.raises(RuntimeError, match="the endpoint is broken"):
            await client.aclose()


async def test_http_beside_it(client: AsyncClient) -> None:
    assert (await client.get("http://testserver/nowhere")).status == 404


async def test_an_endpoint_that_lets_the_disconnect_out_is_in_order() -> None:
    fastapi = pytest.importorskip("fastapi")
    application = fastapi.FastAPI()

    async def echo(socket: Any) -> None:
        await socket.accept()
        while True:
            await socket.send_text(await socket.receive_text())

    echo.__annotations__["socket"] = fastapi.WebSocket
    application.websocket("/")(echo)
    async with WebSocketAsgiHandler(application) as handler:
        async with aconnect_ws("ws://testserver/", client=AsyncClient(handler)) as ws:
            await ws.send("hello")
            assert await ws.recv() == TextMessage("hello")


async def test_a_denial_response_of_starlette() -> None:
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket

    async def deny(socket: WebSocket) -> None:
        await socket.send_denial_response(JSONResponse({"error": "no"}, 402, headers={"X-Why": "because"}))

    application = Starlette(routes=[WebSocketRoute("/", deny)])
    async with WebSocketAsgiHandler(application) as handler:
        with pytest.raises(HandshakeError) as caught:
            async with aconnect_ws("ws://testserver/", client=AsyncClient(handler)):
                pytest.fail("it was refused")
    response = caught.value.response
    assert response is not None
    assert (response.status, response.text, response.headers["X-Why"]) == (402, '{"error":"no"}', "because")
