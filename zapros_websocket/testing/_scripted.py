"""A server that follows scripts, one for each connection, and says where a client did otherwise.

Invariants:

- A client that said something wrong comes out of the block as ``ScriptFailed``, whatever else came out of it.
- A script that was not done when the block ended in order fails. One whose block raised does not, and neither does one
  whose client left: then what the block raised is to blame, and comes out as it is.
- Every step has a deadline, but for those that wait for the test.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from ssl import SSLContext
from types import TracebackType
from typing import Final, TypeVar

import anyio
from anyio.abc import SocketStream
from anyio.from_thread import BlockingPortal
from anyio.streams.tls import TLSStream

from .._protocol.messages import CloseMessage
from ._peer import GONE, ClientLeft, HandshakeRequest, Mismatch, Peer, describe
from ._recording import Entry, Log
from ._script import Script
from ._serving import InThread, Listening
from ._steps import Accept, Pause, Step

# Seconds for a client to be told that its script has failed.
_LAST_WORDS: Final = 2.0

_NOT_TO_BE_HIDDEN: Final = (KeyboardInterrupt, SystemExit)

_T = TypeVar("_T")


class ScriptFailed(AssertionError):
    """A client did not do what a script expected. The message says what, and what had been exchanged before."""


class ScriptedServer:
    """A running server that follows scripts.

    Attributes:
        url: The address to connect to, with a final slash: append a path.
        port: The TCP port on 127.0.0.1.
    """

    def __init__(self, url: str, port: int, company: _Company) -> None:
        self.url = url
        self.port = port
        self._company = company

    @property
    def requests(self) -> list[HandshakeRequest]:
        """The opening handshakes so far, in the order of the connections."""
        return [play.request for play in self._company.plays if play.request is not None]

    @property
    def transcript(self) -> list[Entry]:
        """What was exchanged so far; ``str`` of an entry is a line."""
        return list(self._company.log.entries)

    def resume(self, name: str) -> None:
        """Let the script go on that pauses, or will pause, with this name.

        Raises:
            ValueError: no script has such a pause.
        """
        self._company.cue(name).resumed.set()

    async def reached(self, name: str) -> None:
        """Wait until a script has come to the pause of this name. Cancelling it has no effect.

        Raises:
            ScriptFailed: a script has failed.
            ValueError: no script has such a pause.
        """
        cue = self._company.cue(name)
        await self._company.until(lambda: cue.is_reached or self._company.failure is not None)
        self.check()

    def check(self) -> None:
        """Raise ScriptFailed if a script has failed so far."""
        if self._company.failure is not None:
            raise self._company.failure


class SyncScriptedServer:
    """A server that follows scripts in a thread of its own. The attributes are those of ``ScriptedServer``."""

    def __init__(self, server: ScriptedServer, portal: BlockingPortal) -> None:
        self.url = server.url
        self.port = server.port
        self._server = server
        self._portal = portal

    @property
    def requests(self) -> list[HandshakeRequest]:
        """The opening handshakes so far, in the order of the connections."""
        return self._server.requests

    @property
    def transcript(self) -> list[Entry]:
        """What was exchanged so far."""
        return self._server.transcript

    def resume(self, name: str) -> None:
        """Let the script go on that pauses, or will pause, with this name."""
        self._portal.call(self._server.resume, name)

    def reached(self, name: str, timeout: float = 5.0) -> None:
        """Wait for up to ``timeout`` seconds until a script has come to the pause of this name.

        Raises:
            ScriptFailed: a script has failed.
            TimeoutError: none has come to it in time.
        """

        async def reached() -> bool:
            with anyio.move_on_after(timeout):
                await self._server.reached(name)
                return True
            return False

        if not self._portal.call(reached):
            raise TimeoutError(f"no script came to the pause {name!r} within {timeout:g} seconds")

    def check(self) -> None:
        """Raise ScriptFailed if a script has failed so far."""
        self._server.check()


class scripted_server:
    """Serve scripts on a free port of 127.0.0.1 while the block runs: the first connection gets the first, and so on.

    With ``async with`` it runs in the caller's event loop and gives a ``ScriptedServer``; with a plain ``with`` it runs
    in a thread of its own and gives a ``SyncScriptedServer``.

    When the block has ended, scripts that are under way have until their deadlines to come to their ends. A block
    that was cancelled, or raised, is not held up.

    Args:
        scripts: A script for each connection.
        afterwards: The script of every further connection. Without it, a further connection is a failure.
        timeout: Seconds in which each step must be done.
        tls: A server-side context, for wss.

    Raises:
        ScriptFailed: when the block is left: a client did otherwise than its script, or did not do all of it. It is
            an AssertionError. When the block has raised too, it takes the place of that, which becomes its context, if
            the client had said something wrong; and not if the client had only left.
    """

    def __init__(
        self,
        *scripts: Script,
        afterwards: Script | None = None,
        timeout: float = 5.0,
        tls: SSLContext | None = None,
    ) -> None:
        self._scripts = scripts
        self._afterwards = afterwards
        self._timeout = timeout
        self._tls = tls

    async def __aenter__(self) -> ScriptedServer:
        self._company = _Company(self._scripts, self._afterwards, self._timeout)
        self._listening = Listening(self._converse)
        port = await self._listening.start()
        scheme = "ws" if self._tls is None else "wss"
        return ScriptedServer(f"{scheme}://127.0.0.1:{port}/", port, self._company)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if exc is None:
                await self._company.settle()
        finally:
            await self._listening.stop()
        company = self._company
        if exc is None and (failure := company.failure or company.unfinished()) is not None:
            raise failure
        if company.failure is not None and not company.client_left and not isinstance(exc, _NOT_TO_BE_HIDDEN):
            raise company.failure

    def __enter__(self) -> SyncScriptedServer:
        self._thread = InThread(self)
        return SyncScriptedServer(*self._thread.start())

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.stop(exc_type, exc, traceback)

    async def _converse(self, socket: SocketStream) -> None:
        with suppress(*GONE):
            async with socket:
                if self._tls is None:
                    await self._company.perform(socket, socket)
                else:
                    tls = await TLSStream.wrap(
                        socket, server_side=True, ssl_context=self._tls, standard_compatible=False
                    )
                    await self._company.perform(socket, tls)


class _Cue:
    """A pause that the scripts have."""

    def __init__(self) -> None:
        self.is_reached = False
        self.resumed = anyio.Event()


class _Play:
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


class _Company:
    """All scripts and connections of one server."""

    def __init__(self, scripts: tuple[Script, ...], afterwards: Script | None, timeout: float) -> None:
        self.log = Log(anyio.current_time)
        self.plays: list[_Play] = []
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
        self._cues = {name: _Cue() for name in names}
        self._play_of: dict[Peer, _Play] = {}

    # What the test asks for

    def cue(self, name: str) -> _Cue:
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
                return self._failed(play, "the test ended and did not resume it")
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

    async def perform(self, socket: SocketStream, stream: anyio.abc.ByteStream) -> None:
        """Follow the next script on a new connection."""
        number = len(self.plays) + 1
        script = self._scripts[number - 1] if number <= len(self._scripts) else self._afterwards
        play = _Play(number, script or Script())
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

    async def _fail(self, play: _Play, peer: Peer, what: str, cause: Exception | None) -> None:
        if self.failure is None:
            self.failure = self._failed(play, what)
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

    def _failed(self, play: _Play, what: str) -> ScriptFailed:
        if play.is_done:
            where = f"the script of connection {play.number} was done"
        else:
            step = play.steps[play.position]
            where = f"connection {play.number}, step {play.position + 1} of {len(play.steps)}: {step}"
        return ScriptFailed(f"{where}, but {what}{self._exchanged()}")

    def _exchanged(self) -> str:
        if not self.log.entries:
            return "\n  nothing had been exchanged"
        lines = [
            f"    {entry.connection} {entry.time:.3f} {'>' if entry.sender == 'client' else '<'} "
            f"{entry.said(shortened=True)}"
            for entry in self.log.entries
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
