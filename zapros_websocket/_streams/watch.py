"""Whose watch it is on a socket of trio: the reader's, or that of a task which waits in ``recv``.

With the reader on watch, a message for a task that waits takes two turns of the scheduler: it wakes the reader, and the
reader wakes the task. So when one message is waited for soon after the other, the reader leaves the watch to the task.

Invariants:

- Only one task has the watch. What it receives goes to the same sink as ever, in the step in which it was received.
- A task on watch does for a message, and a ping that is answered at once, what the reader does, and nothing else: the
  end, an error and what cannot be taken in or answered wait for the reader, who has the watch back at once.
- The watch comes back by itself when nobody has received anything for ``PATIENCE``; at once for a second task that
  waits, and for whatever waits for something else than a message. So pings are answered a little later at most.
- A task that has lost the watch waits on like any other. Cancelling it loses nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from enum import Enum, auto
from math import inf
from typing import Final, Protocol

import trio

from .._waiting import TrioWaiter, Waiter
from .lookout import lookout_here

# The most seconds from one message that was waited for to the next, for the watch to be left to the tasks; and those in
# which one of them has to receive something, for it to stay there.
SOON: Final = 0.01
PATIENCE: Final = 0.02

# Messages that are waited for, before the watch is left again when there was more to read than what was waited for.
MESSAGES_TO_KEEP: Final = 4

# Reads that need not wait, before others have their turn.
READS_IN_A_ROW: Final = 8


class Next(Enum):
    """What to do after a read: again, once there is something, or nothing more."""

    GO_ON = auto()
    WAIT = auto()
    STOP = auto()


class Takers(Protocol):
    """Those who wait for what a stream brings."""

    watch: Watch | None
    """The watch, while it is theirs."""

    @property
    def has_one(self) -> bool:
        """Whether one task, and no other, has waited for what has come, and is about to take it."""
        ...


class Watch:
    """The reader's watch over a socket, and the way in which it leaves it to the ``takers``."""

    def __init__(self, sock: socket.socket, receive: Callable[[], Next], takers: Takers | None) -> None:
        self.socket = sock
        self.is_left = False
        self._receive = receive
        self._takers = takers
        self._lookout = lookout_here()
        # What the last read of another than the reader has come to, how it failed, and how many there were.
        self.after = Next.WAIT
        self._error: BaseException | None = None
        self._reads = 0
        # When a message came last that was waited for.
        self._waited_for_at = -inf
        # How many more messages have to be waited for before the watch may be left.
        self._to_keep = 0
        # Whether a task is in the middle of its wait for the socket.
        self.is_waiting = False
        self._back: trio.Event

    async def keep(self) -> None:
        """Receive until the sink wants no more. Cancelling it loses nothing."""
        in_a_row = 0
        has_waited = False
        self._lookout.readers += 1
        try:
            after = self._receive()
            while after is not Next.STOP:
                if after is Next.GO_ON:
                    in_a_row += 1
                    if in_a_row >= READS_IN_A_ROW:
                        # A stream that never runs dry: let others have their turn.
                        in_a_row = 0
                        await trio.lowlevel.checkpoint()
                    after = self._receive()
                    continue
                in_a_row = 0
                if has_waited:
                    self._leave_if_it_pays()
                if not self.is_left:
                    has_waited = True
                    if not self._lookout.take(self.socket.fileno(), self):
                        await trio.lowlevel.wait_readable(self.socket)
                        after = self._receive()
                        continue
                    await self._lookout.wait(self.socket.fileno())
                if self.is_left:
                    has_waited = False
                    await self._until_back()
                    if self.after is Next.GO_ON:
                        self.after = self._receive()
                        if self.after is not Next.WAIT:
                            self._to_keep = MESSAGES_TO_KEEP
                after = self._after_others()
        finally:
            self._lookout.leave()

    def look(self, *, is_alone: bool) -> bool:
        """Receive for the reader that is on the lookout, and say whether it has to go on itself."""
        try:
            for _ in range(READS_IN_A_ROW):
                self.read()
                if self.after is not Next.GO_ON:
                    break
        except BaseException as error:
            # Not in the lookout, which is there for all: it comes out where the reader would have raised it.
            self.fail(error)
        if is_alone and self.after is Next.WAIT:
            self._leave_if_it_pays()
        return self.is_left or self.after is not Next.WAIT

    def close(self) -> None:
        """The socket is going to be closed: have the reader say so."""
        if not self.is_left:
            self.fail(trio.ClosedResourceError("the socket was closed meanwhile"))
            self._lookout.wake(self.socket.fileno())

    def _after_others(self) -> Next:
        if self._error is not None:
            raise self._error
        after, self.after = self.after, Next.WAIT
        return after

    def _leave_if_it_pays(self) -> None:
        """Leave the watch to the takers when they wait for one message soon after the other."""
        if self._takers is not None and self._takers.has_one:
            now = trio.current_time()
            since, self._waited_for_at = now - self._waited_for_at, now
            self._to_keep -= 1
            # What a crowd has to say is cheaper for the lookout.
            if since < SOON and self._to_keep < 0 and self._lookout.may_be_left and _goes_on_by_itself():
                self._lookout.left += 1
                self._back = trio.Event()
                self.after = Next.WAIT
                self.is_left = True
                self._takers.watch = self

    async def _until_back(self) -> None:
        """Wait until the watch is back from the takers."""
        try:
            seen = -1
            while seen != self._reads and not self._back.is_set():
                seen = self._reads
                with trio.move_on_after(PATIENCE):
                    await self._back.wait()
        finally:
            self.take_back()

    def take_back(self) -> None:
        """Have the reader on watch."""
        if self.is_left:
            # All of it, because the reader may not have waited for it yet.
            assert self._takers is not None
            self._takers.watch = None
            self._lookout.left -= 1
            self.is_left = False
            self._back.set()
            self.interrupt()

    # The task on watch

    def new_waiter(self) -> Waiter:
        """The wait of a task that has the watch as long as it is left to it."""
        return _Watcher(self)

    @trio.lowlevel.enable_ki_protection
    def read(self) -> None:
        """Receive what is there."""
        self._reads += 1
        try:
            self.after = self._receive()
        except Exception as error:
            self.fail(error)
        else:
            if self.after is Next.STOP:
                self.take_back()

    def fail(self, error: BaseException) -> None:
        """The socket is broken: have the reader say so."""
        self._error = error
        self.after = Next.STOP
        self.take_back()

    def interrupt(self) -> None:
        """End the wait of the task for the socket, if it is in the middle of it."""
        if self.is_waiting:
            self.is_waiting = False
            # It says that the socket is closed, which is not so: those who wait for it look, and try again.
            trio.lowlevel.notify_closing(self.socket)


