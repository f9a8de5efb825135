"""Answers to the handshake: late, endless, wrong, partial, and refusals of every kind."""

from __future__ import annotations

from typing import Final

import pytest
import zapros

from zapros_websocket import HandshakeError, HandshakeTimeoutError

from .registry import Group
from .stage import Outcome, Stage, error_in_words, in_words, received
from .steps import DEFLATE, ENDLESS, Step, answer, answer_close, begin, drip, fin, rst, stay, switch, write
from .surfaces import Options

HANDSHAKES: Final = Group("Handshakes")

HELLO_AND_WORLD: Final = b"\x81\x05hello\x82\x05world"
BYE: Final = b"\x88\x05\x03\xe9bye"
ACCEPTED: Final = (
    "HTTP/1.1 101 Switching Protocols",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Accept: {accept}",
)


async def fails(
    stage: Stage,
    *script: Step,
    error: type[zapros.ZaprosError],
    status: int | None = None,
    options: Options | None = None,
    tls: bool | None = None,
    scheme: str = "",
) -> Outcome:
    """Connecting fails with ``error``, and leaves nothing behind: the peer sees the connection end."""
    peer = stage.peer(*script, tls=tls, scheme=scheme)
    with pytest.raises(error) as caught:
        async with stage.connect(peer.url, **(options or {})):
            pytest.fail("this is no valid answer")
    if status is not None:
        assert isinstance(caught.value, HandshakeError)
        assert caught.value.response is not None
        assert caught.value.response.status == status
    if scheme:
        return Outcome(error_in_words(caught.value), "no request")
    seen = await peer.seen()
    assert not seen.frames
    return Outcome(error_in_words(caught.value), str(seen))


# Slow ones

for slow_name, slow_script in {
    "silence": [stay()],
    "half a status line, then silence": [begin("HTTP/1.1 101 Swi"), stay()],
    "a byte every 0.1 s": [drip(*ACCEPTED, *["X: y"] * 200, pause=0.1), stay()],
    "a header line every 0.1 s, without end": [
        begin("HTTP/1.1 101 Switching Protocols\r\n"),
        write(b"X: y\r\n", times=ENDLESS, pause=0.1),
    ],
    "an informational answer every 0.1 s, without end": [
        write(b"HTTP/1.1 103 Early Hints\r\n\r\n", times=ENDLESS, pause=0.1)
    ],
}.items():

    async def late(stage: Stage, script: list[Step] = slow_script) -> Outcome:
        return await fails(stage, *script, error=HandshakeTimeoutError, options=stage.short(open_timeout=0.4))

    HANDSHAKES.add(slow_name, late, seconds=5, patience=18)


@HANDSHAKES.case("silence instead of TLS", seconds=5)
async def silence_instead_of_tls(stage: Stage) -> Outcome:
    return await fails(
        stage, stay(), error=HandshakeTimeoutError, options=stage.short(open_timeout=0.4), tls=False, scheme="wss"
    )


@HANDSHAKES.case("a valid answer, byte by byte")
async def slow_but_valid(stage: Stage) -> Outcome:
    return await opens(stage, drip(*ACCEPTED, pause=0.001))


async def opens(stage: Stage, *script: Step, options: Options | None = None, messages: int = 0) -> Outcome:
    """Connecting succeeds, and the messages that came early are received."""
    peer = stage.peer(*script, answer_close())
    async with stage.connect(peer.url, **(options or {})) as connection:
        got = [await connection.recv() for _ in range(messages)]
    seen = await peer.seen()
    assert seen.close_code == 1000
    return Outcome(in_words(got) or "an open connection", str(seen))


for flood_name, flood in {
    "header lines without end": write(b"X: y\r\n" * 100, times=ENDLESS),
    "one header line without end": write(b"X" * 1000, times=ENDLESS),
    "a status line without end": write(b"HTTP/1.1 200 " + b"O" * 1000, times=ENDLESS),
    "no HTTP": write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
    "zeros without end": write(bytes(1000), times=ENDLESS),
}.items():

    async def no_answer(stage: Stage, script: Step = flood) -> Outcome:
        lead = [begin("HTTP/1.1 200 OK\r\n")] if bytes.fromhex(str(script[1])).startswith(b"X") else []
        return await fails(stage, *lead, script, error=HandshakeError)

    HANDSHAKES.add(flood_name, no_answer)


@HANDSHAKES.case("informational answers without end")
async def informational_flood(stage: Stage) -> Outcome:
    return await fails(
        stage,
        write(b"HTTP/1.1 103 Early Hints\r\n\r\n", times=ENDLESS),
        error=HandshakeTimeoutError,
        options=stage.short(open_timeout=0.4),
    )


for end_name, end in {"FIN": fin(), "RST": rst()}.items():
    for place_name, before in {
        "instead of an answer": [],
        "in the status line": [begin("HTTP/1.1 101 Swi")],
        "in the headers": [begin("HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso")],
    }.items():

        async def broken_off(stage: Stage, script: tuple[Step, ...] = (*before, end)) -> Outcome:
            return await fails(stage, *script, error=zapros.ZaprosError)

        HANDSHAKES.add(f"{end_name} {place_name}", broken_off)

# Wrong ones: the answer is a 101, and something is not as RFC 6455 wants it.

