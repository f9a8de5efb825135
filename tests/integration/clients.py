"""Zapros clients and transports as the tests need them, on whichever event loop runs."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import trio
import zapros

from zapros_websocket import AsyncBaseWebSocket, TextMessage


def network(ssl_context: ssl.SSLContext | None = None) -> zapros.AsyncBaseTransport:
    """The transport that Zapros itself would choose."""
    if trio.lowlevel.in_trio_run():
        return zapros.TrioTransport(ssl_context=ssl_context)
    return zapros.AsyncIOTransport(ssl_context=ssl_context)


def client_over(transport: zapros.AsyncBaseTransport) -> zapros.AsyncClient:
    """A client whose network handler opens its connections with ``transport``."""
    return zapros.AsyncClient(zapros.AsyncStdNetworkHandler(transport=transport))


def client_that_trusts(ssl_context: ssl.SSLContext) -> zapros.AsyncClient:
    """A client that verifies servers with ``ssl_context``."""
    return client_over(network(ssl_context))


def through(proxy: str) -> zapros.RequestContext:
    """The context of a request that goes through that proxy."""
    return {"network": {"proxy": {"url": proxy}}}


class UnixTransport:
    """Every connection goes to one Unix socket, whatever the host in the URL."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def aconnect(
        self,
        host: str,
        port: int,
        server_hostname: str | None = None,
        tls: bool = False,
        *,
        alpn_protocols: list[Literal["http/1.1", "h2"]] | None = None,
        timeout: float | None = None,
    ) -> zapros.AsyncBaseNetworkStream:
        if trio.lowlevel.in_trio_run():
            return zapros.TrioStream(await trio.open_unix_socket(self._path))
        return zapros.AsyncIOStream(*await asyncio.open_unix_connection(self._path))


class RememberingTransport:
    """Opens the same streams, and can close them all.

    Zapros 0.23 forgets a stream when TLS, a tunnel or a cancellation ends the attempt: a test that provokes this
    with a client of its own cleans up after it.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None) -> None:
        self._ssl_context = ssl.create_default_context() if ssl_context is None else ssl_context
        self._streams: list[zapros.AsyncBaseNetworkStream] = []

    async def aconnect(
        self,
        host: str,
        port: int,
        server_hostname: str | None = None,
        tls: bool = False,
        *,
        alpn_protocols: list[Literal["http/1.1", "h2"]] | None = None,
        timeout: float | None = None,
    ) -> zapros.AsyncBaseNetworkStream:
        # On asyncio a failure of TLS closes the socket; on trio the stream has to be known before.
        is_trio = trio.lowlevel.in_trio_run()
        opened = await network(self._ssl_context).aconnect(host, port, server_hostname, tls and not is_trio)
        self._streams.append(opened)
        return await opened.start_tls(server_hostname=server_hostname) if tls and is_trio else opened

    async def close_all(self) -> None:
        for stream in self._streams:
            await stream.close()


@asynccontextmanager
async def cleaned_up_client(ssl_context: ssl.SSLContext | None = None) -> AsyncGenerator[zapros.AsyncClient]:
    """A client that leaves no stream behind, whatever failed."""
    transport = RememberingTransport(ssl_context)
    async with client_over(transport) as client:
        try:
            yield client
        finally:
            await transport.close_all()


class ForeignTransport:
    """Its streams are none of Zapros's classes: they can be read, written and closed, and nothing else."""

    def __init__(self) -> None:
        self._network = network()

    async def aconnect(
        self,
        host: str,
        port: int,
        server_hostname: str | None = None,
        tls: bool = False,
        *,
        alpn_protocols: list[Literal["http/1.1", "h2"]] | None = None,
        timeout: float | None = None,
    ) -> zapros.AsyncBaseNetworkStream:
        return ForeignStream(await self._network.aconnect(host, port, server_hostname, tls, timeout=timeout))


class ForeignStream(zapros.AsyncBaseNetworkStream):
    def __init__(self, stream: zapros.AsyncBaseNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, timeout)

    async def write_all(self, data: bytes, timeout: float | None = None) -> int:
        return await self._stream.write_all(data, timeout)

    async def close(self) -> None:
        await self._stream.close()


@dataclass(frozen=True)
class Description:
    """The handshake as the server saw it."""

    target: str
    headers: list[tuple[str, str]]
    client_port: int | None

    @classmethod
    def from_json(cls, text: str) -> Description:
        """What ``/describe`` sends first."""
        facts = json.loads(text)
        client_port = facts["client"][1] if facts["client"] else None
        return cls(facts["target"], [(name, value) for name, value in facts["headers"]], client_port)

    def header(self, name: str) -> str | None:
        """The value of that header, None when it is absent; there must not be two."""
        values = [value for other, value in self.headers if other == name.lower()]
        assert len(values) <= 1, values
        return values[0] if values else None


async def described(ws: AsyncBaseWebSocket) -> Description:
    """What ``/describe`` sends first."""
    message = await ws.recv()
    assert isinstance(message, TextMessage)
    return Description.from_json(message.data)
