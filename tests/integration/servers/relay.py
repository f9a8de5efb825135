"""What the proxies have in common: carry bytes both ways between two connections."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable

from .hosting import Arguments, announce

Carry = Callable[[StreamReader, StreamWriter], Awaitable[None]]


async def carry(reader: StreamReader, writer: StreamWriter) -> None:
    """Carry bytes one way, as they come, and end the other side with this one."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # One side vanished: the other is told by the end of its stream.
    finally:
        writer.close()


async def relay(
    client: tuple[StreamReader, StreamWriter],
    server: tuple[StreamReader, StreamWriter],
    *,
    up: Carry = carry,
    down: Carry = carry,
) -> None:
    """Carry bytes both ways until both have ended."""
    await asyncio.gather(up(client[0], server[1]), down(server[0], client[1]))


def local_port(writer: StreamWriter) -> int:
    """The port that the server at the other end sees: it tells the tests which connection came through."""
    port: int = writer.get_extra_info("sockname")[1]
    return port


async def serve_proxy(
    handle: Callable[[Arguments, StreamReader, StreamWriter], Awaitable[None]],
) -> None:
    """Hand each connection to ``handle`` until the tests end."""
    arguments = Arguments.from_command_line()
    listener = arguments.listen()

    async def handle_and_close(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            await handle(arguments, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # A client may leave at any time.
        finally:
            writer.close()

    server = await asyncio.start_server(handle_and_close, sock=listener, ssl=arguments.tls())
    announce(listener)
    await server.serve_forever()
