"""A connection that is observed: a session and a link that tell of what they do.

They are chosen when the connection is opened, so that one that nobody observes pays nothing.
Invariant: all that goes out goes through this session, in the event loop: ``is_simple`` is never true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ._link import Link
from ._protocol.frames import BINARY, TEXT
from ._protocol.headers import FrameHeaders
from ._protocol.messages import BinaryMessage, CloseCode, Message, Part, PingMessage, PongMessage, TextMessage
from ._protocol.outgoing import PING
from ._protocol.parts import PartsSession
from ._protocol.session import Session, State

if TYPE_CHECKING:
    from ._inbox import Inbox
    from ._observer import Observers
    from ._protocol.deflate import Deflate
    from ._protocol.options import Options
    from ._protocol.sequence import Sequence
    from ._streams.base import ByteStream
    from ._turn import Turn


class ObservedSession(Session):
    """A session that tells what comes in and what goes out, in the order of the wire."""

    def __init__(self, observers: Observers, *, max_message_size: int, deflate: Deflate | None = None) -> None:
        super().__init__(max_message_size=max_message_size, deflate=deflate)
        self._observers = observers
        self._incoming = FrameHeaders()
        self._outgoing = FrameHeaders()
        # Nothing goes out around it.
        self.is_simple = False

    def receive(self, data: bytes | bytearray | memoryview) -> list[Message]:
        """As ``Session.receive``."""
        if data and self.state is not State.CLOSED:
            count = len(data)
            self._observers.tell(lambda observer: observer.bytes_received(count))
            for frame in self._incoming.feed(data):
                self._observers.tell(lambda observer, frame=frame: observer.frame_received(frame))  # type: ignore[misc]
        return self._received(super().receive(data))

    def fill(self, count: int) -> list[Message]:
        """As ``Session.fill``."""
        self._observers.tell(lambda observer: observer.bytes_received(count))
        for frame in self._incoming.skip(count):
            self._observers.tell(lambda observer, frame=frame: observer.frame_received(frame))  # type: ignore[misc]
        return self._received(super().fill(count))

    def encode(self, opcode: int, payload: bytes | memoryview, compress: bool | None = None) -> bytes:
        """As ``Session.encode``."""
        if self.has_control:
            # Goes in front of the message, and is told in front of it.
            return self.take_control() + self.encode(opcode, payload, compress)
        frame = super().encode(opcode, payload, compress)
        if self._observers.want_sent_messages:
            self._sent(_message(opcode, payload))
        return self._handed_over(frame)

    def encode_fragment(self, sequence: Sequence, payload: bytes | memoryview, *, first: bool) -> bytes:
        """As ``Session.encode_fragment``."""
        control = self.take_control()
        frame = super().encode_fragment(sequence, payload, first=first)
        if self._observers.want_sent_messages:
            self._sent(_message(sequence.opcode, payload))
        return control + self._handed_over(frame)

    def encode_end(self, sequence: Sequence) -> bytes:
        """As ``Session.encode_end``."""
        control = self.take_control()
        return control + self._handed_over(super().encode_end(sequence))

    def take_control(self) -> bytes:
        """As ``Session.take_control``."""
        messages: list[Message] = []
        if self._close_pending:
            assert self.sent is not None
            messages.append(self.sent)
        else:
            messages += [] if self._ping is None else [PingMessage(self._ping)]
            messages += map(PongMessage, self._pongs)
        for message in messages:
            self._sent(message)
        return self._handed_over(super().take_control())

    def _settle(self) -> None:
        super()._settle()
        self.is_simple = False

    def _received(self, messages: list[Message]) -> list[Message]:
        for message in map(_whole, messages):
            self._observers.tell(lambda observer, message=message: observer.message_received(message))  # type: ignore[misc]
        return messages

    def _sent(self, message: Message) -> None:
        self._observers.tell(lambda observer: observer.message_sent(message))

    def _handed_over(self, data: bytes) -> bytes:
        if data:
            self._observers.tell(lambda observer: observer.bytes_sent(len(data)))
            for frame in self._outgoing.feed(data):
                self._observers.tell(lambda observer, frame=frame: observer.frame_sent(frame))  # type: ignore[misc]
        return data


class ObservedPartsSession(ObservedSession, PartsSession):
    """The same of a session that gives large messages out in parts."""


class ObservedLink(Link):
    """A link that tells how the connection fares, and how it ends."""

    def __init__(
        self,
        stream: ByteStream,
        session: Session,
        options: Options,
        *,
        observers: Observers,
        inbox: Inbox | None,
        turn: Turn | None,
    ) -> None:
        super().__init__(stream, session, options, inbox=inbox, turn=turn)
        self._observers = observers

    def take(self, data: bytes | memoryview) -> bool:
        """As ``Link.take``."""
        goes_on = super().take(data)
        self._tell_depth()
        return goes_on

    def fill(self, count: int) -> bool:
        """As ``Link.fill``."""
        goes_on = super().fill(count)
        self._tell_depth()
        return goes_on

    def _tell_depth(self) -> None:
        depth = self.inbox.depth
        self._observers.tell(lambda observer: observer.queue_depth(depth))

    def _is_for_itself(self, message: Message) -> bool:
        before = self.pings.latency
        is_for_itself = super()._is_for_itself(message)
        latency = self.pings.latency
        if latency is not None and latency is not before:
            self._observers.tell(lambda observer: observer.round_trip(latency))
        return is_for_itself

    async def _end(self) -> None:
        try:
            await super()._end()
        finally:
            end, by = self.how_it_ended(), self._closed_by()
            self._observers.tell(lambda observer: observer.closed(end, by=by))

    def _closed_by(self) -> Literal["client", "server"] | None:
        failure = self.session.failure
        if self.is_closed_here or (failure is not None and failure.code != CloseCode.ABNORMAL):
            return "client"
        return None if self.session.received is None else "server"


def _whole(message: Message | Part) -> Message:
    if not isinstance(message, Part):
        return message
    return TextMessage(message.data) if isinstance(message.data, str) else BinaryMessage(message.data)


def _message(opcode: int, payload: bytes | memoryview) -> Message:
    data = bytes(payload)
    if opcode == TEXT:
        return TextMessage(data.decode())
    if opcode == BINARY:
        return BinaryMessage(data)
    return PingMessage(data) if opcode == PING else PongMessage(data)
