"""SPEC "recv" and "Limits": a message that is received chunk by chunk, and what goes on meanwhile."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong
from wsproto.events import TextMessage as WsprotoText

from tests.memory import MemoryServer
from tests.raw_frames import BINARY, CONTINUATION, PING, TEXT, close_frame, frame, header
from zapros_websocket import (
    AsyncWebSocket,
    BinaryMessage,
    CloseMessage,
    ConnectionClosed,
    LargeMessageError,
    PingMessage,
    TextMessage,
    aconnect_ws,
)

pytestmark = pytest.mark.anyio

LIMIT = 100


def streaming(server: MemoryServer, *, close_timeout: float = 0, permessage_deflate: bool = False) -> aconnect_ws:
    return aconnect_ws(
        "ws://test/",
        client=server.client,
        max_message_size=LIMIT,
        stream_large_messages=True,
        close_timeout=close_timeout,
        permessage_deflate=permessage_deflate,
    )


async def whole(ws: AsyncWebSocket) -> str | bytes:
    """The next message, from its chunks."""
    chunks: list[str | bytes] = []
    async with ws.recv_chunks() as message:
        async for chunk in message:
            assert chunk
            chunks.append(chunk)
    empty = "" if message.kind == "text" else b""
    return empty.join(chunks)  # type: ignore[arg-type]


async def test_every_message_can_be_received_in_chunks(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        await server.peer.send(Ping(b"skipped"), WsprotoText("text"), BytesMessage(b"bytes"), WsprotoText(""))
        assert [await whole(ws) for _ in range(3)] == ["text", b"bytes", ""]


@pytest.mark.parametrize("deflate", [False, True])
async def test_a_large_message_comes_in_chunks_among_others(deflate: bool) -> None:
    server = MemoryServer(deflate=deflate)
    async with streaming(server, permessage_deflate=deflate) as ws, anyio.create_task_group() as tasks:
        large = "é" * 100_000

        async def serve() -> None:
            for message in ("small", large, "after", large):
                await server.peer.send(WsprotoText(message))

        tasks.start_soon(serve)
        assert await ws.recv() == TextMessage("small")
        assert await whole(ws) == large
        assert await whole(ws) == "after"
        assert await whole(ws) == large


async def test_chunks_come_while_the_message_is_under_way(server: MemoryServer) -> None:
    async with streaming(server) as ws:
        await server.peer.write(header(BINARY, 1000) + bytes(1))
        async with ws.recv_chunks() as message:
            assert message.kind == "binary"
            assert await anext(message) == bytes(1)
            for size in (2, 3, 994):
                await server.peer.write(bytes(size))
                assert await anext(message) == bytes(size)
            with pytest.raises(StopAsyncIteration):
                await anext(message)
            # The message is over, and the next may be received in its block.
            await server.peer.send(WsprotoText("next"))
            assert await ws.recv() == TextMessage("next")
            with pytest.raises(StopAsyncIteration):
                await anext(message)


async def test_control_frames_are_answered_meanwhile_and_come_out_behind_the_message(server: MemoryServer) -> None:
    async with streaming(server) as ws:
        await server.peer.write(frame(TEXT, b"a" * 200, final=False) + frame(PING, b"p"))
        async with ws.recv_chunks() as message:
            assert await anext(message) == "a" * 200
            assert await server.peer.receive() == Pong(b"p")
            await server.peer.write(frame(CONTINUATION, b"end") + frame(TEXT, b"next"))
            assert await anext(message) == "end"
        assert await ws.recv() == PingMessage(b"p")
        assert await ws.recv() == TextMessage("next")


async def test_what_asks_for_a_whole_message_leaves_a_large_one(server: MemoryServer) -> None:
    async with streaming(server) as ws:
        await server.peer.write(frame(PING) + frame(BINARY, bytes(200)) + frame(TEXT, b"next"))
        assert await ws.recv() == PingMessage()
        for receive in (ws.recv, ws.recv_text, ws.recv_bytes, ws.recv_json, ws.__anext__):
            with pytest.raises(LargeMessageError, match="a binary message over max_message_size came") as caught:
                await receive()
            assert caught.value.kind == "binary"
        with pytest.raises(anyio.BrokenResourceError):
            await ws.as_stream().receive()
        assert await whole(ws) == bytes(200)
        assert await ws.recv() == TextMessage("next")


async def test_abandoning_a_message_drops_the_rest_of_it_and_nothing_else(server: MemoryServer) -> None:
    async with streaming(server) as ws:
        await server.peer.write(frame(BINARY, bytes(200), final=False) + frame(CONTINUATION, b"x", final=False))
        async with ws.recv_chunks() as message:
            assert await anext(message) == bytes(200)
        with pytest.raises(StopAsyncIteration):
            await anext(message)
        await server.peer.write(frame(CONTINUATION, b"y", final=False) + frame(PING, b"p"))
        assert await ws.recv() == PingMessage(b"p")
        await server.peer.write(frame(CONTINUATION, b"z") + frame(TEXT, b"next") + frame(BINARY, bytes(300)))
        assert await ws.recv() == TextMessage("next")
        async with ws.recv_chunks():
            # All of it has come, and none of it was taken.
            pass
        await server.peer.write(frame(TEXT, b"last"))
        assert await ws.recv() == TextMessage("last")


async def test_an_abandoned_message_is_dropped_as_it_comes_whatever_its_size(server: MemoryServer) -> None:
    async with streaming(server) as ws, anyio.create_task_group() as tasks:

        async def serve() -> None:
            await server.peer.write(header(BINARY, 5_000_000))
            for _ in range(50):
                await server.peer.write(bytes(100_000))
            await server.peer.send(WsprotoText("next"))

        tasks.start_soon(serve)
        async with ws.recv_chunks() as message:
            await anext(message)
        assert await ws.recv() == TextMessage("next")


async def test_a_message_that_nobody_takes_stops_the_reader(server: MemoryServer) -> None:
    written = 0
    async with streaming(server) as ws, anyio.create_task_group() as tasks:

        async def serve() -> None:
            nonlocal written
            await server.peer.write(header(BINARY, 10_000_000))
            for _ in range(100):
                await server.peer.write(bytes(100_000))
                written += 100_000

        tasks.start_soon(serve)
        await anyio.wait_all_tasks_blocked()
        assert written < 2_000_000
        assert await whole(ws) == bytes(10_000_000)


async def test_a_deflate_bomb_that_nobody_takes_stops_while_it_is_inflated() -> None:
    server = MemoryServer(deflate=True)
    async with streaming(server, permessage_deflate=True) as ws:
        await server.peer.send(BytesMessage(bytes(30_000_000)), WsprotoText("next"))
        await anyio.wait_all_tasks_blocked()
        assert sum(len(part.data) for part in ws._inbox.data) < 4_000_000  # pyright: ignore[reportPrivateUsage]
        size = 0
        async with ws.recv_chunks() as message:
            async for chunk in message:
                size += len(chunk)
        assert size == 30_000_000
        assert await ws.recv() == TextMessage("next")


async def test_cancelling_loses_nothing(server: MemoryServer) -> None:
    async with streaming(server) as ws:
        with anyio.move_on_after(1):
            async with ws.recv_chunks():
                pytest.fail("nothing has come")
        await server.peer.write(header(BINARY, 1000))
        await server.peer.write(bytes(500))
        async with ws.recv_chunks() as message:
            assert await anext(message) == bytes(500)
            for _ in range(3):
                with anyio.move_on_after(1) as scope:
                    await anext(message)
                assert scope.cancelled_caught
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anext(message)
            await server.peer.write(bytes(500))
            assert await anext(message) == bytes(500)


async def test_a_cancellation_that_is_there_already_is_observed(server: MemoryServer) -> None:
    async with streaming(server) as ws:
        await server.peer.write(frame(BINARY, bytes(200)))
        await anyio.wait_all_tasks_blocked()
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with ws.recv_chunks():
                pytest.fail("it is cancelled")
        assert scope.cancelled_caught
        assert await whole(ws) == bytes(200)


async def test_two_tasks_may_share_the_chunks(server: MemoryServer) -> None:
    chunks: list[str | bytes] = []
    async with streaming(server) as ws:
        await server.peer.write(header(BINARY, 1000) + b"0")
        async with ws.recv_chunks() as message, anyio.create_task_group() as tasks:

            async def take() -> None:
                async for chunk in message:
                    chunks.append(chunk)

            for _ in range(2):
                tasks.start_soon(take)
            for size in (300, 300, 399):
                await anyio.wait_all_tasks_blocked()
                await server.peer.write(bytes(size))
    assert sum(map(len, chunks)) == 1000


@pytest.mark.parametrize("before", [True, False])
async def test_a_loss_raises_behind_what_was_received(server: MemoryServer, before: bool) -> None:
    async with streaming(server) as ws:
        await server.peer.write(header(BINARY, 1000) + bytes(500))
        if before:
            server.peer.end()
            await anyio.wait_all_tasks_blocked()
        async with ws.recv_chunks() as message:
            assert await anext(message) == bytes(500)
            if not before:
                server.peer.end()
            for _ in range(2):
                with pytest.raises(ConnectionClosed) as caught:
                    await anext(message)
                assert caught.value.code == 1006
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        with pytest.raises(ConnectionClosed):
            async with ws.recv_chunks():
                pytest.fail("there is none")


async def test_a_close_in_the_middle_of_a_message_raises_and_comes_out_once(server: MemoryServer) -> None:
    async with streaming(server) as ws:
        await server.peer.write(frame(TEXT, b"a" * 200, final=False) + close_frame(4000, b"enough"))
        async with ws.recv_chunks() as message:
            assert await anext(message) == "a" * 200
            with pytest.raises(ConnectionClosed) as caught:
                await anext(message)
            assert caught.value.received == CloseMessage(4000, "enough")
        with pytest.raises(ConnectionClosed):
            await ws.recv()


async def test_text_that_is_not_utf8_fails_the_connection_behind_what_was(server: MemoryServer) -> None:
    async with streaming(server) as ws:
        await server.peer.write(frame(TEXT, b"a" * 200, final=False) + frame(CONTINUATION, b"\xff" * 10, final=False))
        async with ws.recv_chunks() as message:
            assert await anext(message) == "a" * 200
            with pytest.raises(ConnectionClosed) as caught:
                await anext(message)
            assert caught.value.code == 1007
            assert caught.value.reason is not None
            assert caught.value.reason.startswith("invalid text: 'utf-8' codec can't decode byte 0xff")


async def test_without_the_option_a_large_message_fails_the_connection(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, max_message_size=LIMIT, close_timeout=0) as ws:
        await server.peer.send(BytesMessage(bytes(LIMIT)), BytesMessage(bytes(LIMIT + 1)))
        assert await whole(ws) == bytes(LIMIT)
        with pytest.raises(ConnectionClosed) as caught:
            await whole(ws)
        assert caught.value.code == 1009


async def test_closing_with_a_large_message_that_nobody_takes_is_bounded(server: MemoryServer) -> None:
    async with streaming(server, close_timeout=3) as ws, anyio.create_task_group() as tasks:

        async def serve() -> None:
            await server.peer.write(header(BINARY, 10_000_000))
            for _ in range(100):
                await server.peer.write(bytes(100_000))
            assert await server.peer.answer_close() == CloseConnection(1000, "")

        tasks.start_soon(serve)
        async with ws.recv_chunks() as message:
            await anext(message)
            await ws.close()
            # The rest was dropped on the way to the close, and it is never taken for the end of the message.
            with pytest.raises(ConnectionClosed):
                async for _ in message:
                    pass
    assert ws.close_code == 1000


async def test_without_its_block_it_raises_and_the_message_stays(server: MemoryServer) -> None:
    async with streaming(server) as ws:
        await server.peer.send(WsprotoText("one"), WsprotoText("two"))
        incoming = ws.recv_chunks()
        with pytest.raises(RuntimeError, match=r"async with ws\.recv_chunks\(\) as message"):
            async for _ in incoming:
                raise AssertionError("it was not entered")
        assert await ws.recv() == TextMessage("one")
        async with incoming as message:
            assert [chunk async for chunk in message] == ["two"]


async def test_the_option_is_a_bool(server: MemoryServer) -> None:
    with pytest.raises(TypeError, match="stream_large_messages is a bool"):
        aconnect_ws("ws://test/", client=server.client, stream_large_messages=1)  # type: ignore[arg-type]


async def test_a_message_that_lies_there_whole_lets_others_run(server: MemoryServer) -> None:
    ran = 0

    async def run() -> None:
        nonlocal ran
        while True:
            ran += 1
            await anyio.lowlevel.checkpoint()

    async with streaming(server) as ws:
        await server.peer.write(frame(BINARY, bytes(200), final=False) + frame(CONTINUATION, b"x", final=False) * 400)
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as tasks, ws.recv_chunks() as message:
            tasks.start_soon(run)
            for _ in range(300):
                await anext(message)
            tasks.cancel_scope.cancel()
    assert ran >= 5


async def test_a_stream_waits_its_turn_behind_those_who_came_first(server: MemoryServer) -> None:
    received: list[object] = []

    async def receive(name: str) -> None:
        received.append((name, await ws.recv()))

    async def stream(name: str) -> None:
        received.append((name, await whole(ws)))

    async with streaming(server) as ws, anyio.create_task_group() as tasks:
        for call, name in ((receive, "a"), (stream, "b"), (receive, "c"), (stream, "d")):
            tasks.start_soon(call, name)
            await anyio.wait_all_tasks_blocked()
        await server.peer.write(frame(TEXT, b"1") + frame(BINARY, bytes(200), final=False))
        await anyio.wait_all_tasks_blocked()
        assert received == [("a", TextMessage("1"))]
        await server.peer.write(frame(CONTINUATION, b"") + frame(BINARY, b"3") + frame(BINARY, b"4"))
    assert received == [
        ("a", TextMessage("1")),
        ("b", bytes(200)),
        ("c", BinaryMessage(b"3")),
        ("d", b"4"),
    ]
