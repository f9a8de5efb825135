"""The workloads on trio and asyncio. What is measured touches nothing but the connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final, cast

import anyio
from anyio import CapacityLimiter, Event, create_task_group, sleep

from .library import AsyncReceive, AsyncSend, Session
from .meter import Meter, resident
from .workloads import PING_INTERVAL, Workload

# Connections that are being opened at once.
OPENING: Final = 20


async def measure(opening: object, workload: Workload, meter: Meter) -> None:
    """Do the work with a library. What it cost is in the meter."""
    work = WORK[workload.kind]
    async with cast(AbstractAsyncContextManager[Session], opening) as session:
        await work(session, workload, meter)


async def round_trip(session: Session, workload: Workload, meter: Meter) -> None:
    messages = workload.messages()
    async with session.connect_async() as connection:
        send, receive = session.talk_async(connection)
        for _ in meter:
            for message in messages:
                await send(message)
                await receive()


async def receive(session: Session, workload: Workload, meter: Meter) -> None:
    go = workload.messages()[0][:4]
    batch = range(workload.batch)
    async with session.connect_async() as connection:
        send, receive = session.talk_async(connection)
        for _ in meter:
            await send(go)
            for _ in batch:
                await receive()


async def send(session: Session, workload: Workload, meter: Meter) -> None:
    messages = workload.messages()
    async with session.connect_async() as connection:
        send, receive = session.talk_async(connection)
        for _ in meter:
            for message in messages:
                await send(message)
            # The server has read them all: none is left in a buffer whose cost would not be counted.
            await receive()


async def connect(session: Session, workload: Workload, meter: Meter) -> None:
    for _ in meter:
        for _ in range(workload.batch):
            async with session.connect_async():
                pass


class Crowd:
    """Many connections, each in a task of its own, that open together and start together."""

    def __init__(self, session: Session, size: int) -> None:
        self._session = session
        self._size = size
        self._open = 0
        self._all_open = Event()
        self._end = Event()
        self._limiter = CapacityLimiter(OPENING)

    async def run(self, member: Callable[[AsyncSend, AsyncReceive], Awaitable[None]], measure: AsyncReceive) -> float:
        """Open them, do what is measured, and say how many bytes each connection takes."""
        # What the first connection alone needs is none of the others'.
        async with self._session.connect_async():
            pass
        before = after = resident()
        async with create_task_group() as tasks:
            for _ in range(self._size):
                tasks.start_soon(self._member, member)
            await self._all_open.wait()
            await measure()
            after = resident()
            self._end.set()
        return (after - before) / self._size

    async def _member(self, member: Callable[[AsyncSend, AsyncReceive], Awaitable[None]]) -> None:
        async with self._limiter:
            manager = self._session.connect_async()
            connection = await manager.__aenter__()
        try:
            self._open += 1
            if self._open == self._size:
                self._all_open.set()
            await member(*self._session.talk_async(connection))
            await self._end.wait()
        finally:
            await manager.__aexit__(None, None, None)


async def many(session: Session, workload: Workload, meter: Meter) -> None:
    message = workload.messages()[0]
    count = 0
    begin = Event()
    end = False

    async def member(send: AsyncSend, receive: AsyncReceive) -> None:
        nonlocal count
        await begin.wait()
        while not end:
            await send(message)
            await receive()
            count += 1

    async def measured() -> None:
        nonlocal end
        begin.set()
        await sleep(meter.seconds)
        meter.start()
        before = count
        await sleep(meter.seconds)
        meter.stop(count - before)
        end = True
        # Each is in the middle of a round trip, which comes to its end.
        await sleep(0.1)

    memory = await Crowd(session, workload.connections).run(member, measured)
    meter.reading = replace(meter.reading, memory=memory)


async def idle(session: Session, workload: Workload, meter: Meter) -> None:
    async def member(send: AsyncSend, receive: AsyncReceive) -> None:
        pass

    async def measured() -> None:
        await sleep(PING_INTERVAL)
        meter.start()
        # Whole intervals: each connection sends as many pings as any other.
        intervals = max(2, round(meter.seconds / PING_INTERVAL))
        await anyio.sleep(intervals * PING_INTERVAL)
        meter.stop(workload.connections * intervals * PING_INTERVAL)

    memory = await Crowd(session, workload.connections).run(member, measured)
    meter.reading = replace(meter.reading, memory=memory)


WORK: Final[dict[str, Callable[[Session, Workload, Meter], Awaitable[None]]]] = {
    "round trip": round_trip,
    "receive": receive,
    "send": send,
    "connect": connect,
    "many": many,
    "idle": idle,
}
