"""One connection of the scripted server: what its steps are made of.

Invariants:

- What is said on the connection is in the log, in the order in which this side said or read it.
- A client that ends, resets or breaks the protocol is a ``Mismatch`` for the step that needed it otherwise.
"""

from __future__ import annotations

import socket as sockets
import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.tls import TLSStream
from wsproto.connection import ConnectionType
from wsproto.events import Request as WsprotoRequest
from wsproto.handshake import H11Handshake
from wsproto.utilities import RemoteProtocolError

from .._protocol.messages import CloseCode, CloseMessage, Message, PingMessage, PongMessage
from ._half import Incoming, Outgoing, Received, Violation, negotiate, switching
from ._recording import Log, said

_READ_SIZE: Final = 64 * 1024
_END_OF_HEAD: Final = b"\r\n\r\n"

GONE: Final = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)
"""What a client that is gone brings about; errors of TLS are OSErrors."""

# Seconds for the last words to reach the client.
_LINGER: Final = 1.0


class Mismatch(Exception):
    """What happened in the place of what was expected."""


class ClientLeft(Mismatch):
    """The client closed, ended or was gone: which it also does when its own test has failed."""


@dataclass(frozen=True, slots=True)
class HandshakeRequest:
    """The opening handshake of a client, as the server saw it.

    Attributes:
        target: The path and the query.
        headers: All headers, by their names in lower case; several of one name are joined with commas.
        subprotocols: What the client offered.
    """

    target: str
    headers: dict[str, str]
    subprotocols: tuple[str, ...]


