"""Bursts of small messages: what is gathered, when it is written, and that nothing else is different for it.

The socket is real; it counts how often something is sent, and takes as little as a test says.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from random import Random
from types import FrameType

import anyio
import pytest
import trio
import trustme
from anyio import to_thread
from anyio.lowlevel import checkpoint
from zapros import AsyncClient

from tests.conftest import Backend
from tests.connection.wire import Wire
from tests.memory import StreamHandler
from tests.protocol.wire import Server
from zapros_websocket import (
    AsyncWebSocket,
    CloseMessage,
    ConnectionClosed,
    PingMessage,
    _pace,
    aconnect_ws,
)
from zapros_websocket._inbox import Inbox
from zapros_websocket._protocol import frames
from zapros_websocket._streams.sockets import SocketStream

pytestmark = pytest.mark.anyio

gathering = pytest.mark.usefixtures("that_gathers")


@pytest.fixture
def that_gathers(anyio_backend: Backend) -> None:
    # Elsewhere every message goes out by itself: what is counted differs, and what arrives does not.
    if frames.implementation == "pure" and anyio_backend[0] != "trio":
        pytest.skip("only the form in C can tell the turns of this event loop apart")


@pytest.fixture(params=[False, True], ids=["plain", "deflated"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    wire = Wire(deflates=request.param)
    with wire.theirs, wire.ours:
        yield wire


async def next_turn() -> None:
    """Let everything happen that needs no more than turns of the scheduler."""
    for _ in range(3):
        await checkpoint()
    await anyio.wait_all_tasks_blocked()


def raising(error: type[BaseException]) -> Callable[..., object]:
    def fail(*_: object) -> object:
        raise error

    return fail


async def begin(ws: AsyncWebSocket, wire: Wire) -> None:
    """Let the connection start what it is made of, and begin to count."""
    await next_turn()
    for _ in range(2):
        await ws.send(b"begin")
    await next_turn()
    wire.read()
    wire.ours.sends = 0
    # As if the scheduler had just had its turn: none of the next 31 messages has to let it.
    ws._pace.waited()  # pyright: ignore[reportPrivateUsage]


@gathering
async def test_the_first_message_goes_out_at_once_and_those_behind_it_together(wire: Wire) -> None:
    async with wire.connect() as ws:
        await begin(ws, wire)
        await ws.send("first")
        assert (wire.read(), wire.ours.sends) == (["first"], 1)
        for number in range(20):
            await ws.send(str(number))
        assert (wire.read(), wire.ours.sends) == ([], 1)
        await next_turn()
        assert (wire.read(), wire.ours.sends) == ([str(number) for number in range(20)], 2)
        # A turn later it is the same again, and a message alone costs nothing else.
        await ws.send("alone")
        assert (wire.read(), wire.ours.sends) == (["alone"], 3)
        await next_turn()
        assert (wire.read(), wire.ours.sends) == ([], 3)


@gathering
async def test_a_thousand_sends_take_two_system_calls_for_every_32(wire: Wire) -> None:
    async with wire.connect() as ws:
        await begin(ws, wire)
        received: list[object] = []
        for _ in range(960):
            await ws.send(b"x" * 64)
            received += wire.read()
        await next_turn()
        assert wire.ours.sends <= 2 * 960 // 32 + 2
        assert received + wire.read() == [b"x" * 64] * 960


@gathering
async def test_tasks_that_send_at_the_same_time_do_not_wait_for_each_other(wire: Wire) -> None:
    async with wire.connect() as ws:
        await begin(ws, wire)
        before = wire.ours.sends
        received: list[str] = []

        async def send(name: str) -> None:
            for number in range(320):
                await ws.send(f"{name}{number}")
                received.extend(map(str, wire.read()))

        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(send, name)
        await next_turn()
        received.extend(map(str, wire.read()))
        assert wire.ours.sends - before <= 3 * 960 // 32
        for name in "abc":
            assert [text for text in received if text[0] == name] == [f"{name}{number}" for number in range(320)]


@gathering
@pytest.mark.parametrize("most", [1 << 20, 300])
async def test_those_who_had_to_wait_in_line_go_on_without_waiting_for_each_other(wire: Wire, most: int) -> None:
    # More than the socket has room for, with or without compression.
    large = Random(0).randbytes(1 << 20)
    async with wire.connect() as ws:
        await begin(ws, wire)
        received: list[object] = []

        async def send(name: str) -> None:
            for number in range(320):
                await ws.send(f"{name}{number}")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.send, large)
            await anyio.wait_all_tasks_blocked()
            for name in "abc":
                tasks.start_soon(send, name)
            await anyio.wait_all_tasks_blocked()
            while not received:
                received += wire.read()
                await checkpoint()
            assert received.pop(0) == large
            wire.ours.sends, wire.ours.most = 0, most
            while len(received) < 960:
                received += wire.read()
                await checkpoint()
        # Some 6,000 bytes: a call for each of them would be 960.
        assert wire.ours.sends <= 4 * 960 // 32
        for name in "abc":
            assert [text for text in received if str(text)[0] == name] == [f"{name}{number}" for number in range(320)]


async def test_one_who_waits_in_line_and_is_cancelled_sends_nothing(wire: Wire) -> None:
    large = Random(0).randbytes(1 << 20)
    async with wire.connect() as ws:
        await begin(ws, wire)
        received: list[object] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.send, large)
            await anyio.wait_all_tasks_blocked()
            cancelled = anyio.CancelScope()

            async def send_in_vain() -> None:
                with cancelled:
                    await ws.send("2")

            for send in (partial(ws.send, "1"), send_in_vain, partial(ws.send, "3")):
                tasks.start_soon(send)
                await anyio.wait_all_tasks_blocked()
            cancelled.cancel()
            await anyio.wait_all_tasks_blocked()
            while len(received) < 3:
                received += wire.read()
                await checkpoint()
        await ws.send("4")
        await next_turn()
        assert [*received, *wire.read()] == [large, "1", "3", "4"]


async def test_those_who_wait_in_line_and_are_cancelled_together_send_nothing(wire: Wire) -> None:
    async with wire.connect() as ws:
        await begin(ws, wire)
        # The order in which trio runs those who are cancelled is drawn anew in each turn.
        for _ in range(20):
            filled = wire.fill()
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    for number in range(6):
                        tasks.start_soon(ws.send, str(number))
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()
            assert scope.cancelled_caught
            wire.drain(filled)
            await next_turn()
            assert wire.read() == []
            assert not ws._link.turn.is_taken  # pyright: ignore[reportPrivateUsage]
        await ws.send("next")
        assert wire.read() == ["next"]


async def test_one_who_is_cancelled_as_the_turn_is_given_back_sends_nothing(wire: Wire) -> None:
    async with wire.connect() as ws, anyio.create_task_group() as tasks:
        await begin(ws, wire)
        assert await ws._link.turn.take()  # pyright: ignore[reportPrivateUsage]
        cancelled = anyio.CancelScope()

        async def send_in_vain() -> None:
            with cancelled:
                await ws.send("1")

        for send in (send_in_vain, partial(ws.send, "2")):
            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
        cancelled.cancel()
        if not trio.lowlevel.in_trio_run():
            # anyio cancels its tasks in the next turn of the event loop, in which they do not run yet.
            await asyncio.sleep(0)
        ws._link.writer._give_back()  # pyright: ignore[reportPrivateUsage]
        await next_turn()
        assert wire.read() == ["2"]
        assert not ws._link.turn.is_taken  # pyright: ignore[reportPrivateUsage]


async def test_a_deadline_of_one_who_sends_sends_nothing_of_the_others(wire: Wire) -> None:
    async with wire.connect() as ws:
        await begin(ws, wire)
        filled = wire.fill()
        sent: list[str] = []

        async def send(text: str) -> None:
            await ws.send(text)
            sent.append(text)

        async with anyio.create_task_group() as tasks:
            with anyio.move_on_after(1):
                for text in "abc":
                    tasks.start_soon(send, text)
                await send("x" * 10)
            await anyio.wait_all_tasks_blocked()
            assert sent == []
            wire.drain(filled)
        await next_turn()
        assert sorted(sent) == sorted(map(str, wire.read())) == ["a", "b", "c"]


async def test_a_job_that_cannot_be_done_keeps_no_turn(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    async with wire.connect() as ws, anyio.create_task_group() as tasks:
        await begin(ws, wire)
        assert await ws._link.turn.take()  # pyright: ignore[reportPrivateUsage]
        with monkeypatch.context() as patch:
            patch.setattr(type(ws._session), "encode", raising(MemoryError))  # pyright: ignore[reportPrivateUsage]
            tasks.start_soon(ws.send, "too much")
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(MemoryError):
                ws._link.writer._give_back()  # pyright: ignore[reportPrivateUsage]
        await ws.send("next")
        await next_turn()
        assert wire.read() == ["next"]


async def test_what_the_socket_does_not_take_of_what_was_taken_over_is_finished(wire: Wire) -> None:
    async with wire.connect() as ws, anyio.create_task_group() as tasks:
        await begin(ws, wire)
        assert await ws._link.turn.take()  # pyright: ignore[reportPrivateUsage]
        for text in ("1", "2"):
            tasks.start_soon(ws.send, text)
            await anyio.wait_all_tasks_blocked()
        wire.ours.most = 3
        ws._link.writer._give_back()  # pyright: ignore[reportPrivateUsage]
        await next_turn()
        assert wire.read() == ["1", "2"]
        assert not ws._link.turn.is_taken  # pyright: ignore[reportPrivateUsage]


async def test_what_another_has_taken_over_is_written_and_no_longer_that_of_who_has_waited(wire: Wire) -> None:
    async with wire.connect() as ws, anyio.create_task_group() as tasks:
        await begin(ws, wire)
        turn = ws._link.turn  # pyright: ignore[reportPrivateUsage]
        ended: list[str] = []

        async def send() -> None:
            try:
                await ws.send("1")
                ended.append("sent")
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        assert await turn.take()
        if trio.lowlevel.in_trio_run():
            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            ws._link.writer._give_back()  # pyright: ignore[reportPrivateUsage]
        else:
            sending = asyncio.ensure_future(send())
            await anyio.wait_all_tasks_blocked()
            ws._link.writer._give_back()  # pyright: ignore[reportPrivateUsage]
            # A native cancellation comes out although the task was woken.
            sending.cancel()
        assert wire.read() == ["1"]
        assert not turn.is_taken
        assert await turn.take()
        await anyio.wait_all_tasks_blocked()
        assert ended == ["sent" if trio.lowlevel.in_trio_run() else "cancelled"]
        # Nobody has given away a turn that was not theirs.
        assert turn.is_taken
        turn.give_back()


async def test_a_socket_that_breaks_under_what_was_taken_over_fails_the_next_call(wire: Wire) -> None:
    async with wire.connect() as ws, anyio.create_task_group() as tasks:
        await begin(ws, wire)
        assert await ws._link.turn.take()  # pyright: ignore[reportPrivateUsage]
        failed: list[str] = []

        async def send() -> None:
            await ws.send("1")
            with pytest.raises(ConnectionClosed) as caught:
                await ws.send("2")
            failed.append(str(caught.value.__cause__))

        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        wire.ours.error = ConnectionResetError("reset by peer")
        ws._link.writer._give_back()  # pyright: ignore[reportPrivateUsage]
        await anyio.sleep(60)
        assert failed == ["reset by peer"]


async def test_without_c_a_burst_is_gathered_where_trio_counts_the_turns(
    wire: Wire, anyio_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pace, "context_switches", None)
    async with wire.connect() as ws:
        await begin(ws, wire)
        for number in range(20):
            await ws.send(str(number))
        await next_turn()
        assert wire.read() == [str(number) for number in range(20)]
        assert wire.ours.sends == (2 if anyio_backend[0] == "trio" else 20)


@gathering
async def test_messages_of_other_tasks_in_the_same_turn_stand_in_the_order_of_the_calls(wire: Wire) -> None:
    async with wire.connect() as ws:
        await begin(ws, wire)
        called: list[str] = []

        async def send(name: str) -> None:
            for number in range(12):
                called.append(f"{name}{number}")
                await ws.send(called[-1])

        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(send, name)
        await next_turn()
        assert wire.read() == called
        assert wire.ours.sends <= 10


async def test_before_the_connection_has_a_task_each_message_goes_out_by_itself(wire: Wire) -> None:
    async with wire.connect() as ws:
        for number in range(3):
            await ws.send(str(number))
            assert wire.read() == [str(number)]


async def test_all_else_goes_out_behind_what_was_gathered(wire: Wire) -> None:
    others: list[Callable[[AsyncWebSocket], Awaitable[object]]] = [
        lambda ws: ws.send(b"l" * 5000),
        lambda ws: ws.send(b"l" * 20_000),
        lambda ws: ws.send(PingMessage(b"p")),
        lambda ws: ws.send(CloseMessage(1000)),
    ]
    async with wire.connect() as ws:
        await begin(ws, wire)
        for other in others:
            await ws.send("1")
            await ws.send("2")
            await other(ws)
            *before, last = wire.read()
            assert before == ["1", "2"]
            assert last in (b"l" * 5000, b"l" * 20_000, b"p", CloseMessage(1000, ""))


async def test_close_goes_out_behind_what_was_gathered(wire: Wire) -> None:
    async with wire.connect() as ws:
        await begin(ws, wire)
        for number in range(5):
            await ws.send(str(number))
        await ws.close()
        assert wire.read() == [*map(str, range(5)), CloseMessage(1000, "")]
        with pytest.raises(ConnectionClosed):
            await ws.send("late")


@pytest.mark.parametrize("way", ["left", "raised", "group cancelled"])
async def test_what_was_sent_is_written_when_the_connection_ends_at_once(wire: Wire, way: str) -> None:
    async with anyio.create_task_group() as tasks:
        try:
            if way == "group cancelled":
                ws = await wire.open(tasks)
                await begin(ws, wire)
                await ws.send("1")
                await ws.send("2")
                tasks.cancel_scope.cancel()
            else:
                async with wire.connect() as ws:
                    await begin(ws, wire)
                    await ws.send("1")
                    await ws.send("2")
                    if way == "raised":
                        raise LookupError
        except LookupError:
            assert way == "raised"
    assert wire.read() == ["1", "2", CloseMessage(1000, "")]


@pytest.mark.parametrize("kind", ["recv", "recv_text"])
async def test_a_recv_that_waits_writes_first_what_was_gathered(
    wire: Wire, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with wire.connect() as ws:
        await begin(ws, wire)

        async def wait(self: Inbox) -> None:
            # Nothing had a turn since the messages were sent.
            assert wire.read() == ["1", "2"]
            raise LookupError

        monkeypatch.setattr(Inbox, "wait", wait)
        await ws.send("1")
        await ws.send("2")
        with pytest.raises(LookupError):
            await getattr(ws, kind)()


@gathering
async def test_what_is_gathered_is_bounded(wire: Wire) -> None:
    async with wire.connect() as ws:
        await begin(ws, wire)
        # Nothing that could be compressed.
        messages = [Random(number).randbytes(4000) for number in range(5)]
        await ws.send("first")
        for message in messages[:3]:
            await ws.send(message)
        assert (wire.read(), wire.ours.sends) == (["first"], 1)
        for message in messages[3:]:
            await ws.send(message)
        assert (wire.read(), wire.ours.sends) == (messages, 2)


@gathering
async def test_the_rest_of_a_burst_holds_the_next_send_up_and_its_cancellation_loses_nothing(wire: Wire) -> None:
    async with wire.connect(ping_interval=None) as ws:
        await begin(ws, wire)
        await ws.send("first")
        assert wire.read() == ["first"]
        filled = wire.fill()
        await ws.send("second")
        await ws.send("third")
        await next_turn()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.send, "never")
            await next_turn()
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.send, "fourth")
            await next_turn()
            assert ws._link.writer._turn.is_taken  # pyright: ignore[reportPrivateUsage]
            wire.drain(filled)
        await next_turn()
        assert wire.read() == ["second", "third", "fourth"]
        assert ws.close_code is None


@gathering
async def test_the_rest_of_the_first_burst_is_written_although_its_task_has_not_begun(wire: Wire) -> None:
    async with wire.connect(ping_interval=None) as ws:
        await next_turn()
        await ws.send("first")
        assert wire.read() == ["first"]
        filled = wire.fill()
        sent = [b"x" * 4000] * 5

        async def drain() -> None:
            wire.drain(filled)

        # Trio may need the wire for it, when its way of starting a task looks like a turn of the scheduler.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drain)
            for message in sent:
                await ws.send(message)
        await next_turn()
        assert wire.read() == sent


@gathering
async def test_a_large_message_waits_behind_a_burst_that_the_socket_does_not_take(wire: Wire) -> None:
    async with (
        wire.connect(ping_interval=None) as ws,
        anyio.create_task_group() as tasks,
    ):
        await begin(ws, wire)
        await ws.send("first")
        assert wire.read() == ["first"]
        filled = wire.fill()

        async def drain() -> None:
            wire.drain(filled)

        await ws.send("second")
        tasks.start_soon(drain)
        await ws.send(b"x" * 5000)
        assert wire.read() == ["second", b"x" * 5000]


async def test_a_send_cancelled_before_its_first_byte_leaves_the_window_as_the_peer_knows_it(
    wire: Wire,
) -> None:
    async with wire.connect(ping_interval=None) as ws:
        await begin(ws, wire)
        filled = wire.fill()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.send, "what the next could refer to " * 20)
            await next_turn()
            tasks.cancel_scope.cancel()
        wire.drain(filled)
        await ws.send("what the next could refer to " * 20)
        assert wire.read() == ["what the next could refer to " * 20]


async def test_a_socket_that_takes_nothing_after_all_takes_the_message_once_and_later(wire: Wire) -> None:
    async with wire.connect() as ws:
        await begin(ws, wire)
        wire.ours.refuses_once = True
        for number in range(2):
            await ws.send(f"this is number {number}")
        await next_turn()
        assert wire.read() == ["this is number 0", "this is number 1"]


@gathering
async def test_how_a_burst_failed_the_next_call_says(wire: Wire) -> None:
    async with wire.connect() as ws:
        await begin(ws, wire)
        await ws.send("1")
        wire.ours.error = ConnectionResetError("reset by peer")
        await ws.send("2")
        await next_turn()
        with pytest.raises(ConnectionClosed) as caught:
            await ws.send("3")
        assert (caught.value.code, str(caught.value.__cause__)) == (1006, "reset by peer")
        with pytest.raises(ConnectionClosed, match="reset by peer"):
            await ws.recv()


@gathering
async def test_a_burst_that_fails_in_a_send_is_reported_by_that_send(wire: Wire) -> None:
    async with wire.connect() as ws:
        await begin(ws, wire)
        await ws.send("1")
        wire.ours.error = ConnectionResetError("reset by peer")
        await ws.send("2")
        with pytest.raises(ConnectionClosed, match="reset by peer"):
            await ws.send(b"x" * 5000)


@gathering
async def test_what_was_gathered_and_cannot_be_written_in_front_of_a_close_is_the_end_as_well(wire: Wire) -> None:
    async with wire.connect() as ws:
        await next_turn()
        await ws.send("first")
        wire.ours.error = ConnectionResetError("reset by peer")
        await ws.send("gathered")
        wire.ours.sends = 0
        await ws.close()
    assert (ws.close_code, wire.ours.sends) == (1006, 1)


@gathering
@pytest.mark.parametrize("reads", [True, False])
async def test_a_cancelled_group_writes_a_burst_that_has_to_wait_within_its_bound(wire: Wire, reads: bool) -> None:
    began = 0.0
    async with anyio.create_task_group() as tasks:
        ws = await wire.open(tasks)
        await begin(ws, wire)
        await ws.send("first")
        assert wire.read() == ["first"]
        filled = wire.fill()
        await ws.send("second")
        await next_turn()
        began = anyio.current_time()
        tasks.cancel_scope.cancel()
        if reads:
            wire.drain(filled)
    assert anyio.current_time() - began <= 1
    if reads:
        assert wire.read() == ["second", CloseMessage(1000, "")]


@gathering
async def test_over_tls_a_burst_is_one_record() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = SocketStream(ours, ssl.create_default_context(cadata=authority.cert_pem.bytes().decode()))
    encrypted: list[ssl.SSLSocket] = []

    async def answer() -> None:
        encrypted.append(await to_thread.run_sync(partial(context.wrap_socket, theirs, server_side=True)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        await stream.start_tls(server_hostname="localhost")
    peer = Server()
    client = AsyncClient(handler=StreamHandler(stream))
    with encrypted[0] as other:
        async with aconnect_ws("ws://test/", client=client, close_timeout=1) as ws:
            await next_turn()
            for number in range(20):
                await ws.send(str(number))
            await next_turn()
            # A read gives what stands in one record. Somewhere among them the scheduler has its turn.
            received: list[object] = []
            records = 0
            while len(received) < 20:
                received += [message.data for message in peer.read(other.recv(65536))]  # type: ignore[union-attr]
                records += 1
            assert received == [str(number) for number in range(20)]
            assert records <= 4


@gathering
async def test_what_a_gathered_send_may_cost(wire: Wire) -> None:
    async with wire.connect() as ws:
        await begin(ws, wire)
        calls: list[str] = []

        def profile(frame: FrameType, event: str, argument: object) -> None:
            if event == "call":
                calls.append(frame.f_code.co_name)

        await ws.send(b"first")
        await ws.send(b"second")
        message = b"x" * 64
        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            for _ in range(20):
                await ws.send(message)
        finally:
            sys.setprofile(before)
        # send, is_due, send_now, ask: functions in Python, none of which is a coroutine of its own but the first. On
        # the way to zlib there are five more; and two that are in C otherwise.
        expected = 4 + (5 if wire.deflate else 0) + (2 if frames.implementation == "pure" else 0)
        assert len(calls) <= expected * 20, calls[-10:]
        grown: list[int] = []
        for _ in range(3):
            # The interpreter takes some of its own, for what it does the first time.
            await next_turn()
            wire.read()
            await ws.send(b"first")
            await ws.send(b"second")
            gc.collect()
            blocks = sys.getallocatedblocks()
            for _ in range(20):
                await ws.send(message)
            grown.append(sys.getallocatedblocks() - blocks)
        # The frames stand in one buffer, and not in one object each.
        assert min(grown) < 10
