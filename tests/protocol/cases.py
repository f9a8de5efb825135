"""What a server can put on the wire, and what it means: RFC 6455, sections 5 and 7, as a table."""

from __future__ import annotations

from dataclasses import dataclass, replace

from zapros_websocket._protocol.messages import (
    BinaryMessage,
    CloseMessage,
    Message,
    PingMessage,
    PongMessage,
    TextMessage,
)
from zapros_websocket._protocol.session import State

from .wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    LIMIT,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Deflater,
    Outcome,
    close_frame,
    deflated,
    frame,
    header,
    masked_frame,
)

EURO = "€".encode()
LONG = b"x" * 65536
NORMAL = CloseMessage(1000, "")


@dataclass(frozen=True)
class Case:
    """What is on the wire, and what it means."""

    name: str
    wire: bytes
    messages: tuple[Message, ...] = ()
    failure: int | None = None
    words: str = ""
    received: CloseMessage | None = None
    deflate: bool = False
    limit: int = LIMIT

    @property
    def outcome(self) -> Outcome:
        if self.received is not None:
            code = int(self.received.code)
            return Outcome((*self.messages, self.received), State.CLOSED, None, self.received, code)
        if self.failure is not None:
            return Outcome(self.messages, State.CLOSED, self.failure, None, self.failure)
        return Outcome(self.messages)


def compressed_fragments(*pieces: bytes) -> tuple[bytes, ...]:
    deflater = Deflater()
    return (*(deflater.block(piece) for piece in pieces[:-1]), deflater.end(pieces[-1]))


first, second, third = compressed_fragments(b"one ", b"two ", b"three")
empty_first, empty_last = compressed_fragments(b"", b"")
split_euro = compressed_fragments(EURO[:1], EURO[1:2], EURO[2:])

VALID = [
    Case("text", frame(TEXT, b"hello"), (TextMessage("hello"),)),
    Case("text beyond the basic plane", frame(TEXT, "κόσμε 😀".encode()), (TextMessage("κόσμε 😀"),)),
    Case("text with a noncharacter", frame(TEXT, "\uffff".encode()), (TextMessage("\uffff"),)),
    Case("text with a zero byte", frame(TEXT, b"\0"), (TextMessage("\0"),)),
    Case("binary", frame(BINARY, b"\x00\xff"), (BinaryMessage(b"\x00\xff"),)),
    Case("empty text", frame(TEXT), (TextMessage(""),)),
    Case("empty binary", frame(BINARY), (BinaryMessage(b""),)),
    Case("a length of 125", frame(BINARY, b"x" * 125), (BinaryMessage(b"x" * 125),)),
    Case("a length of 126", frame(BINARY, b"x" * 126), (BinaryMessage(b"x" * 126),)),
    Case("a length of 65535", frame(TEXT, LONG[:-1]), (TextMessage("x" * 65535),)),
    Case("a length of 65536", frame(BINARY, LONG), (BinaryMessage(LONG),)),
    Case("several messages", frame(TEXT, b"a") + frame(BINARY, b"b"), (TextMessage("a"), BinaryMessage(b"b"))),
    Case("a ping", frame(PING, b"?"), (PingMessage(b"?"),)),
    Case("an empty ping", frame(PING), (PingMessage(b""),)),
    Case("the longest ping", frame(PING, b"p" * 125), (PingMessage(b"p" * 125),)),
    Case("a pong that nobody asked for", frame(PONG, b"!"), (PongMessage(b"!"),)),
    Case(
        "a message between pings",
        frame(PING, b"1") + frame(TEXT, b"a") + frame(PING, b"2"),
        (PingMessage(b"1"), TextMessage("a"), PingMessage(b"2")),
    ),
    Case(
        "fragments of text",
        frame(TEXT, b"a", final=False) + frame(CONTINUATION, b"b", final=False) + frame(CONTINUATION, b"c"),
        (TextMessage("abc"),),
    ),
    Case(
        "fragments of binary",
        frame(BINARY, b"a" * 130, final=False) + frame(CONTINUATION, b"b"),
        (BinaryMessage(b"a" * 130 + b"b"),),
    ),
    Case(
        "empty fragments",
        frame(TEXT, final=False) + frame(CONTINUATION, final=False) + frame(CONTINUATION),
        (TextMessage(""),),
    ),
    Case(
        "fragments with control frames in between",
        frame(TEXT, b"a", final=False) + frame(PING, b"1") + frame(PONG, b"2") + frame(CONTINUATION, b"b"),
        (PingMessage(b"1"), PongMessage(b"2"), TextMessage("ab")),
    ),
    Case(
        "fragments, and a message behind them",
        frame(BINARY, b"a", final=False) + frame(CONTINUATION) + frame(TEXT, b"b"),
        (BinaryMessage(b"a"), TextMessage("b")),
    ),
    Case(
        "a code point split over fragments",
        frame(TEXT, EURO[:1], final=False)
        + frame(CONTINUATION, EURO[1:2], final=False)
        + frame(CONTINUATION, EURO[2:]),
        (TextMessage("€"),),
    ),
]

