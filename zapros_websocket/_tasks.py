"""The tasks of a connection: a nursery of trio or a task group of anyio, whichever the event loop makes do with less.

On trio each task of an anyio group has a cancel scope and an event of its own, which nobody here asks for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final, TypeAlias

import trio
from anyio import create_task_group

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

Tasks: TypeAlias = "TaskGroup | trio.Nursery"
"""What starts tasks, and has a cancel scope around them."""


def new_tasks() -> AbstractAsyncContextManager[Tasks]:
    """A group of tasks on the event loop that runs. What they raise comes out as the nursery or the group has it."""
    return trio.open_nursery() if trio.lowlevel.in_trio_run() else create_task_group()


_calling: Final[set[asyncio.Task[None]]] = set()


def call_in_task(function: Callable[[], None]) -> None:
    """Call what starts tasks, from where the event loop has none running.

    Trio lets tasks be started from anywhere, so it is called at once; on asyncio in a task, and a little later.
    """
    if trio.lowlevel.in_trio_run():
        function()
        return

    async def call() -> None:
        function()

    task = asyncio.get_running_loop().create_task(call())
    _calling.add(task)
    task.add_done_callback(_calling.discard)
