"""What goes over a connection, as debug lines of ``logging``: escaped, cut, and with a number for each connection.

It costs nothing while the logger is not enabled for DEBUG when a connection is opened: the session is another then.
Headers are not logged, and neither is the URL: both can hold credentials.
"""

from __future__ import annotations

import logging
from itertools import count
from typing import TYPE_CHECKING, Final

from ._protocol.frames import TEXT
from ._protocol.messages import BinaryMessage, CloseMessage, TextMessage
from ._protocol.outgoing import PING, PONG
from ._protocol.session import Session

if TYPE_CHECKING:
    from ._protocol.deflate import Deflate
    from ._protocol.messages import Message

logger: Final = logging.getLogger("zapros_websocket")

# Characters, or bytes, of a payload that are shown.
SHOWN: Final = 64

_numbers: Final = count(1)


def session(*, max_message_size: int, deflate: Deflate | None) -> Session:
    """A session for a new connection, which logs if it is to."""
    kind = LoggedSession if logger.isEnabledFor(logging.DEBUG) else Session
    return kind(max_message_size=max_message_size, deflate=deflate)


class LoggedSession(Session):
    """A session that logs what comes in and what goes out, in the order of the wire."""

    def __init__(self, *, max_message_size: int, deflate: Deflate | None = None) -> None:
        super().__init__(max_message_size=max_message_size, deflate=deflate)
        self._number = next(_numbers)
        # Nothing goes out around it.
        self.is_simple = False
        self._log("open%s", "" if deflate is None else f", {deflate.agreed}")

    def receive(self, data: bytes | bytearray | memoryview) -> list[Message]:
        """As ``Session.receive``."""
        return self._received(super().receive(data))

    def fill(self, count: int) -> list[Message]:
        """As ``Session.fill``."""
        return self._received(super().fill(count))

    def encode(self, opcode: int, payload: bytes | memoryview) -> bytes:
        """As ``Session.encode``."""
        if self.has_control:
            # Goes in front of the message, and is logged in front of it.
            return self.take_control() + self.encode(opcode, payload)
        self._log("> %s", _frame(opcode, payload))
        return super().encode(opcode, payload)

    def take_control(self) -> bytes:
        """As ``Session.take_control``."""
        if self._close_pending:
            assert self.sent is not None
            self._log("> %s", _shown(self.sent))
        else:
            pending = [] if self._ping is None else [(PING, self._ping)]
            for opcode, payload in [*pending, *((PONG, payload) for payload in self._pongs)]:
                self._log("> %s", _frame(opcode, payload))
        return super().take_control()

    def _received(self, messages: list[Message]) -> list[Message]:
        for message in messages:
            self._log("< %s", _shown(message))
        return messages

    def _settle(self) -> None:
        super()._settle()
        self.is_simple = False

    def _fail(self, failure: CloseMessage) -> None:
        self._log("failed: %s", _shown(failure))
        super()._fail(failure)

    def _log(self, line: str, what: str) -> None:
        logger.debug("connection %d: " + line, self._number, what)


def _frame(opcode: int, payload: bytes | memoryview) -> str:
    if opcode == TEXT:
        # Cut within the bytes: what is left of a character there is shown as what it is.
        return (
            f"text {_cut(ascii(bytes(payload[: 4 * SHOWN]).decode(errors='replace')[:SHOWN]), len(payload), 'bytes')}"
        )
    name = {PING: "ping", PONG: "pong"}.get(opcode, "binary")
    return f"{name} {_cut(bytes(payload[:SHOWN]).hex(' '), len(payload), 'bytes')}"


def _shown(message: Message) -> str:
    if isinstance(message, TextMessage):
        return f"text {_cut(ascii(message.data[:SHOWN]), len(message.data), 'characters')}"
    if isinstance(message, CloseMessage):
        return f"close {int(message.code)} {message.reason or ''!a}"
    kind = "binary" if isinstance(message, BinaryMessage) else message.kind
    return f"{kind} {_cut(message.data[:SHOWN].hex(' '), len(message.data), 'bytes')}"


def _cut(shown: str, length: int, unit: str) -> str:
    return f"{shown}{'...' if length > SHOWN else ''} ({length} {unit})"
