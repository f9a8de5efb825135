"""The steps of a script. Each of them is one thing that the server waits for or does."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias, cast

import anyio

from .._protocol.messages import CloseMessage, Message, PingMessage, PongMessage
from ._peer import ClientLeft, HandshakeRequest, Mismatch, Peer, describe

ExpectedText: TypeAlias = "str | re.Pattern[str] | Callable[[str], object]"
ExpectedBytes: TypeAlias = "bytes | Callable[[bytes], object]"
ExpectedJson: TypeAlias = "object | Callable[[object], object]"


class Stage(Protocol):
    """What a step can know of the server beside its own connection."""

    def request_of(self, peer: Peer) -> HandshakeRequest:
        """The opening handshake of this connection."""
        ...

    async def pause(self, peer: Peer, name: str) -> None:
        """Say that the pause is reached, and wait until it is over."""


@dataclass(frozen=True)
class Step(ABC):
    """One step, and how it was written in the script."""

    written: str

    needs_frames: ClassVar[bool] = True
    """Whether the handshake has to be accepted before."""
    is_answer: ClassVar[bool] = False
    """Whether it may stand in the place of any answer to the handshake."""
    is_timed: ClassVar[bool] = True
    """Whether it fails when it takes too long."""
    is_open_ended: ClassVar[bool] = False
    """Whether nothing is missing when the server ends in the middle of it."""

    def __str__(self) -> str:
        return self.written

    @abstractmethod
    async def run(self, peer: Peer, stage: Stage) -> None:
        """Do it, or raise ``Mismatch``."""


@dataclass(frozen=True)
class ExpectRequest(Step):
    needs_frames: ClassVar[bool] = False
    target: ExpectedText
    headers: dict[str, ExpectedText]
    subprotocols: object

    async def run(self, peer: Peer, stage: Stage) -> None:
        request = stage.request_of(peer)
        if not fits(request.target, self.target):
            raise Mismatch(f"the request was for {request.target!r}")
        if not fits(request.subprotocols, self.subprotocols):
            raise Mismatch(f"the subprotocols {request.subprotocols!r} were offered")
        for name, expected in self.headers.items():
            value = request.headers.get(name.lower())
            if not fits(value, expected):
                came = "was not there" if value is None else f"was {value!r}"
                raise Mismatch(f"the header {name} {came}")


@dataclass(frozen=True)
class Accept(Step):
    needs_frames: ClassVar[bool] = False
    subprotocol: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    permessage_deflate: bool = True

    async def run(self, peer: Peer, stage: Stage) -> None:
        await peer.accept(self.subprotocol, self.headers, deflate=self.permessage_deflate)


@dataclass(frozen=True)
class Refuse(Step):
    needs_frames: ClassVar[bool] = False
    is_answer: ClassVar[bool] = True
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    async def run(self, peer: Peer, stage: Stage) -> None:
        await peer.refuse(self.status, self.headers, self.body)


@dataclass(frozen=True)
class Expect(Step):
    """Wait for a message that ``judge`` finds right. Pings and pongs of another kind are passed over."""

    kind: type[Message] | None
    judge: Callable[[Message], bool]
    answer: bool = True

    async def run(self, peer: Peer, stage: Stage) -> None:
        while True:
            message = await peer.receive()
            if message is None:
                raise ClientLeft("the client ended TCP")
            if self.kind is not type(message) and await peer.pass_over(message):
                continue
            if self.kind not in (None, type(message)) or not self.judge(message):
                raise _unexpected(message)
            if self.answer and isinstance(message, PingMessage):
                await peer.send(PongMessage(message.data))
            if self.answer and isinstance(message, CloseMessage):
                await peer.answer_close()
            return


@dataclass(frozen=True)
class ExpectEnd(Step):
    async def run(self, peer: Peer, stage: Stage) -> None:
        while (message := await peer.receive()) is not None:
            if not await peer.pass_over(message):
                raise _unexpected(message)
        await peer.end()


@dataclass(frozen=True)
class Send(Step):
    message: Message

    async def run(self, peer: Peer, stage: Stage) -> None:
        await peer.send(self.message)


@dataclass(frozen=True)
class SendFragments(Step):
    opcode: int
    pieces: list[bytes | PingMessage | PongMessage]
    message: Message

    async def run(self, peer: Peer, stage: Stage) -> None:
        await peer.send_fragments(self.opcode, self.pieces, self.message)


@dataclass(frozen=True)
class SendRaw(Step):
    needs_frames: ClassVar[bool] = False
    is_answer: ClassVar[bool] = True
    data: bytes

    async def run(self, peer: Peer, stage: Stage) -> None:
        await peer.send_raw(self.data)


@dataclass(frozen=True)
class Close(Step):
    """Send a close frame, read on to the client's, and end TCP."""

    message: CloseMessage

    async def run(self, peer: Peer, stage: Stage) -> None:
        await peer.send(self.message)
        # What was under way from the client when it was closed is nobody's fault.
        while (message := await peer.receive()) is not None and not isinstance(message, CloseMessage):
            pass
        if message is None:
            raise ClientLeft("the client ended TCP without a close frame")
        await peer.end()


@dataclass(frozen=True)
class Echo(Step):
    is_timed: ClassVar[bool] = False
    is_open_ended: ClassVar[bool] = True

    async def run(self, peer: Peer, stage: Stage) -> None:
        while (message := await peer.receive()) is not None and not isinstance(message, CloseMessage):
            if not await peer.pass_over(message):
                await peer.send(message)
        await peer.answer_close()


@dataclass(frozen=True)
class Pause(Step):
    needs_frames: ClassVar[bool] = False
    is_timed: ClassVar[bool] = False
    name: str

    async def run(self, peer: Peer, stage: Stage) -> None:
        await stage.pause(peer, self.name)


@dataclass(frozen=True)
class Stall(Step):
    needs_frames: ClassVar[bool] = False
    is_answer: ClassVar[bool] = True
    is_timed: ClassVar[bool] = False
    is_open_ended: ClassVar[bool] = True

    async def run(self, peer: Peer, stage: Stage) -> None:
        await anyio.sleep_forever()


@dataclass(frozen=True)
class Drop(Step):
    needs_frames: ClassVar[bool] = False
    is_answer: ClassVar[bool] = True

    async def run(self, peer: Peer, stage: Stage) -> None:
        await peer.drop()


@dataclass(frozen=True)
class End(Step):
    needs_frames: ClassVar[bool] = False
    is_answer: ClassVar[bool] = True

    async def run(self, peer: Peer, stage: Stage) -> None:
        await peer.end()


def fits(value: object, expected: object) -> bool:
    """Whether a value is what was expected: equal to it, matched whole by it, or found good by it."""
    if isinstance(expected, re.Pattern):
        return isinstance(value, str) and cast("re.Pattern[str]", expected).fullmatch(value) is not None
    if callable(expected):
        return bool(expected(value))
    return bool(expected == value)


def json_fits(text: str, expected: object) -> bool:
    """The same for what a text says in JSON."""
    try:
        return fits(json.loads(text), expected)
    except ValueError:
        return False


def _unexpected(message: Message) -> Mismatch:
    kind = ClientLeft if isinstance(message, CloseMessage) else Mismatch
    return kind(f"{describe(message)} came")
