"""SPEC "Concurrency": many tasks, backpressure, and what stays independent of what."""

from __future__ import annotations

import socket
import ssl

import anyio
import pytest
from wsproto.events import BytesMessage, Ping, Pong
from wsproto.events import TextMessage as WsprotoText
from zapros import AsyncClient

from tests.memory import MemoryServer, StreamHandler
from tests.protocol.wire import Server
from tests.turns import turns_of_another
from zapros_websocket import BinaryMessage, CloseMessage, ConnectionClosed, PingMessage, TextMessage, _pace, aconnect_ws
from zapros_websocket._streams.sockets import SocketStream

pytestmark = pytest.mark.anyio


async def test_frames_of_many_senders_never_interleave() -> None:
    server = MemoryServer(capacity=1000)
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
        anyio.create_task_group() as tasks,
    ):
        for number in range(100):
            tasks.start_soon(ws.send, chr(number + 33) * (number * 37 + 1))
        received = [await server.peer.receive_message() for _ in range(100)]
    assert sorted(map(str, received)) == sorted(chr(number + 33) * (number * 37 + 1) for number in range(100))


async def test_sends_go_out_in_the_order_of_the_calls() -> None:
    server = MemoryServer(capacity=10)
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
        anyio.create_task_group() as tasks,
    ):
        for number in range(20):
            tasks.start_soon(ws.send, str(number))
            await anyio.wait_all_tasks_blocked()
        assert [await server.peer.receive_message() for _ in range(20)] == [str(number) for number in range(20)]


async def test_sends_that_need_not_wait_go_out_in_the_order_of_the_calls() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    client = AsyncClient(handler=StreamHandler(SocketStream(ours, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))))
    with theirs:
        async with aconnect_ws("ws://test/", client=client, close_timeout=0) as ws:
            called: list[str] = []

            async def send(text: str) -> None:
                called.append(text)
                await ws.send(text)

            async with anyio.create_task_group() as tasks:
                for number in range(100):
                    tasks.start_soon(send, str(number))
            peer = Server()
            received = [message.data for message in peer.read(theirs.recv(65536)) if isinstance(message, TextMessage)]
    assert received == called


async def test_pings_are_answered_while_a_send_is_blocked_once_its_frame_has_left() -> None:
    server = MemoryServer(capacity=100)
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
        anyio.create_task_group() as tasks,
    ):
        for message in (b"x" * 300, b"second"):
            tasks.start_soon(ws.send, message)
            await anyio.wait_all_tasks_blocked()
        for number in range(20):
            await server.peer.send(Ping(str(number).encode()))
        await anyio.wait_all_tasks_blocked()
        assert await server.peer.receive_message() == b"x" * 300
        # In front of the message that waits, and only the answers to the newest (RFC 6455, section 5.5.3).
        for number in range(4, 20):
            assert await server.peer.receive() == Pong(str(number).encode())
        assert await server.peer.receive() == BytesMessage(b"second")


async def test_a_blocked_send_never_stops_reading() -> None:
    server = MemoryServer(capacity=100)
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
        anyio.create_task_group() as tasks,
    ):

        async def send() -> None:
            with pytest.raises(ConnectionClosed, match="reset by peer"):
                await ws.send(bytes(1000))

        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        for number in range(50):
            await server.peer.send(WsprotoText(str(number)), Ping(b"p"))
            assert await ws.recv() == TextMessage(str(number))
            assert await ws.recv() == PingMessage(b"p")
        server.peer.reset()
        with pytest.raises(ConnectionClosed, match="reset by peer"):
            await ws.recv()


@pytest.mark.parametrize(("size", "most"), [(1, 2500), (100_000, 60)])
async def test_unread_messages_are_bounded_in_number_and_in_bytes(size: int, most: int) -> None:
    server = MemoryServer(capacity=1000)
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
        anyio.create_task_group() as tasks,
    ):
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while sent < 5000:
                await server.peer.send(BytesMessage(sent.to_bytes(2, "big") + bytes(size)))
                sent += 1

        tasks.start_soon(flood)
        await anyio.wait_all_tasks_blocked()
        assert sent < most
        # Nothing is lost, and the reader goes on when there is room.
        for number in range(sent + 100):
            message = await ws.recv()
            assert isinstance(message.data, bytes)  # type: ignore[union-attr]
            assert int.from_bytes(message.data[:2], "big") == number  # type: ignore[union-attr]
        tasks.cancel_scope.cancel()


