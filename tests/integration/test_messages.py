"""Messages to and from every server."""

from __future__ import annotations

import uuid

import anyio
import pytest
import trio

from zapros_websocket import (
    BinaryMessage,
    CloseMessage,
    HandshakeError,
    Message,
    PerMessageDeflateExtension,
    PingMessage,
    PongMessage,
    TextMessage,
    aconnect_ws,
    open_ws,
)

from .processes import ServerProcess, Servers

pytestmark = pytest.mark.anyio

WEBSOCKET_SERVERS = (
    "websockets",
    "uvicorn-websockets",
    "uvicorn-wsproto",
    "hypercorn-asyncio",
    "hypercorn-trio",
    "aiohttp",
)
SERVERS_THAT_PING = ("websockets", "aiohttp")
# Hypercorn tells its application 1006 whatever the client said.
SERVERS_THAT_TELL_CLOSE_CODES = ("websockets", "uvicorn-websockets", "uvicorn-wsproto", "aiohttp")
KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE
EVERY_BYTE = bytes(range(256))
OFFERS = [
    pytest.param(True, id="default"),
    pytest.param(PerMessageDeflateExtension(client_no_context_takeover=True), id="client-no-takeover"),
    pytest.param(PerMessageDeflateExtension(server_no_context_takeover=True), id="server-no-takeover"),
    pytest.param(PerMessageDeflateExtension(client_max_window_bits=10), id="client-10-bits"),
    pytest.param(PerMessageDeflateExtension(server_max_window_bits=10), id="server-10-bits"),
]


@pytest.fixture(params=WEBSOCKET_SERVERS)
def server(servers: Servers, request: pytest.FixtureRequest) -> ServerProcess:
    return servers.websocket(request.param)


@pytest.mark.parametrize(
    "message",
    [
        TextMessage("hello"),
        TextMessage("Grüße, 世界 \N{SNOWMAN} \N{GRINNING FACE}"),
        TextMessage(""),
        BinaryMessage(EVERY_BYTE),
        BinaryMessage(b""),
        BinaryMessage(b"x" * 125),
        BinaryMessage(b"x" * 126),
        BinaryMessage(b"x" * 65535),
        BinaryMessage(b"x" * 65536),
    ],
    ids=lambda message: f"{message.kind}-{len(message.data)}",
)
async def test_a_message_comes_back_as_it_was_sent(server: ServerProcess, message: Message) -> None:
    async with aconnect_ws(f"{server.address()}/echo") as ws:
        await ws.send(message)
        assert await ws.recv() == message


async def test_messages_keep_their_order_while_both_sides_talk(server: ServerProcess) -> None:
    messages: list[Message] = [TextMessage(str(n)) if n % 2 else BinaryMessage(b"%d" % n) for n in range(1000)]
    async with aconnect_ws(f"{server.address()}/echo") as ws, anyio.create_task_group() as tasks:

        async def send_all() -> None:
            for message in messages:
                await ws.send(message)

        tasks.start_soon(send_all)
        assert [await ws.recv() for _ in messages] == messages


async def test_a_task_group_of_the_caller_can_own_the_connection(server: ServerProcess) -> None:
    async with anyio.create_task_group() as tasks:
        ws = await open_ws(tasks, f"{server.address()}/echo")
        await ws.send(TextMessage("hello"))
        assert await ws.recv() == TextMessage("hello")
        await ws.close()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_nursery_of_the_caller_can_own_the_connection(server: ServerProcess) -> None:
    async with trio.open_nursery() as nursery:
        ws = await open_ws(nursery, f"{server.address()}/echo")
        await ws.send(TextMessage("hello"))
        assert await ws.recv() == TextMessage("hello")
        await ws.close()


async def test_messages_that_the_server_sends_at_once_are_all_delivered(server: ServerProcess) -> None:
    async with aconnect_ws(f"{server.address()}/count/1000") as ws:
        assert [message.data async for message in ws] == [str(n + 1) for n in range(1000)]
        assert ws.close_code == 1000


