"""What was said on a connection, as lines: for a file, for an error, and to be played again.

One line stands for one message or event::

    1    0.0132 > text "hello" (2 frames)

That is: the number of the connection, the seconds since the first line, who said it (``>`` the client, ``<`` the
server), what it was, and what was in it. Text is a JSON string and bytes are base64, so that a line is always one line.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Final, Literal, TypeAlias

from .._protocol.messages import CloseMessage, Message, TextMessage

Sender: TypeAlias = Literal["client", "server"]

HEADING: Final = "# A WebSocket conversation: connection, seconds, who spoke (> client, < server), what."

KINDS: Final = frozenset(
    ("request", "accept", "refuse", "text", "binary", "ping", "pong", "close", "end", "drop", "raw", "violation")
)

_LINE: Final = re.compile(
    r"""(?P<connection>\d+)\ +(?P<time>\d+\.\d+)\ (?P<sender>[<>])\ (?P<kind>[a-z]+)
    (?:\ (?P<number>\d+))?
    (?:\ (?P<data>"(?:[^"\\]|\\.)*"|base64:[A-Za-z0-9+/=]*))?
    (?:\ \((?P<frames>\d+)\ frames\))?""",
    re.VERBOSE,
)

# What an error shows of a text or of bytes.
_SHORT: Final = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was said, as a line of a recording shows it.

    Attributes:
        connection: The number of the connection, from 1.
        time: Seconds since the first entry.
        sender: ``"client"`` or ``"server"``.
        kind: ``request``, ``accept``, ``refuse``, ``text``, ``binary``, ``ping``, ``pong``, ``close``, ``end`` (of
            TCP), ``drop`` (a reset), ``raw`` (bytes that are no frames) or ``violation`` (of the protocol).
        number: The status of a refusal, or the code of a close.
        data: The target of a request, the subprotocol of an accept, the payload of a message, the reason of a close.
        frames: The number of frames that a message came in.
    """

    connection: int
    time: float
    sender: Sender
    kind: str
    number: int | None = None
    data: str | bytes | None = None
    frames: int = 1

    def __str__(self) -> str:
        arrow = ">" if self.sender == "client" else "<"
        return f"{self.connection} {self.time:9.4f} {arrow} {self.said()}"

    def said(self, *, shortened: bool = False) -> str:
        """The line without the connection, the time and the sender."""
        words = [self.kind]
        if self.number is not None:
            words.append(str(int(self.number)))
        if self.data is not None:
            words.append(_shown(self.data, shortened=shortened))
        if self.frames > 1:
            words.append(f"({self.frames} frames)")
        return " ".join(words)

    @classmethod
    def parse(cls, line: str) -> Entry:
        """The entry that a line stands for.

        Raises:
            ValueError: it is no such line.
        """
        found = _LINE.fullmatch(line.strip())
        if found is None or found["kind"] not in KINDS:
            raise ValueError(f"not a line of a recording: {line.strip()!r}")
        data: str | bytes | None = found["data"]
        try:
            if data is not None:
                data = base64.b64decode(data[7:], validate=True) if data[0] == "b" else json.loads(data)
        except (ValueError, binascii.Error) as error:
            raise ValueError(f"not a line of a recording: {line.strip()!r} ({error})") from error
        return cls(
            int(found["connection"]),
            float(found["time"]),
            "client" if found["sender"] == ">" else "server",
            found["kind"],
            None if found["number"] is None else int(found["number"]),
            data,
            int(found["frames"] or 1),
        )


def said(message: Message) -> Entry:
    """A message as an entry of no connection yet."""
    empty = Entry(0, 0.0, "client", message.kind)
    match message:
        case CloseMessage():
            return replace(empty, number=int(message.code), data=message.reason or None)
        case TextMessage():
            return replace(empty, data=message.data)
        case _:
            return replace(empty, data=bytes(message.data))


class Log:
    """Makes an entry of each thing that happens, with its time, and gives it to ``write``."""

    def __init__(self, clock: Callable[[], float], write: Callable[[Entry], object]) -> None:
        self._clock = clock
        self._write = write
        self._began: float | None = None

    def add(
        self,
        connection: int,
        sender: Sender,
        what: Message | str,
        *,
        number: int | None = None,
        data: str | bytes | None = None,
        frames: int = 1,
    ) -> None:
        """Add a message, or an event by its kind."""
        now = self._clock()
        if self._began is None:
            self._began = now
        entry = Entry(0, 0.0, sender, what, number, data) if isinstance(what, str) else said(what)
        self._write(replace(entry, connection=connection, time=now - self._began, sender=sender, frames=frames))


def read_recording(path: str | PathLike[str]) -> list[Entry]:
    """The entries of a file that a ``Recorder`` wrote. Empty lines and those that begin with ``#`` are passed over.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is not one of a recording; the error says which.
    """
    return list(_entries(path, Path(path).read_text(encoding="utf-8").split("\n")))


def _entries(path: str | PathLike[str], lines: Iterable[str]) -> Iterable[Entry]:
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            try:
                yield Entry.parse(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error


def _shown(data: str | bytes, *, shortened: bool) -> str:
    more = ""
    if shortened and len(data) > _SHORT:
        more = f"... ({len(data)} {'characters' if isinstance(data, str) else 'bytes'})"
        data = data[:_SHORT]
    if isinstance(data, bytes):
        return f"base64:{base64.b64encode(data).decode()}{more}"
    # What is not printable could move the cursor of whoever reads it.
    return json.dumps(data, ensure_ascii=not data.isprintable()) + more
