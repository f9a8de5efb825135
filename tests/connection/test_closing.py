"""SPEC "recv, iteration, closing": close, leaving the block, and the bounds of both."""

from __future__ import annotations

import anyio
import pytest
from wsproto.events import CloseConnection, Ping
from wsproto.events import TextMessage as WsprotoText

from tests.memory import MemoryServer
from zapros_websocket import CloseCode, CloseMessage, ConnectionClosed, TextMessage, aconnect_ws

pytestmark = pytest.mark.anyio


async def test_leaving_the_block_closes_with_1000(server: MemoryServer) -> None:
    async with anyio.create_task_group() as tasks:
        async with aconnect_ws("ws://test/", client=server.client) as ws:
            closes: list[CloseConnection] = []

            async def serve() -> None:
                closes.append(await server.peer.answer_close())

            tasks.start_soon(serve)
            assert (ws.close_code, ws.close_reason) == (None, None)
        assert [close.code for close in closes] == [1000]
        assert server.stream.is_closed
        assert ws.close_code == 1000


async def test_close_sends_its_code_and_reason_and_exposes_the_peers(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws, anyio.create_task_group() as tasks:

        async def serve() -> None:
            assert await server.peer.receive() == CloseConnection(1001, "client shutting down")
            await server.peer.send(CloseConnection(4000, "see you"))
            server.peer.end()

        tasks.start_soon(serve)
        await ws.close(code=CloseCode.GOING_AWAY, reason="client shutting down")
        assert server.stream.is_closed
        assert (ws.close_code, ws.close_reason) == (4000, "see you")
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.sent == CloseMessage(1001, "client shutting down")
        assert caught.value.received == CloseMessage(4000, "see you")
        assert caught.value.clean


async def test_close_is_idempotent_and_safe_from_several_tasks_at_once(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        seen: list[int] = []

        async def serve() -> None:
            seen.append((await server.peer.answer_close()).code)
            assert await server.peer.receive() is None

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            for code in (1000, 1001, 4000):
                tasks.start_soon(ws.close, code)
        assert len(seen) == 1
        await ws.close(4001)
        assert ws.close_code == seen[0]


@pytest.mark.parametrize("close_timeout", [0, 0.25, 3])
async def test_close_is_bounded_when_the_peer_never_answers(server: MemoryServer, close_timeout: float) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=close_timeout) as ws:
        began = anyio.current_time()
        await ws.close()
        assert anyio.current_time() - began <= close_timeout
        assert server.stream.is_closed
        assert ws.close_code == 1006
        assert "did not answer" in (ws.close_reason or "")


async def test_close_is_bounded_when_the_peer_answers_and_leaves_tcp_open(server: MemoryServer) -> None:
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=3) as ws,
        anyio.create_task_group() as tasks,
    ):

        async def serve() -> None:
            close = await server.peer.receive()
            assert isinstance(close, CloseConnection)
            await server.peer.send(close.response())

        tasks.start_soon(serve)
        began = anyio.current_time()
        await ws.close()
        assert anyio.current_time() - began <= 3
        assert server.stream.is_closed
        assert ws.close_code == 1000


@pytest.mark.parametrize("size", [200, 1 << 20])
async def test_close_is_bounded_while_a_send_is_blocked(size: int) -> None:
    server = MemoryServer(capacity=100)
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=3) as ws:
        outcomes: list[object] = []

        async def send() -> None:
            try:
                await ws.send(bytes(size))
            except ConnectionClosed as closed:
                outcomes.append(closed)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            began = anyio.current_time()
            await ws.close()
            assert anyio.current_time() - began <= 3
            assert server.stream.is_closed
        assert len(outcomes) == 2
        for closed in outcomes:
            assert isinstance(closed, ConnectionClosed)
            # The close frame could not follow half a message.
            assert closed.sent is None


async def test_close_waits_for_a_send_that_the_peer_still_reads() -> None:
    server = MemoryServer(capacity=100)
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.send, "x" * 1000)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(ws.close, 1001)
            await anyio.wait_all_tasks_blocked()
            assert await server.peer.receive_message() == "x" * 1000
            event = await server.peer.receive()
            assert isinstance(event, CloseConnection)
            assert event.code == 1001
            await server.peer.send(event.response())
            server.peer.end()
        assert ws.close_code == 1001


async def test_the_peers_close_is_found_behind_unread_messages_and_pings() -> None:
    server = MemoryServer(capacity=1 << 24)
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        # More than the inbox takes: the reader has stopped in front of the rest.
        for _ in range(100):
            await server.peer.send(*[WsprotoText("x" * 1000)] * 100, Ping(b"p"))
        await anyio.wait_all_tasks_blocked()
        assert server.stream.incoming.buffer
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.peer.answer_close)
            began = anyio.current_time()
            await ws.close()
            assert anyio.current_time() - began <= 1
        assert ws.close_code == 1000
        # What is still there is a prefix of what was sent.
        assert await ws.recv() == TextMessage("x" * 1000)


