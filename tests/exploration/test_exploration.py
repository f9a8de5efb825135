"""A short form of each exploration, the same each time; and that each of them finds what is wrong."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings

from tests.protocol.wire import RSV1, deflated, frame, steady
from zapros_websocket import AsyncIncomingMessage, AsyncWebSocket, CloseMessage, Message
from zapros_websocket._inbox_of_parts import InboxOfParts
from zapros_websocket._link import Link
from zapros_websocket._protocol import deflate, fragments, handshake, session
from zapros_websocket._protocol.frames import BINARY
from zapros_websocket._protocol.messages import Part
from zapros_websocket._protocol.options import PerMessageDeflateExtension
from zapros_websocket._protocol.parts import PartsSession
from zapros_websocket._turn import Turn
from zapros_websocket._writer import Writer

from . import answers, any_bytes, differential
from .__main__ import EXPLORERS, inputs
from .corpus import NAMES, kept
from .source import Source
from .two_connections import BACKENDS, Program, Step, programs, run

PROJECT = Path(__file__).parents[2]
Backend = Literal["trio", "asyncio"]


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    """Whatever comes behind is not slowed down by the counting of memory."""
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept(name: str) -> None:
    assert len(kept(name)) > 50
    for data in kept(name):
        EXPLORERS[name](data)


@pytest.mark.parametrize("name", NAMES)
def test_what_chance_brings(name: str) -> None:
    assert sum(islice(inputs(name, 1), 200)) == 200


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_connections(backend: Backend) -> None:
    @settings(steady, max_examples=25)
    @given(programs)
    def explore(program: Program) -> None:
        run(program, backend)

    explore()


@pytest.mark.parametrize("pure", ["", "1"], ids=["as it is", "in Python only"])
def test_frames_in_both_forms(pure: str) -> None:
    explorer = [sys.executable, "-m", "tests.exploration", "differential", "--runs", "200", "--seed", "2"]
    environment = {**os.environ, "ZAPROS_WEBSOCKET_PURE": pure}
    done = subprocess.run(explorer, cwd=PROJECT, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("differential: 200 runs")


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="Atheris is not installed: the extra fuzz")
@pytest.mark.parametrize("name", NAMES)
def test_atheris_can_run_it(name: str, tmp_path: Path) -> None:
    fuzzer = [sys.executable, "-m", "tests.exploration.instrumented", name, "-runs=100", "-seed=1", str(tmp_path)]
    done = subprocess.run(fuzzer, cwd=PROJECT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "Instrumenting zapros_websocket._protocol.session" in done.stderr


@pytest.mark.parametrize("sockets", [False, True], ids=["pipes", "sockets"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_sends_of_many_tasks_go_out_in_the_order_of_their_calls(backend: Backend, sockets: bool) -> None:
    # More than there are turns of the scheduler to skip, so that some of them have to let others run.
    run(Program(steps(("burst", 0, 2)), capacity=4096, reads=(4096,), deflate=False, sockets=sockets), backend)


# What they find


def steps(*named: tuple[str, int, int]) -> tuple[Step, ...]:
    return tuple(Step(what, side, number) for what, side, number in named)


def explore_program(
    backend: Backend, *named: tuple[str, int, int], sockets: bool = False, in_parts: bool = False
) -> None:
    run(Program(steps(*named), capacity=64, reads=(64,), deflate=False, sockets=sockets, in_parts=in_parts), backend)


def finds(words: str, explore: Callable[[], None]) -> None:
    with pytest.raises(BaseException) as caught:
        explore()
    assert words in "\n".join(messages_of(caught.value))


def messages_of(error: BaseException) -> list[str]:
    inner: list[BaseException] = list(getattr(error, "exceptions", ()))
    return [str(error), *(message for each in inner for message in messages_of(each))]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_message_that_a_cancellation_loses_is_found(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    receive = AsyncWebSocket.recv

    async def losing(self: AsyncWebSocket) -> Message:
        message = await receive(self)
        await anyio.sleep(0.5)
        return message

    monkeypatch.setattr(AsyncWebSocket, "recv", losing)
    program = ("receive", 0, 0), ("settle", 0, 0), ("send", 1, 0), ("settle", 0, 0), ("cancel", 0, 0), ("send", 1, 0)
    finds("was left out in front of", lambda: explore_program(backend, *program))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_frame_behind_half_a_frame_is_found(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zapros_websocket._writer.Writer.end", lambda self: None)  # pyright: ignore
    monkeypatch.setattr(Link, "_write_broken", lambda self: None)  # pyright: ignore
    program = ("stall", 0, 0), ("send", 0, 6), ("settle", 0, 0), ("cancel", 0, 0), ("send", 0, 6), ("send", 0, 6)
    finds("what came is no frame", lambda: explore_program(backend, *program))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reader_that_does_not_stop_is_found(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zapros_websocket._inbox.MAX_MESSAGES", 1 << 30)
    finds("more is unread than the bound", lambda: explore_program(backend, ("burst", 0, 3), ("settle", 0, 0)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_connection_that_is_not_closed_for_good_is_found(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    async def send(self: AsyncWebSocket, message: object) -> None:
        await checkpoint()

    monkeypatch.setattr(AsyncWebSocket, "send", send)
    finds("DID NOT RAISE", lambda: explore_program(backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_chunk_that_a_cancellation_loses_is_found(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    take = AsyncIncomingMessage.__anext__

    async def losing(self: AsyncIncomingMessage) -> str | bytes:
        chunk = await take(self)
        await anyio.sleep(0.5)
        return chunk

    monkeypatch.setattr(AsyncIncomingMessage, "__anext__", losing)
    program = ("receive in chunks", 1, 2), ("send in chunks", 0, 6), ("settle", 0, 0)
    finds("was not sent", lambda: explore_program(backend, *program, in_parts=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rest_that_is_not_dropped_is_found(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    leave = InboxOfParts.leave_open

    def keeping(self: InboxOfParts) -> None:
        leave(self)
        self._is_skipping = False  # pyright: ignore[reportPrivateUsage]

    monkeypatch.setattr(InboxOfParts, "leave_open", keeping)
    program = ("receive in chunks", 1, 1), ("send in chunks", 0, 6), ("settle", 0, 0)
    finds("was not sent", lambda: explore_program(backend, *program, in_parts=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_that_do_not_stop_the_reader_are_found(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zapros_websocket._inbox.MAX_MESSAGES", 1 << 30)
    program = ("send", 0, 0), ("settle", 0, 0), ("send in chunks", 0, 79), ("settle", 0, 0)
    finds("more parts are unread", lambda: explore_program(backend, *program, in_parts=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_message_that_is_broken_off_without_an_end_is_found(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Link, "break_off", lambda self, reason: None)  # pyright: ignore
    finds("was broken off", lambda: explore_program(backend, ("send in chunks", 0, 4), ("settle", 0, 0)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_message_between_the_fragments_of_another_is_found(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Turn, "begin_message", lambda self: None)  # pyright: ignore
    program = ("send in chunks", 0, 3), ("sleep", 0, 0), ("sleep", 0, 0), ("send", 0, 0), ("settle", 0, 0)
    finds("what came is no frame", lambda: explore_program(backend, *program))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gathered_message_that_is_lost_is_found(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writer, "write_gathered", lambda self: self._gathered.clear())  # pyright: ignore
    finds("left out", lambda: explore_program(backend, ("gather", 0, 0), sockets=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_close_in_front_of_gathered_messages_is_found(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Writer.write_gathered

    def late(self: Writer) -> bool:
        return self._session.state is session.State.OPEN and write(self)  # pyright: ignore[reportPrivateUsage]

    monkeypatch.setattr(Writer, "write_gathered", late)
    program = ("gather", 0, 9), ("settle", 0, 0)
    finds("a close went in front of a message", lambda: explore_program(backend, *program, sockets=True))


def test_an_error_of_another_class_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, data: bytes) -> list[Message]:
        raise IndexError(len(data))

    monkeypatch.setattr(session.Session, "receive", broken)
    for name in NAMES:
        with pytest.raises(IndexError):
            EXPLORERS[name](kept(name)[0])


def test_a_limit_that_does_not_hold_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = fragments.Fragments._room  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(fragments.Fragments, "_room", lambda self: refuse(self) + (1 << 20))  # pyright: ignore
    # A limit of 20 bytes, and fragments that are more.
    endless = b"\x01\x01a" + b"\x00\x01a" * 100
    with pytest.raises(AssertionError):
        any_bytes.explore(b"\x01\x00\x00\x04" + endless + b"\x80\x00")


def test_memory_that_is_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    take = session.Session.receive
    kept_on: list[bytes] = []

    def keeping(self: session.Session, data: bytes) -> list[Message]:
        kept_on.append(bytes(1000))
        return take(self, data)

    monkeypatch.setattr(session.Session, "receive", keeping)
    with pytest.raises(AssertionError, match="bytes are held"):
        any_bytes.explore(b"\x00\x00\x00\x00" + b"\x81\x01a" * 100)


def test_a_wrong_answer_that_is_accepted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake.Offer, "check", lambda self, headers: handshake.Agreement())  # pyright: ignore
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: wrong\r\n\r\n"
    with pytest.raises(AssertionError):
        answers.explore(b"\x00\x01\x00" + answer)


def test_a_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    inflate = deflate.Deflate.inflate

    def shorter(self: deflate.Deflate, data: bytes, room: int, *, final: bool) -> bytes | CloseMessage:
        inflated = inflate(self, data, room, final=final)
        return inflated[:-1] if isinstance(inflated, bytes) else inflated

    monkeypatch.setattr(deflate.Deflate, "inflate", shorter)
    with pytest.raises(AssertionError):
        for number in range(200):
            differential.explore(bytes((1, 0, 0, 0, 0, 0, 0, 0, 0, number % 9, 0, 1)) * 10)


# A limit of 20 bytes: in pieces of one byte, and at once with compression.
BY_BYTE, COMPRESSED = b"\x01\x00\x00\x00", b"\x01\x01\x03\x06"


def test_a_part_that_is_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PartsSession, "_part", lambda self, event: Part(b"", "binary", True, True))  # pyright: ignore
    for name in ("any_bytes", "differential"):
        with pytest.raises(AssertionError):
            for data in kept(name):
                EXPLORERS[name](data)


def test_too_much_in_one_call_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = COMPRESSED + frame(BINARY, deflated(bytes(4_000_000)), reserved=RSV1)
    any_bytes.explore(bomb)
    monkeypatch.setattr("zapros_websocket._protocol.parts._PIECE", 1 << 20)
    with pytest.raises(AssertionError, match="came out at once"):
        any_bytes.explore(bomb)


def test_what_is_not_handed_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    hand_out = session.Session.hand_out
    monkeypatch.setattr(session.Session, "hand_out", lambda self: (hand_out(self) or b"")[:-1])  # pyright: ignore
    with pytest.raises(AssertionError):
        any_bytes.explore(BY_BYTE + frame(BINARY, b"small"))


def test_what_came_to_its_place_and_is_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.Session, "fill", lambda self, count: [])  # pyright: ignore
    with pytest.raises(AssertionError):
        for data in kept("any_bytes"):
            any_bytes.explore(data)


# One message of a thousand bytes, whole or in chunks of a hundred.
WHOLE, IN_CHUNKS = bytes((1, 0, 11, 0, 2)), bytes((1, 0, 11, 0, 0x81, 0, 99))


def test_fragments_that_cannot_be_inflated_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    differential.send(Source(IN_CHUNKS), PerMessageDeflateExtension())
    monkeypatch.setattr("zapros_websocket._protocol.sequence.TAIL", b"")
    with pytest.raises(AssertionError):
        differential.send(Source(IN_CHUNKS), PerMessageDeflateExtension())


def test_a_message_that_is_compressed_and_does_not_say_so_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = session.Session.encode

    def silent(self: session.Session, opcode: int, payload: bytes, compress: bool | None = None) -> bytes:
        first, *rest = encode(self, opcode, payload)
        return bytes((first & ~RSV1 if compress is False else first, *rest))

    monkeypatch.setattr(session.Session, "encode", silent)
    with pytest.raises(AssertionError):
        differential.send(Source(WHOLE), PerMessageDeflateExtension())
