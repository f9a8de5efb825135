"""When threads wait: looked up inside, because nothing else tells a thread that waits from one that is about to."""

from __future__ import annotations

import time

from zapros_websocket import WebSocket

from .peers import PATIENCE


def until_one_receives(ws: WebSocket, number: int = 1) -> None:
    """Wait until so many threads wait in ``recv``."""
    _until(lambda: len(ws._inbox._waiting) >= number)  # pyright: ignore[reportPrivateUsage]


def until_one_sends(ws: WebSocket, number: int = 1) -> None:
    """Wait until so many threads wait in ``send``."""
    _until(lambda: len(ws._outbox._waiting) >= number)  # pyright: ignore[reportPrivateUsage]


def until_one_closes(ws: WebSocket) -> None:
    """Wait until a close frame waits behind messages."""
    outbox = ws._outbox  # pyright: ignore[reportPrivateUsage]
    _until(lambda: any(not isinstance(item, tuple) for item in list(outbox._queue)))  # pyright: ignore[reportPrivateUsage]


def until_one_calls(ws: WebSocket) -> None:
    """Wait until a thread waits for the event loop."""
    _until(lambda: bool(ws._host._calls))  # pyright: ignore[reportPrivateUsage]


def _until(condition: object) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < give_up
        time.sleep(0.001)
