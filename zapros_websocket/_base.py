"""What every WebSocket of this library can do, whatever it stands on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar, overload

from ._errors import ConnectionClosed
from ._payloads import JsonValue, bytes_of, compact, json_of, json_text, parsed, text_of
from ._protocol.messages import BinaryMessage, CloseCode, CloseMessage, Message, TextMessage
from ._time_left import time_left

T = TypeVar("T")


class AsyncBaseWebSocket(ABC):
    """The interface of a connection: for annotations, and for stand-ins in tests.

    A stand-in needs the abstract methods. What receives one kind of message stands on its ``recv`` then, and does not
    keep a message of the wrong kind for the next call.
    """

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

    @overload
    async def send_json(self, value: object, *, compress: bool | None = None) -> None: ...

    @overload
    async def send_json(
        self, value: T, *, dumps: Callable[[T], str | bytes | bytearray | memoryview], compress: bool | None = None
    ) -> None: ...

    async def send_json(
        self,
        value: T,
        *,
        dumps: Callable[[T], str | bytes | bytearray | memoryview] = compact,
        compress: bool | None = None,
    ) -> None:
        """Send a value as JSON (RFC 8259), in one text message.

        The JSON is made before anything is sent, in the calling task. Cancelling it does what cancelling ``send`` does.

        Args:
            value: The value.
            dumps: What makes JSON of it, such as ``orjson.dumps``. It may give bytes, which go out as text all the
                same. By default it is the ``json`` module of Python, without spaces, with characters as they are, and
                without NaN and infinity, which JSON does not have.
            compress: Whether to compress it, as with ``send``.

        Raises:
            TypeError, ValueError: the value is none that ``dumps`` takes, ``dumps`` gives something that is no text in
                UTF-8, or ``compress`` is no bool. Whatever else ``dumps`` raises comes out as it is.
            ConnectionClosed: the connection is closed or closing.
        """
        await self._send_text(TextMessage(json_text(value, dumps)), compress)

    async def _send_text(self, message: TextMessage, compress: bool | None) -> None:
        """Send a text. What has no compression has nothing to do with ``compress``."""
        await self.send(message)

    async def recv_text(self) -> str:
        """Wait for the next text message, and return its text.

        Pings and pongs that come before it are skipped, as in iteration. A binary message is not: it raises, and the
        next call gets it. Several tasks may wait at once: it counts who came first, whatever each has asked for.

        Cancelling it loses nothing.

        Raises:
            UnexpectedMessageError: the next message is binary.
            ConnectionClosed: the peer has closed, or the connection is closed or lost, and all that came before was
                received.
        """
        return await self._recv_as(text_of)

    async def recv_bytes(self) -> bytes:
        """Wait for the next binary message, and return its bytes; otherwise like ``recv_text``.

        Raises:
            UnexpectedMessageError: the next message is a text.
            ConnectionClosed: as with ``recv_text``.
        """
        return await self._recv_as(bytes_of)

    @overload
    async def recv_json(self) -> JsonValue: ...

    @overload
    async def recv_json(self, *, loads: Callable[[str], T]) -> T: ...

    async def recv_json(self, *, loads: Callable[[str], object] = parsed) -> object:
        """Wait for the next text message, and return the value that its JSON stands for (RFC 8259).

        Otherwise like ``recv_text``. What ``loads`` raises comes out as it is, and the message is not lost: the next
        call gets it. Take it with ``recv`` to go on behind it.

        Args:
            loads: What makes a value of the text, such as ``orjson.loads``, or the method of a model that checks it.
                By default it is the ``json`` module of Python.

        Raises:
            UnexpectedMessageError: the next message is binary.
            ValueError: the text is not JSON (a ``json.JSONDecodeError``).
            ConnectionClosed: as with ``recv_text``.
        """
        return await self._recv_as(json_of(loads))

    async def _recv_as(self, read: Callable[[TextMessage | BinaryMessage], T]) -> T:
        """The next text or binary message, as ``read`` gives it."""
        while True:
            message = await self.recv()
            if isinstance(message, CloseMessage):
                raise ConnectionClosed(message.code, message.reason, received=message)
            if isinstance(message, (TextMessage, BinaryMessage)):
                return read(message)


class BaseWebSocket(ABC):
    """The interface of a synchronous connection: for annotations, and for stand-ins in tests."""

    @abstractmethod
    def send(self, message: Message) -> None:
        """Send one message."""

    @abstractmethod
    def recv(self, timeout: float | None = None) -> Message:
        """Wait for the next message of any kind, for ``timeout`` seconds or for ever."""

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

    @overload
    def send_json(self, value: object, *, compress: bool | None = None) -> None: ...

    @overload
    def send_json(
        self, value: T, *, dumps: Callable[[T], str | bytes | bytearray | memoryview], compress: bool | None = None
    ) -> None: ...

    def send_json(
        self,
        value: T,
        *,
        dumps: Callable[[T], str | bytes | bytearray | memoryview] = compact,
        compress: bool | None = None,
    ) -> None:
        """Send a value as JSON (RFC 8259), in one text message, which is made before anything is sent.

        Args:
            value: The value.
            dumps: What makes JSON of it, such as ``orjson.dumps``; as with ``AsyncBaseWebSocket.send_json``.
            compress: Whether to compress it, as with ``send``.

        Raises:
            TypeError, ValueError: the value is none that ``dumps`` takes, ``dumps`` gives something that is no text in
                UTF-8, or ``compress`` is no bool. Whatever else ``dumps`` raises comes out as it is.
            ConnectionClosed: the connection is closed or closing.
        """
        self._send_text(TextMessage(json_text(value, dumps)), compress)

    def _send_text(self, message: TextMessage, compress: bool | None) -> None:
        """Send a text. What has no compression has nothing to do with ``compress``."""
        self.send(message)

    def recv_text(self, timeout: float | None = None) -> str:
        """Wait for the next text message, and return its text; for ``timeout`` seconds, or for ever.

        Pings and pongs that come before it are skipped, as in iteration. A binary message is not: it raises, and the
        next call gets it.

        Raises:
            UnexpectedMessageError: the next message is binary.
            TimeoutError: no message came within ``timeout``.
            ConnectionClosed: the peer has closed, or the connection is closed or lost, and all that came before was
                received.
        """
        return self._recv_as(text_of, timeout)

    def recv_bytes(self, timeout: float | None = None) -> bytes:
        """Wait for the next binary message, and return its bytes; otherwise like ``recv_text``.

        Raises:
            UnexpectedMessageError: the next message is a text.
            TimeoutError, ConnectionClosed: as with ``recv_text``.
        """
        return self._recv_as(bytes_of, timeout)

    @overload
    def recv_json(self, timeout: float | None = None) -> JsonValue: ...

    @overload
    def recv_json(self, timeout: float | None = None, *, loads: Callable[[str], T]) -> T: ...

    def recv_json(self, timeout: float | None = None, *, loads: Callable[[str], object] = parsed) -> object:
        """Wait for the next text message, and return the value that its JSON stands for (RFC 8259).

        Otherwise like ``recv_text``. What ``loads`` raises comes out as it is, and the message is not lost: the next
        call gets it. Take it with ``recv`` to go on behind it.

        Args:
            timeout: Seconds to wait; None waits for ever.
            loads: What makes a value of the text, such as ``orjson.loads``, or the method of a model that checks it.
                By default it is the ``json`` module of Python.

        Raises:
            UnexpectedMessageError: the next message is binary.
            ValueError: the text is not JSON (a ``json.JSONDecodeError``).
            TimeoutError, ConnectionClosed: as with ``recv_text``.
        """
        return self._recv_as(json_of(loads), timeout)

    def _recv_as(self, read: Callable[[TextMessage | BinaryMessage], T], timeout: float | None) -> T:
        """The next text or binary message, as ``read`` gives it."""
        left = time_left(timeout)
        while True:
            message = self.recv(next(left))
            if isinstance(message, CloseMessage):
                raise ConnectionClosed(message.code, message.reason, received=message)
            if isinstance(message, (TextMessage, BinaryMessage)):
                return read(message)
