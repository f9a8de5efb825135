"""Where there is a crowd of readers on trio, one task receives for all of them."""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from math import inf
from typing import NoReturn

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong

from tests.conftest import NO_OPTIONS, Backend
from tests.interrupts import InterruptingSocket, interrupts_come_out
from tests.test_watch import connected, receive, seen, waiting
from tests.turns import turns_of_another
from zapros_websocket import AsyncWebSocket, BinaryMessage, CloseMessage, ConnectionClosed, Observer, PingMessage
from zapros_websocket._streams import lookout, sockets, watch

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(select, "epoll"), reason="the lookout is for systems with epoll"),
]

Peer = tuple[AsyncWebSocket, socket.socket, Callable[[Event], bytes]]


@pytest.fixture
def anyio_backend() -> Backend:
    return "trio", NO_OPTIONS


@pytest.fixture(autouse=True)
def a_crowd_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "CROWD", 1)
    # A message that comes alone does not have the watch left to the task that waits for it.
    monkeypatch.setattr(watch, "SOON", 0)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tasks that have waited for a socket by way of trio."""
    names: list[str] = []
    wait_readable = trio.lowlevel.wait_readable

    async def noted(sock: int | socket.socket) -> None:
        names.append(trio.lowlevel.current_task().name)
        await wait_readable(sock)

    monkeypatch.setattr(trio.lowlevel, "wait_readable", noted)
    return names


@asynccontextmanager
async def all_connected(number: int) -> AsyncGenerator[list[Peer]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected()) for _ in range(number)]


def lookouts() -> list[trio.lowlevel.Task]:
    """The tasks of the system that are lookouts."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    tasks = [task for nursery in root.child_nurseries for task in nursery.child_tasks]
    return [task for task in tasks if task.name.endswith("Lookout")]


def is_looked_after(ws: AsyncWebSocket) -> bool:
    stream = ws._link.stream  # pyright: ignore[reportPrivateUsage]
    assert isinstance(stream, sockets.SocketStream)
    return stream._socket.fileno() in lookout.lookout_here()._tasks  # pyright: ignore[reportPrivateUsage]


async def test_what_comes_to_many_is_received_by_one_task_that_asks_once(waits: list[str]) -> None:
    async with all_connected(10) as peers:
        for text in (b"1", b"2", b"3"):
            received: list[object] = []
            async with trio.open_nursery() as nursery:
                for ws, _, _ in peers:
                    nursery.start_soon(receive, ws, received)
                await wait_all_tasks_blocked()
                waits.clear()
                for _, theirs, send in peers:
                    theirs.sendall(send(BytesMessage(text)))
            assert received == [BinaryMessage(text)] * 10
            await wait_all_tasks_blocked()
            # The readers sleep on, and it waits for what comes next.
            assert set(waits) == {"zapros_websocket._streams.lookout.Lookout"}
            assert len(waits) == 1


@pytest.mark.parametrize(("crowd", "is_one"), [(3, True), (4, False)])
async def test_a_few_readers_wait_by_themselves(monkeypatch: pytest.MonkeyPatch, crowd: int, is_one: bool) -> None:
    monkeypatch.setattr(lookout, "CROWD", crowd)
    async with all_connected(3) as peers:
        await wait_all_tasks_blocked()
        assert [is_looked_after(ws) for ws, _, _ in peers] == [False, False, is_one]
        for ws, theirs, send in peers:
            theirs.sendall(send(BytesMessage(b"?")))
            assert await ws.recv() == BinaryMessage(b"?")
        await wait_all_tasks_blocked()
        assert [is_looked_after(ws) for ws, _, _ in peers] == [is_one] * 3


async def test_where_no_descriptor_is_left_for_it_each_reader_waits_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(select, "epoll", none_left)
    async with all_connected(2) as peers:
        await wait_all_tasks_blocked()
        for ws, theirs, send in peers:
            assert not is_looked_after(ws)
            theirs.sendall(send(BytesMessage(b"?")))
            assert await ws.recv() == BinaryMessage(b"?")


