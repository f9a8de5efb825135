"""A task that waits in ``recv`` on trio receives by itself, when one message comes soon after the other."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from math import inf

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto.connection import SERVER, Connection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong
from zapros import AsyncClient

from tests.conftest import NO_OPTIONS, Backend
from tests.interrupts import InterruptingSocket, interrupts_come_out
from tests.memory import StreamHandler
from zapros_websocket import (
    AsyncWebSocket,
    BinaryMessage,
    CloseMessage,
    ConnectionClosed,
    Observer,
    PingMessage,
    aconnect_ws,
)
from zapros_websocket._streams import sockets, watch

from .test_pump import LARGE, tcp_pair

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Backend:
    return "trio", NO_OPTIONS


@pytest.fixture(autouse=True)
def at_any_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    # The watch is left at the second message, however long that takes, and never comes back by itself.
    monkeypatch.setattr(watch, "SOON", inf)
    monkeypatch.setattr(watch, "PATIENCE", inf)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tasks that have read while they were on watch."""
    names: list[str] = []
    read = watch.Watch.read

    def noted(self: watch.Watch) -> None:
        names.append(trio.lowlevel.current_task().name)
        read(self)

    monkeypatch.setattr(watch.Watch, "read", noted)
    return names


@asynccontextmanager
async def connected(
    *,
    kind: type[socket.socket] = socket.socket,
    ping_interval: float | None = None,
    large: bool = False,
    observer: Observer | None = None,
) -> AsyncGenerator[tuple[AsyncWebSocket, socket.socket, Callable[[Event], bytes]]]:
    ours, theirs = tcp_pair()
    stream = sockets.SocketStream(kind(fileno=ours.detach()), ssl.create_default_context())
    stream._socket.setblocking(False)  # pyright: ignore[reportPrivateUsage]
    with theirs:
        async with aconnect_ws(
            "ws://t/",
            client=AsyncClient(handler=StreamHandler(stream)),
            close_timeout=0,
            ping_interval=ping_interval,
            observer=observer,
            stream_large_messages=large,
            max_message_size=1000 if large else 1 << 26,
        ) as ws:
            yield ws, theirs, Connection(SERVER).send


async def converse(ws: AsyncWebSocket, theirs: socket.socket, send: Callable[[Event], bytes], times: int = 2) -> None:
    """Messages for which a task waits: behind two of them the watch is left to who waits next."""
    for number in range(times):
        async with trio.open_nursery() as nursery:

            async def expect(message: BinaryMessage) -> None:
                assert await ws.recv() == message

            nursery.start_soon(expect, BinaryMessage(b"%d" % number))
            await wait_all_tasks_blocked()
            theirs.sendall(send(BytesMessage(b"%d" % number)))


async def receive(ws: AsyncWebSocket, into: list[object]) -> None:
    try:
        into.append(await ws.recv())
    except ConnectionClosed as error:
        into.append(error)


