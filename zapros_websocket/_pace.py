"""How often an operation that need not block lets other tasks run.

Invariants:

- Every operation observes a cancellation that is already there, also a native one of asyncio.
- No more than ``EVERY`` operations in a row go without a turn of the scheduler, whatever connections they are on.

To ask trio and anyio whether the task is cancelled costs as much as all the rest of an operation. So it is looked up
where they keep it, in this guarded place; where that is not what it was, each operation asks them in public.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Final, Protocol, TypeAlias, cast
from weakref import ref

import trio
from anyio._backends import _asyncio as anyio_asyncio
from anyio.lowlevel import RunVar, cancel_shielded_checkpoint, checkpoint_if_cancelled

from ._protocol.frames import context_switches

EVERY: Final = 32

# Whether trio and anyio keep it where they did.
_trio_globals = cast("Mapping[str, object]", getattr(trio.lowlevel.current_task, "__globals__", {}))
knows_trio = "GLOBAL_RUN_CONTEXT" in _trio_globals and all(
    hasattr(trio.lowlevel.Task, name) for name in ("_cancel_status", "_schedule_points")
)
knows_anyio = hasattr(anyio_asyncio, "_task_states") and all(
    hasattr(anyio_asyncio.CancelScope, name) for name in ("_cancel_called", "_parent_scope", "_shield")
)
# Which task runs costs a call of Python in Python before 3.12, unless it is looked up where that call does it.
_Running: TypeAlias = "Callable[[asyncio.AbstractEventLoop], asyncio.Task[object] | None]"
_task_globals = cast("Mapping[str, Mapping[object, asyncio.Task[object]]]", getattr(current_task, "__globals__", {}))
_running: _Running = _task_globals["_current_tasks"].get if "_current_tasks" in _task_globals else current_task
_states: Final = cast("Mapping[object, anyio_asyncio.TaskState]", getattr(anyio_asyncio, "_task_states", {}))


class Turns(Protocol):
    """Gives another number in each turn of the scheduler; where nobody can tell, in each call."""

    def __call__(self) -> int: ...


class Pace(Protocol):
    """The pace of the operations of one connection."""

    @property
    def turn(self) -> Turns:
        """The turns of the scheduler."""
        ...

    def is_due(self) -> bool:
        """Count an operation that will not block: whether it has to ``observe`` before it does anything."""
        ...

    def waited(self) -> None:
        """The task has waited, so that the scheduler had its turn."""

    async def observe(self) -> None:
        """Count as well, raise if the task is cancelled, and let the scheduler run when it is time."""
        ...

    async def raise_if_cancelled(self) -> None:
        """Raise if the task is cancelled; nothing else runs before that is known."""
        ...

    async def let_others_run(self) -> None:
        """Let the scheduler run when it is time, and leave a cancellation that comes meanwhile to the next operation.

        Only a native one of asyncio comes out of it.
        """
        ...


class _Count:
    """The operations that may still skip a turn of the scheduler, on all connections of an event loop together."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = EVERY


_count: Final[RunVar[_Count]] = RunVar("_count")


def _count_here() -> _Count:
    try:
        return _count.get()
    except LookupError:
        count = _Count()
        _count.set(count)
        return count


class TrioPace:
    """On trio, where the task knows the state of its cancellation."""

    __slots__ = ("_count", "_here", "turn")

    def __init__(self) -> None:
        self._count = _count_here()
        # What trio keeps for this thread: the dict behind it, in which the task is found at once.
        self._here: dict[str, trio.lowlevel.Task] = vars(_trio_globals["GLOBAL_RUN_CONTEXT"]) if knows_trio else {}
        self.turn = _turn_in(self._here)

    def is_due(self) -> bool:
        count = self._count
        count.left = left = count.left - 1
        if left <= 0 or not knows_trio:
            return True
        return self._here["task"]._cancel_status.effectively_cancelled  # pyright: ignore[reportPrivateUsage]

    def waited(self) -> None:
        self._count.left = EVERY

    async def observe(self) -> None:
        self._count.left -= 1
        if self._count.left <= 0:
            self._count.left = EVERY
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    async def raise_if_cancelled(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()

    async def let_others_run(self) -> None:
        if self._count.left <= 0:
            self._count.left = EVERY
            await trio.lowlevel.cancel_shielded_checkpoint()


class AsyncioPace:
    """On asyncio, where a task is cancelled natively, or by the cancel scopes of anyio that it is in."""

    __slots__ = ("_count", "_loop", "_state", "_task", "turn")

    def __init__(self) -> None:
        self._count = _count_here()
        self._loop = asyncio.get_running_loop()
        self.turn = _turn_in({})
        # The task that was last seen here, and where anyio keeps its scopes.
        self._task: Callable[[], object] = _no_task
        self._state: anyio_asyncio.TaskState | None = None

    def is_due(self) -> bool:
        count = self._count
        count.left = left = count.left - 1
        if left <= 0 or not knows_anyio:
            return True
        task = _running(self._loop)
        if task is not self._task() and not self._see(task):
            return True
        if task._must_cancel:  # type: ignore[union-attr]  # pyright: ignore
            return True
        state = self._state
        if state is None:
            # A task that is in no scope yet may be in one later.
            self._state = state = _states.get(task)
            if state is None:
                return False
        scope = state.cancel_scope
        while scope is not None:
            if scope._cancel_called:  # pyright: ignore[reportPrivateUsage]
                return True
            if scope._shield:  # pyright: ignore[reportPrivateUsage]
                return False
            scope = scope._parent_scope  # pyright: ignore[reportPrivateUsage]
        return False

    def _see(self, task: asyncio.Task[object] | None) -> bool:
        """Whether the task says if it is cancelled."""
        if task is None or not hasattr(task, "_must_cancel"):
            return False
        self._task = ref(task)
        self._state = None
        return True

    def waited(self) -> None:
        self._count.left = EVERY

    async def observe(self) -> None:
        self._count.left -= 1
        if self._count.left <= 0:
            self._count.left = EVERY
            await asyncio.sleep(0)
            return
        await self.raise_if_cancelled()

    async def raise_if_cancelled(self) -> None:
        await checkpoint_if_cancelled()
        if _must_cancel(current_task()):
            # task.cancel() was called by the task itself, and is to be raised at its next suspension: this one.
            await cancel_shielded_checkpoint()

    async def let_others_run(self) -> None:
        if self._count.left <= 0:
            self._count.left = EVERY
            await cancel_shielded_checkpoint()


def _turn_in(here: dict[str, trio.lowlevel.Task]) -> Turns:
    """What tells one turn of the scheduler from the next; without C only trio can be asked."""
    if context_switches is not None:
        return context_switches
    # Where nobody can tell, nothing seems to happen in the same turn as anything else.
    return partial(_turn_of_task, here) if here else count().__next__


def _turn_of_task(here: dict[str, trio.lowlevel.Task]) -> int:
    task = here["task"]
    return id(task) ^ task._schedule_points  # pyright: ignore[reportPrivateUsage]


def _must_cancel(task: asyncio.Task[object] | None) -> bool:
    return getattr(task, "_must_cancel", False)


def pace_here() -> Pace:
    """A pace for the event loop that runs."""
    return TrioPace() if trio.lowlevel.in_trio_run() else AsyncioPace()


def _no_task() -> object:
    # Nothing that a task could be.
    return _no_task
