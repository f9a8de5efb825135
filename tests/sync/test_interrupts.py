"""SPEC "Sync": Ctrl-C in a call that waits comes out at once, and loses nothing."""

from __future__ import annotations

import _thread
import inspect
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import wsproto.events as ws_events
import zapros

from tests.interrupts import interrupt_at, lines_of
from zapros_websocket import CloseMessage, ConnectionClosed, TextMessage, WebSocket, connect_ws
from zapros_websocket._attentive import acquire, sleep
from zapros_websocket._host import Host

from .peers import Background, PairServer
from .waiting import until, until_main_thread_is_in, until_one_receives, until_one_sends

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a signal cannot be sent to a thread")


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def interrupted(call: Callable[[], object], when: Callable[[], None]) -> None:
    """Call ``call`` and interrupt it at that time."""

    def interrupt() -> None:
        when()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    interrupting = Background(interrupt)
    with pytest.raises(KeyboardInterrupt):
        call()
    interrupting.result()


def received(server: PairServer, kind: type) -> None:
    """Wait until the client has sent that."""
    assert isinstance(server.peer.receive(), kind)


def test_recv_loses_no_message(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        for timeout in (None, 30):
            interrupted(lambda timeout=timeout: ws.recv(timeout), lambda: until_one_receives(ws))  # type: ignore[misc]
            server.peer.send(ws_events.TextMessage("for the next"))
            assert ws.recv() == TextMessage("for the next")


def test_recv_that_is_interrupted_hands_its_turn_on(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        others: list[Background] = []

        def wait_behind() -> None:
            until_one_receives(ws)
            others.append(Background(ws.recv))
            until_one_receives(ws, 2)

        interrupted(ws.recv, wait_behind)
        server.peer.send(ws_events.TextMessage("for the other"))
        assert others[0].result() == TextMessage("for the other")


@pytest.mark.parametrize("wait", ["recv", "recv with a timeout", "ping", "a pause"])
def test_an_interrupt_that_does_not_break_the_wait_off_is_noticed(
    server: PairServer, monkeypatch: pytest.MonkeyPatch, wait: str
) -> None:
    # As one that comes before the wait has begun in the kernel: this one sends no signal at all.
    monkeypatch.setattr("zapros_websocket._attentive.NOTICE", 0.01)
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        waits: dict[str, tuple[Callable[[], object], Callable[[], None]]] = {
            "recv": (ws.recv, lambda: until_one_receives(ws)),
            "recv with a timeout": (lambda: ws.recv(3600), lambda: until_one_receives(ws)),
            "ping": (ws.ping, lambda: received(server, ws_events.Ping)),
            "a pause": (lambda: sleep(3600), lambda: until_main_thread_is_in("sleep")),
        }
        call, when = waits[wait]

        def interrupt() -> None:
            when()
            _thread.interrupt_main()

        interrupting = Background(interrupt)
        with pytest.raises(KeyboardInterrupt):
            call()
        interrupting.result()


def test_a_time_that_is_over_in_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zapros_websocket._attentive.NOTICE", 0.001)
    lock = threading.Lock()
    lock.acquire()
    assert not acquire(lock, 0.1)
    lock.release()
    assert acquire(lock, 0)


def test_send_that_is_interrupted_while_it_waits_sends_nothing_of_its_message() -> None:
    server = PairServer(buffer=4096)
    sent: list[int] = []

    def send(ws: WebSocket) -> None:
        while True:
            ws.send(len(sent).to_bytes(4, "big") * 25_000)
            sent.append(1)

    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        interrupted(lambda: send(ws), lambda: until_one_sends(ws))
        for number in range(len(sent)):
            assert server.peer.receive_message() == number.to_bytes(4, "big") * 25_000
        ws.send("the next")
        assert server.peer.receive_message() == "the next"
    server.close()


def test_send_that_is_interrupted_when_it_has_just_begun_to_wait_keeps_nobody_waiting() -> None:
    server = PairServer(buffer=4096)

    class Interrupting:
        """A mutex that interrupts once, in the moment in which it is given back with a thread in the queue."""

        def __init__(self, mutex: threading.Lock) -> None:
            self._mutex = mutex
            self.is_due = True

        def __enter__(self) -> None:
            self._mutex.acquire()

        def __exit__(self, *_: object) -> None:
            self._mutex.release()
            if self.is_due and outbox._waiting and threading.current_thread() is threading.main_thread():  # pyright: ignore
                self.is_due = False
                signal.raise_signal(signal.SIGINT)

    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        outbox = ws._outbox  # pyright: ignore[reportPrivateUsage]
        outbox._mutex = Interrupting(outbox._mutex)  # type: ignore[assignment]  # pyright: ignore
        sent = 0
        with pytest.raises(KeyboardInterrupt):
            while True:
                ws.send(bytes(100_000))
                sent += 1

        def send_as_many() -> None:
            for _ in range(sent):
                ws.send(bytes(100_000))

        others = Background(send_as_many)
        for _ in range(2 * sent):
            assert server.peer.receive_message() == bytes(100_000)
        others.result()
    server.close()


def test_ping_and_a_close_message(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        interrupted(ws.ping, lambda: received(server, ws_events.Ping))
        ws.send("fine")
        assert server.peer.receive_message() == "fine"
        ws.send(CloseMessage(1000))


def test_close_goes_on_in_the_background(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client) as ws:
        interrupted(ws.close, lambda: received(server, ws_events.CloseConnection))
        server.peer.send(ws_events.CloseConnection(1000))
        ws.close()
        assert ws.close_code == 1000


def lines_behind(function: Callable[..., object], word: str) -> list[int]:
    """The lines of its body behind the first that begins with that."""
    source, first = inspect.getsourcelines(function)
    begin = next(number for number, line in enumerate(source, first) if line.split()[:1] == [word])
    return [line for line in lines_of(function) if line > begin]


@pytest.mark.parametrize("line", lines_behind(Host.call, "try:"))
def test_close_goes_on_also_when_it_had_hardly_begun(server: PairServer, line: int) -> None:
    connection = connect_ws("ws://test/", client=server.client, close_timeout=60)
    ws = connection.__enter__()
    answering = Background(server.peer.serve)
    with suppress(KeyboardInterrupt), interrupt_at(Host.call, line):
        ws.close(3000)
    answering.result()
    ws._host.wait_until_over()  # pyright: ignore[reportPrivateUsage]
    assert ws.close_code == 3000


@pytest.mark.parametrize(
    ("function", "line"),
    [(Host.call, line) for line in lines_of(Host.call)]
    + [(WebSocket.part, line) for line in lines_behind(WebSocket.part, "self._host.call(part,")],
)
def test_leaving_the_block_goes_on_also_when_it_had_hardly_begun(
    server: PairServer, function: Callable[..., object], line: int
) -> None:
    connection = connect_ws("ws://test/", client=server.client, close_timeout=60)
    ws = connection.__enter__()

    def part() -> object:
        # A connection that is given up waits for no answer.
        last = server.peer.receive()
        server.peer.end()
        return last

    parting = Background(part)
    with suppress(KeyboardInterrupt), interrupt_at(Host.call, line):
        connection.__exit__(None, None, None)
    assert parting.result() == ws_events.CloseConnection(1000, "")
    ws._host.wait_until_over()  # pyright: ignore[reportPrivateUsage]


def test_close_that_is_interrupted_behind_what_was_sent_is_bounded() -> None:
    server = PairServer(buffer=4096)
    with connect_ws("ws://test/", client=server.client, close_timeout=0.1, ping_interval=None) as ws:

        def send() -> None:
            while True:
                ws.send(bytes(100_000))

        sending = Background(send)
        until_one_sends(ws)
        outbox = ws._outbox  # pyright: ignore[reportPrivateUsage]
        interrupted(ws.close, lambda: until(lambda: outbox._closing is not None))  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(ConnectionClosed):
            ws.recv()
        with pytest.raises(ConnectionClosed):
            sending.result()
        assert ws.close_code == 1006
    server.close()


def test_leaving_the_block(server: PairServer) -> None:
    connection = connect_ws("ws://test/", client=server.client)
    ws = connection.__enter__()
    interrupted(lambda: connection.__exit__(None, None, None), lambda: received(server, ws_events.CloseConnection))
    ws.close()


@pytest.mark.parametrize("client", [None, zapros.Client()], ids=["own-client", "given-client"])
def test_connecting_closes_what_was_opened(client: zapros.Client | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        accepted: list[socket.socket] = []

        def ask() -> None:
            accepted.append(listener.accept()[0])
            assert b"Upgrade: websocket" in accepted[0].recv(65536)

        interrupted(connect_ws(f"ws://127.0.0.1:{listener.getsockname()[1]}/", client=client).__enter__, ask)
        [sock] = accepted
        sock.settimeout(30)
        assert sock.recv(65536) == b""
        sock.close()
