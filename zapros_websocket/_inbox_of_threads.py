"""The channel from the reader in an event loop to ``recv`` in threads: an inbox whose takers may wait anywhere.

Invariants:

- Those of the inbox, between threads: a mutex is held while the queue changes hands, and never for long.
- What has arrived crosses to the threads in batches, and is taken from there without a lock and without the event loop,
  which hears of it when it waits for room. A batch counts against the bounds until the next has crossed.
- A thread that takes one message soon after the other reads the socket itself: see ``_lending``.
- An interrupt (KeyboardInterrupt) loses nothing: a wake-up carries nothing, and what was taken is put back.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import inf
from operator import itemgetter
from sys import maxsize
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ._attentive import acquire
from ._inbox import MAX_BYTES, MAX_MESSAGES, Data, Inbox
from ._lending import popped
from ._portal import refuse_event_loop
from ._protocol.messages import BinaryMessage, Message, TextMessage
from ._soon import Soon
from ._streams.base import READ_SIZE
from ._waiting import NewWaiter

if TYPE_CHECKING:
    from ._lending import Lending

# Bytes of a message up to which a thread is to read the next one itself: the reader does not copy large ones.
_SMALL: Final = 8 * 1024


class ThreadPlace:
    """The place of a thread in a queue, where it waits until it is woken."""

    __slots__ = ("_is_set", "_lock", "is_left")

    def __init__(self) -> None:
        # Whether its thread waits no more. To say so is a single step, between whose parts no interrupt comes.
        self.is_left = False
        self._is_set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> None:
        """Wake it; twice is once. Not to be called by two threads at a time."""
        if not self._is_set:
            self._is_set = True
            self._lock.release()

    def wait(self, timeout: float | None) -> bool:
        """Wait for up to ``timeout`` seconds, and return whether it was woken. An interrupt comes out at once."""
        return self._is_set or acquire(self._lock, timeout)


def drop_left(waiting: deque[Any]) -> None:
    """Take the places away from the front of a queue that their threads have left."""
    while waiting and waiting[0].is_left:
        waiting.popleft()


def take_away(waiting: deque[Any], place: ThreadPlace) -> None:
    """Take a place that was left out of a queue, wherever it stands, unless others have done so."""
    if place in waiting:
        waiting.remove(place)


class InboxOfThreads(Inbox):
    """Messages in wire order, from one reader in an event loop to any number of threads."""

    def __init__(self, new_waiter: NewWaiter, soon: Soon) -> None:
        super().__init__(new_waiter)
        self._waiting = deque()
        # The reader takes it again while it has it: ``put`` calls ``put_data``.
        self._mutex = threading.RLock()
        self._soon = soon
        self._lending: Lending | None = None
        self._taken_at = -inf
        self._crossed: deque[Message] = deque()
        self._crossed_bytes = 0
        # What ``popleft`` returns could be lost to an interrupt, which comes behind a call; a loop over this is none.
        self._popping: Iterator[Message] = popped(self._crossed, maxsize)
        # It is that, once something has crossed.
        self._taking: Iterator[Message] = iter(())

    def lend_from_now_on(self, lending: Lending, take: Callable[[bytes], object]) -> None:
        """Have the socket lent to threads that wait; ``take`` is given what they have read and not understood."""
        self._lending = lending
        self._take_in = take

    # The reader's side

    @property
    def is_full(self) -> bool:
        """Whether the reader has to wait: for room, or for the socket."""
        lending = self._lending
        return self._needs_room or (lending is not None and (lending.is_wanted or lending.is_lent))

    @property
    def is_deaf(self) -> bool:
        """Whether the reader waits, and what the peer sends does not reach it."""
        return self._needs_room or (self._lending is not None and self._lending.is_out)

    @property
    def has_one(self) -> bool:
        """Threads cannot wait for a socket as a task does."""
        return False

    async def room(self) -> None:
        """Wait until the queue has drained to its low mark, or needs to no more, and until the socket is back."""
        while self.is_full:
            if self._needs_room or self._lending is None:
                await super().room()
            else:
                await self._lend(self._lending)

    async def _lend(self, lending: Lending) -> None:
        with self._mutex:
            # A thread that waits already would not know that it is the one to read.
            drop_left(self._waiting)
            is_awaited = self._waiting and not self._has_something
            lending.is_wanted = False
            if is_awaited or not lending.lend():
                return
        try:
            await lending.until_back()
        finally:
            with self._mutex:
                self._taking = self._popping
                rest = lending.end(self._crossed)
                self._wake()
            if rest:
                self._take_in(rest)
            if lending.is_at_end:
                self._take_in(b"")
        lending.raise_error()

    def take_back(self) -> None:
        """Have the reader read on at once, in its thread, when the socket is lent."""
        if self._lending is not None:
            self._lending.take_back()

    def put_data(self, messages: Sequence[Data], size: int | None = None) -> None:
        """Add what one read has brought, and wake the first who waits. ``size`` is that of the read, if known."""
        with self._mutex:
            super().put_data(messages, size)
            if not self._dropping and self._is_at_bound:
                # Unlike that of the inbox, the reader hears of it when all is taken: see ``_cross``.
                self.low_mark = 0

    def put(self, messages: Sequence[Message], size: int | None = None) -> None:
        """Add messages of any kind, as ``put_data`` does."""
        with self._mutex:
            super().put(messages, size)

    def end(self) -> None:
        """Nothing more comes: who finds the queue empty takes None."""
        with self._mutex:
            super().end()

    # The takers' side

    def take(self, timeout: float | None) -> Message | None:
        """The next message in wire order, or None at the end, in up to ``timeout`` seconds.

        Raises:
            TimeoutError: there was none.
        """
        if not self._waiting and self.low_mark < 0:
            try:
                for message in self._taking:
                    return message
            except IndexError:
                # All that had crossed is taken.
                pass
        return self._fetch_and_take(timeout, self._next)

    def put_back(self, message: Message) -> None:
        """Put a message that was taken in front of all others, and wake the first who waits."""
        with self._mutex:
            self._crossed.appendleft(message)
            self._taking = self._popping
            self._wake()

    def _fetch_and_take(self, timeout: float | None, take_next: Callable[[], Message | None]) -> Message | None:
        message: Message | None = None
        place = ThreadPlace()
        give_up_at = None if timeout is None else monotonic() + timeout
        try:
            with self._mutex:
                drop_left(self._waiting)
                self._cross()
                if timeout == 0 and not self._waiting and not self._has_something:
                    self._read_without_waiting()
                while not self._waiting and self._has_something:
                    message = take_next()
                    if self._is_served(message):
                        self._make_room()
                        self._ask_for_loan(message)
                        return message
                    self._cross()
                if timeout == 0:
                    raise _too_late(timeout)
                self._waiting.append(place)
            refuse_event_loop("await ws.recv()")
            while True:
                is_woken = self._read_here(place, give_up_at) or place.wait(_left_until(give_up_at))
                with self._mutex:
                    # One that is first is served also when a message came in the moment in which its time was over.
                    while self._waiting[0] is place and self._has_something:
                        self._cross()
                        message = take_next()
                        if self._is_served(message):
                            self._make_room()
                            self._waiting.popleft()
                            if self._waiting:
                                self._wake()
                            self._ask_for_loan(message)
                            return message
                    if not is_woken:
                        raise _too_late(timeout)
                    # Another thread was faster, which had begun to take before this one waited.
                    place = self._waiting[0] = ThreadPlace()
        except BaseException:
            # Another interrupt may come at any call: what must not get lost is done by then.
            place.is_left = True
            if message is not None:
                self._crossed.appendleft(message)
            with self._mutex:
                take_away(self._waiting, place)
                self._wake()
            raise

    # How it is done

    def _ask_for_loan(self, message: Message | None) -> None:
        """Once a message was taken soon after the last, the next may be as well: this thread could read it itself."""
        lending = self._lending
        if lending is None or message is None or self._lifted:
            return
        now = monotonic()
        since, self._taken_at = now - self._taken_at, now
        if self._waiting:
            # The next thread in the row waits for the reader already.
            if lending.is_lent:
                lending.give_back()
        elif since < lending.patience / 2 and isinstance(message, (TextMessage, BinaryMessage)):
            lending.is_wanted = len(message.data) <= _SMALL

    def _read_here(self, place: ThreadPlace, give_up_at: float | None) -> bool:
        """Read the socket in this thread if it is lent, until there is something to take, which is returned, or none
        has come for too long."""
        lending = self._lending
        # Nobody lends it while somebody waits, so nothing but a loan from before is meant for this thread.
        if lending is None or not lending.is_lent or self._waiting[0] is not place:
            return False
        give_back_at = monotonic() + lending.patience
        until = give_back_at if give_up_at is None else min(give_back_at, give_up_at)
        while (left := until - monotonic()) > 0 and lending.wait(left):
            with self._mutex:
                if not lending.is_lent:
                    return False
                self._read_without_waiting()
                if self._has_something or not lending.is_lent:
                    return self._has_something
        if until == give_back_at:
            with self._mutex:
                lending.give_back()
        return False

    def _read_without_waiting(self) -> None:
        if self._lending is not None and self._lending.is_lent:
            self._taking = self._popping
            self._crossed_bytes = READ_SIZE
            self._lending.read(self._crossed)

    def _wake(self) -> None:
        drop_left(self._waiting)
        super()._wake()

    def _next(self) -> Message | None:
        message: Message
        try:
            [message] = popped(self._crossed, 1)
        except IndexError:
            # A thread that takes without a lock may have been faster.
            return None
        return message

    def _is_served(self, message: Message | None) -> bool:
        """Whether what was taken is a message or the end, and not nothing because another thread was faster."""
        return message is not None or (self._ended and not (self._crossed or self.data or self._control))

    def _make_room(self) -> None:
        # A reader that is stopped hears at once when all is taken, also when nobody asks for more.
        if self.low_mark >= 0:
            self._cross()

    def _cross(self) -> None:
        """Have all that has arrived cross, once all that had crossed is taken."""
        if self._crossed:
            return
        if not (self.data or self._control or self.low_mark >= 0):
            self._crossed_bytes = 0
            return
        self._crossed_bytes = self._bytes if self.data else 0
        while self._control:
            before = self._control[0][0] - (self._put - len(self.data))
            self._crossed.extend(popped(self.data, before))
            self._crossed.extend(map(itemgetter(1), popped(self._control, 1)))
        self._crossed.extend(popped(self.data, len(self.data)))
        self._taking = self._popping
        is_low = len(self._crossed) <= MAX_MESSAGES // 4 and self._crossed_bytes <= MAX_BYTES // 4
        if self.low_mark >= 0 and is_low:
            self._soon(self._go_on)

    def _go_on(self) -> None:
        # In the thread of the reader, where no interrupt can come between the two.
        self.low_mark = -1
        self._wake_reader()

    @property
    def _has_something(self) -> bool:
        # Not by way of the inbox: it is asked four times for a message.
        return bool(self._crossed or self.data or self._control or self._ended)

    @property
    def _is_at_bound(self) -> bool:
        messages, size = len(self.data) + len(self._crossed), self._bytes + self._crossed_bytes
        return messages >= MAX_MESSAGES or size >= MAX_BYTES

    @property
    def _popped(self) -> int:
        return self._put - len(self.data) - len(self._crossed)


def _left_until(give_up_at: float | None) -> float | None:
    return None if give_up_at is None else max(0, give_up_at - monotonic())


def _too_late(timeout: float | None) -> TimeoutError:
    return TimeoutError(f"no message came within {timeout:g} seconds")
