"""When threads wait: looked up inside, because nothing else tells a thread that waits from one that is about to."""

from __future__ import annotations

import sys
import threading
import time

from zapros_websocket import WebSocket

from .peers import PATIENCE


def until_one_receives(ws: WebSocket, number: int = 1) -> None:
    """Wait until so many threads wait in ``recv``."""
    until(lambda: len(ws._inbox._waiting) >= number)  # pyright: ignore[reportPrivateUsage]


def until_one_sends(ws: WebSocket, number: int = 1) -> None:
    """Wait until so many threads wait in ``send``."""
    until(lambda: len(ws._outbox._waiting) >= number)  # pyright: ignore[reportPrivateUsage]


def until_one_writes(ws: WebSocket) -> None:
    """Wait until a thread is in the middle of a message, and waits for the socket."""
    until(lambda: ws._outbox._is_writing_here)  # pyright: ignore[reportPrivateUsage]


def until_one_sends_a_fragment(ws: WebSocket) -> None:
    """Wait until a thread waits for room in the middle of a message."""
    until(lambda: ws._outbox._waiting_inside is not None)  # pyright: ignore[reportPrivateUsage]


def until_one_waits_for_a_part(ws: WebSocket) -> None:
    """Wait until a thread has begun to receive a message in chunks, and waits for the next."""
    until(lambda: bool(getattr(ws._inbox, "_waiting_for_parts")))  # noqa: B009  # pyright: ignore[reportPrivateUsage]


def until_one_closes(ws: WebSocket) -> None:
    """Wait until a close frame waits behind messages."""
    outbox = ws._outbox  # pyright: ignore[reportPrivateUsage]
    until(lambda: any(not isinstance(item, tuple) for item in list(outbox._queue)))  # pyright: ignore[reportPrivateUsage]


def until_one_calls(ws: WebSocket) -> None:
    """Wait until a thread waits for the event loop."""
    until(lambda: bool(ws._host._calls))  # pyright: ignore[reportPrivateUsage]


def until_main_thread_is_in(function: str) -> None:
    """Wait until the main thread is in a function of that name."""
    main = threading.main_thread().ident or 0

    def is_there() -> bool:
        return sys._current_frames()[main].f_code.co_name == function  # pyright: ignore[reportPrivateUsage]

    until(is_there)


def until(condition: object) -> None:
    """Wait until it is so."""
    give_up = time.monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < give_up
        time.sleep(0.001)
