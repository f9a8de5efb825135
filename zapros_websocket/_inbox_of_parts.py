"""An inbox in which a large message lies part by part, for one taker who asks for it so.

Invariants:

- Those of the inbox; parts count as messages in its bounds, so that a large message stops the reader when nobody takes.
- A message that lies in parts is not given to who asks for a whole one: that is an error, and the message stays.
- From its first part to its last a message belongs to one taker, and all others wait. What that taker leaves of it is
  dropped, also what has not come yet, and the next taker gets the next message.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._errors import LargeMessageError
from ._inbox import Data, Inbox
from ._protocol.messages import Message, Part
from ._waiting import NewWaiter, Place


class InboxOfParts(Inbox):
    """Messages in wire order, and parts of them."""

    def __init__(self, new_waiter: NewWaiter) -> None:
        super().__init__(new_waiter)
        self._begin()

    def _begin(self) -> None:
        # What is leftmost may be a part: nobody takes it without a look at it.
        self.is_simple = False
        self._is_open = False
        self._is_skipping = False
        self._waiting_for_parts: tuple[Place, ...] = ()

    # The reader's side

    def put_data(self, messages: Sequence[Data], size: int | None = None) -> None:
        """Add what one read has brought, but for what is left of a message that nobody wants."""
        super().put_data([message for message in messages if self._is_wanted(message)])
        self._wake_for_parts()

    def end(self) -> None:
        """Nothing more comes: who finds the queue empty takes None."""
        super().end()
        self._wake_for_parts()

    # The takers' side

    def pop(self) -> Message | None:
        """As that of the inbox.

        Raises:
            LargeMessageError: the next message lies in parts.
        """
        self._raise_for_parts(self.peek())
        return super().pop()

    def open(self) -> None:
        """Take the message whose first part is what ``peek`` gave in this step."""
        self._is_open = True

    def take_part(self) -> Part | None:
        """The next part of the message that is open, or None when it has not come."""
        if not self.data:
            return None
        part = self._take_leftmost()
        if part.is_final:
            self._is_open = False
            self._wake()
        return part

    async def wait_for_part(self) -> bool:
        """Wait until there is a part to take; False when none comes any more. Cancelling it has no effect."""
        if not self.data and not self._ended:
            self.take_back()
            place = self._new_waiter()
            self._waiting_for_parts += (place,)
            try:
                await place.wait()
            finally:
                self._no_longer_waits(place)
        return bool(self.data) or not self._ended

    def leave_open(self) -> None:
        """Drop what is left of the message that is open, and let the next taker have the next."""
        self._is_open = False
        self._is_skipping = True
        while self._is_skipping and self.data:
            self._is_skipping = not self._take_leftmost().is_final
        self._wake()

    # How it is done

    def _take_leftmost(self) -> Part:
        part: object = self.data.popleft()
        assert isinstance(part, Part)
        self._let_in_when_low()
        return part

    def _let_in_when_low(self) -> None:
        if len(self.data) == self.low_mark:
            self.let_in()

    def _raise_for_parts(self, message: object) -> None:
        if isinstance(message, Part):
            self._wake()
            raise LargeMessageError(message.kind)

    @property
    def _has_something(self) -> bool:
        return not self._is_open and super()._has_something

    def _is_wanted(self, message: Data) -> bool:
        if self._is_skipping:
            self._is_skipping = not (isinstance(message, Part) and message.is_final)
            return False
        return super()._is_wanted(message)

    def _settle(self) -> None:
        self.is_simple = False

    def _wake_for_parts(self) -> None:
        for place in self._waiting_for_parts:
            place.wake()

    def _no_longer_waits(self, place: Place) -> None:
        self._waiting_for_parts = tuple(other for other in self._waiting_for_parts if other is not place)
