"""The messages that cross the API, and the close codes of RFC 6455, section 7.4."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal, TypeAlias


class CloseCode(IntEnum):
    """The registered close codes (RFC 6455, section 7.4.1, and the IANA registry)."""

    NORMAL = 1000
    """The purpose of the connection has been fulfilled."""
    GOING_AWAY = 1001
    """The endpoint goes away: a server shuts down, a client leaves."""
    PROTOCOL_ERROR = 1002
    """The peer violated the protocol."""
    UNSUPPORTED_DATA = 1003
    """The peer sent a kind of data that this endpoint does not take."""
    NO_STATUS = 1005
    """Never sent: what is reported for a close frame without a code."""
    ABNORMAL = 1006
    """Never sent: what is reported when the connection was lost without a close frame."""
    INVALID_FRAME_PAYLOAD_DATA = 1007
    """The data does not fit the kind of the message, such as text that is not UTF-8."""
    POLICY_VIOLATION = 1008
    """The message violates the policy of this endpoint."""
    MESSAGE_TOO_BIG = 1009
    """The message is too big to be processed."""
    MANDATORY_EXTENSION = 1010
    """The client expected an extension that the server did not agree to."""
    INTERNAL_ERROR = 1011
    """The endpoint met a condition that it did not expect, such as an unanswered ping."""
    SERVICE_RESTART = 1012
    """The service restarts."""
    TRY_AGAIN_LATER = 1013
    """The service is overloaded for now."""
    BAD_GATEWAY = 1014
    """A gateway got an invalid answer from the server behind it."""
    TLS_HANDSHAKE = 1015
    """Never sent: TLS could not be established."""


@dataclass(frozen=True, slots=True)
class TextMessage:
    """A text message; ``data`` must be a ``str`` that UTF-8 can carry."""

    data: str
    kind: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class BinaryMessage:
    """A binary message. Received ``data`` is exactly ``bytes``; any bytes-like object can be sent."""

    data: bytes
    kind: Literal["binary"] = "binary"


@dataclass(frozen=True, slots=True)
class PingMessage:
    """A ping with up to 125 bytes of payload (RFC 6455, section 5.5.2). Pings of the peer are answered already."""

    data: bytes = b""
    kind: Literal["ping"] = "ping"


@dataclass(frozen=True, slots=True)
class PongMessage:
    """A pong with up to 125 bytes of payload (RFC 6455, section 5.5.3)."""

    data: bytes = b""
    kind: Literal["pong"] = "pong"


@dataclass(frozen=True, slots=True)
class CloseMessage:
    """A close frame (RFC 6455, section 5.5.1). A received frame without a code has the code 1005."""

    code: int = CloseCode.NORMAL
    reason: str | None = None
    kind: Literal["close"] = "close"


Message: TypeAlias = TextMessage | BinaryMessage | PingMessage | PongMessage | CloseMessage
"""Any message: tell them apart with ``match``, ``isinstance`` or ``kind``."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the payload of a large message, in the place of a message."""

    data: str | bytes
    kind: Literal["text", "binary"]
    is_first: bool
    is_final: bool


MAX_CONTROL_PAYLOAD: Final = 125
"""The longest payload of a control frame, in bytes (RFC 6455, section 5.5)."""

MAX_CLOSE_REASON: Final = MAX_CONTROL_PAYLOAD - 2
"""The longest close reason, in bytes of UTF-8: a control payload less the code."""


def may_be_sent(code: int) -> bool:
    """Whether ``code`` may stand in a close frame that an endpoint sends (RFC 6455, section 7.4)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def not_utf8(error: UnicodeDecodeError | str | None) -> CloseMessage:
    """The failure that a text message is whose payload is not UTF-8 (RFC 6455, section 8.1)."""
    return CloseMessage(CloseCode.INVALID_FRAME_PAYLOAD_DATA, f"invalid text: {error}")
