"""A thread writes a large message itself, in as many steps as the socket takes it, while nobody else is in the way."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import wsproto.events as ws_events

from zapros_websocket import ConnectionClosed, WebSocket, connect_ws

from .peers import Background, PairServer
from .waiting import until, until_one_writes

LARGE = bytes(range(256)) * 4096 * 4


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that wait for the socket for as long as it takes, whatever else the machine does."""
    monkeypatch.setattr("zapros_websocket._outbox.PATIENCE", 3600.0)


def test_it_does_not_need_the_event_loop(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        reading = Background(server.peer.receive_message)
        ws.send(LARGE)
        assert ws._outbox._unsent == 0  # pyright: ignore[reportPrivateUsage]
        assert reading.result() == LARGE
        ws.send("the next")
        assert server.peer.receive_message() == "the next"


def test_what_others_send_meanwhile_follows(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        sending = Background(lambda: ws.send(LARGE))
        until_one_writes(ws)
        ws.send("the next")
        assert server.peer.receive_message() == LARGE
        assert server.peer.receive_message() == "the next"
        sending.result()


def test_the_event_loop_has_its_turn_behind_it(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        sending = Background(lambda: ws.send(LARGE))
        until_one_writes(ws)
        server.peer.send(ws_events.Ping(b"?"))
        until(lambda: ws._outbox._turn.is_awaited)  # pyright: ignore[reportPrivateUsage]
        assert server.peer.receive_message() == LARGE
        assert server.peer.receive() == ws_events.Pong(b"?")
        sending.result()


def test_close_waits_for_it(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client) as ws:
        sending = Background(lambda: ws.send(LARGE))
        until_one_writes(ws)
        closing = Background(ws.close)
        until(lambda: ws._outbox._closing is not None)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(ConnectionClosed):
            ws.send("too late")
        assert server.peer.receive_message() == LARGE
        assert server.peer.serve() is not None
        closing.result()
        sending.result()


def test_a_lost_connection_is_reported_by_the_next_send(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        sending = Background(lambda: ws.send(LARGE))
        until_one_writes(ws)
        server.close()
        sending.result()
        with pytest.raises(ConnectionClosed):
            ws.recv()
        with pytest.raises(ConnectionClosed):
            ws.send("too late")


@pytest.mark.skipif(sys.platform == "win32", reason="a signal cannot be sent to a thread")
def test_an_interrupt_leaves_the_rest_to_the_event_loop(server: PairServer) -> None:
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt(ws: WebSocket) -> None:
        until_one_writes(ws)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    try:
        with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
            interrupting = Background(lambda: interrupt(ws))
            with pytest.raises(KeyboardInterrupt):
                ws.send(LARGE)
            interrupting.result()
            ws.send("the next")
            assert server.peer.receive_message() == LARGE
            assert server.peer.receive_message() == "the next"
    finally:
        signal.signal(signal.SIGINT, previous)


def test_an_interrupt_while_it_is_left_does_so_as_well(server: PairServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        outbox = ws._outbox  # pyright: ignore[reportPrivateUsage]
        soon = outbox._soon  # pyright: ignore[reportPrivateUsage]

        def interrupted(function: Callable[[], object]) -> None:
            monkeypatch.setattr(outbox, "_soon", soon)
            assert function is not None
            raise KeyboardInterrupt

        monkeypatch.setattr(outbox, "_soon", interrupted)
        monkeypatch.setattr("zapros_websocket._outbox.PATIENCE", 0.001)
        with pytest.raises(KeyboardInterrupt):
            ws.send(LARGE)
        assert server.peer.receive_message() == LARGE
        ws.send("the next")
        assert server.peer.receive_message() == "the next"


@pytest.mark.skipif(sys.platform == "win32", reason="a signal cannot be sent to a thread")
def test_interrupts_one_after_the_other_do_not_keep_the_rest(
    server: PairServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        outbox = ws._outbox  # pyright: ignore[reportPrivateUsage]
        soon = outbox._soon  # pyright: ignore[reportPrivateUsage]

        def interrupted(function: Callable[[], object]) -> None:
            if threading.current_thread() is threading.main_thread():
                signal.raise_signal(signal.SIGINT)
            soon(function)

        previous = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            monkeypatch.setattr("zapros_websocket._outbox.PATIENCE", 0.001)
            monkeypatch.setattr(outbox, "_soon", interrupted)
            with pytest.raises(KeyboardInterrupt):
                ws.send(LARGE)
        finally:
            signal.signal(signal.SIGINT, previous)
            monkeypatch.setattr(outbox, "_soon", soon)
        assert server.peer.receive_message() == LARGE


@pytest.mark.parametrize("server", ["plain"], indirect=True)
@pytest.mark.parametrize(("step", "sent"), [(1, []), (2, [LARGE])], ids=["the-first", "a-later-one"])
def test_an_interrupt_in_front_of_a_write_of_a_plain_socket_is_in_nobodys_way(
    server: PairServer, step: int, sent: list[bytes]
) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        outbox = ws._outbox  # pyright: ignore[reportPrivateUsage]
        direct = outbox._direct  # pyright: ignore[reportPrivateUsage]
        assert direct is not None
        send = direct.send
        steps: list[int] = []

        def interrupted(data: bytes | bytearray | memoryview) -> int:
            steps.append(len(data))
            if len(steps) == step:
                raise KeyboardInterrupt
            return send(data)

        def at_once(_: float) -> bool:
            return True

        outbox._direct = replace(direct, send=interrupted, until_writable=at_once)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(KeyboardInterrupt):
            ws.send(LARGE)
        ws.send("the next")
        for message in (*sent, "the next"):
            assert server.peer.receive_message() == message


def test_a_write_of_the_event_loop_is_waited_for(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        outbox = ws._outbox  # pyright: ignore[reportPrivateUsage]
        turn = outbox._turn  # pyright: ignore[reportPrivateUsage]
        turn.is_taken = True
        ws.send("behind")
        until(lambda: turn.is_awaited)
        outbox._soon(turn.give_back)  # pyright: ignore[reportPrivateUsage]
        assert server.peer.receive_message() == "behind"


def test_a_fragment_waits_for_a_write_of_the_event_loop(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        outbox = ws._outbox  # pyright: ignore[reportPrivateUsage]
        turn = outbox._turn  # pyright: ignore[reportPrivateUsage]

        def chunks() -> Iterator[str]:
            turn.is_taken = True
            yield "one "
            outbox._soon(turn.give_back)  # pyright: ignore[reportPrivateUsage]
            yield "two"

        ws.send(chunks())
        assert server.peer.receive_message() == "one two"
