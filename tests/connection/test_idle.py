"""What an idle connection does and has: pings and pongs go out at once, by no task, and one task is all there is.

The socket is real, and takes as little as a test says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import anyio
import pytest
import trio

from tests.connection.wire import Wire
from tests.memory import MemoryServer
from tests.protocol.wire import BINARY, PING, PONG, frame
from zapros_websocket import (
    BinaryMessage,
    CloseMessage,
    ConnectionClosed,
    PingMessage,
    PongMessage,
    aconnect_ws,
)
from zapros_websocket._link import Link
from zapros_websocket._protocol.messages import Message

pytestmark = pytest.mark.anyio


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    with wire.theirs, wire.ours:
        yield wire


@pytest.fixture
def no_task_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: Link) -> None:
        pytest.fail("a task was started")

    monkeypatch.setattr(Link, "_flush", never)


def number_of_tasks() -> int:
    """All tasks there are, without those of trio itself."""
    if not trio.lowlevel.in_trio_run():
        return len(asyncio.all_tasks())
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found, tasks = 0, [root]
    while tasks:
        task = tasks.pop()
        found += "zapros_websocket" in task.name or task.coro.__qualname__.startswith(("test_", "aconnect_ws", "Link"))
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


async def test_an_idle_connection_is_one_task_and_one_alarm_of_all(server: MemoryServer) -> None:
    async with AsyncExitStack() as stack:
        before = number_of_tasks()
        for _ in range(10):
            await stack.enter_async_context(aconnect_ws("ws://test/", client=server.client, close_timeout=0))
        await anyio.wait_all_tasks_blocked()
        # On trio one task of the system waits for the time of all pings.
        assert number_of_tasks() - before == 10 + trio.lowlevel.in_trio_run()
        await anyio.sleep(21)
        await anyio.wait_all_tasks_blocked()
        assert number_of_tasks() - before == 10 + trio.lowlevel.in_trio_run()


async def test_the_objects_with_the_most_attributes_have_no_dict_for_them(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        for one in (ws._link, ws._session):  # pyright: ignore[reportPrivateUsage]
            assert not hasattr(one, "__dict__")


@pytest.mark.usefixtures("no_task_flushes")
async def test_a_ping_of_keepalive_goes_out_in_its_moment_by_no_task(wire: Wire) -> None:
    async with aconnect_ws("ws://test/", client=wire.client, ping_interval=5, ping_timeout=None) as ws:
        for number in range(2):
            began = anyio.current_time()
            await anyio.sleep(5.5)
            [ping] = wire.messages()
            assert isinstance(ping, PingMessage)
            wire.theirs.send(frame(PONG, ping.data))
            await anyio.sleep(began + 6 - anyio.current_time())
            assert ws.latency == pytest.approx(0.5 + number)
        wire.theirs.close()


@pytest.mark.usefixtures("no_task_flushes")
async def test_the_pings_of_the_peer_are_answered_by_no_task(wire: Wire) -> None:
    async with aconnect_ws("ws://test/", client=wire.client, ping_interval=None, close_timeout=0) as ws:
        wire.theirs.send(frame(BINARY, b"1") + frame(PING, b"a") + frame(PING, b"b") + frame(BINARY, b"2"))
        await anyio.wait_all_tasks_blocked()
        assert wire.messages() == [PongMessage(b"a"), PongMessage(b"b")]
        received = [await ws.recv() for _ in range(4)]
        assert received == [BinaryMessage(b"1"), PingMessage(b"a"), PingMessage(b"b"), BinaryMessage(b"2")]


async def test_what_the_socket_takes_a_part_of_is_finished_before_anything_else(wire: Wire) -> None:
    async with aconnect_ws("ws://test/", client=wire.client, ping_interval=5, close_timeout=0) as ws:
        await anyio.wait_all_tasks_blocked()
        wire.ours.most = 3
        wire.theirs.send(frame(PING, b"of the peer"))
        await anyio.sleep(1)
        assert wire.messages() == [PongMessage(b"of the peer")]
        await anyio.sleep(4.5)
        [ping] = wire.messages()
        assert isinstance(ping, PingMessage)
        wire.theirs.send(frame(PING, b"again"))
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(ws.send, b"%d" % number)
        await anyio.sleep(1)
        messages = sorted(wire.messages(), key=repr)
        assert messages == [*(BinaryMessage(b"%d" % number) for number in range(3)), PongMessage(b"again")]


async def test_a_close_frame_of_which_a_part_was_taken_is_finished(wire: Wire) -> None:
    async with aconnect_ws("ws://test/", client=wire.client, close_timeout=1):
        await anyio.wait_all_tasks_blocked()
        wire.ours.most = 3
        # Its answer ends the reading in the same step.
        wire.theirs.send(b"\x88\x02\x03\xe8")
        await anyio.sleep(0.5)
        assert wire.messages() == [CloseMessage(1000, "")]


@pytest.mark.parametrize("of", ["keepalive", "the peer"])
async def test_what_the_socket_does_not_take_waits_for_it_and_reading_goes_on(wire: Wire, of: str) -> None:
    interval = 5 if of == "keepalive" else None
    async with aconnect_ws("ws://test/", client=wire.client, ping_interval=interval, close_timeout=0) as ws:
        await anyio.wait_all_tasks_blocked()
        filled = wire.fill()
        if of == "the peer":
            wire.theirs.send(frame(PING, b"theirs"))
        await anyio.sleep(6)
        wire.theirs.send(frame(BINARY, b"1"))
        messages = [await ws.recv()]
        if of == "the peer":
            messages.append(await ws.recv())
        assert messages[-1] == BinaryMessage(b"1")
        wire.drain(filled)
        await anyio.sleep(1)
        [control] = wire.messages()
        assert isinstance(control, PingMessage if of == "keepalive" else PongMessage)


async def test_a_ping_goes_between_and_never_into_a_message(wire: Wire) -> None:
    async with aconnect_ws("ws://test/", client=wire.client, ping_interval=5, ping_timeout=None, close_timeout=0) as ws:
        large = BinaryMessage(bytes(1 << 22))
        messages: list[Message] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.send, large)
            await anyio.sleep(6)
            while len(messages) < 2:
                messages += wire.messages()
                await anyio.sleep(0.001)
        assert messages[0] == large
        assert isinstance(messages[1], PingMessage)


async def test_a_ping_that_cannot_be_written_is_how_the_loss_is_found(wire: Wire) -> None:
    async with aconnect_ws("ws://test/", client=wire.client, ping_interval=5) as ws:
        await anyio.wait_all_tasks_blocked()
        wire.ours.error = BrokenPipeError("gone")
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.code == 1006
        assert isinstance(caught.value.__cause__, BrokenPipeError)


@pytest.mark.parametrize("kind", [AssertionError, KeyboardInterrupt])
async def test_what_goes_wrong_at_the_time_of_a_ping_comes_out_of_the_block_bare(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    def fail(self: Link) -> None:
        raise kind

    monkeypatch.setattr(Link, "send_ping", fail)
    with pytest.raises(kind):
        async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
            await ws.recv()
    assert server.stream.is_closed