class Peer:
    """The server's end of one connection."""

    def __init__(self, number: int, socket: SocketStream, stream: ByteStream, log: Log) -> None:
        self.number = number
        self.answers_pings = True
        self.is_over = False
        self._socket = socket
        self._stream = stream
        self._log = log
        self._incoming: Incoming | None = None
        self._outgoing = Outgoing()
        self._waiting: deque[Received | Violation] = deque()
        self._offers: list[str] = []
        self._close_sent = False
        self.close_received: CloseMessage | None = None

    @property
    def has_accepted(self) -> bool:
        """Whether the handshake was answered with a 101."""
        return self._incoming is not None

    # The opening handshake

    async def request(self) -> HandshakeRequest:
        """Read the client's opening handshake."""
        handshake = H11Handshake(ConnectionType.SERVER)
        head = b""
        try:
            while True:
                data = await self._read()
                if not data:
                    raise ClientLeft("the client ended TCP")
                fed, head = len(head), head + data
                end = head.find(_END_OF_HEAD)
                # Frames that came with it are not for the handshake.
                self._early = b"" if end < 0 else head[end + len(_END_OF_HEAD) :]
                handshake.receive_data(head[fed : len(head) - len(self._early)])
                for event in handshake.events():
                    assert isinstance(event, WsprotoRequest)
                    return self._understood(event)
        except (RemoteProtocolError, ValueError) as error:
            raise Mismatch(f"a request came that is no opening handshake: {error}") from error

    def _understood(self, event: WsprotoRequest) -> HandshakeRequest:
        headers: dict[str, str] = {"host": event.host}
        for name, value in event.extra_headers:
            key, text = name.decode("ascii").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        self._offers = [str(offer) for offer in event.extensions]
        if self._offers:
            headers["sec-websocket-extensions"] = ", ".join(self._offers)
        if event.subprotocols:
            headers["sec-websocket-protocol"] = ", ".join(event.subprotocols)
        self._key = headers["sec-websocket-key"]
        self._log.add(self.number, "client", "request", data=event.target)
        return HandshakeRequest(event.target, headers, tuple(event.subprotocols))

    async def accept(self, subprotocol: str | None, headers: Iterable[tuple[str, str]], *, deflate: bool) -> None:
        """Answer 101."""
        agreed = negotiate(self._offers) if deflate else None
        answer, extension = (None, None) if agreed is None else agreed
        lines = switching(self._key, subprotocol=subprotocol, extensions=answer, headers=headers)
        self._incoming = Incoming(ConnectionType.SERVER, extension)
        self._outgoing = Outgoing(extension)
        await self._write(_answer(101, "Switching Protocols", lines))
        self._log.add(self.number, "server", "accept", data=subprotocol)
        self._take_in(self._early)

    async def refuse(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """Answer with any other status, and end TCP."""
        lines = [*headers, ("Content-Length", str(len(body))), ("Connection", "close")]
        await self._write(_answer(status, "Refused", lines) + body)
        self._log.add(self.number, "server", "refuse", number=status)
        await self.end()

    # Messages

    async def receive(self) -> Message | None:
        """The client's next message; None when it ended or reset TCP."""
        while not self._waiting:
            data = await self._read()
            if not data:
                return None
            self._take_in(data)
        item = self._waiting.popleft()
        if isinstance(item, Violation):
            raise Mismatch(f"the client broke the protocol: {item.reason} ({item.code})")
        if isinstance(item.message, CloseMessage):
            self.close_received = item.message
        return item.message

    def _take_in(self, data: bytes) -> None:
        assert self._incoming is not None
        for item in self._incoming.receive(data):
            if isinstance(item, Received):
                self._log.add(self.number, "client", item.message, frames=item.frames)
            else:
                self._log.add(self.number, "client", "violation", number=item.code, data=item.reason)
            self._waiting.append(item)

    async def pass_over(self, message: Message | None) -> bool:
        """Whether it is a ping or pong, which nobody has to expect; a ping is answered."""
        if isinstance(message, PingMessage) and self.answers_pings:
            await self.send(PongMessage(message.data))
        return isinstance(message, (PingMessage, PongMessage))

    async def send(self, message: Message) -> None:
        """Send a message in one frame."""
        self._close_sent = self._close_sent or isinstance(message, CloseMessage)
        await self._write(self._outgoing.encode(message))
        self._log.add(self.number, "server", message)

    async def send_fragments(
        self, opcode: int, pieces: list[bytes | PingMessage | PongMessage], message: Message
    ) -> None:
        """Send ``message`` in the fragments that it is given in."""
        await self._write(self._outgoing.fragments(opcode, pieces))
        number = sum(isinstance(piece, bytes) for piece in pieces)
        for piece in pieces:
            if not isinstance(piece, bytes):
                self._log.add(self.number, "server", piece)
        self._log.add(self.number, "server", message, frames=number)

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self._write(data)
        self._log.add(self.number, "server", "raw", data=data)

    # The end

    async def answer_close(self) -> None:
        """Send the client's close back, unless one was sent, and end TCP."""
        if self.close_received is not None and not self._close_sent:
            await self.send(self.close_received)
        await self.end()

    async def end(self) -> None:
        """End TCP in order: a FIN, behind all that was sent; nothing if it is over already."""
        if self.is_over:
            return
        self.is_over = True
        self._log.add(self.number, "server", "end")
        # A socket that is closed with something unread in it is reset, and what was sent last with it.
        with anyio.move_on_after(_LINGER):
            try:
                if isinstance(self._stream, TLSStream):
                    await self._stream.unwrap()
                await self._socket.send_eof()
                while True:
                    await self._socket.receive(_READ_SIZE)
            except GONE:
                pass
        await self._socket.aclose()

    async def drop(self) -> None:
        """Reset TCP."""
        self.is_over = True
        self._log.add(self.number, "server", "drop")
        raw = self._socket.extra(SocketAttribute.raw_socket)  # noqa: S610 (no Django here)
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
        await self._socket.aclose()

    async def give_up(self, reason: str) -> None:
        """The script has failed: let the client know, and do not keep it waiting."""
        if self._incoming is None:
            await self.refuse(500, (), f"{reason}\n".encode())
            return
        if self.close_received is None and not self._close_sent:
            short = reason.encode()[:120].decode(errors="ignore")
            await self.send(CloseMessage(CloseCode.INTERNAL_ERROR, short))
        await self.answer_close()

    async def _read(self) -> bytes:
        try:
            return await self._stream.receive(_READ_SIZE)
        except anyio.EndOfStream:
            self._log.add(self.number, "client", "end")
        except GONE:
            self._log.add(self.number, "client", "drop")
        return b""

    async def _write(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except GONE as error:
            raise ClientLeft(f"the client was gone ({str(error) or type(error).__name__})") from error


def describe(message: Message) -> str:
    """A message in words that fit into an error."""
    return said(message).said(shortened=True)


def _answer(status: int, reason: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")
