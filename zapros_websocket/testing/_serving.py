"""What the embedded servers have in common: connections on loopback, each in a task, while a block runs.

Invariants:

- Leaving the block ends every task, and raises nothing of its own.
- An exception of the block is never handed to a task group: nothing can wrap it in an exception group.
- A peer is read from when somebody wants to read.
- When the block is cancelled the server runs until the block has ended, so that clients in it can close in order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from types import TracebackType
from typing import Generic, TypeVar

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup
from anyio.from_thread import BlockingPortal, start_blocking_portal

_T = TypeVar("_T")


class Listening:
    """A free port of 127.0.0.1, from ``start`` to ``stop``. ``converse`` may not raise."""

    def __init__(self, converse: Callable[[SocketStream], Awaitable[None]]) -> None:
        self._converse = converse

    async def start(self, port: int = 0) -> int:
        """Listen, by default on any port that is free, and return the port."""
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 (no Django here)
        # One child owns everything and is stopped by its own scope. The group itself is never cancelled.
        self._scope = anyio.CancelScope(shield=True)
        self._ended = anyio.Event()
        self._task_group: TaskGroup = anyio.create_task_group()
        await self._task_group.__aenter__()
        self._task_group.start_soon(self._serve, listener)
        return port

    async def stop(self) -> None:
        """End every task."""
        self._scope.cancel()
        try:
            # Needs no deadline: in a cancelled scope no task of a server waits for a client.
            with anyio.CancelScope(shield=True):
                await self._ended.wait()
        finally:
            await self._task_group.__aexit__(None, None, None)

    async def _serve(self, listener: anyio.abc.Listener[SocketStream]) -> None:
        try:
            with self._scope:
                async with listener:
                    await listener.serve(self._serve_one)
        finally:
            self._ended.set()

    async def _serve_one(self, stream: SocketStream) -> None:
        # On asyncio, anyio reads ahead without a bound until its first wait for something to read is over, and has
        # none when that is there already.
        pause: Callable[[], None] | None = getattr(getattr(stream, "_transport", None), "pause_reading", None)
        if pause is not None:
            pause()
        await self._converse(stream)


class InThread(Generic[_T]):
    """An asynchronous context manager, entered and left from synchronous code: it runs in a thread of its own."""

    def __init__(self, manager: AbstractAsyncContextManager[_T]) -> None:
        self._manager = manager
        self._stack = ExitStack()

    def start(self) -> tuple[_T, BlockingPortal]:
        """Enter the manager; the portal calls into its event loop."""
        with ExitStack() as stack:
            # On asyncio: trio lets nobody call from the thread of another trio, where a fixture may well be.
            portal = stack.enter_context(start_blocking_portal("asyncio"))
            value = stack.enter_context(portal.wrap_async_context_manager(self._manager))
            self._stack = stack.pop_all()
        return value, portal

    def stop(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the manager, which may raise, and end the thread."""
        self._stack.__exit__(exc_type, exc, traceback)
