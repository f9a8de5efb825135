"""The stream that a synchronous client of Zapros handed over, taken to an event loop.

A socket is taken out of Zapros's own stream, also from beneath TLS that stands inside a tunnel or another TLS, and goes
on without blocking: it needs no thread. A stream of another make is driven by threads.
"""

from __future__ import annotations

import socket
import ssl
from typing import TypeAlias

from zapros import BaseNetworkStream, SyncStream

from .sockets import SocketStream
from .threads import BlockingStream

_InMemory: TypeAlias = "tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]"


def taken_over(stream: BaseNetworkStream) -> SocketStream | BlockingStream:
    """The stream to go on with; called in the event loop that drives it, when nobody else uses ``stream`` any more."""
    tls = _tls_in_memory(stream)
    # One that is derived from it has a ``read`` and a ``write_all`` of its own.
    if type(stream) is not SyncStream or isinstance(tls, str):
        return BlockingStream(stream)
    sock = stream.sock
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    taken = SocketStream(sock)
    if tls is not None:
        taken.go_on_in(*tls)
    return taken


def _tls_in_memory(stream: BaseNetworkStream) -> _InMemory | str | None:
    """The guarded place: TLS that Zapros runs in memory on top of the socket; None without, a word when unknown."""
    state: object = getattr(stream, "_tls_state", "unknown")
    if state is None or state == "unknown":
        return "unknown" if state else None
    parts = [getattr(state, name, None) for name in ("ssl_object", "incoming_bio", "outgoing_bio")]
    match parts:
        case [ssl.SSLObject() as tls, ssl.MemoryBIO() as incoming, ssl.MemoryBIO() as outgoing]:
            return tls, incoming, outgoing
        case _:
            return "unknown"