async def test_nothing_stays_behind() -> None:
    async with all_connected(3) as peers:
        await wait_all_tasks_blocked()
        here = lookout.lookout_here()
        assert here.readers == 3
        assert all(is_looked_after(ws) for ws, _, _ in peers)
    assert here.readers == here.left == 0
    assert not here._tasks  # pyright: ignore[reportPrivateUsage]
    assert here._epoll is None  # pyright: ignore[reportPrivateUsage]
    # Its task has ended as well, and another one comes with the next crowd.
    await wait_all_tasks_blocked()
    assert not lookouts()
    async with connected() as (ws, theirs, send):
        await wait_all_tasks_blocked()
        assert is_looked_after(ws)
        assert len(lookouts()) == 1
        theirs.sendall(send(BytesMessage(b"?")))
        assert await ws.recv() == BinaryMessage(b"?")


async def test_a_crowd_that_goes_before_the_lookout_has_begun_leaves_nothing() -> None:
    here = lookout.lookout_here()
    with trio.CancelScope() as scope:
        here.readers = 1
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert here.take(ours.fileno(), object())  # type: ignore[arg-type]
            scope.cancel()
            await here.wait(ours.fileno())
    here.leave()
    await wait_all_tasks_blocked()
    assert not lookouts()


async def test_leaving_the_block_by_a_cancellation_takes_the_socket_away() -> None:
    with trio.CancelScope() as scope:
        async with connected():
            await wait_all_tasks_blocked()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert not lookout.lookout_here()._tasks  # pyright: ignore[reportPrivateUsage]


async def test_the_close_of_the_peer_is_the_business_of_the_reader() -> None:
    async with connected() as (ws, theirs, send):
        received: list[object] = []
        async with waiting(ws, received):
            theirs.sendall(send(CloseConnection(1001)))
            await wait_all_tasks_blocked()
        assert received == [CloseMessage(1001, "")]
        assert seen(theirs) == [CloseConnection(1001, "")]


async def test_a_ping_is_answered_by_the_lookout(waits: list[str]) -> None:
    async with connected() as (ws, theirs, send):
        await wait_all_tasks_blocked()
        theirs.sendall(send(Ping(b"?")))
        await wait_all_tasks_blocked()
        assert seen(theirs) == [Pong(b"?")]
        assert set(waits) == {"zapros_websocket._streams.lookout.Lookout"}
        assert await ws.recv() == PingMessage(b"?")


async def test_a_ping_that_cannot_be_answered_at_once_is_left_to_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_now(self: sockets.SocketStream) -> bool:
        return False

    async with connected() as (ws, theirs, send):
        await wait_all_tasks_blocked()
        with monkeypatch.context() as patch:
            patch.setattr(sockets.SocketStream, "is_writable", not_now)
            theirs.sendall(send(Ping(b"?")))
            await wait_all_tasks_blocked()
        assert seen(theirs) == [Pong(b"?")]
        # The socket is on the lookout again.
        assert is_looked_after(ws)
        theirs.sendall(send(BytesMessage(b"next")))
        assert [await ws.recv(), await ws.recv()] == [PingMessage(b"?"), BinaryMessage(b"next")]


async def test_a_reset_comes_out() -> None:
    async with connected() as (ws, theirs, _):
        received: list[object] = []
        async with waiting(ws, received):
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            theirs.close()
        [error] = received
        assert isinstance(error, ConnectionClosed)
        assert isinstance(error.__cause__, ConnectionResetError)


async def test_a_socket_that_somebody_closes_comes_out() -> None:
    async with connected() as (ws, _, _):
        received: list[object] = []
        async with waiting(ws, received):
            await ws._link.stream.aclose(grace=0)  # pyright: ignore[reportPrivateUsage]
        [error] = received
        assert isinstance(error, ConnectionClosed)
        assert "the socket was closed meanwhile" in str(error)


