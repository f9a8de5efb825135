"""What a message costs on its way to ``recv``, in calls and in blocks of memory: counted, and never timed."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from types import FrameType

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests.memory import MemoryServer
from zapros_websocket import AsyncWebSocket, BinaryMessage, aconnect_ws
from zapros_websocket._inbox import Inbox
from zapros_websocket._pace import EVERY
from zapros_websocket._turn import Turn
from zapros_websocket._waiting import NewWaiter, Signal, new_waiter_here

pytestmark = pytest.mark.anyio

FRAME = b"\x82\x40" + bytes(64)
# So few that none of them has to let the scheduler run.
MESSAGES = EVERY - 2


async def calls_of(act: Callable[[], Awaitable[object]], times: int) -> list[str]:
    """The functions of Python that were called."""
    calls: list[str] = []

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            calls.append(frame.f_code.co_name)

    await checkpoint()
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        for _ in range(times):
            await act()
    finally:
        sys.setprofile(before)
    return calls


async def with_messages(ws: AsyncWebSocket, server: MemoryServer) -> None:
    """All of a read stands in the inbox, and the next operations need not let others run."""
    await server.peer.write(FRAME * MESSAGES)
    await anyio.wait_all_tasks_blocked()
    ws._pace.waited()  # pyright: ignore[reportPrivateUsage]


async def test_a_recv_that_need_not_wait_is_three_calls_and_one_in_iteration_is_no_more(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        for act in (ws.recv, ws.__anext__):
            await with_messages(ws, server)
            calls = await calls_of(act, MESSAGES - 1)
            assert calls.count(act.__name__) == MESSAGES - 1
            # Itself, the pace, and on asyncio with Python before 3.12 the question which task it is. The first gets to
            # know that task.
            assert len(calls) <= 3 * (MESSAGES - 1) + 10
            assert await ws.recv() == BinaryMessage(bytes(64))


async def test_a_message_is_taken_without_memory_of_its_own(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        await with_messages(ws, server)
        kept = await ws.recv()
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(MESSAGES - 2):
            await ws.recv()
        # What was taken is gone, its bytes as well, and nothing has come in its place.
        assert sys.getallocatedblocks() - before < -(MESSAGES - 2)
        assert kept == await ws.recv()


async def test_one_read_wakes_once_whatever_it_brings(server: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    puts: list[int] = []
    put_data = Inbox.put_data

    def counted(self: Inbox, messages: list[BinaryMessage], size: int | None = None) -> None:
        puts.append(len(messages))
        put_data(self, messages, size)

    monkeypatch.setattr(Inbox, "put_data", counted)
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        await with_messages(ws, server)
        for _ in range(MESSAGES):
            await ws.recv()
    assert puts == [MESSAGES]


@pytest.mark.parametrize("kind", [Inbox, Turn, Signal])
async def test_nobody_who_waits_takes_up_no_memory(kind: Callable[[NewWaiter], object]) -> None:
    new_waiter = new_waiter_here()
    kind(new_waiter)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [kind(new_waiter) for _ in range(100)]
        each = (tracemalloc.get_traced_memory()[0] - before) / len(kept)
    finally:
        tracemalloc.stop()
    # One deque alone is 700 bytes, also while it is empty.
    assert each < 1000


async def test_a_signal_that_was_given_is_not_waited_for() -> None:
    signal = Signal(new_waiter_here())
    assert not signal.is_set()
    signal.set()
    assert signal.is_set()
    await signal.wait()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await signal.wait()
    assert scope.cancelled_caught


async def test_a_signal_wakes_all_who_wait_but_those_who_were_cancelled() -> None:
    signal = Signal(new_waiter_here())
    woken: list[int] = []

    async def wait(number: int, scope: anyio.CancelScope) -> None:
        with scope:
            await signal.wait()
            woken.append(number)

    scopes = [anyio.CancelScope() for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        for number, scope in enumerate(scopes):
            tasks.start_soon(wait, number, scope)
        await anyio.wait_all_tasks_blocked()
        scopes[1].cancel()
        await anyio.wait_all_tasks_blocked()
        signal.set()
        signal.set()
    assert sorted(woken) == [0, 2]
