"""Where the cases are written down, in the order of the table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypedDict

from typing_extensions import Unpack

from .stage import Case, Outcome, Stage


class Bounds(TypedDict, total=False):
    """The bounds of a case, see ``Case``."""

    seconds: float
    mebibytes: float
    needs_cancellation: bool
    patience: float


@dataclass
class Group:
    """A section of the table, and its cases."""

    title: str
    cases: list[Case] = field(default_factory=list[Case])

    def case(
        self, name: str, **bounds: Unpack[Bounds]
    ) -> Callable[[Callable[[Stage], Awaitable[Outcome]]], Callable[[Stage], Awaitable[Outcome]]]:
        """Add the decorated function as a case."""

        def add(play: Callable[[Stage], Awaitable[Outcome]]) -> Callable[[Stage], Awaitable[Outcome]]:
            self.add(name, play, **bounds)
            return play

        return add

    def add(self, name: str, play: Callable[[Stage], Awaitable[Outcome]], **bounds: Unpack[Bounds]) -> None:
        """Add a case."""
        assert all(case.name != name for case in self.cases), name
        self.cases.append(Case(self.title, name, play, **bounds))
