"""Messages that are large, in many pieces, or much larger than they look."""

from __future__ import annotations

from typing import Final

from tests.raw_frames import BINARY, CONTINUATION, RSV1, TEXT, close_frame, frame, header
from zapros_websocket import BinaryMessage, TextMessage

from .measure import MEBIBYTE, turns_of_others
from .registry import Group
from .stage import Outcome, Stage, in_words, received, size_of
from .steps import DEFLATE, ENDLESS, Step, answer_close, bomb, echo, pattern, switch, write

SIZES: Final = Group("Sizes")

DEFAULT_LIMIT: Final = 16 * MEBIBYTE
FRAGMENTS: Final = 200_000


async def too_big(stage: Stage, *script: Step, deflate: bool = False) -> Outcome:
    """The connection fails with 1009, and the peer is told."""
    peer = stage.peer(switch(*([DEFLATE] if deflate else [])), *script, answer_close())
    async with turns_of_others() as turns, stage.connect(peer.url, permessage_deflate=deflate) as connection:
        messages, closed = await received(connection)
    assert (messages, closed.code) == ([], 1009)
    assert closed.sent is not None
    assert closed.sent.code == 1009
    assert turns.longest < 3
    seen = await peer.seen()
    # A peer that writes without end may be reset before it reads why.
    assert seen.close_code in (1009, None)
    return Outcome(in_words(messages, closed), str(seen))


for size_name, size in {"8 MiB": 8 * MEBIBYTE, "16 MiB, the limit": DEFAULT_LIMIT}.items():

    async def there_and_back(stage: Stage, size: int = size) -> Outcome:
        peer = stage.peer(switch(), echo())
        async with stage.connect(peer.url) as connection:
            await connection.send(pattern(size))
            message = await connection.recv()
        assert message == BinaryMessage(pattern(size))
        return Outcome(in_words([message]), str(await peer.seen()))

    SIZES.add(f"{size_name}, there and back", there_and_back, seconds=30, mebibytes=40 + 8 * size / MEBIBYTE)


@SIZES.case("64 MiB, there and back, with max_message_size (short form: 20 MiB)", seconds=60, mebibytes=700)
async def very_large(stage: Stage) -> Outcome:
    size = (64 if stage.is_long else 20) * MEBIBYTE
    peer = stage.peer(switch(), echo())
    async with stage.connect(peer.url, max_message_size=size) as connection:
        await connection.send(pattern(size))
        message = await connection.recv()
    assert message == BinaryMessage(pattern(size))
    return Outcome(in_words([message]), str(await peer.seen()))


@SIZES.case("8 MiB of text, compressed, there and back", seconds=60, mebibytes=120)
async def large_compressed(stage: Stage) -> Outcome:
    text = TextMessage(pattern(8 * MEBIBYTE).decode())
    peer = stage.peer(switch(DEFLATE), ["read", 1], bomb(8 * MEBIBYTE), answer_close())
    async with stage.connect(peer.url, permessage_deflate=True) as connection:
        await connection.send(text)
        message = await connection.recv()
    assert size_of(message) == 8 * MEBIBYTE
    seen = await peer.seen()
    assert seen.frames[0].reserved == RSV1
    assert seen.frames[0].length < MEBIBYTE
    return Outcome(in_words([message]), str(seen))


@SIZES.case("a message of one byte more than the limit")
async def one_more(stage: Stage) -> Outcome:
    return await too_big(stage, write(header(BINARY, DEFAULT_LIMIT + 1)))


@SIZES.case("fragments that are over the limit together", seconds=30, mebibytes=80)
async def fragments_over_the_limit(stage: Stage) -> Outcome:
    piece = frame(CONTINUATION, bytes(65536), final=False)
    first = write(frame(BINARY, b"", final=False))
    return await too_big(stage, first, write(piece, times=DEFAULT_LIMIT // 65536), write(frame(CONTINUATION, b"x")))


@SIZES.case("fragments without end", seconds=30, mebibytes=80)
async def endless_fragments(stage: Stage) -> Outcome:
    first = write(frame(BINARY, b"", final=False))
    outcome = await too_big(stage, first, write(frame(CONTINUATION, bytes(65536), final=False), times=ENDLESS))
    return Outcome(outcome.caller, "a close frame with 1009, if it reads")


@SIZES.case("empty fragments without end", seconds=20)
async def empty_fragments(stage: Stage) -> Outcome:
    # There is no message in them and no violation: it is the caller's own deadline that ends this.
    peer = stage.peer(
        switch(), write(frame(TEXT, b"", final=False)), write(frame(CONTINUATION, b"", final=False), times=ENDLESS)
    )
    async with turns_of_others() as turns, stage.connect(peer.url, close_timeout=0.4) as connection:
        assert await connection.recv_within(1) is None
    assert turns.longest < 3
    await peer.seen()
    return Outcome("nothing, until a deadline of its own", "close 1000, FIN or RST")


@SIZES.case("200,000 fragments of one byte", seconds=60)
async def many_fragments(stage: Stage) -> Outcome:
    peer = stage.peer(
        switch(),
        write(frame(BINARY, b"x", final=False)),
        write(frame(CONTINUATION, b"x", final=False), times=FRAGMENTS - 2),
        write(frame(CONTINUATION, b"x") + close_frame(1000)),
        answer_close(),
    )
    async with turns_of_others() as turns, stage.connect(peer.url) as connection:
        messages, closed = await received(connection)
    assert [size_of(message) for message in messages[:-1]] == [FRAGMENTS]
    assert turns.longest < 3
    return Outcome(in_words(messages, closed), str(await peer.seen()))


for bomb_name, bomb_size, bomb_fragment in (
    ("a deflate bomb of 256 MiB in one frame", 256 * MEBIBYTE, 0),
    ("a deflate bomb of 256 MiB in fragments of 1000 bytes", 256 * MEBIBYTE, 1000),
    ("a deflate bomb of 32 MiB in fragments of one byte", 32 * MEBIBYTE, 1),
):

    async def bombed(stage: Stage, size: int = bomb_size, fragment: int = bomb_fragment) -> Outcome:
        return await too_big(stage, bomb(size, fragment=fragment), deflate=True)

    SIZES.add(bomb_name, bombed, seconds=30, mebibytes=80)


@SIZES.case("a header dripped byte by byte", seconds=10)
async def dripped_header(stage: Stage) -> Outcome:
    wire = frame(BINARY, bytes(65536))
    script = [write(wire[place : place + 1], pause=0.005) for place in range(12)]
    peer = stage.peer(switch(), *script, write(wire[12:] + close_frame(1000)), answer_close())
    async with stage.connect(peer.url) as connection:
        messages, closed = await received(connection)
    assert messages[0] == BinaryMessage(bytes(65536))
    return Outcome(in_words(messages, closed), str(await peer.seen()))
