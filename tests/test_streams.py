"""The streams of Zapros beneath a connection: lockstep streams on trio, sockets on asyncio."""

from __future__ import annotations

import asyncio
import socket

import anyio
import pytest
import trio
import trio.testing
import zapros
from anyio.lowlevel import checkpoint
from wsproto.connection import SERVER, Connection
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from zapros import AsyncClient, AsyncIOStream, TrioStream

from tests.memory import Backend, StreamHandler, autojump
from zapros_websocket import BinaryMessage, ConnectionClosed, PingMessage, aconnect_ws
from zapros_websocket._streams.zapros import ZaprosStream

pytestmark = pytest.mark.anyio


class TestTrio:
    """Lockstep streams: what one side sends has left only when the other side receives it."""

    @pytest.fixture
    def anyio_backend(self) -> Backend:
        return autojump("trio")

    async def test_a_whole_conversation_in_lockstep(self) -> None:
        ours, theirs = trio.testing.lockstep_stream_pair()
        protocol = Connection(SERVER)
        client = AsyncClient(handler=StreamHandler(TrioStream(ours)))

        async def serve() -> None:
            while data := await theirs.receive_some():
                protocol.receive_data(bytes(data))
                for event in protocol.events():
                    if isinstance(event, BytesMessage):
                        await theirs.send_all(protocol.send(Ping(b"p")) + protocol.send(event))
                    elif isinstance(event, CloseConnection):
                        await theirs.send_all(protocol.send(event.response()))
                        await theirs.aclose()
                        return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with aconnect_ws("ws://test/", client=client) as ws:
                for number in range(20):
                    await ws.send(bytes([number]))
                    assert await ws.recv() == PingMessage(b"p")
                    assert await ws.recv() == BinaryMessage(bytes([number]))
            assert ws.close_code == 1000

    async def test_cancelling_a_send_before_its_first_byte_is_written_has_no_effect(self) -> None:
        ours, theirs = trio.testing.lockstep_stream_pair()
        client = AsyncClient(handler=StreamHandler(TrioStream(ours)))
        async with aconnect_ws("ws://test/", client=client, close_timeout=0, permessage_deflate=False) as ws:
            with trio.move_on_after(5) as scope:
                await ws.send("never")
            assert scope.cancelled_caught
            protocol = Connection(SERVER)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ws.send, "next")
                protocol.receive_data(bytes(await theirs.receive_some()))
                assert list(protocol.events()) == [TextMessage("next")]

    async def test_cancelling_a_send_half_way_breaks_the_connection(self) -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        written = trio.Event()

        async def hook() -> None:
            written.set()
            await trio.sleep_forever()

        ours.send_stream.send_all_hook = hook
        client = AsyncClient(handler=StreamHandler(TrioStream(ours)))
        async with aconnect_ws("ws://test/", client=client) as ws, trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:

                async def cancel() -> None:
                    await written.wait()
                    scope.cancel()

                nursery.start_soon(cancel)
                await ws.send("half")
            assert scope.cancelled_caught
            with pytest.raises(ConnectionClosed, match="cancelled"):
                await ws.send("more")
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"")
        await theirs.aclose()


class Unreadable:
    async def read(self, size: int) -> bytes:
        raise ConnectionResetError


async def connected_sockets(buffer: int) -> tuple[AsyncIOStream, socket.socket]:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    reader, writer = await asyncio.open_connection(sock=ours)
    return AsyncIOStream(reader, writer), theirs


