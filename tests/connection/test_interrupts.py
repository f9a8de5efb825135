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
