"""How much is left of a time that several waits share."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic


def time_left(timeout: float | None) -> Iterator[float | None]:
    """The seconds that each wait has: all of ``timeout`` for the first, and what is left of it for the others."""
    deadline = None if timeout is None else monotonic() + timeout
    yield timeout
    while True:
        yield None if deadline is None else max(deadline - monotonic(), 0.0)