async def test_closing_drops_nothing_while_somebody_takes() -> None:
    server = MemoryServer(capacity=1 << 20)
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        received: list[object] = []

        async def iterate() -> None:
            async for message in ws:
                received.append(message.data)

        async def serve() -> None:
            assert isinstance(await server.peer.receive(), CloseConnection)
            for number in range(30_000):
                text = str(number).encode()
                await server.peer.write(bytes((0x81, len(text))) + text)
            await server.peer.send(CloseConnection(1000))
            server.peer.end()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            tasks.start_soon(iterate)
            await anyio.wait_all_tasks_blocked()
            await ws.close()
        assert ws.close_code == 1000
        assert received == [str(number) for number in range(30_000)]


async def test_an_unread_flood_during_close_takes_no_memory_and_has_a_deadline() -> None:
    server = MemoryServer(capacity=1 << 20)
    message = WsprotoText("x" * 60000)
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=2) as ws,
        anyio.create_task_group() as tasks,
    ):

        async def flood() -> None:
            while server.stream.incoming.total < 1 << 26:
                await server.peer.send(message)

        tasks.start_soon(flood)
        await anyio.wait_all_tasks_blocked()
        await ws.close()
        tasks.cancel_scope.cancel()
    assert server.stream.incoming.total > 1 << 25
    kept = 0
    with pytest.raises(ConnectionClosed):
        while True:
            kept += len(getattr(await ws.recv(), "data", ""))
    assert kept < 1 << 23


async def test_nothing_is_answered_once_our_close_is_on_its_way(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws, anyio.create_task_group() as tasks:
        tasks.start_soon(ws.close)
        assert isinstance(await server.peer.receive(), CloseConnection)
        await server.peer.write(b"\x89\x01p\x81\x01t\x88\x02\x03\xe8")
        server.peer.end()
        assert await server.peer.receive() is None


async def test_data_after_the_peers_close_is_ignored(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        await server.peer.write(b"\x88\x02\x03\xe8\x81\x01t\x83\x00")
        assert await ws.recv() == CloseMessage(1000, "")
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert (caught.value.code, caught.value.clean) == (1000, True)
        server.peer.end()


async def test_sending_a_close_message_starts_the_closing_handshake(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        await ws.send(CloseMessage(1001, "enough"))
        assert await server.peer.receive() == CloseConnection(1001, "enough")
        with pytest.raises(ConnectionClosed) as caught:
            await ws.send("no more")
        assert (caught.value.code, caught.value.reason, caught.value.clean) == (1001, "enough", False)
        assert ws.close_code is None
        await server.peer.write(b"\x81\x04last\x88\x02\x03\xe9")
        server.peer.end()
        assert await ws.recv() == TextMessage("last")
        assert await ws.recv() == CloseMessage(1001, "")
        with pytest.raises(ConnectionClosed):
            await ws.recv()


async def test_recv_has_a_deadline_after_a_close_message_was_sent(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=5) as ws:
        began = anyio.current_time()
        await ws.send(CloseMessage(1001))
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.code == 1006
        assert anyio.current_time() - began <= 5


async def test_a_cancelled_close_ends_in_the_background(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=5) as ws:
        with anyio.move_on_after(1) as scope:
            await ws.close(4000)
        assert scope.cancelled_caught
        assert ws.close_code is None
        await server.peer.answer_close()
        await anyio.wait_all_tasks_blocked()
        assert ws.close_code == 4000
        assert server.stream.is_closed


async def test_a_close_reply_that_cannot_be_written_has_a_deadline() -> None:
    server = MemoryServer(capacity=100)
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=4) as ws:
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                with pytest.raises(ConnectionClosed, match="1001"):
                    await ws.send(bytes(1000))

            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            began = anyio.current_time()
            await server.peer.write(b"\x88\x02\x03\xe9")
            assert await ws.recv() == CloseMessage(1001, "")
        assert anyio.current_time() - began <= 4
    assert server.stream.is_closed


async def test_a_failed_connection_is_left_soon_by_a_peer_that_does_nothing(server: MemoryServer) -> None:
    began = anyio.current_time()
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        await server.peer.write(b"\x83\x00")
        with pytest.raises(ConnectionClosed):
            await ws.recv()
    assert anyio.current_time() - began <= 1
    assert server.stream.is_closed


@pytest.mark.parametrize("end", ["end", "reset"])
async def test_what_comes_after_a_failure_is_drained_so_that_the_peer_can_read_why(
    server: MemoryServer, end: str
) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        await server.peer.write(b"\x83\x00")
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        await server.peer.write(bytes(1000))
        await anyio.wait_all_tasks_blocked()
        assert not server.stream.incoming.buffer
        assert isinstance(await server.peer.receive(), CloseConnection)
        getattr(server.peer, end)()
    assert ws.close_code == 1002


async def test_a_stream_that_fails_to_close_is_no_news(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=1) as ws:
        server.stream.close_error = OSError("cannot close")
    assert ws.close_code == 1006
