"""JSON, text and bytes by name, from threads: what does not fit is an error, and stays for the next call."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import wsproto.events as ws_events

from zapros_websocket import (
    BaseWebSocket,
    BinaryMessage,
    CloseMessage,
    ConnectionClosed,
    Message,
    PingMessage,
    TextMessage,
    UnexpectedMessageError,
    connect_ws,
)

from .peers import PairServer


def test_values_go_out_as_json_in_text(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        ws.send_json({"a": [1, None, "ü"]})
        ws.send_json([1], dumps=lambda value: json.dumps(value).encode())
        assert [server.peer.receive_message() for _ in range(2)] == ['{"a":[1,null,"ü"]}', "[1]"]


def test_each_kind_comes_in_by_its_name(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        server.peer.send(
            ws_events.TextMessage("text"),
            ws_events.Ping(b"skipped"),
            ws_events.BytesMessage(b"bytes"),
            ws_events.TextMessage('{"a": 1}'),
            ws_events.TextMessage("7"),
        )
        assert ws.recv_text() == "text"
        assert ws.recv_bytes(timeout=10) == b"bytes"
        assert ws.recv_json() == {"a": 1}
        assert ws.recv_json(loads=int) + 1 == 8


def test_a_message_of_another_kind_is_an_error_and_is_not_lost(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        server.peer.send(
            ws_events.BytesMessage(b"bytes"), ws_events.TextMessage("no JSON"), ws_events.TextMessage("last")
        )
        for receive in (ws.recv_text, ws.recv_json):
            with pytest.raises(UnexpectedMessageError):
                receive()
        assert ws.recv_bytes() == b"bytes"
        with pytest.raises(json.JSONDecodeError):
            ws.recv_json()
        with pytest.raises(UnexpectedMessageError):
            ws.recv_bytes()
        assert ws.recv() == TextMessage("no JSON")
        assert ws.recv_text() == "last"


def test_the_time_is_over_for_what_is_skipped_as_well(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        with pytest.raises(TimeoutError, match=r"within 0 seconds"):
            ws.recv_text(timeout=0)
        server.peer.send(ws_events.Ping(b"skipped"))
        with pytest.raises(TimeoutError):
            ws.recv_text(timeout=0.01)


def test_the_peers_close_is_an_error(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        server.peer.send(ws_events.CloseConnection(4000, "enough"))
        for _ in range(2):
            with pytest.raises(ConnectionClosed) as caught:
                ws.recv_text()
            assert caught.value.code == 4000


def test_a_stand_in_has_them_too() -> None:
    class StandIn(BaseWebSocket):
        def __init__(self, *messages: Message) -> None:
            self.sent: list[Message] = []
            self._messages = iter(messages)

        def send(self, message: Message) -> None:
            self.sent.append(message)

        def recv(self, timeout: float | None = None) -> Message:
            return next(self._messages)

        def close(self, code: int = 1000, reason: str = "") -> None:
            raise NotImplementedError

        def __iter__(self) -> Iterator[Message]:
            raise NotImplementedError

        @property
        def close_code(self) -> int | None:
            return None

        @property
        def close_reason(self) -> str | None:
            return None

    stand_in = StandIn(PingMessage(), TextMessage("a"), BinaryMessage(b"b"), TextMessage("1"), CloseMessage(4000, "c"))
    stand_in.send_json(1)
    assert stand_in.sent == [TextMessage("1")]
    assert (stand_in.recv_text(), stand_in.recv_bytes(), stand_in.recv_json(timeout=1)) == ("a", b"b", 1)
    with pytest.raises(ConnectionClosed) as caught:
        stand_in.recv_text()
    assert caught.value.code == 4000