async def test_closing_one_in_the_moment_in_which_something_comes_to_it_disturbs_nobody() -> None:
    async with all_connected(2) as peers:
        await wait_all_tasks_blocked()
        closed: list[bool] = []

        class Closing(watch.Watch):
            """The first to be read closes both."""

            def look(self, *, is_alone: bool) -> bool:
                for ws, _, _ in peers:
                    ws._link.stream.close_now()  # type: ignore[attr-defined]  # pyright: ignore
                closed.append(True)
                return False

        for ws, theirs, send in peers:
            ws._link.stream._watch.__class__ = Closing  # type: ignore[attr-defined]  # pyright: ignore
            theirs.sendall(send(BytesMessage(b"late")))
        for ws, _, _ in peers:
            with pytest.raises(ConnectionClosed, match="closed meanwhile"):
                await ws.recv()
        assert closed == [True]


async def test_a_full_inbox_takes_the_socket_away_until_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zapros_websocket._inbox.MAX_MESSAGES", 4)
    async with connected() as (ws, theirs, send):
        await wait_all_tasks_blocked()
        for number in range(6):
            theirs.sendall(send(BytesMessage(b"%d" % number)))
            await wait_all_tasks_blocked()
            assert is_looked_after(ws) == (number < 3)
        assert [await ws.recv() for _ in range(6)] == [BinaryMessage(b"%d" % number) for number in range(6)]
        await wait_all_tasks_blocked()
        assert is_looked_after(ws)


@pytest.mark.parametrize("to_both", [False, True])
async def test_only_a_message_that_comes_alone_has_the_watch_left(
    monkeypatch: pytest.MonkeyPatch, to_both: bool
) -> None:
    monkeypatch.setattr(watch, "SOON", inf)
    monkeypatch.setattr(watch, "PATIENCE", inf)
    async with all_connected(2) as peers:
        ws = peers[0][0]
        # The first message of all is waited for by itself, the next soon behind it.
        for _ in range(2):
            received: list[object] = []
            async with waiting(ws, received):
                for _, theirs, send in peers[: 1 + to_both]:
                    theirs.sendall(send(BytesMessage(b"?")))
            assert received == [BinaryMessage(b"?")]
            await wait_all_tasks_blocked()
        assert is_looked_after(ws) == to_both
        assert lookout.lookout_here().left == (not to_both)


async def test_a_crowd_that_waits_by_itself_grows_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SOON", inf)
    monkeypatch.setattr(watch, "PATIENCE", inf)
    async with all_connected(3) as peers:
        for ws, theirs, send in peers:
            for _ in range(2):
                received: list[object] = []
                async with waiting(ws, received):
                    theirs.sendall(send(BytesMessage(b"?")))
                assert received == [BinaryMessage(b"?")]
                await wait_all_tasks_blocked()
        assert [is_looked_after(ws) for ws, _, _ in peers] == [False, True, True]


async def test_a_socket_that_never_runs_dry_lets_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    # A buffer that each read fills.
    monkeypatch.setattr(sockets, "buffer_here", lambda: memoryview(bytearray(1)))
    async with connected() as (ws, theirs, send):
        await wait_all_tasks_blocked()
        async with turns_of_another() as turns:
            theirs.sendall(send(BytesMessage(bytes(100))))
            assert await ws.recv() == BinaryMessage(bytes(100))
            assert turns() >= 102 // watch.READS_IN_A_ROW - 2


async def test_a_whole_crowd_is_read_in_one_turn_as_by_readers_of_their_own() -> None:
    # A verdict of keepalive waits a few turns for what has arrived.
    async with all_connected(200) as peers:
        await wait_all_tasks_blocked()
        for _, theirs, send in peers:
            theirs.sendall(send(BytesMessage(b"?")))
        async with turns_of_another() as turns:
            while any(not ws._inbox.depth for ws, _, _ in peers):  # pyright: ignore[reportPrivateUsage]
                await trio.lowlevel.checkpoint()
            assert turns() <= 3


