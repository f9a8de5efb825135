"""SPEC "Sync": one event loop for all connections, or one of the caller."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

import anyio
import anyio.to_thread
import pytest
import wsproto.events as ws_events
from anyio.from_thread import BlockingPortal, start_blocking_portal

from zapros_websocket import CloseMessage, ConnectionClosed, TextMessage, WebSocket, connect_ws

from .peers import Background, PairServer
from .waiting import until_one_calls, until_one_receives


def test_200_connections_share_one_thread(server: PairServer) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0):
        before = threading.active_count()
        with ExitStack() as stack:
            connections = [
                stack.enter_context(connect_ws("ws://test/", client=server.client, close_timeout=0)) for _ in range(200)
            ]
            for number, ws in enumerate(connections):
                ws.send(str(number))
            for number, peer in enumerate(server.peers[1:]):
                assert peer.receive_message() == str(number)
                peer.send(ws_events.TextMessage(f"{number} too"))
            assert [ws.recv() for ws in connections] == [TextMessage(f"{number} too") for number in range(200)]
            assert threading.active_count() == before


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_portal_of_the_caller(server: PairServer, backend: str) -> None:
    with start_blocking_portal(backend) as portal:
        for _ in range(2):
            with connect_ws("ws://test/", client=server.client, portal=portal) as ws:
                serving = Background(server.peer.serve)
                ws.send("hello")
                assert ws.ping() >= 0
            serving.result()
    assert ws.close_code == 1000
    with pytest.raises(RuntimeError):
        connect_ws("ws://test/", client=server.client, portal=portal).__enter__()
    assert server.peer.receive() is None


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_the_end_of_a_portal_ends_its_connections(server: PairServer, backend: str) -> None:
    with start_blocking_portal(backend) as portal:
        connection = connect_ws("ws://test/", client=server.client, portal=portal)
        ws = connection.__enter__()
        failures: list[BaseException] = []

        def expect_the_end(call: Callable[[], object]) -> None:
            with pytest.raises(ConnectionClosed) as caught:
                call()
            failures.append(caught.value)

        waiting = [Background(lambda call=call: expect_the_end(call)) for call in (ws.recv, ws.ping)]  # type: ignore[misc]
        until_one_receives(ws)
        until_one_calls(ws)
        portal.start_task_soon(portal.stop, True)
        for thread in waiting:
            thread.result()
    ws.close()
    with pytest.raises(ConnectionClosed):
        ws.ping()
    connection.__exit__(None, None, None)
    assert len(failures) == 2


def test_a_portal_is_a_blocking_portal(server: PairServer) -> None:
    with pytest.raises(TypeError, match="BlockingPortal"):
        connect_ws("ws://test/", client=server.client, portal="trio")  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_in_a_running_event_loop_an_error_names_the_asynchronous_call(server: PairServer, backend: str) -> None:
    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:

        async def main() -> None:
            with pytest.raises(RuntimeError, match=r"`async with aconnect_ws\(\.\.\.\)`"):
                connect_ws("ws://test/", client=server.client).__enter__()
            with pytest.raises(RuntimeError, match=r"`await ws\.recv\(\)`"):
                ws.recv()
            with pytest.raises(RuntimeError, match=r"`await ws\.ping\(\)`"):
                ws.ping()
            with pytest.raises(RuntimeError, match=r"`await ws\.close\(\)`"):
                ws.close()

        anyio.run(main, backend=backend)
        ws.send("still here")
        assert server.peer.receive_message() == "still here"


@pytest.mark.anyio
async def test_in_a_worker_thread_of_an_event_loop_it_works(server: PairServer) -> None:
    def talk() -> None:
        with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
            ws.send("hello")
            assert server.peer.receive_message() == "hello"

    await anyio.to_thread.run_sync(talk)


def test_a_portal_in_the_thread_of_the_caller_is_refused_where_it_would_deadlock(server: PairServer) -> None:
    async def main() -> None:
        async with BlockingPortal() as portal:
            with pytest.raises(RuntimeError, match="aconnect_ws"):
                connect_ws("ws://test/", client=server.client, portal=portal).__enter__()

            def talk() -> None:
                with connect_ws("ws://test/", client=server.client, portal=portal, close_timeout=0) as ws:
                    ws.send("hello")
                    assert server.peer.receive_message() == "hello"

            await anyio.to_thread.run_sync(talk)

    anyio.run(main)


def test_a_send_that_would_wait_is_refused_where_an_event_loop_runs_and_sends_nothing() -> None:
    server = PairServer(buffer=4096)
    sent = 0

    async def send_too_much(ws: WebSocket) -> None:
        nonlocal sent
        with pytest.raises(RuntimeError, match=r"await ws\.send"):
            ws.send(CloseMessage(4000))
        with pytest.raises(RuntimeError, match=r"await ws\.send"):
            while True:
                ws.send(bytes(100_000))
                sent += 1

    with connect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        anyio.run(send_too_much, ws)
        assert sent >= 2
        receiving = Background(lambda: [server.peer.receive_message() for _ in range(sent + 1)])
        ws.send("and it goes on")
        assert receiving.result() == [bytes(100_000)] * sent + ["and it goes on"]
    server.close()
