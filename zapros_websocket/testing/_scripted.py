"""A server that follows scripts, one for each connection, and says where a client did otherwise.

Invariants:

- A client that said something wrong comes out of the block as ``ScriptFailed``, whatever else came out of it.
- A script that was not done when the block ended in order fails. One whose block raised does not, and neither does one
  whose client left: then what the block raised is to blame, and comes out as it is.
- Leaving the block never waits without bound.
"""

from __future__ import annotations

from contextlib import suppress
from ssl import SSLContext
from types import TracebackType
from typing import Final

import anyio
from anyio.abc import SocketStream
from anyio.from_thread import BlockingPortal
from anyio.streams.tls import TLSStream

from .._protocol.options import check_number
from ._company import Company, ScriptFailed
from ._peer import GONE, HandshakeRequest
from ._recording import Entry
from ._script import Script
from ._serving import InThread, Listening

_NOT_TO_BE_HIDDEN: Final = (KeyboardInterrupt, SystemExit)


class ScriptedServer:
    """A running server that follows scripts.

    Attributes:
        url: The address to connect to, with a final slash: append a path.
        port: The TCP port on 127.0.0.1.
    """

    def __init__(self, url: str, port: int, company: Company) -> None:
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
        return list(self._company.entries)

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
        for script in (*scripts, afterwards):
            if script is not None and not isinstance(script, Script):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"a script is a Script, not {script!r}")
        check_number("timeout", timeout, (int, float))
        self._scripts = scripts
        self._afterwards = afterwards
        self._timeout = timeout
        self._tls = tls

    async def __aenter__(self) -> ScriptedServer:
        self._company = Company(self._scripts, self._afterwards, self._timeout)
        self._listening = Listening(self._converse)
        port = await self._listening.start()
        scheme = "ws" if self._tls is None else "wss"
        return ScriptedServer(f"{scheme}://127.0.0.1:{port}/", port, self._company)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True  # for pytest
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
        __tracebackhide__ = True  # for pytest
        try:
            self._thread.stop(exc_type, exc, traceback)
        except ScriptFailed as failure:
            # How it came from one thread into the other tells nobody anything.
            raise failure.with_traceback(None)  # noqa: B904 (it is the same)

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
