"""Where a synchronous connection lives: a task on the event loop of a portal, and the calls that threads make to it.

Invariants:

- An interrupt (KeyboardInterrupt) in a thread that waits comes out at once, and what it waited for is cancelled: no
  task is left behind that does anything. But what ends the connection is done all the same.
- The task ends when the connection does, and needs nobody to fetch it. What it ends with is the business of this
  connection alone; on trio also a SystemExit, which asyncio lets through to the whole loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from anyio import CancelScope

from ._attentive import Answer
from ._connect import bare
from ._portal import refuse_event_loop, way_into
from ._tasks import Tasks, new_tasks
from ._undisturbed import undisturbed

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

_T = TypeVar("_T")

Live = Callable[[Tasks, Callable[[_T], None]], Awaitable[None]]
"""A connection from its beginning to its end; it calls its second argument when it is open."""


class Host:
    """The home of one connection on the event loop of ``portal``."""

    def __init__(self, portal: BlockingPortal) -> None:
        self.soon = way_into(portal)
        self.is_over = False
        self._portal = portal
        self._abandoned = False
        self._scope: CancelScope | None = None
        self._tasks: Tasks | None = None
        self._calls: set[Call[Any]] = set()
        self._bug: BaseException | None = None
        self._opened: Answer[Any] = Answer()
        self._ended: Answer[None] = Answer()

    def open(self, live: Live[_T]) -> _T:
        """Begin ``live``, and wait until it is open; an interrupt cancels it."""
        try:
            self._portal.start_task_soon(self._run, live)
            return cast("_T", self._opened.wait())
        except BaseException:
            self.abandon()
            raise

    def call(
        self,
        function: Callable[[], Awaitable[_T]],
        *,
        instead: str,
        when_over: Callable[[], _T],
        goes_on: bool = False,
        is_last: bool = False,
    ) -> _T:
        """Await ``function`` beside the connection; an interrupt cancels it, unless it ``goes_on`` in the background.

        At the end of the connection it is ``when_over`` that is called, in this thread. What ``is_last`` ends the
        connection, and that is waited for at once, instead of waking this thread twice.
        """
        refuse_event_loop(instead)
        call = Call(function)

        def begin() -> None:
            self.soon(lambda: self._begin(call))

        try:
            # In this order: a connection that ends in between finds the call, and answers it.
            self._calls.add(call)
            if not self.is_over:
                undisturbed(begin)
                if is_last:
                    self._ended.wait()
                if call.answer.wait():
                    return call.value[0]
        except BaseException:
            # The interrupt may have come before it was begun.
            undisturbed(begin if goes_on else lambda: self.soon(call.cancel))
            raise
        finally:
            self._calls.discard(call)
        return when_over()

    def abandon(self) -> None:
        """Cancel the connection, from any thread and without waiting."""
        undisturbed(self._abandon)

    def _abandon(self) -> None:
        self._abandoned = True
        self.soon(self._cancel)

    def wait_until_over(self) -> None:
        """Wait for the end of the task; raise the bug that it ended with, if it did."""
        self._ended.wait()
        if self._bug is not None:
            raise self._bug

    # In the event loop

    async def _run(self, live: Live[_T]) -> None:
        try:
            with CancelScope() as self._scope:
                if self._abandoned:
                    self._scope.cancel()
                async with new_tasks() as tasks:
                    self._tasks = tasks
                    try:
                        await live(tasks, self._is_open)
                    finally:
                        self._tasks = None
        except BaseException as error:
            bug = bare(error)
            # An interrupt is for the program, where the event loop is the caller's and runs in the main thread.
            if not isinstance(bug, (Exception, SystemExit)):
                raise
            if not self._fails_to_open(bug):
                self._bug = bug
        finally:
            self.is_over = True
            self._fails_to_open(RuntimeError("the portal was stopped while the connection was opened"))
            for call in list(self._calls):
                call.end()
            self._ended.give(None)

    def _is_open(self, value: object) -> None:
        self._opened.give(value)

    def _fails_to_open(self, error: BaseException) -> bool:
        if self._opened.is_there:
            return False
        self._opened.fail(error)
        return True

    def _begin(self, call: Call[_T]) -> None:
        if self._tasks is None:
            call.end()
        elif not call.is_begun:
            call.is_begun = True
            self._tasks.start_soon(call.run)

    def _cancel(self) -> None:
        if self._scope is not None:
            self._scope.cancel()


class Call(Generic[_T]):
    """A call that a thread waits for."""

    def __init__(self, function: Callable[[], Awaitable[_T]]) -> None:
        self.answer: Answer[bool] = Answer()
        self.value: list[_T] = []
        self.is_begun = False
        self._function = function
        self._cancelled = False
        self._scope: CancelScope | None = None

    async def run(self) -> None:
        try:
            # What ends the connection ends the call as well, in its own way.
            with CancelScope(shield=True) as self._scope:
                if self._cancelled:
                    return
                self.value.append(await self._function())
        except Exception as error:
            self.answer.fail(error)
        finally:
            self.end()

    def end(self) -> None:
        if not self.answer.is_there:
            self.answer.give(bool(self.value))

    def cancel(self) -> None:
        """Cancel it, before or after it has begun."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()
