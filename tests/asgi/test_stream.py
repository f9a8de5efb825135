"""The stream beneath: frames of any kind on one side, and events of ASGI on the other."""

from __future__ import annotations

from typing import cast

import anyio
import pytest
from wsproto.connection import CLIENT, Connection
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from zapros import AsyncClient

from zapros_websocket._streams.asgi import AsgiHandle, AsgiStream

from .applications import ACCEPT, URL, Echo, Returns, client_of, close

pytestmark = pytest.mark.anyio


async def connect(client: AsyncClient) -> AsgiStream:
    async with client.stream("GET", URL) as response:
        handoff = response.context.get("handoff", {})
    return AsgiStream(cast("AsgiHandle", handoff.get("_asgi_websocket_stream")))


async def test_fragments_become_one_message() -> None:
    application = Echo()
    peer = Connection(CLIENT)
    async with client_of(application) as client:
        stream = await connect(client)
        for piece in (
            TextMessage(data="wh", message_finished=False),
            TextMessage(data="ole"),
            BytesMessage(data=b"wh", message_finished=False),
            BytesMessage(data=b"ole"),
        ):
            await stream.send_all(peer.send(piece))
        peer.receive_data(await stream.receive())
        peer.receive_data(await stream.receive())
        await stream.aclose(grace=1)
    assert list(peer.events()) == [TextMessage(data="whole"), BytesMessage(data=bytearray(b"whole"))]


async def test_control_frames_reach_nobody() -> None:
    application = Echo()
    peer = Connection(CLIENT)
    async with client_of(application) as client:
        stream = await connect(client)
        await stream.send_all(peer.send(Ping(b"ping")) + peer.send(Pong(b"pong")))
        await stream.send_all(peer.send(CloseConnection(1000)))
        await application.ended.wait()
        await stream.aclose(grace=1)
    assert [event["type"] for event in application.events] == ["websocket.connect", "websocket.disconnect"]


async def test_a_close_frame_without_a_code_is_1005_there_and_back() -> None:
    application = Echo()
    peer = Connection(CLIENT)
    async with client_of(application) as client:
        stream = await connect(client)
        await stream.send_all(peer.send(CloseConnection(code=None)))  # type: ignore[arg-type]
        peer.receive_data(await stream.receive())
        await stream.aclose(grace=1)
    assert list(peer.events()) == [CloseConnection(code=1005, reason="")]
    assert application.disconnects == [(1005, "")]


async def test_nothing_comes_after_the_close() -> None:
    async with client_of(Returns(ACCEPT, close(code=4000))) as client:
        stream = await connect(client)
        assert await stream.receive() == b"\x88\x02\x0f\xa0"
        for _ in range(2):
            assert await stream.receive() == b""
        await stream.aclose(grace=0)


@pytest.mark.parametrize("grace", [0, 1])
async def test_a_stream_that_is_closed_without_a_close_frame_tells_the_application(grace: float) -> None:
    application = Echo()
    async with client_of(application) as client:
        stream = await connect(client)
        await anyio.wait_all_tasks_blocked()
        await stream.aclose(grace=grace)
        await stream.aclose(grace=grace)
        await application.ended.wait()
    assert application.disconnects == [(1006, "")]
