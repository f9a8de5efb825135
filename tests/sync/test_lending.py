"""A thread that takes one message soon after the other reads the socket itself, and nobody can tell but by the time."""

from __future__ import annotations

import signal
import sys
import threading
from dataclasses import replace

import pytest
import wsproto.events as ws_events

from tests.raw_frames import BINARY, frame
from zapros_websocket import (
    BinaryMessage,
    CloseMessage,
    ConnectionClosed,
    Message,
    PingMessage,
    TextMessage,
    WebSocket,
    connect_ws,
)
from zapros_websocket._inbox import MAX_BYTES
from zapros_websocket._lending import Lending
from zapros_websocket._protocol.session import Session

from .peers import Background, PairServer
from .waiting import until, until_one_receives

# A socket that is lent for so long stays lent, for all that a test can tell.
FOR_EVER = 3600.0


def lending_of(ws: WebSocket) -> Lending:
    lending = ws._inbox._lending  # pyright: ignore[reportPrivateUsage]
    assert lending is not None
    return lending


def ask(ws: WebSocket, server: PairServer) -> Lending:
    """Take two messages, one soon after the other: the socket is lent with the next."""
    lending = lending_of(ws)
    lending.patience = FOR_EVER
    for text in ("one", "two"):
        server.peer.send(ws_events.TextMessage(text))
        assert ws.recv() == TextMessage(text)
    assert lending.is_wanted
    return lending


def lend(ws: WebSocket, server: PairServer, patience: float = FOR_EVER) -> Lending:
    """Have the socket lent; without patience it may be back already."""
    lending = ask(ws, server)
    lending.patience = patience
    server.peer.send(ws_events.TextMessage("three"))
    assert ws.recv() == TextMessage("three")
    if patience == FOR_EVER:
        until(lambda: lending.is_lent)
    return lending


