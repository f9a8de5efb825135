"""What every asynchronous WebSocket of this library can do, whatever it stands on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

from ._protocol.messages import CloseCode, Message


class AsyncBaseWebSocket(ABC):
    """The interface of a connection: for annotations, and for stand-ins in tests."""

    @abstractmethod
    async def send(self, message: Message) -> None:
        """Send one message."""

    @abstractmethod
    async def recv(self) -> Message:
        """Wait for the next message of any kind."""

    @abstractmethod
    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the connection."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[Message]:
        """Iterate over the text and binary messages."""

    @property
    @abstractmethod
    def close_code(self) -> int | None:
        """The close code, or None while the connection is open."""

    @property
    @abstractmethod
    def close_reason(self) -> str | None:
        """The close reason, or None while the connection is open."""
