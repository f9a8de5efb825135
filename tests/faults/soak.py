"""Mixed traffic through a network that misbehaves at random, for as long as you like: ``python -m tests.faults.soak``.

Real servers, plain and with TLS, stand behind the proxy, which cuts, delays, drops and breaks each connection as the
seed has it. Many connections talk at once, and each is opened anew when it has ended. Every message has a number in it:

- what comes back on a connection is what was sent on it, in order, nothing lost and nothing doubled, up to its end;
- a connection that ends in order has brought everything back;
- a connection that does not ends with one of the documented errors, and with no other exception;
- at the end there is no descriptor and no thread more than at the beginning, and memory did not grow.
"""

from __future__ import annotations

import argparse
import random
import secrets
import statistics
import tempfile
import time
from collections import Counter, deque
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import zapros

from zapros_websocket import (
    AsyncWebSocket,
    BinaryMessage,
    CloseMessage,
    ConnectionClosed,
    HandshakeError,
    Message,
    PingMessage,
    PongMessage,
    TextMessage,
    aconnect_ws,
)

from .measure import Belongings
from .proxy import Line, Plan
from .stage import World
from .steps import pattern
from .surfaces import trusting

# Messages that are on their way there or back, at most.
OUTSTANDING: Final = 64
PATTERN: Final = pattern(300_000)
# MiB by which the memory of the last quarter may be above that of the second.
GROWTH: Final = 12.0


@dataclass
class Tally:
    """What has happened so far."""

    ends: Counter[str] = field(default_factory=Counter[str])
    sent: int = 0
    received: int = 0
    received_bytes: int = 0
    given_up: int = 0
    samples: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])

    def growth(self) -> float:
        """MiB by which memory has grown, from the second quarter of the time to the last."""
        if len(self.samples) < 8:
            return 0.0
        begin, end = self.samples[0][0], self.samples[-1][0]
        quarter = (end - begin) / 4
        second = [mib for at, mib in self.samples if begin + quarter <= at < begin + 2 * quarter]
        last = [mib for at, mib in self.samples if at >= end - quarter]
        return statistics.median(last) - statistics.median(second)

    def __str__(self) -> str:
        ends = ", ".join(f"{end}: {number}" for end, number in self.ends.most_common())
        return (
            f"{self.ends.total()} connections ({ends}); "
            f"{self.sent} messages sent, {self.received} received and checked "
            f"({self.received_bytes / 2**20:.1f} MiB); recv given up {self.given_up} times; "
            f"memory {self.growth():+.1f} MiB from the second quarter to the last"
        )


