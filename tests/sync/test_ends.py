"""SPEC "Sync": the ends that a test in one process can bring about: forks, bugs, and what is collected."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress

import anyio
import pytest
import trio
import zapros
from anyio.from_thread import BlockingPortal, start_blocking_portal
from wsproto import events as ws_events
from wsproto.events import CloseConnection

from tests.interrupts import interrupt_at, interrupts_come_out, lines_of
from zapros_websocket import CloseMessage, ConnectionClosed, WebSocket, _portal, connect_ws
from zapros_websocket._attentive import Answer
from zapros_websocket._blocking import Deadline
from zapros_websocket._connect import bare
from zapros_websocket._host import Call, Host
from zapros_websocket._inbox import MAX_BYTES
from zapros_websocket._inbox_of_threads import InboxOfThreads
from zapros_websocket._link import Link
from zapros_websocket._portal import Process, process, shared_portal
from zapros_websocket._protocol.messages import BinaryMessage, Message, PingMessage, TextMessage
from zapros_websocket._streams.threads import BlockingStream
from zapros_websocket._tasks import Tasks
from zapros_websocket._waiting import TrioWaiter
from zapros_websocket.testing import echo_server

from .peers import Background, PairServer
from .waiting import until


def test_what_was_opened_before_a_fork_is_refused(server: PairServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        with monkeypatch.context() as patch:
            patch.setattr(process, "forks", process.forks + 1)
            for call in (ws.recv, ws.close, ws.ping, lambda: ws.send("x"), lambda: ws.part(None)):
                with pytest.raises(RuntimeError, match="forked"):
                    call()
            # What the block raises goes before it.
            ws.part(ValueError())


def test_a_portal_that_was_in_use_before_a_fork_is_refused(server: PairServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with start_blocking_portal() as portal:
        monkeypatch.setattr(process, "inherited", {portal})
        with pytest.raises(RuntimeError, match="start another one here"):
            connect_ws("ws://test/", client=server.client, portal=portal).__enter__()
    assert not server.peers


def test_a_forked_process_begins_anew() -> None:
    forked = Process()
    portal = forked.shared.portal()
    assert forked.shared.portal() is portal
    forked.shared.end()
    forked.after_fork()
    assert forked.forks == 1
    assert forked.shared.portal() is not portal
    forked.shared.end()
    forked.shared.end()
    assert list(forked.ways) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_event_loop_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_portal, "BACKEND", "none of that name")
    shared = Process().shared
    with pytest.raises(RuntimeError, match="does not start"):
        shared.portal()
    # What it ended with is told when it has ended: here, and not in another test.
    assert shared._loop is not None  # pyright: ignore[reportPrivateUsage]
    shared._loop._thread.join()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.skipif(sys.platform == "win32", reason="there a signal is handled later")
@pytest.mark.parametrize("line", lines_of(threading.Thread.start))
def test_an_interrupt_while_the_event_loop_is_started_leaves_one_that_is_started(
    line: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_exit: list[Callable[[], object]] = []
    monkeypatch.setattr("atexit.register", at_exit.append)
    shared = Process().shared
    with interrupts_come_out(), suppress(KeyboardInterrupt), interrupt_at(threading.Thread.start, line):
        shared.portal()
    threads = threading.active_count()
    assert shared.portal().call(trio.lowlevel.in_trio_run)
    assert threading.active_count() == threads
    [end] = at_exit
    end()
    assert threading.active_count() == threads - 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_event_loop_that_is_about_to_end_is_taken_by_nobody() -> None:
    shared = Process().shared
    first = shared.portal()
    ended = threading.Event()

    async def hold() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(ended.wait)

    async def break_it() -> None:
        raise SystemExit

    first.start_task_soon(hold)
    with pytest.raises(SystemExit):
        first.call(break_it)
    loop = shared._loop  # pyright: ignore[reportPrivateUsage]
    assert loop is not None
    until(lambda: loop.is_over)
    assert shared.portal().call(trio.lowlevel.in_trio_run)
    ended.set()
    loop._thread.join()  # pyright: ignore[reportPrivateUsage]
    assert shared.portal() is not first
    shared.end()


def test_a_connection_that_is_collected_warns(server: PairServer) -> None:
    ws = connect_ws("ws://test/", client=server.client).__enter__()
    connections = [ws]
    del ws
    # On PyPy this alone would not collect it.
    with pytest.warns(ResourceWarning, match="unclosed <WebSocket open>"):
        connections.clear()
    assert server.peer.receive() == CloseConnection(1000, "")


def test_one_without_a_client_is_collected_as_well() -> None:
    with echo_server() as server:
        connections = [connect_ws(server.url).__enter__()]
        with pytest.warns(ResourceWarning, match="unclosed <WebSocket open>"):
            connections.clear()


@pytest.mark.parametrize("bug", [ZeroDivisionError, SystemExit])
def test_a_bug_in_the_background_comes_out_bare_and_is_that_of_one_connection(
    server: PairServer, monkeypatch: pytest.MonkeyPatch, bug: type[BaseException]
) -> None:
    async def broken(self: Link) -> None:
        raise bug

    with echo_server() as other, connect_ws(other.url) as ws:
        with monkeypatch.context() as patch:
            patch.setattr(Link, "_finish", broken)
            with pytest.raises(bug):
                with connect_ws("ws://test/", client=server.client, close_timeout=0):
                    pass
        ws.send("still here")
        assert ws.recv() == TextMessage("still here")


def test_an_interrupt_on_an_event_loop_of_the_caller_is_for_the_program(
    server: PairServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(self: Link) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Link, "_finish", interrupted)

    def converse(portal: BlockingPortal) -> None:
        # It does not come out here, and that the program hears of it does not hang on that.
        with suppress(KeyboardInterrupt):
            with connect_ws("ws://test/", client=server.client, portal=portal, close_timeout=0):
                pass

    async def main() -> None:
        async with BlockingPortal() as portal:
            await anyio.to_thread.run_sync(converse, portal)

    with pytest.raises(BaseException) as caught:
        trio.run(main)
    assert isinstance(bare(caught.value), KeyboardInterrupt)


def test_the_first_code_counts_that_close_was_called_with() -> None:
    server = PairServer(buffer=4096)
    with connect_ws("ws://test/", client=server.client, close_timeout=0.1) as ws:
        ws._outbox.refuse(CloseMessage(3001, "first"))  # pyright: ignore[reportPrivateUsage]
        ws._outbox.refuse(CloseMessage(3002, "second"))  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(ConnectionClosed, match="first"):
            ws.send("more")
    server.close()


def test_what_was_given_up_before_it_began_does_not_begin() -> None:
    async def live(tasks: Tasks, ready: object) -> None:
        """Would go on for ever, if it were not cancelled."""

    host = Host(shared_portal())
    host.abandon()
    with pytest.raises(RuntimeError, match="stopped"):
        host.open(live)


def test_a_portal_that_has_ended_closes_what_the_handshake_opened(server: PairServer) -> None:
    with start_blocking_portal() as portal:
        with connect_ws("ws://test/", client=server.client, portal=portal, close_timeout=0):
            pass
    with pytest.raises(RuntimeError):
        connect_ws("ws://test/", client=server.client, portal=portal, open_timeout=None).__enter__()
    assert server.peer.receive() is None


def test_a_deadline_leaves_streams_without_a_socket_to_their_own_timeouts() -> None:
    deadline = Deadline(shared_portal())

    class Foreign(zapros.BaseNetworkStream):
        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            raise NotImplementedError

        def write_all(self, data: bytes, timeout: float | None = None) -> int:
            raise NotImplementedError

        def close(self) -> None:
            raise NotImplementedError

    deadline.streams.append(Foreign())
    anyio.run(deadline.wait, 0)
    assert deadline.is_over


def test_a_call_that_is_cancelled_before_it_begins_does_not_begin() -> None:
    begun: list[int] = []

    async def begin() -> None:
        begun.append(1)

    call = Call(begin)
    call.cancel()
    anyio.run(call.run)
    assert call.answer.wait() is False
    assert begun == []


@pytest.mark.parametrize("is_early", [False, True])
def test_an_answer_is_for_all_who_wait(is_early: bool) -> None:
    value: Answer[str] = Answer()
    error: Answer[str] = Answer()
    if is_early:
        value.give("yes")
        error.fail(OSError("no"))
    waiting = [(Background(value.wait), Background(error.wait)) for _ in range(3)]
    if not is_early:
        until(lambda: sum(frame.f_code is Answer.wait.__code__ for frame in sys._current_frames().values()) == 6)  # pyright: ignore
        value.give("yes")
        error.fail(OSError("no"))
    for yes, no in waiting:
        assert yes.result() == "yes"
        with pytest.raises(OSError, match="no"):
            no.result()


def test_an_interrupt_behind_the_taking_puts_the_message_back() -> None:
    class Interrupted(InboxOfThreads):
        interrupts = 1

        def _make_room(self) -> None:
            self.interrupts -= 1
            if not self.interrupts:
                raise KeyboardInterrupt

    inbox = Interrupted(TrioWaiter, lambda function: None)
    inbox.put([TextMessage("1"), TextMessage("2")])
    with pytest.raises(KeyboardInterrupt):
        inbox.take(None)
    assert [inbox.take(None), inbox.take(None)] == [TextMessage("1"), TextMessage("2")]


def test_a_second_interrupt_leaves_nobody_in_the_way(server: PairServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            # The first is that of the time that is over, and this one comes while it is dealt with.
            patch.setattr("zapros_websocket._inbox_of_threads.take_away", interrupted)
            with pytest.raises(KeyboardInterrupt):
                ws.recv(timeout=0.001)
        server.peer.send(ws_events.TextMessage("for the next"))
        assert ws.recv() == TextMessage("for the next")


def test_control_messages_keep_their_place_among_those_that_cross() -> None:
    inbox = InboxOfThreads(TrioWaiter, lambda function: None)
    first: list[Message] = [TextMessage("1"), PingMessage(b"2"), PingMessage(b"3"), TextMessage("4"), TextMessage("5")]
    second: list[Message] = [PingMessage(b"6"), TextMessage("7"), PingMessage(b"8")]
    inbox.put(first)
    taken = [inbox.take(0), inbox.take(0)]
    inbox.put(second)
    taken += [inbox.take(0) for _ in range(6)]
    assert taken == [*first, *second]
    with pytest.raises(TimeoutError):
        inbox.take(0)
    inbox.end()
    assert inbox.take(None) is None


@pytest.mark.parametrize("state", [object(), "unknown"])
def test_tls_that_zapros_keeps_otherwise_is_left_to_its_own_methods(state: object) -> None:
    class Later(zapros.SyncStream):
        """A stream of Zapros as it may be one day, whose socket is not what it seems."""

        def __init__(self, sock: socket.socket) -> None:
            super().__init__(sock, upgrade_ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
            self._hidden = sock
            self._tls_state = state  # type: ignore[assignment]

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return self._hidden.recv(max_bytes)

        def write_all(self, data: bytes, timeout: float | None = None) -> int:
            self._hidden.sendall(data)
            return len(data)

    server = PairServer(stream=Later)
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        assert type(ws._parts.link.stream) is BlockingStream  # pyright: ignore[reportPrivateUsage]
        ws.send("hello")
        assert server.peer.receive_message() == "hello"
    server.close()


def test_what_was_taken_long_ago_does_not_fill_the_inbox_of_threads() -> None:
    inbox = InboxOfThreads(TrioWaiter, lambda function: None)
    large = BinaryMessage(bytes(MAX_BYTES // 2 + 1))
    for _ in range(3):
        inbox.put_data([large])
        assert not inbox.is_full
        assert inbox.take(0) == large
        with pytest.raises(TimeoutError):
            inbox.take(0)


def test_one_that_is_collected_is_closed_where_a_warning_is_an_error(
    server: PairServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[object] = []

    def note(unraisable: sys.UnraisableHookArgs) -> None:
        raised.append(unraisable.exc_type)

    monkeypatch.setattr(sys, "unraisablehook", note)
    connections = [connect_ws("ws://test/", client=server.client).__enter__()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        connections.clear()
    assert raised == [ResourceWarning]
    assert server.peer.receive() == CloseConnection(1000, "")


def test_one_that_an_interrupt_keeps_from_being_made_is_closed(
    server: PairServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: WebSocket, *arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(WebSocket, "__init__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        connect_ws("ws://test/", client=server.client).__enter__()
    assert server.peer.receive() in (CloseConnection(1000, ""), None)


def test_two_that_close_at_once_wait_for_the_same(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=60) as ws:
        ws.send(bytes(8 * 1024 * 1024))
        first, second = Background(ws.close), Background(ws.close)
        outbox = ws._outbox  # pyright: ignore[reportPrivateUsage]
        until(lambda: outbox._idle.statistics().tasks_waiting == 2)  # pyright: ignore[reportPrivateUsage]
        assert server.peer.receive_message() == bytes(8 * 1024 * 1024)
        assert server.peer.receive() == CloseConnection(1000, "")
        server.peer.send(CloseConnection(1000, ""))
        server.peer.sock.close()
        first.result()
        second.result()


class Robbed(InboxOfThreads):
    """Another thread, which needs no lock, is faster when something is taken."""

    robber: Callable[[], object] | None = None

    def _next(self) -> Message | None:
        if self.robber is not None and self._crossed:
            robber, self.robber = self.robber, None
            self._crossed.popleft()
            robber()
        return super()._next()


def test_who_finds_that_another_was_faster_takes_the_next() -> None:
    inbox = Robbed(TrioWaiter, lambda function: None)
    # Nothing more comes.
    inbox.put([TextMessage("robbed")])
    inbox.robber = int
    with pytest.raises(TimeoutError):
        inbox.take(0)
    # Something has come meanwhile.
    inbox.put([TextMessage("robbed")])
    inbox.robber = lambda: inbox.put([TextMessage("next")])
    assert inbox.take(0) == TextMessage("next")
    # The same for one that has waited.
    inbox.robber = int
    waiting = Background(lambda: inbox.take(None))
    until(lambda: inbox._waiting)  # pyright: ignore[reportPrivateUsage]
    inbox.put([TextMessage("robbed")])
    until(lambda: inbox.robber is None)
    inbox.put([TextMessage("next")])
    assert waiting.result() == TextMessage("next")
    # And at the end there is an end.
    inbox.put([TextMessage("robbed")])
    inbox.robber = inbox.end
    assert inbox.take(0) is None
