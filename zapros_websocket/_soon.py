"""The way from a thread into an event loop: have a function called there, soon, and wait for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TypeAlias

import trio

Soon: TypeAlias = Callable[[Callable[[], object]], None]
"""Has a function called by an event loop, from any thread and at any moment; nothing when that loop has ended."""


def soon() -> Soon:
    """The way into the event loop that runs here."""
    into: Callable[[Callable[[], object]], object]
    if trio.lowlevel.in_trio_run():
        into = trio.lowlevel.current_trio_token().run_sync_soon
    else:
        # In the context of this loop: anyio would not know it in that of another thread.
        into = partial(asyncio.get_running_loop().call_soon_threadsafe, context=copy_context())

    def call(function: Callable[[], object]) -> None:
        try:
            into(function)
        except RuntimeError:
            # The loop has ended, and all that it had to do with it.
            return

    return call
