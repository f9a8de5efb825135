"""What goes over a connection, as debug lines of ``logging``: escaped, cut, and with a number for each connection.

It is an observer, and there is none while the logger is not enabled for DEBUG when a connection is opened.
Headers are not logged, and neither is the URL: both can hold credentials.
"""

from __future__ import annotations

import logging
from itertools import count
from typing import TYPE_CHECKING, Final, Literal

from ._observer import Observer, Observers, logger
from ._protocol.messages import BinaryMessage, CloseMessage, TextMessage

if TYPE_CHECKING:
    from zapros import Response

    from ._errors import ConnectionClosed
    from ._protocol.messages import Message
    from ._protocol.options import PerMessageDeflateExtension

# Characters, or bytes, of a payload that are shown.
SHOWN: Final = 64

_numbers: Final = count(1)


def observers_of(observer: Observer | None) -> Observers | None:
    """The observers of a new connection: that of the caller, and the log if there is to be one; None without any."""
    log = [FrameLog()] if logger.isEnabledFor(logging.DEBUG) else []
    given = [] if observer is None else [observer]
    return Observers([*log, *given]) if log or given else None


class FrameLog(Observer):
    """Logs what comes in and what goes out, in the order of the wire."""

    def __init__(self) -> None:
        self._number = next(_numbers)

    def opened(
        self, response: Response, *, subprotocol: str | None, permessage_deflate: PerMessageDeflateExtension | None
    ) -> None:
        """Say so, and with which compression."""
        self._log("open%s", "" if permessage_deflate is None else f", {permessage_deflate}")

    def message_sent(self, message: Message) -> None:
        """Show it."""
        self._log("> %s", _shown(message))

    def message_received(self, message: Message) -> None:
        """Show it."""
        self._log("< %s", _shown(message))

    def closed(self, end: ConnectionClosed, *, by: Literal["client", "server"] | None) -> None:
        """Say how, and by whom."""
        self._log("closed: %s", f"{int(end.code)} {end.reason or ''!a}, {f'by the {by}' if by else 'lost'}")

    def _log(self, line: str, what: str) -> None:
        logger.debug("connection %d: " + line, self._number, what)


def _shown(message: Message) -> str:
    if isinstance(message, TextMessage):
        return f"text {_cut(ascii(message.data[:SHOWN]), len(message.data), 'characters')}"
    if isinstance(message, CloseMessage):
        return f"close {int(message.code)} {message.reason or ''!a}"
    kind = "binary" if isinstance(message, BinaryMessage) else message.kind
    return f"{kind} {_cut(message.data[:SHOWN].hex(' '), len(message.data), 'bytes')}"


def _cut(shown: str, length: int, unit: str) -> str:
    return f"{shown}{'...' if length > SHOWN else ''} ({length} {unit})"
