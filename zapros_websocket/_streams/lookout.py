"""A lookout for the readers of many connections on trio: one task that asks the kernel about all of their sockets.

trio asks the kernel anew each time a task waits for a socket, and wakes a task for each that is ready. With many
connections that is most of what a message costs. So where there is a crowd of readers, each hands its socket over: the
kernel is told of it once, and the lookout receives whatever comes, until there is something that the reader has to do.

Invariants:

- A socket is on the lookout only while its reader waits there: it is taken away when the reader is cancelled, has
  something to do, or hears that the socket is going to be closed.
- What is received goes to the sink in the step in which it was received, and an error to the reader.
- All sockets that are ready are read in one turn of the scheduler, as by readers of their own; none of them for long.
- Nothing that goes wrong with one of them is raised here, where it would end the event loop.
- What is called for a reader runs in its context (contextvars).
"""

from __future__ import annotations

import select
from contextlib import suppress
from typing import Final, Protocol

import trio
from trio.lowlevel import Abort, RunVar, Task

# Readers on watch that make a crowd. With fewer of them it would cost more than it saves: one task more for a message.
CROWD: Final = 16


class Watched(Protocol):
    """What a reader has on the lookout."""

    def look(self, *, is_alone: bool) -> bool:
        """Receive what has come, to this socket alone or to others as well, and raise nothing.

        Whether the reader has to go on itself: there is more, or an end, or an error, or the watch was left.
        """
        ...


class Lookout:
    """The lookout of an event loop."""

    def __init__(self) -> None:
        # How many readers there are, and how many of them have left the watch to who waits for a message.
        self.readers = 0
        self.left = 0
        self._is_usable = hasattr(select, "epoll")
        self._epoll: select.epoll | None = None
        self._tasks: dict[int, tuple[Watched, Task]] = {}

    def leave(self) -> None:
        """A reader goes, and the last one leaves no descriptor behind."""
        self.readers -= 1
        if not self.readers and self._epoll is not None:
            self._close(self._epoll)

    @property
    def may_be_left(self) -> bool:
        """Whether so few readers have left the watch that another one may."""
        return self.left < CROWD

    def take(self, fileno: int, watched: Watched) -> bool:
        """Whether a socket is watched from now on: where there is a crowd. Its reader must then ``wait`` at once."""
        if self.readers < CROWD or not self._is_usable:
            return False
        try:
            if self._epoll is None:
                self._epoll = select.epoll()
                trio.lowlevel.spawn_system_task(self._run, self._epoll, name=f"{__name__}.{type(self).__name__}")
            self._epoll.register(fileno, select.EPOLLIN)
        except (OSError, ValueError):
            # There is no descriptor or no memory left for it, or the socket is closed: trio says what is wrong with it.
            return False
        self._tasks[fileno] = watched, trio.lowlevel.current_task()
        return True

    async def wait(self, fileno: int) -> None:
        """Wait until the reader of a socket that was taken has to go on itself. Cancelling it loses nothing."""

        def abort(_: object) -> Abort:
            self._take_away(fileno)
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self, fileno: int) -> None:
        """Have the reader of a socket go on by itself, if it waits here: the socket may be closed then."""
        if fileno in self._tasks:
            trio.lowlevel.reschedule(self._take_away(fileno))

    def _take_away(self, fileno: int) -> Task:
        assert self._epoll is not None
        with suppress(OSError, ValueError):
            # Nothing is to be done about one that was closed by somebody else.
            self._epoll.unregister(fileno)
        return self._tasks.pop(fileno)[1]

    async def _run(self, epoll: select.epoll) -> None:
        try:
            while not epoll.closed:
                with suppress(trio.ClosedResourceError):
                    await trio.lowlevel.wait_readable(epoll.fileno())
                ready = [] if epoll.closed else epoll.poll(0, max(1, len(self._tasks)))
                for fileno, _ in ready:
                    self._look_at(fileno, is_alone=len(ready) == 1)
        finally:
            if not epoll.closed:
                # The event loop ends. Who is still there waits by itself.
                self._is_usable = False
                for fileno in list(self._tasks):
                    self.wake(fileno)
                self._close(epoll)

    def _close(self, epoll: select.epoll) -> None:
        self._epoll = None
        trio.lowlevel.notify_closing(epoll.fileno())
        epoll.close()

    def _look_at(self, fileno: int, *, is_alone: bool) -> None:
        # What was done for one before it may have taken it away.
        entry = self._tasks.get(fileno)
        if entry is None:
            return
        watched, task = entry
        if task.context.run(watched.look, is_alone=is_alone) and self._tasks.get(fileno) is entry:
            self.wake(fileno)


_lookout: Final[RunVar[Lookout]] = RunVar("_lookout")


def lookout_here() -> Lookout:
    """The lookout of the event loop that runs."""
    try:
        return _lookout.get()
    except LookupError:
        lookout = Lookout()
        _lookout.set(lookout)
        return lookout
