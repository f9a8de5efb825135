"""How a connection to an application in process ends, from either side."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from zapros_websocket import (
    CloseCode,
    CloseMessage,
    ConnectionClosed,
    TextMessage,
    aconnect_ws,
    open_ws,
)

from .applications import (
    ACCEPT,
    URL,
    Echo,
    Event,
    Raises,
    Returns,
    Says,
    client_of,
    close,
    text,
)

pytestmark = pytest.mark.anyio


class BlockError(Exception):
    """What a block raises."""


# This side closes


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1000, ""), (1001, "moving on"), (1014, "behind me"), (3000, ""), pytest.param(4999, "ě" * 61, id="longest")],
)
async def test_the_application_learns_the_code_and_the_reason(code: int, reason: str) -> None:
    application = Echo()
    async with client_of(application) as client, aconnect_ws(URL, client=client) as ws:
        await ws.close(code, reason)
        assert (ws.close_code, ws.close_reason) == (code, reason)
    assert application.disconnects == [(code, reason)]


async def test_leaving_the_block_closes_with_1000() -> None:
    application = Echo()
    async with client_of(application) as client:
        async with aconnect_ws(URL, client=client):
            pass
        assert application.disconnects == [(1000, "")]


async def test_a_block_that_raised_closes_too() -> None:
    application = Echo()
    async with client_of(application) as client:
        with pytest.raises(BlockError):
            async with aconnect_ws(URL, client=client):
                raise BlockError
        assert application.disconnects == [(1000, "")]


async def test_a_block_that_was_cancelled_closes_too() -> None:
    application = Echo()
    async with client_of(application) as client:
        with anyio.CancelScope() as scope:
            async with aconnect_ws(URL, client=client):
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        await application.ended.wait()
    assert application.disconnects == [(1000, "")]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_of_asyncio_that_was_cancelled_closes_too(anyio_backend: str) -> None:
    application = Echo()
    connected = anyio.Event()
    async with client_of(application) as client:

        async def converse() -> None:
            async with aconnect_ws(URL, client=client) as ws:
                connected.set()
                await ws.recv()

        task = asyncio.create_task(converse())
        await connected.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await application.ended.wait()
    assert application.disconnects == [(1000, "")]


async def test_a_cancelled_task_group_closes_what_it_owns() -> None:
    application = Echo()
    async with client_of(application) as client:
        async with anyio.create_task_group() as task_group:
            ws = await open_ws(task_group, URL, client=client)
            await ws.send("hello")
            assert await ws.recv() == TextMessage("hello")
            task_group.cancel_scope.cancel()
        await application.ended.wait()
    assert application.disconnects == [(1000, "")]


async def test_a_close_message_closes() -> None:
    application = Echo()
    async with client_of(application) as client, aconnect_ws(URL, client=client) as ws:
        await ws.send(CloseMessage(4001, "enough"))
        assert await ws.recv() == CloseMessage(4001, "enough")
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.clean
    assert application.disconnects == [(4001, "enough")]


async def test_what_the_application_sent_before_the_close_is_received() -> None:
    application = Says(ACCEPT, text("before"))
    async with client_of(application) as client, aconnect_ws(URL, client=client) as ws:
        await anyio.wait_all_tasks_blocked()
        await ws.close()
        assert await ws.recv() == TextMessage("before")
        with pytest.raises(ConnectionClosed):
            await ws.recv()


async def test_several_closes_are_one_disconnect() -> None:
    application = Echo()
    async with client_of(application) as client, aconnect_ws(URL, client=client) as ws:
        async with anyio.create_task_group() as task_group:
            for _ in range(5):
                task_group.start_soon(ws.close, 3001)
        await ws.close()
    assert application.disconnects == [(3001, "")]


# The application closes


@pytest.mark.parametrize(
    ("event", "received"),
    [
        (close(), CloseMessage(1000, "")),
        (close(code=1001, reason="shutting down"), CloseMessage(1001, "shutting down")),
        (close(code=4000, reason=None), CloseMessage(4000, "")),
        (close(code=1014), CloseMessage(1014, "")),
        (close(code=1005), CloseMessage(1005, "")),
    ],
)
async def test_the_close_of_the_application_is_received_once(event: Event, received: CloseMessage) -> None:
    application = Says(ACCEPT, text("first"), event)
    async with client_of(application) as client, aconnect_ws(URL, client=client) as ws:
        assert await ws.recv() == TextMessage("first")
        assert await ws.recv() == received
        for _ in range(2):
            with pytest.raises(ConnectionClosed) as caught:
                await ws.recv()
            assert (caught.value.code, caught.value.reason) == (received.code, received.reason)
        with pytest.raises(ConnectionClosed):
            await ws.send("too late")
        assert (ws.close_code, ws.close_reason) == (received.code, received.reason)
        await ws.close(3000, "me too")
    assert application.disconnects == [(received.code, received.reason)]


async def test_iteration_stops_at_the_close_of_the_application() -> None:
    application = Returns(ACCEPT, text("1"), text("2"), close(code=4000, reason="that was it"))
    async with client_of(application) as client, aconnect_ws(URL, client=client) as ws:
        assert [message async for message in ws] == [TextMessage("1"), TextMessage("2")]
        assert (ws.close_code, ws.close_reason) == (4000, "that was it")


async def test_the_application_that_closed_first_has_its_way() -> None:
    application = Says(ACCEPT, close(code=4000, reason="mine"))
    async with client_of(application) as client, aconnect_ws(URL, client=client) as ws:
        await anyio.wait_all_tasks_blocked()
        await ws.close(3000, "yours")
        assert (ws.close_code, ws.close_reason) == (4000, "mine")


async def test_an_application_that_returns_has_closed_with_1000() -> None:
    async with client_of(Returns(ACCEPT)) as client, aconnect_ws(URL, client=client) as ws:
        assert await ws.recv() == CloseMessage(1000, "")


async def test_an_application_that_raises_has_closed_with_1011() -> None:
    async with client_of(Raises(ACCEPT, text("last words"))) as client, aconnect_ws(URL, client=client) as ws:
        assert await ws.recv() == TextMessage("last words")
        message = await ws.recv()
        assert isinstance(message, CloseMessage)
        assert message.code == CloseCode.INTERNAL_ERROR


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(close(code=99999), id="no-such-code"),
        pytest.param(close(code="1000"), id="text-as-code"),
        pytest.param(close(reason=5), id="a-number-as-reason"),
        pytest.param(close(reason="\ud800"), id="a-lone-surrogate"),
    ],
)
async def test_a_close_that_is_none_loses_the_connection(event: Event) -> None:
    application = Says(ACCEPT, text("good"), event)
    async with client_of(application) as client:
        async with aconnect_ws(URL, client=client) as ws:
            assert await ws.recv() == TextMessage("good")
            with pytest.raises(ConnectionClosed) as caught:
                await ws.recv()
        assert caught.value.code == 1006
        await application.ended.wait()
    assert application.disconnects == [(1006, "")]


async def test_a_close_reason_that_is_too_long_is_shortened() -> None:
    async with client_of(Returns(ACCEPT, close(reason="é" * 100))) as client, aconnect_ws(URL, client=client) as ws:
        assert await ws.recv() == CloseMessage(1000, "é" * 61)
