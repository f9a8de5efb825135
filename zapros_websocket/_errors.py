"""The one error tree. What goes wrong with the network before the handshake stays Zapros's own.

zapros.ZaprosError
+-- WebsocketError
    +-- ConnectionClosed            the connection is over, in order or not
    +-- UnexpectedMessageError      a message of another kind came than was asked for
    +-- LargeMessageError           a message came that can only be received in chunks
    +-- HandshakeError              the answer to the opening handshake was not a valid 101
        +-- HandshakeTimeoutError   ... or did not come in time (also a built-in TimeoutError)
"""

from __future__ import annotations

from typing import Literal

from zapros import Response, ZaprosError

from ._protocol.messages import BinaryMessage, CloseMessage, TextMessage


class WebsocketError(ZaprosError):
    """Base class of everything that this library raises about a connection."""


class ConnectionClosed(WebsocketError):
    """The connection is over: ``send`` and ``recv`` cannot go on.

    Attributes:
        code: The peer's close code when it sent one; 1006 when the connection was lost without a close frame; the
            code of the failure when this side failed the connection (RFC 6455, section 7.1.5).
        reason: The peer's reason, or what went wrong, in words.
        received: The close frame that came from the peer, or None.
        sent: The close frame that was sent to the peer, or None.
    """

    def __init__(
        self,
        code: int,
        reason: str | None = None,
        *,
        received: CloseMessage | None = None,
        sent: CloseMessage | None = None,
    ) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.received = received
        self.sent = sent

    @property
    def clean(self) -> bool:
        """Whether both close frames were exchanged (RFC 6455, section 7.1.4)."""
        return self.received is not None and self.sent is not None

    def __str__(self) -> str:
        # What the peer wrote is shown escaped: it may end up in a log.
        said = f": {self.reason!r}" if self.reason else ""
        return f"WebSocket connection closed with code {int(self.code)}{said}"


class UnexpectedMessageError(WebsocketError):
    """A text message came where a binary one was asked for, or the other way round.

    The message is not lost: the next call that receives gets it. The connection is as it was.

    Attributes:
        expected: The kind that was asked for, ``"text"`` or ``"binary"``.
        message: The message that came.
    """

    def __init__(self, expected: Literal["text", "binary"], message: TextMessage | BinaryMessage) -> None:
        super().__init__(expected, message)
        self.expected = expected
        self.message = message

    def __str__(self) -> str:
        size = len(self.message.data)
        units = "bytes" if isinstance(self.message.data, bytes) else "characters"
        return (
            f"a {self.expected} message was asked for, and a {self.message.kind} message of {size:,} {units} came; "
            "it is kept for the next call, such as recv()"
        )


class LargeMessageError(WebsocketError):
    """A message over ``max_message_size`` came where a whole one was asked for, and ``stream_large_messages`` is set.

    The message is not lost: take it with ``recv_chunks``. The connection is as it was.

    Attributes:
        kind: ``"text"`` or ``"binary"``.
    """

    def __init__(self, kind: Literal["text", "binary"]) -> None:
        super().__init__(kind)
        self.kind = kind

    def __str__(self) -> str:
        return f"a {self.kind} message over max_message_size came; it is kept for recv_chunks()"


class HandshakeError(WebsocketError):
    """The opening handshake failed: the answer was not a valid 101 (RFC 6455, section 4.1).

    Attributes:
        response: The answer, with its status, headers and up to 64 KiB of its body, or None where none was read. Its
            ``read()`` gives bytes at once; its ``text`` raises when they are not in the charset that the server names.
    """

    def __init__(self, message: str, *, response: Response | None = None) -> None:
        super().__init__(message)
        self.response = response


class HandshakeTimeoutError(HandshakeError, TimeoutError):
    """The opening handshake did not end within ``open_timeout``."""
