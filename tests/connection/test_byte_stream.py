"""A connection as a stream of bytes: trio's own judgement on it, and what anyio's interface and the messages add."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import anyio.abc
import pytest
import trio
import trio.testing
import trustme
from anyio.streams.tls import TLSStream
from wsproto.events import BytesMessage, CloseConnection, Ping
from wsproto.events import TextMessage as WsprotoText
from zapros import AsyncClient, TrioStream

from tests.memory import Backend, MemoryServer, StreamHandler, autojump
from tests.relay import MemoryWire, Relay, Side, TrioWire
from zapros_websocket import (
    AsyncWebSocket,
    ConnectionClosed,
    TextMessage,
    UnexpectedMessageError,
    WebSocketByteStream,
    aconnect_ws,
    open_ws,
)
from zapros_websocket._byte_stream import MAX_MESSAGE

pytestmark = pytest.mark.anyio


class TestTrioJudges:
    """Two connections, a relay, and streams in lockstep beneath: nothing is buffered but what the reader has read."""

    @pytest.fixture
    def anyio_backend(self) -> Backend:
        return autojump("trio")

    async def test_check_two_way_stream(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("zapros_websocket._inbox.MAX_BYTES", 2 * MAX_MESSAGE)
        async with trio.open_nursery() as nursery:

            async def connect() -> tuple[AsyncWebSocket, AsyncWebSocket]:
                sockets: list[AsyncWebSocket] = []
                sides: list[Side] = []
                for _ in range(2):
                    ours, theirs = trio.testing.lockstep_stream_pair()
                    client = AsyncClient(handler=StreamHandler(TrioStream(ours)))
                    sockets.append(await open_ws(nursery, "ws://test/", client=client, close_timeout=1))
                    sides.append(Side(TrioWire(theirs)))
                relay = Relay(*sides)
                nursery.start_soon(relay.carry, 0)
                nursery.start_soon(relay.carry, 1)
                return sockets[0], sockets[1]

            async def stream_maker() -> tuple[trio.abc.Stream, trio.abc.Stream]:
                first, second = await connect()
                return first.as_stream(), second.as_stream()

            async def clogged_stream_maker() -> tuple[trio.abc.Stream, trio.abc.Stream]:
                """Both send until the reader of the other stops, and all in between with it."""
                both = await stream_maker()
                for stream in both:
                    while True:
                        with trio.move_on_after(1) as scope:
                            await stream.wait_send_all_might_not_block()
                        if scope.cancelled_caught:
                            break
                        await stream.send_all(bytes(MAX_MESSAGE))
                return both

            await trio.testing.check_two_way_stream(stream_maker, clogged_stream_maker)


@dataclass
class Pair:
    """A connection as a stream, and the peer that is moved by hand."""

    ws: AsyncWebSocket
    server: MemoryServer

    @property
    def stream(self) -> WebSocketByteStream:
        return self.ws.as_stream()


@pytest.fixture
async def pair(server: MemoryServer) -> AsyncIterator[Pair]:
    async with connected(server) as pair:
        yield pair


@asynccontextmanager
async def connected(server: MemoryServer) -> AsyncGenerator[Pair]:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=1) as ws:
        yield Pair(ws, server)


class TestReceiving:
    async def test_the_messages_are_one_stream(self, pair: Pair) -> None:
        await pair.server.peer.send(BytesMessage(b"one"), BytesMessage(b""), Ping(b"p"), BytesMessage(b"three"))
        assert await pair.stream.receive(2) == b"on"
        assert await pair.stream.receive_some(1) == b"e"
        assert await pair.stream.receive(4) == b"thre"
        assert await pair.stream.receive_some() == b"e"

    async def test_iteration_gives_what_comes(self, pair: Pair) -> None:
        await pair.server.peer.send(BytesMessage(b"one"), BytesMessage(b"two"), CloseConnection(1000))
        assert await pair.stream.receive(1) == b"o"
        assert [chunk async for chunk in pair.stream] == [b"ne", b"two"]

    async def test_an_error_is_one_of_both_libraries(self, pair: Pair) -> None:
        pair.server.peer.end()
        for error in (anyio.BrokenResourceError, trio.BrokenResourceError):
            with pytest.raises(error):
                async for _ in pair.stream:
                    pass

    async def test_it_is_the_same_stream_each_time(self, pair: Pair) -> None:
        assert isinstance(pair.stream, anyio.abc.ByteStream)
        assert isinstance(pair.stream, trio.abc.Stream)
        assert pair.ws.as_stream() is pair.ws.as_stream()

    @pytest.mark.parametrize("code", [1000, 1001, None])
    async def test_a_close_in_order_is_the_end(self, pair: Pair, code: int | None) -> None:
        await pair.server.peer.send(BytesMessage(b"last"), CloseConnection(1005 if code is None else code))
        assert await pair.stream.receive() == b"last"
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await pair.stream.receive()
            assert await pair.stream.receive_some(10) == b""
        with pytest.raises(anyio.BrokenResourceError):
            await pair.stream.send(b"late")
        with pytest.raises(trio.BrokenResourceError):
            await pair.stream.send_all(b"")
        with pytest.raises(trio.BrokenResourceError):
            await pair.stream.wait_send_all_might_not_block()

    async def test_a_close_that_was_received_as_a_message_is_the_end_as_well(self, pair: Pair) -> None:
        await pair.server.peer.send(CloseConnection(1000))
        assert (await pair.ws.recv()).kind == "close"
        assert await pair.stream.receive_some() == b""

    async def test_a_close_with_another_code_is_not_the_end(self, pair: Pair) -> None:
        await pair.server.peer.send(BytesMessage(b"half"), CloseConnection(1011, "the disk is full"))
        assert await pair.stream.receive() == b"half"
        with pytest.raises(anyio.BrokenResourceError, match="1011: 'the disk is full'") as caught:
            await pair.stream.receive()
        assert isinstance(caught.value.__cause__, ConnectionClosed)
        assert caught.value.__cause__.code == 1011

    async def test_a_lost_connection_is_not_the_end(self, pair: Pair) -> None:
        await pair.server.peer.send(BytesMessage(b"half"))
        pair.server.peer.end()
        assert await pair.stream.receive_some() == b"half"
        with pytest.raises(trio.BrokenResourceError, match="1006") as caught:
            await pair.stream.receive_some()
        assert isinstance(caught.value.__cause__, ConnectionClosed)

    async def test_a_text_message_is_an_error_and_stays(self, pair: Pair) -> None:
        await pair.server.peer.send(BytesMessage(b"1"), WsprotoText("text"), BytesMessage(b"2"))
        assert await pair.stream.receive() == b"1"
        for _ in range(2):
            with pytest.raises(anyio.BrokenResourceError, match="a text message of 4 characters came") as caught:
                await pair.stream.receive()
            assert isinstance(caught.value.__cause__, UnexpectedMessageError)
            with pytest.raises(trio.BrokenResourceError, match="recv"):
                await pair.stream.receive_some()
        assert await pair.ws.recv() == TextMessage("text")
        assert await pair.stream.receive() == b"2"

    async def test_cancelling_it_loses_nothing(self, pair: Pair) -> None:
        received = bytearray()
        async with anyio.create_task_group() as tasks:

            async def receive() -> None:
                received.extend(await pair.stream.receive(1))

            for number in range(20):
                scope = anyio.CancelScope()

                async def receive_unless_cancelled(scope: anyio.CancelScope = scope) -> None:
                    with scope:
                        await receive()

                tasks.start_soon(receive_unless_cancelled)
                await anyio.wait_all_tasks_blocked()
                await pair.server.peer.send(BytesMessage(bytes([number])))
                for _ in range(number % 5):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
                await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(1):
                while True:
                    await receive()
        assert received == bytes(range(20))

    async def test_how_much_must_be_asked_for_in_whole_bytes(self, pair: Pair) -> None:
        with pytest.raises(ValueError, match="at least 1, and is 0"):
            await pair.stream.receive(0)
        with pytest.raises(TypeError, match="an int or None, not float"):
            await pair.stream.receive_some(1.5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


class TestSending:
    async def test_much_goes_out_in_messages_of_64_kib(self) -> None:
        async with connected(MemoryServer(capacity=1 << 20)) as pair:
            await pair.stream.send(bytes(MAX_MESSAGE) + b"x")
            await pair.stream.send_all(bytearray(b"y"))
            await pair.stream.send_all(memoryview(b"abcdef")[::2])
            await pair.stream.send_all(b"")
            for expected in (bytes(MAX_MESSAGE), b"x", b"y", b"ace"):
                assert await pair.server.peer.receive_message() == expected

    async def test_text_is_no_bytes(self, pair: Pair) -> None:
        with pytest.raises(TypeError, match="bytes-like"):
            await pair.stream.send("text")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

    async def test_there_is_no_end_in_one_direction(self, pair: Pair) -> None:
        with pytest.raises(NotImplementedError, match="in one direction"):
            await pair.stream.send_eof()
        await pair.stream.send(b"still there")
        assert await pair.server.peer.receive_message() == b"still there"


class TestOneAtATime:
    async def test_a_second_receiver_is_refused(self, pair: Pair) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.stream.receive)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError, match="receiving from"):
                await pair.stream.receive()
            with pytest.raises(trio.BusyResourceError, match="receiving from"):
                await pair.stream.receive_some()
            await pair.server.peer.send(BytesMessage(b"1"))

    async def test_a_second_sender_is_refused(self) -> None:
        async with connected(MemoryServer(capacity=10)) as pair, anyio.create_task_group() as tasks:
            tasks.start_soon(pair.stream.send, bytes(100))
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError, match="sending to"):
                await pair.stream.send(b"")
            with pytest.raises(trio.BusyResourceError, match="sending to"):
                await pair.stream.wait_send_all_might_not_block()
            assert await pair.server.peer.receive_message() == bytes(100)


class TestClosing:
    async def test_it_closes_the_connection(self, pair: Pair) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.server.peer.serve)
            async with pair.stream as stream:
                await stream.send(b"last")
        assert pair.ws.close_code == 1000
        assert pair.server.stream.is_closed
        await pair.stream.aclose()
        for call in (pair.stream.receive(), pair.stream.send(b"")):
            with pytest.raises(anyio.ClosedResourceError):
                await call
        for other in (
            pair.stream.receive_some(),
            pair.stream.send_all(b""),
            pair.stream.wait_send_all_might_not_block(),
        ):
            with pytest.raises(trio.ClosedResourceError):
                await other

    async def test_what_is_under_way_ends_at_once(self) -> None:
        server = MemoryServer(capacity=10)
        async with connected(server) as pair, anyio.create_task_group() as tasks:

            async def receive() -> None:
                with pytest.raises(anyio.ClosedResourceError):
                    await pair.stream.receive()
                assert anyio.current_time() == began

            async def send() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await pair.stream.send_all(bytes(100))
                assert anyio.current_time() == began

            tasks.start_soon(receive)
            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            began = anyio.current_time()
            await pair.stream.aclose()

    async def test_it_is_closed_when_closing_is_cancelled(self, pair: Pair) -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await pair.stream.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await pair.stream.receive()
        assert (await pair.server.peer.answer_close()).code == 1000

    async def test_a_connection_that_was_closed_by_itself_is_a_closed_stream(self, pair: Pair) -> None:
        await pair.ws.close()
        with pytest.raises(anyio.ClosedResourceError) as caught:
            await pair.stream.receive()
        assert isinstance(caught.value.__cause__, ConnectionClosed)
        with pytest.raises(trio.ClosedResourceError):
            await pair.stream.send_all(b"late")


async def test_what_is_unread_is_not_kept_by_a_closed_stream(pair: Pair) -> None:
    await pair.server.peer.send(BytesMessage(bytes(100)))
    assert await pair.stream.receive(1) == b"\x00"
    await pair.stream.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await pair.stream.receive(1)


async def test_tls_of_anyio_runs_over_it() -> None:
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("test").configure_cert(server_context)  # pyright: ignore[reportUnknownMemberType]
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client_context)  # pyright: ignore[reportUnknownMemberType]
    secret = os.urandom(200_000)
    async with (
        anyio.create_task_group() as tasks,
        connected(MemoryServer()) as first,
        connected(MemoryServer()) as second,
    ):
        relay = Relay(*(Side(MemoryWire(pair.server.peer.stream)) for pair in (first, second)))
        tasks.start_soon(relay.carry, 0)
        tasks.start_soon(relay.carry, 1)

        async def echo() -> None:
            tls = await TLSStream.wrap(second.stream, server_side=True, ssl_context=server_context)
            async for chunk in tls:
                await tls.send(chunk)
            await tls.aclose()

        tasks.start_soon(echo)
        tls = await TLSStream.wrap(first.stream, hostname="test", ssl_context=client_context)
        tasks.start_soon(tls.send, secret)
        received = b""
        while len(received) < len(secret):
            received += await tls.receive()
        assert received == secret
        await tls.aclose()
    assert first.ws.close_code == second.ws.close_code == 1000
