"""``reconnecting_sync``: what goes on, what comes out, after which pause; and an interrupt in a pause."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import zapros
from wsproto.events import CloseConnection
from wsproto.events import TextMessage as WsprotoText
from zapros import BaseNetworkStream, Client, Request, Response, SyncStream

from zapros_websocket import (
    CloseMessage,
    ConnectionClosed,
    HandshakeError,
    ReconnectPolicy,
    TextMessage,
    WebSocket,
    connect_ws,
    reconnecting,
    reconnecting_sync,
)

from .peers import Background, PairServer
from .test_surface import parameters
from .waiting import until_main_thread_is_in

LONGEST = ReconnectPolicy(first_pause=1, longest_pause=8, lived_after=10, random=lambda: 1.0)


class ScriptedServer(PairServer):
    """Answers handshakes as told, and then as a server should."""

    def __init__(self, *answers: int | Exception | None) -> None:
        super().__init__(stream=_stream)
        self.answers = deque(answers)
        self.headers: dict[str, str] = {}

    def handle(self, request: Request) -> Response:
        answer = self.answers.popleft() if self.answers else None
        if answer is None:
            return super().handle(request)
        self.requests.append(request)
        if isinstance(answer, Exception):
            raise answer
        return Response(answer, self.headers, content=b"not now", request=request)


def _stream(sock: socket.socket) -> BaseNetworkStream:
    return SyncStream(sock, upgrade_ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


class Clock:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if seconds:
            self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("zapros_websocket._reconnecting_sync.time", clock)
    monkeypatch.setattr("zapros_websocket._reconnecting_sync.sleep", clock.sleep)
    return clock


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Callable[..., ScriptedServer]:
    def serve(*answers: int | Exception | None) -> ScriptedServer:
        server = ScriptedServer(*answers)
        request.addfinalizer(server.close)
        return server

    return serve


def to(server: ScriptedServer, policy: ReconnectPolicy = LONGEST) -> reconnecting_sync:
    return reconnecting_sync("ws://test/", policy=policy, client=server.client, close_timeout=0, ping_interval=None)


def test_it_takes_what_the_other_takes_and_a_portal() -> None:
    of_threads = {name: default for name, _, default, _ in parameters(reconnecting_sync)}
    assert of_threads.pop("portal") is None
    assert of_threads == {name: default for name, _, default, _ in parameters(reconnecting)}


def test_a_block_that_ends_ends_the_loop(serve: Callable[..., ScriptedServer], clock: Clock) -> None:
    server = serve()
    for attempt in to(server):
        with attempt as ws:
            ws.send("hello")
            assert (attempt.number, attempt.previous) == (1, None)
    assert len(server.peers) == 1
    assert clock.slept == []


def test_handshakes_are_repeated_before_the_block_begins(serve: Callable[..., ScriptedServer], clock: Clock) -> None:
    server = serve(503, zapros.ConnectionError("refused"), 429, zapros.ConnectTimeoutError("late"))
    for attempt in to(server):
        assert (attempt.number, attempt.previous) == (1, None)
        with attempt:
            assert attempt.number == 5
            assert isinstance(attempt.previous, zapros.ConnectTimeoutError)
    assert clock.slept == [1, 2, 4, 8]
    assert len({request.headers["Sec-WebSocket-Key"] for request in server.requests}) == 5


def test_the_server_gets_the_time_that_it_asks_for(serve: Callable[..., ScriptedServer], clock: Clock) -> None:
    server = serve(503, 503)
    server.headers = {"Retry-After": "60"}
    for attempt in to(server):
        with attempt:
            pass
    assert clock.slept == [61, 62]


def test_a_lost_connection_begins_the_next_attempt(serve: Callable[..., ScriptedServer], clock: Clock) -> None:
    server = serve()
    received: list[str] = []
    previous: list[object] = []
    for attempt in to(server):
        with attempt as ws:
            previous.append(attempt.previous and type(attempt.previous))
            server.peer.send(WsprotoText(str(attempt.number)))
            if attempt.number < 3:
                server.peer.end()
            else:
                server.peer.send(CloseConnection(1000))
            for message in ws:
                assert isinstance(message, TextMessage)
                received.append(message.data)
    assert received == ["1", "2", "3"]
    assert previous == [None, ConnectionClosed, ConnectionClosed]
    assert clock.slept == [1, 2]


def test_the_pauses_begin_anew_after_a_connection_that_lived(
    serve: Callable[..., ScriptedServer], clock: Clock
) -> None:
    server = serve()
    for attempt in to(server):
        with attempt as ws:
            clock.now += 10 if attempt.number == 3 else 0
            if attempt.number == 5:
                break
            server.peer.end()
            ws.recv()
    assert clock.slept == [1, 2, 1, 1]


def test_a_close_that_means_come_back_goes_on_and_any_other_ends_the_loop(
    serve: Callable[..., ScriptedServer], clock: Clock
) -> None:
    server = serve()
    for attempt in to(server):
        with attempt as ws:
            server.peer.send(CloseConnection(1012 if attempt.number == 1 else 1000, "why"))
            for _ in ws:
                raise AssertionError("nothing was sent")
    assert isinstance(attempt.previous, ConnectionClosed)
    assert attempt.previous.received == CloseMessage(1012, "why")
    assert len(server.peers) == 2


def test_a_close_as_a_message_counts_like_the_end_of_iteration(
    serve: Callable[..., ScriptedServer], clock: Clock
) -> None:
    server = serve()
    for attempt in to(server):
        with attempt as ws:
            server.peer.send(CloseConnection(1012 if attempt.number == 1 else 1000))
            assert isinstance(ws.recv(), CloseMessage)
    assert len(server.peers) == 2


@pytest.mark.parametrize("call", ["recv", "recv_text", "send", "ping", "recv_chunks"])
@pytest.mark.parametrize("code", [1006, 1012])
def test_a_loss_that_the_block_has_caught_goes_on(
    serve: Callable[..., ScriptedServer], clock: Clock, code: int, call: str
) -> None:
    server = serve()
    previous: list[object] = []
    for attempt in to(server):
        with attempt as ws:
            previous.append(getattr(attempt.previous, "code", None))
            if attempt.number == 1:
                _lose(server, ws, code)
                with pytest.raises(ConnectionClosed):
                    if call == "send":
                        ws.send("too late")
                    elif call == "recv_chunks":
                        ws.recv_chunks().__enter__()
                    else:
                        # A close comes out as a message first.
                        getattr(ws, call)()
                        ws.recv()
    assert previous == [None, code]


@pytest.mark.parametrize("code", [1006, 1012])
def test_an_end_that_the_block_has_not_seen_does_not_repeat_it(serve: Callable[..., ScriptedServer], code: int) -> None:
    server = serve()
    for attempt in to(server):
        with attempt as ws:
            _lose(server, ws, code)
    assert len(server.peers) == 1


def _lose(server: ScriptedServer, ws: WebSocket, code: int) -> None:
    """End the connection, and wait until it is over, but for what its user is told."""
    if code == 1006:
        server.peer.end()
    else:
        server.peer.send(CloseConnection(code))
        server.peer.end()
    ws._host.wait_until_over()  # pyright: ignore[reportPrivateUsage]


def test_an_attempt_says_how_the_last_connection_ended(serve: Callable[..., ScriptedServer], clock: Clock) -> None:
    server = serve(503)
    server.answers.extend([None, 503, 503])
    ends: list[object] = []
    for attempt in to(server):
        with attempt as ws:
            ends.append(attempt.last_closed and attempt.last_closed.received)
            assert isinstance(attempt.previous, HandshakeError)
            if attempt.number == 2:
                server.peer.send(CloseConnection(1012, "back soon"))
                for _ in ws:
                    raise AssertionError("nothing was sent")
    assert ends == [None, CloseMessage(1012, "back soon")]


def test_an_attempt_says_how_a_connection_ended_that_the_block_gave_up(
    serve: Callable[..., ScriptedServer], clock: Clock
) -> None:
    server = serve()
    ends: list[object] = []
    for attempt in to(server):
        ends.append(attempt.last_closed and type(attempt.last_closed))
        with contextlib.suppress(KeyError):
            with attempt:
                if attempt.number == 1:
                    raise KeyError("mine")
    assert ends == [None, ConnectionClosed]


def test_a_close_of_ours_is_no_loss(serve: Callable[..., ScriptedServer]) -> None:
    server = serve()
    with pytest.raises(ConnectionClosed):
        for attempt in to(server):
            with attempt as ws:
                ws.close(1012)
                ws.send("too late")
    assert len(server.peers) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_comes_out_bare(serve: Callable[..., ScriptedServer], status: int) -> None:
    server = serve(status)
    with pytest.raises(HandshakeError) as caught:
        for attempt in to(server):
            with attempt:
                raise AssertionError("there is no connection")
    assert caught.value.response is not None
    assert caught.value.response.status == status
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "error",
    [ValueError("mine"), ConnectionClosed(1006), zapros.ConnectionError("of another request"), KeyboardInterrupt()],
    ids=repr,
)
def test_the_users_own_exception_comes_out_bare(serve: Callable[..., ScriptedServer], error: BaseException) -> None:
    server = serve()
    with pytest.raises(type(error)) as caught:
        for attempt in to(server):
            with attempt:
                raise error
    assert caught.value is error
    assert len(server.peers) == 1
    # The error outlives the test, and should not keep its connection.
    error.__traceback__ = None


def test_the_loss_of_another_connection_is_the_users_own_exception(serve: Callable[..., ScriptedServer]) -> None:
    server, other = serve(), serve()
    with pytest.raises(ConnectionClosed):
        for attempt in to(server):
            with attempt, connect_ws("ws://other/", client=other.client) as ws:
                other.peer.end()
                ws.recv()
    assert len(server.peers) == 1


def test_the_last_error_comes_out_when_the_attempts_are_used_up(
    serve: Callable[..., ScriptedServer], clock: Clock
) -> None:
    policy = ReconnectPolicy(first_pause=1, max_attempts=3, random=lambda: 1.0)
    with pytest.raises(HandshakeError) as caught:
        for attempt in to(serve(503, 503, 502), policy):
            with attempt:
                raise AssertionError("there is no connection")
    assert caught.value.response is not None
    assert caught.value.response.status == 502
    assert clock.slept == [1, 2]


def test_a_loop_can_be_run_again_from_the_beginning(serve: Callable[..., ScriptedServer]) -> None:
    staying = to(serve())
    for _ in range(2):
        for attempt in staying:
            with attempt:
                assert (attempt.number, attempt.previous) == (1, None)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"max_message_size": 0}, ValueError),
        ({"client": zapros.AsyncClient()}, TypeError),
        ({"headers": {"a": "b\r\nc"}}, ValueError),
        ({"portal": 1}, TypeError),
        ({"policy": ReconnectPolicy}, TypeError),
        ({"url": "htp://test/"}, ValueError),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments: dict[str, Any], error: type[Exception]) -> None:
    given: dict[str, Any] = {"url": "ws://test/", **arguments}
    with pytest.raises(error):
        reconnecting_sync(**given)


def test_an_attempt_is_entered_once(serve: Callable[..., ScriptedServer]) -> None:
    server = serve()
    with pytest.raises(RuntimeError, match="not entered"):
        for _ in to(server):
            assert server.requests == []
    for attempt in to(server):
        with attempt:
            pass
        with pytest.raises(RuntimeError, match="entered before"):
            attempt.__enter__()
    assert len(server.requests) == 1


def test_a_pause_without_end_is_one(serve: Callable[..., ScriptedServer], clock: Clock) -> None:
    policy = ReconnectPolicy(first_pause=float("inf"), longest_pause=float("inf"), random=lambda: 1.0)
    for attempt in to(serve(503), policy):
        with attempt:
            pass
    assert clock.slept == [float("inf")]


def test_where_an_event_loop_runs_it_names_what_to_use() -> None:
    attempts: list[Any] = []

    async def begin() -> None:
        with pytest.raises(RuntimeError, match="async for attempt in reconnecting"):
            next(iter(reconnecting_sync("ws://test/")))
        with pytest.raises(RuntimeError, match="async for attempt in reconnecting"):
            attempts[0].__enter__()

    attempts.append(next(iter(reconnecting_sync("ws://test/"))))
    anyio.run(begin)


@pytest.mark.skipif(sys.platform == "win32", reason="a signal cannot be sent to a thread")
@pytest.mark.parametrize("where", ["between-handshakes", "after-a-loss"])
def test_an_interrupt_in_a_pause_comes_out_at_once(serve: Callable[..., ScriptedServer], where: str) -> None:
    server = serve(*([503] if where == "between-handshakes" else []))

    def interrupt() -> None:
        until_main_thread_is_in("sleep")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupting = Background(interrupt)
        with pytest.raises(KeyboardInterrupt):
            # Far longer than the time that a test may take.
            for attempt in to(server, ReconnectPolicy(first_pause=1e6, longest_pause=1e6, random=lambda: 1.0)):
                with attempt as ws:
                    server.peer.end()
                    ws.recv()
        interrupting.result()
    finally:
        signal.signal(signal.SIGINT, previous)
    assert len(server.requests) == 1


def test_each_handshake_goes_through_the_client_anew(serve: Callable[..., ScriptedServer], clock: Clock) -> None:
    tokens = iter(["first", "second"])

    class Refreshing(zapros.BaseMiddleware):
        def __init__(self, following: zapros.BaseHandler) -> None:
            self.next = following

        def handle(self, request: Request) -> Response:
            request.headers["Authorization"] = next(tokens)
            return self.next.handle(request)

    server = serve(503)
    client = Client(handler=Refreshing(server))
    for attempt in reconnecting_sync("ws://test/", policy=LONGEST, client=client, close_timeout=0):
        with attempt:
            pass
    assert [request.headers["Authorization"] for request in server.requests] == ["first", "second"]
