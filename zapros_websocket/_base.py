"""What every WebSocket of this library can do, whatever it stands on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator

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


class BaseWebSocket(ABC):
    """The interface of a synchronous connection: for annotations, and for stand-ins in tests."""

    @abstractmethod
    def send(self, message: Message) -> None:
        """Send one message."""

    @abstractmethod
    def recv(self) -> Message:
        """Wait for the next message of any kind."""

    @abstractmethod
    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the connection."""

    @abstractmethod
    def __iter__(self) -> Iterator[Message]:
        """Iterate over the text and binary messages."""

    @property
    @abstractmethod
    def close_code(self) -> int | None:
        """The close code, or None while the connection is open."""

    @property
    @abstractmethod
    def close_reason(self) -> str | None:
        """The close reason, or None while the connection is open."""
