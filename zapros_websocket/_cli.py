"""``python -m zapros_websocket``: a demonstration of everything that the library does, on this machine alone."""

from __future__ import annotations

import json
import platform
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from hashlib import sha256
from http import HTTPStatus
from importlib import metadata
from random import Random
from time import perf_counter

import trio

from . import (
    AsyncWebSocket,
    BinaryMessage,
    CloseCode,
    CloseMessage,
    ConnectionClosed,
    HandshakeError,
    TextMessage,
    aconnect_ws,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of the process, and return its exit status."""
    parser = ArgumentParser(
        prog="python -m zapros_websocket",
        description="A WebSocket client on top of the Zapros HTTP client.",
    )
    parser.add_argument("--version", action="version", version=versions())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    commands.add_parser("demo", help="start a server on loopback, talk to it, and show what goes on")
    command: str | None = parser.parse_args(arguments).command
    if command is None:
        parser.print_help()
        return 0
    try:
        trio.run(demo)
    except Exception as error:
        print(f"the demo failed: {error!r}", file=sys.stderr)
        return 1
    return 0


def versions() -> str:
    """This library, and all that its behaviour depends on."""
    beneath = ", ".join(f"{name} {version(name)}" for name in ("zapros", "wsproto", "anyio", "trio"))
    return f"zapros_websocket {version('zapros-websocket')} ({beneath}, Python {platform.python_version()})"


def version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "(not installed)"


class DemoError(Exception):
    """What came back is not what should have."""


async def demo() -> None:
    from .testing import echo_server  # needs wsproto, and nothing but the demo does

    with trio.fail_after(60):
        async with echo_server(subprotocols=["v2.demo", "v1.demo"], headers=[("X-Demo", "hello")]) as server:
            show("server", f"{server.url} on trio {trio.__version__}, nothing leaves this machine")
            offered = ["v3.demo", "v2.demo"]
            async with aconnect_ws(server.url, subprotocols=offered, permessage_deflate=True) as ws:
                show_handshake(ws, offered)
                await show_text(ws)
                await show_binary(ws)
                await show_ping(ws)
                before = server.traffic.received
                text = await exchange_compressible_text(ws)
                show_saving(len(text.encode()), server.traffic.received - before)
                await show_own_close(ws)
            await show_iteration(f"{server.url}count/5")
            await show_close_of_the_peer(f"{server.url}close/1001/restarting%20at%20noon")
            await show_refusal(f"{server.url}status/403")


def show_handshake(ws: AsyncWebSocket, offered: Sequence[str]) -> None:
    status = ws.response.status
    show("handshake", f"{status} {HTTPStatus(status).phrase}")
    for name, value in ws.response.headers.items():
        show("", f"{name}: {value!r}")
    show("subprotocol", f"{ws.subprotocol!r}, of {offered!r} offered")
    show("extension", f"{ws.permessage_deflate!r}")


async def show_text(ws: AsyncWebSocket) -> None:
    await ws.send("Hello, WebSocket!")
    message = await ws.recv()
    check(message == TextMessage("Hello, WebSocket!"), f"the text came back as {message!r}")
    show("text", f"{message!r} came back")


async def show_binary(ws: AsyncWebSocket) -> None:
    data = Random(6455).randbytes(1024 * 1024)  # noqa: S311 (not for cryptography)
    started = perf_counter()
    await ws.send(BinaryMessage(data))
    message = await ws.recv()
    elapsed = perf_counter() - started
    digest = sha256(data).hexdigest()
    same = isinstance(message, BinaryMessage) and sha256(message.data).hexdigest() == digest
    check(same, "the binary message came back changed")
    show("binary", f"{len(data):,} bytes out and back in {elapsed * 1000:.1f} ms, sha256 equal: {digest[:16]}...")


async def show_ping(ws: AsyncWebSocket) -> None:
    show("ping", f"answered after {await ws.ping() * 1000:.2f} ms")


async def exchange_compressible_text(ws: AsyncWebSocket) -> str:
    text = json.dumps([{"id": i, "symbol": "ZPRS", "price": 100 + i / 4} for i in range(2000)])
    await ws.send(text)
    check(await ws.recv() == TextMessage(text), "the compressed text came back changed")
    return text


def show_saving(size: int, on_the_wire: int) -> None:
    saved = size - on_the_wire
    show("compression", f"{size:,} bytes of JSON took {on_the_wire:,} on the wire: {saved / size:.1%} saved")


async def show_own_close(ws: AsyncWebSocket) -> None:
    await ws.close(CloseCode.GOING_AWAY, "the demo moves on")
    check(ws.close_code == CloseCode.GOING_AWAY, f"the close was answered with {ws.close_code}")
    show("our close", f"sent 1001 'the demo moves on', answered with {ws.close_code} {ws.close_reason!r}")


async def show_iteration(url: str) -> None:
    async with aconnect_ws(url) as ws:
        counted = [message async for message in ws]
        show("iteration", f"{', '.join(repr(message.data) for message in counted)}, then the peer closed")


async def show_close_of_the_peer(url: str) -> None:
    async with aconnect_ws(url) as ws:
        message = await ws.recv()
        check(isinstance(message, CloseMessage), f"instead of a close came {message!r}")
        show("their close", f"recv() -> {message!r}")
        try:
            await ws.recv()
        except ConnectionClosed as error:
            show("", f"recv() -> ConnectionClosed({int(error.code)}, {error.reason!r}), clean: {error.clean}")
            return


async def show_refusal(url: str) -> None:
    try:
        async with aconnect_ws(url):
            raise DemoError("a handshake that must be refused was accepted")
    except HandshakeError as error:
        response = error.response
        check(response is not None, "the refusal carries no response")
        show("refused", f"HandshakeError: {error}")


def check(holds: bool, complaint: str) -> None:
    if not holds:
        raise DemoError(complaint)


def show(label: str, text: str) -> None:
    print(f"{label:<12} {text}")
