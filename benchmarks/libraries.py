"""Each library, used as its own documentation recommends.

The defaults of each, but for compression, which is off unless the workload is about it, limits of size, which are
lifted, and proxies, which are not used. Where connections can share a client or a session, and its documentation
says to, they do.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    closing,
    contextmanager,
    nullcontext,
)
from functools import partial
from typing import Any

from .library import NotThere, Payload, Session, Setting, load

NO_LIMIT = 1 << 40

Opening = AbstractAsyncContextManager[Session] | AbstractContextManager[Session]


def _same_names(connection: Any) -> tuple[Any, Any]:
    return connection.send, connection.recv


def ours(setting: Setting) -> nullcontext[Session]:
    """Without a client, as most will use it, so with our own transport; the authority is in SSL_CERT_FILE."""
    return nullcontext(Session(_ours(setting, "aconnect_ws"), _same_names))


def ours_sync(setting: Setting) -> nullcontext[Session]:
    return nullcontext(Session(_ours(setting, "connect_ws"), _same_names))


def _ours(setting: Setting, name: str) -> Callable[[], Any]:
    connect = getattr(load("zapros_websocket"), name, None)
    if connect is None:
        raise NotThere(f"zapros_websocket has no {name} yet")
    keepalive = setting.ping("ping_interval")
    options = {"permessage_deflate": setting.deflate, "max_message_size": NO_LIMIT, **keepalive}
    return partial(connect, setting.url, **options)


def zapros(setting: Setting) -> nullcontext[Session]:
    """Its connections have no limit of size and no keepalive. The authority is in SSL_CERT_FILE."""
    return _zapros(setting, "aconnect_ws")


def zapros_sync(setting: Setting) -> nullcontext[Session]:
    return _zapros(setting, "connect_ws")


def _zapros(setting: Setting, name: str) -> nullcontext[Session]:
    module = load("zapros.websocket")
    message = module.TextMessage if setting.text else module.BinaryMessage

    def talk(connection: Any) -> tuple[Any, Any]:
        def send(data: Payload) -> Any:
            return connection.send(message(data=data))

        return send, connection.recv

    return nullcontext(Session(partial(getattr(module, name), setting.url, permessage_deflate=setting.deflate), talk))


def websockets(setting: Setting, module: str) -> nullcontext[Session]:
    """websockets in its three forms, and picows in the form that has the same names."""
    # picows 2.3 stands still over TLS when it has paused reading: what it read before lies there until more arrives.
    # Without a bound on its queue it never pauses.
    stalls = setting.workload.tls and module.startswith("picows.")
    options: dict[str, Any] = {"compression": "deflate" if setting.deflate else None, "max_size": None, "proxy": None}
    if stalls:
        options["max_queue"] = None
    if setting.ssl_context is not None:
        options["ssl"] = setting.ssl_context
    connect = partial(load(module).connect, setting.url, **options, **setting.ping("ping_interval"))
    return nullcontext(Session(connect, _same_names))


@asynccontextmanager
async def aiohttp(setting: Setting) -> AsyncGenerator[Session, None]:
    """One session for all connections."""
    options: dict[str, Any] = {"max_msg_size": 0, "compress": 15 if setting.deflate else 0}
    if setting.ssl_context is not None:
        options["ssl"] = setting.ssl_context
    module = load("aiohttp")

    def talk(connection: Any) -> tuple[Any, Any]:
        return (connection.send_str if setting.text else connection.send_bytes), connection.receive

    # A session opens no more than 100 connections at once by default.
    async with module.ClientSession(connector=module.TCPConnector(limit=0)) as session:
        yield Session(partial(session.ws_connect, setting.url, **options, **setting.ping("heartbeat")), talk)


@asynccontextmanager
async def httpx_ws(setting: Setting) -> AsyncGenerator[Session, None]:
    """One client for all connections. It has no compression."""
    async with load("httpx").AsyncClient(**_httpx_options(setting)) as client:
        yield _httpx_ws(setting, "aconnect_ws", client)


@contextmanager
def httpx_ws_sync(setting: Setting) -> Generator[Session, None, None]:
    with load("httpx").Client(**_httpx_options(setting)) as client:
        yield _httpx_ws(setting, "connect_ws", client)


def _httpx_options(setting: Setting) -> dict[str, Any]:
    verify = True if setting.ssl_context is None else setting.ssl_context
    return {"verify": verify, "limits": load("httpx").Limits(max_connections=None), "trust_env": False}


def _httpx_ws(setting: Setting, name: str, client: object) -> Session:
    if setting.deflate:
        raise NotThere("httpx-ws has no compression")
    options: dict[str, Any] = setting.ping("keepalive_ping_interval_seconds")
    # What it calls the largest message is how much it reads at once: its default, or a whole message if that is more.
    options["max_message_size_bytes"] = max(1 << 16, setting.workload.size)

    def talk(connection: Any) -> tuple[Any, Any]:
        return connection.send_bytes, connection.receive_bytes

    return Session(partial(getattr(load("httpx_ws"), name), setting.url, client, **options), talk)


def trio_websocket(setting: Setting) -> nullcontext[Session]:
    """It has no compression and no keepalive."""
    open_url = load("trio_websocket").open_websocket_url
    if setting.deflate:
        raise NotThere("trio-websocket has no compression")

    def talk(connection: Any) -> tuple[Any, Any]:
        return connection.send_message, connection.get_message

    options = {"ssl_context": setting.ssl_context, "max_message_size": NO_LIMIT}
    return nullcontext(Session(partial(open_url, setting.url, **options), talk))


def websocket_client(setting: Setting) -> nullcontext[Session]:
    """It has no compression, and no keepalive in this form. wsaccel, which it uses if it is there, is installed."""
    create = load("websocket").create_connection
    if setting.deflate:
        raise NotThere("websocket-client has no compression")
    options = {} if setting.ssl_context is None else {"sslopt": {"context": setting.ssl_context}}

    def talk(connection: Any) -> tuple[Any, Any]:
        return connection.send_binary, connection.recv

    return nullcontext(Session(lambda: closing(create(setting.url, **options)), talk))


def trust(authority: str) -> None:
    """Make the SSL contexts that are made by default trust an authority."""
    os.environ["SSL_CERT_FILE"] = authority
