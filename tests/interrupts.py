"""Interrupts (KeyboardInterrupt) where a test wants them."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any


@contextmanager
def interrupts_come_out() -> Generator[None]:
    """An interrupt in the block is none that is ignored, as in what was started in the background."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


class InterruptingSocket(socket.socket):
    """A socket that interrupts right behind the next read, when that is due."""

    is_due = False

    def recv_into(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = super().recv_into(buffer)
        if self.is_due:
            InterruptingSocket.is_due = False
            signal.raise_signal(signal.SIGINT)
        return count


@contextmanager
def interrupt_at(function: Callable[..., Any], line: int) -> Generator[None]:
    """An interrupt comes in front of that line, once, if it is run."""
    came = False

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal came
        if frame.f_code is not function.__code__:
            return None
        if event == "line" and frame.f_lineno == line and not came:
            came = True
            signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def lines_of(function: Callable[..., Any]) -> list[int]:
    """The lines of its body, for ``interrupt_at``."""
    code: CodeType = function.__code__
    return sorted({line for _, _, line in code.co_lines() if line is not None and line > code.co_firstlineno})