@pytest.mark.parametrize("mebibytes", [1, 8])
@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflated"])
async def test_large_messages_go_both_ways(server: ServerProcess, mebibytes: int, deflate: bool) -> None:
    binary = BinaryMessage(EVERY_BYTE * (mebibytes * MEBIBYTE // 256))
    text = TextMessage("naïve \N{SNOWMAN}" * (mebibytes * MEBIBYTE // 10))
    async with aconnect_ws(f"{server.address()}/echo", permessage_deflate=deflate) as ws:
        await ws.send(binary)
        assert await ws.recv() == binary
        await ws.send(text)
        assert await ws.recv() == text


@pytest.mark.parametrize("offer", OFFERS)
async def test_compressed_messages_come_back_as_they_were_sent(
    server: ServerProcess, offer: bool | PerMessageDeflateExtension
) -> None:
    messages: list[Message] = [
        TextMessage("over and over " * 100),
        BinaryMessage(EVERY_BYTE * KIBIBYTE),
        TextMessage(""),
    ] * 3
    async with aconnect_ws(f"{server.address()}/echo", permessage_deflate=offer) as ws:
        if offer is True:
            assert ws.permessage_deflate is not None
        for message in messages:
            await ws.send(message)
            assert await ws.recv() == message


async def test_nothing_is_compressed_unless_asked_for(server: ServerProcess) -> None:
    async with aconnect_ws(f"{server.address()}/echo") as ws:
        assert ws.permessage_deflate is None
        assert "sec-websocket-extensions" not in ws.response.headers


async def test_the_server_picks_a_subprotocol(server: ServerProcess) -> None:
    async with aconnect_ws(f"{server.address()}/echo", subprotocols=["unknown", "chat.v2", "chat.v1"]) as ws:
        assert ws.subprotocol == "chat.v2"


@pytest.mark.parametrize("offered", [None, ["unknown"]])
async def test_the_server_may_pick_no_subprotocol(server: ServerProcess, offered: list[str] | None) -> None:
    async with aconnect_ws(f"{server.address()}/echo", subprotocols=offered) as ws:
        assert ws.subprotocol is None


async def test_the_headers_of_the_101_can_be_seen(server: ServerProcess) -> None:
    async with aconnect_ws(f"{server.address()}/echo") as ws:
        assert ws.response.status == 101
        assert ws.response.headers["X-Accepted"] == "gladly"


async def test_a_close_of_the_server_is_received_once_with_code_and_reason(server: ServerProcess) -> None:
    async with aconnect_ws(f"{server.address()}/close/4001/going home") as ws:
        assert await ws.recv() == CloseMessage(4001, "going home")
        assert (ws.close_code, ws.close_reason) == (4001, "going home")


async def test_iteration_stops_at_a_close_of_the_server(server: ServerProcess) -> None:
    async with aconnect_ws(f"{server.address()}/close/3000/enough") as ws:
        assert [message async for message in ws] == []
        assert (ws.close_code, ws.close_reason) == (3000, "enough")


@pytest.mark.parametrize("server", SERVERS_THAT_TELL_CLOSE_CODES, indirect=True)
async def test_the_server_learns_how_the_client_closed(server: ServerProcess) -> None:
    name = uuid.uuid4().hex
    async with aconnect_ws(f"{server.address()}/echo?name={name}") as ws:
        await ws.close(4002, "had enough")
    line = await server.line("name", name)
    assert line["code"] == 4002
    # Not every ASGI server passes the reason on.
    assert line["reason"] in ("had enough", None)


@pytest.mark.parametrize("server", SERVERS_THAT_TELL_CLOSE_CODES, indirect=True)
async def test_leaving_the_block_closes_with_1000(server: ServerProcess) -> None:
    name = uuid.uuid4().hex
    async with aconnect_ws(f"{server.address()}/echo?name={name}"):
        pass
    assert (await server.line("name", name))["code"] == 1000


async def test_a_ping_comes_back_and_its_round_trip_is_measured(server: ServerProcess) -> None:
    async with aconnect_ws(f"{server.address()}/echo", ping_interval=None) as ws:
        assert ws.latency is None
        round_trip = await ws.ping()
        # The clock of uvloop counts whole milliseconds.
        assert round_trip >= 0
        assert ws.latency == round_trip


async def test_a_ping_sent_as_a_message_is_answered_with_a_pong_message(server: ServerProcess) -> None:
    async with aconnect_ws(f"{server.address()}/echo", ping_interval=None) as ws:
        await ws.send(PingMessage(b"are you there?"))
        assert await ws.recv() == PongMessage(b"are you there?")


async def test_a_pong_that_nobody_asked_for_does_no_harm(server: ServerProcess) -> None:
    async with aconnect_ws(f"{server.address()}/echo") as ws:
        await ws.send(PongMessage(b"here I am"))
        await ws.send(TextMessage("still here"))
        assert await ws.recv() == TextMessage("still here")


@pytest.mark.parametrize("server", SERVERS_THAT_PING, indirect=True)
async def test_a_ping_of_the_server_is_answered_and_returned(server: ServerProcess) -> None:
    async with aconnect_ws(f"{server.address()}/ping/marco") as ws:
        assert await ws.recv() == PingMessage(b"marco")
        assert await ws.recv() == TextMessage("the pong came")


async def test_a_refusal_is_a_handshake_error_with_the_answer(server: ServerProcess) -> None:
    with pytest.raises(HandshakeError) as caught:
        async with aconnect_ws(f"{server.address()}/refuse"):
            pytest.fail("the server refused")
    assert caught.value.response is not None
    assert caught.value.response.status == 403
