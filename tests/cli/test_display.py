"""Where messages go, and that no terminal is sent what it cannot show."""

from __future__ import annotations

import io
import sys

import pytest

from zapros_websocket import BinaryMessage, TextMessage
from zapros_websocket._cli.display import Display

pytestmark = pytest.mark.anyio


class AsciiTerminal(io.TextIOWrapper):
    """A terminal from before Unicode."""

    def __init__(self) -> None:
        self.shown = io.BytesIO()
        super().__init__(self.shown, encoding="ascii")

    def isatty(self) -> bool:
        return True


async def test_a_terminal_without_a_character_gets_its_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = AsciiTerminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        await Display(pretty=False, quiet=False, coloured=False).show(TextMessage("Gr\xfcn"))
    assert terminal.shown.getvalue() == b"< Gr\\xfcn\n"


async def test_only_json_has_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich", reason="colours need rich")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = AsciiTerminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        display = Display(pretty=True, quiet=False, coloured=True)
        for message in (TextMessage('[red] is not 12, "true"'), BinaryMessage(b"12"), TextMessage("12")):
            await display.show(message)
    plain, binary, json = terminal.shown.getvalue().splitlines()
    assert (plain, binary) == (b'< [red] is not 12, "true"', b"< binary, 2 bytes: 31 32")
    assert json.startswith(b"< \x1b[")
