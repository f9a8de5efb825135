"""``observer=`` for threads: the same calls, all of them from the event loop in the background."""

from __future__ import annotations

import logging
import threading

import pytest
from wsproto.events import CloseConnection, Ping, Pong
from wsproto.events import TextMessage as WsprotoText

from tests.witness import Witness
from zapros_websocket import (
    BinaryMessage,
    CloseMessage,
    FrameHeader,
    PingMessage,
    PongMessage,
    ReconnectPolicy,
    TextMessage,
    connect_ws,
    reconnecting_sync,
)
from zapros_websocket.testing import echo_server

from .peers import PairServer


def test_all_that_goes_over_is_told(server: PairServer) -> None:
    witness = Witness()
    with connect_ws("ws://test/", client=server.client, observer=witness) as ws:
        server.peer.send(Ping(b"?"), WsprotoText("hello"))
        assert ws.recv() == PingMessage(b"?")
        assert ws.recv() == TextMessage("hello")
        assert server.peer.receive() == Pong(b"?")
        ws.send(b"\x00\xff")
        assert server.peer.receive_message() == b"\x00\xff"
        server.peer.send(CloseConnection(4000, "enough"))
        server.peer.end()
        assert ws.recv() == CloseMessage(4000, "enough")
    assert witness.of("opened") == [(101, None, False)]
    assert witness.of("message_received") == [PingMessage(b"?"), TextMessage("hello"), CloseMessage(4000, "enough")]
    assert witness.of("message_sent") == [PongMessage(b"?"), BinaryMessage(b"\x00\xff"), CloseMessage(4000, "enough")]
    assert witness.of("frame_sent")[:2] == [FrameHeader(10, True, False, 1), FrameHeader(2, True, False, 2)]
    assert witness.told[-1] == ("closed", (4000, "enough", "server"))


def test_the_calls_come_from_one_thread_which_is_not_that_of_the_caller(server: PairServer) -> None:
    witness = Witness()
    with connect_ws("ws://test/", client=server.client, observer=witness, close_timeout=0) as ws:
        threads = [threading.Thread(target=ws.send, args=["hello"]) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for _ in threads:
            assert server.peer.receive_message() == "hello"
        # Round trips and the depth of the queue are those of the loop as well.
        server.peer.send(WsprotoText("x"))
        ws.recv()
    assert witness.of("message_sent")[:5] == [TextMessage("hello")] * 5
    assert len(witness.threads) == 1
    assert threading.get_ident() not in witness.threads


def test_over_a_plain_socket_nothing_goes_around_the_observer() -> None:
    witness = Witness()
    with echo_server() as server, connect_ws(server.url, observer=witness) as ws:
        for size in (0, 10, 100_000):
            ws.send(bytes(size))
            assert ws.recv() == BinaryMessage(bytes(size))
        assert ws.ping() == witness.of("round_trip")[0]
    assert witness.total("bytes_sent") == 6 + (6 + 10) + (14 + 100_000) + (6 + 12) + (6 + 2)
    assert witness.total("bytes_received") == 2 + (2 + 10) + (10 + 100_000) + (2 + 12) + (2 + 2)
    assert [depth for depth in witness.of("queue_depth") if depth] == [1, 1, 1]


def test_debug_lines_show_what_a_thread_sends(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "zapros_websocket"):
        with echo_server() as server, connect_ws(server.url) as ws:
            ws.send("hello")
            ws.recv()
    lines = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert lines[:3] == ["open", "> text 'hello' (5 characters)", "< text 'hello' (5 characters)"]


def test_one_observer_hears_of_one_connection_after_the_other(server: PairServer) -> None:
    witness = Witness()
    policy = ReconnectPolicy(first_pause=0)
    for attempt in reconnecting_sync(
        "ws://test/", client=server.client, policy=policy, observer=witness, close_timeout=0
    ):
        with attempt as ws:
            if attempt.number == 2:
                break
            server.peer.end()
            ws.recv()
    assert [what for what, _ in witness.told if what in ("opened", "closed")] == ["opened", "closed"] * 2