@pytest.mark.parametrize("number", [1, 2])
async def test_a_watch_that_is_taken_back_in_front_of_the_reader_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(watch, "SOON", inf)
    monkeypatch.setattr(watch, "PATIENCE", inf)
    look = watch.Watch.look
    lost: list[bool] = []

    def look_and_lose_it(self: watch.Watch, *, is_alone: bool) -> bool:
        goes_on = look(self, is_alone=is_alone)
        lost.append(self.is_left)
        for _ in range(number):
            # Whoever took the message has gone on already, and waits for something else.
            self.take_back()
        return goes_on

    monkeypatch.setattr(watch.Watch, "look", look_and_lose_it)
    async with connected() as (ws, theirs, send):
        for _ in range(4):
            received: list[object] = []
            async with waiting(ws, received):
                theirs.sendall(send(BytesMessage(b"?")))
            assert received == [BinaryMessage(b"?")]
            await wait_all_tasks_blocked()
            is_left = ws._inbox.watch is not None  # pyright: ignore[reportPrivateUsage]
            assert lookout.lookout_here().left == is_left
            assert is_looked_after(ws) != is_left
    assert any(lost)
    assert lookout.lookout_here().left == 0


async def test_what_is_called_for_a_reader_runs_in_its_context() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="that of the lookout")
    seen: list[str] = []

    class Looking(Observer):
        def message_received(self, message: object) -> None:
            seen.append(variable.get())

    async with connected():
        # By now there is a lookout.
        await wait_all_tasks_blocked()
        variable.set("that of the reader")
        async with connected(observer=Looking()) as (ws, theirs, send):
            await wait_all_tasks_blocked()
            theirs.sendall(send(BytesMessage(b"?")))
            assert await ws.recv() == BinaryMessage(b"?")
    assert seen == ["that of the reader"]


def test_an_observer_that_ends_the_program_ends_it_by_way_of_the_reader() -> None:
    class Ending(Observer):
        def message_received(self, message: object) -> None:
            raise SystemExit(3)

    async def end() -> None:
        async with connected(observer=Ending()) as (ws, theirs, send):
            await wait_all_tasks_blocked()
            theirs.sendall(send(BytesMessage(b"?")))
            await ws.recv()

    with pytest.raises(SystemExit) as caught:
        trio.run(end)
    assert caught.value.code == 3


async def test_a_descriptor_that_was_closed_around_the_stream_ends_nothing_but_the_connection() -> None:
    async with connected() as (other, theirs_of_other, send_to_other):
        async with connected() as (ws, _, _):
            await wait_all_tasks_blocked()
            assert is_looked_after(ws)
            stream = ws._link.stream  # pyright: ignore[reportPrivateUsage]
            assert isinstance(stream, sockets.SocketStream)
            socket.socket.close(stream._socket)  # pyright: ignore[reportPrivateUsage]
        theirs_of_other.sendall(send_to_other(BytesMessage(b"?")))
        assert await other.recv() == BinaryMessage(b"?")


def test_an_interrupt_while_it_reads_loses_nothing() -> None:
    async def receive_interrupted() -> None:
        async with connected(kind=InterruptingSocket) as (ws, theirs, send):
            await wait_all_tasks_blocked()
            InterruptingSocket.is_due = True
            theirs.sendall(send(BytesMessage(b"kept")))
            with pytest.raises(KeyboardInterrupt):
                await wait_all_tasks_blocked()
            assert is_looked_after(ws)
            assert await ws.recv() == BinaryMessage(b"kept")

    # It comes out in the main task.
    with interrupts_come_out():
        trio.run(receive_interrupted)


def test_who_is_there_when_the_event_loop_ends_waits_by_itself() -> None:
    ended: list[str] = []

    async def to_the_end(open_: trio.Event) -> None:
        async with connected() as (ws, _, _):
            await wait_all_tasks_blocked()
            assert is_looked_after(ws)
            open_.set()
            try:
                await ws.recv()
            finally:
                ended.append("cancelled")
        ended.append("never")

    async def main() -> None:
        open_ = trio.Event()
        # All tasks of the system are cancelled together.
        trio.lowlevel.spawn_system_task(to_the_end, open_)
        await open_.wait()

    trio.run(main)
    assert ended == ["cancelled"]
