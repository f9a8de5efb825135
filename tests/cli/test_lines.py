"""The input: lines from a descriptor, and lines that are edited."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import anyio
import pytest

from zapros_websocket._cli.lines import EditedLines, RawLines, history_file

pytestmark = pytest.mark.anyio


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


async def all_lines(lines: RawLines) -> list[str]:
    found: list[str] = []
    while (line := await lines.read_line()) is not None:
        found.append(line)
    return found


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\nb\r\n\n\xc3\xa4\n", ["a", "b", "", "ä"]),
        (b"a\nb", ["a", "b"]),
        (b"a\rb\n", ["a\rb"]),
    ],
)
async def test_lines_are_cut_where_they_end(pipe: tuple[int, int], written: bytes, expected: list[str]) -> None:
    reading, writing = pipe
    os.write(writing, written)
    os.close(writing)
    lines = RawLines(reading)
    assert await all_lines(lines) == expected
    assert await lines.read_line() is None


async def test_a_line_may_come_in_pieces(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    lines = RawLines(reading)
    found: list[str | None] = []

    async def read() -> None:
        found.append(await lines.read_line())

    for piece in (b"gr\xc3", b"\xbc", b"n\nnext"):
        os.write(writing, piece)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
    assert found == ["grün"]
    os.close(writing)
    assert await all_lines(lines) == ["next"]


async def test_a_line_that_is_longer_than_a_read_is_whole(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"x" * 200_000 + b"\ny")
    with (tmp_path / "input").open("rb") as file:
        assert await all_lines(RawLines(file.fileno())) == ["x" * 200_000, "y"]


async def test_a_line_that_is_not_utf_8_raises(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.write(writing, b"a\n\xff\n")
    os.close(writing)
    lines = RawLines(reading)
    assert await lines.read_line() == "a"
    with pytest.raises(UnicodeDecodeError):
        await lines.read_line()


async def test_everything_can_be_read_at_once(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.write(writing, b"a\n\xff\x00")
    os.close(writing)
    assert await RawLines(reading).read_all() == b"a\n\xff\x00"


@pytest.mark.parametrize("anyio_backend", [("trio", {})], ids=["trio"])
async def test_a_read_that_waits_can_be_cancelled(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(RawLines(reading).read_line)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    os.close(writing)


# The history


def test_the_history_is_kept_where_the_xdg_rules_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert history_file() == tmp_path / ".local" / "state" / "zapros-ws" / "history"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert history_file() == tmp_path / "state" / "zapros-ws" / "history"


class Keyboard:
    """Edits lines with keys that come one line at a time, as a user's do: behind the prompt."""

    def __init__(self, history: Path) -> None:
        pytest.importorskip("prompt_toolkit", reason="the editor of lines needs prompt_toolkit")
        from prompt_toolkit.application import create_app_session
        from prompt_toolkit.input import create_pipe_input
        from prompt_toolkit.output import DummyOutput

        with ExitStack() as stack:
            self._keys = stack.enter_context(create_pipe_input())
            stack.enter_context(create_app_session(input=self._keys, output=DummyOutput()))
            self._lines = EditedLines(["/help"], history)
            self.close = stack.pop_all().close

    async def line(self, keys: str) -> str | None:
        found: list[str | None] = []

        async def read() -> None:
            found.append(await self._lines.read_line())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            self._keys.send_text(keys)
        return found[0]


LEFT, UP, END, ENTER, CTRL_D = "\x1b[D", "\x1b[A", "\x05", "\r", "\x04"


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
async def test_edited_lines_are_remembered_and_nobody_else_can_read_them(tmp_path: Path) -> None:
    history = tmp_path / "state" / "history"
    with closing(Keyboard(history)) as keyboard:
        assert await keyboard.line(f"helo{LEFT}l{ENTER}") == "hello"
        assert await keyboard.line(f"{UP}{END}!{ENTER}") == "hello!"
        assert await keyboard.line(CTRL_D) is None
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    with closing(Keyboard(history)) as keyboard:
        assert await keyboard.line(f"{UP}{UP}{ENTER}") == "hello"


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
async def test_where_no_history_can_be_kept_lines_are_edited_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with closing(Keyboard(tmp_path / "file" / "history")) as keyboard:
        assert await keyboard.line(f"one{ENTER}") == "one"
        assert await keyboard.line(f"{UP}{ENTER}") == "one"
