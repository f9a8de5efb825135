"""The installed command in a real terminal: tmux types, and what stands on its screen is read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux: install it to try a real terminal"),
]

PROMPT: Final = "READY"
PATIENCE: Final = 30.0


class Screen:
    """A terminal of 80 columns and 24 lines, with a shell in it."""

    def __init__(self, folder: Path) -> None:
        self._tmux = ["tmux", "-S", str(folder / "socket"), "-f", "/dev/null"]
        environment = {**os.environ, "XDG_STATE_HOME": str(folder), "PS1": f"{PROMPT} ", "TERM": "screen"}
        environment.pop("TMUX", None)
        shell = ["env", "-u", "PROMPT_COMMAND", "bash", "--norc", "--noprofile"]
        self._call("new-session", "-d", "-x", "80", "-y", "24", *shell, environment=environment)
        self.shows(PROMPT)

    def type(self, *keys: str) -> None:
        """Names of keys, such as Enter, or text."""
        self._call("send-keys", *keys)

    def command(self, *arguments: str) -> None:
        """Run ``zapros-ws``, and print its status behind it."""
        words = " ".join(f"'{word}'" for word in (sys.executable, "-m", "zapros_websocket", *arguments))
        self.type(f"clear; {words}; echo status=$?", "Enter")

    def text(self) -> str:
        """What stands on the screen, behind a line break: so each line has one in front."""
        return "\n" + self._call("capture-pane", "-p")

    def shows(self, *expected: str) -> str:
        """Wait until all of this stands there."""
        give_up_at = time.monotonic() + PATIENCE
        while not all(words in (text := self.text()) for words in expected):
            assert time.monotonic() < give_up_at, f"{expected} did not appear on\n{text}"
            time.sleep(0.05)
        return text

    def close(self) -> None:
        self._call("kill-server")

    def _call(self, *arguments: str, environment: dict[str, str] | None = None) -> str:
        finished = subprocess.run(
            [*self._tmux, *arguments], env=environment, capture_output=True, encoding="utf-8", check=True
        )
        return finished.stdout


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    screen = Screen(tmp_path)
    yield screen
    screen.close()


def test_a_conversation_on_a_terminal(screen: Screen, url: str, tmp_path: Path) -> None:
    pytest.importorskip("prompt_toolkit", reason="the editor of lines needs prompt_toolkit")
    (tmp_path / "data").write_bytes(b"\x00\x01\xff")
    screen.command(url, "--json", "--deflate")
    screen.shows(f"connected to {url} (compressed)", "\n>\n")
    screen.type("helo", "Left", "l", "Enter")
    screen.shows("> hello\n", "< hello\n")
    screen.type('{"a": [1, "\\u202e"]}', "Enter")
    screen.shows('< {\n    "a": [\n      1,\n      "\\u202e"\n    ]\n  }\n')
    screen.type("/fi", "Tab")
    screen.shows("> /file")
    screen.type(f"{tmp_path / 'data'}", "Enter")
    screen.shows("< binary, 3 bytes: 00 01 ff\n")
    screen.type("/ping", "Enter")
    screen.shows("pong after ")
    screen.type("Up", "Up", "Up", "Up")
    screen.shows("\n> hello\n")
    screen.type("C-u", "half a line")
    screen.shows("\n> half a line\n")
    screen.type("C-c")
    screen.shows("status=130")


def test_what_comes_while_a_line_is_typed_stands_above_it(screen: Screen, url: str) -> None:
    pytest.importorskip("prompt_toolkit", reason="the editor of lines needs prompt_toolkit")
    screen.command(url, "--ping", "0.5")
    screen.shows("\n>\n")
    screen.type("half a line")
    text = screen.shows("pong after ", "half a line")
    lines = text.rstrip().split("\n")
    assert lines[-1] == "> half a line"
    assert lines[-2].startswith("pong after ")
    screen.type("C-u", "C-d")
    screen.shows("status=0")


def test_the_history_outlives_the_command(screen: Screen, url: str) -> None:
    pytest.importorskip("prompt_toolkit", reason="the editor of lines needs prompt_toolkit")
    screen.command(url, "-q")
    screen.shows("\n>\n")
    screen.type("remember me", "Enter")
    screen.shows("< remember me")
    screen.type("C-d")
    screen.shows("status=0")
    screen.command(url, "-q")
    screen.shows("\n>\n")
    screen.type("Up")
    screen.shows("> remember me")
    screen.type("C-c")
    screen.shows("status=130")


def test_ctrl_z_leaves_it_to_the_shell_to_go_on(screen: Screen, url: str) -> None:
    pytest.importorskip("prompt_toolkit", reason="the editor of lines needs prompt_toolkit")
    screen.command(url, "-q")
    screen.shows("\n>\n")
    screen.type("half a line", "C-z")
    screen.shows("Stopped", f"\n{PROMPT}\n")
    screen.type("clear; fg; echo ended=$?", "Enter")
    screen.shows("\n> half a line\n")
    screen.type(" more", "Enter")
    screen.shows("< half a line more")
    screen.type("C-d")
    screen.shows("ended=0")
    screen.type("echo as $((1 + 1)) be", "Enter")
    screen.shows("echo as $((1 + 1)) be\n", "\nas 2 be\n")


def test_a_server_that_closes_ends_the_prompt(screen: Screen, url: str) -> None:
    screen.command(f"{url}close/1013/%1B%5B2Jbusy")
    text = screen.shows("status=5")
    assert "closed by the server: 1013 '\\x1b[2Jbusy'" in text


def test_the_measurement_is_live_and_ends_with_ctrl_c(screen: Screen, url: str) -> None:
    pytest.importorskip("rich", reason="the live view needs rich")
    screen.command("bench", url, "--count", "100000000")
    screen.shows("round trips", "p99.9", " ms")
    screen.type("C-c")
    text = screen.shows("status=130")
    assert text.count("round trips") == 1, "the live table is to be gone"


def test_typed_lines_go_out_while_messages_go_to_a_file(screen: Screen, url: str, tmp_path: Path) -> None:
    words = " ".join(f"'{word}'" for word in (sys.executable, "-m", "zapros_websocket", url))
    screen.type(f"clear; {words} > '{tmp_path / 'out'}'; echo status=$?", "Enter")
    screen.shows(f"connected to {url}")
    screen.type("one", "Enter", "two", "Enter")
    give_up_at = time.monotonic() + PATIENCE
    while (tmp_path / "out").read_text() != "one\ntwo\n":
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    screen.type("C-d")
    screen.shows("status=0")
