"""From threads to the wire: a message is written at once where that is possible, and handed over where it is not.

A thread writes to a socket itself while nobody else is in the middle of a frame: that costs a fraction of waking the
event loop. What the socket does not take for a while is handed over to a task of the event loop.

Invariants:

- The order in which messages are given is the order of the wire: nothing overtakes what was handed over.
- What is handed over and unsent is bounded by messages and by bytes: at the bound ``send`` waits.
- What is handed over is the library's own: a buffer of the caller was copied.
- An interrupt (KeyboardInterrupt) leaves no frame half-written: what is left of it is handed over.
- What TLS has not written it has encrypted all the same: the turn stays taken until the same bytes are written again.
- While a message goes out in fragments other messages wait, and pings and pongs do not.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from anyio import CancelScope, Event

from ._attentive import Answer
from ._chunks import BROKEN_OFF
from ._errors import ConnectionClosed
from ._inbox_of_threads import ThreadPlace, drop_left, take_away
from ._lending import PATIENCE
from ._portal import refuse_event_loop
from ._protocol import frames
from ._protocol.messages import CloseMessage
from ._protocol.outgoing import PING
from ._protocol.session import State
from ._streams.tls import PIECE
from ._undisturbed import undisturbed

if TYPE_CHECKING:
    from ._link import Link
    from ._protocol.sequence import Sequence
    from ._soon import Soon
    from ._streams.direct import Direct
    from ._turn import SharedTurn

MAX_MESSAGES: Final = 1024
MAX_BYTES: Final = 1024 * 1024

# What is written at once of many small messages.
_BATCH: Final = 64 * 1024

# Why nothing more may be written.
_UNKNOWN: Final = "a signal broke off a write of TLS"

# What to call where an event loop runs.
_INSTEAD: Final = "await ws.send(...)"


class _Close:
    """A close frame in its place among the messages."""

    def __init__(self, message: CloseMessage) -> None:
        self.message = message
        self.written: Answer[None] = Answer()


# A message, as the session encodes it when it is written; and a fragment, with what encodes it then.
_Whole = tuple[int, bytes, "bool | None"]
_Fragment = tuple[Callable[[], bytes], bytes]
_Item = _Whole | _Fragment


class Outbox:
    """What threads send on one connection."""

    def __init__(
        self,
        link: Link,
        turn: SharedTurn,
        soon: Soon,
        direct: Direct | None,
    ) -> None:
        self._link = link
        self._session = link.session
        self._writer = link.writer
        self._turn = turn
        self._soon = soon
        self._direct = direct
        # Guards all that follows, together with the turn to write and the socket.
        self._mutex = turn.mutex
        self._queue: deque[_Item | _Close] = deque()
        self._rest: memoryview | None = None
        # Whether a thread is in the middle of a message, and has the turn.
        self._is_writing_here = False
        # What was handed over and is not written, also while the event loop has it in hand.
        self._unsent = 0
        self._unsent_bytes = 0
        self._waiting: deque[ThreadPlace] = deque()
        # The message that goes out in fragments: it counts as unsent until it is ended or broken off.
        self._sequence: Sequence | None = None
        self._is_begun = False
        self._waiting_inside: ThreadPlace | None = None
        self._closing: CloseMessage | None = None
        self._is_awake = False
        self._is_over = False
        self._work = Event()
        self._idle = Event()

    # In any thread

    def send(self, opcode: int, payload: bytes | memoryview, compress: bool | None = None) -> None:
        """Write a message, or hand it over; wait only while too much is unsent.

        Raises:
            ConnectionClosed: the connection is closed or closing.
            RuntimeError: it has to wait, and an event loop runs in this thread.
        """
        direct = self._direct
        if direct is not None and not self._unsent and opcode < PING:
            frame = frames.encode(opcode, payload)
            if self._write_here(direct, frame):
                return
        kept = payload if isinstance(payload, bytes) else bytes(payload)
        self._hand_over((opcode, kept, compress), len(kept), is_control=opcode >= PING)

    def begin(self, sequence: Sequence) -> None:
        """Wait until it is this message that goes out, with ``send_fragment``, until ``end_of`` it.

        Raises:
            ConnectionClosed, RuntimeError: as with ``send``.
        """

        def begin() -> None:
            self._unsent += 1
            self._is_begun = False
            self._sequence = sequence

        self._in_line(begin)

    def send_fragment(self, sequence: Sequence, payload: bytes | memoryview | None) -> None:
        """Write a fragment, or hand it over; None is the last of them.

        Raises:
            ConnectionClosed, RuntimeError: as with ``send``.
        """
        self.raise_unless_open()
        was_begun = self._is_begun
        direct = self._direct
        if direct is not None and self._unsent == 1:
            frame = sequence.end() if payload is None else sequence.encode(payload, first=not was_begun)
            # An interrupt that comes behind the write must find it begun.
            self._is_begun = True
            if self._write_here(direct, frame, others=1):
                self._is_begun = payload is not None
                return
            self._is_begun = was_begun
        if payload is None:
            item: _Fragment = (partial(self._session.encode_end, sequence), b"")
        else:
            kept = payload if isinstance(payload, bytes) else bytes(payload)
            item = (partial(self._session.encode_fragment, sequence, kept, first=not was_begun), kept)
        self._wait_inside()
        with self._mutex:
            self.raise_unless_open()
            self._is_begun = True
            self._append(item, len(item[1]))
            self._is_begun = payload is not None

    def end_of(self, sequence: Sequence) -> None:
        """Nothing more comes of a message; if it was begun and not ended, the connection is lost."""
        with self._mutex:
            if self._sequence is not sequence:
                return
            if not self._is_begun or self._closing is not None or self._session.state is not State.OPEN:
                self._sequence = None
                self._unsent -= 1
                self._wake()
                return
        # Whoever waits to send goes on waiting, until the event loop has ended the connection.
        self._soon(lambda: self._link.break_off(BROKEN_OFF))

    def send_close(self, message: CloseMessage) -> None:
        """Start the closing handshake behind all that was sent, and wait until the close frame is written.

        Raises:
            ConnectionClosed: the connection is closed or closing.
            RuntimeError: an event loop runs in this thread.
        """
        refuse_event_loop(_INSTEAD)
        close = _Close(message)
        self._hand_over(close, 0)
        close.written.wait()

    def _write_here(self, direct: Direct, frame: bytes, others: int = 0) -> bool:
        """Write a frame unless something is in the way, and return whether it is written or begun."""
        size = len(frame)
        sent: list[int] = []
        try:
            if direct.is_tls:
                first = frame if size <= PIECE else memoryview(frame)[:PIECE]
                undisturbed(self._begin_here, direct, first, sent, size, others)
            else:
                self._begin_here(direct, frame, sent, size, others)
            if sent and sent[0] != size:
                self._write_on(direct, memoryview(frame), sent)
        finally:
            if sent and sent[0] != size:
                try:
                    undisturbed(self._leave, memoryview(frame)[sum(sent) :])
                except BaseException:
                    # An interrupt that came in front of it, or the handler of another signal.
                    self._leave(memoryview(frame)[sum(sent) :])
                    raise
        return bool(sent)

    def _begin_here(self, direct: Direct, first: bytes | memoryview, sent: list[int], size: int, others: int) -> None:
        turn = self._turn
        with self._mutex:
            if (
                self._unsent != others
                or turn.is_taken
                or self._closing is not None
                or self._writer.is_over
                or self._session.has_control
                or self._session.state is not State.OPEN
            ):
                return
            try:
                turn.is_taken = True
                # An interrupt comes behind a call: what the socket took is noted in the call that writes.
                sent.extend(map(direct.send, (first,)))
            except OSError:
                # The socket takes nothing now, or nothing ever: the event loop will see which.
                if direct.is_tls:
                    sent.append(0)
            except BaseException:
                if direct.is_tls and not sent:
                    sent.append(0)
                    self._write_no_more()
                raise
            finally:
                if not sent or sent[0] == size:
                    turn.is_taken = False
                else:
                    self._unsent += 1
                    self._is_writing_here = True

    def _write_on(self, direct: Direct, left: memoryview, sent: list[int]) -> None:
        """Write what is left, while the socket takes some of it every now and then."""
        while (done := sum(sent)) < len(left) and direct.until_writable(PATIENCE):
            if direct.is_tls:
                goes_on = undisturbed(self._write_some, direct, left[done : done + PIECE], sent)
            else:
                goes_on = self._write_some(direct, left[done:], sent)
            if not goes_on:
                return

    def _write_some(self, direct: Direct, data: memoryview, sent: list[int]) -> bool:
        steps = len(sent)
        try:
            with self._mutex:
                sent.extend(map(direct.send, (data,)))
        except ssl.SSLWantWriteError:
            # The socket has taken what came of it before.
            return True
        except OSError:
            # Whatever it is: the event loop will see it as well.
            return False
        except BaseException:
            if direct.is_tls and len(sent) == steps:
                self._write_no_more()
            raise
        return True

    def _write_no_more(self) -> None:
        # The handler of a signal has raised in the middle of it, one that is no interrupt: it may be written or not.
        self._writer.is_over = True
        self._soon(lambda: self._link.break_off(_UNKNOWN))

    def _leave(self, left: memoryview) -> None:
        """Give the turn back, or leave it to the event loop with what is left to write; a second time is no more."""
        with self._mutex:
            if self._is_writing_here:
                if left or self._turn.is_awaited:
                    self._rest = left
                else:
                    self._turn.is_taken = False
                    self._unsent -= 1
                self._is_writing_here = False
        if self._rest is not None or self._unsent or self._closing is not None:
            self._soon(self._rouse)

    def _hand_over(self, item: _Item | _Close, size: int, *, is_control: bool = False) -> None:
        with self._mutex:
            self.raise_unless_open()
            if (is_control or (not self._waiting and self._sequence is None)) and not self._is_full:
                self._append(item, size)
                return
        self._in_line(lambda: self._append(item, size), is_control=is_control)

    def _in_line(self, do: Callable[[], None], *, is_control: bool = False) -> None:
        place = ThreadPlace()
        try:
            with self._mutex:
                drop_left(self._waiting)
                self.raise_unless_open()
                if (is_control or (not self._waiting and self._sequence is None)) and not self._is_full:
                    do()
                    return
                self._waiting.append(place)
            refuse_event_loop(_INSTEAD)
            place.wait(None)
            with self._mutex:
                self.raise_unless_open()
                do()
        finally:
            # Another interrupt may come at any call: what must be done is done by then.
            place.is_left = True
            with self._mutex:
                take_away(self._waiting, place)
                self._wake()

    def _wait_inside(self) -> None:
        # In the middle of a message nobody else is served first.
        with self._mutex:
            if not self._is_full or self._is_over:
                return
            self._waiting_inside = place = ThreadPlace()
        try:
            refuse_event_loop(_INSTEAD)
            place.wait(None)
        finally:
            self._waiting_inside = None

    def _append(self, item: _Item | _Close, size: int) -> None:
        if not self._is_awake:
            self._soon(self._rouse)
        self._unsent += 1
        self._unsent_bytes += size
        self._queue.append(item)

    @property
    def _is_full(self) -> bool:
        return self._unsent >= MAX_MESSAGES or self._unsent_bytes >= MAX_BYTES

    def _wake(self) -> None:
        if self._is_full and not self._is_over:
            return
        if self._waiting_inside is not None:
            self._waiting_inside.wake()
        drop_left(self._waiting)
        if self._waiting and (self._is_over or self._sequence is None):
            self._waiting[0].wake()

    def raise_unless_open(self) -> None:
        """Raise ConnectionClosed when nothing more may be sent."""
        if self._closing is not None and self._session.state is State.OPEN:
            raise ConnectionClosed(self._closing.code, self._closing.reason)
        self._link.raise_unless_open()

    # In the event loop

    async def run(self) -> None:
        """Write what is handed over, until ``end``."""
        # The end of the connection is the end of this; a cancellation alone would leave threads waiting.
        with CancelScope(shield=True):
            while not self._is_over:
                rest, batch = self._take()
                if rest is None and not batch:
                    self._idle.set()
                    await self._work.wait()
                    continue
                try:
                    await self._write(rest, batch)
                except ConnectionClosed as error:
                    self._drop(error, batch)
                self._written(rest, batch)

    def refuse(self, message: CloseMessage) -> None:
        """Take no more: the connection is about to be closed with ``message``, or with that of an earlier call."""
        if self._closing is None:
            self._closing = message

    async def flushed(self) -> None:
        """Wait until all is written that was handed over."""
        while self._unsent > (self._sequence is not None) and not self._is_over:
            if self._idle.is_set():
                # Not before: others may wait for it already.
                self._idle = Event()
            await self._idle.wait()

    def end(self) -> None:
        """The connection is over: wake all who wait, to find that out."""
        with self._mutex:
            self._is_over = True
            self._wake()
        self._drop(self._link.how_it_ended(), [])
        self._work.set()
        self._idle.set()

    def _take(self) -> tuple[memoryview | None, list[_Item | _Close]]:
        batch: list[_Item | _Close] = []
        with self._mutex:
            rest, self._rest = self._rest, None
            size = 0
            while rest is None and not self._is_writing_here and self._queue and size < _BATCH:
                if isinstance(item := self._queue[0], _Close):
                    if not batch:
                        batch.append(self._queue.popleft())
                    break
                batch.append(self._queue.popleft())
                size += len(item[1])
            self._is_awake = rest is not None or bool(batch)
            if not self._is_awake:
                self._work = Event()
        return rest, batch

    async def _write(self, rest: memoryview | None, batch: list[_Item | _Close]) -> None:
        if rest is not None:
            await self._link.finish(rest)
        elif isinstance(close := batch[0], _Close):
            await self._link.write_close(close.message)
            close.written.give(None)
        else:
            messages = [item for item in batch if not isinstance(item, _Close)]
            await self._link.write(lambda: b"".join([self._encode(message) for message in messages]))

    def _encode(self, item: _Item) -> bytes:
        return self._session.encode(*item) if len(item) == 3 else item[0]()

    def _written(self, rest: memoryview | None, batch: list[_Item | _Close]) -> None:
        with self._mutex:
            self._unsent -= len(batch) if rest is None else 1
            self._unsent_bytes -= sum(len(item[1]) for item in batch if not isinstance(item, _Close))
            self._wake()

    def _drop(self, error: ConnectionClosed, batch: list[_Item | _Close]) -> None:
        """Nothing more can be written; who sends from now on is told why."""
        with self._mutex:
            dropped = list(self._queue)
            self._queue.clear()
            self._unsent -= len(dropped)
            self._unsent_bytes -= sum(len(item[1]) for item in dropped if not isinstance(item, _Close))
        for item in [*batch, *dropped]:
            if isinstance(item, _Close):
                item.written.fail(error)

    def _rouse(self) -> None:
        self._work.set()
