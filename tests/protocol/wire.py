"""What a server puts on the wire, byte by byte as RFC 6455 draws it, and what a session made of it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from wsproto.connection import SERVER, Connection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong
from wsproto.events import TextMessage as WsprotoText
from wsproto.extensions import Extension

from tests.raw_frames import BINARY as BINARY
from tests.raw_frames import CLOSE as CLOSE
from tests.raw_frames import CONTINUATION as CONTINUATION
from tests.raw_frames import PING as PING
from tests.raw_frames import PONG as PONG
from tests.raw_frames import RSV1 as RSV1
from tests.raw_frames import RSV2 as RSV2
from tests.raw_frames import RSV3 as RSV3
from tests.raw_frames import TEXT as TEXT
from tests.raw_frames import close_frame as close_frame
from tests.raw_frames import frame as frame
from tests.raw_frames import header as header
from tests.raw_frames import masked_frame as masked_frame
from zapros_websocket._protocol.deflate import TAIL, Deflate
from zapros_websocket._protocol.messages import (
    BinaryMessage,
    CloseMessage,
    Message,
    Part,
    PingMessage,
    PongMessage,
    TextMessage,
)
from zapros_websocket._protocol.options import PerMessageDeflateExtension
from zapros_websocket._protocol.parts import PartsSession
from zapros_websocket._protocol.session import Session, State

LIMIT = 70_000
"""Enough for every form of a length, in bytes."""

LARGE = 32 * 1024
"""Bytes of a frame that is received to where it stays: fewer than usual, so that there are such within the limit."""

steady = settings(derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
"""The same examples each time, on however slow a machine."""


class Deflater:
    """A server's half of permessage-deflate, without a bound on anything."""

    def __init__(
        self, *, window_bits: int = 15, takeover: bool = True, strategy: int = zlib.Z_DEFAULT_STRATEGY
    ) -> None:
        self._window_bits = window_bits
        self._takeover = takeover
        self._strategy = strategy
        self._compressor = self._new()

    def block(self, piece: bytes) -> bytes:
        """A piece of a message; the blocks end on a byte."""
        return self._compressor.compress(piece) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def end(self, piece: bytes) -> bytes:
        """The last piece of a message."""
        compressed = self.block(piece).removesuffix(TAIL)
        if not self._takeover:
            self._compressor = self._new()
        return compressed

    def _new(self) -> zlib._Compress:  # pyright: ignore[reportPrivateUsage]
        return zlib.compressobj(wbits=-self._window_bits, strategy=self._strategy)


def deflated(payload: bytes) -> bytes:
    """The first compressed message of a connection."""
    return Deflater().end(payload)


def final_stream(payload: bytes) -> bytes:
    """Blocks of which the last is marked as final, as RFC 7692, section 7.2.3.4, lets a sender end a message."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(payload) + compressor.flush()


def new_session(
    *, limit: int = LIMIT, deflate: PerMessageDeflateExtension | bool = False, in_parts: bool = False
) -> Session:
    agreed = PerMessageDeflateExtension() if deflate is True else deflate
    kind = PartsSession if in_parts else Session
    session = kind(max_message_size=limit, deflate=Deflate(agreed) if agreed else None)
    session.large = LARGE
    return session


@dataclass(frozen=True)
class Outcome:
    """What a peer's bytes came to. The words of a failure are left out: they may name a place in a piece."""

    messages: tuple[Message, ...]
    state: State = State.OPEN
    failure: int | None = None
    received: CloseMessage | None = None
    sent: int | None = None


def take_in(session: Session, piece: bytes | memoryview) -> list[Message]:
    """All the messages that ``piece`` completes, in however many calls."""
    return [message for messages in calls(session, piece) for message in messages]


def calls(session: Session, piece: bytes | memoryview) -> Iterator[list[Message]]:
    """What each of the calls gives out in which ``piece`` is taken in."""
    yield session.receive(piece)
    while session.has_more:
        yield session.receive(b"")


def take_in_place(session: Session, piece: bytes) -> list[Message]:
    """As ``take_in``, as threads and sockets do it.

    What is incomplete is handed out and comes back, and what has a place is written there.
    """
    left = memoryview((session.hand_out() or b"") + piece)
    messages: list[Message] = []
    while left and (room := session.room()) is not None:
        with room:
            count = min(len(room), len(left))
            room[:count] = left[:count]
        left = left[count:]
        messages += session.fill(count)
    return messages + take_in(session, left) if left else messages


@dataclass(frozen=True)
class Unfinished:
    """What the parts of a message come to whose end has not come."""

    data: str | bytes


def joined(messages: Iterable[Message | Part]) -> Sequence[Message | Unfinished]:
    """With the parts of each message put together; they must be in order."""
    whole: list[Message | Unfinished] = []
    pieces: list[str | bytes] = []
    for message in messages:
        if not isinstance(message, Part):
            whole.append(message)
            continue
        assert message.is_first is (not pieces)
        pieces.append(message.data)
        if message.is_final:
            data = together(pieces)
            whole.append(TextMessage(data) if isinstance(data, str) else BinaryMessage(data))
            pieces.clear()
    return [*whole, Unfinished(together(pieces))] if pieces else whole


def together(pieces: Sequence[str | bytes]) -> str | bytes:
    """Pieces of one kind, of which there is one at least."""
    return type(pieces[0])().join(pieces)  # type: ignore[arg-type]


def outcome_of(session: Session, pieces: Iterable[bytes] | Iterable[memoryview]) -> Outcome:
    """Feed ``pieces``, one after the other."""
    messages: list[Message] = []
    for piece in pieces:
        messages += take_in(session, piece)
    failure, sent = session.failure, session.sent
    return Outcome(
        messages=tuple(messages),
        state=session.state,
        failure=None if failure is None else int(failure.code),
        received=session.received,
        sent=None if sent is None else int(sent.code),
    )


def bytewise(data: bytes) -> Iterator[bytes]:
    return (data[place : place + 1] for place in range(len(data)))


def halves(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every way to cut ``data`` in two."""
    return ((data[:place], data[place:]) for place in range(len(data) + 1))


class Joiner:
    """The events of wsproto, with the pieces of each message put together."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._data: list[bytes] = []

    def join(self, events: Iterable[Event]) -> list[Message]:
        """As our messages; what belongs to a message that has not ended yet is kept for the next call."""
        messages: list[Message] = []
        for event in events:
            if isinstance(event, WsprotoText):
                self._text.append(event.data)
                if event.message_finished:
                    messages.append(TextMessage("".join(self._text)))
                    self._text.clear()
            elif isinstance(event, BytesMessage):
                self._data.append(bytes(event.data))
                if event.message_finished:
                    messages.append(BinaryMessage(b"".join(self._data)))
                    self._data.clear()
            elif isinstance(event, Ping):
                messages.append(PingMessage(bytes(event.payload)))
            elif isinstance(event, Pong):
                messages.append(PongMessage(bytes(event.payload)))
            else:
                assert isinstance(event, CloseConnection)
                messages.append(CloseMessage(int(event.code), event.reason))
        return messages


class Server:
    """wsproto's server half, which takes what a session sends."""

    def __init__(self, *extensions: Extension) -> None:
        self.connection = Connection(SERVER, extensions=list(extensions))
        self._joiner = Joiner()

    def read(self, data: bytes) -> list[Message]:
        self.connection.receive_data(data)
        return self._joiner.join(self.connection.events())
