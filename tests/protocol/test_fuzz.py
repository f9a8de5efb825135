"""A session makes of any stream what a plain wsproto connection makes of it: the same messages and the same failure.

It differs on purpose in this, and each is shown at the end:

- the close code 1014 is taken, which wsproto does not know;
- a ping between the fragments of a compressed message is taken, which wsproto takes for the end of the compression;
- the end of a stream of blocks within a message is taken, behind which wsproto inflates nothing more;
- there is a limit on the size of a message, and 1009 above it;
- of two things that are wrong with a compressed message, a session may name the other one.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto.connection import CLIENT, Connection, ConnectionState
from wsproto.events import CloseConnection
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol

from tests.deflate import SteadyDeflate
from zapros_websocket._protocol.messages import BinaryMessage, CloseMessage, Message, PingMessage, TextMessage
from zapros_websocket._protocol.options import PerMessageDeflateExtension

from .wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    LIMIT,
    PING,
    PONG,
    RSV1,
    TEXT,
    Deflater,
    Joiner,
    close_frame,
    frame,
    new_session,
    outcome_of,
    steady,
)

# Ends what a mutation left open, however long: neither of the two bytes begins a frame that a server may send.
STOP = b"\x83\x00" * LIMIT

Pieces = list[bytes]


@dataclass(frozen=True)
class Verdict:
    """What a stream means; ``is_final`` where what stands behind it may mean anything."""

    messages: tuple[Message, ...]
    failure: int | None = None
    is_final: bool = True


class Reference(SteadyDeflate):
    """It tells as well when a stream of blocks has ended."""

    def __init__(self, agreed: PerMessageDeflateExtension | None = None) -> None:
        agreed = agreed or PerMessageDeflateExtension()
        super().__init__(
            agreed.client_no_context_takeover,
            agreed.client_max_window_bits,
            agreed.server_no_context_takeover,
            agreed.server_max_window_bits,
        )
        self.finalize(self.name)
        self.stream_ended = False

    def frame_inbound_payload_data(self, proto: FrameDecoder | FrameProtocol, data: bytes) -> bytes | CloseReason:
        result = super().frame_inbound_payload_data(proto, data)
        self._watch(self._decompressor)
        return result

    def frame_inbound_complete(self, proto: FrameDecoder | FrameProtocol, fin: bool) -> bytes | CloseReason | None:
        inflater = self._decompressor
        result = super().frame_inbound_complete(proto, fin)
        self._watch(inflater)
        return result

    def _watch(self, inflater: zlib._Decompress | None) -> None:  # pyright: ignore[reportPrivateUsage]
        self.stream_ended |= inflater is not None and inflater.eof


def by_wsproto(data: bytes, deflate: PerMessageDeflate | None) -> Verdict:
    connection = Connection(CLIENT, extensions=[] if deflate is None else [deflate])
    connection.receive_data(data)
    joiner = Joiner()
    messages: list[Message] = []
    for event in connection.events():
        if isinstance(deflate, Reference) and deflate.stream_ended:
            return Verdict(tuple(messages), is_final=False)
        # A failure to parse looks like a close of the peer, but for the state that it leaves.
        if isinstance(event, CloseConnection) and connection.state is ConnectionState.OPEN:
            return Verdict(tuple(messages), int(event.code))
        messages += joiner.join([event])
    return Verdict(tuple(messages))


def by_a_session(pieces: Pieces, *, deflate: PerMessageDeflateExtension | bool) -> Verdict:
    outcome = outcome_of(new_session(deflate=deflate), pieces)
    return Verdict(outcome.messages, outcome.failure)


def assert_same(ours: Verdict, theirs: Verdict, *, deflate: bool) -> None:
    knows_more = any(isinstance(message, CloseMessage) and message.code == 1014 for message in ours.messages)
    if ours.failure == 1009 or knows_more or not theirs.is_final:
        shorter = min(len(ours.messages) - knows_more, len(theirs.messages))
        assert ours.messages[:shorter] == theirs.messages[:shorter]
        return
    assert ours.messages == theirs.messages
    if not (deflate and {ours.failure, theirs.failure} == {1002, 1007}):
        assert ours.failure == theirs.failure


# Streams


def cut(data: bytes, places: Sequence[int]) -> Pieces:
    """``data`` in pieces, cut at ``places`` modulo its length; some may be empty."""
    stops = sorted(place % (len(data) + 1) for place in places)
    return [data[start:stop] for start, stop in pairwise([0, *stops, len(data)])]


places = st.lists(st.integers(min_value=0, max_value=1000), max_size=4)
controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)).map(lambda pair: frame(*pair))
payloads = st.tuples(st.just(TEXT), st.text(max_size=300).map(str.encode)) | st.tuples(
    st.just(BINARY), st.binary(max_size=300) | st.just(b"long" * 20_000).map(lambda data: data[:LIMIT])
)
closes = st.tuples(
    st.sampled_from([1000, 1001, 1011, 3000, 4999]), st.text(max_size=30).map(lambda reason: reason.encode()[:123])
).map(lambda pair: close_frame(pair[0], pair[1].decode(errors="ignore").encode()))


@st.composite
def streams(draw: st.DrawFn, *, deflate: bool) -> bytes:
    """Any stream that a server may send."""
    deflater = Deflater()
    frames: list[bytes] = []
    for _ in range(draw(st.integers(min_value=0, max_value=5))):
        frames += draw(st.lists(controls, max_size=1))
        opcode, payload = draw(payloads)
        pieces = cut(payload, draw(places))
        reserved = 0
        if deflate and draw(st.booleans()):
            pieces = [*(deflater.block(piece) for piece in pieces[:-1]), deflater.end(pieces[-1])]
            reserved = RSV1
        for number, piece in enumerate(pieces, start=1):
            final = number == len(pieces)
            frames.append(frame(opcode, piece, final=final, reserved=reserved))
            opcode, reserved = CONTINUATION, 0
            if not final:
                frames += draw(st.lists(controls, max_size=1))
    return b"".join(frames) + draw(st.just(b"") | st.just(frame(CLOSE)) | closes)


@st.composite
def mutated(draw: st.DrawFn, *, deflate: bool) -> bytes:
    """A stream with bytes changed, left out and put in, most of them where the headers are."""
    stream = bytearray(draw(streams(deflate=deflate)))
    for _ in range(draw(st.integers(min_value=1, max_value=4))):
        place = draw(st.integers(min_value=0, max_value=40) | st.integers(min_value=0, max_value=500))
        place %= len(stream) + 1
        new = draw(st.binary(max_size=3) | st.sampled_from([b"\x81", b"\xc1", b"\x01", b"\x80", b"\x89\x00", b"\x88"]))
        stream[place : place + draw(st.integers(min_value=0, max_value=3))] = new
    return bytes(stream) + STOP


@settings(steady, max_examples=60)
@given(streams(deflate=False), places)
def test_a_valid_stream(stream: bytes, places: list[int]) -> None:
    ours = by_a_session(cut(stream, places), deflate=False)
    assert ours.failure is None
    assert ours == by_wsproto(stream, None)


@settings(steady, max_examples=60)
@given(streams(deflate=True), places)
def test_a_valid_compressed_stream(stream: bytes, places: list[int]) -> None:
    ours = by_a_session(cut(stream, places), deflate=True)
    assert ours.failure is None
    assert ours == by_wsproto(stream, Reference())


@settings(steady, max_examples=150)
@given(mutated(deflate=False), places)
@example(frame(TEXT, b"a", final=False) + frame(TEXT, b"b") + STOP, [])
def test_a_mutated_stream(stream: bytes, places: list[int]) -> None:
    ours = by_a_session(cut(stream, places), deflate=False)
    assert_same(ours, by_wsproto(stream, None), deflate=False)


@settings(steady, max_examples=150)
@given(mutated(deflate=True), places)
def test_a_mutated_compressed_stream(stream: bytes, places: list[int]) -> None:
    ours = by_a_session(cut(stream, places), deflate=True)
    assert_same(ours, by_wsproto(stream, Reference()), deflate=True)


@settings(steady, max_examples=60)
@given(mutated(deflate=False), places)
def test_how_a_stream_is_cut_means_nothing(stream: bytes, places: list[int]) -> None:
    assert by_a_session(cut(stream, places), deflate=False) == by_a_session([stream], deflate=False)


# Where it differs on purpose


def plain_deflate() -> PerMessageDeflate:
    extension = PerMessageDeflate()
    extension.finalize("permessage-deflate")
    return extension


def test_the_code_1014_is_taken() -> None:
    wire = close_frame(1014, b"why")
    assert by_wsproto(wire, None) == Verdict((), 1002)
    assert by_a_session([wire], deflate=False) == Verdict((CloseMessage(1014, "why"),))


def test_a_ping_between_compressed_fragments_is_taken() -> None:
    deflater = Deflater()
    wire = (
        frame(TEXT, deflater.block(b"one"), final=False, reserved=RSV1)
        + frame(PING)
        + frame(CONTINUATION, deflater.end(b"two"))
    )
    assert by_wsproto(wire, plain_deflate()).failure == 1007
    assert by_a_session([wire], deflate=True) == Verdict((PingMessage(b""), TextMessage("onetwo")))


def test_the_end_of_a_stream_of_blocks_is_taken() -> None:
    block = b"\xf3\x48\xcd\xc9\xc9\x07\x00"
    wire = frame(TEXT, block * 2 + b"\x00", reserved=RSV1)
    assert by_wsproto(wire, plain_deflate()) == Verdict((TextMessage("Hello"),))
    assert by_a_session([wire], deflate=True) == Verdict((TextMessage("HelloHello"),))


@pytest.mark.parametrize("deflate", [False, True], ids=["uncompressed", "compressed"])
def test_there_is_a_limit(deflate: bool) -> None:
    payload = bytes(LIMIT + 1)
    wire = frame(BINARY, Deflater().end(payload), reserved=RSV1) if deflate else frame(BINARY, payload)
    assert by_wsproto(wire, plain_deflate()) == Verdict((BinaryMessage(payload),))
    assert by_a_session([wire], deflate=deflate) == Verdict((), 1009)


def test_of_two_things_that_are_wrong_the_other_one_may_be_named() -> None:
    wire = frame(TEXT, b"a", final=False) + frame(TEXT, b"\xff" * 8, reserved=RSV1)
    assert by_wsproto(wire, plain_deflate()) == Verdict((), 1002)
    assert by_a_session([wire], deflate=True).failure in (1002, 1007)