class TestAsyncio:
    """Real sockets, whose transport can hold back what was written."""

    @pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> Backend:
        if request.param:
            pytest.importorskip("uvloop")
        return "asyncio", {"use_uvloop": request.param}

    async def test_closing_does_not_wait_for_a_peer_that_does_not_read(self) -> None:
        stream, theirs = await connected_sockets(4096)
        client = AsyncClient(handler=StreamHandler(stream))
        with theirs:
            async with aconnect_ws("ws://test/", client=client, close_timeout=0) as ws:
                with anyio.move_on_after(0.05) as scope:
                    await ws.send(bytes(1 << 20))
                assert scope.cancelled_caught
                with pytest.raises(ConnectionClosed):
                    await ws.send("more")
            # Nothing is left to be written behind the back of the closed connection: the peer finds the end.
            received = 0
            while True:
                await anyio.wait_readable(theirs)
                try:
                    data = theirs.recv(65536)
                except ConnectionResetError:
                    break
                if not data:
                    break
                received += len(data)
            assert received < 1 << 20

    async def test_what_arrived_before_a_reset_is_received_before_the_reset_is_raised(self) -> None:
        stream, theirs = await connected_sockets(65536)
        ours = ZaprosStream(stream)
        reader: asyncio.StreamReader = stream._reader  # pyright: ignore
        with theirs:
            reader.feed_data(b"last words")
            reader.set_exception(ConnectionResetError("reset"))
            assert await ours.receive() == b"last words"
            for _ in range(2):
                with pytest.raises(zapros.ReadError, match="reset"):
                    await ours.receive()
            # Inside a tunnel the buffer holds what is still encrypted.
            reader.feed_data(b"cipher")
            stream._tls_state = object()  # type: ignore[assignment]  # pyright: ignore
            with pytest.raises(AttributeError):
                await ours.receive()
            stream._tls_state = None  # pyright: ignore
            # And a reader of another make has no such buffer.
            stream._reader = Unreadable()  # type: ignore[assignment]  # pyright: ignore
            with pytest.raises(zapros.ReadError):
                await ours.receive()
            await ours.aclose(grace=0)

    async def test_the_close_frame_leaves_before_the_socket_is_closed(self) -> None:
        stream, theirs = await connected_sockets(65536)
        client = AsyncClient(handler=StreamHandler(stream))
        protocol = Connection(SERVER)
        with theirs:
            async with anyio.create_task_group() as tasks:
                async with aconnect_ws("ws://test/", client=client) as ws:

                    async def serve() -> None:
                        await anyio.wait_readable(theirs)
                        protocol.receive_data(theirs.recv(65536))
                        [close] = protocol.events()
                        assert isinstance(close, CloseConnection)
                        theirs.send(protocol.send(close.response()))
                        theirs.shutdown(socket.SHUT_WR)
                        await anyio.wait_readable(theirs)
                        assert theirs.recv(65536) == b""

                    tasks.start_soon(serve)
            assert ws.close_code == 1000


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
async def test_any_stream_of_zapros_is_taken_by_its_public_methods(anyio_backend: str) -> None:
    ours, theirs = (anyio.create_memory_object_stream[bytes](10) for _ in range(2))

    class Custom(zapros.AsyncBaseNetworkStream):
        async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return await theirs[1].receive()

        async def write_all(self, data: bytes, timeout: float | None = None) -> int:
            await ours[0].send(data)
            return len(data)

        async def close(self) -> None:
            ours[0].close()

    protocol = Connection(SERVER)
    with ours[0], ours[1], theirs[0], theirs[1]:
        async with aconnect_ws(
            "ws://test/", client=AsyncClient(handler=StreamHandler(Custom())), close_timeout=0
        ) as ws:
            await ws.send(bytes(100_000))
            protocol.receive_data(await ours[1].receive())
            [message] = protocol.events()
            assert message == BytesMessage(bytes(100_000))
            await theirs[0].send(protocol.send(message))
            assert await ws.recv() == BinaryMessage(bytes(100_000))


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
async def test_pings_without_end_leave_others_their_turn_although_no_pong_can_be_written(anyio_backend: str) -> None:
    reads = turns = 0

    class Flood(zapros.AsyncBaseNetworkStream):
        async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            nonlocal reads
            reads += 1
            return b"\x89\x00" if reads < 1000 else b""

        async def write_all(self, data: bytes, timeout: float | None = None) -> int:
            await anyio.sleep_forever()
            raise AssertionError

        async def close(self) -> None:
            return

    async with aconnect_ws("ws://test/", client=AsyncClient(handler=StreamHandler(Flood())), close_timeout=0) as ws:
        while ws.close_code is None:
            await checkpoint()
            turns += 1
    assert reads == 1000
    assert turns > 50
