"""Any bytes are messages, or one documented close; never another exception, never more memory than the limit.

And it makes no difference how they are cut, and by which way they come in: at once, or in pieces, each to its place.
With large messages in parts there is no limit, and memory is as bounded, whatever is declared and however much is
inflated; the parts come to what a session gives whose limit is out of reach. The first bytes of an input choose the
parameters of the connection, the others are what the peer sends on it.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterable, Sequence

from tests.protocol.wire import CLOSE, PONG, Unfinished, calls, joined, new_session, take_in, take_in_place
from zapros_websocket._protocol.messages import (
    BinaryMessage,
    CloseCode,
    CloseMessage,
    Message,
    Part,
    PingMessage,
    TextMessage,
    may_be_sent,
)
from zapros_websocket._protocol.options import PerMessageDeflateExtension
from zapros_websocket._protocol.session import MAX_PONGS, State

from .source import Source

LIMITS = (1, 20, 125, 1000, 70_000)
WINDOWS = (8, 9, 12, 15)
CUTS = (1, 2, 3, 7, 64, 1000, 1 << 16)

# The codes with which a session fails a connection for what the peer sends.
FAILURES = (1002, 1007, 1009)

# Bytes that a session may hold: itself and the pongs that wait; a message that is put together, in which every
# character takes up four bytes beside one that needs as many, in buffers that grow in steps; an inflater.
ITSELF = 24 * 1024
TIMES = 6
INFLATER = 64 * 1024
# Bytes for a frame in work, the message that it becomes and its place in the list.
A_FRAME = 400
# Bytes of parts that one call gives out at most: characters of up to four bytes, and what a KiB can inflate to.
ENOUGH = 4 * 256 * 1024 + 1032 * 1024
OUT_OF_REACH = sys.maxsize


def explore(data: bytes) -> None:
    """Raise AssertionError where the property does not hold."""
    source = Source(data)
    limit = source.one_of(LIMITS)
    deflate = parameters(source)
    cut = source.one_of(CUTS)
    wire = source.take(1 << 20)
    whole, failure = Run(limit, deflate).feed([wire])
    pieces, other_failure = Run(limit, deflate).feed(cut_up(wire, cut))
    assert whole == pieces, (whole, pieces)
    # Of two things that are wrong with a compressed message, the pieces can decide which one is found first.
    if deflate is None or failure is None or other_failure is None:
        assert failure == other_failure, (failure, other_failure)
    in_parts(wire, cut, limit, deflate)
    measure(cut_up(wire, cut), limit, deflate, in_parts=False)
    measure(cut_up(wire, cut), limit, deflate, in_parts=True)


def in_parts(wire: bytes, cut: int, limit: int, deflate: PerMessageDeflateExtension | None) -> None:
    """Large messages in parts are what they would be whole, and where they are cut means nothing."""
    parts, failure = Run(limit, deflate, in_parts=True).feed([wire])
    pieces, other_failure = Run(limit, deflate, in_parts=True).feed(cut_up(wire, cut))
    whole, late_failure = Run(OUT_OF_REACH, deflate).feed([wire])
    ours, others, theirs = (finished(outcome[0]) for outcome in (parts, pieces, whole))
    assert ours == others, (ours, others)
    # What there was of a message that fails is what the pieces before the failure came to.
    assert failure is not None or parts == pieces, (parts, pieces)
    assert ours == theirs, (ours, theirs)
    # What is wrong with a frame is found when that part comes, and not when all of it has come.
    if deflate is None and (late_failure is not None or failure != 1007):
        assert failure == other_failure == late_failure, (failure, other_failure, late_failure)


def finished(messages: Iterable[Message | Unfinished]) -> list[Message]:
    return [message for message in messages if not isinstance(message, Unfinished)]


def parameters(source: Source) -> PerMessageDeflateExtension | None:
    flags = source.byte()
    window = source.one_of(WINDOWS)
    return PerMessageDeflateExtension(bool(flags & 2), bool(flags & 4), 15, window) if flags & 1 else None


def cut_up(wire: bytes, size: int) -> list[bytes]:
    return [wire[start : start + size] for start in range(0, len(wire), size)]


class Run:
    """One session that is fed, and what it says and writes while it is."""

    def __init__(self, limit: int, deflate: PerMessageDeflateExtension | None, *, in_parts: bool = False) -> None:
        self.limit = limit
        self.session = new_session(limit=limit, deflate=deflate or False, in_parts=in_parts)
        self.messages: list[Message] = []

    def feed(
        self, pieces: list[bytes]
    ) -> tuple[tuple[Sequence[Message | Unfinished], State, CloseMessage | None], int | None]:
        """What the pieces come to, in a form that can be compared, and the failure."""
        take = take_in if len(pieces) == 1 else take_in_place
        for piece in pieces:
            was_closed = self.session.state is State.CLOSED
            received = take(self.session, piece)
            assert not (was_closed and received)
            self.messages += received
        self.check()
        session = self.session
        failure = None if session.failure is None else int(session.failure.code)
        return (joined(self.messages), session.state, session.received), failure

    def check(self) -> None:
        session = self.session
        for message in self.messages:
            if isinstance(message, (TextMessage, BinaryMessage)):
                assert size_of(message) <= self.limit
            elif not isinstance(message, Part):
                assert size_of(message) <= 125
        closes = [message for message in self.messages if isinstance(message, CloseMessage)]
        assert closes == ([] if session.received is None else [session.received])
        assert closes == [] or self.messages[-1] is closes[0]
        assert session.failure is None or session.received is None
        assert (session.state is State.CLOSED) is (session.failure is not None or session.received is not None)
        # What is written are pongs, or one close frame and nothing beside it.
        written = unmasked(session.take_control())
        assert not session.has_control
        if session.state is State.OPEN:
            pings = [message.data for message in self.messages if isinstance(message, PingMessage)]
            assert written == [(0x80 | PONG, payload) for payload in pings[-MAX_PONGS:]]
            return
        assert session.sent is not None
        assert written == [(0x80 | CLOSE, close_payload(session.sent))]
        if session.failure is not None:
            assert session.failure.code in FAILURES
            assert session.failure.reason
            assert session.sent.code == session.failure.code
        else:
            assert session.received is not None
            assert session.sent == session.received
            assert session.sent.code == CloseCode.NO_STATUS or may_be_sent(session.sent.code)
        assert take_in(session, b"\x81\x01a") == []
        session.end("the end")
        assert not session.has_control
        assert session.failure is None or session.failure.code != CloseCode.ABNORMAL


def unmasked(wire: bytes) -> list[tuple[int, bytes]]:
    """The first byte and the payload of control frames, which are masked with keys of their own."""
    frames: list[tuple[int, bytes]] = []
    while wire:
        length = wire[1] - 0x80
        assert 0 <= length <= 125
        payload = wire[6 : 6 + length]
        assert len(payload) == length
        frames.append((wire[0], bytes(byte ^ wire[2 + place % 4] for place, byte in enumerate(payload))))
        wire = wire[6 + length :]
    return frames


def close_payload(message: CloseMessage) -> bytes:
    if message.code == CloseCode.NO_STATUS:
        return b""
    return message.code.to_bytes(2, "big") + (message.reason or "").encode()


def measure(pieces: list[bytes], limit: int, deflate: PerMessageDeflateExtension | None, *, in_parts: bool) -> None:
    """Feed a session, let go of all that it gives out, and look at what it holds on to, and held meanwhile."""
    allowed = ITSELF + TIMES * limit + (0 if deflate is None else INFLATER)
    if not tracemalloc.is_tracing():
        # And not stopped again: each start leaves a little behind.
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    session = new_session(limit=limit, deflate=deflate or False, in_parts=in_parts)
    for piece in pieces:
        tracemalloc.reset_peak()
        for messages in calls(session, piece):
            given = sum(map(size_of, messages))
            assert not in_parts or given <= ENOUGH + limit + len(piece), f"{given:,} bytes came out at once"
            del messages
            held, peak = (size - before for size in tracemalloc.get_traced_memory())
            assert held <= allowed, f"{held:,} bytes are held, and {allowed:,} allowed"
            most = allowed + TIMES * given + A_FRAME * (1 + len(piece) // 2)
            assert peak <= most, f"{peak:,} bytes were in use, and {most:,} allowed"
            tracemalloc.reset_peak()


def size_of(message: Message | Part) -> int:
    """The size of a payload on the wire, in bytes."""
    if isinstance(message, CloseMessage):
        return len((message.reason or "").encode()) + 2
    return len(message.data.encode() if isinstance(message.data, str) else message.data)