COMPRESSED = [
    Case("compressed text", frame(TEXT, deflated(b"hello"), reserved=RSV1), (TextMessage("hello"),)),
    Case("compressed binary", frame(BINARY, deflated(LONG), reserved=RSV1), (BinaryMessage(LONG),)),
    Case("compressed nothing", frame(BINARY, b"\0", reserved=RSV1), (BinaryMessage(b""),)),
    Case("an uncompressed message all the same", frame(TEXT, b"plain"), (TextMessage("plain"),)),
    Case(
        "compressed fragments",
        frame(TEXT, first, final=False, reserved=RSV1)
        + frame(CONTINUATION, second, final=False)
        + frame(CONTINUATION, third),
        (TextMessage("one two three"),),
    ),
    Case(
        "compressed fragments with control frames in between",
        frame(TEXT, first, final=False, reserved=RSV1)
        + frame(PING, b"1")
        + frame(CONTINUATION, second, final=False)
        + frame(PONG, b"2")
        + frame(CONTINUATION, third),
        (PingMessage(b"1"), PongMessage(b"2"), TextMessage("one two three")),
    ),
    Case(
        "empty compressed fragments",
        frame(BINARY, empty_first, final=False, reserved=RSV1) + frame(CONTINUATION, empty_last),
        (BinaryMessage(b""),),
    ),
    Case(
        "compressed fragments cut anywhere",
        frame(TEXT, deflated(b"hello")[:2], final=False, reserved=RSV1) + frame(CONTINUATION, deflated(b"hello")[2:]),
        (TextMessage("hello"),),
    ),
    Case(
        "a code point split over compressed fragments",
        frame(TEXT, split_euro[0], final=False, reserved=RSV1)
        + frame(CONTINUATION, split_euro[1], final=False)
        + frame(CONTINUATION, split_euro[2]),
        (TextMessage("€"),),
    ),
    Case(
        "compressed fragments, then plain ones",
        frame(TEXT, first, final=False, reserved=RSV1)
        + frame(CONTINUATION, second)
        + frame(TEXT, b"a", final=False)
        + frame(CONTINUATION, b"b"),
        (TextMessage("one two "), TextMessage("ab")),
    ),
]

VIOLATIONS = [
    Case("a masked message", masked_frame(TEXT, b"abc"), words="masked"),
    Case("a masked empty message", masked_frame(TEXT, b""), words="masked"),
    Case("a masked ping", masked_frame(PING, b"abc"), words="masked"),
    Case("a masked close", masked_frame(CLOSE, b"\x03\xe8"), words="masked"),
    Case("a masked length of two bytes", masked_frame(BINARY, b"x" * 126), words="masked"),
    *(
        Case(f"reserved bit {number} on {name}", frame(opcode, b"abc", reserved=bit), words="Reserved bit")
        for number, bit in ((1, RSV1), (2, RSV2), (3, RSV3))
        for name, opcode in (("text", TEXT), ("binary", BINARY), ("a ping", PING), ("a close", CLOSE))
    ),
    Case("all reserved bits", frame(TEXT, reserved=RSV1 | RSV2 | RSV3), words="Reserved bit"),
    Case(
        "a reserved bit on a continuation",
        frame(TEXT, b"a", final=False) + frame(CONTINUATION, b"b", reserved=RSV2),
        words="Reserved bit",
    ),
    *(
        Case(f"opcode {opcode:#x}", frame(opcode, b"abc"), words="Invalid opcode")
        for opcode in (0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF)
    ),
    *(
        Case(f"a length of {length} in {form} bytes", frame(BINARY, b"x" * length, form=form), words="sufficed")
        for length, form in ((0, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65535, 8))
    ),
    Case("a length that is not minimal on text", frame(TEXT, b"abc", form=2), words="sufficed"),
    Case("a length with the highest bit", header(BINARY, 1 << 63, form=8) + b"abc", words="non-zero MSB"),
    *(
        Case(f"a fragmented {name}", frame(opcode, payload, final=False), words="fragment control frame")
        for name, opcode, payload in (("ping", PING, b"?"), ("pong", PONG, b"!"), ("close", CLOSE, b"\x03\xe8"))
    ),
    *(
        Case(f"a {name} of {length} bytes", frame(opcode, b"x" * length), words="> 125")
        for name, opcode in (("ping", PING), ("pong", PONG), ("close", CLOSE))
        for length in (126, 65536)
    ),
    Case("a control frame with a length that is not minimal", frame(PING, b"abc", form=2), words="> 125"),
    Case("a continuation of nothing", frame(CONTINUATION, b"abc"), words="unexpected CONTINUATION"),
    Case("a continuation that is not final", frame(CONTINUATION, final=False), words="unexpected CONTINUATION"),
    Case(
        "a continuation of a message that has ended",
        frame(TEXT, b"a", final=False) + frame(CONTINUATION, b"b") + frame(CONTINUATION, b"c"),
        (TextMessage("ab"),),
        words="unexpected CONTINUATION",
    ),
    Case(
        "a message between fragments", frame(TEXT, b"a", final=False) + frame(TEXT, b"b"), words="expected CONTINUATION"
    ),
    Case(
        "fragments between fragments",
        frame(BINARY, b"a", final=False) + frame(BINARY, b"b", final=False),
        words="expected CONTINUATION",
    ),
    Case("messages in front", frame(TEXT, b"a") + frame(0x3), (TextMessage("a"),), words="Invalid opcode"),
    Case("a close of one byte", frame(CLOSE, b"\x03"), words="1 byte"),
    *(
        Case(f"a close with the code {code}", close_frame(code), words="CLOSE with")
        for code in (0, 1, 999, 1004, 1016, 1100, 2000, 2999, 5000, 65535)
    ),
    *(
        Case(f"a close with the code {code}", close_frame(code), words="local-only")  # section 7.4.1: never sent
        for code in (1005, 1006, 1015)
    ),
]

