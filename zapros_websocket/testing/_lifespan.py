"""The lifespan of an ASGI application: its startup before the first request, its shutdown after the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyio import Event, get_cancelled_exc_class, move_on_after
from zapros import TimeoutError as ZaprosTimeoutError

from ._application import Application, AsgiEvent

_STARTUP: Final = "lifespan.startup"
_SHUTDOWN: Final = "lifespan.shutdown"


class Lifespan:
    """One lifespan. ``run`` runs the application, in a task of its own, from its startup to its shutdown."""

    def __init__(self, application: Application) -> None:
        self.state: dict[str, object] = {}
        self._application = application
        self._asked = [_STARTUP]
        self._answers: dict[str, AsgiEvent] = {}
        self._changed = Event()
        self._is_over = False
        self._error: BaseException | None = None

    async def run(self) -> None:
        """Run the application, and keep what it raises."""
        scope: AsgiEvent = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._application(scope, self._receive, self._send)
        except get_cancelled_exc_class():
            raise
        except BaseException as error:
            # An application that raises before it has answered does not know lifespans (ASGI): it goes on without.
            self._error = error
        finally:
            self._is_over = True
            self._change()

    async def start(self, timeout: float | None) -> None:
        """Wait for the startup.

        Raises:
            BaseException: what the application raised after it had said that the startup failed.
            RuntimeError: it said so and raised nothing.
            zapros.TimeoutError: the startup did not end within ``timeout`` seconds.
        """
        await self._done(_STARTUP, timeout)

    async def stop(self, timeout: float | None) -> None:
        """Ask for the shutdown, if there was a startup, and wait for it; what is raised is as with ``start``."""
        if f"{_STARTUP}.complete" in self._answers:
            self._asked.append(_SHUTDOWN)
            self._change()
            await self._done(_SHUTDOWN, timeout)

    async def _done(self, phase: str, timeout: float | None) -> None:
        with move_on_after(timeout) as scope:
            await self._until(lambda: self._is_over or f"{phase}.complete" in self._answers)
        if scope.cancelled_caught:
            raise ZaprosTimeoutError(f"the {phase} of the application did not end within {timeout:g} seconds")
        failed = self._answers.get(f"{phase}.failed")
        has_begun = f"{_STARTUP}.complete" in self._answers
        if self._error is not None and (failed is not None or has_begun):
            raise self._error
        if failed is not None:
            raise RuntimeError(
                f"the {phase} of the application failed: {failed.get('message') or 'it did not say why'}"
            )

    async def _receive(self) -> AsgiEvent:
        await self._until(lambda: bool(self._asked))
        return {"type": self._asked.pop(0)}

    async def _send(self, event: AsgiEvent) -> None:
        kind = str(event["type"])
        if kind not in {f"{phase}.{outcome}" for phase in (_STARTUP, _SHUTDOWN) for outcome in ("complete", "failed")}:
            raise RuntimeError(f"{kind} is not an event of a lifespan")
        self._answers[kind] = event
        self._change()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def _change(self) -> None:
        self._changed.set()
        self._changed = Event()
