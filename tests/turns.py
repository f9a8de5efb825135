"""How often others have their turn."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.lowlevel import checkpoint


@asynccontextmanager
async def turns_of_another() -> AsyncGenerator[Callable[[], int]]:
    """A task beside the block that is always ready, and how many turns it has had since the block began."""
    turns = -1

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        while turns < 0:
            await checkpoint()
        turns = 0
        yield lambda: turns
        tasks.cancel_scope.cancel()