COMPRESSED_VIOLATIONS = [
    Case("a compressed ping", frame(PING, deflated(b"?"), reserved=RSV1), words="Reserved bit"),
    Case("a compressed close", frame(CLOSE, b"\x03\xe8", reserved=RSV1), words="Reserved bit"),
    Case("another reserved bit", frame(TEXT, deflated(b"a"), reserved=RSV1 | RSV2), words="Reserved bit"),
    Case(
        "a continuation that is marked as compressed",
        frame(TEXT, first, final=False, reserved=RSV1) + frame(CONTINUATION, second, reserved=RSV1),
        words="Reserved bit",
    ),
]

NOT_UTF8 = {
    "a stray byte": b"a\xffb",
    "a code point cut short": EURO[:2],
    "a surrogate": b"\xed\xa0\x80",
    "an overlong form": b"\xc0\xaf",
    "a code point beyond the last": b"\xf4\x90\x80\x80",
}

BAD_DATA = [
    *(Case(f"{name} in text", frame(TEXT, data)) for name, data in NOT_UTF8.items()),
    *(
        Case(f"{name} in fragments", frame(TEXT, data[:1], final=False) + frame(CONTINUATION, data[1:]))
        for name, data in NOT_UTF8.items()
    ),
    *(Case(f"{name} in a close reason", close_frame(1000, data)) for name, data in NOT_UTF8.items()),
    Case("a code point that the last fragment cuts short", frame(TEXT, EURO[:2], final=False) + frame(CONTINUATION)),
    Case("a message in front", frame(BINARY, b"\xff") + frame(TEXT, b"\xff"), (BinaryMessage(b"\xff"),)),
]

COMPRESSED_BAD_DATA = [
    *(Case(f"compressed {name}", frame(TEXT, deflated(data), reserved=RSV1)) for name, data in NOT_UTF8.items()),
    *(
        Case(
            f"{name} in compressed fragments",
            frame(TEXT, deflated(data)[:3], final=False, reserved=RSV1) + frame(CONTINUATION, deflated(data)[3:]),
        )
        for name, data in NOT_UTF8.items()
    ),
    Case("no blocks of deflate", frame(BINARY, b"\xff" * 8, reserved=RSV1), words="invalid deflate data"),
    Case(
        "no blocks of deflate in fragments",
        frame(BINARY, first, final=False, reserved=RSV1) + frame(CONTINUATION, b"\xff" * 8),
        words="invalid deflate data",
    ),
]

CLOSES = [
    Case("an empty close", frame(CLOSE), received=CloseMessage(1005, "")),
    Case("a code alone", close_frame(1000), received=NORMAL),
    Case("the longest reason", close_frame(1001, b"r" * 123), received=CloseMessage(1001, "r" * 123)),
    Case("a reason beyond ASCII", close_frame(4000, EURO), received=CloseMessage(4000, "€")),
    *(
        Case(f"the code {code}", close_frame(code, b"why"), received=CloseMessage(code, "why"))
        for code in (1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
    ),
    Case("the code 1014 alone", close_frame(1014), received=CloseMessage(1014, "")),
    Case("a message in front", frame(TEXT, b"a") + close_frame(1000), (TextMessage("a"),), received=NORMAL),
    Case("a close between fragments", frame(TEXT, b"a", final=False) + close_frame(1000), received=NORMAL),
    Case("data after the close", close_frame(1000) + frame(TEXT, b"late"), received=NORMAL),
    Case("a second close", close_frame(1000) + close_frame(1001), received=NORMAL),
]


def named(cases: list[Case]) -> list[Case]:
    assert len({case.name for case in cases}) == len(cases)
    return cases


CASES = [
    *named(VALID),
    *(replace(case, name=f"deflate: {case.name}", deflate=True) for case in named(COMPRESSED)),
    *(replace(case, name=f"violation: {case.name}", failure=1002) for case in named(VIOLATIONS)),
    *(
        replace(case, name=f"deflate violation: {case.name}", failure=1002, deflate=True)
        for case in named(COMPRESSED_VIOLATIONS)
    ),
    *(replace(case, name=f"bad data: {case.name}", failure=1007) for case in named(BAD_DATA)),
    *(
        replace(case, name=f"deflate bad data: {case.name}", failure=1007, deflate=True)
        for case in named(COMPRESSED_BAD_DATA)
    ),
    *(replace(case, name=f"close: {case.name}") for case in named(CLOSES)),
]
