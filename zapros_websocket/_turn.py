"""Whose turn it is to write: a first-in, first-out lock that costs a flag while nobody waits.

Invariants:

- The turn is handed over: nobody can take it between the one who gives it back and the first who waits.
- A wait that is cancelled keeps nothing: a turn that it had already been given goes to the next.
"""

from __future__ import annotations

from collections import deque

from anyio import Event


class Turn:
    """At most one task has it."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[Event] = deque()

    async def take(self, *, first: bool = False) -> None:
        """Wait for the turn, behind all who wait already or, with ``first``, in front of them.

        Not a checkpoint when the turn is free. Cancelling it has no effect on the others.
        """
        if not self._taken:
            self._taken = True
            return
        given = Event()
        if first:
            self._waiting.appendleft(given)
        else:
            self._waiting.append(given)
        try:
            await given.wait()
        except BaseException:
            if given.is_set():
                self.give_back()
            else:
                self._waiting.remove(given)
            raise

    def give_back(self) -> None:
        """Hand the turn to the first who waits."""
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._taken = False
