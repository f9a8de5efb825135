"""The server's half without I/O: whole, byte by byte, and what it does not agree to."""

from __future__ import annotations

import pytest
from wsproto import ConnectionType

from zapros_websocket import BinaryMessage, CloseMessage, Message, PingMessage, PongMessage, TextMessage
from zapros_websocket._protocol.options import PerMessageDeflateExtension
from zapros_websocket.testing._half import Incoming, Outgoing, Received, Violation, frame, negotiate

MESSAGES: list[Message] = [
    TextMessage("grüße"),
    TextMessage(""),
    BinaryMessage(b""),
    BinaryMessage(bytes(125)),
    BinaryMessage(bytes(126)),
    BinaryMessage(bytes(65536)),
    PingMessage(b"p"),
    PongMessage(b"q"),
]
CLOSES = [CloseMessage(1000, ""), CloseMessage(4000, "bye"), CloseMessage(1005, ""), CloseMessage(1014, "a gateway")]


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("close", CLOSES)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_what_goes_out_comes_in(deflate: bool, close: CloseMessage, size: int) -> None:
    agreed = negotiate(["permessage-deflate"]) if deflate else None
    other = negotiate(["permessage-deflate"]) if deflate else None
    outgoing = Outgoing(None if agreed is None else agreed[1])
    incoming = Incoming(ConnectionType.CLIENT, None if other is None else other[1])
    messages: list[Message] = [*MESSAGES, close]
    data = b"".join(map(outgoing.encode, messages)) + b"nothing comes after a close"
    received = [item for i in range(0, len(data), size) for item in incoming.receive(data[i : i + size])]
    assert received == [Received(message) for message in messages]


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize(
    ("data", "violation"),
    [
        (frame(0x2, b"x", compressed=True), 1002),
        (frame(0x9, bytes(126)), 1002),
        (b"\x82\x7f\0\0\0\0\x7f\xff\xff\xff", 1009),
        (frame(0x1, b"\xff"), 1007),
        (frame(0x8, b"\x03\xf6\xff"), 1002),
        (frame(0x8, b"\x03"), 1002),
    ],
)
def test_a_violation_is_the_last_that_comes(data: bytes, violation: int, size: int) -> None:
    data += frame(0x1, b"more")
    incoming = Incoming(ConnectionType.CLIENT, None)
    received = [item for i in range(0, len(data), size) for item in incoming.receive(data[i : i + size])]
    (only,) = received
    assert isinstance(only, Violation)
    assert only.code == violation
    assert only.reason


def masked(opcode: int, payload: bytes) -> bytes:
    key = b"\x01\x02\x03\x04"
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + key + bytes(b ^ key[i % 4] for i, b in enumerate(payload))


def test_the_code_1014_of_a_client() -> None:
    incoming = Incoming(ConnectionType.SERVER, None)
    assert list(incoming.receive(masked(0x8, b"\x03\xf6why"))) == [Received(CloseMessage(1014, "why"))]
    assert list(incoming.receive(masked(0x1, b"more"))) == []
    for frame_of_none in (masked(0x8, b"\x03\xf6\xff"), frame(0x8, b"\x03\xf6")):
        (violation,) = Incoming(ConnectionType.SERVER, None).receive(frame_of_none)
        assert isinstance(violation, Violation)


@pytest.mark.parametrize(
    "offers",
    [
        [],
        [""],
        ["x-other; a=1"],
        ["permessage-deflate; server_max_window_bits=8"],
        ["permessage-deflate; client_max_window_bits=many"],
    ],
)
def test_offers_that_are_not_agreed_to(offers: list[str]) -> None:
    assert negotiate(offers) is None


def test_the_first_offer_that_can_be_is_agreed_to() -> None:
    offers = ["x-other", "permessage-deflate; server_max_window_bits=8", "permessage-deflate; server_max_window_bits=9"]
    agreed = negotiate([*offers, "permessage-deflate"])
    assert agreed is not None
    answer, deflate = agreed
    assert answer == "permessage-deflate; server_max_window_bits=9"
    # Seen from the server, which is the one that compresses with these bits.
    assert deflate.agreed == PerMessageDeflateExtension(client_max_window_bits=9)
