"""One WebSocket of an ASGI application: events of ASGI on one side, frames on the other.

    deciding ---- accept ----> open ---- a close of either side, or a loss ----> ended
        |                                                                          |
        +---- close, a response, an exception ----> refused                        websocket.disconnect

Invariants:

- The application gets ``websocket.disconnect`` once the client has closed or is gone, whatever it is doing then, and
  again whenever it asks; nothing of this conversation cancels it.
- What it raises is kept, and goes to the client as a close with 1011 (or a 500), as a server would say it.
- A mistake of the application against ASGI is raised where it makes it.
- It is backpressured as over a network: by what the client does not read; and it backpressures the client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Final, Protocol, TypeAlias

from anyio import CancelScope, Event, create_task_group, current_time, get_cancelled_exc_class, sleep
from anyio.lowlevel import checkpoint
from wsproto.connection import ConnectionType
from zapros import Request, Response

from .._protocol import frames
from .._protocol.messages import (
    BinaryMessage,
    CloseCode,
    CloseMessage,
    Message,
    PingMessage,
    PongMessage,
    TextMessage,
)
from .._protocol.outgoing import close_message
from ._half import Incoming, Outgoing, Violation, negotiate, switching
from ._memory import MemoryStream, Pipe

AsgiEvent: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[AsgiEvent]]
Send: TypeAlias = Callable[[AsgiEvent], Awaitable[None]]

# Messages that the application has not asked for yet, before reading the client stops.
_UNREAD: Final = 16

# Seconds for the client to answer a close frame.
_CLOSE_TIMEOUT: Final = 10.0
_SHORT_CLOSE_TIMEOUT: Final = 1.0


class Application(Protocol):
    """An ASGI 3 application: what ``WebSocketAsgiHandler`` takes. Every framework's application is one."""

    async def __call__(self, scope: AsgiEvent, receive: Receive, send: Send, /) -> None:
        """Serve one connection."""


class ClientGone(OSError):
    """The application sent something to a client that is not there any more (ASGI: an OSError)."""


