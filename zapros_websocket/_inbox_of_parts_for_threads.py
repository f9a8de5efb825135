"""An inbox of parts whose takers are threads: whole messages cross to them, as ever, and parts do not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from operator import itemgetter
from typing import cast

from ._inbox import MAX_BYTES, MAX_MESSAGES, Data, size_of
from ._inbox_of_parts import InboxOfParts
from ._inbox_of_threads import InboxOfThreads, ThreadPlace
from ._lending import popped
from ._portal import refuse_event_loop
from ._protocol.messages import Message, Part
from ._soon import Soon
from ._time_left import time_left
from ._undisturbed import undisturbed
from ._waiting import NewWaiter


class InboxOfPartsForThreads(InboxOfParts, InboxOfThreads):
    """Messages in wire order, and parts of them, from one reader in an event loop to any number of threads."""

    def __init__(self, new_waiter: NewWaiter, soon: Soon) -> None:
        InboxOfThreads.__init__(self, new_waiter, soon)
        self._begin()

    # The reader's side

    def put_data(self, messages: Sequence[Data], size: int | None = None) -> None:
        """Add what one read has brought, but for what is left of a message that nobody wants."""
        with self._mutex:
            super().put_data(messages, size)

    def end(self) -> None:
        """Nothing more comes: who finds the queue empty takes None."""
        with self._mutex:
            super().end()

    # The takers' side

    def take_or_open(self, timeout: float | None) -> Message | Part | None:
        """As ``take``; but a message that lies in parts is taken, and what is returned then is its first.

        That one is to be taken as well, with ``take_part_within``.
        """
        opened: list[Part] = []

        def take_next() -> Message | None:
            first: object = self.data[0] if self.data and not self._crossed else None
            if not isinstance(first, Part):
                return self._next()
            opened.append(first)
            self.open()
            return None

        try:
            message = self._fetch_and_take(timeout, take_next)
        except BaseException:
            with self._mutex:
                if opened:
                    self._is_open = False
                    self._wake()
            raise
        return opened[0] if opened else message

    def take_part_within(self, timeout: float | None) -> Part | None:
        """The next part of the message that is open, or None when it will not come, in up to ``timeout`` seconds.

        Raises:
            TimeoutError: there was none.
        """
        left = time_left(timeout)
        # What was taken stands here before anything else can happen.
        taken: list[Part] = []
        try:
            while True:
                with self._mutex:
                    self._take_into(taken)
                    if taken or self._ended:
                        return taken[0] if taken else None
                    place = ThreadPlace()
                    self._waiting_for_parts += (place,)
                try:
                    refuse_event_loop("await ws.recv_chunks()")
                    is_woken = place.wait(next(left))
                finally:
                    with self._mutex:
                        self._no_longer_waits(place)
                if not is_woken and not self.data:
                    raise TimeoutError(f"no part of the message came within {timeout:g} seconds")
        except BaseException:
            with self._mutex:
                if taken:
                    self.data.extendleft(cast("list[Data]", taken))
                    self._is_open = True
            raise

    def leave_open(self) -> None:
        """Drop what is left of the message that is open, and let the next taker have the next."""
        undisturbed(self._leave_open)

    # How it is done

    def _leave_open(self) -> None:
        with self._mutex:
            super().leave_open()

    def _take_into(self, taken: list[Part]) -> None:
        if self.data:
            taken.extend(popped(self.data, 1))
            self._let_in_when_low()
            if taken[0].is_final:
                self._is_open = False
                self._wake()

    def _next(self) -> Message | None:
        if not self._crossed and self.data:
            self._raise_for_parts(self.data[0])
        return super()._next()

    def _is_served(self, message: Message | None) -> bool:
        return self._is_open or super()._is_served(message)

    def _cross(self) -> None:
        if self._crossed or self._is_open:
            return
        whole = next((at for at, message in enumerate(self.data) if isinstance(message, Part)), len(self.data))
        self._crossed_bytes = sum(map(size_of, islice(self.data, whole)))
        while True:
            # Control messages cross as far as they came in front of the first part.
            before = max(0, self._control[0][0] - (self._put - len(self.data))) if self._control else whole
            crossing = min(before, whole)
            self._crossed.extend(popped(self.data, crossing))
            whole -= crossing
            if not self._control or before > crossing:
                break
            self._crossed.extend(map(itemgetter(1), popped(self._control, 1)))
        self._taking = self._popping
        self._let_in_when_low()

    def _let_in_when_low(self) -> None:
        if self.low_mark >= 0 and len(self.data) + len(self._crossed) <= MAX_MESSAGES // 4:
            left = sum(map(size_of, self.data))
            if left + self._crossed_bytes <= MAX_BYTES // 4:
                self._soon(self._go_on)
