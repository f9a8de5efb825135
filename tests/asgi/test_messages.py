"""Messages to and from an application in process."""

from __future__ import annotations

import anyio
import pytest

from tests.turns import turns_of_another
from zapros_websocket import (
    BinaryMessage,
    ConnectionClosed,
    Message,
    PingMessage,
    PongMessage,
    TextMessage,
    aconnect_ws,
)

from .applications import ACCEPT, URL, Echo, Event, Returns, Says, binary, client_of, close, text

pytestmark = pytest.mark.anyio

MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        pytest.param("hello", TextMessage("hello"), id="str"),
        pytest.param(TextMessage("žluťoučký 🐎"), TextMessage("žluťoučký 🐎"), id="text"),
        pytest.param("", TextMessage(""), id="empty-text"),
        pytest.param(b"\x00\xff", BinaryMessage(b"\x00\xff"), id="bytes"),
        pytest.param(bytearray(b"abc"), BinaryMessage(b"abc"), id="bytearray"),
        pytest.param(memoryview(b"abcdef")[::2], BinaryMessage(b"ace"), id="memoryview"),
        pytest.param(BinaryMessage(b""), BinaryMessage(b""), id="empty-binary"),
        pytest.param("x" * MEBIBYTE, TextMessage("x" * MEBIBYTE), id="large-text"),
        pytest.param(bytes(range(256)) * 4096, BinaryMessage(bytes(range(256)) * 4096), id="large-binary"),
    ],
)
async def test_an_echo_comes_back(sent: Message | str | bytes | bytearray | memoryview, received: Message) -> None:
    async with client_of(Echo()) as client, aconnect_ws(URL, client=client) as ws:
        await ws.send(sent)
        message = await ws.recv()
    assert message == received
    assert isinstance(message, (TextMessage, BinaryMessage))
    assert type(message.data) in (str, bytes)


async def test_a_message_in_chunks_is_one_event_and_comes_back_in_one_chunk() -> None:
    application = Echo()
    async with (
        client_of(application) as client,
        aconnect_ws(URL, client=client, max_message_size=3, stream_large_messages=True) as ws,
    ):
        await ws.send(["one, ", "two"])
        async with ws.recv_chunks() as message:
            assert [chunk async for chunk in message] == ["one, two"]
        await ws.send([bytes(100_000)] * 3)
        async with ws.recv_chunks() as message:
            assert [chunk async for chunk in message] == [bytes(300_000)]
    assert application.events[1:3] == [
        {"type": "websocket.receive", "text": "one, two"},
        {"type": "websocket.receive", "bytes": bytes(300_000)},
    ]


async def test_the_application_gets_plain_events() -> None:
    application = Echo()
    async with client_of(application) as client, aconnect_ws(URL, client=client) as ws:
        await ws.send("text")
        await ws.send(b"binary")
        await ws.recv()
        await ws.recv()
    assert application.events[:3] == [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "text"},
        {"type": "websocket.receive", "bytes": b"binary"},
    ]


@pytest.mark.parametrize(
    ("event", "received"),
    [
        ({**text("both"), "bytes": None}, TextMessage("both")),
        ({**binary(b"both"), "text": None}, BinaryMessage(b"both")),
        (binary(bytearray(b"mutable")), BinaryMessage(b"mutable")),
        (text("at once"), TextMessage("at once")),
    ],
)
async def test_the_application_may_speak_first(event: Event, received: Message) -> None:
    async with client_of(Says(ACCEPT, event)) as client, aconnect_ws(URL, client=client) as ws:
        message = await ws.recv()
    assert message == received


async def test_many_messages_keep_their_order() -> None:
    numbers = [str(number) for number in range(2000)]
    application = Returns(ACCEPT, *map(text, numbers), close())
    async with client_of(application) as client, aconnect_ws(URL, client=client) as ws:
        assert [message.data async for message in ws if isinstance(message, TextMessage)] == numbers


async def test_many_connections_to_one_application() -> None:
    received: dict[int, list[Message]] = {}
    application = Echo()
    async with client_of(application) as client:

        async def converse(number: int) -> None:
            async with aconnect_ws(URL, client=client) as ws:
                for turn in range(10):
                    await ws.send(f"{number} {turn}")
                received[number] = [await ws.recv() for _ in range(10)]

        async with anyio.create_task_group() as task_group:
            for number in range(30):
                task_group.start_soon(converse, number)
    assert received == {number: [TextMessage(f"{number} {turn}") for turn in range(10)] for number in range(30)}
    assert application.disconnects == [(1000, "")] * 30


