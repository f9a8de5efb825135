"""Where a case is played: the processes of the world, one connection's peer, and what was seen on both sides."""

from __future__ import annotations

import gc
import itertools
import socket
import ssl
import uuid
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, cast

import anyio
import anyio.to_thread
import trustme

from tests.integration.processes import ServerProcess, Servers
from tests.raw_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from zapros_websocket import (
    BinaryMessage,
    CloseMessage,
    ConnectionClosed,
    HandshakeError,
    Message,
    TextMessage,
)

from .measure import MEBIBYTE, Cost, Meter
from .proxy import Line, Plan
from .steps import Step, let_go, path_of
from .surfaces import Connection, Options, Surface

if TYPE_CHECKING:
    from typing_extensions import Unpack

_NAMES: Final = {
    CONTINUATION: "continuation",
    TEXT: "text",
    BINARY: "binary",
    CLOSE: "close",
    PING: "ping",
    PONG: "pong",
}


class World:
    """The programs that the cases talk to, each started when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        certificate = folder / "certificate.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        self.trust = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
        self.servers = Servers(certificate)
        self._certificate = str(certificate)

    def peer(self, *, tls: bool) -> ServerProcess:
        """The one that misbehaves."""
        return self.servers.start("tests.faults.peer", *(["--certificate", self._certificate] if tls else []))

    def server(self, *, tls: bool) -> ServerProcess:
        """One that behaves."""
        return self.servers.secure() if tls else self.servers.websocket("websockets")

    def proxy(self) -> ServerProcess:
        """The network that misbehaves."""
        return self.servers.start("tests.faults.proxy")

    def __enter__(self) -> World:
        self.servers.__enter__()
        # What is there already need not be looked through each time that memory is measured.
        gc.freeze()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        gc.unfreeze()
        self.servers.__exit__(exc_type, exc, traceback)


@dataclass(frozen=True)
class SeenFrame:
    """A frame of the client, as the peer saw it."""

    at: float
    opcode: int
    is_final: bool
    reserved: int
    mask: str
    length: int
    beginning: bytes
    checksum: int

    @property
    def close_code(self) -> int:
        assert self.opcode == CLOSE
        return int.from_bytes(self.beginning[:2], "big") if self.length else 1005


class Seen:
    """What a peer saw of one connection."""

    def __init__(self, events: list[list[object]]) -> None:
        self.frames: list[SeenFrame] = []
        self.request = ""
        self.end = ""
        self.half_a_frame = False
        for event in events:
            at, kind, *facts = event
            if kind == "frame":
                opcode, is_final, reserved, mask, length, beginning, checksum = facts
                self.frames.append(
                    SeenFrame(
                        cast("float", at),
                        cast("int", opcode),
                        bool(is_final),
                        cast("int", reserved),
                        str(mask),
                        cast("int", length),
                        bytes.fromhex(str(beginning)),
                        cast("int", checksum),
                    )
                )
            elif kind == "request":
                self.request = str(facts[0])
            elif kind == "half a frame":
                self.half_a_frame = True
            elif kind == "end":
                self.end = str(facts[0])

    def of(self, *opcodes: int) -> list[SeenFrame]:
        """The frames with one of those opcodes."""
        return [frame for frame in self.frames if frame.opcode in opcodes]

    @property
    def close_code(self) -> int | None:
        """The code of the close frame; there must not be two."""
        closes = self.of(CLOSE)
        assert len(closes) <= 1, "two close frames"
        return closes[0].close_code if closes else None

    def __str__(self) -> str:
        parts = [
            f"close {frames[0].close_code}" if opcode == CLOSE else _counted(len(frames), _NAMES[opcode])
            for opcode, frames in (
                (opcode, list(group)) for opcode, group in itertools.groupby(self.frames, key=lambda f: f.opcode)
            )
        ]
        if self.half_a_frame:
            parts.append("half a frame")
        return ", ".join([*parts, self.end])


class Peer:
    """The peer of one connection: where it is, and what it saw."""

    def __init__(
        self, process: ServerProcess, scheme: str, script: Iterable[Step], trust: ssl.SSLContext | None = None
    ) -> None:
        self._process = process
        self._trust = trust
        self._name = uuid.uuid4().hex
        self.path = path_of(self._name, list(script))
        self.url = process.address(scheme) + self.path

    async def asked(self) -> None:
        """Wait until the request has come."""
        await self._process.line("asked", self._name)

    def forget(self) -> None:
        """Keep nothing of what any peer has seen."""
        self._process.forget_lines()

    async def told(self) -> None:
        """Wait until it has come to where it is to tell."""
        await self._process.line("told", self._name)

    async def let_go(self) -> None:
        """End its hold."""
        await anyio.to_thread.run_sync(self._let_go)

    def _let_go(self) -> None:
        with socket.create_connection(("127.0.0.1", self._process.port)) as plain:
            sock = plain if self._trust is None else self._trust.wrap_socket(plain, server_hostname="127.0.0.1")
            with sock:
                path = path_of(uuid.uuid4().hex, [let_go(self._name)])
                sock.sendall(f"GET {path} HTTP/1.1\r\nSec-WebSocket-Key: x\r\n\r\n".encode())
                sock.recv(1)

    async def seen(self) -> Seen:
        """What it saw, once the client has left."""
        line = await self._process.line("left", self._name)
        seen = Seen(cast("list[list[object]]", line["events"]))
        for frame in seen.frames:
            assert frame.mask, "a frame without a mask"
            assert frame.reserved in (0, 0x40)
        return seen


@dataclass(frozen=True)
class Outcome:
    """What came of a case, in words: they are those of the table."""

    caller: str
    peer: str


@dataclass(frozen=True)
class Case:
    """A way to misbehave, and what must come of it: ``play`` asserts it.

    ``seconds`` and ``mebibytes`` are what it may take at most, with much to spare. A case with ``patience`` is played
    with the default deadlines too, and that is what it may take then.
    """

    group: str
    name: str
    play: Callable[[Stage], Awaitable[Outcome]]
    seconds: float = 10.0
    mebibytes: float = 24.0
    needs_cancellation: bool = False
    patience: float = 0.0

    def is_for(self, surface: Surface) -> bool:
        return surface.cancels or not self.needs_cancellation


class Stage:
    """One run of one case on one surface.

    With ``is_long`` a case goes to full length; with ``is_patient`` it leaves the deadlines as they are by default.
    """

    def __init__(
        self,
        surface: Surface,
        world: World,
        *,
        is_long: bool = False,
        is_patient: bool = False,
        tls: bool = False,
        with_client: bool = False,
    ) -> None:
        self.surface = surface
        self.world = world
        self.is_long = is_long
        self.tls = tls
        self.is_patient = is_patient
        self._with_client = with_client

    def peer(self, *script: Step, scheme: str = "", tls: bool | None = None) -> Peer:
        """A peer that follows that script."""
        tls = self.tls if tls is None else tls
        trust = self.world.trust if tls else None
        return Peer(self.world.peer(tls=tls), scheme or ("wss" if tls else "ws"), script, trust)

    def line(self, *, up: Plan | None = None, down: Plan | None = None, to: int) -> Line:
        """A line of the network to a port of this machine, which does as planned to what goes up and down."""
        return Line(self.world.proxy().port, to, up or Plan(), down or Plan())

    def short(self, **options: Unpack[Options]) -> Options:
        """Deadlines that are shorter than by default, unless it is those that are to be seen."""
        return {} if self.is_patient else options

    def connect(self, url: str, **options: Unpack[Options]) -> AbstractAsyncContextManager[Connection]:
        """A connection for the length of a block."""
        trust = self.world.trust if url.startswith("wss:") else None
        return self.surface.connect(url, trust=trust, with_client=self._with_client, **options)


@dataclass(frozen=True)
class Report:
    """What came of a run, and what it has cost."""

    outcome: Outcome
    cost: Cost


def perform(case: Case, stage: Stage) -> Report:
    """Play a case and hold it to its bounds."""
    limit = case.patience if stage.is_patient else case.seconds * (20 if stage.is_long else 1)
    meter = Meter()

    async def play() -> Outcome:
        with anyio.fail_after(limit):
            return await case.play(stage)

    meter.start()
    outcome = stage.surface.run(play)
    cost = meter.stop()
    assert cost.seconds < limit
    # The patient ones wait side by side: what they take together belongs to none of them.
    if cost.mebibytes is not None and not stage.is_patient:
        assert cost.mebibytes < case.mebibytes
    return Report(outcome, cost)


# In words


async def received(connection: Connection) -> tuple[list[Message], ConnectionClosed]:
    """All that comes, and how it ended."""
    messages: list[Message] = []
    while True:
        try:
            messages.append(await connection.recv())
        except ConnectionClosed as closed:
            return messages, closed


async def send_without_end(connection: Connection) -> None:
    """Send large messages until the connection is over: one of them is blocked when the peer does not read."""
    while True:
        await connection.send(bytes(LARGE))


def in_words(messages: Iterable[Message], error: BaseException | None = None) -> str:
    """What the caller got."""
    parts = [
        f"CloseMessage {int(group[0].code)}" if isinstance(group[0], CloseMessage) else _counted(len(group), kind)
        for kind, group in ((kind, list(group)) for kind, group in itertools.groupby(messages, key=lambda m: m.kind))
    ]
    if error is not None:
        parts.append(error_in_words(error))
    return ", ".join(parts)


def error_in_words(error: BaseException) -> str:
    """An error as a row of the table names it."""
    name = type(error).__name__
    if isinstance(error, ConnectionClosed):
        return f"{name} {int(error.code)}"
    if isinstance(error, HandshakeError) and error.response is not None:
        with_body = f" with {_size(len(error.response.read()))}" if error.response.status != 101 else ""
        return f"{name}, status {error.response.status}{with_body}"
    return name


def _size(size: int) -> str:
    return f"{size // 1024} KiB" if size >= 1024 else f"{size} bytes"


def _counted(number: int, name: str) -> str:
    return name if number == 1 else f"{number} × {name}"


def size_of(message: Message) -> int:
    """The bytes of a message's payload."""
    assert isinstance(message, (TextMessage, BinaryMessage))
    return len(message.data) if isinstance(message.data, bytes) else len(message.data.encode())


LARGE: Final = 8 * MEBIBYTE
