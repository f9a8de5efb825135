"""SPEC "Concurrency": what cancelling does, under anyio's cancel scopes and under native cancels of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest
from anyio.lowlevel import cancel_shielded_checkpoint
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong
from wsproto.events import TextMessage as WsprotoText
from zapros import Request, Response

from tests.memory import Backend, MemoryServer, autojump
from tests.turns import turns_of_another
from zapros_websocket import CloseMessage, ConnectionClosed, TextMessage, aconnect_ws

pytestmark = pytest.mark.anyio


class Cancellable:
    """A call in a task of its own that can be cancelled: by a cancel scope, or natively."""

    def __init__(self, native: bool) -> None:
        self.native = native
        self.outcome: object = None
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()

    async def run(self, call: Callable[[], Awaitable[object]]) -> None:
        self.outcome = None
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()
        try:
            if self.native:
                self.task = asyncio.ensure_future(call())
                await asyncio.wait({self.task})
                if not self.task.cancelled():
                    self.outcome = self.task.exception() or self.task.result()
            else:
                with self.scope:
                    try:
                        self.outcome = await call()
                    except ConnectionClosed as closed:
                        self.outcome = closed
        finally:
            self.ended.set()

    def cancel(self) -> None:
        if self.native:
            self.task.cancel()
        else:
            self.scope.cancel()


@pytest.fixture(params=["trio", "asyncio", "asyncio-native"])
def kind(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture
def anyio_backend(kind: str) -> Backend:
    return autojump("trio" if kind == "trio" else "asyncio")


@pytest.fixture
def native(kind: str) -> bool:
    """Whether to cancel with ``task.cancel()`` and not with a cancel scope."""
    return kind == "asyncio-native"


async def test_cancelling_recv_loses_nothing(server: MemoryServer, native: bool) -> None:
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
        anyio.create_task_group() as tasks,
    ):
        received: list[object] = []
        sent = 0
        # The cancel comes 0 to 4 steps of the scheduler after the message, so that every step in between is met.
        for steps in list(range(5)) * 20:
            receiver = Cancellable(native)
            tasks.start_soon(receiver.run, ws.recv)
            await anyio.wait_all_tasks_blocked()
            await server.peer.send(WsprotoText(str(sent)))
            sent += 1
            for _ in range(steps):
                await cancel_shielded_checkpoint()
            receiver.cancel()
            await receiver.ended.wait()
            if receiver.outcome is not None:
                received.append(receiver.outcome)
        while len(received) < sent:
            received.append(await ws.recv())
    assert received == [TextMessage(str(n)) for n in range(sent)]


async def test_a_cancelled_receiver_passes_its_turn_on(server: MemoryServer, native: bool) -> None:
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
        anyio.create_task_group() as tasks,
    ):
        for steps in range(5):
            first, second = Cancellable(native), Cancellable(native)
            tasks.start_soon(first.run, ws.recv)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(second.run, ws.recv)
            await anyio.wait_all_tasks_blocked()
            await server.peer.send(WsprotoText("1"))
            for _ in range(steps):
                await cancel_shielded_checkpoint()
            first.cancel()
            await first.ended.wait()
            await anyio.wait_all_tasks_blocked()
            if first.outcome is None:
                assert second.outcome == TextMessage("1")
            else:
                assert first.outcome == TextMessage("1")
                second.cancel()
            await second.ended.wait()


async def test_cancelling_a_send_that_waits_for_its_turn_has_no_effect(native: bool) -> None:
    server = MemoryServer(capacity=100)
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
        anyio.create_task_group() as tasks,
    ):
        big, small, last = (Cancellable(native) for _ in range(3))
        tasks.start_soon(big.run, lambda: ws.send(b"x" * 1000))
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(small.run, lambda: ws.send("never"))
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(last.run, lambda: ws.send("last"))
        await anyio.wait_all_tasks_blocked()
        small.cancel()
        await small.ended.wait()
        assert await server.peer.receive_message() == b"x" * 1000
        assert await server.peer.receive() == WsprotoText("last")
        await last.ended.wait()


async def test_a_turn_given_to_a_send_that_is_cancelled_goes_to_the_next(native: bool) -> None:
    for steps in range(6):
        server = MemoryServer(capacity=100)
        async with (
            aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
            anyio.create_task_group() as tasks,
        ):
            senders = [Cancellable(native) for _ in range(3)]
            for sender, size in zip(senders, (1000, 2, 3), strict=True):
                tasks.start_soon(sender.run, partial(ws.send, bytes(size)))
                await anyio.wait_all_tasks_blocked()
            # With the last piece of the first message, the turn goes to the second.
            assert await server.peer.receive_message() == bytes(1000)
            for _ in range(steps):
                await cancel_shielded_checkpoint()
            senders[1].cancel()
            await senders[1].ended.wait()
            await anyio.wait_all_tasks_blocked()
            while len(await server.peer.receive_message()) != 3:
                pass
            await anyio.wait_all_tasks_blocked()
            assert senders[2].ended.is_set()


async def test_a_send_cancelled_half_way_breaks_the_connection_and_every_later_call_says_so(native: bool) -> None:
    server = MemoryServer(capacity=100)
    async with aconnect_ws("ws://test/", client=server.client) as ws, anyio.create_task_group() as tasks:
        await server.peer.send(WsprotoText("before"))
        sender, waiting = Cancellable(native), Cancellable(native)
        tasks.start_soon(sender.run, lambda: ws.send(b"x" * 1000))
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(waiting.run, lambda: ws.send("waiting"))
        await anyio.wait_all_tasks_blocked()
        sender.cancel()
        await sender.ended.wait()
        await waiting.ended.wait()
        assert isinstance(waiting.outcome, ConnectionClosed)
        assert await ws.recv() == TextMessage("before")
        for later in (ws.send("x"), ws.recv(), ws.ping()):
            with pytest.raises(ConnectionClosed, match="cancelled") as caught:
                await later
            assert caught.value.code == 1006
        with pytest.raises(ConnectionClosed, match="cancelled"):
            async for _ in ws:
                pass
        # Never a new frame after half a frame: what the peer gets is the beginning of the one, and the end.
        size = 0
        while isinstance(event := await server.peer.receive(), BytesMessage):
            size += len(event.data)
        assert event is None
        assert size < 1000


async def test_a_ping_cancelled_before_its_pong_has_no_effect(server: MemoryServer, native: bool) -> None:
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
        anyio.create_task_group() as tasks,
    ):
        pinger = Cancellable(native)
        tasks.start_soon(pinger.run, ws.ping)
        ping = await server.peer.receive()
        assert isinstance(ping, Ping)
        pinger.cancel()
        await pinger.ended.wait()
        await server.peer.send(Pong(bytes(ping.payload)), WsprotoText("next"))
        assert await ws.recv() == TextMessage("next")


async def test_leaving_the_block_can_be_cut_short_by_the_users_own_deadline(server: MemoryServer, native: bool) -> None:
    async def use() -> None:
        async with aconnect_ws("ws://test/", client=server.client, close_timeout=1000):
            pass

    user = Cancellable(native)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(user.run, use)
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        user.cancel()
        await user.ended.wait()
        assert anyio.current_time() - began <= 1
    assert server.stream.is_closed


async def test_a_cancelled_block_says_goodbye_quickly(server: MemoryServer, native: bool) -> None:
    async def use() -> None:
        async with aconnect_ws("ws://test/", client=server.client, close_timeout=1000) as ws:
            await ws.recv()

    user = Cancellable(native)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(user.run, use)
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        user.cancel()
        await user.ended.wait()
        assert anyio.current_time() - began <= 1
    close = await server.peer.receive()
    assert isinstance(close, CloseConnection)
    assert close.code == 1000
    assert server.stream.is_closed


async def test_cancelling_the_handshake_closes_what_was_opened(server: MemoryServer, native: bool) -> None:
    reached = anyio.Event()

    class Late(MemoryServer):
        async def ahandle(self, request: Request) -> Response:
            response = await super().ahandle(request)
            reached.set()
            try:
                await anyio.sleep_forever()
            except BaseException:
                await self.stream.close()
                raise
            return response

    late = Late()

    async def use() -> None:
        async with aconnect_ws("ws://test/", client=late.client, open_timeout=None):
            raise AssertionError

    user = Cancellable(native)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(user.run, use)
        await reached.wait()
        user.cancel()
        await user.ended.wait()
    assert user.outcome is None
    assert late.stream.is_closed


async def test_recv_and_send_observe_cancellation_on_every_call(server: MemoryServer, native: bool) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        await server.peer.send(*[WsprotoText("x")] * 10)
        await anyio.wait_all_tasks_blocked()
        calls: list[Callable[[], Awaitable[object]]] = [
            ws.recv,
            lambda: ws.send("x"),
            lambda: ws.send(CloseMessage()),
            ws.ping,
        ]
        for operation in calls:

            async def cancelled(operation: Callable[[], Awaitable[object]] = operation) -> None:
                # Native: the task cancels itself, so that it is to be raised at its next suspension.
                if native:
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await operation()
                else:
                    with anyio.CancelScope() as scope:
                        scope.cancel()
                        await operation()
                        raise AssertionError("not cancelled")

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancelled)
        assert server.stream.outgoing.total == 0
        assert ws.close_code is None


async def test_no_more_than_32_calls_in_a_row_go_without_a_turn_of_the_scheduler(
    server: MemoryServer, native: bool
) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        await server.peer.send(*[WsprotoText("x")] * 330)
        await anyio.wait_all_tasks_blocked()
        async with turns_of_another() as turns:
            for _ in range(330):
                await ws.recv()
            assert turns() >= 9
