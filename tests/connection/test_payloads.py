"""One kind of message asked for: text, bytes, JSON. A message that does not fit stays for the next call."""

from __future__ import annotations

import json
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from anyio.lowlevel import cancel_shielded_checkpoint
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong
from wsproto.events import TextMessage as WsprotoText

from tests.connection.test_cancellation import Cancellable
from tests.memory import Backend, MemoryServer, autojump
from zapros_websocket import (
    AsyncBaseWebSocket,
    AsyncWebSocket,
    BinaryMessage,
    CloseMessage,
    ConnectionClosed,
    Message,
    PingMessage,
    TextMessage,
    UnexpectedMessageError,
    WebsocketError,
    aconnect_ws,
)

pytestmark = pytest.mark.anyio

Receive = Callable[[AsyncWebSocket], Awaitable[object]]

RECEIVERS: dict[str, Receive] = {
    "text": lambda ws: ws.recv_text(),
    "bytes": lambda ws: ws.recv_bytes(),
    "json": lambda ws: ws.recv_json(),
}
receivers = pytest.mark.parametrize("receive", RECEIVERS.values(), ids=list(RECEIVERS))


@pytest.fixture
async def ws(server: MemoryServer) -> AsyncIterator[AsyncWebSocket]:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        yield ws


# Sending JSON


async def test_json_goes_out_as_one_compact_text_message(server: MemoryServer, ws: AsyncWebSocket) -> None:
    await ws.send_json({"a": [1, None, True], "ä": "\N{SNOWMAN}"})
    assert await server.peer.receive_message() == '{"a":[1,null,true],"ä":"\N{SNOWMAN}"}'


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_what_dumps_gives_as_bytes_goes_out_as_text(
    kind: Callable[[bytes], bytes | bytearray | memoryview], server: MemoryServer, ws: AsyncWebSocket
) -> None:
    await ws.send_json(["ä"], dumps=lambda value: kind(json.dumps(value, ensure_ascii=False).encode()))
    assert await server.peer.receive_message() == '["ä"]'


async def test_orjson_goes_both_ways(server: MemoryServer, ws: AsyncWebSocket) -> None:
    orjson = pytest.importorskip("orjson")
    await ws.send_json({"ä": [1.5]}, dumps=orjson.dumps)
    text = await server.peer.receive_message()
    assert text == '{"ä":[1.5]}'
    assert isinstance(text, str)
    await server.peer.send(WsprotoText(text))
    assert await ws.recv_json(loads=orjson.loads) == {"ä": [1.5]}


def not_text(value: object) -> Any:
    return array("B", b"1")


def fail(value: object) -> str:
    raise KeyError(value)


@pytest.mark.parametrize(
    ("value", "dumps", "error"),
    [
        pytest.param({1, 2}, json.dumps, TypeError, id="no-json"),
        pytest.param("\ud800", str, ValueError, id="surrogate"),
        pytest.param([0xFF], bytes, ValueError, id="no-utf-8"),
        pytest.param(0, not_text, TypeError, id="neither-text-nor-bytes"),
        pytest.param("bare", fail, KeyError, id="error-of-dumps"),
    ],
)
async def test_what_is_no_json_raises_before_anything_is_sent(
    value: object,
    dumps: Callable[[object], str | bytes],
    error: type[Exception],
    server: MemoryServer,
    ws: AsyncWebSocket,
) -> None:
    with pytest.raises(error):
        await ws.send_json(value, dumps=dumps)
    await ws.send("next")
    assert await server.peer.receive_message() == "next"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
async def test_json_has_no_nan_and_no_infinity(value: object, ws: AsyncWebSocket) -> None:
    with pytest.raises(ValueError):
        await ws.send_json(value)


async def test_send_json_on_a_closed_connection_says_so(ws: AsyncWebSocket) -> None:
    await ws.close()
    with pytest.raises(ConnectionClosed):
        await ws.send_json(1)


# Receiving


async def test_each_kind_comes_out_bare(server: MemoryServer, ws: AsyncWebSocket) -> None:
    await server.peer.send(WsprotoText("text"), BytesMessage(b"bytes"), WsprotoText('{"a": [1, 2.5, null]}'))
    text = await ws.recv_text()
    data = await ws.recv_bytes()
    assert (text, data) == ("text", b"bytes")
    assert type(data) is bytes
    assert await ws.recv_json() == {"a": [1, 2.5, None]}


async def test_loads_may_make_anything_of_the_text(server: MemoryServer, ws: AsyncWebSocket) -> None:
    @dataclass
    class Quote:
        price: int

    await server.peer.send(WsprotoText('{"price": 7}'))
    quote = await ws.recv_json(loads=lambda text: Quote(**json.loads(text)))
    assert quote.price == 7


