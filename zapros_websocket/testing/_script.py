"""What a scripted server does on one connection, written as a chain of calls."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Final
from unittest.mock import ANY

from .._protocol import frames
from .._protocol.handshake import check_headers
from .._protocol.messages import (
    MAX_CLOSE_REASON,
    BinaryMessage,
    CloseCode,
    CloseMessage,
    Message,
    PingMessage,
    PongMessage,
    TextMessage,
)
from .._protocol.outgoing import outgoing
from ._recording import Entry, read_recording
from ._steps import (
    Accept,
    Close,
    Drop,
    Echo,
    End,
    Expect,
    ExpectedBytes,
    ExpectedJson,
    ExpectedText,
    ExpectEnd,
    ExpectRequest,
    Pause,
    Refuse,
    Send,
    SendFragments,
    SendRaw,
    Stall,
    Step,
    fits,
    json_fits,
)

if TYPE_CHECKING:
    from typing_extensions import Self

_BYTES: Final = (bytes, bytearray, memoryview)

# What is equal to its own kind only.
_PLAIN: Final = (str, *_BYTES, int, float, list, tuple, dict, set, frozenset, type(None))

# Characters of an argument that a step shows.
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Script:
    """What a scripted server does on one connection, step by step. Each method returns a longer script.

    ::

        Script().expect_text("subscribe").send_json({"price": 1}).drop()

    The handshake is accepted before the first step that needs it, unless ``accept`` or ``refuse`` says more. After the
    last step the server answers the client's close, and takes no further message.

    Pings of the client are answered, and pings and pongs are passed over, wherever something else is expected.

    What is expected is a value that must be equal, a compiled regular expression that must match a whole text, or a
    function that is given what came and says whether it is right. By default it is ``unittest.mock.ANY``, which can
    also stand for a part of a value. What can never come, such as a number for a text, is a TypeError at once.

    Attributes:
        steps: The steps so far.
        answers_pings: Whether pings of the client are answered; ``Script(answers_pings=False)`` is a server that is
            not there any more.
    """

    steps: tuple[Step, ...] = ()
    answers_pings: bool = True

    # The opening handshake

    def expect_request(
        self,
        target: ExpectedText = ANY,
        *,
        headers: Mapping[str, ExpectedText] | None = None,
        subprotocols: tuple[str, ...] | Callable[[tuple[str, ...]], object] = ANY,
    ) -> Script:
        """Expect an opening handshake for this path and query, with these headers, offering this tuple of names."""
        written = _written("expect_request", target, headers=headers, subprotocols=subprotocols)
        return self._and(ExpectRequest(written, target, dict(headers or {}), subprotocols))

    def accept(
        self,
        subprotocol: str | None = None,
        *,
        headers: Iterable[tuple[str, str]] = (),
        permessage_deflate: bool = True,
    ) -> Script:
        """Answer 101, with any subprotocol and any headers; take an offer of permessage-deflate or do not.

        Raises:
            ValueError: the handshake was accepted before, or HTTP cannot carry a header.
        """
        if not isinstance(subprotocol, (str, type(None))):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a subprotocol is a str, not {subprotocol!r}")
        lines = _checked_headers(headers)
        return self._and(Accept(_written("accept", subprotocol), subprotocol, lines, permessage_deflate))

    def refuse(self, status: int, *, headers: Iterable[tuple[str, str]] = (), body: str | bytes = b"") -> Script:
        """Answer with another status, and end.

        Raises:
            TypeError: the status is no number, or the body neither a ``str`` nor bytes.
            ValueError: the status is none that ends a handshake, the handshake was accepted before, or HTTP cannot
                carry a header.
        """
        if isinstance(status, bool) or not isinstance(status, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a status is a whole number, not {status!r}")
        if not 200 <= status <= 999:
            raise ValueError(f"a refusal has a status from 200 to 999, not {status}; accept() answers 101")
        lines = _checked_headers(headers)
        data = body.encode() if isinstance(body, str) else _bytes(body)
        return self._and(Refuse(_written("refuse", status), status, lines, data))

    # What the client says

    def expect_text(self, text: ExpectedText = ANY) -> Script:
        """Expect a text message, in however many frames."""
        _check_expected(text, str)
        return self._expect(
            _written("expect_text", text),
            TextMessage,
            lambda message: isinstance(message, TextMessage) and fits(message.data, text),
        )

    def expect_json(self, value: ExpectedJson = ANY) -> Script:
        """Expect a text message that says this in JSON."""
        return self._expect(
            _written("expect_json", value),
            TextMessage,
            lambda message: isinstance(message, TextMessage) and json_fits(message.data, value),
        )

    def expect_binary(self, data: ExpectedBytes = ANY) -> Script:
        """Expect a binary message, in however many frames."""
        _check_expected(data, *_BYTES)
        return self._expect(
            _written("expect_binary", data),
            BinaryMessage,
            lambda message: isinstance(message, BinaryMessage) and fits(message.data, data),
        )

    def expect_ping(self, payload: ExpectedBytes = ANY, *, answer: bool = True) -> Script:
        """Expect a ping, and answer it or do not."""
        _check_expected(payload, *_BYTES)
        return self._expect(
            _written("expect_ping", payload),
            PingMessage,
            lambda message: isinstance(message, PingMessage) and fits(message.data, payload),
            answer=answer,
        )

    def expect_pong(self, payload: ExpectedBytes = ANY) -> Script:
        """Expect a pong."""
        _check_expected(payload, *_BYTES)
        return self._expect(
            _written("expect_pong", payload),
            PongMessage,
            lambda message: isinstance(message, PongMessage) and fits(message.data, payload),
        )

    def expect_close(
        self, code: int | Callable[[int], object] = ANY, reason: ExpectedText = ANY, *, answer: bool = True
    ) -> Script:
        """Expect a close frame, 1005 for one without a code; answer it and end TCP, or do neither."""
        _check_expected(code, int)
        _check_expected(reason, str)
        return self._expect(
            _written("expect_close", code, reason),
            CloseMessage,
            lambda message: (
                isinstance(message, CloseMessage) and fits(message.code, code) and fits(message.reason or "", reason)
            ),
            answer=answer,
        )

    def expect_anything(self) -> Script:
        """Expect a message that is no ping and no pong: a text, a binary one or a close."""
        return self._and(Expect("expect_anything()", None, lambda _: True))

    def expect_end(self) -> Script:
        """Expect the client to end or reset TCP, without a close frame."""
        return self._and(ExpectEnd(_written("expect_end")))

    # What the server says

    def send_text(self, text: str) -> Script:
        """Send a text message."""
        return self._send(_written("send_text", text), TextMessage(text))

    def send_json(self, value: object) -> Script:
        """Send a text message that says this in JSON."""
        return self._send(_written("send_json", value), TextMessage(json.dumps(value)))

    def send_binary(self, data: bytes) -> Script:
        """Send a binary message."""
        return self._send(_written("send_binary", data), BinaryMessage(data))

    def send_ping(self, payload: bytes = b"") -> Script:
        """Send a ping; ``expect_pong`` waits for the answer, if you care."""
        return self._send(_written("send_ping", payload), PingMessage(payload))

    def send_pong(self, payload: bytes = b"") -> Script:
        """Send a pong that nobody asked for."""
        return self._send(_written("send_pong", payload), PongMessage(payload))

    def send_fragments(self, *pieces: str | bytes | PingMessage | PongMessage) -> Script:
        """Send one message in a frame for each piece: a text if they are ``str``, with pings and pongs in between.

        Raises:
            TypeError: there are texts and bytes, or nothing at all, or a piece is none.
        """
        written = _written("send_fragments", *pieces)
        texts = [piece for piece in pieces if isinstance(piece, str)]
        data = [piece for piece in pieces if isinstance(piece, bytes)]
        controls = [piece for piece in pieces if isinstance(piece, (PingMessage, PongMessage))]
        if bool(texts) == bool(data) or len(texts) + len(data) + len(controls) < len(pieces):
            raise TypeError("the fragments of one message are str or bytes, and there is at least one")
        encoded = [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
        if texts:
            return self._and(SendFragments(written, frames.TEXT, encoded, TextMessage("".join(texts))))
        return self._and(SendFragments(written, frames.BINARY, encoded, BinaryMessage(b"".join(data))))

    def send_raw(self, data: bytes) -> Script:
        """Send bytes as they are: a frame that is none, half a frame, or no HTTP when nothing was accepted yet.

        It accepts nothing by itself: put ``accept`` before it, unless the bytes stand in the place of an answer.
        """
        return self._and(SendRaw(_written("send_raw", data), _bytes(data)))

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> Script:
        """Send a close frame, of any code (1005: without one), wait for the client's, and end TCP."""
        return self._and(Close(_written("close", int(code), reason or None), _close(code, reason)))

    def send_close(self, code: int = CloseCode.NORMAL, reason: str = "") -> Script:
        """Send a close frame and wait for nothing."""
        return self._and(Send(_written("send_close", int(code), reason or None), _close(code, reason)))

    def echo(self) -> Script:
        """Send back every message until the client closes."""
        return self._and(Echo(_written("echo")))

    # What the server does

    def pause(self, name: str) -> Script:
        """Do and read nothing, until the test calls ``resume`` with this name."""
        return self._and(Pause(_written("pause", name), name))

    def stall(self) -> Script:
        """Do and read nothing any more, and leave TCP as it is."""
        return self._and(Stall(_written("stall")))

    def drop(self) -> Script:
        """Reset TCP. Without an ``accept`` before it, this is instead of an answer to the handshake."""
        return self._and(Drop(_written("drop")))

    def end(self) -> Script:
        """End TCP in order, without a close frame. Without an ``accept`` before it, instead of an answer."""
        return self._and(End(_written("end")))

    # How it is put together

    @classmethod
    def from_recording(cls, path: str | PathLike[str]) -> list[Script]:
        """A script for each connection of a file that a ``Recorder`` wrote.

        What the client said is expected, and what the server said is sent, in this order and without delay. Pings and
        pongs of the client are not expected.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is no recording.
        """
        scripts: dict[int, Script] = {}
        for entry in read_recording(path):
            scripts[entry.connection] = scripts.get(entry.connection, Script())._replay(entry)
        return list(scripts.values())

    def _replay(self, entry: Entry) -> Script:
        text = entry.data if isinstance(entry.data, str) else ""
        data = entry.data if isinstance(entry.data, bytes) else b""
        number = entry.number or 0
        if any(
            isinstance(step, Close) or (isinstance(step, Expect) and step.kind is CloseMessage) for step in self.steps
        ):
            # Both steps include the other side's close, and the end.
            return self
        match entry.sender, entry.kind:
            case "client", "request":
                return self.expect_request(text)
            case "server", "accept":
                return self.accept(text or None)
            case "server", "refuse":
                return self.refuse(number)
            case "client", "text":
                return self.expect_text(text)
            case "client", "binary":
                return self.expect_binary(data)
            case "client", "close":
                return self.expect_close(number, text)
            case "client", "end" | "drop":
                was_accepted = any(isinstance(step, Accept) for step in self.steps)
                # Without an answer it was the client that did not wait for one any longer.
                return self.expect_end() if was_accepted else self.stall()
            case "server", "text":
                return self.send_text(text)
            case "server", "binary":
                return self.send_binary(data)
            case "server", "ping":
                return self.send_ping(data)
            case "server", "close":
                return self.close(number, text)
            case "server", "raw":
                return self.send_raw(data)
            case "server", "drop":
                return self.drop()
            case "server", "end":
                return self.end()
            case _:
                # What answers by itself: pings and pongs.
                return self

    def _expect(
        self, written: str, kind: type[Message], judge: Callable[[Message], bool], *, answer: bool = True
    ) -> Script:
        return self._and(Expect(written, kind, judge, answer))

    def _send(self, written: str, message: Message) -> Script:
        # What no peer could send is better said where it is written.
        outgoing(message)
        return self._and(Send(written, message))

    def _and(self, step: Step) -> Self:
        if isinstance(step, (Accept, Refuse)) and any(isinstance(s, Accept) or s.needs_frames for s in self.steps):
            raise ValueError(f"{step} comes after a step that needs an accepted handshake: put it first")
        return replace(self, steps=(*self.steps, step))


