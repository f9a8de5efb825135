"""SPEC "Sync" and "Limits": a message that a thread receives chunk by chunk, and what other threads do meanwhile."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import anyio
import pytest
import wsproto.events as ws_events

from tests.interrupts import interrupt_at, interrupts_come_out, lines_of
from tests.raw_frames import BINARY, CONTINUATION, PING, TEXT, close_frame, frame, header
from zapros_websocket import (
    BinaryMessage,
    CloseMessage,
    ConnectionClosed,
    LargeMessageError,
    PingMessage,
    TextMessage,
    WebSocket,
    connect_ws,
)
from zapros_websocket._inbox_of_parts_for_threads import InboxOfPartsForThreads

from .peers import Background, PairServer
from .waiting import until_one_receives, until_one_waits_for_a_part

LIMIT = 100


def streaming(server: PairServer, *, close_timeout: float = 0, permessage_deflate: bool = False) -> connect_ws:
    return connect_ws(
        "ws://test/",
        client=server.client,
        max_message_size=LIMIT,
        stream_large_messages=True,
        close_timeout=close_timeout,
        permessage_deflate=permessage_deflate,
    )


def whole(ws: WebSocket, timeout: float | None = None) -> str | bytes:
    """The next message, from its chunks."""
    with ws.recv_chunks(timeout) as message:
        chunks = list(message)
    empty = "" if message.kind == "text" else b""
    return empty.join(chunks)  # type: ignore[arg-type]


def test_every_message_can_be_received_in_chunks(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        server.peer.send(
            ws_events.Ping(b"skipped"),
            ws_events.TextMessage("text"),
            ws_events.BytesMessage(b"bytes"),
            ws_events.TextMessage(""),
        )
        assert [whole(ws) for _ in range(3)] == ["text", b"bytes", ""]
        with pytest.raises(TimeoutError):
            whole(ws, 0)
        with pytest.raises(ValueError, match="timeout must not be under 0"):
            ws.recv_chunks(-1)


@pytest.mark.parametrize("deflate", [False, True])
def test_a_large_message_comes_in_chunks_among_others(deflate: bool) -> None:
    server = PairServer(deflate=deflate)
    large = "é" * 1_000_000
    with streaming(server, permessage_deflate=deflate) as ws:

        def serve() -> None:
            for message in ("small", large, "after", large):
                server.peer.send(ws_events.TextMessage(message))

        serving = Background(serve)
        assert ws.recv() == TextMessage("small")
        assert whole(ws) == large
        assert ws.recv(30) == TextMessage("after")
        assert whole(ws, 30) == large
        serving.result()
    server.close()


def test_chunks_come_while_the_message_is_under_way_and_a_timeout_loses_nothing(server: PairServer) -> None:
    with streaming(server) as ws:
        server.peer.sock.sendall(header(BINARY, 1000) + bytes(1))
        with ws.recv_chunks(0.05) as message:
            assert message.kind == "binary"
            assert next(message) == bytes(1)
            with pytest.raises(TimeoutError, match=r"no part of the message came within 0\.05 seconds"):
                next(message)
            server.peer.sock.sendall(bytes(999))
            received = 0
            while received < 999:
                received += len(next(message))
            with pytest.raises(StopIteration):
                next(message)


def test_control_frames_come_in_front_of_the_message_and_behind_it(server: PairServer) -> None:
    with streaming(server) as ws:
        wire = frame(TEXT, b"first") + frame(PING, b"1") + frame(TEXT, b"a" * 200, final=False) + frame(PING, b"2")
        server.peer.sock.sendall(wire + frame(PING, b"3") + frame(CONTINUATION, b"end") + frame(TEXT, b"next"))
        assert server.peer.receive() == ws_events.Pong(b"1")
        assert ws.recv() == TextMessage("first")
        assert ws.recv() == PingMessage(b"1")
        for receive in (ws.recv, ws.recv_text, ws.recv_json, ws.__next__):
            with pytest.raises(LargeMessageError):
                receive()
        assert whole(ws) == "a" * 200 + "end"
        assert [ws.recv() for _ in range(3)] == [PingMessage(b"2"), PingMessage(b"3"), TextMessage("next")]


def test_others_wait_for_the_end_of_the_message_and_are_served_in_order(server: PairServer) -> None:
    with streaming(server) as ws:
        first = Background(lambda: whole(ws))
        until_one_receives(ws)
        second = Background(ws.recv)
        until_one_receives(ws, 2)
        server.peer.sock.sendall(frame(BINARY, bytes(200), final=False))
        until_one_waits_for_a_part(ws)
        third = Background(lambda: whole(ws))
        until_one_receives(ws, 2)
        with pytest.raises(TimeoutError):
            ws.recv(0)
        server.peer.sock.sendall(frame(CONTINUATION, b"") + frame(BINARY, b"second") + frame(BINARY, bytes(300)))
        assert first.result() == bytes(200)
        assert second.result() == BinaryMessage(b"second")
        assert third.result() == bytes(300)


def test_abandoning_a_message_drops_the_rest_of_it_and_nothing_else(server: PairServer) -> None:
    with streaming(server) as ws:
        server.peer.sock.sendall(frame(BINARY, bytes(200), final=False) + frame(CONTINUATION, b"x", final=False))
        with pytest.raises(KeyboardInterrupt), ws.recv_chunks() as message:
            assert len(next(message)) <= 200
            raise KeyboardInterrupt
        with pytest.raises(StopIteration):
            next(message)
        server.peer.sock.sendall(frame(CONTINUATION, b"z") + frame(TEXT, b"next") + frame(BINARY, bytes(300)))
        assert ws.recv() == TextMessage("next")
        with ws.recv_chunks():
            pass
        server.peer.sock.sendall(frame(TEXT, b"last"))
        assert ws.recv() == TextMessage("last")


def test_without_its_block_it_raises_and_the_message_stays(server: PairServer) -> None:
    with streaming(server) as ws:
        server.peer.send(ws_events.TextMessage("one"), ws_events.TextMessage("two"))
        incoming = ws.recv_chunks()
        with pytest.raises(RuntimeError, match=r"with ws\.recv_chunks\(\) as message"):
            for _ in incoming:
                raise AssertionError("it was not entered")
        assert ws.recv() == TextMessage("one")
        with incoming as message:
            assert list(message) == ["two"]


def test_a_message_that_nobody_takes_stops_the_reader(server: PairServer) -> None:
    with streaming(server) as ws:
        written = threading.Event()

        def serve() -> None:
            server.peer.sock.sendall(header(BINARY, 20_000_000) + bytes(20_000_000))
            written.set()
            server.peer.sock.sendall(frame(TEXT, b"next"))

        serving = Background(serve)
        with ws.recv_chunks() as message:
            size = len(next(message))
            assert not written.is_set()
            for chunk in message:
                assert len(chunk) <= 2_000_000
                size += len(chunk)
        assert size == 20_000_000
        assert ws.recv() == TextMessage("next")
        serving.result()


def test_a_deflate_bomb_comes_in_chunks() -> None:
    server = PairServer(deflate=True)
    with streaming(server, permessage_deflate=True) as ws:
        serving = Background(lambda: server.peer.send(ws_events.BytesMessage(bytes(30_000_000))))
        with ws.recv_chunks() as message:
            sizes = [len(chunk) for chunk in message]
        assert sum(sizes) == 30_000_000
        assert max(sizes) < 2_000_000
        serving.result()
    server.close()


def test_the_end_of_the_connection_raises_behind_what_was_received(server: PairServer) -> None:
    with streaming(server) as ws:
        server.peer.sock.sendall(header(BINARY, 1000) + bytes(500))
        with ws.recv_chunks() as message:
            taking = Background(lambda: list(message))
            until_one_waits_for_a_part(ws)
            server.peer.end()
            with pytest.raises(ConnectionClosed) as caught:
                taking.result()
            assert caught.value.code == 1006
        with pytest.raises(ConnectionClosed), ws.recv_chunks():
            pytest.fail("there is none")


def test_the_close_of_the_peer_is_an_error_once(server: PairServer) -> None:
    with streaming(server) as ws:
        server.peer.sock.sendall(frame(BINARY, bytes(200), final=False) + close_frame(4000, b"enough"))
        with ws.recv_chunks() as message:
            with pytest.raises(ConnectionClosed) as caught:
                list(message)
            assert caught.value.received == CloseMessage(4000, "enough")
        with pytest.raises(ConnectionClosed):
            ws.recv()


def test_a_thread_with_an_event_loop_may_take_what_is_there(server: PairServer) -> None:
    async def take() -> None:
        with ws.recv_chunks() as message:
            assert next(message)
            with pytest.raises(RuntimeError, match="would block the event loop"):
                list(message)

    with streaming(server) as ws:
        server.peer.sock.sendall(header(BINARY, 1000) + bytes(500))
        with ws.recv_chunks():
            pass
        server.peer.sock.sendall(bytes(500) + frame(TEXT, b"next") + header(BINARY, 1000) + bytes(500))
        assert ws.recv() == TextMessage("next")
        with pytest.raises(LargeMessageError):
            ws.recv()
        anyio.run(take)


def test_a_timeout_before_the_message_and_an_interrupt_at_its_beginning_lose_nothing(
    server: PairServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with streaming(server) as ws:
        with pytest.raises(TimeoutError), ws.recv_chunks(0):
            pytest.fail("nothing has come")
        server.peer.sock.sendall(frame(BINARY, bytes(200)))
        with pytest.raises(LargeMessageError):
            ws.recv()
        # In the step in which the message is taken.
        monkeypatch.setattr(ws._inbox, "_make_room", interrupt)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(KeyboardInterrupt), ws.recv_chunks():
            pytest.fail("it was interrupted")
        assert whole(ws) == bytes(200)


TAKING: list[Callable[..., object]] = [
    InboxOfPartsForThreads.take_part_within,
    InboxOfPartsForThreads._take_into,  # pyright: ignore[reportPrivateUsage]
]


@pytest.mark.skipif(sys.platform == "win32", reason="there an interrupt comes in its own time")
@pytest.mark.parametrize("stays", [True, False], ids=["stays", "leaves"])
@pytest.mark.parametrize(("function", "line"), [(function, line) for function in TAKING for line in lines_of(function)])
def test_an_interrupt_in_the_block_loses_nothing(
    server: PairServer, function: Callable[..., object], line: int, stays: bool
) -> None:
    large = bytes(range(256)) * 2
    with interrupts_come_out(), streaming(server) as ws:
        server.peer.sock.sendall(frame(BINARY, large[:300], final=False) + frame(CONTINUATION, large[300:]))
        server.peer.send(ws_events.TextMessage("next"))
        chunks: list[str | bytes] = []
        with suppress(KeyboardInterrupt), ws.recv_chunks(10) as message, interrupt_at(function, line):
            while b"".join(chunks) != large:  # type: ignore[arg-type]
                try:
                    chunks.append(next(message))
                except KeyboardInterrupt:
                    if not stays:
                        raise
        assert ws.recv(timeout=10) == TextMessage("next")


def test_an_interrupt_behind_the_taking_of_a_part_puts_it_back(
    server: PairServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: InboxOfPartsForThreads) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with streaming(server) as ws:
        server.peer.sock.sendall(frame(BINARY, bytes(200)))
        with ws.recv_chunks(10) as message:
            monkeypatch.setattr(InboxOfPartsForThreads, "_let_in_when_low", interrupted)
            with pytest.raises(KeyboardInterrupt):
                next(message)
            assert b"".join(message) == bytes(200)  # type: ignore[arg-type]
