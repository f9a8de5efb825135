"""``zapros-ws demo``: what the library does, shown on this machine alone.

The demonstration checks what it shows: it fails when something else comes back than should. What a peer wrote is
printed escaped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from http import HTTPStatus
from random import Random
from textwrap import fill
from time import perf_counter

import trio

from .. import (
    AsyncWebSocket,
    BinaryMessage,
    CloseCode,
    CloseMessage,
    ConnectionClosed,
    HandshakeError,
    Message,
    TextMessage,
    aconnect_ws,
)


class DemoError(Exception):
    """Something else came back than should."""


async def demo() -> None:
    """Print a transcript of everything that a connection can do, over a server on loopback."""
    from ..testing import echo_server  # only here: all else works without wsproto

    with trio.fail_after(60):
        async with echo_server(subprotocols=["v2.demo", "v1.demo"], headers=[("X-Demo", "hello")]) as server:
            show("server", f"{server.url}, on trio {trio.__version__}")
            offered = ["v3.demo", "v2.demo"]
            async with aconnect_ws(server.url, subprotocols=offered, permessage_deflate=True) as ws:
                show_handshake(ws, offered)
                await show_text(ws)
                await show_binary(ws)
                show("ping", f"answered after {await ws.ping() * 1000:.2f} ms")
                before = server.traffic.received
                size = await exchange_compressible_text(ws)
                show_saving(size, server.traffic.received - before)
                await show_own_close(ws)
            await show_iteration(f"{server.url}count/5")
            await show_close_of_the_peer(f"{server.url}close/1001/restarting%20at%20noon")
            await show_refusal(f"{server.url}status/403")


def show_handshake(ws: AsyncWebSocket, offered: Sequence[str]) -> None:
    """What both sides agreed to."""
    status = ws.response.status
    show("handshake", f"{status} {HTTPStatus(status).phrase}")
    for name, value in ws.response.headers.items():
        show("", f"{name}: {value!r}")
    check(ws.subprotocol in offered, f"the server chose the subprotocol {ws.subprotocol!r}")
    show("subprotocol", f"{ws.subprotocol!r}, of {offered} offered")
    check(ws.permessage_deflate is not None, "the server left permessage-deflate out")
    show("extension", f"{ws.permessage_deflate!r}")


async def show_text(ws: AsyncWebSocket) -> None:
    """A text message."""
    text = "Hello, WebSocket!"
    await ws.send(text)
    message = await ws.recv()
    check(message == TextMessage(text), f"the text came back as {message!r}")
    show("text", f"sent {text!r}, received {message!r}")


async def show_binary(ws: AsyncWebSocket) -> None:
    """A binary message that takes many packets, and that nothing can compress."""
    data = Random(6455).randbytes(1024 * 1024)  # noqa: S311 (nothing secret about it)
    started = perf_counter()
    await ws.send(BinaryMessage(data))
    message = await ws.recv()
    milliseconds = (perf_counter() - started) * 1000
    digest = sha256(data).hexdigest()
    same = isinstance(message, BinaryMessage) and sha256(message.data).hexdigest() == digest
    check(same, "the binary message came back changed")
    show("binary", f"{len(data):,} bytes there and back in {milliseconds:.1f} ms, sha256 equal: {digest[:16]}...")


async def exchange_compressible_text(ws: AsyncWebSocket) -> int:
    """A text message that compresses well; its size in bytes."""
    text = json.dumps([{"id": number, "symbol": "ZPRS", "price": 100 + number / 4} for number in range(2000)])
    await ws.send(text)
    check(await ws.recv() == TextMessage(text), "the compressed message came back changed")
    return len(text.encode())


def show_saving(size: int, on_the_wire: int) -> None:
    """What compression saved, as the server counted it."""
    check(on_the_wire < size, "compression saved nothing")
    saved = size - on_the_wire
    show("compression", f"{size:,} bytes of JSON took {on_the_wire:,} on the wire: {saved:,} saved, {saved / size:.1%}")


async def show_own_close(ws: AsyncWebSocket) -> None:
    """A close of ours."""
    code, reason = CloseCode.GOING_AWAY, "the demo moves on"
    await ws.close(code, reason)
    check((ws.close_code, ws.close_reason) == (code, reason), f"the close was answered with {ws.close_code}")
    show("our close", f"sent {int(code)} {reason!r}, answered with {ws.close_code} {ws.close_reason!r}")


async def show_iteration(url: str) -> None:
    """Iteration, which ends when the peer closes."""
    async with aconnect_ws(url) as ws:
        messages = [message async for message in ws]
        check(messages == [TextMessage(str(number)) for number in range(1, 6)], f"counting gave {messages!r}")
        received = ", ".join(repr(message.data) for message in messages if isinstance(message, TextMessage))
        show("iteration", f"received {received}; then {ws.close_code} {ws.close_reason!r} ended the loop")


async def show_close_of_the_peer(url: str) -> None:
    """A close of the peer: received once as a message, an error from then on."""
    async with aconnect_ws(url) as ws:
        message = await message_or_end(ws)
        check(isinstance(message, CloseMessage), f"instead of a close came {message!r}")
        show("their close", f"recv() returns {message!r}")
        end = await message_or_end(ws)
        check(isinstance(end, ConnectionClosed), f"after the close came {end!r}")
        show("", f"recv() raises ConnectionClosed: {end}")


async def message_or_end(ws: AsyncWebSocket) -> Message | ConnectionClosed:
    """What ``recv`` returns or raises."""
    try:
        return await ws.recv()
    except ConnectionClosed as error:
        return error


async def show_refusal(url: str) -> None:
    """A handshake that is not answered with a 101."""
    try:
        async with aconnect_ws(url):
            raise DemoError("the handshake was to be refused")
    except HandshakeError as error:
        show("refused", f"HandshakeError: {error}")
        show("", f"body: {error.response and error.response.text!r}")


def check(holds: bool, complaint: str) -> None:
    """End the demonstration with a complaint, unless what should hold does."""
    if not holds:
        raise DemoError(complaint)


def show(label: str, text: str) -> None:
    """One entry of the transcript: a label, and the text beside it."""
    margin = 13
    print(fill(text, 110, initial_indent=label.ljust(margin), subsequent_indent=" " * margin))
