"""A transport of sockets for a Zapros client, and how a host becomes a connected one (RFC 8305).

Invariants:

- A socket is closed on every path, also when a connection attempt is cancelled or loses to another.
- Certificates are verified unless the SSL context of the caller says otherwise.
- Every error that comes out is Zapros's own.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from itertools import zip_longest
from typing import Final, cast
from weakref import WeakSet

import zapros
from anyio import Event, create_task_group, getaddrinfo, move_on_after
from anyio import wait_writable as until_writable
from zapros import AsyncBaseNetworkStream, AsyncBaseTransport

from .sockets import Alpn, SocketStream, default_context, mapped, within

# Seconds between two connection attempts (RFC 8305, section 5).
ATTEMPT_DELAY: Final = 0.25

Address = tuple[str, int] | tuple[str, int, int, int]
AddressInfo = tuple[int, int, int, str, Address]


class SocketTransport(AsyncBaseTransport):
    """A transport for ``zapros.AsyncStdNetworkHandler``, on trio and asyncio; the one of a client that is made here.

    Args:
        ssl_context: The context for TLS. By default the certificates are verified against those of the system.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl_context = ssl_context
        self._streams: WeakSet[SocketStream] = WeakSet()

    def close_all_but(self, kept: object) -> None:
        """Close what was opened and is still open, at once and whoever has forgotten it."""
        for stream in list(self._streams):
            if stream is not kept:
                stream.close_now()

    async def aconnect(
        self,
        host: str,
        port: int,
        server_hostname: str | None = None,
        tls: bool = False,
        *,
        alpn_protocols: list[Alpn] | None = None,
        timeout: float | None = None,
    ) -> AsyncBaseNetworkStream:
        """Connect to the first address that answers (RFC 8305); cancelling it closes every socket.

        Raises:
            zapros.ConnectTimeoutError: it took longer than ``timeout`` seconds.
            zapros.SSLError: TLS failed, such as a certificate that cannot be verified.
            zapros.ConnectionError: no address could be connected to.
        """
        context = self._ssl_context or default_context()
        with mapped(zapros.ConnectTimeoutError, zapros.ConnectionError), within(timeout):
            # The host of a URL has brackets around an IPv6 address; that of a socket has none.
            stream = SocketStream(await _connect(host.strip("[]"), port), context)
            self._streams.add(stream)
            if tls:
                if alpn_protocols is not None:
                    context.set_alpn_protocols(alpn_protocols)
                await stream.start_tls(server_hostname=server_hostname)
        return stream


async def _connect(host: str, port: int) -> socket.socket:
    """The first address to answer wins; the next is tried when one fails, or is slow."""
    addresses = interleaved(_as_literal(host, port) or await getaddrinfo(host, port, type=socket.SOCK_STREAM))
    errors: list[OSError] = []
    try:
        # Nothing to race against, as with a literal and with most names: no task is needed for it.
        connected = await (_connect_to(*addresses[0]) if len(addresses) == 1 else _race(addresses, errors))
    except OSError as error:
        connected = None
        errors.append(error)
    if connected is None:
        raise OSError(f"no address of {host} could be connected to: {'; '.join(map(str, errors))}")
    return connected


def _as_literal(host: str, port: int) -> list[AddressInfo] | None:
    """The address that ``host`` spells out, for which nobody has to be asked; None for a name."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        return None
    return cast("list[AddressInfo]", found)


async def _race(addresses: list[tuple[int, Address]], errors: list[OSError]) -> socket.socket | None:
    connected: list[socket.socket] = []

    async def attempt(family: int, address: Address, over: Event) -> None:
        try:
            sock = await _connect_to(family, address)
            if connected:
                sock.close()
            else:
                connected.append(sock)
                tasks.cancel_scope.cancel()
        except OSError as error:
            errors.append(error)
        finally:
            over.set()

    try:
        async with create_task_group() as tasks:
            for family, address in addresses:
                over = Event()
                tasks.start_soon(attempt, family, address, over)
                with move_on_after(ATTEMPT_DELAY):
                    await over.wait()
    except BaseException:
        for sock in connected:
            sock.close()
        raise
    return connected[0] if connected else None


async def _connect_to(family: int, address: Address) -> socket.socket:
    # It raises where the system has no such family, or no descriptor left: one address less.
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BlockingIOError):
            sock.connect(address)
        await until_writable(sock)
        if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, os.strerror(number))
    except BaseException:
        sock.close()
        raise
    return sock


def interleaved(addresses: Iterable[AddressInfo]) -> list[tuple[int, Address]]:
    """In the order of the system, but for a change of family each time (RFC 8305, section 4)."""
    families: dict[int, list[tuple[int, Address]]] = {}
    for family, _, _, _, address in addresses:
        families.setdefault(family, []).append((family, address))
    return [pair for row in zip_longest(*families.values()) for pair in row if pair is not None]
