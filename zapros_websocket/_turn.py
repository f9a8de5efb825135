"""Whose turn it is to write: a first-in, first-out lock that costs a flag while nobody waits.

Invariants:

- The turn is handed over: nobody can take it between the one who gives it back and the first who waits.
- A wait that is cancelled keeps nothing: a turn that it had already been given goes to the next.
- Between the fragments of a message the turn is given to those only who ask to be ``first`` or to go ``between``.
- A job is done once: by who has waited with it, or by who had the turn before and took it over.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TypeAlias

from ._waiting import NewWaiter, Waiter

Job: TypeAlias = "Callable[[], bytes]"
"""What is written in a turn, encoded when it is called."""


class Turn:
    """At most one task has it."""

    def __init__(self, new_waiter: NewWaiter) -> None:
        self.is_taken = False
        self._new_waiter = new_waiter
        # Few wait at a time, and on most connections nobody ever does: an empty list is a tenth of an empty deque.
        self._waiting: list[Waiter] = []
        self._waiting_first: list[Waiter] = []
        # Those among the waiting who may go between.
        self._between: set[Waiter] = set()
        # And what those wait to do whom another may save the wait.
        self._jobs: dict[Waiter, Job] = {}
        # A message was begun and not ended: ``is_taken`` then, also while nobody has the turn.
        self._is_in_message = False
        self._is_between = False

    async def take(self, *, first: bool = False, between: bool = False, job: Job | None = None) -> bool:
        """Wait for the turn, behind all who wait already or, with ``first``, in front of all who do not say so.

        ``between`` is for what may stand between the fragments of a message, as what is ``first`` may, but waits in
        line otherwise. Not a checkpoint when the turn is free. Cancelling it has no effect on the others.

        It returns whether the caller has the turn: not when another has taken over the ``job`` and done it.
        """
        given = self._enter(first=first, between=between)
        if given is None:
            return True
        if job is not None:
            self._jobs[given] = job
        waiting = self._waiting_first if first else self._waiting
        try:
            await given.wait()
        except BaseException:
            if given in waiting:
                waiting.remove(given)
            elif job is None or given in self._jobs:
                self.give_back()
            raise
        finally:
            self._between.discard(given)
            is_left = job is None or self._jobs.pop(given, None) is not None
        return is_left

    @property
    def has_job(self) -> bool:
        """Whether the next who waits does so with a job."""
        is_next = self._waiting and not (self._waiting_first or self._is_in_message)
        return bool(is_next) and self._waiting[0] in self._jobs

    def take_over(self) -> Job | None:
        """Take the job of the next who waits, and wake that one; it is to be done in the step and the turn of the
        caller. None for one that was cancelled, and does not know of it yet."""
        given = self._waiting[0]
        if not given.wake():
            return None
        self._waiting.pop(0)
        return self._jobs.pop(given)

    def take_now(self) -> bool:
        """Take the turn as one who would be ``first``, if that need not wait; whether it was taken."""
        if self.is_taken and not self._is_between:
            return False
        self.is_taken = True
        self._is_between = False
        return True

    def give_back(self) -> None:
        """Hand the turn to the first who waits."""
        if self._waiting_first:
            self._waiting_first.pop(0).wake()
        elif self._is_in_message:
            for given in self._waiting if self._between else ():
                if given in self._between:
                    self._waiting.remove(given)
                    given.wake()
                    return
            self._is_between = True
        elif self._waiting:
            self._waiting.pop(0).wake()
        else:
            self.is_taken = False

    def begin_message(self) -> None:
        """Who has the turn begins a message of several fragments, each of which is written in a ``first`` turn."""
        self._is_in_message = True

    def end_message(self) -> None:
        """Nothing more comes of the message, in the turn or out of it."""
        self._is_in_message = False
        if self._is_between:
            self._is_between = False
            self.give_back()

    def _enter(self, *, first: bool, between: bool) -> Waiter | None:
        """Take the turn, or a place among those who wait for it."""
        if (first or between or not self.is_taken) and Turn.take_now(self):
            return None
        given = self._new_waiter()
        (self._waiting_first if first else self._waiting).append(given)
        if between:
            self._between.add(given)
        return given


class SharedTurn(Turn):
    """A turn that a thread beside the event loop may take as well: by holding ``mutex`` while it is not taken.

    Threads hold the mutex for as long as it takes to write without waiting. One that could not write everything leaves
    the turn taken, and a task to the event loop that gives it back; so does one that tasks have begun to wait behind.
    """

    def __init__(self, new_waiter: NewWaiter, mutex: Lock) -> None:
        super().__init__(new_waiter)
        self.mutex = mutex

    @property
    def is_awaited(self) -> bool:
        """Whether tasks wait for it, so that only the event loop can give it back; to be asked with ``mutex`` held."""
        return bool(self._waiting or self._waiting_first)

    def take_now(self) -> bool:
        """As ``Turn.take_now``."""
        with self.mutex:
            return super().take_now()

    def _enter(self, *, first: bool, between: bool) -> Waiter | None:
        with self.mutex:
            return super()._enter(first=first, between=between)
