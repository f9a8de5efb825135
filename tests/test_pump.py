"""Receiving and sending on a real socket, at once where that can be: what it does when it cannot."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import ClassVar

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint
from wsproto.connection import SERVER, Connection
from wsproto.events import BytesMessage, Ping, Pong
from zapros import AsyncClient

from tests.memory import StreamHandler
from tests.turns import turns_of_another
from zapros_websocket import (
    AsyncWebSocket,
    BinaryMessage,
    ConnectionClosed,
    Message,
    PingMessage,
    PongMessage,
    TextMessage,
    _pace,
    aconnect_ws,
)
from zapros_websocket._streams import sockets
from zapros_websocket._streams.tls import buffer_here

pytestmark = pytest.mark.anyio

LARGE = bytes(range(256)) * 4096 * 4


class Collected:
    """A sink that keeps what it takes."""

    takers = None

    def __init__(self, *, wants: int) -> None:
        self.data = b""
        self.takes = 0
        self.has_taken = anyio.Event()
        self._wants = wants

    def take(self, data: bytes | memoryview) -> bool:
        self.data += bytes(data)
        self.takes += 1
        self.has_taken.set()
        return bool(data) and len(self.data) < self._wants

    def room(self) -> memoryview | None:
        return None

    def fill(self, count: int) -> bool:
        raise NotImplementedError


def pair(kind: type[socket.socket] = socket.socket) -> tuple[sockets.SocketStream, socket.socket]:
    ours, theirs = socket.socketpair()
    sock = kind(fileno=ours.detach())
    sock.setblocking(False)
    return sockets.SocketStream(sock, ssl.create_default_context()), theirs


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setblocking(False)
    return ours, theirs


class Watched(Collected):
    """One that looks whose buffer it is that it takes from."""

    def __init__(self) -> None:
        super().__init__(wants=2)
        self.is_of_this_thread: list[bool] = []

    def take(self, data: bytes | memoryview) -> bool:
        assert isinstance(data, memoryview)
        self.is_of_this_thread.append(data.obj is buffer_here().obj)
        return super().take(data)


@pytest.fixture
async def connected() -> AsyncIterator[tuple[AsyncWebSocket, socket.socket]]:
    ours, theirs = tcp_pair()
    stream = sockets.SocketStream(ours, ssl.create_default_context())
    with theirs:
        async with aconnect_ws("ws://t/", client=AsyncClient(handler=StreamHandler(stream)), close_timeout=0) as ws:
            yield ws, theirs


async def read_message(theirs: socket.socket) -> bytes:
    """The next binary message of the client, as the server sees it."""
    theirs.setblocking(False)
    protocol = Connection(SERVER)
    received = bytearray()
    while True:
        with suppress(BlockingIOError):
            protocol.receive_data(theirs.recv(1 << 20))
            for event in protocol.events():
                assert isinstance(event, BytesMessage)
                received += event.data
                if event.message_finished:
                    return bytes(received)
        await checkpoint()


async def test_a_message_that_the_socket_takes_in_part_is_written_to_its_end(
    connected: tuple[AsyncWebSocket, socket.socket],
) -> None:
    ws, theirs = connected
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ws.send, LARGE)
        assert await read_message(theirs) == LARGE


async def test_a_large_message_waits_until_the_socket_takes_a_byte(
    connected: tuple[AsyncWebSocket, socket.socket],
) -> None:
    ws, theirs = connected
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ws.send, LARGE)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(ws.send, LARGE[::-1])
        await anyio.wait_all_tasks_blocked()
        assert await read_message(theirs) == LARGE


async def test_a_send_that_was_cancelled_with_a_part_written_is_the_last(
    connected: tuple[AsyncWebSocket, socket.socket],
) -> None:
    ws, _ = connected
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ws.send, LARGE)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    with pytest.raises(ConnectionClosed, match="a send was cancelled"):
        await ws.send("more")


async def test_a_send_on_a_connection_that_was_reset_says_so(connected: tuple[AsyncWebSocket, socket.socket]) -> None:
    ws, theirs = connected
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            await ws.send("into the void")
    assert caught.value.code == 1006
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_large_message_is_received_to_where_it_stays(connected: tuple[AsyncWebSocket, socket.socket]) -> None:
    ws, theirs = connected
    protocol = Connection(SERVER)
    frames = protocol.send(BytesMessage(LARGE)) + protocol.send(BytesMessage(b"behind"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, lambda: theirs.sendall(frames))
        assert await ws.recv() == BinaryMessage(LARGE)
        assert await ws.recv() == BinaryMessage(b"behind")


async def test_a_ping_is_answered_from_where_no_task_can_be_started(
    connected: tuple[AsyncWebSocket, socket.socket],
) -> None:
    ws, theirs = connected
    protocol = Connection(SERVER)
    await anyio.wait_all_tasks_blocked()
    for number in (b"1", b"2"):
        theirs.sendall(protocol.send(Ping(number)))
        assert await ws.recv() == PingMessage(number)
        await anyio.wait_all_tasks_blocked()
        protocol.receive_data(theirs.recv(100))
        assert list(protocol.events()) == [Pong(number)]


async def test_a_pump_goes_on_where_the_last_one_stopped() -> None:
    stream, theirs = pair()
    with theirs:
        for text in (b"one", b"two"):
            theirs.send(text)
            await stream.pump(sink := Collected(wants=3))
            assert sink.data == text
        theirs.close()
        await stream.pump(sink := Collected(wants=3))
        assert sink.data == b""
    await stream.close()


async def test_cancelling_a_pump_loses_nothing() -> None:
    stream, theirs = pair()
    sink = Collected(wants=6)
    with theirs:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.pump, sink)
                await anyio.wait_all_tasks_blocked()
                theirs.send(b"one")
                await sink.has_taken.wait()
                scope.cancel()
        theirs.send(b"two")
        await anyio.wait_all_tasks_blocked()
        assert sink.data == b"one"
        await stream.pump(sink)
        assert sink.data == b"onetwo"
    await stream.close()


async def test_what_is_closed_while_it_is_read_leaves_nothing_to_the_next_with_its_number() -> None:
    stream, theirs = pair()
    number = stream._socket.fileno()  # pyright: ignore[reportPrivateUsage]
    with theirs:
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                with pytest.raises((anyio.ClosedResourceError, trio.ClosedResourceError)):
                    await stream.pump(Watched())

            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await stream.close()
    ours, theirs = socket.socketpair()
    if theirs.fileno() == number:
        ours, theirs = theirs, ours
    if ours.fileno() != number:
        os.dup2(ours.fileno(), number)
        ours.close()
        ours = socket.socket(fileno=number)
    with ours, theirs:

        async def wait() -> None:
            await anyio.wait_readable(ours)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.deadline = anyio.current_time() + 30
            theirs.send(b"x")
        assert not tasks.cancel_scope.cancelled_caught


async def test_closing_a_stream_ends_its_pump() -> None:
    stream, theirs = pair()
    with theirs:
        async with anyio.create_task_group() as tasks:

            async def pump() -> None:
                with pytest.raises((anyio.ClosedResourceError, trio.ClosedResourceError)):
                    await stream.pump(Collected(wants=1))

            tasks.start_soon(pump)
            await anyio.wait_all_tasks_blocked()
            await stream.close()


async def test_a_pump_that_never_runs_dry_leaves_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    # A buffer that each read fills is what a peer without end does.
    monkeypatch.setattr(sockets, "buffer_here", lambda: memoryview(bytearray(1)))
    stream, theirs = pair()
    with theirs:
        theirs.send(bytes(200))
        async with turns_of_another() as turns:
            sink = Collected(wants=200)
            await stream.pump(sink)
            assert turns() >= 200 // 16 - 2
    assert sink.takes == 200
    await stream.close()


async def test_a_pump_that_is_cancelled_with_more_to_read_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "buffer_here", lambda: memoryview(bytearray(1)))
    stream, theirs = pair()
    scope = anyio.CancelScope()

    class Cancelling(Collected):
        def take(self, data: bytes | memoryview) -> bool:
            if self.takes == 7:
                scope.cancel()
            return super().take(data)

    sink = Cancelling(wants=200)
    with theirs:
        theirs.send(bytes(200))
        with scope:
            await stream.pump(sink)
        taken = sink.takes
        await anyio.wait_all_tasks_blocked()
        assert 8 <= sink.takes == taken < 200
        await stream.pump(sink)
    assert sink.takes == 200
    await stream.close()


async def test_a_pump_takes_part_when_the_server_shakes_hands_anew() -> None:
    class Renegotiating(socket.socket):
        wants: ClassVar[list[Exception]] = []

        def recv_into(self, buffer: memoryview) -> int:  # type: ignore[override]
            if self.wants:
                raise self.wants.pop()
            return super().recv_into(buffer)

        def send(self, data: memoryview, flags: int = 0) -> int:  # type: ignore[override]
            if self.wants:
                raise self.wants.pop()
            return super().send(data, flags)

    stream, theirs = pair(Renegotiating)
    with theirs:
        theirs.send(b"hello")
        Renegotiating.wants[:] = [ssl.SSLWantWriteError()]
        await stream.pump(sink := Collected(wants=5))
        assert sink.data == b"hello"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.pump, sink := Collected(wants=5))
            await anyio.wait_all_tasks_blocked()
            Renegotiating.wants[:] = [ssl.SSLWantReadError()]
            tasks.start_soon(stream.send_all, b"waits")
            await anyio.wait_all_tasks_blocked()
            theirs.send(b"again")
        assert sink.data == b"again"
        assert theirs.recv(10) == b"waits"
    await stream.close()


class WithoutReadiness(asyncio.SelectorEventLoop):
    """As the event loop of Windows is by default."""

    def add_reader(self, fd: object, callback: Callable[..., object], *args: object) -> None:
        raise NotImplementedError

    def remove_reader(self, fd: object) -> bool:
        raise NotImplementedError


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": WithoutReadiness})], ids=["asyncio"])
async def test_an_event_loop_without_readiness_is_helped_out_by_anyio() -> None:
    stream, theirs = pair()
    with theirs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.pump, sink := Collected(wants=5))
            await anyio.wait_all_tasks_blocked()
            theirs.send(b"hello")
        assert sink.data == b"hello"
    await stream.close()


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": WithoutReadiness})], ids=["asyncio"])
@pytest.mark.parametrize("wants", [5, 100], ids=["enough-at-once", "more-to-come"])
async def test_what_is_there_already_is_received_without_readiness(wants: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # A buffer that each read fills, so that the first reads leave some for those that come.
    monkeypatch.setattr(sockets, "buffer_here", lambda: memoryview(bytearray(1)))
    stream, theirs = pair()
    with theirs:
        theirs.send(bytes(100))
        sink = Collected(wants=wants)
        await stream.pump(sink)
        await checkpoint()
    assert len(sink.data) >= wants
    await stream.close()


@pytest.mark.parametrize("native", [False, True], ids=["scope", "native"])
async def test_a_cancellation_is_observed_also_where_the_event_loop_keeps_it_elsewhere(
    connected: tuple[AsyncWebSocket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    native: bool,
    anyio_backend_name: str,
) -> None:
    monkeypatch.setattr(_pace, "knows_trio", False)
    monkeypatch.setattr(_pace, "knows_anyio", False)
    ws, theirs = connected
    theirs.sendall(Connection(SERVER).send(BytesMessage(b"kept")))
    await anyio.wait_all_tasks_blocked()
    if native and anyio_backend_name == "asyncio":

        async def cancel_itself() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await ws.recv()

        task = asyncio.create_task(cancel_itself())
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ws.recv()
        assert scope.cancelled_caught
    assert await ws.recv() == BinaryMessage(b"kept")


async def test_messages_are_sent_also_where_the_event_loop_keeps_its_cancellations_elsewhere(
    connected: tuple[AsyncWebSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pace, "knows_trio", False)
    monkeypatch.setattr(_pace, "knows_anyio", False)
    ws, theirs = connected
    async with turns_of_another() as turns:
        for number in range(100):
            await ws.send(b"%d" % number)
            assert await read_message(theirs) == b"%d" % number
    assert turns() >= 100 // 32
    with anyio.CancelScope() as scope:
        scope.cancel()
        await ws.send(b"in vain")
    assert scope.cancelled_caught
    await ws.send(b"next")
    assert await read_message(theirs) == b"next"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_in_no_scope_is_asked_about_each_time(connected: tuple[AsyncWebSocket, socket.socket]) -> None:
    ws, theirs = connected
    theirs.sendall(Connection(SERVER).send(BytesMessage(b"kept")))
    await anyio.wait_all_tasks_blocked()
    pace = _pace.AsyncioPace()

    async def in_no_scope() -> None:
        assert not pace.is_due()
        with anyio.CancelScope() as outer, anyio.CancelScope(shield=True) as inner:  # noqa: ASYNC100
            assert not pace.is_due()
            outer.cancel()
            assert not pace.is_due()
            inner.cancel()
            assert pace.is_due()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ws.recv()
        assert scope.cancelled_caught
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await ws.recv()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(in_no_scope())
    assert await ws.recv() == BinaryMessage(b"kept")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_where_no_task_runs_each_call_asks_the_event_loop() -> None:
    pace = _pace.AsyncioPace()
    answers: list[bool] = []
    asyncio.get_running_loop().call_soon(lambda: answers.append(pace.is_due()))
    await checkpoint()
    assert answers == [True]


@pytest.mark.parametrize("message", [PingMessage(), PongMessage()], ids=["ping", "pong"])
async def test_no_more_than_32_control_messages_in_a_row_go_without_a_turn(
    connected: tuple[AsyncWebSocket, socket.socket], message: Message
) -> None:
    ws, _ = connected
    async with turns_of_another() as turns:
        for _ in range(320):
            await ws.send(message)
        assert turns() >= 9


async def test_no_more_than_32_calls_in_a_row_go_without_a_turn_on_all_connections_together(
    connected: tuple[AsyncWebSocket, socket.socket],
) -> None:
    ws, theirs = connected
    ours, other = tcp_pair()
    stream = sockets.SocketStream(ours, ssl.create_default_context())
    client = AsyncClient(handler=StreamHandler(stream))
    with other:
        async with aconnect_ws("ws://t/", client=client, close_timeout=0) as second:
            frame = Connection(SERVER).send(BytesMessage(b"x"))
            theirs.sendall(frame * 160)
            other.sendall(frame * 160)
            await anyio.wait_all_tasks_blocked()
            async with turns_of_another() as turns:
                for _ in range(160):
                    await ws.recv()
                    await second.recv()
                assert turns() >= 9


async def test_text_that_is_large_is_text(connected: tuple[AsyncWebSocket, socket.socket]) -> None:
    ws, theirs = connected
    text = "ü" * 50_000
    payload = text.encode()
    frame = b"\x81\x7f" + len(payload).to_bytes(8, "big") + payload
    theirs.sendall(frame[:40_000])
    await anyio.wait_all_tasks_blocked()
    theirs.sendall(frame[40_000:])
    assert await ws.recv() == TextMessage(text)
    theirs.sendall(frame[:40_001])
    await anyio.wait_all_tasks_blocked()
    theirs.sendall(b"\xff" * (len(frame) - 40_001))
    with pytest.raises(ConnectionClosed) as caught:
        await ws.recv()
    assert caught.value.code == 1007


async def test_a_reset_behind_data_is_found() -> None:
    for _ in range(50):
        ours, theirs = tcp_pair()
        ours.setblocking(False)
        stream = sockets.SocketStream(ours, ssl.create_default_context())
        sink = Collected(wants=1000)

        async def reset(theirs: socket.socket = theirs) -> None:
            await checkpoint()
            # Both are there when the event loop looks at the socket for the first time.
            theirs.sendall(b"data")
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            theirs.close()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reset)
            # The time only bounds a failure.
            with pytest.raises(ConnectionResetError), anyio.fail_after(30):
                await stream.pump(sink)
        assert sink.data == b"data"
        await stream.close()


async def test_two_tasks_may_wait_until_the_same_socket_takes_a_byte() -> None:
    stream, theirs = pair()
    with theirs:
        left: bytes | memoryview = bytes(1 << 22)
        while stream.is_writable():
            left = stream.send_now(bytes(left))
        async with anyio.create_task_group() as tasks:
            first = anyio.CancelScope()

            async def wait_until_cancelled() -> None:
                with first:
                    await stream.wait_writable()

            tasks.start_soon(wait_until_cancelled)
            await anyio.wait_all_tasks_blocked()
            done: list[bool] = []

            async def wait_for_both() -> None:
                await stream.wait_writable()
                done.append(stream.is_writable())

            tasks.start_soon(wait_for_both)
            tasks.start_soon(wait_for_both)
            await anyio.wait_all_tasks_blocked()
            first.cancel()
            await anyio.wait_all_tasks_blocked()
            assert done == []
            theirs.recv(1 << 22)
        assert done == [True, True]
    await stream.close()
    assert not stream.is_writable()


def test_an_event_loop_that_goes_on_in_another_thread_receives_into_the_buffer_of_that() -> None:
    async def begin() -> tuple[sockets.SocketStream, socket.socket, Watched, asyncio.Future[None]]:
        stream, theirs = pair()
        sink = Watched()
        pumping = asyncio.ensure_future(stream.pump(sink))
        theirs.sendall(b"1")
        await sink.has_taken.wait()
        return stream, theirs, sink, pumping

    loop = asyncio.new_event_loop()
    stream, theirs, sink, pumping = loop.run_until_complete(begin())

    async def go_on() -> None:
        theirs.sendall(b"2")
        await pumping
        await stream.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(go_on()))
    thread.start()
    thread.join()
    loop.close()
    theirs.close()
    assert sink.is_of_this_thread == [True, True]
