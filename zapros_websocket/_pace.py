"""How often an operation that need not block lets other tasks run.

Invariants:

- Every operation observes a cancellation that is already there, also a native one of asyncio.
- No more than ``EVERY`` operations in a row go without a turn of the scheduler.
"""

from __future__ import annotations

import asyncio
from typing import Final

import trio
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

EVERY: Final = 32


class Pace:
    """Counts the operations of one connection that did not block."""

    def __init__(self) -> None:
        self._asyncio_tasks = not trio.lowlevel.in_trio_run()
        # The same, without the detour that asks for the event loop at each call.
        self._if_cancelled = checkpoint_if_cancelled if self._asyncio_tasks else trio.lowlevel.checkpoint_if_cancelled
        self._count = 0

    async def observe(self) -> None:
        """Raise if the task is cancelled; let the scheduler run when it is time."""
        self._count += 1
        if self._count >= EVERY:
            self._count = 0
            await checkpoint()
            return
        await self._if_cancelled()
        if self._asyncio_tasks and _must_cancel():
            # task.cancel() was called by the task itself, and is to be raised at its next suspension: this one.
            await cancel_shielded_checkpoint()


def _must_cancel() -> bool:
    return bool(getattr(asyncio.current_task(), "_must_cancel", False))
