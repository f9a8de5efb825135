"""SPEC "Messages": what can be sent, what comes in, and what is refused before anything is written."""

from __future__ import annotations

import array
from dataclasses import FrozenInstanceError

import pytest
from wsproto.events import BytesMessage, Ping, Pong
from wsproto.events import TextMessage as WsprotoText

from tests.memory import MemoryServer
from zapros_websocket import (
    BinaryMessage,
    CloseMessage,
    ConnectionClosed,
    Message,
    PingMessage,
    PongMessage,
    TextMessage,
    aconnect_ws,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        (TextMessage("hé"), WsprotoText("hé")),
        (BinaryMessage(b"\0\1"), BytesMessage(b"\0\1")),
        (PingMessage(b"p"), Ping(b"p")),
        (PongMessage(b"q"), Pong(b"q")),
        ("text", WsprotoText("text")),
        (b"bytes", BytesMessage(b"bytes")),
        (bytearray(b"array"), BytesMessage(b"array")),
        (memoryview(b"x.y.z")[::2], BytesMessage(b"xyz")),
        (array.array("H", [1, 2]), BytesMessage(array.array("H", [1, 2]).tobytes())),
        (BinaryMessage(bytearray(b"ba")), BytesMessage(b"ba")),  # type: ignore[arg-type]
        ("", WsprotoText("")),
        (b"", BytesMessage(b"")),
    ],
)
async def test_send_takes_messages_str_and_bytes_like_objects(
    server: MemoryServer, message: object, frame: object
) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        await ws.send(message)  # type: ignore[arg-type]
        assert await server.peer.receive() == frame


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (None, TypeError),
        (3, TypeError),
        ([1], TypeError),
        ({"a": 1}, TypeError),
        (TextMessage(b"bytes"), TypeError),  # type: ignore[arg-type]
        (BinaryMessage("text"), TypeError),  # type: ignore[arg-type]
        (CloseMessage("1000"), TypeError),  # type: ignore[arg-type]
        (CloseMessage(1000, b"reason"), TypeError),  # type: ignore[arg-type]
        ("\ud800", ValueError),
        (TextMessage("a\udfff"), ValueError),
        (PingMessage(bytes(126)), ValueError),
        (PongMessage(bytes(126)), ValueError),
        *((CloseMessage(code), ValueError) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 70000)),
        (CloseMessage(1000, "é" * 62), ValueError),
        (CloseMessage(1000, "\ud800"), ValueError),
    ],
)
async def test_what_cannot_be_sent_raises_before_anything_is_written(
    server: MemoryServer, message: object, error: type[Exception]
) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        with pytest.raises(error):
            await ws.send(message)  # type: ignore[arg-type]
        assert server.stream.outgoing.total == 0
        await ws.send("still open")
        assert await server.peer.receive() == WsprotoText("still open")


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (1000, "x" * 124), ("1000", ""), (1000, b"")])
async def test_a_close_that_may_not_be_sent_raises_and_closes_nothing(
    server: MemoryServer, code: int, reason: str
) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        with pytest.raises((ValueError, TypeError)):
            await ws.close(code, reason)
        assert ws.close_code is None
        await ws.send("still open")


async def test_received_payloads_are_exactly_str_and_bytes(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        await server.peer.send(
            WsprotoText("a", message_finished=False),
            WsprotoText("b"),
            BytesMessage(b"c", message_finished=False),
            BytesMessage(b"d"),
            WsprotoText("e"),
            BytesMessage(b"f"),
            Ping(b"g"),
            Pong(b"h"),
        )
        received = [await ws.recv() for _ in range(6)]
    assert received == [
        TextMessage("ab"),
        BinaryMessage(b"cd"),
        TextMessage("e"),
        BinaryMessage(b"f"),
        PingMessage(b"g"),
        PongMessage(b"h"),
    ]
    for message in received:
        assert not isinstance(message, CloseMessage)
        assert type(message.data) in (str, bytes)


def test_messages_are_frozen_and_slotted_values_with_a_kind() -> None:
    values: list[tuple[Message, str]] = [
        (TextMessage("a"), "text"),
        (BinaryMessage(b"a"), "binary"),
        (PingMessage(), "ping"),
        (PongMessage(), "pong"),
        (CloseMessage(), "close"),
    ]
    for message, kind in values:
        assert message.kind == kind
        assert not hasattr(message, "__dict__")
        with pytest.raises(FrozenInstanceError):
            setattr(message, "kind", kind)  # noqa: B010
    assert CloseMessage() == CloseMessage(1000, None)


async def test_send_and_recv_on_a_closed_connection_raise_connection_closed(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=1) as ws:
        await ws.close()
    for call in (ws.send("x"), ws.recv(), ws.ping(), ws.send(PingMessage()), ws.send(CloseMessage())):
        with pytest.raises(ConnectionClosed):
            await call