class _Watcher(TrioWaiter):
    __slots__ = ("_is_on_watch", "_is_woken", "_watch")

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch
        self._is_on_watch = False
        self._is_woken = False

    async def wait(self) -> None:
        watch = self._watch
        in_a_row = 0
        self._is_on_watch = True
        try:
            while watch.is_left and not self._is_woken:
                if watch.after is Next.WAIT:
                    in_a_row = 0
                    watch.is_waiting = True
                    await trio.lowlevel.wait_readable(watch.socket)
                    watch.is_waiting = False
                else:
                    in_a_row += 1
                    if in_a_row == READS_IN_A_ROW:
                        in_a_row = 0
                        await trio.lowlevel.checkpoint()
                if watch.is_left and not self._is_woken:
                    watch.read()
        except Exception as error:
            if watch.is_left and not self._is_woken:
                watch.fail(error)
        finally:
            self._is_on_watch = watch.is_waiting = False
        if watch.after is Next.GO_ON:
            # What does not run dry is read faster by the reader, who need not wait for the task.
            watch.take_back()
        if not self._is_woken:
            await super().wait()

    def wake(self) -> bool:
        if not self._is_on_watch:
            return super().wake()
        self._is_woken = True
        self._watch.interrupt()
        return True


def _goes_on_by_itself() -> bool:
    """Whether time passes while all tasks wait; a clock of a test may stand still, and never bring the watch back."""
    clock = trio.lowlevel.current_clock()
    return clock.deadline_to_sleep_time(clock.current_time() + PATIENCE) <= 2 * PATIENCE
