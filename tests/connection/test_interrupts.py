"""On trio an interrupt hits no task of a connection: it comes out where the main task waits, and breaks nothing."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import pytest
import trio
from wsproto.events import TextMessage as WsprotoText

from tests.interrupts import interrupts_come_out
from tests.memory import MemoryServer
from zapros_websocket import AsyncWebSocket, TextMessage, aconnect_ws, open_ws
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


def lines_of(function: Callable[..., Any]) -> list[int]:
    code: CodeType = function.__code__
    return sorted({line for _, _, line in code.co_lines() if line is not None and line > code.co_firstlineno})


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
