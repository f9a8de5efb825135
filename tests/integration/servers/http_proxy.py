"""An HTTP proxy: it tunnels with CONNECT and forwards requests in the absolute form (RFC 9112, section 3.2)."""

from __future__ import annotations

import asyncio
import base64
from asyncio import StreamReader, StreamWriter
from urllib.parse import urlsplit

from .hosting import Arguments, write_line
from .relay import local_port, relay, serve_proxy


async def handle(arguments: Arguments, reader: StreamReader, writer: StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *header_lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = request_line.split(" ")
    authorization = [line for line in header_lines if line.lower().startswith("proxy-authorization:")]
    if authorization != expected_authorization(arguments.credentials):
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 9\r\n\r\nwho asks?")
        await writer.drain()
        return
    parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
    assert parts.hostname is not None
    server = await asyncio.open_connection(parts.hostname, parts.port)
    write_line({"upstream_port": local_port(server[1]), "method": method, "target": target})
    if method == "CONNECT":
        writer.write(b"HTTP/1.1 200 Connection Established\r\n\r\n")
    else:
        origin_form = parts._replace(scheme="", netloc="").geturl() or "/"
        kept = [line for line in header_lines if line not in authorization]
        server[1].write("\r\n".join([f"{method} {origin_form} HTTP/1.1", *kept, "", ""]).encode("latin-1"))
    await relay((reader, writer), server)


def expected_authorization(credentials: str) -> list[str]:
    if not credentials:
        return []
    return [f"Proxy-Authorization: Basic {base64.b64encode(credentials.encode()).decode()}"]


if __name__ == "__main__":
    asyncio.run(serve_proxy(handle))
