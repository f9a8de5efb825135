"""A stream that only has blocking methods, driven by threads of its own.

Invariants:

- Cancelling ``receive`` loses nothing: the thread reads on, and what it reads is for the next call.
- A thread that is stuck is left behind when the stream is closed, and keeps neither the connection nor the interpreter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import ClassVar, Final, Generic, TypeVar

from anyio import CancelScope, Event, move_on_after
from zapros import BaseNetworkStream

from .._soon import Soon, soon
from .base import READ_SIZE, Sink, pump

# Below what zapros's own TLS in memory hands to the socket at once, less what TLS adds.
_PIECE: Final = 32 * 1024

# Seconds that closing may take, whatever more is granted: the closing handshake is over by then.
_SHORT: Final = 0.5

_T = TypeVar("_T")


class BlockingStream:
    """A stream of a caller, by its public methods ``read``, ``write_all`` and ``close``.

    One thread reads and another writes, so both are called at the same time.
    """

    carries_control: ClassVar[bool] = True

    def __init__(self, stream: BaseNetworkStream) -> None:
        self._stream = stream
        self._soon = soon()
        self._reader = _Worker("zapros_websocket reader")
        self._writer = _Worker("zapros_websocket writer")
        self._reading: _Job[bytes] | None = None

    async def receive(self) -> bytes:
        """Wait for some bytes; none at the end of the stream."""
        if self._reading is None:
            self._reading = self._reader.start(lambda: self._stream.read(READ_SIZE), self._soon)
        await self._reading.done.wait()
        finished, self._reading = self._reading, None
        return finished.result()

    async def pump(self, sink: Sink) -> None:
        """Receive until ``sink`` wants no more. Cancelling it loses nothing."""
        await pump(self, sink)

    async def wait_writable(self) -> None:
        """Nobody can tell."""

    async def send_all(self, data: bytes | memoryview) -> None:
        """Write all of ``data``."""
        data = bytes(data)

        def write() -> None:
            for start in range(0, len(data), _PIECE):
                self._stream.write_all(data[start : start + _PIECE])

        job = self._writer.start(write, self._soon)
        await job.done.wait()
        job.result()

    async def aclose(self, *, grace: float) -> None:
        """Close, and leave behind what does not react to that."""
        self._reader.stop()
        self._writer.stop()
        closer = _Worker("zapros_websocket closer")
        with CancelScope(shield=True), move_on_after(_SHORT):
            job = closer.start(self._stream.close, self._soon)
            closer.stop()
            await job.done.wait()
            job.result()


class _Job(Generic[_T]):
    """Something that a thread does, and what came of it."""

    def __init__(self, function: Callable[[], _T]) -> None:
        self.done = Event()
        self._function = function
        self._value: list[_T] = []
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            self._value.append(self._function())
        except Exception as error:
            self._error = error
        except BaseException as error:
            # Such as a SystemExit, which would end the event loop, and with it the connections of others.
            self._error = RuntimeError(f"the stream raised {error!r}")
            self._error.__cause__ = error

    def result(self) -> _T:
        """What it returned; or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._value[0]


class _Worker:
    """A thread that does one job after the other. A daemon: it may be stuck when the interpreter ends."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[tuple[_Job[object], Soon] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def start(self, function: Callable[[], _T], soon: Soon) -> _Job[_T]:
        job = _Job(function)
        self._jobs.put((job, soon))  # type: ignore[arg-type]
        return job

    def stop(self) -> None:
        self._jobs.put(None)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, soon = item
            job.run()
            soon(job.done.set)
