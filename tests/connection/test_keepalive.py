"""SPEC: keepalive, ping and latency, on a clock that jumps."""

from __future__ import annotations

import asyncio

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint
from trio.testing import MockClock
from wsproto.events import CloseConnection, Ping, Pong
from wsproto.events import TextMessage as WsprotoText

from tests.memory import AutojumpEventLoop, MemoryServer, MemoryStream
from zapros_websocket import ConnectionClosed, PongMessage, TextMessage, aconnect_ws

pytestmark = pytest.mark.anyio


async def test_a_silent_peer_is_found_after_interval_and_timeout(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, ping_interval=20, ping_timeout=7) as ws:
        began = anyio.current_time()
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert anyio.current_time() - began == pytest.approx(27)
        assert caught.value.code == ws.close_code == 1011
        assert "ping timeout" in (caught.value.reason or "")
        assert isinstance(await server.peer.receive(), Ping)
        close = await server.peer.receive()
        assert isinstance(close, CloseConnection)
        assert close.code == 1011


async def test_a_peer_that_answers_stays_connected_and_latency_is_measured(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, ping_interval=20, ping_timeout=5) as ws:
        assert ws.latency is None
        for round_trip in (1, 4.5, 0.25):
            ping = await server.peer.receive()
            assert isinstance(ping, Ping)
            await anyio.sleep(round_trip)
            await server.peer.send(Pong(bytes(ping.payload)), WsprotoText("x"))
            # The library's own pong is not returned.
            assert await ws.recv() == TextMessage("x")
            assert ws.latency == pytest.approx(round_trip)


async def test_latency_is_measured_also_when_it_is_longer_than_the_interval(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, ping_interval=1, close_timeout=0) as ws:
        for _ in range(2):
            pings = [await server.peer.receive() for _ in range(3)]
            await anyio.sleep(0.5)
            for ping in pings:
                assert isinstance(ping, Ping)
                await server.peer.send(Pong(bytes(ping.payload)))
            await anyio.wait_all_tasks_blocked()
            assert ws.latency == pytest.approx(2.5)


async def test_pings_go_out_every_interval(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, ping_interval=3, ping_timeout=None, close_timeout=0):
        began = anyio.current_time()
        for number in range(1, 5):
            assert isinstance(await server.peer.receive(), Ping)
            assert anyio.current_time() - began == pytest.approx(3 * number)


async def test_any_byte_is_a_sign_of_life(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, ping_interval=10, ping_timeout=5) as ws:
        # One byte of a frame every 4 seconds, and never a pong.
        for byte in b"\x81\x0dslow and good":
            await anyio.sleep(4)
            await server.peer.write(bytes([byte]))
        assert await ws.recv() == TextMessage("slow and good")
        with pytest.raises(ConnectionClosed, match="ping timeout"):
            await ws.recv()


async def test_a_pong_to_an_older_ping_is_a_sign_of_life_when_the_timeout_is_longer_than_the_interval(
    server: MemoryServer,
) -> None:
    async with aconnect_ws("ws://test/", client=server.client, ping_interval=2, ping_timeout=7) as ws:
        began = anyio.current_time()
        with anyio.move_on_after(60):
            while True:
                ping = await server.peer.receive()
                assert isinstance(ping, Ping)
                await anyio.sleep(5)
                await server.peer.send(Pong(bytes(ping.payload)))
        assert ws.close_code is None
        with pytest.raises(ConnectionClosed, match="ping timeout"):
            await ws.recv()
        assert anyio.current_time() - began > 60


async def test_time_during_which_the_reader_is_stopped_does_not_count(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, ping_interval=10, ping_timeout=5, close_timeout=0) as ws:
        # More than the inbox takes, and the pongs behind it.
        async with anyio.create_task_group() as tasks:

            async def flood() -> None:
                for _ in range(5000):
                    await server.peer.send(WsprotoText("x" * 100))

            tasks.start_soon(flood)
            await anyio.sleep(1000)
            assert ws.close_code is None
            for _ in range(5000):
                await ws.recv()
        began = anyio.current_time()
        with pytest.raises(ConnectionClosed, match="ping timeout"):
            await ws.recv()
        assert anyio.current_time() - began <= 16


