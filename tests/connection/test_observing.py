"""``observer=``: what goes over a connection, how it fares and how it ends, told in order and without harm."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, cast

import anyio
import pytest
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong
from wsproto.events import TextMessage as WsprotoText

from tests.memory import MemoryServer
from tests.witness import Witness
from zapros_websocket import (
    BinaryMessage,
    CloseMessage,
    ConnectionClosed,
    FrameHeader,
    Message,
    Observer,
    PingMessage,
    PongMessage,
    ReconnectPolicy,
    TextMessage,
    aconnect_ws,
    connect_ws,
    open_ws,
    reconnecting,
    reconnecting_sync,
)
from zapros_websocket._connection import AsyncWebSocket
from zapros_websocket._link import Link
from zapros_websocket._observed import ObservedSession
from zapros_websocket._observer import Observers
from zapros_websocket._protocol.session import Session
from zapros_websocket.testing import echo_server

pytestmark = pytest.mark.anyio


@pytest.fixture
def witness() -> Witness:
    return Witness()


def test_the_methods_of_the_base_class_do_nothing_and_may_all_be_called(witness: Witness) -> None:
    names = {name for name in vars(Observer) if not name.startswith("_")}
    assert names <= set(vars(Witness))
    arguments: dict[str, dict[str, object]] = {
        "opened": {"subprotocol": None, "permessage_deflate": None},
        "closed": {"by": None},
    }
    for name in names:
        assert getattr(Observer(), name)(None, **arguments.get(name, {})) is None


async def test_all_that_goes_over_is_told_in_the_order_of_the_wire(server: MemoryServer, witness: Witness) -> None:
    async with aconnect_ws("ws://test/", client=server.client, observer=witness) as ws:
        await server.peer.send(Ping(b"?"), WsprotoText("hello"))
        assert await ws.recv() == PingMessage(b"?")
        assert await ws.recv() == TextMessage("hello")
        await ws.send(b"\x00\xff")
        assert await server.peer.receive() == Pong(b"?")
        assert await server.peer.receive() == BytesMessage(b"\x00\xff")
        await server.peer.send(CloseConnection(4000, "enough"))
        await ws.recv()
    assert witness.told == [
        ("opened", (101, None, False)),
        ("bytes_received", 10),
        ("frame_received", FrameHeader(9, True, False, 1)),
        ("frame_received", FrameHeader(1, True, False, 5)),
        ("message_received", PingMessage(b"?")),
        ("message_received", TextMessage("hello")),
        ("queue_depth", 1),
        ("message_sent", PongMessage(b"?")),
        ("bytes_sent", 7),
        ("frame_sent", FrameHeader(10, True, False, 1)),
        ("message_sent", BinaryMessage(b"\x00\xff")),
        ("bytes_sent", 8),
        ("frame_sent", FrameHeader(2, True, False, 2)),
        ("bytes_received", 10),
        ("frame_received", FrameHeader(8, True, False, 8)),
        ("message_received", CloseMessage(4000, "enough")),
        ("queue_depth", 0),
        ("message_sent", CloseMessage(4000, "enough")),
        ("bytes_sent", 14),
        ("frame_sent", FrameHeader(8, True, False, 8)),
        ("closed", (4000, "enough", "server")),
    ]


async def test_what_came_with_the_answer_is_told_behind_it(witness: Witness) -> None:
    server = MemoryServer(trailing=b"\x81\x02hi")
    async with aconnect_ws("ws://test/", client=server.client, observer=witness, close_timeout=0) as ws:
        await ws.recv()
    assert [what for what, _ in witness.told[:3]] == ["opened", "bytes_received", "frame_received"]


async def test_fragments_are_frames_and_together_a_message(server: MemoryServer, witness: Witness) -> None:
    async with aconnect_ws("ws://test/", client=server.client, observer=witness, close_timeout=0) as ws:
        await server.peer.send(WsprotoText("a", message_finished=False), Ping(), WsprotoText("b"))
        await ws.recv()
        await ws.recv()
    assert witness.of("frame_received") == [
        FrameHeader(1, False, False, 1),
        FrameHeader(9, True, False, 0),
        FrameHeader(0, True, False, 1),
    ]
    assert witness.of("message_received") == [PingMessage(b""), TextMessage("ab")]


async def test_compressed_frames_say_so_and_messages_are_as_they_were_before(witness: Witness) -> None:
    server = MemoryServer(deflate=True)
    async with aconnect_ws(
        "ws://test/", client=server.client, observer=witness, permessage_deflate=True, close_timeout=0
    ) as ws:
        await ws.send("a" * 1000)
        await server.peer.receive()
        await server.peer.send(WsprotoText("b" * 1000))
        await ws.recv()
    assert witness.of("opened") == [(101, None, True)]
    assert witness.of("message_sent")[0] == TextMessage("a" * 1000)
    assert witness.of("message_received") == [TextMessage("b" * 1000)]
    for frame in (witness.of("frame_sent")[0], witness.of("frame_received")[0]):
        assert isinstance(frame, FrameHeader)
        assert frame.rsv1
        assert frame.length < 50


async def test_the_depth_of_the_queue_is_told_after_each_read(server: MemoryServer, witness: Witness) -> None:
    async with aconnect_ws("ws://test/", client=server.client, observer=witness, close_timeout=0) as ws:
        for number in range(3):
            await server.peer.send(*[WsprotoText("x")] * 5)
            await anyio.wait_all_tasks_blocked()
            if number == 1:
                for _ in range(8):
                    await ws.recv()
    assert witness.of("queue_depth")[:3] == [5, 10, 7]


async def test_round_trips_of_ping_and_of_keepalive_are_told(server: MemoryServer, witness: Witness) -> None:
    async with aconnect_ws("ws://test/", client=server.client, observer=witness, ping_interval=10, close_timeout=0):
        for seconds in (2, 0.5):
            ping = await server.peer.receive()
            assert isinstance(ping, Ping)
            await anyio.sleep(seconds)
            await server.peer.send(Pong(bytes(ping.payload)), Pong(b"unasked for"), Pong(bytes(ping.payload)))
        await anyio.wait_all_tasks_blocked()
    assert witness.of("round_trip") == [pytest.approx(2), pytest.approx(0.5)]


async def test_a_ping_of_the_user_is_a_message_that_is_sent(server: MemoryServer, witness: Witness) -> None:
    async with aconnect_ws("ws://test/", client=server.client, observer=witness, close_timeout=0) as ws:
        await ws.send(PingMessage(b"!"))
        await ws.send(PongMessage(b"."))
    assert witness.of("message_sent")[:2] == [PingMessage(b"!"), PongMessage(b".")]


class TestTheEnd:
    async def test_by_leaving_the_block(self, server: MemoryServer, witness: Witness) -> None:
        async with anyio.create_task_group() as tasks:
            async with aconnect_ws("ws://test/", client=server.client, observer=witness):
                tasks.start_soon(server.peer.serve)
        assert witness.of("closed") == [(1000, "", "client")]

    async def test_by_a_peer_that_does_not_answer_the_close(self, server: MemoryServer, witness: Witness) -> None:
        async with aconnect_ws("ws://test/", client=server.client, observer=witness, close_timeout=3):
            pass
        reason = "the peer did not answer the close frame within 3 seconds"
        assert witness.of("closed") == [(1006, reason, "client")]

    async def test_by_a_loss(self, server: MemoryServer, witness: Witness) -> None:
        async with aconnect_ws("ws://test/", client=server.client, observer=witness) as ws:
            server.peer.reset()
            with pytest.raises(ConnectionClosed):
                await ws.recv()
        [(code, _, by)] = cast("list[tuple[int, str, str | None]]", witness.of("closed"))
        assert (code, by) == (1006, None)

    async def test_by_a_failure(self, server: MemoryServer, witness: Witness) -> None:
        async with aconnect_ws("ws://test/", client=server.client, observer=witness, close_timeout=0) as ws:
            await server.peer.write(b"\x83\x00")
            with pytest.raises(ConnectionClosed):
                await ws.recv()
            # What comes behind the end is not told.
            told = len(witness.of("bytes_received"))
            await server.peer.write(b"\x81\x02hi")
        assert len(witness.of("bytes_received")) == told
        [(code, _, by)] = cast("list[tuple[int, str, str]]", witness.of("closed"))
        assert (code, by) == (1002, "client")

    async def test_of_the_task_group(self, server: MemoryServer, witness: Witness) -> None:
        async with anyio.create_task_group() as tasks:
            await open_ws(tasks, "ws://test/", client=server.client, observer=witness)
            tasks.cancel_scope.cancel()
        [(_, _, by)] = cast("list[tuple[int, str, str]]", witness.of("closed"))
        assert by == "client"

    async def test_when_the_task_group_takes_no_more_tasks(self, server: MemoryServer, witness: Witness) -> None:
        class Full:
            def start_soon(self, *_: object) -> None:
                raise RuntimeError("no more tasks")

        with pytest.raises(RuntimeError, match="no more tasks"):
            await open_ws(cast("Any", Full()), "ws://test/", client=server.client, observer=witness)
        assert witness.of("closed") == [(1006, "the connection was given up by this side", None)]
        assert server.peer.stream.incoming.ended


async def test_one_observer_hears_of_one_connection_after_the_other(server: MemoryServer, witness: Witness) -> None:
    policy = ReconnectPolicy(first_pause=1)
    async for attempt in reconnecting(
        "ws://test/", client=server.client, policy=policy, observer=witness, close_timeout=0
    ):
        async with attempt as ws:
            if attempt.number == 2:
                break
            server.peer.reset()
            await ws.recv()
    assert [what for what, _ in witness.told if what in ("opened", "closed")] == ["opened", "closed"] * 2


async def test_an_observer_that_raises_is_logged_once_and_harms_nothing(
    server: MemoryServer, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Witness):
        def _tell(self, what: str, value: object) -> None:
            super()._tell(what, value)
            raise ValueError(f"not {what}")

    broken = Broken()
    async with aconnect_ws("ws://test/", client=server.client, observer=broken) as ws:
        await server.peer.send(Ping(b"?"), WsprotoText("hello"))
        assert [await ws.recv(), await ws.recv()] == [PingMessage(b"?"), TextMessage("hello")]
        await ws.send("hello")
        assert await server.peer.receive() == Pong(b"?")
        assert await server.peer.receive() == WsprotoText("hello")
        await server.peer.send(CloseConnection(1000))
        assert await ws.recv() == CloseMessage(1000, "")
    # It is still called, up to the end.
    assert broken.told[-1] == ("closed", (1000, "", "server"))
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "not opened"


async def test_messages_are_made_only_for_who_asks_for_them(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bytes(Observer):
        def __init__(self) -> None:
            self.sent = 0

        def bytes_sent(self, count: int) -> None:
            self.sent += count

    def fail(opcode: int, payload: object) -> Message:
        raise AssertionError("nobody asks for it")

    monkeypatch.setattr("zapros_websocket._observed._message", fail)
    observer = Bytes()
    async with aconnect_ws("ws://test/", client=server.client, observer=observer, close_timeout=0) as ws:
        await ws.send("hello")
        assert observer.sent == 11


def test_without_an_observer_a_connection_is_the_plain_one(server: MemoryServer) -> None:
    async def kinds(**options: Any) -> tuple[type[Link], type[Session], bool]:
        async with aconnect_ws("ws://test/", client=server.client, close_timeout=0, **options) as ws:
            assert isinstance(ws, AsyncWebSocket)
            link = ws._link  # pyright: ignore[reportPrivateUsage]
            return type(link), type(link.session), link.session.is_simple

    link, session, is_simple = anyio.run(kinds)
    assert link is Link
    assert session is Session
    assert is_simple
    link, session, is_simple = anyio.run(partial(kinds, observer=Observer()))
    assert link is not Link
    assert session is not Session
    assert not is_simple


@pytest.mark.parametrize("call", [aconnect_ws, connect_ws, reconnecting, reconnecting_sync])
def test_anything_else_is_refused_before_anything_is_sent(call: Any) -> None:
    with pytest.raises(TypeError, match=r"observer is a zapros_websocket\.Observer, not int"):
        call("ws://test/", observer=1)


async def test_open_ws_refuses_it_too(server: MemoryServer) -> None:
    async with anyio.create_task_group() as tasks:
        with pytest.raises(TypeError, match="observer"):
            await open_ws(tasks, "ws://test/", client=server.client, observer=cast("Any", print))
    assert server.requests == []


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
@pytest.mark.integration
async def test_a_real_server_agrees_about_bytes_and_messages(witness: Witness) -> None:
    large = b"x" * 1_000_000
    async with echo_server() as server:
        async with aconnect_ws(server.url, observer=witness) as ws:
            for message in ("hello", large, b""):
                await ws.send(message)
            assert [(await ws.recv()) for _ in range(3)] == [
                TextMessage("hello"),
                BinaryMessage(large),
                BinaryMessage(b""),
            ]
            assert await ws.ping() == witness.of("round_trip")[0]
        # Headers, masks, the ping and the close.
        assert witness.total("bytes_sent") == (6 + 5) + (14 + 1_000_000) + 6 + (6 + 12) + (6 + 2)
        assert witness.total("bytes_received") == (2 + 5) + (10 + 1_000_000) + 2 + (2 + 12) + (2 + 2)
    assert [frame.length for frame in cast("list[FrameHeader]", witness.of("frame_received"))] == [
        *(5, 1_000_000, 0),
        *(12, 2),
    ]
    assert witness.told[-1] == ("closed", (1000, "", "client"))


def test_nothing_is_told_of_nothing(witness: Witness) -> None:
    session = ObservedSession(Observers([witness]), max_message_size=1000)
    assert session.receive(b"") == []
    assert session.take_control() == b""
    session.end("lost")
    assert session.receive(b"\x81\x00") == []
    assert witness.told == []
