"""The kit under ``task.cancel()`` of asyncio, which knows no shields."""

from __future__ import annotations

import asyncio

import pytest
from zapros import AsyncClient

from tests.asgi.applications import ACCEPT, URL, Says, Waits
from zapros_websocket import aconnect_ws
from zapros_websocket.testing import Script, WebSocketAsgiHandler, scripted_server

from .test_script_failures import HANDSHAKE


async def cancelled(task: asyncio.Task[None]) -> None:
    """Let the task come to where it waits, and cancel it."""
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_handshake() -> None:
    async def main() -> None:
        application = Says()
        async with WebSocketAsgiHandler(application, enable_lifespan=False) as handler:

            async def connect() -> None:
                async with aconnect_ws(URL, client=AsyncClient(handler)):
                    pytest.fail("the application said nothing")

            await cancelled(asyncio.create_task(connect()))
            await application.ended.wait()
        assert application.disconnects == [(1006, "")]

    asyncio.run(main())


def test_leaving_the_handler() -> None:
    async def main() -> None:
        application = Waits(ACCEPT)
        handler = WebSocketAsgiHandler(application, enable_lifespan=False)
        async with aconnect_ws(URL, client=AsyncClient(handler), close_timeout=0):
            pass
        await cancelled(asyncio.create_task(handler.aclose()))
        assert application.ended.is_set()
        await handler.aclose()

    asyncio.run(main())


def test_the_block_of_a_handler() -> None:
    async def main() -> None:
        application = Says(ACCEPT)

        async def use() -> None:
            async with WebSocketAsgiHandler(application, enable_lifespan=False) as handler:
                async with aconnect_ws(URL, client=AsyncClient(handler)) as ws:
                    await ws.recv()

        await cancelled(asyncio.create_task(use()))
        assert application.ended.is_set()
        assert application.disconnects == [(1000, "")]

    asyncio.run(main())


@pytest.mark.parametrize("leaving", [False, True])
def test_a_scripted_server(leaving: bool) -> None:
    async def main() -> None:
        accepted = asyncio.Event()
        port = 0

        async def use() -> None:
            nonlocal port
            async with scripted_server(Script().expect_text("never sent"), timeout=60) as server:
                port = server.port
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writers.append(writer)
                writer.write(HANDSHAKE)
                await reader.readuntil(b"\r\n\r\n")
                accepted.set()
                if not leaving:
                    await asyncio.Event().wait()

        writers: list[asyncio.StreamWriter] = []
        task = asyncio.create_task(use())
        await accepted.wait()
        await cancelled(task)
        for writer in writers:
            writer.close()
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(main())
