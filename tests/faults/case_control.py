"""Pings of the peer, pings of the library, and a peer that is not there any more."""

from __future__ import annotations

from typing import Final

import anyio
import pytest

from tests.raw_frames import BINARY, PING, PONG, TEXT, close_frame, frame
from zapros_websocket import ConnectionClosed, Message, PingMessage, PongMessage, TextMessage

from .measure import turns_of_others
from .registry import Group
from .stage import LARGE, Outcome, Stage, error_in_words, in_words, received, send_without_end, size_of
from .steps import answer_close, await_bytes, count, echo, hold, large, read, read_pong, switch, tell, write
from .surfaces import Options

PINGS: Final = Group("Pings, and a peer that vanishes")
CONSUMERS: Final = Group("Slow consumers")

FLOOD: Final = 20_000


@PINGS.case("a ping while nobody is in recv")
async def idle(stage: Stage) -> Outcome:
    # The peer sends no more until it has the pong, and reports when the client has left.
    peer = stage.peer(
        switch(), write(frame(PING, b"idle?")), read(1), write(frame(PING, b"again")), read(1), answer_close()
    )
    async with stage.connect(peer.url) as connection:
        await anyio.sleep(0.2)
        messages = [await connection.recv(), await connection.recv()]
    seen = await peer.seen()
    assert [pong.beginning for pong in seen.of(PONG)] == [b"idle?", b"again"]
    return Outcome(in_words(messages), str(seen))


@PINGS.case("20,000 pings while nobody is in recv", seconds=30)
async def ping_flood(stage: Stage) -> Outcome:
    # Each ping has a number. The peer sends the text when it has the answer to the last of them.
    flood = b"".join(frame(PING, b"%d" % n) for n in range(20))
    peer = stage.peer(
        switch(),
        write(flood, times=FLOOD // 20),
        write(frame(PING, b"the last")),
        read_pong(b"the last"),
        tell(),
        write(frame(TEXT, b"done")),
        answer_close(),
    )
    async with turns_of_others() as turns, stage.connect(peer.url) as connection:
        await peer.told()
        messages: list[Message] = []
        while TextMessage("done") not in messages[-1:]:
            messages.append(await connection.recv())
    seen = await peer.seen()
    pings = [message for message in messages if isinstance(message, PingMessage)]
    # The oldest pings may be dropped, the newest may not.
    assert pings[-1] == PingMessage(b"the last")
    assert len(pings) <= 2048
    assert seen.close_code == 1000
    assert turns.longest < 3
    return Outcome("the newest pings, text", "pongs to the newest pings, close 1000, FIN")


@PINGS.case("pongs that nobody asked for, 20,000 of them", seconds=30)
async def pong_flood(stage: Stage) -> Outcome:
    peer = stage.peer(
        switch(), write(frame(PONG, b"!" * 100), times=FLOOD), write(frame(TEXT, b"done")), answer_close()
    )
    async with turns_of_others() as turns, stage.connect(peer.url) as connection:
        await anyio.sleep(0.2)
        messages: list[Message] = []
        while TextMessage("done") not in messages[-1:]:
            messages.append(await connection.recv())
    seen = await peer.seen()
    assert all(isinstance(message, PongMessage) for message in messages[:-1])
    assert turns.longest < 3
    return Outcome("the newest pongs, text", str(seen))


@PINGS.case("pings while a send is blocked", seconds=20, mebibytes=80)
async def pings_while_sending(stage: Stage) -> Outcome:
    # 1,000 pings arrive while the peer reads nothing: reading goes on, and the message leaves whole.
    pings = write(frame(PING, b"?"), times=999)
    last = write(frame(PING, b"the last"))
    done = write(frame(TEXT, b"done"))
    peer = stage.peer(
        switch(), await_bytes(), pings, last, hold(0.2), read(1), read_pong(b"the last"), done, answer_close()
    )
    async with stage.connect(peer.url) as connection:
        await connection.send(bytes(LARGE))
        messages = [await connection.recv() for _ in range(1001)]
    seen = await peer.seen()
    data, *others = seen.frames
    assert (data.opcode, data.length) == (BINARY, LARGE)
    assert {frame.opcode for frame in others[:-1]} <= {PONG}
    assert seen.close_code == 1000
    return Outcome(in_words(messages), "binary, pongs to the newest pings, close 1000, FIN")


@PINGS.case("a large message to a peer that sends a large message and reads nothing before", seconds=20, mebibytes=120)
async def both_ways(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), large(BINARY, LARGE), read(1), answer_close())
    async with stage.connect(peer.url) as connection:
        await connection.send(bytes(LARGE))
        message = await connection.recv()
        assert size_of(message) == LARGE
    return Outcome(in_words([message]), str(await peer.seen()))


