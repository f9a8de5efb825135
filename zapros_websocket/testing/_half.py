"""The server's half of a connection, sans-IO: frames of one direction to messages, and messages to frames.

It is deliberately not the code that it tests: wsproto judges what comes in, and what goes out is put together here.

Invariants:

- Nothing that a peer sends raises: a violation comes out as one, and nothing comes after it or after a close.
- Messages come out whole, with the number of frames that they came in.
- What is compressed must be written in the order in which it was encoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong
from wsproto.events import TextMessage as WsprotoText
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import generate_accept_token

from .._protocol import frames
from .._protocol.deflate import Deflate
from .._protocol.fragments import Fragments
from .._protocol.messages import (
    MAX_CONTROL_PAYLOAD,
    BinaryMessage,
    CloseCode,
    CloseMessage,
    Message,
    PingMessage,
    PongMessage,
    TextMessage,
)
from .._protocol.options import PerMessageDeflateExtension

LARGEST_MESSAGE: Final = 64 * 1024 * 1024
"""The largest message that is taken from a client, in bytes after inflation."""

CONTINUATION: Final = 0x0
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_CONTROL: Final = 0x08
_FINAL: Final = 0x80
_COMPRESSED: Final = 0x40
_MASKED: Final = 0x80


@dataclass(frozen=True, slots=True)
class Received:
    """A whole message, and the number of frames that it came in."""

    message: Message
    frames: int = 1


@dataclass(frozen=True, slots=True)
class Violation:
    """The peer broke the protocol: the code and the reason that a close frame should answer with."""

    code: int
    reason: str


class Incoming:
    """Bytes that one side sends become messages. ``reader`` is who receives them."""

    def __init__(self, reader: ConnectionType, deflate: Deflate | None) -> None:
        self._fragments = Fragments(LARGEST_MESSAGE, deflate)
        self._wsproto = Connection(reader, extensions=[self._fragments])
        self._is_masked = reader is ConnectionType.SERVER
        self._buffer = bytearray()
        self._pieces: list[str | bytes] = []
        self._frames = 0
        self._over = False

    def receive(self, data: bytes) -> Iterator[Received | Violation]:
        """What ``data`` completes."""
        self._buffer += data
        while not self._over and (span := frames.span(self._buffer, 0)) is not None:
            # A frame that is wrong by its header is judged by its header.
            is_wrong = span[1] > (MAX_CONTROL_PAYLOAD if self._buffer[0] & _CONTROL else LARGEST_MESSAGE)
            if len(self._buffer) < (span[0] if is_wrong else sum(span)):
                return
            frame = bytes(self._buffer[: sum(span)])
            del self._buffer[: sum(span)]
            if not is_wrong and (bad_gateway := _bad_gateway(frame, span[0], masked=self._is_masked)) is not None:
                self._over = True
                yield Received(bad_gateway)
            else:
                yield from self._judged(frame)

    def _judged(self, frame: bytes) -> Iterator[Received | Violation]:
        self._wsproto.receive_data(frame)
        for event in self._wsproto.events():
            match event:
                case WsprotoText() | BytesMessage():
                    self._pieces.append(event.data if isinstance(event, WsprotoText) else bytes(event.data))
                    self._frames += event.frame_finished
                    if event.message_finished:
                        yield self._whole()
                case Ping():
                    yield Received(PingMessage(bytes(event.payload)))
                case Pong():
                    yield Received(PongMessage(bytes(event.payload)))
                case _:
                    assert isinstance(event, CloseConnection)
                    # wsproto also reports a violation as a close, and stays open then.
                    self._over = True
                    if self._wsproto.state is ConnectionState.OPEN:
                        failure = self._fragments.failure
                        yield Violation(event.code, (failure or event).reason or "")
                    else:
                        yield Received(CloseMessage(int(event.code), event.reason))

    def _whole(self) -> Received:
        pieces, self._pieces = self._pieces, []
        number, self._frames = self._frames, 0
        if isinstance(pieces[0], str):
            return Received(TextMessage("".join(str(piece) for piece in pieces)), number)
        return Received(BinaryMessage(b"".join(piece for piece in pieces if isinstance(piece, bytes))), number)


class Outgoing:
    """Messages become the bytes that a server sends: frames without a mask."""

    def __init__(self, deflate: Deflate | None = None) -> None:
        self._deflate = deflate

    def encode(self, message: Message) -> bytes:
        """One message in one frame."""
        match message:
            case TextMessage():
                return self.fragments(frames.TEXT, [message.data.encode()])
            case BinaryMessage():
                return self.fragments(frames.BINARY, [bytes(message.data)])
            case PingMessage():
                return frame(PING, message.data)
            case PongMessage():
                return frame(PONG, message.data)
            case _:
                return frame(CLOSE, close_payload(message))

    def fragments(self, opcode: int, pieces: Sequence[bytes | PingMessage | PongMessage]) -> bytes:
        """One message in a frame for each piece, with pings and pongs in between.

        A compressed message is cut anew: into as many frames, about equally long.
        """
        data = [piece for piece in pieces if isinstance(piece, bytes)]
        compressed = self._deflate is not None and self._deflate.compresses and any(data)
        if self._deflate is not None and compressed:
            data = _cut(self._deflate.compress(b"".join(data)), len(data))
        written = bytearray()
        number = 0
        for piece in pieces:
            if isinstance(piece, bytes):
                number += 1
                first = number == 1
                written += frame(
                    opcode if first else CONTINUATION,
                    data[number - 1],
                    final=number == len(data),
                    compressed=compressed and first,
                )
            else:
                written += self.encode(piece)
        return bytes(written)


def frame(opcode: int, payload: bytes, *, final: bool = True, compressed: bool = False) -> bytes:
    """Any frame of a server (RFC 6455, section 5.2), legal or not."""
    first = (_FINAL if final else 0) | (_COMPRESSED if compressed else 0) | opcode
    length = len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 1 << 16:
        return bytes((first, 126)) + length.to_bytes(2, "big") + payload
    return bytes((first, 127)) + length.to_bytes(8, "big") + payload


def close_payload(message: CloseMessage) -> bytes:
    """The payload of a close frame: empty for 1005."""
    if message.code == CloseCode.NO_STATUS:
        return b""
    return message.code.to_bytes(2, "big") + (message.reason or "").encode()


def negotiate(offers: Iterable[str]) -> tuple[str, Deflate] | None:
    """The answer to the first offer of permessage-deflate that can be taken, and what it means for the server."""
    for offer in offers:
        if offer.partition(";")[0].strip() != PerMessageDeflate.name:
            continue
        extension = PerMessageDeflate()
        try:
            answer = extension.accept(offer)
        except ValueError:  # a number that is none
            continue
        if not isinstance(answer, str):
            continue
        # As the server sees it: what is the client's for the client is the other side's here.
        swapped = PerMessageDeflateExtension(
            client_no_context_takeover=extension.server_no_context_takeover,
            server_no_context_takeover=extension.client_no_context_takeover,
            client_max_window_bits=extension.server_max_window_bits,
            server_max_window_bits=extension.client_max_window_bits,
        )
        return f"{PerMessageDeflate.name}; {answer}".removesuffix("; "), Deflate(swapped)
    return None


def switching(
    key: str, *, subprotocol: str | None, extensions: str | None, headers: Iterable[tuple[str, str]]
) -> list[tuple[str, str]]:
    """The headers of a 101 (RFC 6455, section 4.2.2)."""
    answer = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", generate_accept_token(key.encode()).decode()),
    ]
    if subprotocol is not None:
        answer.append(("Sec-WebSocket-Protocol", subprotocol))
    if extensions is not None:
        answer.append(("Sec-WebSocket-Extensions", extensions))
    return [*answer, *headers]


def _cut(data: bytes, number: int) -> list[bytes]:
    size = -(-len(data) // number)
    return [data[i * size : (i + 1) * size] for i in range(number)]


def _bad_gateway(whole: bytes, header: int, *, masked: bool) -> CloseMessage | None:
    # wsproto does not know the code 1014, which was registered later.
    if whole[0] != _FINAL | CLOSE or bool(whole[1] & _MASKED) is not masked:
        return None
    key, payload = whole[header - 4 : header] if masked else bytes(4), whole[header:]
    plain = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
    if int.from_bytes(plain[:2], "big") != CloseCode.BAD_GATEWAY:
        return None
    try:
        return CloseMessage(CloseCode.BAD_GATEWAY, plain[2:].decode())
    except UnicodeDecodeError:
        return None
