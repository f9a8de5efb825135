"""Applications that do not end, on clocks that jump over every wait."""

from __future__ import annotations

import anyio
import pytest

from tests.memory import Backend, autojump
from zapros_websocket import HandshakeTimeoutError, TextMessage, aconnect_ws, open_ws

from .applications import ACCEPT, URL, CleansUp, Echo, Waits, client_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return autojump(request.param)


class BlockError(Exception):
    """What a block raises."""


async def test_an_application_that_never_answers_runs_into_the_open_timeout() -> None:
    application = Waits()
    async with client_of(application) as client:
        begun = anyio.current_time()
        with pytest.raises(HandshakeTimeoutError, match="7 seconds"):
            async with aconnect_ws(URL, client=client, open_timeout=7):
                pytest.fail("the application said nothing")
        assert anyio.current_time() - begun == pytest.approx(7, abs=0.1)
        application.released.set()


async def test_keepalive_is_off() -> None:
    async with client_of(Echo()) as client, aconnect_ws(URL, client=client, ping_interval=1, ping_timeout=1) as ws:
        await anyio.sleep(3600)
        await ws.send("still open")
        assert await ws.recv() == TextMessage("still open")


@pytest.mark.parametrize("close_timeout", [0, 3, 60])
async def test_an_application_that_hangs_holds_up_the_close_for_no_longer_than_its_timeout(close_timeout: int) -> None:
    application = Waits(ACCEPT)
    async with client_of(application) as client:
        async with aconnect_ws(URL, client=client, close_timeout=close_timeout):
            begun = anyio.current_time()
        assert anyio.current_time() - begun <= close_timeout + 1
        application.released.set()
        await application.ended.wait()


async def test_a_block_that_raised_waits_for_half_a_second_at_most() -> None:
    application = Waits(ACCEPT)
    async with client_of(application) as client:
        begun = anyio.current_time()
        with pytest.raises(BlockError):
            async with aconnect_ws(URL, client=client, close_timeout=3600):
                raise BlockError
        assert anyio.current_time() - begun < 1.1
        application.released.set()


async def test_a_block_that_was_cancelled_waits_for_half_a_second_at_most() -> None:
    application = Waits(ACCEPT)
    async with client_of(application) as client:
        begun = anyio.current_time()
        with anyio.CancelScope() as scope:
            async with aconnect_ws(URL, client=client, close_timeout=3600):
                scope.cancel()
                await anyio.sleep_forever()
        assert anyio.current_time() - begun < 1.1
        application.released.set()


async def test_a_cancelled_task_group_waits_for_half_a_second_at_most() -> None:
    application = Waits(ACCEPT)
    async with client_of(application) as client:
        begun = anyio.current_time()
        async with anyio.create_task_group() as task_group:
            await open_ws(task_group, URL, client=client, close_timeout=3600)
            task_group.cancel_scope.cancel()
        assert anyio.current_time() - begun < 1.1
        application.released.set()


async def test_an_application_may_have_something_left_to_do() -> None:
    application = CleansUp(seconds=5)
    async with client_of(application) as client:
        async with aconnect_ws(URL, client=client):
            pass
        await application.ended.wait()
    assert application.cleaned_up
    assert application.disconnects == [(1000, "")]
