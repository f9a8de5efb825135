"""The ASGI handle that Zapros gives, dressed as a byte stream.

An application in the same process speaks in whole messages. wsproto's server half stands between it and the session:
the session sends and receives the same frames as over a network, and is none the wiser.

Invariants:

- The application receives ``websocket.disconnect``, once, before its task is stopped.
- Pings and pongs end here: ASGI has no words for them.
- The handle of Zapros is closed on every path; on asyncio an application that does not end is stopped after the grace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from io import StringIO
from typing import ClassVar, Final, Protocol

from anyio import CancelScope, move_on_after
from wsproto.connection import SERVER, Connection
from wsproto.events import BytesMessage, CloseConnection, TextMessage
from zapros.websocket import ConnectionClosed as ApplicationClosed

from .base import Sink, pump

_ABNORMAL: Final = 1006
_NO_STATUS: Final = 1005
_CLOSE: Final = b"\x88"

# Seconds for the handle itself to close.
_SHORT: Final = 0.5


class _Queue(Protocol):
    async def put(self, item: Mapping[str, object]) -> None: ...
    async def get(self) -> Mapping[str, object]: ...
    async def aclose(self) -> None: ...


class AsgiHandle(Protocol):
    """What Zapros hands over for an application that has accepted the connection."""

    accept_subprotocol: str | None

    async def asend(self, *, text: str | None = None, bytes: bytes | None = None) -> None:
        """Give the application a message."""

    async def areceive(self) -> Mapping[str, object]:
        """Wait for a message of the application."""
        ...

    async def aclose(self) -> None:
        """Stop the application."""


class AsgiStream:
    """A connection to an application in the same process."""

    carries_control: ClassVar[bool] = False

    def __init__(self, handle: AsgiHandle) -> None:
        self._handle = handle
        self._server = Connection(SERVER)
        self._text = StringIO()
        self._data = bytearray()
        self._told = False
        self._at_end = False
        # The guarded place: the handle's own close stops the application before it can see the disconnect.
        self._to_application: _Queue = getattr(handle, "_client_to_app_queue")  # noqa: B009
        self._from_application: _Queue = getattr(handle, "_app_to_client_queue")  # noqa: B009
        self._task: asyncio.Task[None] | None = getattr(handle, "_asyncio_task", None)

    async def receive(self) -> bytes:
        """Wait for a message of the application, as a frame; none after its close."""
        if self._at_end:
            return b""
        try:
            message = await self._handle.areceive()
        except ApplicationClosed as closed:
            self._at_end = True
            # wsproto takes the number 1005 for 1000, and None for a frame without a code.
            code = None if closed.code == _NO_STATUS else closed.code
            return self._server.send(CloseConnection(code=code, reason=closed.reason if code else None))  # type: ignore[arg-type]
        text = message.get("text")
        if isinstance(text, str):
            return self._server.send(TextMessage(data=text))
        data = message.get("bytes")
        if isinstance(data, (bytes, bytearray)):
            return self._server.send(BytesMessage(data=bytes(data)))
        raise RuntimeError("the ASGI application sent a websocket.send event with neither text nor bytes")

    async def pump(self, sink: Sink) -> None:
        """Receive until ``sink`` wants no more."""
        await pump(self, sink)

    async def wait_writable(self) -> None:
        """The queue to the application always takes a message."""

    async def send_all(self, data: bytes | memoryview) -> None:
        """Give the application the messages that stand in ``data``."""
        data = bytes(data)
        if data.startswith(_CLOSE):
            await self._close(data)
            return
        self._server.receive_data(data)
        for event in self._server.events():
            if isinstance(event, TextMessage):
                self._text.write(event.data)
                if event.message_finished:
                    text, self._text = self._text.getvalue(), StringIO()
                    await self._handle.asend(text=text)
            elif isinstance(event, BytesMessage):
                self._data += event.data
                if event.message_finished:
                    whole, self._data = bytes(self._data), bytearray()
                    await self._handle.asend(bytes=whole)

    async def _close(self, frame: bytes) -> None:
        # Read here, because wsproto does not know 1014. What a client masked: two bytes, a key of four, the payload.
        payload = bytes(byte ^ frame[2 + i % 4] for i, byte in enumerate(frame[6:]))
        code = int.from_bytes(payload[:2], "big") if payload else _NO_STATUS
        reason = payload[2:].decode()
        if not self._at_end:
            # The answer to the close, behind all that the application has sent so far, and in front of what it says
            # to the disconnect.
            answer = {"type": "websocket.close", "code": code, "reason": reason}
            with CancelScope(shield=True):
                await self._from_application.put(answer)
        await self._tell(code, reason)

    async def aclose(self, *, grace: float) -> None:
        """Tell the application, and give it up to ``grace`` seconds to end."""
        try:
            await self._tell(_ABNORMAL, "")
            with move_on_after(grace):
                if self._task is not None:
                    await asyncio.wait({self._task})
        finally:
            with CancelScope(shield=True), move_on_after(_SHORT):
                if self._task is not None:
                    await self._handle.aclose()
                else:
                    # On trio the application runs in the nursery of the handler, and nobody else can stop it. It finds
                    # the end where it receives; a queue that is closed where it still sends would break that nursery.
                    await self._to_application.aclose()

    async def _tell(self, code: int, reason: str) -> None:
        if not self._told:
            self._told = True
            # The queue is never full: nothing must keep the disconnect from the application.
            with CancelScope(shield=True):
                await self._to_application.put({"type": "websocket.disconnect", "code": code, "reason": reason})
