"""What the user sees: messages on standard output, remarks on standard error.

Invariants:

- Messages and remarks never share a stream, so that a pipe gets nothing but messages.
- A reader of the pipe that does not read stops this program, and not its event loop; one that is gone ends it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from anyio import to_thread

from .._protocol.messages import BinaryMessage, TextMessage
from .rendering import for_a_pipe, for_a_terminal, indented, printable


class Display:
    """Shows what comes. Colours are for JSON on a terminal, and need rich."""

    def __init__(self, *, pretty: bool, quiet: bool, coloured: bool) -> None:
        self._pretty = pretty
        self._quiet = quiet
        self._is_terminal = sys.stdout.isatty()
        self._coloured = _coloured() if self._is_terminal and pretty and coloured else None

    async def show(self, message: TextMessage | BinaryMessage) -> None:
        """A message of the peer.

        Raises:
            BrokenPipeError: nobody reads it.
            OSError: it cannot be written.
        """
        json = indented(message) if self._pretty else None
        message = json or message
        if self._is_terminal:
            encoding = sys.stdout.encoding
            text = for_a_terminal(message).encode(encoding, "backslashreplace").decode(encoding)
            if self._coloured is None or json is None:
                print(text, flush=True)
            else:
                self._coloured(text)
        else:
            await to_thread.run_sync(_write, for_a_pipe(message), abandon_on_cancel=True)

    def say(self, text: str) -> None:
        """A remark about the conversation; none with ``--quiet``."""
        if not self._quiet:
            self.complain(text)

    def explain(self, text: str) -> None:
        """An answer to the user, in as many lines as it has."""
        print(text, file=sys.stderr, flush=True)

    def complain(self, text: str) -> None:
        """Why it did not work."""
        print(printable(text), file=sys.stderr, flush=True)


def _write(data: bytes) -> None:
    # Not through the buffer of sys.stdout: a thread that is left behind in there breaks the end of the interpreter.
    left = memoryview(data)
    while left:
        left = left[os.write(sys.stdout.fileno(), left) :]


def _coloured() -> Callable[[str], None]:
    from rich.console import Console
    from rich.highlighter import JSONHighlighter
    from rich.text import Text

    highlight = JSONHighlighter()

    def show(text: str) -> None:
        # Made anew, because standard output is another one while a line is edited.
        console = Console(force_terminal=True, soft_wrap=True, highlight=False)
        console.print(highlight(Text(text)))

    return show
