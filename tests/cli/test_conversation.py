"""One connection at the command line, on a network in memory and a clock that jumps."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import anyio
import pytest
import zapros
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping
from wsproto.events import TextMessage as WsprotoText

from tests.memory import Backend, MemoryServer, autojump
from zapros_websocket import BinaryMessage, CloseMessage, ConnectionClosed, TextMessage, aconnect_ws
from zapros_websocket._cli.conversation import HELP, Conversation, how_it_ended
from zapros_websocket._cli.display import Display
from zapros_websocket._cli.status import Status, status_of

pytestmark = pytest.mark.anyio

Step: TypeAlias = str | Exception | Callable[[], Awaitable[None]] | None


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return autojump(request.param)


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


class Recorder(Display):
    """A display that remembers."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self.remarks: list[str] = []
        self.failure: OSError | None = None
        self.seconds_a_message = 0.0

    async def show(self, message: TextMessage | BinaryMessage) -> None:
        if self.failure is not None:
            raise self.failure
        await anyio.sleep(self.seconds_a_message)
        self.messages.append(message.data)

    def say(self, text: str) -> None:
        self.remarks.append(text)

    complain = explain = say


class Typist:
    """Gives the lines, and waits where it finds no line to give: for ever, or for a step."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)

    async def read_line(self) -> str | None:
        while True:
            await anyio.wait_all_tasks_blocked()
            step = self._steps.pop(0) if self._steps else None
            if step is None or isinstance(step, str):
                return step
            if isinstance(step, Exception):
                raise step
            await step()


class Talk:
    """Runs a conversation against a peer that echoes nothing but a close."""

    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        self.display = Recorder()

    async def run(
        self,
        *steps: Step,
        files: Sequence[bytes] = (),
        wait: float = 1.0,
        ping_every: float | None = None,
        commands: bool = False,
        closes: bool = True,
    ) -> Status:
        async with (
            aconnect_ws("ws://test/", client=self.server.client, close_timeout=2, ping_interval=None) as ws,
            anyio.create_task_group() as tasks,
        ):
            self.received: list[object] = []
            if closes:
                tasks.start_soon(self._peer)
            conversation = Conversation(ws, self.display, wait=wait, ping_every=ping_every)
            status = await conversation.run(Typist(*steps) if steps else None, files, commands=commands)
            tasks.cancel_scope.cancel()
        return status

    async def _peer(self) -> None:
        peer = self.server.peer
        with suppress(zapros.ReadError):
            while (event := await peer.receive()) is not None:
                self.received.append(event)
                if isinstance(event, Ping) or peer.protocol.state is ConnectionState.REMOTE_CLOSING:
                    assert isinstance(event, (CloseConnection, Ping))
                    await peer.send(event.response())
                if isinstance(event, CloseConnection):
                    peer.end()


@pytest.fixture
def talk(server: MemoryServer) -> Talk:
    return Talk(server)


def sent(talk: Talk) -> list[object]:
    return [event.data for event in talk.received if isinstance(event, (WsprotoText, BytesMessage))]


async def test_files_go_first_and_lines_as_text(talk: Talk) -> None:
    assert await talk.run("one", "//two", "/close", None, files=[b"\x00", b"\x01"]) == Status.DONE
    assert sent(talk) == [b"\x00", b"\x01", "one", "//two", "/close"]
    assert talk.display.remarks == []


async def test_without_lines_it_ends_behind_the_files(talk: Talk) -> None:
    assert await talk.run(files=[b"\x00"]) == Status.DONE
    assert sent(talk) == [b"\x00"]


async def test_what_comes_within_the_wait_is_shown_and_prolongs_it(talk: Talk) -> None:
    async def answer_slowly() -> None:
        async def answer() -> None:
            for n in range(5):
                await anyio.sleep(0.9)
                await talk.server.peer.send(WsprotoText(str(n)), Ping())

        tasks.start_soon(answer)

    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        assert await talk.run("question", answer_slowly, None) == Status.DONE
        assert anyio.current_time() - began == pytest.approx(5.5)
        tasks.cancel_scope.cancel()
    assert talk.display.messages == ["0", "1", "2", "3", "4"]


async def test_it_waits_without_end_when_told_to(talk: Talk) -> None:
    async def leave_later() -> None:
        async def leave() -> None:
            await anyio.sleep(3600)
            await talk.server.peer.send(WsprotoText("at last"), CloseConnection(1000))

        tasks.start_soon(leave)

    async with anyio.create_task_group() as tasks:
        assert await talk.run(leave_later, None, wait=float("inf")) == Status.DONE
    assert talk.display.messages == ["at last"]
    assert talk.display.remarks == ["closed by the server: 1000"]


@pytest.mark.parametrize(
    ("code", "status"), [(1000, Status.DONE), (1001, Status.CLOSED), (1013, Status.CLOSED), (4000, Status.CLOSED)]
)
async def test_a_close_of_the_peer_ends_it_while_a_line_is_typed(talk: Talk, code: int, status: Status) -> None:
    async def close() -> None:
        await talk.server.peer.send(BytesMessage(b"last"), CloseConnection(code, "why"))
        await anyio.sleep_forever()

    assert await talk.run(close, "never") == status
    assert talk.display.messages == [b"last"]
    assert talk.display.remarks == [f"closed by the server: {code} 'why'"]


async def test_a_lost_connection_ends_it(talk: Talk) -> None:
    async def lose() -> None:
        talk.server.peer.reset()
        await anyio.sleep_forever()

    assert await talk.run(lose, "never") == Status.LOST
    assert talk.display.remarks[0].startswith("the connection was lost or failed: 1006 'the connection was lost")


async def test_a_line_that_comes_too_late_does_not_hide_why(talk: Talk) -> None:
    async def close() -> None:
        talk.display.seconds_a_message = 1
        await talk.server.peer.send(WsprotoText("shown slowly"), CloseConnection(1013))
        await anyio.wait_all_tasks_blocked()

    assert await talk.run(close, "too late") == Status.CLOSED
    assert talk.display.messages == ["shown slowly"]
    assert talk.display.remarks == ["closed by the server: 1013"]


async def test_a_peer_that_does_not_answer_our_close_is_left(talk: Talk) -> None:
    assert await talk.run("one", None, closes=False) == Status.DONE
    assert talk.display.remarks == []


async def test_input_that_is_not_utf_8_is_an_error(talk: Talk) -> None:
    error = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    assert await talk.run("one", error) == Status.USAGE
    assert "--binary" in talk.display.remarks[0]


async def test_what_cannot_be_sent_is_said_and_the_next_line_is_sent(talk: Talk) -> None:
    assert await talk.run("\ud800", "next", None, commands=True) == Status.DONE
    assert sent(talk) == ["next"]
    assert talk.display.remarks[0].startswith("not sent: ")


@pytest.mark.parametrize(
    ("number", "status", "remarks"),
    [
        (errno.EPIPE, Status.DONE, []),
        (errno.ENOSPC, Status.FAILED, [f"cannot write: [Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}"]),
    ],
    ids=["nobody-reads", "no-space"],
)
async def test_it_ends_when_what_comes_cannot_be_written(
    talk: Talk, number: int, status: Status, remarks: list[str]
) -> None:
    async def speak() -> None:
        talk.display.failure = OSError(number, os.strerror(number))
        await talk.server.peer.send(WsprotoText("hello?"))
        await anyio.sleep_forever()

    assert await talk.run(speak, "never") == status
    assert talk.display.remarks == remarks
    assert any(isinstance(event, CloseConnection) and event.code == 1000 for event in talk.received)


async def test_pings_say_how_long_they_took(talk: Talk) -> None:
    async def wait() -> None:
        await anyio.sleep(25)

    assert await talk.run(wait, None, ping_every=10) == Status.DONE
    assert talk.display.remarks == ["pong after 0.00 ms"] * 2


async def test_pings_end_with_the_connection(talk: Talk) -> None:
    async def lose() -> None:
        await anyio.sleep(15)
        talk.server.peer.reset()
        await anyio.sleep_forever()

    assert await talk.run(lose, ping_every=10, closes=False) == Status.LOST


# Commands


async def test_commands_send_files_and_measure(talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a file").write_bytes(b"\x01\x02")
    steps = ("/file ~/a file", "/ping", "//slash", "/help", "/dance", "/file /nowhere", None)
    assert await talk.run(*steps, commands=True) == Status.DONE
    assert sent(talk) == [b"\x01\x02", "/slash"]
    remarks = talk.display.remarks
    assert remarks[:3] == ["pong after 0.00 ms", HELP, "there is no /dance: /help shows what there is"]
    assert remarks[3].startswith("/file: ")
    assert "/nowhere" in remarks[3]


@pytest.mark.parametrize(
    ("line", "code", "reason"),
    [("/close", 1000, ""), ("/close 4001", 4001, ""), ("/close 4001 enough of this", 4001, "enough of this")],
)
async def test_a_command_closes(talk: Talk, line: str, code: int, reason: str) -> None:
    assert await talk.run("hello", line, "never", commands=True) == Status.DONE
    assert sent(talk) == ["hello"]
    closes = [event for event in talk.received if isinstance(event, CloseConnection)]
    assert [(event.code, event.reason or "") for event in closes] == [(code, reason)]


async def test_a_command_that_is_not_complete_is_said_in_words_of_the_command_line(talk: Talk) -> None:
    assert await talk.run("/file", "/file ", "/close abc", "/close -1", None, commands=True) == Status.DONE
    assert talk.display.remarks == [
        *["/file: the path is missing, /help shows how it is written"] * 2,
        "/close: 'abc' is no code, /help shows how it is written",
        "/close: '-1' is no code, /help shows how it is written",
    ]


async def test_a_close_that_may_not_be_sent_is_said(talk: Talk) -> None:
    assert await talk.run("/close 1006", "/close soon", "next", None, commands=True) == Status.DONE
    assert sent(talk) == ["next"]
    assert [remark.partition(":")[0] for remark in talk.display.remarks] == ["/close", "/close"]


# Words and statuses


def test_an_end_is_told_with_its_reason_escaped() -> None:
    received = CloseMessage(1008, "\x1b[2J")
    assert how_it_ended(ConnectionClosed(1008, received.reason, received=received)) == (
        r"closed by the server: 1008 '\x1b[2J'"
    )
    assert how_it_ended(ConnectionClosed(1006)) == "the connection was lost or failed: 1006"


@pytest.mark.parametrize(
    ("closed", "status"),
    [
        (ConnectionClosed(1006), Status.LOST),
        (ConnectionClosed(1000, received=CloseMessage(1000)), Status.DONE),
        (ConnectionClosed(1005, received=CloseMessage(1005)), Status.DONE),
        (ConnectionClosed(1001, received=CloseMessage(1001)), Status.CLOSED),
    ],
)
def test_the_end_of_a_connection_is_a_status(closed: ConnectionClosed, status: Status) -> None:
    assert status_of(closed) == status
