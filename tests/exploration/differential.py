"""A session makes of any stream what plain wsproto makes of it, and wsproto's server half reads all that it sends.

So does a session that gives large messages in parts, once they are joined; and messages that are sent in chunks are
read as they would be whole.

The input says how the stream is put together: messages whole and in fragments, compressed in all the ways that deflate
has, with control frames between them and with violations of every rule; and how it is cut. Where the two differ on
purpose stands in ``tests.protocol.test_fuzz``, which makes such streams of its own.
"""

from __future__ import annotations

import zlib

from wsproto.extensions import PerMessageDeflate

from tests.protocol.test_fuzz import STOP, Reference, Verdict, assert_same, by_a_session, by_wsproto
from tests.protocol.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    LIMIT,
    PING,
    PONG,
    RSV1,
    TEXT,
    Deflater,
    Server,
    Unfinished,
    frame,
    header,
    joined,
    new_session,
    take_in_place,
)
from zapros_websocket._protocol.messages import (
    BinaryMessage,
    Message,
    PingMessage,
    PongMessage,
    TextMessage,
)
from zapros_websocket._protocol.options import PerMessageDeflateExtension
from zapros_websocket._protocol.outgoing import Outgoing, outgoing
from zapros_websocket._protocol.session import Session

from .source import Source

# The lengths at which the form of a header changes, and those around them.
LENGTHS = (0, 1, 2, 3, 5, 17, 124, 125, 126, 127, 128, 1000, 65_535, 65_536, LIMIT - 1, LIMIT, LIMIT + 1)
# From where on a message comes in parts.
LIMITS_OF_THE_WHOLE = (1, 100, 2000, LIMIT)
STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE)
CODES = (1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1011, 1012, 1013, 1015, 2999, 3000, 4999, 5000, 0, 999)
MOST_FRAMES = 40


def explore(data: bytes) -> None:
    """Raise AssertionError where the two differ."""
    source = Source(data)
    agreed: PerMessageDeflateExtension | None = None
    if source.flag():
        agreed = PerMessageDeflateExtension(source.flag(), source.flag(), 9 + source.integer(7), 9 + source.integer(7))
    cuts = [source.integer(1 << 12) for _ in range(source.integer(6))]
    stream = Stream(source, agreed)
    ours = by_a_session(cut(stream.wire, cuts), deflate=agreed or False)
    theirs = by_wsproto(stream.wire, None if agreed is None else Reference(agreed))
    assert_same(ours, theirs, deflate=agreed is not None)
    if stream.is_valid:
        assert ours.failure is None
        assert list(ours.messages) == stream.messages
    in_parts = by_a_session_in_parts(cut(stream.wire, cuts), source.one_of(LIMITS_OF_THE_WHOLE), agreed)
    assert in_parts.failure != 1009
    assert_same(in_parts, theirs, deflate=agreed is not None)
    send(source, agreed)


def by_a_session_in_parts(pieces: list[bytes], limit: int, agreed: PerMessageDeflateExtension | None) -> Verdict:
    session = new_session(limit=limit, deflate=agreed or False, in_parts=True)
    given = joined(message for piece in pieces for message in take_in_place(session, piece))
    whole = tuple(message for message in given if not isinstance(message, Unfinished))
    return Verdict(whole, None if session.failure is None else int(session.failure.code))


def cut(wire: bytes, places: list[int]) -> list[bytes]:
    """The distances between the places at which the wire is cut, over and over."""
    if not any(places):
        return [wire]
    pieces: list[bytes] = []
    position = number = 0
    while position < len(wire) and number < 200:
        length = places[number % len(places)]
        pieces.append(wire[position : position + length])
        position += length
        number += 1
    return [*pieces, wire[position:]]


