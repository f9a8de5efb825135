"""Bytes that stand for choices: what a fuzzer mutates, or what a random number generator gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Source:
    """Takes choices from the front of ``data``; behind its end, every choice is the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def is_empty(self) -> bool:
        return self._position >= len(self._data)

    def byte(self) -> int:
        if self.is_empty:
            return 0
        self._position += 1
        return self._data[self._position - 1]

    def integer(self, below: int) -> int:
        """A number from 0 up to, but not, ``below``."""
        size = (max(below - 1, 1).bit_length() + 7) // 8
        return int.from_bytes(bytes(self.byte() for _ in range(size)), "big") % below

    def flag(self) -> bool:
        return bool(self.byte() & 1)

    def one_of(self, choices: Sequence[T]) -> T:
        return choices[self.integer(len(choices))]

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes as they are, or fewer at the end."""
        taken = self._data[self._position : self._position + count]
        self._position += len(taken)
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._data))
