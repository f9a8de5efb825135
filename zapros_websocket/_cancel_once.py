"""A call on trio that is cancelled once, and then left to clean up.

Trio cancels every await of a cancelled task, those of its cleanup too. Zapros 0.23 gives a connection back to its pool,
and closes it, in awaits that are not shielded: a request that is cancelled would keep its place in the pool for good.

Invariants:

- A cancellation from outside reaches the callee once; what it awaits from then on is shielded for ``GRACE`` seconds.
- What the callee raises comes out bare; what interrupts the wait for it goes before that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

# Seconds for the cleanup.
GRACE: Final = 1.0

_T = TypeVar("_T")


async def cancelled_once(function: Callable[[], Awaitable[_T]]) -> _T:
    """Await ``function()`` in a task of its own.

    Cancelling it waits for the cleanup, within the grace. A result that is there all the same is returned.
    """
    stop = trio.CancelScope(shield=True)
    cleanup = trio.CancelScope()
    over = trio.Event()
    results: list[_T] = []
    errors: list[BaseException] = []

    async def run() -> None:
        try:
            with stop, cleanup:
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
            # The cancellation is on its way to the task before the shield goes up behind it.
            stop.cancel()
            cleanup.shield = True
            with trio.move_on_after(GRACE, shield=True):
                await over.wait()
            cleanup.shield = False
    if results and all(isinstance(error, trio.Cancelled) for error in errors):
        return results[0]
    # A cancelled call may end with another error: a nursery in it takes the cancellation for that of its own, and what
    # comes after it finds nothing. Raises when the call was cancelled, which it still is.
    await trio.lowlevel.checkpoint_if_cancelled()
    raise errors[0]