@receivers
async def test_pings_and_pongs_on_the_way_are_skipped(
    receive: Receive, server: MemoryServer, ws: AsyncWebSocket
) -> None:
    wanted = BytesMessage(b"1") if receive is RECEIVERS["bytes"] else WsprotoText("1")
    await server.peer.send(Ping(b"a"), Pong(b"b"), Ping(b"c"), wanted, Ping(b"d"))
    assert await receive(ws) in ("1", b"1", 1)
    assert await ws.recv() == PingMessage(b"d")


@pytest.mark.parametrize("waiting", [False, True], ids=["there-already", "awaited"])
@pytest.mark.parametrize(
    ("receive", "sent", "kept", "words"),
    [
        (RECEIVERS["text"], BytesMessage(b"12"), BinaryMessage(b"12"), "a text .* a binary message of 2 bytes came"),
        (RECEIVERS["json"], BytesMessage(b"1"), BinaryMessage(b"1"), "a text .* a binary message of 1 bytes came"),
        (RECEIVERS["bytes"], WsprotoText("1" * 1234), TextMessage("1" * 1234), "a binary .* text .* 1,234 characters"),
    ],
    ids=["text", "json", "bytes"],
)
async def test_a_message_of_the_wrong_kind_is_an_error_and_stays(
    receive: Receive,
    sent: BytesMessage | WsprotoText,
    kept: TextMessage | BinaryMessage,
    words: str,
    waiting: bool,
    server: MemoryServer,
    ws: AsyncWebSocket,
) -> None:
    errors: list[UnexpectedMessageError] = []

    async def receive_twice() -> None:
        for _ in range(2):
            with pytest.raises(UnexpectedMessageError, match=words) as caught:
                await receive(ws)
            errors.append(caught.value)

    async with anyio.create_task_group() as tasks:
        if waiting:
            tasks.start_soon(receive_twice)
            await anyio.wait_all_tasks_blocked()
            await server.peer.send(sent, WsprotoText("next"))
        else:
            await server.peer.send(sent, WsprotoText("next"))
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(receive_twice)
    assert all(isinstance(error, WebsocketError) for error in errors)
    assert [error.message for error in errors] == [kept, kept]
    assert await ws.recv() == kept
    assert await ws.recv_text() == "next"


async def test_a_text_that_is_no_json_stays_too(server: MemoryServer, ws: AsyncWebSocket) -> None:
    await server.peer.send(WsprotoText("{"))
    with pytest.raises(json.JSONDecodeError):
        await ws.recv_json()
    with pytest.raises(KeyError):
        await ws.recv_json(loads=fail)
    assert await ws.recv_text() == "{"


async def test_who_waits_behind_gets_what_does_not_fit_in_front(server: MemoryServer, ws: AsyncWebSocket) -> None:
    outcomes: dict[str, object] = {}

    async def receive(kind: str) -> None:
        try:
            outcomes[kind] = await RECEIVERS[kind](ws)
        except UnexpectedMessageError as error:
            outcomes[kind] = error.expected

    async with anyio.create_task_group() as tasks:
        for kind in ("text", "bytes", "json"):
            tasks.start_soon(receive, kind)
            await anyio.wait_all_tasks_blocked()
        await server.peer.send(BytesMessage(b"1"))
        await anyio.wait_all_tasks_blocked()
        assert outcomes == {"text": "text", "bytes": b"1"}
        await server.peer.send(WsprotoText("2"))
    assert outcomes == {"text": "text", "bytes": b"1", "json": 2}


async def test_who_lets_others_run_may_find_the_message_gone(server: MemoryServer, ws: AsyncWebSocket) -> None:
    received: list[str] = []

    async def receive() -> None:
        received.append(await ws.recv_text())

    for n in range(5):
        # The 32nd call in a row that need not wait lets another task run, which takes what was there.
        for _ in range(31):
            await server.peer.send(WsprotoText("before"))
            await anyio.wait_all_tasks_blocked()
            assert await ws.recv_text() == "before"
        await server.peer.send(WsprotoText(f"{n} a"))
        await anyio.wait_all_tasks_blocked()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await cancel_shielded_checkpoint()
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            await server.peer.send(WsprotoText(f"{n} b"))
        # One call was counted of the next 32, or none: begin the count anew.
        for _ in range(31):
            await server.peer.send(WsprotoText("between"))
            await anyio.wait_all_tasks_blocked()
            assert await ws.recv_text() == "between"
    assert sorted(received) == [f"{n} {x}" for n in range(5) for x in "ab"]


