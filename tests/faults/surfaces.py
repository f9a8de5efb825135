"""The surfaces of the library, with one face: the cases are written once, and run on each.

A case is asynchronous. On trio and on asyncio it speaks to the connection itself; the synchronous interface is called
in threads, one for each call that waits.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypedDict, TypeVar, cast

import anyio
import anyio.to_thread
import trio
import zapros

import zapros_websocket
from zapros_websocket import AsyncWebSocket, Message, PerMessageDeflateExtension, SocketTransport, aconnect_ws

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

Result = TypeVar("Result")


class Options(TypedDict, total=False):
    """The arguments of a connection that cases use."""

    subprotocols: list[str]
    permessage_deflate: bool | PerMessageDeflateExtension
    headers: dict[str, str]
    max_message_size: int
    ping_interval: float | None
    ping_timeout: float | None
    open_timeout: float | None
    close_timeout: float
    context: zapros.RequestContext | None


class Connection(Protocol):
    """A connection as a case sees it."""

    async def send(self, message: Message | str | bytes) -> None: ...

    async def recv(self) -> Message: ...

    async def recv_within(self, seconds: float) -> Message | None:
        """The next message, or None when there was none in that time: nothing is lost by it."""
        ...

    async def ping(self) -> float: ...

    async def close(self, code: int = 1000, reason: str = "") -> None: ...

    @property
    def close_code(self) -> int | None: ...

    def __repr__(self) -> str: ...


class Surface(Protocol):
    """One of the interfaces of the library."""

    @property
    def name(self) -> str: ...

    @property
    def cancels(self) -> bool:
        """Whether a call can be cancelled."""
        ...

    def run(self, case: Callable[[], Awaitable[Result]]) -> Result:
        """Run a case on the event loop of the surface."""
        ...

    def connect(
        self, url: str, *, trust: ssl.SSLContext | None, with_client: bool, **options: Unpack[Options]
    ) -> AbstractAsyncContextManager[Connection]:
        """Connect, with a client of the caller where it is wanted, or needed to trust the servers of the cases."""
        ...


class TaskConnection:
    """A connection on an event loop."""

    def __init__(self, ws: AsyncWebSocket) -> None:
        self.ws = ws

    async def send(self, message: Message | str | bytes) -> None:
        await self.ws.send(message)

    async def recv(self) -> Message:
        return await self.ws.recv()

    async def recv_within(self, seconds: float) -> Message | None:
        with anyio.move_on_after(seconds):
            return await self.ws.recv()
        return None

    async def ping(self) -> float:
        return await self.ws.ping()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.ws.close(code, reason)

    @property
    def close_code(self) -> int | None:
        return self.ws.close_code

    def __repr__(self) -> str:
        return repr(self.ws)


@dataclass(frozen=True)
class TaskSurface:
    """trio or asyncio."""

    name: str
    cancels: bool = True

    def run(self, case: Callable[[], Awaitable[Result]]) -> Result:
        async def main() -> Result:
            return await case()

        return trio.run(main) if self.name == "trio" else asyncio.run(main())

    @asynccontextmanager
    async def connect(
        self, url: str, *, trust: ssl.SSLContext | None, with_client: bool, **options: Unpack[Options]
    ) -> AsyncGenerator[Connection]:
        async with AsyncExitStack() as stack:
            client = trusting(trust) if trust is not None else zapros.AsyncClient() if with_client else None
            if client is not None:
                stack.push_async_callback(client.aclose)
            yield TaskConnection(await stack.enter_async_context(aconnect_ws(url, client=client, **options)))


def trusting(trust: ssl.SSLContext) -> zapros.AsyncClient:
    """A client that trusts the certificates of the cases."""
    return zapros.AsyncClient(zapros.AsyncStdNetworkHandler(transport=SocketTransport(ssl_context=trust)))


class BlockingWebSocket(Protocol):
    """What the synchronous interface has."""

    def send(self, message: Message | str | bytes) -> None: ...

    def recv(self, timeout: float | None = None) -> Message: ...

    def ping(self) -> float: ...

    def close(self, code: int = 1000, reason: str = "") -> None: ...

    @property
    def close_code(self) -> int | None: ...

    def __enter__(self) -> Self: ...


ConnectBlocking = Callable[..., AbstractContextManager[BlockingWebSocket]]
connect_ws: Final = cast("ConnectBlocking | None", getattr(zapros_websocket, "connect_ws", None))


class ThreadConnection:
    """A connection whose calls block, each in a thread of its own."""

    def __init__(self, ws: BlockingWebSocket) -> None:
        self._ws = ws
        # As many as there are calls that wait: a hundred senders are a hundred threads.
        self._limiter = anyio.CapacityLimiter(200)

    async def send(self, message: Message | str | bytes) -> None:
        await self._in_thread(partial(self._ws.send, message))

    async def recv(self) -> Message:
        return await self._in_thread(self._ws.recv)

    async def recv_within(self, seconds: float) -> Message | None:
        def recv() -> Message | None:
            try:
                return self._ws.recv(timeout=seconds)
            except TimeoutError:
                return None

        return await self._in_thread(recv)

    async def ping(self) -> float:
        return await self._in_thread(self._ws.ping)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._in_thread(partial(self._ws.close, code, reason))

    @property
    def close_code(self) -> int | None:
        return self._ws.close_code

    def __repr__(self) -> str:
        return repr(self._ws)

    async def _in_thread(self, call: Callable[[], Result]) -> Result:
        return await anyio.to_thread.run_sync(call, limiter=self._limiter)


@dataclass(frozen=True)
class ThreadSurface:
    """The synchronous interface."""

    connector: ConnectBlocking
    name: str = "sync"
    cancels: bool = False

    def run(self, case: Callable[[], Awaitable[Result]]) -> Result:
        async def main() -> Result:
            return await case()

        return trio.run(main)

    @asynccontextmanager
    async def connect(
        self, url: str, *, trust: ssl.SSLContext | None, with_client: bool, **options: Unpack[Options]
    ) -> AsyncGenerator[Connection]:
        client: zapros.Client | None = None
        if trust is not None:
            handler = zapros.StdNetworkHandler(transport=zapros.SyncTransport(ssl_context=trust))
            client = zapros.Client(handler)
        elif with_client:
            client = zapros.Client()
        try:
            manager = self.connector(url, client=client, **options)
            ws = await anyio.to_thread.run_sync(manager.__enter__)
            try:
                yield ThreadConnection(ws)
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(manager.__exit__, type(error), error, error.__traceback__)
                raise
            await anyio.to_thread.run_sync(manager.__exit__, None, None, None)
        finally:
            if client is not None:
                client.close()


SURFACES: Final[list[Surface]] = [TaskSurface("trio"), TaskSurface("asyncio")]
if connect_ws is not None:
    SURFACES.append(ThreadSurface(connect_ws))
