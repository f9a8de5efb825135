"""The state machine of one connection: bytes in, messages out; messages in, bytes out.

Invariants:

- It never raises on what a peer sends: a violation, bad data, a message that is too big, and the end of the stream
  all become ``failure``, a value.
- A failure of this side is not a close of the peer: ``received`` is set by a close frame and by nothing else.
- Nothing goes out after a close frame, and no pong once a close frame is to go out.
- What waits to be written is bounded: one ping, one close, and the pongs to the newest pings (RFC 6455, section 5.5.3).
- A pong goes out before any message that is sent after its ping was received.
- Pings and pongs are read here, when they are what wsproto would accept. All other frames that take more than
  ``read_messages`` are for wsproto to judge.
- One call parses a bounded number of the frames that take long, so that no peer keeps the event loop busy: what is
  left is parsed by the next.
- Sizes are counted while a message is assembled, in one buffer and not in a list of fragments.

    OPEN ----- close() ----> CLOSING      our close frame is pending or sent, the peer's is awaited
     |                          |
     +--- the peer's close, fail(), end() ---> CLOSED      nothing more is read
"""

from __future__ import annotations

import sys
from enum import Enum, auto
from io import StringIO
from typing import TYPE_CHECKING, ClassVar, Final

from wsproto.connection import CLIENT, Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event
from wsproto.events import TextMessage as WsprotoText

from .deflate import ENOUGH
from .fragments import Fragments
from .frames import encode, read_messages, span
from .large import LARGE, LargeFrame, message_of
from .messages import (
    MAX_CONTROL_PAYLOAD,
    BinaryMessage,
    CloseCode,
    CloseMessage,
    PingMessage,
    PongMessage,
    TextMessage,
    not_utf8,
)
from .outgoing import PING, PONG
from .sequence import Sequence

if TYPE_CHECKING:
    from .deflate import Deflate
    from .messages import Message

_CONTROL: Final = 0x08
_CLOSE: Final = b"\x88"
# The first bytes of pings and pongs that may be: final, and without reserved bits.
_FINAL_PING: Final = 0x80 | PING
_FINAL_PONG: Final = 0x80 | PONG
_BAD_GATEWAY: Final = CloseCode.BAD_GATEWAY.to_bytes(2, "big")
# Pongs that wait to be written: a peer may send a few pings at once, and is owed no answer to a flood of them.
MAX_PONGS: Final = 16

# Frames for wsproto in one call, at some 25 microseconds each.
_FRAMES_A_CALL: Final = 512

_NORMAL: Final = CloseCode.NORMAL.to_bytes(2, "big")


class State(Enum):
    """Where the connection stands; the diagram is at the top of the module."""

    OPEN = auto()
    CLOSING = auto()
    CLOSED = auto()


# To look a member of an enum up takes longer than to compare it.
_OPEN: Final = State.OPEN
_CLOSED: Final = State.CLOSED