@pytest.fixture
def parsed_by_the_reader(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the session of a connection was given to parse."""
    parsed: list[bytes] = []
    receive = Session.receive

    def watched(self: Session, data: bytes | bytearray | memoryview) -> list[Message]:
        parsed.append(bytes(data))
        return receive(self, data)

    monkeypatch.setattr(Session, "receive", watched)
    return parsed


def test_messages_are_read_in_the_thread_that_waits_for_them(
    server: PairServer, parsed_by_the_reader: list[bytes]
) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lend(ws, server)
        parsed_by_the_reader.clear()
        for number in range(100):
            ws.send(str(number))
            assert server.peer.receive_message() == str(number)
            server.peer.send(ws_events.TextMessage(str(number)))
            assert ws.recv() == TextMessage(str(number))
        server.peer.send(*(ws_events.BytesMessage(bytes([number])) for number in range(100)))
        assert [ws.recv() for _ in range(100)] == [BinaryMessage(bytes([number])) for number in range(100)]
        assert not parsed_by_the_reader


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_messages_that_come_in_pieces(server: PairServer, size: int) -> None:
    texts = [f"{number} " + "x" * number for number in range(0, 200, 13)]
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lend(ws, server)
        wire = b"".join(server.peer.protocol.send(ws_events.TextMessage(text)) for text in texts)

        def send() -> None:
            for start in range(0, len(wire), size):
                server.peer.sock.sendall(wire[start : start + size])

        sending = Background(send)
        assert [ws.recv() for _ in texts] == [TextMessage(text) for text in texts]
        sending.result()


def test_a_piece_that_the_reader_has_is_handed_out_with_the_socket(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lending = ask(ws, server)
        wire = b"".join(server.peer.protocol.send(ws_events.TextMessage(text)) for text in ("three", "four"))
        server.peer.sock.sendall(wire[:-2])
        assert ws.recv() == TextMessage("three")
        until(lambda: lending.is_lent)
        server.peer.sock.sendall(wire[-2:])
        assert ws.recv() == TextMessage("four")


def test_what_is_no_data_message_goes_to_the_reader_in_its_place(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lend(ws, server)
        server.peer.send(
            ws_events.TextMessage("before"),
            ws_events.Ping(b"in between"),
            ws_events.TextMessage("in two ", message_finished=False),
            ws_events.TextMessage("pieces"),
            ws_events.BytesMessage(bytes(100_000)),
            ws_events.TextMessage("behind"),
        )
        assert ws.recv() == TextMessage("before")
        assert ws.recv() == PingMessage(b"in between")
        assert ws.recv() == TextMessage("in two pieces")
        assert ws.recv() == BinaryMessage(bytes(100_000))
        assert ws.recv() == TextMessage("behind")
        assert isinstance(server.peer.receive(), ws_events.Pong)
        server.peer.send(ws_events.TextMessage("last"), ws_events.CloseConnection(1001, "enough"))
        assert ws.recv() == TextMessage("last")
        assert ws.recv() == CloseMessage(1001, "enough")


@pytest.mark.parametrize(
    ("frame", "code"),
    [(b"\x81\x02\xc3\x28", 1007), (b"\x82\x7f" + (1 << 40).to_bytes(8, "big"), 1009), (b"\xf1\x00", 1002)],
    ids=["not-utf8", "too-big", "reserved-bits"],
)
def test_what_fails_the_connection_does_so_behind_what_came_before(server: PairServer, frame: bytes, code: int) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lend(ws, server)
        server.peer.sock.sendall(server.peer.protocol.send(ws_events.TextMessage("before")) + frame)
        assert ws.recv() == TextMessage("before")
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv()
        assert caught.value.code == code


def test_the_end_of_the_stream(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lend(ws, server)
        server.peer.send(ws_events.TextMessage("before"))
        server.peer.end()
        assert ws.recv() == TextMessage("before")
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv()
        assert caught.value.code == 1006


@pytest.mark.parametrize("server", ["plain"], indirect=True)
def test_a_reset_is_the_cause_of_the_end(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lend(ws, server)
        # A socket that is closed with something unread in it is reset.
        ws.send("unread")
        server.close()
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv()
        assert caught.value.code == 1006
        assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_pings_are_answered_though_nobody_receives(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lend(ws, server, patience=0.01)
        server.peer.send(ws_events.Ping(b"?"))
        assert server.peer.receive() == ws_events.Pong(b"?")


def test_a_ping_of_ours_takes_the_socket_back(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lending = lend(ws, server)
        pinging = Background(ws.ping)
        server.peer.answer(server.peer.receive())
        pinging.result()
        assert not lending.is_lent


def test_keepalive_knows_when_nobody_else_listens(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        link, lending = ws._parts.link, ask(ws, server)  # pyright: ignore[reportPrivateUsage]
        # The reader listens, though the socket is wanted.
        assert not link.is_deaf
        server.peer.send(ws_events.TextMessage("three"))
        assert ws.recv() == TextMessage("three")
        until(lambda: lending.is_lent)
        assert link.is_deaf


def test_a_thread_that_waits_in_vain_gives_the_socket_back(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lending = lend(ws, server)
        lending.patience = 0.01
        receiving = Background(ws.recv)
        until(lambda: not lending.is_lent)
        server.peer.send(ws_events.TextMessage("late"))
        assert receiving.result() == TextMessage("late")


def test_one_that_does_not_wait_reads_what_is_there(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lending = lend(ws, server)
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0)
        server.peer.send(ws_events.TextMessage("there"))
        assert ws.recv(timeout=0) == TextMessage("there")
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.001)
        assert lending.is_lent


def test_the_next_in_the_row_is_served_by_the_reader(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lend(ws, server)
        first = Background(ws.recv)
        until_one_receives(ws)
        second = Background(ws.recv)
        until_one_receives(ws, 2)
        server.peer.send(ws_events.TextMessage("for the first"))
        assert first.result() == TextMessage("for the first")
        server.peer.send(ws_events.TextMessage("for the second"))
        assert second.result() == TextMessage("for the second")


def test_a_thread_that_waits_for_the_reader_keeps_the_socket_with_it(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lending = ask(ws, server)
        receiving = Background(ws.recv)
        until_one_receives(ws)
        wire = server.peer.protocol.send(ws_events.TextMessage("in pieces"))
        server.peer.sock.sendall(wire[:3])
        until(lambda: not lending.is_wanted)
        server.peer.sock.sendall(wire[3:])
        assert receiving.result() == TextMessage("in pieces")


@pytest.mark.parametrize("receives", [True, False], ids=["in-recv", "elsewhere"])
def test_close_takes_the_socket_back(server: PairServer, *, receives: bool) -> None:
    with connect_ws("ws://test/", client=server.client) as ws:
        lend(ws, server)
        serving = Background(server.peer.serve)
        receiving: Background | None = None
        if receives:
            receiving = Background(ws.recv)
            until_one_receives(ws)
        ws.close(1001, "bye")
        if receiving is not None:
            with pytest.raises(ConnectionClosed):
                receiving.result()
        closed = serving.result()
    assert isinstance(closed, ws_events.CloseConnection)
    assert closed.code == 1001


def test_it_counts_against_the_bounds(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lend(ws, server, patience=0.01)
        total = 4 * MAX_BYTES // 1000

        def send() -> None:
            for _ in range(total):
                server.peer.send(ws_events.BytesMessage(bytes(1000)))

        sending = Background(send)
        for _ in range(total):
            assert ws.recv() == BinaryMessage(bytes(1000))
        sending.result()


def test_with_compression_the_reader_keeps_it() -> None:
    server = PairServer(deflate=True)
    with connect_ws("ws://test/", client=server.client, permessage_deflate=True, close_timeout=0) as ws:
        for text in ("one", "two", "three"):
            server.peer.send(ws_events.TextMessage(text))
            assert ws.recv() == TextMessage(text)
        assert not lending_of(ws).is_lent
    server.close()


@pytest.mark.parametrize("server", ["plain"], indirect=True)
def test_an_interrupt_in_front_of_a_read_leaves_the_socket_with_the_threads(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lending = lend(ws, server)
        direct = lending._direct  # pyright: ignore[reportPrivateUsage]

        def interrupted(_: int) -> bytes:
            lending._direct = direct  # pyright: ignore[reportPrivateUsage]
            raise KeyboardInterrupt

        lending._direct = replace(direct, receive=interrupted)  # pyright: ignore[reportPrivateUsage]
        server.peer.send(ws_events.TextMessage("for the next"))
        with pytest.raises(KeyboardInterrupt):
            ws.recv()
        assert lending.is_lent
        assert ws.recv() == TextMessage("for the next")


@pytest.mark.skipif(sys.platform == "win32", reason="a signal cannot be sent to a thread")
def test_an_interrupt_loses_nothing(server: PairServer) -> None:
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
            lending = lend(ws, server)

            def interrupt() -> None:
                until_one_receives(ws)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

            interrupting = Background(interrupt)
            with pytest.raises(KeyboardInterrupt):
                ws.recv()
            interrupting.result()
            assert lending.is_lent
            server.peer.send(ws_events.TextMessage("for the next"))
            assert ws.recv() == TextMessage("for the next")
    finally:
        signal.signal(signal.SIGINT, previous)


def test_what_an_interrupt_has_left_unparsed_comes_before_what_is_read_next(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lending = lend(ws, server)
        # As an interrupt leaves it that comes behind the call in which the socket was read.
        lending._received.append(frame(BINARY, b"four"))  # pyright: ignore[reportPrivateUsage]
        server.peer.send(ws_events.TextMessage("five"))
        assert [ws.recv(), ws.recv()] == [BinaryMessage(b"four"), TextMessage("five")]