_OTHERS: Final = {
    "Upgrade": ACCEPTED[1],
    "Connection": ACCEPTED[2],
    "Sec-WebSocket-Accept": ACCEPTED[3],
}
WRONG: Final[dict[str, list[str]]] = {
    **{f"a 101 without {name}": [line for other, line in _OTHERS.items() if other != name] for name in _OTHERS},
    "a 101 without any of them": [],
    "Upgrade: h2c": ["Upgrade: h2c", *ACCEPTED[2:]],
    "Connection: close": [ACCEPTED[1], "Connection: close", ACCEPTED[3]],
    "the Accept of another key": [*ACCEPTED[1:3], "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="],
    "an empty Accept": [*ACCEPTED[1:3], "Sec-WebSocket-Accept: "],
    "Accept twice": [*ACCEPTED[1:], ACCEPTED[3]],
    "Accept in capitals": [*ACCEPTED[1:3], "Sec-WebSocket-Accept: {accept}".upper()],
    "a subprotocol that was not offered": [*ACCEPTED[1:], "Sec-WebSocket-Protocol: surprise"],
    "two subprotocols": [*ACCEPTED[1:], "Sec-WebSocket-Protocol: chat, chat"],
    "an extension that was not offered": [*ACCEPTED[1:], "Sec-WebSocket-Extensions: x-surprise"],
    **{
        f"deflate with {parameters}": [*ACCEPTED[1:], f"{DEFLATE}; {parameters}"]
        for parameters in (
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits",
            "server_max_window_bits=08",
            "client_max_window_bits=ten",
            "server_no_context_takeover=1",
            "server_no_context_takeover; server_no_context_takeover",
            "surprise",
        )
    },
    "deflate twice": [*ACCEPTED[1:], f"{DEFLATE}, permessage-deflate"],
}

for wrong_name, wrong_lines in WRONG.items():

    async def wrong(stage: Stage, lines: list[str] = wrong_lines, name: str = wrong_name) -> Outcome:
        options: Options = {"subprotocols": ["chat"], "permessage_deflate": True}
        return await fails(
            stage, answer(ACCEPTED[0], *lines), stay(), error=HandshakeError, status=101, options=options
        )

    HANDSHAKES.add(wrong_name, wrong)


@HANDSHAKES.case("deflate that was not offered")
async def deflate_not_offered(stage: Stage) -> Outcome:
    return await fails(stage, switch(DEFLATE), stay(), error=HandshakeError, status=101)


@HANDSHAKES.case("a header with a zero byte")
async def zero_byte(stage: Stage) -> Outcome:
    return await fails(stage, switch("X: a\0b"), stay(), error=HandshakeError)


# Refusals

LARGE_BODY: Final = b"x" * 10240
for status in (200, 401, 403, 404, 426, 500):
    for body_name, (body_lines, body_steps) in {
        "without a body": (["Content-Length: 0"], [write(b"")]),
        "with 10 KiB": (["Content-Length: 10240"], [write(LARGE_BODY)]),
        "with a body without end": (["Connection: close"], [write(b"x" * 1000, times=ENDLESS)]),
    }.items():

        async def refusal(
            stage: Stage, status: int = status, lines: list[str] = body_lines, steps: list[Step] = body_steps
        ) -> Outcome:
            return await fails(
                stage, answer(f"HTTP/1.1 {status} Because", *lines), *steps, stay(), error=HandshakeError, status=status
            )

        HANDSHAKES.add(f"{status} {body_name}", refusal)


@HANDSHAKES.case("403 with a body that stalls", seconds=8)
async def stalled_body(stage: Stage) -> Outcome:
    script = [answer("HTTP/1.1 403 Because", "Content-Length: 1000", body=b"x" * 100), stay()]
    return await fails(stage, *script, error=HandshakeError, status=403)


@HANDSHAKES.case("403 with a byte of body every 0.05 s", seconds=8)
async def dripping_body(stage: Stage) -> Outcome:
    script = [answer("HTTP/1.1 403 Because"), write(b"x", times=ENDLESS, pause=0.05)]
    outcome = await fails(stage, *script, error=HandshakeError, status=403)
    return Outcome("HandshakeError, status 403 with what came in 2 s", outcome.peer)


# Valid ones

for valid_name, valid_script in {
    "frames in the segment of the 101": switch(frames=HELLO_AND_WORLD),
    "lower case, and spaces": answer(
        "HTTP/1.1 101",
        "upgrade:  WebSocket ",
        "connection: keep-alive, UPGRADE",
        "sec-websocket-accept:   {accept}  ",
        body=HELLO_AND_WORLD,
    ),
    "early hints in front": answer(
        "HTTP/1.1 103 Early Hints", "Link: </style.css>; rel=preload", "", *ACCEPTED, body=HELLO_AND_WORLD
    ),
}.items():

    async def valid(stage: Stage, script: Step = valid_script) -> Outcome:
        return await opens(stage, script, messages=2)

    HANDSHAKES.add(valid_name, valid)


@HANDSHAKES.case("a close frame in the segment of the 101")
async def early_close(stage: Stage) -> Outcome:
    peer = stage.peer(switch(frames=HELLO_AND_WORLD + BYE), answer_close())
    async with stage.connect(peer.url) as connection:
        messages, closed = await received(connection)
    seen = await peer.seen()
    assert (closed.code, seen.close_code) == (1001, 1001)
    return Outcome(in_words(messages, closed), str(seen))