class Stream:
    """What a peer sends, as ``source`` chooses."""

    def __init__(self, source: Source, agreed: PerMessageDeflateExtension | None) -> None:
        self.messages: list[Message] = []
        self.is_valid = True
        self._source = source
        self._agreed = agreed
        self._frames: list[bytes] = []
        self._deflater = self._new_deflater()
        for _ in range(MOST_FRAMES):
            if source.is_empty or not self._add():
                break
        # Ends whatever a violation has left open.
        self.wire = b"".join(self._frames) + (b"" if self.is_valid else STOP)

    def _new_deflater(self) -> Deflater:
        agreed = self._agreed or PerMessageDeflateExtension()
        return Deflater(
            window_bits=agreed.server_max_window_bits,
            takeover=not agreed.server_no_context_takeover,
            strategy=self._source.one_of(STRATEGIES) if self._agreed is not None else zlib.Z_DEFAULT_STRATEGY,
        )

    def _add(self) -> bool:
        kind = self._source.integer(16)
        if kind < 9:
            self._message()
        elif kind < 12:
            self._control()
        elif kind == 12:
            return self._close()
        else:
            self.is_valid = False
            if kind == 13:
                self._frames.append(self._source.take(self._source.integer(16)))
            elif kind == 14:
                self._frames.append(self._odd_frame())
            else:
                self._spoil()
        return True

    def _message(self) -> None:
        is_text = self._source.flag()
        pieces = [self._payload() for _ in range(1 + self._source.one_of((0, 0, 0, 1, 2, 5)))]
        if is_text:
            text = b"".join(pieces).decode(errors="ignore")
            payload = text.encode()
            # Fragments may be cut within a character.
            places = [self._source.integer(len(payload) + 1) for _ in pieces[1:]]
            stops = [*sorted(places), len(payload)]
            pieces = [payload[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]
        payload = b"".join(pieces)
        self.is_valid &= len(payload) <= LIMIT
        reserved = 0
        if self._agreed is not None and self._source.flag():
            reserved = RSV1
            pieces = [*(self._deflater.block(piece) for piece in pieces[:-1]), self._deflater.end(pieces[-1])]
        opcode = TEXT if is_text else BINARY
        for number, piece in enumerate(pieces, start=1):
            self._frames.append(frame(opcode, piece, final=number == len(pieces), reserved=reserved))
            opcode, reserved = CONTINUATION, 0
            if number < len(pieces) and self._source.integer(4) == 3:
                self._control()
        self.messages.append(TextMessage(payload.decode()) if is_text else BinaryMessage(payload))

    def _payload(self) -> bytes:
        length = self._source.one_of(LENGTHS)
        pattern = self._source.take(self._source.integer(32)) or b"\x00"
        return (pattern * (length // len(pattern) + 1))[:length]

    def _control(self) -> None:
        payload = self._payload()[:125]
        if self._source.flag():
            self._frames.append(frame(PING, payload))
            self.messages.append(PingMessage(payload))
        else:
            self._frames.append(frame(PONG, payload))
            self.messages.append(PongMessage(payload))

    def _close(self) -> bool:
        code = self._source.one_of(CODES)
        reason = self._payload()[:123]
        self.is_valid = False
        self._frames.append(frame(CLOSE, code.to_bytes(2, "big") + reason) if code else frame(CLOSE, reason[:1]))
        return self._source.flag()

    def _odd_frame(self) -> bytes:
        first, second = self._source.byte(), self._source.byte()
        payload = self._payload()
        odd = header(
            first & 0x0F,
            len(payload) if len(payload) < 126 or second & 3 else 125,
            final=bool(first & 0x80),
            reserved=first & 0x70,
            form=(0, 2, 8)[second % 3] if len(payload) < 1 << 16 else 8,
            masked=second & 0x80,
        )
        return odd + payload

    def _spoil(self) -> None:
        if self._frames:
            spoiled = bytearray(self._frames.pop())
            if spoiled:
                spoiled[self._source.integer(min(len(spoiled), 256))] ^= 1 << self._source.integer(8)
            self._frames.append(bytes(spoiled))


def send(source: Source, agreed: PerMessageDeflateExtension | None) -> None:
    """What a session sends is what wsproto's server half reads, whatever was agreed to."""
    session = new_session(deflate=agreed or False)
    extensions: list[PerMessageDeflate] = []
    if agreed is not None:
        extensions.append(
            PerMessageDeflate(
                agreed.client_no_context_takeover,
                agreed.client_max_window_bits,
                agreed.server_no_context_takeover,
                agreed.server_max_window_bits,
            )
        )
        extensions[0].finalize("permessage-deflate")
    server = Server(*extensions)
    sent: list[Message] = []
    wire = b""
    for _ in range(source.integer(6)):
        pattern = source.take(source.integer(32)) or b"\x00"
        payload = (pattern * 70_000)[: source.one_of(LENGTHS)]
        kind = source.integer(4)
        way = source.byte()
        message: Message
        if kind == 0:
            message = BinaryMessage(payload)
        elif kind == 1:
            message = TextMessage(payload.decode(errors="ignore"))
        else:
            message = (PingMessage, PongMessage)[kind - 2](payload[:125])
        encoded = outgoing(message)
        assert isinstance(encoded, tuple)
        compress = (None, True, False)[way % 3]
        if kind < 2 and way & 0x80:
            wire += in_chunks(session, encoded, 1 + source.integer(1 << 16), compress)
        else:
            wire += session.encode(*encoded, compress)
        sent.append(message)
    assert server.read(wire) == sent


def in_chunks(session: Session, encoded: Outgoing, size: int, compress: bool | None) -> bytes:
    """The fragments of a message, a few of up to ``size`` bytes and one with the rest."""
    opcode, payload = encoded
    if not payload:
        return session.encode(opcode, payload, compress)
    sequence = session.sequence(opcode, compress)
    places = [*range(0, len(payload), size)][:8]
    pieces = [payload[start:stop] for start, stop in zip(places, [*places[1:], len(payload)], strict=True)]
    fragments = [session.encode_fragment(sequence, piece, first=not number) for number, piece in enumerate(pieces)]
    return b"".join(fragments) + session.encode_end(sequence)
