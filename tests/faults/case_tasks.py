"""Many tasks on one connection, and tasks that are cancelled or raise."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Final

import anyio
import pytest

from tests.raw_frames import BINARY, TEXT, close_frame
from zapros_websocket import BinaryMessage, CloseMessage, ConnectionClosed, Message, TextMessage

from .measure import MEBIBYTE
from .registry import Group
from .stage import LARGE, Outcome, Stage, error_in_words, in_words, received, send_without_end
from .steps import answer_close, count, echo, hold, switch, write
from .surfaces import Connection

TASKS: Final = Group("Tasks")

SENDERS: Final = 100
EACH: Final = 20


@TASKS.case("recv is given up every millisecond", seconds=30)
async def recv_given_up(stage: Stage) -> Outcome:
    number = 500
    peer = stage.peer(switch(), count(number, pause=0.002), write(close_frame(1000)), answer_close())
    messages: list[Message] = []
    given_up = 0
    async with stage.connect(peer.url) as connection:
        while CloseMessage(1000, "") not in messages[-1:]:
            message = await connection.recv_within(0.001)
            if message is None:
                given_up += 1
            else:
                messages.append(message)
    assert messages[:-1] == [TextMessage(f"{n + 1} ") for n in range(number)]
    # Whatever the machine: it was not given up so seldom that nothing was tried.
    assert given_up > 10
    return Outcome(in_words(messages), str(await peer.seen()))


@TASKS.case("recv is cancelled every millisecond by task.cancel() of asyncio", seconds=30, needs_cancellation=True)
async def recv_cancelled(stage: Stage) -> Outcome:
    number = 500
    peer = stage.peer(switch(), count(number, pause=0.002), write(close_frame(1000)), answer_close())
    messages: list[Message] = []
    is_trio = stage.surface.name == "trio"
    async with stage.connect(peer.url) as connection:

        async def recv() -> None:
            while True:
                messages.append(await connection.recv())

        while CloseMessage(1000, "") not in messages[-1:]:
            if is_trio:
                with anyio.move_on_after(0.001), contextlib.suppress(ConnectionClosed):
                    await recv()
                continue
            task = asyncio.ensure_future(recv())
            await asyncio.sleep(0.001)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await task
    assert messages[:-1] == [TextMessage(f"{n + 1} ") for n in range(number)]
    return Outcome(in_words(messages), str(await peer.seen()))


@TASKS.case("a send is cancelled half-way", seconds=15, mebibytes=80, needs_cancellation=True)
async def send_cancelled(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), hold(50))
    async with stage.connect(peer.url) as connection:
        with anyio.move_on_after(0.2) as scope:
            await connection.send(bytes(LARGE))
        assert scope.cancelled_caught
        with pytest.raises(ConnectionClosed) as caught:
            await connection.send("the next")
        assert caught.value.code == 1006
        with pytest.raises(ConnectionClosed):
            await connection.recv()
    await peer.let_go()
    seen = await peer.seen()
    # Nothing may follow: the peer would take it for the rest of the message.
    assert not seen.frames
    assert seen.half_a_frame
    return Outcome(f"{error_in_words(caught.value)} from the next send", str(seen))


@TASKS.case("a send is cancelled while it waits for its turn", seconds=15, mebibytes=80, needs_cancellation=True)
async def send_cancelled_in_time(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), hold(50), answer_close())
    async with stage.connect(peer.url) as connection, anyio.create_task_group() as tasks:
        tasks.start_soon(connection.send, bytes(LARGE))
        await anyio.sleep(0.1)
        with anyio.move_on_after(0.1) as scope:
            await connection.send("never mind")
        assert scope.cancelled_caught
        await peer.let_go()
        await connection.send("the next")
    seen = await peer.seen()
    assert [seen_frame.length for seen_frame in seen.frames[:-1]] == [LARGE, 8]
    return Outcome("nothing is broken", str(seen))


@TASKS.case("100 senders", seconds=30)
async def senders(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), answer_close())
    async with stage.connect(peer.url) as connection, anyio.create_task_group() as tasks:

        async def send(sender: int) -> None:
            for number in range(EACH):
                await connection.send(f"{sender} {number} ".ljust(sender * 10))

        for sender in range(SENDERS):
            tasks.start_soon(send, sender)
    seen = await peer.seen()
    texts = [seen_frame.beginning.split()[:2] for seen_frame in seen.of(TEXT)]
    for sender in range(SENDERS):
        assert [int(number) for name, number in texts if int(name) == sender] == list(range(EACH))
    return Outcome("every message sent", str(seen))


@TASKS.case("five receivers", seconds=30)
async def receivers(stage: Stage) -> Outcome:
    number = 1000
    peer = stage.peer(switch(), count(number, pause=0.0005), write(close_frame(1000)), answer_close())
    got: Counter[str] = Counter()
    closes: list[CloseMessage] = []
    async with stage.connect(peer.url) as connection, anyio.create_task_group() as tasks:

        async def receive() -> None:
            messages, closed = await received(connection)
            assert closed.code == 1000
            got.update(message.data for message in messages if isinstance(message, TextMessage))
            closes.extend(message for message in messages if isinstance(message, CloseMessage))

        for _ in range(5):
            tasks.start_soon(receive)
    assert got == Counter(f"{n + 1} " for n in range(number))
    assert len(closes) == 1
    return Outcome(f"{number} × text, each once; CloseMessage 1000, once", str(await peer.seen()))


# The block


class OddError(Exception):
    """An error of the caller."""


@TASKS.case("an exception in the block")
async def raises(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), answer_close())
    with pytest.raises(OddError) as caught:
        async with stage.connect(peer.url):
            raise OddError
    assert caught.value.__cause__ is None
    seen = await peer.seen()
    assert seen.close_code == 1000
    return Outcome(error_in_words(caught.value), str(seen))


@TASKS.case("an exception in the block, and a peer that answers nothing", seconds=5)
async def raises_to_silence(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), hold(20))
    with pytest.raises(OddError) as caught:
        async with stage.connect(peer.url):
            raise OddError
    seen = await peer.seen()
    assert seen.close_code == 1000
    return Outcome(error_in_words(caught.value), str(seen))


@TASKS.case("an exception in the block while a send is blocked", seconds=8, mebibytes=80)
async def raises_while_sending(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), hold(50))
    errors: list[ConnectionClosed] = []

    async def send(connection: Connection) -> None:
        with pytest.raises(ConnectionClosed) as caught:
            await send_without_end(connection)
        errors.append(caught.value)

    async with anyio.create_task_group() as tasks:
        with pytest.raises(OddError):
            async with stage.connect(peer.url) as connection:
                tasks.start_soon(send, connection)
                await anyio.sleep(0.2)
                raise OddError
    assert len(errors) == 1
    await peer.let_go()
    return Outcome(f"OddError; {error_in_words(errors[0])} from the send", str(await peer.seen()))


@TASKS.case("an exception in a sibling cancels the block", needs_cancellation=True)
async def sibling(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), echo())
    with pytest.raises(BaseException) as caught:
        async with anyio.create_task_group() as tasks:

            async def fail() -> None:
                await peer.asked()
                await anyio.sleep(0.05)
                raise OddError

            tasks.start_soon(fail)
            async with stage.connect(peer.url) as connection:
                await connection.recv()
    # The group is the caller's own, and so is what comes out of it: that error, alone.
    inner: list[BaseException] = list(getattr(caught.value, "exceptions", []))
    assert [type(error) for error in inner] == [OddError]
    seen = await peer.seen()
    assert seen.close_code == 1000
    return Outcome("OddError out of the caller's own group", str(seen))


@TASKS.case("the block is cancelled from outside", needs_cancellation=True)
async def cancelled(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), echo())
    with anyio.move_on_after(0.2) as scope:
        async with stage.connect(peer.url) as connection:
            await connection.recv()
    assert scope.cancelled_caught
    seen = await peer.seen()
    assert seen.close_code == 1000
    return Outcome("the cancellation", str(seen))


@TASKS.case("the block is cancelled by task.cancel() of asyncio", needs_cancellation=True)
async def cancelled_natively(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), echo())

    async def block() -> None:
        async with stage.connect(peer.url) as connection:
            await connection.recv()

    if stage.surface.name == "trio":
        with anyio.move_on_after(0.2):
            await block()
    else:
        task = asyncio.ensure_future(block())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    seen = await peer.seen()
    assert seen.close_code == 1000
    return Outcome("the cancellation", str(seen))


@TASKS.case("the block is cancelled, and the peer answers nothing", seconds=5, needs_cancellation=True)
async def cancelled_in_silence(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), hold(20))
    with anyio.move_on_after(0.2) as scope:
        async with stage.connect(peer.url) as connection:
            await connection.recv()
    assert scope.cancelled_caught
    seen = await peer.seen()
    assert seen.close_code == 1000
    return Outcome("the cancellation", str(seen))


@TASKS.case("the handshake is cancelled", needs_cancellation=True)
async def handshake_cancelled(stage: Stage) -> Outcome:
    peer = stage.peer(hold(20))
    async with anyio.create_task_group() as tasks:

        async def connect() -> None:
            async with stage.connect(peer.url):
                pytest.fail("nobody answered")

        tasks.start_soon(connect)
        await peer.asked()
        tasks.cancel_scope.cancel()
    seen = await peer.seen()
    return Outcome("the cancellation", str(seen))


@TASKS.case("another task closes while one is in recv")
async def closed_by_another(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), answer_close())
    ends: list[ConnectionClosed] = []
    async with stage.connect(peer.url) as connection, anyio.create_task_group() as tasks:

        async def recv() -> None:
            messages, closed = await received(connection)
            assert messages == []
            ends.append(closed)

        tasks.start_soon(recv)
        await anyio.sleep(0.1)
        await connection.close(4000, "enough")
    assert [end.code for end in ends] == [4000]
    return Outcome(error_in_words(ends[0]), str(await peer.seen()))


@TASKS.case("sending and receiving at full speed at once", seconds=40, mebibytes=100)
async def full_speed(stage: Stage) -> Outcome:
    number = 200
    payload = bytes(MEBIBYTE // 8)
    peer = stage.peer(switch(), echo())
    async with stage.connect(peer.url) as connection, anyio.create_task_group() as tasks:

        async def send() -> None:
            for n in range(number):
                await connection.send(b"%d " % n + payload)

        tasks.start_soon(send)
        for n in range(number):
            message = await connection.recv()
            assert message == BinaryMessage(b"%d " % n + payload)
    seen = await peer.seen()
    assert len(seen.of(BINARY)) == number
    return Outcome(f"{number} × binary", str(seen))
