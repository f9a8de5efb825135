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
- While ``is_simple``, to take a message is to take the leftmost of ``data``, and to ``let_in`` the reader at the low
  mark.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from anyio import Event, move_on_after

from ._protocol.messages import BinaryMessage, Message, Part, TextMessage
from ._waiting import NewWaiter, Place

if TYPE_CHECKING:
    from ._streams.watch import Watch

MAX_MESSAGES: Final = 1024
MAX_BYTES: Final = 1024 * 1024
MAX_CONTROL: Final = 1024

# Seconds in which somebody has to take, once the bound is lifted, for the reader to wait on.
PATIENCE: Final = 0.1

# Messages that are measured one by one.
_FEW: Final = 8

Data: TypeAlias = "TextMessage | BinaryMessage"

# In place of queues in which nothing ever was: an empty one takes up as much memory as one with sixty messages.
_NO_DATA: Final[deque[Data]] = deque()
_NO_CONTROL: Final[deque[tuple[int, Message]]] = deque()
_NOBODY: Final[deque[Place]] = deque()


class Inbox:
    """Messages in wire order, from one reader to any number of takers."""

    def __init__(self, new_waiter: NewWaiter) -> None:
        self.data: deque[Data] = _NO_DATA
        self.is_simple = True
        # How many messages are left when the reader goes on; -1 while it need not stop.
        self.low_mark = -1
        # The bytes in the queue, or more, which is looked into when it reaches the bound; those of many small messages
        # as they were received, which is less than text beyond ASCII takes up.
        self._bytes = 0
        # A control message stands with the number of data messages that came before it: so the two queues keep the
        # order of the wire, and the oldest control message can go without a search.
        self._control: deque[tuple[int, Message]] = _NO_CONTROL
        self._put = 0
        self._new_waiter = new_waiter
        self._waiting: deque[Place] = _NOBODY
        self._ended = False
        self._room: Event | None = None
        self._lifted = False
        self._dropping = False
        # While the watch over the socket is left to the takers.
        self.watch: Watch | None = None

    # The reader's side

    def put_data(self, messages: Sequence[Data], size: int | None = None) -> None:
        """Add what one read has brought, and wake the first who waits. ``size`` is that of the read, if known."""
        if self._dropping:
            return
        if len(messages) == 1:
            size = size_of(messages[0])
        elif size is None or len(messages) <= _FEW:
            size = sum(map(size_of, messages))
        else:
            # Only the first can have begun before this read.
            size += size_of(messages[0])
        self._bytes = self._bytes + size if self.data else size
        if self.data is _NO_DATA:
            self.data = deque()
        self.data.extend(messages)
        self._put += len(messages)
        if len(self.data) >= MAX_MESSAGES or self._bytes >= MAX_BYTES:
            if self._bytes >= MAX_BYTES:
                self._bytes = sum(map(size_of, self.data))
            if len(self.data) >= MAX_MESSAGES or self._bytes >= MAX_BYTES:
                self.low_mark = self._low_mark()
        if self._waiting:
            self._wake()

    def put(self, messages: Sequence[Message], size: int | None = None) -> None:
        """Add messages of any kind, as ``put_data`` does."""
        data: list[Data] = []
        for message in messages:
            if isinstance(message, (TextMessage, BinaryMessage, Part)):
                if self._is_wanted(message):
                    data.append(message)
            else:
                if self._control is _NO_CONTROL:
                    self._control = deque()
                self._control.append((self._put + len(data), message))
                if len(self._control) > MAX_CONTROL:
                    self._control.popleft()
        if data:
            # All at once: what is looked at for the bounds is much for each of them.
            self.put_data(data, size)
        self._settle()
        self._wake()

    def end(self) -> None:
        """Nothing more comes: who finds the queue empty takes None."""
        self._ended = True
        self._wake()

    @property
    def depth(self) -> int:
        """How many messages wait to be taken, without control messages."""
        return self._put - self._popped

    @property
    def is_full(self) -> bool:
        """Whether the reader has to wait for room."""
        return self._needs_room

    @property
    def is_deaf(self) -> bool:
        """Whether the reader waits, and what the peer sends does not reach it."""
        return self._needs_room or (self.watch is not None and not self._waiting)

    @property
    def has_one(self) -> bool:
        """Whether one task, and no other, has waited for what has come, and is about to take it."""
        return len(self._waiting) == 1 and self._has_something and not self._lifted

    def take_back(self) -> None:
        """Have the reader receive what comes next, whoever waits."""
        if self.watch is not None:
            self.watch.take_back()

    async def room(self) -> None:
        """Wait until the queue has drained to its low mark, or needs to no more. Cancelling it has no effect."""
        while self._needs_room:
            self._room = Event()
            popped = self._popped
            with move_on_after(PATIENCE if self._lifted else None) as patience:
                await self._room.wait()
            self._dropping = patience.cancelled_caught and popped == self._popped

    def lift(self) -> None:
        """Stop the reader no more than for those who take: what matters now is the end."""
        if not self._lifted:
            self._lifted = True
            self._wake_reader()
            self.take_back()

    # The takers' side

    @property
    def is_ready(self) -> bool:
        """Whether ``pop`` gives something, or the end, to a taker who has not waited."""
        return not self._waiting and self._has_something

    async def wait(self) -> None:
        """Wait until there is something to ``pop``, or the end. The caller must pop in the same step."""
        if self.watch is not None and self._waiting:
            self.watch.take_back()
        turn = self._new_waiter() if self.watch is None or self._waiting else self.watch.new_waiter()
        if self._waiting is _NOBODY:
            self._waiting = deque()
        self._waiting.append(turn)
        self.is_simple = False
        try:
            await turn.wait()
        except BaseException:
            self._waiting.remove(turn)
            self._settle()
            self._wake()
            raise
        # Only the first is ever woken, and nobody else pops meanwhile: it is still the first.
        self._waiting.popleft()
        self._settle()

    def pop(self) -> Message | None:
        """The next message in wire order, or None at the end; then wake the next who waits."""
        message = self._take()
        self._wake()
        return message

    def let_in(self) -> None:
        """The queue has drained to its low mark: let the reader go on."""
        self.low_mark = -1
        self._bytes = MAX_BYTES // 4
        self._wake_reader()

    def peek(self) -> Message | None:
        """What ``pop`` would give in this step. Who does not pop it must ``leave`` it in the same step."""
        if self._control and self._control[0][0] <= self._popped:
            return self._control[0][1]
        return self.data[0] if self.data else None

    def leave(self) -> None:
        """Take nothing, and wake the next who waits."""
        self._wake()

    # How it is done

    def _take(self) -> Message | None:
        if self._control and self._control[0][0] <= self._popped:
            message = self._control.popleft()[1]
            self._settle()
            return message
        if not self.data:
            return None
        taken = self.data.popleft()
        if len(self.data) == self.low_mark:
            self.let_in()
        return taken

    @property
    def _needs_room(self) -> bool:
        return self.low_mark >= 0 and not self._dropping

    @property
    def _popped(self) -> int:
        return self._put - len(self.data)

    @property
    def _has_something(self) -> bool:
        return self._ended or bool(self.data) or bool(self._control)

    def _is_wanted(self, message: Data) -> bool:
        return not self._dropping

    def _settle(self) -> None:
        self.is_simple = not (self._control or self._waiting)

    def _wake(self) -> None:
        if self._waiting and self._has_something:
            self._waiting[0].wake()

    def _low_mark(self) -> int:
        # One of the two bounds was reached, so that a quarter of it is always there.
        if self._bytes <= MAX_BYTES // 4:
            return MAX_MESSAGES // 4
        newest = reversed(self.data)
        mark = size = 0
        while mark < MAX_MESSAGES // 4 and (size := size + size_of(next(newest))) <= MAX_BYTES // 4:
            mark += 1
        return mark

    def _wake_reader(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None


def size_of(message: Data) -> int:
    """The bytes that a message counts for."""
    data = message.data
    # What a str takes up: one byte a character for ASCII, up to four for anything else.
    return len(data) if isinstance(data, bytes) or data.isascii() else 4 * len(data)