async def test_what_arrived_while_the_event_loop_stood_still_is_heard_before_the_verdict(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = MemoryStream.read

    async def read_in_two_turns(self: MemoryStream, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await read(self, max_bytes, timeout)
        await checkpoint()
        return data

    monkeypatch.setattr(MemoryStream, "read", read_in_two_turns)
    async with aconnect_ws("ws://test/", client=server.client, ping_interval=10, ping_timeout=5, close_timeout=0) as ws:
        ping = await server.peer.receive()
        assert isinstance(ping, Ping)
        await server.peer.send(Pong(bytes(ping.payload)))
        jump(20)
        await anyio.sleep(0.1)
        assert ws.close_code is None
        assert ws.latency is not None
        # Of a peer that says nothing there is nothing to hear.
        began = anyio.current_time()
        with pytest.raises(ConnectionClosed, match="ping timeout"):
            await ws.recv()
        assert anyio.current_time() - began <= 15


def jump(seconds: float) -> None:
    """As if all this time nothing had its turn."""
    if trio.lowlevel.in_trio_run():
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        clock.jump(seconds)
    else:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, AutojumpEventLoop)
        loop.jump(seconds)


async def test_how_long_the_peer_takes_to_close_is_not_the_business_of_keepalive(server: MemoryServer) -> None:
    async with (
        aconnect_ws("ws://test/", client=server.client, ping_interval=1, ping_timeout=1, close_timeout=60) as ws,
        anyio.create_task_group() as tasks,
    ):

        async def answer() -> None:
            assert isinstance(await server.peer.receive(), CloseConnection)
            await anyio.sleep(30)
            await server.peer.send(CloseConnection(code=1000))
            server.peer.end()

        tasks.start_soon(answer)
        await ws.close()
        assert ws.close_code == 1000


async def test_keepalive_ends_a_send_that_a_dead_peer_blocks() -> None:
    server = MemoryServer(capacity=100)
    async with aconnect_ws("ws://test/", client=server.client, ping_interval=10, ping_timeout=5) as ws:
        began = anyio.current_time()
        with pytest.raises(ConnectionClosed) as caught:
            await ws.send(bytes(1000))
        assert caught.value.code == 1011
        assert anyio.current_time() - began <= 16.1


async def test_no_interval_no_pings(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, ping_interval=None, close_timeout=0) as ws:
        with anyio.move_on_after(100_000):
            await ws.recv()
        assert server.stream.outgoing.total == 0


async def test_no_timeout_no_verdict(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, ping_timeout=None, close_timeout=0) as ws:
        with anyio.move_on_after(1000):
            await ws.recv()
        assert ws.close_code is None


async def test_ping_gives_the_round_trip_in_seconds(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:

        async def answer() -> None:
            ping = await server.peer.receive()
            assert isinstance(ping, Ping)
            await anyio.sleep(1.5)
            await server.peer.send(Pong(bytes(ping.payload)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            assert await ws.ping() == pytest.approx(1.5)
        assert ws.latency == pytest.approx(1.5)


async def test_a_pong_answers_all_pings_before_it(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        round_trips: list[float] = []

        async def ping() -> None:
            round_trips.append(await ws.ping())

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ping)
                await anyio.sleep(1)
            pings = [await server.peer.receive() for _ in range(3)]
            assert isinstance(pings[1], Ping)
            assert isinstance(pings[2], Ping)
            await server.peer.send(Pong(bytes(pings[1].payload)))
            await anyio.wait_all_tasks_blocked()
            assert len(round_trips) == 2
            await server.peer.send(Pong(bytes(pings[2].payload)))


async def test_a_pong_does_not_answer_a_ping_that_still_waits_for_its_turn() -> None:
    server = MemoryServer(capacity=100)
    async with aconnect_ws("ws://test/", client=server.client, ping_interval=5, close_timeout=0) as ws:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ws.send, bytes(1000))
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(ws.send, bytes(1000))
            await anyio.wait_all_tasks_blocked()
            round_trips: list[float] = []

            async def ping() -> None:
                round_trips.append(await ws.ping())

            tasks.start_soon(ping)
            # Keepalive wants to ping meanwhile, and goes in front of the message and the ping that wait.
            await anyio.sleep(6)
            assert len(await server.peer.receive_message()) == 1000
            pings = [await server.peer.receive()]
            assert isinstance(pings[0], Ping)
            await server.peer.send(Pong(bytes(pings[0].payload)))
            assert len(await server.peer.receive_message()) == 1000
            pings.append(await server.peer.receive())
            assert isinstance(pings[1], Ping)
            await anyio.wait_all_tasks_blocked()
            assert round_trips == []
            await anyio.sleep(0.5)
            await server.peer.send(Pong(bytes(pings[1].payload)))
        assert round_trips == [pytest.approx(0.5)]


async def test_ping_raises_when_the_connection_ends_before_the_pong(server: MemoryServer) -> None:
    async with aconnect_ws("ws://test/", client=server.client) as ws, anyio.create_task_group() as tasks:

        async def ping() -> None:
            with pytest.raises(ConnectionClosed, match="1001"):
                await ws.ping()

        tasks.start_soon(ping)
        await anyio.wait_all_tasks_blocked()
        await server.peer.send(CloseConnection(1001))
        server.peer.end()


async def test_pongs_of_the_users_own_pings_are_returned(server: MemoryServer) -> None:
    from zapros_websocket import PingMessage

    async with aconnect_ws("ws://test/", client=server.client, close_timeout=0) as ws:
        await ws.send(PingMessage(b"mine"))
        ping = await server.peer.receive()
        assert ping == Ping(b"mine")
        await server.peer.send(Pong(b"mine"), Pong(b""))
        assert await ws.recv() == PongMessage(b"mine")
        assert await ws.recv() == PongMessage(b"")
        assert ws.latency is None
