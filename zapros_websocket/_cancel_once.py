"""A call on trio that is cancelled once, and then left to clean up.

Trio cancels every await of a cancelled task, those of its cleanup too. Zapros 0.23 gives a connection back to its pool,
and closes it, in awaits that are not shielded: a request that is cancelled would keep its place in the pool for good.

Invariants:

- A cancellation from outside reaches the callee once, in a wait: what it awaits from then on is shielded for ``GRACE``
  seconds. A callee that has not begun does not begin, and one that is about to run is let go on to its next wait.
- What the callee raises comes out bare; what interrupts the wait for it goes before that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Final, TypeVar

import trio

# Seconds for the cleanup.
GRACE: Final = 1.0

_T = TypeVar("_T")


async def cancelled_once(function: Callable[[], Awaitable[_T]]) -> _T:
    """Await ``function()`` in a task of its own.

    Cancelling it waits for the cleanup, within the grace. A result that is there all the same is returned.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    stop = trio.CancelScope(shield=True)
    cleanup = trio.CancelScope()
    over = trio.Event()
    state = _State()
    results: list[_T] = []
    errors: list[BaseException] = []

    async def run() -> None:
        state.task = trio.lowlevel.current_task()
        try:
            with stop, cleanup:
                if not errors:
                    results.append(await function())
        except BaseException as error:
            errors.append(error)
        finally:
            over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        try:
            await over.wait()
        except BaseException as interruption:
            errors.append(interruption)
            with trio.move_on_after(GRACE, shield=True) as grace, state.watched():
                # One that is about to run would find the shield, and nothing of the cancellation behind it. What was so
                # before anybody looked has run after two turns, in whatever order trio runs the tasks of each.
                await trio.lowlevel.cancel_shielded_checkpoint()
                await trio.lowlevel.cancel_shielded_checkpoint()
                while state.is_about_to_run and not grace.cancel_called:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                stop.cancel()
                cleanup.shield = True
                await over.wait()
            stop.cancel()
            cleanup.shield = False
    if results and all(isinstance(error, trio.Cancelled) for error in errors):
        return results[0]
    # A cancelled call may end with another error: a nursery in it takes the cancellation for that of its own, and what
    # comes after it finds nothing. Raises when the call was cancelled, which it still is.
    await trio.lowlevel.checkpoint_if_cancelled()
    raise errors[0]


class _State(trio.abc.Instrument):
    """Whether a task waits, or will run in the next turn or two."""

    def __init__(self) -> None:
        self.task: trio.lowlevel.Task | None = None
        self.is_about_to_run = False

    @contextmanager
    def watched(self) -> Generator[None]:
        """Look at it from here on."""
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.is_about_to_run = True

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.is_about_to_run = False
