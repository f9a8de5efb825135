"""SPEC "recv, iteration, closing": what recv gives, in which order, and how it ends."""

from __future__ import annotations

import anyio
import pytest
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong
from wsproto.events import TextMessage as WsprotoText

from tests.memory import MemoryServer
from zapros_websocket import (
    CloseMessage,
    ConnectionClosed,
    PingMessage,
    PongMessage,
    TextMessage,
    aconnect_ws,
)
from zapros_websocket._link import LINGER, PATIENCE

pytestmark = pytest.mark.anyio


async def test_messages_of_every_kind_come_in_wire_order(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        await server.peer.send(Pong(b"0"), WsprotoText("1"), Ping(b"2"), Ping(b"3"), WsprotoText("4"), Pong(b"5"))
        await server.peer.send(WsprotoText("6"))
        received = [await ws.recv() for _ in range(7)]
    assert received == [
        PongMessage(b"0"),
        TextMessage("1"),
        PingMessage(b"2"),
        PingMessage(b"3"),
        TextMessage("4"),
        PongMessage(b"5"),
        TextMessage("6"),
    ]


async def test_pings_are_answered_by_the_library_and_still_returned(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        await server.peer.send(Ping(b"one"))
        assert await server.peer.receive() == Pong(b"one")
        assert await ws.recv() == PingMessage(b"one")


async def test_pings_are_answered_while_nobody_is_in_recv(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0):
        for payload in (b"a", b"b", b"c"):
            await server.peer.send(WsprotoText("unread"), Ping(payload))
            assert await server.peer.receive() == Pong(payload)


async def test_a_pong_that_answers_the_librarys_own_ping_is_not_returned(server: MemoryServer) -> None:
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(ws.ping)
        ping = await server.peer.receive()
        assert isinstance(ping, Ping)
        # Once more, when nobody waits for it any longer.
        await server.peer.send(Pong(bytes(ping.payload)), Pong(bytes(ping.payload)), Pong(b"other"))
        assert await ws.recv() == PongMessage(b"other")


async def test_the_peers_close_comes_back_once_as_a_close_message(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        await server.peer.send(WsprotoText("last"), CloseConnection(4001, "bye"))
        assert await ws.recv() == TextMessage("last")
        assert await ws.recv() == CloseMessage(4001, "bye")
        for _ in range(2):
            with pytest.raises(ConnectionClosed) as caught:
                await ws.recv()
            assert (caught.value.code, caught.value.reason, caught.value.clean) == (4001, "bye", True)
            assert caught.value.received == caught.value.sent == CloseMessage(4001, "bye")
        with pytest.raises(ConnectionClosed, match="4001"):
            await ws.send("too late")
        server.peer.end()


async def test_an_empty_close_frame_has_the_code_1005(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        await server.peer.write(b"\x88\x00")
        message = await ws.recv()
        assert isinstance(message, CloseMessage)
        assert (message.code, message.reason or "") == (1005, "")
        assert (ws.close_code, ws.close_reason or "") == (1005, "")
        # It is answered in kind: 1005 must never stand in a frame.
        assert await server.peer.stream.incoming.read(2) == b"\x88\x80"
        server.peer.end()


async def test_recv_does_not_wait_for_the_end_of_tcp_after_the_peers_close(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        began = anyio.current_time()
        await server.peer.send(CloseConnection(1001))
        await ws.recv()
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert anyio.current_time() == began


@pytest.mark.parametrize("end", ["end", "reset"])
async def test_a_connection_lost_without_a_close_frame_raises_1006(server: MemoryServer, end: str) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        await server.peer.send(WsprotoText("before"))
        await anyio.wait_all_tasks_blocked()
        getattr(server.peer, end)()
        assert await ws.recv() == TextMessage("before")
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.code == ws.close_code == 1006
        assert "lost" in (ws.close_reason or "")
        assert (caught.value.received, caught.value.sent, caught.value.clean) == (None, None, False)
        assert (caught.value.__cause__ is not None) == (end == "reset")


@pytest.mark.parametrize(
    ("wire", "code", "words"),
    [
        (b"\x83\x00", 1002, "opcode"),
        (b"\x81\x01\xff", 1007, "utf-8"),
        (b"\x82\x7e\x10\x00", 1009, "1000"),
    ],
)
async def test_a_connection_that_this_side_failed_says_what_was_wrong(
    server: MemoryServer, wire: bytes, code: int, words: str
) -> None:
    async with aconnect_ws("ws://test/", client=server.client, max_message_size=1000) as ws:
        await server.peer.send(WsprotoText("before"))
        await server.peer.write(wire)
        assert await ws.recv() == TextMessage("before")
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.code == ws.close_code == code
        assert words in (caught.value.reason or "")
        assert caught.value.received is None
        assert caught.value.sent is not None
        assert not caught.value.clean
        # The peer is told, in a close frame (RFC 6455, section 7.1.7).
        told = await server.peer.receive()
        assert isinstance(told, CloseConnection)
        assert told.code == code


async def test_iteration_yields_application_messages_only_and_stops_at_the_peers_close(server: MemoryServer) -> None:
    for code in (1000, 1011, 4999):
        async with aconnect_ws("ws://test/", client=server.client) as ws:
            await server.peer.send(Ping(), WsprotoText("a"), Pong(), BytesMessage(b"b"), CloseConnection(code))
            server.peer.end()
            assert [message.data async for message in ws] == ["a", b"b"]
            assert [message async for message in ws] == []
            assert ws.close_code == code


async def test_iteration_stops_when_this_side_closed(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws, anyio.create_task_group() as tasks:
        tasks.start_soon(server.peer.answer_close)
        received: list[object] = []

        async def iterate() -> None:
            async for message in ws:
                received.append(message)

        tasks.start_soon(iterate)
        await anyio.wait_all_tasks_blocked()
        await ws.close()
    assert received == []


async def test_iteration_stops_when_this_side_closed_and_the_peer_never_answered(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=3) as ws:
        await ws.close()
        assert [message async for message in ws] == []
        assert ws.close_code == 1006


@pytest.mark.parametrize("wire", [b"", b"\x83\x00", b"\x81\x05hal"])
async def test_a_lost_or_failed_connection_raises_out_of_the_loop(server: MemoryServer, wire: bytes) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        await server.peer.send(WsprotoText("a"))
        await server.peer.write(wire)
        server.peer.end()
        received: list[object] = []
        with pytest.raises(ConnectionClosed):
            async for message in ws:
                received.append(message.data)
        assert received == ["a"]


async def test_messages_that_arrived_before_the_end_are_delivered_before_the_end_is_reported(
    server: MemoryServer,
) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws, anyio.create_task_group() as tasks:
        tasks.start_soon(server.peer.answer_close)
        await server.peer.send(*(WsprotoText(str(n)) for n in range(5)))
        await anyio.wait_all_tasks_blocked()
        await ws.close()
        assert [await ws.recv() for _ in range(5)] == [TextMessage(str(n)) for n in range(5)]
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.clean


async def test_what_had_arrived_when_a_write_fails_waits_for_a_slow_receiver() -> None:
    server = MemoryServer(capacity=1 << 20)
    async with aconnect_ws("ws://test/", client=server.client, ping_interval=None) as ws:
        await server.peer.send(*(WsprotoText(str(n).zfill(100)) for n in range(3000)), CloseConnection(1001, "bye"))
        await anyio.wait_all_tasks_blocked()
        server.stream.outgoing.broken = True
        began = anyio.current_time()
        for lasted in (PATIENCE, 0):
            # What is said of a connection whose end is not known yet, and not before there was time to find it.
            with pytest.raises(ConnectionClosed, match="Broken pipe") as caught:
                await ws.send("too late")
            assert caught.value.code == 1006
            assert anyio.current_time() - began == pytest.approx(lasted)
            began = anyio.current_time()
        await anyio.sleep(60)
        assert [await ws.recv() for _ in range(3000)] == [TextMessage(str(n).zfill(100)) for n in range(3000)]
        assert await ws.recv() == CloseMessage(1001, "bye")
        with pytest.raises(ConnectionClosed) as caught:
            await ws.send("too late")
        assert caught.value.code == 1001


async def test_a_peer_that_says_nothing_more_is_not_waited_for_once_a_write_has_failed() -> None:
    server = MemoryServer(capacity=1 << 20)
    async with aconnect_ws("ws://test/", client=server.client, ping_interval=None) as ws:
        await server.peer.send(*(WsprotoText(str(n).zfill(100)) for n in range(3000)))
        await anyio.wait_all_tasks_blocked()
        server.stream.outgoing.broken = True
        with pytest.raises(ConnectionClosed):
            await ws.send("too late")
        assert [await ws.recv() for _ in range(3000)] == [TextMessage(str(n).zfill(100)) for n in range(3000)]
        began = anyio.current_time()
        with pytest.raises(ConnectionClosed, match="Broken pipe"):
            await ws.recv()
        assert anyio.current_time() - began == pytest.approx(LINGER)


async def test_each_message_goes_to_exactly_one_of_several_receivers_first_come_first_served(
    server: MemoryServer,
) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        received: list[tuple[int, object]] = []

        async def receive(number: int) -> None:
            received.append((number, await ws.recv()))

        async with anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon(receive, number)
                await anyio.wait_all_tasks_blocked()
            await server.peer.send(*(WsprotoText(str(n)) for n in range(4)))
            await server.peer.send(*(WsprotoText(str(n)) for n in range(4, 6)))
    assert received == [(number, TextMessage(str(number))) for number in range(6)]


async def test_the_end_wakes_all_receivers(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        outcomes: list[object] = []

        async def receive() -> None:
            try:
                outcomes.append(await ws.recv())
            except ConnectionClosed as closed:
                outcomes.append(closed.code)

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            await server.peer.send(CloseConnection(1001))
            server.peer.end()
    assert outcomes == [CloseMessage(1001, ""), 1001, 1001, 1001]


async def test_early_frames_behind_the_101_are_delivered() -> None:
    server = MemoryServer(trailing=b"\x81\x02hi\x89\x01p\x81\x04lat")
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        assert await ws.recv() == TextMessage("hi")
        assert await server.peer.receive() == Pong(b"p")
        await server.peer.write(b"e")
        assert await ws.recv() == PingMessage(b"p")
        assert await ws.recv() == TextMessage("late")


async def test_a_close_frame_behind_the_101_is_found() -> None:
    server = MemoryServer(trailing=b"\x88\x02\x03\xf3")
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        assert await ws.recv() == CloseMessage(1011, "")
        assert isinstance(await server.peer.receive(), CloseConnection)
        server.peer.end()


async def test_compressed_messages_go_both_ways() -> None:
    server = MemoryServer(deflate=True)
    async with aconnect_ws("ws://test/", client=server.client, permessage_deflate=True, close_timeout=0) as ws:
        assert ws.permessage_deflate is not None
        for _ in range(3):
            before = server.stream.outgoing.total
            await ws.send("zapros " * 1000)
            assert server.stream.outgoing.total - before < 200
            assert await server.peer.receive() == WsprotoText("zapros " * 1000)
            await server.peer.send(WsprotoText("sorpaz " * 1000))
            assert await ws.recv() == TextMessage("sorpaz " * 1000)
