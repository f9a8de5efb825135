"""What one of two joined connections has received is a prefix of what the other has sent, and closed is final.

And what is unread is bounded, and nothing hangs; whatever the programs do, and whatever becomes of the network.

Two real connections, each over a pipe in memory or a pair of sockets to a relay of wsproto's server halves. A program
is a list of steps: sends, receives, pings and closes of both sides, which go on in the background; cancellations of any
of them, at any tick, natively on asyncio too; stalls, resets and ends of the network; and time that passes, by a clock
that jumps.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
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
    AsyncWebSocket,
    BinaryMessage,
    CloseMessage,
    ConnectionClosed,
    Message,
    TextMessage,
    aconnect_ws,
)
from zapros_websocket._streams.sockets import SocketStream

# As pytest-trio does: so that hypothesis knows where trio gets its order of tasks from, and can repeat it.
trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc] # pyright: ignore
register_random(trio._core._run._r)  # pyright: ignore[reportPrivateUsage]

CLOSE_TIMEOUT: Final = 2.0
# Seconds in which leaving both blocks must be done: the closing handshakes, the last words, and closing the streams.
LEFT_WITHIN: Final = 2 * CLOSE_TIMEOUT + 4
# How many messages may be unread before the reader stops: those of its queue. The pipes are in front of it.
UNREAD: Final = 1024
SMALLEST: Final = 7

BACKENDS: Final[tuple[Literal["trio"], Literal["asyncio"]]] = ("trio", "asyncio")

# Bytes that a socket takes when its buffer is as small as it can be.
BUFFER: Final = 16_384

Outcome: TypeAlias = Literal["running", "done", "cancelled", "closed"]


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
)

SIZES: Final = (0, 1, 30, 118, 119, 120, 1000, 22_000)
# Messages in a row: more than may be unread, too.
BURSTS: Final = (3, 30, 300, 1500)
SECONDS: Final = (0.01, 0.5, 3.0, 15.0, 45.0, 300.0)


@dataclass(eq=False)
class Operation:
    """A call that goes on in the background."""

    scope: anyio.CancelScope
    outcome: Outcome = "running"
    task: asyncio.Task[object] | None = None


@dataclass
class Side:
    """What one of the two has done, and what came of it."""

    ws: AsyncWebSocket
    wire: MemoryWire | SocketWire
    sent: list[tuple[Message, Operation]] = field(default_factory=list[tuple[Message, Operation]])
    received: list[Message] = field(default_factory=list[Message])
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
            self._start(side, self._send(side, min(SIZES[step.number % len(SIZES)], 24 * self._program.at_once)))
        elif step.what == "burst":
            for _ in range(min(BURSTS[step.number % len(BURSTS)], 24 * self._program.at_once)):
                self._start(side, self._send(side, 0))
                await checkpoint()
        elif step.what == "receive":
            self._start(side, self._receive(side))
        elif step.what == "ping":
            self._start(side, self._ping(side))
        elif step.what == "close":
            self._start(side, self._close(side, 3000 + step.number))
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

    def _start(self, side: Side, call: Callable[[Operation], Awaitable[None]]) -> None:
        operation = Operation(anyio.CancelScope())
        side.running.append(operation)
        self._tasks.start_soon(self._run, side, operation, call)

    async def _run(self, side: Side, operation: Operation, call: Callable[[Operation], Awaitable[None]]) -> None:
        if not trio.lowlevel.in_trio_run():
            operation.task = asyncio.current_task()
        try:
            with operation.scope:
                try:
                    await call(operation)
                    operation.outcome = "done"
                except ConnectionClosed as closed:
                    operation.outcome = "closed"
                    self._is_lawful(side, closed)
        except asyncio.CancelledError:
            # It was cancelled natively, by a step.
            assert not trio.lowlevel.in_trio_run()
        finally:
            if operation.outcome == "running":
                operation.outcome = "cancelled"
            side.running.remove(operation)

    def _send(self, side: Side, size: int) -> Callable[[Operation], Awaitable[None]]:
        async def call(operation: Operation) -> None:
            # The order of the calls is that of the wire.
            self._number += 1
            text = f"{self._number:07}" + "€" * size
            message = TextMessage(text) if self._number % 2 else BinaryMessage(text.encode())
            side.sent.append((message, operation))
            was_over = side.is_over
            try:
                await side.ws.send(message)
            except ConnectionClosed:
                side.is_over = True
                raise
            except BaseException:
                # Half of it may be on the wire, and then this connection is broken.
                self.is_excused = True
                raise
            assert not was_over, "a message was sent on a connection that was over"

        return call

    def _receive(self, side: Side) -> Callable[[Operation], Awaitable[None]]:
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
        assert not was_drained, f"{message} was received behind the end"
        if isinstance(message, CloseMessage):
            side.is_over = side.is_drained = True
        elif isinstance(message, (TextMessage, BinaryMessage)):
            side.received.append(message)

    def _ping(self, side: Side) -> Callable[[Operation], Awaitable[None]]:
        async def call(operation: Operation) -> None:
            try:
                assert await side.ws.ping() >= 0
            except ConnectionClosed:
                raise
            except BaseException:
                self.is_excused = True
                raise

        return call

    def _close(self, side: Side, code: int) -> Callable[[Operation], Awaitable[None]]:
        async def call(operation: Operation) -> None:
            began = anyio.current_time()
            # From here on what the other side sends may be left behind.
            self.is_excused = True
            side.is_over = True
            await side.ws.close(code)
            assert anyio.current_time() - began <= LEFT_WITHIN, "close took too long"
            assert side.ws.close_code is not None

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
                in_pipes = 2 * (BUFFER if self._program.sockets else self._program.capacity) // SMALLEST + 2
                assert given.given - len(side.received) <= UNREAD + in_pipes, "more is unread than the bound"
            if side.is_drained:
                end = side.ws.close_code, side.ws.close_reason
                assert end[0] is not None
                assert side.end in (None, end)
                side.end = end

    def _check_prefix(self, side: Side, other: Side) -> list[tuple[Message, Operation]]:
        """What the side has received is what the other has sent, without what was cancelled; return what is left."""
        left = iter(other.sent)
        for message in side.received:
            for sent, operation in left:
                if sent == message:
                    break
                assert operation.outcome in ("cancelled", "closed"), f"{sent} was left out in front of {message}"
            else:
                raise AssertionError(f"{message} was received, and not sent")
        return list(left)

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
            lost = [message for message, operation in left if operation.outcome == "done"]
            assert self.is_excused or not lost, f"{lost} were sent and not received"

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
            while True:
                try:
                    await self.receive(side)
                except ConnectionClosed:
                    break
            await side.ws.close()
            assert end == (side.ws.close_code, side.ws.close_reason)
        self.check()


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
    if not program.sockets:
        server = MemoryServer(capacity=program.capacity, deflate=program.deflate)
        ws = await stack.enter_async_context(
            aconnect_ws(
                "ws://test/",
                client=server.client,
                permessage_deflate=program.deflate,
                close_timeout=CLOSE_TIMEOUT,
            )
        )
        wire = MemoryWire(server.peer.stream, list(program.reads))
        return Side(ws, wire), Carrier(wire, server.peer.protocol)
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    opened.append(SocketWire(theirs, list(program.reads)))
    client = AsyncClient(handler=StreamHandler(SocketStream(ours, NO_TLS)))
    ws = await stack.enter_async_context(aconnect_ws("ws://test/", client=client, close_timeout=CLOSE_TIMEOUT))
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
