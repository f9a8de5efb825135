"""Threads that read and write a TLS socket themselves: OpenSSL's connection has rules of its own."""

from __future__ import annotations

import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partialmethod
from threading import Lock
from typing import NoReturn

import pytest
import wsproto.events as ws_events
from wsproto.events import Event

from zapros_websocket import BinaryMessage, ConnectionClosed, TextMessage, WebSocket, connect_ws
from zapros_websocket._streams import direct
from zapros_websocket._streams.direct import Direct, SharedTls
from zapros_websocket._streams.tls import PIECE, Data, TlsSocket

from .peers import Background, PairServer
from .test_lending import FOR_EVER, lend, lending_of
from .waiting import until

LARGE = bytes(range(256)) * 4096 * 4

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="a signal cannot be sent to a thread")


class Alarm(Exception):
    """What the handler of a signal raises that is no interrupt."""


@pytest.fixture(params=["socket", "memory"])
def server(request: pytest.FixtureRequest) -> Iterator[PairServer]:
    """TLS of the socket that a client hands over, or in memory, as that of our own transport."""
    server = PairServer(tls=request.param)
    yield server
    server.close()


@pytest.fixture
def handlers() -> Iterator[None]:
    """Handlers that raise."""

    def alarm(*_: object) -> NoReturn:
        raise Alarm

    previous = [signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGTERM, alarm)]
    yield
    signal.signal(signal.SIGINT, previous[0])
    signal.signal(signal.SIGTERM, previous[1])


def direct_of(ws: WebSocket) -> Direct:
    found = ws._outbox._direct  # pyright: ignore[reportPrivateUsage]
    assert found is not None
    return found


def send_with(ws: WebSocket, send: Callable[[Data], int]) -> None:
    ws._outbox._direct = replace(direct_of(ws), send=send)  # pyright: ignore[reportPrivateUsage]


def receive_with(ws: WebSocket, receive: Callable[[int], bytes]) -> None:
    lending_of(ws)._direct = replace(direct_of(ws), receive=receive)  # pyright: ignore[reportPrivateUsage]


