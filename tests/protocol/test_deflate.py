"""permessage-deflate: the examples of RFC 7692, the windows of both sides, and the bound."""

from __future__ import annotations

import sys
import zlib
from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zapros_websocket._protocol.deflate import TAIL, Deflate, most_compressed
from zapros_websocket._protocol.frames import BINARY
from zapros_websocket._protocol.messages import CloseMessage
from zapros_websocket._protocol.options import PerMessageDeflateExtension
from zapros_websocket._protocol.session import Session

from .wire import Deflater, deflated, final_stream, steady

ROOM = 1 << 20
HELLO = b"\xf2\x48\xcd\xc9\xc9\x07\x00"
# Not compressible by itself, and nothing but a reference where a window holds it already.
PHRASE = bytes(range(256))


def new_deflate(
    *, client_takeover: bool = True, server_takeover: bool = True, client_bits: int = 15, server_bits: int = 15
) -> Deflate:
    return Deflate(
        PerMessageDeflateExtension(
            client_no_context_takeover=not client_takeover,
            server_no_context_takeover=not server_takeover,
            client_max_window_bits=client_bits,
            server_max_window_bits=server_bits,
        )
    )


def inflate_all(subject: Deflate, pieces: list[bytes], room: int = ROOM) -> bytes | int:
    """One message in pieces; the code where one of them is a failure."""
    inflated = b""
    for number, piece in enumerate(pieces, start=1):
        more = subject.inflate(piece, room - len(inflated), final=number == len(pieces))
        if isinstance(more, CloseMessage):
            return int(more.code)
        inflated += more
    return inflated


def inflated_by_zlib(messages: list[bytes], *, bits: int, takeover: bool) -> list[bytes]:
    """What a server with a window of ``bits`` makes of compressed messages."""
    inflated: list[bytes] = []
    inflater = zlib.decompressobj(-bits)
    for message in messages:
        inflated.append(inflater.decompress(message + TAIL))
        if not takeover:
            inflater = zlib.decompressobj(-bits)
    return inflated


