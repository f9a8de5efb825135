"""A server that costs the clients under measurement nothing: a process of its own, with hand-written frames.

The path says what it does: ``/echo`` sends each message back; ``/flood/SIZE/N``
sends N binary messages of SIZE bytes for each text message that comes in; ``/sink`` reads. Compression is not offered.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(payload: bytes, opcode: int = 2) -> bytes:
    length = len(payload)
    if length < 126:
        return bytes((0x80 | opcode, length)) + payload
    if length < 1 << 16:
        return bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + length.to_bytes(8, "big") + payload


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, second = await reader.readexactly(2)
    length = second & 0x7F
    if length == 126:
        length = int.from_bytes(await reader.readexactly(2), "big")
    elif length == 127:
        length = int.from_bytes(await reader.readexactly(8), "big")
    key = await reader.readexactly(4)
    payload = await reader.readexactly(length)
    keys = (key * (length // 4 + 1))[:length]
    plain = int.from_bytes(payload, "little") ^ int.from_bytes(keys, "little")
    return first & 0x0F, plain.to_bytes(length, "little")


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = await reader.readuntil(b"\r\n\r\n")
    path = request.split(b" ", 2)[1].decode()
    lines = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:-2])
    key = next(value for name, value in lines.items() if name.lower() == b"sec-websocket-key")
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    mode, *numbers = path.strip("/").split("/")
    while True:
        opcode, payload = await read_frame(reader)
        if opcode == 8:
            writer.write(frame(payload, 8))
            writer.close()
            return
        if opcode == 9:
            writer.write(frame(payload, 10))
        elif mode == "echo":
            writer.write(frame(payload, opcode))
        elif mode == "flood":
            size, count = map(int, numbers)
            message = frame(bytes(size))
            for _ in range(count):
                writer.write(message)
                await writer.drain()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 24)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
