"""The command in this process, on a pseudo-terminal that a thread types at: with the libraries, and without them."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

import pytest

from zapros_websocket._cli import command
from zapros_websocket._cli.command import main

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")

CTRL_C: Final = b"\x03"
CTRL_D: Final = b"\x04"


class Typist(threading.Thread):
    """Types each line when what stands before it has appeared."""

    def __init__(self, terminal: int, *script: tuple[bytes, bytes]) -> None:
        super().__init__(daemon=True)
        self._terminal = terminal
        self._script = script
        self.seen = b""

    def run(self) -> None:
        for expected, keys in self._script:
            begin = len(self.seen)
            while expected not in self.seen[begin:]:
                self._read()
            os.write(self._terminal, keys)
        while self._read():
            pass

    def _read(self) -> bool:
        try:
            data = os.read(self._terminal, 65536)
        except OSError:
            # The other end is closed.
            return False
        self.seen += data
        return True


def app_session() -> AbstractContextManager[object]:
    """Lets prompt_toolkit look at the terminal that there is now, and not at that of an earlier test."""
    try:
        from prompt_toolkit.application import create_app_session
    except ModuleNotFoundError:
        return nullcontext()
    return create_app_session()


class Terminal:
    """Runs the command with a terminal for its input and output."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def run(self, *arguments: str, script: tuple[tuple[bytes, bytes], ...]) -> tuple[int, str]:
        ours, theirs = os.openpty()
        typist = Typist(ours, *script)
        with os.fdopen(theirs, "r", closefd=False) as stdin, os.fdopen(theirs, "w") as stdout:
            with self._monkeypatch.context() as patch:
                patch.setattr(sys, "stdin", stdin)
                patch.setattr(sys, "stdout", stdout)
                patch.setattr(sys, "stderr", stdout)
                typist.start()
                with app_session():
                    status = main(arguments)
        typist.join()
        os.close(ours)
        return status, typist.seen.decode().replace("\r\n", "\n")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return Terminal(monkeypatch)


def without_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        return None

    monkeypatch.setattr(command, "find_spec", nothing)


def test_lines_are_edited_and_json_has_colours(terminal: Terminal, url: str, tmp_path: Path) -> None:
    pytest.importorskip("prompt_toolkit", reason="the editor of lines needs prompt_toolkit")
    pytest.importorskip("rich", reason="colours need rich")
    status, seen = terminal.run(
        url,
        "--json",
        script=((b"connected", b'["a"]\r'), (b"< ", b"/help\r"), (b"show this", b"//x\r"), (b"< /x", CTRL_D)),
    )
    assert status == 0
    assert "\x1b[32m" in seen
    assert '+["a"]\n' in (tmp_path / "zapros-ws" / "history").read_text()


def test_ctrl_c_closes_while_a_line_is_edited(terminal: Terminal, url: str) -> None:
    pytest.importorskip("prompt_toolkit", reason="the editor of lines needs prompt_toolkit")
    status, _ = terminal.run(url, script=((b">", b"half a line"), (b"half a line", CTRL_C)))
    assert status == 130


def test_the_terminal_is_asked_nothing_that_it_could_answer_to_the_shell(terminal: Terminal, url: str) -> None:
    pytest.importorskip("prompt_toolkit", reason="the editor of lines needs prompt_toolkit")
    _, seen = terminal.run(url, script=((b">", b"half a line"), (b"half a line", CTRL_C)))
    where_is_the_cursor = "\x1b[6n"
    assert where_is_the_cursor not in seen


def test_without_the_libraries_the_terminal_edits(
    terminal: Terminal, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_libraries(monkeypatch)
    script = ((b"connected", b"hel\x7fllo \x1b[2J\n"), (b"< ", b"/close 4000 bye\n"))
    status, seen = terminal.run(url, "--json", script=script)
    assert status == 0
    assert "< hello \\x1b[2J\n" in seen


def test_without_the_libraries_ctrl_d_closes(terminal: Terminal, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_libraries(monkeypatch)
    assert terminal.run(url, script=((b"connected", CTRL_D),))[0] == 0


@pytest.mark.parametrize("libraries", [True, False], ids=["rich", "plain"])
def test_the_measurement_is_shown_while_it_goes_on(
    libraries: bool, terminal: Terminal, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if libraries:
        pytest.importorskip("rich", reason="the live view needs rich")
    else:
        without_libraries(monkeypatch)
    status, seen = terminal.run("bench", url, "--count", "50", script=())
    assert status == 0
    assert seen.count("round trips") >= (2 if libraries else 1)
    assert ("\x1b[" in seen) is libraries
