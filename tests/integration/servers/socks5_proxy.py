"""A SOCKS5 proxy that knows CONNECT (RFC 1928) and user names with passwords (RFC 1929)."""

from __future__ import annotations

import asyncio
import socket
from asyncio import StreamReader, StreamWriter

from .hosting import Arguments, write_line
from .relay import local_port, relay, serve_proxy

NO_AUTHENTICATION = 0
USER_AND_PASSWORD = 2
NO_ACCEPTABLE_METHOD = 0xFF
SUCCEEDED = bytes([5, 0, 0, 1, 0, 0, 0, 0, 0, 0])


async def handle(arguments: Arguments, reader: StreamReader, writer: StreamWriter) -> None:
    if not await admit(arguments.credentials, reader, writer):
        return
    _version, command, _reserved, address_type = await reader.readexactly(4)
    assert command == 1
    host = await read_host(address_type, reader)
    port = int.from_bytes(await reader.readexactly(2), "big")
    server = await asyncio.open_connection(host, port)
    facts: dict[str, object] = {"upstream_port": local_port(server[1]), "target": f"{host}:{port}"}
    write_line(facts)
    writer.write(SUCCEEDED)
    await relay((reader, writer), server)


async def admit(credentials: str, reader: StreamReader, writer: StreamWriter) -> bool:
    """Agree on a method and check the password where there is one."""
    _version, count = await reader.readexactly(2)
    offered = await reader.readexactly(count)
    wanted = USER_AND_PASSWORD if credentials else NO_AUTHENTICATION
    writer.write(bytes([5, wanted if wanted in offered else NO_ACCEPTABLE_METHOD]))
    if wanted not in offered or not credentials:
        return wanted in offered
    await reader.readexactly(1)
    user = await read_string(reader)
    password = await read_string(reader)
    is_right = f"{user}:{password}" == credentials
    writer.write(bytes([1, 0 if is_right else 1]))
    return is_right


async def read_host(address_type: int, reader: StreamReader) -> str:
    match address_type:
        case 1:
            return socket.inet_ntop(socket.AF_INET, await reader.readexactly(4))
        case 4:
            return socket.inet_ntop(socket.AF_INET6, await reader.readexactly(16))
        case _:
            return await read_string(reader)


async def read_string(reader: StreamReader) -> str:
    (length,) = await reader.readexactly(1)
    return (await reader.readexactly(length)).decode()


if __name__ == "__main__":
    asyncio.run(serve_proxy(handle))
