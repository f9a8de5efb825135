"""The run: in each round every client once, in an order that is drawn anew, on cores of their own."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from .clients import Client
from .machine import machine, versions
from .process import LeftOut, run
from .results import Results
from .server import Server
from .workloads import Workload


def cores() -> tuple[int | None, int | None]:
    """One for the server and one for the client; none when there is only one."""
    available = sorted(os.sched_getaffinity(0))
    return (available[0], available[-1]) if len(available) > 1 else (None, None)


def measure(
    clients: list[Client],
    workloads: list[Workload],
    *,
    rounds: int,
    seconds: float,
    save_to: Path | None,
    started: Callable[[Results], None],
) -> Iterator[tuple[Results, str]]:
    """Yields after each workload what there is by then, which has also been saved, and the name of the workload."""
    results = Results(machine(), versions())
    started(results)
    chance = random.Random()
    for_server, for_client = cores()
    with Server(for_server) as place:
        for workload in workloads:
            taking_part = [client for client in clients if client.can(workload)]
            for number in range(rounds):
                chance.shuffle(taking_part)
                for client in tuple(taking_part):
                    try:
                        reading = run(client, workload, seconds, place, for_client)
                    except LeftOut as reason:
                        # Once is enough: what fails in one round would be missing in its ratios anyway.
                        results.leave_out(workload.name, client.name, str(reason))
                        taking_part.remove(client)
                    else:
                        results.add(workload.name, client.name, number, reading)
            if save_to is not None:
                results.save(save_to)
            yield results, workload.name
