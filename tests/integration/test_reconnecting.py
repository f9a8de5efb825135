"""Staying connected to a real server that is killed in the middle of everything, and started again."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import anyio
import anyio.to_thread
import pytest
import zapros

from zapros_websocket import ConnectionClosed, HandshakeError, ReconnectPolicy, reconnecting, reconnecting_sync

from .processes import ServerProcess

pytestmark = pytest.mark.anyio

QUICK = ReconnectPolicy(first_pause=0.05, longest_pause=0.2)


def port_that_stays_free() -> int:
    """A port that no client gets for its own end while the server is dead: below those that systems give away."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("all ports are taken")


class MortalServer:
    """A server process that can be killed, and comes back on the same port."""

    def __init__(self, module: str) -> None:
        self._module = module
        self.port = port_that_stays_free()
        self._process = ServerProcess(module, "--port", str(self.port))
        # Held while a process is started: a client may be connected to it before that is known here.
        self._starting = threading.Lock()

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def kill(self) -> None:
        with self._starting:
            self._process.close()

    def start_now(self) -> None:
        with self._starting:
            self._process = ServerProcess(self._module, "--port", str(self.port))

    async def start(self) -> None:
        await anyio.to_thread.run_sync(self.start_now)


@pytest.fixture(params=["websockets_server", "aiohttp_server"])
def server(request: pytest.FixtureRequest) -> Iterator[MortalServer]:
    server = MortalServer(request.param)
    yield server
    server.kill()


async def test_it_stays_connected_over_two_deaths_of_the_server(server: MortalServer) -> None:
    echoed: list[object] = []
    previous: list[int | None] = []
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(60):
            async for attempt in reconnecting(f"{server.address}/echo", policy=QUICK):
                async with attempt as ws:
                    previous.append(None if attempt.previous is None else attempt.number)
                    await ws.send_json({"block": len(previous)})
                    echoed.append(await ws.recv_json())
                    if len(previous) == 3:
                        break
                    server.kill()
                    tasks.start_soon(server.start)
                    await ws.recv()
    assert echoed == [{"block": 1}, {"block": 2}, {"block": 3}]
    assert previous[0] is None
    assert all(number is not None and number > 1 for number in previous[1:])


async def test_it_waits_for_a_server_that_is_not_there_yet(server: MortalServer) -> None:
    server.kill()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.start)
        with anyio.fail_after(60):
            async for attempt in reconnecting(f"{server.address}/count/3", policy=QUICK):
                async with attempt as ws:
                    assert isinstance(attempt.previous, zapros.ConnectionError)
                    counted = [message.data async for message in ws]
    assert counted == ["1", "2", "3"]


async def test_a_server_that_does_not_come_back_is_given_up(server: MortalServer) -> None:
    policy = ReconnectPolicy(first_pause=0.01, longest_pause=0.02, max_attempts=4)
    numbers: list[int] = []
    with pytest.raises(zapros.ConnectionError):
        async for attempt in reconnecting(f"{server.address}/echo", policy=policy):
            numbers.append(attempt.number)
            async with attempt as ws:
                server.kill()
                await ws.recv()
    assert numbers == [1, 2]
    assert attempt.number == 4


async def test_a_refusal_is_not_repeated(server: MortalServer) -> None:
    with pytest.raises(HandshakeError):
        async for attempt in reconnecting(f"{server.address}/refuse", policy=QUICK):
            async with attempt:
                raise AssertionError("there is no connection")
    assert attempt.number == 1


async def test_a_server_that_says_it_restarts_is_connected_to_again(server: MortalServer) -> None:
    ends: list[ConnectionClosed] = []
    async for attempt in reconnecting(f"{server.address}/close/1012/back soon", policy=QUICK):
        async with attempt as ws:
            async for _ in ws:
                raise AssertionError("nothing was sent")
            assert ws.close_code == 1012
            if isinstance(attempt.previous, ConnectionClosed):
                ends.append(attempt.previous)
            if attempt.number == 3:
                break
    assert [(end.code, end.reason) for end in ends] == [(1012, "back soon")] * 2


def test_threads_stay_connected_over_two_deaths_of_the_server(server: MortalServer) -> None:
    echoed: list[object] = []
    numbers: list[int] = []
    starting: list[threading.Thread] = []
    for attempt in reconnecting_sync(f"{server.address}/echo", policy=QUICK):
        with attempt as ws:
            numbers.append(attempt.number)
            ws.send_json({"block": len(numbers)})
            echoed.append(ws.recv_json(timeout=30))
            if len(numbers) == 3:
                break
            server.kill()
            starting.append(threading.Thread(target=server.start_now))
            starting[-1].start()
            ws.recv(timeout=30)
    for thread in starting:
        thread.join()
    assert echoed == [{"block": 1}, {"block": 2}, {"block": 3}]
    assert numbers[0] == 1
    assert numbers == sorted(set(numbers))


def test_threads_come_back_to_a_server_that_says_it_restarts(server: MortalServer) -> None:
    ends: list[ConnectionClosed] = []
    for attempt in reconnecting_sync(f"{server.address}/close/1012/back soon", policy=QUICK):
        with attempt as ws:
            for _ in ws:
                raise AssertionError("nothing was sent")
            if isinstance(attempt.previous, ConnectionClosed):
                ends.append(attempt.previous)
            if attempt.number == 3:
                break
    assert [(end.code, end.reason) for end in ends] == [(1012, "back soon")] * 2


def test_a_refusal_is_not_repeated_by_threads(server: MortalServer) -> None:
    with pytest.raises(HandshakeError):
        for attempt in reconnecting_sync(f"{server.address}/refuse", policy=QUICK):
            with attempt:
                raise AssertionError("there is no connection")
    assert attempt.number == 1
