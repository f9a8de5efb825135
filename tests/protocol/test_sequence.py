"""A message in fragments, as wsproto's server half reads it (RFC 6455, section 5.4, and RFC 7692, section 7.2.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.events import TextMessage as WsprotoText
from wsproto.extensions import PerMessageDeflate

from zapros_websocket import BinaryMessage, PerMessageDeflateExtension, PingMessage, TextMessage
from zapros_websocket._protocol.frames import BINARY, TEXT
from zapros_websocket._protocol.outgoing import chunk
from zapros_websocket._protocol.session import Session

from .wire import Server, new_session, steady

CHUNKS = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=8)


def in_fragments(session: Session, opcode: int, chunks: list[bytes], compress: bool | None = None) -> list[bytes]:
    sequence = session.sequence(opcode, compress)
    fragments = [session.encode_fragment(sequence, piece, first=not at) for at, piece in enumerate(chunks)]
    return [*fragments, session.encode_end(sequence)]


def agreeing(*, takeover: bool) -> tuple[Session, Server]:
    extension = PerMessageDeflate()
    extension.finalize("permessage-deflate" if takeover else "permessage-deflate; client_no_context_takeover")
    return new_session(deflate=PerMessageDeflateExtension(client_no_context_takeover=not takeover)), Server(extension)


@steady
@given(messages=st.lists(CHUNKS, min_size=1, max_size=3))
def test_the_chunks_joined_are_the_message(messages: list[list[bytes]]) -> None:
    session, server = new_session(), Server()
    for chunks in messages:
        assert server.read(b"".join(in_fragments(session, BINARY, chunks))) == [BinaryMessage(b"".join(chunks))]


@pytest.mark.parametrize("takeover", [True, False])
@steady
@given(messages=st.lists(CHUNKS, min_size=1, max_size=3))
def test_compressed_chunks_joined_are_the_message(takeover: bool, messages: list[list[bytes]]) -> None:
    session, server = agreeing(takeover=takeover)
    for chunks in messages:
        whole = BinaryMessage(b"".join(chunks))
        assert server.read(b"".join(in_fragments(session, BINARY, chunks))) == [whole]
        # What follows stands on the same window.
        assert server.read(session.encode(BINARY, whole.data)) == [whole]


@pytest.mark.parametrize("takeover", [True, False])
def test_the_window_goes_on_from_one_message_to_the_next_if_it_was_agreed_to(takeover: bool) -> None:
    session, server = agreeing(takeover=takeover)
    chunks = [bytes(range(256)), bytes(range(255, -1, -1))]
    sizes: list[int] = []
    for _ in range(2):
        fragments = in_fragments(session, BINARY, chunks)
        assert server.read(b"".join(fragments)) == [BinaryMessage(b"".join(chunks))]
        sizes.append(sum(map(len, fragments)))
    assert (sizes[1] < sizes[0] / 5) is takeover


def test_only_the_last_frame_is_final_and_only_the_first_says_what_it_is() -> None:
    firsts = [frame[0] for frame in in_fragments(new_session(), TEXT, [b"a", b"b"])]
    assert firsts == [0x01, 0x00, 0x80]
    firsts = [frame[0] for frame in in_fragments(new_session(deflate=True), TEXT, [b"a", b"b"])]
    assert firsts == [0x41, 0x00, 0x80]
    firsts = [frame[0] for frame in in_fragments(new_session(deflate=True), TEXT, [b"a"], compress=False)]
    assert firsts == [0x01, 0x80]


def test_a_compressed_fragment_can_be_inflated_when_it_arrives() -> None:
    session, server = agreeing(takeover=True)
    sequence = session.sequence(TEXT, None)
    arrived: list[WsprotoText] = []
    for piece in ("one", "two", "three"):
        server.connection.receive_data(session.encode_fragment(sequence, piece.encode(), first=not arrived))
        arrived += [event for event in server.connection.events() if isinstance(event, WsprotoText)]
    assert "".join(event.data for event in arrived) == "onetwothree"
    server.connection.receive_data(session.encode_end(sequence))
    arrived += [event for event in server.connection.events() if isinstance(event, WsprotoText)]
    assert arrived[-1].message_finished


def test_text_may_be_cut_between_any_two_bytes() -> None:
    session, server = new_session(), Server()
    pieces = [bytes((byte,)) for byte in "é€𝄞".encode()]
    assert server.read(b"".join(in_fragments(session, TEXT, pieces))) == [TextMessage("é€𝄞")]


def test_pings_go_out_between_fragments() -> None:
    session, server = new_session(), Server()
    sequence = session.sequence(TEXT, None)
    wire = session.encode_fragment(sequence, b"a", first=True)
    session.ping(b"ping")
    wire += session.encode_fragment(sequence, b"b", first=False) + session.encode_end(sequence)
    assert server.read(wire) == [PingMessage(b"ping"), TextMessage("ab")]


@pytest.mark.parametrize(("compress", "compressed"), [(None, False), (False, False), (True, True)])
def test_compress_overrules_the_threshold(compress: bool | None, compressed: bool) -> None:
    session = new_session(deflate=PerMessageDeflateExtension(threshold=100))
    assert session.encode(BINARY, b"small", compress)[0] == (0xC2 if compressed else 0x82)
    assert session.encode(BINARY, bytes(100), compress)[0] == (0x82 if compress is False else 0xC2)
    # Nothing can be gained by it.
    assert session.encode(BINARY, b"", compress)[0] == 0x82


def test_compress_has_no_effect_without_compression() -> None:
    session, server = new_session(), Server()
    assert server.read(session.encode(BINARY, b"payload", True)) == [BinaryMessage(b"payload")]


def test_chunks_of_two_kinds_are_refused() -> None:
    assert chunk("text", None) == (TEXT, b"text")
    assert chunk(bytearray(b"bytes"), BINARY) == (BINARY, b"bytes")
    with pytest.raises(TypeError, match="bytes-like came after str"):
        chunk(b"bytes", TEXT)
    with pytest.raises(TypeError, match="str came after bytes-like"):
        chunk("text", BINARY)
    with pytest.raises(TypeError, match="not int"):
        chunk(1, None)
    with pytest.raises(ValueError, match="lone surrogates"):
        chunk("\ud800", TEXT)
