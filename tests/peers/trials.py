"""What is tried with each client: a trial says in a few words what came of it.

A trial runs on trio, in a thread of its own: what stands still is left behind.
"""

from __future__ import annotations

import asyncio
import threading
import time
import zlib
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any, Final, cast

import trio
from wsproto.events import CloseConnection, Pong

from .clients import Client
from .server import Side, frame, listen

# Seconds for whatever is not to take long; and for what is to be waited for in vain.
PATIENCE: Final = 20.0
IN_VAIN: Final = 4.0

Say = Callable[[str], None]
"""Tells what came of a trial; what comes after the first word does not count."""

Trial = Callable[[Client, Say], Awaitable["str | None"]]


class _Mine(ValueError):
    """An error of the user's own."""


def code_of(error: BaseException) -> object:
    """The close code that an error carries, wherever the client puts it: its own, when it says why it failed."""
    for holder in (getattr(error, "sent", None), getattr(error, "reason", None), error):
        code: object = getattr(holder, "code", None)
        if isinstance(code, int):
            return int(code)
    return None


async def recv_is_cancelled(client: Client, say: Say) -> str | None:
    """``recv`` is cancelled again and again, also in the middle of a frame."""
    expected = [b"%d" % number * 20 for number in range(100)]

    def behave(side: Side) -> None:
        side.accept()
        for payload in expected:
            sent = frame(2, payload)
            for half in (sent[:9], sent[9:]):
                side.write(half)
                time.sleep(0.004)
        side.serve()

    received: list[object] = []
    async with client.connect(listen(behave)) as ws:
        try:
            with trio.move_on_after(PATIENCE / 2):
                while len(received) < len(expected):
                    with trio.move_on_after(0.001):
                        received.append(await client.recv(ws))
        except Exception:
            return "the stream breaks"
    return "nothing is lost" if received == expected else f"{len(expected) - len(received)} are lost"


async def recv_is_cancelled_on_asyncio(client: Client, say: Say) -> str | None:
    """A task that receives is cancelled natively, sooner or later after it has begun, while 400 messages come."""
    number = 400

    def behave(side: Side) -> None:
        side.accept()
        for _ in range(number):
            side.write(frame(2, b"x"))
            time.sleep(0.001)
        side.serve()

    received = turns = 0
    async with client.connect(listen(behave)) as ws:
        end = time.monotonic() + PATIENCE / 4
        while received < number and time.monotonic() < end:
            turns += 1
            task = asyncio.ensure_future(client.recv(ws))
            for _ in range(turns % 40 + 1):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            received += not task.cancelled()
        while True:
            try:
                await asyncio.wait_for(client.recv(ws), 1)
            except (TimeoutError, asyncio.TimeoutError):
                break
            received += 1
        say("nothing is lost" if received == number else "messages are lost")
    return None


async def send_after_one_that_was_cancelled_half_way(client: Client, say: Say) -> str | None:
    """A message of 24 MiB is cancelled while the peer does not read; then it reads, and another is sent."""
    go_on = threading.Event()

    def behave(side: Side) -> None:
        side.accept()
        go_on.wait(PATIENCE)
        side.read_on()

    async with client.connect(listen(behave)) as ws:
        with trio.move_on_after(0.5) as scope:
            await client.send(ws, bytes(24 << 20))
        assert scope.cancelled_caught
        go_on.set()
        try:
            with trio.fail_after(PATIENCE / 2):
                await client.send(ws, b"after")
        except Exception as error:
            say("waits" if isinstance(error, trio.TooSlowError) else "raises")
        say("the message vanishes")
    return None


async def ping_while_a_send_is_blocked(client: Client, say: Say) -> str | None:
    """The peer reads nothing before it has written a ping, and a good deal behind it."""
    done = threading.Event()

    def behave(side: Side) -> None:
        side.accept()
        time.sleep(0.3)
        side.write(frame(9, b"?"))
        for _ in range(2000):
            side.write(frame(2, bytes(16 << 10)))
        done.set()
        side.read_on()

    async def receive(ws: Any) -> None:
        while True:
            await client.recv(ws)

    async with client.connect(listen(behave)) as ws, trio.open_nursery() as nursery:
        nursery.start_soon(client.send, ws, bytes(24 << 20))
        await trio.sleep(0.1)
        nursery.start_soon(receive, ws)
        await trio.to_thread.run_sync(done.wait, IN_VAIN + 4)
        say("reading goes on" if done.is_set() else "stands still")
        nursery.cancel_scope.cancel()
    return None


