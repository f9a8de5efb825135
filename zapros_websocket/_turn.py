"""Whose turn it is to write: a first-in, first-out lock that costs a flag while nobody waits.

Invariants:

- The turn is handed over: nobody can take it between the one who gives it back and the first who waits.
- A wait that is cancelled keeps nothing: a turn that it had already been given goes to the next.
"""

from __future__ import annotations

from collections import deque
from threading import Lock

from ._waiting import NewWaiter, Waiter


class Turn:
    """At most one task has it."""

    def __init__(self, new_waiter: NewWaiter) -> None:
        self.is_taken = False
        self._new_waiter = new_waiter
        self._waiting: deque[Waiter] = deque()

    async def take(self, *, first: bool = False) -> None:
        """Wait for the turn, behind all who wait already or, with ``first``, in front of them.

        Not a checkpoint when the turn is free. Cancelling it has no effect on the others.
        """
        given = self._enter(first=first)
        if given is None:
            return
        try:
            await given.wait()
        except BaseException:
            if given in self._waiting:
                self._waiting.remove(given)
            else:
                self.give_back()
            raise

    def give_back(self) -> None:
        """Hand the turn to the first who waits."""
        if self._waiting:
            self._waiting.popleft().wake()
        else:
            self.is_taken = False

    def _enter(self, *, first: bool) -> Waiter | None:
        """Take the turn, or a place among those who wait for it."""
        if not self.is_taken:
            self.is_taken = True
            return None
        given = self._new_waiter()
        if first:
            self._waiting.appendleft(given)
        else:
            self._waiting.append(given)
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
        return bool(self._waiting)

    def _enter(self, *, first: bool) -> Waiter | None:
        with self.mutex:
            return super()._enter(first=first)
