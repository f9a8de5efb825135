"""A socket that the reader lends to a thread which waits in ``recv``, so that no message has to wake two threads.

The reader of the event loop wakes the thread for each message; a thread that receives one soon after the other is
faster when it reads the socket itself. It parses nothing but whole data messages, and those without compression.
For all else the socket goes back, with what was read and not understood, and the reader goes on from there.

Invariants:

- Of the reader and the threads only one reads, and only one has what was received and not parsed.
- A thread reads while nothing is queued, and puts what it has read where the reader would have: the order is that of
  the wire, and the bounds of the inbox hold.
- The socket comes back by itself: when a thread has waited in vain, or none has read, for ``PATIENCE``; and at once
  when something other than whole data messages comes. So pings are answered, and ends found, a little later at most.
- What ends a connection takes the socket back first: no thread reads a socket that is closed, nor one with its number.
- An interrupt (KeyboardInterrupt) loses nothing: each step leaves what it has in one place or in the next.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, cast

from anyio import Event, move_on_after

from ._protocol.frames import read_messages
from ._protocol.session import Session
from ._streams.base import READ_SIZE
from ._undisturbed import undisturbed

if TYPE_CHECKING:
    from ._protocol.messages import Message
    from ._soon import Soon
    from ._streams.direct import Direct
    from ._streams.sockets import SocketStream

# Seconds in which a thread has to read something, for the socket to stay with the threads.
PATIENCE: Final = 0.02

# Bytes of an incomplete message that is left to the reader, which receives large ones to where they stay.
_LARGE: Final = 16 * 1024

_POPLEFT: Final = cast("Callable[[deque[Any]], Any]", deque.popleft)  # pyright: ignore[reportUnknownMemberType]


def popped(queue: deque[Any], number: int) -> Iterator[Any]:
    """Take from the left; no interrupt comes between taking a message here and putting it there, in one call."""
    return map(_POPLEFT, repeat(queue, number))


class Lending:
    """The socket of a connection, in the hands of its reader or of the threads.

    The mutex of the inbox is held by whoever lends, reads, gives back and ends it.
    """

    def __init__(self, session: Session, stream: SocketStream, direct: Direct, limit: int, soon: Soon) -> None:
        self.patience = PATIENCE
        # Whether threads may read; whether one would like to; whether the reader waits for it to come back.
        self.is_lent = False
        self.is_wanted = False
        self.is_out = False
        self._session = session
        self._stream = stream
        self._direct = direct
        self._soon = soon
        self._limit = limit
        # What was received in a thread: bytes, messages that were made of them, the bytes behind those, and whether
        # these are the business of the reader. They change in one step, between whose parts no interrupt comes.
        self._received: list[bytes] = []
        self._messages: deque[Message] = deque()
        self._rest = b""
        self._is_foreign = False
        self._reads = 0
        self.is_at_end = False
        self._error: OSError | None = None
        self._back = Event()
        # Waits for so many seconds until there may be something to read, without the mutex.
        self.wait = direct.until_readable

    # In any thread

    def read(self, queue: deque[Message]) -> None:
        """Read what is there, and queue the messages that it completes."""
        if self._direct.is_tls:
            undisturbed(self._read, queue)
        else:
            self._read(queue)

    def _read(self, queue: deque[Message]) -> None:
        received = self._received
        if received or self._messages:
            # An interrupt has come behind the last read.
            self._digest(queue)
            received = self._received
        try:
            with self._direct.mutex:
                # An interrupt comes behind a call: what the socket gave is noted in the call that reads.
                received.extend(map(self._direct.receive, (READ_SIZE,)))
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except ssl.SSLWantWriteError:
            self.give_back()
        except ssl.SSLEOFError:
            received.append(b"")
        except OSError as error:
            self._error = error
            self.give_back()
        except BaseException:
            if self._direct.is_tls and not received:
                # The handler of a signal that is no interrupt: what was read before it raised is gone.
                self._error = OSError("a signal broke off a read of TLS")
                self.give_back()
            raise
        self._reads += 1
        self._digest(queue)

    def give_back(self) -> None:
        """Read no more, and have the reader go on."""
        self.is_lent = False
        self._soon(self.take_back)

    def _digest(self, queue: deque[Message]) -> None:
        if self._received:
            received = self._received[0]
            self.is_at_end = not received
            data = self._rest + received if self._rest else received
            messages: list[Message] = []
            stop, needed, failure = read_messages(data, 0, self._limit, None, messages)
            is_whole = bool(received) and (stop == len(data) or 0 < needed - stop <= _LARGE)
            is_foreign = not is_whole or failure is not None
            self._received, self._messages, self._rest, self._is_foreign = [], deque(messages), data[stop:], is_foreign
        queue.extend(popped(self._messages, len(self._messages)))
        if self._is_foreign:
            self.give_back()

    # In the event loop

    def lend(self) -> bool:
        """Leave the socket to the threads, if that can be done."""
        self.is_wanted = False
        if self._stream.has_pending():
            return False
        rest = self._session.hand_out()
        if rest is None:
            return False
        self._back = Event()
        self._received, self._messages, self._rest, self._is_foreign = [], deque(), rest, False
        self.is_lent = self.is_out = True
        return True

    async def until_back(self) -> None:
        """Wait until the threads do not need it."""
        seen = -1
        while seen != self._reads and not self._back.is_set():
            seen = self._reads
            with move_on_after(self.patience):
                await self._back.wait()

    def end(self, queue: deque[Message]) -> bytes:
        """Leave the socket to the reader, and return what it has to take in first."""
        self.is_lent = self.is_wanted = self.is_out = False
        self._digest(queue)
        return self._rest

    def raise_error(self) -> None:
        """Raise the OSError with which a thread has found the socket broken."""
        if self._error is not None:
            raise self._error

    def take_back(self) -> None:
        """Have the reader go on, at once."""
        self._back.set()
