"""In the next turn of the scheduler: something is done that need not wait, and then what it has left to wait for.

Invariants:

- What is asked for once is done once, whoever asks how often, and before the event loop waits for anything.
- It costs what is least: a callback on asyncio, a task that is rescheduled on trio. That task is made when it is needed
  first, so that a connection that never asks has none.
- Where no task can be made, ``ask`` says so, and nothing is left for later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

import trio

from ._waiting import NewWaiter, Waiter

Start: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], bool]
"""Starts a task, or says that it cannot."""


class NextTurn:
    """Calls ``act`` in the next turn, and awaits ``go_on`` in a task of its own when that returned True."""

    def __init__(
        self, new_waiter: NewWaiter, start: Start, act: Callable[[], bool], go_on: Callable[[], Awaitable[None]]
    ) -> None:
        self._new_waiter = new_waiter
        self._start = start
        self._act = act
        self._go_on = go_on
        self._call_soon = None if trio.lowlevel.in_trio_run() else asyncio.get_running_loop().call_soon
        self._is_running = False
        self._is_asked = False
        self._parked: Waiter | None = None

    def ask(self) -> bool:
        """Have it done in the next turn; or return False, when that cannot be."""
        if self._is_asked:
            return True
        if not self._is_running:
            self._is_running = self._is_asked = self._start(self._run)
            return self._is_running
        self._is_asked = True
        if self._call_soon is None:
            self.go_on()
        else:
            self._call_soon(self._called)
        return True

    def go_on(self) -> None:
        """Have the task look whether there is something to wait for."""
        if self._parked is not None:
            self._parked.wake()

    def _called(self) -> None:
        # Called by asyncio itself, in no task: whatever asks anyio for the current one would not work here.
        self._is_asked = False
        if self._act():
            self.go_on()

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        try:
            while True:
                self._is_asked = False
                if self._act():
                    await self._go_on()
                if not self._is_asked:
                    # Who asks while it goes on cannot wake it.
                    self._parked = self._new_waiter()
                    await self._parked.wait()
        finally:
            self._parked = None
            self._is_running = False
