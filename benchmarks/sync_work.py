"""The workloads on threads: one thread of ours; what a library starts beside it is counted too."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Final, cast

from .library import Receive, Send, Session
from .meter import Meter, resident
from .workloads import PING_INTERVAL, Workload


def measure(opening: object, workload: Workload, meter: Meter) -> None:
    """Do the work with a library. What it cost is in the meter."""
    with cast(AbstractContextManager[Session], opening) as session:
        WORK[workload.kind](session, workload, meter)


def round_trip(session: Session, workload: Workload, meter: Meter) -> None:
    messages = workload.messages()
    with session.connect_sync() as connection:
        send, receive = session.talk_sync(connection)
        for _ in meter:
            for message in messages:
                send(message)
                receive()


def receive(session: Session, workload: Workload, meter: Meter) -> None:
    go = workload.messages()[0][:4]
    batch = range(workload.batch)
    with session.connect_sync() as connection:
        send, receive = session.talk_sync(connection)
        for _ in meter:
            send(go)
            for _ in batch:
                receive()


def send(session: Session, workload: Workload, meter: Meter) -> None:
    messages = workload.messages()
    with session.connect_sync() as connection:
        send, receive = session.talk_sync(connection)
        for _ in meter:
            for message in messages:
                send(message)
            # The server has read them all: none is left in a buffer whose cost would not be counted.
            receive()


def connect(session: Session, workload: Workload, meter: Meter) -> None:
    for _ in meter:
        for _ in range(workload.batch):
            with session.connect_sync():
                pass


def crowd(session: Session, workload: Workload, work: Callable[[list[tuple[Send, Receive]]], None]) -> float:
    """Open many connections, do what is measured, and say how many bytes each connection takes."""
    with session.connect_sync():
        pass
    before = resident()
    with ExitStack() as stack:
        talks = [session.talk_sync(stack.enter_context(session.connect_sync())) for _ in range(workload.connections)]
        work(talks)
        return (resident() - before) / workload.connections


def many(session: Session, workload: Workload, meter: Meter) -> None:
    """One thread, as much at once as it can: a message on each connection, then the answer of each."""
    message = workload.messages()[0]

    def work(talks: list[tuple[Send, Receive]]) -> None:
        laps = 0
        for warm in (True, False):
            if not warm:
                meter.start()
                laps = 0
            until = time.perf_counter() + meter.seconds
            while time.perf_counter() < until:
                for send, _ in talks:
                    send(message)
                for _, receive in talks:
                    receive()
                laps += 1
        meter.stop(laps * len(talks))

    memory = crowd(session, workload, work)
    meter.reading = replace(meter.reading, memory=memory)


def idle(session: Session, workload: Workload, meter: Meter) -> None:
    def work(talks: list[tuple[Send, Receive]]) -> None:
        time.sleep(PING_INTERVAL)
        meter.start()
        # Whole intervals: each connection sends as many pings as any other.
        intervals = max(2, round(meter.seconds / PING_INTERVAL))
        time.sleep(intervals * PING_INTERVAL)
        meter.stop(len(talks) * intervals * PING_INTERVAL)

    memory = crowd(session, workload, work)
    meter.reading = replace(meter.reading, memory=memory)


WORK: Final[dict[str, Callable[[Session, Workload, Meter], None]]] = {
    "round trip": round_trip,
    "receive": receive,
    "send": send,
    "connect": connect,
    "many": many,
    "idle": idle,
}
