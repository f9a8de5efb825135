"""The input: lines that the user edits on a terminal, or whatever comes from a pipe.

Invariants:

- Reading never blocks the event loop, and a read that nobody waits for any more does not keep the process alive.
- What is typed is not torn apart by what arrives meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

from anyio import to_thread

READ_SIZE: Final = 64 * 1024


class Lines(Protocol):
    """Where the input comes from."""

    async def read_line(self) -> str | None:
        """The next line, without its end; None at the end of the input.

        Raises:
            UnicodeDecodeError: the input is not UTF-8.
        """
        ...


class RawLines:
    """The lines of a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()
        self._searched = 0
        self._has_ended = False

    async def read_line(self) -> str | None:
        """The next line: one that the end of the input cuts off is one too."""
        while (end := self._buffer.find(b"\n", self._searched)) < 0 and not self._has_ended:
            self._searched = len(self._buffer)
            await self._read()
        if end < 0:
            line, self._buffer = bytes(self._buffer), bytearray()
            return line.decode() if line else None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line.removesuffix(b"\r").decode()

    async def read_all(self) -> bytes:
        """Everything up to the end of the input."""
        while not self._has_ended:
            await self._read()
        return bytes(self._buffer)

    async def _read(self) -> None:
        # Not through the buffer of sys.stdin: a thread that is left behind in there breaks the end of the interpreter.
        data = await to_thread.run_sync(os.read, self._descriptor, READ_SIZE, abandon_on_cancel=True)
        self._buffer += data
        self._has_ended = not data


class EditedLines:
    """Lines that the user edits, with a history that outlives the process. Needs prompt_toolkit, and asyncio."""

    def __init__(self, commands: Sequence[str], history: Path) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.application import get_app_session
        from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import FileHistory, InMemoryHistory
        from prompt_toolkit.output.vt100 import Vt100_Output

        output = get_app_session().output
        if isinstance(output, Vt100_Output):
            # Where the cursor is, a terminal can answer after the end, and then to the shell.
            output.enable_cpr = False
        kept = FileHistory(str(history)) if _make_private(history) else InMemoryHistory()
        self._session: PromptSession[str] = PromptSession(
            "> ",
            history=kept,
            auto_suggest=AutoSuggestFromHistory(),
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
            enable_suspend=True,
        )

    @contextmanager
    def shown_beside(self) -> Generator[None]:
        """What is printed in the block appears above the line that is being edited."""
        from prompt_toolkit.patch_stdout import patch_stdout

        has_termios = find_spec("termios") is not None
        with _unechoed(sys.stdin.fileno()) if has_termios else nullcontext(), patch_stdout(raw=True):
            yield

    async def read_line(self) -> str | None:
        """The next line; None after Ctrl-D. Ctrl-C becomes the signal that it is elsewhere."""
        while True:
            try:
                return await self._session.prompt_async(handle_sigint=False)
            except EOFError:
                return None
            except KeyboardInterrupt:
                signal.raise_signal(signal.SIGINT)


@contextmanager
def _unechoed(terminal: int) -> Generator[None]:
    # Between two lines the editor gives the terminal back, which would eat a Ctrl-D and show what is typed ahead. So it
    # is given back to a mode that keeps both for the next line, and in which only Ctrl-C takes effect at once.
    import termios

    before = termios.tcgetattr(terminal)
    unechoed = termios.tcgetattr(terminal)
    unechoed[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(terminal, termios.TCSANOW, unechoed)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)


def history_file() -> Path:
    """Where the history is kept, by the rules of the XDG base directories."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state else Path.home() / ".local" / "state") / "zapros-ws" / "history"


def _make_private(path: Path) -> bool:
    # What was typed may be secret.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return False
    return True
