"""The exit statuses: what the outcome of a conversation is for the shell."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from .._errors import ConnectionClosed

SIGNALLED: Final = 128
"""Added to the number of a signal: 130 after Ctrl-C, as shells have it."""

IN_ORDER: Final = (1000, 1005)


class Status(IntEnum):
    """The exit status of a command."""

    DONE = 0
    """This side closed the connection, or the peer did with 1000 or without a code."""
    FAILED = 1
    """Something else failed, such as the demonstration."""
    USAGE = 2
    """The arguments or the input cannot be used."""
    NO_CONNECTION = 3
    """There was no connection: no such name, refused, TLS failed, no answer in time."""
    REFUSED = 4
    """The server answered the handshake with something else than a valid 101."""
    CLOSED = 5
    """The peer closed with another code than 1000, or, with any, before all was measured."""
    LOST = 6
    """The connection was lost without a close frame, or failed."""


def status_of(closed: ConnectionClosed) -> Status:
    """The status that the end of a connection stands for."""
    if closed.received is None:
        return Status.LOST
    return Status.DONE if closed.received.code in IN_ORDER else Status.CLOSED
