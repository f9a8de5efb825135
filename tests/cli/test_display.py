"""Where messages go, and that no terminal is sent what it cannot show."""

from __future__ import annotations

import io
import sys

import pytest

from zapros_websocket import TextMessage
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
