"""A Zapros handler for an ASGI application in the same process, whose WebSockets go over real frames.

Invariants:

- The tasks of the application belong to a task of the handler, and to no task of the caller: the handler can be entered
  in one task and left in another, as the fixtures of some plugins are.
- Leaving the handler ends that task and all tasks of the application, within a deadline.
- What the application raised comes out bare: before it accepted out of the handshake, after that when the handler is
  left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import trio
import zapros
from anyio import CancelScope, Event, create_task_group, current_effective_deadline, move_on_after, sleep_forever
from zapros import AsgiHandler, AsyncBaseHandler, Request, Response

from .._protocol.options import check_number
from ._application import Application, AsgiEvent, Conversation, Receive, Send
from ._lifespan import Lifespan

if TYPE_CHECKING:
    from typing_extensions import Self

_VERSION: Final = "13"
_PORTS: Final = {"ws": 80, "wss": 443}
_SCHEMES: Final = {"http": "ws", "https": "wss"}

# Seconds for the application where nobody should be kept waiting: the caller was cancelled.
_SHORT: Final = 0.5


class WebSocketAsgiHandler(AsyncBaseHandler):
    """Reach an ASGI application in process, with the frames that a network would see.

    It stands in the place of ``zapros.AsgiHandler``: plain HTTP is handed to one. WebSockets go through the whole
    protocol in memory: pings, keepalive, permessage-deflate, fragments, close codes, backpressure and refusals with a
    body of the application (``websocket.http.response``) are what they are with a server.

    It is an asynchronous context manager, which may be entered in one task and left in another. Without that it starts
    with the first request and ends with ``aclose``, which a ``zapros.AsyncClient`` calls when it is closed.

    Args:
        application: An ASGI 3 application.
        accept_timeout: Seconds in which the application has to accept or to refuse a connection.
        raise_app_exceptions: Whether what the application raises out of a WebSocket is raised in the test: before it
            has accepted, by the handshake; after that, when the handler is left. Its client sees a 1011 in any case.
            The ``WebSocketDisconnect`` of a framework, because the client left, is no such exception.
        client: The address of the client, for the scope.
        root_path: The root path, for the scope.
        enable_lifespan: Whether the application gets a lifespan, with its ``state`` in every scope.
        startup_timeout: Seconds for its startup.
        shutdown_timeout: Seconds for its shutdown, and before that for the connections of the application to end.
        ping_interval: Seconds between the pings of the server; None sends none.
        frame_size: Bytes in a frame that the server sends; a longer message goes in several. None never fragments.

    Raises:
        TypeError: a time or a size is no number.
        ValueError: a time is negative, or the interval or the size is not over 0.
    """

    def __init__(
        self,
        application: Application,
        *,
        accept_timeout: float = 5.0,
        raise_app_exceptions: bool = True,
        client: tuple[str, int] | None = ("127.0.0.1", 123),
        root_path: str = "",
        enable_lifespan: bool = True,
        startup_timeout: float = 10.0,
        shutdown_timeout: float = 10.0,
        ping_interval: float | None = None,
        frame_size: int | None = None,
    ) -> None:
        check_number("accept_timeout", accept_timeout, (int, float))
        check_number("startup_timeout", startup_timeout, (int, float))
        check_number("shutdown_timeout", shutdown_timeout, (int, float))
        if ping_interval is not None:
            check_number("ping_interval", ping_interval, (int, float))
            if ping_interval == 0:
                raise ValueError("ping_interval must be more than 0 seconds; None sends no pings")
        if frame_size is not None:
            check_number("frame_size", frame_size, int, least=1)
        self._application = application
        self._accept_timeout = accept_timeout
        self._raise_app_exceptions = raise_app_exceptions
        self._client = client
        self._root_path = root_path
        self._enable_lifespan = enable_lifespan
        self._startup_timeout = startup_timeout
        self._shutdown_timeout = shutdown_timeout
        self._ping_interval = ping_interval
        self._frame_size = frame_size
        self._host: _Host | None = None
        self._is_closed = False
        self._failed: list[Conversation] = []

    @property
    def exceptions(self) -> list[BaseException]:
        """What the application has raised out of its WebSockets so far, and has not been raised in the test yet."""
        return [failed.error for failed in self._failed if failed.error is not None and not failed.is_told]

    async def __aenter__(self) -> Self:
        """Start the application: its lifespan begins.

        Raises:
            Exception: what the application raised when its startup failed; a RuntimeError if it raised nothing.
            zapros.TimeoutError: the startup did not end within ``startup_timeout``.
        """
        try:
            await self._started()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close, as ``aclose`` does."""
        await self.aclose()

    async def ahandle(self, request: Request) -> Response:
        """Give the application a request; cancelling it tells the application that the client has left.

        Raises:
            BaseException: what the application raised before it accepted.
            zapros.ReadTimeoutError: it neither accepted nor refused within ``accept_timeout``.
        """
        host = await self._started()
        if not _is_websocket(request):
            return await host.http.ahandle(request)
        if request.headers.get("sec-websocket-version") != _VERSION or "sec-websocket-key" not in request.headers:
            return Response(
                426, [("Sec-WebSocket-Version", _VERSION)], content=b"no opening handshake", request=request
            )
        conversation = Conversation(
            self._application,
            self._scope_of(request, host.lifespan.state),
            request,
            ping_interval=self._ping_interval,
            frame_size=self._frame_size,
        )
        host.begin(conversation, self._failed)
        try:
            with move_on_after(self._accept_timeout):
                await conversation.decided.wait()
        except BaseException:
            conversation.lose()
            raise
        if conversation.answer is None:
            conversation.cancel()
            raise zapros.ReadTimeoutError(
                f"the application neither accepted nor refused {conversation.path} within "
                f"{self._accept_timeout:g} seconds"
            )
        if conversation.error is not None and conversation.answer.status != 101 and self._raise_app_exceptions:
            conversation.is_told = True
            raise conversation.error
        return conversation.answer

    async def aclose(self) -> None:
        """Close the connections that are still open with 1001, wait for the application, and shut it down.

        Applications get ``websocket.disconnect`` and ``shutdown_timeout`` to end, and are cancelled then. Cancelling it
        leaves them half a second. It is idempotent.

        Raises:
            BaseException: what the application raised out of a WebSocket, the first if there are several.
            TimeoutError: the application did not end in time.
        """
        self._is_closed = True
        host, self._host = self._host, None
        if host is None:
            return
        is_cancelled = current_effective_deadline() == -inf
        try:
            late = await host.end(_SHORT if is_cancelled else self._shutdown_timeout)
            if late and not is_cancelled:
                raise TimeoutError(
                    f"the application at {', '.join(late)} was still running {self._shutdown_timeout:g} seconds after "
                    "its client had left: it was cancelled"
                )
        except zapros.TimeoutError:
            if not is_cancelled:
                raise
        finally:
            if self.exceptions and self._raise_app_exceptions:
                raise self.exceptions[0]

    async def _started(self) -> _Host:
        if self._is_closed:
            raise RuntimeError("the handler is closed: make a new one")
        if self._host is None:
            self._host = _Host(
                self._application,
                enable_lifespan=self._enable_lifespan,
                client=self._client,
                root_path=self._root_path,
            )
        await self._host.start(self._startup_timeout)
        return self._host

    def _scope_of(self, request: Request, state: Mapping[str, object]) -> AsgiEvent:
        url = request.url
        scheme = url.protocol.removesuffix(":").lower()
        scheme = _SCHEMES.get(scheme, scheme)
        offered = request.headers.get("sec-websocket-protocol", "")
        scope: AsgiEvent = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "scheme": scheme,
            "path": unquote(url.pathname) or "/",
            "raw_path": url.pathname.encode() or b"/",
            "query_string": url.search.removeprefix("?").encode(),
            "root_path": self._root_path,
            "headers": [
                (name.lower().encode("ascii"), value.encode("latin-1"))
                for name in request.headers
                for value in request.headers.getall(name)
            ],
            "client": self._client,
            "server": (url.hostname, int(url.port or _PORTS[scheme])),
            "subprotocols": [name.strip() for name in offered.split(",") if name.strip()],
            "extensions": {"websocket.http.response": {}},
        }
        if self._enable_lifespan:
            scope["state"] = dict(state)
        return scope


