"""The channel from the reader to ``recv``.

Invariants:

- A message leaves the queue in the step of the task that takes it, never before: the wake-up carries nothing, so that a
  cancellation, also a native one of asyncio, loses nothing.
- Who waits first is served first; a new taker does not overtake those who wait.
- Bounded by messages and by bytes: at either bound there is no ``room`` until the queue has drained to a low mark.
  The bound is looked at between two reads and not within one, so what one read brings is always kept.
- Control messages are bounded too: beyond the bound the oldest goes. They never use up the room of data.
- After ``lift`` the reader is stopped as long as somebody takes, and not when nobody does: then all further data is
  dropped, so that what was received stays a prefix of what was sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, Protocol

from anyio import Event, move_on_after

from ._protocol.messages import BinaryMessage, Message, TextMessage

MAX_MESSAGES: Final = 1024
MAX_BYTES: Final = 4 * 1024 * 1024
MAX_CONTROL: Final = 1024

# Seconds in which somebody has to take, once the bound is lifted, for the reader to wait on.
PATIENCE: Final = 0.1


class Waiting(Protocol):
    """What a taker that has to wait leaves in the queue."""

    def set(self) -> object:
        """Wake it; twice is once."""


class Inbox:
    """Messages in wire order, from one reader to any number of takers."""

    def __init__(self) -> None:
        self._data: deque[TextMessage | BinaryMessage] = deque()
        self._bytes = 0
        # A control message stands with the number of data messages that came before it: so the two queues keep the
        # order of the wire, and the oldest control message can go without a search.
        self._control: deque[tuple[int, Message]] = deque()
        self._put = 0
        self._popped = 0
        self._waiting: deque[Waiting] = deque()
        self._ended = False
        self._full = False
        self._room: Event | None = None
        self._lifted = False
        self._dropping = False

    # The reader's side

    def put(self, messages: Iterable[Message]) -> None:
        """Add what one read has brought, and wake the first who waits."""
        for message in messages:
            if isinstance(message, (TextMessage, BinaryMessage)):
                if not self._dropping:
                    self._data.append(message)
                    self._bytes += _size(message)
                    self._put += 1
            else:
                self._control.append((self._put, message))
                if len(self._control) > MAX_CONTROL:
                    self._control.popleft()
        self._full = self._is_full()
        self._wake()

    def end(self) -> None:
        """Nothing more comes: who finds the queue empty takes None."""
        self._ended = True
        self._wake()

    @property
    def is_full(self) -> bool:
        """Whether the reader has to wait for room."""
        return self._full and not self._dropping

    async def room(self) -> None:
        """Wait until the queue has drained to its low mark, or needs to no more. Cancelling it has no effect."""
        while self.is_full:
            self._room = Event()
            taken = self._taken()
            with move_on_after(PATIENCE if self._lifted else None) as patience:
                await self._room.wait()
            self._dropping = patience.cancelled_caught and taken == self._taken()

    def lift(self) -> None:
        """Stop the reader no more than for those who take: what matters now is the end."""
        if not self._lifted:
            self._lifted = True
            self._let_in()

    # The takers' side

    @property
    def is_ready(self) -> bool:
        """Whether ``pop`` gives something, or the end, to a taker who has not waited."""
        return not self._waiting and self._has_something

    async def wait(self) -> None:
        """Wait until there is something to ``pop``, or the end. The caller must pop in the same step."""
        turn = Event()
        self._waiting.append(turn)
        try:
            await turn.wait()
        except BaseException:
            self._waiting.remove(turn)
            self._wake()
            raise
        # Only the first is ever woken, and nobody else pops meanwhile: it is still the first.
        self._waiting.popleft()

    def pop(self) -> Message | None:
        """The next message in wire order, or None at the end; then wake the next who waits."""
        message = self._take()
        self._wake()
        return message

    # How it is done

    def _take(self) -> Message | None:
        if self._control and self._control[0][0] <= self._popped:
            return self._control.popleft()[1]
        if not self._data:
            return None
        message = self._data.popleft()
        self._popped += 1
        self._bytes -= _size(message)
        if self._full and len(self._data) <= MAX_MESSAGES // 4 and self._bytes <= MAX_BYTES // 4:
            self._full = False
            self._let_in()
        return message

    @property
    def _has_something(self) -> bool:
        return self._ended or bool(self._data) or bool(self._control)

    def _is_full(self) -> bool:
        return len(self._data) >= MAX_MESSAGES or self._bytes >= MAX_BYTES

    def _taken(self) -> int:
        """A number that grows with what is taken."""
        return self._popped

    def _wake(self) -> None:
        if self._waiting and self._has_something:
            self._waiting[0].set()

    def _let_in(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None


def _size(message: TextMessage | BinaryMessage) -> int:
    data = message.data
    # What a str takes up: one byte a character for ASCII, up to four for anything else.
    return len(data) if isinstance(data, bytes) or data.isascii() else 4 * len(data)
