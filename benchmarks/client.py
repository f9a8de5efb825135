"""One client, one workload, one process: prints the CPU seconds that each message cost.

Defaults of each library, but for compression off and size limits lifted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio


class Socket(Protocol):
    def send(self, message: bytes, /) -> Awaitable[object]: ...
    def recv(self) -> Awaitable[object]: ...


Measure = Callable[[Socket], Awaitable[None]]


async def ours(url: str, measure: Measure) -> None:
    from zapros_websocket import aconnect_ws

    async with aconnect_ws(url, max_message_size=1 << 30) as ws:
        await measure(ws)


async def zapros_own(url: str, measure: Measure) -> None:
    from zapros.websocket import BinaryMessage, aconnect_ws

    class Wrapped:
        async def send(self, message: bytes) -> None:
            await ws.send(BinaryMessage(data=message))

        async def recv(self) -> object:
            return await ws.recv()

    async with aconnect_ws(url) as ws:
        await measure(Wrapped())


async def websockets_asyncio(url: str, measure: Measure) -> None:
    from websockets.asyncio.client import connect

    async with connect(url, compression=None, max_size=None) as ws:
        await measure(ws)


async def websockets_trio(url: str, measure: Measure) -> None:
    from websockets.trio.client import connect

    async with connect(url, compression=None, max_size=None) as ws:
        await measure(ws)


CLIENTS: dict[str, tuple[str, Callable[[str, Measure], Awaitable[None]]]] = {
    "zapros_websocket, trio": ("trio", ours),
    "zapros_websocket, asyncio": ("asyncio", ours),
    "zapros.websocket, trio": ("trio", zapros_own),
    "zapros.websocket, asyncio": ("asyncio", zapros_own),
    "websockets, trio": ("trio", websockets_trio),
    "websockets, asyncio": ("asyncio", websockets_asyncio),
}


def workload(name: str, size: int, count: int, report: Callable[[float], None]) -> tuple[str, Measure]:
    """The path to connect to, and what to do there."""

    async def round_trip(ws: Socket) -> None:
        message = bytes(size)
        for number in range(count + count // 10):
            if number == count // 10:
                began = time.process_time()
            await ws.send(message)
            await ws.recv()
        report((time.process_time() - began) / count)

    async def receive(ws: Socket) -> None:
        await ws.send(b"go")
        began = time.process_time()
        for _ in range(count):
            await ws.recv()
        report((time.process_time() - began) / count)

    async def send(ws: Socket) -> None:
        message = bytes(size)
        began = time.process_time()
        for _ in range(count):
            await ws.send(message)
        report((time.process_time() - began) / count)

    if name == "round trip":
        return "echo", round_trip
    if name == "receive":
        return f"flood/{size}/{count}", receive
    return "sink", send


def main(client: str, port: str, name: str, size: str, count: str) -> None:
    backend, run = CLIENTS[client]
    path, measure = workload(name, int(size), int(count), lambda seconds: print(json.dumps(seconds), flush=True))
    url = f"ws://127.0.0.1:{port}/{path}"
    if backend == "trio":
        trio.run(run, url, measure)
    else:
        asyncio.run(run(url, measure))  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