@PINGS.case("a ping of the caller, answered")
async def own_ping(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), echo())
    async with stage.connect(peer.url) as connection:
        assert await connection.ping() >= 0
    return Outcome("the round trip", str(await peer.seen()))


# A peer that is not there any more

_KEEPALIVE: Final[Options] = {"ping_interval": 0.2, "ping_timeout": 0.3}


@PINGS.case("a peer that vanishes while the caller is in recv", seconds=10, patience=60)
async def vanishes(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), write(frame(TEXT, b"here")), hold(50))
    async with stage.connect(peer.url, **stage.short(**_KEEPALIVE)) as connection:
        messages, closed = await received(connection)
    assert (closed.code, closed.received) == (1011, None)
    assert "ping" in (closed.reason or "")
    seen = await peer.seen()
    assert seen.of(PING)
    return Outcome(in_words(messages, closed), "pings, close 1011, FIN")


@PINGS.case("a peer that vanishes while a send is blocked", seconds=12, mebibytes=80, patience=60)
async def vanishes_while_sending(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), hold(58))
    async with stage.connect(peer.url, **stage.short(**_KEEPALIVE)) as connection:
        with pytest.raises(ConnectionClosed) as caught:
            await send_without_end(connection)
        assert caught.value.code == 1011
    await peer.let_go()
    seen = await peer.seen()
    assert not seen.frames
    assert seen.half_a_frame
    return Outcome(error_in_words(caught.value), str(seen))


@PINGS.case("a peer that answers no ping and goes on to send", seconds=10)
async def no_pong_but_data(stage: Stage) -> Outcome:
    # Any byte is a sign of life.
    peer = stage.peer(switch(), count(10, pause=0.1), write(close_frame(1000)), answer_close())
    async with stage.connect(peer.url, ping_interval=0.1, ping_timeout=0.5) as connection:
        messages, closed = await received(connection)
    seen = await peer.seen()
    assert closed.code == 1000
    assert seen.of(PING)
    return Outcome(in_words(messages, closed), "pings, close 1000, FIN")


@PINGS.case("a ping of the caller to a peer that vanishes", seconds=10)
async def own_ping_lost(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), hold(50))
    async with stage.connect(peer.url, **_KEEPALIVE) as connection:
        with pytest.raises(ConnectionClosed) as caught:
            await connection.ping()
        assert caught.value.code == 1011
    seen = await peer.seen()
    assert seen.of(PING)
    return Outcome(error_in_words(caught.value), "pings, close 1011, FIN")


# Slow consumers: more is on its way than is kept, so the reader stops, and the pongs stand behind what is unread.

for keepalive_name, keepalive in {
    "with keepalive": Options(ping_interval=0.1, ping_timeout=0.2),
    "without keepalive": Options(ping_interval=None),
}.items():

    async def sleeps(stage: Stage, options: Options = keepalive) -> Outcome:
        number = 20_000
        peer = stage.peer(switch(), count(number, size=1000), echo())
        async with stage.connect(peer.url, **options) as connection:
            await anyio.sleep(1)
            messages = [await connection.recv() for _ in range(number)]
        assert [size_of(message) for message in messages] == [1000] * number
        texts = [message.data for message in messages if isinstance(message, TextMessage)]
        assert [int(text) for text in texts] == list(range(1, number + 1))
        seen = await peer.seen()
        assert seen.close_code == 1000
        return Outcome(in_words(messages), "close 1000, FIN")

    CONSUMERS.add(f"nobody is in recv for a second, {keepalive_name}", sleeps, seconds=30, mebibytes=60)

    async def leaves(stage: Stage, options: Options = keepalive) -> Outcome:
        peer = stage.peer(switch(), count(20_000, size=1000), answer_close())
        async with stage.connect(peer.url, **options) as connection:
            first = await connection.recv()
            await anyio.sleep(0.5)
        assert connection.close_code == 1000
        seen = await peer.seen()
        assert seen.close_code == 1000
        return Outcome(in_words([first]), "close 1000, FIN")

    CONSUMERS.add(f"leaves with 20 MB unread, {keepalive_name}", leaves, seconds=30, mebibytes=12)
