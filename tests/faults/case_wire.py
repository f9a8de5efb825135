"""The table of RFC 6455, sections 5 and 7, that the protocol half is held to, once more over a network."""

from __future__ import annotations

from typing import Final

import pytest

from tests.protocol.cases import CASES as WIRE
from tests.protocol.cases import Case as WireCase
from tests.raw_frames import CONTINUATION, PING, PONG, TEXT, close_frame, frame, header
from zapros_websocket import CloseMessage, ConnectionClosed

from .registry import Group
from .stage import Outcome, Stage, in_words, received
from .steps import DEFLATE, answer_close, fin, rst, switch, write

NORMAL: Final = CloseMessage(1000, "")

MESSAGES: Final = Group("What may be on the wire")
VIOLATIONS: Final = Group("What may not be on the wire")
CLOSES: Final = Group("Close frames of the peer")
ENDS: Final = Group("The end of TCP")


async def play(stage: Stage, wire: WireCase) -> Outcome:
    """The messages come out, and then the close or the failure that it is."""
    is_over = wire.received is not None or wire.failure is not None
    last_words = b"" if is_over else close_frame(1000)
    peer = stage.peer(switch(*([DEFLATE] if wire.deflate else [])), write(wire.wire + last_words), answer_close())
    async with stage.connect(peer.url, permessage_deflate=wire.deflate) as connection:
        messages, closed = await received(connection)
    seen = await peer.seen()
    expected = [*wire.messages, *([] if wire.failure is not None else [wire.received or NORMAL])]
    assert messages == expected
    if wire.failure is not None:
        assert (closed.code, seen.close_code, closed.received) == (wire.failure, wire.failure, None)
        assert closed.reason
    else:
        assert (closed.code, seen.close_code) == (int((wire.received or NORMAL).code),) * 2
    return Outcome(in_words(messages, closed), str(seen))


for wire_case in WIRE:

    async def play_wire(stage: Stage, wire: WireCase = wire_case) -> Outcome:
        return await play(stage, wire)

    if wire_case.received is not None:
        CLOSES.add(wire_case.name.removeprefix("close: "), play_wire)
    elif wire_case.failure is not None:
        VIOLATIONS.add(wire_case.name, play_wire)
    else:
        MESSAGES.add(wire_case.name, play_wire)


@VIOLATIONS.case("a declared length of 2^62")
async def declared_length(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), write(header(0x2, 1 << 62, form=8) + bytes(1000)), answer_close())
    async with stage.connect(peer.url) as connection:
        messages, closed = await received(connection)
    seen = await peer.seen()
    assert (closed.code, seen.close_code) == (1009, 1009)
    return Outcome(in_words(messages, closed), str(seen))


@CLOSES.case("a ping, data and a close behind the close")
async def behind_the_close(stage: Stage) -> Outcome:
    behind = frame(PING, b"?") + frame(TEXT, b"late") + close_frame(1001)
    peer = stage.peer(switch(), write(close_frame(4000, b"over") + behind), answer_close())
    async with stage.connect(peer.url) as connection:
        messages, closed = await received(connection)
        for _ in range(3):
            again, still = await received(connection)
            assert (again, still.code) == ([], 4000)
    seen = await peer.seen()
    assert messages == [CloseMessage(4000, "over")]
    assert seen.close_code == 4000
    assert not seen.of(PONG)
    return Outcome(in_words(messages, closed), str(seen))


# How TCP ends, and where

_PLACES: Final = {
    "between messages": frame(TEXT, b"whole"),
    "in a header": frame(TEXT, b"whole") + header(0x2, 70_000)[:5],
    "in a payload": frame(TEXT, b"whole") + header(TEXT, 1000) + b"x" * 500,
    "between fragments": frame(TEXT, b"whole")
    + frame(TEXT, b"a", final=False)
    + frame(CONTINUATION, b"b", final=False),
    "in a ping": frame(TEXT, b"whole") + header(PING, 100) + b"x" * 50,
    "in a close frame": frame(TEXT, b"whole") + close_frame(1000, b"reason")[:4],
}
for end_name, end in {"FIN": fin(), "RST": rst()}.items():
    for place_name, data in _PLACES.items():

        async def breaks_off(stage: Stage, data: bytes = data, end: list[object] = end) -> Outcome:
            # The whole message is received before the connection is broken off: a reset may overtake what is unread.
            peer = stage.peer(switch(), write(data), ["read", 1], end)
            async with stage.connect(peer.url) as connection:
                first = await connection.recv()
                await connection.send("go on")
                messages, closed = await received(connection)
            seen = await peer.seen()
            assert messages == []
            assert (closed.code, closed.received, closed.sent) == (1006, None, None)
            assert seen.close_code is None
            return Outcome(in_words([first], closed), str(seen))

        ENDS.add(f"{end_name} {place_name}", breaks_off)


@ENDS.case("FIN, and the peer still reads")
async def half_closed(stage: Stage) -> Outcome:
    peer = stage.peer(switch(), fin())
    async with stage.connect(peer.url) as connection:
        messages, closed = await received(connection)
        with pytest.raises(ConnectionClosed) as refused:
            await connection.send("too late")
        assert refused.value.code == 1006
    seen = await peer.seen()
    assert not seen.frames
    return Outcome(in_words(messages, closed), str(seen))
