"""On trio an interrupt hits no task of a connection: it comes out where the main task waits, and breaks nothing."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wsproto.events import TextMessage as WsprotoText

from tests.interrupts import interrupt_at, interrupts_come_out, lines_of
from tests.memory import MemoryServer
from tests.test_watch import connected
from zapros_websocket import AsyncWebSocket, ConnectionClosed, Message, TextMessage, aconnect_ws, open_ws
from zapros_websocket._link import Link
from zapros_websocket._turn import Turn
from zapros_websocket._writer import Writer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there an interrupt comes in its own time")


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    with interrupts_come_out():
        yield


@pytest.mark.parametrize("entered", ["block", "nursery"])
def test_one_that_comes_while_the_reader_works_comes_out_in_the_main_task_and_loses_nothing(
    entered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = MemoryServer()
    take = Link.take

    def interrupted(self: Link, data: bytes | memoryview) -> bool:
        monkeypatch.setattr(Link, "take", take)
        signal.raise_signal(signal.SIGINT)
        return take(self, data)

    async def receive(ws: AsyncWebSocket) -> None:
        monkeypatch.setattr(Link, "take", interrupted)
        await server.peer.send(WsprotoText("here"))
        with pytest.raises(KeyboardInterrupt):
            await trio.sleep_forever()
        assert await ws.recv() == TextMessage("here")

    async def main() -> None:
        if entered == "block":
            async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
                await receive(ws)
        else:
            async with trio.open_nursery() as nursery:
                ws = await open_ws(nursery, "ws://test/", client=server.client, close_timeout=0)
                await receive(ws)
                await ws.close()

    trio.run(main)


RECEIVE: dict[str, tuple[Callable[..., Any], Callable[[AsyncWebSocket], Awaitable[str]]]] = {
    "recv": (AsyncWebSocket.recv, lambda ws: text_of(ws.recv())),
    "iteration": (AsyncWebSocket.__anext__, lambda ws: text_of(anext(ws))),
    "recv_text": (AsyncWebSocket._recv_as, AsyncWebSocket.recv_text),  # pyright: ignore[reportPrivateUsage]
}


async def text_of(message: Awaitable[Message]) -> str:
    received = await message
    assert isinstance(received, TextMessage)
    return received.data


@pytest.mark.parametrize("how", RECEIVE)
def test_one_that_comes_while_a_message_is_taken_loses_nothing(how: str) -> None:
    interrupted, receive = RECEIVE[how]
    server = MemoryServer()
    texts = list(map(str, range(len(lines_of(interrupted)))))

    async def main() -> list[str]:
        received: list[str] = []
        async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
            # The first is waited for, and all others are there.
            await server.peer.send(WsprotoText(texts[0]))
            for line in lines_of(interrupted):
                if line == lines_of(interrupted)[1]:
                    await server.peer.send(*map(WsprotoText, texts[1:]))
                    await wait_all_tasks_blocked()
                with interrupt_at(interrupted, line), suppress(KeyboardInterrupt):
                    received.append(await receive(ws))
                with suppress(KeyboardInterrupt):
                    await trio.lowlevel.checkpoint()
            while len(received) < len(texts):
                received.append(await receive(ws))
        return received

    assert trio.run(main) == texts


def name_of(value: object) -> str:
    return getattr(value, "__qualname__", str(value))


WRITE: list[Callable[..., Any]] = [AsyncWebSocket.send, Link.write, Writer.write, Writer.send_now, Turn.take]
ASK: list[Callable[..., Any]] = [AsyncWebSocket.ping, Link.write, Writer.write, Turn.take]


async def interrupted_or_cancelled(
    call: Callable[[], Awaitable[object]], function: Callable[..., Any], line: int
) -> None:
    """Call it, and interrupt it at that line; or cancel it when it waits and was not interrupted."""

    async def cancel() -> None:
        await wait_all_tasks_blocked(0.01)
        scope.cancel()

    with suppress(KeyboardInterrupt), interrupt_at(function, line), trio.CancelScope() as scope:
        trio.lowlevel.spawn_system_task(cancel)
        await call()
    with suppress(KeyboardInterrupt):
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("function", "line"), [(function, line) for function in WRITE for line in lines_of(function)], ids=name_of
)
def test_one_that_comes_while_a_large_message_is_sent_breaks_the_connection(
    function: Callable[..., Any], line: int
) -> None:
    async def main() -> None:
        async with connected() as (ws, _, _):
            await interrupted_or_cancelled(lambda: ws.send(bytes(16 * 1024 * 1024)), function, line)
            with trio.fail_after(30), pytest.raises(ConnectionClosed, match="a part of its message was written"):
                await ws.send("x")

    trio.run(main)


@pytest.mark.parametrize(
    ("function", "line"), [(function, line) for function in ASK for line in lines_of(function)], ids=name_of
)
def test_one_that_comes_while_a_ping_is_sent_keeps_nobody_waiting(function: Callable[..., Any], line: int) -> None:
    async def main() -> None:
        async with connected() as (ws, _, _):
            await interrupted_or_cancelled(ws.ping, function, line)
            with trio.fail_after(30):
                await ws.send("x")

    trio.run(main)


def test_one_that_comes_in_an_iterable_of_chunks_comes_out_of_it() -> None:
    async def main() -> None:
        def chunks() -> Iterator[str]:
            yield "one"
            signal.raise_signal(signal.SIGINT)
            heard.append("after it")

        heard: list[str] = []
        async with connected() as (ws, _, _):
            with pytest.raises(KeyboardInterrupt):
                await ws.send(chunks())
            assert heard == []
            with pytest.raises(ConnectionClosed, match="broken off"):
                await ws.send("x")

    trio.run(main)


def test_one_that_comes_when_a_part_of_a_message_is_written_breaks_the_connection() -> None:
    class Interrupting(socket.socket):
        def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]
            sent = super().send(data, flags)
            if sent < len(data):
                signal.raise_signal(signal.SIGINT)
            return sent

    async def main() -> None:
        async with connected(kind=Interrupting) as (ws, _, _):
            with pytest.raises(KeyboardInterrupt):
                await ws.send(bytes(16 * 1024 * 1024))
            with pytest.raises(ConnectionClosed, match="a part of its message was written"):
                await ws.send("x")

    trio.run(main)


@pytest.mark.parametrize("line", lines_of(aconnect_ws.__aexit__))
@pytest.mark.parametrize("raises", [False, True], ids=["left", "raised"])
def test_one_that_comes_while_the_block_is_left_comes_out_when_all_is_cleaned_up(line: int, raises: bool) -> None:
    server = MemoryServer()
    came = False

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal came
        if frame.f_code is not aconnect_ws.__aexit__.__code__:
            return None
        if event == "line" and frame.f_lineno == line and not came:
            came = True
            signal.raise_signal(signal.SIGINT)
        return trace

    async def main() -> None:
        async with aconnect_ws("ws://test/", client=server.client, close_timeout=1):
            sys.settrace(trace)
            if raises:
                raise LookupError

    raised: BaseException | None = None
    before = sys.gettrace()
    try:
        trio.run(main)
    except (KeyboardInterrupt, LookupError) as error:
        raised = error
    finally:
        sys.settrace(before)
    # A line may be for the other case alone.
    if came:
        assert isinstance(raised, (KeyboardInterrupt, LookupError) if raises else KeyboardInterrupt)
    assert server.stream.outgoing.ended, "the stream was left open"
