"""Waits of a thread that an interrupt ends, whenever it comes.

CPython runs the handler of a signal between two steps of the main thread, and when the signal breaks a wait off. One
that comes behind the last step, and before the wait has begun in the kernel, is noticed when the wait ends by itself.
So no wait of ours goes on for longer than ``NOTICE`` without a step in between.
"""

from __future__ import annotations

import time
from threading import Lock
from typing import Final, Generic, TypeVar

_T = TypeVar("_T")

# Seconds after which an interrupt that was overlooked is noticed.
NOTICE: Final = 1.0


def acquire(lock: Lock, timeout: float | None) -> bool:
    """Acquire ``lock`` within ``timeout`` seconds, or whenever that can be done; whether it was."""
    give_up_at = None if timeout is None else time.monotonic() + timeout
    while True:
        left = NOTICE if give_up_at is None else give_up_at - time.monotonic()
        if lock.acquire(timeout=max(0, min(left, NOTICE))):
            return True
        if left <= NOTICE and give_up_at is not None:
            return False


class Answer(Generic[_T]):
    """What threads wait for, and an event loop gives once: a value, or an error.

    It is a plain lock, so that an interrupt in a thread that waits leaves nothing behind on which the event loop waits.
    """

    __slots__ = ("_error", "_lock", "_value", "is_there")

    def __init__(self) -> None:
        self.is_there = False
        self._value: _T
        self._error: BaseException | None = None
        self._lock = Lock()
        self._lock.acquire()

    def give(self, value: _T) -> None:
        """Let the wait end."""
        self._value = value
        self.is_there = True
        self._lock.release()

    def fail(self, error: BaseException) -> None:
        """Let the wait end with an error."""
        self._error = error
        self.is_there = True
        self._lock.release()

    def wait(self) -> _T:
        """The value, once it is there; or raise the error. Any number of threads may wait."""
        while not self.is_there:
            if self._lock.acquire(timeout=NOTICE):
                # For the next who waits.
                self._lock.release()
        if self._error is None:
            return self._value
        try:
            raise self._error
        finally:
            # The error knows this frame, and would be kept by it.
            del self


def sleep(seconds: float) -> None:
    """Wait for so many seconds."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, NOTICE))