class Conversation:
    """One connection of an application, from its request to its end."""

    def __init__(
        self,
        application: Application,
        scope: AsgiEvent,
        request: Request,
        *,
        ping_interval: float | None,
        frame_size: int | None,
    ) -> None:
        self.path = str(scope["path"])
        self.answer: Response | None = None
        self.error: BaseException | None = None
        # Whether the error was raised by the handshake.
        self.is_told = False
        self.decided = Event()
        self._cancelling = CancelScope()
        self._parting = CancelScope()
        self._application = application
        self._scope = scope
        self._request = request
        self._ping_interval = ping_interval
        self._frame_size = frame_size
        self._from_client = Pipe()
        self._to_client = Pipe()
        self._incoming: Incoming | None = None
        self._outgoing = Outgoing()
        self._events: deque[AsgiEvent] = deque([{"type": "websocket.connect"}])
        self._changed = Event()
        self._from_client.on_end = self._change
        self._refusal: tuple[int, list[tuple[str, str]]] | None = None
        self._body = bytearray()
        self._is_refused = False
        self._close_sent = False
        self._disconnect: AsgiEvent | None = None
        self._read_to_the_end = Event()

    async def run(self) -> None:
        """Run the application, and part from the client when it has ended. Only ``cancel`` ends it before."""
        try:
            with self._cancelling:
                async with create_task_group() as self._tasks:
                    await self._run_application()
                    self._part()
                    if self._incoming is not None:
                        self._part_within(_CLOSE_TIMEOUT)
                        with self._parting:
                            await self._read_to_the_end.wait()
                    self._tasks.cancel_scope.cancel()
        finally:
            self._to_client.end()
            self._from_client.break_off()
            self._decide(500, [], b"the application was stopped")

    async def _run_application(self) -> None:
        try:
            await self._application(self._scope, self._receive, self._send)
        except get_cancelled_exc_class():
            raise
        except BaseException as error:
            # Frameworks let the news of the disconnect out of an endpoint: nothing is wrong with that.
            if self._disconnect is None or not _is_about_the_disconnect(error):
                self.error = error

    def cancel(self) -> None:
        """Cancel the application."""
        self._cancelling.cancel()

    def leave(self) -> None:
        """End it from the server's side: tell the application, and the client if it is connected."""
        if self._incoming is not None:
            self._say_close(CloseMessage(CloseCode.GOING_AWAY))
        self._has_left(CloseCode.GOING_AWAY, "")
        self._part_within(_SHORT_CLOSE_TIMEOUT)

    def lose(self) -> None:
        """The client is gone, and will not say so."""
        self._from_client.end()
        self._to_client.break_off()
        self._has_left(CloseCode.ABNORMAL, "")

    # What the application does

    async def _receive(self) -> AsgiEvent:
        while not self._events and self._disconnect is None:
            await self._changed.wait()
        if not self._events:
            assert self._disconnect is not None
            return dict(self._disconnect)
        event = self._events.popleft()
        self._change()
        return event

    async def _send(self, event: AsgiEvent) -> None:
        await checkpoint()
        kind = event["type"]
        if self._is_refused:
            raise RuntimeError(f"{kind} was sent after the connection was refused")
        if self._incoming is not None and self._to_client.is_broken:
            # How the client left stands in what it wrote.
            await self._read_to_the_end.wait()
        if self._disconnect is not None:
            raise ClientGone(f"{kind} was sent to a client that has left")
        if self._incoming is not None:
            await self._send_when_open(kind, event)
        elif self._refusal is not None:
            self._refuse_on(kind, event)
        else:
            self._send_when_deciding(kind, event)

    def _send_when_deciding(self, kind: object, event: AsgiEvent) -> None:
        match kind:
            case "websocket.accept":
                self._accept(event)
            case "websocket.close":
                self._refuse(403, [], b"")
            case "websocket.http.response.start":
                status = event["status"]
                assert isinstance(status, int)
                self._refusal = status, _texts(event.get("headers"))
            case _:
                raise RuntimeError(f"{kind} was sent before websocket.accept")

    def _refuse_on(self, kind: object, event: AsgiEvent) -> None:
        if kind != "websocket.http.response.body":
            raise RuntimeError(f"{kind} was sent, and not the websocket.http.response.body of the response")
        body = event.get("body", b"")
        assert isinstance(body, bytes)
        assert self._refusal is not None
        self._body += body
        if not event.get("more_body", False):
            self._refuse(*self._refusal, bytes(self._body))

    async def _send_when_open(self, kind: object, event: AsgiEvent) -> None:
        if self._close_sent:
            raise RuntimeError(f"{kind} was sent after websocket.close")
        match kind:
            case "websocket.send":
                text, data = event.get("text"), event.get("bytes")
                message: Message
                if isinstance(text, str) and data is None:
                    message = TextMessage(text)
                elif isinstance(data, (bytes, bytearray)) and text is None:
                    message = BinaryMessage(bytes(data))
                else:
                    raise RuntimeError("websocket.send carries either text as a str or bytes")
                await self._to_client.room()
                # The client may have left meanwhile, and another task of the application may have closed.
                if self._disconnect is None and not self._close_sent:
                    self._write(message)
            case "websocket.close":
                self._say_close(close_message(event.get("code", CloseCode.NORMAL), event.get("reason")))
            case _:
                raise RuntimeError(f"{kind} was sent on an open connection")

    # The handshake

    def _accept(self, event: AsgiEvent) -> None:
        offers = self._request.headers.get("sec-websocket-extensions", "")
        agreed = negotiate([offer.strip() for offer in offers.split(",")])
        answer, deflate = (None, None) if agreed is None else agreed
        subprotocol = event.get("subprotocol")
        headers = switching(
            self._request.headers["sec-websocket-key"],
            subprotocol=subprotocol if isinstance(subprotocol, str) else None,
            extensions=answer,
            headers=_texts(event.get("headers")),
        )
        self._incoming = Incoming(ConnectionType.SERVER, deflate)
        self._outgoing = Outgoing(deflate)
        self._tasks.start_soon(self._read)
        if self._ping_interval is not None:
            self._tasks.start_soon(self._ping, self._ping_interval)
        stream = MemoryStream(incoming=self._to_client, outgoing=self._from_client)
        self.answer = Response(
            101, headers, content=b"", context={"handoff": {"network_stream": stream}}, request=self._request
        )
        self.decided.set()

    def _refuse(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self._is_refused = True
        self._decide(status, headers, body)
        self._has_left(CloseCode.ABNORMAL, "")

    def _decide(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        if not self.decided.is_set():
            self.answer = Response(status, headers, content=body, request=self._request)
            self.decided.set()

    # What the client does

    async def _read(self) -> None:
        assert self._incoming is not None
        try:
            while not self._read_to_the_end.is_set() and (data := await self._from_client.get(64 * 1024)):
                for item in self._incoming.receive(data):
                    if isinstance(item, Violation):
                        self._say_close(CloseMessage(item.code, item.reason[:100]))
                        self._has_left(item.code, item.reason)
                        self._read_to_the_end.set()
                    else:
                        await self._take(item.message)
            self._has_left(CloseCode.ABNORMAL, "")
        finally:
            self._read_to_the_end.set()

    async def _take(self, message: Message) -> None:
        match message:
            case TextMessage(data=text):
                await self._hand_over({"type": "websocket.receive", "text": text})
            case BinaryMessage(data=data):
                await self._hand_over({"type": "websocket.receive", "bytes": data})
            case PingMessage(data=payload):
                if not self._close_sent:
                    self._write(PongMessage(payload))
            case PongMessage():
                pass
            case _:
                self._say_close(message)
                self._has_left(message.code, message.reason or "")
                self._read_to_the_end.set()

    async def _hand_over(self, event: AsgiEvent) -> None:
        # A client that has gone is read to its end whether anybody asks for it or not: its end is news.
        while len(self._events) >= _UNREAD and not self._from_client.is_ended:
            await self._changed.wait()
        self._events.append(event)
        self._change()

    async def _ping(self, interval: float) -> None:
        while True:
            await sleep(interval)
            if not self._close_sent:
                self._write(PingMessage(b"server"))

    # The end

    def _part_within(self, seconds: float) -> None:
        self._parting.deadline = min(self._parting.deadline, current_time() + seconds)

    def _part(self) -> None:
        # Before a decision even an application that returned is at fault, and a server would say so.
        self._decide(500, [], b"the application ended without an answer")
        if self._incoming is not None:
            self._say_close(CloseMessage(CloseCode.NORMAL if self.error is None else CloseCode.INTERNAL_ERROR))

    def _has_left(self, code: int, reason: str) -> None:
        if self._disconnect is None:
            self._disconnect = {"type": "websocket.disconnect", "code": int(code), "reason": reason}
            self._change()

    def _say_close(self, message: CloseMessage) -> None:
        if not self._close_sent:
            self._close_sent = True
            self._to_client.put(self._outgoing.encode(message))

    def _write(self, message: Message) -> None:
        if isinstance(message, TextMessage):
            self._to_client.put(self._outgoing.fragments(frames.TEXT, self._pieces(message.data.encode())))
        elif isinstance(message, BinaryMessage):
            self._to_client.put(self._outgoing.fragments(frames.BINARY, self._pieces(message.data)))
        else:
            self._to_client.put(self._outgoing.encode(message))

    def _pieces(self, data: bytes) -> list[bytes | PingMessage | PongMessage]:
        size = self._frame_size or max(len(data), 1)
        return [data[i : i + size] for i in range(0, max(len(data), 1), size)]

    def _change(self) -> None:
        self._changed.set()
        self._changed = Event()


def _is_about_the_disconnect(error: BaseException) -> bool:
    inner: Sequence[BaseException] = getattr(error, "exceptions", ())
    if inner:
        return all(map(_is_about_the_disconnect, inner))
    return isinstance(error, ClientGone) or any(kind.__name__ == "WebSocketDisconnect" for kind in type(error).__mro__)


def _texts(headers: object) -> list[tuple[str, str]]:
    """The headers of an event."""
    if not headers:
        return []
    assert isinstance(headers, (list, tuple))
    pairs: list[tuple[bytes, bytes]] = [*headers]
    return [(name.decode("ascii"), value.decode("latin-1")) for name, value in pairs]