async def leaving_and_no_answer(client: Client, say: Say) -> str | None:
    """The peer never answers the close, and leaves TCP open."""

    def behave(side: Side) -> None:
        side.accept()
        side.read_on()
        time.sleep(PATIENCE)

    async with client.connect(listen(behave)):
        pass
    return "does not wait"


async def leaving_and_a_flood(client: Client, say: Say) -> str | None:
    """The peer sends as fast as it can, and answers the close."""

    closing = threading.Event()

    def behave(side: Side) -> None:
        side.accept()
        side.serve_in_a_thread(lambda event: closing.set() if isinstance(event, CloseConnection) else None)
        while not closing.is_set():
            side.write(frame(2, bytes(16 << 10)))
        time.sleep(PATIENCE)

    async with client.connect(listen(behave)):
        await trio.sleep(0.5)
    return "leaves"


async def leaving_with_a_ping_behind(client: Client, say: Say) -> str | None:
    """There are ten unread messages, and a ping behind them."""
    return await _leaving_with_unread(client, 10)


async def leaving_with_more_and_a_ping_behind(client: Client, say: Say) -> str | None:
    """There are fifty of them."""
    return await _leaving_with_unread(client, 50)


async def _leaving_with_unread(client: Client, number: int) -> str:
    def behave(side: Side) -> None:
        side.accept()
        side.write(frame(1, b"unread") * number + frame(9, b"?"))
        side.serve()

    async with client.connect(listen(behave)):
        await trio.sleep(0.5)
    return "fine"


async def an_error_in_the_block(client: Client, say: Say) -> str | None:
    """The block raises a ``ValueError``."""

    def behave(side: Side) -> None:
        side.accept()
        side.serve()

    try:
        async with client.connect(listen(behave)):
            raise _Mine
    except _Mine:
        return "as itself"
    except BaseException as error:
        return f"in an `{type(error).__name__}`"


async def ping_while_nobody_receives(client: Client, say: Say) -> str | None:
    """Two messages and a ping come, and nobody is in ``recv``."""
    answered = threading.Event()

    def behave(side: Side) -> None:
        side.accept()
        side.write(frame(1, b"a") + frame(1, b"b") + frame(9, b"?"))
        side.serve(lambda event: answered.set() if isinstance(event, Pong) else None)

    async with client.connect(listen(behave)):
        await trio.to_thread.run_sync(answered.wait, 2)
        say("answered" if answered.is_set() else "not answered")
    return None


async def a_bomb(client: Client, say: Say) -> str | None:
    """64 MiB of nothing, deflated."""
    offers: list[bytes] = []

    def behave(side: Side) -> None:
        offers.append(side.headers.get(b"sec-websocket-extensions", b""))
        side.accept(deflate=bool(offers[0]))
        if offers[0]:
            deflate = zlib.compressobj(9, wbits=-15)
            data = deflate.compress(bytes(64 << 20)) + deflate.flush(zlib.Z_SYNC_FLUSH)
            side.write(frame(2, data[:-4], rsv1=True))
        side.serve()

    async with client.connect(listen(behave), **client.deflate) as ws:
        if not offers[0]:
            return "no compression"
        try:
            with trio.fail_after(PATIENCE / 2):
                await client.recv(ws)
        except Exception as error:
            say(f"refused with {code_of(error)}")
        say("delivered")
    return None


async def fragments_without_end(client: Client, say: Say) -> str | None:
    """A message of 20 MiB in fragments, which has no last one."""
    done = threading.Event()

    def behave(side: Side) -> None:
        side.accept()
        for number in range(320):
            side.write(frame(0 if number else 2, bytes(64 << 10), fin=False))
        done.set()
        side.serve()

    async def receive(ws: Any) -> None:
        try:
            while True:
                await client.recv(ws)
        except Exception as error:
            say(f"refused with {code_of(error)}")

    async with client.connect(listen(behave)) as ws, trio.open_nursery() as nursery:
        nursery.start_soon(receive, ws)
        await trio.to_thread.run_sync(done.wait, PATIENCE)
        # Some say so when the peer has answered.
        await trio.sleep(IN_VAIN)
        say("no limit")
        nursery.cancel_scope.cancel()
    return None