# The end


@receivers
@pytest.mark.parametrize("waiting", [False, True], ids=["there-already", "awaited"])
async def test_the_close_of_the_peer_is_an_error_once_all_was_received(
    receive: Receive, waiting: bool, server: MemoryServer, ws: AsyncWebSocket
) -> None:
    async def receive_to_the_end() -> None:
        for _ in range(2):
            with pytest.raises(ConnectionClosed) as caught:
                await receive(ws)
            assert caught.value.received == CloseMessage(1001, "bye")

    async with anyio.create_task_group() as tasks:
        if waiting:
            tasks.start_soon(receive_to_the_end)
            await anyio.wait_all_tasks_blocked()
        await server.peer.send(Ping(), CloseConnection(1001, "bye"))
        if not waiting:
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(receive_to_the_end)
    # It has come out: nobody gets it as a message any more.
    with pytest.raises(ConnectionClosed):
        await ws.recv()


@receivers
async def test_a_lost_connection_is_an_error(receive: Receive, server: MemoryServer, ws: AsyncWebSocket) -> None:
    server.peer.reset()
    with pytest.raises(ConnectionClosed) as caught:
        await receive(ws)
    assert caught.value.code == 1006


# Cancelling


@pytest.mark.parametrize("kind", ["trio", "asyncio", "asyncio-native"])
class TestCancelling:
    @pytest.fixture
    def anyio_backend(self, kind: str) -> Backend:
        return autojump("trio" if kind == "trio" else "asyncio")

    @receivers
    async def test_loses_nothing(self, receive: Receive, kind: str, server: MemoryServer) -> None:
        async with (
            aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
            anyio.create_task_group() as tasks,
        ):
            received: list[object] = []
            sent = 0
            # The cancel comes 0 to 4 steps of the scheduler after the message: every step in between is met.
            for steps in list(range(5)) * 20:
                receiver = Cancellable(kind == "asyncio-native")
                tasks.start_soon(receiver.run, lambda: receive(ws))
                await anyio.wait_all_tasks_blocked()
                is_binary = receive is RECEIVERS["bytes"]
                await server.peer.send(BytesMessage(b"%d" % sent) if is_binary else WsprotoText(str(sent)))
                sent += 1
                for _ in range(steps):
                    await cancel_shielded_checkpoint()
                receiver.cancel()
                await receiver.ended.wait()
                if receiver.outcome is not None:
                    received.append(receiver.outcome)
            while len(received) < sent:
                received.append(await receive(ws))
        assert [int(str(value, "ascii") if isinstance(value, bytes) else str(value)) for value in received] == list(
            range(sent)
        )

    async def test_is_observed_when_messages_are_there(self, kind: str, server: MemoryServer) -> None:
        async with (
            aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws,
            anyio.create_task_group() as tasks,
        ):
            for n in range(100):
                await server.peer.send(WsprotoText(str(n)))
            taken: list[object] = []

            async def take_until_cancelled() -> None:
                while True:
                    taken.append(await ws.recv_json())
                    if len(taken) == 10:
                        receiver.cancel()

            receiver = Cancellable(kind == "asyncio-native")
            tasks.start_soon(receiver.run, take_until_cancelled)
            await anyio.wait_all_tasks_blocked()
            await receiver.ended.wait()
            assert taken == list(range(10))
            assert await ws.recv_json() == 10


# Stand-ins


class StandIn(AsyncBaseWebSocket):
    """Has what it must have: the messages to receive, and those that were sent."""

    def __init__(self, *messages: Message) -> None:
        self.messages = list(messages)
        self.sent: list[Message] = []

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def recv(self) -> Message:
        return self.messages.pop(0)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        raise NotImplementedError

    def __aiter__(self) -> AsyncIterator[Message]:
        raise NotImplementedError

    @property
    def close_code(self) -> int | None:
        return None

    @property
    def close_reason(self) -> str | None:
        return None


async def test_a_stand_in_has_the_comforts_on_its_own_send_and_recv() -> None:
    stand_in = StandIn(
        PingMessage(), TextMessage("[1]"), BinaryMessage(b"2"), TextMessage("3"), CloseMessage(1000, "done")
    )
    await stand_in.send_json([1])
    assert stand_in.sent == [TextMessage("[1]")]
    assert await stand_in.recv_json() == [1]
    assert await stand_in.recv_bytes() == b"2"
    assert await stand_in.recv_text() == "3"
    with pytest.raises(ConnectionClosed) as caught:
        await stand_in.recv_text()
    assert caught.value.received == CloseMessage(1000, "done")
