"""A socket that threads read and write themselves, beside the event loop that drives it.

Both sides of a plain socket may be used at once. OpenSSL's connection may not, not even one side by one thread and the
other by another: so all that touches it holds the mutex, for as long as it takes without waiting.

Invariants:

- No interrupt comes between what the socket did and its return: what a thread calls is written in C, or TLS in memory
  that is called undisturbed.
- What TLS does not write it has encrypted all the same: it is written again with the same bytes, whoever does so.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil
from threading import Lock
from types import BuiltinMethodType
from typing import TypeAlias

from .tls import PIECE, Below, Data, TlsSocket, has_tls

# What asks about a single socket without a descriptor of its own, and whatever its number is; where the system has it.
_new_poll = getattr(select, "poll", None)

_Functions: TypeAlias = "tuple[Callable[[int], bytes], Callable[[Data], int]]"


@dataclass(frozen=True)
class Direct:
    """What a thread does with a socket itself. It holds ``mutex`` meanwhile, but for the two that wait."""

    mutex: Lock
    is_tls: bool
    receive: Callable[[int], bytes]
    send: Callable[[Data], int]
    # They wait for up to so many seconds, and say whether the socket is ready.
    until_readable: Callable[[float], object]
    until_writable: Callable[[float], object]


class SharedTls:
    """A TLS socket, for the event loop that shares it with threads."""

    def __init__(self, tls: ssl.SSLSocket | TlsSocket, mutex: Lock) -> None:
        self._tls = tls
        self._mutex = mutex

    def recv(self, size: int) -> bytes:
        with self._mutex:
            return self._tls.recv(size)

    def recv_into(self, buffer: memoryview) -> int:
        with self._mutex:
            return self._tls.recv_into(buffer)

    def send(self, data: Data) -> int:
        # While it is encrypted a thread may have to wait.
        with self._mutex:
            return self._tls.send(data if len(data) <= PIECE else memoryview(data)[:PIECE])

    def pending(self) -> bool:
        with self._mutex:
            return bool(self._tls.pending())


def direct(sock: socket.socket, top: Below, mutex: Lock) -> Direct | None:
    """How a thread uses ``sock`` itself, and ``top`` that stands on it; None where that is not known."""
    functions: _Functions | None
    if isinstance(top, TlsSocket):
        # What lies between two of them would be announced by nothing.
        functions = None if top.is_nested else (top.recv_all, top.send)
    elif isinstance(top, ssl.SSLSocket):
        functions = _beneath(top)
    else:
        functions = top.recv, top.send
    if functions is None:
        return None
    return Direct(mutex, has_tls(top), *functions, until_ready(sock, to_write=False), until_ready(sock, to_write=True))


def until_ready(sock: socket.socket, *, to_write: bool) -> Callable[[float], object]:
    """What waits for up to so many seconds, and says whether the socket is ready; for one thread at a time."""
    if _new_poll is None:
        return partial(_wait, sock, to_write)
    poll = _new_poll()
    poll.register(sock, select.POLLOUT if to_write else select.POLLIN)
    return lambda seconds: poll.poll(ceil(seconds * 1000))


def _wait(sock: socket.socket, to_write: bool, seconds: float) -> object:
    reading, writing = ((), (sock,)) if to_write else ((sock,), ())
    try:
        return any(select.select(reading, writing, (), seconds))
    except (OSError, ValueError):
        # A socket that was closed meanwhile cannot be asked about: whoever uses it finds out.
        return True


def _beneath(sock: socket.socket) -> _Functions | None:
    """The guarded place: what ``recv`` and ``send`` of a TLS socket, which are written in Python, call in C."""
    if not getattr(sock, "suppress_ragged_eofs", False):
        return None
    connection: object = getattr(sock, "_sslobj", None)
    functions = getattr(connection, "read", None), getattr(connection, "write", None)
    is_known = all(isinstance(function, BuiltinMethodType) for function in functions)
    return functions if is_known else None  # type: ignore[return-value]