async def lost_during_iteration(client: Client, say: Say) -> str | None:
    """TCP ends without a close frame, while the messages are iterated over."""

    def behave(side: Side) -> None:
        side.accept()
        side.write(frame(1, b"a"))
        time.sleep(0.3)

    async with client.connect(listen(behave)) as ws:
        if not isinstance(ws, AsyncIterable):
            return "cannot be iterated"
        try:
            async for _ in cast("AsyncIterable[object]", ws):
                pass
        except Exception:
            return "raises"
        return "just ends"


async def a_refusal(client: Client, say: Say) -> str | None:
    """The server answers 403, with a body."""

    def behave(side: Side) -> None:
        side.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\nX-Why: it\r\n\r\nno access")
        time.sleep(0.5)

    try:
        async with client.connect(listen(behave)):
            return "connects"
    except Exception as error:
        response = getattr(error, "response", error)
        try:
            body: object = next(
                value
                for value in (getattr(response, name, None) for name in ("content", "body"))
                if isinstance(value, (bytes, bytearray))
            )
        except StopIteration:
            return f"a `{type(error).__name__}` without the response"
        except Exception as unread:
            return f"the response without its body (`{type(unread).__name__}`)"
        return "the response" if bytes(body) == b"no access" else "the response without its body"  # type: ignore[call-overload]


async def a_wrong_key(client: Client, say: Say) -> str | None:
    """``Sec-WebSocket-Accept`` is that of another handshake."""

    def behave(side: Side) -> None:
        side.accept(key=b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        side.serve()

    try:
        async with client.connect(listen(behave)):
            return "accepted"
    except Exception as error:
        return f"an error of {type(error).__module__.partition('.')[0]}"


async def keepalive_and_a_slow_application(client: Client, say: Say) -> str | None:
    """Much is unread, the pong stands behind it, and the application takes its time."""
    if client.keepalive is None:
        return "no keepalive"

    def behave(side: Side) -> None:
        side.accept()
        side.serve_in_a_thread()
        for _ in range(4000):
            side.write(frame(2, bytes(2 << 10)))
        time.sleep(PATIENCE)

    async with client.connect(listen(behave), **client.keepalive) as ws:
        await trio.sleep(2)
        try:
            for _ in range(4000):
                await client.recv(ws)
        except Exception:
            say("cut")
        say("stays connected")
    return None


TRIALS: Final[dict[str, tuple[Trial, float]]] = {
    trial.__name__: (trial, patience)
    for trial, patience in (
        (recv_is_cancelled, PATIENCE),
        (recv_is_cancelled_on_asyncio, PATIENCE),
        (send_after_one_that_was_cancelled_half_way, PATIENCE),
        (ping_while_a_send_is_blocked, PATIENCE),
        (leaving_and_no_answer, IN_VAIN),
        (leaving_and_a_flood, IN_VAIN + 0.5),
        (leaving_with_a_ping_behind, IN_VAIN),
        (leaving_with_more_and_a_ping_behind, IN_VAIN),
        (an_error_in_the_block, PATIENCE),
        (ping_while_nobody_receives, PATIENCE),
        (a_bomb, PATIENCE),
        (fragments_without_end, PATIENCE),
        (lost_during_iteration, PATIENCE),
        (a_refusal, PATIENCE),
        (a_wrong_key, PATIENCE),
        (keepalive_and_a_slow_application, PATIENCE),
    )
}


def asyncio_run(trial: Trial, client: Client, say: Say) -> str | None:
    """As ``trio.run``."""

    async def run() -> str | None:
        return await trial(client, say)

    return asyncio.run(run())


def outcome_of(name: str, client: Client) -> str:
    """Run a trial, for no longer than it may take."""
    trial, patience = TRIALS[name]
    if name.endswith("asyncio") and client.is_for_trio:
        return "not on asyncio"
    outcomes: list[str] = []
    is_over = threading.Event()

    def say(outcome: str) -> None:
        outcomes.append(outcome)
        is_over.set()

    def run() -> None:
        try:
            run_on = asyncio_run if name.endswith("asyncio") else trio.run
            say(run_on(trial, client, say) or "nothing")
        except BaseException as error:
            say(f"`{type(error).__name__}` comes out")

    threading.Thread(target=run, daemon=True).start()
    is_over.wait(patience)
    return outcomes[0] if outcomes else f"not within {patience:g} s"
