"""What stands in for the entry points where wsproto cannot be imported."""

from __future__ import annotations

from typing import NoReturn

from ._base import AsyncBaseWebSocket as AsyncWebSocket

__all__ = ["AsyncWebSocket", "aconnect_ws", "open_ws", "reconnecting"]


def aconnect_ws(*args: object, **options: object) -> NoReturn:
    """Raise RuntimeError, which says what to install."""
    raise RuntimeError("WebSockets need wsproto, which cannot be imported: run `pip install wsproto`")


async def open_ws(*args: object, **options: object) -> NoReturn:
    """Raise RuntimeError, which says what to install."""
    aconnect_ws()


def reconnecting(*args: object, **options: object) -> NoReturn:
    """Raise RuntimeError, which says what to install."""
    aconnect_ws()
