"""Something is called at a time, and no task of its own waits for that.

asyncio has it in its event loop. Trio has deadlines of cancel scopes and nothing else, each with a task in its scope:
here one task of the system waits for all connections of a run, while there is something to wait for.

Invariants:

- What is called is called in the event loop, in the context of who has asked for it, and in no task that it could wait
  in. It never raises.
- What was cancelled is not called, and what it would have called is not kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from heapq import heapify, heappop, heappush
from typing import Final, Protocol, TypeAlias

import trio


class Alarm(Protocol):
    """Something that is to be called."""

    def cancel(self) -> None:
        """Do not call it; nothing when it was called."""


CallAt: TypeAlias = Callable[[float, Callable[[], object]], Alarm]
"""Has a function called at a time of the event loop's clock, or a moment later; never before the next turn."""

# So many cancelled alarms may wait for their time to come, or as many as there are others.
_FEW: Final = 64


class _TrioAlarm:
    __slots__ = ("_alarms", "_context", "function")

    def __init__(self, alarms: _TrioAlarms, function: Callable[[], object]) -> None:
        self.function: Callable[[], object] | None = function
        # Those that it is among, while it is.
        self._alarms: _TrioAlarms | None = alarms
        self._context: Context | None = copy_context()

    def cancel(self) -> None:
        if self.function is not None:
            self.function = self._context = None
            if self._alarms is not None:
                self._alarms.forget_one()

    def come_due(self) -> None:
        """It is among the others no more, and about to be called."""
        self._alarms = None

    def call(self) -> None:
        if self.function is not None:
            function, context = self.function, self._context
            self.function = self._context = None
            assert context is not None
            context.run(function)


class _TrioAlarms:
    """All alarms of a run of trio, and the task that waits for the first of them."""

    def __init__(self) -> None:
        # In a heap: the time, a number that no two have in common, and what is to be called.
        self._heap: list[tuple[float, int, _TrioAlarm]] = []
        self._number = 0
        self._cancelled = 0
        self._is_waited_for = False
        self._waiting = trio.CancelScope()

    def call_at(self, when: float, function: Callable[[], object]) -> _TrioAlarm:
        alarm = _TrioAlarm(self, function)
        self._number += 1
        heappush(self._heap, (when, self._number, alarm))
        if not self._is_waited_for:
            self._is_waited_for = True
            trio.lowlevel.spawn_system_task(self._wait, name="alarms of zapros_websocket")
        elif when < self._waiting.deadline:
            self._waiting.deadline = when
        return alarm

    def forget_one(self) -> None:
        """One was cancelled: drop it now, or with others later."""
        self._cancelled += 1
        if self._cancelled > max(_FEW, len(self._heap) // 2) or self._cancelled == len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].function is not None]
            heapify(self._heap)
            self._cancelled = 0
        if not self._heap:
            self._waiting.cancel()

    async def _wait(self) -> None:
        while self._heap:
            with trio.CancelScope(deadline=self._heap[0][0]) as self._waiting:
                await trio.sleep_forever()
            self._call_all_due()
        self._is_waited_for = False

    def _call_all_due(self) -> None:
        now = trio.current_time()
        due: list[_TrioAlarm] = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heappop(self._heap)[2])
            due[-1].come_due()
            self._cancelled -= due[-1].function is None
        # Apart from that: what is called may set an alarm for a time that is over, or cancel one that is due.
        for alarm in due:
            alarm.call()


_alarms: Final[trio.lowlevel.RunVar[_TrioAlarms]] = trio.lowlevel.RunVar("alarms of zapros_websocket")


def call_at_here() -> CallAt:
    """What sets an alarm on the event loop that runs."""
    if not trio.lowlevel.in_trio_run():
        return asyncio.get_running_loop().call_at
    try:
        alarms = _alarms.get()
    except LookupError:
        alarms = _TrioAlarms()
        _alarms.set(alarms)
    return alarms.call_at