class Conversation:
    """One connection: numbered messages there, and the same ones back."""

    def __init__(self, ws: AsyncWebSocket, dice: random.Random, tally: Tally) -> None:
        self._ws = ws
        self._dice = dice
        self._tally = tally
        self._number = dice.choice((1, 10, 100, 1000))
        self._outstanding: deque[Message] = deque()
        self._room = anyio.Semaphore(OUTSTANDING)
        # A slow consumer, or one that gives recv up all the time, or an ordinary one.
        self._habit = dice.choice(("slow", "impatient", "", ""))

    async def hold(self) -> None:
        """Say all there is to say, and hear all of it again."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send)
            for _ in range(self._number):
                message = await self._recv()
                assert message == self._outstanding.popleft(), "lost, doubled or changed"
                self._room.release()
                self._tally.received += 1
                assert isinstance(message, (TextMessage, BinaryMessage))
                self._tally.received_bytes += len(message.data)
        assert not self._outstanding

    async def _send(self) -> None:
        for n in range(self._number):
            await self._room.acquire()
            size = self._dice.choice((0, 10, 100, 1000, 10_000)) if self._dice.random() < 0.98 else 250_000
            payload = b"%d " % n + PATTERN[n % 100 : n % 100 + size]
            message = TextMessage(payload.decode()) if n % 2 else BinaryMessage(payload)
            self._outstanding.append(message)
            await self._ws.send(message)
            self._tally.sent += 1
            await anyio.sleep(self._dice.expovariate(100))

    async def _recv(self) -> Message:
        while True:
            message = await self._recv_by_habit()
            if isinstance(message, CloseMessage):
                # The servers go only when the network has told them that this side had gone.
                raise ConnectionClosed(message.code, message.reason, received=message)
            if message is not None and not isinstance(message, (PingMessage, PongMessage)):
                return message

    async def _recv_by_habit(self) -> Message | None:
        if self._habit == "slow" and self._dice.random() < 0.1:
            await anyio.sleep(0.1)
        if self._habit != "impatient":
            return await self._ws.recv()
        with anyio.move_on_after(0.002):
            return await self._ws.recv()
        self._tally.given_up += 1
        return None


class Soak:
    """All the connections, until the time is over."""

    def __init__(self, world: World, seed: int, seconds: float) -> None:
        self.tally = Tally()
        self._world = world
        self._seed = seed
        self._ends_at = time.monotonic() + seconds

    async def run(self, connections: int) -> None:
        """Keep so many connections going."""
        wild = Plan(seed=self._seed)
        with (
            Line(self._world.proxy().port, self._world.server(tls=False).port, wild, wild) as plain,
            Line(self._world.proxy().port, self._world.server(tls=True).port, wild, wild) as secure,
        ):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._sample)
                for number in range(connections):
                    dice = random.Random(f"{self._seed} {number}")
                    urls = [f"ws://127.0.0.1:{plain}/echo", f"wss://127.0.0.1:{secure}/echo"]
                    tasks.start_soon(self._one_after_the_other, dice, urls)

    async def _one_after_the_other(self, dice: random.Random, urls: list[str]) -> None:
        while time.monotonic() < self._ends_at:
            self.tally.ends[await self._one(dice, dice.choice(urls))] += 1
            await anyio.sleep(dice.uniform(0, 0.1))

    async def _one(self, dice: random.Random, url: str) -> str:
        """How one connection ended."""
        ended: zapros.ZaprosError | None = None
        ws: AsyncWebSocket | None = None
        try:
            async with AsyncExitStack() as stack:
                client = trusting(self._world.trust) if url.startswith("wss:") else None
                if client is not None:
                    stack.push_async_callback(client.aclose)
                ws = await stack.enter_async_context(
                    aconnect_ws(
                        url,
                        client=client,
                        permessage_deflate=dice.random() < 0.3,
                        ping_interval=2,
                        ping_timeout=2,
                        open_timeout=5,
                        close_timeout=2,
                    )
                )
                await Conversation(ws, dice, self.tally).hold()
        except zapros.ZaprosError as error:
            ended = error
        except BaseException as error:
            # The group of the conversation is the test's own: it may hold what sending and receiving have raised.
            inner = list(getattr(error, "exceptions", []))
            if not inner or not all(isinstance(each, ConnectionClosed) for each in inner):
                raise
            ended = inner[0]
        if ended is None:
            assert ws is not None
            return f"all said, closed with {ws.close_code}"
        if isinstance(ended, ConnectionClosed):
            return f"closed with {int(ended.code)}"
        return "no handshake" if isinstance(ended, HandshakeError) else type(ended).__name__

    async def _sample(self) -> None:
        while time.monotonic() < self._ends_at:
            self.tally.samples.append((time.monotonic(), Belongings.now().kibibytes / 1024))
            await anyio.sleep(0.5)


def soak(world: World, *, backend: str, seed: int, seconds: float, connections: int) -> Tally:
    """Run, and hold it to what the top of the module says."""

    async def warm_up() -> None:
        # What is made once, such as the threads of the event loop, is there before anything is counted.
        await Soak(world, seed, 0.5).run(2)

    anyio.run(warm_up, backend=backend)
    before = Belongings.now()
    run = Soak(world, seed, seconds)
    anyio.run(partial(run.run, connections), backend=backend)
    after = Belongings.now()
    assert run.tally.received > 0
    assert after.descriptors <= before.descriptors
    assert after.threads <= before.threads
    assert run.tally.growth() < GROWTH
    return run.tally


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--backend", choices=("trio", "asyncio"), default="trio")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.backend}, {arguments.connections} connections", flush=True)
    with tempfile.TemporaryDirectory() as folder, World(Path(folder)) as world:
        tally = soak(
            world,
            backend=arguments.backend,
            seed=arguments.seed,
            seconds=arguments.minutes * 60,
            connections=arguments.connections,
        )
    print(tally)


if __name__ == "__main__":
    main()