def _bytes(data: object) -> bytes:
    if not isinstance(data, _BYTES):
        raise TypeError(f"bytes are asked for, not {data!r}")
    return bytes(data)  # pyright: ignore[reportUnknownArgumentType]


def _check_expected(expected: object, *kinds: type) -> None:
    """Raise TypeError for what nothing that comes can be equal to; objects of other classes may know better."""
    shown = _short(repr(expected))
    if isinstance(expected, re.Pattern):
        can_fit = str in kinds and isinstance(expected.pattern, str)  # pyright: ignore[reportUnknownMemberType]
    else:
        can_fit = isinstance(expected, kinds) or not isinstance(expected, _PLAIN)
    if not can_fit:
        raise TypeError(f"a {kinds[0].__name__} is what comes, which can never fit {shown}")


def _checked_headers(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    lines = tuple(headers)
    check_headers(lines)
    return lines


def _close(code: int, reason: str) -> CloseMessage:
    # Codes that may not be sent can be, by a server that does wrong.
    if not 0 <= code < 1 << 16 or len(reason.encode()) > MAX_CLOSE_REASON:
        raise ValueError(f"a close frame has a code of 16 bits and up to {MAX_CLOSE_REASON} bytes of reason")
    return CloseMessage(code, reason or None)


def _written(name: str, *arguments: object, **options: object) -> str:
    shown = [_short(repr(argument)) for argument in arguments]
    while shown and (arguments[len(shown) - 1] is ANY or arguments[len(shown) - 1] is None):
        shown.pop()
    shown += [
        f"{key}={_short(repr(value))}" for key, value in options.items() if value is not ANY and value is not None
    ]
    return f"{name}({', '.join(shown)})"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"
