"""Whole data frames to bytes and back (RFC 6455, section 5.2), without the detour through wsproto.

Pings and pongs are built here as well; their first bytes differ from those of a message, and nothing else.

What is read here is the common case: a final, unfragmented text or binary frame that is complete in the buffer.
Invariant: ``read_messages`` accepts only what wsproto would accept, and stops in front of everything else, so that
the session or wsproto judges it: control frames, fragments, and every violation of the protocol.

There are two forms of it. The one in C is used where it could be built, unless the environment variable
``ZAPROS_WEBSOCKET_PURE`` is set to something; ``implementation`` says which one it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, Literal

TEXT: Final = 0x1
BINARY: Final = 0x2

_MASKED: Final = 0x80

implementation: Literal["c", "pure"]
context_switches: Callable[[], int] | None
"""A number that is another one in each turn of an event loop. Python alone cannot tell that for every loop."""

try:
    if os.environ.get("ZAPROS_WEBSOCKET_PURE"):
        raise ImportError("the form in C is not wanted")
    from ._speedups import context_switches as context_switches
    from ._speedups import encode as encode
    from ._speedups import read_messages as read_messages

    implementation = "c"
except ImportError:
    from .pure import encode as encode
    from .pure import read_messages as read_messages

    context_switches = None
    implementation = "pure"


def span(buffer: bytes | bytearray | memoryview, start: int) -> tuple[int, int] | None:
    """The lengths of the header and of the payload of the frame at ``start``; None while the header is incomplete."""
    available = len(buffer) - start
    if available < 2:
        return None
    second = buffer[start + 1]
    length = second & ~_MASKED
    header = 2 if length < 126 else 4 if length == 126 else 10
    # Nothing that a server sends is masked. wsproto will say so, once it has the whole header.
    key = 4 if second & _MASKED else 0
    if available < header + key:
        return None
    if header > 2:
        length = int.from_bytes(buffer[start + 2 : start + header], "big")
    return header + key, length