async def test_the_reader_stops_before_the_next_read_and_never_in_what_it_has_read() -> None:
    server = MemoryServer(capacity=1 << 20)
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0):
        # One read: more messages than the bound, and a ping behind them.
        await server.peer.write(b"\x81\x01x" * 5000 + b"\x89\x01p")
        assert await server.peer.receive() == Pong(b"p")


async def test_control_messages_that_nobody_reads_are_bounded_and_hold_no_data_back(server: MemoryServer) -> None:
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(server.peer.serve)
        await server.peer.send(WsprotoText("first"))
        for number in range(2000):
            await server.peer.send(Ping(str(number).encode()))
        await server.peer.send(WsprotoText("last"))
        await anyio.wait_all_tasks_blocked()
        assert await ws.recv() == TextMessage("first")
        pings = 0
        while isinstance(message := await ws.recv(), PingMessage):
            pings += 1
        assert message == TextMessage("last")
        assert 0 < pings <= 1024
        tasks.cancel_scope.cancel()


async def test_a_write_that_fails_reports_the_peers_close_where_there_was_one(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        await server.peer.write(b"\x88\x02\x0f\xa1")
        server.stream.outgoing.broken = True
        with pytest.raises(ConnectionClosed) as caught:
            await ws.send("x")
        assert caught.value.code == 4001
        assert caught.value.__cause__ is not None
        server.peer.end()


async def test_a_write_that_fails_ends_the_connection_even_when_nothing_more_comes(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        server.stream.outgoing.broken = True
        began = anyio.current_time()
        with pytest.raises(ConnectionClosed) as caught:
            await ws.send("x")
        assert (caught.value.code, str(caught.value.__cause__)) == (1006, "Broken pipe")
        assert anyio.current_time() - began <= 1
        with pytest.raises(ConnectionClosed, match="Broken pipe"):
            await ws.recv()


async def test_a_pong_that_cannot_be_written_ends_the_connection(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        server.stream.outgoing.broken = True
        await server.peer.send(Ping(b"1"))
        assert await ws.recv() == PingMessage(b"1")
        await server.peer.send(Ping(b"2"))
        with pytest.raises(ConnectionClosed, match="Broken pipe"):
            while True:
                await ws.recv()


async def test_a_close_message_that_cannot_be_written_raises(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        server.stream.outgoing.broken = True
        with pytest.raises(ConnectionClosed, match="Broken pipe"):
            await ws.send(CloseMessage())


async def test_a_message_that_another_takes_during_a_turn_of_the_scheduler_is_waited_for_again(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        await server.peer.send(WsprotoText("taken"))
        await anyio.wait_all_tasks_blocked()
        pace = type(_pace.pace_here())
        observe = pace.observe

        async def observe_while_another_takes(self: _pace.Pace) -> None:
            monkeypatch.setattr(pace, "observe", observe)
            assert await ws.recv() == TextMessage("taken")
            await server.peer.send(WsprotoText("next"))

        monkeypatch.setattr(_pace, "knows_trio", False)
        monkeypatch.setattr(_pace, "knows_anyio", False)
        monkeypatch.setattr(pace, "observe", observe_while_another_takes)
        assert await ws.recv() == TextMessage("next")


async def test_fragments_and_pings_without_end_leave_others_their_turn() -> None:
    server = MemoryServer(capacity=1 << 20, trailing=b"\x02\x01x" + b"\x00\x01x" * 5000)
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
        turns_of_another() as turns,
    ):
        await server.peer.write(b"\x80\x01x" + b"\x89\x00" * 5000 + b"\x81\x04last")
        assert await ws.recv() == BinaryMessage(b"x" * 5002)
        while await ws.recv() != TextMessage("last"):
            pass
        assert turns() > 15


async def test_a_pong_goes_out_before_a_message_that_is_sent_after_its_ping_was_received(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        for number in range(20):
            await server.peer.send(Ping(str(number).encode()), WsprotoText("echo this"))
            assert isinstance(await ws.recv(), PingMessage)
            assert await ws.recv() == TextMessage("echo this")
            await ws.send("echo this")
            assert await server.peer.receive() == Pong(str(number).encode())
            assert await server.peer.receive() == WsprotoText("echo this")