class Session:
    """One client's side of a connection after its opening handshake. ``max_message_size`` is in bytes."""

    # An instance with so many attributes and without this takes up four times as much.
    __slots__ = (
        "_assembling",
        "_buffer",
        "_close_pending",
        "_data",
        "_deflate",
        "_fragments",
        "_frame_left",
        "_given",
        "_has_enough",
        "_inflating",
        "_large",
        "_limit",
        "_most_at_once",
        "_needed",
        "_ping",
        "_pongs",
        "_received_code",
        "_text",
        "_wsproto",
        "compresses",
        "failure",
        "has_control",
        "has_more",
        "has_seen_control",
        "inflates",
        "is_simple",
        "large",
        "may_wait",
        "received",
        "sent",
        "state",
    )

    _new_fragments: ClassVar[type[Fragments]] = Fragments

    def __init__(self, *, max_message_size: int, deflate: Deflate | None = None) -> None:
        self.state = State.OPEN
        self.received: CloseMessage | None = None
        self.sent: CloseMessage | None = None
        self.failure: CloseMessage | None = None
        self._limit = max_message_size
        self._deflate = deflate
        # What inflates whole messages, or None where that is not done in one step.
        self._inflating = deflate
        # Made when something comes that is not common, or a close frame goes: many a connection never needs it.
        self._fragments: Fragments | None = None
        self._wsproto: Connection | None = None
        # What has been received and not parsed, and how much of it makes another look worth while.
        self._buffer = bytearray()
        self._needed = 0
        self.has_more = False
        self._large: LargeFrame | None = None
        # Bytes of a frame from which it is received to where it stays.
        self.large = LARGE
        # How many bytes of a frame wsproto still waits for, and whether it is in the middle of a message.
        self._frame_left = 0
        self._assembling = False
        # How much of a frame wsproto is given at once, and whether more is to wait for the next call.
        self._most_at_once = sys.maxsize
        self._given = 0
        self._has_enough = False
        self._text = StringIO()
        self._data = bytearray()
        self._ping: bytes | None = None
        self._pongs: list[bytes] = []
        self._close_pending = False
        self._received_code = 0
        # Whether ``take_control`` has something to write.
        self.has_control = False
        # Whether control messages were received; whoever looks at it puts it back.
        self.has_seen_control = False
        # Whether messages can be larger than what was received of them; and so whether what it still has to parse may
        # wait, as what was not received may.
        self.inflates = self.may_wait = deflate is not None
        # Whether a frame that goes out can depend on those before it.
        self.compresses = deflate is not None and deflate.compresses
        # Whether a message that is sent now is one frame by itself.
        self.is_simple = True

    # What comes in

    def receive(self, data: bytes | bytearray | memoryview) -> list[Message]:
        """The messages that ``data`` completes, in wire order; the peer's close is the last that there ever is.

        While it ``has_more`` to parse, call it again, with no data. It keeps nothing of ``data``, which the caller
        may overwrite as soon as it returns.
        """
        messages: list[Message] = []
        if self._large is not None:
            data = memoryview(data)
            data = data[self._large.put(data) :]
            self._finish_large(messages)
            if not data:
                return messages
        if self._buffer:
            data = self._complete(data, messages)
        if self._buffer:
            self._buffer += data
            if len(self._buffer) >= self._needed:
                parsed = self._parse(self._buffer, 0, messages)
                if not self._begin_large(self._buffer, parsed):
                    del self._buffer[:parsed]
        elif self._frame_left or self._assembling or self.state is _CLOSED:
            self._buffer += memoryview(data)[self._parse(data, 0, messages) :]
        else:
            # The common case, in as few steps as can be: whole messages and nothing else.
            stop, needed, failure = read_messages(data, 0, self._limit, self._inflating, messages)
            if stop == len(data):
                self.has_more = False
                return messages
            if failure is not None:
                self._fail(failure)
            elif needed > len(data):
                self._needed = needed - stop
                self.has_more = False
                if not self._begin_large(data, stop):
                    self._buffer += memoryview(data)[stop:]
            elif needed:
                self._needed = 0
                self.has_more = True
                self._buffer += memoryview(data)[stop:]
            else:
                stop = self._parse(data, stop, messages)
                if not self._begin_large(data, stop):
                    self._buffer += memoryview(data)[stop:]
        if self.state is _CLOSED:
            self._buffer.clear()
            self.has_more = False
        return messages

    def room(self) -> memoryview | None:
        """Where the next bytes of the stream may be written, followed by ``fill``, instead of ``receive``."""
        return None if self._large is None else self._large.room()

    def fill(self, count: int) -> list[Message]:
        """The message that the ``count`` bytes complete which were written into the ``room``, if they do."""
        assert self._large is not None
        self._large.fill(count)
        messages: list[Message] = []
        self._finish_large(messages)
        return messages

    def hand_out(self) -> bytes | None:
        """What was received of a message that is incomplete, for somebody else to go on with, in place of ``receive``.

        It comes back as the first that is received. None, and nothing changes, where nobody else could.
        """
        is_busy = self._large is not None or self._frame_left or self._assembling or self.has_more or self.inflates
        if is_busy or self.state is _CLOSED:
            return None
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def end(self, reason: str) -> None:
        """The stream has ended, for ``reason``: a loss unless the peer's close came before (section 7.1.5)."""
        if self.state is not State.CLOSED:
            self._fail(CloseMessage(CloseCode.ABNORMAL, reason))

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection (section 7.1.7), which tells the peer why if that can still be told."""
        if self.state is not State.CLOSED:
            self._fail(CloseMessage(code, reason))

    # What goes out

    def encode(self, opcode: int, payload: bytes | memoryview, compress: bool | None = None) -> bytes:
        """One message as bytes that must be written, whole and in the order of the calls. Only while OPEN.

        ``compress`` can overrule the threshold of what was agreed to, in both directions.
        """
        assert self.state is _OPEN
        if self.compresses or opcode >= PING:
            frame = self._encode(opcode, payload, compress)
        else:
            frame = encode(opcode, payload)
        return self.take_control() + frame if self.has_control else frame

    def sequence(self, opcode: int, compress: bool | None) -> Sequence:
        """A message that goes out in fragments; no other may go out before it has ended."""
        return Sequence(opcode, self._deflate if self.compresses and compress is not False else None)

    def encode_fragment(self, sequence: Sequence, payload: bytes | memoryview, *, first: bool) -> bytes:
        """As ``encode``, a fragment that is not the last."""
        assert self.state is _OPEN
        return self.take_control() + sequence.encode(payload, first=first)

    def encode_end(self, sequence: Sequence) -> bytes:
        """As ``encode``, the last fragment, without a payload."""
        assert self.state is _OPEN
        return self.take_control() + sequence.end()

    def _encode(self, opcode: int, payload: bytes | memoryview, compress: bool | None) -> bytes:
        if opcode >= PING:
            return encode(opcode, payload)
        assert self._deflate is not None
        # An empty message gains nothing, and zlib does not flush twice without input in between.
        if compress is None:
            compress = len(payload) >= self._deflate.agreed.threshold
        if not payload or not compress:
            return encode(opcode, payload)
        return encode(opcode, self._deflate.compress(payload), compressed=True)

    def ping(self, payload: bytes) -> None:
        """Have a ping written with the next control frames."""
        if self.state is State.OPEN:
            self._ping = payload
            self._settle()

    def close(self, message: CloseMessage) -> None:
        """Start the closing handshake (section 7.1.2); nothing unless OPEN."""
        if self.state is State.OPEN:
            self._to_send(message)
            self.state = State.CLOSING
            self._settle()

    def take_control(self) -> bytes:
        """The control frames that must be written now."""
        if self._close_pending:
            assert self.sent is not None
            self._close_pending = False
            self._settle()
            # wsproto takes the number 1005 for 1000, and None for a frame without a code.
            code = None if self.sent.code == CloseCode.NO_STATUS else self.sent.code
            return self._judge().send(CloseConnection(code=code, reason=self.sent.reason))  # type: ignore[arg-type]
        pending = b""
        if self._ping is not None:
            pending += encode(PING, self._ping)
        for payload in self._pongs:
            pending += encode(PONG, payload)
        self._forget_pings()
        return pending

    def drop_control(self) -> None:
        """Nothing can be written any more: a close frame that is still pending was not sent."""
        if self._close_pending:
            self._close_pending = False
            self.sent = None
        self._forget_pings()

    # How it is done

    def _settle(self) -> None:
        self.has_control = self._close_pending or self._ping is not None or bool(self._pongs)
        self.is_simple = self.state is State.OPEN and not self.has_control

    def _complete(self, data: bytes | bytearray | memoryview, messages: list[Message]) -> memoryview:
        """Take of ``data`` what completes the message that was begun, and nothing that would be copied for nothing."""
        left = memoryview(data)
        while 0 < (missing := self._needed - len(self._buffer)) <= len(left):
            self._buffer += left[:missing]
            left = left[missing:]
            stop, needed, failure = read_messages(self._buffer, 0, self._limit, self._inflating, messages)
            if stop:
                self._buffer.clear()
            elif failure is not None:
                self._fail(failure)
            # What is received to where it stays, and all that is not a whole message, is for others.
            self._needed = needed if not stop and needed < self.large else 0
        return left

    def _begin_large(self, buffer: bytes | bytearray | memoryview, position: int) -> bool:
        """Whether the incomplete frame at ``position`` is so large that the rest is received to where it stays."""
        if self._needed < self.large or self.state is State.CLOSED or self._frame_left or self._assembling:
            return False
        lengths = span(buffer, position)
        assert lengths is not None
        header, length = lengths
        self._large = LargeFrame(buffer[position], length)
        with memoryview(buffer) as view, view[position + header :] as payload:
            self._large.put(payload)
        self._buffer.clear()
        self._needed = 0
        return True

    def _finish_large(self, messages: list[Message]) -> None:
        if self._large is not None and not self._large.missing:
            first, payload = self._large.first, self._large.payload()
            self._large = None
            message = message_of(first, payload, self._limit, self._deflate)
            if isinstance(message, CloseMessage):
                self._fail(message)
            else:
                messages.append(message)

    def _parse(self, buffer: bytes | bytearray | memoryview, position: int, messages: list[Message]) -> int:
        """Parse what is complete from ``position`` on, and return how far that was."""
        frames_left = _FRAMES_A_CALL
        self._given = 0
        self.has_more = False
        while self.state is not State.CLOSED:
            if not self._frame_left:
                if not frames_left:
                    self._needed = 0
                    self.has_more = True
                    break
                frames_left -= 1
                if not self._assembling:
                    position, needed, failure = read_messages(buffer, position, self._limit, self._inflating, messages)
                    if failure is not None:
                        self._fail(failure)
                        break
                    if needed:
                        self.has_more = needed <= len(buffer)
                        self._needed = 0 if self.has_more else needed - position
                        break
                lengths = span(buffer, position)
                if lengths is None:
                    self._needed = 0
                    break
                self._frame_left = sum(lengths)
                if buffer[position] & _CONTROL and lengths[1] <= MAX_CONTROL_PAYLOAD:
                    if len(buffer) - position < self._frame_left:
                        self._needed, self._frame_left = self._frame_left, 0
                        break
                    position += self._frame_left
                    self._control(bytes(buffer[position - self._frame_left : position]), messages)
                    self._frame_left = 0
                    continue
            piece = bytes(memoryview(buffer)[position : position + min(self._frame_left, self._most_at_once)])
            if not piece:
                self._needed = 0
                break
            position += len(piece)
            self._frame_left -= len(piece)
            self._feed(piece, messages)
            if self._has_enough:
                self._needed = 0
                self.has_more = True
                self._has_enough = False
                break
        return position

    def _judge(self) -> Connection:
        """wsproto, for what it has to parse, and for the close frame."""
        if self._wsproto is None:
            self._fragments = self._new_fragments(self._limit, self._deflate)
            self._wsproto = Connection(CLIENT, extensions=[self._fragments])
        return self._wsproto

    def _control(self, frame: bytes, messages: list[Message]) -> None:
        first, length = frame[0], frame[1]
        if first == _FINAL_PONG and length <= MAX_CONTROL_PAYLOAD:
            messages.append(PongMessage(frame[2:]))
            self.has_seen_control = True
            return
        if first == _FINAL_PING and length <= MAX_CONTROL_PAYLOAD:
            messages.append(PingMessage(frame[2:]))
            self.has_seen_control = True
            if self.state is State.OPEN:
                self._pongs.append(frame[2:])
                del self._pongs[:-MAX_PONGS]
                self._settle()
            return
        if frame[:1] == _CLOSE and frame[2:4] == _BAD_GATEWAY:
            # wsproto does not know the code 1014, which was registered later: it is shown 1000 in its place.
            self._received_code = int(CloseCode.BAD_GATEWAY)
            frame = frame[:2] + _NORMAL + frame[4:]
        self._feed(frame, messages)

    def _feed(self, piece: bytes, messages: list[Message]) -> None:
        judge = self._judge()
        judge.receive_data(piece)
        for event in judge.events():
            self._handle(event, messages)

    def _handle(self, event: Event, messages: list[Message]) -> None:
        if isinstance(event, (WsprotoText, BytesMessage)):
            self._count(event)
        if isinstance(event, WsprotoText):
            self._text.write(event.data)
            self._assembling = not event.message_finished
            if event.message_finished:
                messages.append(TextMessage(self._text.getvalue()))
                self._text = StringIO()
        elif isinstance(event, BytesMessage):
            self._data += event.data
            self._assembling = not event.message_finished
            if event.message_finished:
                messages.append(BinaryMessage(bytes(self._data)))
                self._data = bytearray()
        else:
            assert isinstance(event, CloseConnection)
            # A failure to parse looks like a close of the peer, but for the state that it leaves.
            if self._judge().state in (ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED):
                self.received = CloseMessage(self._received_code or int(event.code), event.reason)
                messages.append(self.received)
                self.has_seen_control = True
                self._to_send(self.received)
                self.state = State.CLOSED
                self._settle()
            else:
                is_of_text = event.code == CloseCode.INVALID_FRAME_PAYLOAD_DATA
                failure = not_utf8(event.reason) if is_of_text else CloseMessage(int(event.code), event.reason)
                assert self._fragments is not None
                self._fail(self._fragments.failure or failure)

    def _count(self, event: WsprotoText | BytesMessage) -> None:
        if self.inflates:
            self._given += len(event.data)
            self._has_enough = self._given >= ENOUGH

    def _fail(self, failure: CloseMessage) -> None:
        self.failure = failure
        if failure.code == CloseCode.ABNORMAL:
            # The stream is gone, or the middle of a frame stands on it: no close frame can follow.
            self.drop_control()
        else:
            self._to_send(failure)
        self.state = State.CLOSED
        self._large = None
        # What was received of the next message completes no more.
        self._needed = 0
        self._settle()

    def _to_send(self, message: CloseMessage) -> None:
        self._forget_pings()
        if self.sent is None:
            self.sent = message
            self._close_pending = True

    def _forget_pings(self) -> None:
        self._ping = None
        self._pongs.clear()
        self._settle()
