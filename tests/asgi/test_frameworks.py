"""The same endpoints on Starlette, FastAPI and Litestar, in process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from importlib import import_module
from typing import cast

import anyio
import pytest
import zapros

from zapros_websocket import (
    BinaryMessage,
    CloseMessage,
    ConnectionClosed,
    HandshakeError,
    TextMessage,
    aconnect_ws,
)

from .applications import Application, client_of
from .endpoints import HEADERS, SUBPROTOCOL, Disconnects

pytestmark = pytest.mark.anyio

BASE_URL = "ws://testserver/"
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
async def client(framework: str, disconnects: Disconnects) -> AsyncIterator[zapros.AsyncClient]:
    module = import_module(f".{framework}_application", __package__)
    make = cast("Callable[[Disconnects], Application]", module.make)
    async with client_of(make(disconnects), lifespan=True) as client:
        client.base_url = BASE_URL
        yield client


async def test_echo(client: zapros.AsyncClient) -> None:
    async with aconnect_ws("echo", client=client, subprotocols=["chat.v1", SUBPROTOCOL]) as ws:
        assert ws.subprotocol == SUBPROTOCOL
        assert ws.response.status == 101
        assert HEADERS.items() <= dict(ws.response.headers).items()
        await ws.send("text")
        assert await ws.recv() == TextMessage("text")
        await ws.send(MEBIBYTE)
        assert await ws.recv() == BinaryMessage(MEBIBYTE)


async def test_the_endpoint_learns_the_code(client: zapros.AsyncClient, disconnects: Disconnects) -> None:
    async with aconnect_ws("echo", client=client, subprotocols=[SUBPROTOCOL]) as ws:
        await ws.close(3000, "enough")
        assert (ws.close_code, ws.close_reason) == (3000, "enough")
    assert disconnects == [(3000, "enough")]


async def test_the_endpoint_learns_that_a_block_was_cancelled(
    client: zapros.AsyncClient, disconnects: Disconnects
) -> None:
    with anyio.CancelScope() as scope:
        async with aconnect_ws("echo", client=client, subprotocols=[SUBPROTOCOL]):
            scope.cancel()
            await anyio.sleep_forever()
    assert disconnects == [(1000, "")]


@pytest.mark.parametrize("path", ["reject", "nowhere"])
async def test_a_rejection_is_a_handshake_error(client: zapros.AsyncClient, path: str) -> None:
    with pytest.raises(HandshakeError) as caught:
        async with aconnect_ws(path, client=client):
            pytest.fail("the endpoint did not accept")
    assert caught.value.response is not None
    assert caught.value.response.status == 403


async def test_the_endpoint_closes(client: zapros.AsyncClient) -> None:
    async with aconnect_ws("close", client=client) as ws:
        assert await ws.recv() == TextMessage("one")
        assert await ws.recv() == CloseMessage(4001, "that is all")
        with pytest.raises(ConnectionClosed):
            await ws.recv()


async def test_the_endpoint_crashes(client: zapros.AsyncClient, framework: str) -> None:
    async with aconnect_ws("crash", client=client) as ws:
        assert [message async for message in ws] == []
        # Litestar turns an exception into a close of its own.
        assert ws.close_code == (4500 if framework == "litestar" else 1011)


@pytest.mark.parametrize("framework", ["litestar"], indirect=True)
async def test_a_listener_of_litestar_is_a_handler_like_any_other(client: zapros.AsyncClient) -> None:
    async with aconnect_ws("listener", client=client) as ws:
        await ws.send("hello")
        assert await ws.recv() == TextMessage("HELLO")