# RFC 7692, section 7.2.3


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        pytest.param([HELLO], b"Hello", id="7.2.3.1 one block"),
        pytest.param([HELLO[:3], HELLO[3:]], b"Hello", id="7.2.3.1 one block in two fragments"),
        pytest.param([b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"], b"Hello", id="7.2.3.3 not compressed"),
        pytest.param([b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"], b"Hello", id="7.2.3.4 a final block"),
        pytest.param([b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"], b"Hello", id="7.2.3.5 two blocks"),
        pytest.param([b"\x00"], b"", id="7.2.3.6 an empty message"),
    ],
)
def test_the_examples_of_the_rfc(pieces: list[bytes], message: bytes) -> None:
    subject = new_deflate()
    assert inflate_all(subject, pieces) == message
    assert inflate_all(subject, pieces) == message


def test_the_example_of_a_shared_window() -> None:
    subject = new_deflate()
    assert inflate_all(subject, [HELLO]) == b"Hello"
    assert inflate_all(subject, [b"\xf2\x00\x11\x00\x00"]) == b"Hello"


def test_what_is_compressed_is_what_the_rfc_shows() -> None:
    subject = new_deflate()
    assert subject.compress(b"Hello") == HELLO
    assert subject.compress(b"Hello") == b"\xf2\x00\x11\x00\x00"


# Final blocks


@pytest.mark.parametrize(
    "streams",
    [
        pytest.param([b"one"], id="one"),
        pytest.param([b"one", b"two"], id="two"),
        pytest.param([b"", b"", b"one", b""], id="empty ones"),
        pytest.param([PHRASE] * 63, id="as many as are taken in one piece"),
    ],
)
def test_streams_that_end_within_a_message(streams: list[bytes]) -> None:
    wire = b"".join(final_stream(each) for each in streams)
    expected = b"".join(streams)
    subject = new_deflate()
    assert inflate_all(subject, [wire + b"\x00"]) == expected
    assert inflate_all(subject, [wire, b"\x00"]) == expected
    assert inflate_all(subject, [wire + deflated(b"and more")]) == expected + b"and more"
    assert inflate_all(subject, [wire[place : place + 1] for place in range(len(wire))] + [b"\x00"]) == expected


def test_more_streams_than_a_sender_needs_are_a_failure() -> None:
    assert inflate_all(new_deflate(), [final_stream(b"x") * 64 + b"\x00"]) == 1007


def test_the_bound_holds_across_streams_that_end() -> None:
    wire = final_stream(b"x" * 10) * 2
    assert inflate_all(new_deflate(), [wire + b"\x00"], 20) == b"x" * 20
    assert inflate_all(new_deflate(), [wire + b"\x00"], 19) == 1009
    assert inflate_all(new_deflate(), [wire + b"\x00"], 9) == 1009


new_inflater = zlib.decompressobj


class CountedInflater:
    """zlib's, with a count of the bytes that it sets aside: they are copied each time that a stream ends."""

    copied = 0

    def __init__(self, bits: int) -> None:
        self._inflater = new_inflater(bits)

    def decompress(self, data: bytes, most: int = 0) -> bytes:
        inflated = self._inflater.decompress(data, most)
        type(self).copied += len(self._inflater.unused_data)
        return inflated

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data


def test_endless_streams_are_not_copied_over_and_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(CountedInflater):
        pass

    def copied(count: int) -> int:
        Counted.copied = 0
        new_deflate().inflate(final_stream(b"") * count, ROOM, final=True)
        return Counted.copied

    with monkeypatch.context() as patch:
        patch.setattr(zlib, "decompressobj", Counted)
        few, many = copied(1000), copied(4000)
    assert many < 4.2 * few


# The windows


@pytest.mark.parametrize(("bits", "takeover"), list(product(range(9, 16), (True, False))))
def test_compress_honours_the_window_of_the_client(bits: int, takeover: bool) -> None:
    subject = new_deflate(client_bits=bits, client_takeover=takeover)
    messages = [PHRASE, PHRASE * (1 << max(bits - 8, 0)) + b"end", PHRASE[::-1] * 300, b"Hello", PHRASE]
    compressed = [subject.compress(each) for each in messages]
    assert inflated_by_zlib(compressed, bits=bits, takeover=takeover) == messages


@pytest.mark.parametrize(("bits", "takeover"), list(product(range(8, 16), (True, False))))
def test_inflate_honours_the_window_of_the_server(bits: int, takeover: bool) -> None:
    subject = new_deflate(server_bits=bits, server_takeover=takeover)
    deflater = Deflater(window_bits=max(bits, 9), takeover=takeover)
    for message in (PHRASE, PHRASE * 300, PHRASE[::-1] * 300, b"Hello", PHRASE):
        assert subject.inflate(deflater.end(message), ROOM, final=True) == message


def test_a_window_of_8_bits_is_more_than_zlib_can_honour_so_nothing_is_compressed() -> None:
    assert [new_deflate(client_bits=bits).compresses for bits in (8, 9, 15)] == [False, True, True]


def test_the_window_of_the_server_has_nothing_to_do_with_what_is_compressed() -> None:
    assert new_deflate(server_bits=8).compresses


@pytest.mark.parametrize("takeover", [True, False])
def test_the_window_of_the_peer_follows_the_wire(takeover: bool) -> None:
    subject = new_deflate(client_takeover=takeover)
    first, second = subject.compress(PHRASE), subject.compress(PHRASE)
    assert (len(second) < 20) is takeover
    assert inflated_by_zlib([first, second], bits=15, takeover=takeover) == [PHRASE, PHRASE]


def test_a_server_that_promised_to_forget_its_window_is_held_to_it() -> None:
    deflater = Deflater()
    first, second = deflater.end(PHRASE), deflater.end(PHRASE)
    assert inflate_all(new_deflate(server_takeover=True), [first]) == PHRASE
    forgetful = new_deflate(server_takeover=False)
    assert inflate_all(forgetful, [first]) == PHRASE
    assert inflate_all(forgetful, [second]) == 1007


def test_a_window_is_kept_until_the_message_ends() -> None:
    deflater = Deflater(takeover=False)
    pieces = [deflater.block(PHRASE), deflater.end(PHRASE)]
    assert len(pieces[1]) < 20
    assert inflate_all(new_deflate(server_takeover=False), pieces) == PHRASE * 2


# The invariants


@steady
@given(st.binary(max_size=100), st.integers(min_value=0, max_value=50), st.booleans())
def test_inflate_never_produces_more_than_the_room_it_is_given(data: bytes, room: int, final: bool) -> None:
    for wire in (data, deflated(data * 10)):
        inflated = new_deflate().inflate(wire, room, final=final)
        assert isinstance(inflated, CloseMessage) or len(inflated) <= room


@pytest.mark.parametrize("room", [sys.maxsize - 1, sys.maxsize, 10**30])
def test_a_room_beyond_what_zlib_can_be_told_is_no_limit(room: int) -> None:
    assert new_deflate().inflate(deflated(PHRASE), room, final=True) == PHRASE


@pytest.mark.parametrize("size", [0, 1, 5, 100, 16_383, 16_384, 70_000])
def test_no_message_is_longer_compressed_than_what_is_taken_for_the_most(size: int) -> None:
    noise = Random(size).randbytes(size)
    for level in range(10):
        compressor = zlib.compressobj(level, wbits=-15)
        wire = compressor.compress(noise) + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert len(wire) - len(TAIL) <= most_compressed(size)


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000])
def test_the_room_is_exact(size: int) -> None:
    wire = deflated(bytes(size))
    assert inflate_all(new_deflate(), [wire], size) == bytes(size)
    assert inflate_all(new_deflate(), [wire, b""], size) == bytes(size)
    if size:
        assert inflate_all(new_deflate(), [wire], size - 1) == 1009


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\xff" * 8, id="a type of block that is reserved"),
        pytest.param(b"\x00\x05\x00\x00\x00Hello", id="a length that does not match"),
        pytest.param(b"\xf2\x00\x11\x00\x00", id="a reference to what never was"),
        pytest.param(final_stream(b"Hello") + b"\xff" * 8, id="behind the end of a stream"),
    ],
)
def test_nothing_raises_on_what_a_peer_sends(garbage: bytes) -> None:
    assert inflate_all(new_deflate(), [garbage]) == 1007
    assert inflate_all(new_deflate(), [garbage[:3], garbage[3:], b""]) == 1007


