"""What one of two joined connections has received is a prefix of what the other has sent, and closed is final.

And what is unread is bounded, and nothing hangs; whatever the programs do, and whatever becomes of the network. What is
received in chunks is a prefix of a message, and all of it unless it was left; a message that is broken off breaks the
connection, and nothing else does that is cancelled before it has begun; a closing handshake comes behind all that was
sent.

Two real connections, each over a pipe in memory or a pair of sockets to a relay of wsproto's server halves. A program
is a list of steps: sends, whole, in chunks and many in one turn, receives, pings and closes of both sides, which go on
in the background; cancellations of any of them, at any tick, natively on asyncio too; stalls, resets and ends of the
network; and time that passes, by a clock that jumps.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Final, Literal, TypeAlias

import anyio
import anyio.abc
import pytest
import trio
from anyio.lowlevel import checkpoint
from hypothesis import register_random
from hypothesis import strategies as st
from zapros import AsyncClient

from tests.memory import MemoryServer, StreamHandler, autojump
from tests.relay import NO_TLS, MemoryWire, Relay, SocketWire
from tests.relay import Side as Carrier
from zapros_websocket import (
    AsyncIncomingMessage,
    AsyncWebSocket,
    BinaryMessage,
    CloseMessage,
    ConnectionClosed,
    LargeMessageError,
    TextMessage,
    aconnect_ws,
)
from zapros_websocket._streams.sockets import SocketStream

from .chunks import BrokenOffError, Chunks

# As pytest-trio does: so that hypothesis knows where trio gets its order of tasks from, and can repeat it.
trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc] # pyright: ignore
register_random(trio._core._run._r)  # pyright: ignore[reportPrivateUsage]

CLOSE_TIMEOUT: Final = 2.0
# Seconds in which leaving both blocks must be done: the closing handshakes, the last words, and closing the streams.
LEFT_WITHIN: Final = 2 * CLOSE_TIMEOUT + 4
# How many messages may be unread before the reader stops: those of its queue. The pipes are in front of it.
UNREAD: Final = 1024
SMALLEST: Final = 7
SMALLEST_PIECE: Final = 3
# The largest message that comes whole where large ones come in parts, in bytes.
WHOLE: Final = 500

BACKENDS: Final[tuple[Literal["trio"], Literal["asyncio"]]] = ("trio", "asyncio")

# Bytes that a socket takes when its buffer is as small as it can be.
BUFFER: Final = 16_384

Outcome: TypeAlias = Literal["running", "done", "cancelled", "closed"]
Data: TypeAlias = "str | bytes"


@dataclass(frozen=True)
class Step:
    """Something that happens, on one of the two sides."""

    what: str
    side: int
    number: int


@dataclass(frozen=True)
class Program:
    """What happens, and over which network."""

    steps: tuple[Step, ...]
    capacity: int
    reads: tuple[int, ...]
    deflate: bool
    sockets: bool
    in_parts: bool = False

    @property
    def at_once(self) -> int:
        """How many bytes get on at once at most: what goes in small steps is kept short."""
        return max(self.reads) if self.sockets else min(self.capacity, max(self.reads))


WEIGHTED: Final = [
    *["send"] * 6,
    *["receive"] * 6,
    *["tick"] * 3,
    *["settle"] * 3,
    *["cancel"] * 4,
    *["cancel natively"] * 3,
    *["send in chunks"] * 3,
    *["receive in chunks"] * 3,
    *["gather"] * 2,
    "burst",
    "ping",
    "sleep",
    "stall",
    "resume",
    "reset",
    "end",
    "close",
]

steps = st.builds(Step, st.sampled_from(WEIGHTED), st.integers(0, 1), st.integers(0, 1000))
programs = st.builds(
    Program,
    steps=st.lists(steps, max_size=40).map(tuple),
    capacity=st.sampled_from([1, 7, 64, 1000, 4096]),
    reads=st.lists(st.sampled_from([1, 2, 3, 5, 64, 4096]), min_size=1, max_size=4).map(tuple),
    deflate=st.booleans(),
    sockets=st.booleans(),
    in_parts=st.booleans(),
)

SIZES: Final = (0, 1, 30, 118, 119, 120, 1000, 22_000)
# Messages in a row: more than may be unread, too.
BURSTS: Final = (3, 30, 300, 1500)
CHUNKS: Final = (1, 2, 3, 30, 3000)
COMPRESS: Final = (None, True, False)
# Seconds after which who hurries asks anew for a chunk, and how often.
HURRY: Final = 0.001
HURRIES: Final = 4
SECONDS: Final = (0.01, 0.5, 3.0, 15.0, 45.0, 300.0)


@dataclass(eq=False)
class Operation:
    """A call that goes on in the background."""

    scope: anyio.CancelScope
    task: asyncio.Task[object] | None = None


Call: TypeAlias = Callable[[Operation], Awaitable[None]]


@dataclass(eq=False)
class Sent:
    """A message, or what an iterable gives of one that breaks off."""

    data: Data
    is_whole: bool = True
    outcome: Outcome = "running"


@dataclass(eq=False)
class Received:
    """A message, or what was taken of it."""

    data: Data
    is_whole: bool = True

    def add(self, chunk: Data) -> None:
        assert chunk, "a chunk was empty"
        assert type(chunk) is type(self.data)
        self.data += chunk  # type: ignore[operator]  # pyright: ignore

    def fits(self, sent: Sent) -> bool:
        """Whether it can be what was sent."""
        if self.is_whole:
            return sent.is_whole and self.data == sent.data
        if isinstance(self.data, str):
            return isinstance(sent.data, str) and sent.data.startswith(self.data)
        return isinstance(sent.data, bytes) and sent.data.startswith(self.data)


@dataclass
class Side:
    """What one of the two has done, and what came of it."""

    ws: AsyncWebSocket
    wire: MemoryWire | SocketWire
    sent: list[Sent] = field(default_factory=list[Sent])
    received: list[Received] = field(default_factory=list[Received])
    running: list[Operation] = field(default_factory=list[Operation])
    # A call has said that nothing more can be sent, or received.
    is_over: bool = False
    is_drained: bool = False
    end: tuple[int | None, str | None] | None = None


class World:
    """Both sides, the relay between them, and the rules."""

    def __init__(self, sides: tuple[Side, Side], relay: Relay, tasks: anyio.abc.TaskGroup, program: Program) -> None:
        self.sides = sides
        self.relay = relay
        # Whether anything has happened that may cost a connection.
        self.is_excused = False
        self._tasks = tasks
        self._program = program
        self._number = 0

    async def do(self, step: Step) -> None:
        side = self.sides[step.side]
        if step.what == "send":
            self._start(side, self._send(side, step.number))
        elif step.what == "burst":
            for _ in range(self._bounded(BURSTS[step.number % len(BURSTS)])):
                self._start(side, self._send(side, 0))
                await checkpoint()
        elif step.what == "gather":
            self._start(side, self._gather(step.side, step.number))
        elif step.what == "send in chunks":
            self._start(side, self._send_chunks(side, step.number))
        elif step.what == "receive":
            self._start(side, self._receive(side))
        elif step.what == "receive in chunks":
            self._start(side, self._receive_chunks(side, step.number))
        elif step.what == "ping":
            self._start(side, self._ping(side))
        elif step.what == "close":
            self._start(side, self._close(step.side, step.number))
        elif step.what == "tick":
            for _ in range(1 + step.number % 7):
                await checkpoint()
        elif step.what == "settle":
            await anyio.wait_all_tasks_blocked()
        elif step.what == "sleep":
            # Keepalive of one side can be in vain while the relay waits for the other to read.
            self.is_excused = True
            await anyio.sleep(SECONDS[step.number % len(SECONDS)])
        elif step.what in ("cancel", "cancel natively"):
            self._cancel(side, step.number, natively=step.what == "cancel natively")
        elif step.what == "stall":
            self.relay.sides[step.side].stall()
        elif step.what == "resume":
            self.relay.sides[step.side].resume()
        else:
            self.is_excused = True
            if step.what == "reset":
                await side.wire.reset()
            else:
                await side.wire.end()
        self.check()

    def _start(self, side: Side, call: Call) -> None:
        operation = Operation(anyio.CancelScope())
        side.running.append(operation)
        self._tasks.start_soon(self._run, side, operation, call)

    async def _run(self, side: Side, operation: Operation, call: Call) -> None:
        if not trio.lowlevel.in_trio_run():
            operation.task = asyncio.current_task()
        try:
            with operation.scope:
                try:
                    await call(operation)
                except ConnectionClosed as closed:
                    self._is_lawful(side, closed)
        except asyncio.CancelledError:
            # It was cancelled natively, by a step.
            assert not trio.lowlevel.in_trio_run()
        finally:
            side.running.remove(operation)

    # Sending

    def _send(self, side: Side, number: int) -> Call:
        async def call(operation: Operation) -> None:
            await self.send(side, self._new_data(SIZES[number % len(SIZES)]), COMPRESS[number % len(COMPRESS)])

        return call

    def _gather(self, number_of_side: int, number: int) -> Call:
        """Many in a row in one turn, or as many as it allows; and a cancellation or a close between two of them."""
        side = self.sides[number_of_side]
        count = self._bounded(BURSTS[number % len(BURSTS)])

        async def call(operation: Operation) -> None:
            for place in range(count):
                if place == count // 2:
                    if number % 5 == 3:
                        operation.scope.cancel()
                    elif number % 5 == 4:
                        await self._close(number_of_side, number)(operation)
                await self.send(side, self._new_data(number % 3), None)

        return call

    async def send(self, side: Side, data: Data, compress: bool | None) -> None:
        # The order of the calls is that of the wire.
        sent = Sent(data)
        side.sent.append(sent)
        with self._sending(side, [sent]):
            message = TextMessage(data) if isinstance(data, str) else BinaryMessage(data)
            await side.ws.send(message, compress=compress)

    def _send_chunks(self, side: Side, number: int) -> Call:
        async def call(operation: Operation) -> None:
            data = self._new_data(SIZES[number % len(SIZES)])
            count = CHUNKS[number % len(CHUNKS)]
            breaks_at = number % 7 if number % 4 == 0 else None
            sent: list[Sent] = []

            def begins(what_there_is: Data) -> None:
                # Nobody waits for a message before its first chunk has come.
                sent.append(Sent(what_there_is, is_whole=not chunks.breaks))
                side.sent.append(sent[0])

            chunks = Chunks(data, count, breaks_at, begins)
            try:
                with self._sending(side, sent):
                    if number % 3:
                        await side.ws.send(chunks, compress=COMPRESS[number % len(COMPRESS)])
                    else:
                        async with aclosing(chunks.slowly()) as slow:
                            await side.ws.send(slow)
            except BrokenOffError:
                assert chunks.breaks
            else:
                assert not chunks.breaks
            finally:
                if chunks.is_begun and not chunks.is_ended:
                    is_closed = side.is_over or side.ws.close_code is not None
                    assert is_closed, "a message was broken off, and the connection goes on"
                    side.is_over = True

        return call

    @contextmanager
    def _sending(self, side: Side, sent: list[Sent]) -> Generator[None, None, None]:
        was_over = side.is_over
        outcome: Outcome = "cancelled"
        try:
            yield
            assert not was_over, "a message was sent on a connection that was over"
            outcome = "done"
        except ConnectionClosed:
            side.is_over = True
            outcome = "closed"
            raise
        finally:
            for message in sent:
                message.outcome = outcome
            self._excuse_what_is_broken(side)

    def _excuse_what_is_broken(self, side: Side) -> None:
        # Half of a frame may be on the wire; but what has not begun has no effect.
        if side.ws.close_code is not None:
            self.is_excused = True

    def _new_data(self, size: int) -> Data:
        self._number += 1
        text = f"{self._number:07}" + "€" * self._bounded(size)
        return text if self._number % 2 else text.encode()

    def _bounded(self, count: int) -> int:
        return min(count, 24 * self._program.at_once)

    # Receiving

    def _receive(self, side: Side) -> Call:
        async def call(operation: Operation) -> None:
            await self.receive(side)

        return call

    async def receive(self, side: Side) -> None:
        was_drained = side.is_drained
        try:
            message = await side.ws.recv()
        except ConnectionClosed:
            side.is_over = side.is_drained = True
            raise
        except LargeMessageError:
            await self.receive_chunks(side)
            return
        assert not was_drained, f"{message} was received behind the end"
        if isinstance(message, CloseMessage):
            side.is_over = side.is_drained = True
        elif isinstance(message, (TextMessage, BinaryMessage)):
            side.received.append(Received(message.data))

    def _receive_chunks(self, side: Side, number: int) -> Call:
        async def call(operation: Operation) -> None:
            await self.receive_chunks(
                side, most=number % 4 if number % 3 == 1 else inf, hurries=HURRIES if number % 3 == 2 else 0
            )

        return call

    async def receive_chunks(self, side: Side, *, most: float = inf, hurries: int = 0) -> None:
        """Receive a message in chunks, but not more than ``most``."""
        was_drained = side.is_drained
        try:
            async with side.ws.recv_chunks() as message:
                assert not was_drained, "a message was received behind the end"
                received = Received("" if message.kind == "text" else b"", is_whole=False)
                side.received.append(received)
                await self._take_chunks(message, received, most, hurries)
        except ConnectionClosed:
            side.is_over = side.is_drained = True
            raise

    async def _take_chunks(self, message: AsyncIncomingMessage, received: Received, most: float, hurries: int) -> None:
        taken = 0
        while taken < most:
            with anyio.move_on_after(HURRY if hurries else None):
                hurries -= bool(hurries)
                try:
                    received.add(await message.__anext__())
                except StopAsyncIteration:
                    received.is_whole = True
                    return
                taken += 1

    # What else they do

    def _ping(self, side: Side) -> Call:
        async def call(operation: Operation) -> None:
            try:
                assert await side.ws.ping() >= 0
            finally:
                self._excuse_what_is_broken(side)

        return call

    def _close(self, number_of_side: int, number: int) -> Call:
        side = self.sides[number_of_side]
        code = 3000 + 1000 * number_of_side + number % 1000

        async def call(operation: Operation) -> None:
            began = anyio.current_time()
            done = sum(sent.outcome == "done" for sent in side.sent)
            # From here on what the other side sends may be left behind.
            self.is_excused = True
            side.is_over = True
            await side.ws.close(code)
            assert anyio.current_time() - began <= LEFT_WITHIN, "close took too long"
            assert side.ws.close_code is not None
            if side.ws.close_code == code:
                # The relay has answered, in the order in which it reads.
                assert self.relay.sides[number_of_side].taken >= done, "a close went in front of a message"

        return call

    def _cancel(self, side: Side, number: int, *, natively: bool) -> None:
        if side.running:
            operation = side.running[number % len(side.running)]
            if natively and operation.task is not None:
                operation.task.cancel()
            else:
                operation.scope.cancel()

    def _is_lawful(self, side: Side, closed: ConnectionClosed) -> None:
        assert self.is_excused, f"{closed} without a reason"

    # What holds all the time

    def check(self) -> None:
        for side, other, given in zip(self.sides, self.sides[::-1], self.relay.sides, strict=True):
            self._check_prefix(side, other)
            if not side.is_over and side.ws.close_code is None:
                in_pipes = 2 * (BUFFER if self._program.sockets else self._program.capacity)
                assert given.given - len(side.received) <= UNREAD + in_pipes // SMALLEST + 2, (
                    "more is unread than the bound"
                )
                if self._program.in_parts and not self._program.deflate and given.begun > len(side.received):
                    # Nobody has begun to take the newest: what there is of it lies in parts, but for the first.
                    assert given.pieces <= UNREAD + WHOLE + in_pipes // SMALLEST_PIECE, "more parts are unread"
            if side.is_drained:
                end = side.ws.close_code, side.ws.close_reason
                assert end[0] is not None
                assert side.end in (None, end)
                side.end = end

    def _check_prefix(self, side: Side, other: Side) -> list[Sent]:
        """What the side has received is what the other has sent, without what was cancelled; return what is left."""
        # What was taken of a message can be the beginning of more than one of those that were cancelled.
        places = {0}
        for received in side.received:
            places = {behind for place in places for behind in _places_behind(received, other.sent, place)}
            assert places, f"{received} was not sent, or something was left out in front of it"
        return other.sent[max(places) :]

    # The end

    async def drain(self) -> None:
        """Let everything go on, receive what comes, and see that nothing was lost without a reason."""
        for carrier in self.relay.sides:
            carrier.resume()
        async with anyio.create_task_group() as tasks:
            for side in self.sides:
                tasks.start_soon(self._drain, side)
        self.check()
        for side, other in zip(self.sides, self.sides[::-1], strict=True):
            left = self._check_prefix(side, other)
            lost = [sent for sent in left if sent.outcome == "done"]
            assert self.is_excused or not lost, f"{lost} were sent, and left out"

    async def _drain(self, side: Side) -> None:
        try:
            while True:
                with anyio.move_on_after(1.0) as scope:
                    await self.receive(side)
                if scope.cancelled_caught:
                    return
        except ConnectionClosed as closed:
            self._is_lawful(side, closed)

    async def check_final(self) -> None:
        """Closed is final."""
        self.is_excused = True
        for side in self.sides:
            end = side.ws.close_code, side.ws.close_reason
            assert end[0] is not None
            assert not side.is_drained or side.end == end
            for _ in range(2):
                with pytest.raises(ConnectionClosed):
                    await side.ws.send("late")
            with pytest.raises(ConnectionClosed):
                await side.ws.send(iter(["late"]))
            while True:
                try:
                    await self.receive(side)
                except ConnectionClosed:
                    break
            await side.ws.close()
            assert end == (side.ws.close_code, side.ws.close_reason)
        self.check()


def _places_behind(received: Received, sent: list[Sent], start: int) -> Iterator[int]:
    """Behind which of the messages, from ``start`` on, it can have been received."""
    for place in range(start, len(sent)):
        if received.fits(sent[place]):
            yield place + 1
            if received.is_whole:
                return
        if sent[place].outcome not in ("cancelled", "closed"):
            return


def run(program: Program, backend: Literal["trio", "asyncio"]) -> None:
    """Run a program; raise AssertionError where a rule is broken."""
    name, options = autojump(backend)
    anyio.run(_run, program, backend=name, backend_options=options)


async def _run(program: Program) -> None:
    opened: list[SocketWire] = []
    try:
        await _run_on(program, opened)
    finally:
        for wire in opened:
            await wire.stream.close()


async def _connect(program: Program, opened: list[SocketWire], stack: AsyncExitStack) -> tuple[Side, Carrier]:
    """One connection, and the relay's side of it."""
    connect = partial(
        aconnect_ws,
        "ws://test/",
        close_timeout=CLOSE_TIMEOUT,
        max_message_size=WHOLE if program.in_parts else 1 << 20,
        stream_large_messages=program.in_parts,
    )
    if not program.sockets:
        server = MemoryServer(capacity=program.capacity, deflate=program.deflate)
        ws = await stack.enter_async_context(connect(client=server.client, permessage_deflate=program.deflate))
        wire = MemoryWire(server.peer.stream, list(program.reads))
        return Side(ws, wire), Carrier(wire, server.peer.protocol)
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    opened.append(SocketWire(theirs, list(program.reads)))
    client = AsyncClient(handler=StreamHandler(SocketStream(ours, NO_TLS)))
    ws = await stack.enter_async_context(connect(client=client))
    return Side(ws, opened[-1]), Carrier(opened[-1])


async def _run_on(program: Program, opened: list[SocketWire]) -> None:
    async with anyio.create_task_group() as network:
        async with AsyncExitStack() as stack:
            first, first_carrier = await _connect(program, opened, stack)
            second, second_carrier = await _connect(program, opened, stack)
            relay = Relay(first_carrier, second_carrier)
            network.start_soon(relay.carry, 0)
            network.start_soon(relay.carry, 1)
            async with anyio.create_task_group() as tasks:
                world = World((first, second), relay, tasks, program)
                for step in program.steps:
                    await world.do(step)
                await world.drain()
                tasks.cancel_scope.cancel()
            began = anyio.current_time()
        assert anyio.current_time() - began <= LEFT_WITHIN, "leaving took too long"
        await world.check_final()
        network.cancel_scope.cancel()