def once(error: Exception, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """Have a method of a class raise ``error`` once."""
    method = getattr(owner, name)

    def raising(*_: object) -> NoReturn:
        monkeypatch.setattr(owner, name, method)
        raise error

    monkeypatch.setattr(owner, name, raising)


def test_whoever_touches_the_connection_of_openssl_holds_the_mutex(
    server: PairServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()

    def watch(name: str) -> None:
        method = getattr(kind, name)

        def watched(self: ssl.SSLSocket | TlsSocket, *arguments: object) -> object:
            if not getattr(self, "server_side", False):
                assert mutex.locked(), name
                seen.add(name)
            return method(self, *arguments)

        monkeypatch.setattr(kind, name, watched)

    def held(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def called(*arguments: object) -> object:
            assert mutex.locked(), name
            seen.add(name)
            return function(*arguments)

        return called

    with connect_ws("ws://test/", client=server.client) as ws:
        mutex, found = direct_of(ws).mutex, direct_of(ws)
        kind: type = type(ws._parts.link.stream._top)  # type: ignore[attr-defined]  # pyright: ignore
        for name in ("recv", "recv_into", "send", "pending", "unwrap"):
            watch(name)
        send_with(ws, held("a thread sends", found.send))  # type: ignore[arg-type]
        receive_with(ws, held("a thread receives", found.receive))  # type: ignore[arg-type]
        reading = Background(server.peer.receive_message)
        ws.send(LARGE)
        assert reading.result() == LARGE
        lend(ws, server)
        server.peer.send(ws_events.TextMessage("read here"), ws_events.BytesMessage(bytes(100_000)))
        assert ws.recv() == TextMessage("read here")
        assert ws.recv() == BinaryMessage(bytes(100_000))
        pinging = Background(ws.ping)
        server.peer.answer(server.peer.receive())
        pinging.result()
        serving = Background(server.peer.serve)
    serving.result()
    assert seen == {"recv", "recv_into", "send", "pending", "unwrap", "a thread sends", "a thread receives"}


def test_what_was_not_written_is_written_again_with_the_same_bytes(
    server: PairServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[bytes] = []
    repeated: list[bool] = []
    by_the_event_loop = SharedTls.send

    def watched(send: Callable[[Data], int], data: Data) -> int:
        if refused:
            repeated.append(bytes(data)[:PIECE] == refused.pop())
        try:
            return send(data)
        except ssl.SSLWantWriteError:
            refused.append(bytes(data)[:PIECE])
            raise

    def watched_by_the_event_loop(self: SharedTls, data: Data) -> int:
        return watched(lambda data: by_the_event_loop(self, data), data)

    monkeypatch.setattr(SharedTls, "send", watched_by_the_event_loop)
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        send = direct_of(ws).send
        send_with(ws, lambda data: watched(send, data))
        # In this thread, while another reads.
        monkeypatch.setattr("zapros_websocket._outbox.PATIENCE", 3600.0)
        reading = Background(server.peer.receive_message)
        ws.send(LARGE)
        assert reading.result() == LARGE
        # The event loop, when nobody reads for too long, and others want to send.
        monkeypatch.setattr("zapros_websocket._outbox.PATIENCE", 0.001)
        ws.send(LARGE)
        ws.send("behind it")
        # Not before the event loop has tried: it may be slow to begin.
        until(lambda: refused)
        assert server.peer.receive_message() == LARGE
        assert server.peer.receive_message() == "behind it"
    assert repeated
    assert all(repeated)


def test_the_socket_is_not_lent_while_something_is_decrypted_that_no_readiness_announces(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0, ping_interval=None) as ws:
        lending, session = lending_of(ws), ws._parts.link.session  # pyright: ignore[reportPrivateUsage]
        lending.patience = FOR_EVER
        server.peer.send(ws_events.TextMessage("one"))
        assert ws.recv() == TextMessage("one")
        large, small = bytes(200_000), ws_events.TextMessage("behind")
        wire = server.peer.protocol.send(ws_events.BytesMessage(large))
        server.peer.sock.sendall(server.peer.protocol.send(ws_events.TextMessage("two")) + wire[:-1000])
        until(lambda: session._large is not None and session._large.missing == 1000)  # pyright: ignore[reportPrivateUsage]
        assert ws.recv() == TextMessage("two")
        assert lending.is_wanted
        # The end of the large message, which is received to where it stays, shares a record with the next.
        server.peer.sock.sendall(wire[-1000:] + server.peer.protocol.send(small))
        assert ws.recv(10) == BinaryMessage(large)
        assert ws.recv(10) == TextMessage("behind")


def test_the_reader_goes_on_with_what_a_thread_has_left(server: PairServer) -> None:
    texts = [TextMessage(str(number) * 1000) for number in range(100)]
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lend(ws, server)
        # More than a record, with something for the reader in its midst.
        messages: list[Event] = [ws_events.TextMessage(text.data) for text in texts]
        messages.insert(30, ws_events.BytesMessage(bytes(200_000)))
        sending = Background(lambda: server.peer.send(*messages))
        received = [ws.recv(30) for _ in messages]
        assert received == [*texts[:30], BinaryMessage(bytes(200_000)), *texts[30:]]
        sending.result()


@pytest.mark.parametrize("is_lent", [True, False], ids=["in-a-thread", "in-the-reader"])
@pytest.mark.parametrize("with_farewell", [True, False], ids=["farewell", "ragged"])
def test_both_find_the_same_end(server: PairServer, *, is_lent: bool, with_farewell: bool) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        if is_lent:
            lend(ws, server)
        server.peer.send(ws_events.TextMessage("before"))
        assert ws.recv() == TextMessage("before")
        assert lending_of(ws).is_lent is is_lent
        if with_farewell:
            server.peer.end()
        else:
            server.peer.break_off()
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv()
        assert caught.value.code == 1006
        assert caught.value.reason == "the connection was lost: the peer ended TCP without a close frame"
        assert caught.value.__cause__ is None


def test_records_that_were_tampered_with_are_the_cause_of_the_end(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lend(ws, server)
        socket.socket.send(server.peer.sock, b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv()
        assert caught.value.code == 1006
        assert isinstance(caught.value.__cause__, ssl.SSLError)


def test_a_read_that_has_to_write_is_left_to_the_reader(server: PairServer) -> None:
    def wants_to_write(_: int) -> NoReturn:
        raise ssl.SSLWantWriteError

    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lend(ws, server)
        receive_with(ws, wants_to_write)
        server.peer.send(ws_events.TextMessage("in the reader"))
        assert ws.recv() == TextMessage("in the reader")


@pytest.mark.parametrize("times", [1, 2], ids=["in-the-thread", "in-the-event-loop"])
def test_a_write_that_has_to_read_goes_on(server: PairServer, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        send = direct_of(ws).send
        errors = [ssl.SSLWantReadError() for _ in range(times)]

        def wants_to_read(data: Data) -> int:
            if errors:
                raise errors.pop()
            return send(data)

        send_with(ws, wants_to_read)
        # Nothing comes that would tell the event loop: a thread may have read it.
        once(ssl.SSLWantReadError(), monkeypatch, SharedTls, "send")
        ws.send("late")
        assert server.peer.receive_message() == "late"


@pytest.mark.parametrize("server", ["socket"], indirect=True)
@pytest.mark.parametrize("what", ["the-functions-beneath", "what-an-end-looks-like"])
def test_where_it_is_not_known_the_event_loop_does_it_all(
    server: PairServer, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if what == "the-functions-beneath":
        monkeypatch.setattr(direct, "BuiltinMethodType", type(None))
    else:
        strict: object = partialmethod(ssl.SSLContext.wrap_socket, suppress_ragged_eofs=False)
        monkeypatch.setattr(ssl.SSLContext, "wrap_socket", strict)
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        for number in range(10):
            ws.send(str(number))
            assert server.peer.receive_message() == str(number)
            server.peer.send(ws_events.TextMessage(str(number)))
            assert ws.recv() == TextMessage(str(number))
        assert ws._outbox._direct is None  # pyright: ignore[reportPrivateUsage]
        assert ws._inbox._lending is None  # pyright: ignore[reportPrivateUsage]


# As ``ssl`` does: it looks for signals behind what OpenSSL has done, and forgets that when a handler raises.


@needs_signals
@pytest.mark.usefixtures("handlers")
def test_an_interrupt_behind_a_read_loses_nothing(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lending = lend(ws, server)
        receive = direct_of(ws).receive

        def interrupted(size: int) -> bytes:
            data = receive(size)
            receive_with(ws, receive)
            signal.raise_signal(signal.SIGINT)
            return data

        receive_with(ws, interrupted)
        server.peer.send(ws_events.TextMessage("for the next"))
        with pytest.raises(KeyboardInterrupt):
            ws.recv()
        assert lending.is_lent
        assert ws.recv() == TextMessage("for the next")


@needs_signals
@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    ("message", "step"), [("small", 1), (LARGE, 1), (LARGE, 3)], ids=["small", "large", "large-and-refused"]
)
def test_an_interrupt_behind_a_write_neither_loses_nor_repeats_it(
    server: PairServer, message: str | bytes, step: int
) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        send = direct_of(ws).send
        steps: list[str] = []

        def interrupted(data: Data) -> int:
            steps.append("refused")
            try:
                sent = send(data)
                steps[-1] = "taken"
                return sent
            finally:
                if len(steps) == step:
                    signal.raise_signal(signal.SIGINT)

        def until_writable(_: float) -> bool:
            return len(steps) < step

        # As often as it takes to be refused.
        found = replace(direct_of(ws), send=interrupted, until_writable=until_writable)
        ws._outbox._direct = found  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(KeyboardInterrupt):
            ws.send(message)
        assert steps[-1] == ("refused" if step == 3 else "taken")
        reading = Background(lambda: [server.peer.receive_message() for _ in range(2)])
        ws.send("the next")
        assert reading.result() == [message, "the next"]


@needs_signals
@pytest.mark.usefixtures("handlers")
def test_another_signal_that_raises_behind_a_read_ends_the_connection(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        lend(ws, server)
        receive = direct_of(ws).receive

        def interrupted(size: int) -> bytes:
            data = receive(size)
            signal.raise_signal(signal.SIGTERM)
            return data

        receive_with(ws, interrupted)
        server.peer.send(ws_events.TextMessage("lost"))
        with pytest.raises(Alarm):
            ws.recv()
        with pytest.raises(ConnectionClosed, match="a signal broke off a read of TLS") as caught:
            ws.recv()
        assert caught.value.code == 1006


@needs_signals
@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("step", [0, 1], ids=["the-first", "a-later-one"])
def test_another_signal_that_raises_behind_a_write_ends_the_connection(server: PairServer, step: int) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        send = direct_of(ws).send
        steps: list[int] = []

        def interrupted(data: Data) -> int:
            sent = send(data)
            steps.append(sent)
            if len(steps) > step:
                signal.raise_signal(signal.SIGTERM)
            return sent

        send_with(ws, interrupted)
        reading = Background(lambda: all_that_comes(server))
        with pytest.raises(Alarm):
            ws.send(LARGE)
        with pytest.raises(ConnectionClosed, match="a signal broke off a write of TLS") as caught:
            ws.recv()
        assert caught.value.code == 1006
        with pytest.raises(ConnectionClosed):
            ws.send("never")
    assert reading.result() == sum(steps)


def all_that_comes(server: PairServer) -> int:
    """How many bytes come up to the end, however that is."""
    total = 0
    with suppress(OSError):
        while count := len(server.peer.sock.recv(65536)):
            total += count
    return total


def test_a_socket_that_was_closed_meanwhile_counts_as_ready_where_it_cannot_be_asked_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As where there is no poll.
    monkeypatch.setattr(direct, "_new_poll", None)
    ours, theirs = socket.socketpair()
    with theirs:
        how = direct.direct(ours, ours, Lock())
        assert how is not None
        assert not how.until_readable(0)
        ours.close()
        assert how.until_readable(0)
        assert how.until_writable(0)
