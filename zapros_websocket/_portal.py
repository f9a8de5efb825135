"""The event loop beneath synchronous connections, in a thread of its own.

Invariants:

- One thread for any number of connections, started by the first; a portal of the caller needs none.
- It ends before the interpreter does, within a bound: connections that were forgotten say goodbye on the way.
- An interrupt while it is started leaves one that is started. One that has ended, or is about to, is taken by nobody.
- A forked process has no such thread, and knows it: it starts one of its own, and what it inherited is refused.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from typing import Final
from weakref import WeakKeyDictionary, WeakSet

import anyio
import trio
from anyio.from_thread import BlockingPortal

from ._attentive import Answer
from ._soon import Soon, soon
from ._undisturbed import undisturbed

# Of the two event loops the one that takes less CPU time for the same traffic: trio waits for a socket with one call to
# the kernel, where asyncio adds it to the loop and removes it again.
BACKEND: Final = "trio"

# Seconds for connections to part at the end of the interpreter.
_END: Final = 3.0


class _Shared:
    """The portal of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: _Loop | None = None

    def portal(self) -> BlockingPortal:
        with self._lock:
            if self._loop is None or self._loop.is_over:
                undisturbed(self._start)
            loop = self._loop
        assert loop is not None
        return loop.portal.wait()

    def _start(self) -> None:
        loop = _Loop()
        loop.start()
        self._loop = loop
        atexit.register(self.end)

    def end(self) -> None:
        """End the loop and all that it does."""
        atexit.unregister(self.end)
        assert self._loop is not None
        self._loop.end()


class _Loop:
    """An event loop with a portal, in a thread of its own."""

    def __init__(self) -> None:
        self.portal: Answer[BlockingPortal] = Answer()
        self._has_ended = False
        self._ending: anyio.Event
        self._soon: Soon
        self._thread = threading.Thread(target=self._run, name="zapros_websocket", daemon=True)

    @property
    def is_over(self) -> bool:
        """Whether it takes nothing any more."""
        return self._has_ended or not self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        if self._thread.is_alive():
            self.portal.wait()
            self._soon(lambda: self._ending.set())
            self._thread.join(_END)

    def _run(self) -> None:
        try:
            anyio.run(self._serve, backend=BACKEND)
        finally:
            if not self.portal.is_there:
                self.portal.fail(RuntimeError("the event loop for synchronous connections does not start"))

    async def _serve(self) -> None:
        self._soon, self._ending = soon(), anyio.Event()
        async with BlockingPortal() as portal:
            self.portal.give(portal)
            try:
                await self._ending.wait()
            finally:
                self._has_ended = True
            await portal.stop(cancel_remaining=True)


class Process:
    """What a process has once."""

    def __init__(self) -> None:
        # How often the process and its parents were forked, to tell what they left from what is its own.
        self.forks = 0
        # Portals that threads have gone into before a fork, and that have no thread behind it.
        self.inherited: WeakSet[BlockingPortal] = WeakSet()
        self.begin()

    def begin(self) -> None:
        """Have nothing yet."""
        self.shared = _Shared()
        self.ways: WeakKeyDictionary[BlockingPortal, Soon] = WeakKeyDictionary()

    def after_fork(self) -> None:
        """Have nothing again."""
        self.forks += 1
        self.inherited.update(self.ways)
        self.begin()


def _no_forks(**functions: object) -> None: ...


process: Final = Process()
getattr(os, "register_at_fork", _no_forks)(after_in_child=process.after_fork)


def shared_portal() -> BlockingPortal:
    """The portal of the process, started if need be."""
    return process.shared.portal()


def way_into(portal: BlockingPortal) -> Soon:
    """How a thread has a function called in the event loop of ``portal``."""
    if portal not in process.ways:
        process.ways[portal] = portal.call(soon)
    return process.ways[portal]


def refuse_inherited(portal: BlockingPortal) -> None:
    """Raise RuntimeError in a process that inherited the portal by a fork, and not the thread that it leads to."""
    # One that was not in use before the fork has nothing to go by but that.
    thread: int | None = getattr(portal, "_event_loop_thread_id", None)
    is_gone = process.forks > 0 and thread not in {None, *(other.ident for other in threading.enumerate())}
    if is_gone or portal in process.inherited:
        raise RuntimeError(
            "this portal was started before the process was forked, and its thread belongs to the parent: start "
            "another one here, or leave portal= out"
        )


def refuse_event_loop(instead: str) -> None:
    """Raise RuntimeError in a thread that runs an event loop, which would stand still."""
    if trio.lowlevel.in_trio_run() or asyncio._get_running_loop() is not None:
        raise RuntimeError(
            f"this call would block the event loop that runs in this thread: use `{instead}`, or a worker thread"
        )


def refuse_fork(forks: int) -> None:
    """Raise RuntimeError in a process that inherited something by a fork."""
    if forks != process.forks:
        raise RuntimeError(
            "this connection was opened before the process was forked, and belongs to the parent: open another one here"
        )
