"""A call on trio that is cancelled once, and then left to clean up."""

from __future__ import annotations

import socket

import anyio
import outcome
import pytest
import trio
import trio.testing
from zapros import AsyncClient, AsyncStdNetworkHandler

from tests.memory import Backend, autojump
from zapros_websocket import SocketTransport, aconnect_ws
from zapros_websocket._cancel_once import GRACE, cancelled_once

pytestmark = pytest.mark.anyio
on_trio = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Backend | str:
    """A clock that jumps, where there are no sockets."""
    name: str = request.param
    return name if "transport" in request.fixturenames else autojump("trio")


class Callee:
    """Waits, and cleans up for so many seconds."""

    def __init__(self, cleanup: float = 0.0) -> None:
        self.is_clean = False
        self._cleanup = cleanup

    async def __call__(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            await trio.sleep(self._cleanup)
            self.is_clean = True


@on_trio
async def test_what_a_call_returns_or_raises_comes_out_as_it_is() -> None:
    async def seven() -> int:
        return 7

    async def fail() -> None:
        raise ValueError("mine")

    assert await cancelled_once(seven) == 7
    with pytest.raises(ValueError, match="mine"):
        await cancelled_once(fail)


@on_trio
async def test_a_cancelled_call_cleans_up_first() -> None:
    callee = Callee(GRACE / 2)
    with trio.move_on_after(5) as scope:
        await cancelled_once(callee)
    assert scope.cancelled_caught
    assert callee.is_clean
    assert trio.current_time() == pytest.approx(scope.deadline + GRACE / 2)  # pyright: ignore[reportUnknownMemberType]


@on_trio
async def test_a_cleanup_that_takes_too_long_is_cancelled() -> None:
    callee = Callee(60)
    with trio.move_on_after(5) as scope:
        await cancelled_once(callee)
    assert scope.cancelled_caught
    assert not callee.is_clean
    assert trio.current_time() == pytest.approx(scope.deadline + GRACE)  # pyright: ignore[reportUnknownMemberType]


@on_trio
async def test_a_cancelled_call_that_ends_with_another_error_is_cancelled() -> None:
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("a consequence")

    with trio.move_on_after(5) as scope:
        await cancelled_once(fail)
    assert scope.cancelled_caught


@on_trio
async def test_a_result_that_is_there_all_the_same_is_returned() -> None:
    async def stubborn() -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(5 + GRACE / 2)
        return "done"

    with trio.move_on_after(5):
        assert await cancelled_once(stubborn) == "done"


@on_trio
async def test_what_interrupts_the_wait_comes_out_after_the_cleanup() -> None:
    callee = Callee()

    async def call() -> None:
        with pytest.raises(KeyboardInterrupt):
            await cancelled_once(callee)
        assert callee.is_clean

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        (task,) = nursery.child_tasks
        # What trio does to the main task when Ctrl-C is pressed.
        trio.lowlevel.reschedule(task, outcome.Error(KeyboardInterrupt()))


# A transport of Zapros on trio forgets the socket itself.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("transport", [SocketTransport, None], ids=["ours", "zapros"])
@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"], indirect=True)
async def test_a_cancelled_handshake_gives_its_place_in_the_pool_of_the_client_back(
    transport: type[SocketTransport] | None,
) -> None:
    handler = AsyncStdNetworkHandler(transport=transport()) if transport else AsyncStdNetworkHandler()
    silent: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"

        async def connect() -> None:
            async with aconnect_ws(url, client=client):
                pytest.fail("nobody answers")

        # Zapros 0.23 keeps up to ten connections to a host.
        async with AsyncClient(handler=handler) as client:
            for _ in range(12):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(connect)
                    await anyio.wait_readable(listener)
                    silent.append(listener.accept()[0])
                    await anyio.wait_readable(silent[-1])
                    tasks.cancel_scope.cancel()
    for sock in silent:
        sock.close()
