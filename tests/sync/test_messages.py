"""SPEC "Sync", "Messages" and "recv, iteration, closing": what one thread sees of a connection."""

from __future__ import annotations

from typing import Any

import pytest
import wsproto.events as ws_events
from zapros import URL, AsyncClient, Client

from zapros_websocket import (
    BaseWebSocket,
    BinaryMessage,
    CloseCode,
    CloseMessage,
    ConnectionClosed,
    Message,
    PerMessageDeflateExtension,
    PingMessage,
    PongMessage,
    TextMessage,
    WebSocket,
    connect_ws,
)

from .peers import Background, PairServer


def test_messages_of_every_kind_go_out_in_order(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client) as ws:
        ws.send("text")
        ws.send(TextMessage("more"))
        ws.send(bytearray(b"bytes"))
        ws.send(BinaryMessage(b"\x00"))
        ws.send(PingMessage(b"ping"))
        ws.send(PongMessage(b"pong"))
        peer = server.peer
        assert [peer.receive_message() for _ in range(4)] == ["text", "more", b"bytes", b"\x00"]
        assert peer.receive() == ws_events.Ping(b"ping")
        assert peer.receive() == ws_events.Pong(b"pong")
        serving = Background(peer.serve)
    assert serving.result() == ws_events.CloseConnection(1000, "")


