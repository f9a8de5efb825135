"""``zapros-ws bench``: how long a round trip takes, in percentiles, while it is measured and at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeAlias

from anyio import create_task_group, sleep

from .._errors import ConnectionClosed, UnexpectedMessageError
from .._protocol.messages import BinaryMessage
from .conversation import how_it_ended
from .status import Status, status_of

if TYPE_CHECKING:
    from .._connection import AsyncWebSocket
    from .display import Display

REFRESH: Final = 0.1
"""Seconds between two looks of the display."""

PERCENTILES: Final = (50, 90, 99, 99.9)


Rows: TypeAlias = Callable[[], list[tuple[str, str]]]
LiveView: TypeAlias = Callable[[Rows], AbstractContextManager[Callable[[], None]]]


@dataclass(frozen=True, slots=True)
class Latencies:
    """A summary of round trips, in milliseconds."""

    count: int
    minimum: float
    mean: float
    maximum: float
    percentiles: dict[str, float]

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latencies:
        """The summary of at least one round trip."""
        ordered = sorted(value * 1000 for value in seconds)
        ranks = {f"p{percent:g}": ordered[ceil(len(ordered) * percent / 100) - 1] for percent in PERCENTILES}
        return cls(len(ordered), ordered[0], sum(ordered) / len(ordered), ordered[-1], ranks)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values, to be shown below each other."""
        times = {"min": self.minimum, "mean": self.mean, **self.percentiles, "max": self.maximum}
        return [("round trips", f"{self.count:,}"), *((name, f"{value:.3f} ms") for name, value in times.items())]


class Bench:
    """Measures the round trips of one connection, one after the other."""

    def __init__(self, display: Display, *, count: int, size: int | None, as_json: bool, live: LiveView) -> None:
        self._display = display
        self._count = count
        self._payload = None if size is None else b"\x55" * size
        self._as_json = as_json
        self._live = live
        self._seconds: list[float] = []

    async def run(self, ws: AsyncWebSocket) -> Status:
        """Measure, show, and say how it ended."""
        status = Status.DONE
        try:
            with self._live(self.rows) as refresh:
                async with create_task_group() as tasks:
                    tasks.start_soon(_keep_fresh, refresh)
                    status = await self._measure(ws)
                    tasks.cancel_scope.cancel()
        finally:
            # Also what was measured up to a Ctrl-C is a result.
            if self._seconds:
                print(self.report(), flush=True)
        return status

    async def _measure(self, ws: AsyncWebSocket) -> Status:
        try:
            while len(self._seconds) < self._count:
                if self._payload is None:
                    self._seconds.append(await ws.ping())
                    continue
                began = perf_counter()
                await ws.send(BinaryMessage(self._payload))
                answer = await ws.recv_bytes()
                self._seconds.append(perf_counter() - began)
                if answer != self._payload:
                    self._display.complain("the server is no echo server: something else came back than was sent")
                    return Status.FAILED
        except UnexpectedMessageError as error:
            self._display.complain(f"the server is no echo server: {error}")
            return Status.FAILED
        except ConnectionClosed as closed:
            self._display.complain(how_it_ended(closed))
            # The measurement was cut off, in order or not.
            return max(status_of(closed), Status.CLOSED)
        return Status.DONE

    def rows(self) -> list[tuple[str, str]]:
        """What was measured so far."""
        return Latencies.of(self._seconds).rows() if self._seconds else [("round trips", "0")]

    def report(self) -> str:
        """The result: a table, or one line of JSON."""
        latencies = Latencies.of(self._seconds)
        if self._as_json:
            return json.dumps({**asdict(latencies), "unit": "ms"})
        return "\n".join(f"{name:<12} {value:>14}" for name, value in latencies.rows())


async def _keep_fresh(refresh: Callable[[], None]) -> None:
    while True:
        await sleep(REFRESH)
        refresh()


@contextmanager
def no_view(rows: Rows) -> Generator[Callable[[], None]]:
    """Nothing to see before the end."""
    yield lambda: None


@contextmanager
def live_view(rows: Rows) -> Generator[Callable[[], None]]:
    """A table on the terminal that changes in its place, and is gone at the end. Needs rich."""
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    def table() -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        grid.add_column(justify="right")
        for row in rows():
            grid.add_row(*row)
        return grid

    with Live(table(), console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        yield lambda: live.update(table(), refresh=True)