class _Host:
    """The task that all tasks of the application belong to."""

    def __init__(
        self, application: Application, *, enable_lifespan: bool, client: tuple[str, int] | None, root_path: str
    ) -> None:
        self.lifespan = Lifespan(application)
        self._application = application
        self._enable_lifespan = enable_lifespan
        self._client = client
        self._root_path = root_path
        self._conversations: set[Conversation] = set()
        self._scope = CancelScope()
        self._is_there = Event()
        self._changed = Event()
        self._ended = Event()
        self._task: object = None

    async def start(self, timeout: float) -> None:
        """Start it, unless somebody has, and wait for the startup of the application."""
        if self._task is None:
            if trio.lowlevel.in_trio_run():
                self._task = trio.lowlevel.spawn_system_task(self._run)
            else:
                self._task = asyncio.create_task(self._run())
        await self._is_there.wait()
        if self._enable_lifespan:
            await self.lifespan.start(timeout)

    def begin(self, conversation: Conversation, failed: list[Conversation]) -> None:
        """Start a connection; it goes to ``failed`` when it has ended and its application has raised."""
        self._conversations.add(conversation)
        self._tasks.start_soon(self._converse, conversation, failed)

    async def end(self, timeout: float) -> list[str]:
        """End every connection, shut the application down, and stop; each within ``timeout`` seconds.

        Return the paths at which the application did not end in time, and was cancelled.
        """
        try:
            with CancelScope(shield=True), move_on_after(timeout):
                for conversation in self._conversations:
                    conversation.leave()
                while self._conversations:
                    await self._changed.wait()
            late = sorted(conversation.path for conversation in self._conversations)
            with CancelScope(shield=True):
                await self.lifespan.stop(timeout)
            return late
        finally:
            self._scope.cancel()
            with CancelScope(shield=True), move_on_after(timeout):
                await self._ended.wait()

    async def _run(self) -> None:
        try:
            with self._scope:
                async with (
                    AsgiHandler(
                        self._serve_http, client=self._client, root_path=self._root_path, enable_lifespan=False
                    ) as self.http,
                    create_task_group() as self._tasks,
                ):
                    if self._enable_lifespan:
                        self._tasks.start_soon(self.lifespan.run)
                    self._is_there.set()
                    await sleep_forever()
        finally:
            self._is_there.set()
            self._ended.set()

    async def _converse(self, conversation: Conversation, failed: list[Conversation]) -> None:
        try:
            await conversation.run()
        finally:
            if conversation.error is not None:
                failed.append(conversation)
            self._conversations.discard(conversation)
            self._changed.set()
            self._changed = Event()

    async def _serve_http(self, scope: AsgiEvent, receive: Receive, send: Send) -> None:
        if self._enable_lifespan:
            scope["state"] = dict(self.lifespan.state)
        await self._application(scope, receive, send)


def _is_websocket(request: Request) -> bool:
    return request.url.protocol in ("ws:", "wss:") or request.headers.get("upgrade", "").lower() == "websocket"
