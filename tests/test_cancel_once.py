"""A call on trio that is cancelled once, and then left to clean up."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Generator

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
async def test_a_call_that_is_cancelled_before_it_begins_does_not_begin() -> None:
    begun: list[int] = []

    async def begin() -> None:
        begun.append(1)

    with trio.CancelScope() as scope:
        scope.cancel()
        await cancelled_once(begin)
    assert scope.cancelled_caught
    assert not begun


@on_trio
async def test_a_call_that_is_cancelled_in_the_turn_in_which_it_would_begin_may_not_begin() -> None:
    begun: list[int] = []

    async def begin() -> None:
        begun.append(1)
        await trio.sleep_forever()

    # The order in which trio runs the two tasks is drawn anew in each turn.
    for _ in range(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancelled_once, begin)
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert len(begun) < 40


@on_trio
@pytest.mark.parametrize("turns", range(6))
async def test_a_call_that_is_about_to_run_when_it_is_cancelled_goes_on_to_its_next_wait(turns: int) -> None:
    steps: list[int] = []
    callee = Callee(GRACE / 2)

    async def step() -> None:
        for number in range(3):
            await trio.lowlevel.checkpoint()
            steps.append(number)
        await callee()
        steps.append(3)

    began = trio.current_time()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancelled_once, step)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert not scope.cancelled_caught
    # It had not begun, or went on to its wait, beyond which there was nothing but its cleanup.
    assert steps in ([], [0, 1, 2])
    assert callee.is_clean == bool(steps)
    assert trio.current_time() - began == (GRACE / 2 if steps else 0)


@on_trio
async def test_a_call_that_never_waits_is_cancelled_after_the_grace() -> None:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)

    async def run_on() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            clock.jump(GRACE / 10)

    with trio.move_on_after(5) as scope:
        await cancelled_once(run_on)
    assert scope.cancelled_caught
    assert trio.current_time() <= scope.deadline + 2 * GRACE


@on_trio
@pytest.mark.parametrize("turns", range(5))
async def test_a_call_that_is_woken_while_it_is_cancelled_goes_on_to_its_next_wait(turns: int) -> None:
    # The order in which trio runs the tasks is drawn anew in each turn.
    for _ in range(20):
        callee = Callee(GRACE / 2)
        woken = trio.Event()

        async def wait_twice(callee: Callee = callee, woken: trio.Event = woken) -> None:
            try:
                await woken.wait()
            except trio.Cancelled:
                callee.is_clean = True
                raise
            await callee()

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def call(scope: trio.CancelScope = scope, what: Callable[[], Awaitable[None]] = wait_twice) -> None:
                with scope:
                    await cancelled_once(what)

            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            woken.set()
        assert scope.cancelled_caught
        assert callee.is_clean
        assert trio.current_time() - began <= GRACE / 2


@on_trio
async def test_a_cancellation_of_its_own_shields_nothing() -> None:
    callee = Callee()

    async def call() -> None:
        with trio.move_on_after(1):
            await trio.sleep_forever()
        await callee()

    with trio.move_on_after(5) as scope:
        await cancelled_once(call)
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(scope.deadline)  # pyright: ignore[reportUnknownMemberType]


@on_trio
async def test_what_is_no_wish_of_trio_is_an_error_that_says_so() -> None:
    class Foreign:
        def __await__(self) -> Generator[str]:
            yield "a future of another library"

    async def call() -> None:
        await Foreign()

    with pytest.raises(TypeError, match="another library"):
        await cancelled_once(call)


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
