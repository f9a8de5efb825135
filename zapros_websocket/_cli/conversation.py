"""One connection at the command line: input is sent, messages are shown, and the end becomes a status.

Invariants:

- A task of a conversation raises nothing: how it ended is a status.
- What had arrived when the input ended is shown, and what still comes within the time to wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from anyio import CancelScope, Event, Path, create_task_group, current_time, sleep, sleep_forever

from .._errors import ConnectionClosed
from .._protocol.messages import BinaryMessage, CloseCode, CloseMessage, TextMessage
from .display import Display
from .lines import Lines
from .status import Status, status_of

if TYPE_CHECKING:
    from .._connection import AsyncWebSocket

COMMANDS: Final = ("/file ", "/ping", "/close", "/help")
HELP: Final = """\
/file PATH               send the file as one binary message
/ping                    measure the round trip
/close [CODE [REASON]]   close the connection
/help                    show this
A line that begins with // is sent, with one / in front."""


class Conversation:
    """What goes on over a connection that is open."""

    def __init__(self, ws: AsyncWebSocket, display: Display, *, wait: float, ping_every: float | None) -> None:
        self._ws = ws
        self._display = display
        self._wait = wait
        self._ping_every = ping_every
        self._quiet: CancelScope | None = None
        self._over = Event()
        self._closes = False
        self._status = Status.DONE

    async def run(self, lines: Lines | None, files: Sequence[bytes], *, commands: bool) -> Status:
        """Send the files and the lines, show what comes, and say how it ended.

        Without ``lines`` it ends after the files. With ``commands`` a line that begins with a slash is one.
        """
        async with create_task_group() as tasks:
            tasks.start_soon(self._receive, tasks.cancel_scope)
            if self._ping_every is not None:
                tasks.start_soon(self._ping_on, self._ping_every)
            try:
                for data in files:
                    await self._ws.send(data)
                if lines is not None:
                    await self._send_lines(lines, commands=commands)
                await self._until_quiet()
                self._closes = True
                await self._ws.close()
                await self._over.wait()
            except UnicodeDecodeError:
                self._display.complain("the input is not UTF-8: send it with --binary")
                self._status = Status.USAGE
            except ConnectionClosed:
                # Why so, the receiver knows.
                await self._over.wait()
            tasks.cancel_scope.cancel()
        return self._status

    async def _send_lines(self, lines: Lines, *, commands: bool) -> None:
        while (line := await lines.read_line()) is not None:
            if commands and line.startswith("/") and not line.startswith("//"):
                await self._obey(line)
                continue
            try:
                await self._ws.send(line[1:] if commands and line.startswith("//") else line)
            except ValueError as error:
                # A terminal can give what UTF-8 has no place for.
                self._display.complain(f"not sent: {error}")

    async def _obey(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        try:
            match command:
                case "/file":
                    if not rest:
                        raise ValueError("the path is missing, /help shows how it is written")
                    await self._ws.send(await (await Path(rest).expanduser()).read_bytes())
                case "/ping":
                    self._say_round_trip(await self._ws.ping())
                case "/close":
                    code, _, reason = rest.partition(" ")
                    if code and not code.isdecimal():
                        raise ValueError(f"{code!r} is no code, /help shows how it is written")
                    self._closes = True
                    await self._ws.send(CloseMessage(int(code) if code else CloseCode.NORMAL, reason))
                    await self._over.wait()
                case "/help":
                    self._display.explain(HELP)
                case _:
                    self._display.complain(f"there is no {command}: /help shows what there is")
        except (OSError, RuntimeError, ValueError) as error:
            # A home that cannot be found is a RuntimeError.
            self._closes = False
            self._display.complain(f"{command}: {error}")

    async def _receive(self, scope: CancelScope) -> None:
        try:
            while not isinstance(message := await self._ws.recv(), CloseMessage):
                if self._quiet is not None:
                    self._quiet.deadline = current_time() + self._wait
                if isinstance(message, (TextMessage, BinaryMessage)):
                    await self._display.show(message)
            await self._ws.recv()
        except ConnectionClosed as closed:
            if not self._closes:
                self._status = status_of(closed)
                self._display.say(how_it_ended(closed))
        except OSError as error:
            # Whoever read the output may have read enough.
            if not isinstance(error, BrokenPipeError):
                self._display.complain(f"cannot write: {error}")
                self._status = Status.FAILED
            await self._ws.close()
        self._over.set()
        scope.cancel()

    async def _ping_on(self, every: float) -> None:
        while True:
            await sleep(every)
            try:
                self._say_round_trip(await self._ws.ping())
            except ConnectionClosed:
                return

    def _say_round_trip(self, seconds: float) -> None:
        self._display.say(f"pong after {seconds * 1000:.2f} ms")

    async def _until_quiet(self) -> None:
        # Each message puts the deadline off.
        with CancelScope(deadline=current_time() + self._wait) as self._quiet:
            await sleep_forever()


def how_it_ended(closed: ConnectionClosed) -> str:
    """The end of a connection in words."""
    reason = f" {closed.reason!r}" if closed.reason else ""
    if closed.received is None:
        return f"the connection was lost or failed: {int(closed.code)}{reason}"
    return f"closed by the server: {int(closed.code)}{reason}"
