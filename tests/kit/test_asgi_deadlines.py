"""The ASGI handler and time: what is bounded, and by how much; on clocks that jump over every wait."""

from __future__ import annotations

import anyio
import pytest
from zapros import ReadTimeoutError, WriteError, WriteTimeoutError
from zapros import TimeoutError as ZaprosTimeoutError

from tests.asgi.applications import (
    ACCEPT,
    URL,
    CleansUp,
    Echo,
    Event,
    Receive,
    Returns,
    Says,
    Send,
    Waits,
    binary,
    text,
)
from tests.memory import Backend, autojump
from zapros_websocket import ConnectionClosed, PingMessage, aconnect_ws
from zapros_websocket.testing import WebSocketAsgiHandler

from .test_asgi_handler import HANDSHAKE, MEBIBYTE, STARTED, client_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return autojump(request.param)


async def test_the_server_pings() -> None:
    async with client_of(Says(ACCEPT), ping_interval=60) as client, aconnect_ws(URL, client=client) as ws:
        assert await ws.recv() == PingMessage(b"server")
        assert await ws.recv() == PingMessage(b"server")


async def test_the_wait_for_accept_is_bounded() -> None:
    application = Waits()
    async with client_of(application, accept_timeout=7) as client:
        with pytest.raises(ReadTimeoutError, match=r"the application neither accepted nor refused /x within 7 seconds"):
            async with aconnect_ws(f"{URL}x", client=client):
                pytest.fail("the application said nothing")
        await application.ended.wait()


async def test_a_client_that_gives_up_is_a_disconnect() -> None:
    application = Says()
    async with client_of(application) as client:
        with pytest.raises(TimeoutError):
            async with aconnect_ws(URL, client=client, open_timeout=3):
                pytest.fail("the application said nothing")
        await application.ended.wait()
    assert application.disconnects == [(1006, "")]


async def test_an_accept_that_comes_too_late_is_an_error_of_a_client_that_is_gone() -> None:
    class Late(Waits):
        async def converse(self, receive: Receive, send: Send) -> None:
            await super().converse(receive, send)
            with pytest.raises(OSError, match="has left"):
                await send(ACCEPT)

    application = Late()
    async with client_of(application) as client:
        with pytest.raises(TimeoutError):
            async with aconnect_ws(URL, client=client, open_timeout=3):
                pytest.fail("the application said nothing")
        application.released.set()


async def test_an_application_cleans_up_before_the_handler_is_left() -> None:
    class CleansUp(Echo):
        cleaned_up = False

        async def converse(self, receive: Receive, send: Send) -> None:
            await super().converse(receive, send)
            await anyio.sleep(5)
            with pytest.raises(OSError, match="has left"):
                await send(text("too late"))
            self.cleaned_up = True

    application = CleansUp()
    async with client_of(application) as client, aconnect_ws(URL, client=client):
        pass
    assert application.cleaned_up


