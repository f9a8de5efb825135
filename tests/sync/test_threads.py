"""SPEC "Sync" and "Concurrency": any thread may call any method."""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial

import pytest
import wsproto.events as ws_events

from zapros_websocket import (
    BinaryMessage,
    CloseMessage,
    ConnectionClosed,
    PongMessage,
    TextMessage,
    WebSocket,
    connect_ws,
)
from zapros_websocket._inbox import MAX_BYTES
from zapros_websocket._outbox import MAX_BYTES as MAX_UNSENT_BYTES
from zapros_websocket._outbox import MAX_MESSAGES as MAX_UNSENT

from .peers import Background, PairServer
from .waiting import until_one_closes, until_one_receives, until_one_sends


def test_many_threads_send_and_no_frame_is_torn() -> None:
    server = PairServer(buffer=4096)
    threads, each = 8, 100
    with connect_ws("ws://test/", client=server.client) as ws:

        def send(number: int) -> None:
            for i in range(each):
                ws.send(f"{number} {i} " + "x" * 37 * i)

        senders = [Background(partial(send, number)) for number in range(threads)]
        received = [str(server.peer.receive_message()).split(" ") for _ in range(threads * each)]
        for sender in senders:
            sender.result()
        serving = Background(server.peer.serve)
    serving.result()
    for n in range(threads):
        # Each thread's messages are in its order, whole.
        mine = [(int(i), x) for number, i, x in received if int(number) == n]
        assert mine == [(i, "x" * 37 * i) for i in range(each)]
    server.close()


def test_many_threads_receive_and_each_message_goes_to_one(server: PairServer) -> None:
    total = 2000
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        receivers = [Background(lambda: [message.data for message in ws]) for _ in range(8)]
        for start in range(0, total, 50):
            server.peer.send(*(ws_events.TextMessage(str(n)) for n in range(start, start + 50)))
        server.peer.send(ws_events.CloseConnection(1000))
        received: list[list[str]] = [receiver.result() for receiver in receivers]  # type: ignore[misc]
    assert Counter(text for texts in received for text in texts) == Counter(str(n) for n in range(total))
    for texts in received:
        assert texts == sorted(texts, key=int)


