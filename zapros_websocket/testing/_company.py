"""The scripts of one server, and how far each of them has come.

Invariants:

- The first failure is the one that is told.
- Every step has a deadline, but for those that wait for the test.
- Following a script raises nothing: what goes wrong is the failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

import anyio
from anyio.abc import ByteStream, SocketStream

from .._protocol.messages import CloseMessage
from ._peer import ClientLeft, HandshakeRequest, Mismatch, Peer, describe
from ._recording import Entry, Log
from ._script import Script
from ._steps import Accept, Pause, Step

# Seconds for a client to be told that its script has failed.
_LAST_WORDS: Final = 2.0

_T = TypeVar("_T")


class ScriptFailed(AssertionError):
    """A client did not do what a script expected. The message says what, and what had been exchanged before."""


class Cue:
    """A pause that the scripts have."""

    def __init__(self) -> None:
        self.is_reached = False
        self.resumed = anyio.Event()


class Play:
    """A script on a connection, and how far it has come."""

    def __init__(self, number: int, script: Script) -> None:
        self.number = number
        self.script = script
        self.steps = _with_accept(script.steps)
        self.position = 0
        self.request: HandshakeRequest | None = None
        self.is_waiting_for_the_test = False

    @property
    def is_done(self) -> bool:
        return self.position == len(self.steps)

    @property
    def misses_nothing(self) -> bool:
        return self.is_done or self.steps[self.position].is_open_ended


class Company:
    """All scripts and connections of one server."""

    def __init__(self, scripts: tuple[Script, ...], afterwards: Script | None, timeout: float) -> None:
        self.entries: list[Entry] = []
        self.log = Log(anyio.current_time, self.entries.append)
        self.plays: list[Play] = []
        self.failure: ScriptFailed | None = None
        # Whether that is all that has failed, which then may be the consequence of what the block raised.
        self.client_left = False
        self._scripts = scripts
        self._afterwards = afterwards
        self._timeout = timeout
        self._changed = anyio.Event()
        names = [
            step.name
            for script in (*scripts, afterwards or Script())
            for step in script.steps
            if isinstance(step, Pause)
        ]
        self._cues = {name: Cue() for name in names}
        self._play_of: dict[Peer, Play] = {}

    # What the test asks for

    def cue(self, name: str) -> Cue:
        """The pause of this name."""
        if name not in self._cues:
            there = ", ".join(map(repr, self._cues)) or "none at all"
            raise ValueError(f"no script pauses at {name!r}; there is {there}")
        return self._cues[name]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        while not condition():
            await self._changed.wait()

    async def settle(self) -> None:
        """Wait until every script that has begun is done, has failed, or waits for the test."""
        await self.until(
            lambda: (
                self.failure is not None
                or all(play.misses_nothing or play.is_waiting_for_the_test for play in self.plays)
            )
        )

    def unfinished(self) -> ScriptFailed | None:
        """The failure that it is to end now."""
        for play in self.plays:
            if not play.misses_nothing:
                was_left = "did not resume it" if play.is_waiting_for_the_test else "did not wait for it"
                return self._failed(play, f"the test ended and {was_left}")
        if len(self.plays) < len(self._scripts):
            return ScriptFailed(
                f"connection {len(self.plays) + 1} was never opened: there are scripts for {len(self._scripts)}"
                f"{self._exchanged()}"
            )
        return None

    # What steps ask for

    def request_of(self, peer: Peer) -> HandshakeRequest:
        """The opening handshake of this connection."""
        request = self._play_of[peer].request
        assert request is not None
        return request

    async def pause(self, peer: Peer, name: str) -> None:
        """Say that the pause is reached, and wait until it is over."""
        play, cue = self._play_of[peer], self._cues[name]
        cue.is_reached = play.is_waiting_for_the_test = True
        self._change()
        await cue.resumed.wait()
        play.is_waiting_for_the_test = False

    # How it is done

    async def perform(self, socket: SocketStream, stream: ByteStream) -> None:
        """Follow the next script on a new connection."""
        number = len(self.plays) + 1
        script = self._scripts[number - 1] if number <= len(self._scripts) else self._afterwards
        play = Play(number, script or Script())
        peer = Peer(number, socket, stream, self.log)
        peer.answers_pings = play.script.answers_pings
        self.plays.append(play)
        self._play_of[peer] = play
        try:
            play.request = await self._within_time(peer.request())
            if script is None:
                raise Mismatch(f"there are scripts for {len(self._scripts)} connections, and this is one more")
            while not play.is_done:
                step = play.steps[play.position]
                action = step.run(peer, self)
                await (self._within_time(action) if step.is_timed else action)
                play.position += 1
                self._change()
            await self._serve_the_end(peer)
        except Mismatch as mismatch:
            if self.failure is None:
                self.client_left = isinstance(mismatch, ClientLeft)
            await self._fail(play, peer, str(mismatch), None)
        except Exception as error:
            # A function of the test that was to judge what came, most likely.
            await self._fail(play, peer, f"{error!r} was raised", error)

    async def _fail(self, play: Play, peer: Peer, what: str, cause: Exception | None) -> None:
        if self.failure is None:
            self.failure = self._failed(play, what)
            if cause is not None:
                # None would hide what the block raises.
                self.failure.__cause__ = cause
        self._change()
        with anyio.move_on_after(_LAST_WORDS), suppress(Mismatch):
            await peer.give_up(f"the script failed: {what}")

    async def _within_time(self, action: Awaitable[_T]) -> _T:
        with anyio.move_on_after(self._timeout):
            return await action
        raise Mismatch(f"that did not happen within {self._timeout:g} seconds")

    async def _serve_the_end(self, peer: Peer) -> None:
        if not peer.has_accepted:
            await peer.end()
        while not peer.is_over and (message := await peer.receive()) is not None:
            if isinstance(message, CloseMessage):
                await peer.answer_close()
            elif not await peer.pass_over(message):
                raise Mismatch(f"{describe(message)} came")

    def _failed(self, play: Play, what: str) -> ScriptFailed:
        if play.is_done:
            where = f"the script of connection {play.number} was done"
        else:
            step = play.steps[play.position]
            where = f"connection {play.number}, step {play.position + 1} of {len(play.steps)}: {step}"
        return ScriptFailed(f"{where}, but {what}{self._exchanged()}")

    def _exchanged(self) -> str:
        if not self.entries:
            return "\n  nothing had been exchanged"
        lines = [
            f"    {entry.connection} {entry.time:.3f} {'>' if entry.sender == 'client' else '<'} "
            f"{entry.said(shortened=True)}"
            for entry in self.entries
        ]
        return "\n".join(["\n  what had been exchanged (connection, seconds, > client or < server):", *lines])

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _with_accept(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps with an ``accept`` before the first that needs it, or behind all that are no answer."""
    if any(isinstance(step, Accept) for step in steps):
        return steps
    for position, step in enumerate(steps):
        if step.needs_frames:
            return (*steps[:position], Accept("accept()"), *steps[position:])
    return steps if any(step.is_answer for step in steps) else (*steps, Accept("accept()"))