@steady
@given(st.lists(st.tuples(st.binary(max_size=30), st.booleans()), max_size=5))
def test_nothing_raises_on_any_bytes(pieces: list[tuple[bytes, bool]]) -> None:
    subject = new_deflate()
    for piece, final in pieces:
        failed = isinstance(subject.inflate(piece, 1000, final=final), CloseMessage)
        if failed:
            break


@steady
@given(st.lists(st.binary(max_size=400), max_size=8), st.booleans())
def test_what_one_side_compresses_the_other_inflates(messages: list[bytes], takeover: bool) -> None:
    ours = new_deflate(client_takeover=takeover)
    theirs = new_deflate(server_takeover=takeover)
    for message in messages:
        if message:
            assert theirs.inflate(memoryview(ours.compress(memoryview(message))), ROOM, final=True) == message


def compressed_by(parameters: PerMessageDeflateExtension, payload: bytes) -> bytes:
    return Deflate(parameters).compress(payload)


def test_the_level_says_how_hard_zlib_tries() -> None:
    payload = b"".join(b"%d, " % number for number in range(2000))
    sizes = [len(compressed_by(PerMessageDeflateExtension(level=level), payload)) for level in (0, 1, 9)]
    assert sizes[0] > len(payload) > sizes[1] > sizes[2]


def test_by_default_zlib_tries_less_hard_than_it_would_by_itself() -> None:
    payload = bytes(Random(0).choices(b"0123456789", k=5000))
    assert compressed_by(PerMessageDeflateExtension(), payload) == compressed_by(
        PerMessageDeflateExtension(level=3), payload
    )
    assert compressed_by(PerMessageDeflateExtension(), payload) != compressed_by(
        PerMessageDeflateExtension(level=-1), payload
    )


@pytest.mark.parametrize("memory_level", range(1, 10))
def test_any_memory_level_is_inflated_to_what_it_was(memory_level: int) -> None:
    payload = b"".join(b"%d, " % number for number in range(2000))
    compressed = compressed_by(PerMessageDeflateExtension(memory_level=memory_level), payload)
    assert inflated_by_zlib([compressed], bits=15, takeover=True) == [payload]


def test_a_message_under_the_threshold_is_sent_as_it_is() -> None:
    session = Session(max_message_size=ROOM, deflate=Deflate(PerMessageDeflateExtension(threshold=100)))
    first_bytes = [session.encode(BINARY, bytes(size))[0] for size in (99, 100, 0, 101)]
    assert first_bytes == [0x82, 0xC2, 0x82, 0xC2]
