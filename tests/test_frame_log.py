"""What goes over a connection, as debug lines."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong
from wsproto.events import TextMessage as WsprotoText

from tests.memory import MemoryServer
from tests.raw_frames import BINARY, CONTINUATION, TEXT, frame
from zapros_websocket import ConnectionClosed, PingMessage, PongMessage, TextMessage, aconnect_ws
from zapros_websocket._frame_log import FrameLog, observers_of
from zapros_websocket._observer import Observer, logger

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What was logged so far, without the number of the connection, each time it is looked at."""

    class Lines(list[str]):
        def __iter__(self) -> Iterator[str]:
            return iter([record.getMessage().partition(": ")[2] for record in caplog.records])

    with caplog.at_level(logging.DEBUG, logger.name):
        yield Lines()


async def test_what_goes_over_a_connection_is_logged_in_the_order_of_the_wire(
    server: MemoryServer, lines: list[str]
) -> None:
    async with aconnect_ws("ws://user:secret@test/?token=secret", client=server.client) as ws:
        await server.peer.send(Ping(b"?"), WsprotoText("hello"))
        assert await ws.recv() == PingMessage(b"?")
        assert await ws.recv() == TextMessage("hello")
        await ws.send(b"\x00\xff")
        assert await server.peer.receive() == Pong(b"?")
        assert await server.peer.receive() == BytesMessage(b"\x00\xff")
        await ws.send(PingMessage(b"!"))
        await server.peer.send(Pong(b"!"), CloseConnection(4000, "enough"))
        assert await ws.recv() == PongMessage(b"!")
        await ws.recv()
    assert list(lines) == [
        "open",
        "< ping 3f (1 bytes)",
        "< text 'hello' (5 characters)",
        "> pong 3f (1 bytes)",
        "> binary 00 ff (2 bytes)",
        "> ping 21 (1 bytes)",
        "< pong 21 (1 bytes)",
        "< close 4000 'enough'",
        "> close 4000 'enough'",
        "closed: 4000 'enough', by the server",
    ]


async def test_what_the_peer_sent_is_escaped_and_cut(server: MemoryServer, lines: list[str]) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        await server.peer.send(WsprotoText("a\r\nconnection 7: \x1b[2J\u202e"), BytesMessage(bytes(1000)))
        await ws.recv()
        await ws.recv()
        await ws.send("ü" * 1000)
    assert list(lines)[1:4] == [
        r"< text 'a\r\nconnection 7: \x1b[2J\u202e' (22 characters)",
        f"< binary {'00 ' * 63}00... (1000 bytes)",
        f"> text '{chr(92)}xfc{f'{chr(92)}xfc' * 63}'... (1000 characters)",
    ]


async def test_a_connection_that_fails_says_so(server: MemoryServer, lines: list[str]) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        await server.peer.write(b"\x83\x00")
        with pytest.raises(ConnectionClosed):
            await ws.recv()
    [*_, closed] = lines
    assert closed.startswith("closed: 1002 ")
    assert closed.endswith(", by the client")


async def test_a_connection_that_is_lost_says_so(server: MemoryServer, lines: list[str]) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws:
        server.peer.end()
        with pytest.raises(ConnectionClosed):
            await ws.recv()
    [*_, closed] = lines
    assert closed == "closed: 1006 'the connection was lost: the peer ended TCP without a close frame', lost"


async def test_the_compression_that_was_agreed_to_is_named(lines: list[str]) -> None:
    server = MemoryServer(deflate=True)
    async with aconnect_ws("ws://test/", client=server.client, permessage_deflate=True, close_timeout=0) as ws:
        await ws.send("hello")
    opened, sent, *_ = lines
    assert opened.startswith("open, PerMessageDeflateExtension(")
    assert sent == "> text 'hello' (5 characters)"


def test_without_the_level_nobody_observes() -> None:
    assert observers_of(None) is None


def test_an_observer_of_the_caller_stands_beside_the_log(caplog: pytest.LogCaptureFixture) -> None:
    assert observers_of(Observer()) is not None
    with caplog.at_level(logging.DEBUG, logger.name):
        both = observers_of(Observer())
    assert both is not None
    seen: list[type[Observer]] = []
    both.tell(lambda observer: seen.append(type(observer)))
    assert seen == [FrameLog, Observer]


def test_each_connection_has_a_number_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger.name):
        for _ in range(2):
            FrameLog().closed(ConnectionClosed(1000), by=None)
    first, second = (record.getMessage() for record in caplog.records)
    assert first != second


async def test_chunks_and_parts_are_logged_as_what_they_are(server: MemoryServer, lines: list[str]) -> None:
    async with aconnect_ws(
        "ws://test/", client=server.client, max_message_size=4, stream_large_messages=True, close_timeout=0
    ) as ws:
        await server.peer.write(frame(TEXT, b"first", final=False) + frame(CONTINUATION, b"") + frame(BINARY, bytes(5)))
        for _ in range(2):
            async with ws.recv_chunks() as message:
                async for _ in message:
                    pass
        await ws.send(["a", "b"])
    assert list(lines)[1:6] == [
        "< text 'first' (5 characters)",
        "< text '' (0 characters)",
        "< binary 00 00 00 00 00 (5 bytes)",
        "> text 'a' (1 characters)",
        "> text 'b' (1 characters)",
    ]
