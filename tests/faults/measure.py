"""What a case costs: seconds, memory, descriptors, threads, and the turns of others."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

MEBIBYTE: Final = 1024 * 1024
_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
IS_LINUX: Final = sys.platform == "linux" and os.access(_CLEAR, os.W_OK)


@dataclass
class Cost:
    """What one run has cost: ``mebibytes`` at the peak above what was there before, None where nobody can tell."""

    seconds: float = 0.0
    mebibytes: float | None = None


class Meter:
    """Measures what goes on between ``start`` and ``stop``."""

    def start(self) -> None:
        self._before = _settled()
        if IS_LINUX:
            # From now on the kernel keeps the peak of what comes.
            _CLEAR.write_text("5", encoding="ascii")
        self._began = time.monotonic()

    def stop(self) -> Cost:
        seconds = time.monotonic() - self._began
        if not IS_LINUX:
            return Cost(seconds)
        return Cost(seconds, max(_status("VmHWM") - self._before, 0) / 1024)


@dataclass(frozen=True)
class Belongings:
    """What a process has, and what it must not have more of when all is over."""

    descriptors: int
    threads: int
    kibibytes: int

    @classmethod
    def now(cls) -> Belongings:
        kibibytes = _settled()
        folder = Path("/proc/self/fd")
        descriptors = len(os.listdir(folder)) if folder.is_dir() else 0
        return cls(descriptors, threading.active_count(), kibibytes)


def _settled() -> int:
    """The memory of this process in KiB, when what is free has been given back."""
    gc.collect()
    if not IS_LINUX:
        return 0
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return _status("VmRSS")


def _status(name: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise AssertionError(f"the kernel does not tell {name}")


@dataclass
class Turns:
    """The longest time in which a task that only wants its turn did not get it, in seconds."""

    longest: float = 0.0


@asynccontextmanager
async def turns_of_others() -> AsyncGenerator[Turns]:
    """See to it that another task has its turn all the while."""
    turns = Turns()
    over = False

    async def want() -> None:
        while not over:
            before = time.monotonic()
            await anyio.sleep(0.005)
            turns.longest = max(turns.longest, time.monotonic() - before)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(want)
        yield turns
        over = True
