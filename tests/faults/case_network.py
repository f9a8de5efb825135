"""A network that misbehaves, between the client and servers that do not: plain, and with TLS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import zapros

from zapros_websocket import BinaryMessage, ConnectionClosed, Message, TextMessage

from .proxy import Plan
from .registry import Group
from .stage import Outcome, Stage, error_in_words, in_words
from .steps import pattern
from .surfaces import Options

NETWORK: Final = Group("The network")
SECURE_NETWORK: Final = Group("The network, with TLS")

TALK: Final[list[Message]] = [TextMessage("hello"), BinaryMessage(bytes(range(200))), TextMessage("ä€😀" * 100)]
# What comes down from the server for that: the head of the 101, and some 1,300 bytes of frames. With TLS more.
TALK_BYTES: Final = 1800
SECURE_TALK_BYTES: Final = 6000


async def talk(stage: Stage, port: int, *, tls: bool, messages: list[Message] = TALK, **options: float | None) -> str:
    """Say something and hear it again, until it is over: what came of it, in words."""
    url = f"{'wss' if tls else 'ws'}://127.0.0.1:{port}/echo"
    heard: list[Message] = []
    wanted: Options = {"close_timeout": 2.0}
    wanted.update(options)  # type: ignore[typeddict-item]
    error: zapros.ZaprosError | None = None
    try:
        async with stage.connect(url, **wanted) as connection:
            for message in messages:
                await connection.send(message)
                heard.append(await connection.recv())
    except zapros.ZaprosError as caught:
        error = caught
    if error is None:
        assert heard == messages
        return in_words(heard)
    # Whatever was heard was said.
    assert heard == messages[: len(heard)]
    if isinstance(error, ConnectionClosed):
        assert error.code in (1006, 1011)
        return error_in_words(error)
    assert not heard
    return "an error of the handshake"


def both(
    name: str, **bounds: float
) -> Callable[[Callable[[Stage, int, bool], Awaitable[Outcome]]], Callable[[Stage, int, bool], Awaitable[Outcome]]]:
    """Add the decorated function as a case of the plain network and of that with TLS."""

    def add(play: Callable[[Stage, int, bool], Awaitable[Outcome]]) -> Callable[[Stage, int, bool], Awaitable[Outcome]]:
        for group, tls in ((NETWORK, False), (SECURE_NETWORK, True)):

            async def play_it(stage: Stage, tls: bool = tls) -> Outcome:
                return await play(stage, stage.world.server(tls=tls).port, tls)

            group.add(name, play_it, seconds=bounds.get("seconds", 20), mebibytes=bounds.get("mebibytes", 32))
        return play

    return add


PASSES: Final = {
    "byte by byte": Plan(piece=1),
    "in pieces of 7 bytes": Plan(piece=7),
    "all of 20 ms at once": Plan(gather=0.02),
    "a stall of 0.3 s in the handshake": Plan(at=50, then="stall", seconds=0.3),
    "a stall of 0.3 s in a frame": Plan(at=600, then="stall", seconds=0.3),
}
for pass_name, plan in PASSES.items():

    @both(pass_name)
    async def passes(stage: Stage, port: int, tls: bool, plan: Plan = plan) -> Outcome:
        with stage.line(up=plan, down=plan, to=port) as line:
            words = await talk(stage, line, tls=tls)
        assert words == in_words(TALK)
        return Outcome(words, "the same")


@both("100 kB a second", seconds=20)
async def slow(stage: Stage, port: int, tls: bool) -> Outcome:
    plan = Plan(piece=2000, pause=0.02)
    with stage.line(up=plan, down=plan, to=port) as line:
        words = await talk(stage, line, tls=tls, messages=[BinaryMessage(pattern(50_000))])
    assert words == "binary"
    return Outcome(words, "the same")


@both("cut in two at every byte", seconds=60)
async def cut_anywhere(stage: Stage, port: int, tls: bool) -> Outcome:
    # Each connection of its own is cut at one place; in the short form at some places, and at others the next time.
    end = SECURE_TALK_BYTES if tls else TALK_BYTES
    step = 1 if stage.is_long else 67
    for at in range(1, end, step):
        with stage.line(down=Plan(at=at, then="stall", seconds=0.005), to=port) as line:
            assert await talk(stage, line, tls=tls) == in_words(TALK)
    return Outcome(in_words(TALK), "the same")


for broken_name, broken in {"FIN": "fin", "RST": "rst"}.items():

    @both(f"{broken_name} at every byte", seconds=120)
    async def breaks_anywhere(stage: Stage, port: int, tls: bool, then: str = broken) -> Outcome:
        end = SECURE_TALK_BYTES if tls else TALK_BYTES
        step = 1 if stage.is_long else 67
        ends: Counter[str] = Counter()
        for at in range(1, end, step):
            with stage.line(down=Plan(at=at, then=then), to=port) as line:
                ends[await talk(stage, line, tls=tls)] += 1
        # In the handshake, in the messages, and behind all that was said.
        assert {"an error of the handshake", "ConnectionClosed 1006"} <= set(ends)
        assert set(ends) <= {"an error of the handshake", "ConnectionClosed 1006", in_words(TALK)}
        return Outcome("an error of the handshake, or ConnectionClosed 1006 behind a prefix", "an end of TCP")


@both("the client's half of TCP ends at every byte", seconds=120)
async def half_closed(stage: Stage, port: int, tls: bool) -> Outcome:
    ends: Counter[str] = Counter()
    for at in range(1, 1500, 1 if stage.is_long else 97):
        with stage.line(up=Plan(at=at, then="fin"), to=port) as line:
            ends[await talk(stage, line, tls=tls, open_timeout=2.0, close_timeout=0.5)] += 1
    assert set(ends) <= {"an error of the handshake", "ConnectionClosed 1006", in_words(TALK)}
    return Outcome("an error of the handshake, or ConnectionClosed 1006 behind a prefix", "an end of TCP")


@both("all is dropped in silence from some byte on", seconds=30)
async def dropped(stage: Stage, port: int, tls: bool) -> Outcome:
    # Plain: in the handshake, in a frame, behind the frames. With TLS the second may be anything.
    for at in (50, 5000 if tls else 600):
        plan = Plan(at=at, then="drop")
        with stage.line(up=plan, down=plan, to=port) as line:
            words = await talk(
                stage,
                line,
                tls=tls,
                messages=[*TALK, BinaryMessage(pattern(20_000)), TextMessage("lost")],
                open_timeout=0.5,
                ping_interval=0.2,
                ping_timeout=0.3,
                close_timeout=0.3,
            )
        assert words == ("an error of the handshake" if at == 50 else "ConnectionClosed 1011")
    return Outcome("HandshakeTimeoutError, or ConnectionClosed 1011 when keepalive finds it", "nothing more")
