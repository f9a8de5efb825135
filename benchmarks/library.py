"""What a WebSocket library has to look like to be measured, and how it is found."""

from __future__ import annotations

import importlib
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, cast

from .server import Place
from .workloads import PING_INTERVAL, Workload

Backend = Literal["trio", "asyncio", "uvloop", "sync"]
Payload = bytes | str
Send = Callable[[Payload], object]
Receive = Callable[[], object]
AsyncSend = Callable[[Payload], Awaitable[object]]
AsyncReceive = Callable[[], Awaitable[object]]


class NotThere(Exception):
    """The library is not installed, or cannot do this."""


@dataclass(frozen=True)
class Setting:
    """What a connection has to be like: to where, for what kind of messages."""

    url: str
    workload: Workload
    ssl_context: ssl.SSLContext | None

    @classmethod
    def of(cls, workload: Workload, place: Place) -> Setting:
        return cls(place.url(workload), workload, place.ssl_context() if workload.tls else None)

    @property
    def text(self) -> bool:
        return self.workload.deflate

    @property
    def deflate(self) -> bool:
        return self.workload.deflate

    def ping(self, name: str) -> dict[str, float]:
        """The interval of keepalive as an argument of that name; without idle connections the library's default."""
        return {name: PING_INTERVAL} if self.workload.kind == "idle" else {}


@dataclass(frozen=True)
class Session:
    """An open library: a new connection with each call of ``connect``, and the two functions to talk through one.

    The connections are those of the library itself, so that nothing of the benchmark stands between; ``talk`` is the
    one place where the libraries are made alike.
    """

    connect: Callable[[], Any]
    talk: Callable[[Any], tuple[Any, Any]]

    def connect_async(self) -> AbstractAsyncContextManager[object]:
        return cast(AbstractAsyncContextManager[object], self.connect())

    def talk_async(self, connection: object) -> tuple[AsyncSend, AsyncReceive]:
        return self.talk(connection)

    def connect_sync(self) -> AbstractContextManager[object]:
        return cast(AbstractContextManager[object], self.connect())

    def talk_sync(self, connection: object) -> tuple[Send, Receive]:
        return self.talk(connection)


def load(name: str) -> ModuleType:
    """The module of that name, or NotThere. By name, so that types can be checked without the peers."""
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        raise NotThere(str(missing)) from missing
