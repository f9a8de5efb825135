"""The closing handshake with a peer that takes no part in it."""

from __future__ import annotations

from typing import Final

import anyio
import pytest

from tests.raw_frames import BINARY, CLOSE, TEXT, close_frame, frame, header
from zapros_websocket import CloseMessage, ConnectionClosed

from .registry import Group
from .stage import Outcome, Stage, error_in_words, in_words, received, send_without_end
from .steps import ENDLESS, Step, answer_close, fin, hold, large, read_close, rst, stay, switch, write
from .surfaces import Options

CLOSING: Final = Group("Closing")


async def leaves(stage: Stage, *script: Step, code: int, options: Options | None = None) -> Outcome:
    """Leaving the block is bounded, and the connection ends with ``code``."""
    peer = stage.peer(switch(), *script)
    async with stage.connect(peer.url, **(options or {})) as connection:
        pass
    assert connection.close_code == code
    seen = await peer.seen()
    return Outcome(f"close code {code}", str(seen))


@CLOSING.case("in order")
async def in_order(stage: Stage) -> Outcome:
    return await leaves(stage, answer_close(), code=1000)


@CLOSING.case("no answer to the close frame", seconds=8, patience=25)
async def no_answer(stage: Stage) -> Outcome:
    return await leaves(stage, stay(), code=1006, options=stage.short(close_timeout=0.3))


@CLOSING.case("the close frame is not even read", seconds=8, patience=25)
async def not_read(stage: Stage) -> Outcome:
    return await leaves(stage, hold(15), code=1006, options=stage.short(close_timeout=0.3))


@CLOSING.case("an answer, and TCP stays open", seconds=8, patience=25)
async def stays_open(stage: Stage) -> Outcome:
    return await leaves(stage, answer_close(), stay(), code=1000, options=stage.short(close_timeout=0.3))


@CLOSING.case("another code for an answer")
async def another_code(stage: Stage) -> Outcome:
    return await leaves(stage, read_close(), write(close_frame(4001, b"mine")), code=4001)


@CLOSING.case("FIN for an answer")
async def fin_for_an_answer(stage: Stage) -> Outcome:
    return await leaves(stage, read_close(), fin(), code=1006)


@CLOSING.case("RST for an answer")
async def rst_for_an_answer(stage: Stage) -> Outcome:
    return await leaves(stage, read_close(), rst(), code=1006)


@CLOSING.case("a violation for an answer")
async def violation_for_an_answer(stage: Stage) -> Outcome:
    outcome = await leaves(stage, read_close(), write(frame(0x3)), code=1002)
    assert "close 1002" not in outcome.peer
    return outcome


@CLOSING.case("half a close frame for an answer", seconds=8)
async def half_an_answer(stage: Stage) -> Outcome:
    return await leaves(
        stage, read_close(), write(close_frame(1000)[:3]), stay(), code=1006, options={"close_timeout": 0.3}
    )


@CLOSING.case("messages without end for an answer", seconds=8)
async def flood_for_an_answer(stage: Stage) -> Outcome:
    outcome = await leaves(
        stage, write(frame(BINARY, bytes(10_000)), times=ENDLESS), code=1006, options={"close_timeout": 0.4}
    )
    return Outcome(outcome.caller, "close 1000, FIN or RST")


@CLOSING.case("half a message without end for an answer", seconds=8)
async def endless_message_for_an_answer(stage: Stage) -> Outcome:
    script = [write(header(BINARY, 1 << 23)), write(b"x", times=ENDLESS, pause=0.01)]
    outcome = await leaves(stage, *script, code=1006, options={"close_timeout": 0.4})
    return Outcome(outcome.caller, "close 1000, FIN or RST")


@CLOSING.case("the answer behind 20 MB of data")
async def answer_behind_data(stage: Stage) -> Outcome:
    return await leaves(stage, large(BINARY, 1_000_000, times=20), answer_close(), code=1000)


@CLOSING.case("a send is blocked meanwhile", seconds=10, mebibytes=80)
async def while_a_send_is_blocked(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), hold(50))
    errors: list[ConnectionClosed] = []

    async with stage.connect(peer.url, close_timeout=0.4) as connection, anyio.create_task_group() as tasks:

        async def send() -> None:
            with pytest.raises(ConnectionClosed) as caught:
                await send_without_end(connection)
            errors.append(caught.value)

        tasks.start_soon(send)
        # The message is under way when nothing more leaves; there is no event for that.
        await anyio.sleep(0.2)
        await connection.close()
    # The one of the close under way, for a send that begins then, or the end.
    assert [error.code in (1000, 1006) for error in errors] == [True]
    await peer.let_go()
    seen = await peer.seen()
    assert not seen.frames
    return Outcome(error_in_words(errors[0]), str(seen))


@CLOSING.case("several tasks close at once")
async def at_once(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), answer_close())
    async with stage.connect(peer.url) as connection, anyio.create_task_group() as tasks:
        for n in range(10):
            tasks.start_soon(connection.close, 4000 + n, "")
    seen = await peer.seen()
    assert len(seen.of(CLOSE)) == 1
    assert connection.close_code == seen.close_code
    return Outcome("one close frame, whose code it is", "close 4000 to 4009, FIN")


@CLOSING.case("a close message is sent, and the caller receives to the end")
async def close_message(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), read_close(), write(frame(TEXT, b"last words") + close_frame(4000)))
    async with stage.connect(peer.url) as connection:
        await connection.send(CloseMessage(4000, "enough"))
        messages, closed = await received(connection)
    assert closed.code == 4000
    seen = await peer.seen()
    return Outcome(in_words(messages, closed), str(seen))
