"""SPEC: what comes out of the block, and who owns the tasks."""

from __future__ import annotations

import gc
import warnings

import anyio
import pytest
import trio
from wsproto.events import CloseConnection
from wsproto.events import TextMessage as WsprotoText

from tests.memory import MemoryServer
from zapros_websocket import AsyncBaseWebSocket, ConnectionClosed, TextMessage, aconnect_ws, open_ws
from zapros_websocket._connection import AsyncWebSocket
from zapros_websocket._protocol.session import Session

pytestmark = pytest.mark.anyio


class Mine(Exception):
    """What a user raises."""


async def test_an_exception_in_the_block_comes_out_as_itself(server: MemoryServer) -> None:
    mine = Mine("mine")
    began = anyio.current_time()
    with pytest.raises(Mine) as caught:
        async with aconnect_ws("ws://test/", client=server.client, close_timeout=1000):
            raise mine
    assert caught.value is mine
    assert mine.__context__ is None
    assert anyio.current_time() - began <= 1
    assert server.stream.is_closed


async def test_an_exception_comes_out_as_itself_when_the_block_is_cancelled_too(server: MemoryServer) -> None:
    mine = Mine("mine")
    with pytest.raises(Mine) as caught:
        with anyio.CancelScope() as scope:
            async with aconnect_ws("ws://test/", client=server.client, close_timeout=1000):
                scope.cancel()
                raise mine
    assert caught.value is mine
    assert server.stream.is_closed


async def test_an_exception_group_that_the_user_raised_comes_out_as_it_was(server: MemoryServer) -> None:
    with pytest.raises(BaseException) as caught:
        async with aconnect_ws("ws://test/", client=server.client, close_timeout=0), anyio.create_task_group() as tasks:

            async def fail() -> None:
                raise Mine

            tasks.start_soon(fail)
    assert [type(error) for error in getattr(caught.value, "exceptions", ())] == [Mine]


async def test_an_exception_is_not_replaced_by_one_from_cleanup(server: MemoryServer) -> None:
    with pytest.raises(Mine):
        async with aconnect_ws("ws://test/", client=server.client, close_timeout=0):
            server.stream.close_error = RuntimeError("cannot close")
            server.stream.outgoing.broken = True
            raise Mine


async def test_connection_closed_comes_out_as_itself(server: MemoryServer) -> None:
    with pytest.raises(ConnectionClosed):
        async with aconnect_ws("ws://test/", client=server.client) as ws:
            server.peer.reset()
            await ws.recv()


@pytest.mark.parametrize("kind", [AssertionError, KeyboardInterrupt])
async def test_a_bug_in_the_tasks_of_a_connection_cancels_the_block_and_comes_out_bare(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    def fail(self: object, data: bytes) -> None:
        raise kind

    async with anyio.create_task_group() as tasks:
        with pytest.raises(kind):
            async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
                monkeypatch.setattr(Session, "receive", fail)
                tasks.start_soon(server.peer.write, b"x")
                await ws.recv()
    assert server.stream.is_closed


async def test_a_bug_comes_out_also_of_a_block_that_has_taken_it_for_an_end(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, data: bytes) -> None:
        raise AssertionError

    with pytest.raises(AssertionError):
        async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
            monkeypatch.setattr(Session, "receive", fail)
            await server.peer.write(b"x")
            with pytest.raises(ConnectionClosed):
                await ws.recv()
    assert server.stream.is_closed


async def test_a_connection_that_is_stopped_before_its_task_has_begun_says_goodbye(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        began = anyio.current_time()
        await ws._link.stop()  # pyright: ignore[reportPrivateUsage]
        assert anyio.current_time() - began <= 1
        assert server.stream.is_closed
        close = await server.peer.receive()
        assert isinstance(close, CloseConnection)
        assert close.code == 1000


async def test_the_nursery_or_task_group_of_the_caller_owns_the_tasks_of_open_ws(server: MemoryServer) -> None:
    async def use(ws: AsyncWebSocket) -> None:
        await server.peer.send(WsprotoText("hi"))
        assert await ws.recv() == TextMessage("hi")
        async with anyio.create_task_group() as serving:
            serving.start_soon(server.peer.answer_close)
            await ws.close(1001)
        assert ws.close_code == 1001

    async with anyio.create_task_group() as tasks:
        await use(await open_ws(tasks, "ws://test/", client=server.client))
    if trio.lowlevel.in_trio_run():
        async with trio.open_nursery() as nursery:
            await use(await open_ws(nursery, "ws://test/", client=server.client))


async def test_open_ws_leaves_nothing_open_when_the_group_takes_no_more_tasks(server: MemoryServer) -> None:
    async with anyio.create_task_group() as over:
        pass
    with pytest.raises(RuntimeError):
        await open_ws(over, "ws://test/", client=server.client)
    assert server.stream.is_closed


async def test_cancelling_the_group_of_open_ws_says_goodbye_and_closes(server: MemoryServer) -> None:
    async with anyio.create_task_group() as tasks:
        ws = await open_ws(tasks, "ws://test/", client=server.client)
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        tasks.cancel_scope.cancel()
    assert anyio.current_time() - began <= 1
    close = await server.peer.receive()
    assert isinstance(close, CloseConnection)
    assert close.code == 1000
    assert server.stream.is_closed
    assert ws.close_code == 1006
    with pytest.raises(ConnectionClosed):
        await ws.recv()


async def test_cancelling_the_group_of_open_ws_does_not_wait_for_a_peer_that_blocks() -> None:
    server = MemoryServer(capacity=10)
    async with anyio.create_task_group() as tasks:
        ws = await open_ws(tasks, "ws://test/", client=server.client)
        async with anyio.create_task_group() as senders:
            senders.start_soon(ws.send, bytes(1000))
            await anyio.wait_all_tasks_blocked()
            began = anyio.current_time()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                with pytest.raises(ConnectionClosed):
                    await ws.recv()
                assert anyio.current_time() - began <= 1
    assert server.stream.is_closed


async def test_a_connection_is_used_while_the_block_cleans_up_under_a_cancellation(server: MemoryServer) -> None:
    with anyio.CancelScope() as scope:
        async with aconnect_ws("ws://test/", client=server.client, close_timeout=1) as ws:
            try:
                scope.cancel()
                await anyio.sleep(1)
            finally:
                with anyio.CancelScope(shield=True):
                    await ws.send("goodbye")
                    assert await server.peer.receive() == WsprotoText("goodbye")


async def test_nothing_is_left_behind_when_many_connections_come_and_go() -> None:
    for _ in range(50):
        server = MemoryServer()
        async with anyio.create_task_group() as tasks:
            async with aconnect_ws("ws://test/", client=server.client) as ws:
                tasks.start_soon(server.peer.serve)
                await ws.send("x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, AsyncWebSocket) and thing is not ws]


async def test_the_repr_tells_the_state_and_nothing_secret(server: MemoryServer) -> None:
    async with aconnect_ws("ws://user:secret@test/", client=server.client, close_timeout=0) as ws:
        assert isinstance(ws, AsyncBaseWebSocket)
        assert repr(ws) == "<AsyncWebSocket open>"
        server.peer.reset()
        await anyio.wait_all_tasks_blocked()
        assert repr(ws) == "<AsyncWebSocket closed 1006>"
