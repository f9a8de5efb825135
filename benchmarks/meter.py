"""The clocks: CPU of this process and of the server, wall time and memory, from a moment when the caches are warm."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reading:
    """What one run of one client cost. Seconds and bytes; ``cpu`` is that of all threads, user and system together."""

    count: float
    cpu: float | None
    wall: float
    server_cpu: float
    memory: float | None = None


class Meter:
    """Iterate over it to do batches until ``seconds`` are over. The first batch warms up and is not counted."""

    def __init__(self, batch: int, seconds: float, server_clock: Callable[[], float]) -> None:
        self.seconds = seconds
        self._batch = batch
        self._server_clock = server_clock

    def __iter__(self) -> Iterator[None]:
        yield
        self.start()
        batches = 0
        while True:
            yield
            batches += 1
            if time.perf_counter() - self._began >= self.seconds:
                break
        self.stop(batches * self._batch)

    def start(self) -> None:
        gc.collect()
        self._server = self._server_clock()
        self._began = time.perf_counter()
        self._cpu = time.process_time()

    def stop(self, count: float) -> None:
        cpu = time.process_time() - self._cpu
        wall = time.perf_counter() - self._began
        self.reading = Reading(count, cpu, wall, self._server_clock() - self._server)


def resident() -> int:
    """Bytes of memory of this process that are in RAM."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