@asynccontextmanager
async def waiting(ws: AsyncWebSocket, received: list[object]) -> AsyncGenerator[trio.Nursery, None]:
    """A task waits for a message in the block, and is waited for at its end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, ws, received)
        await wait_all_tasks_blocked()
        yield nursery


def seen(theirs: socket.socket) -> list[Event]:
    """What the client has sent."""
    server = Connection(SERVER)
    server.receive_data(theirs.recv(100))
    return list(server.events())


async def test_behind_two_messages_the_third_is_received_by_who_waits_for_it(reads: list[str]) -> None:
    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send)
        assert not reads
        await converse(ws, theirs, send, times=3)
        assert len(reads) == 3
        assert all(name.endswith("expect") for name in reads)


async def test_a_message_in_pieces_is_received_by_the_reader_whom_it_was_waited_for_with(reads: list[str]) -> None:
    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send, times=1)
        received: list[object] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, ws, received)
            for piece in (b"\x82", b"\x03a", b"bc"):
                await wait_all_tasks_blocked()
                theirs.sendall(piece)
        assert received == [BinaryMessage(b"abc")]
        assert not reads


async def test_several_messages_in_one_read_come_one_by_one(reads: list[str]) -> None:
    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send)
        theirs.sendall(b"".join(send(BytesMessage(b"%d" % number)) for number in range(50)))
        assert [await ws.recv() for _ in range(50)] == [BinaryMessage(b"%d" % number) for number in range(50)]
        assert reads


async def test_a_ping_is_answered_by_the_task_on_watch(reads: list[str]) -> None:
    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send)
        received: list[object] = []
        async with waiting(ws, received):
            theirs.sendall(send(Ping(b"?")))
            await wait_all_tasks_blocked()
        assert received == [PingMessage(b"?")]
        assert seen(theirs) == [Pong(b"?")]
        assert len(reads) == 1


async def test_a_ping_that_cannot_be_answered_at_once_is_left_to_the_reader(
    reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_now(self: sockets.SocketStream) -> bool:
        return False

    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send)
        received: list[object] = []
        async with waiting(ws, received):
            with monkeypatch.context() as patch:
                patch.setattr(sockets.SocketStream, "is_writable", not_now)
                theirs.sendall(send(Ping(b"?")))
                await wait_all_tasks_blocked()
        assert received == [PingMessage(b"?")]
        assert seen(theirs) == [Pong(b"?")]
        assert len(reads) == 1
        # The reader has the watch again, and goes on.
        theirs.sendall(send(BytesMessage(b"next")))
        assert await ws.recv() == BinaryMessage(b"next")


async def test_the_close_of_the_peer_on_watch_is_left_to_the_reader(reads: list[str]) -> None:
    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send)
        received: list[object] = []
        async with waiting(ws, received):
            theirs.sendall(send(CloseConnection(1001)))
            await wait_all_tasks_blocked()
        assert received == [CloseMessage(1001, "")]
        assert seen(theirs) == [CloseConnection(1001, "")]
        assert len(reads) == 1


@pytest.mark.parametrize("anyio_backend", [("trio", {"clock": (CLOCK := MockClock())})], ids=["trio"])
async def test_the_watch_comes_back_when_nothing_was_received_for_a_while(
    monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    monkeypatch.setattr(watch, "PATIENCE", 10)
    monkeypatch.setattr(watch, "_goes_on_by_itself", lambda: True)
    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send)
        CLOCK.jump(9)
        await converse(ws, theirs, send, times=1)
        assert len(reads) == 1
        CLOCK.jump(1)
        await wait_all_tasks_blocked()
        await converse(ws, theirs, send, times=1)
        assert len(reads) == 2
        for _ in range(2):
            CLOCK.jump(10)
            await wait_all_tasks_blocked()
        theirs.sendall(send(Ping(b"?")))
        await wait_all_tasks_blocked()
        assert seen(theirs) == [Pong(b"?")]


async def test_two_tasks_that_wait_are_served_by_the_reader_in_turn(reads: list[str]) -> None:
    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send)
        received: list[object] = []
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(receive, ws, received)
                await wait_all_tasks_blocked()
            theirs.sendall(b"".join(send(BytesMessage(b"%d" % number)) for number in range(3)))
        assert received == [BinaryMessage(b"0"), BinaryMessage(b"1"), BinaryMessage(b"2")]
        assert not reads


async def test_a_second_task_does_not_disturb_a_send_that_waits_for_the_socket() -> None:
    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send)
        received: list[object] = []
        async with waiting(ws, received) as nursery:
            nursery.start_soon(ws.send, LARGE)
            await wait_all_tasks_blocked()
            nursery.start_soon(receive, ws, received)
            await wait_all_tasks_blocked()
            theirs.setblocking(False)
            server, size = Connection(SERVER), 0
            while size < len(LARGE):
                await trio.lowlevel.wait_readable(theirs)
                server.receive_data(theirs.recv(1 << 20))
                for event in server.events():
                    assert isinstance(event, BytesMessage)
                    size += len(event.data)
            theirs.sendall(send(BytesMessage(b"0")) + send(BytesMessage(b"1")))
        assert received == [BinaryMessage(b"0"), BinaryMessage(b"1")]


async def test_a_task_that_loses_the_watch_in_the_moment_in_which_something_comes_leaves_it_to_the_reader(
    reads: list[str],
) -> None:
    class TakingBack(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            if task.name.endswith("receive"):
                ws._inbox.take_back()  # pyright: ignore[reportPrivateUsage]

    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send)
        received: list[object] = []
        async with waiting(ws, received):
            trio.lowlevel.add_instrument(TakingBack())
            theirs.sendall(send(BytesMessage(b"once")))
        assert received == [BinaryMessage(b"once")]
        assert not reads


async def test_cancelling_the_task_on_watch_loses_nothing() -> None:
    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send)
        received: list[object] = []
        for number in range(5):
            async with waiting(ws, received) as nursery:
                theirs.sendall(send(BytesMessage(b"%d" % number)))
                nursery.cancel_scope.cancel()
        while len(received) < 5:
            await receive(ws, received)
        assert received == [BinaryMessage(b"%d" % number) for number in range(5)]


async def test_a_ping_of_our_own_has_the_reader_back_for_its_pong() -> None:
    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.ping)
            theirs.setblocking(False)
            await trio.lowlevel.wait_readable(theirs)
            [event] = seen(theirs)
            assert isinstance(event, Ping)
            theirs.sendall(send(event.response()))


@pytest.mark.parametrize("anyio_backend", [("trio", {"clock": (PING_CLOCK := MockClock())})], ids=["trio"])
async def test_keepalive_has_the_reader_back_for_its_pong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_goes_on_by_itself", lambda: True)
    async with connected(ping_interval=10) as (ws, theirs, send):
        await converse(ws, theirs, send)
        PING_CLOCK.jump(10)
        await wait_all_tasks_blocked()
        [event] = seen(theirs)
        assert isinstance(event, Ping)
        theirs.sendall(send(event.response()))
        await wait_all_tasks_blocked()
        assert ws.latency == 0


async def test_closing_ends_the_wait_on_watch() -> None:
    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send)
        received: list[object] = []
        async with waiting(ws, received):
            await ws.close()
        assert isinstance(received[0], ConnectionClosed)


async def test_a_reset_is_found_on_watch() -> None:
    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send)
        received: list[object] = []
        async with waiting(ws, received):
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            theirs.close()
        [error] = received
        assert isinstance(error, ConnectionClosed)
        assert isinstance(error.__cause__, ConnectionResetError)


async def test_a_socket_that_somebody_closes_is_found_on_watch() -> None:
    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send)
        received: list[object] = []
        async with waiting(ws, received):
            await ws._link.stream.aclose(grace=0)  # pyright: ignore[reportPrivateUsage]
        assert isinstance(received[0], ConnectionClosed)


async def test_a_message_in_many_reads_is_received_by_who_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    # A buffer that each read fills.
    monkeypatch.setattr(sockets, "buffer_here", lambda: memoryview(bytearray(1)))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send)
        received: list[object] = []
        async with waiting(ws, received) as nursery:
            nursery.start_soon(count)
            theirs.sendall(send(BytesMessage(bytes(100))))
            while not received:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert received == [BinaryMessage(bytes(100))]
        assert len(reads) == 102
        assert turns >= 102 // watch.READS_IN_A_ROW - 2
        # It did not run dry: the reader reads on.
        theirs.sendall(send(BytesMessage(b"next")))
        assert await ws.recv() == BinaryMessage(b"next")


async def test_behind_more_than_was_waited_for_the_reader_keeps_the_watch_for_a_few_messages(
    monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    # Each of two messages that come together fills it.
    monkeypatch.setattr(sockets, "buffer_here", lambda: memoryview(bytearray(10)))
    async with connected() as (ws, theirs, send):
        await converse(ws, theirs, send)
        received: list[object] = []
        async with waiting(ws, received):
            theirs.sendall(send(BytesMessage(b"12345678")) * 2)
        assert received == [BinaryMessage(b"12345678")]
        assert await ws.recv() == BinaryMessage(b"12345678")
        assert len(reads) == 1
        await converse(ws, theirs, send, times=watch.MESSAGES_TO_KEEP + 1)
        assert len(reads) == 1
        await converse(ws, theirs, send, times=1)
        assert len(reads) == 2


async def test_the_parts_of_a_large_message_are_received_by_the_reader() -> None:
    async with connected(large=True) as (ws, theirs, send):
        await converse(ws, theirs, send)
        message = send(BytesMessage(bytes(5000)))
        chunks: list[str | bytes] = []

        async def receive_chunks() -> None:
            async with ws.recv_chunks() as incoming:
                async for chunk in incoming:
                    chunks.append(chunk)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_chunks)
            for begin in range(0, len(message), 1000):
                await wait_all_tasks_blocked()
                theirs.sendall(message[begin : begin + 1000])
        assert sum(map(len, chunks)) == 5000


def test_an_interrupt_while_it_reads_loses_nothing(reads: list[str]) -> None:
    async def receive_interrupted() -> None:
        async with connected(kind=InterruptingSocket) as (ws, theirs, send):
            await converse(ws, theirs, send)
            theirs.sendall(send(BytesMessage(b"kept")))
            InterruptingSocket.is_due = True
            assert await ws.recv() == BinaryMessage(b"kept")
            with pytest.raises(KeyboardInterrupt):
                await trio.lowlevel.checkpoint()
            assert len(reads) == 1

    # It comes out in the main task.
    with interrupts_come_out():
        trio.run(receive_interrupted)


async def test_the_watch_is_not_left_where_time_stands_still(reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "PATIENCE", 0.02)

    async def converse_for_long() -> None:
        async with connected() as (ws, theirs, send):
            await converse(ws, theirs, send, times=5)

    await converse_for_long()
    assert reads
    reads.clear()
    # trio has one event loop a thread.
    await trio.to_thread.run_sync(lambda: trio.run(converse_for_long, clock=MockClock()))
    assert not reads
