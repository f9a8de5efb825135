"""Interrupts (KeyboardInterrupt) where a test wants them."""

from __future__ import annotations

import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager


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
