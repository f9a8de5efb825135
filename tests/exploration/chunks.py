"""The chunks of a message, as an iterable gives them that may break off, and that knows what was asked of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint

# Chunks that are waited for, and for how many seconds.
SLOW: Final = 3
PAUSE: Final = 0.01


class BrokenOffError(Exception):
    """What an iterable raises that gives no more chunks."""


class Chunks:
    """``data`` in so many chunks, and in front of them an empty one; with ``breaks_at``, that one is not given.

    ``begins`` is called when the first is given that is not empty, or when it is known that there is none.
    """

    def __init__(
        self, data: str | bytes, count: int, breaks_at: int | None, begins: Callable[[str | bytes], None]
    ) -> None:
        size = max(-(-len(data) // count), 1)
        # All of one kind, whichever it is.
        self._chunks: list[Any] = [data[:0], *(data[start : start + size] for start in range(0, len(data), size))]
        self._breaks_at = breaks_at
        self._begins = begins
        self._is_given = False
        # Whether one of them is written, for certain, and whether the end is known.
        self.is_begun = False
        self.is_ended = False

    @property
    def breaks(self) -> bool:
        """Whether the message can never be whole."""
        return self._breaks_at is not None and self._breaks_at < len(self._chunks)

    def __iter__(self) -> Iterator[Any]:
        for place, chunk in enumerate(self._chunks):
            if place == self._breaks_at:
                raise BrokenOffError
            if chunk:
                self._give()
            yield chunk
            self.is_begun = self._is_given
        self._give()
        self.is_ended = True

    async def slowly(self) -> AsyncGenerator[Any, None]:
        """The same with waits in front of them."""
        await anyio.sleep(PAUSE)
        for number, chunk in enumerate(self):
            yield chunk
            self.is_begun = self._is_given
            await (anyio.sleep(PAUSE) if number < SLOW else checkpoint())

    def _give(self) -> None:
        if not self._is_given:
            self._is_given = True
            self._begins(self._chunks[0].join(self._chunks[: self._breaks_at]))