async def test_many_tasks_on_one_connection() -> None:
    sent = {f"{number:>{1000 * number}}" for number in range(1, 40)}
    received: set[str] = set()
    async with client_of(Echo()) as client, aconnect_ws(URL, client=client) as ws:

        async def receive_one() -> None:
            message = await ws.recv()
            assert isinstance(message, TextMessage)
            received.add(message.data)

        async with anyio.create_task_group() as task_group:
            for data in sent:
                task_group.start_soon(receive_one)
                task_group.start_soon(ws.send, data)
    assert received == sent


async def test_a_cancelled_recv_loses_nothing() -> None:
    async with client_of(Echo()) as client, aconnect_ws(URL, client=client) as ws:
        for number in range(20):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as task_group:
                    task_group.start_soon(ws.recv)
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()
            await ws.send(str(number))
            assert await ws.recv() == TextMessage(str(number))


# Control frames, for which ASGI has no words


@pytest.mark.parametrize("message", [PingMessage(b"are you there"), PongMessage(b"still here"), PingMessage()])
async def test_pings_and_pongs_are_silently_nothing(message: Message) -> None:
    application = Echo()
    async with client_of(application) as client, aconnect_ws(URL, client=client) as ws:
        await ws.send(message)
        await ws.send("the next that arrives")
        assert await ws.recv() == TextMessage("the next that arrives")
    assert [event["type"] for event in application.events] == [
        "websocket.connect",
        "websocket.receive",
        "websocket.disconnect",
    ]


async def test_ping_returns_at_once_and_measures_nothing() -> None:
    async with client_of(Echo()) as client, aconnect_ws(URL, client=client) as ws:
        assert await ws.ping() == 0.0
        assert ws.latency is None


async def test_ping_is_a_checkpoint_all_the_same() -> None:
    async with (
        client_of(Echo()) as client,
        aconnect_ws(URL, client=client) as ws,
        turns_of_another() as turns,
    ):
        for _ in range(100):
            await ws.ping()
        assert turns() >= 90


async def test_pings_are_checked_as_over_a_network() -> None:
    async with client_of(Echo()) as client, aconnect_ws(URL, client=client) as ws:
        with pytest.raises(ValueError, match="125 bytes"):
            await ws.send(PingMessage(b"x" * 126))
        await ws.close()
        for message in (PingMessage(), PongMessage()):
            with pytest.raises(ConnectionClosed):
                await ws.send(message)
        with pytest.raises(ConnectionClosed):
            await ws.ping()


# Limits


async def test_a_message_of_just_the_limit_is_received() -> None:
    async with (
        client_of(Says(ACCEPT, binary(b"x" * 1000))) as client,
        aconnect_ws(URL, client=client, max_message_size=1000) as ws,
    ):
        assert await ws.recv() == BinaryMessage(b"x" * 1000)


@pytest.mark.parametrize("event", [text("x" * 1001), binary(b"x" * 1001), text("é" * 501)])
async def test_a_message_over_the_limit_fails_the_connection(event: Event) -> None:
    application = Says(ACCEPT, text("small"), event)
    async with client_of(application) as client:
        async with aconnect_ws(URL, client=client, max_message_size=1000) as ws:
            assert await ws.recv() == TextMessage("small")
            with pytest.raises(ConnectionClosed, match="over the limit of 1000 bytes") as caught:
                await ws.recv()
        assert caught.value.code == 1009
        assert not caught.value.clean
        await application.ended.wait()
    assert application.disconnects == [(1009, "the message is over the limit of 1000 bytes")]


# An application that does not speak ASGI


@pytest.mark.parametrize(
    "event",
    [
        pytest.param({"type": "websocket.send"}, id="nothing"),
        pytest.param(text(None), id="none"),
        pytest.param(text(5), id="a-number-as-text"),
        pytest.param(text("\ud800"), id="a-lone-surrogate"),
        pytest.param(binary("text"), id="text-as-bytes"),
    ],
)
async def test_a_message_that_is_none_loses_the_connection(event: Event) -> None:
    application = Says(ACCEPT, text("good"), event)
    async with client_of(application) as client:
        async with aconnect_ws(URL, client=client) as ws:
            assert await ws.recv() == TextMessage("good")
            with pytest.raises(ConnectionClosed) as caught:
                await ws.recv()
        assert caught.value.code == 1006
        assert caught.value.__cause__ is not None
        await application.ended.wait()
    assert application.disconnects == [(1006, "")]


@pytest.mark.parametrize("event", [{"type": "nonsense"}, {}, ACCEPT], ids=["unknown", "untyped", "second-accept"])
async def test_an_event_that_makes_no_sense_ends_the_application(event: Event) -> None:
    application = Says(ACCEPT, text("good"), event)
    async with client_of(application) as client, aconnect_ws(URL, client=client) as ws:
        assert [message async for message in ws] == [TextMessage("good")]
        assert ws.close_code == 1011