def test_messages_of_every_kind_come_in_in_order(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        server.peer.send(
            ws_events.TextMessage("text"),
            ws_events.Ping(b"ping"),
            ws_events.BytesMessage(b"bytes"),
            ws_events.Pong(b"unasked"),
            ws_events.CloseConnection(4000, "enough"),
        )
        expected: list[Message] = [
            TextMessage("text"),
            PingMessage(b"ping"),
            BinaryMessage(b"bytes"),
            PongMessage(b"unasked"),
            CloseMessage(4000, "enough"),
        ]
        assert [ws.recv() for _ in expected] == expected
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv()
        assert (caught.value.code, caught.value.reason) == (4000, "enough")
        with pytest.raises(ConnectionClosed):
            ws.send("late")
        assert (ws.close_code, ws.close_reason) == (4000, "enough")


def test_what_came_with_the_101_is_received() -> None:
    server = PairServer(trailing=b"\x81\x05hello")
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        assert ws.recv() == TextMessage("hello")
    server.close()


def test_iteration_yields_text_and_binary_and_ends_at_the_close(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        server.peer.send(
            ws_events.TextMessage("one"),
            ws_events.Ping(),
            ws_events.BytesMessage(b"two"),
            ws_events.CloseConnection(1011),
        )
        assert list(ws) == [TextMessage("one"), BinaryMessage(b"two")]


def test_iteration_raises_when_the_connection_is_lost(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        server.peer.send(ws_events.TextMessage("one"))
        server.peer.end()
        messages = iter(ws)
        assert next(messages) == TextMessage("one")
        with pytest.raises(ConnectionClosed) as caught:
            next(messages)
        assert caught.value.code == CloseCode.ABNORMAL


def test_recv_times_out_with_the_builtin_error_and_loses_nothing(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        for timeout in (0, 0.001):
            with pytest.raises(TimeoutError, match="within"):
                ws.recv(timeout=timeout)
        server.peer.send(ws_events.TextMessage("late"))
        assert ws.recv(timeout=1e9) == TextMessage("late")
        for wrong in (-1, float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                ws.recv(timeout=wrong)
        wrong_kind: Any = "1"
        for call in (ws.recv, ws.recv_text, ws.recv_bytes, ws.recv_json, ws.recv_chunks):
            with pytest.raises(TypeError, match="timeout must be a number, not '1'"):
                call(timeout=wrong_kind)


def test_bad_messages_raise_before_anything_is_written(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        for message, error in (
            (3, TypeError),
            (None, TypeError),
            ("\ud800", ValueError),
            (PingMessage(bytes(126)), ValueError),
            (CloseMessage(1005), ValueError),
        ):
            with pytest.raises(error):
                ws.send(message)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="1005"):
            ws.close(1005)
        ws.send("good")
        assert server.peer.receive_message() == "good"


def test_a_buffer_may_be_changed_once_send_has_returned() -> None:
    server = PairServer(buffer=4096)
    data = bytearray(b"x" * 100_000)
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        ws.send(data)
        ws.send(data)
        data[:] = bytes(len(data))
        assert server.peer.receive_message() == b"x" * 100_000
        assert server.peer.receive_message() == b"x" * 100_000
    server.close()


def test_ping_measures_the_round_trip(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client) as ws:
        assert ws.latency is None
        serving = Background(server.peer.serve)
        round_trip = ws.ping()
        assert 0 <= round_trip == ws.latency
    serving.result()
    with pytest.raises(ConnectionClosed):
        ws.ping()


def test_ping_raises_when_the_connection_ends_first(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:

        def hang_up() -> None:
            assert isinstance(server.peer.receive(), ws_events.Ping)
            server.peer.end()

        hanging_up = Background(hang_up)
        with pytest.raises(ConnectionClosed) as caught:
            ws.ping()
        assert caught.value.code == CloseCode.ABNORMAL
        hanging_up.result()


def test_a_close_message_starts_the_closing_handshake_behind_what_was_sent(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client) as ws:
        ws.send("before")
        ws.send(CloseMessage(4001, "my turn"))
        with pytest.raises(ConnectionClosed):
            ws.send("behind")
        assert server.peer.receive_message() == "before"
        close = server.peer.receive()
        assert isinstance(close, ws_events.CloseConnection)
        server.peer.sock.sendall(b"\x81\x05still")
        server.peer.send(close.response())
        server.peer.end()
        assert ws.recv() == TextMessage("still")
        assert ws.recv() == CloseMessage(4001, "my turn")


def test_close_sends_its_code_and_is_idempotent(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client) as ws:
        serving = Background(server.peer.serve)
        ws.close(CloseCode.GOING_AWAY, "moving on")
        ws.close(4000)
        assert (ws.close_code, ws.close_reason) == (1001, "moving on")
        assert list(ws) == []
        with pytest.raises(ConnectionClosed):
            ws.recv()
        with pytest.raises(ConnectionClosed):
            ws.send("late")
    assert serving.result() == ws_events.CloseConnection(1001, "moving on")


def test_what_was_handed_over_goes_out_before_a_close() -> None:
    server = PairServer(buffer=4096)
    with connect_ws("ws://test/", client=server.client) as ws:
        received: list[str | bytes] = []

        def read() -> None:
            received.extend(server.peer.receive_message() for _ in range(20))
            server.peer.serve()

        for _ in range(20):
            ws.send(b"x" * 20_000)
        reading = Background(read)
        ws.close()
        reading.result()
        assert received == [b"x" * 20_000] * 20
        assert ws.close_code == 1000
    server.close()


def test_closing_is_bounded_when_the_peer_reads_nothing() -> None:
    server = PairServer(buffer=4096)
    with connect_ws("ws://test/", client=server.client, close_timeout=0.05) as ws:
        ws.send(bytes(100_000))
        ws.send(bytes(100_000))
    assert ws.close_code == CloseCode.ABNORMAL
    server.close()


def test_an_exception_of_the_block_comes_out_as_itself_and_soon(server: PairServer) -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        with connect_ws("ws://test/", client=server.client, close_timeout=1e9) as ws:
            raise error
    assert caught.value is error
    assert ws.close_code == CloseCode.ABNORMAL


def test_compressed_messages_go_both_ways() -> None:
    server = PairServer(deflate=True)
    with connect_ws("ws://test/", client=server.client, permessage_deflate=True) as ws:
        assert ws.permessage_deflate == PerMessageDeflateExtension()
        for _ in range(3):
            ws.send("over and over " * 1000)
            assert server.peer.receive_message() == "over and over " * 1000
            server.peer.send(ws_events.TextMessage("again and again " * 1000))
            assert ws.recv() == TextMessage("again and again " * 1000)
        serving = Background(server.peer.serve)
    serving.result()
    server.close()


def test_a_client_is_a_synchronous_one() -> None:
    with pytest.raises(TypeError, match=r"zapros\.Client"):
        connect_ws("ws://test/", client=AsyncClient())  # type: ignore[arg-type]


def test_the_properties_are_those_of_the_connection(server: PairServer) -> None:
    with connect_ws(URL("ws://test/"), client=server.client, close_timeout=0) as ws:
        assert isinstance(ws, WebSocket)
        assert isinstance(ws, BaseWebSocket)
        assert (ws.subprotocol, ws.permessage_deflate, ws.latency) == (None, None, None)
        assert (ws.close_code, ws.close_reason) == (None, None)
        assert ws.response.status == 101
        assert repr(ws) == "<WebSocket open>"
    assert repr(ws) == "<WebSocket closed 1006>"


def test_the_handshake_runs_in_the_calling_thread_and_leaves_the_client_open(server: PairServer) -> None:
    class Watching(PairServer):
        is_closed = False

        def close(self) -> None:
            self.is_closed = True
            super().close()

    watching = Watching()
    client = Client(handler=watching, default_headers={"X-Mine": "1"})
    for _ in range(2):
        with connect_ws("ws://test/", client=client, close_timeout=0):
            pass
    assert [request.headers["X-Mine"] for request in watching.requests] == ["1", "1"]
    assert not watching.is_closed
    client.close()