async def test_the_application_is_backpressured_and_backpressures() -> None:
    class Sends(Echo):
        sent = 0

        async def converse(self, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            while True:
                await send(binary(MEBIBYTE))
                self.sent += 1

    application = Sends()
    async with client_of(application) as client, aconnect_ws(URL, client=client) as ws:
        await anyio.wait_all_tasks_blocked()
        # What the client keeps unread, and what is under way.
        assert application.sent < 10
        with anyio.move_on_after(0.05) as scope:
            for _ in range(100):
                await ws.send(MEBIBYTE)
        assert scope.cancelled_caught


async def test_an_application_that_does_not_end_is_cancelled_and_an_error() -> None:
    application = Waits(ACCEPT)
    with pytest.raises(TimeoutError, match=r"the application at / was still running 7 seconds after"):
        async with client_of(application, shutdown_timeout=7) as client:
            async with aconnect_ws(URL, client=client, close_timeout=0):
                pass
    assert application.ended.is_set()


async def test_a_block_that_is_cancelled_is_held_up_for_two_half_seconds_at_most() -> None:
    application = Waits(ACCEPT)
    with anyio.move_on_after(3) as scope:
        async with client_of(application) as client, aconnect_ws(URL, client=client):
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert anyio.current_time() - scope.deadline < 1.6
    assert application.ended.is_set()


async def test_a_startup_and_a_shutdown_are_bounded() -> None:
    async def sleeps(scope: Event, receive: Receive, send: Send) -> None:
        await receive()
        if answers:
            await send(STARTED)
        await anyio.sleep_forever()

    for answers in (False, True):
        with pytest.raises(ZaprosTimeoutError, match=r"did not end within 7 seconds"):
            async with WebSocketAsgiHandler(sleeps, startup_timeout=7, shutdown_timeout=7):
                assert answers


async def test_a_cancelled_send_breaks_the_connection_as_over_a_network() -> None:
    application = Waits(ACCEPT)
    async with client_of(application) as client:
        async with aconnect_ws(URL, client=client) as ws:
            with anyio.move_on_after(1):
                for _ in range(100):
                    await ws.send(MEBIBYTE)
            with pytest.raises(ConnectionClosed, match="a send was cancelled"):
                await ws.send("after")
        application.released.set()


async def test_a_shutdown_that_hangs_does_not_hide_a_cancellation() -> None:
    async def hangs(scope: Event, receive: Receive, send: Send) -> None:
        await receive()
        await send(STARTED)
        await anyio.sleep_forever()

    with anyio.move_on_after(3) as scope:
        async with WebSocketAsgiHandler(hangs):
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert anyio.current_time() - scope.deadline < 1.1


async def test_an_application_that_cleans_up_within_a_second_is_done_when_its_client_is() -> None:
    application = CleansUp(seconds=0.9)
    async with client_of(application) as client:
        async with aconnect_ws(URL, client=client):
            pass
        assert application.cleaned_up


async def test_keepalive_keeps_a_connection_with_an_application_that_is_busy() -> None:
    application = Waits(ACCEPT)
    async with client_of(application) as client:
        async with aconnect_ws(URL, client=client, ping_interval=1, ping_timeout=1) as ws:
            await anyio.sleep(3600)
            assert ws.latency is not None
            assert await ws.ping() >= 0
            application.released.set()


async def test_a_client_that_never_answers_the_close_is_left_behind() -> None:
    async with client_of(Returns(ACCEPT), ping_interval=1) as client:
        async with client.stream("GET", URL, headers=HANDSHAKE) as response:
            stream = response.context["handoff"]["network_stream"]  # pyright: ignore[reportTypedDictNotRequiredAccess]
        begun = anyio.current_time()
        assert await stream.read(65536) == b"\x88\x02\x03\xe8"  # type: ignore[misc]
        # Nothing follows a close frame, neither a ping nor the pong to one.
        await stream.write_all(b"\x89\x80\0\0\0\0")  # type: ignore[misc]
        assert await stream.read(65536) == b""  # type: ignore[misc]
        assert anyio.current_time() - begun == pytest.approx(10)
        with pytest.raises(WriteError, match="the server has closed"):
            await stream.write_all(b"late")  # type: ignore[misc]


async def test_a_client_that_never_answers_does_not_hold_up_the_handler() -> None:
    application = Says(ACCEPT)
    async with client_of(application) as client:
        async with client.stream("GET", URL, headers=HANDSHAKE):
            pass
        begun = anyio.current_time()
    assert anyio.current_time() - begun == pytest.approx(1)
    assert application.disconnects == [(1001, "")]


async def test_a_client_that_is_cancelled_as_the_application_accepts() -> None:
    class CancelsTheClient(Echo):
        async def converse(self, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            scope.cancel()
            await receive()

    application = CancelsTheClient()
    begun = anyio.current_time()
    async with client_of(application) as client:
        with anyio.CancelScope() as scope:
            async with aconnect_ws(URL, client=client):
                await anyio.sleep_forever()
        await application.ended.wait()
    assert anyio.current_time() - begun < 1.1
    assert application.disconnects in ([(1006, "")], [(1000, "")])


async def test_the_deadlines_of_zapros() -> None:
    application = Waits(ACCEPT)
    async with client_of(application) as client:
        async with client.stream("GET", URL, headers=HANDSHAKE) as response:
            stream = response.context["handoff"]["network_stream"]  # pyright: ignore[reportTypedDictNotRequiredAccess]
        with pytest.raises(ReadTimeoutError, match="nothing came within 3 seconds"):
            await stream.read(1, timeout=3)  # type: ignore[misc]
        with pytest.raises(WriteTimeoutError, match="not be written within 3 seconds"):
            for _ in range(100):
                await stream.write_all(b"\x82\xfe\xff\xff\0\0\0\0" + bytes(65535), timeout=3)  # type: ignore[misc]
        await stream.close()  # type: ignore[misc]
        application.released.set()
