"""One task waits, and another wakes it: the least that an event loop can do for that.

Invariant: the wake-up carries nothing. Who is cancelled in the moment in which it is woken has lost nothing, and passes
on what it was woken for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias

import trio
from anyio.lowlevel import checkpoint


class Place(Protocol):
    """The place in a queue of one who waits."""

    def wake(self) -> object:
        """Let the wait end; more than once has no effect."""


class Waiter(Place, Protocol):
    """A single wait of a single task."""

    async def wait(self) -> None:
        """Wait for ``wake``; in the same step in which the waiter is made. Cancelling it has no effect on others."""

    def wake(self) -> bool:
        """End the wait, and say whether that was in time: not when it was cancelled, or woken before."""
        ...


NewWaiter: TypeAlias = Callable[[], Waiter]


class TrioWaiter:
    """On trio: the task is rescheduled, and nothing else."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = trio.lowlevel.current_task()

    async def wait(self) -> None:
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def wake(self) -> bool:
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)
        return task is not None

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


class AsyncioWaiter:
    """On asyncio: a future without a result."""

    __slots__ = ("_future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future: asyncio.Future[None] = loop.create_future()

    async def wait(self) -> None:
        await self._future

    def wake(self) -> bool:
        is_waiting = not self._future.done()
        if is_waiting:
            self._future.set_result(None)
        return is_waiting


class Signal:
    """What happens once, and any number of tasks wait for: an ``anyio.Event`` that takes up little memory."""

    __slots__ = ("_is_set", "_new_waiter", "_waiting")

    def __init__(self, new_waiter: NewWaiter) -> None:
        self._is_set = False
        self._new_waiter = new_waiter
        self._waiting: list[Waiter] = []

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._is_set

    def set(self) -> None:
        """It has happened: wake all who wait."""
        self._is_set = True
        for waiter in self._waiting:
            waiter.wake()

    async def wait(self) -> None:
        """Wait until it has happened. Cancelling it has no effect on others."""
        if self._is_set:
            await checkpoint()
            return
        waiter = self._new_waiter()
        self._waiting.append(waiter)
        try:
            await waiter.wait()
        finally:
            self._waiting.remove(waiter)


def new_waiter_here() -> NewWaiter:
    """What makes a waiter on the event loop that runs."""
    return TrioWaiter if trio.lowlevel.in_trio_run() else partial(AsyncioWaiter, asyncio.get_running_loop())


def is_uvloop_here() -> bool:
    """Whether it is uvloop that runs, which does some things in its own way."""
    return not trio.lowlevel.in_trio_run() and type(asyncio.get_running_loop()).__module__.startswith("uvloop")