def test_who_waits_first_is_served_first(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        receivers: list[Background] = []
        for number in range(5):
            receivers.append(Background(ws.recv))
            until_one_receives(ws, number + 1)
        server.peer.send(*(ws_events.TextMessage(str(number)) for number in range(5)))
        assert [receiver.result() for receiver in receivers] == [TextMessage(str(number)) for number in range(5)]


def test_who_gives_up_hands_its_turn_on(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:

        def give_up() -> None:
            with pytest.raises(TimeoutError):
                ws.recv(timeout=0.05)

        impatient = Background(give_up)
        until_one_receives(ws)
        patient = Background(ws.recv)
        until_one_receives(ws, 2)
        impatient.result()
        server.peer.send(ws_events.TextMessage("for the patient"))
        assert patient.result() == TextMessage("for the patient")


def test_who_gives_up_behind_another_leaves_no_place(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        patient = Background(ws.recv)
        until_one_receives(ws)
        for _ in range(10):
            with pytest.raises(TimeoutError):
                ws.recv(timeout=0.001)
        assert len(ws._inbox._waiting) == 1  # pyright: ignore[reportPrivateUsage]
        server.peer.send(ws_events.TextMessage("for the patient"))
        assert patient.result() == TextMessage("for the patient")


def test_close_from_another_thread_wakes_who_receives(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client) as ws:

        def receive() -> None:
            with pytest.raises(ConnectionClosed):
                ws.recv()

        receiving = [Background(receive) for _ in range(3)]
        until_one_receives(ws, 3)
        serving = Background(server.peer.serve)
        ws.close()
        for thread in (*receiving, serving):
            thread.result()


def test_close_from_another_thread_ends_a_send_that_waits() -> None:
    server = PairServer(buffer=4096)
    with connect_ws("ws://test/", client=server.client, close_timeout=0.05) as ws:

        def send() -> None:
            with pytest.raises(ConnectionClosed):
                while True:
                    ws.send(bytes(100_000))

        sending = [Background(send) for _ in range(3)]
        until_one_sends(ws, 3)
        ws.close()
        for thread in sending:
            thread.result()
    server.close()


def test_a_close_message_keeps_its_place_behind_what_was_handed_over() -> None:
    server = PairServer(buffer=4096)
    with connect_ws("ws://test/", client=server.client) as ws:
        for text in ("x" * 100_000, "one", "two"):
            ws.send(text)
        closing = Background(lambda: ws.send(CloseMessage(4000, "done")))
        until_one_closes(ws)
        assert [server.peer.receive_message() for _ in range(3)] == ["x" * 100_000, "one", "two"]
        closing.result()
        server.peer.serve()
        assert ws.recv() == CloseMessage(4000, "done")
    server.close()


def test_a_close_message_that_cannot_be_written_raises() -> None:
    server = PairServer(buffer=4096)
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        ws.send("x" * 100_000)

        def send() -> None:
            with pytest.raises(ConnectionClosed):
                ws.send(CloseMessage(4000))

        closing = Background(send)
        until_one_closes(ws)
        server.peer.sock.close()
        closing.result()


def test_what_is_handed_over_is_bounded_by_bytes_and_by_messages() -> None:
    for size, most in ((100_000, 100), (8, 5000)):
        server = PairServer(buffer=4096)
        sent: list[int] = []
        with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:

            def send(sent: list[int] = sent, size: int = size, most: int = most, ws: WebSocket = ws) -> None:
                for number in range(most):
                    ws.send(number.to_bytes(4, "big") * (size // 4))
                    sent.append(number)

            sending = Background(send)
            until_one_sends(ws)
            assert len(sent) <= MAX_UNSENT + 500
            # One is half-written, and one goes beyond the bound.
            assert len(sent) * size < MAX_UNSENT_BYTES + 2 * size
            # The peer reads on, and everything comes, in order.
            for number in range(most):
                assert server.peer.receive_message() == number.to_bytes(4, "big") * (size // 4)
            sending.result()
        server.close()


def test_a_lost_connection_is_reported_by_the_next_send() -> None:
    server = PairServer(buffer=4096)
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        ws.send(bytes(100_000))
        ws.send(bytes(100_000))
        server.peer.sock.close()
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                ws.send("more")
        assert caught.value.code == 1006


def test_unread_messages_are_bounded_and_none_is_lost(server: PairServer) -> None:
    message = b"x" * 100_000
    number = 200
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        sent = [0]

        def send() -> None:
            for _ in range(number):
                server.peer.send(ws_events.BytesMessage(message))
                sent[0] += 1

        sending = Background(send)
        # Whoever receives slowly holds the peer up, with no more than the bound and what the sockets take under way.
        for received in range(number):
            assert ws.recv() == BinaryMessage(message)
            assert (sent[0] - received) * len(message) <= MAX_BYTES + 2 * 1024 * 1024
        sending.result()


def test_a_reader_that_was_stopped_goes_on_when_all_is_taken(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client) as ws:
        sending = Background(lambda: server.peer.send(ws_events.BytesMessage(bytes(MAX_BYTES))))
        assert ws.recv() == BinaryMessage(bytes(MAX_BYTES))
        sending.result()
        serving = Background(server.peer.serve)
        # Its pong is read although nobody receives.
        assert ws.ping() >= 0
    serving.result()


def test_pings_are_answered_while_nobody_receives_and_while_a_send_waits() -> None:
    server = PairServer(buffer=4096)
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        server.peer.send(ws_events.Ping(b"one"))
        assert server.peer.receive() == ws_events.Pong(b"one")

        def send() -> None:
            for _ in range(20):
                ws.send(bytes(100_000))

        sending = Background(send)
        until_one_sends(ws)
        server.peer.send(ws_events.Ping(b"two"))
        assert isinstance(ws.recv(), object)
        seen: list[object] = []
        while ws_events.Pong(b"two") not in seen:
            seen.append(server.peer.receive())
        while sending.is_alive():
            server.peer.receive()
        sending.result()
        server.peer.send(ws_events.Pong(b"done"))
        ws.recv()
        assert ws.recv() == PongMessage(b"done")
    server.close()


def test_every_method_at_once_from_many_threads(server: PairServer) -> None:
    stop = threading.Event()
    with connect_ws("ws://test/", client=server.client) as ws:

        def until_closed(call: object) -> None:
            with pytest.raises(ConnectionClosed):
                while True:
                    call()  # type: ignore[operator]

        threads = [
            Background(lambda call=call: until_closed(call))  # type: ignore[misc]
            for call in (ws.ping, lambda: ws.send("x"), lambda: ws.send(bytes(70_000)), ws.recv) * 2
        ]

        def serve() -> None:
            for number in range(300):
                server.peer.answer(server.peer.receive())
                server.peer.send(ws_events.TextMessage(str(number)))
            stop.set()
            server.peer.serve()

        serving = Background(serve)
        assert stop.wait(30)
        ws.close()
        for thread in (*threads, serving):
            thread.result()
    assert ws.close_code == 1000
