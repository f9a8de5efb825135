"""SPEC "Messages": a message that is sent chunk by chunk, and what goes on meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.lowlevel
import pytest
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong
from wsproto.events import TextMessage as WsprotoText

from tests.memory import MemoryServer
from zapros_websocket import (
    CloseMessage,
    ConnectionClosed,
    FrameHeader,
    Observer,
    PingMessage,
    PongMessage,
    TextMessage,
    aconnect_ws,
)

pytestmark = pytest.mark.anyio


class Source:
    """Chunks, given out when the test says so."""

    def __init__(self) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[object](100)
        self.asked = 0

    def give(self, *chunks: object) -> None:
        for chunk in chunks:
            self._send.send_nowait(chunk)

    def end(self) -> None:
        self._send.close()

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        self.asked += 1
        try:
            chunk = await self._receive.receive()
        except anyio.EndOfStream:
            self._receive.close()
            raise StopAsyncIteration from None
        if isinstance(chunk, Exception):
            raise chunk
        return chunk  # type: ignore[return-value]

    def close(self) -> None:
        self._send.close()
        self._receive.close()


@pytest.fixture
def source() -> Iterator[Source]:
    source = Source()
    yield source
    source.close()


async def asynchronously(*chunks: str) -> AsyncIterator[str]:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize("deflate", [False, True])
async def test_an_iterable_is_one_message(deflate: bool) -> None:
    server = MemoryServer(deflate=deflate)
    async with aconnect_ws("ws://test/", client=server.client, permessage_deflate=deflate, close_timeout=0) as ws:
        await ws.send(["a", "", "é"])
        await ws.send(asynchronously("more ", "text"))
        await ws.send(part for part in (b"bytes", bytearray(b" and "), memoryview(b"more")))
        await ws.send("whole")
        received = [await server.peer.receive_message() for _ in range(4)]
    assert received == ["aé", "more text", b"bytes and more", "whole"]


async def test_each_chunk_is_a_fragment_that_leaves_before_the_next_is_asked_for(
    server: MemoryServer, source: Source
) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.send, source)
            for number in range(3):
                await anyio.wait_all_tasks_blocked()
                assert source.asked == number + 1
                source.give(str(number))
                assert await server.peer.receive() == WsprotoText(str(number), message_finished=False)
            source.end()
            assert await server.peer.receive() == WsprotoText("", message_finished=True)


@pytest.mark.parametrize(
    ("chunks", "event"), [((), BytesMessage(b"")), (("", ""), WsprotoText("")), ((b"",), BytesMessage(b""))]
)
async def test_no_chunks_are_an_empty_message(
    server: MemoryServer, chunks: tuple[str, ...], event: WsprotoText | BytesMessage
) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        await ws.send(chunks)
        assert await server.peer.receive() == event


async def test_pings_pass_a_message_that_is_under_way_and_other_messages_wait(
    server: MemoryServer, source: Source
) -> None:
    async with (
        aconnect_ws("ws://test/", client=server.client, ping_interval=5, close_timeout=0) as ws,
        anyio.create_task_group() as tasks,
    ):
        peer = server.peer
        tasks.start_soon(ws.send, source)
        source.give("one")
        assert await peer.receive() == WsprotoText("one", message_finished=False)
        for other in ("other", [b"chunks"]):
            tasks.start_soon(ws.send, other)
            await anyio.wait_all_tasks_blocked()
        await peer.send(Ping(b"peer"))
        assert await peer.receive() == Pong(b"peer")
        await anyio.sleep(6)
        keepalive = await peer.receive()
        assert isinstance(keepalive, Ping)
        await peer.send(keepalive.response())
        await ws.send(PingMessage(b"user"))
        await ws.send(PongMessage(b"user"))
        assert await peer.receive() == Ping(b"user")
        assert await peer.receive() == Pong(b"user")
        tasks.start_soon(ws.ping)
        ping = await peer.receive()
        assert isinstance(ping, Ping)
        await peer.send(ping.response())
        source.give("two")
        source.end()
        assert await peer.receive_message() == "two"
        assert await peer.receive_message() == "other"
        assert await peer.receive_message() == b"chunks"


async def test_a_ping_that_waits_in_line_passes_a_message_that_begins_in_front_of_it(source: Source) -> None:
    server = MemoryServer(capacity=100)
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
        anyio.create_task_group() as tasks,
    ):
        source.give("chunk")
        for message in (bytes(300), source, "other", PingMessage(b"first"), PingMessage(b"second")):
            tasks.start_soon(ws.send, message)
            await anyio.wait_all_tasks_blocked()
        assert await server.peer.receive_message() == bytes(300)
        assert await server.peer.receive() == WsprotoText("chunk", message_finished=False)
        assert await server.peer.receive() == Ping(b"first")
        assert await server.peer.receive() == Ping(b"second")
        source.end()
        assert await server.peer.receive() == WsprotoText("", message_finished=True)
        assert await server.peer.receive_message() == "other"


async def test_waiting_for_the_first_chunk_keeps_nobody_waiting(server: MemoryServer, source: Source) -> None:
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(ws.send, source)
        await anyio.wait_all_tasks_blocked()
        await ws.send("first")
        assert await server.peer.receive_message() == "first"
        tasks.cancel_scope.cancel()
    assert ws.close_code is not None


@pytest.mark.parametrize(
    "given", [[1], [b"bytes", 1], [None], ["text", b"bytes"], [b"bytes", "text"], [TextMessage("a")]]
)
async def test_chunks_that_are_none_raise_type_error(server: MemoryServer, given: list[str]) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        with pytest.raises(TypeError):
            await ws.send(given)
        if len(given) == 1:
            await ws.send("nothing has happened")
            assert await server.peer.receive() == WsprotoText("nothing has happened")
        else:
            with pytest.raises(ConnectionClosed, match="broken off"):
                await ws.send("late")


async def test_a_lone_surrogate_in_a_chunk_raises_value_error(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        with pytest.raises(ValueError, match="lone surrogates"):
            await ws.send(["\ud800"])
        await ws.send("nothing has happened")
        assert await server.peer.receive() == WsprotoText("nothing has happened")


async def test_what_the_iterable_raises_comes_out_and_changes_nothing_before_the_first_fragment(
    server: MemoryServer, source: Source
) -> None:
    error = LookupError("of the iterable")
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        source.give("", error)
        with pytest.raises(LookupError) as caught:
            await ws.send(source)
        assert caught.value is error
        await ws.send("nothing has happened")
        assert await server.peer.receive() == WsprotoText("nothing has happened")


async def test_what_the_iterable_raises_in_the_middle_breaks_the_connection(
    server: MemoryServer, source: Source
) -> None:
    error = LookupError("of the iterable")
    async with aconnect_ws("ws://test/", client=server.client) as ws, anyio.create_task_group() as tasks:
        source.give("one")

        async def wait() -> None:
            with pytest.raises(ConnectionClosed, match="broken off"):
                await ws.send("other")

        async def receive() -> None:
            with pytest.raises(ConnectionClosed) as caught:
                await ws.recv()
            assert caught.value.code == 1006

        async def fail() -> None:
            await anyio.wait_all_tasks_blocked()
            source.give(error)

        tasks.start_soon(receive)
        tasks.start_soon(fail)
        with pytest.raises(LookupError) as caught:
            await ws.send(source)
        assert caught.value is error
        tasks.start_soon(wait)
    assert await server.peer.receive() == WsprotoText("one", message_finished=False)
    assert await server.peer.receive() is None
    assert ws.close_code == 1006


async def test_a_send_that_is_cancelled_in_the_middle_breaks_the_connection(
    server: MemoryServer, source: Source
) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        source.give("one")
        with anyio.move_on_after(1) as scope:
            await ws.send(source)
        assert scope.cancelled_caught
        with pytest.raises(ConnectionClosed, match="broken off"):
            await ws.send("other")
    assert ws.close_code == 1006


async def test_a_send_that_is_cancelled_while_a_fragment_is_written_breaks_the_connection(source: Source) -> None:
    server = MemoryServer(capacity=100)
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        with anyio.move_on_after(1) as scope:
            await ws.send(["small", "large" * 100])
        assert scope.cancelled_caught
        with pytest.raises(ConnectionClosed, match="cancelled"):
            await ws.send("other")


async def test_a_send_that_is_cancelled_before_its_first_fragment_has_no_effect(
    server: MemoryServer, source: Source
) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        with anyio.move_on_after(1) as scope:
            await ws.send(source)
        assert scope.cancelled_caught
        await ws.send("other")
        assert await server.peer.receive_message() == "other"


async def test_a_send_that_is_cancelled_while_it_waits_for_its_turn_has_no_effect(source: Source) -> None:
    server = MemoryServer(capacity=100)
    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(ws.send, bytes(300))
        await anyio.wait_all_tasks_blocked()
        with anyio.move_on_after(1) as scope:
            await ws.send(["chunk"])
        assert scope.cancelled_caught
        assert await server.peer.receive_message() == bytes(300)
        await ws.send("other")
        assert await server.peer.receive_message() == "other"


async def test_close_goes_between_the_fragments_and_ends_the_wait_for_a_chunk(
    server: MemoryServer, source: Source
) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws, anyio.create_task_group() as tasks:

        async def send() -> None:
            with pytest.raises(ConnectionClosed) as caught:
                await ws.send(source)
            assert caught.value.code == 1000

        async def wait() -> None:
            with pytest.raises(ConnectionClosed):
                await ws.send("other")

        source.give("one")
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(wait)
        tasks.start_soon(ws.close)
        assert await server.peer.receive() == WsprotoText("one", message_finished=False)
        assert await server.peer.answer_close() == CloseConnection(1000, "")
    assert (ws.close_code, source.asked) == (1000, 2)


async def test_close_is_bounded_while_a_message_is_under_way(server: MemoryServer, source: Source) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=3) as ws:
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                with pytest.raises(ConnectionClosed):
                    await ws.send(source)

            source.give("one")
            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            began = anyio.current_time()
            await ws.close()
            assert anyio.current_time() - began == pytest.approx(3)


async def test_a_chunk_that_comes_after_the_close_is_not_sent(server: MemoryServer, source: Source) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws, anyio.create_task_group() as tasks:

        async def send() -> None:
            with pytest.raises(ConnectionClosed) as caught:
                await ws.send(source)
            assert caught.value.code == 4000

        source.give("one")
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        await ws.send(CloseMessage(4000))
        source.give("late")
        await anyio.wait_all_tasks_blocked()
        assert await server.peer.receive() == WsprotoText("one", message_finished=False)
        assert await server.peer.answer_close() == CloseConnection(4000, "")


async def test_the_end_of_the_connection_ends_the_wait_for_the_first_chunk(
    server: MemoryServer, source: Source
) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws, anyio.create_task_group() as tasks:

        async def lose() -> None:
            await anyio.wait_all_tasks_blocked()
            server.peer.reset()

        tasks.start_soon(lose)
        with pytest.raises(ConnectionClosed) as caught:
            await ws.send(source)
        assert caught.value.code == 1006
        with pytest.raises(ConnectionClosed):
            await ws.send(source)
        assert source.asked == 1


async def test_a_long_list_lets_others_run(server: MemoryServer) -> None:
    ran = 0

    async def run() -> None:
        nonlocal ran
        while True:
            ran += 1
            await anyio.lowlevel.checkpoint()

    async with (
        aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(run)
        await ws.send(["x"] * 1000)
        tasks.cancel_scope.cancel()
    assert ran > 10


async def test_compress_says_whether_a_message_is_compressed() -> None:
    server = MemoryServer(deflate=True)
    async with aconnect_ws("ws://test/", client=server.client, permessage_deflate=True, close_timeout=0) as ws:
        sizes: list[int] = []
        for message in (b"x" * 1000, [b"x" * 500, b"x" * 500]):
            for compress in (None, False):
                before = server.stream.outgoing.total
                await ws.send(message, compress=compress)
                sizes.append(server.stream.outgoing.total - before)
                assert await server.peer.receive_message() == b"x" * 1000
        assert max(sizes[::2]) < 100 < 1000 < min(sizes[1::2])
        for compress in (True, False):
            before = server.stream.outgoing.total
            await ws.send_json("x" * 1000, compress=compress)
            assert (server.stream.outgoing.total - before < 100) is compress
            assert await server.peer.receive_message() == f'"{"x" * 1000}"'
        with pytest.raises(TypeError, match="True, False or None"):
            await ws.send("text", compress=1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="True, False or None"):
            await ws.send_json("text", compress=1)  # type: ignore[call-overload]


async def test_an_observer_hears_of_each_fragment(server: MemoryServer) -> None:
    class Frames(Observer):
        def __init__(self) -> None:
            self.sent: list[tuple[int, bool]] = []

        def frame_sent(self, frame: FrameHeader) -> None:
            self.sent.append((frame.opcode, frame.fin))

    frames = Frames()
    async with aconnect_ws("ws://test/", client=server.client, observer=frames, close_timeout=0) as ws:
        await ws.send(["a", "b"])
        assert await server.peer.receive_message() == "ab"
    assert frames.sent[:3] == [(1, False), (0, False), (0, True)]
