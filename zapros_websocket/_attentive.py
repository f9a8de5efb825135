"""Waits of a thread that an interrupt ends, whenever it comes.

CPython runs the handler of a signal between two steps of the main thread, and when the signal breaks a wait off. One
that comes behind the last step, and before the wait has begun in the kernel, is noticed when the wait ends by itself.
So no wait of ours goes on for longer than ``NOTICE`` without a step in between.
"""

from __future__ import annotations

import concurrent.futures
import time
from concurrent.futures import Future
from threading import Lock
from typing import Final, TypeVar

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


def result(future: Future[_T]) -> _T:
    """The result of ``future``, once it is there; or raise its exception."""
    while not future.done():
        concurrent.futures.wait([future], NOTICE)
    return future.result()


def sleep(seconds: float) -> None:
    """Wait for so many seconds."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, NOTICE))
