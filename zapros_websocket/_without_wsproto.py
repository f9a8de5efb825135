"""What stands in for the entry points where wsproto cannot be imported."""

from __future__ import annotations

from typing import NoReturn

from ._base import AsyncBaseWebSocket as AsyncWebSocket
from ._base import BaseWebSocket as WebSocket

__all__ = ["AsyncWebSocket", "WebSocket", "aconnect_ws", "connect_ws", "open_ws", "reconnecting", "reconnecting_sync"]


def aconnect_ws(*args: object, **options: object) -> NoReturn:
    """Raise RuntimeError, which says what to install."""
    raise RuntimeError("WebSockets need wsproto, which cannot be imported: run `pip install wsproto`")


async def open_ws(*args: object, **options: object) -> NoReturn:
    """Raise RuntimeError, which says what to install."""
    aconnect_ws()


def connect_ws(*args: object, **options: object) -> NoReturn:
    """Raise RuntimeError, which says what to install."""
    aconnect_ws()


def reconnecting(*args: object, **options: object) -> NoReturn:
    """Raise RuntimeError, which says what to install."""
    aconnect_ws()


def reconnecting_sync(*args: object, **options: object) -> NoReturn:
    """Raise RuntimeError, which says what to install."""
    aconnect_ws()
